"""A driver that does for real what device libraries do on bad days, as `spec.transaction` says."""

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np

from devices.device import Captured, CaptureSpec, Condition, DeviceInfo, Health, TimedOut
from devices.errors import (
    DeviceBusy,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.frame import DeviceKind, Frame, Provenance

ERRORS = (DeviceBusy, DeviceProtocolError, DeviceRemoved, DeviceUntrusted, DeviceUnavailable)


class ForgedCertificate(DeviceUntrusted):
    """An error of a driver's own, which the other side need not know."""

    def __init__(self, serial: int) -> None:
        super().__init__(f"certificate {serial}")


@dataclass(frozen=True, slots=True)
class MisbehavingDriver:
    """Its devices are the words of a file, which may also say how discovery is to go wrong.

    While there is a file `slow` beside it, what a look found is told late; `looking` says that there is one.
    """

    script: Path
    name: str = "misbehaving"
    kind: DeviceKind = DeviceKind.FACE

    def discover(self) -> list[DeviceInfo]:
        lines = self.script.read_text().split()
        if lines[:1] == ["unavailable"]:
            raise DeviceUnavailable("the service does not run")
        misbehave(lines[0] if lines else "")
        while self.script.with_name("slow").exists():
            self.script.with_name("looking").touch()
            time.sleep(0.01)
        return cast(list[DeviceInfo], None) if lines == ["nonsense"] else [self.info(line) for line in lines]

    def open(self, device_id: str) -> "MisbehavingDevice":
        misbehave(device_id)
        return MisbehavingDevice(self.info(device_id))

    def info(self, line: str) -> DeviceInfo:
        device_id, _, model = line.partition("=")
        return DeviceInfo(device_id, self.kind, Provenance(self.name, device_id, model=model))


class MisbehavingDevice:
    """Behaves, until it is told otherwise."""

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info

    def capture(self, spec: CaptureSpec) -> Captured | TimedOut:
        if spec.transaction.startswith("frame"):
            shape = tuple(int(side) for side in spec.transaction.split()[1:])
            return Captured((self._frame(shape, 1), self._frame((7, 5), 2)))
        misbehave(spec.transaction)
        return TimedOut(0.0)

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        for number in range(1, 10_000):
            if number == 5:
                misbehave(spec.transaction)
            if spec.transaction == "end" and number == 8:
                return
            yield self._frame((48, 64), number)
            time.sleep(0.01)

    def health(self) -> Health:
        return Health(Condition.READY, figures={"pid": float(os.getpid())})

    def close(self) -> None:
        pass

    def _frame(self, shape: tuple[int, ...], number: int) -> Frame:
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        now = datetime.now(UTC)
        return Frame(pixels, self.info.kind, (), None, now, self.info.provenance, number)


def misbehave(how: str) -> None:
    """Wedge, die or raise."""
    if how == "sleep":
        time.sleep(1e6)
    elif how == "hold":  # the interpreter, as a C function does that never lets go of it
        re.match(r"(a+)+$", "a" * 64 + "b")
    elif how == "crash":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(0)
    elif how == "stuck":
        raise DeviceStuck("no frame")
    elif how == "foreign":
        raise ZeroDivisionError("in a library")
    elif how == "own":
        raise ForgedCertificate(17)
    elif how == "noise":
        os.write(1, b"noise on stdout\n" * 10_000)
        print("noise on stderr", file=sys.stderr)
    elif how.startswith("child"):  # left behind, and holding on to everything
        child = subprocess.Popen(["sleep", "1000"], close_fds=False)
        Path(how.partition(" ")[2]).write_text(str(child.pid))
        time.sleep(1e6)
    for kind in ERRORS:
        if how == kind.__name__:
            raise kind(how)
