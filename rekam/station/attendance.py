"""An encounter attended: for each step a device is found, watched and asked, until nothing is left.

The devices are the supervisor's; nothing here ends because of one. What cannot go on without a person's
decision is put to `Operator`.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from capture.best_frame import FrameChoice
from capture.quality import Feedback, Quality
from devices.device import Captured, CaptureSpec, DeviceInfo
from devices.errors import DeviceError
from devices.frame import DeviceKind, Frame
from devices.supervisor import OpenDevice, Supervisor
from rekam.errors import WrongState
from rekam.exchange import MissingReason
from rekam.session import Place, Result, Session, Step, Verdict, places
from rekam.station.examiner import PipelineExaminer


@dataclass(frozen=True, slots=True)
class Params:
    """`steady`: good frames in a row after which a picture is taken; `watch_seconds` at most.

    `cameras`: how the names of drivers begin whose devices are watched, not asked; others judge themselves.
    """

    steady: int = 6
    watch_seconds: float = 20.0
    plug_seconds: float = 5.0
    poll_seconds: float = 0.2
    cameras: tuple[str, ...] = ("opencv", "genicam")


PARAMS = Params()


class Choice(StrEnum):
    """What an operator decides. AGAIN: capture, or where nothing is left, finish."""

    AGAIN = "again"
    POOR = "poor"
    MISSING = "missing"
    DISCARD = "discard"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice; `places` and `reason` of what is missing, `places` of what is discarded."""

    choice: Choice
    places: tuple[Place, ...] = ()
    reason: MissingReason | None = None


class Operator(Protocol):
    """Whoever sits at the station: sees what happens, and decides."""

    def begins(self, session: Session, step: Step, device: DeviceInfo) -> None:
        """A device is asked now."""

    def live(self, frame: Frame, quality: Quality, advice: tuple[Feedback, ...]) -> None:
        """One frame of a preview."""

    def result(self, session: Session, result: Result) -> None:
        """What became of a capture."""

    def decide(self, session: Session, step: Step | None, result: Result | None) -> Decision:
        """What to do after a capture that was not accepted, or where no device is there.

        Also before the first capture of a step, without `result`, and without `step` before the end.
        """


class Assistant(Protocol):
    """Watches a stream: `capture.face.assist` and `capture.iris.assist`."""

    def __call__(self, frame: Frame) -> tuple[Quality, tuple[Feedback, ...]]:
        """Quality of this frame, and the advice to show."""


class Attendance:
    """Leads sessions through the devices of one supervisor, until it is closed. Not thread-safe."""

    def __init__(
        self,
        supervisor: Supervisor,
        examiner: PipelineExaminer,
        operator: Operator,
        params: Params = PARAMS,
    ) -> None:
        self._supervisor = supervisor
        self._examiner = examiner
        self._operator = operator
        self._params = params
        self._open: dict[tuple[str, str], OpenDevice] = {}
        self._faults: Counter[tuple[str, str, str]] = Counter()  # by step, driver and device

    def attend(self, session: Session) -> bool:
        """Capture until nothing is left; False where the operator stopped, and it waits in the spool."""
        offered: list[Step | None] = []  # the step that the operator has said to capture, or to finish
        while True:
            step, result = session.step, None
            if offered == [step]:
                if step is None:
                    return True
                result = self._captured(session, step)
                self._operator.result(session, result)
                if result.verdict is Verdict.ACCEPTED:
                    continue
            match self._operator.decide(session, step, result):
                case Decision(Choice.STOP):
                    return False
                case Decision(Choice.AGAIN):
                    offered = [step]
                case decision:
                    self._carry_out(session, decision)

    def close(self) -> None:
        """Let go of the devices."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _carry_out(self, session: Session, decision: Decision) -> None:
        try:
            match decision:
                case Decision(Choice.POOR):
                    self._operator.result(session, session.take_poor())
                case Decision(Choice.MISSING, missing, MissingReason() as reason):
                    for place in missing:
                        session.declare(place, reason)
                case Decision(Choice.DISCARD, taken):
                    for place in taken:
                        session.discard(place)
        except WrongState as error:
            self._operator.result(session, Result(Verdict.AGAIN, decision.places, (str(error),)))

    def _captured(self, session: Session, step: Step) -> Result:
        asked = session.open_places(step)
        info = self._device(session, step)
        if info is None:
            advice = f"No device captures {', '.join(p.words for p in asked)}: plug one in."
            return Result(Verdict.FAULT, asked, (advice,))
        self._operator.begins(session, step, info)
        try:
            result = self._captured_by(session, info)
        except DeviceError as fault:
            result = Result(Verdict.FAULT, asked, (str(fault), "Check the device and capture again."))
        self._faults[_key(step, info)] += result.verdict is Verdict.FAULT
        return result

    def _captured_by(self, session: Session, info: DeviceInfo) -> Result:
        device = self._opened(info)
        camera = info.provenance.driver.startswith(self._params.cameras)
        if not camera or info.kind not in (DeviceKind.FACE, DeviceKind.IRIS):
            return session.capture(device)
        # A camera's frames are as good as its capture: the best of them is taken.
        spec = session.spec(info)
        best = self._watched(spec, info, device)
        asked = places(info.kind, spec.positions)
        if best is None:
            return Result(Verdict.TIMED_OUT, asked, ("The camera showed nothing.",))
        return session.judge(Captured((best,)), asked)

    def _device(self, session: Session, step: Step) -> DeviceInfo | None:
        """The device that failed least in this step; of several, the one that shows most of it at once.

        One that is plugged in now is waited for; one that was pulled is new when it comes back.
        """
        until = time.monotonic() + self._params.plug_seconds
        while True:
            there = self._supervisor.devices()
            self._forget_all_but({(info.provenance.driver, info.id) for info in there})
            fitting = [
                (-self._faults[_key(step, info)], len(spec.positions), info)
                for info in there
                if (spec := _spec(session, info)) is not None
            ]
            if fitting:
                return max(fitting, key=lambda one: one[:2])[2]
            if time.monotonic() >= until:
                return None
            time.sleep(self._params.poll_seconds)

    def _forget_all_but(self, there: set[tuple[str, str]]) -> None:
        self._faults = Counter({key: times for key, times in self._faults.items() if key[1:] in there})
        for gone in self._open.keys() - there:
            self._open.pop(gone).close()

    def _opened(self, info: DeviceInfo) -> OpenDevice:
        """Opened once; after a fault the supervisor's device opens itself anew."""
        key = info.provenance.driver, info.id
        if key not in self._open:
            self._open[key] = self._supervisor.open(*key)
        return self._open[key]

    def _watched(self, spec: CaptureSpec, info: DeviceInfo, device: OpenDevice) -> Frame | None:
        """The best frame of a preview, which ends when several in a row were good or the time is over."""
        assistant = _assistant(info.kind)
        choice, steady = FrameChoice(), 0
        until = time.monotonic() + min(spec.seconds, self._params.watch_seconds)
        with _closing(device.preview(spec)) as frames:
            for frame in frames:
                quality, advice = assistant(frame)
                choice.show(frame, quality)
                self._operator.live(frame, quality, advice)
                good = quality.usable and quality.score >= spec.least_quality and not advice
                steady = steady + 1 if good else 0
                if steady >= self._params.steady or time.monotonic() >= until:
                    break
        asked = places(info.kind, spec.positions)[0]
        best = choice.best(lambda frame: self._examiner.quality(frame, asked))
        return None if best is None else best.frame


def _key(step: Step, info: DeviceInfo) -> tuple[str, str, str]:
    return step.name, info.provenance.driver, info.id


def _spec(session: Session, info: DeviceInfo) -> CaptureSpec | None:
    try:
        return session.spec(info)
    except WrongState:
        return None


def _assistant(kind: DeviceKind) -> Assistant:
    if kind is DeviceKind.FACE:
        from capture.face.assist import FaceAssistant

        face = FaceAssistant()

        def look_at_face(frame: Frame) -> tuple[Quality, tuple[Feedback, ...]]:
            seen = face.look(frame.pixels)
            return seen.quality, seen.advice

        return look_at_face
    from capture.iris.assist import IrisAssistant

    iris = IrisAssistant()

    def look_at_eye(frame: Frame) -> tuple[Quality, tuple[Feedback, ...]]:
        grey = frame.pixels if frame.pixels.ndim == 2 else frame.pixels[..., 0]
        seen = iris.look(grey)
        return seen.quality, seen.advice

    return look_at_eye


@contextmanager
def _closing(frames: Iterator[Frame]) -> Iterator[Iterator[Frame]]:
    try:
        yield frames
    finally:
        if isinstance(frames, Generator):
            frames.close()
