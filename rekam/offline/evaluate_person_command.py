"""`rekam evaluate person`: what fingers, irises and face are worth together, on chimeric people."""

import csv
import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capture.sample import Modality
from rekam.faults import told_faults
from rekam.offline.evaluate_person import (
    ENCOUNTERS,
    WHOLE,
    Floats,
    Row,
    eye_pairs,
    faces_of,
    fewer,
    hands,
    irises_of,
    person_row,
    person_table,
    portrayed,
    summed,
    table,
    whole_sets,
)
from rekam.offline.evaluate_prints import SEED, Cache, plain
from rekam.offline.samples import with_progress
from rekam.written import require_writable, written

_COUNTS = (1, 2, 4, 6, 10)
_FACES_A_HAND = 3

Tables = Mapping[Modality, Mapping[str, Floats]]


def evaluate_person(
    prints: Annotated[
        Path, typer.Argument(metavar="PRINTS", help="Prints <person><finger 01-10>_<n>.*, left little first.")
    ],
    irises: Annotated[
        Path | None, typer.Option(help="Eyes, as for evaluate iris: two that follow each other are a pair.")
    ] = None,
    faces: Annotated[Path | None, typer.Option(help="Portraits, as for evaluate face.")] = None,
    ppi: Annotated[float, typer.Option(help="Pixels per inch of the prints, whatever the files say.")] = 500,
    scores: Annotated[
        Path | None,
        typer.Option(help="Write a,b,genuine,score of every pair of encounters, all modalities fused."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the figures as JSON to this file.")
    ] = None,
    cache: Cache = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of who gets whose eyes and face.")] = SEED,
) -> None:
    """Measure FNIR at FPIR 1 % by number of fingers and set of modalities, one person among the others.

    The people are put together: everybody's fingers, with two eyes and a face of the other folders.
    """
    console = Console(stderr=True)
    started = time.monotonic()
    with told_faults():
        for target in (scores, json_out):
            if target is not None:
                require_writable(target)
        tables = _tables(prints, irises, faces, ppi, cache, console)
        wanted = whole_sets(tables)
        found = with_progress(
            (person_row(tables, chosen, seed) for chosen in wanted), len(wanted), "searching", console
        )
        rows = list(found)
        if json_out is not None:
            written(json_out, _json(rows, tables, seed).encode())
        if scores is not None:
            written(scores, _scores(summed(tables, wanted[-1], seed)).encode())
    console.print(f"done in {time.monotonic() - started:.0f} s", highlight=False)
    Console(width=max(100, Console().width)).print(person_table(rows))


def _tables(
    prints: Path, irises: Path | None, faces: Path | None, ppi: float, cache: Path | None, console: Console
) -> Tables:
    """Ratios of every two encounters, by modality and by what of it is used."""
    people = hands(prints, ppi, cache, console=console)
    most = max(len(encounter.fingers) for encounters in people for encounter in encounters)
    counts = [count for count in _COUNTS if count < most] + [most]
    compared = with_progress(
        (table(used, used) for used in (fewer(people, count) for count in counts)),
        len(counts),
        "comparing hands",
        console,
    )
    tables = {Modality.FINGERPRINT: dict(zip(map(str, counts), compared, strict=True))}
    if irises is not None:
        eyes = eye_pairs(irises_of(irises, cache, console))
        tables[Modality.IRIS] = {WHOLE[Modality.IRIS]: table(eyes, eyes)}
    if faces is not None:
        portraits = portrayed(faces_of(faces, cache, _FACES_A_HAND * len(people), console))
        tables[Modality.FACE] = {WHOLE[Modality.FACE]: table(portraits, portraits)}
    return tables


def _json(rows: list[Row], tables: Tables, seed: int) -> str:
    sizes = {str(modality): len(next(iter(one.values()))) for modality, one in tables.items()}
    content = {
        "seed": seed,
        "people_of_each": sizes,
        "rows": [{"used": r.used, **asdict(r.rates)} for r in rows],
    }
    return json.dumps(plain(content), indent=1) + "\n"


def _scores(llrs: Floats) -> str:
    """`a,b,genuine,score`, the score a log10 ratio; an encounter is `<round>/<person>_<number>`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("a", "b", "genuine", "score"))
    rounds, people = llrs.shape[:2]
    encounters = [(person, number) for person in range(people) for number in range(ENCOUNTERS)]
    for turn in range(rounds):
        for i, (p, a) in enumerate(encounters):
            for q, b in encounters[i + 1 :]:
                names = (f"{turn + 1}/{p + 1}_{a + 1}", f"{turn + 1}/{q + 1}_{b + 1}")
                writer.writerow((*names, int(p == q), repr(float(llrs[turn, p, q, a, b]))))
    return text.getvalue()
