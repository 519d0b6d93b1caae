"""Cards of our own in the slots of vsmartcard's virtual reader, under a real `pcscd`.

A card is a TCP client of the reader. Every message is two bytes of length, big-endian, and a body. A body of
one byte from the reader is control: 0 power off, 1 power on, 2 reset, 4 send the ATR; only the last is
answered. Any other body is a command APDU, answered with data and status word. Closing the connection pulls
the card. The reader sends length and body apart: without TCP_QUICKACK, the kernel waits 40 ms between them.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from devices.errors import DeviceProtocolError

_CONTROL = (b"\x00", b"\x01", b"\x02")
_ATR = b"\x04"
_SECONDS = 10.0
# pcscd looks every 0.4 s; a card that is swapped for another in less may leave it with an empty slot.
_GAP = 0.7


class Applet(Protocol):
    """What a virtual card does."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def power(self) -> None:
        """Power or reset: whatever was selected or authenticated is forgotten."""

    def answer(self, command: bytes) -> bytes:
        """One APDU's answer, with its status word; raises `Torn` to be pulled instead of answering."""


class Torn(Exception):
    """The card is pulled now."""


class Fault(StrEnum):
    """What can be wrong with a card."""

    SLOW = "slow"  # answers after `seconds`
    TORN = "torn"  # pulled when the command has come, before its answer
    GARBAGE = "garbage"  # other bytes of the same number
    SHORT = "short"  # the last byte of the data is missing
    LONG = "long"  # a byte too many
    EMPTY = "empty"  # no answer at all: the virtual reader, and who waits for it, hang until it is pulled
    ONE_BYTE = "one byte"  # half a status word
    REFUSES = "refuses"  # 6F00 instead of an answer
    AGAIN = "again"  # 6C00, for ever
    MORE = "more"  # 61FF without data, for ever


class Faulty:
    """A card with a fault, from the command number `at` on, or as long as it is `armed`."""

    def __init__(self, applet: Applet, fault: Fault, at: int = 0, seconds: float = 1.0) -> None:
        self.applet = applet
        self.fault: Fault | None = fault
        self._seconds = seconds
        self._left = at

    @property
    def atr(self) -> bytes:
        """As the sound card's."""
        return self.applet.atr

    def power(self) -> None:
        """As the sound card's."""
        self.applet.power()

    def answer(self, command: bytes) -> bytes:
        """The sound card's answer with the fault."""
        self._left -= 1
        if self._left >= 0 or self.fault is None:
            return self.applet.answer(command)
        match self.fault:
            case Fault.TORN:
                raise Torn
            case Fault.REFUSES:
                return b"\x6f\x00"
            case Fault.AGAIN:
                return b"\x6c\x00"
            case Fault.MORE:
                return b"\x61\xff"
            case Fault.EMPTY:
                return b""
            case Fault.ONE_BYTE:
                return b"\x90"
        data, status = (answer := self.applet.answer(command))[:-2], answer[-2:]
        match self.fault:
            case Fault.SLOW:
                time.sleep(self._seconds)
                return answer
            case Fault.GARBAGE:
                return bytes(byte ^ 0xA5 for byte in data) + status
            case Fault.SHORT:
                return data[:-1] + status
            case _:
                return data + b"\x00" + status


class Slot:
    """A slot of the virtual reader, empty at first; cards are put in and pulled. Thread-safe.

    A card stays in its slot while the reader is away and connects again when it is back. `asked` is called
    with every command, so that tests can act while a card is being read; what went wrong in it or in the card
    is in `failure`.
    """

    def __init__(self, port: int) -> None:
        self.asked: Callable[[bytes], None] = lambda command: None
        self.failure: Exception | None = None
        self._port = port
        self._lock = threading.Lock()
        self._card: _Card | None = None
        self._empty_since = 0.0

    def insert(self, applet: Applet, gap: float = _GAP) -> None:
        """Put a card in, in place of the one there; the reader notices within half a second.

        `gap`: seconds since the last card was pulled; 0 where the reader is known to have noticed that.
        """
        with self._lock:
            self._pull()
            self._card = _Card(self, applet, self._port, self._empty_since + gap)
            self._card.start()

    def remove(self) -> None:
        """Pull the card; does nothing where there is none."""
        with self._lock:
            self._pull()

    def _pull(self) -> None:
        card, self._card = self._card, None
        if card is not None:
            card.pull()
            self._empty_since = time.monotonic()


class _Card(threading.Thread):
    """A card that lies in a slot."""

    def __init__(self, slot: Slot, applet: Applet, port: int, not_before: float) -> None:
        super().__init__(name="rekam-virtual-card", daemon=True)
        self._slot, self._applet, self._port, self._not_before = slot, applet, port, not_before
        self._pulled = threading.Event()
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def pull(self) -> None:
        """Close the connection, whatever goes on in it."""
        with self._lock:
            self._pulled.set()
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
        if self is not threading.current_thread():
            self.join(_SECONDS)

    def run(self) -> None:
        """Serve the reader until the card is pulled."""
        self._pulled.wait(max(0.0, self._not_before - time.monotonic()))
        while not self._pulled.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), _SECONDS)
            except OSError:
                self._pulled.wait(0.02)
                continue
            with connection:
                with self._lock:
                    self._connection = connection
                if not self._pulled.is_set():
                    self._serve(connection)
                with self._lock:
                    self._connection = None
            # The reader lets go of a card that waits while it finds out that the last one was pulled.
            self._pulled.wait(0.02)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while (message := _received(connection)) is not None:
                if len(message) > 1:
                    self._slot.asked(message)
                    _send(connection, self._applet.answer(message))
                elif message[:1] == _ATR:
                    _send(connection, self._applet.atr)
                elif message in _CONTROL:
                    self._applet.power()
                else:
                    raise DeviceProtocolError(f"the virtual reader says {message.hex()}")
        except Torn:
            self._pulled.set()
        except OSError:
            pass  # pulled, or the reader is gone
        except Exception as failure:
            self._slot.failure = failure
            self._pulled.set()


def _received(connection: socket.socket) -> bytes | None:
    """One message's body; None when the reader closed the connection."""
    head = _exactly(connection, 2)
    return None if head is None else _exactly(connection, struct.unpack(">H", head)[0])


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def _send(connection: socket.socket, body: bytes) -> None:
    connection.sendall(struct.pack(">H", len(body)) + body)
