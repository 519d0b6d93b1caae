"""Cards under stress: insertions, readers that come and go, restarts of pcscd; and what a command costs.

    python -m benchmarks.devices cards [--insertions 1000] [--changes 50] [--restarts 100] [--commands 5000]

A private pcscd with vsmartcard's virtual reader (`devices/virtual/pcscd.py`), our emulated e-KTP and test
SAM in its slots. Each stress ends with an error where an event is lost or told twice, a card cannot be read
afterwards, or a process, a thread or an open file is left.
"""

import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from devices.device import TimedOut
from devices.ektp import CardSex, Demographics, Ektp, Personalisation, read_ektp
from devices.pcsc import CardChange, CardEvent, CardWatch, PcscDriver
from devices.sam import slot_sam
from devices.virtual.ektp_card import EktpCard
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.test_sam import TestIssuer, TestSam
from devices.virtual.vpcd import Slot

PATIENCE = 60.0
CHANGED = (CardChange.INSERTED, CardChange.REMOVED)


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
            before, started = left_behind(), time.monotonic()
            events = stress(pcscd, slots, times)
            for slot in slots:
                slot.remove()
                if slot.failure is not None:
                    raise slot.failure
            if (after := left_behind()) > before:
                raise Lost(f"threads and open files: {before} before, {after} after {name}")
            seconds = round(time.monotonic() - started, 1)
            figures[name] = {"times": times, "events": dict(sorted(events.items())), "seconds": seconds}
            print(name, figures[name], flush=True)
        folder = str(pcscd.socket.parent)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder in _text(path)]
    if left:
        raise Lost(f"processes are left: {left}")
    return {"lost_events": 0, **figures}


def insert(pcscd: Pcscd, slots: tuple[Slot, Slot], times: int) -> Counter[str]:
    """Put cards into both slots at a time, and pull them."""
    issuer, watch = TestIssuer(), CardWatch()
    told = Counter[str](event.change for event in watch.poll(PATIENCE))
    names = {info.id for info in PcscDriver().discover()}
    for _ in range(-(-times // len(slots))):
        for change in CHANGED:
            for slot in slots:
                slot.insert(EktpCard(issuer), gap=0) if change is CardChange.INSERTED else slot.remove()
            events = awaited(watch, lambda events: len(events) >= len(slots))
            if {(event.change, event.reader) for event in events} != {(change, name) for name in names}:
                raise Lost(f"{change} in both slots gave {events}")
            told.update(event.change for event in events)
    if more := watch.poll(1.0):
        raise Lost(f"nothing happened, and was told: {more}")
    watch.close()
    return told


def reconfigure(pcscd: Pcscd, slots: tuple[Slot, Slot], times: int) -> Counter[str]:
    """Take the reader away and put another in its place, with a card lying in it."""
    watch, told = CardWatch(), Counter[str]()
    slots[0].insert(EktpCard(TestIssuer()))
    told.update(event.change for event in awaited(watch, _settled))
    readers: tuple[str | None, ...] = (None, "Another", READER)
    was: str | None = READER
    for number in range(times):
        now = readers[number % len(readers)]
        pcscd.configure(now)
        expected = Counter[str]()
        if was is not None:
            expected.update({CardChange.DETACHED: 2, CardChange.REMOVED: 1})
        if now is not None:
            expected.update({CardChange.ATTACHED: 2, CardChange.INSERTED: 1})
        seen = Counter[str](event.change for event in awaited(watch, _as_many(expected)))
        names = [info.id.partition(" slot ")[0] for info in PcscDriver().discover()]
        if seen != expected or names != ([] if now is None else [now, now]):
            raise Lost(f"{was} became {now}: {seen}, {names}")
        told.update(seen)
        was = now
    pcscd.configure(READER)
    watch.close()
    return told


def restart(pcscd: Pcscd, slots: tuple[Slot, Slot], times: int) -> Counter[str]:
    """End the service politely or not, a card lying in a slot; read that card after each restart."""
    watch, told = CardWatch(), Counter[str]()
    slots[0].insert(EktpCard(TestIssuer()))
    told.update(event.change for event in awaited(watch, _settled))
    reader = PcscDriver().open("Virtual PCD slot 0")
    expected = Counter[str]({CardChange.DETACHED: 2, CardChange.ATTACHED: 2})
    expected.update(CHANGED)
    for number in range(times):
        pcscd.stop(signal.SIGKILL if number % 2 else signal.SIGTERM)
        pcscd.start()
        events = awaited(watch, _as_many(expected))
        seen = Counter[str](event.change for event in events)
        if seen != expected:
            raise Lost(f"a restart gave {events}")
        told.update(seen)
        if isinstance(reader.connect(PATIENCE), TimedOut):
            raise Lost("no card after a restart")
        if reader.transmit(bytes.fromhex("00A40000027F0A")) != b"\x90\x00":
            raise Lost("the card does not answer after a restart")
        reader.disconnect()
    watch.close()
    return told


def timed_commands(slots: tuple[Slot, Slot], count: int) -> dict[str, object]:
    """Milliseconds of one READ BINARY of 248 bytes, and of a whole card."""
    issuer = TestIssuer()
    figures: dict[str, object] = {}
    slots[1].insert(TestSam(issuer))
    for t0 in (False, True):
        slots[0].insert(EktpCard.personalised(issuer, content(), t0=t0))
        reader = PcscDriver().open("Virtual PCD slot 0")
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
        whole = []
        with slot_sam(PcscDriver().open("Virtual PCD slot 1"), issuer.code, PATIENCE) as sam:
            for _ in range(10):
                started = time.perf_counter()
                card = read_ektp(reader, sam, PATIENCE)
                whole.append(1000 * (time.perf_counter() - started))
                if not isinstance(card, Ektp) or not card.signed:
                    raise Lost("a card was not read")
        figures[reader.protocol] = {
            "commands": count,
            "median_ms": round(statistics.median(took), 3),
            "p99_ms": round(statistics.quantiles(took, n=100)[98], 3),
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


def content() -> Personalisation:
    """A card of nobody, with a photo of 12 kB."""
    noise = np.random.default_rng(1)
    holder = Demographics(
        nik="3273014107900001",
        address="JL. CONTOH 1",
        neighbourhood="001",
        community="002",
        birthplace="BANDUNG",
        district="SUKASARI",
        village="GEGERKALONG",
        regency="KOTA BANDUNG",
        sex=CardSex.FEMALE,
        blood="O",
        religion="-",
        marital_status="KAWIN",
        occupation="GURU",
        name="SITI CONTOH",
        birth_date=date(1990, 7, 1),
        province="JAWA BARAT",
        unknown=("", "", ""),
        nationality="WNI",
    )
    signature = np.full((44, 168), 255, np.uint8)
    photo = b"\xff\xd8" + noise.bytes(12_000) + b"\xff\xd9"
    return Personalisation(photo, holder, signature, (noise.bytes(180), noise.bytes(180)))


def awaited(watch: CardWatch, enough: Callable[[list[CardEvent]], bool]) -> list[CardEvent]:
    """Events until there are enough of them; raises `Lost` where there are not in time."""
    events: list[CardEvent] = []
    until = time.monotonic() + PATIENCE
    while not enough(events):
        if time.monotonic() > until:
            raise Lost(f"only {events}")
        events += watch.poll(1.0)
    return events


def left_behind() -> tuple[int, int]:
    """How many threads and open files this process has."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def _settled(events: list[CardEvent]) -> bool:
    """Two slots, and a card in one."""
    return len(events) >= 3


def _as_many(expected: Counter[str]) -> Callable[[list[CardEvent]], bool]:
    return lambda events: len(events) >= expected.total()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
