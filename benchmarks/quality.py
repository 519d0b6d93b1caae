"""How well quality predicts the comparison of genuine pairs: errors as the worst are rejected, beside NFIQ 2.

    python -m benchmarks.quality --cache DIR

The quality of a pair is that of its worse print (ISO/IEC 29794-1). A threshold is set so that 1, 3 or 10 % of
the genuine pairs are lost; then pairs are rejected from the worst quality on, and the share lost of those
that remain is counted. The figure is its mean over rejections of 0 to 20 %, as a share of what is lost
without rejection: 1 means that quality tells nothing, and `ideal` is what rejecting lost pairs first would
give. Pairs of one quality are rejected in equal shares. NFIQ 2 needs 0.3 s a print and the package `nbis-py`;
its scores are kept in the cache. Prints are found through REKAM_DATA.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.extract import to_500_ppi
from capture.fingerprint.nfiq2 import nfiq2
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from matching.error_rates import FAILED
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from rekam.offline.prints import PrintSet, extract, print_sets, read_print

LOST = (0.01, 0.03, 0.1)
DRAWN = 0.03
REJECTED = np.linspace(0, 0.2, 41)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Genuine:
    """The genuine pairs of one set: their scores `(n,)`, and their quality `(n,)` by the measure's name."""

    scores: Floats
    quality: dict[str, Floats]


def genuine(prints: PrintSet, ppi: float, extractor: ExtractorChoice, cache: Path | None) -> Genuine:
    """Extract, judge and compare. Cost: 0.6 s a print where the cache has nothing."""
    found = [extract(one.path, ppi, cache, extractor) for one in prints.impressions]
    described = [
        None if one.template is None else cylinders(FingerprintTemplate.from_bytes(one.template))
        for one in found
    ]
    of_print = {
        "ours": np.array([one.quality for one in found], dtype=np.float64),
        "NFIQ 2": np.array([nfiq2_score(one.path, ppi, cache) for one in prints.impressions]),
    }
    fingers = np.array([one.finger for one in prints.impressions])
    first, second = np.triu_indices(len(fingers), 1)
    same = fingers[first] == fingers[second]
    first, second = first[same], second[same]
    scores = []
    for i, j in zip(first, second, strict=True):
        a, b = described[i], described[j]
        scores.append(FAILED if a is None or b is None else similarity(a, b))
    quality = {name: np.minimum(values[first], values[second]) for name, values in of_print.items()}
    return Genuine(np.array(scores), quality)


def nfiq2_score(path: Path, ppi: float, cache: Path | None) -> float:
    """NFIQ 2 of a file at 500 ppi; 0 where it computes none."""
    image = to_500_ppi(read_print(path, ppi)).image
    key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:24]
    kept = None if cache is None else cache / f"{key}.nfiq2"
    if kept is not None and kept.exists():
        return float(kept.read_text())
    score = nfiq2(image).score
    if kept is not None:
        kept.write_text(f"{score}\n")
    return float(score)


def lost_of_the_rest(scores: Floats, quality: Floats, lost: float) -> Floats:
    """Share of the pairs that remain which are lost, for each share of `REJECTED`, worst quality first.

    `lost` is about that share without rejection. Over pairs of one quality, losses are spread evenly.
    """
    threshold = np.quantile(scores, lost, method="inverted_cdf")
    is_lost = (scores <= threshold).astype(np.float64)
    _, group = np.unique(quality, return_inverse=True)
    evenly = (np.bincount(group, is_lost) / np.bincount(group))[group]
    ordered = evenly[np.argsort(quality, kind="stable")]
    beyond = np.concatenate([[0.0], np.cumsum(ordered)])
    rejected = REJECTED * len(scores)
    lost_so_far = np.interp(rejected, np.arange(len(beyond)), beyond)
    remaining: Floats = (beyond[-1] - lost_so_far) / (len(scores) - rejected)
    return remaining


def area(curve: Floats) -> float:
    """Mean height of a curve as a share of its start."""
    return float(np.trapezoid(curve, REJECTED) / (REJECTED[-1] - REJECTED[0]) / curve[0])


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's: Pearson's of the ranks, ties by their middle rank."""

    def ranks(values: Floats) -> Floats:
        _, group, count = np.unique(values, return_inverse=True, return_counts=True)
        middle: Floats = (np.cumsum(count) - (count - 1) / 2)[group]
        return middle

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def figures(sets: dict[str, Genuine]) -> dict[str, object]:
    """Correlations set by set, and areas of all pairs of the sets together."""
    scores = np.concatenate([one.scores for one in sets.values()])
    result: dict[str, object] = {"genuine_pairs": len(scores)}
    for name in ("ours", "NFIQ 2"):
        quality = np.concatenate([one.quality[name] for one in sets.values()])
        result[name] = {
            "rank_correlation": {
                folder: rank_correlation(one.quality[name], one.scores) for folder, one in sets.items()
            },
            "area": {f"{lost:.0%}": area(lost_of_the_rest(scores, quality, lost)) for lost in LOST},
        }
    result["ideal"] = {"area": {f"{lost:.0%}": area(lost_of_the_rest(scores, scores, lost)) for lost in LOST}}
    return result


def draw(groups: dict[str, dict[str, Genuine]], to: Path) -> None:
    """One panel a group: what is lost of the rest, where `DRAWN` is lost without rejection."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, (group, sets) in zip(panels, groups.items(), strict=True):
        scores = np.concatenate([one.scores for one in sets.values()])
        for name, colour in (("ours", "tab:blue"), ("NFIQ 2", "tab:orange"), ("ideal", "lightgrey")):
            by = scores if name == "ideal" else np.concatenate([one.quality[name] for one in sets.values()])
            curve = lost_of_the_rest(scores, by, DRAWN)
            panel.plot(100 * REJECTED, 100 * curve, label=f"{name}, area {area(curve):.2f}", color=colour)
        panel.set(title=f"{group}, {len(scores):,} genuine pairs", xlabel="rejected, worst quality first, %")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_ylabel("lost of the rest, %")
    figure.savefig(to, dpi=120, metadata={"Software": None})


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates and NFIQ 2 scores here.")] = None,
    extractor: Annotated[
        ExtractorChoice, typer.Option(help="Whose minutiae and scores.")
    ] = ExtractorChoice.ACCURATE,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure how well quality predicts genuine comparison, beside NFIQ 2."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    groups: dict[str, dict[str, Genuine]] = {}
    for group, folders in SETS.items():
        sets = print_sets([data / folder for folder in folders], list(folders.values()))
        groups[group] = {one.name: genuine(one, folders[one.name], extractor, cache) for one in sets}
    record = {
        "command": f"python -m benchmarks.quality --extractor {extractor}",
        **provenance(),
        "rejected": [0.0, float(REJECTED[-1])],
        **{group: figures(sets) for group, sets in groups.items()},
    }
    print(json.dumps({group: record[group] for group in groups}, indent=1))
    results.mkdir(exist_ok=True)
    name = "quality" if extractor is ExtractorChoice.ACCURATE else f"quality_{extractor}"
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(groups, results / f"{name}.png")


if __name__ == "__main__":
    typer.run(main)
