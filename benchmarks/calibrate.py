"""Fit the shipped calibrations on the real pairs of the development sets.

    python -m benchmarks.calibrate --modality fingerprint --cache DIR [--extractor accurate --extractor fast]
    python -m benchmarks.calibrate --modality iris --cache DIR
    python -m benchmarks.calibrate --modality face --cache DIR

takes all genuine and all impostor pairs within each set; those of one person's different fingers are among
the impostors. With several extractors, each is calibrated with itself and every two with each other; what the
file holds of others is kept. `--cache` keeps templates between runs: extraction takes most of the time.
Images are found through REKAM_DATA. The fit is checked by cross-validation over fingers, eyes or people, for
fingerprints also over sets, and the figures are written to `benchmarks/results/`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.face.template import FaceTemplate
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from capture.iris.template import IrisCoder, IrisTemplate
from capture.sample import Modality
from matching.calibration import Calibration, Scores
from matching.error_rates import FAILED, Pairs
from matching.face import calibration as face
from matching.face.comparison import compare_faces, face_form
from matching.fingerprint import calibration as fingerprint
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from matching.fitting import Makers, Measured, Values, cllr, content_with, fitted, together
from matching.iris import calibration as iris
from matching.iris.comparison import compare_irises, iris_form
from rekam.offline.prints import Compared, compare_set, print_sets
from rekam.offline.samples import EYES, PORTRAITS, all_pairs, extract_file, face_extractor, sample_set

RESULTS = ROOT / "benchmarks" / "results"
FOLDS = 10
QUALITY_BINS = (50, 70, 85)


@dataclass(frozen=True, slots=True)
class Conditions:
    """How scores of a modality are conditioned on detail: see `fitted`; `rates` that its figures give."""

    scores: Scores
    correction: float
    bins: tuple[int, ...]
    unseen_mates: bool = True
    rates: tuple[float, ...] = (1e-2, 1e-3, 1e-4)

    @property
    def output(self) -> Path:
        """The file that is shipped."""
        return ROOT / "matching" / self.scores.modality / "calibration.json"

    def fit(self, sets: Sequence[Measured]) -> Calibration:
        """Calibrate under these conditions."""
        return fitted(
            sets, self.scores, correction=self.correction, bins=self.bins, unseen_mates=self.unseen_mates
        )


CONDITIONS = {
    # 0.02 to 0.04 do as well on sets left out, a value fitted to each pair of extractors does worse
    Modality.FINGERPRINT: Conditions(fingerprint.SCORES, correction=0.03, bins=(25,), unseen_mates=False),
    # tried: corrections to 0.04; bins from 1,900 to 2,300, none. None is best by Cllr of eyes left out, where
    # no pair is wrong at all; what little is known of poor eyes asks for one
    Modality.IRIS: Conditions(iris.SCORES, correction=0.0, bins=(2100,)),
    # tried: none, 25, 34, 42, two bins, a curve for each: by Cllr of people left out
    Modality.FACE: Conditions(face.SCORES, correction=0.0, bins=(face.POOR_QUALITY,)),
}

Splits = Sequence[tuple[Sequence[Measured], Sequence[Measured]]]


def checked(splits: Splits, conditions: Conditions, *, conditioned: bool = True) -> dict[str, object]:
    """Fit on the first, apply to the second of each split; figures over all applied pairs together.

    `exceeded_t`: the share of impostors whose likelihood ratio reaches 10^t, which should be 10^-t at most.
    Without `conditioned`, one curve and one pair of caps for all, whatever their detail.
    """
    bare = replace(conditions, correction=0.0, bins=())
    applied: list[tuple[Measured, Values]] = []
    for training, test in splits:
        calibration = conditions.fit(training) if conditioned else bare.fit(training)
        for one in test:
            llrs = [
                calibration.llr(score, n)
                for score, n in zip(one.pairs.score.tolist(), one.detail.tolist(), strict=True)
            ]
            applied.append((one, np.array(llrs)))
    sample, llr = together([one for one, _ in applied]), np.concatenate([llr for _, llr in applied])
    llr = llr[np.concatenate([np.isfinite(one.pairs.score) for one, _ in applied])]
    genuine = sample.pairs.genuine
    figures: dict[str, object] = {"genuine": int(genuine.sum()), "impostor": int((~genuine).sum())}
    figures["cllr"] = cllr(llr[genuine], llr[~genuine])
    figures |= {f"exceeded_{t}": float((llr[~genuine] >= t).mean()) for t in (1, 2, 3, 4)}
    for name, least, edges in (
        (conditions.scores.detail.name, sample.detail, conditions.bins),
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


def measured_prints(first: Compared, second: Compared) -> Measured:
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


def figures_of(
    calibration: Calibration, names: Sequence[str], sets: list[Measured], conditions: Conditions
) -> dict[str, object]:
    """What a fit is worth: thresholds, error rates of each set, cross-validation."""
    thresholds = {f"{rate:g}": calibration.threshold(rate) for rate in conditions.rates}
    return {
        "genuine_pairs": calibration.genuine_pairs,
        "impostor_pairs": calibration.impostor_pairs,
        "smallest_fmr": calibration.floor,
        f"llr_by_{conditions.scores.detail.name}": {
            f"{low}-": bounds
            for low, *bounds in zip(
                (0, *calibration.bins), calibration.lowest, calibration.highest, strict=True
            )
        },
        "score_at_fmr": thresholds,
        "fnmr_at_fmr": {
            name: {
                rate: float((one.pairs.score[one.pairs.genuine] < threshold).mean())
                for rate, threshold in thresholds.items()
            }
            for name, one in zip(names, sets, strict=True)
        },
        "trained_on_itself": checked([(sets, sets)], conditions),
        "other_sources": checked(fold_splits(sets), conditions),
        "other_sources_unconditioned": checked(fold_splits(sets), conditions, conditioned=False),
    } | (other_sets(names, sets, conditions) if len(sets) > 1 else {})


def other_sets(names: Sequence[str], sets: list[Measured], conditions: Conditions) -> dict[str, object]:
    """Cross-validation over sets."""
    others = [(sets[:i] + sets[i + 1 :], sets[i : i + 1]) for i in range(len(sets))]
    return {
        "other_sets": checked(others, conditions),
        "other_sets_unconditioned": checked(others, conditions, conditioned=False),
        "other_sets_each": {
            name: [
                checked([split], conditions)["cllr"],
                checked([split], conditions, conditioned=False)["cllr"],
            ]
            for name, split in zip(names, others, strict=True)
        },
    }


Fitted = dict[Makers, list[Measured]]


def prints(
    data: Path, cache: Path | None, extractors: Sequence[ExtractorChoice], workers: int
) -> tuple[list[str], Fitted]:
    """Names of the sets of prints, and their pairs by extractors."""
    folders = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    print_folders = print_sets([data / "fingerprint" / name for name in folders], list(folders.values()))
    console = Console(stderr=True)
    compared = {
        choice: [
            compare_set(one, workers=workers, cache_folder=cache, console=console, extractor=choice)
            for one in print_folders
        ]
        for choice in sorted(set(extractors))
    }
    found: Fitted = {}
    for a, b in combinations_with_replacement(compared, 2):
        low, high = sorted((EXTRACTORS[a], EXTRACTORS[b]))
        found[low, high] = [
            measured_prints(one, other) for one, other in zip(compared[a], compared[b], strict=True)
        ]
    return list(folders), found


def eyes(data: Path, cache: Path | None) -> tuple[list[str], Fitted]:
    """All pairs of CASIA-V1."""
    files = sample_set(data / "iris" / "casia_v1", EYES).files
    made = [extract_file(file.path, Modality.IRIS, cache).template for file in files]
    forms = [None if one is None else iris_form(IrisTemplate.from_bytes(one)) for one in made]
    i, j = all_pairs(len(files))
    scores, bits, quality = np.full(len(i), FAILED), np.zeros(len(i), np.int64), np.zeros(len(i), np.int64)
    for k, (a, b) in enumerate((forms[m], forms[n]) for m, n in zip(i, j, strict=True)):
        if a is not None and b is not None:
            compared = compare_irises(a, b)
            scores[k], bits[k], quality[k] = compared.score, compared.bits, min(a.quality, b.quality)
    source = numbered([file.subject for file in files])
    pairs = Pairs(scores, source[i] == source[j], source[i], source[j])
    coder = int(IrisCoder.LOG_GABOR_1)
    return ["casia_v1"], {(coder, coder): [Measured(pairs, bits, quality)]}


def portraits(data: Path, cache: Path | None) -> tuple[list[str], Fitted]:
    """All pairs of the LFW development set."""
    files = sample_set(data / "face" / "lfw", PORTRAITS).files
    made = [extract_file(file.path, Modality.FACE, cache).template for file in files]
    forms = [None if one is None else face_form(FaceTemplate.from_bytes(one)) for one in made]
    i, j = all_pairs(len(files))
    scores, quality = np.full(len(i), FAILED), np.zeros(len(i), np.int64)
    for k, (a, b) in enumerate((forms[m], forms[n]) for m, n in zip(i, j, strict=True)):
        if a is not None and b is not None:
            scores[k], quality[k] = compare_faces(a, b), min(a.quality, b.quality)
    source = numbered([file.subject for file in files])
    pairs = Pairs(scores, source[i] == source[j], source[i], source[j])
    embedder = face_extractor().embedder.hex()
    return ["lfw"], {(embedder, embedder): [Measured(pairs, quality, quality)]}


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Names as numbers from 0, equal where they are."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64)


def main(
    modality: Annotated[Modality, typer.Option(help="What to calibrate.")] = Modality.FINGERPRINT,
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    extractor: Annotated[
        list[ExtractorChoice] | None,
        typer.Option(help="Fingerprint extractors, each with each; accurate alone."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, for prints.")] = len(
        os.sched_getaffinity(0)
    ),
) -> None:
    """Fit and check the calibration of one modality."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    match modality:
        case Modality.FINGERPRINT:
            names, measured = prints(data, cache, extractor or [ExtractorChoice.ACCURATE], workers)
            result = RESULTS / "calibration.json"
        case Modality.IRIS:
            names, measured = eyes(data, cache)
            result = RESULTS / "calibration_iris.json"
        case Modality.FACE:
            names, measured = portraits(data, cache)
            result = RESULTS / "calibration_face.json"
    conditions = CONDITIONS[modality]
    calibrations = {makers: conditions.fit(sets) for makers, sets in measured.items()}
    figures = {
        " - ".join(map(str, makers)): figures_of(calibrations[makers], names, sets, conditions)
        for makers, sets in measured.items()
    }
    # Of prints, one extractor may be calibrated at a time; of faces, nothing is kept of embedders gone by.
    keep = modality is Modality.FINGERPRINT and conditions.output.exists()
    before = conditions.output.read_text(encoding="utf-8") if keep else ""
    text = content_with(conditions.scores, calibrations, names, before)
    conditions.output.write_text(text, encoding="utf-8")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**provenance(), **figures}, indent=1)
    result.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
