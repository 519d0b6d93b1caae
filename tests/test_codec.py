"""The codec: every fault of a request at once, and every domain value its word in the contract."""

from contextlib import suppress
from datetime import UTC, date, datetime
from enum import Enum

import pytest
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.encounters import enroll_request, made_up_nik
from capture.quality import Feedback, Quality
from capture.sample import FingerPosition
from matching.decision import Decision, Reason
from matching.encounter import Arrangement, EncounterComparison, FingerShare
from rekam import codec
from rekam.errors import InvalidRequest
from rekam.exchange import Evidence, Match, Missing, MissingReason, Person, Recorded, RecordedFinger
from rekam.nik import NikWarning, NikWarningKind, Sex
from rekam.store import CaseState, EncounterState, Resolution
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, quality_pb2, types_pb2
from rekam.workflow import _RECORDED
from tests.service import fingers

ENUMS = [
    (Decision, types_pb2.Decision.DESCRIPTOR),
    (Reason, types_pb2.Reason.DESCRIPTOR),
    (Arrangement, types_pb2.Arrangement.DESCRIPTOR),
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
