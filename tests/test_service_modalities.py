"""Fingers, eyes and face through the service: one decision per person, over gRPC."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from benchmarks.encounters import made_up_nik
from capture.errors import ModelUnavailable
from capture.face.onnx_embedder import OnnxEmbedder, OnnxEmbedderSettings
from capture.face.template import FaceTemplate
from capture.sample import EyePosition
from matching.errors import NotCalibrated
from matching.face.calibration import face_calibration
from rekam.config import load_settings
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, quality_pb2, types_pb2
from rekam.workflow import Workflow
from tests.bodies import (
    LEFT,
    RIGHT,
    Body,
    body,
    body_samples,
    enroll_body,
    eye,
    face,
    identify_body,
    missing_eyes,
    shown_eyes,
)
from tests.service import FOUR, Service, recorded, refused, running
from tests.test_face_onnx import GOOD

UNIQUE, RETURNING, DUPLICATE, COLLISION, REVIEW = (
    types_pb2.Decision.Value(f"DECISION_{name}")
    for name in ("UNIQUE", "RETURNING", "DUPLICATE", "COLLISION", "REVIEW")
)
FINGERPRINT, IRIS, FACE = (
    types_pb2.Modality.Value(f"MODALITY_{name}") for name in ("FINGERPRINT", "IRIS", "FACE")
)
NOT_CAPTURED = types_pb2.MISSING_REASON_NOT_CAPTURED
Code = grpc.StatusCode


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "data") as started:
        yield started


def enroll(service: Service, number: int, shown: Body, request_id: str = "") -> types_pb2.Encounter:
    request = enroll_body(request_id or f"enroll-{number}", number, shown)
    return recorded(service.client.enrollment.Enroll(request, timeout=60))


def recapture(service: Service, request: enrollment_pb2.EnrollRequest) -> list[enrollment_pb2.RecaptureItem]:
    response = service.client.enrollment.Enroll(request, timeout=60)
    assert response.WhichOneof("outcome") == "recapture", response
    assert service.stats().subjects == 0
    return list(response.recapture.items)


def fingers_of(number: int) -> Body:
    return Body(fingers=body(number).fingers)


def eyes_of(number: int) -> Body:
    return Body(irises=body(number).irises)


def face_of(number: int) -> Body:
    return Body(face=body(number).face)


# Decisions --------------------------------------------------------------------------------------------


def test_a_whole_encounter_is_recorded_and_shown(service: Service) -> None:
    e = enroll(service, 0, body(0))
    assert (e.decision, list(e.reasons)) == (UNIQUE, [types_pb2.REASON_NOBODY_MATCHES])
    assert [int(f.position) for f in e.fingers] == list(FOUR)
    assert [EyePosition(i.position) for i in e.irises] == [RIGHT, LEFT]
    assert [i.bits for i in e.irises] == [iris.bits for iris in body(0).irises]
    assert [i.quality for i in e.irises] == [80, 80]
    assert e.HasField("face")
    assert (e.face.quality, e.face.image_kept) == (80, False)
    assert (len(e.missing), list(e.missing_eyes), e.missing_face) == (6, [], 0)
    got = service.client.enrollment.GetEncounter(
        enrollment_pb2.GetEncounterRequest(encounter_id=e.encounter_id)
    )
    assert got.encounter == e
    stats = service.stats()
    assert (stats.fingers, stats.irises, stats.faces) == (4, 2, 1)


def test_what_is_missing_is_recorded_with_its_reason(service: Service) -> None:
    request = enroll_body("r", 0, replace(body(0), irises=(eye(0, LEFT),), face=None))
    request.missing_eyes[0].reason = types_pb2.MISSING_REASON_BANDAGED
    request.missing_face = types_pb2.MISSING_REASON_UNREADABLE
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    [missing_eye] = e.missing_eyes
    assert EyePosition(missing_eye.position) is RIGHT
    assert missing_eye.reason == types_pb2.MISSING_REASON_BANDAGED
    assert e.missing_face == types_pb2.MISSING_REASON_UNREADABLE
    assert not e.HasField("face")
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)) == e


def test_the_same_person_is_returning_with_each_modalitys_share(service: Service) -> None:
    first = enroll(service, 0, body(0))
    e = enroll(service, 0, body(0).again(1), "back")
    assert (e.decision, e.subject_id) == (RETURNING, first.subject_id)
    [own] = e.evidence.candidates
    assert shown_eyes(own.irises) == [(RIGHT, RIGHT), (LEFT, LEFT)]
    assert all(share.score > 0.8 and share.llr > 0 and 0 < share.fmr < 1 for share in own.irises)
    assert all(1000 < share.bits <= 4096 for share in own.irises)
    assert own.face.score > 0.9
    assert own.face.llr == own.face_llr > 0
    assert own.eyes == types_pb2.EYE_ARRANGEMENT_AS_DECLARED
    assert own.fingers_llr + own.irises_llr + own.face_llr == pytest.approx(own.llr)
    assert min(own.fingers_llr, own.irises_llr) > 0
    assert not own.conflict


def test_two_eyes_alone_tell_a_duplicate(service: Service) -> None:
    first = enroll(service, 0, body(0))
    enroll(service, 1, body(1))
    e = enroll(service, 2, eyes_of(0).again(1))
    assert (e.decision, list(e.reasons)) == (DUPLICATE, [types_pb2.REASON_OTHER_SUBJECT_MATCHES])
    best = e.evidence.candidates[0]
    assert best.subject_id == first.subject_id
    assert (best.fingers_llr, best.face_llr, len(best.fingers)) == (0, 0, 0)
    assert best.irises_llr == best.llr >= e.evidence.match_llr
    # Where the one encounter has only fingers and the other only eyes, nobody can be accused.
    assert enroll(service, 3, fingers_of(3)).decision == UNIQUE
    assert enroll(service, 4, eyes_of(3).again(1)).decision == UNIQUE


def test_another_persons_eyes_beside_ones_own_fingers_are_reviewed(service: Service) -> None:
    enroll(service, 0, body(0))
    enroll(service, 1, body(1))
    mixed = Body(fingers=body(0).again(1).fingers, irises=body(1).again(1).irises)
    under_new = enroll(service, 2, mixed)
    assert under_new.decision == REVIEW
    assert types_pb2.REASON_MODALITIES_DISAGREE in under_new.reasons
    by_nik = {c.nik: c for c in under_new.evidence.candidates}
    assert list(by_nik[made_up_nik(0)].conflict) == [IRIS]
    assert list(by_nik[made_up_nik(1)].conflict) == [FINGERPRINT]
    under_own = enroll(service, 0, mixed, "own")
    assert under_own.decision == REVIEW
    assert types_pb2.REASON_MODALITIES_DISAGREE in under_own.reasons


def test_eyes_enrolled_alone_are_not_lent_to_anothers_fingers(service: Service) -> None:
    enroll(service, 0, body(0))
    assert enroll(service, 0, eyes_of(0).again(1), "eyes-alone").decision == RETURNING
    mixed = Body(fingers=body(1).fingers, irises=body(0).again(2).irises)
    disagree = types_pb2.REASON_MODALITIES_DISAGREE
    request = identify_body(mixed)
    found = service.client.identification.Identify(request, timeout=60)
    assert found.match == identification_pb2.MATCH_UNCERTAIN
    assert list(found.candidates[0].conflict) == [FINGERPRINT]
    claim = identification_pb2.VerifyRequest(samples=request.samples, nik=made_up_nik(0))
    verified = service.client.identification.Verify(claim, timeout=60)
    assert verified.match == identification_pb2.MATCH_UNCERTAIN
    under_new = enroll(service, 2, mixed)
    assert (under_new.decision, list(under_new.reasons)) == (REVIEW, [disagree])
    under_own = enroll(service, 0, mixed, "own")
    assert (under_own.decision, list(under_own.reasons)) == (REVIEW, [disagree])
    # Nor does an operator's word put another's fingers into the record.
    own = service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=made_up_nik(0))).subject
    resolve = case_pb2.ResolveCaseRequest(
        request_id="resolve",
        case_id=under_own.case_id,
        resolution=case_pb2.RESOLUTION_SAME_PERSON,
        operator="ani",
        subject_id=own.subject_id,
    )
    refused(service.client.cases.ResolveCase, resolve, Code.FAILED_PRECONDITION)
    # The owner comes and goes as before.
    assert enroll(service, 0, body(0).again(3), "whole").decision == RETURNING
    assert enroll(service, 0, Body(face=body(0).face, irises=body(0).irises), "part").decision == RETURNING


def test_whoever_has_nothing_in_common_is_no_candidate(service: Service) -> None:
    enroll(service, 0, body(0))
    only_fingers = enroll(service, 1, fingers_of(1))
    e = enroll(service, 2, eyes_of(2))
    assert [c.nik for c in e.evidence.candidates] == [made_up_nik(0)]
    found = service.client.identification.Identify(identify_body(face_of(3)), timeout=60)
    assert [c.nik for c in found.candidates] == [made_up_nik(0)]
    # The claimed subject is shown however.
    own = enroll(service, 1, eyes_of(1), "own")
    assert own.decision == REVIEW
    assert only_fingers.subject_id in {c.subject_id for c in own.evidence.candidates}


def test_one_eye_given_as_the_other_says_nothing_of_fingers(tmp_path: Path) -> None:
    # The threshold of a gallery of 100, which a swapped eye misses by what the swap costs.
    with running(tmp_path, fpir_review=0.01) as service:
        one = Body(irises=body(0).irises[:1])
        enroll(service, 0, one)
        e = enroll(service, 1, one.again(1).eyes_swapped())
        expected = [types_pb2.REASON_OTHER_SUBJECT_UNCERTAIN, types_pb2.REASON_EYES_SWAPPED]
        assert (e.decision, list(e.reasons)) == (REVIEW, expected)


def test_a_face_alone_never_accuses(service: Service) -> None:
    enroll(service, 0, body(0))
    twin = enroll(service, 1, Body(body(1).fingers, body(1).irises, body(0).again(1).face))
    assert twin.decision in (UNIQUE, REVIEW)
    face_only = enroll(service, 2, face_of(0).again(2))
    assert face_only.decision == REVIEW
    assert types_pb2.REASON_FACE_ALONE in face_only.reasons
    found = service.client.identification.Identify(identify_body(face_of(0).again(4)), timeout=60)
    assert found.candidates[0].llr >= found.review_llr
    assert found.match == identification_pb2.MATCH_UNCERTAIN
    # A known face beside fingers that are not the owner's does not open the owner's NIK.
    own_nik = enroll(service, 0, Body(fingers=body(5).fingers, face=body(0).again(3).face), "own")
    assert own_nik.decision in (COLLISION, REVIEW)


def test_swapped_eyes_are_noticed(service: Service) -> None:
    enroll(service, 0, body(0))
    e = enroll(service, 1, body(0).again(1).eyes_swapped())
    assert e.decision == DUPLICATE
    assert types_pb2.REASON_EYES_SWAPPED in e.reasons
    best = e.evidence.candidates[0]
    assert best.eyes == types_pb2.EYE_ARRANGEMENT_EYES_SWAPPED
    assert sorted(shown_eyes(best.irises)) == [(RIGHT, LEFT), (LEFT, RIGHT)]


def test_eyes_of_unknown_position_are_compared_with_both(service: Service) -> None:
    enroll(service, 0, body(0))
    eyes = body(0).again(1).irises
    request = enroll_body("r", 1, Body(irises=eyes))
    for sample, iris in zip(request.samples, eyes, strict=True):
        sample.eye = types_pb2.EYE_POSITION_UNSPECIFIED
        sample.template = replace(iris, eye=EyePosition.UNKNOWN).to_bytes()
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert e.decision == DUPLICATE
    assert sorted(shown_eyes(e.evidence.candidates[0].irises)) == [(0, 1), (0, 2)]


def test_a_held_encounters_eyes_are_met_by_the_next_attempt(service: Service) -> None:
    enroll(service, 0, body(0))
    held = enroll(service, 1, eyes_of(0).again(1))
    assert held.decision == DUPLICATE
    found = service.client.identification.Identify(identify_body(eyes_of(0).again(2)), timeout=60)
    assert held.encounter_id in {c.encounter_id for c in found.candidates[:2]}


# Asking -----------------------------------------------------------------------------------------------


def test_identify_and_verify_take_any_modality(service: Service) -> None:
    for number in range(3):
        enroll(service, number, body(number))
    for exhaustive in (False, True):
        request = identify_body(eyes_of(1).again(1))
        request.exhaustive = exhaustive
        found = service.client.identification.Identify(request, timeout=60)
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].nik == made_up_nik(1)
    verify = service.client.identification.Verify
    probe = body_samples(eyes_of(2).again(1))
    for number, expected in ((2, identification_pb2.MATCH_YES), (0, identification_pb2.MATCH_NO)):
        claim = identification_pb2.VerifyRequest(nik=made_up_nik(number), samples=probe)
        answer = verify(claim, timeout=60)
        assert answer.match == expected
        assert len(answer.candidate.irises) == 2


def test_eyes_and_faces_name_candidates_among_more_than_a_shortlist(service: Service) -> None:
    people = 30
    for number in range(people):
        shown = Body(irises=(eye(number, RIGHT), eye(number, LEFT)), face=face(number))
        assert enroll(service, number, shown).decision == UNIQUE
    for number in (0, 17, 29):
        one_eye = Body(irises=(eye(number, LEFT),)).again(1)
        found = service.client.identification.Identify(identify_body(one_eye), timeout=60)
        assert found.candidates[0].nik == made_up_nik(number)
        assert found.match in (identification_pb2.MATCH_YES, identification_pb2.MATCH_UNCERTAIN)
        looked = Body(face=face(number)).again(1)
        found = service.client.identification.Identify(identify_body(looked), timeout=60)
        assert found.candidates[0].nik == made_up_nik(number)
        assert found.match == identification_pb2.MATCH_UNCERTAIN
        both = Body(irises=(eye(number, LEFT), eye(number, RIGHT))).again(2)
        request = enroll_body(f"again-{number}", people + number, both)
        assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == DUPLICATE


def test_an_encounter_is_added_with_any_modality(service: Service) -> None:
    first = enroll(service, 0, body(0))
    for decision, shown in ((RETURNING, eyes_of(0).again(1)), (COLLISION, eyes_of(1))):
        whole = enroll_body("", 0, shown)
        request = enrollment_pb2.AddEncounterRequest(
            request_id=f"add-{decision}",
            subject_id=first.subject_id,
            samples=whole.samples,
            missing=whole.missing,
            missing_eyes=whole.missing_eyes,
            missing_face=whole.missing_face,
        )
        e = recorded(service.client.enrollment.AddEncounter(request, timeout=60))
        assert (e.decision, len(e.irises), e.missing_face) == (decision, 2, NOT_CAPTURED)


def test_a_case_shows_every_sample_of_both(service: Service) -> None:
    enroll(service, 0, body(0))
    held = enroll(service, 1, body(0).again(1))
    shown = service.client.cases.GetCase(
        case_pb2.GetCaseRequest(case_id=held.case_id, include_samples=True), timeout=60
    )
    kinds = [(s.modality, int(s.position), int(s.eye)) for s in shown.samples]
    one = [*((FINGERPRINT, int(f), 0) for f in FOUR), (IRIS, 0, 1), (IRIS, 0, 2), (FACE, 0, 0)]
    assert kinds == one * 2
    assert [s.template for s in shown.samples][-7:] == [s.template for s in body_samples(body(0))]


def test_eyes_that_are_not_the_owners_never_join_a_subject(service: Service) -> None:
    own = enroll(service, 0, body(0))
    collision = enroll(service, 0, eyes_of(5), "stranger")
    assert collision.decision == COLLISION
    request = case_pb2.ResolveCaseRequest(
        request_id="resolve",
        case_id=collision.case_id,
        resolution=case_pb2.RESOLUTION_SAME_PERSON,
        operator="ani",
        subject_id=own.subject_id,
    )
    refused(service.client.cases.ResolveCase, request, Code.FAILED_PRECONDITION)


# Rules ------------------------------------------------------------------------------------------------


def test_both_eyes_are_presented_or_declared_missing(service: Service) -> None:
    request = enroll_body("r", 0, replace(body(0), irises=(eye(0, RIGHT),)))
    del request.missing_eyes[:]
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert refusal.fields == {"samples": "neither presented nor declared missing: left eye"}
    request.missing_eyes.extend(missing_eyes([RIGHT, LEFT]))
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert refusal.fields == {"missing_eyes": "presented and declared missing: right eye"}
    del request.missing_eyes[:]
    request.missing_eyes.extend(missing_eyes([LEFT]))
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == UNIQUE


def test_a_face_is_presented_or_declared_missing_and_not_both(service: Service) -> None:
    request = enroll_body("r", 0, body(0))
    request.missing_face = NOT_CAPTURED
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"missing_face"}


def test_required_modalities_are_presented_or_declared_missing(tmp_path: Path) -> None:
    with running(tmp_path / "data", required_modalities="fingerprint,iris,face") as service:
        request = enroll_body("r", 0, fingers_of(0))
        del request.missing_eyes[:]
        request.missing_face = types_pb2.MISSING_REASON_UNSPECIFIED
        refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
        assert refusal.fields == {"samples": "neither presented nor declared missing: right eye, left eye"}
        request.missing_eyes.extend(missing_eyes([RIGHT, LEFT]))
        refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
        assert refusal.fields == {"samples": "neither presented nor declared missing: the face"}
        request.missing_face = NOT_CAPTURED
        assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == UNIQUE


def test_an_office_without_fingerprints_need_not_declare_them(tmp_path: Path) -> None:
    with running(tmp_path / "data", required_modalities="iris") as service:
        request = enroll_body("r", 0, eyes_of(0))
        del request.missing[:]
        e = recorded(service.client.enrollment.Enroll(request, timeout=60))
        assert (e.decision, len(e.missing)) == (UNIQUE, 0)
        # Where one finger is presented, the others are declared.
        request = enroll_body("s", 1, body(1))
        del request.missing[:]
        refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)


def test_the_same_eye_twice_is_sent_back(service: Service) -> None:
    right = eye(0, RIGHT)
    left = replace(Body(irises=(right,)).again(1).irises[0], eye=LEFT)
    [item] = recapture(service, enroll_body("r", 0, replace(body(0), irises=(right, left))))
    assert (item.modality, int(item.eye), int(item.same_eye_as)) == (IRIS, RIGHT, LEFT)
    assert (item.position, item.same_finger_as) == (0, 0)
    assert item.advice == "The right eye and the left eye are the same eye: capture both again."


def test_templates_that_cannot_be_taken_are_named(service: Service) -> None:
    request = enroll_body("r", 0, body(0))
    iris, face = body(0).irises[0], body(0).face
    assert face is not None
    nothing = np.zeros_like(iris.mask)
    wrong = {
        4: (replace(iris, eye=LEFT).to_bytes(), "of the left eye, not the right eye"),
        5: (replace(iris, eye=LEFT, code=nothing, mask=nothing).to_bytes(), "no bits that count"),
        6: (replace(face, embedder=b"another1").to_bytes(), "another face embedder"),
    }
    for place, (template, _) in wrong.items():
        request.samples[place].template = template
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert set(refusal.fields) == {f"samples[{place}]" for place in wrong}
    for place, (_, says) in wrong.items():
        assert says in refusal.fields[f"samples[{place}]"]


def test_fingers_alone_go_on_as_before(service: Service) -> None:
    request = enroll_body("r", 0, fingers_of(0))
    del request.missing_eyes[:]
    request.missing_face = types_pb2.MISSING_REASON_UNSPECIFIED
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert (e.decision, list(e.missing_eyes), e.missing_face) == (UNIQUE, [], 0)
    assert len(e.missing) == 10 - len(FOUR)
    again = enroll(service, 1, fingers_of(0).again(1))
    assert again.decision == DUPLICATE
    best = again.evidence.candidates[0]
    assert best.fingers_llr == best.llr
    assert best.eyes == types_pb2.EYE_ARRANGEMENT_UNSPECIFIED
    assert [int(f.probe) for f in best.fingers] == list(FOUR)


# Images -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portraits(development_data: Path) -> list[bytes]:
    """Portraits of two people."""
    people = sorted(p for p in (development_data / "face" / "lfw").iterdir() if p.is_dir())
    return [min(p.iterdir()).read_bytes() for p in people[:2]]


@pytest.fixture(scope="module")
def eye_images(development_data: Path) -> list[bytes]:
    """Two pictures of one eye and one of another."""
    folder = development_data / "iris" / "casia_v1"
    return [(folder / f"{name}.jpg").read_bytes() for name in ("001_1_1", "001_1_2", "002_1_1")]


def iris_image(image: bytes, eye: EyePosition) -> types_pb2.Sample:
    position = types_pb2.EyePosition.ValueType(eye)
    return types_pb2.Sample(modality=IRIS, image=image, eye=position, best_effort=True)


def portrait_sample(image: bytes) -> types_pb2.Sample:
    return types_pb2.Sample(modality=FACE, image=image, best_effort=True)


def with_images(*images: types_pb2.Sample) -> enrollment_pb2.EnrollRequest:
    """The fingers of person 0 and these eyes and faces, what is not among them declared missing."""
    request = enroll_body("r", 0, fingers_of(0))
    request.samples.extend(images)
    shown = {EyePosition(image.eye) for image in images if image.modality == IRIS}
    del request.missing_eyes[:]
    request.missing_eyes.extend(missing_eyes({RIGHT, LEFT} - shown))
    if any(image.modality == FACE for image in images):
        request.missing_face = types_pb2.MISSING_REASON_UNSPECIFIED
    return request


def side_by_side(*portraits: bytes) -> bytes:
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in portraits]
    both = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    x = 0
    for picture in pictures:
        both.paste(picture, (x, 0))
        x += picture.width
    file = io.BytesIO()
    both.save(file, "PNG")
    return file.getvalue()


def test_images_of_eyes_and_a_face_are_enrolled_kept_and_found(
    tmp_path: Path, eye_images: list[bytes], portraits: list[bytes]
) -> None:
    with running(tmp_path / "data", keep_images=True) as service:
        images = [iris_image(eye_images[0], RIGHT), iris_image(eye_images[2], LEFT)]
        request = with_images(*images, portrait_sample(portraits[0]))
        e = recorded(service.client.enrollment.Enroll(request, timeout=60))
        assert e.decision == UNIQUE
        assert all(i.image_kept and i.bits > 500 for i in e.irises)
        assert e.face.image_kept
        probe = [iris_image(eye_images[1], RIGHT), portrait_sample(portraits[0])]
        found = service.client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=probe), timeout=60
        )
        assert found.match == identification_pb2.MATCH_YES
        told = [(q.modality, int(q.eye), int(q.position)) for q in found.qualities]
        assert told == [(IRIS, RIGHT, 0), (FACE, 0, 0)]
        assert all(q.quality.measures for q in found.qualities)
        assert found.candidates[0].face.score > 0.99


def test_several_faces_are_sent_back_however_hard_the_capture(
    service: Service, portraits: list[bytes]
) -> None:
    both = portrait_sample(side_by_side(*portraits))
    [item] = recapture(service, with_images(both))
    assert (item.modality, item.position, item.eye) == (FACE, 0, 0)
    assert "several_faces" in [f.code for f in item.quality.feedback]
    assert item.advice == "More than one face is in the picture: photograph one person alone."
    # Nor by way of a template.
    assessed = service.client.quality.Assess(
        quality_pb2.AssessRequest(sample=both, include_template=True), timeout=60
    )
    assert (assessed.quality.usable, assessed.template) == (False, b"")


def test_what_was_assessed_can_be_sent_instead_of_the_image(
    service: Service, eye_images: list[bytes], portraits: list[bytes]
) -> None:
    assess = service.client.quality.Assess
    seen, looked = (
        assess(quality_pb2.AssessRequest(sample=sample, include_template=True), timeout=60)
        for sample in (iris_image(eye_images[0], RIGHT), portrait_sample(portraits[0]))
    )
    assert (seen.format, seen.width, seen.height) == ("jpeg", 320, 280)
    assert seen.iris_bits > 500
    assert (seen.minutiae, seen.ppi) == (0, 0)
    assert (looked.format, looked.iris_bits) == ("jpeg", 0)
    right = types_pb2.EYE_POSITION_RIGHT
    request = with_images(
        types_pb2.Sample(modality=IRIS, eye=right, template=seen.template),
        types_pb2.Sample(modality=FACE, template=looked.template),
    )
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert (e.irises[0].bits, e.face.quality) == (seen.iris_bits, looked.quality.score)


# Restarts and erasure -----------------------------------------------------------------------------------


def files_hold(folder: Path, data: bytes) -> bool:
    """Whether a piece of sixteen bytes of `data` is in any file below `folder`."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return any(data[at : at + 16] in content for at in range(0, len(data) - 15, 16))


def pieces(shown: Body) -> list[bytes]:
    """Iris codes and face vectors in the byte orders that files may hold them in."""
    assert shown.face is not None
    made = [shown.face.vector.astype(order).tobytes() for order in (">f4", "<f4")]
    for iris in shown.irises:
        made += [iris.code.astype(order).tobytes() for order in (">u8", "<u8")]
    return made


def test_deleting_a_subject_erases_its_codes_and_vectors_from_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as service:
        gone = enroll(service, 0, body(0))
        enroll(service, 1, body(1))
    assert any(files_hold(data, piece) for piece in pieces(body(0)))
    with running(data) as service:
        request = enrollment_pb2.DeleteSubjectRequest(request_id="d", subject_id=gone.subject_id)
        assert service.client.enrollment.DeleteSubject(request, timeout=60).encounters_erased == 1
        stats = service.stats()
        assert (stats.fingers, stats.irises, stats.faces) == (4, 2, 1)
        found = service.client.identification.Identify(identify_body(eyes_of(0).again(1)), timeout=60)
        assert found.match == identification_pb2.MATCH_NO
    assert not any(files_hold(data, piece) for piece in pieces(body(0)))
    assert any(files_hold(data, piece) for piece in pieces(body(1)))


@pytest.mark.parametrize("rebuilt", [False, True])
def test_after_a_restart_every_modality_is_found(tmp_path: Path, rebuilt: bool) -> None:
    data = tmp_path / "data"
    with running(data) as service:
        for number in range(2):
            enroll(service, number, body(number))
    if rebuilt:
        shutil.rmtree(data / "index")
    with running(data) as service:
        for part in (eyes_of(1), fingers_of(1), body(1)):
            found = service.client.identification.Identify(identify_body(part.again(3)), timeout=60)
            assert found.match == identification_pb2.MATCH_YES
            assert found.candidates[0].nik == made_up_nik(1)
        whole = found.candidates[0]
        assert (len(whole.fingers), len(whole.irises), whole.HasField("face")) == (4, 2, True)


def test_faces_of_a_former_embedder_are_kept_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = body(0).face
    assert former is not None
    with running(tmp_path / "data") as service:
        with monkeypatch.context() as then:
            then.setattr("capture.face.extract.FaceExtractor.embedder", b"of1999__")
            old = replace(body(0), face=replace(former, embedder=b"of1999__"))
            assert enroll(service, 0, old, "then").decision == UNIQUE
        now = enroll(service, 0, body(0).again(2), "now")
        assert now.decision == RETURNING
        assert not now.evidence.candidates[0].HasField("face")
        subject = service.client.gallery.GetSubject(
            gallery_pb2.GetSubjectRequest(subject_id=now.subject_id)
        ).subject
        assert len(subject.encounter_ids) == 2
        assert service.stats().faces == 2


def test_a_case_of_a_former_embedder_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = body(0).face
    assert former is not None
    old = replace(body(0), face=replace(former, embedder=b"of1999__"))
    with running(tmp_path / "data") as service:
        with monkeypatch.context() as then:
            then.setattr("capture.face.extract.FaceExtractor.embedder", b"of1999__")
            then.setattr("matching.encounter.face_calibration", lambda *_: face_calibration(former.embedder))
            own = enroll(service, 0, old, "then")
            held = enroll(service, 1, old, "held")
            assert held.decision == DUPLICATE
        request = case_pb2.ResolveCaseRequest(
            request_id="resolve",
            case_id=held.case_id,
            resolution=case_pb2.RESOLUTION_SAME_PERSON,
            operator="ani",
        )
        resolved = service.client.cases.ResolveCase(request, timeout=60).case
        assert resolved.subject_id == own.subject_id


# A face network of one's own -----------------------------------------------------------------------------


def test_no_face_network_is_loaded_before_the_first_face(service: Service) -> None:
    enroll(service, 0, Body(body(0).fingers, body(0).irises))
    assert service.workflow._capturing._faces is None
    enroll(service, 1, body(1))
    assert service.workflow._capturing._faces is not None


def test_a_network_of_ones_own_is_used_where_its_scores_are_calibrated(
    tmp_path: Path, portraits: list[bytes]
) -> None:
    model = tmp_path / "face.onnx"
    with pytest.raises(ModelUnavailable, match=r"face\.onnx cannot be read"):
        Workflow(load_settings(data_dir=tmp_path / "data", face_embedder_path=model))
    model.write_bytes(GOOD)
    with pytest.raises(NotCalibrated, match="rekam evaluate face"):
        Workflow(load_settings(data_dir=tmp_path / "data", face_embedder_path=model))

    # As if the shipped calibration had been fitted to this network.
    digest = OnnxEmbedder(OnnxEmbedderSettings(model)).digest
    content = json.loads((files("matching.face") / "calibration.json").read_text(encoding="utf-8"))
    content["pairs"] = [content["pairs"][0] | {"embedders": [digest.hex()] * 2}]
    calibration = tmp_path / "calibration.json"
    calibration.write_text(json.dumps(content))
    # Which says nothing of dlib's; a file of one's own may speak of that network, too.
    with pytest.raises(NotCalibrated, match="or name no file"):
        Workflow(load_settings(data_dir=tmp_path / "dlib", face_embedder_calibration=calibration))
    shipped = tmp_path / "shipped.json"
    shipped.write_bytes((files("matching.face") / "calibration.json").read_bytes())
    Workflow(load_settings(data_dir=tmp_path / "dlib", face_embedder_calibration=shipped)).close()
    own = {"face_embedder_path": model, "face_embedder_calibration": calibration}
    with running(tmp_path / "data", keep_images=False, **own) as service:
        request = with_images(portrait_sample(portraits[0]))
        first = recorded(service.client.enrollment.Enroll(request, timeout=60))
        assert first.decision == UNIQUE
        request = with_images(portrait_sample(portraits[0]))
        request.request_id, request.nik = "again", made_up_nik(0)
        back = recorded(service.client.enrollment.Enroll(request, timeout=60))
        assert back.decision == RETURNING
        assert back.evidence.candidates[0].face.score == pytest.approx(1)
        # dlib's vectors are not taken now, nor vectors of this network with other values.
        request = enroll_body("dlib", 1, body(1))
        refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
        assert "another face embedder" in refusal.fields["samples[6]"]
        vector = np.full(9, 1 / 3, dtype=np.float32)
        request.samples[6].template = FaceTemplate(vector, 50, digest).to_bytes()
        refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
        assert refusal.fields == {"samples[6]": "a template of this face embedder has 24 values, not 9"}
