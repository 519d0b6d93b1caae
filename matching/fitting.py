"""Fit a calibration: one monotone curve, conditioned on detail, capped at what the sample supports.

Used by `benchmarks/calibrate.py` for the shipped calibrations, and for embedders of the user's own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10, sqrt

import numpy as np
from numpy.typing import NDArray

from matching.calibration import FORMAT, Calibration, Scores
from matching.error_rates import Pairs

LIKE_OTHERS = 0.99  # a score below so many of the impostors' is like theirs
UNSEEN = (0.9, 0.99, 0.999)  # where among the impostors the rule of three puts mates that were not seen

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Pairs of a set, and of the sample that has less: `detail` and `quality`, `(n,) int64`."""

    pairs: Pairs
    detail: NDArray[np.int64]
    quality: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Measured":
        """Keep the pairs where `chosen` `(n,) bool` is true."""
        return Measured(self.pairs[chosen], self.detail[chosen], self.quality[chosen])


def together(sets: Sequence[Measured]) -> Measured:
    """All pairs of several sets that have a score; sources keep the numbers they have in their set."""
    pairs = Pairs(
        *(
            np.concatenate([getattr(one.pairs, name) for one in sets])
            for name in ("score", "genuine", "finger_a", "finger_b")
        )
    )
    detail = np.concatenate([one.detail for one in sets])
    quality = np.concatenate([one.quality for one in sets])
    return Measured(pairs, detail, quality)[np.isfinite(pairs.score)]


def fitted(
    sets: Sequence[Measured],
    scores: Scores,
    *,
    correction: float = 0.0,
    bins: tuple[float, ...] = (),
    unseen_mates: bool = True,
) -> Calibration:
    """Calibrate on the pairs of several sets; pairs without a score (failed extractions) are left out.

    `correction`: what a sample e times as rich scores more by chance; `bins`: of detail, each with caps of
    its own. `unseen_mates`: three more mates are imagined among the best impostors, so that a score which few
    impostors reach does not deny, though no mate was seen as low. Raises `ValueError` where there are no
    genuine or no impostor pairs.
    """
    sample = together(sets)
    genuine, score = sample.pairs.genuine, sample.pairs.score
    if genuine.all() or not genuine.any():
        raise ValueError("a calibration needs genuine and impostor pairs")
    counts, place = np.unique(sample.detail, return_inverse=True)
    excess = np.array([scores.detail.excess(count) for count in counts.tolist()])[place]
    bin_of = np.searchsorted(bins, sample.detail, side="right")
    corrected = score - correction * excess
    mates, others = corrected[genuine], corrected[~genuine]
    # 1. What the pairs of each bin support.
    lost = genuine & (corrected < np.quantile(others, LIKE_OTHERS))
    bounds = [
        support(int(lost[here].sum()), int(genuine[here].sum()), int((~genuine)[here].sum()))
        for here in (bin_of == one for one in range(len(bins) + 1))
    ]
    lowest, highest = zip(*bounds, strict=True)
    # 2. One curve for all.
    if unseen_mates:
        mates = np.concatenate([mates, np.quantile(others, UNSEEN)])
    llr_scores, llrs = isotonic_llr(mates, others, min(lowest))
    fmr_scores, fmrs = fmr_steps(score[~genuine])
    return Calibration(
        llr_scores=tuple(llr_scores),
        llrs=tuple(llrs),
        correction=correction,
        bins=bins,
        lowest=lowest,
        highest=highest,
        fmr_scores=tuple(fmr_scores),
        fmrs=tuple(fmrs),
        genuine_pairs=int(genuine.sum()),
        impostor_pairs=int((~genuine).sum()),
        detail=scores.detail,
    )


Makers = tuple[int, int] | tuple[str, str]


def content_with(
    scores: Scores, calibrations: Mapping[Makers, Calibration], names: Sequence[str], before: str = ""
) -> str:
    """The text of a file: these calibrations, and those of other makers from `before`."""
    pairs: dict[object, object] = {}
    try:
        old = json.loads(before)
        if (old["format"], old["comparison_version"]) == (FORMAT, scores.version):
            pairs = {tuple(one[scores.makers]): one for one in old["pairs"]}
    except (ValueError, KeyError, TypeError):
        pass  # damaged, or of an older format: nothing in it is of use
    for makers, one in calibrations.items():
        pairs[makers] = {
            scores.makers: makers,
            "genuine_pairs": one.genuine_pairs,
            "impostor_pairs": one.impostor_pairs,
            "floor": one.floor,
            "llr_scores": one.llr_scores,
            "llrs": one.llrs,
            "correction": one.correction,
            one.detail.name: one.bins,
            "lowest": one.lowest,
            "highest": one.highest,
            "fmr_scores": one.fmr_scores,
            "fmrs": one.fmrs,
        }
    content = {
        "format": FORMAT,
        "fitted_by": "python -m benchmarks.calibrate",
        "sets": names,
        "comparison_version": scores.version,
        "pairs": [pairs[key] for key in sorted(pairs, key=str)],
    }
    return json.dumps(content) + "\n"


def support(lost: int, genuine: int, impostor: int) -> tuple[float, float]:
    """The lowest and the highest log10 likelihood ratio that a sample gives reason for; 0 without any.

    Lowest: of a score like most impostors', which `lost` genuine pairs had, at the upper 95 % bound. Highest:
    the rule of three.
    """
    rate = upper_count(lost) / genuine if genuine else 1.0
    return log10(min(rate, LIKE_OTHERS) / LIKE_OTHERS), log10(max(impostor / 3, 1))


def isotonic_llr(genuine: Values, impostor: Values, lowest: float) -> tuple[list[float], list[float]]:
    """Corners of the log10 likelihood ratio, by pooling adjacent violators.

    Three imagined impostors above all scores keep the upper end at what the rule of three supports.
    """
    score = np.concatenate([genuine, impostor, [np.inf]])
    mates = np.concatenate([np.full(len(genuine), 1 / len(genuine)), np.zeros(len(impostor) + 1)])
    share = np.full(len(impostor), 1 / len(impostor))
    others = np.concatenate([np.zeros(len(genuine)), share, [3 / len(impostor)]])
    # Mates and the others after them are pooled in any case: one block begins at the first mate after others.
    order = np.lexsort((mates, score))
    mated = mates[order] > 0
    first_of = np.flatnonzero(np.concatenate([[True], mated[1:] & ~mated[:-1]]))
    last_of = np.append(first_of[1:], len(order)) - 1
    blocks: list[tuple[float, float, float, float]] = []  # mates, others, first and last score
    for block in zip(
        np.add.reduceat(mates[order], first_of).tolist(),
        np.add.reduceat(others[order], first_of).tolist(),
        score[order][first_of].tolist(),
        score[order][last_of].tolist(),
        strict=True,
    ):
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2], block[3])
        blocks.append(block)
    scores: list[float] = []
    llrs: list[float] = []
    for mate, other, first, last in blocks:
        llr = max(lowest, log10(mate / other)) if mate > 0 else lowest
        # The ends are flat: the lowest holds up to its last score, the highest from its first on.
        corner = last if llr == lowest else first if np.isinf(last) else (first + last) / 2
        if llrs and llr == llrs[-1]:
            scores[-1] = corner
        elif not scores or corner > scores[-1]:
            scores.append(corner)
            llrs.append(llr)
    return scores, llrs


def fmr_steps(impostor: Values) -> tuple[list[float], list[float]]:
    """Scores and upper 95 % bounds of the false match rate there, fine in the tail, thinned below it."""
    falling = np.sort(impostor)[::-1]
    n = len(falling)
    scores, rates = [float(np.nextafter(falling[0], np.inf))], [3 / n]
    reaching = 1
    while reaching < n and upper_count(reaching) < n:
        score = float(np.nextafter(falling[reaching], np.inf))  # `reaching` impostors at most reach it
        if score < scores[-1]:
            scores.append(score)
            rates.append(upper_count(reaching) / n)
        reaching += 1 + reaching // 20
    return scores[::-1], rates[::-1]


def upper_count(count: int) -> float:
    """Upper 95 % bound of a Poisson mean of which `count` were seen (Wilson and Hilferty)."""
    freedom = 2 * count + 2
    return freedom * (1 - 2 / (9 * freedom) + 1.6449 * sqrt(2 / (9 * freedom))) ** 3 / 2


def cllr(genuine: Values, impostor: Values) -> float:
    """Cost in bits of log10 likelihood ratios, 0 perfect, 1 useless (N. Brümmer and J. du Preez, 2006)."""
    return float((np.log2(1 + 10.0**-genuine).mean() + np.log2(1 + 10.0**impostor).mean()) / 2)
