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
from collections.abc import Sequence
from dataclasses import replace
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
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from matching.error_rates import FAILED, Pairs
from matching.fingerprint.calibration import FORMAT, Calibration
from matching.fingerprint.comparison import COMPARISON_VERSION, similarity
from matching.fingerprint.cylinders import cylinders
from rekam.prints import Compared, all_pairs, compare_set, print_sets

OUTPUT = ROOT / "matching" / "fingerprint" / "calibration.json"
RESULTS = ROOT / "benchmarks" / "results"
FOLDS = 10

Scores = NDArray[np.float64]


def fitted(
    sets: Sequence[Pairs],
    extractors: tuple[Extractor, Extractor] = (Extractor.LEADER_1, Extractor.LEADER_1),
) -> Calibration:
    """Calibrate on the pairs of several sets; pairs without a score (failed extractions) are left out."""
    genuine = [one.score[one.genuine & np.isfinite(one.score)] for one in sets]
    impostor = np.concatenate([one.score[~one.genuine & np.isfinite(one.score)] for one in sets])
    fmr_scores, fmrs = fmr_steps(impostor)
    llr_scores, llrs = isotonic_llr(np.concatenate(genuine), impostor, lower_cap(genuine, impostor))
    return Calibration(
        llr_scores=tuple(llr_scores),
        llrs=tuple(llrs),
        fmr_scores=tuple(fmr_scores),
        fmrs=tuple(fmrs),
        genuine_pairs=sum(len(one) for one in genuine),
        impostor_pairs=len(impostor),
        extractors=extractors,
        comparison_version=COMPARISON_VERSION,
    )


def lower_cap(genuine: Sequence[Scores], impostor: Scores) -> float:
    """What a lost pair is worth at worst: the log10 likelihood ratio of a score like 99 % of the impostors.

    Taken from the set that loses most pairs, at the upper 95 % bound: damaged fingers are commoner at a
    district office than in a laboratory, and one of them must not veto a person.
    """
    threshold = np.quantile(impostor, 0.99)
    lost = max(upper_count(int((one < threshold).sum())) / len(one) for one in genuine if len(one))
    return log10(min(lost, 0.99) / 0.99)


def isotonic_llr(genuine: Scores, impostor: Scores, lowest: float) -> tuple[list[float], list[float]]:
    """Corners of the log10 likelihood ratio, by pooling adjacent violators.

    Three imagined impostors above all scores keep the upper end at what the rule of three supports.
    """
    score = np.concatenate([genuine, impostor, [np.inf]])
    mates = np.concatenate([np.full(len(genuine), 1 / len(genuine)), np.zeros(len(impostor) + 1)])
    share = np.full(len(impostor), 1 / len(impostor))
    others = np.concatenate([np.zeros(len(genuine)), share, [3 / len(impostor)]])
    blocks: list[tuple[float, float, float, float]] = []  # mates, others, first and last score
    for i in np.lexsort((mates, score)):
        block = (float(mates[i]), float(others[i]), float(score[i]), float(score[i]))
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


def checked(splits: Sequence[tuple[Sequence[Pairs], Sequence[Pairs]]]) -> dict[str, float]:
    """Fit on the first, apply to the second of each split; figures over all applied pairs together.

    `exceeded_t`: the share of impostors whose likelihood ratio reaches 10^t, which should be 10^-t at most.
    """
    genuine: list[float] = []
    impostor: list[float] = []
    for training, test in splits:
        calibration = fitted(training)
        for pairs in test:
            for score, mate in zip(pairs.score, pairs.genuine, strict=True):
                (genuine if mate else impostor).append(calibration.llr(score))
    mates, others = np.array(genuine), np.array(impostor)
    figures = {"genuine": len(mates), "impostor": len(others), "cllr": cllr(mates, others)}
    return figures | {f"exceeded_{t}": float((others >= t).mean()) for t in (1, 2, 3, 4)}


def fold_splits(sets: Sequence[Pairs]) -> list[tuple[list[Pairs], list[Pairs]]]:
    """Each tenth of the fingers in turn: trained without any pair of theirs, tested on pairs among them."""
    splits = []
    for fold in range(FOLDS):
        held = [(one.finger_a % FOLDS == fold, one.finger_b % FOLDS == fold) for one in sets]
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


def across(first: Compared, second: Compared) -> Pairs:
    """Every two impressions of a set, the earlier by the one extractor, the later by the other."""
    described = [
        [
            None if made.template is None else cylinders(FingerprintTemplate.from_bytes(made.template))
            for made in one.extracted
        ]
        for one in (first, second)
    ]
    scores = np.full(len(first.pairs), FAILED)
    for k, (i, j) in enumerate(zip(*all_pairs(len(first.extracted)), strict=True)):
        a, b = described[0][i], described[1][j]
        if a is not None and b is not None:
            scores[k] = similarity(a, b)
    return replace(first.pairs, score=scores)


def content_with(calibrations: Sequence[Calibration], names: Sequence[str], before: str) -> str:
    """The file's text: these calibrations, and those of other pairs of extractors from `before`."""
    pairs = {}
    try:
        old = json.loads(before)
        if (old["format"], old["comparison_version"]) == (FORMAT, COMPARISON_VERSION):
            pairs = {tuple(one["extractors"]): one for one in old["pairs"]}
    except (ValueError, KeyError):
        pass  # damaged, or of an older format: nothing in it is of use
    for one in calibrations:
        pairs[one.extractors] = {
            "extractors": one.extractors,
            "genuine_pairs": one.genuine_pairs,
            "impostor_pairs": one.impostor_pairs,
            "floor": one.floor,
            "llr_scores": one.llr_scores,
            "llrs": one.llrs,
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


def figures_of(calibration: Calibration, names: Sequence[str], sets: list[Pairs]) -> dict[str, object]:
    """What a fit is worth: thresholds, error rates of each set, cross-validation."""
    thresholds = {f"{rate:g}": calibration.threshold(rate) for rate in (1e-2, 1e-3, 1e-4)}
    return {
        "genuine_pairs": calibration.genuine_pairs,
        "impostor_pairs": calibration.impostor_pairs,
        "smallest_fmr": calibration.floor,
        "llr_lowest": calibration.llrs[0],
        "llr_highest": calibration.llrs[-1],
        "score_at_fmr": thresholds,
        "fnmr_at_fmr": {
            name: {
                rate: float((one.score[one.genuine] < threshold).mean())
                for rate, threshold in thresholds.items()
            }
            for name, one in zip(names, sets, strict=True)
        },
        "trained_on_itself": checked([(sets, sets)]),
        "other_fingers": checked(fold_splits(sets)),
        "other_sets": checked([(sets[:i] + sets[i + 1 :], sets[i : i + 1]) for i in range(len(sets))]),
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
    calibrations: list[Calibration] = []
    figures: dict[str, object] = {}
    for a, b in combinations_with_replacement(compared, 2):
        sets = [
            one.pairs if a is b else across(one, other)
            for one, other in zip(compared[a], compared[b], strict=True)
        ]
        low, high = sorted((EXTRACTORS[a], EXTRACTORS[b]))
        calibration = fitted(sets, (low, high))
        calibrations.append(calibration)
        figures[f"{a}-{b}"] = figures_of(calibration, list(folders), sets)
    before = OUTPUT.read_text(encoding="utf-8") if OUTPUT.exists() else ""
    OUTPUT.write_text(content_with(calibrations, list(folders), before), encoding="utf-8")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**provenance(), **figures}, indent=1)
    (RESULTS / "calibration.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
