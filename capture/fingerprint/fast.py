"""The fast minutiae finder: a small network of our own, distilled from LEADER on synthetic prints.

Architecture, training and measured figures: `docs/models/fast-extractor.md`. The weights lie beside this file
and are made by `python -m benchmarks.train_fast_extractor`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from capture.errors import ModelUnavailable
from capture.networks import session

WEIGHTS = Path(__file__).with_name("fast.onnx")
STRIDE = 4  # pixels of a cell's side
CHANNELS = 6  # of each cell: logit of a minutia, its offset x and y in cells, cos and sin, logit of an ending
_MULTIPLE = 8
_MARGIN = 16  # context kept around the finger


@dataclass(frozen=True, slots=True)
class Params:
    """Lengths in pixels at 500 ppi.

    `steepness`, `shift`: the score is a logistic function of the network's logit, made so that minutiae which
    LEADER sees too have scores like LEADER's. `min_score`: what scores less is no minutia. `apart`: of two
    closer than this the weaker is dropped. `window`, `floor`: side, and least deviation in grey levels, of
    the local normalisation. Where those that score less than `sure` are more than `max_doubt` times the
    others, the mirror image is looked at too, and the mean of both answers counts.
    """

    steepness: float = 2.1
    shift: float = 1.86
    min_score: float = 0.3
    apart: float = 6.0
    max_minutiae: int = 99
    window: int = 33
    floor: float = 6.0
    sure: float = 0.6
    max_doubt: float = 0.3


_PARAMS = Params()
_TURN = np.float32(2 * np.pi)
_MIRROR = np.array([1, -1, 1, -1, 1, 1], dtype=np.float32)[:, None, None]


class FastNetwork:
    """The network, ready to run. Thread-safe; the session is loaded once per process and shared.

    Raises `ModelUnavailable` where the weights are missing or damaged.
    """

    __slots__ = ("_params", "_session")

    def __init__(self, weights: Path = WEIGHTS, params: Params = _PARAMS) -> None:
        self._session = _session(weights)
        self._params = params

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Find the minutiae within `mask` `(H, W) bool` of `image` `(H, W) uint8`, 500 ppi, dark ridges.

        `(n, 5) float32`: x, y, direction (radians counter-clockwise, 0 to 2 pi), ending (1 or 0), score
        (0.3 to 1); best first, ties by row and column. Cost: 0.15 s per million pixels around the mask, and
        as much again in doubt.
        """
        if not mask.any():
            return np.zeros((0, 5), dtype=np.float32)
        rows, columns = _around(mask, 1), _around(mask, 0)
        part = normalised(image[rows, columns], self._params)
        height, width = part.shape
        padded = np.pad(part, ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE)))
        cells = self._cells(padded)
        found = _inside(decode(cells, self._params), mask[rows, columns])
        if _in_doubt(found, self._params):
            mirrored = self._cells(padded[:, ::-1])[:, :, ::-1] * _MIRROR
            cells = np.asarray((cells + mirrored) / 2, np.float32)
            found = _inside(decode(cells, self._params), mask[rows, columns])
        kept = found[: self._params.max_minutiae]
        kept[:, 0] = np.clip(kept[:, 0], 0, width - 1) + np.float32(columns.start)
        kept[:, 1] = np.clip(kept[:, 1], 0, height - 1) + np.float32(rows.start)
        return kept

    def _cells(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's word on every cell, `(6, h, w)`."""
        (cells,) = self._session.run(None, {"image": np.ascontiguousarray(part[None, None])})
        answer: NDArray[np.float32] = cells[0]
        return answer


def _inside(found: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The minutiae that lie in the mask."""
    column, row = np.rint(found[:, :2]).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
    inside[inside] = mask[row[inside], column[inside]]
    kept: NDArray[np.float32] = found[inside]
    return kept


def _in_doubt(found: NDArray[np.float32], params: Params) -> bool:
    """Whether so many minutiae are doubtful that a second look, at the mirror image, pays."""
    sure = int((found[:, 4] >= params.sure).sum())
    return len(found) - sure > params.max_doubt * sure


def normalised(image: NDArray[np.uint8], params: Params = _PARAMS) -> NDArray[np.float32]:
    """What the network sees, `(H, W) float32`: grey levels less their local mean, over local deviation."""
    grey = image.astype(np.float32)
    size = (params.window, params.window)
    mean = cv2.blur(grey, size, borderType=cv2.BORDER_REFLECT)
    square = cv2.blur(grey * grey, size, borderType=cv2.BORDER_REFLECT)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    return np.asarray((grey - mean) / (deviation + np.float32(params.floor)), np.float32)


def decode(cells: NDArray[np.float32], params: Params = _PARAMS) -> NDArray[np.float32]:
    """Minutiae `(n, 5) float32` as `FastNetwork` gives them, of the output `(6, h, w)` of the network."""
    logit = params.steepness * cells[0] + params.shift
    least = np.float32(np.log(params.min_score / (1 - params.min_score)))
    highest = cv2.dilate(logit, np.ones((3, 3), np.uint8))
    row, column = np.nonzero((logit >= least) & (logit >= highest))
    score = 1 / (1 + np.exp(-logit[row, column]))
    _, dx, dy, cosine, sine, ending = cells[:, row, column]
    x, y = (column + 0.5 + dx) * STRIDE - 0.5, (row + 0.5 + dy) * STRIDE - 0.5
    direction = np.arctan2(sine, cosine) % _TURN
    direction[direction >= _TURN] = 0  # a tiny negative angle is rounded up to a full turn
    found = np.column_stack([x, y, direction, ending > 0, score]).astype(np.float32)
    found = found[np.lexsort((found[:, 0], found[:, 1], -found[:, 4]))]
    # Greedy: each minutia in the order of scores drops the weaker ones beside it.
    near = np.hypot(*(found[:, None, :2] - found[None, :, :2]).T) < params.apart
    kept = np.ones(len(found), np.bool_)
    for i in range(len(found)):
        if kept[i]:
            kept[i + 1 :] &= ~near[i, i + 1 :]
    return found[kept]


def _around(mask: NDArray[np.bool_], across: int) -> slice:
    """The rows (`across` 1) or columns (0) with what the mask holds and a margin around."""
    where = np.flatnonzero(mask.any(axis=across))
    return slice(max(0, int(where[0]) - _MARGIN), min(mask.shape[1 - across], int(where[-1]) + 1 + _MARGIN))


@cache
def _session(weights: Path) -> onnxruntime.InferenceSession:
    loaded = session(weights, "the network of the fast extractor")
    given, made = loaded.get_inputs(), loaded.get_outputs()
    if [one.name for one in given] != ["image"] or [one.shape[:2] for one in made] != [[1, CHANNELS]]:
        raise ModelUnavailable(f"{weights.name} is not a network of the fast extractor")
    return loaded
