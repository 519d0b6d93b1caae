"""The service over gRPC with its records in PostgreSQL: one setting, nothing else is different."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.server_process import server
from rekam.client import Client
from rekam.store import Reader, Transaction
from rekam.v1 import case_pb2, enrollment_pb2, enrollment_pb2_grpc, gallery_pb2, identification_pb2, types_pb2
from rekam.workflow import _Request
from tests.places import PostgresServer
from tests.service import Refusal, Service, fingers, recorded, refused, running
from tests.test_store_postgres import break_the_next_commit, terminate

UNIQUE, DUPLICATE = types_pb2.DECISION_UNIQUE, types_pb2.DECISION_DUPLICATE


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.emptied()


@pytest.fixture
def service(tmp_path: Path, url: str) -> Iterator[Service]:
    with running(tmp_path / "data", database_url=url) as started:
        yield started


def found(service: Service, number: int) -> bool:
    answer = service.identify(again(fingers(number), 50))
    return answer.match == identification_pb2.MATCH_YES and answer.candidates[0].nik == made_up_nik(number)


def tried(service: Service, request: enrollment_pb2.EnrollRequest) -> Refusal:
    """Enrol without the retries of our own client; how it was refused."""
    with grpc.insecure_channel(service.server.address) as channel:
        stub = enrollment_pb2_grpc.EnrollmentServiceStub(channel)
        return refused(stub.Enroll, request, grpc.StatusCode.UNAVAILABLE)


def test_people_are_enrolled_held_resolved_and_deleted(service: Service) -> None:
    assert service.enroll(0, fingers(0)).decision == UNIQUE
    held = service.enroll(1, again(fingers(0), 1))
    assert held.decision == DUPLICATE
    resolve = case_pb2.ResolveCaseRequest(
        request_id="resolve",
        case_id=held.case_id,
        resolution=case_pb2.RESOLUTION_SAME_PERSON,
        operator="siti",
    )
    resolved = service.client.cases.ResolveCase(resolve, timeout=60)
    assert service.client.cases.ResolveCase(resolve, timeout=60) == resolved
    stats = service.stats()
    assert (stats.subjects, stats.encounters_enrolled, stats.cases_open) == (1, 2, 0)
    assert stats.store_bytes > 1_000_000  # as the server says
    delete = enrollment_pb2.DeleteSubjectRequest(request_id="delete", subject_id=resolved.case.subject_id)
    assert service.client.enrollment.DeleteSubject(delete, timeout=60).encounters_erased == 2
    assert not found(service, 0)
    assert service.enroll(0, again(fingers(0), 2), "again").decision == UNIQUE


def test_no_record_lies_in_the_data_folder(service: Service) -> None:
    service.enroll(0, fingers(0))
    assert "rekam.sqlite" not in {path.name for path in service.settings.data_dir.iterdir()}


def test_answers_and_people_survive_a_restart_and_a_lost_index(tmp_path: Path, url: str) -> None:
    request = enroll_request("once", made_up_nik(0), fingers(0))
    with running(tmp_path / "data", database_url=url) as service:
        first = service.client.enrollment.Enroll(request, timeout=60)
        service.enroll(1, fingers(1))
    shutil.rmtree(tmp_path / "data" / "index")
    with running(tmp_path / "data", database_url=url) as service:
        assert service.client.enrollment.Enroll(request, timeout=60) == first
        assert [found(service, number) for number in range(3)] == [True, True, False]
    # Another machine takes over: nothing of the first one's data folder is needed.
    with running(tmp_path / "elsewhere", database_url=url) as service:
        assert service.client.enrollment.Enroll(request, timeout=60) == first
        assert service.enroll(2, again(fingers(1), 1)).decision == DUPLICATE


@pytest.mark.parametrize("keep", [False, True])
def test_a_retry_after_a_broken_commit_enrols_once(
    service: Service, postgres: PostgresServer, keep: bool
) -> None:
    request = enroll_request("once", made_up_nik(0), fingers(0))
    break_the_next_commit(service.workflow._store, postgres, keep=keep)
    assert tried(service, request).reason == "STORE_DISCONNECTED"
    first = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert first.decision == UNIQUE
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)) == first
    assert service.stats().encounters_enrolled == 1
    assert found(service, 0)
    assert service.enroll(1, again(fingers(0), 1)).decision == DUPLICATE


def test_a_try_that_ends_well_after_its_retry_began_is_not_done_again(
    service: Service, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = enroll_request("once", made_up_nik(0), fingers(0))
    break_the_next_commit(service.workflow._store, postgres, keep=True)
    tried(service, request)
    seen = _Request.answered

    def seen_late(request: _Request[object], reader: Reader) -> object:
        """The first commit is still on its way to the disk when the retry looks for its answer."""
        return seen(request, reader) if isinstance(reader, Transaction) else None

    monkeypatch.setattr(_Request, "answered", seen_late)
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == UNIQUE
    assert service.stats().encounters_enrolled == 1


def test_a_database_that_went_away_for_a_moment_is_gone_back_to(
    service: Service, postgres: PostgresServer
) -> None:
    service.enroll(0, fingers(0))
    terminate(postgres)
    assert found(service, 0)
    assert service.enroll(1, fingers(1)).decision == UNIQUE


def test_what_was_acknowledged_survives_kill_9(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REKAM_DATABASE_URL", url)
    with server(tmp_path) as process:
        for number in range(2):
            with Client(process.address) as client:
                request = enroll_request(f"enroll-{number}", made_up_nik(number), fingers(number))
                first = recorded(client.enrollment.Enroll(request, timeout=60))
                process.kill()
            process.start()
            with Client(process.address) as client:
                assert recorded(client.enrollment.Enroll(request, timeout=60)) == first
                stats = client.gallery.Stats(gallery_pb2.StatsRequest(), timeout=60)
                assert stats.subjects == stats.index_sequence == number + 1
