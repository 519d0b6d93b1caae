"""The capture session: one encounter at a station, from the first finger to the request that is sent.

    step -> capture -> examined -> the operator's own? -> taken before? -> best of n -> kept -> next step
                            everything taken or declared missing -> seal -> send (`rekam.station.outbox`)

A session is what its entries say: each is kept by `keep` (the spool: it is on the disk) before it counts, and
a session begun from the same entries is the same. Whatever a device does, the session goes on: a fault is a
`Result` like any other. Nothing is left out silently: what is asked for is taken whole, or the operator
declares what is missing and why.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import Base64Encoder, EncodedBytes, Field, TypeAdapter, ValidationError

from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.quality import Feedback, Quality
from devices.device import (
    Captured,
    CaptureSpec,
    Device,
    DeviceInfo,
    Hint,
    ShortCount,
    TimedOut,
    TryAgain,
)
from devices.errors import DeviceError
from devices.frame import DeviceKind, Positions
from devices.position import EyePosition, FingerPosition
from matching.encounter import encounter_form
from matching.face.calibration import face_calibration
from matching.face.comparison import FaceForm, compare_faces
from matching.fingerprint.hands import FingerForm, same_finger_twice
from matching.iris.comparison import IrisForm
from matching.iris.eyes import same_eye_twice
from rekam.capturing import Template, position_of, read_template
from rekam.errors import SpoolDamaged, WrongState
from rekam.exchange import MissingReason
from rekam.position import Position
from rekam.v1 import enrollment_pb2, types_pb2

Form = FingerForm | IrisForm | FaceForm
_Blob = Annotated[bytes, EncodedBytes(encoder=Base64Encoder)]


@dataclass(frozen=True, slots=True)
class Params:
    """`good`: quality from which nothing better is asked for; `best_of`: captures of which the best counts.

    `seconds`: how long the person has for each.
    """

    good: int = 60
    best_of: int = 3
    seconds: float = 20.0


PARAMS = Params()


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A finger, an eye, the face or the signature; `code` of fingers and eyes, which are equal as numbers."""

    kind: DeviceKind
    code: int = 0

    @property
    def position(self) -> Position:
        """The finger or the eye; None for the face."""
        if self.kind is DeviceKind.FINGERPRINT:
            return FingerPosition(self.code)
        return EyePosition(self.code) if self.kind is DeviceKind.IRIS else None

    @property
    def words(self) -> str:
        """As a person says it: `right index`, `left eye`, `face`, `signature`."""
        return self.kind.value if self.position is None else self.position.words


FACE = Place(DeviceKind.FACE)
SIGNATURE = Place(DeviceKind.SIGNATURE)


def places(kind: DeviceKind, positions: Positions) -> tuple[Place, ...]:
    """The places of fingers or eyes; the face or the signature where there are none."""
    return tuple(Place(kind, int(position)) for position in positions) or (Place(kind),)


def place_at(position: Position) -> Place:
    """The place of a finger, an eye or, where None, of the face."""
    match position:
        case FingerPosition():
            return Place(DeviceKind.FINGERPRINT, int(position))
        case EyePosition():
            return Place(DeviceKind.IRIS, int(position))
        case None:
            return FACE


@dataclass(frozen=True, slots=True)
class Step:
    """What is captured together where a device can, else one after another."""

    name: str
    places: tuple[Place, ...]

    @property
    def kind(self) -> DeviceKind:
        """The kind of device it needs."""
        return self.places[0].kind


PLAN = (
    Step("right four fingers", places(DeviceKind.FINGERPRINT, tuple(FingerPosition)[2:6])),
    Step("left four fingers", places(DeviceKind.FINGERPRINT, tuple(FingerPosition)[7:11])),
    Step("thumbs", places(DeviceKind.FINGERPRINT, (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB))),
    Step("irises", places(DeviceKind.IRIS, (EyePosition.RIGHT, EyePosition.LEFT))),
    Step("portrait", (FACE,)),
    Step("signature", (SIGNATURE,)),
)


def plan_of(kinds: Iterable[DeviceKind]) -> tuple[Step, ...]:
    """The steps of an office that captures only these kinds."""
    wanted = set(kinds)
    return tuple(step for step in PLAN if step.kind in wanted)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One place as one capture shows it: what will be sent, its template and quality.

    `image` is an encoded image or a record of ISO/IEC 19794; `template` is None for a signature, and where
    the image shows nothing to make one of. `ppi` of fingers whose image does not tell it.
    """

    place: Place
    image: bytes = field(repr=False)
    template: Template | None
    quality: Quality
    ppi: float | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A capture that cannot be used as what was asked for; `short`: it shows fewer, or others."""

    advice: str
    short: bool = False


class Examiner(Protocol):
    """Judges captures: the pipelines of `rekam.station.examiner`, or any other measure of quality."""

    def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
        """What a capture shows of what was asked for. Raises nothing that a picture could cause."""


class Verdict(StrEnum):
    """What became of one capture."""

    ACCEPTED = "accepted"
    AGAIN = "again"
    SHORT = "short"
    SAME = "same"
    OPERATOR = "operator"
    TIMED_OUT = "timed_out"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What became of a capture of `asked`, what to do now, and what was seen, as far as anything was.

    Nothing of it counts unless `verdict` is ACCEPTED; `tries` of them were made so far.
    """

    verdict: Verdict
    asked: tuple[Place, ...]
    advice: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()
    tries: int = 0


# Entries: what a session is made of ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Began:
    """The first entry. `kinds`: what this office captures; `card`: NIK and birth date are an e-KTP's."""

    name: str
    nik: str
    operator: str
    kinds: tuple[DeviceKind, ...]
    at: datetime
    birth_date: str = ""
    card: bool = False
    entry: Literal["began"] = "began"


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A place that was captured.

    `poor`: the operator took it although it is not usable here, or the service sent one back before.
    """

    kind: DeviceKind
    code: int
    image: _Blob = field(repr=False)
    template: _Blob = field(repr=False)
    quality: int
    ppi: float | None
    device: str
    tries: int
    poor: bool
    at: datetime
    entry: Literal["taken"] = "taken"

    @property
    def place(self) -> Place:
        """Which."""
        return Place(self.kind, self.code)


@dataclass(frozen=True, slots=True)
class Declared:
    """A place that the operator declared missing, and why."""

    kind: DeviceKind
    code: int
    reason: MissingReason
    entry: Literal["declared"] = "declared"


@dataclass(frozen=True, slots=True)
class Discarded:
    """A place that is to be captured, or declared, anew."""

    kind: DeviceKind
    code: int
    entry: Literal["discarded"] = "discarded"


@dataclass(frozen=True, slots=True)
class Widened:
    """More kinds that are captured than when it began."""

    kinds: tuple[DeviceKind, ...]
    entry: Literal["widened"] = "widened"


@dataclass(frozen=True, slots=True)
class Resumed:
    """Somebody else went on with it."""

    operator: str
    entry: Literal["resumed"] = "resumed"


@dataclass(frozen=True, slots=True)
class HolderSeen:
    """Whether who was captured holds the card, in words; `overruled`: the operator went on against it."""

    verdict: str
    overruled: bool
    at: datetime
    entry: Literal["holder"] = "holder"


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """The request as it is sent, and sent again, byte for byte, until it is answered."""

    request: _Blob = field(repr=False)
    entry: Literal["sealed"] = "sealed"


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused the request, in its words; `void`: it surely recorded nothing."""

    text: str
    void: bool
    entry: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Reopened:
    """The service recorded nothing and asks for these places once more."""

    again: tuple[Place, ...]
    advice: tuple[str, ...]
    entry: Literal["reopened"] = "reopened"


Entry = Began | Resumed | Widened | Taken | Declared | Discarded | HolderSeen | Sealed | Refused | Reopened
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="entry")])
Keep = Callable[[Entry], None]


def entry_bytes(entry: Entry) -> bytes:
    """An entry as it is kept: JSON, bytes in base 64."""
    return _ENTRY.dump_json(entry)


def read_entry(data: bytes) -> Entry:
    """An entry that was kept. Raises `SpoolDamaged`, and nothing else, whatever the bytes are."""
    try:
        return _ENTRY.validate_json(data)
    except ValidationError as error:
        raise SpoolDamaged("what was kept of a session cannot be read") from error


# The session ------------------------------------------------------------------------------------------


class Session:
    """One encounter that is being captured. Not thread-safe.

    `operator`: templates of whoever captures, whose own fingers, eyes and face are never taken for the
    person's. `keep` is called with each new entry and returns when it is safe.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        examiner: Examiner,
        keep: Keep,
        operator: Sequence[Template] = (),
        params: Params = PARAMS,
    ) -> None:
        if not entries or not isinstance(entries[0], Began):
            raise SpoolDamaged("a session has lost its beginning")
        self.began = entries[0]
        self.operator = self.began.operator  # whoever captures now
        self._examiner = examiner
        self._keep = keep
        self._params = params
        self._operator = [(place_of(template), _form(template)) for template in operator]
        self._taken: dict[Place, Taken] = {}
        self._forms: dict[Place, Form] = {}
        self._declared: dict[Place, MissingReason] = {}
        self._doubted: set[Place] = set()  # whose captures the service has sent back
        self._kinds = set(self.began.kinds)
        self.holder: HolderSeen | None = None
        self._sealed: Sealed | None = None
        self.refused: Refused | None = None
        self._requests = 0
        self.advice: tuple[str, ...] = ()
        self._best: dict[Place, Seen] = {}
        self._tries = 0
        for entry in entries[1:]:
            self._apply(entry)

    @classmethod
    def begin(
        cls,
        began: Began,
        examiner: Examiner,
        keep: Keep,
        operator: Sequence[Template] = (),
        params: Params = PARAMS,
    ) -> "Session":
        """A new session; its beginning is kept."""
        keep(began)
        return cls((began,), examiner, keep, operator, params)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What this office captures, in order."""
        return plan_of(self._kinds)

    @property
    def step(self) -> Step | None:
        """The first step of which something is neither taken nor declared missing; None at the end."""
        return next((step for step in self.steps if self.open_places(step)), None)

    @property
    def taken(self) -> dict[Place, Taken]:
        """What was accepted."""
        return dict(self._taken)

    @property
    def missing(self) -> dict[Place, MissingReason]:
        """What was declared missing."""
        return dict(self._declared)

    @property
    def sealed(self) -> bytes | None:
        """The request as it is sent; None while something may still change."""
        return None if self._sealed is None else self._sealed.request

    def open_places(self, step: Step) -> tuple[Place, ...]:
        """What of a step is neither taken nor declared missing."""
        return tuple(p for p in step.places if p not in self._taken and p not in self._declared)

    def spec(self, info: DeviceInfo) -> CaptureSpec:
        """What to ask this device for now: as much of the step as it can show at once.

        Raises `WrongState` where the session wants nothing, or nothing that this device captures.
        """
        step = self.step
        if step is None or step.kind is not info.kind:
            raise WrongState(f"the session wants {'nothing more' if step is None else step.name} now")
        wanted = self.open_places(step)
        shown = [places(info.kind, together) for together in info.positions] or [
            (place,) for place in step.places
        ]
        parts = [part for part in shown if set(part) <= set(step.places) and set(part) & set(wanted)]
        if not parts:
            raise WrongState(f"{info.id} captures none of {', '.join(place.words for place in wanted)}")
        part = max(parts, key=lambda one: len(set(one) & set(wanted)))
        asked = tuple(p for p in part if p not in self._declared)
        return CaptureSpec(
            positions=_positions(asked),
            missing=_positions(tuple(p for p in part if p in self._declared)),
            seconds=self._params.seconds,
            least_quality=self._params.good,
            transaction=self.began.name,
        )

    def capture(self, device: Device) -> Result:
        """Capture what is wanted once, and judge it. Raises `WrongState` as `spec` does, and `SpoolError`."""
        spec = self.spec(device.info)
        asked = places(device.info.kind, spec.positions)
        try:
            outcome = device.capture(spec)
        except DeviceError as fault:
            return Result(Verdict.FAULT, asked, (str(fault), "Check the device and capture again."))
        match outcome:
            case TimedOut():
                return Result(Verdict.TIMED_OUT, asked, ("Nothing was captured in time: try again.",))
            case TryAgain():
                advice = (ADVICE[outcome.hint], outcome.detail)
                return Result(Verdict.AGAIN, asked, tuple(filter(None, advice)), tries=self._tries)
            case ShortCount():
                return Result(Verdict.SHORT, asked, (_short(asked, outcome.got),), tries=self._tries)
            case Captured():
                return self.judge(outcome, asked)

    def judge(self, captured: Captured, asked: tuple[Place, ...]) -> Result:
        """What a capture of `asked` is worth; kept where it is accepted. Raises `SpoolError`."""
        self._require_open()
        # 1. What it shows, and whether that is what was asked for, no more and no less.
        seen = self._examiner.examine(captured, asked)
        if isinstance(seen, Unfit):
            verdict = Verdict.SHORT if seen.short else Verdict.AGAIN
            return Result(verdict, asked, (seen.advice,), tries=self._tries)
        if sorted(one.place for one in seen) != sorted(asked):
            return Result(Verdict.SHORT, asked, (_short(asked, len(seen)),), tries=self._tries)
        # 2. Whose it is: not the operator's, and nothing that was taken before under another name.
        forms = {one.place: _form(one.template) for one in seen if one.template is not None}
        if own := self._of_operator(forms):
            return Result(Verdict.OPERATOR, asked, own, seen, self._tries)
        if twice := self._twice(forms):
            return Result(Verdict.SAME, asked, twice, seen, self._tries)
        # 3. The best of several, each place by itself, of captures that agree which is which.
        if set(self._best) != set(asked):
            self._best, self._tries = {}, 0
        if crossed := self._crossed(forms):
            self._best, self._tries = {}, 0  # nobody knows which of the captures has the names right
            return Result(Verdict.SAME, asked, crossed, seen)
        self._tries += 1
        for one in seen:
            before = self._best.get(one.place)
            if before is None or _merit(one) > _merit(before):
                self._best[one.place] = one
        wanted = self._wanted()
        poor = tuple(one for one in wanted if not _usable(one) or one.quality.score < self._params.good)
        doubted = tuple(one for one in wanted if one.place in self._doubted)
        several = max(self._params.best_of, 2 if doubted else 1)  # between them the operator is asked
        enough = self._tries >= several and all(map(_usable, wanted))
        if (poor or doubted) and not enough:
            advice = _advice(poor) + tuple(
                f"{one.place.words}: the service has sent one back, so the best of several counts."
                for one in doubted
            )
            return Result(Verdict.AGAIN, asked, advice, seen, self._tries)
        # 4. Kept.
        return self._accept(poor=False)

    def take_poor(self) -> Result:
        """Take the best of the captures made, by the operator's decision: the person has nothing better.

        The service is told so of what is not usable here and of what it has sent back before.

        Raises `WrongState` where there is none that shows anything, or that shows several faces.
        """
        self._require_open()
        wanted = self._wanted()
        if not wanted or not all(map(_presentable, wanted)):
            raise WrongState("there is no capture that could be taken: capture again, or declare it missing")
        return self._accept(poor=True)

    def declare(self, place: Place, reason: MissingReason) -> None:
        """Declare missing what cannot be captured, with the operator's reason. Raises `WrongState`."""
        self._require_open()
        if place not in {p for step in self.steps for p in step.places} or place in self._taken:
            raise WrongState(f"the {place.words} is not wanted, or is taken: discard it first")
        self._add(Declared(place.kind, place.code, reason))

    def discard(self, place: Place) -> None:
        """Capture, or declare, a place anew. Raises `WrongState`."""
        self._require_open()
        if place not in self._taken and place not in self._declared:
            raise WrongState(f"the {place.words} is neither taken nor declared missing")
        self._add(Discarded(place.kind, place.code))

    def taken_over(self, operator: str) -> None:
        """Somebody captures from here on; kept where it was another operator before."""
        self._require_open()
        if operator != self.operator:
            self._add(Resumed(operator))

    def widen(self, kinds: Iterable[DeviceKind]) -> None:
        """Capture these kinds as well: the office does now, as the service may have asked for."""
        self._require_open()
        if more := tuple(kind for kind in kinds if kind not in self._kinds):
            self._add(Widened(more))

    def keep_holder(self, verdict: str, *, overruled: bool) -> None:
        """Whether the card's holder is who was captured; it has to be found anew when that changes."""
        self._require_open()
        self._add(HolderSeen(verdict, overruled, datetime.now(UTC)))

    def seal(self) -> bytes:
        """The finished session as the request to be sent; nothing of it changes from here on.

        A session that was sealed before and not reopened gives the same bytes. Raises `WrongState` where
        something is left to capture, or whether the card is the person's is not known.
        """
        if self._sealed is None:
            if (step := self.step) is not None:
                left = ", ".join(place.words for place in self.open_places(step))
                raise WrongState(f"{step.name}: neither captured nor declared missing: {left}")
            if self.began.card and self.holder is None:
                raise WrongState("who was captured was not compared with the holder of the card")
            self._add(Sealed(self._request().SerializeToString(deterministic=True)))
        assert self._sealed is not None
        return self._sealed.request

    def refuse(self, text: str, *, void: bool) -> None:
        """The service refused the request; kept where it did not say the same before. Raises `WrongState`."""
        if self._sealed is None:
            raise WrongState("the session was not sent")
        if self.refused != (said := Refused(text, void)):
            self._add(said)

    def reopen(self, again: Sequence[Place], advice: Sequence[str]) -> None:
        """The service recorded nothing and wants these places once more. Raises `WrongState`."""
        if self._sealed is None:
            raise WrongState("the session was not sent")
        self._add(Reopened(tuple(place for place in again if place in self._taken), tuple(advice)))

    def _add(self, entry: Entry) -> None:
        self._keep(entry)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        match entry:
            case Taken():
                place = entry.place
                self._taken[place] = entry
                self._declared.pop(place, None)
                self.holder = None
                if entry.template:
                    self._forms[place] = _form(read_template(place.position, entry.template))
            case Declared():
                self._declared[Place(entry.kind, entry.code)] = entry.reason
            case Discarded():
                self._drop(Place(entry.kind, entry.code))
            case HolderSeen():
                self.holder = entry
            case Resumed():
                self.operator = entry.operator
            case Widened():
                self._kinds.update(entry.kinds)
            case Sealed():
                self._sealed, self._requests = entry, self._requests + 1
            case Refused():
                self.refused = entry
            case Reopened():
                self.refused = None
                self._sealed, self.advice = None, entry.advice
                self._doubted.update(entry.again)
                for place in entry.again:
                    self._drop(place)
            case Began():
                raise SpoolDamaged("a session begins twice")
        if not isinstance(entry, Sealed | Reopened):
            self._best, self._tries = {}, 0

    def _drop(self, place: Place) -> None:
        for kept in (self._taken, self._forms, self._declared):
            kept.pop(place, None)
        self.holder = None

    def _require_open(self) -> None:
        if self._sealed is not None:
            raise WrongState("the session is finished and waits to be sent")

    def _wanted(self) -> tuple[Seen, ...]:
        """The best of the captures made, of what is not taken yet."""
        return tuple(one for place, one in self._best.items() if place not in self._taken)

    def _better(self, one: Seen) -> bool:
        """Whether this beats what was taken of its place, if anything was."""
        before = self._taken.get(one.place)
        if before is None:
            return True
        usable = not before.poor or one.place in self._doubted  # where `poor` need not mean not usable
        return _merit(one) > (usable, True, before.quality)

    def _accept(self, *, poor: bool) -> Result:
        """Keep the best of the captures made. The operator's decision for a place stays with it."""
        best = tuple(filter(self._better, self._best.values()))
        tries, now = self._tries, datetime.now(UTC)
        for one in best:
            before = self._taken.get(one.place)
            decided = poor if before is None else before.poor
            self._add(
                Taken(
                    kind=one.place.kind,
                    code=one.place.code,
                    image=one.image,
                    template=b"" if one.template is None else one.template.to_bytes(),
                    quality=one.quality.score,
                    ppi=one.ppi,
                    device=one.device,
                    tries=tries,
                    poor=decided and (not _usable(one) or one.place in self._doubted),
                    at=now,
                )
            )
        return Result(Verdict.ACCEPTED, tuple(one.place for one in best), (), best, tries)

    def _of_operator(self, forms: dict[Place, Form]) -> tuple[str, ...]:
        return tuple(
            f"The {place.words} is an operator's own {own.words}: nothing of it is kept."
            for place, form in forms.items()
            for own, operators in self._operator
            if _same(form, operators)
        )

    def _twice(self, forms: dict[Place, Form]) -> tuple[str, ...]:
        """Each of these against what was taken before under another name, and against each other."""
        shown = list(forms.items())
        return tuple(
            f"The {place.words} is the same as the {other.words}, which {when}."
            for number, (place, form) in enumerate(shown)
            for when, others in (
                ("was taken before", self._forms.items()),
                ("is shown beside it", shown[:number]),
            )
            for other, before in others
            if other != place and _same(form, before)
        )

    def _crossed(self, forms: dict[Place, Form]) -> tuple[str, ...]:
        """Each of these against what captures before showed as another place of the same step."""
        shown = [(p, _form(one.template)) for p, one in self._best.items() if one.template is not None]
        return tuple(
            f"The {place.words} is the same as the {other.words} of a capture before: show all again."
            for place, form in forms.items()
            for other, before in shown
            if other != place and _same(form, before)
        )

    def _request(self) -> enrollment_pb2.EnrollRequest:
        began = self.began
        request = enrollment_pb2.EnrollRequest(
            request_id=f"{began.name}-{self._requests + 1}", nik=began.nik, birth_date=began.birth_date
        )
        in_order = [place for step in self.steps for place in step.places]
        for taken in (self._taken[place] for place in in_order if place in self._taken):
            if taken.place == SIGNATURE:
                request.signature = taken.image
            else:
                request.samples.append(_sample(taken))
        for place in (place for place in in_order if place in self._declared):
            reason = types_pb2.MissingReason.Value(f"MISSING_REASON_{self._declared[place].name}")
            match place.position:
                case FingerPosition() as finger:
                    position = types_pb2.FingerPosition.ValueType(finger)
                    request.missing.append(types_pb2.MissingFinger(position=position, reason=reason))
                case EyePosition() as eye:
                    code = types_pb2.EyePosition.ValueType(eye)
                    request.missing_eyes.append(types_pb2.MissingEye(position=code, reason=reason))
                case None if place == FACE:
                    request.missing_face = reason
                case None:
                    request.missing_signature = reason
        return request


ADVICE = {
    Hint.TOO_SHORT: "Keep the finger on the sensor a little longer.",
    Hint.CENTER_FINGER: "Place the finger in the middle of the sensor.",
    Hint.REMOVE_FINGER: "Lift the finger and place it once more.",
    Hint.GENERAL: "Try again.",
    Hint.LOW_QUALITY: "The quality is low: clean the sensor, keep still and try again.",
    Hint.WRONG_POSITION: "This is not what was asked for: present the right one.",
}
"""What each hint of a device says, in words."""


def _short(asked: tuple[Place, ...], got: int) -> str:
    words = ", ".join(place.words for place in asked)
    return f"{got} of {len(asked)} were seen ({words}): capture all again, or declare what is missing."


def _advice(poor: Sequence[Seen]) -> tuple[str, ...]:
    """What to do better, place by place, the worst first."""
    said = []
    for one in sorted(poor, key=_merit):
        advice = " ".join(feedback.advice for feedback in one.quality.feedback[:2])
        advice = advice or ("Usable, better is wanted: try again." if _usable(one) else "Try again.")
        said.append(f"{one.place.words}, quality {one.quality.score}: {advice}")
    return tuple(said)


def _merit(seen: Seen) -> tuple[bool, bool, int]:
    """What is usable before what could be sent, that before what could not, the better one first."""
    return _usable(seen), _presentable(seen), seen.quality.score


def _usable(seen: Seen) -> bool:
    return seen.quality.usable and (seen.template is not None or seen.place == SIGNATURE)


def _presentable(seen: Seen) -> bool:
    """Whether the service could take it, best effort: there is a template, and of one person."""
    return Feedback.SEVERAL_FACES not in seen.quality.feedback and (
        seen.template is not None or seen.place == SIGNATURE
    )


def _positions(asked: tuple[Place, ...]) -> Positions:
    fingers = tuple(FingerPosition(p.code) for p in asked if p.kind is DeviceKind.FINGERPRINT)
    return fingers or tuple(EyePosition(p.code) for p in asked if p.kind is DeviceKind.IRIS)


def place_of(template: Template) -> Place:
    """Where a template is from."""
    return place_at(position_of(template))


def _form(template: Template) -> Form:
    """Ready to be compared; 1 ms."""
    match template:
        case FingerprintTemplate():
            return encounter_form([template]).fingers[0]
        case IrisTemplate():
            return encounter_form((), [template]).irises[0]
        case FaceTemplate():
            form = encounter_form((), (), template).face
            assert form is not None
            return form


def _same(a: Form, b: Form) -> bool:
    """Whether two forms are of one finger, one eye or one face, beyond all impostors of the calibration."""
    if isinstance(a, FingerForm) and isinstance(b, FingerForm):
        return bool(same_finger_twice((a, b)))
    if isinstance(a, IrisForm) and isinstance(b, IrisForm):
        return bool(same_eye_twice((a, b)))
    if isinstance(a, FaceForm) and isinstance(b, FaceForm) and a.embedder == b.embedder:
        calibration = face_calibration(a.embedder)
        return compare_faces(a, b) >= calibration.threshold(calibration.fmrs[-1])
    return False


def _sample(taken: Taken) -> types_pb2.Sample:
    made = types_pb2.Sample(image=taken.image, ppi=taken.ppi or 0, best_effort=taken.poor)
    match taken.place.position:
        case FingerPosition() as finger:
            made.modality = types_pb2.MODALITY_FINGERPRINT
            made.finger = types_pb2.FingerPosition.ValueType(finger)
        case EyePosition() as eye:
            made.modality = types_pb2.MODALITY_IRIS
            made.eye = types_pb2.EyePosition.ValueType(eye)
        case None:
            made.modality = types_pb2.MODALITY_FACE
    return made
