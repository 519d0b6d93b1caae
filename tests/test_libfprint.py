import gc
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.synthetic_prints import finger, impression
from devices.device import Captured, CaptureSpec, Condition, DeviceInfo, Hint, TimedOut, TryAgain
from devices.errors import DeviceBusy, DeviceError, DeviceProtocolError, DeviceRemoved, DeviceUnavailable
from devices.frame import DeviceKind
from devices.libfprint import LibfprintDevice, LibfprintDriver
from devices.position import FingerPosition
from devices.virtual.libfprint_feed import Fault, LibfprintFeed, Retry
from devices.worker import DeviceWorker

ONE = CaptureSpec(positions=(FingerPosition.RIGHT_INDEX,), seconds=10)
SOON = CaptureSpec(positions=(FingerPosition.RIGHT_INDEX,), seconds=0.2)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return impression(finger(1, FingerPosition.RIGHT_INDEX), 1)


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # libfprint reads the variable each time it looks for readers; one path for all tests of this process
    return tmp_path_factory.mktemp("libfprint") / "finger.socket"


@pytest.fixture
def device(socket_path: Path) -> Iterator[LibfprintDevice]:
    driver = LibfprintDriver(ppi=508, virtual_image=str(socket_path))
    device = driver.open(driver.discover()[0].id)
    yield device
    device.close()


@pytest.fixture
def feed(socket_path: Path) -> Iterator[LibfprintFeed]:
    with LibfprintFeed(socket_path) as feed:
        yield feed


def test_the_virtual_reader_is_discovered_and_described(socket_path: Path) -> None:
    driver = LibfprintDriver(ppi=508, virtual_image=str(socket_path))
    (info,) = driver.discover()
    assert isinstance(info, DeviceInfo)
    assert info.id == "virtual_image:0"
    assert info.kind is DeviceKind.FINGERPRINT
    assert info.ppi == 508
    assert not info.previews
    assert not info.signs
    assert info.positions[0] == (FingerPosition.RIGHT_THUMB,)
    assert len(info.positions) == 10
    assert info.provenance.driver == "libfprint"
    assert info.provenance.model == "Virtual image device for debugging"


def test_the_driver_is_picklable_and_loads_no_glib() -> None:
    assert pickle.loads(pickle.dumps(LibfprintDriver(ppi=500))) == LibfprintDriver()
    code = "import sys, devices.libfprint, devices.virtual.libfprint_feed; assert 'gi' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_finger_before_and_during_a_capture_comes_out_pixel_by_pixel(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray
) -> None:
    for number, turned in ((1, pixels), (2, pixels[::-1].copy())):
        feed.touch(turned)
        outcome = device.capture(ONE)
        assert isinstance(outcome, Captured)
        (frame,) = outcome.frames
        assert (frame.pixels == turned).all()
        assert frame.ppi == 508  # the virtual reader tells 0 pixels per mm
        assert frame.positions == ONE.positions
        assert frame.number == number
        assert frame.provenance == device.info.provenance
    assert device.health().condition is Condition.READY
    assert device.health().figures["captures"] == 2


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        (Retry.GENERAL, Hint.GENERAL),
        (Retry.TOO_SHORT, Hint.TOO_SHORT),
        (Retry.CENTER_FINGER, Hint.CENTER_FINGER),
        (Retry.REMOVE_FINGER, Hint.REMOVE_FINGER),
    ],
)
def test_what_the_reader_asks_for_is_the_hint_and_the_next_try_succeeds(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray, why: Retry, hint: Hint
) -> None:
    feed.retry(why)
    outcome = device.capture(ONE)
    assert isinstance(outcome, TryAgain)
    assert outcome.hint is hint
    feed.touch(pixels)
    assert isinstance(device.capture(ONE), Captured)


def test_a_blank_image_is_to_be_tried_again(device: LibfprintDevice, feed: LibfprintFeed) -> None:
    feed.touch(np.full((200, 200), 240, np.uint8))
    outcome = device.capture(ONE)
    assert isinstance(outcome, TryAgain)
    assert outcome.hint is Hint.GENERAL


def test_nobody_comes(device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray) -> None:
    assert device.capture(SOON) == TimedOut(0.2)
    feed.touch(pixels)
    assert isinstance(device.capture(ONE), Captured)


def test_a_finger_left_on_the_sensor_is_asked_to_go(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray
) -> None:
    feed.hold(pixels)
    outcome = device.capture(CaptureSpec(ONE.positions, seconds=1.0))
    assert isinstance(outcome, TryAgain)
    assert outcome.hint is Hint.REMOVE_FINGER
    feed.lift()
    feed.touch(pixels)
    assert isinstance(device.capture(ONE), Captured)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (Fault.GENERAL, DeviceProtocolError),
        (Fault.PROTOCOL, DeviceProtocolError),
        (Fault.NOT_SUPPORTED, DeviceUnavailable),
        (Fault.BUSY, DeviceBusy),
        (Fault.TOO_HOT, DeviceBusy),
    ],
)
def test_a_fault_is_typed_and_the_next_capture_works(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray, what: Fault, error: type[DeviceError]
) -> None:
    feed.fault(what)
    with pytest.raises(error):
        device.capture(ONE)
    feed.touch(pixels)
    assert isinstance(device.capture(ONE), Captured)


def test_an_unplugged_reader_stays_removed_until_it_is_opened_anew(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray, socket_path: Path
) -> None:
    feed.fault(Fault.REMOVED)
    with pytest.raises(DeviceRemoved):
        device.capture(ONE)
    assert device.health().condition is Condition.REMOVED
    with pytest.raises(DeviceRemoved):
        device.capture(ONE)
    device.close()
    again = LibfprintDriver(virtual_image=str(socket_path)).open(device.info.id)
    feed.touch(pixels)
    assert isinstance(again.capture(ONE), Captured)
    again.close()


def test_a_reader_taken_away_is_neither_listed_nor_opened(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray, socket_path: Path
) -> None:
    driver = LibfprintDriver(virtual_image=str(socket_path))
    feed.unplug()
    away = socket_path.parent.replace(socket_path.parent.with_name("away"))
    assert not driver.discover()
    with pytest.raises(DeviceRemoved, match="there is no reader"):
        driver.open("virtual_image:0")
    with pytest.raises(DeviceRemoved):
        device.capture(ONE)
    device.close()
    away.replace(socket_path.parent)
    again = driver.open("virtual_image:0")
    feed.touch(pixels)
    assert isinstance(again.capture(ONE), Captured)
    again.close()


def test_closing_twice_is_allowed_and_a_closed_reader_says_so(device: LibfprintDevice) -> None:
    device.close()
    device.close()
    assert device.health().condition is Condition.REMOVED
    with pytest.raises(DeviceRemoved, match="closed"):
        device.capture(ONE)


def test_several_fingers_and_a_preview_are_not_to_be_had(device: LibfprintDevice) -> None:
    both = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB)
    with pytest.raises(DeviceUnavailable, match="one finger"):
        device.capture(CaptureSpec(positions=both))
    with pytest.raises(DeviceUnavailable, match="preview"):
        device.preview(ONE)


def test_a_reader_that_is_not_there_is_removed(socket_path: Path) -> None:
    with pytest.raises(DeviceRemoved, match="upeksonly"):
        LibfprintDriver(virtual_image=str(socket_path)).open("upeksonly:0")


def test_looking_for_readers_neither_disturbs_an_open_one_nor_leaks(
    device: LibfprintDevice, feed: LibfprintFeed, pixels: np.ndarray, socket_path: Path
) -> None:
    driver = LibfprintDriver(virtual_image=str(socket_path))
    gc.collect()
    before = {folder: len(os.listdir(folder)) for folder in ("/proc/self/fd", "/proc/self/task")}
    for _ in range(50):
        assert len(driver.discover()) == 1
    gc.collect()
    for folder, count in before.items():  # what earlier tests left may end meanwhile
        assert len(os.listdir(folder)) <= count
    feed.touch(pixels)
    assert isinstance(device.capture(ONE), Captured)


def test_a_feed_whose_reader_goes_in_the_middle_leaves_no_socket_open(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as reader, LibfprintFeed(path) as feed:
        reader.bind(str(path))
        reader.listen()
        feed.touch(np.zeros((2000, 2000), np.uint8))
        reader.accept()[0].close()
        feed._messages.join()  # a socket left open is a warning, and warnings are errors


@pytest.fixture(scope="module")
def worker(socket_path: Path) -> Iterator[DeviceWorker]:
    worker = DeviceWorker(LibfprintDriver(virtual_image=str(socket_path)), "virtual_image:0")
    yield worker
    worker.close()


@settings(max_examples=40, deadline=None)
@given(
    header=st.one_of(
        st.tuples(st.integers(-6, -1), st.integers(-1, 260)),  # commands
        st.tuples(st.integers(0, 40), st.integers(-1, 40)),  # pictures that come whole
        st.tuples(st.integers(-10, 6000), st.integers(-10, 300)),
    ),
    body=st.binary(max_size=2000),
    hang_up=st.booleans(),
)
@example(header=(10, 10), body=bytes(range(100)), hang_up=False)  # of which libfprint 1.94 dies
def test_garbage_on_the_line_ends_in_an_outcome_or_a_typed_error(
    worker: DeviceWorker, socket_path: Path, header: tuple[int, int], body: bytes, hang_up: bool
) -> None:
    worker.opened()
    with LibfprintFeed(socket_path) as feed:
        feed.raw(struct.pack("ii", *header) + body)
        if hang_up:
            feed.close()
        spec = CaptureSpec(ONE.positions, seconds=0.05)
        try:
            kind: type = type(worker.call(LibfprintDevice.capture, spec.seconds, spec))
        except DeviceError as error:
            kind = type(error)
    # Any other exception comes out of a worker as a bare `DeviceError`.
    assert kind in (Captured, TryAgain, TimedOut, *DeviceError.__subclasses__())
