"""1:1 comparison of two fingers: local similarities, an assignment, and its relaxation.

R. Cappelli, M. Ferrara, D. Maltoni, "Minutia Cylinder-Code", IEEE TPAMI 32(12), 2010: the bit-based
local similarity and the linear sum assignment with relaxation (LSA-R).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, exp, pi, sin, sqrt
from typing import NamedTuple, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from matching.fingerprint.cylinders import BASE_WORDS, LAYERS, Cylinders

COMPARISON_VERSION = 1

_Floats = NDArray[np.float32]
_Words = NDArray[np.uint64]


class Params(NamedTuple):
    """The parameters of the paper; a named tuple because compiled code takes it as it is."""

    max_turn: float = pi / 2  # between two directions
    min_common: float = 0.6  # of the base's cells
    min_pairs: float = 4.0
    max_pairs: float = 12.0
    pairs_mu: float = 20.0
    pairs_tau: float = 0.4
    own_weight: float = 0.5
    distance_mu: float = 5.0  # pixels
    distance_tau: float = -1.6
    direction_mu: float = pi / 12
    direction_tau: float = -30.0
    radial_mu: float = pi / 12
    radial_tau: float = -30.0
    rounds: int = 5


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A score and what it rests on; arrays are read-only.

    `score` 0 to 1; `pairs` `(k, 2) int32`: cylinders of the first and the second finger, most reliable
    first; `contributions` `(k,) float32`: what each pair adds to the score.
    """

    score: float
    pairs: NDArray[np.int32]
    contributions: NDArray[np.float32]

    def __post_init__(self) -> None:
        self.pairs.setflags(write=False)
        self.contributions.setflags(write=False)


def similarity(a: Cylinders, b: Cylinders) -> float:
    """How alike two fingers are, 0 to 1; symmetric to the bit, 0 where either has no cylinders.

    Never raises. Runs without the GIL on one thread; thread-safe.
    """
    score: float = _compare(
        a.x, a.y, a.direction, a.bits, a.mask, b.x, b.y, b.direction, b.bits, b.mask, PARAMS
    )[0]
    return score


def compare(a: Cylinders, b: Cylinders) -> Comparison:
    """As `similarity`, with the pairs the score rests on."""
    score, pairs, contributions = _compare(
        a.x, a.y, a.direction, a.bits, a.mask, b.x, b.y, b.direction, b.bits, b.mask, PARAMS
    )
    return Comparison(score, pairs, contributions)


def _ctpop(typing_context, word):  # type: ignore[no-untyped-def]
    """Count one bits by LLVM's own operation, so that loops over it become vector code."""
    if word != types.uint64:
        return None

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_count_ones = cast("Callable[[np.uint64], np.uint64]", intrinsic(_ctpop))


@njit(cache=True, nogil=True)
def _sigmoid(value: float, mu: float, tau: float) -> float:
    return 1.0 / (1.0 + exp(-tau * (value - mu)))


@njit(cache=True, nogil=True)
def _second_first(ax: _Floats, ay: _Floats, ad: _Floats, bx: _Floats, by: _Floats, bd: _Floats) -> bool:
    """Whether to exchange the fingers: a fixed order makes the score symmetric to the bit."""
    if len(ax) != len(bx):
        return len(ax) > len(bx)
    for i in range(len(ax)):
        if ax[i] != bx[i]:
            return bool(ax[i] > bx[i])
        if ay[i] != by[i]:
            return bool(ay[i] > by[i])
        if ad[i] != bd[i]:
            return bool(ad[i] > bd[i])
    return False


@njit(cache=True, nogil=True)
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
    params: Params,
) -> tuple[float, NDArray[np.int32], _Floats]:
    """Score, pairs and contributions, the finger with fewer cylinders taken first inside."""
    if _second_first(ax, ay, ad, bx, by, bd):
        score, pairs, contributions = _compare_ordered(
            bx, by, bd, bbits, bmask, ax, ay, ad, abits, amask, params
        )
        return score, pairs[:, ::-1].copy(), contributions
    return _compare_ordered(ax, ay, ad, abits, amask, bx, by, bd, bbits, bmask, params)


@njit(cache=True, nogil=True)
def _compare_ordered(
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
    params: Params,
) -> tuple[float, NDArray[np.int32], _Floats]:
    na = len(ax)
    if na == 0:
        return 0.0, np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.float32)
    local = _local_similarities(ad, abits, amask, bd, bbits, bmask, params.max_turn, params.min_common)
    column = _assignment(local)
    return _relaxed_score(ax, ay, ad, bx, by, bd, local, column, params)


@njit(cache=True, nogil=True)
def _local_similarities(
    ad: _Floats,
    abits: _Words,
    amask: _Words,
    bd: _Floats,
    bbits: _Words,
    bmask: _Words,
    max_turn: float,
    min_common: float,
) -> NDArray[np.float32]:
    """`(na, nb) float32`: similarity of each pair of cylinders, 0 where they cannot be compared."""
    na, nb = len(ad), len(bd)
    local = np.zeros((na, nb), dtype=np.float32)
    tbits = bbits.T.copy()
    tmask = bmask.T.copy()
    ones_a = np.empty(nb, dtype=np.uint64)
    ones_b = np.empty(nb, dtype=np.uint64)
    both = np.empty(nb, dtype=np.uint64)
    common = np.empty(nb, dtype=np.uint64)
    least = np.uint64(np.ceil(min_common * 208))
    for i in range(na):
        ones_a[:] = 0
        ones_b[:] = 0
        both[:] = 0
        common[:] = 0
        for w in range(BASE_WORDS):
            m = amask[i, w]
            for j in range(nb):
                common[j] += _count_ones(m & tmask[w, j])
            for k in range(LAYERS):
                v = abits[i, k * BASE_WORDS + w]
                row = tbits[k * BASE_WORDS + w]
                for j in range(nb):
                    ones_a[j] += _count_ones(v & tmask[w, j])
                    ones_b[j] += _count_ones(m & row[j])
                    both[j] += _count_ones(v & row[j])
        for j in range(nb):
            turn = abs(ad[i] - bd[j])
            turn = min(turn, np.float32(2 * pi) - turn)
            if turn <= max_turn and common[j] >= least and ones_a[j] + ones_b[j] > 0:
                p, q = np.float32(ones_a[j]), np.float32(ones_b[j])
                different = p + q - np.float32(2) * np.float32(both[j])
                local[i, j] = np.float32(1) - np.sqrt(different) / (np.sqrt(p) + np.sqrt(q))
    return local


@njit(cache=True, nogil=True)
def _assignment(local: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the column of each row in the assignment of largest total; rows must not outnumber columns.

    Shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987), without its heuristics.
    """
    n, m = local.shape
    price_row = np.zeros(n + 1)
    price_column = np.zeros(m + 1)
    row_of = np.zeros(m + 1, dtype=np.int64)
    way = np.zeros(m + 1, dtype=np.int64)
    slack = np.empty(m + 1)
    used = np.empty(m + 1, dtype=np.bool_)
    for i in range(1, n + 1):
        row_of[0] = i
        j0 = 0
        slack[:] = np.inf
        used[:] = False
        while True:
            used[j0] = True
            i0 = row_of[j0]
            delta = np.inf
            j1 = 0
            for j in range(1, m + 1):
                if not used[j]:
                    reduced = 1.0 - local[i0 - 1, j - 1] - price_row[i0] - price_column[j]
                    if reduced < slack[j]:
                        slack[j] = reduced
                        way[j] = j0
                    if slack[j] < delta:
                        delta = slack[j]
                        j1 = j
            for j in range(m + 1):
                if used[j]:
                    price_row[row_of[j]] += delta
                    price_column[j] -= delta
                else:
                    slack[j] -= delta
            j0 = j1
            if row_of[j0] == 0:
                break
        while j0 != 0:
            j1 = way[j0]
            row_of[j0] = row_of[j1]
            j0 = j1
    column = np.empty(n, dtype=np.int64)
    for j in range(1, m + 1):
        if row_of[j]:
            column[row_of[j] - 1] = j - 1
    return column


@njit(cache=True, nogil=True)
def _relaxed_score(
    ax: _Floats,
    ay: _Floats,
    ad: _Floats,
    bx: _Floats,
    by: _Floats,
    bd: _Floats,
    local: NDArray[np.float32],
    column: NDArray[np.int64],
    params: Params,
) -> tuple[float, NDArray[np.int32], _Floats]:
    """Let pairs support each other by how well their geometry agrees; average the most reliable."""
    n = len(ax)
    pairs = np.empty((n, 2), dtype=np.int32)
    k = 0
    for i in range(n):
        if local[i, column[i]] > 0:
            pairs[k, 0] = i
            pairs[k, 1] = column[i]
            k += 1
    pairs = pairs[:k]
    start = np.empty(k)
    for t in range(k):
        start[t] = local[pairs[t, 0], pairs[t, 1]]
    support = np.zeros((k, k))
    for t in range(k):
        i, j = pairs[t]
        ci, si, cj, sj = cos(ad[i]), sin(ad[i]), cos(bd[j]), sin(bd[j])
        for q in range(k):
            if q == t:
                continue
            i2, j2 = pairs[q]
            ux, uy = float(ax[i2] - ax[i]), float(ay[i2] - ay[i])
            vx, vy = float(bx[j2] - bx[j]), float(by[j2] - by[j])
            du, dv = sqrt(ux * ux + uy * uy), sqrt(vx * vx + vy * vy)
            cos_turn = cos((ad[i2] - ad[i]) - (bd[j2] - bd[j]))
            # both vectors in the frame of their own minutia, then the cosine between them
            pu, pv = ci * ux - si * uy, si * ux + ci * uy
            qu, qv = cj * vx - sj * vy, sj * vx + cj * vy
            norm = du * dv
            cos_radial = (pu * qu + pv * qv) / norm if norm > 0 else 1.0
            support[t, q] = (
                _sigmoid(abs(du - dv), params.distance_mu, params.distance_tau)
                * _sigmoid(sqrt(max(0.0, 2 - 2 * cos_turn)), params.direction_mu, params.direction_tau)
                * _sigmoid(sqrt(max(0.0, 2 - 2 * cos_radial)), params.radial_mu, params.radial_tau)
            )
    weight = start.copy()
    for _ in range(params.rounds):
        weight = params.own_weight * weight + (1 - params.own_weight) / max(1, k - 1) * (support @ weight)
    wanted = int(
        params.min_pairs
        + np.rint(_sigmoid(n, params.pairs_mu, params.pairs_tau) * (params.max_pairs - params.min_pairs))
    )
    order = np.argsort(-weight / start, kind="mergesort")[:wanted]
    contributions = (weight[order] / wanted).astype(np.float32)
    return weight[order].sum() / wanted, pairs[order], contributions
