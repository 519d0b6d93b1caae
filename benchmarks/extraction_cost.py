"""CPU time of extraction, file to minutiae, beside NBIS mindtct, in one run on the same real prints.

    python -m benchmarks.extraction_cost

A seeded choice of prints from each development set. Each extractor reads the file and extracts, in turn, on
one thread; a figure is the mean over prints of the least CPU time in several rounds. mindtct runs through
`nbis-py`, without its quality measures. At the end, ten prints on several threads: what a whole hand pair
costs in time where there are cores. Prints are found through REKAM_DATA.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import cv2
import nbis
import numpy as np
import typer

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.decode import decode_image
from capture.errors import ModelUnavailable
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice
from rekam.offline.prints import print_sets

Run = Callable[[Path, float], int]


def ours(extractor: FingerprintExtractor) -> Run:
    """File and resolution to the number of minutiae."""

    def run(path: Path, ppi: float) -> int:
        template = extractor.extract(decode_image(path.read_bytes(), ppi=ppi)).template
        return 0 if template is None else len(template)

    return run


def mindtct() -> Run:
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    extractor = nbis.new_nbis_extractor(settings)
    return lambda path, _: len(extractor.extract_minutiae_from_image_file(str(path)).get())


def cpu_seconds(run: Run, path: Path, ppi: float) -> tuple[float, int]:
    start = time.process_time()
    found = run(path, ppi)
    return time.process_time() - start, found


def main(
    prints: Annotated[int, typer.Option(min=1, help="Prints of each set.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions, of which the best counts.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the choice of prints.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the ten prints.")] = len(
        os.sched_getaffinity(0)
    ),
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure the CPU time of extraction beside mindtct."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    cv2.setNumThreads(1)
    engines: dict[str, Run] = {"mindtct": mindtct()}
    for choice in ExtractorChoice:
        try:
            engines[choice.value] = ours(FingerprintExtractor(choice))
        except ModelUnavailable as error:
            print(f"{choice.value}: left out: {error}")

    # 1. The prints.
    folders = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    chosen: list[tuple[str, Path, float]] = []
    for one in print_sets([data / name for name in folders], list(folders.values())):
        picked = np.random.default_rng(seed).permutation(len(one.impressions))[:prints]
        ppi = folders[one.name]
        chosen += [(one.name, one.impressions[i].path, ppi) for i in sorted(picked)]

    # 2. Each extractor in turn on each print, so that what else the machine does meets all alike.
    for run in engines.values():
        run(chosen[0][1], chosen[0][2])
    seconds = np.full((len(engines), len(chosen)), np.inf)
    minutiae = np.zeros(seconds.shape)
    for _ in range(rounds):
        for i, (_, path, ppi) in enumerate(chosen):
            for k, run in enumerate(engines.values()):
                spent, minutiae[k, i] = cpu_seconds(run, path, ppi)
                seconds[k, i] = min(seconds[k, i], spent)

    # 3. Means, by set and over all prints.
    of_set = np.array([name for name, _, _ in chosen])
    print(f"{'prints':16s}" + "".join(f"{name + ' ms':>14s}{'ratio':>7s}" for name in engines))
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name in (*folders, "all"):
        here = np.ones(len(chosen), dtype=bool) if name == "all" else of_set == name
        mean = seconds[:, here].mean(axis=1)
        rows[name] = {
            engine: {
                "cpu_ms": 1000 * float(mean[k]),
                "ratio_to_mindtct": float(mean[k] / mean[0]),
                "minutiae": float(minutiae[k, here].mean()),
            }
            for k, engine in enumerate(engines)
        }
        print(f"{name:16s}" + "".join(f"{1000 * m:14.1f}{m / mean[0]:7.2f}" for m in mean))

    # 4. Ten prints at once.
    ten = [(path, ppi) for _, path, ppi in chosen[:: max(1, len(chosen) // 10)][:10]]
    elapsed = {}
    for workers in (1, threads):
        with ThreadPoolExecutor(workers) as pool:
            start = time.perf_counter()
            list(pool.map(lambda one: engines["accurate"](*one), ten))
            elapsed[workers] = time.perf_counter() - start
    print(f"ten prints, accurate: {elapsed[1]:.2f} s on one thread, {elapsed[threads]:.2f} s on {threads}")

    record = {
        "command": "python -m benchmarks.extraction_cost",
        **provenance(),
        "data": {"sets": list(folders), "prints": len(chosen), "seed": seed},
        "parameters": {"rounds": rounds},
        "extraction": rows,
        "ten_prints_accurate": {
            "threads": threads,
            "one_thread_s": elapsed[1],
            "threads_s": elapsed[threads],
        },
    }
    results.mkdir(exist_ok=True)
    (results / "extraction_cost.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
