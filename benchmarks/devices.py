"""What devices stand and cost, in benchmarks/results/devices.json, a section a subcommand.

    python -m benchmarks.devices workers [--kills 100]
    python -m benchmarks.devices preview [--seconds 10]
    python -m benchmarks.devices cards [--insertions 1000] [--changes 50] [--restarts 100] [--commands 5000]

`workers` kills processes of every adapter over its real stack (the places of the contract suite): of the
search, of the open device, idle and in the middle of a capture, a preview or waiting for a card. It counts
what the supervisor tells of it and what is left. `preview` shows MJPEG files of 30 frames a
second through a worker, to a consumer that keeps up and to one that does not, and sends the same frames
through shared memory and through a socket alone. `cards`: see `benchmarks/cards.py`.
"""

import os
import pickle
import random
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.cards import PATIENCE, Lost, left_behind, stressed, text_of
from benchmarks.provenance import ROOT, keep_section, spread
from devices.device import CaptureSpec
from devices.errors import DeviceError, DeviceStuck
from devices.frame import DeviceKind, Frame, Provenance
from devices.opencv_camera import OpencvDriver
from devices.supervisor import Failed, OpenDevice, OpenReader, Params, Recovered, Supervisor
from devices.worker import _Channel
from tests.device_places import PLACES, READERS, DevicePlace

RESULTS = ROOT / "benchmarks" / "results" / "devices.json"
SIZES = ((640, 480), (1920, 1080))
SPEC = CaptureSpec()
SEED = 6
app = typer.Typer(add_completion=False)
_Told = TypeVar("_Told", Failed, Recovered)


@app.callback()
def devices() -> None:
    """What devices stand and cost."""


@app.command()
def workers(kills: int = 100) -> None:
    """Kill processes of every adapter; count events and leftovers."""
    draw = random.Random(SEED)
    with ExitStack() as held:
        found = [
            held.enter_context(at(Path(held.enter_context(tempfile.TemporaryDirectory()))))
            for name, at in (PLACES | READERS).items()
            if name != "opencv-video"  # the driver of another place
        ]
        places = {place.driver.name: place for place in found}
        before = left_behind()
        told: Counter[str] = Counter()
        seconds: dict[str, list[float]] = {driver: [] for driver in places}
        pids: set[int] = set()
        drivers = [place.driver for place in places.values()]
        with Supervisor(drivers, Params(poll_seconds=0.2)) as supervisor, ThreadPoolExecutor(1) as person:
            plugged_in = len(supervisor.devices())
            opened = {driver: _opened(supervisor, place) for driver, place in places.items()}
            states = [(driver, what) for driver in places for what in ("search", "idle", "in use")]
            draw.shuffle(states)
            for driver, what in islice(cycle(states), kills):
                device, used = opened[driver], None
                if what == "in use":
                    used = _used(person, device, places[driver])
                elif what == "idle":
                    _running(device)
                pid = _pid(supervisor, driver) if what == "search" else device.worker.pid
                assert pid
                pids.add(pid)
                start = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                failed = _await(supervisor, Failed, told)
                if used is not None and not isinstance(used.exception(PATIENCE), DeviceStuck):
                    raise Lost(f"{driver} was killed, and its call ended with {used}")
                if what != "search":
                    _running(device)
                recovered = _await(supervisor, Recovered, told)
                of = (driver, "" if what == "search" else places[driver].device)
                if not (failed.driver, failed.device) == (recovered.driver, recovered.device) == of:
                    raise Lost(f"{of} was killed, and told were {failed}, {recovered}")
                seconds[driver].append(time.monotonic() - start)
                told[f"killed: {what}"] += 1
            pids |= {_running(device) for device in opened.values()}
            pids |= {_pid(supervisor, driver) for driver in opened}
        while not supervisor.events.empty():
            told[type(supervisor.events.get()).__name__] += 1
        time.sleep(1)
        after = left_behind()
        left = _of_sessions(pids)
    figures = {
        "kills": kills,
        "distinct_processes": len(pids),
        "told": dict(sorted(told.items())),
        "devices": plugged_in,
        "left_running": left,
        "threads_files_and_children_before": before,
        "threads_files_and_children_after": after,
        "seconds_from_kill_to_recovery": {
            driver: {
                "kills": len(some),
                "median": round(statistics.median(some), 2),
                "most": round(max(some), 2),
            }
            for driver, some in seconds.items()
            if some
        },
    }
    keep_section(RESULTS, "workers", figures)
    if told["Failed"] != kills or told["Recovered"] != kills:
        raise Lost("a kill was not told, or told twice")
    if told["Attached"] != plugged_in or told["Detached"]:
        raise Lost("devices that nobody touched came or went")
    if left or any(more > less for more, less in zip(after, before, strict=True)):
        raise Lost("a process, a thread or an open file was left")


def _opened(supervisor: Supervisor, place: DevicePlace) -> OpenDevice | OpenReader:
    reads_cards = place.driver.name == "pcsc"
    return (supervisor.open_reader if reads_cards else supervisor.open)(place.driver.name, place.device)


def _used(person: ThreadPoolExecutor, device: OpenDevice | OpenReader, place: DevicePlace) -> "Future[None]":
    """A call that goes on; one that is refused because the last still ends is made again."""

    def use() -> None:
        if isinstance(device, OpenReader):
            device.connect(PATIENCE)
        elif place.waits:
            device.capture(replace(place.spec, seconds=PATIENCE))
        else:
            for _ in device.preview(place.spec):
                pass

    until = time.monotonic() + PATIENCE
    _running(device)
    while time.monotonic() < until:
        call = person.submit(use)
        wait([call], 0.5)
        if not call.done():
            return call
    raise Lost(f"{place.device} cannot be used: {call.exception()}")


def _await(supervisor: Supervisor, kind: type[_Told], told: Counter[str]) -> _Told:
    while True:
        event = supervisor.events.get(timeout=120)
        told[type(event).__name__] += 1
        if isinstance(event, kind):
            return event


def _running(device: OpenDevice | OpenReader) -> int:
    """The process of an open device, started anew where it ended; a stack may need a moment until it can."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            device.worker.opened()
        except DeviceStuck:
            raise
        except DeviceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            assert device.worker.pid
            return device.worker.pid


def _of_sessions(pids: set[int]) -> int:
    """How many processes run that these started: each began a session of its own."""
    stats = [text_of(path).rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return sum(int(fields[3]) in pids for fields in stats if fields)


def _pid(supervisor: Supervisor, driver: str) -> int:
    """The process that searches for a driver."""
    while not (pid := supervisor._watches[driver]._worker.pid):
        time.sleep(0.01)
    return pid


@app.command()
def preview(seconds: float = 10.0) -> None:
    """Frames a second, their age, and the processor time that they take."""
    figures: dict[str, object] = {}
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            video = _video(Path(folder) / "video.avi", width, height)
            with Supervisor([OpencvDriver((video,))]) as supervisor:
                device = supervisor.open("opencv", str(video))
                size: dict[str, object] = {
                    "consumer that keeps up": _shown(device, seconds, 0.0),
                    "consumer of 100 ms a frame": _shown(device, seconds, 0.1),
                }
        frame = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
        size["core milliseconds a frame, both ends, shared memory"] = _cost(frame, _by_memory)
        size["core milliseconds a frame, both ends, socket alone"] = _cost(frame, _by_socket)
        figures[f"{width}x{height}"] = size
    keep_section(RESULTS, "preview", figures)


@app.command()
def cards(insertions: int = 1000, changes: int = 50, restarts: int = 100, commands: int = 5000) -> None:
    """Cards put in and pulled, readers exchanged, pcscd restarted; what a command costs."""
    keep_section(RESULTS, "cards", stressed(insertions, changes, restarts, commands))


def _video(path: Path, width: int, height: int) -> Path:
    """An MJPEG file of a moving scene with grain, at 30 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (width, height))
    draw = np.random.default_rng(SEED)
    scene = cv2.resize(draw.integers(0, 256, (9, 16, 3), dtype=np.uint8), (width, height))
    for number in range(30):
        grain = draw.integers(0, 16, (height, width, 3), dtype=np.uint8)
        writer.write(cv2.add(np.roll(scene, number * 4, axis=1), grain))
    writer.release()
    return path


def _shown(device: OpenDevice, seconds: float, pause: float) -> dict[str, object]:
    """Watch a preview, `pause` seconds of work on each frame."""
    frames = device.preview(SPEC)
    next(frames)
    pid = _running_now(device)
    start, ours, its = time.monotonic(), time.process_time(), _processor_seconds(pid)
    ages: list[float] = []
    for frame in frames:
        ages.append((datetime.now(UTC) - frame.taken_at).total_seconds())
        time.sleep(pause)
        if time.monotonic() - start > seconds:
            break
    spent = time.monotonic() - start
    ours, its = time.process_time() - ours, _processor_seconds(pid) - its
    del frames
    return {
        "frames_per_second": round(len(ages) / spent, 1),
        "age_seconds": spread(ages),
        "cores_of_the_consumer": round(ours / spent, 4),
        "cores_of_the_worker": round(its / spent, 4),
    }


def _running_now(device: OpenDevice) -> int:
    assert device.worker.pid
    return device.worker.pid


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Carry = Callable[[NDArray[np.uint8], int], None]


def _cost(pixels: NDArray[np.uint8], carry: Carry, count: int = 200) -> float:
    """Core milliseconds a frame, of both ends."""
    carry(pixels, 10)
    start = time.process_time()
    carry(pixels, count)
    return round((time.process_time() - start) / count * 1000, 3)


def _by_memory(pixels: NDArray[np.uint8], count: int) -> None:
    left, right = socket.socketpair()
    memory = os.memfd_create("frames")
    with left, right:
        sender, receiver = _Channel(left, memory), _Channel(right, memory)
        for _ in range(count):
            sender.send(_frame(pixels))
            receiver.receive()
    os.close(memory)


def _by_socket(pixels: NDArray[np.uint8], count: int) -> None:
    left, right = socket.socketpair()

    def send() -> None:
        for _ in range(count):
            buffers: list[pickle.PickleBuffer] = []
            body = pickle.dumps(_frame(pixels), protocol=5, buffer_callback=buffers.append)
            left.sendall(len(body).to_bytes(4, "little") + body)
            left.sendall(buffers[0].raw())

    with left, right, right.makefile("rb", buffering=0) as stream:
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(count):
            body = stream.read(int.from_bytes(stream.read(4) or b"", "little")) or b""
            data = bytearray(pixels.nbytes)
            rest = memoryview(data)
            while rest:
                rest = rest[right.recv_into(rest) :]
            pickle.loads(body, buffers=[data])
        sender.join()


def _frame(pixels: NDArray[np.uint8]) -> Frame:
    return Frame(pixels, DeviceKind.FACE, (), None, datetime.now(UTC), Provenance("benchmark", "none"))


if __name__ == "__main__":
    app()
