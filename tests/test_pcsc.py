"""Card readers over a real pcscd with virtual readers."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.device import Condition, TimedOut
from devices.errors import (
    DeviceBusy,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
)
from devices.pcsc import PcscDriver, PcscReader
from devices.supervisor import Attached, Detached, Event, Failed, Params, Recovered, Supervisor
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.vpcd import Fault, Faulty
from devices.worker import Deadlines, DeviceWorker
from tests.card_places import CARD, SAM, CardTable, card_table

OK = b"\x90\x00"
READ = bytes.fromhex("00B0000008")
PATIENCE = 30.0


class Card:
    """Answers by the case of a command, and over T=0 as ISO/IEC 7816-3 asks."""

    def __init__(self, *, t0: bool = False) -> None:
        self.atr = bytes.fromhex("3B00" if t0 else "3B80800101")
        self.powered = 0
        self.commands: list[bytes] = []
        self._t0 = t0
        self._waiting = self._envelope = b""

    def power(self) -> None:
        self.powered += 1
        self._waiting = self._envelope = b""

    def answer(self, command: bytes) -> bytes:
        self.commands.append(command)
        ins, p3 = command[1], command[4] if len(command) > 4 else None
        match ins:
            case 0xC0:
                if len(self._waiting) < (p3 or 0x100):
                    return bytes([0x6C, len(self._waiting)])
                return self._given(p3 or 0x100)
            case 0xC2:
                self._envelope += command[5:]
                if len(command) - 5 == 0xFF:
                    return OK
                whole, self._envelope = self._envelope, b""
                return self._echo(whole)
            case 0xB0 if p3 != 8 and len(command) == 5:
                return bytes.fromhex("6C08")
            case 0xB0:
                return b"12345678" + OK
            case 0xA4:
                return bytes.fromhex("6C08")
            case 0x84:
                self._waiting = bytes(range(256)) * 3
                return self._given(0x100)
            case 0x88:
                return self._echo(command)
        return bytes.fromhex("6D00")

    def _echo(self, command: bytes) -> bytes:
        self._waiting = command[-40:]
        return bytes([0x61, len(self._waiting)]) if self._t0 else self._waiting + OK

    def _given(self, count: int) -> bytes:
        given, self._waiting = self._waiting[:count], self._waiting[count:]
        return given + (bytes([0x61, min(len(self._waiting), 0x100) & 0xFF]) if self._waiting else OK)


@pytest.fixture(scope="module")
def tables() -> Iterator[CardTable]:
    with card_table() as table:
        yield table


@pytest.fixture
def table(tables: CardTable) -> Iterator[CardTable]:
    yield tables
    tables.clear()


def moved(supervisor: Supervisor, count: int) -> list[Event]:
    """What came and went next; a service that was away at a look is told besides."""
    events: list[Event] = []
    while len(events) < count:
        if isinstance(event := supervisor.events.get(timeout=PATIENCE), Attached | Detached):
            events.append(event)
    return events


def test_both_slots_are_devices(table: CardTable) -> None:
    driver = PcscDriver()
    infos = driver.discover()
    assert [info.id for info in infos] == [CARD, SAM]
    assert infos[0].provenance.model == READER
    assert pickle.loads(pickle.dumps(driver)) == driver
    with pytest.raises(DeviceRemoved):
        driver.open("another")


@pytest.mark.parametrize("t0", [False, True])
def test_commands_of_every_length(table: CardTable, t0: bool) -> None:
    card = Card(t0=t0)
    reader = table.reader()
    table.card.insert(card)
    assert reader.connect(PATIENCE) == card.atr
    assert reader.protocol == ("T=0" if t0 else "T=1")
    assert reader.health().figures == {"card": 1.0}
    # 6Cxx, then 61xx until there is no more
    assert reader.transmit(bytes.fromhex("00B0000000")) == b"12345678" + OK
    assert reader.transmit(bytes.fromhex("0084000000")) == bytes(range(256)) * 3 + OK
    # data, and data with an answer, short and extended
    short = bytes.fromhex("0088000003AABBCC00")
    assert reader.transmit(short) == (short[:-1] if t0 else short) + OK
    extended = bytes.fromhex("008800000001F4") + bytes(range(250)) * 2 + b"\x00\x00"
    assert reader.transmit(extended) == extended[-40:] + OK
    if t0:
        assert [command[1] for command in card.commands[-3:]] == [0xC2, 0xC2, 0xC0]
        assert all(len(command) <= 5 + 0xFF for command in card.commands)
    assert reader.transmit(bytes.fromhex("00FF0000")) == bytes.fromhex("6D00")
    reader.disconnect()


@pytest.mark.parametrize("t0", [False, True])
def test_a_command_without_a_length_is_not_given_one(table: CardTable, t0: bool) -> None:
    card = Card(t0=t0)
    reader = table.reader()
    table.card.insert(card)
    reader.connect(PATIENCE)
    for command in map(bytes.fromhex, ("00A40000", "00A40000023F00")):
        assert reader.transmit(command) == bytes.fromhex("6C08")
    assert len(card.commands) == 2
    # With data, T=0 carries no length beside it.
    if t0:
        assert reader.transmit(bytes.fromhex("00A40000023F0000")) == bytes.fromhex("6C08")
        assert card.commands[2:] == [bytes.fromhex("00A40000023F00")]
    reader.disconnect()


@pytest.mark.parametrize("command", ["", "00B000", "00B00000050102", "00B000000000"])
def test_what_is_no_command_does_not_reach_the_card(table: CardTable, command: str) -> None:
    card = Card()
    reader = table.reader()
    table.card.insert(card)
    reader.connect(PATIENCE)
    with pytest.raises(DeviceProtocolError):
        reader.transmit(bytes.fromhex(command))
    assert not card.commands
    assert reader.transmit(READ) == b"12345678" + OK
    reader.disconnect()


def test_nobody_lays_a_card_on_it(table: CardTable) -> None:
    reader = table.reader()
    assert reader.connect(0.3) == TimedOut(0.3)
    assert reader.health().figures == {"card": 0.0}
    with pytest.raises(DeviceRemoved):
        reader.transmit(READ)


def test_a_card_is_used_by_one_program(table: CardTable) -> None:
    first, second = table.reader(), table.reader()
    table.card.insert(Card())
    first.connect(PATIENCE)
    assert second.health().condition is Condition.BUSY
    with pytest.raises(DeviceBusy):
        second.connect(PATIENCE)
    first.disconnect()
    assert isinstance(second.connect(PATIENCE), bytes)
    second.close()
    second.close()


def test_a_card_is_powered_anew_for_each_connection(table: CardTable) -> None:
    card = Card()
    reader = table.reader()
    table.card.insert(card)
    reader.connect(PATIENCE)
    powered = card.powered
    reader.disconnect()
    reader.connect(PATIENCE)
    assert card.powered > powered
    reader.disconnect()


FAULTS = {
    Fault.TORN: DeviceRemoved,
    Fault.ONE_BYTE: DeviceProtocolError,
    Fault.AGAIN: DeviceProtocolError,
    Fault.MORE: DeviceProtocolError,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_read_until_the_card_is_connected_anew(
    table: CardTable, fault: Fault
) -> None:
    reader = table.reader()
    table.card.insert(Faulty(Card(), fault, at=1))
    reader.connect(PATIENCE)
    assert reader.transmit(READ) == b"12345678" + OK
    with pytest.raises(FAULTS[fault]):
        reader.transmit(READ)
    with pytest.raises(DeviceRemoved):
        reader.transmit(READ)
    table.card.insert(Card())
    reader.connect(PATIENCE)
    assert reader.transmit(READ) == b"12345678" + OK
    reader.disconnect()


def test_a_slow_card_is_waited_for_and_one_that_says_nothing_is_given_up(table: CardTable) -> None:
    worker = DeviceWorker(PcscDriver(), CARD, Deadlines(call=2.0))
    slow = Faulty(Card(), Fault.SLOW, seconds=0.5)
    table.card.insert(slow)
    worker.call(PcscReader.connect, PATIENCE, PATIENCE)
    assert worker.call(PcscReader.transmit, 0.0, READ) == b"12345678" + OK
    slow.fault = Fault.EMPTY
    with pytest.raises(DeviceStuck):
        worker.call(PcscReader.transmit, 0.0, READ)
    worker.close()
    # The reader hangs with its card; when that is pulled, both are as before.
    table.card.remove()
    reader = table.reader()
    table.card.insert(Card())
    assert isinstance(reader.connect(PATIENCE), bytes)
    reader.disconnect()


def test_each_card_that_is_put_in_is_read_and_its_removal_told(table: CardTable) -> None:
    reader = table.reader()
    for number in range(3):
        card = Card()
        card.atr = bytes.fromhex("3B818001") + bytes([number, 0x81 ^ 0x80 ^ 0x01 ^ number])
        table.card.insert(card)
        assert reader.connect(PATIENCE) == card.atr
        table.card.remove()
        with pytest.raises(DeviceRemoved):
            reader.transmit(READ)
        assert reader.health().figures == {"card": 0.0}


def test_a_card_that_makes_no_sense_is_said(table: CardTable) -> None:
    card = Card()
    card.atr = b"\xff\xff\xff\xff"
    table.card.insert(card)
    with pytest.raises(DeviceProtocolError):
        table.reader().connect(PATIENCE)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_readers_survive_the_service(table: CardTable, how: signal.Signals) -> None:
    reader = table.reader()
    table.card.insert(Card())
    with Supervisor([PcscDriver()], Params(poll_seconds=0.1)) as supervisor:
        before = supervisor.devices()
        assert moved(supervisor, 2) == [Attached("pcsc", info) for info in before]
        reader.connect(PATIENCE)
        pid = table.pcscd.pid
        table.pcscd.stop(how)
        failed = supervisor.events.get(timeout=PATIENCE)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeviceUnavailable)
        with pytest.raises(DeviceRemoved):
            reader.transmit(READ)
        assert reader.health().condition is Condition.FAILING
        with pytest.raises(DeviceUnavailable, match="pcscd"):
            PcscDriver().discover()
        with pytest.raises(DeviceUnavailable):
            reader.connect(0.2)
        back = threading.Timer(0.3, table.pcscd.start)
        back.start()
        assert reader.connect(PATIENCE) == Card().atr  # waited for the service
        assert reader.transmit(READ) == b"12345678" + OK
        back.join()
        reader.disconnect()
        assert supervisor.events.get(timeout=PATIENCE) == Recovered("pcsc", "")
        assert supervisor.devices() == before
        assert table.pcscd.pid != pid


def test_a_service_that_was_restarted_is_told_to_who_reads_a_card(table: CardTable) -> None:
    reader = table.reader()
    table.card.insert(Card())
    reader.connect(PATIENCE)
    table.pcscd.stop()
    table.pcscd.start()
    with pytest.raises(DeviceRemoved):
        reader.transmit(READ)
    assert reader.connect(PATIENCE) == Card().atr
    assert reader.transmit(READ) == b"12345678" + OK
    reader.disconnect()


def test_readers_come_and_go(table: CardTable) -> None:
    reader = table.reader()
    with Supervisor([PcscDriver()], Params(poll_seconds=0.1)) as supervisor:
        both = supervisor.devices()
        assert moved(supervisor, 2) == [Attached("pcsc", info) for info in both]
        for _ in range(3):
            table.pcscd.configure(None)
            assert PcscDriver().discover() == ()
            assert reader.health().condition is Condition.REMOVED
            with pytest.raises(DeviceRemoved):
                reader.connect(0.1)
            assert moved(supervisor, 2) == [Detached("pcsc", info) for info in both]
            assert supervisor.devices() == []
            table.pcscd.configure(READER)
            assert moved(supervisor, 2) == [Attached("pcsc", info) for info in both]
            assert supervisor.devices() == both


def test_two_services_side_by_side_leave_no_process(table: CardTable) -> None:
    listing = "from devices.pcsc import PcscDriver; print([info.id for info in PcscDriver().discover()])"
    with Pcscd("Another") as other:
        environment = os.environ | {SOCKET_VARIABLE: str(other.socket)}
        said = subprocess.run(
            [sys.executable, "-c", listing], env=environment, capture_output=True, text=True, check=True
        ).stdout
        pid = other.pid
    assert said.count("Another slot") == 2
    assert not Path(f"/proc/{pid}").exists()
    assert not other.socket.parent.exists()
    assert len(PcscDriver().discover()) == 2


def test_without_a_service_it_is_said_what_to_install() -> None:
    listing = "from devices.pcsc import PcscDriver; PcscDriver().discover()"
    environment = os.environ | {SOCKET_VARIABLE: "/nonexistent"}
    said = subprocess.run(
        [sys.executable, "-c", listing], env=environment, capture_output=True, text=True, check=False
    ).stderr
    assert "DeviceUnavailable" in said
    assert "apt-get install pcscd" in said
