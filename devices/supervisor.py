"""Every device of a workstation: what is plugged in, what happens to it, how it is, and opening it.

Hot-plug is found by asking each driver again and again, each in a process of its own (`devices.worker`);
no library's monitor is relied on, because those die with a restarted service. An open device has a process
of its own besides, so that a wedged one disturbs neither the search nor its neighbours.
"""

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Self

from devices.device import (
    CaptureSpec,
    CardReader,
    Condition,
    Device,
    DeviceInfo,
    Driver,
    Health,
    Outcome,
    TimedOut,
)
from devices.errors import DeviceBusy, DeviceError, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind, Frame
from devices.worker import Deadlines, DeviceWorker


@dataclass(frozen=True, slots=True)
class Attached:
    """A device is there that was not, or that says other things of itself than before."""

    driver: str
    info: DeviceInfo


@dataclass(frozen=True, slots=True)
class Detached:
    """A device is gone."""

    driver: str
    info: DeviceInfo


@dataclass(frozen=True, slots=True)
class Failed:
    """A process ended unasked, once for each; or a driver (`device` is empty) cannot look for devices."""

    driver: str
    device: str
    error: DeviceError


@dataclass(frozen=True, slots=True)
class Recovered:
    """What failed answers again."""

    driver: str
    device: str


Event = Attached | Detached | Failed | Recovered


@dataclass(frozen=True, slots=True)
class Params:
    """How devices are watched."""

    poll_seconds: float = 1.0
    most_seconds: float = 30.0  # between looks by a driver whose process ends each time
    most_events: int = 4096  # that nobody has taken
    deadlines: Deadlines = field(default_factory=Deadlines)
    log: Path | None = None  # where libraries' own output goes

    def pause(self, ended: int) -> float:
        """Seconds until the next look, after `ended` in a row whose process ended."""
        return min(self.poll_seconds * (1 << min(ended, 10)), self.most_seconds)


class Events(Queue[Event]):
    """The latest `most`; `lost` counts what nobody took in time."""

    def __init__(self, most: int) -> None:
        self.lost = 0
        self._most = most
        super().__init__()

    def _put(self, item: Event) -> None:
        if len(self.queue) == self._most:
            self.queue.popleft()
            self.lost += 1
        self.queue.append(item)


class _Opened:
    """What is open: lives in its own process, thread-safe. After a fault the next call opens it anew."""

    def __init__(self, worker: DeviceWorker, info: DeviceInfo) -> None:
        self.worker = worker
        self._info = info

    @property
    def info(self) -> DeviceInfo:
        """What it said of itself when it was opened last."""
        return self.worker.info or self._info

    def health(self) -> Health:
        """How it is, with `restarts`; soon, also while it captures or waits. Raises nothing."""
        return self.worker.health()

    def close(self) -> None:
        """Let go of it and end its process; a call that goes on elsewhere raises `DeviceRemoved`."""
        self.worker.close()


class OpenDevice(_Opened):
    """A `Device`."""

    def preview(self, spec: CaptureSpec) -> Generator[Frame]:
        """Live frames, always the newest, until the iterator is closed; captures are refused meanwhile."""
        return self.worker.preview(spec)

    def capture(self, spec: CaptureSpec) -> Outcome:
        """Capture once; raises `DeviceStuck` when it takes longer than the person's time and its own."""
        return self.worker.call(Device.capture, spec.seconds, spec)


class OpenReader(_Opened):
    """A `CardReader`."""

    def connect(self, seconds: float) -> bytes | TimedOut:
        """Wait for a card and begin a transaction: its ATR."""
        return self.worker.call(CardReader.connect, seconds, seconds)

    def transmit(self, command: bytes) -> bytes:
        """One APDU and its answer."""
        return self.worker.call(CardReader.transmit, 0.0, command)

    def disconnect(self) -> None:
        """End the transaction and power the card down."""
        self.worker.call(CardReader.disconnect)


class Supervisor:
    """Watches `drivers`, whose names differ, until it is closed. Thread-safe.

    `events` keeps what happened until it is taken, the latest `most_events`; what happened to one driver is
    in order. A device that was pulled and put back between two looks is noticed if it was open and in use.
    """

    def __init__(self, drivers: Sequence[Driver], params: Params = Params()) -> None:
        self.events = Events(params.most_events)
        self._watches = {driver.name: _Watch(driver, params, self.events) for driver in drivers}
        assert len(self._watches) == len(drivers), "drivers have different names"

    def devices(self) -> list[DeviceInfo]:
        """What is plugged in; waits until every driver looked once. `provenance.driver` says whose it is."""
        return [info for watch in self._watches.values() for info in watch.devices()]

    def open(self, driver: str, device_id: str) -> OpenDevice:
        """A device that captures; raises what its driver's `open` does, and `DeviceStuck`."""
        worker, info = self._watch(driver).open(device_id)
        if info.kind is DeviceKind.CARD_READER:
            worker.close()
            raise DeviceUnavailable(f"{device_id} reads cards: it captures nothing")
        return OpenDevice(worker, info)

    def open_reader(self, driver: str, device_id: str) -> OpenReader:
        """A card reader; raises what `open` raises."""
        worker, info = self._watch(driver).open(device_id)
        if info.kind is not DeviceKind.CARD_READER:
            worker.close()
            raise DeviceUnavailable(f"{device_id} reads no cards")
        return OpenReader(worker, info)

    def health(self) -> dict[tuple[str, str], Health]:
        """How each device is, by driver and id, and each driver itself, with an empty id.

        At once, but for `Deadlines.health` for each device that turns out to be wedged.
        """
        return {
            (name, device_id): health
            for name, watch in self._watches.items()
            for device_id, health in watch.health().items()
        }

    def close(self) -> None:
        """Close every device and end every process."""
        for watch in self._watches.values():
            watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _watch(self, driver: str) -> "_Watch":
        if driver not in self._watches:
            raise DeviceUnavailable(f"there is no driver {driver}")
        return self._watches[driver]


class _Watch:
    """One driver, looked at from a thread of its own; `_lock` guards what is known, with its events."""

    def __init__(self, driver: Driver, params: Params, events: Events) -> None:
        self._driver = driver
        self._params = params
        self._events = events
        self._lock = threading.Lock()
        self._known: dict[str, DeviceInfo] = {}
        self._gone: set[str] = set()  # since the look that goes on began
        self._open: dict[str, DeviceWorker] = {}
        self._trouble = ""
        self._looked = threading.Event()
        self._closing = threading.Event()
        self._worker = DeviceWorker(driver, None, params.deadlines, partial(self._reported, ""), params.log)
        self._thread = threading.Thread(target=self._run, name=f"devices-{driver.name}", daemon=True)
        self._thread.start()

    def devices(self) -> list[DeviceInfo]:
        deadlines = self._params.deadlines
        self._looked.wait(deadlines.start + deadlines.call)
        with self._lock:
            return list(self._known.values())

    def open(self, device_id: str) -> tuple[DeviceWorker, DeviceInfo]:
        worker = DeviceWorker(
            self._driver,
            device_id,
            self._params.deadlines,
            partial(self._reported, device_id),
            self._params.log,
        )
        with self._lock:
            before = self._open.get(device_id)
            if self._closing.is_set():
                raise DeviceUnavailable("the supervisor is closed")
            if before and not before.closed:
                raise DeviceBusy(f"{device_id} is open already")
            self._open[device_id] = worker
        try:
            return worker, worker.opened()
        except BaseException:
            worker.close()
            raise

    def health(self) -> dict[str, Health]:
        with self._lock:
            known, trouble = dict(self._known), str(self._worker.trouble or self._trouble)
            opened = {device_id: worker for device_id, worker in self._open.items() if not worker.closed}
        figures = {"restarts": float(max(0, self._worker.starts - 1))}
        health = {"": Health(Condition.FAILING if trouble else Condition.READY, trouble, figures)}
        health |= {device_id: Health(Condition.READY, "not open") for device_id in known}
        health |= {device_id: worker.health() for device_id, worker in opened.items()}
        return health

    def close(self) -> None:
        self._closing.set()
        self._worker.close()
        with self._lock:
            opened = list(self._open.values())
        for worker in opened:
            worker.close()
        self._thread.join()

    def _run(self) -> None:
        ended = 0
        while not self._closing.is_set():
            with self._lock:
                self._gone.clear()
            try:
                found = self._worker.call(Driver.discover)
                self._find(found)
                ended = 0
            except DeviceStuck:  # which the worker reports
                ended += 1
            except DeviceError as error:
                self._cannot_look(error)
            except Exception as error:  # of what a driver found that are no devices
                self._cannot_look(DeviceError(f"{self._driver.name} found what is no device: {error!r}"))
            self._looked.set()
            with self._lock:
                opened = list(self._open.values())
            for worker in opened:
                worker.check()
            self._closing.wait(self._params.pause(ended))

    def _find(self, found: Sequence[DeviceInfo]) -> None:
        """Compare what is there with what was; what went since the look began may still be in it."""
        with self._lock:
            now = {info.id: info for info in found if info.id not in self._gone}
            if self._trouble:
                self._trouble = ""
                self._events.put(Recovered(self._driver.name, ""))
            for info in self._known.values():
                if now.get(info.id) != info:
                    self._events.put(Detached(self._driver.name, info))
            for info in now.values():
                if self._known.get(info.id) != info:
                    self._events.put(Attached(self._driver.name, info))
            self._known = now

    def _cannot_look(self, error: DeviceError) -> None:
        """Tell of an error once, not at every look; what was plugged in counts as plugged in meanwhile."""
        with self._lock:
            if str(error) != self._trouble and not self._closing.is_set():
                self._trouble = str(error)
                self._events.put(Failed(self._driver.name, "", error))

    def _reported(self, device_id: str, error: DeviceError | None) -> None:
        with self._lock:
            if error is None:
                self._events.put(Recovered(self._driver.name, device_id))
            elif not isinstance(error, DeviceRemoved):
                self._events.put(Failed(self._driver.name, device_id, error))
            else:
                self._gone.add(device_id)
                if gone := self._known.pop(device_id, None):
                    self._events.put(Detached(self._driver.name, gone))
