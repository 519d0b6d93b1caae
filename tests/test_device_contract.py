"""What every adapter does alike, each behind a supervisor as at a workstation, over its real driver stack."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from devices.device import Captured, Condition, DeviceInfo, TimedOut
from devices.errors import DeviceBusy, DeviceError, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind, Frame, Record
from devices.supervisor import (
    Attached,
    Detached,
    Event,
    Failed,
    OpenDevice,
    OpenReader,
    Params,
    Recovered,
    Supervisor,
)
from tests.device_places import PLACES, READERS, DevicePlace

PATIENCE = 60.0  # seconds: nothing is timed here, but nothing may hang either


@dataclass(frozen=True)
class Desk:
    """A place, and a supervisor that watches it."""

    place: DevicePlace
    supervisor: Supervisor

    def info(self) -> DeviceInfo:
        (info,) = (info for info in self.supervisor.devices() if info.id == self.place.device)
        return info

    def await_event(self, awaited: Callable[[Event], bool]) -> list[Event]:
        """The events up to the one awaited."""
        events: list[Event] = []
        until = time.monotonic() + PATIENCE
        while not events or not awaited(events[-1]):
            events.append(self.supervisor.events.get(timeout=max(0.0, until - time.monotonic())))
        return events

    def failures_before_recovery(self) -> int:
        """How often the open device failed until it recovered."""
        driver, device = self.place.driver.name, self.place.device
        events = self.await_event(lambda event: event == Recovered(driver, device))
        return sum(isinstance(event, Failed) and event.device == device for event in events)

    @contextmanager
    def unplugged(self, after: float = 0.0) -> Iterator[None]:
        """Without the device, `after` seconds from now on; it is back, and known to be, afterwards."""
        unplugging = threading.Timer(after, self.place.unplug)
        unplugging.start()
        if not after:
            unplugging.join()
        try:
            yield
            self.await_event(lambda event: isinstance(event, Detached) and event.info.id == self.place.device)
            assert self.place.device not in [info.id for info in self.supervisor.devices()]
        finally:
            unplugging.join()  # it may be noticed before the place is done
            self.place.replug()
        self.await_event(lambda event: isinstance(event, Attached) and event.info.id == self.place.device)


@pytest.fixture(scope="module")
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    place: DevicePlace
    with (
        (PLACES | READERS)[request.param](tmp_path_factory.mktemp(request.param)) as place,
        Supervisor([place.driver], Params(poll_seconds=0.2)) as supervisor,
    ):
        yield Desk(place, supervisor)


@pytest.fixture(scope="module")
def device(desk: Desk) -> Iterator[OpenDevice]:
    device = desk.supervisor.open(desk.place.driver.name, desk.place.device)
    yield device
    device.close()


@pytest.fixture(scope="module")
def reader(desk: Desk) -> Iterator[OpenReader]:
    reader = desk.supervisor.open_reader(desk.place.driver.name, desk.place.device)
    yield reader
    reader.close()


every = pytest.mark.parametrize("desk", [*PLACES, *READERS], indirect=True)
every_device = pytest.mark.parametrize("desk", PLACES, indirect=True)
every_reader = pytest.mark.parametrize("desk", READERS, indirect=True)


def opened_anew(device: OpenDevice | OpenReader) -> None:
    """Open it again after a fault; a stack may need a moment until it can be."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            device.worker.opened()
            return
        except DeviceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def captured(desk: Desk, device: OpenDevice) -> Captured:
    opened_anew(device)
    desk.place.present()
    outcome = device.capture(desk.place.spec)
    desk.place.withdraw()
    assert isinstance(outcome, Captured)
    return outcome


@every
def test_a_driver_is_its_settings(desk: Desk) -> None:
    driver = desk.place.driver
    assert pickle.loads(pickle.dumps(driver)) == driver
    with pytest.raises(AttributeError):
        driver.name = "other"  # type: ignore[misc]


@every
def test_a_device_describes_itself(desk: Desk) -> None:
    ids = [info.id for info in desk.supervisor.devices()]
    assert len(set(ids)) == len(ids)
    info = desk.info()
    assert (info.provenance.driver, info.provenance.device) == (desk.place.driver.name, desk.place.device)
    assert desk.supervisor.health()[desk.place.driver.name, ""].condition is Condition.READY


@every
def test_a_device_that_is_not_there_cannot_be_opened(desk: Desk) -> None:
    with pytest.raises(DeviceRemoved):
        desk.supervisor.open(desk.place.driver.name, "another")


@every_device
def test_a_capture_gives_what_was_asked_for(desk: Desk, device: OpenDevice) -> None:
    assert device.info == desk.info()
    assert device.health().condition is Condition.READY
    with pytest.raises(DeviceBusy):
        desk.supervisor.open(desk.place.driver.name, desk.place.device)
    outcome = captured(desk, device)
    for frame in outcome.frames:
        assert not frame.pixels.flags.writeable
        assert frame.ppi == device.info.ppi
    items: list[Frame | Record] = [*outcome.frames, *outcome.records]
    assert items
    for item in items:
        assert item.kind is device.info.kind
        assert set(item.positions) <= set(desk.place.spec.positions)
        assert item.provenance.driver == desk.place.driver.name
        assert abs(datetime.now(UTC) - item.taken_at) < timedelta(minutes=5)
    got = {position for item in items for position in item.positions}
    assert got == set(desk.place.spec.positions)


@every_device
def test_nobody_before_it_is_no_fault(desk: Desk, device: OpenDevice) -> None:
    outcome = device.capture(replace(desk.place.spec, seconds=0.3))
    assert isinstance(outcome, TimedOut if desk.place.waits else Captured)
    assert device.health().condition is Condition.READY


@every_device
def test_a_preview_shows_the_newest_frame(desk: Desk, device: OpenDevice) -> None:
    preview = device.preview(desk.place.spec)
    if not device.info.previews:
        with pytest.raises(DeviceUnavailable):
            next(preview)
    else:
        numbers = [next(preview).number for _ in range(3)]
        assert numbers == sorted(set(numbers))
        with pytest.raises(DeviceBusy):
            device.capture(desk.place.spec)
        assert device.health().condition is Condition.BUSY
        time.sleep(1)
        assert next(preview).number > numbers[-1] + 1
        preview.close()
    captured(desk, device)


@every_device
def test_a_device_that_is_unplugged_is_removed_and_comes_back(desk: Desk, device: OpenDevice) -> None:
    opened_anew(device)
    with desk.unplugged(0.5 if desk.place.waits else 0.0), pytest.raises(DeviceRemoved):
        device.capture(replace(desk.place.spec, seconds=PATIENCE))
    captured(desk, device)


@every_device
def test_a_killed_process_is_told_and_started_again(
    desk: Desk, device: OpenDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_anew(device)
    before, process = device.worker.pid, device.worker._process
    assert before
    assert process
    os.kill(before, signal.SIGSTOP)  # stuck, then dead with the request in its hands
    send = process.channel.send

    def send_and_kill(message: object, seconds: float | None = None) -> None:
        send(message, seconds)
        os.kill(before, signal.SIGKILL)

    monkeypatch.setattr(process.channel, "send", send_and_kill)
    with pytest.raises(DeviceStuck):
        device.capture(desk.place.spec)
    assert device.health().condition is Condition.FAILING
    captured(desk, device)
    assert device.worker.pid != before
    assert desk.failures_before_recovery() == 1


@every_device
def test_closing_ends_a_capture_and_the_process(desk: Desk, device: OpenDevice) -> None:
    opened_anew(device)
    pid = device.worker.pid
    assert pid
    if desk.place.waits:
        threading.Timer(0.3, device.close).start()
        with pytest.raises(DeviceRemoved):
            device.capture(replace(desk.place.spec, seconds=PATIENCE))
    device.close()
    device.close()
    with pytest.raises(DeviceRemoved):
        device.capture(desk.place.spec)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert device.health().condition is Condition.REMOVED


def connected(desk: Desk, reader: OpenReader) -> bytes:
    opened_anew(reader)
    desk.place.present()
    atr = reader.connect(PATIENCE)
    assert isinstance(atr, bytes)
    return atr


@every_reader
def test_a_card_answers(desk: Desk, reader: OpenReader) -> None:
    assert reader.info == desk.info()
    assert reader.info.kind is DeviceKind.CARD_READER
    assert reader.connect(0.3) == TimedOut(0.3)
    assert connected(desk, reader)[0] in (0x3B, 0x3F)
    assert reader.transmit(desk.place.command)[-2:] == b"\x90\x00"
    assert reader.health().condition in (Condition.READY, Condition.BUSY)
    reader.disconnect()
    desk.place.withdraw()


@every_reader
def test_a_card_that_is_pulled_is_removed_and_the_next_is_read(desk: Desk, reader: OpenReader) -> None:
    connected(desk, reader)
    desk.place.withdraw()
    with pytest.raises(DeviceRemoved):
        reader.transmit(desk.place.command)
    connected(desk, reader)
    assert reader.transmit(desk.place.command)[-2:] == b"\x90\x00"
    desk.place.withdraw()


@every_reader
def test_a_reader_that_is_unplugged_is_removed_and_comes_back(desk: Desk, reader: OpenReader) -> None:
    opened_anew(reader)
    with desk.unplugged(0.5), pytest.raises((DeviceRemoved, DeviceUnavailable)):
        reader.connect(PATIENCE)
    connected(desk, reader)
    desk.place.withdraw()


@every_reader
def test_a_killed_reader_process_is_told_and_started_again(desk: Desk, reader: OpenReader) -> None:
    connected(desk, reader)
    pid = reader.worker.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DeviceError):  # of the new process, which has no card, or of the old one
        reader.transmit(desk.place.command)
    desk.place.withdraw()
    opened_anew(reader)
    until = time.monotonic() + PATIENCE
    while reader.health().figures.get("card") != 0.0:  # the service may take the old card for the next one
        assert time.monotonic() < until
        time.sleep(0.05)
    connected(desk, reader)
    assert reader.transmit(desk.place.command)[-2:] == b"\x90\x00"
    desk.place.withdraw()
    assert desk.failures_before_recovery() == 1
