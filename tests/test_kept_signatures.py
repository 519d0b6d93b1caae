"""The signature, or why there is none, goes with the encounter: kept, shown, erased, never compared."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image
from sqlalchemy import select

from rekam import schema
from rekam.v1 import case_pb2, enrollment_pb2, types_pb2
from tests.bodies import Body, body, enroll_body
from tests.places import Place
from tests.service import Service, recorded, refused, running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "data") as started:
        yield started


def signed(request_id: str, number: int, shown: Body, signature: bytes) -> enrollment_pb2.EnrollRequest:
    request = enroll_body(request_id, number, shown)
    request.signature = signature
    return request


def unsigned(request_id: str, number: int, shown: Body) -> enrollment_pb2.EnrollRequest:
    request = enroll_body(request_id, number, shown)
    request.missing_signature = types_pb2.MISSING_REASON_BANDAGED
    return request


def signature(shade: int) -> bytes:
    written = io.BytesIO()
    Image.frombytes("L", (168, 44), random.Random(shade).randbytes(168 * 44)).save(written, "PNG")
    return written.getvalue()


def found(service: Service, encounter_id: str) -> enrollment_pb2.GetEncounterResponse:
    request = enrollment_pb2.GetEncounterRequest(encounter_id=encounter_id)
    return service.client.enrollment.GetEncounter(request, timeout=60)


def kept(service: Service, encounter_id: str) -> bytes:
    return found(service, encounter_id).signature


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
    neither = recorded(service.client.enrollment.Enroll(enroll_body("u", 3, body(3)), timeout=60))
    told = found(service, neither.encounter_id)
    assert (told.signature, told.missing_signature) == (b"", types_pb2.MISSING_REASON_UNSPECIFIED)


def test_why_there_is_no_signature_is_kept_and_told(service: Service) -> None:
    enrollment = service.client.enrollment
    enrolled = recorded(enrollment.Enroll(unsigned("r0", 0, body(0)), timeout=60))
    told = found(service, enrolled.encounter_id)
    assert (told.signature, told.missing_signature) == (b"", types_pb2.MISSING_REASON_BANDAGED)
    again = enroll_body("", 0, body(0).again(1))
    added = enrollment_pb2.AddEncounterRequest(
        request_id="add",
        subject_id=enrolled.subject_id,
        samples=again.samples,
        missing=again.missing,
        missing_signature=types_pb2.MISSING_REASON_UNREADABLE,
    )
    later = recorded(enrollment.AddEncounter(added, timeout=60))
    assert found(service, later.encounter_id).missing_signature == types_pb2.MISSING_REASON_UNREADABLE
    both = unsigned("both", 1, body(1))
    both.signature = signature(60)
    refusal = refused(enrollment.Enroll, both, grpc.StatusCode.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"missing_signature"}


def test_a_signature_is_erased_with_its_encounter(place: Place) -> None:
    first, second = signature(60), signature(70)
    with running(place.folder, database_url=place.url) as service:
        enroll = service.client.enrollment.Enroll
        subject = recorded(enroll(signed("a", 0, body(0), first), timeout=60)).subject_id
        returning = recorded(enroll(unsigned("n", 0, body(0).again(2)), timeout=60))
        assert returning.subject_id == subject
        for request in (signed("b", 1, body(0).again(1), second), unsigned("c", 2, body(0).again(3))):
            held = recorded(enroll(request, timeout=60))
            assert held.decision == types_pb2.DECISION_DUPLICATE
            service.client.cases.ResolveCase(
                case_pb2.ResolveCaseRequest(
                    request_id=f"reject-{request.request_id}",
                    case_id=held.case_id,
                    resolution=case_pb2.RESOLUTION_REJECTED,
                    operator="a test",
                ),
                timeout=60,
            )
            told = found(service, held.encounter_id)
            assert (told.signature, told.missing_signature) == (b"", request.missing_signature)
        service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(request_id="d", subject_id=subject), timeout=60
        )
    engine = place.engine()
    with engine.connect() as connection:
        # Of the two that were rejected, what is no biometric: why there was none.
        left_over = connection.execute(select(schema.signature.c.image, schema.signature.c.missing))
        assert left_over.all() == [(None, "bandaged")]
    engine.dispose()
    left = b"".join(path.read_bytes() for path in place.folder.rglob("*") if path.is_file())
    for gone in (first, second):
        assert gone[60:120] not in left


@pytest.mark.parametrize(
    "given", [b"no image", b"\x89PNG\r\n\x1a\nhalf", b"\xff\xa0\xff\xa5", bytes(2**20 + 1)]
)
def test_what_is_no_image_is_refused(service: Service, given: bytes) -> None:
    request = signed("r", 0, body(0), given)
    refusal = refused(service.client.enrollment.Enroll, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"signature"}
