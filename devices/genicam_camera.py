"""Cameras that speak GenICam (USB3 Vision, GigE Vision, CoaXPress) through `harvesters` and a GenTL producer.

A producer is a library (.cti) of the camera's maker, or of another. A process can load it once, and what a
camera that vanished leaves behind in it may never be let go of: a worker process of its own cures that.
"""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from devices.device import Captured, CaptureSpec, Condition, DeviceInfo, Health
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
)
from devices.frame import DeviceKind, Frame, Positions, Provenance
from devices.pixel_formats import convertible, in_colour, pixels

if TYPE_CHECKING:
    from genicam.gentl import Buffer
    from harvesters.core import DeviceInfo as Found
    from harvesters.core import ImageAcquirer

_INSTALL = "install harvesters and genicam (`rekam[devices]`)"
_SEARCHED = "GENICAM_GENTL64_PATH"  # where the standard says that producers are found
_BUFFERS = 4
_ENUMERATE_MS = 1000
_ATTEMPTS = 3
# Of the GenTL standard.
_PART_IMAGE, _NO_ACCESS, _KILL = 1, 3, 1


@dataclass(frozen=True, slots=True)
class GenicamDriver:
    """Cameras of one kind: of GenTL producers that are named, or lie where GENICAM_GENTL64_PATH says.

    `cameras`: the ids of those that are meant; none: all. Irises come grey; `positions`: what an iris camera
    can show at once. `silence`: seconds without a frame after which a camera is gone or stuck.
    """

    producers: tuple[str, ...] = ()
    kind: DeviceKind = DeviceKind.FACE
    name: str = "genicam"
    cameras: tuple[str, ...] = ()
    positions: tuple[Positions, ...] = ()
    silence: float = 2.0

    def discover(self) -> Sequence[DeviceInfo]:
        """All cameras, also those that somebody has open. Raises `DeviceUnavailable`.

        Cost: 30 ms, or as long as the producers take to ask around (a second on a network).
        """
        return [info for info, _ in self._present(_producers(self._files()))]

    def open(self, device_id: str) -> "GenicamCamera":
        """Open a camera for this process alone."""
        producers = _producers(self._files())
        for info, found in self._present(producers):
            if info.id == device_id:
                return GenicamCamera(producers, found, info, self.silence)
        raise DeviceRemoved(f"no camera {device_id}")

    def _files(self) -> tuple[str, ...]:
        folders = os.environ.get(_SEARCHED, "").split(os.pathsep)
        files = self.producers or [
            str(one) for folder in folders if folder for one in Path(folder).glob("*.cti")
        ]
        there = tuple(sorted(file for file in files if Path(file).is_file()))
        if not there:
            raise DeviceUnavailable(
                f"no GenTL producer (.cti): install the camera's, and name it or set {_SEARCHED}"
            )
        return there

    def _present(self, producers: "_Producers") -> list[tuple[DeviceInfo, "Found"]]:
        described = [(self._described(found), found) for found in producers.cameras()]
        return [(info, found) for info, found in described if not self.cameras or info.id in self.cameras]

    def _described(self, found: "Found") -> DeviceInfo:
        def said(of: str) -> str:
            try:
                return str(getattr(found, of) or "")
            except _gentl_fault():
                return ""  # which of these there are is the producer's choice

        device_id = said("id_")
        makers = (said("vendor"), said("model"), said("serial_number"), said("version"))
        return DeviceInfo(device_id, self.kind, Provenance(self.name, device_id, *makers), self.positions)


class GenicamCamera:
    """An open camera; see `devices.device.Device`. It streams while there is a preview or a capture."""

    def __init__(self, producers: "_Producers", found: "Found", info: DeviceInfo, silence: float) -> None:
        self._producers, self._info, self._silence = producers, info, silence
        self._open = True
        self._taken, self._skipped = 0, 0
        self._arrivals: deque[float] = deque(maxlen=30)
        with _typed(info.id):
            self._acquirer = producers.opened(found)
        try:
            with _typed(info.id):
                self._acquirer.num_buffers = _BUFFERS
                self._choose_format()
        except DeviceError:
            self.close()
            raise

    @property
    def info(self) -> DeviceInfo:
        """What it says of itself."""
        return self._info

    def preview(self, spec: CaptureSpec) -> Generator[Frame, None, None]:
        """Always the newest frame: those that came while the caller was busy are skipped.

        Raises `DeviceRemoved` or `DeviceStuck` `silence` seconds after the last frame at the latest.
        """
        with self._streaming():
            while True:
                yield self._newest(spec.positions)

    def capture(self, spec: CaptureSpec) -> Captured:
        """The next frame."""
        with self._streaming():
            return Captured((self._newest(spec.positions),))

    def health(self) -> Health:
        """Frames per second of the stream, frames so far, and those skipped or lost on the way."""
        figures = {"frames": float(self._taken), "skipped": float(self._skipped), "frames_per_second": 0.0}
        if len(self._arrivals) > 1 and time.monotonic() - self._arrivals[-1] < self._silence:
            figures["frames_per_second"] = (len(self._arrivals) - 1) / (
                self._arrivals[-1] - self._arrivals[0]
            )
        if not self._open:
            return Health(Condition.REMOVED, "closed", figures)
        try:
            with _typed(self._info.id):
                figures["lost"] = float(sum(stream.num_underrun for stream in self._acquirer.data_streams))
                self._ask()
        except DeviceRemoved as gone:
            return Health(Condition.REMOVED, str(gone), figures)
        except DeviceError as fault:
            return Health(Condition.FAILING, str(fault), figures)
        return Health(Condition.READY, "", figures)

    def close(self) -> None:
        """Stop and let go; a second time does nothing."""
        if self._open:
            self._open = False
            self._producers.close(self._acquirer)

    @contextmanager
    def _streaming(self) -> Iterator[None]:
        """The stream runs within; a capture during a preview leaves the preview's alone."""
        if not self._open:
            raise DeviceRemoved(f"{self._info.id} is closed")
        if self._acquirer.is_acquiring():
            yield
            return
        self._arrivals.clear()
        try:
            with _typed(self._info.id):
                self._acquirer.start()
            yield
        finally:
            if self._open:
                _stop(self._acquirer)

    def _newest(self, positions: Positions) -> Frame:
        picture = self._fetched(self._silence)
        if picture is None:
            self._raise_for_silence()
        # `harvesters` waits without end where the time is 0.
        for _ in range(_BUFFERS):
            newer = self._fetched(0.001)
            if newer is None:
                break
            picture = newer
            self._skipped += 1
        assert picture is not None
        self._taken += 1
        return Frame(
            picture, self._info.kind, positions, None, datetime.now(UTC), self._info.provenance, self._taken
        )

    def _fetched(self, seconds: float) -> NDArray[np.uint8] | None:
        """The next picture that is complete, within the time; its buffer is given back whatever comes."""
        ends = time.monotonic() + seconds
        while self._open and (left := ends - time.monotonic()) > 0:
            # None also where a buffer was incomplete, so that the time must be our own.
            with _typed(self._info.id):
                buffer = self._acquirer.try_fetch(timeout=left, is_raw=True)
            if buffer is None:
                continue
            try:
                with _typed(self._info.id):
                    picture = _picture(buffer)
            finally:
                with suppress(*_faults()):
                    buffer.parent.queue_buffer(buffer)
            self._arrivals.append(time.monotonic())
            grey = self._info.kind == DeviceKind.IRIS and picture.ndim == 3
            return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False) if grey else picture
        return None

    def _raise_for_silence(self) -> None:
        silent = f"{self._info.id} gave no frame for {self._silence:g} s"
        with _typed(self._info.id):
            self._ask()
            if self._info.id not in {str(found.id_) for found in self._producers.cameras()}:
                raise DeviceRemoved(f"{silent}: it is no longer there")
        raise DeviceStuck(silent)

    def _ask(self) -> None:
        """Read something of the camera itself, which fails once it is gone."""
        self._acquirer.remote_device.node_map.Width.value  # noqa: B018 - reading is asking
        if int(self._acquirer.device.access_status) == _NO_ACCESS:
            raise DeviceRemoved(f"{self._info.id} cannot be reached")

    def _choose_format(self) -> None:
        """Colour for faces and grey for eyes where the camera can, and always something that we can read."""
        node = self._acquirer.remote_device.node_map.PixelFormat
        eyes = self._info.kind == DeviceKind.IRIS
        offered = [node.value, *node.symbolics]

        def rank(name: str) -> tuple[bool, bool]:
            return in_colour(name) == eyes, not name.endswith("8")

        # The sort is stable: what the camera is set to now stays where it is no worse.
        readable = sorted(filter(convertible, offered), key=rank)
        if not readable:
            raise DeviceProtocolError(
                f"{self._info.id} offers only formats not known here: {', '.join(offered)}"
            )
        if readable[0] != node.value:
            try:
                node.value = readable[0]
            except _faults():
                if not convertible(node.value):
                    raise


def _picture(buffer: "Buffer") -> NDArray[np.uint8]:
    """The first picture in a buffer, which may hold other data after it, or several parts."""
    data: bytes = buffer.raw_buffer
    images = [part for part in buffer.parts if part.data_type == _PART_IMAGE]
    if images:
        part = images[0]
        at, size, code = part.data_offset, (part.width, part.height), part.data_format
        padding = _or_zero(part, "x_padding")
    else:
        at, size, code = _or_zero(buffer, "image_offset"), (buffer.width, buffer.height), buffer.pixel_format
        padding = _or_zero(buffer, "padding_x")
    name = _names().get(code, f"{code:#x}")
    return pixels(data[at:], name, *size, padding)


def _or_zero(of: "Buffer", what: str) -> int:
    try:
        return int(getattr(of, what))
    except _gentl_fault():
        return 0  # which of these there are is the producer's choice


@cache
def _names() -> dict[int, str]:
    from harvesters.util.pfnc import dict_by_ints

    return dict(dict_by_ints)


class _Producers:
    """What one process may hold of some producers."""

    def __init__(self, files: tuple[str, ...]) -> None:
        try:
            from harvesters.core import Harvester, ParameterKey, ParameterSet
        except ImportError as error:
            raise DeviceUnavailable(f"{_INSTALL}: {error}") from error
        # Every fault reaches us as an exception; its own log would tell it again, with a traceback.
        quiet = logging.getLogger("harvesters.quiet")
        quiet.disabled = True
        self._harvester: Harvester = Harvester(config=ParameterSet({ParameterKey.LOGGER: quiet}))
        self._settings = {ParameterKey.ENABLE_AUTO_CHUNK_DATA_UPDATE: False}
        for file in files:
            try:
                self._harvester.add_file(file, check_validity=True)
            except OSError as error:
                raise DeviceUnavailable(f"the GenTL producer {file} cannot be loaded: {error}") from error

    def cameras(self) -> list["Found"]:
        """What is plugged in, asked anew."""
        with _typed("a GenTL producer"):
            if self._harvester.image_acquirers:
                return self._beside_the_open()
            # Loads the producers anew: some list a camera that came back only then.
            self._harvester.update()
            if not self._harvester.has_revised_device_info_list:
                raise DeviceUnavailable("the GenTL producers cannot be asked for their cameras")
            return list(self._harvester.device_info_list)

    def _beside_the_open(self) -> list["Found"]:
        """The same without closing what is open, which the library's own way does."""
        from harvesters.core import DeviceInfo as Found

        interfaces = list(dict.fromkeys(found.parent for found in self._harvester.device_info_list))
        there = []
        for interface in interfaces:
            interface.update_device_info_list(_ENUMERATE_MS)
            there += [Found(module=one, parent=interface) for one in interface.device_info_list]
        return there

    def opened(self, found: "Found") -> "ImageAcquirer":
        from harvesters.core import ParameterSet

        here = found if found in self._harvester.device_info_list else {"id_": found.id_}
        # It would take over the process's Ctrl-C.
        before = signal.getsignal(signal.SIGINT)
        try:
            return self._harvester.create(here, config=ParameterSet(self._settings.copy()))
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, before)

    def close(self, acquirer: "ImageAcquirer") -> None:
        _stop(acquirer)
        # Where the camera is gone, one attempt fails at one step, and the next goes on after it.
        for _ in range(_ATTEMPTS):
            with suppress(*_faults()):
                acquirer.destroy()
                break
        if acquirer in self._harvester.image_acquirers:
            self._harvester.image_acquirers.remove(acquirer)


def _stop(acquirer: "ImageAcquirer") -> None:
    """Stop the stream, also of a camera that is gone: the library gives up when that does not answer."""
    with suppress(*_faults()):
        acquirer.stop()
    for stream in acquirer.data_streams:
        with suppress(*_faults()):
            if stream.is_grabbing():
                stream.stop_acquisition(_KILL)


@cache
def _producers(files: tuple[str, ...]) -> _Producers:
    return _Producers(files)


@cache
def _faults() -> tuple[type[Exception], ...]:
    """Everything that the two libraries below raise."""
    from genicam import genapi, gentl

    return gentl.GenericException, genapi.GenericException, AttributeError, ValueError, AssertionError


def _gentl_fault() -> type[Exception]:
    return _faults()[0]


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """Foreign faults as ours."""
    try:
        yield
    except _faults() as fault:
        kind = _KINDS.get(type(fault).__name__, DeviceProtocolError)
        raise kind(f"{what}: {type(fault).__name__}: {fault}") from fault


_KINDS: dict[str, type[DeviceError]] = {
    "AccessDeniedException": DeviceBusy,
    "BusyException": DeviceBusy,
    "ResourceInUseException": DeviceBusy,
    "TimeoutException": DeviceStuck,
    "ClosedException": DeviceRemoved,
    "InvalidHandleException": DeviceRemoved,
    "InvalidIdException": DeviceRemoved,
    "IoException": DeviceRemoved,
    "LoadLibraryException": DeviceUnavailable,
    "OutOfMemoryException": DeviceUnavailable,
    "ResourceExhaustedException": DeviceUnavailable,
}
