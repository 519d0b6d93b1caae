"""Fingers for libfprint's virtual image driver: its socket, from the side of the finger.

The driver is part of libfprint; the variable FP_VIRTUAL_IMAGE names the Unix socket on which it listens while
its device is open. A message is two native 32-bit integers, width and height, and that many pixels; a
negative width is a command. libfprint reads while a capture runs only, and a capture takes one image; what is
sent between captures waits in the socket for the next one.
"""

import socket
import struct
import threading
import time
from enum import IntEnum
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

_CONNECT_SECONDS = 10.0
_RETRY, _FAULT, _AUTOMATIC, _FINGER = -1, -2, -3, -4


class Retry(IntEnum):
    """Why the sensor asks for the finger once more, as libfprint numbers it."""

    GENERAL = 0
    TOO_SHORT = 1
    CENTER_FINGER = 2
    REMOVE_FINGER = 3


class Fault(IntEnum):
    """What breaks a capture off, as libfprint numbers it."""

    GENERAL = 0
    NOT_SUPPORTED = 1
    BUSY = 4
    PROTOCOL = 5
    REMOVED = 0x100
    TOO_HOT = 0x101


class LibfprintFeed:
    """A finger for the virtual reader at `path`. Messages are sent in order by a thread of its own.

    Nothing waits: the thread connects when the reader is opened (within 10 s; the messages are dropped
    otherwise), and again when it was closed and opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._messages: Queue[tuple[bytes, float] | None] = Queue()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def touch(self, pixels: NDArray[np.uint8]) -> None:
        """Put the finger on and take it off again: one image `(H, W) uint8`, 5,000 a side at most."""
        height, width = pixels.shape
        self.raw(struct.pack("ii", width, height) + pixels.tobytes())

    def hold(self, pixels: NDArray[np.uint8]) -> None:
        """Put the finger on and leave it there; `lift` takes it off."""
        self._command(_AUTOMATIC, 0)
        self._command(_FINGER, 1)
        self.touch(pixels)

    def lift(self) -> None:
        """Take the finger off that `hold` left there."""
        self._command(_FINGER, 0)
        self._command(_AUTOMATIC, 1)

    def retry(self, why: Retry) -> None:
        """Let the running or next capture ask for another try."""
        self._command(_RETRY, why)

    def fault(self, what: Fault) -> None:
        """Let the running or next capture break off."""
        self._command(_FAULT, what)

    def unplug(self) -> None:
        """Tell the reader, if one is open, that its cable is gone; returns when that is said."""
        self.raw(struct.pack("ii", _FAULT, Fault.REMOVED), patience=0)
        self._messages.join()

    def raw(self, message: bytes, patience: float = _CONNECT_SECONDS) -> None:
        """Send bytes as they are, if a reader is opened within `patience` seconds."""
        self._messages.put((message, patience))

    def close(self) -> None:
        """Take finger and socket away; a second time does nothing."""
        self._messages.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self, command: int, argument: int) -> None:
        self.raw(struct.pack("ii", command, argument))

    def _send(self) -> None:
        connected: socket.socket | None = None
        while (item := self._messages.get()) is not None:
            message, patience = item
            if connected is None or _hung_up(connected):
                connected = _connected(self._path, patience)
            if connected is not None:
                try:
                    connected.sendall(message)
                except OSError:  # closed or killed meanwhile; the next message finds out whether it is back
                    connected.close()
                    connected = None
            self._messages.task_done()
        if connected is not None:
            connected.close()


def _connected(path: Path, patience: float) -> socket.socket | None:
    deadline = time.monotonic() + patience
    while True:
        reader = socket.socket(socket.AF_UNIX)
        try:
            reader.connect(str(path))
        except OSError:
            reader.close()
        else:
            return reader
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def _hung_up(connected: socket.socket) -> bool:
    """Whether the reader was closed since: it never says anything, so what can be read is its farewell."""
    try:
        gone = connected.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        gone = True
    connected.close()
    return gone
