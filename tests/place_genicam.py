"""Cameras behind the GenTL producer of the `genicam` wheel, whose cable can be pulled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from devices.device import CaptureSpec
from devices.genicam_camera import GenicamDriver
from tests.device_places import DevicePlace, nothing

CAMERA = "VikyTL_DEV_red"
_SOURCE = Path(__file__).with_name("faulty_producer.c")


def real_producer() -> str:
    """The producer as it comes."""
    found = find_spec("genicam")
    if found is None or found.origin is None:
        pytest.fail("install genicam and harvesters (`pip install rekam[devices]`)")
    return str(Path(found.origin).with_name("viky.cti"))


def faulty_producer(folder: Path) -> tuple[str, Path]:
    """A producer in front of it, and the file that says how the cameras fail while it exists."""
    cable, producer = folder / "cable", folder / "faulty.cti"
    command = ["cc", "-shared", "-fPIC", f'-DCABLE="{cable}"', "-o", str(producer), str(_SOURCE)]
    try:
        subprocess.run([*command, "-Wl,--no-as-needed", real_producer(), "-ldl"], check=True)
    except FileNotFoundError:
        pytest.fail("install gcc and libc6-dev: the camera that can be unplugged is compiled")
    return str(producer), cable


@contextmanager
def genicam(folder: Path) -> Iterator[DevicePlace]:
    """A camera that can be unplugged."""
    producer, cable = faulty_producer(folder)

    def unplug() -> None:
        cable.write_text("gone")

    def replug() -> None:
        cable.unlink(missing_ok=True)

    driver = GenicamDriver((producer,), silence=3.0)
    spec = CaptureSpec(seconds=5)
    yield DevicePlace(driver, CAMERA, spec, nothing, nothing, unplug, replug, waits=False)
