"""The signature goes with the encounter: kept, shown, erased with it, and compared with nothing."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

from rekam.v1 import case_pb2, enrollment_pb2, types_pb2
from tests.bodies import Body, body, enroll_body
from tests.service import Service, recorded, refused, running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "data") as started:
        yield started


def signed(request_id: str, number: int, shown: Body, signature: bytes) -> enrollment_pb2.EnrollRequest:
    request = enroll_body(request_id, number, shown)
    request.signature = signature
    return request


def signature(shade: int) -> bytes:
    written = io.BytesIO()
    Image.frombytes("L", (168, 44), random.Random(shade).randbytes(168 * 44)).save(written, "PNG")
    return written.getvalue()


def kept(service: Service, encounter_id: str) -> bytes:
    request = enrollment_pb2.GetEncounterRequest(encounter_id=encounter_id)
    return service.client.enrollment.GetEncounter(request, timeout=60).signature


def test_a_signature_is_kept_as_it_was_sent_and_compared_with_nothing(service: Service) -> None:
    same = signature(60)
    first, second = (
        recorded(service.client.enrollment.Enroll(signed(f"r{n}", n, body(n), same), timeout=60))
        for n in range(2)
    )
    assert first.decision == second.decision == types_pb2.DECISION_UNIQUE
    assert kept(service, first.encounter_id) == kept(service, second.encounter_id) == same
    added = enrollment_pb2.AddEncounterRequest(
        request_id="add", subject_id=first.subject_id, signature=signature(80)
    )
    again = enroll_body("", 0, body(0).again(1))
    added.samples.extend(again.samples)
    added.missing.extend(again.missing)
    later = recorded(service.client.enrollment.AddEncounter(added, timeout=60))
    assert kept(service, later.encounter_id) == signature(80)
    unsigned = recorded(service.client.enrollment.Enroll(enroll_body("u", 3, body(3)), timeout=60))
    assert kept(service, unsigned.encounter_id) == b""


def test_a_signature_is_erased_with_its_encounter(tmp_path: Path) -> None:
    first, second = signature(60), signature(70)
    with running(tmp_path) as service:
        enroll = service.client.enrollment.Enroll
        subject = recorded(enroll(signed("a", 0, body(0), first), timeout=60)).subject_id
        held = recorded(enroll(signed("b", 1, body(0).again(1), second), timeout=60))
        assert held.decision == types_pb2.DECISION_DUPLICATE
        service.client.cases.ResolveCase(
            case_pb2.ResolveCaseRequest(
                request_id="c",
                case_id=held.case_id,
                resolution=case_pb2.RESOLUTION_REJECTED,
                operator="a test",
            ),
            timeout=60,
        )
        assert kept(service, held.encounter_id) == b""
        service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(request_id="d", subject_id=subject), timeout=60
        )
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for gone in (first, second):
        assert gone[60:120] not in left


@pytest.mark.parametrize(
    "given", [b"no image", b"\x89PNG\r\n\x1a\nhalf", b"\xff\xa0\xff\xa5", bytes(2**20 + 1)]
)
def test_what_is_no_image_is_refused(service: Service, given: bytes) -> None:
    request = signed("r", 0, body(0), given)
    refusal = refused(service.client.enrollment.Enroll, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"signature"}
