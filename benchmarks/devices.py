"""What devices stand and cost, in benchmarks/results/devices.json, a section a subcommand.

    python -m benchmarks.devices workers [--kills 100]
    python -m benchmarks.devices preview [--seconds 10]
    python -m benchmarks.devices cards [--insertions 1000] [--changes 50] [--restarts 100] [--commands 5000]

`workers` kills processes of searching drivers and of open devices, idle and in the middle of a preview, and
counts what the supervisor tells of it and what is left running. `preview` shows MJPEG files of 30 frames a
second through a worker, to a consumer that keeps up and to one that does not, and sends the same frames
through shared memory and through a socket alone. `cards`: see `benchmarks/cards.py`.
"""

import contextlib
import json
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
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.cards import stressed
from benchmarks.provenance import ROOT, provenance
from devices.device import CaptureSpec
from devices.errors import DeviceError
from devices.frame import DeviceKind, Frame, Provenance
from devices.opencv_camera import OpencvDriver
from devices.signature import SignatureDriver
from devices.supervisor import Event, Failed, OpenDevice, Params, Recovered, Supervisor
from devices.worker import _Channel

RESULTS = ROOT / "benchmarks" / "results" / "devices.json"
SIZES = ((640, 480), (1920, 1080))
SPEC = CaptureSpec()
SEED = 6
console = Console()
app = typer.Typer(add_completion=False)


@app.callback()
def devices() -> None:
    """What devices stand and cost."""


@app.command()
def workers(kills: int = 100) -> None:
    """Kill processes; count events and leftovers."""
    draw = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        pictures, pad = Path(folder) / "pictures", Path(folder) / "pad"
        pictures.mkdir()
        pad.mkdir()
        cv2.imwrite(str(pictures / "1.png"), np.full((480, 640, 3), 90, np.uint8))
        drivers = (OpencvDriver((pictures,)), SignatureDriver((pad,)))
        with Supervisor(drivers, Params(poll_seconds=0.2)) as supervisor:
            supervisor.devices()
            opened = {
                "opencv": supervisor.open("opencv", str(pictures)),
                "signature": supervisor.open("signature", str(pad)),
            }
            events: Counter[str] = Counter()
            seconds: list[float] = []
            pids: set[int] = set()
            for _ in range(kills):
                what = draw.choice(("search", "idle", "preview"))
                driver = "opencv" if what == "preview" else draw.choice(tuple(opened))
                pid = _pid(supervisor, driver) if what == "search" else _running(opened[driver])
                pids.add(pid)
                start = time.monotonic()
                if what == "preview":
                    with contextlib.suppress(DeviceError):
                        for frame in opened[driver].preview(SPEC):
                            if frame.number % 5 == 4:
                                os.kill(pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGKILL)
                _await(supervisor, Failed, events)
                if what != "search":
                    _running(opened[driver])
                _await(supervisor, Recovered, events)
                seconds.append(time.monotonic() - start)
                events[f"killed: {what}"] += 1
            pids |= {_running(device) for device in opened.values()}
            pids |= {_pid(supervisor, driver) for driver in opened}
        time.sleep(1)
        with contextlib.suppress(Empty):
            while True:
                events[type(supervisor.events.get_nowait()).__name__] += 1
    figures = {
        "kills": kills,
        "distinct_processes": len(pids),
        "events": dict(sorted(events.items())),
        "left_running": sum(Path(f"/proc/{pid}").exists() for pid in pids),
        "seconds_from_kill_to_recovery": _spread(seconds),
    }
    _keep("workers", figures)
    assert events["Failed"] == events["Recovered"] == kills, "an event was lost"
    assert not figures["left_running"], "a process was left"


def _await(supervisor: Supervisor, kind: type[Event], events: Counter[str]) -> None:
    while True:
        event = supervisor.events.get(timeout=120)
        events[type(event).__name__] += 1
        if isinstance(event, kind):
            return


def _running(device: OpenDevice) -> int:
    """The process of an open device, started anew where it was ended."""
    device.worker.opened()
    assert device.worker.pid
    return device.worker.pid


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
    _keep("preview", figures)


@app.command()
def cards(insertions: int = 1000, changes: int = 50, restarts: int = 100, commands: int = 5000) -> None:
    """Cards put in and pulled, readers exchanged, pcscd restarted; what a command costs."""
    _keep("cards", stressed(insertions, changes, restarts, commands))


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
        "age_seconds": _spread(ages),
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


def _spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"median": round(cuts[9], 4), "p95": round(cuts[18], 4), "most": round(max(values), 4)}


def _keep(section: str, figures: dict[str, object]) -> None:
    """Put a section into the results, beside those of the other subcommands."""
    kept: dict[str, object] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[section] = {"measured": figures, "provenance": provenance(), "load": os.getloadavg()}
    RESULTS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    console.print_json(data=figures)


if __name__ == "__main__":
    app()
