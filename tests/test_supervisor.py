"""The supervisor: every event once and in order, whatever happens to the processes behind it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import eq
from pathlib import Path

import pytest

from devices.device import CaptureSpec, Condition
from devices.errors import DeviceBusy, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind
from devices.supervisor import Attached, Detached, Event, Failed, Params, Recovered, Supervisor
from devices.worker import Deadlines
from tests.misbehaving import MisbehavingDriver
from tests.test_device_worker import PATIENCE, await_true, runs

PARAMS = Params(poll_seconds=0.05, most_seconds=0.2, deadlines=Deadlines(call=4))


@pytest.fixture
def driver(tmp_path: Path) -> MisbehavingDriver:
    return MisbehavingDriver(tmp_path / "script")


@pytest.fixture
def supervisor(driver: MisbehavingDriver) -> Iterator[Supervisor]:
    write(driver, "left right")
    with Supervisor([driver], PARAMS) as supervisor:
        supervisor.devices()
        yield supervisor


def write(driver: MisbehavingDriver, devices: str) -> None:
    """Plug in these devices, pull the others; at once, as plugs do."""
    new = driver.script.with_name("new")
    new.write_text(devices)
    new.replace(driver.script)


def events(supervisor: Supervisor, last: Callable[[Event], bool]) -> list[Event]:
    """Every event up to a certain one."""
    got: list[Event] = []
    until = time.monotonic() + PATIENCE
    while not got or not last(got[-1]):
        got.append(supervisor.events.get(timeout=max(0.0, until - time.monotonic())))
    return got


def is_attached(device: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Attached) and event.info.id == device


def test_devices_that_come_and_go_are_told(supervisor: Supervisor, driver: MisbehavingDriver) -> None:
    first = [Attached(driver.name, driver.info(device)) for device in ("left", "right")]
    assert [info.id for info in supervisor.devices()] == ["left", "right"]
    assert events(supervisor, is_attached("right")) == first
    write(driver, "right middle")
    assert events(supervisor, is_attached("middle")) == [
        Detached(driver.name, driver.info("left")),
        Attached(driver.name, driver.info("middle")),
    ]
    write(driver, "right middle=another")  # in the same place
    assert events(supervisor, is_attached("middle")) == [
        Detached(driver.name, driver.info("middle")),
        Attached(driver.name, driver.info("middle=another")),
    ]


@pytest.mark.parametrize("how", ["sleep", "crash"])
def test_a_search_that_wedges_or_dies_fails_and_recovers(
    how: str, supervisor: Supervisor, driver: MisbehavingDriver
) -> None:
    device = supervisor.open(driver.name, "left")
    write(driver, how)
    failed = events(supervisor, lambda event: isinstance(event, Failed))[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, DeviceStuck)
    assert supervisor.health()[driver.name, ""].condition is Condition.FAILING
    assert device.capture(CaptureSpec())  # goes on meanwhile
    assert "left" in [info.id for info in supervisor.devices()]
    write(driver, "left")
    after = events(supervisor, lambda event: event == Recovered(driver.name, ""))
    after += events(supervisor, lambda event: isinstance(event, Detached))
    assert [event.info.id for event in after if isinstance(event, Detached)] == ["right"]


def test_a_look_that_began_before_a_device_went_does_not_bring_it_back(
    supervisor: Supervisor, driver: MisbehavingDriver
) -> None:
    device = supervisor.open(driver.name, "left")
    events(supervisor, is_attached("right"))
    slow, looking = driver.script.with_name("slow"), driver.script.with_name("looking")
    slow.touch()
    await_true(looking.exists)
    write(driver, "right middle")
    with pytest.raises(DeviceRemoved):
        device.capture(CaptureSpec(transaction="DeviceRemoved"))
    slow.unlink()
    assert events(supervisor, is_attached("middle")) == [
        Detached(driver.name, driver.info("left")),
        Attached(driver.name, driver.info("middle")),
    ]


def test_what_is_no_list_of_devices_ends_no_watch(supervisor: Supervisor, driver: MisbehavingDriver) -> None:
    write(driver, "nonsense")
    failed = events(supervisor, lambda event: isinstance(event, Failed))[-1]
    assert "no device" in str(failed)
    assert supervisor.health()[driver.name, ""].condition is Condition.FAILING
    write(driver, "left right third")
    assert events(supervisor, is_attached("third"))[0] == Recovered(driver.name, "")


def test_a_search_that_dies_all_night_is_tried_again_and_again() -> None:
    assert [Params().pause(ended) for ended in (0, 1, 3, 10, 100_000)] == [1, 2, 8, 30, 30]


def test_events_that_nobody_takes_do_not_pile_up(driver: MisbehavingDriver) -> None:
    write(driver, "a b c d e f")
    with Supervisor([driver], replace(PARAMS, most_events=4)) as supervisor:
        supervisor.devices()
        assert supervisor.events.lost == 2
        latest = [Attached(driver.name, driver.info(device)) for device in "cdef"]
        assert events(supervisor, is_attached("f")) == latest


def test_processes_that_cannot_be_started_are_told_until_they_can(
    driver: MisbehavingDriver, tmp_path: Path
) -> None:
    write(driver, "left")
    log = tmp_path / "later" / "log"
    with Supervisor([driver], replace(PARAMS, log=log)) as supervisor:
        failed = events(supervisor, lambda event: isinstance(event, Failed))[-1]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeviceUnavailable)
        with pytest.raises(DeviceUnavailable, match="started"):
            supervisor.open(driver.name, "left")
        log.parent.mkdir()
        assert events(supervisor, is_attached("left"))[0] == Recovered(driver.name, "")
        supervisor.open(driver.name, "left")


def test_what_keeps_failing_is_told_once(supervisor: Supervisor, driver: MisbehavingDriver) -> None:
    write(driver, "unavailable")
    events(supervisor, lambda event: isinstance(event, Failed))
    time.sleep(10 * PARAMS.poll_seconds)
    assert supervisor.health()[driver.name, ""].detail == "the service does not run"
    write(driver, "left right third")
    assert events(supervisor, is_attached("third"))[0] == Recovered(driver.name, "")


def test_no_killed_process_goes_unnoticed(supervisor: Supervisor, driver: MisbehavingDriver) -> None:
    device = supervisor.open(driver.name, "left")
    pids = set()
    for _ in range(3):
        for failing in ("", "left"):
            if failing:
                device.worker.opened()
            pid = device.worker.pid if failing else searcher(supervisor, driver)
            assert pid
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            failed = events(supervisor, lambda event: isinstance(event, Failed))[-1]
            assert isinstance(failed, Failed)
            assert failed.device == failing
            if failing:
                device.worker.opened()
            events(supervisor, partial(eq, Recovered(driver.name, failing)))
    assert len(pids) == 6
    assert supervisor.events.empty()
    assert not any(map(runs, pids))


def searcher(supervisor: Supervisor, driver: MisbehavingDriver) -> int | None:
    """The process that searches for a driver."""
    return supervisor._watches[driver.name]._worker.pid


def test_a_wedged_driver_holds_up_no_other(driver: MisbehavingDriver, tmp_path: Path) -> None:
    write(driver, "sleep")
    other = replace(driver, script=tmp_path / "other", name="other")
    write(other, "left")
    patient = replace(PARAMS, deadlines=Deadlines(call=600))
    with Supervisor([driver, other], patient) as supervisor:
        events(supervisor, is_attached("left"))
        assert supervisor.open("other", "left").capture(CaptureSpec())


def test_a_device_is_opened_once_as_what_it_is(supervisor: Supervisor, driver: MisbehavingDriver) -> None:
    with pytest.raises(DeviceUnavailable, match="no cards"):
        supervisor.open_reader(driver.name, "left")
    with pytest.raises(DeviceUnavailable, match="no driver"):
        supervisor.open("another", "left")
    device = supervisor.open(driver.name, "left")
    with pytest.raises(DeviceBusy):
        supervisor.open(driver.name, "left")
    device.close()
    supervisor.open(driver.name, "left")


def test_a_reader_captures_nothing(driver: MisbehavingDriver) -> None:
    write(driver, "slot")
    readers = replace(driver, kind=DeviceKind.CARD_READER)
    with (
        Supervisor([readers], PARAMS) as supervisor,
        pytest.raises(DeviceUnavailable, match="captures nothing"),
    ):
        supervisor.open(driver.name, "slot")


def test_it_loads_no_driver_and_no_library_of_devices() -> None:
    code = "import sys, devices.supervisor; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "numpy" in loaded.split()
    assert not {"cv2", "gi", "smartcard", "genicam", "harvesters"} & set(loaded.split())


def test_closing_leaves_no_process(driver: MisbehavingDriver) -> None:
    write(driver, "left")
    supervisor = Supervisor([driver], PARAMS)
    device = supervisor.open(driver.name, "left")
    pids = [device.worker.pid, searcher(supervisor, driver)]
    supervisor.close()
    assert not any(runs(pid) for pid in pids if pid)
    assert device.health().condition is Condition.REMOVED
    with pytest.raises(DeviceUnavailable):
        supervisor.open(driver.name, "left")
