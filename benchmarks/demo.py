"""The whole path over gRPC: enrol a population, bring people back under new NIKs, see who is caught.

    python -m benchmarks.demo                   synthetic prints, drawn here
    python -m benchmarks.demo --data FOLDER     real prints: PPPFF_n.* (person, finger from left little 01 to
                                                right little 10, impression), or FINGER_n.*, one finger each

The first half of everybody's impressions is enrolled, the other half comes back under new NIKs. Before
that, each returning encounter is searched with its own person left out, and must accuse nobody. A person
counts as caught when every return is held with the right subject as first enrolled candidate; a search
accuses somebody when its best candidate would not pass as UNIQUE.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import synthetic_prints
from benchmarks.encounters import made_up_nik, missing
from benchmarks.population import TEN_FINGERS
from benchmarks.provenance import provenance
from benchmarks.synthetic_prints import POSITION_OF_NUMBER
from capture.decode import decode_image
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import cylinders
from rekam.client import Client, FingerFile, sample
from rekam.explain import picture_of_pair
from rekam.v1 import case_pb2, enrollment_pb2, identification_pb2, quality_pb2, types_pb2

PEOPLE = 8
TIMEOUT = 300
_PERSON_FINGER = re.compile(r"(\d{3})(\d{2})_(\d+)")
_FINGER = re.compile(r"(.+)_(\d+)")
console = Console()
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a NIK and some encounters, each a list of fingers."""

    name: str
    nik: str
    encounters: tuple[tuple[FingerFile, ...], ...]

    @property
    def enrolled(self) -> tuple[tuple[FingerFile, ...], ...]:
        """The first half of the encounters."""
        return self.encounters[: max(1, len(self.encounters) // 2)]

    @property
    def returning(self) -> tuple[tuple[FingerFile, ...], ...]:
        """The other half."""
        return self.encounters[len(self.enrolled) :]


@dataclass(frozen=True, slots=True)
class Return:
    """What became of one returning encounter."""

    person: Person
    decision: str
    right: bool
    llr: float
    innocent_llr: float
    accused: bool
    search_ms: float
    enrol_ms: float


@app.command()
def main(
    data: Annotated[
        Path | None, typer.Option(help="Folder of real prints; synthetic ones where absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the picture, the results and the database.")] = Path(
        "demo-output"
    ),
    ppi: Annotated[float, typer.Option(help="Resolution where the images do not declare it.")] = 500,
    people: Annotated[int, typer.Option(help="How many people to draw.")] = PEOPLE,
    results: Annotated[Path | None, typer.Option(help="File for the record of this run.")] = None,
) -> None:
    """Run the demo; exit status 1 where somebody got through or was accused."""
    out.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = out / "prints"
        _draw(data, people)
    population = read_population(data)
    _clear(out / "data")
    with _server(out / "data") as address, Client(address) as client:
        subjects = _enrol_all(client, population, ppi)
        returns = _bring_back(client, population, subjects, ppi)
    _print_table(returns)
    picture = _picture(population, ppi)
    Image.fromarray(picture).save(out / "caught.png")
    console.print(f"picture of one caught pair: {out / 'caught.png'}", highlight=False)
    came_back = [p for p in population if p.returning]
    caught = [p for p in came_back if all(r.right for r in returns if r.person is p)]
    accused = sum(r.accused for r in returns)
    summary = {
        "command": f"python -m benchmarks.demo --data {data.name}",
        **provenance(),
        "data": data.name,
        "people": len(population),
        "returning_people": len(came_back),
        "caught": len(caught),
        "innocent_searches": len(returns),
        "accused": accused,
        "enrol_ms_median": float(np.median([r.enrol_ms for r in returns])),
        "search_ms_median": float(np.median([r.search_ms for r in returns])),
        "lowest_mated_llr": min(r.llr for r in returns),
        "highest_innocent_llr": max(r.innocent_llr for r in returns),
    }
    (results or out / "demo.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(
        f"caught {len(caught)} of {len(came_back)} returning people, "
        f"{accused} of {len(returns)} innocent searches accused anybody",
        highlight=False,
    )
    if accused or len(caught) < len(came_back):
        raise typer.Exit(1)


def read_population(folder: Path) -> list[Person]:
    """The people of a folder of prints, with NIKs made up for them."""
    fingers: dict[str, dict[int, list[FingerFile]]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if match := _PERSON_FINGER.fullmatch(path.stem):
            name, code, impression = match[1], int(match[2]), int(match[3])
            position = POSITION_OF_NUMBER.get(code, FingerPosition.UNKNOWN)
        elif match := _FINGER.fullmatch(path.stem):
            # One finger a person; which one is not known, but it is always the same.
            name, impression, position = match[1], int(match[2]), FingerPosition.RIGHT_INDEX
        else:
            continue
        fingers.setdefault(name, {}).setdefault(impression, []).append(FingerFile(position, path))
    if not fingers:
        raise typer.BadParameter(f"{folder} holds no files named PPPFF_n.* or FINGER_n.*")
    return [
        Person(name, made_up_nik(i), tuple(tuple(encounters[n]) for n in sorted(encounters)))
        for i, (name, encounters) in enumerate(sorted(fingers.items()))
    ]


def _draw(folder: Path, people: int) -> None:
    """Draw two impressions of ten fingers of everybody, unless an earlier demo did."""
    if len(list(folder.glob("*.png"))) == people * 20:
        return
    folder.mkdir(parents=True, exist_ok=True)
    fingers = [(folder, person, code) for person in range(1, people + 1) for code in POSITION_OF_NUMBER]
    workers = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
    with workers, _bar(f"drawing the prints of {people} people", len(fingers)) as step:
        for _ in workers.map(_draw_finger, fingers):
            step()


def _draw_finger(task: tuple[Path, int, int]) -> None:
    folder, person, code = task
    finger = synthetic_prints.finger(person, POSITION_OF_NUMBER[code])
    for n in (1, 2):
        image = Image.fromarray(synthetic_prints.impression(finger, seed=100 * (16 * person + code) + n))
        image.save(folder / f"{person:03}{code:02}_{n}.png", dpi=(synthetic_prints.PPI,) * 2)


def _enrol_all(client: Client, population: Sequence[Person], ppi: float) -> dict[str, str]:
    """Enrol everybody's first half; subject id by name."""
    subjects = {}
    with _bar("enrolling", sum(len(p.enrolled) for p in population)) as step:
        for person in population:
            first, *more = person.enrolled
            encounter = _enrol(client, person.nik, _samples(first, ppi), f"{person.name}-1")
            subjects[person.name] = encounter.subject_id or _resolved(
                client, encounter, case_pb2.RESOLUTION_DIFFERENT_PEOPLE
            )
            step()
            for n, fingers in enumerate(more, 2):
                request = enrollment_pb2.AddEncounterRequest(
                    request_id=f"demo-{person.name}-{n}",
                    subject_id=subjects[person.name],
                    samples=(presented := _samples(fingers, ppi, best_effort=True)),
                    missing=_absent(presented),
                )
                response = client.enrollment.AddEncounter(request, timeout=TIMEOUT)
                if response.encounter.case_id:
                    _resolved(client, response.encounter, case_pb2.RESOLUTION_REJECTED)
                step()
    return subjects


def _resolved(
    client: Client, encounter: types_pb2.Encounter, resolution: case_pb2.Resolution.ValueType
) -> str:
    """Do what an operator would: a new person is new, a print that is not its owner's is discarded."""
    reasons = ", ".join(types_pb2.Reason.Name(r).removeprefix("REASON_").lower() for r in encounter.reasons)
    console.print(f"an operator resolved a case ({reasons}) on the way in", highlight=False)
    request = case_pb2.ResolveCaseRequest(
        request_id=f"demo-{encounter.case_id}",
        case_id=encounter.case_id,
        resolution=resolution,
        operator="demo",
    )
    return client.cases.ResolveCase(request, timeout=TIMEOUT).case.subject_id


def _bring_back(
    client: Client, population: Sequence[Person], subjects: dict[str, str], ppi: float
) -> list[Return]:
    """Search every returning encounter without its own person, then enrol it under a new NIK."""
    returns = []
    presented: dict[tuple[str, int], list[types_pb2.Sample]] = {}
    innocent: dict[tuple[str, int], tuple[identification_pb2.IdentifyResponse, float]] = {}
    total = sum(len(p.returning) for p in population)
    with _bar("searching innocents", total) as step:
        for person in population:
            for n, fingers in enumerate(person.returning):
                presented[person.name, n] = [_as_template(client, f, ppi) for f in fingers]
                request = identification_pb2.IdentifyRequest(
                    samples=presented[person.name, n], exclude_subject_ids=[subjects[person.name]]
                )
                begin = time.perf_counter()
                response = client.identification.Identify(request, timeout=TIMEOUT)
                innocent[person.name, n] = response, 1000 * (time.perf_counter() - begin)
                step()
    with _bar("bringing people back", total) as step:
        for number, person in enumerate(population):
            for n in range(len(person.returning)):
                begin = time.perf_counter()
                encounter = _enrol(
                    client,
                    made_up_nik(1000 * (n + 1) + number),
                    presented[person.name, n],
                    f"{person.name}-back-{n}",
                )
                enrol_ms = 1000 * (time.perf_counter() - begin)
                first = next((c for c in encounter.evidence.candidates if not c.held), types_pb2.Candidate())
                search, search_ms = innocent[person.name, n]
                returns.append(
                    Return(
                        person=person,
                        decision=types_pb2.Decision.Name(encounter.decision).removeprefix("DECISION_"),
                        right=encounter.state == types_pb2.ENCOUNTER_STATE_HELD
                        and first.subject_id == subjects[person.name],
                        llr=first.llr,
                        innocent_llr=search.candidates[0].llr if search.candidates else float("nan"),
                        accused=search.match != identification_pb2.MATCH_NO,
                        search_ms=search_ms,
                        enrol_ms=enrol_ms,
                    )
                )
                step()
    return returns


def _enrol(client: Client, nik: str, samples: list[types_pb2.Sample], request_id: str) -> types_pb2.Encounter:
    """Enrol as an operator would: what cannot be captured better is taken as it is, or declared missing."""
    for attempt in range(3):
        request = enrollment_pb2.EnrollRequest(
            request_id=f"demo-{request_id}-{attempt}", nik=nik, samples=samples, missing=_absent(samples)
        )
        response = client.enrollment.Enroll(request, timeout=TIMEOUT)
        if response.WhichOneof("outcome") == "encounter":
            return response.encounter
        refused = {item.position for item in response.recapture.items}
        samples = [s for s in samples if attempt == 0 or s.finger not in refused]
        for s in samples:
            s.best_effort = True
    raise typer.BadParameter(f"{request_id} has no usable prints")


def _as_template(client: Client, file: FingerFile, ppi: float) -> types_pb2.Sample:
    """What a workstation does: judge the image at capture, then send the template."""
    image = sample(file, ppi)
    request = quality_pb2.AssessRequest(sample=image, include_template=True)
    template = client.quality.Assess(request, timeout=TIMEOUT).template
    if not template:
        return image
    return types_pb2.Sample(modality=image.modality, finger=image.finger, template=template)


def _samples(
    fingers: Sequence[FingerFile], ppi: float, *, best_effort: bool = False
) -> list[types_pb2.Sample]:
    return [sample(f, ppi, best_effort=best_effort) for f in fingers]


def _absent(samples: Sequence[types_pb2.Sample]) -> list[types_pb2.MissingFinger]:
    """Every finger that is not among the samples declared missing."""
    presented = {FingerPosition(sample.finger) for sample in samples}
    return missing(position for position in TEN_FINGERS if position not in presented)


def _print_table(returns: Sequence[Return]) -> None:
    table = Table("person", "decisions", "right", "LLR", "innocent LLR", "search ms", "enrol ms")
    table.title = "who came back under new NIKs"
    for name in dict.fromkeys(r.person.name for r in returns):
        rows = [r for r in returns if r.person.name == name]
        decisions = Counter(r.decision for r in rows)
        table.add_row(
            name,
            ", ".join(f"{count} {decision}" for decision, count in sorted(decisions.items())),
            str(sum(r.right for r in rows)),
            f"{min(r.llr for r in rows):.1f}",
            f"{max(r.innocent_llr for r in rows):.1f}",
            f"{np.median([r.search_ms for r in rows]):.0f}",
            f"{np.median([r.enrol_ms for r in rows]):.0f}",
        )
    console.print(table)


def _picture(population: Sequence[Person], ppi: float) -> NDArray[np.uint8]:
    """The enrolled and the returned print of one caught finger, side by side."""
    person = next(p for p in population if p.returning)
    extractor = FingerprintExtractor()
    images, templates = [], []
    for file in (person.enrolled[0][0], person.returning[0][0]):
        decoded = decode_image(file.path.read_bytes(), position=file.position, ppi=ppi)
        extraction = extractor.extract(decoded)
        if extraction.template is None:
            raise typer.BadParameter(f"{file.path.name} gives no template")
        images.append(decoded.image)
        templates.append(FingerprintTemplate.from_bytes(extraction.template.to_bytes()))
    comparison = compare(cylinders(templates[0]), cylinders(templates[1]))
    title = f"{person.name} under two NIKs: score {comparison.score:.2f}"
    return picture_of_pair(images[0], images[1], templates[0], templates[1], comparison, title)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A real server in a process of its own, on a free port; its address."""
    rekam = str(Path(sys.executable).with_name("rekam"))
    command = [rekam, "serve", "--port", "0", "--data-dir", str(folder), "--keep-images"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr or ():
            lines.append(line)
            if match := re.search(r"listens on (\S+);", line):
                break
        else:
            raise RuntimeError(f"the server did not start:\n{''.join(lines)}")
        console.print(line.strip(), highlight=False)
        try:
            yield match[1]
        finally:
            process.terminate()
            process.communicate()


def _clear(folder: Path) -> None:
    """Forget the database of an earlier demo."""
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def _bar(text: str, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=total)
        yield lambda: progress.advance(task)


if __name__ == "__main__":
    app()
