"""Fit `matching/fingerprint/calibration.json` on the real pairs of the development sets.

    python -m benchmarks.calibrate --cache DIR [--extractor accurate --extractor fast]

takes all genuine and all impostor pairs within each set; those of one person's different fingers are among
the impostors. With several extractors, each is calibrated with itself and every two with each other; what the
file holds of others is kept. `--cache` keeps templates between runs: extraction takes most of the time.
Prints are found through REKAM_DATA. The fit is checked by cross-validation over fingers and over sets, and
the figures are written to `benchmarks/results/calibration.json`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import log10, sqrt
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import MAX_MINUTIAE, Extractor, ExtractorChoice, FingerprintTemplate
from matching.calibration import FORMAT, Calibration
from matching.error_rates import FAILED, Pairs
from matching.fingerprint.calibration import SCORES
from matching.fingerprint.comparison import COMPARISON_VERSION, similarity
from matching.fingerprint.cylinders import cylinders
from rekam.prints import Compared, all_pairs, compare_set, print_sets

OUTPUT = ROOT / "matching" / "fingerprint" / "calibration.json"
RESULTS = ROOT / "benchmarks" / "results"
FOLDS = 10
LIKE_OTHERS = 0.99  # a score below so many of the impostors' is like theirs
CORRECTION = 0.03  # for detail; 0.02 to 0.04 do as well on sets left out, a value fitted to each does worse
BINS = (25,)  # cylinders
QUALITY_BINS = (50, 70, 85)

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Pairs of a set, and of the print that has less: `cylinders` and `quality`, `(n,) int64`."""

    pairs: Pairs
    cylinders: NDArray[np.int64]
    quality: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Measured":
        """Keep the pairs where `chosen` `(n,) bool` is true."""
        return Measured(self.pairs[chosen], self.cylinders[chosen], self.quality[chosen])


def together(sets: Sequence[Measured]) -> Measured:
    """All pairs of several sets that have a score; fingers keep the numbers they have in their set."""
    pairs = Pairs(
        *(
            np.concatenate([getattr(one.pairs, name) for one in sets])
            for name in ("score", "genuine", "finger_a", "finger_b")
        )
    )
    cylinders = np.concatenate([one.cylinders for one in sets])
    quality = np.concatenate([one.quality for one in sets])
    return Measured(pairs, cylinders, quality)[np.isfinite(pairs.score)]


def fitted(
    sets: Sequence[Measured],
    *,
    correction: float = CORRECTION,
    bins: tuple[int, ...] = BINS,
) -> Calibration:
    """Calibrate on the pairs of several sets; pairs without a score (failed extractions) are left out."""
    sample = together(sets)
    genuine, score = sample.pairs.genuine, sample.pairs.score
    detail = np.array([SCORES.detail.excess(n) for n in range(MAX_MINUTIAE + 1)])[sample.cylinders]
    bin_of = np.searchsorted(bins, sample.cylinders, side="right")
    corrected = score - correction * detail
    mates, others = corrected[genuine], corrected[~genuine]
    # 1. What the pairs of each bin support.
    lost = genuine & (corrected < np.quantile(others, LIKE_OTHERS))
    bounds = [
        support(int(lost[here].sum()), int(genuine[here].sum()), int((~genuine)[here].sum()))
        for here in (bin_of == one for one in range(len(bins) + 1))
    ]
    lowest, highest = zip(*bounds, strict=True)
    # 2. One curve for all.
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
        detail=SCORES.detail,
    )


def support(lost: int, genuine: int, impostor: int) -> tuple[float, float]:
    """The lowest and the highest log10 likelihood ratio that a sample gives reason for; 0 without any.

    Lowest: of a score like most impostors', which `lost` genuine pairs had, at the upper 95 % bound. Highest:
    the rule of three.
    """
    rate = upper_count(lost) / genuine if genuine else 1.0
    return log10(min(rate, LIKE_OTHERS) / LIKE_OTHERS), log10(max(impostor / 3, 1))


def isotonic_llr(genuine: Scores, impostor: Scores, lowest: float) -> tuple[list[float], list[float]]:
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


def fmr_steps(impostor: Scores) -> tuple[list[float], list[float]]:
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


def cllr(genuine: Scores, impostor: Scores) -> float:
    """Cost in bits of log10 likelihood ratios, 0 perfect, 1 useless (N. Brümmer and J. du Preez, 2006)."""
    return float((np.log2(1 + 10.0**-genuine).mean() + np.log2(1 + 10.0**impostor).mean()) / 2)


Splits = Sequence[tuple[Sequence[Measured], Sequence[Measured]]]


def checked(splits: Splits, *, conditioned: bool = True) -> dict[str, object]:
    """Fit on the first, apply to the second of each split; figures over all applied pairs together.

    `exceeded_t`: the share of impostors whose likelihood ratio reaches 10^t, which should be 10^-t at most.
    Without `conditioned`, one curve and one pair of caps for all, whatever their detail.
    """
    applied: list[tuple[Measured, Scores]] = []
    for training, test in splits:
        calibration = fitted(training) if conditioned else fitted(training, correction=0.0, bins=())
        for one in test:
            llrs = [
                calibration.llr(score, n)
                for score, n in zip(one.pairs.score.tolist(), one.cylinders.tolist(), strict=True)
            ]
            applied.append((one, np.array(llrs)))
    sample, llr = together([one for one, _ in applied]), np.concatenate([llr for _, llr in applied])
    llr = llr[np.concatenate([np.isfinite(one.pairs.score) for one, _ in applied])]
    genuine = sample.pairs.genuine
    figures: dict[str, object] = {"genuine": int(genuine.sum()), "impostor": int((~genuine).sum())}
    figures["cllr"] = cllr(llr[genuine], llr[~genuine])
    figures |= {f"exceeded_{t}": float((llr[~genuine] >= t).mean()) for t in (1, 2, 3, 4)}
    for name, least, edges in (
        ("cylinders", sample.cylinders, BINS),
        ("quality", sample.quality, QUALITY_BINS),
    ):
        bin_of = np.searchsorted(edges, least, side="right")
        figures[f"cllr_by_{name}"] = {
            f"{low}-": cllr(llr[here & genuine], llr[here & ~genuine])
            for low, here in ((low, bin_of == one) for one, low in enumerate((0, *edges)))
            if (here & genuine).any() and (here & ~genuine).any()
        }
    return figures


def fold_splits(sets: Sequence[Measured]) -> Splits:
    """Each tenth of the fingers in turn: trained without any pair of theirs, tested on pairs among them."""
    splits = []
    for fold in range(FOLDS):
        held = [(one.pairs.finger_a % FOLDS == fold, one.pairs.finger_b % FOLDS == fold) for one in sets]
        splits.append(
            (
                [one[~(a | b)] for one, (a, b) in zip(sets, held, strict=True)],
                [one[a & b] for one, (a, b) in zip(sets, held, strict=True)],
            )
        )
    return splits


EXTRACTORS = {
    ExtractorChoice.ACCURATE: Extractor.LEADER_1,
    ExtractorChoice.FAST: Extractor.FAST_1,
}


def measured(first: Compared, second: Compared) -> Measured:
    """Every two impressions of a set, the earlier by the one extractor, the later by the other."""
    described = [
        [
            None if made.template is None else cylinders(FingerprintTemplate.from_bytes(made.template))
            for made in one.extracted
        ]
        for one in (first, second)
    ]
    i, j = all_pairs(len(first.extracted))
    pairs = first.pairs
    if first is not second:
        scores = [
            FAILED if a is None or b is None else similarity(a, b)
            for a, b in ((described[0][m], described[1][n]) for m, n in zip(i, j, strict=True))
        ]
        pairs = replace(pairs, score=np.array(scores))
    sizes = [np.array([0 if made is None else len(made) for made in one]) for one in described]
    quality = [np.array([made.quality for made in one.extracted]) for one in (first, second)]
    return Measured(pairs, np.minimum(sizes[0][i], sizes[1][j]), np.minimum(quality[0][i], quality[1][j]))


def content_with(
    calibrations: Mapping[tuple[Extractor, Extractor], Calibration], names: Sequence[str], before: str
) -> str:
    """The file's text: these calibrations, and those of other pairs of extractors from `before`."""
    pairs = {}
    try:
        old = json.loads(before)
        if (old["format"], old["comparison_version"]) == (FORMAT, COMPARISON_VERSION):
            pairs = {tuple(one["extractors"]): one for one in old["pairs"]}
    except (ValueError, KeyError):
        pass  # damaged, or of an older format: nothing in it is of use
    for extractors, one in calibrations.items():
        pairs[extractors] = {
            "extractors": extractors,
            "genuine_pairs": one.genuine_pairs,
            "impostor_pairs": one.impostor_pairs,
            "floor": one.floor,
            "llr_scores": one.llr_scores,
            "llrs": one.llrs,
            "correction": one.correction,
            "cylinders": one.bins,
            "lowest": one.lowest,
            "highest": one.highest,
            "fmr_scores": one.fmr_scores,
            "fmrs": one.fmrs,
        }
    content = {
        "format": FORMAT,
        "fitted_by": "python -m benchmarks.calibrate",
        "sets": names,
        "comparison_version": COMPARISON_VERSION,
        "pairs": [pairs[key] for key in sorted(pairs)],
    }
    return json.dumps(content) + "\n"


def figures_of(calibration: Calibration, names: Sequence[str], sets: list[Measured]) -> dict[str, object]:
    """What a fit is worth: thresholds, error rates of each set, cross-validation."""
    others = [(sets[:i] + sets[i + 1 :], sets[i : i + 1]) for i in range(len(sets))]
    thresholds = {f"{rate:g}": calibration.threshold(rate) for rate in (1e-2, 1e-3, 1e-4)}
    return {
        "genuine_pairs": calibration.genuine_pairs,
        "impostor_pairs": calibration.impostor_pairs,
        "smallest_fmr": calibration.floor,
        "llr_by_cylinders": {
            f"{low}-": bounds
            for low, *bounds in zip((0, *BINS), calibration.lowest, calibration.highest, strict=True)
        },
        "score_at_fmr": thresholds,
        "fnmr_at_fmr": {
            name: {
                rate: float((one.pairs.score[one.pairs.genuine] < threshold).mean())
                for rate, threshold in thresholds.items()
            }
            for name, one in zip(names, sets, strict=True)
        },
        "trained_on_itself": checked([(sets, sets)]),
        "other_fingers": checked(fold_splits(sets)),
        "other_fingers_unconditioned": checked(fold_splits(sets), conditioned=False),
        "other_sets": checked(others),
        "other_sets_unconditioned": checked(others, conditioned=False),
        "other_sets_each": {
            name: [checked([split])["cllr"], checked([split], conditioned=False)["cllr"]]
            for name, split in zip(names, others, strict=True)
        },
    }


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    extractor: Annotated[
        list[ExtractorChoice] | None, typer.Option(help="Calibrate these, each with each; accurate alone.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = len(os.sched_getaffinity(0)),
) -> None:
    """Fit and check the fingerprint calibration."""
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    folders = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    print_folders = print_sets([prints / name for name in folders], list(folders.values()))
    console = Console(stderr=True)
    compared = {
        choice: [
            compare_set(one, workers=workers, cache_folder=cache, console=console, extractor=choice)
            for one in print_folders
        ]
        for choice in sorted(set(extractor or [ExtractorChoice.ACCURATE]))
    }
    calibrations: dict[tuple[Extractor, Extractor], Calibration] = {}
    figures: dict[str, object] = {}
    for a, b in combinations_with_replacement(compared, 2):
        sets = [measured(one, other) for one, other in zip(compared[a], compared[b], strict=True)]
        low, high = sorted((EXTRACTORS[a], EXTRACTORS[b]))
        calibrations[low, high] = calibration = fitted(sets)
        figures[f"{a}-{b}"] = figures_of(calibration, list(folders), sets)
    before = OUTPUT.read_text(encoding="utf-8") if OUTPUT.exists() else ""
    OUTPUT.write_text(content_with(calibrations, list(folders), before), encoding="utf-8")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**provenance(), **figures}, indent=1)
    (RESULTS / "calibration.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
