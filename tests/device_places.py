"""Places where each adapter has a device, fed virtually through its real driver stack.

To add an adapter to the contract suite: write a context manager that starts its virtual stack in a folder of
its own and yields a `DevicePlace`, in a module `tests/place_<driver>.py`, and add it to `PLACES`, or to
`READERS`. A place is used by many tests one after another and starts plugged in, with nobody at the device.
Nothing in it may block for long.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from devices.device import CaptureSpec, Driver
from devices.frame import DeviceKind
from devices.opencv_camera import OpencvDriver
from devices.signature import SignatureDriver


@dataclass(frozen=True, slots=True)
class DevicePlace:
    """A driver with one device under test, and the hands of the person before it.

    `present` returns at once and makes the capture (or `connect`) that goes on, or begins until `withdraw`,
    succeed: the finger is laid on, the card put in. It may start a thread. `withdraw` ends that: the card is
    pulled, the finger lifted; it does nothing where a capture takes what it needs. `unplug` takes the device
    away as rudely as its virtual stack can, `replug` brings it back under the same id; both return when it is
    done, as far as the stack tells. `waits`: whether a capture without `present` ends in `TimedOut`.
    """

    driver: Driver
    device: str
    spec: CaptureSpec
    present: Callable[[], None]
    withdraw: Callable[[], None]
    unplug: Callable[[], None]
    replug: Callable[[], None]
    waits: bool = True
    command: bytes = b""  # of card readers: an APDU that the card answers with 9000


def nothing() -> None:
    """What a person does before a camera."""


@contextmanager
def opencv_sequence(folder: Path) -> Iterator[DevicePlace]:
    """A folder of pictures as a camera."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(12):
        cv2.imwrite(str(pictures / f"{number:03}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    with _file_camera(pictures) as place:
        yield place


@contextmanager
def opencv_video(folder: Path) -> Iterator[DevicePlace]:
    """An MJPEG file as a camera."""
    path = folder / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    with _file_camera(path) as place:
        yield place


@contextmanager
def _file_camera(path: Path) -> Iterator[DevicePlace]:
    unplug, replug = _cable(path)
    driver = OpencvDriver((path,), DeviceKind.FACE)
    yield DevicePlace(
        driver, str(path), CaptureSpec(seconds=2), nothing, nothing, unplug, replug, waits=False
    )


@contextmanager
def signature(folder: Path) -> Iterator[DevicePlace]:
    """A folder into which a pad's program writes, again and again while the person signs."""
    pad = folder / "pad"
    pad.mkdir()
    unplug, replug = _cable(pad)
    done, writing = threading.Event(), threading.Thread()

    def sign() -> None:
        nonlocal writing
        done.clear()
        writing = threading.Thread(target=write)
        writing.start()

    def write() -> None:
        while not done.wait(0.4):  # what lies there when a capture begins is not its
            ink = "<ink><trace>0 0, 40 30, 80 0</trace><trace>0 40, 80 40</trace></ink>"
            (pad / f"{uuid.uuid4()}.inkml").write_text(ink)

    def withdraw() -> None:
        done.set()
        if writing.is_alive():
            writing.join()

    driver = SignatureDriver((pad,))
    try:
        yield DevicePlace(driver, str(pad), CaptureSpec(seconds=10), sign, withdraw, unplug, replug)
    finally:
        withdraw()


def _cable(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Unplugs and replugs what stands for a device."""
    away = path.with_name("unplugged")

    def unplug() -> None:
        path.replace(away)

    def replug() -> None:
        away.replace(path)

    return unplug, replug


def libfprint(folder: Path) -> AbstractContextManager[DevicePlace]:
    """libfprint's virtual reader."""
    from tests.place_libfprint import libfprint  # which imports this module

    return libfprint(folder)


def sbi(folder: Path) -> AbstractContextManager[DevicePlace]:
    """A slap scanner behind an SBI service."""
    from tests.place_sbi import sbi  # which imports this module

    return sbi(folder)


def genicam(folder: Path) -> AbstractContextManager[DevicePlace]:
    """A camera behind the GenTL producer of the `genicam` wheel."""
    from tests.place_genicam import genicam  # which imports this module

    return genicam(folder)


@contextmanager
def pcsc(folder: Path) -> Iterator[DevicePlace]:
    """A card reader of a private pcscd."""
    from tests.place_pcsc import pcsc as pcsc_place

    with pcsc_place(folder) as place:
        yield place


PLACES: dict[str, Callable[[Path], AbstractContextManager[DevicePlace]]] = {
    "opencv-sequence": opencv_sequence,
    "opencv-video": opencv_video,
    "signature": signature,
    "libfprint": libfprint,
    "genicam": genicam,
    "sbi": sbi,
}

READERS: dict[str, Callable[[Path], AbstractContextManager[DevicePlace]]] = {"pcsc": pcsc}
