"""A slap scanner behind an SBI service, which is a process of its own, for the contract suite."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devices.device import CaptureSpec
from devices.position import FingerPosition
from devices.virtual.sbi_simulator import SLAP, Settings, control, simulator
from tests.device_places import DevicePlace
from tests.sbi_services import driver_at, identity, lasting_port, trusted


@contextmanager
def sbi(folder: Path) -> Iterator[DevicePlace]:
    """Two fingers of a slap; unplugged by ending the service in the middle of whatever it does."""
    settings = Settings(identity(), (SLAP,), port=lasting_port(), present=False)
    running = ExitStack()
    with running:
        port = running.enter_context(simulator(settings))
        driver = driver_at(port, trusted(folder))

        def replug() -> None:
            running.enter_context(simulator(settings))

        yield DevicePlace(
            driver=driver,
            device=driver.discover()[0].id,
            spec=CaptureSpec((FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_MIDDLE), seconds=3),
            present=lambda: control(port, present=True),
            withdraw=lambda: control(port, present=False),
            unplug=running.close,
            replug=replug,
        )
