"""The whole service over gRPC: decisions, retries, cases, erasure, searching, restarts, limits."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from benchmarks.encounters import absent, add_request, again, enroll_request, made_up_nik, missing, samples
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.calibration import fingerprint_calibration
from matching.gallery import Gallery
from rekam.client import Client
from rekam.config import load_settings
from rekam.errors import InvalidSettings, RekamError, StoreLocked
from rekam.server import SERVICES, Server
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from rekam.workflow import Workflow
from tests.prints import at, cut
from tests.service import FOUR, Service, fingers, recorded, refused, running

UNIQUE, RETURNING, DUPLICATE, COLLISION, REVIEW = (
    types_pb2.Decision.Value(f"DECISION_{name}")
    for name in ("UNIQUE", "RETURNING", "DUPLICATE", "COLLISION", "REVIEW")
)
HELD, ENROLLED, REJECTED = (
    types_pb2.EncounterState.Value(f"ENCOUNTER_STATE_{name}") for name in ("HELD", "ENROLLED", "REJECTED")
)
Code = grpc.StatusCode


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "data") as started:
        yield started


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Thirty people, more than a shortlist; tests only ask."""
    with running(tmp_path_factory.mktemp("populated") / "data") as started:
        for number in range(30):
            assert started.enroll(number, fingers(number)).decision == UNIQUE
        yield started


# The decision table -----------------------------------------------------------------------------------


def test_a_new_person_is_unique_and_enrolled(service: Service) -> None:
    before = datetime.now(UTC)
    e = service.enroll(0, fingers(0))
    assert (e.decision, e.state, e.nik, e.case_id) == (UNIQUE, ENROLLED, made_up_nik(0), "")
    assert e.reasons == [types_pb2.REASON_NOBODY_MATCHES]
    assert before <= e.create_time.ToDatetime(UTC) <= datetime.now(UTC)
    assert [int(f.position) for f in e.fingers] == list(FOUR)
    assert [f.minutiae for f in e.fingers] == [len(f) for f in fingers(0)]
    assert len(e.missing) == 6
    assert not any(f.image_kept for f in e.fingers)
    subject = service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=e.nik)).subject
    assert (subject.subject_id, list(subject.encounter_ids)) == (e.subject_id, [e.encounter_id])


def test_the_same_person_under_the_same_nik_is_returning(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    second = service.enroll(0, again(fingers(0), 1), "second")
    assert (second.decision, second.state) == (RETURNING, ENROLLED)
    assert second.reasons == [types_pb2.REASON_OWN_SUBJECT_MATCHES]
    assert second.subject_id == first.subject_id
    assert second.encounter_id != first.encounter_id
    [own] = second.evidence.candidates
    assert own.llr > second.evidence.verify_llr
    assert own.arrangement == types_pb2.ARRANGEMENT_AS_DECLARED
    assert [(int(s.probe), int(s.reference)) for s in own.fingers] == [(f, f) for f in FOUR]


def test_the_same_person_under_another_nik_is_a_duplicate_with_evidence(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    service.enroll(1, fingers(1))
    second = service.enroll(2, again(fingers(0), 1))
    assert (second.decision, second.state, second.subject_id) == (DUPLICATE, HELD, "")
    assert second.reasons == [types_pb2.REASON_OTHER_SUBJECT_MATCHES]
    assert second.case_id
    best = second.evidence.candidates[0]
    assert (best.subject_id, best.encounter_id, best.nik, best.held) == (
        first.subject_id,
        first.encounter_id,
        made_up_nik(0),
        False,
    )
    assert best.llr > second.evidence.match_llr > second.evidence.review_llr
    assert best.fingers_llr == best.llr
    assert all(0 <= f.score <= 1 and 0 < f.fmr <= 1 for f in best.fingers)
    assert second.evidence.gallery_encounters == 2
    request = gallery_pb2.GetSubjectRequest(nik=made_up_nik(2))
    refused(service.client.gallery.GetSubject, request, Code.NOT_FOUND)


def test_a_known_nik_with_somebody_else_is_a_collision(service: Service) -> None:
    service.enroll(0, fingers(0))
    other = service.enroll(1, fingers(1))
    impostor = service.enroll(0, again(fingers(1), 1), "impostor")
    assert (impostor.decision, impostor.state) == (COLLISION, HELD)
    assert impostor.reasons == [types_pb2.REASON_OTHER_SUBJECT_MATCHES]
    assert impostor.evidence.candidates[0].subject_id == other.subject_id


def test_a_known_nik_with_a_stranger_is_a_collision(service: Service) -> None:
    own = service.enroll(0, fingers(0))
    stranger = service.enroll(0, fingers(5), "stranger")
    assert (stranger.decision, stranger.state) == (COLLISION, HELD)
    assert stranger.reasons == [types_pb2.REASON_OWN_SUBJECT_DIFFERS]
    assert own.subject_id in [c.subject_id for c in stranger.evidence.candidates]  # always shown


def test_a_known_nik_without_a_common_finger_is_reviewed(service: Service) -> None:
    service.enroll(0, fingers(0)[:2])
    other_fingers = service.enroll(0, fingers(0)[2:], "other-fingers")
    assert (other_fingers.decision, other_fingers.state) == (REVIEW, HELD)
    assert types_pb2.REASON_TOO_LITTLE_EVIDENCE in other_fingers.reasons


def test_one_finger_is_too_little_among_many(tmp_path: Path) -> None:
    # The thresholds of a gallery of 10,000, which one finger cannot reach however alike.
    with running(tmp_path, fpir_match=1e-6, fpir_review=1e-4) as service:
        service.enroll(0, fingers(0))
        again_alone = service.enroll(1, fingers(0)[:1])
        assert (again_alone.decision, again_alone.state) == (REVIEW, HELD)
        assert types_pb2.REASON_TOO_LITTLE_EVIDENCE in again_alone.reasons


def test_fingers_of_two_people_mixed_are_reviewed(service: Service) -> None:
    own = service.enroll(0, fingers(0))
    mixed = (*again(fingers(0)[:2], 1), *fingers(5)[2:])
    under_own = service.enroll(0, mixed, "under-own-nik")
    assert (under_own.decision, under_own.state) == (REVIEW, HELD)
    assert types_pb2.REASON_FINGERS_DISAGREE in under_own.reasons
    under_new = service.enroll(1, (*again(fingers(0)[:1], 2), *fingers(6)[1:]), "under-new-nik")
    assert (under_new.decision, list(under_new.reasons)) == (REVIEW, [types_pb2.REASON_FINGERS_DISAGREE])
    assert own.subject_id in [c.subject_id for c in under_new.evidence.candidates]
    # One of somebody else's among several: a duplicate nevertheless, and told.
    one = (*again(fingers(0)[:3], 3), *fingers(5)[3:])
    mostly = service.enroll(4, one)
    assert mostly.decision == DUPLICATE
    assert types_pb2.REASON_FINGERS_DISAGREE in mostly.reasons


def test_prints_that_are_not_the_owners_never_join_a_subject(service: Service) -> None:
    own = service.enroll(0, fingers(0))
    collision = service.enroll(0, fingers(5), "stranger")
    assert collision.decision == COLLISION
    cases = service.client.cases
    for word, subject in (("DIFFERENT_PEOPLE", ""), ("SAME_PERSON", own.subject_id)):
        request = case_pb2.ResolveCaseRequest(
            request_id=f"resolve-{word}",
            case_id=collision.case_id,
            resolution=case_pb2.Resolution.Value(f"RESOLUTION_{word}"),
            operator="ani",
            subject_id=subject,
        )
        refused(cases.ResolveCase, request, Code.FAILED_PRECONDITION)
    still = cases.GetCase(case_pb2.GetCaseRequest(case_id=collision.case_id), timeout=60)
    assert still.case.state == case_pb2.CASE_STATE_OPEN


def test_all_fingers_under_other_positions_are_noticed(service: Service) -> None:
    service.enroll(0, fingers(0))
    turned = tuple(at(f, FOUR[(i + 1) % 4]) for i, f in enumerate(again(fingers(0), 1)))
    moved = service.enroll(1, turned)
    assert moved.decision == DUPLICATE
    assert types_pb2.REASON_POSITIONS_DIFFER in moved.reasons


def test_templates_without_detail_are_no_fingers(service: Service) -> None:
    request = enroll_request("empty", made_up_nik(0), (fingers(0)[0], cut(fingers(0)[1], 0)))
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"samples[1]"}
    request = enroll_request("poor", made_up_nik(0), (fingers(0)[0], cut(fingers(0)[1], 5)))
    response = service.client.enrollment.Enroll(request, timeout=60)
    assert [FingerPosition(item.position) for item in response.recapture.items] == [fingers(0)[1].position]
    request.samples[1].best_effort = True
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == UNIQUE


def test_more_unknown_fingers_than_are_left_are_refused(service: Service) -> None:
    request = enroll_request(
        "spare", made_up_nik(0), (fingers(0)[0], at(fingers(0)[1], FingerPosition.UNKNOWN))
    )
    # right index is declared missing along with eight others, yet an unknown finger is presented
    refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)


def test_every_faulty_sample_is_named(service: Service) -> None:
    request = enroll_request("two-faults", made_up_nik(0), fingers(0))
    request.samples[0].template = b"no template"
    request.samples[2].image = b"no image"
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert set(refusal.fields) == {"samples[0]", "samples[2]"}


def test_a_template_of_another_maker_is_refused(service: Service) -> None:
    foreign = tuple(replace(finger, extractor=Extractor.FOREIGN) for finger in fingers(0))
    request = enroll_request("foreign", made_up_nik(0), foreign)
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert set(refusal.fields) == {f"samples[{i}]" for i in range(4)}
    assert all("FOREIGN" in text for text in refusal.fields.values())


def test_a_person_enrolled_fast_is_found_accurately(service: Service, development_data: Path) -> None:
    def images(
        impression: int, people: tuple[str, ...], extractor: types_pb2.Extractor.ValueType
    ) -> list[types_pb2.Sample]:
        folder = development_data / "fingerprint" / "crossmatch"
        return [
            types_pb2.Sample(
                modality=types_pb2.MODALITY_FINGERPRINT,
                finger=types_pb2.FingerPosition.ValueType(position),
                image=(folder / f"{finger}_{impression}.png").read_bytes(),
                ppi=500,
                extractor=extractor,
            )
            for position, finger in zip(FOUR, people, strict=False)
        ]

    fast, accurate = types_pb2.EXTRACTOR_FAST, types_pb2.EXTRACTOR_ACCURATE
    person, other = ("01203", "01204"), ("01704", "01705")
    absent_fingers = missing(p for p in FingerPosition if p and p not in FOUR[:2])

    def enrolled(number: int, shown: list[types_pb2.Sample], request_id: str) -> types_pb2.Encounter:
        request = enroll_request(request_id, made_up_nik(number), ())
        del request.samples[:], request.missing[:]
        request.samples.extend(shown)
        request.missing.extend(absent_fingers)
        return recorded(service.client.enrollment.Enroll(request, timeout=60))

    first = enrolled(0, images(1, person, fast), "fast")
    assert first.decision == UNIQUE
    assert enrolled(1, images(1, other, accurate), "other").decision == UNIQUE
    for extractor in (accurate, fast):
        found = service.client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=images(2, person, extractor)), timeout=60
        )
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].subject_id == first.subject_id
    assert enrolled(2, images(3, person, accurate), "second-nik").decision == DUPLICATE
    assert enrolled(0, images(3, person, accurate), "again").decision == RETURNING


def test_a_match_between_the_thresholds_is_held_for_review(tmp_path: Path) -> None:
    # One finger is worth what the calibration sample supports and no more: here less than a match.
    with running(tmp_path / "data", fpir_match=1e-6) as service:
        first = service.enroll(0, fingers(0))
        one = service.enroll(1, again(fingers(0), 1)[:1])
    assert (one.decision, one.state) == (REVIEW, HELD)
    assert one.reasons == [types_pb2.REASON_OTHER_SUBJECT_UNCERTAIN]
    best = one.evidence.candidates[0]
    assert best.subject_id == first.subject_id
    assert one.evidence.review_llr <= best.llr < one.evidence.match_llr


def test_too_little_evidence_is_never_unique(service: Service) -> None:
    e = service.enroll(0, (cut(fingers(0)[0], 8),))
    assert (e.decision, list(e.reasons)) == (REVIEW, [types_pb2.REASON_TOO_LITTLE_EVIDENCE])


def test_a_held_encounter_is_met_by_the_next_attempt(service: Service) -> None:
    service.enroll(0, fingers(0))
    stranger = service.enroll(0, fingers(5), "stranger")  # held: not the owner of this NIK
    assert stranger.decision == COLLISION
    next_try = service.enroll(1, again(fingers(5), 1))
    assert (next_try.decision, next_try.state) == (DUPLICATE, HELD)
    assert next_try.reasons == [types_pb2.REASON_HELD_ENCOUNTER_MATCHES]
    best = next_try.evidence.candidates[0]
    assert (best.held, best.subject_id, best.encounter_id) == (True, "", stranger.encounter_id)
    found = service.identify(again(fingers(5), 2))
    assert {c.encounter_id for c in found.candidates[:2]} == {stranger.encounter_id, next_try.encounter_id}


def test_the_owner_of_a_known_nik_is_told_of_a_held_encounter_and_not_accused(service: Service) -> None:
    own = service.enroll(0, fingers(0))
    thief = service.enroll(1, again(fingers(0), 1))
    assert thief.decision == DUPLICATE
    back = service.add(own.subject_id, again(fingers(0), 2), "back")
    assert back.decision == RETURNING
    assert types_pb2.REASON_HELD_ENCOUNTER_MATCHES in back.reasons


def test_add_encounter_verifies_and_searches(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    other = service.enroll(1, fingers(1))
    good = service.add(first.subject_id, again(fingers(0), 1), "good")
    assert (good.decision, good.subject_id, good.nik) == (RETURNING, first.subject_id, first.nik)
    swap = service.add(first.subject_id, again(fingers(1), 1), "swap")  # somebody else's fingers
    assert (swap.decision, swap.state) == (COLLISION, HELD)
    assert swap.evidence.candidates[0].subject_id == other.subject_id
    stranger = service.add(first.subject_id, fingers(7), "stranger")
    assert (stranger.decision, list(stranger.reasons)) == (COLLISION, [types_pb2.REASON_OWN_SUBJECT_DIFFERS])
    subject = service.client.gallery.GetSubject(
        gallery_pb2.GetSubjectRequest(subject_id=first.subject_id)
    ).subject
    assert list(subject.encounter_ids) == [first.encounter_id, good.encounter_id]


def test_add_encounter_to_nobody_is_not_found(service: Service) -> None:
    request = add_request("r", "s-nobody", fingers(0))
    refusal = refused(service.client.enrollment.AddEncounter, request, Code.NOT_FOUND)
    assert refusal.reason == "NOT_FOUND"
    assert service.stats().encounters_enrolled == 0


# Within the encounter ---------------------------------------------------------------------------------


def test_swapped_hands_are_caught_and_noticed(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    swapped = [replace(f, position=f.position.other_hand) for f in again(fingers(0), 1)]
    e = service.enroll(1, swapped)
    assert e.decision == DUPLICATE
    assert types_pb2.REASON_HANDS_SWAPPED in e.reasons
    best = e.evidence.candidates[0]
    assert (best.subject_id, best.arrangement) == (first.subject_id, types_pb2.ARRANGEMENT_HANDS_SWAPPED)
    assert all(int(s.reference) == FingerPosition(s.probe).other_hand for s in best.fingers)


def test_fingers_of_unknown_position_are_found(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    for number in range(1, 4):
        service.enroll(number, fingers(number))
    unknown = [replace(f, position=FingerPosition.UNKNOWN) for f in again(fingers(0), 1)]
    request = enroll_request("unknown", made_up_nik(9), unknown)
    del request.missing[:]
    request.missing.extend(missing(set(FingerPosition) - {FingerPosition.UNKNOWN, *FOUR}))
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert (e.decision, e.evidence.candidates[0].subject_id) == (DUPLICATE, first.subject_id)
    assert types_pb2.REASON_POSITIONS_DIFFER in e.reasons
    found = service.identify(unknown)
    assert found.match == identification_pb2.MATCH_YES
    [mate] = [c for c in found.candidates if c.subject_id == first.subject_id]
    assert mate.arrangement == types_pb2.ARRANGEMENT_REARRANGED
    assert mate.llr > found.match_llr


def test_a_finger_given_twice_is_sent_back(service: Service) -> None:
    thumb, index, *rest = fingers(0)
    twice = (thumb, replace(again((thumb,), 1)[0], position=index.position), *rest)
    request = enroll_request("twice", made_up_nik(0), twice)
    response = service.client.enrollment.Enroll(request, timeout=60)
    [item] = response.recapture.items
    assert {int(item.position), int(item.same_finger_as)} == {thumb.position, index.position}
    assert "right thumb" in item.advice
    assert "right index" in item.advice
    assert service.stats().encounters_enrolled == service.stats().encounters_held == 0
    # Nothing was recorded: the same request id serves the new capture.
    assert service.enroll(0, fingers(0), "twice").decision == UNIQUE


def test_a_finger_neither_presented_nor_declared_missing_is_named(service: Service) -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    del request.missing[:]
    request.missing.extend(missing([FingerPosition.LEFT_LITTLE, FingerPosition.LEFT_RING]))
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert refusal.reason == "INVALID_REQUEST"
    for absent_one in ("right middle", "right ring", "right little", "left middle"):
        assert absent_one in refusal.fields["samples"]
    assert "left ring" not in refusal.fields["samples"]


def test_a_finger_presented_and_declared_missing_is_refused(service: Service) -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    request.missing.extend(missing([FingerPosition.RIGHT_THUMB]))
    refusal = refused(service.client.enrollment.Enroll, request, Code.INVALID_ARGUMENT)
    assert "right thumb" in refusal.fields["missing"]


def test_positions_carried_by_templates_count_like_declared_ones(service: Service) -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    for sample in request.samples:
        sample.finger = types_pb2.FINGER_POSITION_UNSPECIFIED
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert [int(f.position) for f in e.fingers] == list(FOUR)
    doubled = enroll_request("doubled", made_up_nik(1), fingers(1))
    doubled.samples[1].CopyFrom(
        samples(fingers(2)[:1])[0]
    )  # a second right thumb, its position in the template
    doubled.samples[1].finger = types_pb2.FINGER_POSITION_UNSPECIFIED
    refusal = refused(service.client.enrollment.Enroll, doubled, Code.INVALID_ARGUMENT)
    assert "right thumb" in refusal.text


# Request ids ------------------------------------------------------------------------------------------


def test_a_repeated_request_gets_the_identical_answer(service: Service) -> None:
    service.enroll(1, fingers(1))
    request = enroll_request("once", made_up_nik(0), again(fingers(1), 1))
    first = service.client.enrollment.Enroll(request, timeout=60)
    service.enroll(2, fingers(2))  # the world goes on
    second = service.client.enrollment.Enroll(request, timeout=60)
    assert second.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
    assert service.stats().encounters_held == 1


def test_an_answer_survives_a_restart(tmp_path: Path) -> None:
    request = enroll_request("once", made_up_nik(0), fingers(0))
    with running(tmp_path / "data") as service:
        first = service.client.enrollment.Enroll(request, timeout=60)
    with running(tmp_path / "data") as service:
        assert service.client.enrollment.Enroll(request, timeout=60) == first
        assert service.stats().encounters_enrolled == 1


def test_a_later_calibration_does_not_change_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = enroll_request("once", made_up_nik(1), again(fingers(0), 1))
    with running(tmp_path / "data") as service:
        service.enroll(0, fingers(0))
        first = service.client.enrollment.Enroll(request, timeout=60)
    now = fingerprint_calibration()
    later = replace(now, fmrs=tuple(min(1.0, 2 * f) for f in now.fmrs), llrs=tuple(v - 1 for v in now.llrs))
    monkeypatch.setattr("matching.fingerprint.hands.fingerprint_calibration", lambda *_: later)
    with running(tmp_path / "data") as service:
        assert service.client.enrollment.Enroll(request, timeout=60) == first
        seen = service.client.enrollment.GetEncounter(
            enrollment_pb2.GetEncounterRequest(encounter_id=first.encounter.encounter_id)
        )
        assert seen.encounter == first.encounter


def test_the_same_id_for_something_else_is_refused(service: Service) -> None:
    e = service.enroll(0, fingers(0), "once")
    for call, request in (
        (service.client.enrollment.Enroll, enroll_request("once", made_up_nik(1), fingers(0))),
        (service.client.enrollment.Enroll, enroll_request("once", made_up_nik(0), fingers(1))),
        (service.client.enrollment.AddEncounter, add_request("once", e.subject_id, fingers(0))),
        (
            service.client.enrollment.DeleteSubject,
            enrollment_pb2.DeleteSubjectRequest(request_id="once", subject_id=e.subject_id),
        ),
    ):
        assert refused(call, request, Code.ALREADY_EXISTS).reason == "REQUEST_CONFLICT"
    assert service.stats().encounters_enrolled == 1


def test_a_retry_while_the_first_is_running_waits_for_its_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, go_on = threading.Event(), threading.Event()
    search = service.workflow._index.gallery.search
    searches = []

    def slow(*arguments: object, **options: object) -> object:
        searches.append(1)
        searching.set()
        assert go_on.wait(30)
        return search(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Gallery, "search", lambda self, *a, **o: slow(*a, **o))
    request = enroll_request("once", made_up_nik(0), fingers(0))
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(service.client.enrollment.Enroll, request, timeout=60)]
        assert searching.wait(30)
        calls += [threads.submit(service.client.enrollment.Enroll, request, timeout=60) for _ in range(3)]
        other = enroll_request("once", made_up_nik(1), fingers(0))
        refused(service.client.enrollment.Enroll, other, Code.ALREADY_EXISTS)
        go_on.set()
        answers = {call.result().SerializeToString(deterministic=True) for call in calls}
    assert len(answers) == 1
    assert len(searches) == 1
    assert service.stats().encounters_enrolled == 1


def test_a_retry_takes_over_from_a_first_try_that_failed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, fail = threading.Event(), threading.Event()
    search = Gallery.search
    tries = []

    def first_fails(gallery: Gallery, *arguments: object, **options: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            searching.set()
            assert fail.wait(30)
            raise RekamError("this try fails")
        return search(gallery, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Gallery, "search", first_fails)
    request = enroll_request("once", made_up_nik(0), fingers(0))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(service.client.enrollment.Enroll, request, timeout=60)
        assert searching.wait(30)
        second = threads.submit(service.client.enrollment.Enroll, request, timeout=60)
        time.sleep(0.1)  # it waits behind the first
        fail.set()
        assert first.exception() is not None
        assert recorded(second.result()).decision == UNIQUE


# Cases ------------------------------------------------------------------------------------------------


def resolve(
    case_id: str, resolution: str, request_id: str = "resolve", subject_id: str = ""
) -> case_pb2.ResolveCaseRequest:
    return case_pb2.ResolveCaseRequest(
        request_id=request_id,
        case_id=case_id,
        resolution=case_pb2.Resolution.Value(f"RESOLUTION_{resolution}"),
        operator="Siti",
        comment="looked at both",
        subject_id=subject_id,
    )


@pytest.fixture
def duplicate(service: Service) -> tuple[types_pb2.Encounter, types_pb2.Encounter]:
    """Somebody enrolled, and the same person held under another NIK."""
    first, second = service.enroll(0, fingers(0)), service.enroll(1, again(fingers(0), 1))
    assert second.decision == DUPLICATE
    return first, second


def test_a_case_is_listed_and_shown_with_evidence_and_samples(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    first, held = duplicate
    [case] = service.client.cases.ListCases(case_pb2.ListCasesRequest(state=case_pb2.CASE_STATE_OPEN)).cases
    assert (case.case_id, case.encounter_id, case.nik) == (held.case_id, held.encounter_id, held.nik)
    assert (case.decision, case.state, case.resolution) == (DUPLICATE, case_pb2.CASE_STATE_OPEN, 0)
    assert case.open_time == held.create_time
    assert not case.HasField("resolve_time")
    shown = service.client.cases.GetCase(case_pb2.GetCaseRequest(case_id=case.case_id))
    assert shown.case == case
    assert shown.encounter == held
    assert not shown.samples
    with_samples = service.client.cases.GetCase(
        case_pb2.GetCaseRequest(case_id=case.case_id, include_samples=True)
    )
    ids = [s.encounter_id for s in with_samples.samples]
    assert ids == [held.encounter_id] * 4 + [first.encounter_id] * 4
    assert [int(s.position) for s in with_samples.samples] == [*FOUR, *FOUR]
    assert [s.template for s in with_samples.samples][4:] == [f.to_bytes() for f in fingers(0)]


def test_different_people_enrols_the_held_encounter_under_its_nik(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    first, held = duplicate
    case = service.client.cases.ResolveCase(resolve(held.case_id, "DIFFERENT_PEOPLE")).case
    assert (case.state, case.operator, case.comment) == (
        case_pb2.CASE_STATE_RESOLVED,
        "Siti",
        "looked at both",
    )
    assert case.HasField("resolve_time")
    subject = service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=held.nik)).subject
    assert (case.subject_id, list(subject.encounter_ids)) == (subject.subject_id, [held.encounter_id])
    assert subject.subject_id != first.subject_id
    now = service.client.enrollment.GetEncounter(
        enrollment_pb2.GetEncounterRequest(encounter_id=held.encounter_id)
    ).encounter
    assert (now.state, now.subject_id, now.decision) == (ENROLLED, subject.subject_id, DUPLICATE)
    stats = service.stats()
    assert (stats.subjects, stats.encounters_held, stats.cases_open) == (2, 0, 0)
    found = service.identify(again(fingers(0), 2))
    assert {c.subject_id for c in found.candidates} == {first.subject_id, subject.subject_id}
    assert not any(c.held for c in found.candidates)


def test_same_person_joins_the_matched_subject_and_creates_no_nik(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    first, held = duplicate
    case = service.client.cases.ResolveCase(resolve(held.case_id, "SAME_PERSON")).case
    assert case.subject_id == first.subject_id
    subject = service.client.gallery.GetSubject(
        gallery_pb2.GetSubjectRequest(subject_id=first.subject_id)
    ).subject
    assert list(subject.encounter_ids) == [first.encounter_id, held.encounter_id]
    refused(service.client.gallery.GetSubject, gallery_pb2.GetSubjectRequest(nik=held.nik), Code.NOT_FOUND)
    [candidate] = service.identify(again(fingers(0), 2)).candidates
    assert (candidate.subject_id, candidate.nik) == (first.subject_id, first.nik)
    assert service.stats().subjects == 1


def test_same_person_may_name_the_subject(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    first, held = duplicate
    other = service.enroll(5, fingers(5))
    wrong = resolve(held.case_id, "SAME_PERSON", "wrong", subject_id=other.subject_id)
    refused(service.client.cases.ResolveCase, wrong, Code.FAILED_PRECONDITION)
    case = service.client.cases.ResolveCase(
        resolve(held.case_id, "SAME_PERSON", subject_id=first.subject_id)
    ).case
    assert case.subject_id == first.subject_id
    again_held = service.enroll(6, again(fingers(5), 1))
    missing_subject = resolve(again_held.case_id, "SAME_PERSON", "other", subject_id="s-nobody")
    refused(service.client.cases.ResolveCase, missing_subject, Code.NOT_FOUND)


def test_rejected_erases_the_biometrics_and_keeps_the_fact(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    first, held = duplicate
    case = service.client.cases.ResolveCase(resolve(held.case_id, "REJECTED")).case
    assert case.subject_id == ""
    shown = service.client.cases.GetCase(case_pb2.GetCaseRequest(case_id=held.case_id, include_samples=True))
    assert shown.encounter.state == REJECTED
    assert not shown.encounter.fingers
    assert held.encounter_id not in [s.encounter_id for s in shown.samples]
    found = service.identify(again(fingers(0), 2))
    assert [c.encounter_id for c in found.candidates] == [first.encounter_id]
    stats = service.stats()
    assert (stats.encounters_rejected, stats.encounters_held, stats.fingers) == (1, 0, 4)


def test_a_case_is_resolved_once(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    _, held = duplicate
    request = resolve(held.case_id, "REJECTED")
    first = service.client.cases.ResolveCase(request)
    assert service.client.cases.ResolveCase(request) == first  # the retry
    again_other_id = resolve(held.case_id, "SAME_PERSON", "another")
    refusal = refused(service.client.cases.ResolveCase, again_other_id, Code.FAILED_PRECONDITION)
    assert refusal.reason == "WRONG_STATE"
    refused(service.client.cases.ResolveCase, resolve("c-none", "REJECTED", "third"), Code.NOT_FOUND)


def test_different_people_is_refused_where_the_nik_was_taken_meanwhile(
    service: Service, duplicate: tuple[types_pb2.Encounter, types_pb2.Encounter]
) -> None:
    _, held = duplicate
    stranger = service.enroll(1, fingers(8), "stranger")  # the claimed NIK is free still
    assert stranger.decision == UNIQUE
    refusal = refused(
        service.client.cases.ResolveCase, resolve(held.case_id, "DIFFERENT_PEOPLE"), Code.FAILED_PRECONDITION
    )
    assert "NIK" in refusal.text


def test_same_person_needs_an_enrolled_candidate(service: Service) -> None:
    service.enroll(0, fingers(0))
    held = service.enroll(0, fingers(5), "stranger")
    next_try = service.enroll(1, again(fingers(5), 1))
    # The best candidate is held and belongs to nobody: an innocent subject further down must not get it.
    assert next_try.evidence.candidates[0].encounter_id == held.encounter_id
    refusal = refused(
        service.client.cases.ResolveCase, resolve(next_try.case_id, "SAME_PERSON"), Code.FAILED_PRECONDITION
    )
    assert "name the subject" in refusal.text
    assert service.stats().encounters_held == 2


def test_cases_are_paged_oldest_first(service: Service) -> None:
    service.enroll(0, fingers(0))
    held = [service.enroll(n, again(fingers(0), n)).case_id for n in range(1, 6)]
    pages, token = [], ""
    while True:
        page = service.client.cases.ListCases(case_pb2.ListCasesRequest(page_size=2, page_token=token))
        pages.append([c.case_id for c in page.cases])
        token = page.next_page_token
        if not token:
            break
    assert pages == [held[:2], held[2:4], held[4:]]
    service.client.cases.ResolveCase(resolve(held[0], "REJECTED"))
    states = {
        state: [
            c.case_id for c in service.client.cases.ListCases(case_pb2.ListCasesRequest(state=state)).cases
        ]
        for state in (case_pb2.CASE_STATE_UNSPECIFIED, case_pb2.CASE_STATE_OPEN, case_pb2.CASE_STATE_RESOLVED)
    }
    assert list(states.values()) == [held, held[1:], held[:1]]


# Erasure ----------------------------------------------------------------------------------------------


def test_delete_erases_a_subject_and_frees_its_nik(service: Service) -> None:
    first = service.enroll(0, fingers(0))
    service.add(first.subject_id, again(fingers(0), 1), "second")
    keep = service.enroll(1, fingers(1))
    request = enrollment_pb2.DeleteSubjectRequest(request_id="delete", subject_id=first.subject_id)
    answer = service.client.enrollment.DeleteSubject(request)
    assert answer.encounters_erased == 2
    assert service.client.enrollment.DeleteSubject(request) == answer  # the retry
    other = enrollment_pb2.DeleteSubjectRequest(request_id="other", subject_id=first.subject_id)
    refused(service.client.enrollment.DeleteSubject, other, Code.NOT_FOUND)
    for call, request_gone in (
        (service.client.gallery.GetSubject, gallery_pb2.GetSubjectRequest(nik=first.nik)),
        (service.client.gallery.GetSubject, gallery_pb2.GetSubjectRequest(subject_id=first.subject_id)),
        (
            service.client.enrollment.GetEncounter,
            enrollment_pb2.GetEncounterRequest(encounter_id=first.encounter_id),
        ),
    ):
        refused(call, request_gone, Code.NOT_FOUND)
    found = service.identify(again(fingers(0), 2))
    assert [c.subject_id for c in found.candidates] == [keep.subject_id]
    assert found.match == identification_pb2.MATCH_NO
    stats = service.stats()
    assert (stats.subjects, stats.encounters_enrolled, stats.fingers) == (1, 1, 4)
    new = service.enroll(0, again(fingers(0), 3), "again")  # the same person may come again
    assert new.decision == UNIQUE
    assert new.subject_id != first.subject_id


def test_nothing_of_the_biometrics_stays_on_disk_after_deletion_and_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as service:
        first = service.enroll(0, fingers(0))
        service.enroll(1, fingers(1))
    with running(data) as service:
        service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(request_id="delete", subject_id=first.subject_id)
        )
    on_disk = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for template in fingers(0):
        needle = template.to_bytes()[16:96]
        assert not [path for path, content in on_disk.items() if needle in content]
    assert any(fingers(1)[0].to_bytes() in content for content in on_disk.values())


# Asking -----------------------------------------------------------------------------------------------


def test_identify_finds_everybody_and_accuses_nobody_else(populated: Service) -> None:
    for number in range(30):
        found = populated.identify(again(fingers(number), 7), max_candidates=20)
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].nik == made_up_nik(number)
        llrs = [c.llr for c in found.candidates]
        assert llrs == sorted(llrs, reverse=True)
        assert 3 <= len(llrs) <= 20
        assert llrs[1] < found.review_llr
        assert found.gallery_encounters == 30


def test_identify_says_no_to_strangers(populated: Service) -> None:
    found = populated.identify(fingers(100))
    assert found.match == identification_pb2.MATCH_NO
    assert len(found.candidates) == 5  # the default


def test_the_index_agrees_with_the_oracle(populated: Service) -> None:
    for number in (0, 13, 29, 200):
        probe = again(fingers(number), 8)
        fast = populated.identify(probe, max_candidates=20)
        exact = populated.identify(probe, max_candidates=20, exhaustive=True)
        assert fast.match == exact.match
        by_id = {c.subject_id: c for c in exact.candidates}
        if exact.match == identification_pb2.MATCH_YES:
            assert fast.candidates[0] == exact.candidates[0]
        # Whoever both list was compared in the same way.
        for candidate in fast.candidates:
            assert by_id.get(candidate.subject_id, candidate) == candidate


def test_excluded_subjects_are_left_out(populated: Service) -> None:
    probe = again(fingers(4), 9)
    mate = populated.identify(probe).candidates[0].subject_id
    for exhaustive in (False, True):
        found = populated.identify(
            probe, exclude_subject_ids=[mate], exhaustive=exhaustive, max_candidates=20
        )
        assert found.match == identification_pb2.MATCH_NO
        assert mate not in [c.subject_id for c in found.candidates]
    request = identification_pb2.IdentifyRequest(samples=samples(probe), exclude_subject_ids=["s-nobody"])
    refused(populated.client.identification.Identify, request, Code.NOT_FOUND)


def test_verify_by_nik_and_by_subject(populated: Service) -> None:
    probe = samples(again(fingers(3), 9))
    by_nik = populated.client.identification.Verify(
        identification_pb2.VerifyRequest(nik=made_up_nik(3), samples=probe)
    )
    by_id = populated.client.identification.Verify(
        identification_pb2.VerifyRequest(subject_id=by_nik.candidate.subject_id, samples=probe)
    )
    assert by_nik == by_id
    assert by_nik.match == identification_pb2.MATCH_YES
    assert by_nik.candidate.llr >= by_nik.verify_llr
    other = populated.client.identification.Verify(
        identification_pb2.VerifyRequest(nik=made_up_nik(4), samples=probe)
    )
    assert other.match == identification_pb2.MATCH_NO
    nobody = identification_pb2.VerifyRequest(nik=made_up_nik(77), samples=probe)
    refusal = refused(populated.client.identification.Verify, nobody, Code.NOT_FOUND)
    assert made_up_nik(77) not in refusal.text  # masked


def test_get_encounter_returns_what_was_recorded(service: Service) -> None:
    e = service.enroll(0, fingers(0))
    request = enrollment_pb2.GetEncounterRequest(encounter_id=e.encounter_id)
    assert service.client.enrollment.GetEncounter(request).encounter == e
    nobody = enrollment_pb2.GetEncounterRequest(encounter_id="e-none")
    refused(service.client.enrollment.GetEncounter, nobody, Code.NOT_FOUND)


@pytest.mark.parametrize("size", [1, 7, 10, 30, 1000])
def test_subjects_are_paged_completely_and_once(populated: Service, size: int) -> None:
    seen: list[str] = []
    token, pages = "", 0
    while True:
        page = populated.client.gallery.ListSubjects(
            gallery_pb2.ListSubjectsRequest(page_size=size, page_token=token)
        )
        assert 1 <= len(page.subjects) <= size
        seen += [s.nik for s in page.subjects]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert pages == -(-30 // size)  # no empty last page
    assert sorted(seen) == [made_up_nik(n) for n in range(30)]


def test_stats_count(populated: Service) -> None:
    stats = populated.stats()
    assert (stats.subjects, stats.encounters_enrolled, stats.fingers) == (30, 30, 120)
    assert (stats.encounters_held, stats.encounters_rejected, stats.cases_open) == (0, 0, 0)
    assert stats.store_sequence == 30
    assert stats.store_bytes > 120 * 100
    # four fingers: a code of 128 bytes, its detail, its place and where its template ends; nothing else
    assert stats.finger_bytes_a_person == 4 * (128 + 1 + 4 + 8)
    assert (stats.iris_bytes_a_person, stats.face_bytes_a_person) == (0, 0)
    assert 4 * 100 < stats.compared_bytes_a_person < 4 * 511
    assert stats.version


def test_a_nik_that_looks_odd_is_accepted_with_warnings(service: Service) -> None:
    request = enroll_request("odd", "3299010101900001", fingers(0))  # no such regency
    request.birth_date, request.sex = "1991-02-03", enrollment_pb2.SEX_FEMALE
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert e.decision == UNIQUE
    assert [w.code for w in e.evidence.nik_warnings] == [
        "unknown_region",
        "birth_date_differs",
        "sex_differs",
    ]


# Deadlines --------------------------------------------------------------------------------------------


def test_a_deadline_that_passes_before_the_commit_records_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Gallery.search
    finished = threading.Event()

    def slow(gallery: Gallery, *arguments: object, **options: object) -> object:
        time.sleep(1)
        finished.set()
        return search(gallery, *arguments, **options)  # type: ignore[arg-type]

    request = enroll_request("late", made_up_nik(0), fingers(0))
    with monkeypatch.context() as patched:
        patched.setattr(Gallery, "search", slow)
        with pytest.raises(grpc.RpcError) as caught:
            service.client.enrollment.Enroll(request, timeout=0.7)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert finished.wait(30)
    while service.workflow._running:  # the call ends on the server too
        time.sleep(0.01)
    stats = service.stats()
    assert (stats.encounters_enrolled, stats.encounters_held, stats.store_sequence) == (0, 0, 0)
    assert recorded(service.client.enrollment.Enroll(request, timeout=60)).decision == UNIQUE


def test_after_the_commit_a_retry_returns_the_stored_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, answer = threading.Event(), threading.Event()
    follow = service.workflow._index.follow

    def slow() -> None:
        follow()
        committed.set()
        assert answer.wait(30)

    monkeypatch.setattr(service.workflow._commits, "_committed", slow)
    request = enroll_request("late", made_up_nik(0), fingers(0))
    call = service.client.enrollment.Enroll.future(request, timeout=3)
    assert committed.wait(30)
    assert call.code() is Code.DEADLINE_EXCEEDED  # waits for the deadline
    answer.set()
    e = recorded(service.client.enrollment.Enroll(request, timeout=60))
    assert e.decision == UNIQUE
    assert service.stats().encounters_enrolled == 1


# Limits, health, reflection, binding --------------------------------------------------------------------


def test_a_message_above_the_limit_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data", max_message_bytes=2**20) as service:
        request = enroll_request("big", made_up_nik(0), fingers(0))
        request.samples[0].image = bytes(2**20)
        refusal = refused(service.client.enrollment.Enroll, request, Code.RESOURCE_EXHAUSTED)
        assert "larger than max" in refusal.text
        assert service.enroll(0, fingers(0)).decision == UNIQUE


def test_health_and_reflection(service: Service) -> None:
    with grpc.insecure_channel(service.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)  # its stubs for mypy lack the methods
        for name in ("", *SERVICES):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        assert listed == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        described = database.FindFileContainingSymbol("rekam.v1.EnrollmentService")
        assert [m.name for m in described.service[0].method] == [
            "Enroll",
            "GetEncounter",
            "AddEncounter",
            "DeleteSubject",
        ]


def test_stopping_is_quick_beside_a_health_watcher(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    with grpc.insecure_channel(service.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stopper = threading.Thread(target=service.stop)
        stopper.start()
        stopper.join(10)
        assert not stopper.is_alive()


def test_it_binds_loopback_and_refuses_more_unless_told(tmp_path: Path) -> None:
    assert load_settings().host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.0.2.1", "registry.example"):
        with pytest.raises(InvalidSettings, match="allow_remote"):
            load_settings(host=host)
    with (
        running(tmp_path / "data", host="0.0.0.0", allow_remote=True) as service,
        Client(f"127.0.0.1:{service.server.port}") as client,
    ):
        assert client.gallery.Stats(gallery_pb2.StatsRequest(), timeout=30).subjects == 0


def test_ipv6_loopback_works(tmp_path: Path) -> None:
    with running(tmp_path / "data", host="::1") as service:
        assert service.server.address.startswith("[::1]:")
        assert service.stats().subjects == 0


def test_a_second_server_on_the_port_is_refused(service: Service) -> None:
    taken = load_settings(port=service.server.port)
    with pytest.raises(RekamError, match=f"cannot listen on .*{service.server.port}"):
        Server(taken, service.workflow)


def test_a_second_owner_of_the_data_folder_is_refused(service: Service) -> None:
    with pytest.raises(StoreLocked, match="in use by process"):
        Workflow(service.settings)
    assert service.enroll(0, fingers(0)).decision == UNIQUE


# Restarts: the index follows the store ------------------------------------------------------------------


class Adds:
    """What was added to which index."""

    def __init__(self) -> None:
        self.calls: list[tuple[Gallery, int]] = []

    def of(self, service: Service) -> list[int]:
        """Keys that were added to the index of this service, not loaded with it."""
        return [key for gallery, key in self.calls if gallery is service.workflow._index.gallery]


@pytest.fixture
def adds(monkeypatch: pytest.MonkeyPatch) -> Adds:
    adds = Adds()
    add = Gallery.add

    def counting(gallery: Gallery, key: int, *rest: object) -> None:
        adds.calls.append((gallery, key))
        add(gallery, key, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Gallery, "add", counting)
    return adds


def found(service: Service, number: int) -> bool:
    answer = service.identify(again(fingers(number), 50))
    return answer.match == identification_pb2.MATCH_YES and answer.candidates[0].nik == made_up_nik(number)


def test_the_saved_index_is_loaded_and_not_rebuilt(tmp_path: Path, adds: Adds) -> None:
    with running(tmp_path / "data") as service:
        for number in range(3):
            service.enroll(number, fingers(number))
    with running(tmp_path / "data") as service:
        assert adds.of(service) == []
        assert service.stats().index_sequence == 3
        assert all(found(service, number) for number in range(3))
        assert not found(service, 3)


@pytest.mark.parametrize("harm", ["deleted", "emptied", "bit flipped", "manifest cut"])
def test_an_index_that_cannot_be_trusted_is_rebuilt(tmp_path: Path, adds: Adds, harm: str) -> None:
    with running(tmp_path / "data") as service:
        for number in range(3):
            service.enroll(number, fingers(number))
        service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(
                request_id="d",
                subject_id=service.client.gallery.GetSubject(
                    gallery_pb2.GetSubjectRequest(nik=made_up_nik(1))
                ).subject.subject_id,
            )
        )
    index = tmp_path / "data" / "index"
    files = sorted(path for path in index.iterdir() if path.suffix != ".json")
    match harm:
        case "deleted":
            shutil.rmtree(index)
        case "emptied":
            for path in index.iterdir():
                path.unlink()
        case "bit flipped":
            content = bytearray(files[0].read_bytes())
            content[len(content) // 2] ^= 4
            files[0].write_bytes(content)
        case "manifest cut":
            manifest = index / "gallery.json"
            manifest.write_bytes(manifest.read_bytes()[:-20])
    with running(tmp_path / "data") as service:
        assert len(adds.of(service)) == 2
        assert service.stats().index_sequence == 4
        assert [found(service, number) for number in range(3)] == [True, False, True]
    with running(tmp_path / "data") as service:
        assert adds.of(service) == []  # saved again


def test_an_older_index_is_caught_up(tmp_path: Path, adds: Adds) -> None:
    data, old = tmp_path / "data", tmp_path / "old"
    with running(data) as service:
        for number in range(3):
            service.enroll(number, fingers(number))
    shutil.copytree(data / "index", old)
    with running(data) as service:
        service.enroll(3, fingers(3))
        gone = service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=made_up_nik(0))).subject
        service.client.enrollment.DeleteSubject(
            enrollment_pb2.DeleteSubjectRequest(request_id="d", subject_id=gone.subject_id)
        )
        held = service.enroll(4, again(fingers(1), 1))
        service.client.cases.ResolveCase(resolve(held.case_id, "DIFFERENT_PEOPLE"))
    shutil.rmtree(data / "index")
    shutil.copytree(old, data / "index")
    with running(data) as service:
        assert set(adds.of(service)) == {4, 5}
        service.stats()
        assert [found(service, number) for number in (0, 2, 3)] == [False, True, True]
        twins = {c.nik for c in service.identify(again(fingers(1), 50)).candidates[:2]}
        assert twins == {made_up_nik(1), made_up_nik(4)}


def test_an_index_newer_than_the_store_is_rebuilt(
    tmp_path: Path, adds: Adds, caplog: pytest.LogCaptureFixture
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data) as service:
        service.enroll(0, fingers(0))
    shutil.copytree(data, backup)
    with running(data) as service:
        service.enroll(1, fingers(1))
    shutil.copytree(data / "index", tmp_path / "newer")
    shutil.rmtree(backup / "index")
    shutil.copytree(tmp_path / "newer", backup / "index")
    with running(backup) as service:
        assert adds.of(service) == [1]
        assert "followed another history" in caplog.text
        assert [found(service, number) for number in (0, 1)] == [True, False]


def test_a_retry_of_a_template_with_no_difference_is_recognised_byte_by_byte() -> None:
    first = enroll_request("r", made_up_nik(0), fingers(0))
    second = enroll_request(
        "r", made_up_nik(0), [FingerprintTemplate.from_bytes(f.to_bytes()) for f in fingers(0)]
    )
    assert first == second
    assert absent(fingers(0)) == list(first.missing)
