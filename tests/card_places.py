"""Virtual readers and cards under a pcscd of this process's own; nothing of the machine's is touched."""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from benchmarks.made_up_card import NOBODY
from devices.ektp import Personalisation
from devices.pcsc import PcscDriver, PcscReader
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.vpcd import Slot

CARD, SAM = f"{READER} slot 0", f"{READER} slot 1"


@dataclass(frozen=True)
class CardTable:
    """A running pcscd with one reader, and its two slots, empty."""

    pcscd: Pcscd
    card: Slot
    sam: Slot
    _opened: list[PcscReader] = field(default_factory=list)

    def reader(self, name: str = CARD) -> PcscReader:
        """The reader's slot, opened; closed with the others."""
        self._opened.append(PcscDriver().open(name))
        return self._opened[-1]

    def clear(self) -> None:
        """Let go of the cards, pull them, and wait until the service has noticed."""
        while self._opened:
            self._opened.pop().close()
        self.card.remove()
        self.sam.remove()
        until = time.monotonic() + 10
        while self.pcscd.pid is not None and time.monotonic() < until:
            if not any(self.reader(name).health().figures.get("card") for name in (CARD, SAM)):
                break
            time.sleep(0.05)
        self._opened.clear()


@cache
def _pcscd() -> Pcscd:
    # libpcsclite reads the variable once in a process: there is one daemon, whose socket stays where it is.
    pcscd = Pcscd()
    os.environ[SOCKET_VARIABLE] = str(pcscd.socket)
    atexit.register(pcscd.close)
    return pcscd


@contextmanager
def card_table() -> Iterator[CardTable]:
    """A table in its first state; one at a time."""
    pcscd = _pcscd()
    pcscd.configure(READER)
    pcscd.start()
    table = CardTable(pcscd, Slot(pcscd.ports[0]), Slot(pcscd.ports[1]))
    try:
        yield table
        assert table.card.failure is None, table.card.failure
        assert table.sam.failure is None, table.sam.failure
    finally:
        pcscd.stop()
        table.clear()


def personalisation() -> Personalisation:
    """What is on a card of nobody: bytes that only look like a photo and minutiae."""
    signature = np.full((44, 168), 255, np.uint8)
    signature[20:24, 30:130] = 0
    noise = np.random.default_rng(7)
    photo = b"\xff\xd8" + noise.bytes(2000) + b"\xff\xd9"
    holder = replace(NOBODY, address='JL. "MAWAR" NO. 5, BLOK C', unknown=("", "a", "b"))
    return Personalisation(photo, holder, signature, (noise.bytes(150), noise.bytes(6)))
