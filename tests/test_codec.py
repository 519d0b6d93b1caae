"""The codec: every fault of a request at once, and every domain value its word in the contract."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from enum import Enum

import pytest
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.encounters import enroll_request, made_up_nik
from capture.quality import Feedback, Quality
from capture.sample import EyePosition, FingerPosition, Modality
from matching.decision import Decision, Reason
from matching.encounter import (
    Arrangement,
    EncounterComparison,
    EyeArrangement,
    FaceShare,
    FingerShare,
    IrisShare,
)
from rekam import codec
from rekam.errors import InvalidRequest
from rekam.exchange import (
    Evidence,
    Match,
    Missing,
    MissingEye,
    MissingReason,
    Person,
    Recorded,
    RecordedFace,
    RecordedFinger,
    RecordedIris,
)
from rekam.nik import NikWarning, NikWarningKind, Sex
from rekam.position import modality_of
from rekam.recorded import EVIDENCE
from rekam.store import CaseState, EncounterState, Resolution
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, quality_pb2, types_pb2
from rekam.workflow import _RECORDED
from tests.bodies import body, enroll_body
from tests.service import fingers

ENUMS = [
    (Decision, types_pb2.Decision.DESCRIPTOR),
    (Reason, types_pb2.Reason.DESCRIPTOR),
    (Arrangement, types_pb2.Arrangement.DESCRIPTOR),
    (EyeArrangement, types_pb2.EyeArrangement.DESCRIPTOR),
    (Modality, types_pb2.Modality.DESCRIPTOR),
    (MissingReason, types_pb2.MissingReason.DESCRIPTOR),
    (EncounterState, types_pb2.EncounterState.DESCRIPTOR),
    (CaseState, case_pb2.CaseState.DESCRIPTOR),
    (Resolution, case_pb2.Resolution.DESCRIPTOR),
    (Match, identification_pb2.Match.DESCRIPTOR),
    (Sex, enrollment_pb2.Sex.DESCRIPTOR),
]


@pytest.mark.parametrize(("kind", "descriptor"), ENUMS, ids=lambda value: getattr(value, "name", ""))
def test_domain_and_contract_have_the_same_words(kind: type[Enum], descriptor: EnumDescriptor) -> None:
    prefix = "".join("_" + c if c.isupper() else c for c in descriptor.name).strip("_").upper() + "_"
    words = {value.name.removeprefix(prefix) for value in descriptor.values if value.number != 0}
    assert words == {member.name for member in kind}
    assert descriptor.values_by_number[0].name == f"{prefix}UNSPECIFIED"


def test_finger_positions_have_the_same_codes() -> None:
    in_contract = {v.number: v.name for v in types_pb2.FingerPosition.DESCRIPTOR.values}
    assert in_contract == {
        int(p): f"FINGER_POSITION_{'UNSPECIFIED' if p is FingerPosition.UNKNOWN else p.name}"
        for p in FingerPosition
    }


def test_eye_positions_have_the_same_codes() -> None:
    in_contract = {v.number: v.name for v in types_pb2.EyePosition.DESCRIPTOR.values}
    assert in_contract == {
        int(p): f"EYE_POSITION_{'UNSPECIFIED' if p is EyePosition.UNKNOWN else p.name}" for p in EyePosition
    }


def test_an_enrolment_of_every_modality_is_read_completely() -> None:
    request = enroll_body("r", 0, replace(body(0), irises=body(0).irises[1:]))
    _, presentation = codec.read_enroll(request)
    positions = [s.position for s in presentation.samples]
    assert [modality_of(p) for p in positions] == [Modality.FINGERPRINT] * 4 + [Modality.IRIS, Modality.FACE]
    assert positions[4:] == [EyePosition.LEFT, None]
    assert presentation.missing_eyes == (MissingEye(EyePosition.RIGHT, MissingReason.NOT_CAPTURED),)
    assert presentation.missing_face is None
    request = enroll_body("r", 0, replace(body(0), face=None))
    assert codec.read_enroll(request)[1].missing_face is MissingReason.NOT_CAPTURED


@pytest.mark.parametrize(
    ("modality", "field"), [("FINGERPRINT", "eye"), ("IRIS", "finger"), ("FACE", "finger"), ("FACE", "eye")]
)
def test_a_position_belongs_to_its_modality(modality: str, field: str) -> None:
    sample = types_pb2.Sample(modality=types_pb2.Modality.Value(f"MODALITY_{modality}"), template=b"t")
    setattr(sample, field, 1)
    with pytest.raises(InvalidRequest) as caught:
        codec.read_identify(identification_pb2.IdentifyRequest(samples=[sample]))
    assert [path for path, _ in caught.value.violations] == [f"samples[0].{field}"]
    # A position of 0 says nothing, whatever the client calls it.
    setattr(sample, field, 0)
    codec.read_identify(identification_pb2.IdentifyRequest(samples=[sample]))


@pytest.mark.parametrize("field", ["operator", "comment", "subject_id", "case_id"])
def test_a_nul_character_is_refused_where_a_text_is_kept(field: str) -> None:
    request = case_pb2.ResolveCaseRequest(
        request_id="r",
        case_id="c-1",
        resolution=case_pb2.RESOLUTION_SAME_PERSON,
        operator="somebody",
        subject_id="s-1",
    )
    codec.read_resolve_case(request)
    setattr(request, field, "a\0b")
    with pytest.raises(InvalidRequest) as caught:
        codec.read_resolve_case(request)
    assert caught.value.violations == ((field, "holds a NUL character"),)


def test_a_nul_character_is_refused_in_subjects_to_leave_out() -> None:
    sample = types_pb2.Sample(modality=types_pb2.MODALITY_FINGERPRINT, template=b"t")
    with pytest.raises(InvalidRequest, match=r"exclude_subject_ids\[1\]: holds a NUL"):
        codec.read_identify(
            identification_pb2.IdentifyRequest(samples=[sample], exclude_subject_ids=["s-1", "s\0"])
        )


def test_an_enrolment_is_read_completely() -> None:
    request = enroll_request("office-1", made_up_nik(0), fingers(0))
    request.birth_date, request.sex = "1990-01-01", enrollment_pb2.SEX_MALE
    request.samples[0].best_effort = True
    claim, presentation = codec.read_enroll(request)
    assert (claim.nik, claim.birth_date, claim.sex) == (made_up_nik(0), date(1990, 1, 1), Sex.MALE)
    assert presentation.request_id == "office-1"
    assert [s.position for s in presentation.samples] == [f.position for f in fingers(0)]
    assert [s.template for s in presentation.samples] == [f.to_bytes() for f in fingers(0)]
    assert [s.best_effort for s in presentation.samples] == [True, False, False, False]
    assert presentation.missing[0] == Missing(FingerPosition.RIGHT_MIDDLE, MissingReason.NOT_CAPTURED)


def test_every_fault_is_told_at_once() -> None:
    request = enrollment_pb2.EnrollRequest(birth_date="yesterday", samples=[types_pb2.Sample(ppi=-1)])
    with pytest.raises(InvalidRequest) as caught:
        codec.read_enroll(request)
    fields = [field for field, _ in caught.value.violations]
    assert sorted(fields) == sorted(
        ["nik", "birth_date", "request_id", "samples[0]", "samples[0].modality", "samples[0].ppi"]
    )


def test_the_digest_stands_for_the_whole_request() -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    _, first = codec.read_enroll(request)
    _, same = codec.read_enroll(enrollment_pb2.EnrollRequest.FromString(request.SerializeToString()))
    assert same.digest == first.digest
    request.samples[0].best_effort = True
    _, other = codec.read_enroll(request)
    assert other.digest != first.digest
    # The same bytes of another method are another request.
    deleted = enrollment_pb2.DeleteSubjectRequest(request_id="r", subject_id="s")
    added = enrollment_pb2.AddEncounterRequest(request_id="r", subject_id="s")
    assert deleted.SerializeToString() == added.SerializeToString()
    assert codec.read_delete_subject(deleted)[2] != codec._digest(added)


READERS = [
    (enrollment_pb2.EnrollRequest, codec.read_enroll),
    (enrollment_pb2.AddEncounterRequest, codec.read_add_encounter),
    (enrollment_pb2.DeleteSubjectRequest, codec.read_delete_subject),
    (identification_pb2.IdentifyRequest, codec.read_identify),
    (identification_pb2.VerifyRequest, codec.read_verify),
    (gallery_pb2.GetSubjectRequest, codec.read_get_subject),
    (gallery_pb2.ListSubjectsRequest, codec.read_page),
    (quality_pb2.AssessRequest, codec.read_assess),
    (case_pb2.ResolveCaseRequest, codec.read_resolve_case),
    (case_pb2.ListCasesRequest, codec.read_case_state),
]


@given(st.sampled_from(READERS), st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_whatever_a_message_holds_is_read_or_refused(reader: tuple, data: bytes) -> None:  # type: ignore[type-arg]
    message, read = reader
    try:
        request = message.FromString(data)
    except DecodeError:
        return
    with suppress(InvalidRequest):
        read(request)


COMPARISON = EncounterComparison(
    5.25,
    Arrangement.HANDS_SWAPPED,
    (FingerShare(FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB, 0.25, 4.5, 1e-4, 30),),
)


SHARES = EncounterComparison(
    7.5,
    Arrangement.AS_DECLARED,
    (),
    irises=(IrisShare(EyePosition.RIGHT, EyePosition.LEFT, 0.75, 4.0, 1e-4, 1500),),
    eyes=EyeArrangement.EYES_SWAPPED,
    face=FaceShare(0.9, 2.5, 1e-3),
    fingers_llr=-3.0,
    irises_llr=8.0,
    face_llr=2.5,
)


def of_every_modality() -> Recorded:
    first = recorded()
    person = Person("s-1", "e-0", made_up_nik(1), False, SHARES)
    return replace(
        first,
        irises=(RecordedIris(EyePosition.LEFT, 70, 1400, True),),
        face=RecordedFace(60, False),
        missing_eyes=(MissingEye(EyePosition.RIGHT, MissingReason.BANDAGED),),
        missing_face=MissingReason.NOT_CAPTURED,
        evidence=replace(first.evidence, candidates=(person,)),
    )


def recorded(llr: float = 5.25) -> Recorded:
    comparison = EncounterComparison(llr, COMPARISON.arrangement, COMPARISON.shares)
    return Recorded(
        encounter_id="e-1",
        subject_id=None,
        nik=made_up_nik(0),
        decision=Decision.REVIEW,
        reasons=(Reason.OTHER_SUBJECT_UNCERTAIN, Reason.HANDS_SWAPPED),
        state=EncounterState.HELD,
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        fingers=(RecordedFinger(FingerPosition.RIGHT_THUMB, 80, 40, True),),
        missing=(Missing(FingerPosition.LEFT_RING, MissingReason.AMPUTATED),),
        evidence=Evidence(
            candidates=(Person(None, "e-0", made_up_nik(1), True, comparison),),
            match_llr=6.0,
            review_llr=4.0,
            verify_llr=3.0,
            gallery_encounters=7,
            nik_known=False,
            nik_warnings=(NikWarning(NikWarningKind.SEX_DIFFERS, "odd"),),
        ),
        case_id="c-1",
    )


@given(st.floats(-1e6, 1e6))
def test_a_stored_answer_says_what_the_first_said(llr: float) -> None:
    first = recorded(llr)
    again = _RECORDED.validate_json(_RECORDED.dump_json(first))
    assert again == first
    assert codec.write_encounter(again) == codec.write_encounter(first)


def test_a_stored_answer_keeps_eyes_and_face() -> None:
    first = of_every_modality()
    again = _RECORDED.validate_json(_RECORDED.dump_json(first))
    assert again == first
    assert type(again.irises[0].position) is EyePosition
    e = codec.write_encounter(again)
    assert e == codec.write_encounter(first)
    [iris] = e.irises
    assert (iris.position, iris.quality, iris.bits, iris.image_kept) == (2, 70, 1400, True)
    assert (e.face.quality, e.face.image_kept) == (60, False)
    [eye] = e.missing_eyes
    assert (eye.position, eye.reason) == (1, types_pb2.MISSING_REASON_BANDAGED)
    assert e.missing_face == types_pb2.MISSING_REASON_NOT_CAPTURED
    [candidate] = e.evidence.candidates
    [share] = candidate.irises
    assert (share.probe, share.reference, share.bits) == (1, 2, 1500)
    assert (share.score, share.llr, share.fmr) == (0.75, 4.0, 1e-4)
    assert candidate.eyes == types_pb2.EYE_ARRANGEMENT_EYES_SWAPPED
    assert (candidate.face.score, candidate.face.llr, candidate.face.fmr) == (0.9, 2.5, 1e-3)
    assert (candidate.fingers_llr, candidate.irises_llr, candidate.face_llr) == (-3, 8, 2.5)
    assert list(candidate.conflict) == [types_pb2.MODALITY_FINGERPRINT]


# As the first release, which knew fingers only, wrote it into the database.
OF_THE_FIRST_RELEASE = b"""{"encounter_id":"e-1","subject_id":null,"nik":"3201010101900001",
"decision":"review","reasons":["other_subject_uncertain","hands_swapped"],"state":"held",
"created_at":"2026-01-02T03:04:05.678901Z","fingers":[{"position":1,"quality":80,"minutiae":40,
"image_kept":true}],"missing":[{"position":9,"reason":"amputated"}],"evidence":{"candidates":[
{"subject_id":null,"encounter_id":"e-0","nik":"3201010101900002","held":true,"comparison":{"llr":5.25,
"arrangement":"hands_swapped","shares":[{"probe":1,"reference":6,"score":0.25,"llr":4.5,"fmr":0.0001,
"cylinders":30}]}}],"match_llr":6.0,"review_llr":4.0,"verify_llr":3.0,"gallery_encounters":7,
"nik_known":false,"nik_warnings":[{"kind":"sex_differs","text":"odd"}]},"case_id":"c-1"}"""


def test_an_answer_of_the_first_release_is_still_understood() -> None:
    old = _RECORDED.validate_json(OF_THE_FIRST_RELEASE)
    assert old == recorded()
    assert old.evidence.candidates[0].comparison.fingers_llr == 5.25
    e = codec.write_encounter(old)
    assert (list(e.irises), e.HasField("face"), e.missing_face) == ([], False, 0)
    [candidate] = e.evidence.candidates
    assert candidate.eyes == types_pb2.EYE_ARRANGEMENT_UNSPECIFIED
    assert EVIDENCE.validate_json(EVIDENCE.dump_json(old.evidence)) == old.evidence


def test_an_encounter_is_written_completely() -> None:
    e = codec.write_encounter(recorded())
    assert e.create_time.ToDatetime(UTC) == datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    assert (e.subject_id, e.case_id, e.state) == ("", "c-1", types_pb2.ENCOUNTER_STATE_HELD)
    assert list(e.reasons) == [types_pb2.REASON_OTHER_SUBJECT_UNCERTAIN, types_pb2.REASON_HANDS_SWAPPED]
    [candidate] = e.evidence.candidates
    assert (candidate.held, candidate.subject_id, candidate.encounter_id) == (True, "", "e-0")
    [share] = candidate.fingers
    assert (int(share.probe), int(share.reference)) == (1, 6)
    assert (share.score, share.llr, share.fmr) == (0.25, 4.5, 1e-4)
    assert [(w.code, w.text) for w in e.evidence.nik_warnings] == [("sex_differs", "odd")]
    [finger] = e.fingers
    assert (finger.quality, finger.minutiae, finger.image_kept) == (80, 40, True)
    assert e.missing[0].reason == types_pb2.MISSING_REASON_AMPUTATED


def test_quality_is_written_with_advice() -> None:
    q = codec.write_quality(Quality(30, True, (Feedback.TOO_DARK,), {"contrast": 0.5}))
    assert (q.score, q.usable) == (30, True)
    assert [(f.code, f.advice) for f in q.feedback] == [("too_dark", Feedback.TOO_DARK.advice)]
    assert [(m.name, m.value) for m in q.measures] == [("contrast", 0.5)]
