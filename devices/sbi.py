"""Devices behind the MOSIP Secure Biometric Interface (SBI) 0.9.5: slap, iris and face devices of any maker.

A maker's service listens on loopback, on a port of 4501 to 4600, and speaks HTTP with verbs of its own:

    MOSIPDISC /device    who is there, unsigned        `SbiDriver.discover`
    MOSIPDINFO /info     the same, signed              `SbiDriver.open`
    STREAM /stream       live pictures, M-JPEG         `SbiDevice.preview`
    RCAPTURE /capture    signed records                `SbiDevice.capture`, of devices for Registration
    CAPTURE /capture     encrypted records as well     `SbiDevice.capture`, of devices for Auth

Any program of this machine can listen there, so answers are read within limits and deadlines
(`Params`), and what they say is believed as `devices.sbi_trust` allows. The address a service asks to be
called back at is not followed: requests go to loopback and nowhere else.
"""

import http.client
import io
import itertools
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from devices.device import (
    Captured,
    CaptureSpec,
    Condition,
    DeviceInfo,
    Health,
    Hint,
    Outcome,
    ShortCount,
    TryAgain,
)
from devices.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.frame import DeviceKind, Frame, Positions, Provenance, Record
from devices.position import EyePosition, FingerPosition
from devices.sbi_messages import (
    CaptureRequest,
    Description,
    DigitalId,
    Discovered,
    Purpose,
    Refusal,
    check_transaction,
    position_name,
    read_capture,
    read_description,
    read_device_infos,
    read_digital_id,
    read_discovery,
    read_stream_refusal,
    stream_request,
    type_request,
)
from devices.sbi_trust import (
    FIRST_HASH,
    DecryptionKey,
    Opener,
    Trust,
    UnverifiedDevices,
    loaded_opener,
    loaded_roots,
    verified,
    verified_records,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from cryptography import x509

    _Roots = Sequence[x509.Certificate] | None

_Answer = TypeVar("_Answer")
_ADDRESS = "127.0.0.1"
_FINGERS = tuple(FingerPosition)[1:]
_THUMBS = (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)
_EYES = (EyePosition.LEFT, EyePosition.RIGHT)
# What the numbered parts of a device show; 0 is a device of one part.
_PARTS: dict[DeviceKind, dict[str, Positions]] = {
    DeviceKind.FINGERPRINT: {"1": _FINGERS[6:], "2": _FINGERS[1:5], "3": _THUMBS},
    DeviceKind.IRIS: {"1": _EYES[:1], "2": _EYES[1:], "3": _EYES},
}


@dataclass(frozen=True, slots=True)
class Params:
    """Limits of what a service may send, and of how long it may take.

    `grace_seconds`: what a capture may take beyond the person's time; `frame_seconds`: for each live picture.
    All end before the deadlines of `devices.worker` do, so that what happened is told.
    """

    answer_seconds: float = 2.0
    health_seconds: float = 1.0
    grace_seconds: float = 8.0
    frame_seconds: float = 5.0
    answer_bytes: int = 1 << 20
    capture_bytes: int = 32 << 20
    picture_bytes: int = 4 << 20
    picture_pixels: int = 8_000_000
    part_lines: int = 32


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class SbiDriver:
    """SBI services of this machine. `environment` is the one devices must be certified for.

    `key`: ours, for devices whose captures come encrypted. Whose signatures count, `trust`, has no default.
    """

    trust: Trust
    environment: str = "Production"
    key: DecryptionKey | None = None
    ports: Sequence[int] = range(4501, 4601)
    params: Params = PARAMS
    name: str = "sbi"

    def discover(self) -> Sequence[DeviceInfo]:
        """The devices that services tell of; one whose signature does not hold has no `signed_by`.

        A port that is taken by something else, or answers too late, hides no other. Cost: 10 ms, 3 ms a
        device, and what the slowest service takes, `answer_seconds` twice at most.
        """
        roots = loaded_roots(self.trust)
        found: dict[str, DeviceInfo] = {}
        for listed in _asked_all(partial(self._listed, roots=roots), self._services()):
            # Of two under one name the signed one counts, wherever it listens.
            for info in () if isinstance(listed, DeviceError) else listed:
                if info.id not in found or info.provenance.signed_by:
                    found[info.id] = info
        return list(found.values())

    def open(self, device_id: str) -> "SbiDevice":
        """Open a device by what it says of itself under its signature.

        Raises `DeviceRemoved` where no service has it, `DeviceStuck` where one that may have it does not
        answer, `DeviceUntrusted` where its signature or its environment does not hold, `DeviceUnavailable`
        where our own certificates or key are missing.
        """
        roots = loaded_roots(self.trust)
        services = self._services()
        told = _asked_all(_Service.discovered, services)
        gone: DeviceError = DeviceRemoved(f"no service tells of {device_id}")
        refused = next((some for some in told if isinstance(some, DeviceStuck)), gone)
        for service, some in zip(services, told, strict=True):
            if isinstance(some, DeviceError) or device_id not in [device.digital_id.name for device in some]:
                continue
            refused = DeviceUntrusted(f"the service of {device_id} does not describe it")
            for vouched in _vouched(service, roots):
                if isinstance(vouched, DeviceError):
                    refused = vouched  # of this device or of its neighbour: who knows
                elif vouched.identity.name == device_id:
                    opener = self._opener(vouched.description, vouched.identity)
                    return SbiDevice(self._info(vouched), service, vouched, roots, opener)
        raise refused

    def _services(self) -> "list[_Service]":
        with ThreadPoolExecutor(16) as pool:  # a port that swallows connections takes a while
            there = list(pool.map(_listens, self.ports))
        return [_Service(port, self.params) for port in itertools.compress(self.ports, there)]

    def _listed(self, service: "_Service", roots: "_Roots") -> list[DeviceInfo]:
        """A service's devices, as they vouch for themselves or, where they do not, as they claim."""
        told = service.discovered()
        vouched = [one for one in _vouched(service, roots) if isinstance(one, _Vouched)]
        by_name = {one.identity.name: one for one in vouched}
        return [self._info(by_name.get(one.digital_id.name) or _claimed(one)) for one in told]

    def _opener(self, description: Description, identity: DigitalId) -> Opener | None:
        if description.environment != self.environment:
            raise DeviceUntrusted(
                f"{identity.name} is certified for {description.environment!r}, not {self.environment!r}"
            )
        if description.purpose == Purpose.REGISTRATION:
            return None
        if description.purpose != Purpose.AUTH:
            raise DeviceUntrusted(f"{identity.name} is registered for no purpose")
        if self.key is None:
            raise DeviceUnavailable(f"{identity.name} encrypts what it captures, and no key is set for it")
        return loaded_opener(self.key)

    def _info(self, of: "_Vouched") -> DeviceInfo:
        named, description = of.identity, of.description
        return DeviceInfo(
            id=named.name,
            kind=named.kind,
            provenance=Provenance(
                driver=self.name,
                device=named.name,
                maker=named.maker,
                model=named.model,
                serial=named.serial,
                firmware=description.firmware,
                signed_by=of.signer,
            ),
            positions=_shown(named.kind, description.sub_ids),
            ppi=None,  # each record says it
            signs=not isinstance(self.trust, UnverifiedDevices),
            previews=description.purpose == Purpose.REGISTRATION,
        )


@dataclass(frozen=True, slots=True)
class _Vouched:
    """A device as it is described, and who signed that; nobody where it is only claimed."""

    description: Description
    identity: DigitalId
    signer: str


def _vouched(service: "_Service", roots: "_Roots") -> "Iterator[_Vouched | DeviceError]":
    """The devices that a service describes, or why a description is not believed, or not there."""
    try:
        tokens = service.device_infos()
    except DeviceError as error:
        yield error
        return
    for token in tokens:
        now = datetime.now(UTC)
        try:
            description = read_description(verified(token, roots, now).payload)
            signed = verified(description.digital_id, roots, now)
            yield _Vouched(description, read_digital_id(signed.payload), signed.signer)
        except (DeviceUntrusted, DeviceProtocolError) as error:
            yield error


def _claimed(device: Discovered) -> _Vouched:
    description = Description(device.number, device.sub_ids, "", "", device.purpose, "", "")
    return _Vouched(description, device.digital_id, "")


def _asked_all(
    question: "Callable[[_Service], Sequence[_Answer]]", services: "Sequence[_Service]"
) -> "list[Sequence[_Answer] | DeviceError]":
    """What services answer, all asked at once; the fault where it is another program's port, or ill."""

    def asked(service: _Service) -> Sequence[_Answer] | DeviceError:
        try:
            return question(service)
        except DeviceError as error:
            return error

    with ThreadPoolExecutor(max(1, len(services))) as pool:
        return list(pool.map(asked, services))


class SbiDevice:
    """An open device. Captures of one transaction continue one chain of hashes, as long as it is open.

    Not thread-safe.
    """

    def __init__(
        self, info: DeviceInfo, service: "_Service", of: _Vouched, roots: "_Roots", opener: Opener | None
    ) -> None:
        self.info = info
        self._service = service
        self._description, self._identity = of.description, of.identity
        self._roots, self._opener = roots, opener
        self._chains: dict[str, str] = {}  # the last hash of each transaction
        self._closed = False

    def preview(self, spec: CaptureSpec) -> Generator[Frame, None, None]:
        """Live pictures of the part that shows `spec.positions`, as large as the device likes."""
        self._check_open()
        if not self.info.previews:
            raise DeviceUnavailable(f"{self.info.id} is for Auth, and such devices show no stream")
        sub_id, _ = _part(self.info.kind, self._description.sub_ids, spec)
        return self._frames(stream_request(self._description.number, sub_id), spec.positions)

    def _frames(self, request: bytes, positions: Positions) -> Generator[Frame, None, None]:
        shown, before = 0, -1
        # A service ends its stream after some minutes; one that ends without a picture has no more.
        while shown > before:
            before = shown
            for picture in self._service.pictures(request):
                yield Frame(
                    pixels=_pixels(picture, self._service.params),
                    kind=self.info.kind,
                    positions=positions,
                    ppi=None,
                    taken_at=datetime.now(UTC),
                    provenance=self.info.provenance,
                    number=shown,
                )
                shown += 1

    def capture(self, spec: CaptureSpec) -> Outcome:
        """Capture records of `spec.positions`; their signatures, certificates and hashes hold.

        `Record.quality` is the device's own and may be below `spec.least_quality`. Raises `DeviceUntrusted`
        where anything does not hold, and the other `DeviceError`s. Cost: what the person takes, and 2 ms a
        record.
        """
        self._check_open()
        sub_id, missing = _part(self.info.kind, self._description.sub_ids, spec)
        transaction = check_transaction(spec) if spec.transaction else uuid4().hex
        request = CaptureRequest(
            environment=self._description.environment,
            purpose=Purpose(self._description.purpose),
            transaction=transaction,
            kind=self.info.kind,
            positions=spec.positions,
            missing=missing,
            number=self._description.number,
            sub_id=sub_id,
            previous=self._chains.get(transaction, FIRST_HASH.hex().upper()),
            seconds=spec.seconds,
            least_quality=spec.least_quality,
            asked_at=datetime.now(UTC),
        )
        answer = read_capture(self._service.captured(request))
        if isinstance(answer, Refusal):
            return answer.outcome(spec.seconds)
        records, last = verified_records(
            answer,
            request,
            self._identity,
            self._description.code,
            self.info.provenance,
            self._roots,
            self._opener,
            datetime.now(UTC),
        )
        if spec.transaction:
            self._chains[transaction] = last
        return judged(spec.positions, records)

    def health(self) -> Health:
        """Whether its service still tells of it, and as what. Cost: milliseconds; 1 s where it hangs."""
        try:
            found = self._service.discovered(self._service.params.health_seconds)
        except DeviceRemoved as error:
            return Health(Condition.REMOVED, str(error))
        except DeviceError as error:
            return Health(Condition.FAILING, str(error))
        for one in found:
            if one.digital_id.name == self.info.id:
                return Health(one.condition)
        return Health(Condition.REMOVED, f"its service no longer tells of {self.info.id}")

    def close(self) -> None:
        """Nothing is held between calls; later ones are refused."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceUnavailable(f"{self.info.id} was closed")


def judged(asked: Positions, records: tuple[Record, ...]) -> Outcome:
    """What came against what was asked for: everything, something else, or fewer, more and others.

    A device that gives a whole slap where one finger was asked for comes out as `ShortCount` with `got` 4.
    """
    captured = Captured(records=records)
    got = [position for record in records for position in record.positions]
    if sorted(got) == sorted(asked) and len(records) == max(1, len(asked)):
        return captured
    if asked and set(got).isdisjoint(asked):
        words = [", ".join(map(position_name, positions)) for positions in (asked, got)]
        return TryAgain(Hint.WRONG_POSITION, f"asked for {words[0]}, got {words[1]}")
    return ShortCount(asked, len(records), captured)


def _part(kind: DeviceKind, sub_ids: Sequence[str], spec: CaptureSpec) -> tuple[str, Positions]:
    """The number of the part that shows what is asked for, and what of it is declared missing."""
    # Codes of fingers and eyes are equal as numbers, so their type is checked.
    named = EyePosition if kind is DeviceKind.IRIS else FingerPosition
    fitting = all(isinstance(position, named) for position in spec.positions)
    if not fitting or bool(spec.positions) is (kind is DeviceKind.FACE):
        raise DeviceUnavailable("fingers and eyes are captured by their names, and faces have none")
    parts = {number: shown for number, shown in _PARTS.get(kind, {}).items() if number in sub_ids}
    for number, shown in parts.items():
        if set(spec.positions) <= set(shown):
            return number, _among(spec.missing, shown)
    if parts:
        words = ", ".join(map(position_name, spec.positions))
        raise DeviceUnavailable(f"no part of the device shows {words} at once")
    return "0", ()


def _among(some: Positions, shown: Positions) -> Positions:
    fingers = tuple(one for one in some if isinstance(one, FingerPosition) and one in shown)
    eyes = tuple(one for one in some if isinstance(one, EyePosition) and one in shown)
    return fingers if isinstance(shown[0], FingerPosition) else eyes


def _shown(kind: DeviceKind, sub_ids: Sequence[str]) -> tuple[Positions, ...]:
    """What one capture can show: the parts, or one finger or eye at a time."""
    if kind is DeviceKind.FACE:
        return ()
    parts = tuple(shown for number, shown in _PARTS[kind].items() if number in sub_ids)
    singles: tuple[Positions, ...] = tuple((eye,) for eye in _EYES)
    if kind is DeviceKind.FINGERPRINT:
        singles = tuple((finger,) for finger in _FINGERS)
    return parts or singles


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_ADDRESS, port), 0.2).close()
    except OSError:
        return False
    return True


def _lives(port: int) -> bool:
    """Whether a service holds a connection; a dying process may accept one and drop it."""
    try:
        with socket.create_connection((_ADDRESS, port), 0.2) as connection:
            connection.recv(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True, slots=True)
class _Service:
    """A port, and the questions SBI has; answers are read within limits and deadlines."""

    port: int
    params: Params

    def discovered(self, seconds: float | None = None) -> tuple[Discovered, ...]:
        params = self.params
        seconds = seconds or params.answer_seconds
        return read_discovery(
            self._answer("MOSIPDISC", "/device", type_request(), seconds, params.answer_bytes)
        )

    def device_infos(self) -> tuple[str, ...]:
        params = self.params
        return read_device_infos(
            self._answer("MOSIPDINFO", "/info", type_request(), params.answer_seconds, params.answer_bytes)
        )

    def captured(self, request: CaptureRequest) -> bytes:
        verb = "RCAPTURE" if request.purpose is Purpose.REGISTRATION else "CAPTURE"
        seconds = request.seconds + self.params.grace_seconds
        return self._answer(verb, "/capture", request.to_bytes(), seconds, self.params.capture_bytes)

    def pictures(self, request: bytes) -> Iterator[bytes]:
        """The JPEG files of a stream, until the service ends it."""
        params = self.params
        with self._asked("STREAM", "/stream", request, params.frame_seconds) as (wire, response):
            if not response.headers.get_content_type().startswith("multipart/"):
                read_stream_refusal(_body(response, params.answer_bytes)).outcome(params.frame_seconds)
                return
            while (picture := _next_picture(response, params)) is not None:
                yield picture
                wire.deadline = time.monotonic() + params.frame_seconds

    def _answer(self, verb: str, path: str, body: bytes, seconds: float, most: int) -> bytes:
        with self._asked(verb, path, body, seconds) as (_, response):
            return _body(response, most)

    @contextmanager
    def _asked(
        self, verb: str, path: str, body: bytes, seconds: float
    ) -> "Iterator[tuple[_Wire, http.client.HTTPResponse]]":
        """A request and the head of its answer; whatever goes wrong, here or with the body, has its type."""
        try:
            with closing(_Wire(self.port, seconds)) as wire, closing(_Connection(wire)) as connection:
                headers = {"Content-Type": "application/json", "Connection": "close"}
                connection.request(verb, path, body, headers)
                with closing(connection.getresponse()) as response:
                    if response.status != http.HTTPStatus.OK:
                        raise DeviceProtocolError(f"the service answers {verb} with status {response.status}")
                    yield wire, response
        except TimeoutError:
            raise DeviceStuck(f"the service did not answer {verb} within {seconds:g} s") from None
        except (OSError, EOFError, http.client.IncompleteRead, http.client.BadStatusLine) as error:
            # It went away, or promised more than it sent: it is asked whether it is still there.
            fault = DeviceProtocolError if _lives(self.port) else DeviceRemoved
            raise fault(f"the service broke off its answer to {verb}: {str(error)[:100]}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise DeviceProtocolError(
                f"the service answers {verb} with no HTTP: {str(error)[:100]}"
            ) from None


class _Wire(socket.socket):
    """A connection to a port of loopback on which every wait together ends at `deadline`."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.deadline = time.monotonic() + seconds
        self.settimeout(seconds)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.connect((_ADDRESS, port))
        except OSError:
            self.close()
            raise

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


class _Connection(http.client.HTTPConnection):
    """HTTP on a wire that is there already."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(*wire.getpeername())
        self.sock = wire


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    """All of an answer, `most` bytes at most; raises `EOFError` where it is shorter than it said."""
    parts, size = [], 0
    while part := response.read(min(1 << 16, most + 1 - size)):
        parts.append(part)
        size += len(part)
        if size > most:
            raise DeviceProtocolError(f"the answer is longer than the {most:,} bytes allowed")
    if response.length:
        raise EOFError(f"{response.length} bytes are missing")
    return b"".join(parts)


def _next_picture(response: http.client.HTTPResponse, params: Params) -> bytes | None:
    """The body of the next part, None at the end. Parts say their length; boundaries are only looked past."""
    length = None
    for _ in range(params.part_lines):
        line = response.readline(1024)
        if not line:
            return None
        name, _, value = line.strip().partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if not name and length is not None:
            break
    if length is None or not 0 < length <= params.picture_bytes:
        raise DeviceProtocolError(f"a picture of the stream has {length} bytes, or too many lines before it")
    picture = b""
    while len(picture) < length and (more := response.read(min(1 << 16, length - len(picture)))):
        picture += more
    return picture if len(picture) == length else None


def _pixels(picture: bytes, params: Params) -> NDArray[np.uint8]:
    """A JPEG's pixels, its size checked before one is decoded."""
    # Whatever the decoder raises means a damaged picture.
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(picture))
        if image.width * image.height > params.picture_pixels:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        return np.array(image if image.mode == "L" else image.convert("RGB"))
    except Exception as error:
        raise DeviceProtocolError(f"a picture of the stream is damaged: {str(error)[:100]}") from None
