"""Where networks come from, files that other packages carry, and how ONNX Runtime runs them."""

import hashlib
import importlib.metadata
from pathlib import Path

import onnxruntime

from capture.errors import ModelUnavailable


def carried_file(package: str, version: str, name: str, sha256: str, what: str) -> Path:
    """A file of an installed package whose code is never imported; `what` it carries is told in refusals.

    Raises `ModelUnavailable` unless it is the exact file of the exact version. Cost: reads it once.
    """
    advice = f"install {package}=={version}, which carries {what}"
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelUnavailable(f"the package {package} is missing: {advice}") from error
    if found.version != version:
        raise ModelUnavailable(f"{package} {found.version} is installed: {advice}")
    path = Path(str(found.locate_file(name)))
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"{name} is not readable: {advice}") from error
    if digest != sha256:
        raise ModelUnavailable(f"{name} is not the expected file: {advice}")
    return path


def session(model: bytes | Path, what: str) -> onnxruntime.InferenceSession:
    """A model, its bytes or file, ready to run on the calling thread; `what` it is told in refusals.

    Raises `ModelUnavailable`.
    """
    options = onnxruntime.SessionOptions()
    # Parallelism comes from running several images at once; waiting threads must not burn a core.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelUnavailable(f"ONNX Runtime does not load {what}: {error}") from error
