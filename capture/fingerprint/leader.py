"""The LEADER network: a fingerprint image to minutiae scores, through ONNX Runtime.

R. Cappelli, "LEADER: Lightweight End-to-end Attention-gated Dual autoencodER for robust minutiae
extraction", arXiv 2602.15493. MIT licence; 0.95 M parameters. The weights are a data file of the Python
package `afis`, whose code is never imported.
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from capture.errors import ModelUnavailable

_PACKAGE = "afis"
_VERSION = "1.2.7"
_FILE = "afis/weights/leader/LEADER.onnx"
_SHA256 = "da96e1221eea4afdf153997d6c4854ed306c146cfac76046e66cdecc14b2a1bb"
_MULTIPLE = 32


@dataclass(frozen=True, slots=True, eq=False)
class LeaderMap:
    """What the network says of every pixel, each `(H, W) float32`, read-only.

    `score` is 0 but at the local maxima of minutia likelihood (0 to 1); there `direction` (radians
    counter-clockwise) and `ending` (probability of an ending, else a bifurcation) hold.
    """

    score: NDArray[np.float32]
    direction: NDArray[np.float32]
    ending: NDArray[np.float32]

    def __post_init__(self) -> None:
        for column in (self.score, self.direction, self.ending):
            if column.ndim != 2 or column.shape != self.score.shape or column.dtype != np.float32:
                raise TypeError(f"a map is (H, W) float32, not {column.shape} {column.dtype}")
            column.setflags(write=False)


class Leader:
    """The network, ready to run. Thread-safe; the session is loaded once per process and shared.

    Raises `ModelUnavailable` where the weights are missing or not the expected ones.
    """

    __slots__ = ("_session",)

    def __init__(self) -> None:
        self._session = _session()

    def __call__(self, image: NDArray[np.uint8]) -> LeaderMap:
        """Run on `image` `(H, W) uint8` at 500 ppi, dark ridges. Cost: 3 s per million pixels, one thread."""
        height, width = image.shape
        # Centred in the next multiple of 32, in the colour of the first pixel, as the network was trained.
        top, left = (-height % _MULTIPLE) // 2, (-width % _MULTIPLE) // 2
        shape = (1, height + -height % _MULTIPLE, width + -width % _MULTIPLE, 1)
        padded = np.full(shape, float(image[0, 0]), dtype=np.float32)
        padded[0, top : top + height, left : left + width, 0] = image
        (output,) = self._session.run(None, {"input": padded})
        inner = output[0, top : top + height, left : left + width]
        # Channel 0 is the likelihood before the suppression of neighbours.
        return LeaderMap(
            score=np.ascontiguousarray(inner[..., 3]),
            direction=np.ascontiguousarray(inner[..., 1]),
            ending=np.ascontiguousarray(inner[..., 2]),
        )


@cache
def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Parallelism comes from running several images at once; waiting threads must not burn a core.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(f"ONNX Runtime does not load the LEADER network: {error}") from error


def _weights() -> bytes:
    """The network's bytes, from the exact package and with the exact digest."""
    advice = f"install {_PACKAGE}=={_VERSION}, which carries the LEADER weights"
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelUnavailable(f"the package {_PACKAGE} is missing: {advice}") from error
    if package.version != _VERSION:
        raise ModelUnavailable(f"{_PACKAGE} {package.version} is installed: {advice}")
    try:
        data = Path(str(package.locate_file(_FILE))).read_bytes()
    except OSError as error:
        raise ModelUnavailable(f"{_FILE} is not readable: {advice}") from error
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise ModelUnavailable(f"{_FILE} is not the expected file: {advice}")
    return data
