"""The security module (SAM) that opens the protected files of an e-KTP: a chip in a second slot, or far away.

What is known of its commands is public but unofficial: 00F0 opens it, 00FF resets its session, 00F1 answers a
card's challenge, 00F2 checks the card's answer, 00F3 wraps a command, 00F4 unwraps an answer, 00FA verifies
the card's digital signature. What is not public, among it all of its keys and ciphers, is the module's own
business: a terminal carries bytes. How 00F1 and 00FA take their data is our assumption, marked below.

A remote module speaks the same APDUs over TLS 1.3, each as two bytes of length, big-endian, and its bytes;
both sides show a certificate. One connection is one session with one module.
"""

import contextlib
import errno
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devices.device import CardReader, TimedOut
from devices.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceUnavailable,
    DeviceUntrusted,
)

CHALLENGE, AUTHENTICATOR = 8, 0x28  # bytes
_PIECE = 0xF0


class Sam(Protocol):
    """What reading an e-KTP needs of a SAM. Raises `DeviceError`s and nothing else; not thread-safe."""

    def reset(self) -> None:
        """Forget the last card."""

    def authenticator(self, uid: bytes, control: bytes, challenge: bytes) -> bytes:
        """40 bytes that answer the challenge of the card with this UID and card control file."""

    def confirm(self, answer: bytes) -> None:
        """Check the card's own answer; raises `DeviceUntrusted` where it is no genuine card."""

    def wrap(self, command: bytes) -> bytes:
        """The command as secure messaging sends it."""

    def unwrap(self, answer: bytes) -> bytes:
        """The plain answer, with status word, of the data that a card answered; raises `DeviceUntrusted`."""

    def signature_holds(self, signature: bytes, signed: tuple[bytes, ...]) -> bool:
        """Whether this is the issuer's signature of these files' contents."""


class ApduSam:
    """A SAM by its commands, however they travel: `transmit` takes an APDU and gives its answer."""

    def __init__(self, transmit: Callable[[bytes], bytes], code: bytes) -> None:
        """Open the module with its code; raises `DeviceUntrusted` where it is wrong."""
        self._transmit = transmit
        if self._status(0xF0, 0, 0, code)[1] != 0x9000:
            raise DeviceUntrusted("the SAM does not open with this code")

    def reset(self) -> None:
        """00FF."""
        self._command(0xFF, 0, 0)

    def authenticator(self, uid: bytes, control: bytes, challenge: bytes) -> bytes:
        """00F10001; that it takes the UID, the card control file and the challenge is our assumption."""
        answer = self._command(0xF1, 0, 1, uid + control + challenge)
        if len(answer) != AUTHENTICATOR:
            raise DeviceProtocolError(f"the SAM answers a challenge with {len(answer)} bytes")
        return answer

    def confirm(self, answer: bytes) -> None:
        """00F2."""
        if self._status(0xF2, 0, 0, answer)[1] != 0x9000:
            raise DeviceUntrusted("the SAM does not know this card: it is no genuine e-KTP")

    def wrap(self, command: bytes) -> bytes:
        """00F3."""
        return self._command(0xF3, 0, 0, command)

    def unwrap(self, answer: bytes) -> bytes:
        """00F4."""
        plain, status = self._status(0xF4, 0, 0, answer)
        if status != 0x9000 or len(plain) < 2:
            raise DeviceUntrusted("the SAM does not unwrap the card's answer: it was tampered with")
        return plain

    def signature_holds(self, signature: bytes, signed: tuple[bytes, ...]) -> bool:
        """00FA; that P2 is 0 for the signature, 1 for what is signed, 2 for the verdict is our assumption."""
        self._command(0xFA, 0, 0, signature)
        for part in signed:
            for at in range(0, len(part), _PIECE):
                self._command(0xFA, 0, 1, part[at : at + _PIECE])
        return self._status(0xFA, 0, 2)[1] == 0x9000

    def _command(self, ins: int, p1: int, p2: int, data: bytes = b"") -> bytes:
        answer, status = self._status(ins, p1, p2, data)
        if status != 0x9000:
            raise DeviceProtocolError(f"the SAM answers {status:04X} to 00{ins:02X}{p1:02X}{p2:02X}")
        return answer

    def _status(self, ins: int, p1: int, p2: int, data: bytes = b"") -> tuple[bytes, int]:
        if len(data) > 0xFF:
            raise DeviceProtocolError(f"{len(data)} bytes are too many for a command to the SAM")
        body = bytes([len(data)]) + data if data else b""
        answer = self._transmit(bytes([0, ins, p1, p2]) + body)
        if len(answer) < 2:
            raise DeviceProtocolError("the SAM answers without a status word")
        return answer[:-2], int.from_bytes(answer[-2:], "big")


@contextmanager
def slot_sam(slot: CardReader, code: bytes, seconds: float = 5.0) -> Iterator[ApduSam]:
    """The SAM in a slot of a reader, opened; powered down at the end.

    Raises `DeviceRemoved` where there is none within `seconds`.
    """
    if isinstance(slot.connect(seconds), TimedOut):
        raise DeviceRemoved(f"no SAM in {slot.info.id}")
    try:
        yield ApduSam(slot.transmit, code)
    finally:
        slot.disconnect()


@dataclass(frozen=True, slots=True)
class SamServer:
    """Where a remote SAM is, and what both sides are known by, PEM files.

    `authority`: who signed the server's certificate; its name must be `host`. `certificate`, `key`: our own.
    `seconds`: for connecting, and for every answer, the whole of it.
    """

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path
    seconds: float = 10.0


@contextmanager
def remote_sam(server: SamServer, code: bytes) -> Iterator[ApduSam]:
    """A SAM over the network, opened; the session ends with the connection.

    Raises `DeviceUntrusted` where a certificate does not hold, `DeviceUnavailable` where nobody answers, as
    while the module serves another terminal, or a file is missing; `DeviceRemoved` when it goes away.
    """
    try:
        context = ssl.create_default_context(cafile=server.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(server.certificate, server.key)
    except OSError as error:
        raise DeviceUnavailable(f"a certificate for the remote SAM cannot be read: {error}") from error
    where = f"the SAM at {server.host}:{server.port}"
    try:
        plain = socket.create_connection((server.host, server.port), server.seconds)
    except OSError as error:
        raise DeviceUnavailable(f"{where} does not answer: {error}") from error
    with plain:
        try:
            connection = context.wrap_socket(plain, server_hostname=server.host)
        except ssl.SSLError as error:
            raise DeviceUntrusted(f"{where} is not trusted: {error}") from error
        except OSError as error:
            raise DeviceUnavailable(f"{where} does not answer: {error}") from error
        with connection:
            yield ApduSam(_over(connection, where, server.seconds), code)


def serve_sam(
    listening: socket.socket,
    context: ssl.SSLContext,
    session: Callable[[], contextlib.AbstractContextManager[Callable[[bytes], bytes]]],
    told: Callable[[str], None],
    seconds: float = 60.0,
    handshake_seconds: float = 5.0,
) -> None:
    """Lend a SAM to one terminal after another, until `listening` is closed.

    `context`: of a server that demands the terminals' certificates. `session` powers the module up and gives
    its `transmit`, and powers it down. A terminal that gives no whole command for `seconds` loses it, and one
    that does not prove who it is within `handshake_seconds` does not get it. `told` hears whose session ended
    badly, and why.
    """
    while True:
        try:
            plain, peer = listening.accept()
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EINVAL):  # closed, or shut down
                return
            time.sleep(0.1)  # a connection given up again, or no descriptor free now
            continue
        try:
            with plain:
                plain.settimeout(handshake_seconds)
                with context.wrap_socket(plain, server_side=True) as connection, session() as transmit:
                    while (command := _message(connection, seconds)) is not None:
                        _send(connection, transmit(command), seconds)
        except (OSError, DeviceError) as error:
            told(f"{peer[0]}: {error}")


def _over(connection: ssl.SSLSocket, where: str, seconds: float) -> Callable[[bytes], bytes]:
    def transmit(command: bytes) -> bytes:
        try:
            _send(connection, command, seconds)
            answer = _message(connection, seconds)
        except ssl.SSLError as error:
            # With TLS 1.3 the server's refusal of our certificate comes with its first answer.
            raise DeviceUntrusted(f"{where} refuses us: {error}") from error
        except OSError as error:
            raise DeviceRemoved(f"{where} went away: {error}") from error
        if answer is None:
            raise DeviceRemoved(f"{where} closed the connection")
        return answer

    return transmit


def _send(connection: ssl.SSLSocket, message: bytes, seconds: float) -> None:
    if len(message) > 0xFFFF:
        raise DeviceProtocolError(f"{len(message)} bytes are too many for a command or an answer of a SAM")
    connection.settimeout(seconds)
    connection.sendall(struct.pack(">H", len(message)) + message)


def _message(connection: ssl.SSLSocket, seconds: float) -> bytes | None:
    """One message, the whole of it in time; None when the other side closed the connection."""
    until = time.monotonic() + seconds
    head = _exactly(connection, 2, until)
    return None if head is None else _exactly(connection, struct.unpack(">H", head)[0], until)


def _exactly(connection: ssl.SSLSocket, count: int, until: float) -> bytes | None:
    data = b""
    while len(data) < count:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole message in time")
        connection.settimeout(left)
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data
