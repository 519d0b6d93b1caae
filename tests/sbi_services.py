"""Services that tests of the SBI client talk to: bytes of our choice on a real port, and identities."""

import random
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

from devices.sbi import Params, SbiDriver
from devices.sbi_trust import DecryptionKey, Trust, TrustedRoots
from devices.virtual.sbi_simulator import Identity

HASTY = Params(answer_seconds=5, health_seconds=5, grace_seconds=5, frame_seconds=5)
"""Deadlines that a busy machine keeps, and a hanging service does not hold a test up for long with."""


@cache
def identity() -> Identity:
    """Keys and certificates, the same for every test of a process: making them takes a second."""
    return Identity.generated()


def trusted(folder: Path, of: Identity | None = None) -> TrustedRoots:
    """The roots of an identity, as a setting."""
    file = folder / "root.pem"
    file.write_bytes((of or identity()).root)
    return TrustedRoots((file,))


def driver_at(port: int, trust: Trust, key: DecryptionKey | None = None, params: Params = HASTY) -> SbiDriver:
    """A driver of one port's devices."""
    return SbiDriver(trust, environment="Staging", key=key, ports=range(port, port + 1), params=params)


def lasting_port() -> int:
    """A port for a service that comes back: none that a connection gets by chance meanwhile."""
    while True:
        port = random.SystemRandom().randrange(5_000, 15_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _read(connection: socket.socket) -> bytes:
    """A whole request: what is closed with something unread in it is reset, not ended."""
    head = b""
    with connection.makefile("rb") as stream:
        while (line := stream.readline()) not in (b"", b"\r\n"):
            head += line
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        stream.read(int(length[1]) if length else 0)
    return head


@contextmanager
def raw_service(answer: Callable[[bytes], Iterable[bytes]]) -> Iterator[int]:
    """A port that answers the first line of each request with some bytes, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            connection.settimeout(10)
            if request := _read(connection):
                for part in answer(request.partition(b"\r\n")[0]):
                    if ended.is_set():
                        return
                    connection.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def our_key(folder: Path) -> tuple[DecryptionKey, x509.Certificate]:
    """A new key and its certificate, as files and settings of a station."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "station")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    files = folder / "key.pem", folder / "certificate.pem", folder / "password"
    files[2].write_bytes(b"test password\n")
    encryption = BestAvailableEncryption(b"test password")
    files[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    files[1].write_bytes(certificate.public_bytes(Encoding.PEM))
    return DecryptionKey(*files), certificate
