"""1:1 comparison of two fingers: local similarities, pairs, relaxed weights, agreement where they overlap.

R. Cappelli, M. Ferrara, D. Maltoni, "Minutia Cylinder-Code", IEEE TPAMI 32(12), 2010: the bit-based local
similarity and the relaxation of LSA-R. Three things differ from the paper, without a measured loss: pairs are
taken greedily by falling similarity instead of by linear sum assignment, and the logistic functions of the
relaxation are smooth steps of the same place and steepness, both for their cost; the pairs of largest weight
count, not those whose weight fell least, which leaves pairs without any support in a tie.

What relaxation finds is support among few pairs; how many minutiae of the common region have a partner, and
how many have none, is the second part of the score (`overlap.py`), looked at only where there is support.
"""

from dataclasses import dataclass
from math import cos, exp, log, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.template import MAX_MINUTIAE
from matching.fingerprint.block_counts import BLOCK_WORDS, LANES, count_block
from matching.fingerprint.cylinders import BASE_CELLS, BASE_WORDS, WORDS, Cylinders
from matching.fingerprint.overlap import PARAMS as OVERLAP_PARAMS
from matching.fingerprint.overlap import Motion, evidence, overlap

COMPARISON_VERSION = 2

_Floats = NDArray[np.float32]
_Words = NDArray[np.uint64]
_Indices = NDArray[np.int64]


class Params(NamedTuple):
    """The parameters of the paper; directions of paired cylinders may differ by a quarter turn at most."""

    min_common: float = 0.6  # share of the base's cells that count in both
    min_pairs: int = 4
    max_pairs: int = 12
    pairs_mu: float = 20.0  # cylinders
    pairs_tau: float = 0.4
    own_weight: float = 0.5
    rounds: int = 5
    distance_mu: float = 5.0  # pixels
    distance_tau: float = 1.6
    angle_mu: float = pi / 12
    angle_tau: float = 30.0
    # the score: support and overlap on a logarithmic scale
    promising: float = 0.0153  # support that nine of ten impostors lack: the overlap is worth a look
    no_support: float = 0.005  # added to the support before its logarithm is taken
    overlap_weight: float = 0.75


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A score and what it rests on; arrays are read-only.

    `score` 0 to 1, evenly in the logarithm of what it is worth; `pairs` `(k, 2) int32`: indices into the
    cylinders of the first and the second finger, best supported first; `contributions` `(k,) float32`: the
    score, divided among them by their support. `support`: the mean of their relaxed weights, 0 to 1.
    `partners` `(m, 2) int32`: cylinders that lie upon one another when the fingers do, closest first;
    `inside_a`, `inside_b` `(n,) bool`: cylinders in the common region; `common`: how many that is, the mean
    of both, no less than there are partners; `motion`: of the first finger onto the second. None of these
    is looked for without support.
    """

    score: float
    pairs: NDArray[np.int32]
    contributions: NDArray[np.float32]
    support: float
    partners: NDArray[np.int32]
    inside_a: NDArray[np.bool_]
    inside_b: NDArray[np.bool_]
    common: float
    motion: Motion

    def __post_init__(self) -> None:
        for array in (self.pairs, self.contributions, self.partners, self.inside_a, self.inside_b):
            array.setflags(write=False)

    @property
    def by_support(self) -> float:
        """The part of the score that support gives; the overlap gives the rest, or takes it."""
        return (log(self.support + _NO_SUPPORT) - log(_NO_SUPPORT)) / (_BEST - _WORST)


def similarity(a: Cylinders, b: Cylinders) -> float:
    """How alike two fingers are, 0 to 1; symmetric to the bit, 0 where either has no cylinders.

    Never raises. Cost: about 30 us for two fingers, 60 us for one, one thread, without the GIL; thread-safe.
    """
    return compare(a, b).score


def compare(a: Cylinders, b: Cylinders) -> Comparison:
    """As `similarity`, with the pairs the score rests on, at the same cost."""
    exchange = _second_first(a.x, a.y, a.direction, a.bits, b.x, b.y, b.direction, b.bits)
    p, q = (b, a) if exchange else (a, b)
    score, pairs, contributions, support, partners, inside_a, inside_b, common, motion = _compare(
        p.x, p.y, p.direction, p.bits, p.mask, q.x, q.y, q.direction, q.bits, q.mask
    )
    if exchange:
        x0, y0, u0, v0, c, s = motion
        pairs, partners, motion = pairs[:, ::-1], partners[:, ::-1], (u0, v0, x0, y0, c, -s)
        inside_a, inside_b = inside_b, inside_a
    return Comparison(score, pairs, contributions, support, partners, inside_a, inside_b, common, motion)


# Single precision throughout: compiled code turns a product with a plain number into double precision.
_ZERO, _ONE, _TWO, _THREE = (np.float32(value) for value in range(4))
_TINY = np.float32(1e-6)
_LEAST_COMMON = np.float32(np.ceil(PARAMS.min_common * BASE_CELLS))
_OWN = np.float32(PARAMS.own_weight)
_OTHERS = np.float32(1 - PARAMS.own_weight)
_MIN_PAIRS, _MAX_PAIRS = PARAMS.min_pairs, PARAMS.max_pairs
_PAIRS_MU, _PAIRS_TAU = PARAMS.pairs_mu, PARAMS.pairs_tau
_ROUNDS = PARAMS.rounds
# A smooth step of width 6 / tau falls as steeply as a logistic function of that tau. Angles are compared by
# their squared chord, which needs no arc cosine.
_DISTANCE_FROM = np.float32(PARAMS.distance_mu - 3 / PARAMS.distance_tau)
_DISTANCE_SCALE = np.float32(PARAMS.distance_tau / 6)
_CHORD_FROM = np.float32((PARAMS.angle_mu - 3 / PARAMS.angle_tau) ** 2)
_CHORD_SCALE = np.float32(1 / ((PARAMS.angle_mu + 3 / PARAMS.angle_tau) ** 2 - _CHORD_FROM))
_PROMISING, _NO_SUPPORT, _OVERLAP = PARAMS.promising, PARAMS.no_support, PARAMS.overlap_weight
# The scale begins where there is neither support nor overlap, and ends with a full template beside itself.
_WORST = log(_NO_SUPPORT) + _OVERLAP * evidence(0.0, 0.0)
_BEST = log(1 + _NO_SUPPORT) + _OVERLAP * sqrt(-MAX_MINUTIAE * log(OVERLAP_PARAMS.by_chance))


@njit(cache=True, nogil=True)
def _second_first(
    ax: _Floats, ay: _Floats, ad: _Floats, abits: _Words, bx: _Floats, by: _Floats, bd: _Floats, bbits: _Words
) -> bool:
    """Whether to exchange the fingers: fewer cylinders first, a fixed order among equals."""
    if len(ax) != len(bx):
        return len(ax) > len(bx)
    for i in range(len(ax)):
        if ax[i] != bx[i]:
            return bool(ax[i] > bx[i])
        if ay[i] != by[i]:
            return bool(ay[i] > by[i])
        if ad[i] != bd[i]:
            return bool(ad[i] > bd[i])
        for word in range(WORDS):
            if abits[i, word] != bbits[i, word]:
                return bool(abits[i, word] > bbits[i, word])
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _compare(
    ax: _Floats,
    ay: _Floats,
    ad: _Floats,
    abits: _Words,
    amask: _Words,
    bx: _Floats,
    by: _Floats,
    bd: _Floats,
    bbits: _Words,
    bmask: _Words,
) -> tuple[
    float,
    NDArray[np.int32],
    NDArray[np.float32],
    float,
    NDArray[np.int32],
    NDArray[np.bool_],
    NDArray[np.bool_],
    float,
    Motion,
]:
    """The fields of a `Comparison`; the first finger has no more cylinders than the second."""
    na = len(ax)
    nobody, nothing = np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.float32)
    inside_a, inside_b = np.zeros(na, dtype=np.bool_), np.zeros(len(bx), dtype=np.bool_)
    motion = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if na == 0:
        return 0.0, nobody, nothing, 0.0, nobody, inside_a, inside_b, 0.0, motion
    # 1. Local similarities; the second finger's cylinders sorted by direction, so that blocks are skipped.
    order = np.argsort(bd, kind="mergesort")
    sx, sy, sd = bx[order], by[order], bd[order]
    local = _local_similarities(ad, abits, amask, sd, bbits[order], bmask[order])
    # 2. One-to-one pairs.
    column = _greedy_columns(local)
    i = np.flatnonzero(column >= 0)
    j = column[i]
    k = len(i)
    if k == 0:
        return 0.0, nobody, nothing, 0.0, nobody, inside_a, inside_b, 0.0, motion
    start = np.empty(k, dtype=np.float32)
    for t in range(k):
        start[t] = local[i[t], j[t]]
    # 3. Pairs support each other as far as their geometry agrees.
    turn = ad[i] - sd[j]
    supports = _support(ax[i], ay[i], sx[j], sy[j], np.cos(turn), np.sin(turn))
    weight = _relaxed(start, supports)
    # 4. The mean of the largest weights; how many depends on the smaller finger.
    spread = _MAX_PAIRS - _MIN_PAIRS
    wanted = int(_MIN_PAIRS + np.rint(spread / (1 + exp(-_PAIRS_TAU * (na - _PAIRS_MU)))))
    best = np.argsort(-weight, kind="mergesort")[:wanted]
    support = 0.0
    for t in best:
        support += weight[t] / np.float32(wanted)
    # 5. How much of the common region agrees, where anything speaks for it.
    fit, common = 0.0, 0.0
    partners = nobody
    if support >= _PROMISING:
        a, b, fit, inside_a, inside, motion = overlap(ax, ay, ad, sx, sy, sd, local, i, j, weight, supports)
        inside_b[order] = inside
        common = max((np.sum(inside_a) + np.sum(inside_b)) / 2, float(len(a)))
        partners = np.empty((len(a), 2), dtype=np.int32)
        for t in range(len(a)):
            partners[t, 0], partners[t, 1] = a[t], order[b[t]]
    # 6. Both on one scale.
    both = log(support + _NO_SUPPORT) + _OVERLAP * evidence(fit, common)
    score = min(max((both - _WORST) / (_BEST - _WORST), 0.0), 1.0)
    pairs = np.empty((len(best), 2), dtype=np.int32)
    contributions = np.empty(len(best), dtype=np.float32)
    for rank in range(len(best)):
        t = best[rank]
        pairs[rank, 0], pairs[rank, 1] = i[t], order[j[t]]
        contributions[rank] = score * weight[t] / (support * wanted)
    return score, pairs, contributions, support, partners, inside_a, inside_b, common, motion


@njit(cache=True, nogil=True, error_model="numpy")
def _local_similarities(
    ad: _Floats, abits: _Words, amask: _Words, bd: _Floats, bbits: _Words, bmask: _Words
) -> NDArray[np.float32]:
    """`(na, nb rounded up to 8)`: similarity of each two cylinders, 0 where they cannot be compared."""
    na, nb = len(ad), len(bd)
    n_blocks = (nb + LANES - 1) // LANES
    width = n_blocks * LANES
    blocks = np.zeros((n_blocks, BLOCK_WORDS, LANES), dtype=np.uint64)
    cosine, sine = np.zeros(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    for j in range(nb):
        block, lane = j // LANES, j % LANES
        for word in range(WORDS):
            blocks[block, word, lane] = bbits[j, word]
        for word in range(BASE_WORDS):
            blocks[block, WORDS + word, lane] = bmask[j, word]
        cosine[j], sine[j] = cos(bd[j]), sin(bd[j])
    counts = np.zeros(width, dtype=np.uint64)
    local = np.empty((na, width), dtype=np.float32)
    for i in range(na):
        c, s = np.float32(cos(ad[i])), np.float32(sin(ad[i]))
        for block in range(n_blocks):
            near = False
            for lane in range(LANES):
                near |= c * cosine[block * LANES + lane] + s * sine[block * LANES + lane] > _ZERO
            if near:
                count_block(abits, amask, i, blocks, block, counts)
        _similarities_from_counts(counts, c, s, cosine, sine, local[i])
    return local


@njit(cache=True, nogil=True, error_model="numpy")
def _similarities_from_counts(
    counts: _Words, c: np.float32, s: np.float32, cosine: _Floats, sine: _Floats, row: _Floats
) -> None:
    """One minus the distance of two bit vectors over the sum of their norms, within both masks."""
    low = np.uint64(0xFFFF)
    for j in range(len(row)):
        word = counts[j]
        first, second = np.float32(word & low), np.float32((word >> np.uint64(16)) & low)
        both, common = np.float32((word >> np.uint64(32)) & low), np.float32(word >> np.uint64(48))
        norms = np.sqrt(first) + np.sqrt(second)
        alike = _ONE - np.sqrt(first + second - _TWO * both) / max(norms, _ONE)
        comparable = (common >= _LEAST_COMMON) & (norms > _ZERO) & (c * cosine[j] + s * sine[j] > _ZERO)
        row[j] = alike if comparable else _ZERO


@njit(cache=True, nogil=True, error_model="numpy")
def _greedy_columns(local: NDArray[np.float32]) -> _Indices:
    """`(na,)`: the column paired with each row, by falling similarity, first rows first; -1 where none."""
    na, nb = local.shape
    column = np.full(na, -1, dtype=np.int64)
    best = np.empty(na, dtype=np.int64)
    value = np.empty(na, dtype=np.float32)
    taken = np.zeros(nb, dtype=np.bool_)
    for i in range(na):
        best[i] = np.argmax(local[i])
        value[i] = local[i, best[i]]
    while True:
        i = int(np.argmax(value))
        if value[i] <= _ZERO:
            return column
        if taken[best[i]]:
            value[i] = _ZERO
            for j in range(nb):
                if local[i, j] > value[i] and not taken[j]:
                    value[i] = local[i, j]
                    best[i] = j
        else:
            column[i] = best[i]
            taken[best[i]] = True
            value[i] = _ZERO


@njit(cache=True, nogil=True, error_model="numpy")
def _support(
    px: _Floats, py: _Floats, qx: _Floats, qy: _Floats, cosine: _Floats, sine: _Floats
) -> NDArray[np.float32]:
    """`(k, k)`: `[s, t]` how well pair s fits pair t, 0 to 1: by distance, by direction, by bearing from t.

    `cosine`, `sine` are of the turn between the two minutiae of each pair. Seen from t, the vectors to the
    first and to the second minutia of s must differ by just that turn.
    """
    k = len(px)
    support = np.empty((k, k), dtype=np.float32)
    for s in range(k):
        for t in range(k):
            ux, uy, vx, vy = px[s] - px[t], py[s] - py[t], qx[s] - qx[t], qy[s] - qy[t]
            u, v = np.sqrt(ux * ux + uy * uy), np.sqrt(vx * vx + vy * vy)
            turned = cosine[s] * cosine[t] + sine[s] * sine[t]
            along, across = ux * vx + uy * vy, ux * vy - uy * vx
            bearing = (along * cosine[t] + across * sine[t]) / max(u * v, _TINY)
            support[s, t] = (
                _step(abs(u - v), _DISTANCE_FROM, _DISTANCE_SCALE)
                * _step(_TWO - _TWO * turned, _CHORD_FROM, _CHORD_SCALE)
                * _step(_TWO - _TWO * bearing, _CHORD_FROM, _CHORD_SCALE)
            )
        support[s, s] = _ZERO
    return support


@njit(cache=True, nogil=True, error_model="numpy")
def _step(value: np.float32, start: np.float32, scale: np.float32) -> np.float32:
    """1 up to `start`, falling smoothly to 0 over a width of 1 / `scale`."""
    t = min(_ONE, max(_ZERO, _ONE - (value - start) * scale))
    return t * t * (_THREE - _TWO * t)


@njit(cache=True, nogil=True, error_model="numpy")
def _relaxed(start: NDArray[np.float32], support: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(k,)`: each pair's weight after rounds of keeping a part and taking the rest from its support."""
    k = len(start)
    weight = start.copy()
    received = np.empty(k, dtype=np.float32)
    share = _OTHERS / np.float32(max(1, k - 1))
    for _ in range(_ROUNDS):
        received[:] = _ZERO
        for s in range(k):
            for t in range(k):
                received[t] += weight[s] * support[s, t]
        for t in range(k):
            weight[t] = _OWN * weight[t] + share * received[t]
    return weight
