"""Whether searching for several people together costs less each, in benchmarks/results/search_together.json.

    python -m benchmarks.search_together [--rows 131072] [--people 1000]

First the scans alone, of codes and vectors drawn by chance, in segments as a gallery has them: processor time
a probe for 1 to 16 probes together, by one thread and by two at once. Then whole searches in a gallery of
synthetic people with ten fingers, one by one and by `search_many`. Times are the best of three, scaled to a
million rows where they are of scans.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.encounters import again
from benchmarks.population import TEN_FINGERS, person
from benchmarks.provenance import ROOT, provenance
from capture.iris.template import GROUP_WORDS, IrisCoder
from capture.sample import EyePosition
from matching.encounter import EncounterForm, encounter_form
from matching.face.comparison import FaceForm
from matching.face.shelf import FaceShelf, raise_cosines
from matching.fingerprint.code import CODE_WORDS, code_evidence
from matching.fingerprint.code_scan import ABSENT, scan_codes
from matching.gallery import Gallery
from matching.iris.comparison import IrisForm
from matching.iris.shelf import IrisesProbe, IrisShelf, raise_nearness

RESULT = ROOT / "benchmarks" / "results" / "search_together.json"
SEED = 2026
SEGMENT = 65_536
TOGETHER = (1, 2, 4, 8, 16)
TRIES = 3
Scan = Callable[[int], None]


def finger_scan(rows: int, rng: np.random.Generator) -> Scan:
    """All ten codes of so many people, summed for each probe."""
    bins = len(code_evidence())
    slot = np.arange(SEGMENT, dtype=np.int32)
    segments = [
        [
            (_words(rng, (SEGMENT, CODE_WORDS)), rng.integers(bins, size=SEGMENT).astype(np.uint8))
            for _ in TEN_FINGERS
        ]
        for _ in range(rows // SEGMENT)
    ]
    codes = _words(rng, (len(TEN_FINGERS), max(TOGETHER), CODE_WORDS))
    tables = np.stack([code_evidence()[bins - 1]] * max(TOGETHER))

    def scan(probes: int) -> None:
        totals = np.full((probes, rows), ABSENT, dtype=np.float32)
        which = np.arange(probes, dtype=np.intp)
        for number, segment in enumerate(segments):
            for (code, detail), asked in zip(segment, codes, strict=True):
                base = number * SEGMENT
                scan_codes(
                    code, detail, slot, asked[:probes], tables[:probes], which, totals, base, summed=True
                )

    return scan


def iris_scan(rows: int, rng: np.random.Generator) -> Scan:
    """Both eyes of so many people, declared and swapped."""
    eyes = (EyePosition.RIGHT, EyePosition.LEFT)
    nothing = np.zeros(SEGMENT, dtype=np.uint8)
    segments = []
    for _ in range(rows // SEGMENT):
        shelves = {}
        for eye in eyes:
            blocks = _words(rng, (SEGMENT // 8, GROUP_WORDS, 2, 8))
            blocks[:, :, 1] = ~np.uint64(0)
            shelves[eye] = IrisShelf(
                slot=np.arange(SEGMENT, dtype=np.int32),
                blocks=blocks,
                coder=nothing.copy(),
                quality=nothing.copy(),
                rest=np.zeros(0, dtype=np.uint64),
                end=np.zeros(SEGMENT, dtype=np.int64),
            )
        segments.append(shelves)
    mask = np.full(2 * GROUP_WORDS, ~np.uint64(0))
    asked = [
        IrisesProbe(
            [IrisForm(eye, _words(rng, (2 * GROUP_WORDS,)), mask, next(iter(IrisCoder)), 80) for eye in eyes]
        )
        for _ in range(max(TOGETHER))
    ]

    def scan(probes: int) -> None:
        totals = np.zeros((probes, rows), dtype=np.float32)
        for number, shelves in enumerate(segments):
            raise_nearness(shelves, asked[:probes], totals, number * SEGMENT, SEGMENT)

    return scan


def face_scan(rows: int, rng: np.random.Generator) -> Scan:
    """A vector of 128 values of each of so many people."""
    embedder = b"chance"
    segments = [
        {
            embedder: FaceShelf(
                slot=np.arange(SEGMENT, dtype=np.int32),
                vector=rng.standard_normal((SEGMENT, 128), dtype=np.float32),
                quality=np.zeros(SEGMENT, dtype=np.uint8),
            )
        }
        for _ in range(rows // SEGMENT)
    ]
    faces = [FaceForm(rng.standard_normal(128, dtype=np.float32), embedder, 80) for _ in range(max(TOGETHER))]

    def scan(probes: int) -> None:
        totals = np.zeros((probes, rows), dtype=np.float32)
        for number, shelves in enumerate(segments):
            raise_cosines(shelves, faces[:probes], totals, number * SEGMENT)

    return scan


def cost(scan: Scan, probes: int, threads: int) -> float:
    """Processor seconds a probe, `threads` of them scanning at once."""

    def once() -> float:
        workers = [threading.Thread(target=scan, args=(probes,)) for _ in range(threads)]
        begin = time.process_time()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return (time.process_time() - begin) / (probes * threads)

    return min(once() for _ in range(TRIES))


def searches(people: int) -> dict[str, float]:
    """Processor seconds of a whole search, alone and with others; the answers are the same."""
    gallery = Gallery()
    forms = [_form(person(number, SEED, TEN_FINGERS)) for number in range(people)]
    for number, form in enumerate(forms):
        gallery.add(number, number, form)
    probes = [
        _form(again(person(number * people // max(TOGETHER), SEED, TEN_FINGERS), number))
        for number in range(max(TOGETHER))
    ]
    alone = [gallery.search(probe) for probe in probes]
    seconds = {}
    for together in TOGETHER:
        best = float("inf")
        for _ in range(TRIES):
            begin = time.process_time()
            found = [
                matches
                for first in range(0, len(probes), together)
                for matches in gallery.search_many(probes[first : first + together])
            ]
            best = min(best, (time.process_time() - begin) / len(probes))
        assert [[m.key for m in one] for one in found] == [[m.key for m in one] for one in alone]
        seconds[str(together)] = round(best, 5)
    gallery.close()
    return seconds


def _form(fingers: object) -> EncounterForm:
    return encounter_form(fingers)  # type: ignore[arg-type]


def _words(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def main(
    rows: Annotated[int, typer.Option(min=SEGMENT, help="People scanned, in whole segments.")] = 131_072,
    people: Annotated[int, typer.Option(min=50, help="People searched.")] = 1_000,
    results: Annotated[Path, typer.Option(help="File of the results.")] = RESULT,
) -> None:
    """Measure both and record them."""
    rows = rows // SEGMENT * SEGMENT
    rng = np.random.default_rng(SEED)
    table = Table("core-seconds a probe", "threads", *(f"{n} together" for n in TOGETHER))
    scans: dict[str, dict[str, dict[str, float]]] = {}
    for name, make in (("fingers", finger_scan), ("irises", iris_scan), ("faces", face_scan)):
        scan = make(rows, rng)
        scan(1)
        scans[name] = {}
        for threads in (1, 2):
            of_million = {str(n): round(cost(scan, n, threads) * 1e6 / rows, 4) for n in TOGETHER}
            scans[name][str(threads)] = of_million
            table.add_row(f"{name}, a million", str(threads), *map(str, of_million.values()))
    whole = searches(people)
    table.add_row(f"search of {people} people", "1", *map(str, whole.values()))
    Console(width=120).print(table)
    record = {
        "command": f"python -m benchmarks.search_together --rows {rows} --people {people}",
        **provenance(),
        "parameters": {"rows": rows, "people": people, "segment": SEGMENT, "seed": SEED, "tries": TRIES},
        "scan_core_seconds_a_million": scans,
        "search_core_seconds": whole,
    }
    results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
