"""Error rates on the development prints, recorded in `benchmarks/results/`.

    python -m benchmarks.accuracy

is `rekam evaluate fingerprint` over the four sets of FVC2002 (EER, FVC protocol) and over CrossMatch (81,600
impostor pairs), with both extractors, and a record of machine, commit and parameters. Prints are found
through REKAM_DATA.
"""

import json
import os
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.provenance import ROOT, provenance
from capture.fingerprint import extract
from capture.fingerprint.template import ExtractorChoice
from matching.fingerprint import comparison, cylinders, overlap
from rekam.offline.evaluate_prints import REPLICATES, SEED, draw_det, plain, report, tables
from rekam.offline.prints import compare_set, print_sets

# Folders of each result, with the resolution of their scanner.
SETS = {
    "fvc2002": {
        "fvc2002_db1_b": 500.0,
        "fvc2002_db2_b": 569.0,
        "fvc2002_db3_b": 500.0,
        "fvc2002_db4_b": 500.0,
    },
    "crossmatch": {"crossmatch": 500.0},
}


def main(
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = len(os.sched_getaffinity(0)),
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure error rates on the development prints and record them."""
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    console = Console(stderr=True)
    results.mkdir(exist_ok=True)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    for extractor, (name, folders) in product(ExtractorChoice, SETS.items()):
        started = time.monotonic()
        sets = print_sets([prints / folder for folder in folders], list(folders.values()))
        compared = [
            compare_set(one, workers=workers, cache_folder=cache, console=console, extractor=extractor)
            for one in sets
        ]
        result = report(compared)
        record = {
            "command": "python -m benchmarks.accuracy",
            **provenance(),
            "parameters": {
                "extractor": extractor,
                "extraction": repr(extract.Params()),
                "cylinders": repr(cylinders.PARAMS),
                "comparison": repr(comparison.PARAMS),
                "overlap": repr(overlap.PARAMS),
                "comparison_version": comparison.COMPARISON_VERSION,
                "bootstrap": {"by": "finger", "confidence": 0.95, "replicates": REPLICATES, "seed": SEED},
                "workers": workers,
                "templates": "extracted in this run, or taken from the cache"
                if cache
                else "extracted in this run",
            },
            "seconds": round(time.monotonic() - started),
            **asdict(result),
        }
        written = name if extractor is ExtractorChoice.ACCURATE else f"{name}_{extractor}"
        (results / f"{written}.json").write_text(json.dumps(plain(record), indent=1) + "\n", encoding="utf-8")
        draw_det(results / f"{written}.png", compared)
        console.print(f"{name}, extractor {extractor}")
        for table in tables(result):
            Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    typer.run(main)
