"""Hostile requests: each gets its answer, the server goes on serving, the store is what it was."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from benchmarks.encounters import again, made_up_nik
from benchmarks.hostile_requests import PAGE, Hostile, answer_to, hostile_requests, rendered
from rekam.v1 import identification_pb2, types_pb2
from tests.service import Service, fingers, running

ROWS = hostile_requests()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("hostile") / "data") as started:
        assert started.enroll(0, fingers(0)).decision == types_pb2.DECISION_UNIQUE
        yield started


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(
        service.server.address, options=[("grpc.max_send_message_length", -1)]
    ) as opened:
        yield opened


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_the_answer_is_the_one_in_the_table(
    service: Service, channel: grpc.Channel, row: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    before = service.stats()
    answer, text = answer_to(channel, row)
    assert answer == row.answer, text
    assert row.says in text
    assert len(text) < 4000
    # The store is what it was, and nothing was a surprise to the server.
    assert service.stats() == before
    assert not [r for r in caplog.records if r.exc_info or r.levelname in ("WARNING", "ERROR")]
    assert "Traceback" not in caplog.text


def test_the_server_serves_afterwards(service: Service) -> None:
    found = service.identify(again(fingers(0), 1))
    assert found.match == identification_pb2.MATCH_YES
    assert found.candidates[0].nik == made_up_nik(0)
    assert service.enroll(1, fingers(1)).decision == types_pb2.DECISION_UNIQUE


def test_every_refusal_of_our_own_has_a_stable_reason(channel: grpc.Channel) -> None:
    for row in ROWS:
        if row.answer not in ("INVALID_ARGUMENT", "NOT_FOUND"):
            continue
        call = channel.unary_unary(f"/rekam.v1.{row.method}", None, None)
        data = row.request if isinstance(row.request, bytes) else row.request.SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=60)
        assert isinstance(caught.value, grpc.Call)
        status = rpc_status.from_call(caught.value)
        assert status is not None, row.name
        info, bad = ErrorInfo(), BadRequest()
        assert any(detail.Unpack(info) for detail in status.details), row.name
        assert info.domain == "rekam"
        assert info.reason in ("INVALID_REQUEST", "INVALID_NIK", "NOT_FOUND"), row.name
        if row.answer == "INVALID_ARGUMENT":
            assert any(detail.Unpack(bad) for detail in status.details), row.name
            assert bad.field_violations


def test_the_table_is_long_and_its_rows_are_told_apart() -> None:
    assert len(ROWS) >= 30
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered(), (
        "docs/hostile_requests.md is out of date: python -m benchmarks.hostile_requests --write"
    )
