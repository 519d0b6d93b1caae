"""A service of the MOSIP Secure Biometric Interface (SBI) 0.9.5 with simulated devices, to test against.

    python -m devices.virtual.sbi_simulator --root root.pem [--folder PICTURES] [--port 4501] [--device slap]

A process of its own that speaks HTTP as the reference service does, down to its headers; keys and
certificates are generated as it starts, and the root of them is written for whom shall trust it. What goes
wrong is switched while it runs: `control(port, fault=Fault.BUSY)`, or

    curl -d '{"fault": "busy"}' http://127.0.0.1:4501/admin

It is not a device: whoever trusts its root trusts pictures from a folder.
"""

import base64
import hashlib
import http.client
import io
import json
import multiprocessing
import os
import secrets
import socketserver
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray
from PIL import Image

from devices.frame import DeviceKind
from devices.position import EyePosition, FingerPosition
from devices.virtual.sbi_records import record

Position = FingerPosition | EyePosition | None
Pictures = Callable[[DeviceKind, Position, int], NDArray[np.uint8]]
"""Pixels, grey or RGB, of the n-th capture of a finger, an eye or a face; picklable."""

_NONE_SAID = "No Description available."
_WORDS = {
    "502": "Biometric Type values must be Biometric Device, Finger, Face, Iris",
    "705": "Device is not connected for the deviceId given in RCapture request object",
    "809": "Auth Capture request can not be done for Registration Devices",
}
_HEAD = (
    "Access-Control-Allow-Headers:DNT,X-Mx-ReqToken,Keep-Alive,User-Agent,X-Requested-With,"
    "If-Modified-Since,Cache-Control,Content-Type,X-PINGOTHER,Authorization\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    'Access-Control-Allow-Methods: "OPTIONS, RCAPTURE, CAPTURE, MOSIPDINFO, MOSIPDISC, STREAM, SETPROFILE, '
    'GET, POST"\r\n'
    "Access-Control-Allow-Credentials: true\r\n"
    "CACHE-CONTROL:no-cache\r\n"
    "Content-Length: {length}\r\n"
    "Content-Type: application/json\r\n"
    "LOCATION: HTTP://127.0.0.1:{port}/\r\n"
    "Connection: close\r\n\r\n"
)
_STREAM_HEAD = (
    "HTTP/1.0 200 OK\r\nServer: http://127.0.0.1:{port}\r\nAccess-Control-Allow-Origin:*\r\n"
    "Connection: close\r\nMax-Age: 0\r\nExpires: 0\r\nCache-Control: no-cache, private\r\n"
    "Pragma: no-cache\r\nContent-Type: multipart/x-mixed-replace; boundary=--BoundaryString\r\n"
)
_PART_HEAD = (
    "\r\n--BoundaryString\r\nAccess-Control-Allow-Origin:*\r\nContent-Type:image/jpeg\r\n"
    "Content-Length:{length}\r\n\r\n"
)
_FRAME_SECONDS = 0.05
_LEAST_TRANSACTION = 4

_Json = Mapping[str, object]


class Fault(StrEnum):
    """What a simulated service can do wrong, one at a time."""

    NONE = "none"
    BUSY = "busy"
    IN_PROGRESS = "in_progress"
    TIMEOUT = "timeout"
    SHORT_COUNT = "short_count"
    WHOLE_SLAP = "whole_slap"
    WRONG_SUBTYPE = "wrong_subtype"
    LOW_QUALITY = "low_quality"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED_CHAIN = "expired_chain"
    OTHER_ROOT = "other_root"
    BROKEN_HASHES = "broken_hashes"
    REPLAYED = "replayed"
    STALE = "stale"
    OTHER_DEVICE = "other_device"
    OTHER_PURPOSE = "other_purpose"
    TRUNCATED = "truncated"
    SLOW = "slow"
    DIES = "dies"
    UNPLUGGED = "unplugged"


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A device of the service; `number` and `sub_ids` as requests name it and its parts."""

    kind: DeviceKind
    sub_type: str
    number: str
    sub_ids: tuple[str, ...]
    model: str
    serial: str


SLAP = SimulatedDevice(DeviceKind.FINGERPRINT, "Slap", "2", ("1", "2", "3"), "SLAP01", "1000000001")
SINGLE = SimulatedDevice(DeviceKind.FINGERPRINT, "Single", "4", ("0",), "FINGER01", "1000000004")
IRIS = SimulatedDevice(DeviceKind.IRIS, "Double", "1", ("1", "2", "3"), "IRIS01", "1000000002")
FACE = SimulatedDevice(DeviceKind.FACE, "Full face", "3", ("0",), "FACE01", "1000000003")
DEVICES = {"slap": SLAP, "single": SINGLE, "iris": IRIS, "face": FACE}


@dataclass(frozen=True, slots=True)
class Identity:
    """Keys and certificates of a service, in PEM and DER: chains of its own root, of another, and expired."""

    root: bytes
    key: bytes
    chain: tuple[bytes, ...]
    expired: tuple[bytes, ...]
    foreign: tuple[bytes, ...]

    @classmethod
    def generated(cls, maker: str = "Simulated") -> "Identity":
        """A new one: root, intermediate, device. Cost: 0.5 s."""
        keys = [rsa.generate_private_key(65537, 2048) for _ in range(3)]
        now = datetime.now(UTC)
        root = _certificate(f"{maker} root", keys[0], f"{maker} root", keys[0], now, authority=True)
        between = _certificate(f"{maker} makers", keys[1], f"{maker} root", keys[0], now, authority=True)
        device = _certificate(f"{maker} device", keys[2], f"{maker} makers", keys[1], now)
        expired = _certificate(
            f"{maker} device", keys[2], f"{maker} makers", keys[1], now - timedelta(days=500)
        )
        foreign = _certificate(f"{maker} device", keys[2], f"{maker} root", keys[2], now)
        return cls(
            root=root.public_bytes(Encoding.PEM),
            key=keys[2].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            chain=tuple(one.public_bytes(Encoding.DER) for one in (device, between)),
            expired=tuple(one.public_bytes(Encoding.DER) for one in (expired, between)),
            foreign=(foreign.public_bytes(Encoding.DER),),
        )


def _certificate(
    subject: str,
    key: rsa.RSAPrivateKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    at: datetime,
    *,
    authority: bool = False,
) -> x509.Certificate:
    """Valid from a day before `at` for a year."""
    uses = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(uses, critical=True)
        .sign(issuer_key, SHA256())
    )


def drawn(kind: DeviceKind, position: Position, number: int) -> NDArray[np.uint8]:
    """Rings, other ones for each position and capture: pixels to pass on, no print and no eye."""
    y, x = np.mgrid[:320, :256]
    centre = 100 + 6 * int(position or 0) + number % 7
    rings = 128 + 100 * np.sin(np.hypot(y - centre, x - 128) / 1.5)
    grey = rings.astype(np.uint8)
    return np.dstack([grey] * 3) if kind is DeviceKind.FACE else grey


@dataclass(frozen=True, slots=True)
class FolderPictures:
    """Pictures named `left_index*.png`, `right_eye*.png`, `face*.jpg`; several of one are taken in turn."""

    folder: Path

    def __call__(self, kind: DeviceKind, position: Position, number: int) -> NDArray[np.uint8]:
        """The picture; raises `FileNotFoundError` where there is none."""
        name = "face" if position is None else position.words.replace(" ", "_")
        files = sorted(self.folder.glob(f"{name}*"))
        if not files:
            raise FileNotFoundError(f"no picture {name}* in {self.folder}")
        with Image.open(files[number % len(files)]) as image:
            return np.array(image.convert("RGB" if kind is DeviceKind.FACE else "L"))


@dataclass(frozen=True, slots=True)
class Settings:
    """A service. `encrypt_for`: a certificate in PEM; where there is one, the devices are for Auth.

    `present`: whether somebody is at the device at once; if not, captures wait until `control` says so.
    """

    identity: Identity
    devices: tuple[SimulatedDevice, ...] = (SLAP, IRIS, FACE)
    pictures: Pictures = drawn
    environment: str = "Staging"
    encrypt_for: bytes = b""
    port: int = 0
    present: bool = True

    @property
    def purpose(self) -> str:
        """What the devices are registered for."""
        return "Auth" if self.encrypt_for else "Registration"


@contextmanager
def simulator(settings: Settings) -> Iterator[int]:
    """A service in a process of its own, and its port; ended on leaving, if it has not died before."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(settings, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()
        ours.close()


def control(port: int, *, fault: Fault | None = None, present: bool | None = None) -> None:
    """Switch what goes wrong, or whether somebody is at the devices; holds from the next answer on."""
    wishes = {"fault": fault, "present": present}
    body = json.dumps({name: wish for name, wish in wishes.items() if wish is not None})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/admin", body)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"the simulator refuses {body}: {said.decode()}")


def _serve(settings: Settings, ready: Connection | None = None) -> None:
    with _Server(settings) as server:
        if ready is not None:
            ready.send(server.port)
        server.serve_forever(poll_interval=0.05)


class _Server(socketserver.ThreadingTCPServer):
    """The state that all connections share."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, settings: Settings) -> None:
        super().__init__(("127.0.0.1", settings.port), _Handler)
        self.settings = settings
        self.port = int(self.server_address[1])
        self.fault = Fault.NONE
        self.present = threading.Event()
        if settings.present:
            self.present.set()
        self.capturing = threading.Lock()
        self.captures = 0
        self.answers: deque[object] = deque(maxlen=2)  # the one before the last can be replayed
        key = load_pem_private_key(settings.identity.key, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the identity's key is no RSA key")
        self.key = key

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of the service."""

    def token(self, payload: _Json) -> str:
        """A signed token, as the fault allows."""
        identity = self.settings.identity
        chain = {Fault.EXPIRED_CHAIN: identity.expired, Fault.OTHER_ROOT: identity.foreign}.get(
            self.fault, identity.chain
        )
        header = {"x5c": [base64.b64encode(one).decode() for one in chain], "alg": "RS256", "typ": "JWT"}
        signed = f"{_coded(_dumped(header))}.{_coded(_dumped(payload))}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        if self.fault is Fault.BAD_SIGNATURE:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        return f"{signed}.{_coded(signature)}"

    def digital_id(self, device: SimulatedDevice) -> _Json:
        """Who a device is."""
        return {
            "serialNo": "9999999999" if self.fault is Fault.OTHER_DEVICE else device.serial,
            "make": "Simulated",
            "model": device.model,
            "type": _kind_name(device.kind),
            "deviceSubType": device.sub_type,
            "deviceProviderId": "SIMULATED.SBI",
            "deviceProvider": "Simulated",
            "dateTime": _time(datetime.now(UTC)),
        }

    def discovery(self, asked: str) -> object:
        """The answer to MOSIPDISC."""
        if asked not in ("Biometric Device", "Finger", "Face", "Iris"):
            return [{"error": _error("502")}]
        return [
            {
                "deviceId": device.number,
                "deviceStatus": "Busy" if self.fault is Fault.BUSY else "Ready",
                "certification": "L0",
                "serviceVersion": "0.9.5",
                "callbackId": f"http://127.0.0.1:{self.port}/",
                "digitalId": _coded(_dumped(self.digital_id(device))),
                "deviceCode": _code(device),
                "purpose": self.settings.purpose,
                "error": _error("0"),
                "specVersion": ["0.9.5"],
                "deviceSubId": list(device.sub_ids),
            }
            for device in self.plugged()
            if asked in ("Biometric Device", _kind_name(device.kind))
        ] or [{"error": _error("503")}]

    def plugged(self) -> tuple[SimulatedDevice, ...]:
        """The devices that are there."""
        return () if self.fault is Fault.UNPLUGGED else self.settings.devices

    def infos(self) -> object:
        """The answer to MOSIPDINFO."""
        return [
            {
                "deviceInfo": self.token(
                    {
                        "specVersion": ["0.9.5"],
                        "env": self.settings.environment,
                        "digitalId": self.token(self.digital_id(device)),
                        "deviceId": device.number,
                        "deviceCode": _code(device),
                        "purpose": self.settings.purpose,
                        "serviceVersion": "0.9.5",
                        "deviceStatus": "Ready",
                        "firmware": f"SIMULATED.{device.model}.1.0",
                        "certification": "L0",
                        "deviceSubId": list(device.sub_ids),
                        "callbackId": f"http://127.0.0.1:{self.port}/",
                    }
                ),
                "error": _error("0"),
            }
            for device in self.plugged()
        ] or [{"error": _error("106")}]

    def capture(self, verb: str, body: _Json) -> object:
        """The answer to RCAPTURE and CAPTURE."""
        sealed = verb == "CAPTURE"
        if sealed is not bool(self.settings.encrypt_for):
            return _refused("809" if sealed else "709", sealed)
        if len(str(body["transactionId"])) < _LEAST_TRANSACTION:
            return _refused("112", sealed)
        wanted = _first(body["bio"])
        device = next((one for one in self.plugged() if one.number == wanted["deviceId"]), None)
        if device is None:
            return _refused("805" if sealed else "705", sealed)
        if _kind_name(device.kind) != wanted["type"]:
            return _refused("120", sealed)
        if body["env"] != self.settings.environment:
            return _refused("115", sealed)
        if self.fault is Fault.BUSY:
            return _refused("111", sealed)
        if self.fault is Fault.IN_PROGRESS or not self.capturing.acquire(blocking=False):
            return _refused("803" if sealed else "703", sealed)
        try:
            seconds = float(str(body["timeout"])) / 1000
            if not self.present.wait(seconds) or self.fault is Fault.TIMEOUT:
                return _refused("801" if sealed else "701", sealed)
            if self.fault is Fault.REPLAYED and self.answers:
                return self.answers[0]
            self.answers.append({"biometrics": self.biometrics(device, body, wanted, sealed)})
            return self.answers[-1]
        finally:
            self.capturing.release()

    def biometrics(
        self, device: SimulatedDevice, body: _Json, wanted: _Json, sealed: bool
    ) -> Sequence[_Json]:
        """The records of one capture, chained and signed."""
        last = bytes.fromhex(str(wanted["previousHash"]))
        self.captures += 1
        answers = []
        for position in self.shown(device, wanted):
            at = datetime.now(UTC) - timedelta(hours=self.fault is Fault.STALE)
            pixels = self.settings.pictures(device.kind, position, self.captures)
            value = record(device.kind, int(position or 0), pixels, at)
            last = hashlib.sha256(last + hashlib.sha256(value).digest()).digest()
            sealing = self.sealed(value, _time(at), str(body["transactionId"])) if sealed else {}
            named = {} if position is None else {"bioSubType": _position_name(position)}
            block = {
                "digitalId": self.token(self.digital_id(device)),
                "deviceCode": _code(device),
                "deviceServiceVersion": "0.9.5",
                "bioType": _kind_name(device.kind),
                **named,
                "purpose": "Auth" if self.fault is Fault.OTHER_PURPOSE else self.settings.purpose,
                "env": self.settings.environment,
                "bioValue": sealing.pop("bioValue", "") or _coded(value),
                "transactionId": body["transactionId"],
                "timestamp": _time(at),
                "requestedScore": f"{float(str(wanted['requestedScore']))}",
                "qualityScore": "12.0" if self.fault is Fault.LOW_QUALITY else "78.0",
            }
            told = hashlib.sha256(b"").digest() if self.fault is Fault.BROKEN_HASHES else last
            answers.append(
                {
                    "specVersion": "0.9.5",
                    "data": self.token(block),
                    "hash": told.hex().upper(),
                    **sealing,
                    "error": _error("0"),
                }
            )
        return answers

    def sealed(self, value: bytes, timestamp: str, transaction: str) -> dict[str, str]:
        """The record for the owner of the certificate: what goes into the answer in its place."""
        certificate = x509.load_pem_x509_certificate(self.settings.encrypt_for)
        public = certificate.public_key()
        if not isinstance(public, rsa.RSAPublicKey):
            raise TypeError("the certificate to encrypt for holds no RSA key")
        size = max(len(timestamp), len(transaction))
        pairs = zip(
            timestamp.encode().rjust(size, b"\0"), transaction.encode().rjust(size, b"\0"), strict=True
        )
        mixed = bytes(one ^ other for one, other in pairs)
        session_key = secrets.token_bytes(32)
        wrapped = public.encrypt(session_key, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
        return {
            "bioValue": _coded(AESGCM(session_key).encrypt(mixed[-12:], value, mixed[-16:])),
            "sessionKey": _coded(wrapped),
            "thumbprint": certificate.fingerprint(SHA256()).hex().upper(),
        }

    def shown(self, device: SimulatedDevice, wanted: _Json) -> Sequence[Position]:
        """What lies on the sensor: what was asked for, but for the fault."""
        if device.kind is DeviceKind.FACE:
            return [None]
        names, missing = _names(wanted["bioSubType"]), _names(wanted["exception"])
        if self.fault is Fault.WHOLE_SLAP:
            names = _PARTS[device.kind][str(wanted["deviceSubId"])]
        elif self.fault is Fault.WRONG_SUBTYPE:
            names = [_other_side(name) for name in names]
        elif self.fault is Fault.SHORT_COUNT:
            names = names[:-1] or [_other_side(name) for name in names]
        return [_position(device.kind, name) for name in names if name not in missing]

    def live(self, device: SimulatedDevice, part: str, number: int) -> bytes:
        """A picture of the stream: what the part shows, side by side, as JPEG."""
        names = _PARTS.get(device.kind, {}).get(part, ())
        positions: Sequence[Position] = [_position(device.kind, name) for name in names] or [
            FingerPosition.RIGHT_INDEX if device.kind is DeviceKind.FINGERPRINT else None
        ]
        pictures = [self.settings.pictures(device.kind, position, number) for position in positions]
        height = min(picture.shape[0] for picture in pictures)
        stream = io.BytesIO()
        Image.fromarray(np.hstack([picture[:height] for picture in pictures])).save(stream, "JPEG")
        return stream.getvalue()


class _Handler(socketserver.StreamRequestHandler):
    """One connection, one request."""

    timeout = 10
    server: _Server

    def handle(self) -> None:
        """Read the request, answer it, close."""
        verb, path, *_ = self.rfile.readline(4096).decode("latin-1").split() or ("", "")
        headers = http.client.parse_headers(self.rfile)
        body = self.rfile.read(int(headers.get("Content-Length", "0")))
        with suppress(ConnectionError):
            self._answer(verb, path, json.loads(body or b"{}"))

    def _answer(self, verb: str, path: str, body: _Json) -> None:
        server = self.server
        if (verb, path) == ("POST", "/admin"):
            self._switch(body)
        elif (verb, path) == ("MOSIPDISC", "/device"):
            self._send(server.discovery(str(body["type"])))
        elif (verb, path) == ("MOSIPDINFO", "/info"):
            self._send(server.infos())
        elif path == "/capture" and verb in ("RCAPTURE", "CAPTURE"):
            self._send(server.capture(verb, body), faulty=True)
        elif (verb, path) == ("STREAM", "/stream"):
            self._stream(str(body["deviceId"]), str(body["deviceSubId"]))
        else:
            self._send([{"error": {"errorCode": "500", "errorInfo": "Invalid URL"}}], 405)

    def _switch(self, body: _Json) -> None:
        try:
            fault = Fault(str(body.get("fault", self.server.fault)))
        except ValueError as error:
            self._send({"error": {"errorCode": "500", "errorInfo": str(error)}}, 400)
            return
        self.server.fault = fault
        present = body.get("present")
        if present is True:
            self.server.present.set()
        elif present is False:
            self.server.present.clear()
        self._send({"error": _error("0")})

    def _send(self, answer: object, status: int = 200, *, faulty: bool = False) -> None:
        body = _dumped(answer)
        head = f"HTTP/1.1 {status} OK\r\n" + _HEAD.format(length=len(body), port=self.server.port)
        # As the reference service does, two lines after the length it told.
        message = head.encode() + body + b"\r\n\r\n"
        fault = self.server.fault if faulty else Fault.NONE
        if fault is Fault.SLOW:
            for byte in message:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        elif fault in (Fault.TRUNCATED, Fault.DIES):
            self.wfile.write(message[: len(head) + len(body) // 2])
            if fault is Fault.DIES:
                os._exit(1)
        else:
            self.wfile.write(message)

    def _stream(self, number: str, part: str) -> None:
        server = self.server
        device = next((one for one in server.plugged() if one.number == number), None)
        if device is None or server.fault is Fault.BUSY or server.settings.encrypt_for:
            code = "605" if device is None else "111" if server.fault is Fault.BUSY else "601"
            self._send({"error": _error(code)})
            return
        self.wfile.write(_STREAM_HEAD.format(port=server.port).encode())
        some = [server.live(device, part, shown) for shown in range(4)]
        shown = 0
        while server.fault is not Fault.UNPLUGGED:
            picture = some[shown % len(some)]
            if server.fault is Fault.TRUNCATED:
                picture = picture[: len(picture) // 2]
            if server.fault is not Fault.SLOW:
                self.wfile.write(_PART_HEAD.format(length=len(picture)).encode() + picture)
            shown += 1
            time.sleep(_FRAME_SECONDS)


_FINGER_NAMES = ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger")
_SIDES = ("Right", "Left")
_PARTS = {
    DeviceKind.FINGERPRINT: {
        "1": [f"Left {name}" for name in _FINGER_NAMES[1:]],
        "2": [f"Right {name}" for name in _FINGER_NAMES[1:]],
        "3": ["Left Thumb", "Right Thumb"],
    },
    DeviceKind.IRIS: {"1": ["Left"], "2": ["Right"], "3": ["Left", "Right"]},
}


def _position_name(position: FingerPosition | EyePosition) -> str:
    if isinstance(position, EyePosition):
        return _SIDES[position - 1]
    hand, finger = divmod(position - 1, 5)
    return f"{_SIDES[hand]} {_FINGER_NAMES[finger]}"


def _position(kind: DeviceKind, name: str) -> FingerPosition | EyePosition:
    side, _, finger = name.partition(" ")
    if kind is DeviceKind.IRIS:
        return EyePosition(_SIDES.index(side) + 1)
    return FingerPosition(5 * _SIDES.index(side) + _FINGER_NAMES.index(finger) + 1)


def _other_side(name: str) -> str:
    return name.replace("Left", "left").replace("Right", "Left").replace("left", "Right")


def _kind_name(kind: DeviceKind) -> str:
    return "Finger" if kind is DeviceKind.FINGERPRINT else kind.value.capitalize()


def _code(device: SimulatedDevice) -> str:
    return f"simulated-{device.model.lower()}-{device.serial}"


def _error(code: str) -> _Json:
    return {"errorCode": code, "errorInfo": _WORDS.get(code, _NONE_SAID)}


def _refused(code: str, sealed: bool) -> object:
    keys = {"specVersion": "", "data": "", "hash": ""}
    if sealed:
        keys |= {"sessionKey": "", "thumbprint": ""}
    return {"biometrics": [{**keys, "error": _error(code)}]}


def _first(bio: object) -> _Json:
    if not (isinstance(bio, list) and bio and isinstance(bio[0], dict)):
        raise ValueError("a request asks for one kind of biometrics")
    return bio[0]


def _names(names: object) -> list[str]:
    return [str(name) for name in names] if isinstance(names, list) else []


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _dumped(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(
    root: Annotated[Path, typer.Option(help="where the certificate of its root is written")],
    folder: Annotated[Path | None, typer.Option(help="pictures left_index*.png, right_eye*.png, ...")] = None,
    device: Annotated[list[str] | None, typer.Option(help="slap, single, iris, face; several are")] = None,
    port: int = 4501,
    environment: str = "Staging",
    encrypt_for: Annotated[Path | None, typer.Option(help="a certificate: devices for Auth")] = None,
) -> None:
    """Serve simulated devices until interrupted."""
    unknown = set(device or ()) - set(DEVICES)
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: no such device; there are {', '.join(DEVICES)}"
        )
    identity = Identity.generated()
    root.write_bytes(identity.root)
    settings = Settings(
        identity=identity,
        devices=tuple(DEVICES[name] for name in device or ("slap", "iris", "face")),
        pictures=FolderPictures(folder) if folder else drawn,
        environment=environment,
        encrypt_for=encrypt_for.read_bytes() if encrypt_for else b"",
        port=port,
    )
    typer.echo(f"simulated devices on port {port}, {settings.purpose}, {environment}; root in {root}")
    with suppress(KeyboardInterrupt):
        _serve(settings)


if __name__ == "__main__":
    typer.run(main)
