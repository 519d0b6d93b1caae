"""How near synthetic prints come to real ones, recorded in `benchmarks/results/synthetic_prints.json`.

    python -m benchmarks.check_synthetic_prints

draws fingers on each kind of scanner, has them extracted and compared by the product, and sets the figures
beside those of real prints (REKAM_DATA). What decides is `VARIED` against FVC2002 DB1_B to DB3_B pooled,
whose scanners it draws, each set alone and then as one sample, and `ATTENDED` against CrossMatch; DB4_B is
left out because it is synthetic itself.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.likeness import Row, likeness, rows, table
from benchmarks.provenance import ROOT, provenance
from benchmarks.synthetic_prints import (
    ATTENDED,
    CAPACITIVE,
    NARROW,
    OPTICAL,
    PPI,
    VARIED,
    Conditions,
    Master,
    Scanner,
    finger,
    impression,
)
from capture.sample import FingerPosition
from matching.fingerprint import comparison
from rekam.offline.prints import Compared, compare_set, print_set

# The real set, its resolution, and the scanner that stands for its own.
FVC: tuple[tuple[str, float, Scanner], ...] = (
    ("fvc2002_db1_b", 500.0, OPTICAL),
    ("fvc2002_db2_b", 569.0, NARROW),
    ("fvc2002_db3_b", 500.0, CAPACITIVE),
)
# FVC2002 took fore and middle fingers, CrossMatch thumbs as well.
POSITIONS = (
    FingerPosition.RIGHT_INDEX,
    FingerPosition.RIGHT_MIDDLE,
    FingerPosition.LEFT_INDEX,
    FingerPosition.LEFT_MIDDLE,
)
WITH_THUMBS = (*POSITIONS, FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB)


def main(
    fingers: Annotated[int, typer.Option(min=8, help="Fingers on each scanner.")] = 80,
    impressions: Annotated[int, typer.Option(min=2, help="Impressions of each finger.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first person.")] = 80_000,
    crossmatch: Annotated[bool, typer.Option(help="Check the attended prints as well.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = len(os.sched_getaffinity(0)),
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Compare synthetic prints with real ones."""
    started = time.monotonic()
    console, quiet = Console(width=max(110, Console().width)), Console(stderr=True)
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)

    def compared(folder: Path, ppi: float) -> Compared:
        return compare_set(print_set(folder, ppi), workers=workers, cache_folder=cache, console=quiet)

    # 1. each scanner of FVC2002 and its counterpart, then all three as one sample
    real, synthetic, cpu = [], [], []
    began = time.process_time()
    grown = grow(POSITIONS, fingers, seed)
    cpu_a_finger = (time.process_time() - began) / fingers
    found: dict[str, list[Row]] = {}
    with TemporaryDirectory() as temporary:
        for name, ppi, scanner in FVC:
            folder = Path(temporary) / f"like_{name}"
            cpu.append(draw(folder, replace(VARIED, scanners=(scanner,)), grown, impressions, seed))
            real.append(compared(prints / name, ppi))
            synthetic.append(compared(folder, PPI))
            found[name] = rows(likeness(real[-1:]), likeness(synthetic[-1:]), both_bounds=True)
        found["fvc2002_db1-3_b"] = rows(likeness(real), likeness(synthetic), both_bounds=True)

        # 2. the live scanner
        if crossmatch:
            folder = Path(temporary) / "like_crossmatch"
            wholes = grow(WITH_THUMBS, fingers, seed)
            cpu.append(draw(folder, ATTENDED, wholes, impressions, seed))
            genuine, made = compared(prints / "crossmatch", PPI), compared(folder, PPI)
            found["crossmatch"] = rows(likeness([genuine]), likeness([made]), both_bounds=True)
    for name, figures in found.items():
        console.print(table(f"synthetic prints against {name}", figures))

    # 3. the record, and a picture of synthetic prints only
    decisive = [row for name in ("fvc2002_db1-3_b", "crossmatch") for row in found.get(name, [])]
    record = {
        "command": "python -m benchmarks.check_synthetic_prints" + ("" if crossmatch else " --no-crossmatch"),
        **provenance(),
        "parameters": {
            "varied": asdict(VARIED),
            "attended": asdict(ATTENDED),
            "comparison_version": comparison.COMPARISON_VERSION,
            "fingers": fingers,
            "impressions": impressions,
            "seed": seed,
        },
        "seconds": round(time.monotonic() - started),
        "cpu_ms_a_finger": round(1000 * cpu_a_finger),
        "cpu_ms_an_impression": round(1000 * float(np.mean(cpu)), 1),
        "rows": {name: [asdict(row) for row in figures] for name, figures in found.items()},
    }
    results.mkdir(exist_ok=True)
    (results / "synthetic_prints.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    Image.fromarray(sheet(seed)).save(results / "synthetic_prints.png", optimize=True)
    missed = [row.name for row in decisive if row.met is False]
    console.print(f"not met: {', '.join(missed)}" if missed else "everything asked for is met")
    if missed:
        raise typer.Exit(1)


def grow(positions: Sequence[FingerPosition], fingers: int, seed: int) -> list[Master]:
    """Fingers of as many people as it takes, each with one finger at each of `positions`."""
    return [finger(seed + nth // len(positions), positions[nth % len(positions)]) for nth in range(fingers)]


def draw(
    folder: Path, conditions: Conditions, fingers: Sequence[Master], impressions: int, seed: int
) -> float:
    """Write a set of prints, named as a real one; CPU seconds of one impression."""
    folder.mkdir()
    started = time.process_time()
    for nth, whole in enumerate(fingers):
        for n in range(1, impressions + 1):
            image = impression(whole, (seed + nth) * 100 + n, conditions)
            Image.fromarray(image).save(folder / f"{nth + 1}_{n}.png", dpi=(PPI, PPI))
    return (time.process_time() - started) / (len(fingers) * impressions)


def sheet(seed: int, across: int = 6) -> NDArray[np.uint8]:
    """A picture: a row of prints on the live scanner, then a row on each of the others."""
    wholes = [finger(seed + n, WITH_THUMBS[n % len(WITH_THUMBS)]) for n in range(across)]
    lines = []
    for conditions in (ATTENDED, *(replace(VARIED, scanners=(scanner,)) for _, _, scanner in FVC)):
        line = [impression(whole, seed + n, conditions) for n, whole in enumerate(wholes)]
        height = line[0].shape[0] + 8
        line = [np.pad(one, ((4, 4), (4, 404 - one.shape[1])), constant_values=255) for one in line]
        lines.append(np.hstack(line)[:height])
    small = cv2.resize(np.vstack(lines), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8)


if __name__ == "__main__":
    typer.run(main)
