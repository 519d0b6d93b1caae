"""A database that the first release itself wrote (benchmarks/first_release.py) opens and goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.encounters import again, enroll_request, made_up_nik
from capture.fingerprint.template import FingerprintTemplate
from rekam.store import DATABASE, Reader, Store
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from tests.conftest import ROOT
from tests.places import now, searched
from tests.service import recorded, running

SQL = ROOT / "tests" / "first_release.sql"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder, without an index."""
    folder = tmp_path / "data"
    folder.mkdir()
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        database.executescript(SQL.read_text(encoding="utf-8"))
        [[schema]] = database.execute("SELECT version_num FROM alembic_version")
        assert schema == "0001"
    return folder


def presented(data: Path) -> dict[str, list[FingerprintTemplate]]:
    """The templates of every encounter of the first release, by request id."""
    with closing(sqlite3.connect(data / DATABASE)) as database:
        rows = database.execute(
            "SELECT request_id, template FROM encounter JOIN finger ON encounter_seq = seq "
            "ORDER BY seq, ordinal"
        )
        shown: dict[str, list[FingerprintTemplate]] = {}
        for request_id, template in rows:
            shown.setdefault(request_id, []).append(FingerprintTemplate.from_bytes(template))
        return shown


def test_everybody_is_found_and_every_request_is_answered_as_it_was(data: Path) -> None:
    shown = presented(data)
    with closing(sqlite3.connect(data / DATABASE)) as database:
        answers = dict(database.execute("SELECT request_id, response FROM request"))
        encounter_of = dict(database.execute("SELECT request_id, encounter_id FROM encounter"))
        [[gone]] = database.execute("SELECT subject_id FROM tombstone")
        cases = dict(database.execute("SELECT state, case_id FROM cases"))
    assert set(shown) == {"enroll-0", "enroll-1", "enroll-0-again", "enroll-2"}
    with running(data) as service:
        # 1. What it held is there.
        stats = service.stats()
        assert (stats.subjects, stats.encounters_enrolled) == (2, 3)
        assert (stats.encounters_held, stats.encounters_rejected, stats.fingers) == (1, 1, 12)
        # 2. People are found, and judged as before.
        for request_id, number in (("enroll-0", 0), ("enroll-1", 1)):
            found = service.identify(again(shown[request_id], 9))
            assert found.match == identification_pb2.MATCH_YES
            assert found.candidates[0].nik == made_up_nik(number)
        back = service.enroll(1, again(shown["enroll-1"], 3), "back")
        assert back.decision == types_pb2.DECISION_RETURNING
        # 3. Requests repeated under their ids get the stored answers.
        for request_id, fingers in shown.items():
            number = int(request_id.split("-")[1])
            answer = service.client.enrollment.Enroll(
                enroll_request(request_id, made_up_nik(number), fingers), timeout=60
            )
            assert recorded(answer).encounter_id == encounter_of[request_id]
            assert encounter_of[request_id].encode() in answers[request_id]
        deleted = service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(request_id="delete-3", subject_id=gone)
        )
        assert deleted.encounters_erased == 1
        resolved = service.client.cases.ResolveCase(
            case_pb2.ResolveCaseRequest(
                request_id="resolve-5",
                case_id=cases["resolved"],
                resolution=case_pb2.RESOLUTION_REJECTED,
                operator="Sari",
                comment="brought by mistake",
            )
        )
        assert resolved.case.resolution == case_pb2.RESOLUTION_REJECTED
        # 4. The open case is resolved now: the held encounter joins the person it matched.
        case = service.client.cases.GetCase(
            case_pb2.GetCaseRequest(case_id=cases["open"], include_samples=True), timeout=60
        )
        assert case.encounter.decision == types_pb2.DECISION_DUPLICATE
        assert len(case.samples) == 6
        service.client.cases.ResolveCase(
            case_pb2.ResolveCaseRequest(
                request_id="resolve-2",
                case_id=cases["open"],
                resolution=case_pb2.RESOLUTION_SAME_PERSON,
                operator="Sari",
            ),
            timeout=60,
        )
        subject = service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=made_up_nik(1)))
        assert len(subject.subject.encounter_ids) == 3


def test_the_migration_keeps_every_row_and_is_done_once(data: Path) -> None:
    before = presented(data)
    for _ in range(2):
        with Store.open(data) as store:
            for request_id, fingers in before.items():
                templates = {e.encounter_id: [t for _, t in e.templates] for e in searched(store)}
                assert [f.to_bytes() for f in fingers] in templates.values(), request_id
            assert now(store, Reader.last_change) == 8
            assert [s.nik for s in now(store, lambda r: r.subjects(None, 9))] != []
    with closing(sqlite3.connect(data / DATABASE)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        [[sound]] = database.execute("PRAGMA integrity_check")
    assert "finger" not in tables
    assert sound == "ok"
