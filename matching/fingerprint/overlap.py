"""How well two fingers agree where they overlap, once one is laid upon the other.

The pairs that support the best pair give a rigid motion; minutiae that then lie close become pairs, the
motion is fitted again, and what it leaves over bends it smoothly: skin stretches. Twice more, then each
minutia in the common region has a partner or has none. Few of few is chance, ten of eleven is not, and
sixteen of sixty is: the evidence is the signed root of a binomial log-likelihood ratio.
"""

# The compiled cache of `comparison.py` does not notice a change here: change its version as well.

from math import cos, log, sin, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from matching.fingerprint.cylinders import convex_hull, near_hull

_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]
_Indices = NDArray[np.int64]
# From the first finger to the second: centres x0, y0 and u0, v0, cosine c and sine s of the turn, y down. A
# point p goes to u0 + c (px - x0) + s (py - y0), v0 - s (px - x0) + c (py - y0).
Motion = tuple[float, float, float, float, float, float]


class Params(NamedTuple):
    """Lengths in pixels at 500 ppi, angles in radians; error rates hardly change within a third of these."""

    first_distance: float = 20.0  # how far partners may lie apart before the motion is bent
    distance: float = 14.0  # and after
    turn: float = 0.6  # chord between their directions
    bend: float = 180.0  # how far a pair's residual reaches
    stiffness: float = 0.5  # pairs' worth of no residual at all
    lever: float = 20.0  # of a direction, among places, in the fit of the motion
    margin: float = 10.0  # around the hull of the other finger's minutiae
    by_chance: float = 0.125  # how well two fingers' minutiae agree, as a share of the common ones
    rounds: int = 3


PARAMS = Params()
_FIRST2, _DISTANCE2 = np.float32(PARAMS.first_distance**2), np.float32(PARAMS.distance**2)
_CHORD2 = PARAMS.turn**2
_PER_BEND2 = np.float32(1 / PARAMS.bend**2)
_STIFFNESS = np.float32(PARAMS.stiffness)
_NONE, _ONE = np.float32(0), np.float32(1)
_LEVER2 = PARAMS.lever**2
_MARGIN = PARAMS.margin
_CHANCE = PARAMS.by_chance
_ROUNDS = PARAMS.rounds


@njit(cache=True, nogil=True, error_model="numpy")
def overlap(
    ax: _Floats,
    ay: _Floats,
    ad: _Floats,
    bx: _Floats,
    by: _Floats,
    bd: _Floats,
    local: NDArray[np.float32],
    first: _Indices,
    second: _Indices,
    weight: _Floats,
    support: NDArray[np.float32],
) -> tuple[_Indices, _Indices, float, NDArray[np.bool_], NDArray[np.bool_], Motion]:
    """Partners in both fingers, the sum of their fit, who is in the common region, and the rigid motion.

    `local` `(na, nb or more)`: similarities of cylinders; `first`, `second`, `weight`, `support`: the relaxed
    pairs. A fit is 1 where two minutiae coincide, 0 at the limits. Cost: about 20 us for 50 minutiae.
    """
    seed = np.argmax(weight)
    share = np.empty(len(weight))
    for k in range(len(weight)):
        share[k] = weight[k] * support[k, seed]
    share[seed] = weight[seed]
    ca, sa, cb, sb = _cosines(ad), _sines(ad), _cosines(bd), _sines(bd)
    a, b = first, second
    # Where the motion takes each minutia of the first finger.
    px, py = np.empty(len(ax), dtype=np.float32), np.empty(len(ax), dtype=np.float32)
    motion = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    inside_a, inside_b = np.zeros(len(ax), dtype=np.bool_), np.zeros(len(bx), dtype=np.bool_)
    fit = np.empty(0)
    for step in range(_ROUNDS):
        motion = _motion(ax, ay, ca, sa, bx, by, cb, sb, a, b, share)
        _carry(ax, ay, bx, by, a, b, motion, step > 0, px, py)
        limit2 = _DISTANCE2 if step else _FIRST2
        a, b, fit = _partners(px, py, ca, sa, bx, by, cb, sb, motion, limit2, local)
        if len(a) == 0:
            return a, b, 0.0, inside_a, inside_b, motion
        share = np.ones(len(a))
    # Of both fingers, the minutiae that the other one covers.
    x0, y0, u0, v0, c, s = motion
    hull_a, hull_b = convex_hull(ax, ay), convex_hull(bx, by)
    for i in range(len(ax)):
        inside_a[i] = near_hull(px[i], py[i], hull_b, _MARGIN)
    for j in range(len(bx)):
        dx, dy = bx[j] - u0, by[j] - v0
        inside_b[j] = near_hull(x0 + c * dx - s * dy, y0 + s * dx + c * dy, hull_a, _MARGIN)
    return a, b, fit.sum(), inside_a, inside_b, motion


@njit(cache=True, nogil=True, error_model="numpy")
def evidence(fit: float, common: float) -> float:
    """Signed root of the log-likelihood ratio of so good a fit against chance."""
    if common == 0.0:
        return -sqrt(-log(1.0 - _CHANCE))  # as one minutia without a partner
    p = min(max(fit / common, 1e-6), 1.0 - 1e-6)
    ratio = common * (p * log(p / _CHANCE) + (1.0 - p) * log((1.0 - p) / (1.0 - _CHANCE)))
    root = sqrt(max(ratio, 0.0))
    return root if p > _CHANCE else -root


@njit(cache=True, nogil=True)
def _cosines(angle: _Floats) -> _Doubles:
    return np.array([cos(one) for one in angle], dtype=np.float64)


@njit(cache=True, nogil=True)
def _sines(angle: _Floats) -> _Doubles:
    return np.array([sin(one) for one in angle], dtype=np.float64)


@njit(cache=True, nogil=True, error_model="numpy")
def _motion(
    ax: _Floats,
    ay: _Floats,
    ca: _Doubles,
    sa: _Doubles,
    bx: _Floats,
    by: _Floats,
    cb: _Doubles,
    sb: _Doubles,
    a: _Indices,
    b: _Indices,
    share: _Doubles,
) -> Motion:
    """Least squares over places and directions."""
    total, x0, y0, u0, v0 = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(len(a)):
        total += share[k]
        x0 += share[k] * ax[a[k]]
        y0 += share[k] * ay[a[k]]
        u0 += share[k] * bx[b[k]]
        v0 += share[k] * by[b[k]]
    x0, y0, u0, v0 = x0 / total, y0 / total, u0 / total, v0 / total
    c, s = 0.0, 0.0
    for k in range(len(a)):
        i, j = a[k], b[k]
        dx, dy, du, dv = ax[i] - x0, ay[i] - y0, bx[j] - u0, by[j] - v0
        c += share[k] * (dx * du + dy * dv + _LEVER2 * (ca[i] * cb[j] + sa[i] * sb[j]))
        s += share[k] * (dy * du - dx * dv + _LEVER2 * (ca[i] * sb[j] - sa[i] * cb[j]))
    length = max(sqrt(c * c + s * s), 1e-9)
    return x0, y0, u0, v0, c / length, s / length


@njit(cache=True, nogil=True, error_model="numpy")
def _carry(
    ax: _Floats,
    ay: _Floats,
    bx: _Floats,
    by: _Floats,
    a: _Indices,
    b: _Indices,
    motion: Motion,
    bent: bool,
    px: _Floats,
    py: _Floats,
) -> None:
    """Write into `px`, `py` where the first finger's minutiae come to lie, bent by other pairs' residuals."""
    x0, y0, u0, v0, c, s = motion
    for i in range(len(ax)):
        dx, dy = ax[i] - x0, ay[i] - y0
        px[i], py[i] = u0 + c * dx + s * dy, v0 - s * dx + c * dy
    if not bent:
        return
    qx, qy = ax[a], ay[a]
    rx, ry = bx[b] - px[a], by[b] - py[a]
    own = np.full(len(ax), -1, dtype=np.int64)
    for k in range(len(a)):
        own[a[k]] = k
    for i in range(len(ax)):
        total, ex, ey = _STIFFNESS, np.float32(0.0), np.float32(0.0)
        for k in range(len(a)):
            dx, dy = ax[i] - qx[k], ay[i] - qy[k]
            near = max(_ONE - (dx * dx + dy * dy) * _PER_BEND2, _NONE)
            near *= near
            near *= near  # much like a Gaussian of a third of the reach
            total += near
            ex += near * rx[k]
            ey += near * ry[k]
        if own[i] >= 0:  # which counted fully
            total -= _ONE
            ex -= rx[own[i]]
            ey -= ry[own[i]]
        px[i] += ex / total
        py[i] += ey / total


@njit(cache=True, nogil=True, error_model="numpy")
def _partners(
    px: _Floats,
    py: _Floats,
    ca: _Doubles,
    sa: _Doubles,
    bx: _Floats,
    by: _Floats,
    cb: _Doubles,
    sb: _Doubles,
    motion: Motion,
    limit2: np.float32,
    local: NDArray[np.float32],
) -> tuple[_Indices, _Indices, _Doubles]:
    """One-to-one pairs of minutiae that lie close, closest and most alike first, and how well each fits."""
    c, s = motion[4], motion[5]
    na, nb = len(px), len(bx)
    most = 8 * na
    a, b = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    cost, fit = np.empty(most), np.empty(most)
    distance2 = np.empty(nb, dtype=np.float32)
    n = 0
    for i in range(na):
        ci, si = ca[i] * c - sa[i] * s, sa[i] * c + ca[i] * s
        for j in range(nb):
            dx, dy = bx[j] - px[i], by[j] - py[i]
            distance2[j] = dx * dx + dy * dy
        for j in range(nb):
            if distance2[j] >= limit2:
                continue
            apart = distance2[j] / limit2
            turned = (2.0 - 2.0 * (ci * cb[j] + si * sb[j])) / _CHORD2
            if turned < 1.0 and n < most:
                a[n], b[n] = i, j
                cost[n] = apart + turned - local[i, j]
                fit[n] = (1.0 - apart) * (1.0 - turned)
                n += 1
    free_a, free_b = np.ones(na, dtype=np.bool_), np.ones(nb, dtype=np.bool_)
    kept = np.empty(na, dtype=np.int64)
    k = 0
    for at in np.argsort(cost[:n], kind="mergesort"):
        if free_a[a[at]] and free_b[b[at]]:
            free_a[a[at]] = free_b[b[at]] = False
            kept[k] = at
            k += 1
    return a[kept[:k]], b[kept[:k]], fit[kept[:k]]
