"""What moving records in and out costs: bulk import, and a backup while others write.

python -m benchmarks.moving    into benchmarks/results/moving.json
"""

import csv
import json
import os
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.encounters import made_up_nik
from benchmarks.population import TEN_FINGERS, people
from benchmarks.provenance import ROOT, provenance
from benchmarks.synthetic_prints import finger, impression
from capture.fingerprint.template import ExtractorChoice
from rekam.backup import Backups, restore
from rekam.capturing import Capturing
from rekam.config import Settings, load_settings
from rekam.offline.import_records import Problems, import_records
from rekam.store import Store

RESULTS = ROOT / "benchmarks" / "results" / "moving.json"
SEED = 11


@dataclass(frozen=True, slots=True)
class ImportSpeed:
    """An import of `records` people of ten fingers; CPU seconds are of the whole process."""

    what: str
    records: int
    fingers: int
    cpu_s_a_record: float
    records_a_core_second: float
    resumed_records_a_core_second: float


@dataclass(frozen=True, slots=True)
class BackupSpeed:
    """A backup of a database while one client commits without a pause; milliseconds of its commits."""

    database_mb: float
    backup_s: float
    restore_s: float
    commits_before: int
    commits_during: int
    median_ms_before: float
    median_ms_during: float
    p99_ms_before: float
    p99_ms_during: float
    longest_ms_before: float
    longest_ms_during: float


def templates(folder: Path, records: int) -> Path:
    """A manifest of people with ten native templates each."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("record", "nik", "file"))
        for number, fingers in enumerate(people(records, seed=SEED)):
            for one in fingers:
                name = f"{number}_{int(one.position)}.rft"
                (folder / name).write_bytes(one.to_bytes())
                rows.writerow((number, made_up_nik(number), name))
    return folder / "manifest.csv"


def images(folder: Path, records: int) -> Path:
    """A manifest of people with ten PNG files each."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("record", "nik", "modality", "position", "file"))
        for number in range(records):
            for position in TEN_FINGERS:
                name = f"{number}_{int(position)}.png"
                print_ = impression(finger(number, position), number)
                Image.fromarray(print_).save(folder / name, dpi=(500, 500))
                rows.writerow((number, made_up_nik(number), "fingerprint", int(position), name))
    return folder / "manifest.csv"


def imported(what: str, manifest: Path, settings: Settings, records: int) -> ImportSpeed:
    """Import twice: the second run finds everything in."""
    spent = []
    with (
        Store.open(settings.data_dir) as store,
        closing(Capturing(settings)) as capturing,
        Problems(settings.data_dir / "problems.csv") as problems,
    ):
        for _ in range(2):
            begin = time.process_time()
            import_records(store, capturing, settings, manifest, problems, lambda read: None)
            spent.append(time.process_time() - begin)
        with store.read() as reader:
            subjects = reader.counts().subjects
        if problems.number or subjects != records:
            raise RuntimeError("the import is not what was given")
    first, second = spent
    return ImportSpeed(
        what=what,
        records=records,
        fingers=10 * records,
        cpu_s_a_record=round(first / records, 5),
        records_a_core_second=round(records / first, 1),
        resumed_records_a_core_second=round(records / second, 0),
    )


def backed_up(folder: Path, megabytes: int) -> BackupSpeed:
    """Fill a store, then back it up while a thread commits rows of 20 kB."""
    waits: list[float] = []
    stop = threading.Event()
    with Store.open(folder / "data") as store:
        number = 0

        def put() -> None:
            nonlocal number
            number += 1
            with store.transaction() as t:
                t.remember(f"r{number}", "m", b"", os.urandom(20_000))

        for _ in range(megabytes // 10):
            with store.transaction() as t:
                for _ in range(500):
                    number += 1
                    t.remember(f"r{number}", "m", b"", os.urandom(20_000))

        def work() -> None:
            while not stop.is_set():
                begin = time.monotonic()
                put()
                waits.append(time.monotonic() - begin)

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(5)
        before = np.array(waits)
        begin = time.monotonic()
        made = Backups(store, folder / "backups").make("one", lambda: None)
        seconds = time.monotonic() - begin
        during = np.array(waits[len(before) :])
        stop.set()
        worker.join()
    begin = time.monotonic()
    restore(made.folder, folder / "restored")
    restored = time.monotonic() - begin

    def ms(values: np.ndarray, quantile: float) -> float:
        return round(1000 * float(np.quantile(values, quantile)), 1)

    return BackupSpeed(
        database_mb=round(made.size / 1e6, 0),
        backup_s=round(seconds, 1),
        restore_s=round(restored, 1),
        commits_before=len(before),
        commits_during=len(during),
        median_ms_before=ms(before, 0.5),
        median_ms_during=ms(during, 0.5),
        p99_ms_before=ms(before, 0.99),
        p99_ms_during=ms(during, 0.99),
        longest_ms_before=ms(before, 1),
        longest_ms_during=ms(during, 1),
    )


def main(
    records: Annotated[int, typer.Option(help="People imported from templates.")] = 2000,
    people_of_images: Annotated[int, typer.Option(help="People imported from images, each way.")] = 5,
    megabytes: Annotated[int, typer.Option(help="Size of the database backed up.")] = 500,
    results: Annotated[Path, typer.Option(help="File of the results.")] = RESULTS,
) -> None:
    """Measure import and backup."""
    imports = []
    with tempfile.TemporaryDirectory(prefix="rekam-moving-") as temporary:
        root = Path(temporary)
        for place, what in enumerate(("templates", ExtractorChoice.FAST, ExtractorChoice.ACCURATE)):
            folder = root / str(place)
            folder.mkdir()
            number = records if what == "templates" else people_of_images
            manifest = templates(folder, number) if what == "templates" else images(folder, number)
            extractor = what if isinstance(what, ExtractorChoice) else ExtractorChoice.FAST
            settings = load_settings(data_dir=folder / "data", workers=2, extractor=extractor)
            told = "templates" if what == "templates" else f"images, {what} extractor"
            imports.append(imported(told, manifest, settings, number))
            typer.echo(str(imports[-1]))
        backup = backed_up(root / "backup", megabytes)
        typer.echo(str(backup))
    figures = {"imports": [asdict(one) for one in imports], "backup": asdict(backup)}
    content = {"command": "python -m benchmarks.moving", **provenance(), **figures}
    results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
