"""CPU time of one 1:1 comparison, beside Bozorth3, in one run on the same real prints.

    python -m benchmarks.compare_speed --cache DIR

Templates of this project for ours, minutiae of mindtct for Bozorth3 (both of NBIS, through `nbis-py`; its
call overhead is included). The first prints of each development set, every pair of them; a figure is the
CPU time of all pairs of a class over their number, the best of several rounds. Prints are found through
REKAM_DATA.
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, TypeVar

import nbis
import numpy as np
import typer

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint import comparison, cylinders, overlap
from matching.fingerprint.calibration import FMR_1E3, fingerprint_calibration
from rekam.offline.prints import extract, print_sets

Template = TypeVar("Template")


def cpu_microseconds(run: Callable[[], object], items: int, rounds: int) -> float:
    """CPU time an item, best of `rounds` after one to warm up."""
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        run()
        times.append(time.process_time_ns() - start)
    return min(times) / items / 1000


def compare_all(
    compare: Callable[[Template, Template], float], templates: list[Template], pairs: list[tuple[int, int]]
) -> list[float]:
    return [compare(templates[i], templates[j]) for i, j in pairs]


def _bozorth3(a: nbis.Minutiae, b: nbis.Minutiae) -> float:
    return float(a.compare(b))


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    fingers: Annotated[int, typer.Option(min=2, help="Fingers of each set.")] = 4,
    impressions: Annotated[int, typer.Option(min=2, help="Impressions of each finger.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions, of which the best counts.")] = 5,
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure the CPU time of 1:1 comparison beside Bozorth3."""
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    mindtct = nbis.new_nbis_extractor(settings)

    # 1. The same prints for both.
    fingers_of: list[str] = []
    ours, theirs = [], []
    templates = []
    folders = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    for one in print_sets([prints / name for name in folders], list(folders.values())):
        chosen = list(dict.fromkeys(impression.finger for impression in one.impressions))[:fingers]
        seen = dict.fromkeys(chosen, 0)
        for impression in one.impressions:
            if impression.finger not in seen or seen[impression.finger] == impressions:
                continue
            extracted = extract(impression.path, one.ppi, cache)
            if extracted.template is None:
                continue
            seen[impression.finger] += 1
            template = FingerprintTemplate.from_bytes(extracted.template)
            templates.append(template)
            ours.append(cylinders.cylinders(template))
            theirs.append(mindtct.extract_minutiae_from_image_file(str(impression.path)))
            fingers_of.append(f"{one.name}/{impression.finger}")

    # 2. Every pair, by class.
    classes: dict[str, list[tuple[int, int]]] = {"genuine": [], "impostor": []}
    for i, j in combinations(range(len(ours)), 2):
        classes["genuine" if fingers_of[i] == fingers_of[j] else "impostor"].append((i, j))
    figures: dict[str, object] = {}
    print(f"{'class':10s} {'pairs':>6s} {'ours us':>9s} {'Bozorth3 us':>12s} {'ratio':>7s}")
    for name, pairs in classes.items():
        fast = cpu_microseconds(partial(compare_all, comparison.similarity, ours, pairs), len(pairs), rounds)
        slow = cpu_microseconds(partial(compare_all, _bozorth3, theirs, pairs), len(pairs), min(rounds, 2))
        figures[name] = {"pairs": len(pairs), "ours_us": fast, "bozorth3_us": slow, "ratio": slow / fast}
        print(f"{name:10s} {len(pairs):6d} {fast:9.1f} {slow:12.1f} {slow / fast:7.1f}")
    describe = cpu_microseconds(
        lambda: [cylinders.cylinders(one) for one in templates], len(templates), rounds
    )
    print(f"cylinders of one finger: {describe:.0f} us")

    # 3. That both compared the same fingers, and well: genuine pairs found at FMR 1e-3 of the calibration.
    threshold = fingerprint_calibration().threshold(FMR_1E3)
    genuine = compare_all(comparison.similarity, ours, classes["genuine"])
    found = np.mean([score >= threshold for score in genuine])
    record = {
        "command": "python -m benchmarks.compare_speed",
        **provenance(),
        "data": {"sets": list(folders), "fingers": fingers, "impressions": impressions, "prints": len(ours)},
        "parameters": {
            "cylinders": {name: getattr(cylinders.PARAMS, name) for name in cylinders.Params.__slots__},
            "comparison": comparison.PARAMS._asdict(),
            "overlap": overlap.PARAMS._asdict(),
            "rounds": rounds,
        },
        "mean_cylinders": float(np.mean([len(one) for one in ours])),
        "mean_mindtct_minutiae": float(np.mean([len(one.get()) for one in theirs])),
        "genuine_found_at_fmr_1e-3": float(found),
        "cylinders_us": describe,
        **figures,
    }
    results.mkdir(exist_ok=True)
    (results / "compare_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
