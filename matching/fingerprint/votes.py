"""From near descriptors to a score for every finger of a gallery: weighted votes that agree in geometry."""

from dataclasses import dataclass
from math import cos, hypot, log, pi, sin

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Params:
    """When two votes for a finger agree: one motion carries both, up to these errors (pixels, radians)."""

    distance: float = 12.0
    stretch: float = 0.08  # and this share of the distance between the two
    turn: float = 0.5
    most_votes: int = 96  # of one finger; more come from chance alone only in tiny galleries


PARAMS = Params()


def votes(
    hits: NDArray[np.int64],
    probe: NDArray[np.int16],
    reference: NDArray[np.int16],
    finger: NDArray[np.int32],
    fingers: int,
) -> NDArray[np.float32]:
    """`(fingers,) float32`: the weight of each finger's largest group of votes that agree.

    `hits` `(n, k)`: rows of the k nearest descriptors of each probe cylinder, nearest first, -1 where there
    are fewer; a vote weighs log(k / rank). `probe` `(n, 3)` and `reference` `(rows, 3)`: x and y in pixels,
    direction in 1/1024 turn; `finger` `(rows,)`: whose row it is, -1 for removed ones.
    Cost about 0.3 ms for 50 x 250 hits; thread-safe.
    """
    return _votes(
        hits,
        probe,
        reference,
        finger,
        fingers,
        PARAMS.distance,
        PARAMS.stretch,
        PARAMS.turn,
        PARAMS.most_votes,
    )


@njit(cache=True, nogil=True)
def _votes(
    hits: NDArray[np.int64],
    probe: NDArray[np.int16],
    reference: NDArray[np.int16],
    finger: NDArray[np.int32],
    fingers: int,
    distance: float,
    stretch: float,
    turn: float,
    most_votes: int,
) -> NDArray[np.float32]:
    n, k = hits.shape
    # 1. gather the votes of each finger (counting sort)
    start = np.zeros(fingers + 1, dtype=np.int32)
    for i in range(n):
        for rank in range(k):
            row = hits[i, rank]
            if row >= 0 and finger[row] >= 0:
                start[finger[row] + 1] += 1
    for f in range(fingers):
        start[f + 1] += start[f]
    total = start[fingers]
    cylinder = np.empty(total, dtype=np.int32)
    place = np.empty(total, dtype=np.int64)
    weight = np.empty(total, dtype=np.float32)
    filled = start[:fingers].copy()
    for rank in range(k):  # best ranks first within each finger
        w = log((k + 1.0) / (rank + 1.0))
        for i in range(n):
            row = hits[i, rank]
            if row >= 0 and finger[row] >= 0:
                at = filled[finger[row]]
                filled[finger[row]] = at + 1
                cylinder[at], place[at], weight[at] = i, row, w
    # 2. each vote proposes a motion; the votes that agree with the best proposal count, once a cylinder
    score = np.zeros(fingers, dtype=np.float32)
    seen = np.full(n, -1, dtype=np.int64)
    proposal = 0
    unit = 2.0 * pi / 1024.0
    for f in range(fingers):
        first, last = start[f], min(start[f + 1], start[f] + most_votes)
        best = np.float32(0.0)
        for a in range(first, last):
            p, q = cylinder[a], place[a]
            turn_a = reference[q, 2] - probe[p, 2]
            c, s = cos(unit * turn_a), sin(unit * turn_a)
            proposal += 1
            seen[p] = proposal
            agreed = weight[a]
            for b in range(first, last):
                i, j = cylinder[b], place[b]
                if seen[i] == proposal:
                    continue
                turn_b = reference[j, 2] - probe[i, 2] - turn_a
                if unit * abs((turn_b + 512) % 1024 - 512) > turn:
                    continue
                dx, dy = probe[i, 0] - probe[p, 0], probe[i, 1] - probe[p, 1]
                ex = reference[j, 0] - reference[q, 0] - (c * dx + s * dy)
                ey = reference[j, 1] - reference[q, 1] - (c * dy - s * dx)
                if hypot(ex, ey) <= distance + stretch * hypot(dx, dy):
                    seen[i] = proposal
                    agreed += weight[b]
            best = max(best, agreed)
        score[f] = best
    return score
