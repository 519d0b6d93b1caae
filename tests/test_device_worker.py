"""Processes of devices: nothing that happens in one holds up, confuses or outlives its parent."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.device import Captured, CaptureSpec, Condition, Device, Driver, TimedOut
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.frame import Frame
from devices.worker import Deadlines, DeviceWorker
from tests.misbehaving import ERRORS, MisbehavingDriver

ROOT = Path(__file__).resolve().parent.parent
DEADLINES = Deadlines(call=4)  # a busy machine has to answer within
PATIENCE = 60.0


@pytest.fixture
def reports() -> list[DeviceError | None]:
    return []


@pytest.fixture
def worker(tmp_path: Path, reports: list[DeviceError | None]) -> Iterator[DeviceWorker]:
    worker = DeviceWorker(MisbehavingDriver(tmp_path / "script"), "camera", DEADLINES, reports.append)
    yield worker
    worker.close()


def capture(worker: DeviceWorker, how: str = "") -> object:
    return worker.call(Device.capture, 0.0, CaptureSpec(transaction=how))


def runs(pid: int) -> bool:
    """Whether a process does, and is no mere entry that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def await_true(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["sleep", "hold", "crash", "exit", "stuck"])
def test_a_process_that_wedges_or_dies_is_told_once_and_the_next_call_works(
    how: str, worker: DeviceWorker, reports: list[DeviceError | None]
) -> None:
    worker.opened()
    before = worker.pid
    assert before
    with pytest.raises(DeviceStuck) as stuck:
        capture(worker, how)
    assert worker.health().condition is Condition.FAILING
    assert not runs(before)
    assert capture(worker) == TimedOut(0.0)
    assert reports == [stuck.value, None]
    assert worker.health().figures["restarts"] == 1


def test_what_a_process_started_dies_with_it(worker: DeviceWorker, tmp_path: Path) -> None:
    with pytest.raises(DeviceStuck):
        capture(worker, f"child {tmp_path / 'pid'}")
    child = int((tmp_path / "pid").read_text())
    await_true(lambda: not runs(child))


@pytest.mark.parametrize("how", ["hold", "child"])
def test_no_process_outlives_a_killed_parent(how: str, tmp_path: Path) -> None:
    wedge = f"child {tmp_path / 'pid'}" if how == "child" else how
    script = f"""
from pathlib import Path
from devices.device import CaptureSpec, Device
from devices.worker import Deadlines, DeviceWorker
from tests.misbehaving import MisbehavingDriver
worker = DeviceWorker(MisbehavingDriver(Path("script")), "camera", Deadlines(call=1000))
worker.opened()
print(worker.pid, flush=True)
worker.call(Device.capture, 0.0, CaptureSpec(transaction={wedge!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pids = [int(parent.stdout.readline())]
        if how == "child":
            await_true((tmp_path / "pid").exists)
            await_true(lambda: bool((tmp_path / "pid").read_text()))
            pids.append(int((tmp_path / "pid").read_text()))
        assert all(map(runs, pids))
        parent.kill()
    await_true(lambda: not any(map(runs, pids)))


def test_a_process_outlives_the_thread_that_started_it(worker: DeviceWorker) -> None:
    thread = threading.Thread(target=worker.opened)
    thread.start()
    thread.join()
    pid = worker.pid
    assert capture(worker) == TimedOut(0.0)
    assert worker.pid == pid


def test_a_process_that_is_forgotten_ends(tmp_path: Path) -> None:
    worker = DeviceWorker(MisbehavingDriver(tmp_path), "camera")
    worker.opened()
    pid = worker.pid
    assert pid
    del worker
    gc.collect()
    assert not runs(pid)


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_the_contract_cross_as_themselves(kind: type[DeviceError], worker: DeviceWorker) -> None:
    with pytest.raises(kind, match=kind.__name__) as crossed:
        capture(worker, kind.__name__)
    assert type(crossed.value) is kind
    assert "misbehaving.py" in crossed.value.__notes__[0]
    assert capture(worker) == TimedOut(0.0)


def test_other_errors_are_wrapped(worker: DeviceWorker, reports: list[DeviceError | None]) -> None:
    with pytest.raises(DeviceUntrusted, match="certificate 17"):
        capture(worker, "own")
    with pytest.raises(DeviceError, match="ZeroDivisionError: in a library"):
        capture(worker, "foreign")
    assert not reports


def test_errors_of_opening_cross_and_leave_no_process(tmp_path: Path) -> None:
    for device_id, kind in ("DeviceBusy", DeviceBusy), ("crash", DeviceStuck):
        worker = DeviceWorker(MisbehavingDriver(tmp_path), device_id)
        with pytest.raises(kind):
            worker.opened()
        assert worker.pid is None


@pytest.mark.parametrize("shape", [(1, 1), (480, 640), (48, 64, 3), (1600, 1500), (1080, 1920, 3)])
def test_pixels_arrive_as_they_were_and_cannot_be_changed(
    shape: tuple[int, ...], worker: DeviceWorker
) -> None:
    for _ in range(2):
        outcome = capture(worker, f"frame {' '.join(map(str, shape))}")
        assert isinstance(outcome, Captured)
        capture(worker, "frame 300 300")  # over where they lay
        for frame, size in zip(outcome.frames, (shape, (7, 5)), strict=True):
            expected = np.random.default_rng(frame.number).integers(0, 256, size, dtype=np.uint8)
            assert np.array_equal(frame.pixels, expected)
            assert not frame.pixels.flags.writeable


def test_a_slow_consumer_sees_the_newest_frame_a_fast_one_every_one(worker: DeviceWorker) -> None:
    preview = worker.preview(CaptureSpec())
    numbers = [next(preview).number for _ in range(4)]
    assert numbers[-1] > numbers[0]
    time.sleep(1)  # some ninety frames
    assert next(preview).number >= numbers[-1] + 10


def test_a_preview_ends_with_its_device(worker: DeviceWorker) -> None:
    assert max(frame.number for frame in worker.preview(CaptureSpec(transaction="end"))) <= 7
    for how, kind in (
        ("DeviceUnavailable", DeviceUnavailable),
        ("foreign", DeviceError),
        ("exit", DeviceStuck),
    ):
        preview = worker.preview(CaptureSpec(transaction=how))
        shown: list[Frame] = []
        with pytest.raises(kind):
            shown.extend(preview)
    assert capture(worker) == TimedOut(0.0)


def test_a_preview_that_stalls_is_stuck(worker: DeviceWorker) -> None:
    preview = worker.preview(CaptureSpec(transaction="sleep"))
    with pytest.raises(DeviceStuck):
        for _ in preview:
            pass
    assert capture(worker) == TimedOut(0.0)


def test_a_preview_is_closed_before_a_capture(worker: DeviceWorker) -> None:
    preview = worker.preview(CaptureSpec())
    next(preview)
    assert worker.health().condition is Condition.BUSY
    with pytest.raises(DeviceBusy):
        capture(worker)
    del preview  # which closes it
    assert capture(worker) == TimedOut(0.0)


def test_health_is_told_at_once_and_calls_wait_for_each_other(tmp_path: Path) -> None:
    worker = DeviceWorker(MisbehavingDriver(tmp_path), "camera", Deadlines(busy=2))
    worker.opened()
    errors: list[DeviceError] = []

    def sleep() -> None:
        try:
            capture(worker, "sleep")
        except DeviceError as error:
            errors.append(error)

    stuck = threading.Thread(target=sleep)
    stuck.start()
    await_true(lambda: worker.health().condition is Condition.BUSY)
    with pytest.raises(DeviceBusy):
        capture(worker)
    worker.close()
    stuck.join(PATIENCE)
    assert [type(error) for error in errors] == [DeviceRemoved]
    assert worker.pid is None


def test_a_device_that_wedged_idle_holds_nobody_up_for_a_whole_call(
    tmp_path: Path, reports: list[DeviceError | None]
) -> None:
    worker = DeviceWorker(MisbehavingDriver(tmp_path), "camera", Deadlines(call=10_000), reports.append)
    worker.opened()
    assert worker.pid
    os.kill(worker.pid, signal.SIGSTOP)
    asking = threading.Thread(target=worker.health)
    asking.start()
    await_true(lambda: worker._lock.locked() or not asking.is_alive())
    assert capture(worker) == TimedOut(0.0)  # it waited until health had given up
    asking.join(PATIENCE)
    assert [type(report) for report in reports] == [DeviceStuck, type(None)]
    worker.close()


def test_an_interrupted_call_leaves_no_answer_behind(worker: DeviceWorker) -> None:
    worker.opened()
    ours = threading.get_ident()

    def interrupt() -> None:
        await_true(lambda: worker.health().condition is Condition.BUSY)
        signal.pthread_kill(ours, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        capture(worker, "sleep")
    assert isinstance(capture(worker, "frame 3 3"), Captured)


def test_a_process_killed_between_calls_is_noticed(
    worker: DeviceWorker, reports: list[DeviceError | None]
) -> None:
    worker.opened()
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    while not reports:
        worker.check()
    assert isinstance(reports[0], DeviceStuck)
    assert worker.health().condition is Condition.FAILING


def test_what_a_library_prints_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    worker = DeviceWorker(MisbehavingDriver(tmp_path), "camera", log=tmp_path / "log")
    capture(worker, "noise")
    with pytest.raises(DeviceStuck):
        capture(worker, "crash")
    log = (tmp_path / "log").read_text()
    assert "noise on stdout" in log
    assert "noise on stderr" in log
    assert "Segmentation fault" in log
    assert capfd.readouterr() == ("", "")


def test_a_worker_of_a_driver_discovers(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("left right")
    worker = DeviceWorker(MisbehavingDriver(script))
    assert [info.id for info in worker.call(Driver.discover)] == ["left", "right"]
    worker.close()
    with pytest.raises(DeviceRemoved):
        worker.call(Driver.discover)
    assert worker.starts == 1  # none for a call that has nobody to answer it


def test_a_process_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    worker = DeviceWorker(MisbehavingDriver(tmp_path), "camera", log=tmp_path / "missing" / "log")
    for _ in range(2):
        gc.collect()  # what earlier tests forgot is closed now, not meanwhile
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(DeviceUnavailable, match="missing"):
            worker.opened()
        assert len(os.listdir("/proc/self/fd")) <= before
    assert worker.health().condition is Condition.FAILING
    (tmp_path / "missing").mkdir()
    worker.opened()
    assert worker.health().figures["restarts"] == 0
    worker.close()


def test_device_processes_know_none_of_our_secrets(
    worker: DeviceWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REKAM_SPOOL_PASSPHRASE", "REKAM_SAM_CODE"):
        monkeypatch.setenv(name, "secret of the station")
    worker.opened()
    environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret of the station" not in environment
