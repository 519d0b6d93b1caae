"""A driver, or one open device, in a process of its own, so that nothing it does can hold up the caller.

Device libraries wedge, crash and lose their threads. Here every call has a deadline. A process that misses
it, or dies, is killed with everything it started, the caller gets `DeviceStuck`, and the next call starts
another. No process outlives its parent: the kernel itself kills it when the parent's end of a pipe closes,
even where the parent was killed and the library never lets Python run.

The process answers one request at a time. Pixels travel through shared memory: half the processor time of
sending them through the socket (`python -m benchmarks.devices preview`). A preview sends a frame only when
one is asked for, the next that the device gives; the others are let go, so that nobody is shown an old one.
"""

import contextlib
import faulthandler
import fcntl
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import devices.errors
from devices.device import CaptureSpec, CardReader, Condition, Device, DeviceInfo, Driver, Health
from devices.errors import DeviceBusy, DeviceError, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind, Frame

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Target = TypeVar("_Target")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that things may take; what a person has time for comes on top."""

    start: float = 30.0  # the process, loading its library, opening its device
    call: float = 10.0  # any call, and from one frame of a preview to the next
    health: float = 1.5  # less than `busy`, so that a call comes through behind it
    close: float = 2.0
    busy: float = 2.0  # waiting for another thread's call


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    arguments: tuple[object, ...] = ()


class DeviceWorker:
    """A process with a driver, or with the device `device_id` of it. Thread-safe; calls wait for each other.

    `report` is told of every process that ended unasked (`DeviceStuck`), of a device that is gone
    (`DeviceRemoved`), and, with None, that calls succeed again. What the library prints goes to `log`.
    """

    def __init__(
        self,
        driver: Driver,
        device_id: str | None = None,
        deadlines: Deadlines = Deadlines(),
        report: Callable[[DeviceError | None], None] = lambda error: None,
        log: Path | None = None,
    ) -> None:
        self.info: DeviceInfo | None = None
        self.closed = False
        self.trouble: DeviceStuck | None = None
        self.starts = 0
        self._driver = driver
        self._device_id = device_id
        self._deadlines = deadlines
        self._report = report
        self._log = log
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._previews: _Process | None = None
        self._times: deque[float] = deque(maxlen=30)

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        process = self._process
        return process.pid if process else None

    def opened(self) -> DeviceInfo:
        """What the open device says of itself; starts the process if none runs."""
        with self._taken():
            self._running()
        assert self.info is not None, "a driver without a device has no description"
        return self.info

    def call(
        self,
        method: Callable[Concatenate[_Target, _P], _T],
        seconds: float = 0.0,
        *arguments: _P.args,
        **none: _P.kwargs,
    ) -> _T:
        """`method` of the driver or device, in its process, with `seconds` more than a call may take.

        Raises `DeviceError`s: what the method raised, `DeviceStuck`, or `DeviceBusy` for a device that
        another thread, or a preview, holds.
        """
        assert not none, "arguments are given by position"
        with self._taken():
            process = self._running()
            if self._previews is process:
                raise DeviceBusy("it shows a preview, which has to be closed first")
            request = _Request(method.__name__, arguments)
            answer = self._answer(process, request, self._deadlines.call + seconds)
            self._succeeded()
            return cast(_T, answer)

    def preview(self, spec: CaptureSpec) -> Generator[Frame]:
        """The newest frame each time one is asked for, until the iterator is closed."""
        with self._taken():
            process = self._running()
            if self._previews is process:
                raise DeviceBusy("it shows a preview already")
            self._previews = process
            self._times.clear()
        request = _Request("preview", (spec,))
        try:
            while True:
                with self._taken():
                    frame = self._answer(process, request, self._deadlines.call)
                if frame is None:
                    return
                self._times.append(time.monotonic())
                yield cast(Frame, frame)
                request = _Request("next")
        finally:
            try:
                with self._taken():
                    if self._previews is process:
                        self._previews = None
                        self._answer(process, _Request("stop"), self._deadlines.call)
            except DeviceBusy:
                process.kill()  # it could not be told to stop
            except DeviceError:
                pass  # it has ended, and was reported

    def health(self) -> Health:
        """How the device is, with `restarts`; starts nothing, and never waits for a call. Raises nothing.

        A device that does not say within `Deadlines.health` is stuck, as with any call.
        """
        figures = {"restarts": float(max(0, self.starts - 1))}
        if self.closed:
            return Health(Condition.REMOVED, "closed", figures)
        if not self._lock.acquire(timeout=0.02):
            return Health(Condition.BUSY, "another call goes on", figures | self._rate())
        try:
            if self._process is None:
                return Health(Condition.FAILING, str(self.trouble or "no process runs"), figures)
            if self._previews is self._process:
                return Health(Condition.BUSY, "shows a preview", figures | self._rate())
            answer = cast(Health, self._answer(self._process, _Request("health"), self._deadlines.health))
            return Health(answer.condition, answer.detail, figures | answer.figures)
        except DeviceRemoved as gone:
            return Health(Condition.REMOVED, str(gone), figures)
        except DeviceError as error:
            return Health(Condition.FAILING, str(error), figures)
        finally:
            self._lock.release()

    def check(self) -> None:
        """Notice, and report, that the process of a device nobody uses now has died."""
        if self._lock.acquire(blocking=False):
            try:
                if self._process and self._process.ended():
                    self._fail("its process ended")
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close the device, end the process; a call that goes on in another thread raises `DeviceRemoved`."""
        self.closed = True
        if not self._lock.acquire(blocking=False):
            if process := self._process:
                process.kill()  # whoever waits for it sees it end, and lets go
            self._lock.acquire()
        try:
            if self._process and self._device_id is not None and self._previews is None:
                with contextlib.suppress(Exception):  # it is killed either way
                    self._process.channel.send(_Request("close"), self._deadlines.close)
                    self._process.channel.receive(self._deadlines.close)
            self._end()
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._deadlines.busy):
            raise DeviceBusy("another call goes on")
        try:
            yield
        finally:
            self._lock.release()

    def _running(self) -> "_Process":
        """The process, started and its device opened where none is; the lock is held."""
        if self._process and self._process.ended():
            self._fail("its process ended")
        if self.closed:
            raise DeviceRemoved("it was closed")
        if self._process is None:
            try:
                self._process = process = _Process(self._log)
            except OSError as error:
                raise DeviceUnavailable(f"its process cannot be started: {error}") from error
            self.starts += 1
            try:
                opening = (self._driver, self._device_id)
                self.info = cast("DeviceInfo | None", self._answer(process, opening, self._deadlines.start))
            except DeviceError:
                self._end()
                raise
            if self._device_id is not None:
                self._succeeded()
        return self._process

    def _answer(self, process: "_Process", request: object, seconds: float) -> object:
        """The answer to a request, or what it says went wrong, raised; the lock is held."""
        if self.closed:
            raise DeviceRemoved("it was closed")
        if self._process is not process:
            raise self.trouble or DeviceRemoved("its process was ended")
        try:
            process.channel.send(request, seconds)
            answer = process.channel.receive(seconds)
        except TimeoutError:
            raise self._fail(f"no answer within {seconds:g} seconds") from None
        except Exception as broken:
            raise self._fail(f"its process ended ({broken or 'no more answers'})") from None
        except BaseException:  # interrupted: its answer may come, and be taken for that of another call
            self._end()
            raise
        if isinstance(answer, DeviceStuck):
            raise self._fail(str(answer))
        if isinstance(answer, DeviceRemoved) and self._device_id is not None and not self._reads_cards():
            self._end()
            self._report(answer)
        if isinstance(answer, DeviceError):
            raise answer
        return answer

    def _reads_cards(self) -> bool:
        """Whether what was removed may be the card alone."""
        return self.info is not None and self.info.kind is DeviceKind.CARD_READER

    def _fail(self, why: str) -> DeviceError:
        """End a process that is stuck or dead, and report it: once, since it is then nobody's process."""
        self._end()
        if self.closed:
            return DeviceRemoved("it was closed")
        self.trouble = DeviceStuck(f"{self._device_id or self._driver.name}: {why}")
        self._report(self.trouble)
        return self.trouble

    def _succeeded(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._report(None)

    def _end(self) -> None:
        process, self._process, self._previews = self._process, None, None
        if process:
            process.end()

    def _rate(self) -> dict[str, float]:
        """Frames per second of the preview that goes on."""
        times = tuple(self._times)
        fast = len(times) > 1 and self._previews is not None
        return {"frames_per_second": (len(times) - 1) / (times[-1] - times[0])} if fast else {}


class _Process:
    """The process itself: alone in its group, with a channel to it."""

    def __init__(self, log: Path | None) -> None:
        """Start it; raises `OSError`."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as its:
            connection, other = socket.socketpair()
            ours.enter_context(connection)
            its.enter_context(other)
            watched, lifeline = os.pipe()
            its.callback(os.close, watched)
            ours.callback(os.close, lifeline)
            memory = os.memfd_create("rekam-device")
            ours.callback(os.close, memory)
            prints = its.enter_context(open(log or os.devnull, "ab"))
            handed = (other.fileno(), memory, watched)
            code = f"import sys; sys.path[:] = {sys.path!r}; from devices.worker import serve; serve{handed}"
            # A maker's library has no business with our settings, least of all with passphrase and SAM code.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("REKAM_")}
            self._popen = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=prints,
                stderr=prints,
                env=environment,
                pass_fds=handed,
                start_new_session=True,  # a group to be killed whole; no Ctrl-C of the terminal
            )
            kept = ours.pop_all()
        self.channel = _Channel(connection, memory)
        self.end = weakref.finalize(self, _destroy, self._popen, kept)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def ended(self) -> bool:
        """Whether it died by itself."""
        return self._popen.poll() is not None

    def kill(self) -> None:
        """Kill it without cleaning up, which `end` does."""
        _kill(self._popen)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _destroy(process: "subprocess.Popen[bytes]", kept: contextlib.ExitStack) -> None:
    """Kill a process and its group; one that hangs in the kernel is left to it, and nobody waits."""
    _kill(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    kept.close()


class _Channel:
    """Pickled messages over a socket, their arrays in shared memory.

    Requests and answers take turns, so that what lies there is taken before it is written anew. Both ends are
    our own code on one machine.
    """

    def __init__(self, connection: socket.socket, memory: int) -> None:
        self._connection = connection
        self._memory = memory
        self._map: mmap.mmap | None = None

    def send(self, message: object, seconds: float | None = None) -> None:
        """Raises `TimeoutError`, `OSError`."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        place = 0
        for array in arrays:
            self._mapped(sum(map(len, arrays)))[place : place + len(array)] = array
            place += len(array)
        packed = pickle.dumps((body, [len(array) for array in arrays]))
        self._connection.settimeout(seconds)
        self._connection.sendall(struct.pack("<I", len(packed)) + packed)

    def receive(self, seconds: float | None = None) -> object:
        """The next message, its arrays read-only; raises `TimeoutError`, `OSError`, `EOFError`."""
        until = None if seconds is None else time.monotonic() + seconds
        (length,) = struct.unpack("<I", self._exactly(4, until))
        body, sizes = cast(tuple[bytes, list[int]], pickle.loads(self._exactly(length, until)))
        arrays, place = [], 0
        for size in sizes:
            arrays.append(self._mapped(sum(sizes))[place : place + size])
            place += size
        return cast(object, pickle.loads(body, buffers=arrays))

    def waiting(self) -> bool:
        """Whether a message can be received now."""
        return bool(select.select([self._connection], [], [], 0)[0])

    def _exactly(self, count: int, until: float | None) -> bytearray:
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            if until is not None:
                self._connection.settimeout(max(1e-3, until - time.monotonic()))
            else:
                self._connection.settimeout(None)
            got = self._connection.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return data

    def _mapped(self, size: int) -> mmap.mmap:
        """The shared memory, at least as large, which it grows to."""
        if self._map is None or len(self._map) < size:
            if os.fstat(self._memory).st_size < size:
                os.ftruncate(self._memory, size)
            self._map = mmap.mmap(self._memory, 0)
        return self._map


def serve(connection: int, memory: int, lifeline: int) -> None:
    """What the process does: open, then answer requests until it is killed."""
    _die_with(lifeline)
    faulthandler.enable()
    channel = _Channel(socket.socket(fileno=connection), memory)
    driver, device_id = cast(tuple[Driver, str | None], channel.receive())
    target: Driver | Device | CardReader = driver
    answer: object = None
    if device_id is not None:
        try:
            target = driver.open(device_id)
            answer = target.info
        except Exception as error:
            answer = _of_contract(error)
    channel.send(answer)
    while True:
        request = cast(_Request, channel.receive())
        if request.method == "preview":
            _show(channel, target, request)
        else:
            channel.send(_result(target, request))


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this group when the other end of a pipe closes.

    PR_SET_PDEATHSIG is tied to the thread that started us, and a thread of our own would need a library that
    lets go of the interpreter.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # closed already
        os.killpg(0, signal.SIGKILL)


def _result(target: object, request: _Request) -> object:
    try:
        return cast(object, getattr(target, request.method)(*request.arguments))
    except Exception as error:
        return _of_contract(error)


def _of_contract(error: Exception) -> DeviceError:
    """An error of `devices.errors`, to be read without the driver's modules; its traceback is a note."""
    if isinstance(error, DeviceError):
        kind = next(base for base in type(error).__mro__ if base.__module__ == devices.errors.__name__)
        told = cast(type[DeviceError], kind)(*map(str, error.args))
    else:
        told = DeviceError(f"{type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _show(channel: _Channel, target: object, request: _Request) -> None:
    """Answer each "next" with the frame that comes next, until "stop"; frames nobody waits for are let go."""

    def stream() -> Generator[Frame]:
        yield from cast(Device, target).preview(*cast(tuple[CaptureSpec], request.arguments))

    frames = stream()
    asked = True
    while True:
        try:
            shown: Frame | DeviceError | None = next(frames, None)
        except Exception as error:
            shown = _of_contract(error)
        while not asked and (channel.waiting() or not isinstance(shown, Frame)):
            if cast(_Request, channel.receive()).method == "stop":
                frames.close()
                channel.send(None)
                return
            asked = True
        if asked:
            channel.send(shown)
            asked = False
