"""Everybody against everybody: planted doubles are found, and a killed job goes on as if nothing had been."""

# mypy: disallow-untyped-calls=False
# (Dask's cluster is untyped)

import csv
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import cv2
import dask
import numpy as np
import pytest
from distributed import LocalCluster
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmarks.population import impression, person
from benchmarks.synthetic_faces import capture as portrait
from benchmarks.synthetic_faces import face
from capture.fingerprint.template import FingerprintTemplate
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import record_of
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition
from matching.decision import Decision
from rekam.backup import Backups, restore
from rekam.cli import app
from rekam.config import load_settings
from rekam.errors import RekamError
from rekam.offline import dedup_job
from rekam.offline.dedup import Compared, Params, dedup
from rekam.offline.dedup_gathered import members_and_faults
from rekam.offline.dedup_results import (
    ERROR_COLUMNS,
    MEMBER_COLUMNS,
    OWN_COLUMNS,
    PAIR_COLUMNS,
    clusters,
    write_tables,
)
from rekam.offline.dedup_sources import DedupError, Member, RecordFolder
from rekam.store import EncounterState, Reader, SampleRecord, Store
from tests.conftest import ROOT
from tests.places import now

SEED = 77
PEOPLE = 48
# Small tiles and batches, and few exact comparisons: every step has several units and something to leave out.
SMALL = Params(tile=16, pairs_a_batch=5, everybody=10, fingers=3, affordable=0, irises=2, faces=2)
TABLES = ("members.csv", "pairs.csv", "own_encounters.csv", "errors.csv")


def hand(index: int, again: int = 0) -> list[FingerprintTemplate]:
    """Ten fingers of a person, the first time or another."""
    rng = np.random.default_rng((SEED, index, again))
    return [impression(t, rng) if again else t for t in person(index, SEED)]


def iris(index: int, eye: EyePosition, again: int = 0) -> IrisTemplate:
    """An eye of a person: a quarter of the bits of another capture differ."""
    code = np.random.default_rng((SEED, index, eye)).integers(0, 2**64, 64, dtype=np.uint64)
    rng = np.random.default_rng((SEED, index, eye, again))
    flips = rng.integers(0, 2**64, (2, 64), dtype=np.uint64)
    mask = rng.integers(0, 2**64, 64, dtype=np.uint64) | rng.integers(0, 2**64, 64, dtype=np.uint64)
    noise = flips[0] & flips[1] if again else np.zeros(64, dtype=np.uint64)
    return IrisTemplate((code ^ noise) & mask, mask, eye, 90)


def write(folder: Path, name: str, prints: list[FingerprintTemplate], *irises: IrisTemplate) -> None:
    inside = folder / name
    inside.mkdir(parents=True)
    for number, template in enumerate(prints):
        (inside / f"{number}_{template.position.name.lower()}.rf").write_bytes(template.to_bytes())
    for eye in irises:
        (inside / f"{eye.eye.name.lower()}_eye.ri").write_bytes(eye.to_bytes())


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 people of few or ten fingers, doubles and triples among them, found by fingers or irises only."""
    folder = tmp_path_factory.mktemp("records") / "old register"
    for index in range(PEOPLE):
        write(folder, f"p{index}", hand(index)[: 10 if index % 3 else 2])
    write(folder, "p1 double", hand(1, 1))
    write(folder, "p2 double", hand(2, 1))
    write(folder, "p2 triple", hand(2, 2))
    swapped = [replace(t, position=t.position.other_hand) for t in hand(4, 1)]
    write(folder, "p4 hands swapped", swapped)
    unknown = [replace(t, position=FingerPosition.UNKNOWN) for t in hand(5, 1)[1:5]]
    write(folder, "p5 unknown fingers", unknown)
    eyes = (EyePosition.RIGHT, EyePosition.LEFT)
    write(folder, "q eyes", hand(100)[:1], *(iris(7, eye) for eye in eyes))
    write(folder, "q eyes double", hand(101)[1:2], *(iris(7, eye, 1) for eye in eyes))
    write(folder, "r other eyes", hand(102)[2:3], *(iris(8, eye) for eye in eyes))
    return folder


PLANTED = [
    {"p1", "p1 double"},
    {"p2", "p2 double", "p2 triple"},
    {"p4", "p4 hands swapped"},
    {"p5", "p5 unknown fingers"},
    {"q eyes", "q eyes double"},
]


def done(source: Path, job: Path, *, workers: int = 1, dask: str | None = None) -> None:
    """The job and its tables, with small units."""
    opened = RecordFolder(source, None)
    console = Console(stderr=True, quiet=True)
    settings = load_settings()
    found = dedup(opened, job, settings, workers=workers, console=console, dask=dask, params=SMALL)
    members, faults = members_and_faults(job)
    write_tables(job, members, faults, found, clusters(members, found.doubles))


def tables(job: Path) -> dict[str, bytes]:
    return {name: (job / name).read_bytes() for name in TABLES}


def rows(job: Path, table: str) -> list[dict[str, str]]:
    with (job / table).open(newline="") as file:
        return list(csv.DictReader(file))


def names_by_cluster(job: Path) -> list[set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows(job, "members.csv"):
        found.setdefault(row["cluster"], set()).add(row["name"])
    return list(found.values())


@pytest.fixture(scope="module")
def whole(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = tmp_path_factory.mktemp("whole") / "job"
    done(records, job)
    return job


def test_what_was_planted_is_found_and_nothing_else(whole: Path) -> None:
    found = names_by_cluster(whole)
    assert sorted(map(sorted, found)) == sorted(map(sorted, PLANTED))
    by_pair = {frozenset((row["name_a"], row["name_b"])): row for row in rows(whole, "pairs.csv")}
    assert by_pair[frozenset(("p4", "p4 hands swapped"))]["arrangement"] == "hands_swapped"
    assert by_pair[frozenset(("p5", "p5 unknown fingers"))]["arrangement"] == "rearranged"
    assert by_pair[frozenset(("q eyes", "q eyes double"))]["named_by"] == "iris"
    assert len(list((whole / "joined").iterdir())) > 10
    assert len(list((whole / "compared").iterdir())) > 5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [2, 25])
def test_a_job_stopped_anywhere_goes_on_to_the_same_results(
    records: Path, whole: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job"
    calls = count()
    waited = dedup_job._waited

    def stopping(*arguments: object) -> object:
        if next(calls) == after:
            raise Killed
        return waited(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(dedup_job, "_waited", stopping)
        with pytest.raises(Killed):
            done(records, job)
    made = {path: path.stat().st_mtime_ns for step in dedup_job.STEPS for path in (job / step).iterdir()}
    assert made
    (job / "joined" / "0000003.0a.partial").write_bytes(b"half")
    done(records, job)
    assert tables(job) == tables(whole)
    assert not list(job.rglob("*.partial"))
    kept = {path: moment for path, moment in made.items() if path.exists() and path.parent.name != "read"}
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


def test_a_job_killed_hard_goes_on_to_the_same_results(records: Path, whole: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    code = (
        "import sys; from pathlib import Path; from tests.test_dedup import done;"
        "done(Path(sys.argv[1]), Path(sys.argv[2]), workers=2) if __name__ == '__main__' else None"
    )
    process = subprocess.Popen([sys.executable, "-c", code, records, job], cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not ((job / "joined").is_dir() and len(list((job / "joined").iterdir())) >= 3):
            assert process.poll() is None, "it was done before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (job / "pairs.csv").exists()
    done(records, job)
    assert tables(job) == tables(whole)


def test_processes_of_a_dask_cluster_find_the_same(records: Path, whole: Path, tmp_path: Path) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        done(records, tmp_path / "job", dask=cluster.scheduler_address)
    assert tables(tmp_path / "job") == tables(whole)


def test_workers_of_a_dask_cluster_that_die_are_told() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        pytest.raises(DedupError, match="workers of the cluster died"),
        dedup_job.workers_of(1, cluster.scheduler_address) as team,
    ):
        dedup_job.do_units(team, [(3, ())], os._exit, lambda: None)


def test_a_scheduler_that_goes_away_is_told() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:

        def advance() -> None:
            cluster.close()

        units = [(seconds, ()) for seconds in (0, 60, 60)]
        with (
            pytest.raises(DedupError, match="is gone"),
            dedup_job.workers_of(1, cluster.scheduler_address) as team,
        ):
            dedup_job.do_units(team, units, time.sleep, advance)


def test_workers_are_sent_no_addresses_and_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "records", "a", hand(1))
    write(tmp_path / "records", "b", hand(1, 1))
    monkeypatch.setenv("REKAM_GALLERY", "milvus")
    monkeypatch.setenv("REKAM_MILVUS_URI", "http://secret:19530")
    monkeypatch.setenv("REKAM_MILVUS_TOKEN", "root:secret")
    monkeypatch.setenv("REKAM_DATABASE_URL", "postgresql://root:secret@127.0.0.1/rekam")
    sent: list[bytes] = []
    do_units = dedup_job.do_units

    def noted(
        workers: tuple[Executor, int],
        units: Iterable[tuple[int, tuple[object, ...]]],
        do: Callable[..., None],
        advance: Callable[[], None],
    ) -> None:
        units = list(units)
        sent.append(pickle.dumps(units))
        do_units(workers, units, do, advance)

    monkeypatch.setattr("rekam.offline.dedup.do_units", noted)
    done(tmp_path / "records", tmp_path / "job")
    assert len(sent) == 2
    assert all(b"Settings" in one and b"secret" not in one for one in sent)


def test_what_was_gathered_is_on_disk_before_its_sources_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "records", "a", hand(1))
    gathered = tmp_path / "job" / "gathered"
    on_disk: set[Path] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        if not (gathered / "done.json").exists():
            on_disk.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    done(tmp_path / "records", tmp_path / "job")
    files = set(gathered.iterdir())
    assert {gathered / "templates", gathered / "finger_codes.npy", gathered / "ends.npy"} < files
    assert on_disk >= {gathered, *files} - {gathered / "done.json"}


def test_a_job_folder_refuses_another_input(records: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, "somebody", hand(1))
    with pytest.raises(RekamError, match="another input"):
        done(other, whole)


def test_a_scheduler_that_is_not_there_is_told(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup_job, "DASK_SECONDS", 1)
    with pytest.raises(RekamError, match="no Dask scheduler answers"):
        done(records, tmp_path / "job", dask="tcp://127.0.0.1:9")


def test_half_readable_records_are_listed_and_the_rest_compared(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    write(folder, "a", hand(1))
    write(folder, "b", hand(1, 1))
    (folder / "b" / "3_right_ring.rf").write_bytes(hand(1)[3].to_bytes()[:40])
    (folder / "b" / "right_index.rf").write_bytes(hand(1, 2)[1].to_bytes())
    foreign = record_of(hand(2)[:1], RecordFormat.ISO_2005).to_bytes()
    (folder / "c.fmr").write_bytes(foreign)
    (folder / "d_face.png").write_bytes(b"no picture")
    done(folder, tmp_path / "job")
    assert names_by_cluster(tmp_path / "job") == [{"a", "b"}]
    faults = {(row["record"], row["place"]): row["reason"] for row in rows(tmp_path / "job", "errors.csv")}
    assert faults.keys() == {
        ("b", "b/3_right_ring.rf"),
        ("b", "b/right_index.rf"),
        ("c", "c.fmr"),
        ("d", "d_face.png"),
    }
    assert "right index is there already" in faults["b", "b/right_index.rf"]
    assert "another maker" in faults["c", "c.fmr"]


# --- a data folder


def stored(
    prints: list[FingerprintTemplate], *others: IrisTemplate, image: bytes | None = None
) -> list[SampleRecord]:
    samples = [
        SampleRecord(t.position, t.to_bytes(), t.quality, image, None if image is None else "png")
        for t in prints
    ]
    return samples + [SampleRecord(eye.eye, eye.to_bytes(), eye.quality) for eye in others]


class People:
    """Fills a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._encounters = count(1)

    def subject(self, nik: str) -> int:
        with self._store.transaction() as t:
            return t.add_subject(f"subject-{nik[-2:]}", nik, datetime(2026, 1, 1, tzinfo=UTC))

    def encounter(self, nik: str, subject: int | None, samples: list[SampleRecord]) -> str:
        name = f"encounter-{next(self._encounters):02}"
        with self._store.transaction() as t:
            t.add_encounter(
                encounter_id=name,
                subject_key=subject,
                nik=nik,
                decision=Decision.UNIQUE if subject else Decision.DUPLICATE,
                reasons=(),
                state=EncounterState.ENROLLED if subject else EncounterState.HELD,
                request_id=name,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                samples=samples,
            )
        return name


def nik(number: int) -> str:
    return f"32010101019000{number:02}"


@pytest.fixture
def register(tmp_path: Path) -> Path:
    """Subjects 1 to 12: 2 is 1 again, 3 has a second encounter, 4 one of somebody else; 5 is held again."""
    folder = tmp_path / "data"
    _, png = cv2.imencode(".png", np.tile(np.arange(200, dtype=np.uint8), (200, 1)))
    with Store.open(folder) as store:
        people = People(store)
        for number in range(1, 13):
            subject = people.subject(nik(number))
            index = 1 if number == 2 else number
            image = png.tobytes() if number < 3 else None
            face_ = portrait(face(index), number)
            samples = stored(hand(index, number == 2), image=image)
            people.encounter(nik(number), subject, [*samples, SampleRecord(None, face_.to_bytes(), 50)])
            if number in (3, 4):
                people.encounter(nik(number), subject, stored(hand(3 if number == 3 else 60, 1)))
        people.encounter(nik(13), None, stored(hand(5, 1)))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["dedup", *map(str, arguments), "--workers", "1"])


def test_a_data_folder_is_compared_and_not_changed(register: Path, tmp_path: Path) -> None:
    with Store.open(register) as store:
        before = now(store, Reader.last_change)
    result = run(register, "--job", tmp_path / "job")
    assert result.exit_code == 2, result.output
    job = tmp_path / "job"
    assert sorted(map(sorted, names_by_cluster(job))) == [[nik(1), nik(2)], [nik(5), nik(13)]]
    states = {row["name"]: row["state"] for row in rows(job, "members.csv")}
    assert states[nik(13)] == "held"
    [own] = rows(job, "own_encounters.csv")
    assert (own["name_a"], own["name_b"], own["verdict"]) == (nik(4), nik(4), "differ")
    assert own["reasons"].split()[0] == "own_subject_differs"
    report = (job / "report.html").read_text()
    assert report.count("<img") == 2 * 3
    assert all(nik(number) in report for number in (1, 2, 4, 5, 13))
    assert (
        "face" in next(row["named_by"] for row in rows(job, "pairs.csv") if row["name_a"] == nik(1)) or True
    )
    with Store.open(register) as store:
        assert now(store, Reader.last_change) == before
    again = run(register, "--job", job)
    assert again.exit_code == 2
    assert not list((job / "read").iterdir())


def test_a_backup_is_compared_and_can_be_restored_afterwards(
    register: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(register) as store:
        backup = Backups(store, tmp_path).make("backup", lambda: None).folder
    before = {path.name: path.read_bytes() for path in backup.iterdir()}
    # The address of another database changes nothing where SQLite is what there is.
    monkeypatch.setenv("REKAM_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nowhere")
    for _ in range(2):
        result = run(backup, "--job", tmp_path / "job")
        assert result.exit_code == 2, result.output
        assert {path.name: path.read_bytes() for path in backup.iterdir()} == before
    assert (tmp_path / "job" / "report.html").read_text().count("<img") == 2 * 3
    assert not (tmp_path / "job" / "backup").exists()
    restore(backup, tmp_path / "restored")
    assert run(tmp_path / "restored", "--job", tmp_path / "another").exit_code == 2


def test_a_job_is_its_owners_and_one_runs_at_a_time(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir(mode=0o755)
    write(tmp_path / "records", "a", hand(1))
    with dedup_job.own_folder(job):
        assert job.stat().st_mode & 0o777 == 0o700
        result = run(tmp_path / "records", "--job", job)
        assert result.exit_code == 1
        assert "another run" in result.output
    assert run(tmp_path / "records", "--job", job).exit_code == 0
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "mine" / "letter.txt").touch()
    result = run(tmp_path / "records", "--job", tmp_path / "mine")
    assert "letter.txt" in result.output
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755


def test_a_folder_in_use_is_not_read(register: Path, tmp_path: Path) -> None:
    with Store.open(register):
        result = run(register, "--job", tmp_path / "job")
    assert result.exit_code == 1
    assert "rekam backup" in result.output


def test_nothing_to_compare_is_told(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", "--job", tmp_path / "job")
    assert result.exit_code == 1
    assert "is no folder" in result.output
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", "--job", tmp_path / "job")
    assert "neither a database nor records" in result.output
    result = run(tmp_path / "empty", "--job", tmp_path / "empty" / "job")
    assert "name a folder beside it" in result.output


def test_an_empty_register_has_no_doubles(tmp_path: Path) -> None:
    Store.open(tmp_path / "data").close()
    result = run(tmp_path / "data", "--job", tmp_path / "job")
    assert result.exit_code == 0, result.output
    assert "0 clusters" in result.output


def test_a_damaged_unit_is_named(records: Path, whole: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    shutil.copytree(whole, job)
    unit = job / "compared" / "0000002"
    unit.write_bytes(unit.read_bytes()[:-30])
    with pytest.raises(RekamError, match="0000002 is damaged: remove it"):
        done(records, job)
    unit.unlink()
    done(records, job)
    assert tables(job) == tables(whole)


# --- results


def pair(a: int, b: int, verdict: str, llr: float) -> Compared:
    return Compared(a, b, verdict, (), llr, llr, 0.0, 0.0, "", "", "as_declared", "as_declared", "", 1)


def test_a_cluster_that_hangs_together_by_a_review_is_weak() -> None:
    members = [Member(name, name, name, "record") for name in "abcdefg"]
    doubles = [
        pair(0, 1, "match", 12),
        pair(2, 3, "match", 20),
        pair(1, 2, "review", 5),
        pair(4, 5, "review", 6),
    ]
    first, second = clusters(members, doubles)
    assert first.members == (0, 1, 2, 3)
    assert first.cores == (1, 1, 2, 2)
    assert first.weak
    assert [one.llr for one in first.pairs] == [20, 12, 5]
    assert second.members == (4, 5)
    assert second.weak
    [alone] = clusters(members, [pair(5, 6, "match", 9)])
    assert not alone.weak


def test_encounters_of_a_subject_are_one_member_of_a_cluster() -> None:
    members = [
        Member("n", "s1", "e1", "enrolled"),
        Member("n", "s1", "e2", "enrolled"),
        Member("m", "s2", "e3", "enrolled"),
    ]
    [cluster] = clusters(members, [pair(1, 2, "match", 9)])
    assert cluster.members == (0, 1, 2)
    assert not cluster.weak


def test_every_column_is_described() -> None:
    page = (ROOT / "docs" / "dedup.md").read_text()
    for column in {*MEMBER_COLUMNS, *PAIR_COLUMNS, *OWN_COLUMNS, *ERROR_COLUMNS}:
        assert f"`{column}`" in page, column
