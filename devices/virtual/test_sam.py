"""A SAM for tests, and the INVENTED scheme that it shares with the emulated card.

How a real e-KTP derives its keys, authenticates and protects is not public. What is here was made up for
tests, from the sizes that are known and from published building blocks: mutual authentication as with
passports (ICAO 9303-11, 4.3), secure messaging of ISO/IEC 7816-4, with AES-128 in CBC mode and CMAC. No real
card or SAM understands it, and no key of a real one is in it: a `TestIssuer` makes its keys at random and
keeps them in memory.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256

from devices.ektp import CONTROL_BYTES, UID_BYTES
from devices.sam import CHALLENGE

ATR_T1 = bytes.fromhex("3B80800101")
ATR_T0 = bytes.fromhex("3B00")
OK = b"\x90\x00"
_BLOCK = 16
_HASH = ec.ECDSA(SHA256())


class Tampered(Exception):
    """A checksum does not hold."""


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """One key to encipher with, one for checksums, 16 bytes each."""

    cipher: bytes
    checksum: bytes

    def sealed(self, plain: bytes) -> bytes:
        """Whole blocks enciphered, and their checksum of eight bytes."""
        enciphered = _cbc(self.cipher, bytes(_BLOCK), plain, encrypt=True)
        return enciphered + mac(self.checksum, enciphered)

    def opened(self, data: bytes) -> bytes:
        """What was `sealed`; raises `Tampered`."""
        enciphered, checksum = data[:-8], data[-8:]
        whole = len(enciphered) > 0 and len(enciphered) % _BLOCK == 0
        if not whole or not hmac.compare_digest(mac(self.checksum, enciphered), checksum):
            raise Tampered
        return _cbc(self.cipher, bytes(_BLOCK), enciphered, encrypt=False)


@dataclass(frozen=True, slots=True, repr=False)
class TestIssuer:
    """Whoever makes cards and SAMs that know each other: random keys, and a code that opens its SAMs."""

    __test__ = False  # for pytest, which takes it for a test

    master: bytes = field(default_factory=lambda: os.urandom(32))
    signing: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    code: bytes = field(default_factory=lambda: os.urandom(32))

    def card_keys(self, uid: bytes, control: bytes) -> Keys:
        """The keys of one card."""
        made = hmac.digest(self.master, b"test card" + uid + control, "sha256")
        return Keys(made[:16], made[16:])

    def signature(self, signed: tuple[bytes, ...]) -> bytes:
        """The digital signature of files."""
        return self.signing.sign(_signed(signed), _HASH)

    def holds(self, signature: bytes, digest: bytes) -> bool:
        """Whether a signature is of these files' digest."""
        try:
            self.signing.public_key().verify(signature, digest, _HASH)
        except InvalidSignature:
            return False
        return True


class SecureMessaging:
    """One session's protected commands and answers, counted: none can be repeated, left out or changed."""

    def __init__(self, keys: Keys, counter: bytes) -> None:
        self._keys = keys
        self._counter = int.from_bytes(counter, "big")

    @classmethod
    def agreed(cls, shares: tuple[bytes, bytes], challenges: tuple[bytes, bytes]) -> "SecureMessaging":
        """The session that both sides' secret shares and challenges make, SAM's first."""
        seed = bytes(a ^ b for a, b in zip(*shares, strict=True))
        cipher, checksum = (hashlib.sha256(seed + bytes([n])).digest()[:16] for n in (1, 2))
        return cls(Keys(cipher, checksum), challenges[1][-4:] + challenges[0][-4:])

    def wrap(self, command: bytes) -> bytes:
        """A plain short command, protected."""
        header = bytes([command[0] | 0x0C]) + command[1:4]
        body = command[4:]
        data = body[1 : 1 + body[0]] if len(body) > 1 else b""
        le = body[1 + len(data) :] if data else body
        objects = self._enciphered(data) + (b"\x97\x01" + le if le else b"")
        objects += b"\x8e\x08" + self._checksum(pad(header) + objects)
        return header + bytes([len(objects)]) + objects + b"\x00"

    def opened_command(self, command: bytes) -> bytes:
        """The plain command of a protected one; raises `Tampered`."""
        header, objects = command[:4], read_objects(command[5 : 5 + command[4]])
        enciphered, le, checksum = (objects.get(tag, b"") for tag in (0x87, 0x97, 0x8E))
        plain = self._deciphered(enciphered, le, b"", pad(header), checksum)
        return bytes([header[0] & ~0x0C]) + header[1:] + (bytes([len(plain)]) + plain if plain else b"") + le

    def protect(self, answer: bytes) -> bytes:
        """A plain answer, protected, without the status word behind it."""
        objects = self._enciphered(answer[:-2]) + b"\x99\x02" + answer[-2:]
        return objects + b"\x8e\x08" + self._checksum(objects)

    def unwrap(self, data: bytes) -> bytes:
        """The plain answer, with its status word, of a protected one; raises `Tampered`."""
        objects = read_objects(data)
        enciphered, status, checksum = (objects.get(tag, b"") for tag in (0x87, 0x99, 0x8E))
        if len(status) != 2:
            raise Tampered
        return self._deciphered(enciphered, b"", status, b"", checksum) + status

    def _enciphered(self, data: bytes) -> bytes:
        self._counter += 1
        if not data:
            return b""
        value = b"\x01" + _cbc(self._keys.cipher, self._start(), pad(data), encrypt=True)
        return b"\x87" + (b"" if len(value) < 0x80 else b"\x81") + bytes([len(value)]) + value

    def _deciphered(self, value: bytes, le: bytes, status: bytes, header: bytes, checksum: bytes) -> bytes:
        self._counter += 1
        objects = b""
        if value:
            objects = b"\x87" + (b"" if len(value) < 0x80 else b"\x81") + bytes([len(value)]) + value
        objects += b"\x97\x01" + le if le else b""
        objects += b"\x99\x02" + status if status else b""
        if not hmac.compare_digest(self._checksum(header + objects), checksum):
            raise Tampered
        if not value:
            return b""
        padded = _cbc(self._keys.cipher, self._start(), value[1:], encrypt=False)
        return padded.rstrip(b"\x00")[:-1]

    def _start(self) -> bytes:
        counter = self._counter.to_bytes(_BLOCK, "big")
        return _cbc(self._keys.cipher, bytes(_BLOCK), counter, encrypt=True)

    def _checksum(self, data: bytes) -> bytes:
        return mac(self._keys.checksum, self._counter.to_bytes(_BLOCK, "big") + pad(data))


class TestSam:
    """The SAM as a chip of its own: an applet for a slot, or behind a network."""

    __test__ = False

    def __init__(self, issuer: TestIssuer) -> None:
        self._issuer = issuer
        self._open = False
        self._forget()

    @property
    def atr(self) -> bytes:
        """T=1, as SAMs speak."""
        return ATR_T1

    def power(self) -> None:
        """Closed again."""
        self._open = False
        self._forget()

    def answer(self, command: bytes) -> bytes:
        """One command's answer."""
        if len(command) < 4 or command[0] != 0 or (len(command) > 5 and len(command) != 5 + command[4]):
            return b"\x67\x00"
        ins, p2, data = command[1], command[3], command[5:]
        if ins == 0xF0:
            self.power()
            self._open = hmac.compare_digest(data, self._issuer.code)
            return OK if self._open else b"\x69\x82"
        if not self._open:
            return b"\x69\x85"
        try:
            match ins:
                case 0xFF:
                    self._forget()
                    return OK
                case 0xF1:
                    return self._authenticator(data)
                case 0xF2:
                    return self._confirmed(data)
                case 0xF3 if self._session is not None:
                    return self._session.wrap(data) + OK
                case 0xF4 if self._session is not None:
                    return self._session.unwrap(data) + OK
                case 0xFA:
                    return self._verified(p2, data)
        except (Tampered, IndexError, ValueError):
            self._forget()
            return b"\x69\x88"
        return b"\x69\x85" if ins in (0xF3, 0xF4) else b"\x6d\x00"

    def _forget(self) -> None:
        self._session: SecureMessaging | None = None
        self._keys: Keys | None = None
        self._challenges = (b"", b"")
        self._share = b""
        self._signature, self._hash = b"", hashlib.sha256()

    def _authenticator(self, data: bytes) -> bytes:
        if len(data) != UID_BYTES + CONTROL_BYTES + CHALLENGE:
            return b"\x67\x00"
        uid, control, challenge = data[:UID_BYTES], data[UID_BYTES:-CHALLENGE], data[-CHALLENGE:]
        self._forget()
        self._keys = self._issuer.card_keys(uid, control)
        self._challenges, self._share = (os.urandom(CHALLENGE), challenge), os.urandom(16)
        return self._keys.sealed(self._challenges[0] + challenge + self._share) + OK

    def _confirmed(self, data: bytes) -> bytes:
        if self._keys is None:
            return b"\x69\x85"
        plain = self._keys.opened(data)
        if plain[:16] != self._challenges[1] + self._challenges[0]:
            raise Tampered
        self._session = SecureMessaging.agreed((self._share, plain[16:32]), self._challenges)
        return OK

    def _verified(self, step: int, data: bytes) -> bytes:
        if step == 0:
            self._signature, self._hash = data, hashlib.sha256()
        elif step == 1:
            self._hash.update(data)
        else:
            return OK if self._issuer.holds(self._signature, self._hash.digest()) else b"\x69\x82"
        return OK


def pad(data: bytes) -> bytes:
    """Filled up to whole blocks with 80 00 ..."""
    return data + b"\x80" + bytes(-(len(data) + 1) % _BLOCK)


def mac(key: bytes, data: bytes) -> bytes:
    """The first eight bytes of the CMAC."""
    made = CMAC(algorithms.AES(key))
    made.update(data)
    return made.finalize()[:8]


def read_objects(data: bytes) -> dict[int, bytes]:
    """Data objects with tags of one byte; raises `Tampered` where they are not whole."""
    objects: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1] if at + 1 < len(data) else 0xFF, at + 2
        if length == 0x81 and at < len(data):
            length, at = data[at], at + 1
        elif length >= 0x80:
            raise Tampered
        if at + length > len(data):
            raise Tampered
        objects[tag], at = data[at : at + length], at + length
    return objects


def _signed(signed: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(b"".join(signed)).digest()


def _cbc(key: bytes, start: bytes, data: bytes, *, encrypt: bool) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CBC(start))
    context = cipher.encryptor() if encrypt else cipher.decryptor()
    return context.update(data) + context.finalize()
