"""What people wait for at a workstation, in benchmarks/results/station.json, a section a subcommand.

    python -m benchmarks.station ten-fingers [--people 12] [--others 1000]
    python -m benchmarks.station preview [--seconds 10]

`ten-fingers`, from capture to result: slaps of made-up people (four, four and two fingers) come out of
cameras of whole slaps, each in a process of its own, and go through segmentation, quality, session, encrypted
spool and gRPC to the decision of a server with `others` in its gallery. The clock begins with the first call
to capture and ends when the decision is in the spool; its parts do not overlap. Devices and server are up
before, a first person is not counted, and how long people take to lay down their hands is not in it.

`preview`: MJPEG files of 30 frames a second through a camera's process to quality, advice and the bar in the
terminal, as `rekam capture` shows them, all processes on one core. Fingers are judged by the station's own
quality, although it shows no preview of them.
"""

import io
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks import synthetic_irises, synthetic_prints
from benchmarks.encounters import enroll_request, made_up_nik
from benchmarks.population import TEN_FINGERS, person
from benchmarks.provenance import ROOT, keep_section, spread
from benchmarks.server_process import server
from benchmarks.synthetic_portraits import portrait
from benchmarks.synthetic_slaps import LEFT_FOUR, RIGHT_FOUR, THUMBS, Kind, drawn_slap, hands
from capture.quality import Feedback, Quality
from devices.device import Captured, CaptureSpec
from devices.frame import DeviceKind, Frame
from devices.opencv_camera import OpencvDriver
from devices.position import EyePosition, FingerPosition
from devices.supervisor import OpenDevice, Supervisor
from rekam.client import Client
from rekam.exchange import MissingReason
from rekam.session import Began, Place, Seen, Session, Unfit, places, plan_of
from rekam.spool import Spool
from rekam.station.attendance import Attendance
from rekam.station.attendance import Params as AttendanceParams
from rekam.station.examiner import PipelineExaminer
from rekam.station.outbox import Outbox
from rekam.station.terminal import Terminal

RESULTS = ROOT / "benchmarks" / "results" / "station.json"
SEED = 4_000
STEPS = tuple(zip(plan_of([DeviceKind.FINGERPRINT]), (RIGHT_FOUR, LEFT_FOUR, THUMBS), strict=True))
SLAPS = 4  # captures of each that the scanner has ready, one after the other
MOST_CAPTURES = 20
app = typer.Typer(add_completion=False)


# Ten fingers, from capture to result -----------------------------------------------------------------------


class Clock:
    """Wall seconds by part, each without the parts within it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within = [0.0]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside is of this part."""
        begun = time.monotonic()
        self._within.append(0.0)
        try:
            yield
        finally:
            spent = time.monotonic() - begun
            self.seconds[name] += spent - self._within.pop()
            self._within[-1] += spent


class TimedExaminer(PipelineExaminer):
    """The station's examiner under a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
        """What a capture shows."""
        with self.clock.part("segmentation"):
            return super().examine(captured, asked)

    def judged(self, place: Place, image: bytes, ppi: float | None = None, device: str = "") -> Seen:
        """One finger."""
        with self.clock.part("templates and quality"):
            return super().judged(place, image, ppi, device)


class TimedSpool(Spool):
    """The station's spool under the same clock."""

    examiner: TimedExaminer

    def append(self, name: str, record: bytes) -> None:
        """One entry."""
        with self.examiner.clock.part("spool"):
            super().append(name, record)

    def settle(self, name: str, outcome: str) -> None:
        """The end of an encounter."""
        with self.examiner.clock.part("spool"):
            super().settle(name, outcome)


@app.command()
def ten_fingers(people: int = 12, others: int = 1000) -> None:
    """Capture to result of an encounter of ten fingers, in parts."""
    rows: list[dict[str, float]] = []
    captures: list[float] = []
    decisions: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as held:
        folder = Path(scratch)
        service = held.enter_context(server(folder))
        client = held.enter_context(Client(service.address))
        for number in range(others):
            request = enroll_request(
                f"other-{number}", made_up_nik(number), person(number, SEED, TEN_FINGERS)
            )
            client.enrollment.Enroll(request, timeout=120)
        examiner = TimedExaminer()
        spool = held.enter_context(TimedSpool.open(folder / "spool", "a passphrase of the benchmark"))
        spool.examiner = examiner
        box = Outbox(spool, examiner)
        for number in range(people + 1):
            drivers = _scanners(folder / f"person-{number}", SEED + number)
            with Supervisor(drivers) as supervisor:
                devices = [supervisor.open(info.provenance.driver, info.id) for info in supervisor.devices()]
                row, made, decision = _encounter(
                    box, client, examiner, devices, number, made_up_nik(others + number)
                )
            if number:
                rows.append(row)
                captures.append(made)
                decisions.append(decision)
    figures = {
        "people": people,
        "others": others,
        "seconds": {name: spread([row.get(name, 0.0) for row in rows]) for name in rows[0]},
        "captures": spread(captures),
        "decisions": {one: decisions.count(one) for one in sorted(set(decisions))},
    }
    keep_section(RESULTS, "ten fingers", figures)
    assert set(decisions) == {"UNIQUE"}, "people who do not exist were taken for each other"


def _encounter(
    box: Outbox,
    client: Client,
    examiner: TimedExaminer,
    devices: list[OpenDevice],
    number: int,
    nik: str,
) -> tuple[dict[str, float], int, str]:
    """Seconds of one encounter in parts, how many captures it took, and its decision."""
    session = box.begin(
        Began(f"benchmark-{number}", nik, "benchmark", (DeviceKind.FINGERPRINT,), datetime.now(UTC))
    )
    examiner.clock = clock = Clock()
    captures, begun = 0, time.monotonic()
    busy, theirs = time.process_time(), _children_seconds()
    with clock.part("session"):
        while (step := session.step) is not None:
            device = next(one for one in devices if one.info.provenance.driver == step.name)
            spec = session.spec(device.info)
            with clock.part("device"):
                outcome = device.capture(spec)
            assert isinstance(outcome, Captured)
            session.judge(outcome, places(device.info.kind, spec.positions))
            captures += 1
            assert captures < MOST_CAPTURES, f"{step.name} of person {number} cannot be captured"
        session.seal()
    with clock.part("service"):
        [sent] = box.send(client)
    row = {"capture to result": time.monotonic() - begun, **dict(sorted(clock.seconds.items()))}
    row["processor of the station"] = time.process_time() - busy
    row["processor of service and devices"] = _children_seconds() - theirs
    return row, captures, sent.decision


def _scanners(folder: Path, owner: int) -> list[OpencvDriver]:
    """A camera of whole slaps for each step, which shows this person's."""
    person_hands = hands(owner)
    for step, fingers in STEPS:
        (folder / step.name).mkdir(parents=True)
        for number in range(SLAPS):
            drawn = drawn_slap(person_hands, fingers, Kind.PLAIN, 10 * owner + number)
            Image.fromarray(drawn.image).save(folder / step.name / f"{number}.png")
    return [
        OpencvDriver((folder / step.name,), DeviceKind.FINGERPRINT, step.name, (fingers,))
        for step, fingers in STEPS
    ]


# Preview with quality --------------------------------------------------------------------------------------


class Watcher(Terminal):
    """The terminal, which counts for `seconds` from the first frame on what it shows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Console(file=io.StringIO(), force_terminal=True), unattended=True, patience=1)
        self._seconds = seconds
        self._begun = 0.0
        self._busy = (0.0, 0.0)
        self._ages: list[float] = []
        self.figures: dict[str, object] = {}

    def live(self, frame: Frame, quality: Quality, advice: tuple[Feedback, ...]) -> None:
        """One frame that a person sees, with its quality."""
        super().live(frame, quality, advice)
        if not self._begun:
            self._begun, self._busy = time.monotonic(), (time.process_time(), _children_seconds())
        spent = time.monotonic() - self._begun
        self._ages.append((datetime.now(UTC) - frame.taken_at).total_seconds())
        if spent >= self._seconds and not self.figures:
            ours, theirs = (
                now - then
                for now, then in zip((time.process_time(), _children_seconds()), self._busy, strict=True)
            )
            frames = len(self._ages) - 1
            self.figures = {
                "frames_per_second": round(frames / spent, 1),
                "age_seconds": spread(self._ages),
                "core_milliseconds_a_frame_station": round(1000 * ours / frames, 1),
                "core_milliseconds_a_frame_device_processes": round(1000 * theirs / frames, 1),
            }


@app.command()
def preview(seconds: float = 10.0) -> None:
    """Frames a second with quality and advice, their age, and the processor time."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    figures: dict[str, object] = {}
    for width, height in ((640, 480), (1280, 720), (1920, 1080)):
        faces = [_before_a_wall(portrait(SEED, number), width, height) for number in range(15)]
        figures[f"portrait {width} x {height}"] = _attended(faces, DeviceKind.FACE, seconds)
    eyes = [synthetic_irises.capture(SEED, number).image.repeat(2, 0).repeat(2, 1) for number in range(15)]
    figures["eye 640 x 560"] = _attended(eyes, DeviceKind.IRIS, seconds)
    index = synthetic_prints.finger(SEED, FingerPosition.RIGHT_INDEX)
    prints = [synthetic_prints.impression(index, number) for number in range(15)]
    height, width = prints[0].shape
    figures[f"finger {width} x {height}"] = _finger(prints, seconds)
    keep_section(RESULTS, "preview with quality", figures)


def _attended(pictures: list[NDArray[np.uint8]], kind: DeviceKind, seconds: float) -> dict[str, object]:
    """A portrait or the right eye, watched as in a session that waits for more good frames than come."""
    with _camera(pictures, kind) as supervisor:
        session = Session.begin(
            Began("preview", made_up_nik(0), "benchmark", (kind,), datetime.now(UTC)),
            PipelineExaminer(),
            lambda entry: None,
        )
        if kind is DeviceKind.IRIS:
            session.declare(Place(kind, EyePosition.LEFT), MissingReason.NOT_CAPTURED)
        params = AttendanceParams(steady=10**9, watch_seconds=seconds + 1)
        with (
            Watcher(seconds) as watcher,
            Attendance(supervisor, PipelineExaminer(), watcher, params) as station,
        ):
            station.attend(session)
    return watcher.figures


def _finger(pictures: list[NDArray[np.uint8]], seconds: float) -> dict[str, object]:
    """A single finger by the station's quality."""
    examiner, place = PipelineExaminer(), Place(DeviceKind.FINGERPRINT, FingerPosition.RIGHT_INDEX)
    with _camera(pictures, DeviceKind.FINGERPRINT) as supervisor, Watcher(seconds) as watcher:
        [info] = supervisor.devices()
        device = supervisor.open(info.provenance.driver, info.id)
        for frame in device.preview(CaptureSpec((FingerPosition.RIGHT_INDEX,))):
            quality = examiner.quality(frame, place)
            watcher.live(frame, quality, quality.feedback)
            if watcher.figures:
                break
    return watcher.figures


@contextmanager
def _camera(pictures: list[NDArray[np.uint8]], kind: DeviceKind) -> Iterator[Supervisor]:
    """A camera that shows these again and again, 30 a second."""
    with tempfile.TemporaryDirectory() as folder:
        path, (height, width) = Path(folder) / "camera.avi", pictures[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (width, height))
        for picture in pictures:
            colours = cv2.COLOR_RGB2BGR if picture.ndim == 3 else cv2.COLOR_GRAY2BGR
            writer.write(cv2.cvtColor(picture, colours))
        writer.release()
        with Supervisor([OpencvDriver((path,), kind)]) as supervisor:
            yield supervisor


def _before_a_wall(face: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The portrait as high as the frame, in its middle."""
    fitted = cv2.resize(face, (height * face.shape[1] // face.shape[0], height), interpolation=cv2.INTER_AREA)
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = fitted[4, 4]
    left = (width - fitted.shape[1]) // 2
    frame[:, left : left + fitted.shape[1]] = fitted
    return frame


def _children_seconds() -> float:
    """Processor seconds of the processes that this one started and that run."""
    spent = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(fields[1]) == os.getpid():
            spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    app()
