"""From a file or a frame to a `Sample`, from a sample to a template."""

import os

# ONNX Runtime would keep a device id and report to its maker; it reads this once, when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
