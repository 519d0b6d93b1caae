"""The whole path over gRPC: enrol a population, bring people back under new NIKs, see who is caught.

    python -m benchmarks.demo                   drawn prints and irises, made-up face vectors
    python -m benchmarks.demo --data FOLDER     real prints: PPPFF_n.* (person, finger from left little 01 to
                                                right little 10, impression), or FINGER_n.*, one finger each
              --irises FOLDER --faces FOLDER    and real eyes, EYE_*.*, two for each person in their order,
                                                and portraits, PERSON/*.*: people put together from three sets

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
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from benchmarks import synthetic_faces, synthetic_irises, synthetic_prints
from benchmarks.encounters import made_up_nik, missing, missing_eyes
from benchmarks.population import TEN_FINGERS
from benchmarks.provenance import provenance
from benchmarks.synthetic_prints import POSITION_OF_NUMBER
from capture.decode import decode_image
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import EyePosition, FingerPosition
from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import cylinders
from rekam.client import Client, SampleFile, sample
from rekam.offline.explain_prints import picture_of_pair
from rekam.position import Position
from rekam.v1 import case_pb2, enrollment_pb2, identification_pb2, quality_pb2, types_pb2

PEOPLE = 8
TIMEOUT = 300
_PERSON_FINGER = re.compile(r"(\d{3})(\d{2})_(\d+)")
_FINGER = re.compile(r"(.+)_(\d+)")
_TEMPLATE = ".rv"
console = Console()
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a NIK and some encounters, each the files of fingers, eyes and face."""

    name: str
    nik: str
    encounters: tuple[tuple[SampleFile, ...], ...]

    @property
    def enrolled(self) -> tuple[tuple[SampleFile, ...], ...]:
        """The first half of the encounters."""
        return self.encounters[: max(1, len(self.encounters) // 2)]

    @property
    def returning(self) -> tuple[tuple[SampleFile, ...], ...]:
        """The other half."""
        return self.encounters[len(self.enrolled) :]


@dataclass(frozen=True, slots=True)
class Return:
    """What became of one returning encounter."""

    person: Person
    decision: str
    right: bool
    mate: types_pb2.Candidate
    innocent_llr: float
    accused: bool
    search_ms: float
    enrol_ms: float


@app.command()
def main(
    data: Annotated[
        Path | None, typer.Option(help="Folder of real prints; synthetic ones where absent.")
    ] = None,
    irises: Annotated[
        Path | None, typer.Option(help="Folder of real eyes beside real prints: EYE_*.*.", exists=True)
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(help="Folder of real portraits beside real prints: PERSON/*.*.", exists=True),
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
        irises, faces = out / "irises", out / "faces"
        _draw_eyes(irises, 2 * people)
        _make_faces(faces, people)
    population = read_population(data, irises, faces)
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
        "irises": None if irises is None else irises.name,
        "faces": None if faces is None else faces.name,
        "people": len(population),
        "returning_people": len(came_back),
        "caught": len(caught),
        "innocent_searches": len(returns),
        "accused": accused,
        "enrol_ms_median": float(np.median([r.enrol_ms for r in returns])),
        "search_ms_median": float(np.median([r.search_ms for r in returns])),
        "lowest_mated_llr": min(r.mate.llr for r in returns),
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


def read_population(folder: Path, irises: Path | None = None, faces: Path | None = None) -> list[Person]:
    """The people of a folder of prints, with NIKs made up for them.

    Two eyes and one face are given to each, in the order of their names; a sample to each encounter, until
    there are no more.
    """
    fingers: dict[str, dict[int, list[SampleFile]]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if match := _PERSON_FINGER.fullmatch(path.stem):
            name, code, impression = match[1], int(match[2]), int(match[3])
            position = POSITION_OF_NUMBER.get(code, FingerPosition.UNKNOWN)
        elif match := _FINGER.fullmatch(path.stem):
            # One finger a person; which one is not known, but it is always the same.
            name, impression, position = match[1], int(match[2]), FingerPosition.RIGHT_INDEX
        else:
            continue
        fingers.setdefault(name, {}).setdefault(impression, []).append(SampleFile(position, path))
    if not fingers:
        raise typer.BadParameter(f"{folder} holds no files named PPPFF_n.* or FINGER_n.*")
    eyes = [] if irises is None else _eyes(irises)
    portraits = [] if faces is None else [sorted(p.iterdir()) for p in sorted(faces.iterdir()) if p.is_dir()]
    # Whoever has most portraits lends them first.
    portraits.sort(key=len, reverse=True)
    people = []
    for i, (name, impressions) in enumerate(sorted(fingers.items())):
        encounters = [list(impressions[n]) for n in sorted(impressions)]
        own: list[tuple[Position, list[Path]]] = [
            *zip((EyePosition.RIGHT, EyePosition.LEFT), eyes[2 * i : 2 * i + 2], strict=False),
            *((None, paths) for paths in portraits[i : i + 1]),
        ]
        for at, paths in own:
            for encounter, path in zip(_spread(encounters), paths, strict=False):
                encounter.append(SampleFile(at, path))
        people.append(Person(name, made_up_nik(i), tuple(map(tuple, encounters))))
    return people


def _eyes(folder: Path) -> list[list[Path]]:
    """The images of each eye: what their names have in common before the first `_`."""
    eyes: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        eyes.setdefault(path.stem.split("_")[0], []).append(path)
    return list(eyes.values())


def _spread(encounters: list[list[SampleFile]]) -> list[list[SampleFile]]:
    """The first enrolled encounter, the first returning one, the second enrolled one, and so on."""
    half = max(1, len(encounters) // 2)
    turns = zip_longest(encounters[:half], encounters[half:])
    return [encounter for turn in turns for encounter in turn if encounter is not None]


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


def _draw_eyes(folder: Path, eyes: int) -> None:
    """Draw two captures of every eye, unless an earlier demo did."""
    if len(list(folder.glob("*.png"))) == 2 * eyes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _bar(f"drawing {eyes} eyes", eyes) as step:
        for number in range(eyes):
            for n in (1, 2):
                drawn = synthetic_irises.capture(number, n)
                Image.fromarray(drawn.image).save(folder / f"{number:03}_{n}.png")
            step()


def _make_faces(folder: Path, people: int) -> None:
    """Make up two face templates of everybody."""
    for person in range(people):
        (folder / f"{person:03}").mkdir(parents=True, exist_ok=True)
        face = synthetic_faces.face(person)
        for n in (1, 2):
            template = synthetic_faces.capture(face, seed=100 * person + n)
            (folder / f"{person:03}" / f"{n}{_TEMPLATE}").write_bytes(template.to_bytes())


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
                    missing_eyes=_absent_eyes(presented),
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
                        mate=first,
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
            request_id=f"demo-{request_id}-{attempt}",
            nik=nik,
            samples=samples,
            missing=_absent(samples),
            missing_eyes=_absent_eyes(samples),
        )
        response = client.enrollment.Enroll(request, timeout=TIMEOUT)
        if response.WhichOneof("outcome") == "encounter":
            return response.encounter
        refused = [(item.modality, item.position, item.eye) for item in response.recapture.items]
        samples = [s for s in samples if attempt == 0 or (s.modality, s.finger, s.eye) not in refused]
        for s in samples:
            s.best_effort = True
    raise typer.BadParameter(f"{request_id} has no usable prints")


def _as_template(client: Client, file: SampleFile, ppi: float) -> types_pb2.Sample:
    """What a workstation does: judge the image at capture, then send the template."""
    image = _sample(file, ppi)
    if image.template:
        return image
    request = quality_pb2.AssessRequest(sample=image, include_template=True)
    template = client.quality.Assess(request, timeout=TIMEOUT).template
    if not template:
        return image
    image.template = template  # and the image is gone: they are alternatives
    return image


def _samples(files: Sequence[SampleFile], ppi: float, *, best_effort: bool = False) -> list[types_pb2.Sample]:
    return [_sample(f, ppi, best_effort=best_effort) for f in files]


def _sample(file: SampleFile, ppi: float, *, best_effort: bool = False) -> types_pb2.Sample:
    """A file as a sample: a face template, or an image of anything."""
    made = sample(file, ppi, best_effort=best_effort)
    if file.path.suffix == _TEMPLATE:
        made.template = made.image
    return made


def _absent(samples: Sequence[types_pb2.Sample]) -> list[types_pb2.MissingFinger]:
    """Every finger that is not among the samples declared missing."""
    presented = {FingerPosition(sample.finger) for sample in samples}
    return missing(position for position in TEN_FINGERS if position not in presented)


def _absent_eyes(samples: Sequence[types_pb2.Sample]) -> list[types_pb2.MissingEye]:
    """The other eye declared missing, where one is among the samples."""
    presented = {EyePosition(sample.eye) for sample in samples} - {EyePosition.UNKNOWN}
    return missing_eyes({EyePosition.RIGHT, EyePosition.LEFT} - presented) if presented else []


def _print_table(returns: Sequence[Return]) -> None:
    decisions = Column("decisions", no_wrap=True)
    table = Table("person", decisions, "right", "LLR", "fingers", "irises", "face", "others", "ms")
    table.title = "who came back under new NIKs"
    table.caption = (
        "least log10 likelihood ratios of their own, the most of anybody else; "
        "milliseconds from request to decision"
    )
    for name in dict.fromkeys(r.person.name for r in returns):
        rows = [r for r in returns if r.person.name == name]
        came = Counter(r.decision for r in rows)
        table.add_row(
            name,
            ", ".join(f"{count} {decision}" for decision, count in sorted(came.items())),
            str(sum(r.right for r in rows)),
            f"{min(r.mate.llr for r in rows):.1f}",
            f"{min(r.mate.fingers_llr for r in rows):.1f}",
            _least([r.mate.irises_llr for r in rows if r.mate.irises]),
            _least([r.mate.face_llr for r in rows if r.mate.HasField("face")]),
            f"{max(r.innocent_llr for r in rows):.1f}",
            f"{np.median([r.enrol_ms for r in rows]):.0f}",
        )
    console.print(table)


def _least(llrs: Sequence[float]) -> str:
    """The smallest, or nothing where there is none."""
    return f"{min(llrs):.1f}" if llrs else "-"


def _picture(population: Sequence[Person], ppi: float) -> NDArray[np.uint8]:
    """The enrolled and the returned print of one caught finger, side by side."""
    person = next(p for p in population if p.returning)
    extractor = FingerprintExtractor()
    images, templates = [], []
    for file in (person.enrolled[0][0], person.returning[0][0]):
        decoded = decode_image(file.path.read_bytes(), ppi=ppi)
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
