"""libfprint's virtual reader as a place of the contract suite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.synthetic_prints import finger, impression
from devices.device import CaptureSpec
from devices.libfprint import LibfprintDriver
from devices.position import FingerPosition
from devices.virtual.libfprint_feed import LibfprintFeed
from tests.device_places import DevicePlace, nothing


@contextmanager
def libfprint(folder: Path) -> Iterator[DevicePlace]:
    """The virtual reader that libfprint ships, fed over its socket.

    Unplugged, an open one fails as libfprint lets a reader fail whose cable is pulled, and none is listed.
    """
    desk, away = folder / "desk", folder / "away"
    desk.mkdir()
    path = desk / "finger.socket"
    pixels = impression(finger(1, FingerPosition.RIGHT_INDEX), 1)
    with LibfprintFeed(path) as feed:

        def unplug() -> None:
            feed.unplug()
            desk.replace(away)

        def replug() -> None:
            away.replace(desk)

        yield DevicePlace(
            driver=LibfprintDriver(virtual_image=str(path)),
            device="virtual_image:0",
            spec=CaptureSpec(positions=(FingerPosition.RIGHT_INDEX,), seconds=5),
            present=lambda: feed.touch(pixels),
            withdraw=nothing,
            unplug=unplug,
            replug=replug,
        )
