"""A real server in this process, a real client beside it, and a few people to present."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from benchmarks.encounters import Fingers, add_request, enroll_request, made_up_nik
from benchmarks.population import person
from capture.sample import FingerPosition
from rekam.client import Client
from rekam.config import load_settings
from rekam.server import Server
from rekam.v1 import enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from rekam.workflow import Workflow

SEED = 20_26
FOUR = (
    FingerPosition.RIGHT_THUMB,
    FingerPosition.RIGHT_INDEX,
    FingerPosition.LEFT_THUMB,
    FingerPosition.LEFT_INDEX,
)


@cache
def fingers(number: int, positions: tuple[FingerPosition, ...] = FOUR) -> Fingers:
    """Fingers of made-up person `number`."""
    return person(number, SEED, positions)


class Service:
    """Workflow, server and client over one data folder."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.settings = load_settings(data_dir=folder, port=0, workers=2, **settings)
        self.workflow = Workflow(self.settings)
        self.server = Server(self.settings, self.workflow)
        self.client = Client(self.server.address)

    def stop(self) -> None:
        """Stop as `rekam serve` does."""
        self.client.close()
        self.server.stop()
        self.workflow.close()

    def enroll(self, number: int, presented: Fingers, request_id: str | None = None) -> types_pb2.Encounter:
        """Enrol under the NIK of person `number`; the recorded encounter."""
        request = enroll_request(request_id or f"enroll-{number}", made_up_nik(number), presented)
        return recorded(self.client.enrollment.Enroll(request, timeout=60))

    def add(self, subject_id: str, presented: Fingers, request_id: str) -> types_pb2.Encounter:
        """Add an encounter to a subject."""
        request = add_request(request_id, subject_id, presented)
        return recorded(self.client.enrollment.AddEncounter(request, timeout=60))

    def identify(self, presented: Fingers, **options: object) -> identification_pb2.IdentifyResponse:
        """Search everybody."""
        request = identification_pb2.IdentifyRequest(
            samples=enroll_request("", "", presented).samples,
            **options,  # type: ignore[arg-type]  # fields of the request
        )
        return self.client.identification.Identify(request, timeout=60)

    def stats(self) -> gallery_pb2.StatsResponse:
        """Counts, with an index that has caught up."""
        stats = self.client.gallery.Stats(gallery_pb2.StatsRequest(), timeout=60)
        assert stats.index_sequence == stats.store_sequence
        return stats


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Service]:
    """A service that is stopped at the end."""
    service = Service(folder, **settings)
    try:
        yield service
    finally:
        service.stop()


def recorded(
    response: enrollment_pb2.EnrollResponse | enrollment_pb2.AddEncounterResponse,
) -> types_pb2.Encounter:
    """The encounter of an answer that must be one."""
    assert response.WhichOneof("outcome") == "encounter", response
    return response.encounter


class Refusal:
    """A refused call: its code, its words, the fields at fault, and the stable reason."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast(grpc.Call, error)
        self.code = call.code()
        self.text = call.details() or ""
        self.reason = ""
        self.fields: dict[str, str] = {}
        status = rpc_status.from_call(call)
        for detail in () if status is None else status.details:
            bad, info = BadRequest(), ErrorInfo()
            if detail.Unpack(bad):
                self.fields = {v.field: v.description for v in bad.field_violations}
            elif detail.Unpack(info):
                self.reason = info.reason


def refused(call: grpc.UnaryUnaryMultiCallable, request: Message, code: grpc.StatusCode) -> Refusal:  # type: ignore[type-arg]
    """Call what must be refused with this code."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    refusal = Refusal(caught.value)
    assert refusal.code is code, f"{refusal.code}: {refusal.text}"
    return refusal
