"""The LEADER network: a fingerprint image to minutiae scores, through ONNX Runtime.

R. Cappelli, "LEADER: Lightweight End-to-end Attention-gated Dual autoencodER for robust minutiae
extraction", arXiv 2602.15493. MIT licence; 0.95 M parameters. The weights are a data file of the Python
package `afis`, whose code is never imported; `leader_network.py` says how they are run.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from capture.fingerprint.leader_network import leader_graphs
from capture.networks import carried_file, session

_PACKAGE = "afis"
_VERSION = "1.2.7"
_FILE = "afis/weights/leader/LEADER.onnx"
_SHA256 = "da96e1221eea4afdf153997d6c4854ed306c146cfac76046e66cdecc14b2a1bb"
_MULTIPLE = 32
# Context kept around the finger: with it 99 % of the minutiae are those of the whole image.
_MARGIN = 32
# Local maxima below this likelihood, or beyond this many, are left out.
_MIN_SCORE = 0.1
_MAX_CANDIDATES = 256
# Patches of features that decide direction and type, and their middles (see `LeaderGraphs`).
_PATCH = 9
_MIDDLE = 3


@dataclass(frozen=True, slots=True, eq=False)
class LeaderMap:
    """What the network says of every pixel, each `(H, W) float32`, read-only.

    `score` is 0 but at the local maxima of minutia likelihood (0.1 to 1, the 256 best); there `direction`
    (radians counter-clockwise) and `ending` (probability of an ending, else a bifurcation) hold.
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
    """The network, ready to run. Thread-safe; it is loaded once per process and shared.

    Raises `ModelUnavailable` where the weights are missing or not the expected ones.
    """

    __slots__ = ("_find", "_read")

    def __init__(self) -> None:
        self._find, self._read = _sessions()

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> LeaderMap:
        """Run on `image` `(H, W) uint8` at 500 ppi, dark ridges; only around `mask` `(H, W) bool` if given.

        Cost: 1.5 s and 600 MB per million pixels around the mask, one thread.
        """
        # 1. Centred in the next multiple of 32, in the colour of the image's edge.
        height, width = image.shape
        top, left = (-height % _MULTIPLE) // 2, (-width % _MULTIPLE) // 2
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        shape = (height + -height % _MULTIPLE, width + -width % _MULTIPLE)
        padded = np.full(shape, np.median(edge), dtype=np.float32)
        padded[top : top + height, left : left + width] = image

        # 2. The part around the mask, whole tiles of 32: other offsets move what the network sees.
        rows, columns = slice(0, shape[0]), slice(0, shape[1])
        if mask is not None and mask.any():
            rows, columns = _tiles(mask, 1, top, shape[0]), _tiles(mask, 0, left, shape[1])
        smooth, highest, features = self._find.run(None, {"image": padded[None, None, rows, columns]})

        # 3. The local maxima, best first, and what the features around them say.
        smooth, highest = smooth[0, 0], highest[0, 0]
        y, x = np.nonzero((smooth == highest) & (smooth >= _MIN_SCORE))
        best = np.lexsort((x, y, -smooth[y, x]))[:_MAX_CANDIDATES]
        y, x = y[best], x[best]
        direction, ending = self._decided(features[0], y, x)

        # 4. Back in the frame of the image.
        maps = np.zeros((3, *shape), dtype=np.float32)
        maps[:, y + rows.start, x + columns.start] = smooth[y, x], direction, ending
        found = maps[:, top : top + height, left : left + width]
        return LeaderMap(score=found[0], direction=found[1], ending=found[2])

    def _decided(
        self, features: NDArray[np.float32], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Direction and probability of an ending at pixels `y`, `x`; features have half the resolution."""
        patches = _around(features, y // 2, x // 2, _PATCH)
        inside = _around(np.ones((1, *features.shape[1:]), dtype=np.float32), y // 2, x // 2, _MIDDLE)
        direction, ending = self._read.run(None, {"patches": patches, "inside": inside})
        each, parity = np.arange(len(y)), 2 * (y % 2) + x % 2
        return np.arctan2(direction[each, 4 + parity], direction[each, parity]), ending[each, parity]


def _around(
    maps: NDArray[np.float32], y: NDArray[np.int64], x: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """Squares `(n, C, size, size)` of `maps` `(C, H, W)` centred at `y`, `x`, with zeros beyond the edge."""
    beyond = size // 2
    padded = np.pad(maps, ((0, 0), (beyond, beyond), (beyond, beyond)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.ascontiguousarray(windows[:, y, x].swapaxes(0, 1))


def _tiles(mask: NDArray[np.bool_], across: int, offset: int, length: int) -> slice:
    """The tiles of 32 with what the mask holds (rows for `across` 1, columns for 0) and a margin around."""
    where = np.flatnonzero(mask.any(axis=across)) + offset
    first, last = int(where[0]), int(where[-1])
    start = max(0, first - _MARGIN) // _MULTIPLE * _MULTIPLE
    stop = -(-(last + 1 + _MARGIN) // _MULTIPLE) * _MULTIPLE
    return slice(start, min(length, stop))


@cache
def _sessions() -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
    graphs = leader_graphs(_weights())
    return session(graphs.find, "the LEADER network"), session(graphs.read, "the LEADER network")


def _weights() -> bytes:
    """The network's bytes, from the exact package and with the exact digest."""
    return carried_file(_PACKAGE, _VERSION, _FILE, _SHA256, "the LEADER weights").read_bytes()
