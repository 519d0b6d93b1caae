"""The capture session: order, retries, exceptions, sequence, the operator's own, and what nothing may end.

Devices here are open `Device`s that give templates of made-up people as records. The pipelines and drivers
behind a session have tests of their own; `tests/test_station_commands.py` has all together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.encounters import again, made_up_nik
from benchmarks.population import TEN_FINGERS
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.quality import Feedback, Quality
from devices.device import (
    Captured,
    CaptureSpec,
    Condition,
    DeviceInfo,
    Health,
    Hint,
    Outcome,
    ShortCount,
    TimedOut,
    TryAgain,
)
from devices.errors import DeviceBusy, DeviceError, DeviceRemoved, DeviceStuck
from devices.frame import DeviceKind, Frame, Positions, Provenance, Record
from devices.position import EyePosition, FingerPosition
from rekam.capturing import Template, read_template
from rekam.client import Client
from rekam.errors import SpoolDamaged, WrongState
from rekam.exchange import MissingReason
from rekam.session import (
    FACE,
    SIGNATURE,
    Began,
    Declared,
    Entry,
    Params,
    Place,
    Seen,
    Session,
    Unfit,
    Verdict,
    entry_bytes,
    place_of,
    places,
    read_entry,
)
from rekam.spool import Params as SpoolParams
from rekam.spool import Spool
from rekam.station.outbox import Outbox, Sync
from rekam.v1 import enrollment_pb2, types_pb2
from tests.bodies import LEFT, RIGHT, eye, face
from tests.service import fingers, running

FINGERPRINT, IRIS = DeviceKind.FINGERPRINT, DeviceKind.IRIS
RIGHT_FOUR, LEFT_FOUR = TEN_FINGERS[1:5], TEN_FINGERS[6:10]
THUMBS = (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)
HANDS = (FINGERPRINT,)
EVERYTHING = (FINGERPRINT, IRIS, DeviceKind.FACE, DeviceKind.SIGNATURE)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
OF = Provenance("virtual", "v1", model="one of a test")
Hands = dict[FingerPosition, Template]


def hands(number: int, seed: int = 0) -> Hands:
    """All ten fingers of person `number`, captured once more where a seed is given."""
    shown = fingers(number, TEN_FINGERS)
    return {finger.position: finger for finger in (again(shown, seed) if seed else shown)}


@dataclass
class Scripted:
    """A device that does what it is told, one capture after another; the last one stays."""

    info: DeviceInfo
    script: list[Outcome | DeviceError | Callable[[CaptureSpec], Outcome]]
    asked: list[CaptureSpec] = field(default_factory=list)

    def capture(self, spec: CaptureSpec) -> Outcome:
        self.asked.append(spec)
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, DeviceError):
            raise said
        return said(spec) if callable(said) else said

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        yield from ()

    def health(self) -> Health:
        return Health(Condition.READY)

    def close(self) -> None:
        pass


def slap_scanner(*script: Outcome | DeviceError | Callable[[CaptureSpec], Outcome]) -> Scripted:
    return Scripted(DeviceInfo("slap", FINGERPRINT, OF, (RIGHT_FOUR, LEFT_FOUR, THUMBS)), list(script))


def single_scanner(*script: Outcome | DeviceError | Callable[[CaptureSpec], Outcome]) -> Scripted:
    one_by_one = tuple((position,) for position in TEN_FINGERS)
    return Scripted(DeviceInfo("single", FINGERPRINT, OF, one_by_one), list(script))


def iris_camera(*script: Outcome | DeviceError | Callable[[CaptureSpec], Outcome]) -> Scripted:
    return Scripted(DeviceInfo("iris", IRIS, OF, ((RIGHT, LEFT),)), list(script))


def other_device(kind: DeviceKind, data: bytes = b"ink") -> Scripted:
    return Scripted(DeviceInfo(kind, kind, OF), [Captured(records=(record(kind, (), data),))])


def record(kind: DeviceKind, positions: Positions, data: bytes, quality: float = 80) -> Record:
    return Record(data, "native template", kind, positions, quality, NOW, OF)


def shown(person: Hands, quality: float = 80) -> Callable[[CaptureSpec], Captured]:
    """The person lays down whatever is asked for."""

    def capture(spec: CaptureSpec) -> Captured:
        return Captured(
            records=tuple(
                record(FINGERPRINT, (p,), person[p].to_bytes(), quality)
                for p in spec.positions
                if isinstance(p, FingerPosition)
            )
        )

    return capture


def instead(person: Hands, swap: dict[FingerPosition, FingerPosition]) -> Callable[[CaptureSpec], Captured]:
    """The person lays down other fingers than asked for, under the names that were asked for."""
    return shown({position: person[swap.get(position, position)] for position in person})


def eyes(*irises: IrisTemplate, quality: float = 80) -> Captured:
    return Captured(records=tuple(record(IRIS, (i.eye,), i.to_bytes(), quality) for i in irises))


class OfTemplates:
    """Takes the native templates that these devices give; their own quality counts."""

    def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
        return tuple(map(self._seen, captured.records))

    def _seen(self, record: Record) -> Seen:
        [place] = places(record.kind, record.positions)
        signature = record.kind is DeviceKind.SIGNATURE
        template = None if signature else read_template(place.position, record.data)
        score = int(record.quality or 0)
        feedback = () if score >= 60 else (Feedback.TOO_LIGHT,)
        return Seen(place, record.data, template, Quality(score, usable=score >= 30, feedback=feedback))


@dataclass
class Kept:
    """What a session kept, as bytes."""

    records: list[bytes] = field(default_factory=list)

    def __call__(self, entry: Entry) -> None:
        self.records.append(entry_bytes(entry))

    @property
    def entries(self) -> list[Entry]:
        return [read_entry(record) for record in self.records]


def began(name: str = "e1", kinds: Sequence[DeviceKind] = HANDS, number: int = 0) -> Began:
    return Began(name, made_up_nik(number), "Sari", tuple(kinds), NOW)


def session(kept: Kept | None = None, operator: Sequence[Template] = (), **given: object) -> Session:
    return Session.begin(
        began(**given),  # type: ignore[arg-type]
        OfTemplates(),
        Kept() if kept is None else kept,
        operator,
    )


def step_name(of: Session) -> str:
    return "" if of.step is None else of.step.name


def take_all(of: Session, device: Scripted, name: str) -> None:
    while step_name(of) == name:
        assert of.capture(device).verdict is Verdict.ACCEPTED


# Order ------------------------------------------------------------------------------------------------


def test_an_encounter_goes_from_slaps_to_signature_and_becomes_one_request() -> None:
    kept = Kept()
    of = session(kept, kinds=EVERYTHING)
    assert step_name(of) == "right four fingers"
    slaps = slap_scanner(shown(hands(0)))
    for name in ("right four fingers", "left four fingers", "thumbs"):
        take_all(of, slaps, name)
    assert [spec.positions for spec in slaps.asked] == [RIGHT_FOUR, LEFT_FOUR, THUMBS]
    assert of.capture(iris_camera(eyes(eye(0, RIGHT), eye(0, LEFT)))).verdict is Verdict.ACCEPTED
    assert of.capture(other_device(DeviceKind.FACE, face(0).to_bytes())).verdict is Verdict.ACCEPTED
    with pytest.raises(WrongState, match="signature"):
        of.seal()
    assert of.capture(other_device(DeviceKind.SIGNATURE)).verdict is Verdict.ACCEPTED
    assert of.step is None
    request = enrollment_pb2.EnrollRequest.FromString(of.seal())
    assert (request.nik, request.request_id, request.signature) == (made_up_nik(0), "e1-1", b"ink")
    assert [FingerPosition(s.finger) for s in request.samples[:10]] == [*RIGHT_FOUR, *LEFT_FOUR, *THUMBS]
    assert [EyePosition(s.eye) for s in request.samples[10:12]] == [RIGHT, LEFT]
    assert request.samples[12].modality == types_pb2.MODALITY_FACE
    assert not any(s.best_effort for s in request.samples)
    assert not [*request.missing, *request.missing_eyes]
    assert not request.missing_face
    # Resumed from what was kept, it is the same to the byte.
    assert Session(kept.entries, OfTemplates(), kept).seal() == of.seal()


def test_a_reader_of_single_fingers_is_asked_for_one_after_another() -> None:
    of = session()
    reader = single_scanner(shown(hands(0)))
    while of.step is not None:
        assert of.capture(reader).verdict is Verdict.ACCEPTED
    assert [spec.positions for spec in reader.asked] == [
        (p,) for p in (*RIGHT_FOUR, *LEFT_FOUR, *THUMBS[::-1])
    ]


def test_a_device_of_another_kind_or_part_is_not_asked() -> None:
    of = session(kinds=EVERYTHING)
    with pytest.raises(WrongState, match="right four fingers now"):
        of.capture(iris_camera(eyes()))
    left_only = Scripted(DeviceInfo("left", FINGERPRINT, OF, (LEFT_FOUR,)), [TimedOut(1)])
    with pytest.raises(WrongState, match="captures none of right index"):
        of.capture(left_only)
    assert not left_only.asked


# Nothing is left out silently ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "three",
    [
        lambda spec: ShortCount(spec.positions, 3, Captured()),
        # The device says that this is all.
        lambda spec: Captured(records=shown(hands(0))(spec).records[:3]),
        # Four, but one of them twice.
        lambda spec: Captured(records=(*shown(hands(0))(spec).records[:3], shown(hands(0))(spec).records[0])),
        # A whole slap, and more.
        lambda spec: Captured(records=(*shown(hands(0))(spec).records, *shown(hands(1))(spec).records[:1])),
    ],
)
def test_three_of_four_fingers_are_never_taken_for_four(three: Callable[[CaptureSpec], Outcome]) -> None:
    kept = Kept()
    of = session(kept)
    result = of.capture(slap_scanner(three))
    assert result.verdict is Verdict.SHORT
    assert "of 4 were seen" in result.advice[0]
    assert len(kept.records) == 1  # its beginning, nothing else
    with pytest.raises(WrongState, match="right index, right middle, right ring, right little"):
        of.seal()


def test_a_finger_is_missing_only_when_the_operator_says_so_and_why() -> None:
    of = session()
    ring = Place(FINGERPRINT, FingerPosition.RIGHT_RING)
    of.declare(ring, MissingReason.AMPUTATED)
    slaps = slap_scanner(shown(hands(0)))
    assert of.capture(slaps).verdict is Verdict.ACCEPTED
    three = tuple(p for p in RIGHT_FOUR if p != FingerPosition.RIGHT_RING)
    assert (slaps.asked[0].positions, slaps.asked[0].missing) == (three, (FingerPosition.RIGHT_RING,))
    for position in (*LEFT_FOUR, *THUMBS):
        of.declare(Place(FINGERPRINT, position), MissingReason.BANDAGED)
    request = enrollment_pb2.EnrollRequest.FromString(of.seal())
    said = {m.position: m.reason for m in request.missing}
    assert said[types_pb2.FINGER_POSITION_RIGHT_RING] == types_pb2.MISSING_REASON_AMPUTATED
    assert list(said.values()).count(types_pb2.MISSING_REASON_BANDAGED) == 6
    assert {FingerPosition(s.finger) for s in request.samples} == set(three)


@pytest.mark.parametrize(
    "one",
    [ShortCount((RIGHT, LEFT), 1, Captured()), eyes(eye(0, RIGHT)), eyes(eye(0, RIGHT), eye(0, RIGHT))],
)
def test_one_iris_is_never_taken_for_two(one: Outcome) -> None:
    of = session(kinds=(IRIS,))
    assert of.capture(iris_camera(one)).verdict is Verdict.SHORT
    assert not of.taken
    of.declare(Place(IRIS, LEFT), MissingReason.UNREADABLE)  # cannot be opened
    camera = iris_camera(eyes(eye(0, RIGHT)))
    assert of.capture(camera).verdict is Verdict.ACCEPTED
    assert (camera.asked[0].positions, camera.asked[0].missing) == ((RIGHT,), (LEFT,))
    request = enrollment_pb2.EnrollRequest.FromString(of.seal())
    assert [m.reason for m in request.missing_eyes] == [types_pb2.MISSING_REASON_UNREADABLE]


def test_a_camera_of_one_eye_leaves_the_step_open_until_both_are_there() -> None:
    of = session(kinds=(IRIS,))
    one_eye = DeviceInfo("iris", IRIS, OF, ((RIGHT,), (LEFT,)))
    camera = Scripted(one_eye, [eyes(eye(0, RIGHT)), eyes(eye(0, LEFT))])
    assert of.capture(camera).verdict is Verdict.ACCEPTED
    assert step_name(of) == "irises"
    assert of.capture(camera).verdict is Verdict.ACCEPTED
    assert of.step is None


def test_only_what_is_wanted_and_not_taken_can_be_declared_missing() -> None:
    of = session()
    with pytest.raises(WrongState, match="face"):
        of.declare(FACE, MissingReason.NOT_CAPTURED)
    of.capture(slap_scanner(shown(hands(0))))
    index = Place(FINGERPRINT, FingerPosition.RIGHT_INDEX)
    with pytest.raises(WrongState, match="discard it first"):
        of.declare(index, MissingReason.BANDAGED)
    of.discard(index)
    of.declare(index, MissingReason.BANDAGED)
    assert of.missing == {index: MissingReason.BANDAGED}
    with pytest.raises(WrongState, match="neither"):
        of.discard(Place(FINGERPRINT, FingerPosition.LEFT_INDEX))


# Retries ------------------------------------------------------------------------------------------------


FAULTS = (
    DeviceRemoved("the cable was pulled"),
    DeviceBusy("somebody else has it"),
    DeviceStuck("it did not answer"),
    TryAgain(Hint.CENTER_FINGER),
    TimedOut(20),
    TryAgain(Hint.LOW_QUALITY, "the device says 12"),
    ShortCount(RIGHT_FOUR, 0, Captured()),
)


def test_whatever_fails_the_session_goes_on_with_the_same_device() -> None:
    of = session()
    scanner = slap_scanner(*FAULTS, shown(hands(0)))
    said = [of.capture(scanner) for _ in FAULTS]
    assert [result.verdict for result in said] == [
        Verdict.FAULT,
        Verdict.FAULT,
        Verdict.FAULT,
        Verdict.AGAIN,
        Verdict.TIMED_OUT,
        Verdict.AGAIN,
        Verdict.SHORT,
    ]
    assert "the cable was pulled" in said[0].advice
    assert "middle of the sensor" in said[3].advice[0]
    assert said[5].advice[1] == "the device says 12"
    assert all(result.advice for result in said)
    assert of.capture(scanner).verdict is Verdict.ACCEPTED
    assert step_name(of) == "left four fingers"


def test_the_best_of_several_captures_is_taken_finger_by_finger() -> None:
    person, other = hands(0), hands(0, seed=5)
    weak = dict.fromkeys(RIGHT_FOUR, 50.0)

    def capture(shows: Hands, at: dict[FingerPosition, float]) -> Captured:
        return Captured(
            records=tuple(record(FINGERPRINT, (p,), shows[p].to_bytes(), at[p]) for p in RIGHT_FOUR)
        )

    index, little = FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_LITTLE
    of = session()
    scanner = slap_scanner(
        capture(person, weak | {index: 70}), capture(other, weak | {little: 55, index: 20})
    )
    first, second = of.capture(scanner), of.capture(scanner)
    assert [first.verdict, second.verdict] == [Verdict.AGAIN] * 2
    assert (first.tries, second.tries) == (1, 2)
    assert "right middle, quality 50" in first.advice[0]
    assert "moisten" in first.advice[0]
    assert of.capture(scanner).verdict is Verdict.ACCEPTED  # best of three, all usable
    taken = {place.code: entry for place, entry in of.taken.items()}
    assert (taken[index].quality, taken[index].template) == (70, person[index].to_bytes())
    assert (taken[little].quality, taken[little].template) == (55, other[little].to_bytes())
    assert taken[index].tries == 3


def test_what_is_not_usable_is_taken_only_by_the_operators_decision() -> None:
    of = session()
    scanner = slap_scanner(shown(hands(0), quality=10))
    with pytest.raises(WrongState, match="no capture"):
        of.take_poor()
    for tries in range(1, 6):
        result = of.capture(scanner)
        assert (result.verdict, result.tries) == (Verdict.AGAIN, tries)
    assert of.take_poor().verdict is Verdict.ACCEPTED
    assert all(taken.poor for taken in of.taken.values())
    for position in (*LEFT_FOUR, *THUMBS):
        of.declare(Place(FINGERPRINT, position), MissingReason.NOT_CAPTURED)
    request = enrollment_pb2.EnrollRequest.FromString(of.seal())
    assert all(s.best_effort for s in request.samples)


def slap(shows: Hands, *quality: float) -> Captured:
    """The right four fingers, index first."""
    at = zip(RIGHT_FOUR, quality, strict=True)
    return Captured(records=tuple(record(FINGERPRINT, (p,), shows[p].to_bytes(), one) for p, one in at))


def test_what_was_taken_stays_where_the_rest_is_captured_anew_and_shows_it_no_better() -> None:
    person, later = hands(0), hands(0, seed=5)
    index, middle, ring, little = RIGHT_FOUR
    kept = Kept()
    of = session(kept)
    worse = slap(later, 80, 60, 97, 10)  # a little finger that is not usable does not stand in the way
    scanner = slap_scanner(slap(person, 95, 95, 95, 95), worse)
    assert of.capture(scanner).verdict is Verdict.ACCEPTED
    of.discard(Place(FINGERPRINT, index))
    result = of.capture(scanner)
    assert (result.verdict, result.tries) == (Verdict.ACCEPTED, 1)
    assert [(one.place.code, one.quality.score) for one in result.seen] == [(index, 80), (ring, 97)]
    for one in (of, Session(kept.entries, OfTemplates(), kept)):
        assert {p.code: (t.quality, t.template) for p, t in one.taken.items()} == {
            index: (80, later[index].to_bytes()),
            middle: (95, person[middle].to_bytes()),
            ring: (97, later[ring].to_bytes()),
            little: (95, person[little].to_bytes()),
        }


def test_what_is_taken_poor_is_only_what_is_wanted() -> None:
    index, middle, ring, little = RIGHT_FOUR
    of = session()
    scanner = slap_scanner(
        slap(hands(0), 95, 20, 20, 95),
        slap(hands(0, seed=1), 10, 25, 80, 10),
        slap(hands(0, seed=2), 20, 15, 90, 96),
    )
    assert of.capture(scanner).verdict is Verdict.AGAIN
    of.take_poor()
    of.discard(Place(FINGERPRINT, index))
    result = of.capture(scanner)
    assert (result.verdict, len(result.advice)) == (Verdict.AGAIN, 1)
    assert result.advice[0].startswith("right index, quality 10")
    assert of.capture(scanner).verdict is Verdict.AGAIN
    of.take_poor()
    # A better capture of what was taken poor is as poor, unless it is usable.
    assert {p.code: (t.quality, t.poor) for p, t in of.taken.items()} == {
        index: (20, True),
        middle: (25, True),
        ring: (90, False),
        little: (96, False),
    }


def test_the_operators_decision_stays_with_what_is_captured_better() -> None:
    index, middle, ring, _ = (Place(FINGERPRINT, position) for position in RIGHT_FOUR)
    of = session()
    scanner = slap_scanner(
        slap(hands(0), 80, 20, 80, 80),
        slap(hands(0), 80, 25, 80, 80),
        slap(hands(0), 60, 27, 80, 80),
        slap(hands(0), 90, 26, 80, 80),
    )
    assert of.capture(scanner).verdict is Verdict.AGAIN
    of.take_poor()
    for position in (*LEFT_FOUR, *THUMBS):
        of.declare(Place(FINGERPRINT, position), MissingReason.BANDAGED)
    of.seal()
    of.reopen([index], ("the service does not like it",))
    assert of.capture(scanner).verdict is Verdict.AGAIN
    of.take_poor()
    decided = [(of.taken[place].quality, of.taken[place].poor) for place in (index, middle)]
    assert decided == [(80, True), (25, True)]
    for expected in ([(80, True), (27, True)], [(90, True), (27, True)]):
        of.discard(ring)
        assert of.capture(scanner).verdict is Verdict.ACCEPTED
        assert [(of.taken[place].quality, of.taken[place].poor) for place in (index, middle)] == expected


def test_the_operator_is_asked_of_what_was_sent_back_also_where_every_capture_is_the_best() -> None:
    of = Session.begin(began(kinds=(DeviceKind.FACE,)), OfTemplates(), Kept(), params=Params(best_of=1))
    camera = other_device(DeviceKind.FACE, face(0).to_bytes())
    assert of.capture(camera).verdict is Verdict.ACCEPTED
    of.seal()
    of.reopen([FACE], ("the service does not like it",))
    assert of.capture(camera).verdict is Verdict.AGAIN
    assert of.capture(camera).verdict is Verdict.ACCEPTED


def test_what_shows_nothing_to_compare_does_not_stand_before_what_does() -> None:
    class Blank(OfTemplates):
        """Sees a quality, and nothing else, where there is one."""

        def _seen(self, record: Record) -> Seen:
            seen = super()._seen(record)
            return seen if seen.quality.score != 20 else replace(seen, template=None)

    of = Session.begin(began(), Blank(), Kept())
    scanner = slap_scanner(slap(hands(0), 10, 90, 90, 90), slap(hands(0), 20, 90, 90, 90))
    for _ in range(2):
        assert of.capture(scanner).verdict is Verdict.AGAIN
    of.take_poor()
    assert of.taken[Place(FINGERPRINT, RIGHT_FOUR[0])].quality == 10


def test_several_faces_are_not_taken_however_hard_the_capture() -> None:
    class Crowd(OfTemplates):
        def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
            crowded = Quality(70, usable=False, feedback=(Feedback.SEVERAL_FACES,))
            return (Seen(FACE, b"", face(0), crowded),)

    of = Session.begin(began(kinds=(DeviceKind.FACE,)), Crowd(), Kept())
    assert of.capture(other_device(DeviceKind.FACE)).verdict is Verdict.AGAIN
    with pytest.raises(WrongState, match="no capture"):
        of.take_poor()


def test_quality_is_whatever_the_examiner_says() -> None:
    class Strict(OfTemplates):
        """An office's own measure: nothing is good before the third capture."""

        captures = 0

        def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
            self.captures += 1
            if self.captures < 3:
                return Unfit(f"Capture {self.captures} is not good enough here.")
            return super().examine(captured, asked)

    of = Session.begin(began(), Strict(), Kept())
    scanner = slap_scanner(shown(hands(0)))
    assert of.capture(scanner).advice == ("Capture 1 is not good enough here.",)
    assert of.capture(scanner).verdict is Verdict.AGAIN
    assert of.capture(scanner).verdict is Verdict.ACCEPTED


# Sequence -----------------------------------------------------------------------------------------------


def test_the_right_hand_shown_again_as_the_left_is_found_at_once() -> None:
    person, once_more = hands(0), hands(0, seed=1)
    of = session()
    mirrored = {finger: finger.other_hand for finger in LEFT_FOUR}
    scanner = slap_scanner(shown(person), instead(once_more, mirrored), shown(person))
    assert of.capture(scanner).verdict is Verdict.ACCEPTED
    result = of.capture(scanner)
    assert result.verdict is Verdict.SAME
    assert "The left index is the same as the right index, which was taken before." in result.advice
    assert len(result.advice) == 4
    assert len(of.taken) == 4
    assert of.capture(scanner).verdict is Verdict.ACCEPTED  # the left hand


def test_the_same_finger_twice_is_found_when_it_comes() -> None:
    person, once_more = hands(0), hands(0, seed=2)
    index, middle = FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_MIDDLE
    of = session()
    reader = single_scanner(shown(person), instead(once_more, {middle: index}), shown(person))
    assert of.capture(reader).verdict is Verdict.ACCEPTED
    result = of.capture(reader)
    assert result.advice == ("The right middle is the same as the right index, which was taken before.",)
    # Which of the two was wrong is for the operator to say.
    of.discard(Place(FINGERPRINT, index))
    assert of.capture(reader).verdict is Verdict.ACCEPTED
    assert set(of.taken) == {Place(FINGERPRINT, index)}


def test_one_finger_in_two_places_of_a_slap_is_found() -> None:
    index, middle = FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_MIDDLE
    result = session().capture(slap_scanner(instead(hands(0), {middle: index})))
    assert result.verdict is Verdict.SAME
    assert result.advice == ("The right middle is the same as the right index, which is shown beside it.",)


@pytest.mark.parametrize("quality", [80.0, 20.0])
def test_the_best_of_captures_with_other_names_is_not_taken_for_four_fingers(quality: float) -> None:
    index, middle, ring, little = RIGHT_FOUR
    shifted = instead(hands(0, seed=3), {index: middle, middle: ring, ring: little, little: THUMBS[1]})
    weak = {p: record(FINGERPRINT, (p,), hands(0)[p].to_bytes(), quality) for p in RIGHT_FOUR}
    weak[index] = record(FINGERPRINT, (index,), hands(0)[index].to_bytes(), 10)
    of = session()
    scanner = slap_scanner(Captured(records=tuple(weak.values())), shifted, shown(hands(0)))
    assert of.capture(scanner).verdict is Verdict.AGAIN
    result = of.capture(scanner)
    assert (result.verdict, result.tries) == (Verdict.SAME, 0)
    said = "The right index is the same as the right middle of a capture before: show all again."
    assert said in result.advice
    with pytest.raises(WrongState, match="no capture"):  # which of the two is wrong nobody knows
        of.take_poor()
    assert of.capture(scanner).verdict is Verdict.ACCEPTED
    taken = {place.code: entry.template for place, entry in of.taken.items()}
    assert taken == {p: hands(0)[p].to_bytes() for p in RIGHT_FOUR}


def test_fingers_captured_anew_are_compared_with_those_that_stay_beside_them() -> None:
    index, middle, ring, little = RIGHT_FOUR
    shifted = instead(hands(0, seed=3), {index: middle, middle: ring, ring: little, little: THUMBS[1]})
    of = session()
    scanner = slap_scanner(shown(hands(0)), shifted)
    assert of.capture(scanner).verdict is Verdict.ACCEPTED
    of.discard(Place(FINGERPRINT, index))
    result = of.capture(scanner)
    assert result.verdict is Verdict.SAME
    assert result.advice[0] == "The right index is the same as the right middle, which was taken before."
    assert index not in {place.code for place in of.taken}


def test_one_eye_shown_as_both_is_found() -> None:
    right = eye(0, RIGHT)
    as_left = IrisTemplate(right.code, right.mask, LEFT, right.quality)
    result = session(kinds=(IRIS,)).capture(iris_camera(eyes(right, as_left)))
    assert result.verdict is Verdict.SAME
    assert "right eye" in result.advice[0]


# The operator's own -------------------------------------------------------------------------------------


def test_what_is_the_operators_own_is_refused_and_not_kept() -> None:
    operator: list[Template] = [*fingers(7), eye(7, LEFT), face(7)]
    kept = Kept()
    of = session(kept, operator, kinds=EVERYTHING)
    helping = hands(0) | {FingerPosition.RIGHT_RING: hands(7, seed=3)[FingerPosition.RIGHT_INDEX]}
    result = of.capture(slap_scanner(shown(helping)))
    assert result.verdict is Verdict.OPERATOR
    assert result.advice == ("The right ring is an operator's own right index: nothing of it is kept.",)
    for place in (p for step in of.steps if step.kind is FINGERPRINT for p in step.places):
        of.declare(place, MissingReason.NOT_CAPTURED)
    as_right = IrisTemplate(eye(7, LEFT).code, eye(7, LEFT).mask, RIGHT, 80)
    assert of.capture(iris_camera(eyes(as_right, eye(0, LEFT)))).verdict is Verdict.OPERATOR
    assert of.capture(iris_camera(eyes(eye(0, RIGHT), eye(0, LEFT)))).verdict is Verdict.ACCEPTED
    assert of.capture(other_device(DeviceKind.FACE, face(7).to_bytes())).verdict is Verdict.OPERATOR
    assert of.capture(other_device(DeviceKind.FACE, face(0).to_bytes())).verdict is Verdict.ACCEPTED
    assert {place_of(t) for t in operator} & set(of.taken)  # the same places, other people
    for template in (*operator, helping[FingerPosition.RIGHT_RING]):
        assert not any(template.to_bytes() in getattr(e, "template", b"") for e in kept.entries)


# The signature ------------------------------------------------------------------------------------------


def test_the_same_signature_as_anybodys_is_taken(tmp_path: Path) -> None:
    # It has no template: there is nothing it could be compared by.
    of = session(kinds=(DeviceKind.SIGNATURE,))
    assert of.capture(other_device(DeviceKind.SIGNATURE, b"X")).verdict is Verdict.ACCEPTED
    [taken] = of.taken.values()
    assert (taken.place, taken.template) == (SIGNATURE, b"")


def test_a_signature_is_missing_for_the_operators_reason() -> None:
    of = session(kinds=(DeviceKind.SIGNATURE,))
    of.declare(SIGNATURE, MissingReason.BANDAGED)
    request = enrollment_pb2.EnrollRequest.FromString(of.seal())
    assert (request.signature, request.missing_signature) == (b"", types_pb2.MISSING_REASON_BANDAGED)


# Spool and sending --------------------------------------------------------------------------------------


CHEAP = SpoolParams(log2_n=4)


def opened(folder: Path) -> Spool:
    return Spool.open(folder, "kopi susu", CHEAP)


def fill(of: Session, person: Hands) -> None:
    scanner = slap_scanner(shown(person))
    while of.step is not None:
        assert of.capture(scanner).verdict is Verdict.ACCEPTED
    of.seal()


def test_after_a_power_cut_the_session_goes_on_where_it_was(tmp_path: Path) -> None:
    person = hands(0)
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        box.enrol_operator("Sari", [*fingers(7), eye(7, LEFT), face(7)])
        of = box.begin(began())
        of.declare(Place(FINGERPRINT, FingerPosition.RIGHT_RING), MissingReason.BANDAGED)
        of.capture(slap_scanner(shown(person)))
        before = (of.taken.keys(), of.missing, of.step)
    # The power goes while the next capture is being written.
    with (tmp_path / "e1.spool").open("ab") as file:
        file.write(bytes(999))
    with opened(tmp_path) as spool:
        assert "e1: the last capture was cut off" in spool.notices[0]
        box = Outbox(spool, OfTemplates())
        of = box.resume("e1")
        assert (of.taken.keys(), of.missing, of.step) == before
        # Sequence and operator are checked against what was there before.
        mirrored = {finger: finger.other_hand for finger in LEFT_FOUR}
        again_right = of.capture(slap_scanner(instead(hands(0, seed=1), mirrored)))
        assert again_right.verdict is Verdict.SAME
        own = of.capture(slap_scanner(shown(person | {LEFT_FOUR[0]: hands(7)[FingerPosition.RIGHT_INDEX]})))
        assert own.verdict is Verdict.OPERATOR
        fill(of, person)
        assert box.states()[0].sync is Sync.WAITING


class SlowLink:
    """Loses the answers of the first calls, after the service has done its work.

    These devices give templates where real ones give images: they are sent as what they are.
    """

    def __init__(self, client: Client, lost: int = 0) -> None:
        self.client, self.lost = client, lost
        self.enrollment = self

    def Enroll(  # noqa: N802 - the stub's name
        self, request: enrollment_pb2.EnrollRequest, timeout: float
    ) -> enrollment_pb2.EnrollResponse:
        for sample in request.samples:
            sample.template = sample.image
        answer = self.client.enrollment.Enroll(request, timeout=timeout)
        if self.lost:
            self.lost -= 1
            with Client("127.0.0.1:1", patient=False) as nobody:  # raises what a broken link does
                nobody.enrollment.Enroll(request, timeout=5)
        return answer


def over(client: Client, lost: int = 0) -> Client:
    return cast(Client, SlowLink(client, lost))


def test_offline_encounters_are_sent_once_each_in_order_and_doubles_are_found(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        people = [(hands(1), 1), (hands(2), 2), (hands(1, seed=4), 3)]  # the third is the first again
        for name, (person, number) in zip(("e1", "e2", "e3"), people, strict=True):
            fill(box.begin(began(name, number=number)), person)
        assert box.alike(box.resume("e3")) == ("e1",)
        assert box.alike(box.resume("e2")) == ()
        with Client("127.0.0.1:1", patient=False) as nobody:
            said = box.send(nobody, timeout=5)
        assert [(one.name, one.sync) for one in said] == [("e1", Sync.WAITING)]
        assert [one.sync for one in box.states()] == [Sync.WAITING] * 3
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        slow = over(service.client, lost=2)
        for _ in range(2):  # recorded, and the answer is lost
            [one] = box.send(slow)
            assert (one.name, one.sync) == ("e1", Sync.WAITING)
            assert service.stats().fingers == 10
        said = box.send(slow)
        assert [(one.name, one.decision) for one in said] == [
            ("e1", "UNIQUE"),
            ("e2", "UNIQUE"),
            ("e3", "DUPLICATE"),
        ]
        assert said[2].case_id
        assert service.stats().fingers == 30
        assert box.send(slow) == []
    with opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        assert box.states() == said  # what the service said, also after a restart
        assert not list((tmp_path / "spool").glob("e*.spool"))


def test_what_the_service_wants_again_reopens_the_session(tmp_path: Path) -> None:
    person = hands(1)
    index = Place(FINGERPRINT, FingerPosition.RIGHT_INDEX)
    faint = person[FingerPosition.RIGHT_INDEX]
    assert isinstance(faint, FingerprintTemplate)
    four = {name: getattr(faint, name)[:4] for name in ("x", "y", "direction", "ending", "reliability")}
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        # Good enough for the station's own measure, not for the service.
        fill(box.begin(began("e1", number=1)), person | {FingerPosition.RIGHT_INDEX: replace(faint, **four)})
        [one] = box.send(over(service.client))
        assert one.sync is Sync.REOPENED
        assert one.text.startswith("right index: ")
        assert service.stats().fingers == 0
        assert box.states()[0].sync is Sync.OPEN
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        of = box.resume("e1")
        assert of.advice[0].startswith("right index: ")
        assert of.step is not None
        assert of.open_places(of.step) == (index,)
        scanner = slap_scanner(shown(person))
        for verdict in (
            Verdict.AGAIN,
            Verdict.AGAIN,
            Verdict.ACCEPTED,
        ):  # the station's "good" was not enough
            result = of.capture(scanner)
            assert result.verdict is verdict
        of.seal()
        [one] = box.send(over(service.client))
        assert (one.sync, one.decision) == (Sync.RECORDED, "UNIQUE")


def test_what_the_service_sent_back_is_taken_all_the_same_by_the_operators_decision(tmp_path: Path) -> None:
    finger = hands(1)[FingerPosition.RIGHT_INDEX]
    assert isinstance(finger, FingerprintTemplate)
    four = {name: getattr(finger, name)[:4] for name in ("x", "y", "direction", "ending", "reliability")}
    person = hands(1) | {FingerPosition.RIGHT_INDEX: replace(finger, **four)}  # there is no more of it
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        fill(box.begin(began("e1", number=1)), person)
        assert box.send(over(service.client))[0].sync is Sync.REOPENED
        of = box.resume("e1")
        result = of.capture(slap_scanner(shown(person)))  # of quality 80
        assert (result.verdict, len(result.advice)) == (Verdict.AGAIN, 1)
        assert result.advice[0].startswith("right index: the service")
        assert of.take_poor().verdict is Verdict.ACCEPTED
        of = box.resume("e1")
        assert [place.code for place, taken in of.taken.items() if taken.poor] == [FingerPosition.RIGHT_INDEX]
        of.seal()
        [one] = box.send(over(service.client))
        assert (one.sync, one.decision) == (Sync.RECORDED, "UNIQUE")


def test_what_is_to_be_captured_again_is_kept_at_once_or_not_at_all() -> None:
    kept = Kept()
    of = session(kept)
    fill(of, hands(0))
    before = len(kept.records)
    again = [Place(FINGERPRINT, RIGHT_FOUR[0]), Place(FINGERPRINT, LEFT_FOUR[0])]
    of.reopen(again, ("the service says why",))
    assert len(kept.records) == before + 1  # no power cut falls between
    resumed = Session(kept.entries, OfTemplates(), kept)
    for one in (of, resumed):
        assert one.advice == ("the service says why",)
        assert one.sealed is None
        assert [p for step in one.steps for p in one.open_places(step)] == again


def test_what_the_service_refuses_stays_and_holds_up_nobody(tmp_path: Path) -> None:
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        wrong = Began("e1", "1234", "Sari", HANDS, NOW)
        fill(box.begin(wrong), hands(1))
        fill(box.begin(began("e2", number=2)), hands(2))
        refused, recorded = box.send(over(service.client))
        assert (refused.sync, recorded.decision) == (Sync.REFUSED, "UNIQUE")
        assert "nik" in refused.text.lower()
    with opened(tmp_path / "spool") as spool:
        assert Outbox(spool, OfTemplates()).states() == [recorded, refused]


def test_ten_fingers_take_two_kilobytes_of_the_services_memory_and_twenty_of_its_disk(tmp_path: Path) -> None:
    def after(people: range) -> int:
        """Bytes of everything in the service's folder, store and index, when these are enrolled as well."""
        with running(tmp_path) as service:
            for number in people:
                service.enroll(number, fingers(number, TEN_FINGERS))
            stats = service.stats()
            assert stats.fingers == len(TEN_FINGERS) * people.stop
            assert 1_000 < stats.finger_bytes_a_person < 2_000
        return sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    before = after(range(20))
    assert 15_000 < (after(range(20, 40)) - before) / 20 < 25_000


# Entries ------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_for_an_entry(data: bytes) -> None:
    with pytest.raises(SpoolDamaged):
        read_entry(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_altered_entries_are_refused_or_entries(data: st.DataObject) -> None:
    of = Kept()
    session(of).declare(Place(FINGERPRINT, 1), MissingReason.BANDAGED)
    kept = bytearray(data.draw(st.sampled_from(of.records)))
    for _ in range(data.draw(st.integers(1, 3))):
        kept[data.draw(st.integers(0, len(kept) - 1))] = data.draw(st.integers(0, 255))
    with suppress(SpoolDamaged):
        assert isinstance(read_entry(bytes(kept)), Began | Declared)


def test_a_session_without_its_beginning_is_refused() -> None:
    declared = Declared(FINGERPRINT, 1, MissingReason.BANDAGED)
    for entries in ((), (declared,), (began(), began())):
        with pytest.raises(SpoolDamaged):
            Session(entries, OfTemplates(), Kept())
