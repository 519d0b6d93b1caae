"""Minutiae without a large network: the ridges as a wave, its dislocations, and a look at each one.

The wave (`ridge_waves`) and its dislocations (`dislocations`) are signal processing; they miss few minutiae
and find as many false ones, at the border, in creases and where the finger is dry. Each is then judged by a
small network that sees the print around it, turned to its direction and scaled to its ridge period, which
makes all fingers and sensors look alike. `benchmarks/train_classical.py` fits it, and says on what.
"""

from dataclasses import dataclass
from functools import cache
from math import cos, floor, sin
from pathlib import Path

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.dislocations import dislocations
from capture.fingerprint.ridge_waves import RidgeWaves, ridge_waves
from capture.fingerprint.template import MAX_MINUTIAE
from capture.trace import Trace, no_trace

_Field = NDArray[np.float32]

PATCH = 24  # samples a side, a quarter of the ridge period apart
_MODEL = Path(__file__).with_name("classical.npz")


@dataclass(frozen=True, slots=True)
class Params:
    """`max_candidates`: how many are judged, those of the strongest waves; lengths in pixels at 500 ppi.

    `counted`: the score from which comparison counts a minutia (`min_reliability` of its cylinders). Up to
    `wanted` of those at least `least` likely reach it: the few sure ones of a poor print say less than they
    and some doubtful ones. `log_odds` is added to what the network says, which learnt LEADER's doubts.
    """

    min_side: int = 32
    max_candidates: int = 400
    strength_over: float = 8.0
    border: float = 30.0
    usual_period: float = 9.0
    min_score: float = 0.05
    apart: float = 6.0
    log_odds: float = 0.7
    counted: float = 0.44
    wanted: int = 30
    least: float = 0.2


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Dislocations as the judge sees them, `k` of them; arrays are read-only.

    `place` `(k, 3) float32`: x, y in pixels of the image, direction; `patches` `(k, 2, 24, 24) float32`: the
    normalised grey levels and the real part of the wave, rows along the direction, columns to its left;
    `measures` `(k, 2) float32`: distance to the border and ridge period, scaled to about 1.
    """

    place: _Field
    patches: _Field
    measures: _Field

    def __post_init__(self) -> None:
        for field in (self.place, self.patches, self.measures):
            field.setflags(write=False)


def classical_minutiae(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], trace: Trace = no_trace, params: Params = PARAMS
) -> _Field:
    """Minutiae of `image` `(H, W) uint8` at 500 ppi, dark ridges, within its foreground `mask` `(H, W) bool`.

    `(n, 5) float32`: x, y, direction (radians in [0, 2 pi), as in a template), ending (1 or 0), score (how
    likely it is genuine, 0 to 1); best first, ties by row and column, at most 99. Trace keys: `normalised`,
    `wave`, `candidates` (k, 3). Cost: 25 ms for a print of 390 x 370 pixels, one thread; thread-safe.
    Raises `TypeError` unless image and mask are of one shape and those types.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or mask.shape != image.shape or mask.dtype != np.bool_:
        raise TypeError(f"not (H, W) uint8 and bool: {image.shape} {image.dtype}, {mask.shape} {mask.dtype}")
    if min(image.shape) < params.min_side or not mask.any():
        return np.zeros((0, 5), dtype=np.float32)
    waves = ridge_waves(image, mask)
    trace("normalised", waves.normalised)
    trace("wave", waves.wave)
    found = candidates(waves, params)
    trace("candidates", found.place)
    if not len(found.place):
        return np.zeros((0, 5), dtype=np.float32)
    return _judged(found, image.shape, params)


def candidates(waves: RidgeWaves, params: Params = PARAMS) -> Candidates:
    """All dislocations of `waves`, but the weakest where they are too many, with what surrounds each."""
    found = dislocations(waves)
    # 1. Noise has dislocations everywhere; judge those where the wave is strong around them.
    column, row = found[:, 0].astype(np.int64), found[:, 1].astype(np.int64)
    if len(found) > params.max_candidates:
        energy = (waves.wave * waves.wave).sum(axis=0)
        strength = cv2.GaussianBlur(energy, (0, 0), params.strength_over / 2)[row, column]
        strongest = np.sort(np.argsort(-strength, kind="stable")[: params.max_candidates])
        found, column, row = found[strongest], column[strongest], row[strongest]
    # 2. The print around each.
    period = waves.period[row, column]
    patches = _patches(waves.normalised, waves.wave[0], found, (period / 4).astype(np.float32))
    # 3. The border of the finger, or of the image.
    inside = np.pad(waves.inside, 1).astype(np.uint8)
    border = 2 * cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1][row, column]
    measures = np.column_stack(
        [np.minimum(border / params.border, 1), 3 * np.log(2 * period / params.usual_period)]
    )
    place = found * np.array([2, 2, 1], np.float32) + np.array([0.5, 0.5, 0], np.float32)
    return Candidates(place, patches, measures.astype(np.float32))


@njit(cache=True, nogil=True)
def _patches(normalised: _Field, real: _Field, place: _Field, step: _Field) -> _Field:
    """Bilinear samples around each place, 0 beyond the image."""
    height, width = normalised.shape
    patches = np.zeros((len(place), 2, PATCH, PATCH), dtype=np.float32)
    for k in range(len(place)):
        c, s = cos(place[k, 2]) * step[k], sin(place[k, 2]) * step[k]
        for i in range(PATCH):
            for j in range(PATCH):
                along, left = i - (PATCH - 1) / 2, j - (PATCH - 1) / 2
                x, y = place[k, 0] + along * c - left * s, place[k, 1] - along * s - left * c
                u, v = floor(x), floor(y)
                if u < 0 or v < 0 or u >= width - 1 or v >= height - 1:
                    continue
                a, b = x - u, y - v
                for channel in range(2):
                    field = normalised if channel == 0 else real
                    upper = field[v, u] * (1 - a) + field[v, u + 1] * a
                    lower = field[v + 1, u] * (1 - a) + field[v + 1, u + 1] * a
                    patches[k, channel, i, j] = upper * (1 - b) + lower * b
    return patches


def _judged(found: Candidates, shape: tuple[int, ...], params: Params) -> _Field:
    """The minutiae among the candidates, as `classical_minutiae` gives them."""
    said = judgement(found)
    score = 1 / (1 + np.exp(-said[:, 0] - np.float32(params.log_odds)))
    # 1. Places and directions moved by what the network says, the places along and to the left.
    c, s = np.cos(found.place[:, 2]), np.sin(found.place[:, 2])
    along, left = 3 * said[:, 2], 3 * said[:, 3]
    x = np.clip(found.place[:, 0] + along * c - left * s, 0, shape[1] - 1)
    y = np.clip(found.place[:, 1] - along * s - left * c, 0, shape[0] - 1)
    direction = ((found.place[:, 2] + said[:, 4] / 5) % np.float32(2 * np.pi)).astype(np.float32)
    # A tiny negative angle is rounded up to a full turn.
    direction[direction >= np.float32(2 * np.pi)] = 0
    minutiae = np.column_stack([x, y, direction, said[:, 1] > 0, score]).astype(np.float32)
    # 2. Best first; of two that show the same minutia the better.
    minutiae = minutiae[minutiae[:, 4] >= params.min_score]
    minutiae = minutiae[np.lexsort((minutiae[:, 0], minutiae[:, 1], -minutiae[:, 4]))]
    away = np.hypot(*(minutiae[:, None, :2] - minutiae[None, :, :2]).transpose(2, 0, 1))
    turned = np.cos(minutiae[:, None, 2] - minutiae[None, :, 2])
    doubled = np.tril((away < params.apart) & (turned > 0), -1).any(axis=1)
    kept: _Field = minutiae[~doubled][:MAX_MINUTIAE]
    # 3. On a poor print less is enough to count.
    kept[:, 4] = _lifted(kept[:, 4], params)
    return kept


def _lifted(score: _Field, params: Params) -> _Field:
    """Falling scores, stretched in their order so that the first `wanted` reach `counted`."""
    last = float(score[params.wanted - 1]) if len(score) >= params.wanted else 0.0
    bar = min(params.counted, max(params.least, last))
    below = score * (params.counted / bar)
    above = params.counted + (score - bar) * ((1 - params.counted) / (1 - bar))
    return np.clip(np.where(score < bar, below, above), 0, 1).astype(np.float32)


def judgement(found: Candidates) -> _Field:
    """What the network says of each candidate, `(k, 5) float32`.

    Log odds that it is genuine; log odds that it is an ending; its place along and to the left, in units of 3
    pixels; its direction, in units of 1/5 radian; all relative to the candidate. Cost: 20 us a candidate.
    """
    model = _model()
    first = _convolved(found.patches, model["first_weight"], model["first_bias"])
    second = _convolved(first, model["second_weight"], model["second_bias"])
    flat = np.column_stack([second.reshape(len(second), -1), found.measures])
    hidden = np.maximum(flat @ model["hidden_weight"].T + model["hidden_bias"], 0)
    said: _Field = hidden @ model["last_weight"].T + model["last_bias"]
    return said


def _convolved(planes: _Field, weight: _Field, bias: _Field) -> _Field:
    """Convolution by every second pixel without padding, then what is positive: `(k, channels, h, w)`."""
    size = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(planes, size, axis=(2, 3))[:, :, ::2, ::2]
    (k, _), (height, width) = windows.shape[:2], windows.shape[2:4]
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(k * height * width, weight[0].size)
    result = np.maximum(columns @ weight.reshape(len(weight), -1).T + bias, 0)
    convolved: _Field = result.reshape(k, height, width, len(weight)).transpose(0, 3, 1, 2)
    return convolved


@cache
def _model() -> dict[str, _Field]:
    with np.load(_MODEL, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
