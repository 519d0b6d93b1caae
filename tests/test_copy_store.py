"""From SQLite to PostgreSQL: every row or none, the same answers, and an index known for what it is."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, select
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from benchmarks.encounters import again, enroll_request, made_up_nik
from rekam.cli import app
from rekam.errors import RekamError, StoreDisconnected, StoreLocked, StoreNewer, WrongState
from rekam.offline.copy_store import copy_store
from rekam.schema import metadata
from rekam.store import DATABASE, Store
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from tests.places import Place, PostgresServer
from tests.service import Service, fingers, recorded, running
from tests.test_kept_signatures import signature
from tests.test_store import NOON, enrol, hold
from tests.test_store import fingers as prints


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with an enrolled, a deleted and a held one."""
    with Store.open(tmp_path / "data") as store:
        enrol(store, 1)
        enrol(store, 2)
        hold(store, 3)
        with store.transaction() as t:
            t.delete_subject("s2", deleted_at=NOON)
    return tmp_path / "data"


@contextmanager
def looked_into(folder: Path, url: str | None) -> Iterator[Connection]:
    """As another program."""
    engine = Place(folder, url).engine()
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def rows(folder: Path, url: str | None = None) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, in the order of their keys."""
    with looked_into(folder, url) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }


def tables(url: str) -> list[str]:
    """The tables of a PostgreSQL database."""
    with looked_into(Path(), url) as connection:
        return inspect(connection).get_table_names()


def shown(service: Service) -> list[object]:
    """What clients see of a service's records."""
    client = service.client
    cases = client.cases.ListCases(case_pb2.ListCasesRequest(), timeout=60)
    subjects = client.gallery.ListSubjects(gallery_pb2.ListSubjectsRequest(), timeout=60)
    found = [service.identify(again(fingers(number), 9)) for number in range(4)]
    stats = service.stats()
    return [
        cases,
        [
            client.cases.GetCase(case_pb2.GetCaseRequest(case_id=c.case_id, include_samples=True), timeout=60)
            for c in cases.cases
        ],
        subjects,
        [
            client.enrollment.GetEncounter(enrollment_pb2.GetEncounterRequest(encounter_id=e), timeout=60)
            for s in subjects.subjects
            for e in s.encounter_ids
        ],
        [(answer.match, list(answer.candidates)) for answer in found],
        [stats.subjects, stats.encounters_held, stats.encounters_rejected, stats.store_sequence],
    ]


def test_the_service_answers_the_same_from_the_copy(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    first = enroll_request("once", made_up_nik(0), fingers(0))
    first.signature = signature(60)
    unsigned = enroll_request("unsigned", made_up_nik(1), fingers(1))
    unsigned.missing_signature = types_pb2.MISSING_REASON_BANDAGED
    with running(data) as service:
        answer = service.client.enrollment.Enroll(first, timeout=60)
        recorded(service.client.enrollment.Enroll(unsigned, timeout=60))
        service.enroll(2, again(fingers(0), 1))  # held, and waits
        rejected = service.enroll(3, again(fingers(1), 2))
        resolve = case_pb2.ResolveCaseRequest(
            request_id="resolve",
            case_id=rejected.case_id,
            resolution=case_pb2.RESOLUTION_REJECTED,
            operator="siti",
        )
        resolved = service.client.cases.ResolveCase(resolve, timeout=60)
        gone = service.enroll(4, fingers(4))
        delete = enrollment_pb2.DeleteSubjectRequest(request_id="delete", subject_id=gone.subject_id)
        deleted = service.client.enrollment.DeleteSubject(delete, timeout=60)
        before = shown(service)

    said = CliRunner().invoke(app, ["copy-store", "--data-dir", str(data)], env={"REKAM_DATABASE_URL": url})
    assert said.exit_code == 0, said.output
    of_original, of_copy = rows(data), rows(data, url)
    assert of_copy == of_original
    assert {name for name, of in of_copy.items() if not of} == {"sample_image"}  # templates were shown
    assert [row[1:] for row in of_copy["signature"]] == [(first.signature, None), (None, "bandaged")]
    assert said.stdout.startswith(f"{sum(map(len, of_copy.values())):,} rows copied")

    caplog.set_level(logging.WARNING)
    with running(data, database_url=url) as service:
        assert "another history" not in caplog.text  # the index is of these very records
        assert shown(service) == before
        assert service.client.enrollment.Enroll(first, timeout=60) == answer
        assert service.client.cases.ResolveCase(resolve, timeout=60) == resolved
        assert service.client.enrollment.DeleteSubject(delete, timeout=60) == deleted
        assert service.enroll(5, fingers(5)).decision == types_pb2.DECISION_UNIQUE
    assert [row[0] for row in of_copy["tombstone"]] == [3]
    assert [row[0] for row in rows(data, url)["subject"]] == [1, 2, 4]  # no number is given twice

    # Back with the original, which knows nothing of the fifth: nor must its index.
    with running(data) as service:
        assert "another history" in caplog.text
        assert shown(service) == before
        assert service.identify(again(fingers(5), 1)).match == identification_pb2.MATCH_NO
        assert recorded(service.client.enrollment.Enroll(first, timeout=60)) == recorded(answer)


def test_images_come_along(tmp_path: Path, url: str) -> None:
    with Store.open(tmp_path) as store:
        for number in range(13):
            enrol(store, number, prints(10, image=b"\x89PNG" * 1000) if number else None)
    done: list[tuple[int, int]] = []
    of = copy_store(tmp_path, url, lambda rows, of: done.append((rows, of)))
    original = rows(tmp_path)
    assert rows(tmp_path, url) == original
    assert len(original["sample_image"]) == 120
    assert done[-1] == (of, of) == (sum(map(len, original.values())),) * 2
    assert [rows for rows, _ in done] == sorted({rows for rows, _ in done})


class Cut(Exception):
    """The copying is stopped here."""


@pytest.mark.parametrize("ended_by", ["a fault", "the server"])
def test_what_is_cut_short_leaves_nothing(
    folder: Path, url: str, postgres: PostgresServer, ended_by: str
) -> None:
    def stop(rows: int, of: int) -> None:
        if rows > of // 2:
            if ended_by == "a fault":
                raise Cut
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    with pytest.raises(Cut if ended_by == "a fault" else StoreDisconnected):
        copy_store(folder, url, stop)
    assert tables(url) == []
    assert copy_store(folder, url, lambda rows, of: None) == sum(map(len, rows(folder).values()))


def refusal(kind: type[RekamError], folder: Path, url: str) -> str:
    with pytest.raises(kind) as refused:
        copy_store(folder, url, lambda rows, of: pytest.fail("something is copied"))
    return str(refused.value)


def test_a_database_that_is_not_empty_is_refused_and_left(
    folder: Path, url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    with Store.open(tmp_path / "other", url) as other:
        enrol(other, 7)
    before = rows(folder, url)
    assert "has tables already" in refusal(WrongState, folder, url)
    assert rows(folder, url) == before
    # Nor are its tables brought to this version, nor anybody else's touched.
    postgres.execute("UPDATE alembic_version SET version_num = '0002'", database=make_url(url).database or "")
    assert "has tables already" in refusal(WrongState, folder, url)


def test_what_cannot_be_copied_is_refused_and_nothing_is_made(
    folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing to copy" in refusal(WrongState, tmp_path / "typo", url)
    assert not (tmp_path / "typo").exists()
    with Store.open(folder):
        assert "in use" in refusal(StoreLocked, folder, url)
    monkeypatch.delenv("REKAM_DATABASE_URL", raising=False)
    said = CliRunner().invoke(app, ["copy-store", "--data-dir", str(folder)])
    assert said.exit_code == 1
    assert "database_url" in said.stderr
    # Text that PostgreSQL has no way to keep; no client can send it.
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("UPDATE cases SET comment = 'a' || char(0) || 'b'")
    with pytest.raises(WrongState, match="text of table cases") as refused:
        copy_store(folder, url, lambda rows, of: None)
    assert "3201" not in str(refused.value)
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in refusal(StoreNewer, folder, url)
    assert tables(url) == []
