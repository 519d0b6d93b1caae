"""Cards under stress: insertions, readers that come and go, restarts of pcscd; and what a command costs.

    python -m benchmarks.devices cards [--insertions 1000] [--changes 50] [--restarts 100] [--commands 5000]

A private pcscd with vsmartcard's virtual reader (`devices/virtual/pcscd.py`), our emulated e-KTP and test
SAM in its slots; supervisor and readers as the workstation has them. Each stress ends with an error where a
card that was put in is not read, or another one is; where one that is gone still answers; where a reader that
came or went is not told, told twice, or in the wrong order; or where a process, a thread or an open file is
left.
"""

import os
import signal
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty

import numpy as np

from benchmarks.made_up_card import NOBODY
from devices.device import CardReader, DeviceInfo, TimedOut
from devices.ektp import Ektp, Personalisation, read_ektp
from devices.errors import DeviceRemoved
from devices.pcsc import PcscDriver
from devices.sam import slot_sam
from devices.supervisor import Attached, Detached, Event, Failed, OpenReader, Params, Recovered, Supervisor
from devices.virtual.ektp_card import EktpCard
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.test_sam import TestIssuer, TestSam
from devices.virtual.vpcd import Slot

PATIENCE = 60.0
_UID = bytes.fromhex("FFCA000000")
_OK = b"\x90\x00"


class Lost(Exception):
    """An event was lost or invented, or something was left behind."""


def stressed(insertions: int, changes: int, restarts: int, commands: int) -> dict[str, object]:
    """Stress the card readers and time commands; raises `Lost`."""
    figures: dict[str, object] = {}
    with Pcscd() as pcscd:
        os.environ[SOCKET_VARIABLE] = str(pcscd.socket)
        slots = (Slot(pcscd.ports[0]), Slot(pcscd.ports[1]))
        figures["commands"] = timed_commands(slots, commands)
        for name, stress, times in (
            ("insertions", insert, insertions),
            ("configuration_changes", reconfigure, changes),
            ("restarts", restart, restarts),
        ):
            before, started, told = left_behind(), time.monotonic(), Counter[str]()
            with Supervisor([PcscDriver()]) as supervisor:
                if heard(supervisor, told, 2) != [Attached("pcsc", info) for info in supervisor.devices()]:
                    raise Lost("two slots, and something else was told")
                stress(supervisor, pcscd, slots, times, told)
                time.sleep(3 * Params().poll_seconds)
                heard(supervisor, told, supervisor.events.qsize(), Failed, Recovered)
            for slot in slots:
                slot.remove()
                if slot.failure is not None:
                    raise slot.failure
            after = left_behind()
            if any(more > less for more, less in zip(after, before, strict=True)):
                raise Lost(f"threads, open files and processes: {before} before, {after} after {name}")
            seconds = round(time.monotonic() - started, 1)
            figures[name] = {"times": times, "told": dict(sorted(told.items())), "seconds": seconds}
            print(name, figures[name], flush=True)
            if told["Failed"] != told["Recovered"]:
                raise Lost("the service failed more often than it recovered")
        folder = str(pcscd.socket.parent)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder in text_of(path)]
    if left:
        raise Lost(f"processes are left: {left}")
    return {"lost_events": 0, **figures}


def insert(
    supervisor: Supervisor, pcscd: Pcscd, slots: tuple[Slot, Slot], times: int, told: Counter[str]
) -> None:
    """Put a card into both slots at a time while each is waited for, read it, and pull it."""
    issuer = TestIssuer()

    def use(slot: Slot, info: DeviceInfo) -> int:
        reader = supervisor.open_reader("pcsc", info.id)
        for _ in range(each):
            card = EktpCard(issuer)
            slot.insert(card, gap=0)
            read_uid(reader, card)
            slot.remove()
            lost_card(reader)
            if reader.health().figures["card"]:
                raise Lost("a card that was pulled is said to be there")
        reader.close()
        return each

    each = -(-times // len(slots))
    with ThreadPoolExecutor(len(slots)) as pool:
        told["cards read"] = told["removals told"] = sum(pool.map(use, slots, supervisor.devices()))


def reconfigure(
    supervisor: Supervisor, pcscd: Pcscd, slots: tuple[Slot, Slot], times: int, told: Counter[str]
) -> None:
    """Take the reader away and put another in its place, with a card lying in it that is read."""
    card = EktpCard(TestIssuer())
    slots[0].insert(card)
    readers, was = (None, "Another", READER), supervisor.devices()
    for number in range(times):
        name = readers[number % len(readers)]
        pcscd.configure(name)
        now = list(PcscDriver().discover())
        if len(now) != (0 if name is None else len(slots)):
            raise Lost(f"{name} has the slots {now}")
        expected: list[Event] = [Detached("pcsc", info) for info in was]
        expected += [Attached("pcsc", info) for info in now]
        if (moved := heard(supervisor, told, len(expected))) != expected or supervisor.devices() != now:
            raise Lost(f"{was} became {now}: {moved}, {supervisor.devices()}")
        if name is not None:
            reader = supervisor.open_reader("pcsc", now[0].id)
            read_uid(reader, card)
            reader.close()
            told["cards read"] += 1
        was = now
    pcscd.configure(READER)
    heard(supervisor, told, 0 if was == (back := list(PcscDriver().discover())) else len(was) + len(back))


def restart(
    supervisor: Supervisor, pcscd: Pcscd, slots: tuple[Slot, Slot], times: int, told: Counter[str]
) -> None:
    """End the service politely or not while a card is used, and read that card again.

    Two times in four the service stays away until the supervisor has told so. One that is back before anybody
    looked is told to whoever uses a card, and changes nothing for anybody else.
    """
    card, both = EktpCard(TestIssuer()), supervisor.devices()
    slots[0].insert(card)
    reader = supervisor.open_reader("pcsc", both[0].id)
    read_uid(reader, card)
    for number in range(times):
        pcscd.stop(signal.SIGKILL if number % 2 else signal.SIGTERM)
        if number % 4 >= 2:
            heard(supervisor, told, 1, Failed)
        pcscd.start()
        lost_card(reader)
        read_uid(reader, card)
        told.update(("cards read", "removals told"))
        if number % 4 >= 2:
            heard(supervisor, told, 1, Recovered)
        if supervisor.devices() != both:
            raise Lost(f"after a restart there are {supervisor.devices()}")
    reader.close()


def heard(supervisor: Supervisor, told: Counter[str], count: int, *kinds: type[Event]) -> list[Event]:
    """The next events of these kinds, of devices that come and go if none is given.

    All are counted in `told`; the service's own failures are expected at any time.
    """
    kinds = kinds or (Attached, Detached)
    events: list[Event] = []
    while len(events) < count:
        try:
            event = supervisor.events.get(timeout=PATIENCE)
        except Empty:
            raise Lost(f"{count} events were awaited, only {events} came") from None
        told[type(event).__name__] += 1
        if isinstance(event, kinds):
            events.append(event)
        elif isinstance(event, Attached | Detached):
            raise Lost(f"nothing came or went, and was told: {event}")
    return events


def read_uid(reader: OpenReader, card: EktpCard) -> None:
    """Wait for this very card."""
    if isinstance(reader.connect(PATIENCE), TimedOut) or reader.transmit(_UID) != card.uid + _OK:
        raise Lost("the card was not read, or another one was")


def lost_card(reader: OpenReader) -> None:
    """Use a card that is gone."""
    try:
        answer = reader.transmit(_UID)
    except DeviceRemoved:
        return
    raise Lost(f"a card that is gone answers {answer.hex()}")


def timed_commands(slots: tuple[Slot, Slot], count: int) -> dict[str, object]:
    """Milliseconds of one READ BINARY of 248 bytes, in this process and in a worker, and of a whole card."""
    issuer = TestIssuer()
    figures: dict[str, object] = {}
    slots[1].insert(TestSam(issuer))
    reader = PcscDriver().open("Virtual PCD slot 0")
    for t0 in (False, True):
        slots[0].insert(EktpCard.personalised(issuer, content(), t0=t0))
        ours = round_trips(reader, count)
        whole = []
        with Supervisor([PcscDriver()]) as supervisor:
            worker = supervisor.open_reader("pcsc", "Virtual PCD slot 0")
            through = round_trips(worker, count)
            second = supervisor.open_reader("pcsc", "Virtual PCD slot 1")
            with slot_sam(second, issuer.code, PATIENCE) as sam:
                for _ in range(10):
                    started = time.perf_counter()
                    card = read_ektp(worker, sam, PATIENCE)
                    whole.append(1000 * (time.perf_counter() - started))
                    if not isinstance(card, Ektp) or not card.signed:
                        raise Lost("a card was not read")
        figures[reader.protocol] = {
            "commands": count,
            "without_a_worker": ours,
            "through_a_worker": through,
            "whole_card_median_ms": round(statistics.median(whole), 1),
        }
        print(reader.protocol, figures[reader.protocol], flush=True)
    for slot in slots:
        slot.remove()
    # Until the service has noticed: the next one begins with empty slots.
    until = time.monotonic() + PATIENCE
    while reader.health().figures["card"] and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.0)
    return figures


def round_trips(reader: CardReader, count: int) -> dict[str, float]:
    """Milliseconds of reading 248 bytes of the photo."""
    reader.connect(PATIENCE)
    for file in ("7F0A", "6FF2"):
        reader.transmit(bytes.fromhex("00A4000002" + file))
    took = []
    for _ in range(count):
        started = time.perf_counter()
        answer = reader.transmit(bytes.fromhex("00B00000F8"))
        took.append(1000 * (time.perf_counter() - started))
        if len(answer) != 0xFA:
            raise Lost(f"{len(answer)} bytes")
    reader.disconnect()
    return {
        "median_ms": round(statistics.median(took), 3),
        "p99_ms": round(statistics.quantiles(took, n=100)[98], 3),
    }


def content() -> Personalisation:
    """A card of nobody, with a photo of 12 kB."""
    noise = np.random.default_rng(1)
    signature = np.full((44, 168), 255, np.uint8)
    photo = b"\xff\xd8" + noise.bytes(12_000) + b"\xff\xd9"
    return Personalisation(photo, NOBODY, signature, (noise.bytes(180), noise.bytes(180)))


def left_behind() -> tuple[int, int, int]:
    """How many threads, open files and child processes this process has."""
    stats = (text_of(path) for path in Path("/proc").glob("[0-9]*/stat"))
    children = [stat for stat in stats if stat.rpartition(")")[2].split()[1:2] == [str(os.getpid())]]
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), len(children)


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
