"""Fingerprint readers through libfprint (PyGObject), one finger at a time, where the reader gives images.

Readers that compare on the chip give none and are not listed. libfprint has no preview. GLib delivers what
a device says only while its main context runs, which is while one of the calls below does: everything happens
in the caller's thread, there is no loop that could be left behind.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from devices.device import (
    Captured,
    CaptureSpec,
    Condition,
    DeviceInfo,
    Health,
    Hint,
    Outcome,
    TimedOut,
    TryAgain,
)
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceUnavailable,
)
from devices.frame import DeviceKind, Frame, Provenance
from devices.position import FingerPosition

_INSTALL = "install libfprint-2-2, gir1.2-fprint-2.0 and PyGObject (`rekam[devices]`)"
# FpDeviceRetry by number; newer releases add to it.
_HINTS = {1: Hint.TOO_SHORT, 2: Hint.CENTER_FINGER, 3: Hint.REMOVE_FINGER}
# Errors by domain and number: FpDeviceError, GUsbDeviceError, GIOErrorEnum; any other is a protocol error.
_ERRORS: dict[tuple[str, int], type[DeviceError]] = {
    ("fp-device-error-quark", 1): DeviceUnavailable,  # not supported
    ("fp-device-error-quark", 2): DeviceRemoved,  # not open: closed before
    ("fp-device-error-quark", 3): DeviceBusy,  # opened already
    ("fp-device-error-quark", 4): DeviceBusy,
    ("fp-device-error-quark", 0x100): DeviceRemoved,
    ("fp-device-error-quark", 0x101): DeviceBusy,  # too hot: it cools down by itself
    ("g-usb-device-error-quark", 4): DeviceRemoved,  # no device
    ("g-usb-device-error-quark", 5): DeviceRemoved,  # not open
    ("g-usb-device-error-quark", 6): DeviceBusy,  # opened already
    ("g-usb-device-error-quark", 9): DeviceUnavailable,  # permission
    ("g-usb-device-error-quark", 10): DeviceBusy,
    ("g-io-error-quark", 1): DeviceRemoved,  # not found
    ("g-io-error-quark", 14): DeviceUnavailable,  # permission
    ("g-io-error-quark", 26): DeviceBusy,
}
_RETRY_DOMAIN = "fp-device-retry-quark"
_CANCELLED = ("g-io-error-quark", 19)
_PRESENT = 2  # of FpFingerStatusFlags
_CAPTURES = 1  # of FpDeviceFeature


class _Image(Protocol):
    """FpImage: grey, upright, dark ridges, as libfprint normalises what its drivers read."""

    def get_width(self) -> int: ...
    def get_height(self) -> int: ...
    def get_data(self) -> bytes: ...
    def get_ppmm(self) -> float: ...


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


class _FpDevice(Protocol):
    """FpDevice, as far as it is used here."""

    def get_name(self) -> str: ...
    def get_driver(self) -> str: ...
    def get_device_id(self) -> str: ...
    def get_finger_status(self) -> int: ...
    def get_property(self, name: str) -> object: ...
    def get_features(self) -> int: ...
    def open_sync(self, cancellable: None) -> bool: ...
    def close_sync(self, cancellable: None) -> bool: ...
    def capture_sync(self, wait_for_finger: bool, cancellable: _Cancellable) -> _Image: ...


@dataclass(frozen=True, slots=True)
class LibfprintDriver:
    """Readers that libfprint knows. Not thread-safe; to be used in a process of its own.

    `ppi` of the reader: most libfprint drivers do not say. `virtual_image`: socket of libfprint's own virtual
    reader, which is plugged in as long as the socket's folder exists; sets FP_VIRTUAL_IMAGE in this process.
    A reader is named by its libfprint driver, and by their order where there are several of one.
    """

    ppi: float = 500.0
    virtual_image: str = ""
    name: str = "libfprint"

    def discover(self) -> Sequence[DeviceInfo]:
        """The readers plugged in that give images. Cost: 1 ms and what USB takes."""
        return [self._info(device_id, device) for device_id, device in self._found().items()]

    def open(self, device_id: str) -> "LibfprintDevice":
        """Open a reader for this process alone."""
        device = self._found().get(device_id)
        if device is None:
            raise DeviceRemoved(f"there is no reader {device_id}")
        with _translated(f"{device_id} cannot be opened"):
            device.open_sync(None)
        return LibfprintDevice(self._info(device_id, device), device)

    def _found(self) -> dict[str, _FpDevice]:
        """Looks anew every time: a libfprint context lists once what is there, then needs its signals."""
        if self.virtual_image and Path(self.virtual_image).parent.is_dir():
            os.environ["FP_VIRTUAL_IMAGE"] = self.virtual_image
        elif self.virtual_image:
            os.environ.pop("FP_VIRTUAL_IMAGE", None)
        try:
            import gi

            gi.require_version("FPrint", "2.0")
            from gi.repository import FPrint
        except (ImportError, ValueError) as error:
            raise DeviceUnavailable(f"{error}: {_INSTALL}") from error
        found: dict[str, _FpDevice] = {}
        with _translated("readers cannot be listed"):
            devices: list[_FpDevice] = FPrint.Context().get_devices()
        for device in devices:
            if device.get_features() & _CAPTURES:
                device_id = f"{device.get_driver()}:{device.get_device_id()}"
                same = sum(known.partition("#")[0] == device_id for known in found)
                found[f"{device_id}#{same + 1}" if same else device_id] = device
        return found

    def _info(self, device_id: str, device: _FpDevice) -> DeviceInfo:
        return DeviceInfo(
            id=device_id,
            kind=DeviceKind.FINGERPRINT,
            provenance=Provenance(self.name, device_id, model=device.get_name()),
            positions=tuple((position,) for position in FingerPosition if position),
            ppi=self.ppi,
            previews=False,
        )


class LibfprintDevice:
    """An open reader. Not thread-safe."""

    __slots__ = ("_device", "_gone", "_info", "_number")

    def __init__(self, info: DeviceInfo, device: _FpDevice) -> None:
        self._info = info
        self._device: _FpDevice | None = device
        self._gone = False
        self._number = 0

    @property
    def info(self) -> DeviceInfo:
        """What it says of itself."""
        return self._info

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        """Raises `DeviceUnavailable`: libfprint has no preview."""
        raise DeviceUnavailable("libfprint gives no preview: capture and look at the image")

    def capture(self, spec: CaptureSpec) -> Outcome:
        """Wait for one finger, take its image, and wait until it is lifted.

        `TryAgain` where the reader asks for it, where libfprint sees no ridges, and where the finger was not
        lifted in time. The image is at the resolution the reader tells, else at the driver's setting.
        """
        from gi.repository import Gio, GLib

        if len(spec.positions) > 1:
            raise DeviceUnavailable(f"{self._info.id} captures one finger at a time")
        device = self._open_device()
        cancellable: _Cancellable = Gio.Cancellable()
        lying = False

        def time_is_up() -> bool:
            nonlocal lying
            lying = lying or bool(device.get_finger_status() & _PRESENT)
            cancellable.cancel()
            return bool(GLib.SOURCE_CONTINUE)  # removed below, once, whether it fired or not

        timer: int = GLib.timeout_add(max(1, round(spec.seconds * 1000)), time_is_up)
        try:
            image = device.capture_sync(True, cancellable)
        except GLib.Error as error:
            domain, code = _domain(error.domain), int(error.code)
            if domain == _RETRY_DOMAIN:
                return TryAgain(_HINTS.get(code, Hint.GENERAL), error.message)
            if (domain, code) == _CANCELLED and lying:
                return TryAgain(Hint.REMOVE_FINGER, "the finger was not lifted in time")
            if (domain, code) == _CANCELLED:
                return TimedOut(spec.seconds)
            fault = _fault(f"{self._info.id} did not capture", domain, code, error.message)
            self._gone = isinstance(fault, DeviceRemoved)
            raise fault from error
        finally:
            GLib.source_remove(timer)
        return Captured(frames=(self._frame(image, spec),))

    def health(self) -> Health:
        """Whether it is there, as far as its last capture told: libfprint cannot ask without disturbing."""
        if self._device is None:
            return Health(Condition.REMOVED, "closed")
        if self._gone or self._device.get_property("removed"):
            return Health(Condition.REMOVED, "unplugged")
        return Health(Condition.READY, figures={"captures": float(self._number)})

    def close(self) -> None:
        """Let go of the reader; a second time does nothing."""
        from gi.repository import GLib

        device, self._device = self._device, None
        if device is not None:
            with suppress(GLib.Error):  # one that is gone cannot be closed either
                device.close_sync(None)

    def _open_device(self) -> _FpDevice:
        if self._device is None or self._gone or self._device.get_property("removed"):
            raise DeviceRemoved(f"{self._info.id} is {'closed' if self._device is None else 'unplugged'}")
        return self._device

    def _frame(self, image: _Image, spec: CaptureSpec) -> Frame:
        shape = image.get_height(), image.get_width()
        data = image.get_data()
        if len(data) != shape[0] * shape[1] or not data:
            raise DeviceProtocolError(f"{self._info.id} gave {len(data)} bytes for {shape} pixels")
        self._number += 1
        return Frame(
            pixels=np.frombuffer(bytes(data), np.uint8).reshape(shape),
            kind=DeviceKind.FINGERPRINT,
            positions=spec.positions,
            ppi=image.get_ppmm() * 25.4 or self._info.ppi,
            taken_at=datetime.now(UTC),
            provenance=self._info.provenance,
            number=self._number,
        )


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """GLib's errors as ours."""
    from gi.repository import GLib

    try:
        yield
    except GLib.Error as error:
        raise _fault(what, _domain(error.domain), int(error.code), error.message) from error


def _fault(what: str, domain: str, code: int, message: str) -> DeviceError:
    return _ERRORS.get((domain, code), DeviceProtocolError)(f"{what}: {message}")


def _domain(domain: str) -> str:
    """A domain's name as it is meant: libfprint 1.94 writes blanks into its own."""
    return domain.replace(" ", "")
