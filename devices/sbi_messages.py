"""Messages of the MOSIP Secure Biometric Interface (SBI) 0.9.5: requests to bytes, answers to typed values.

Answers are another program's bytes: sizes, nesting, types and alphabets are checked, and whatever is wrong is
a `DeviceProtocolError`. Signatures, certificates and hashes are `devices.sbi_trust`'s. Pure functions.
Errors come with HTTP 200 and a code (`Refusal`); what a code means is the table here.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from devices.device import CaptureSpec, Condition, Hint, TimedOut, TryAgain
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.frame import DeviceKind, Positions
from devices.position import EyePosition, FingerPosition

SPEC_VERSION = "0.9.5"
ANY_DEVICE = "Biometric Device"
LONGEST_TEXT = 4096
TRANSACTION_LENGTH = range(4, 51)
"""How long a transaction's id may be; devices refuse shorter ones with code 112."""

# Text in base64 has none of these: a bound on them bounds the memory that parsing takes.
_MOST_STRUCTURE = 5_000
_LONGEST_TOKEN = 1 << 16
_LONGEST_NAME = 200
_MOST_DEVICES = 32

_KINDS = {"Finger": DeviceKind.FINGERPRINT, "Iris": DeviceKind.IRIS, "Face": DeviceKind.FACE}
_CONDITIONS = {"ready": Condition.READY, "busy": Condition.BUSY}

_FINGERS = {
    "Right Thumb": FingerPosition.RIGHT_THUMB,
    "Right IndexFinger": FingerPosition.RIGHT_INDEX,
    "Right MiddleFinger": FingerPosition.RIGHT_MIDDLE,
    "Right RingFinger": FingerPosition.RIGHT_RING,
    "Right LittleFinger": FingerPosition.RIGHT_LITTLE,
    "Left Thumb": FingerPosition.LEFT_THUMB,
    "Left IndexFinger": FingerPosition.LEFT_INDEX,
    "Left MiddleFinger": FingerPosition.LEFT_MIDDLE,
    "Left RingFinger": FingerPosition.LEFT_RING,
    "Left LittleFinger": FingerPosition.LEFT_LITTLE,
    "UNKNOWN": FingerPosition.UNKNOWN,
}
_EYES = {"Right": EyePosition.RIGHT, "Left": EyePosition.LEFT, "UNKNOWN": EyePosition.UNKNOWN}
_FINGER_NAMES = {position: name for name, position in _FINGERS.items()}
_EYE_NAMES = {position: name for name, position in _EYES.items()}


class Purpose(StrEnum):
    """What a device is certified for; it decides whether captures come signed or encrypted as well."""

    REGISTRATION = "Registration"
    AUTH = "Auth"


# 1xx are the specification's; 6xx (streams), 7xx (RCAPTURE) and 8xx (CAPTURE) the reference service's.
_TIMED_OUT = {"609", "701", "801"}
_HINTS = {
    "101": Hint.GENERAL,  # nothing biometric seen
    "102": Hint.GENERAL,  # extraction failed
    "105": Hint.WRONG_POSITION,  # image orientation
    "707": Hint.GENERAL,  # nothing of this subtype
    "708": Hint.GENERAL,
}
_FAULTS: dict[str, type[DeviceError]] = {
    "100": DeviceUntrusted,  # not registered
    "103": DeviceUntrusted,  # tampered with
    "104": DeviceUnavailable,  # its management server cannot be reached
    "106": DeviceRemoved,
    "107": DeviceUntrusted,  # its key has expired
    "108": DeviceUnavailable,  # it has no key to encrypt for
    "110": DeviceBusy,  # not ready
    "111": DeviceBusy,
    "202": DeviceRemoved,
    "503": DeviceRemoved,
    "605": DeviceRemoved,
    "607": DeviceBusy,
    "700": DeviceBusy,  # its stream was stopped
    "702": DeviceBusy,  # its stream shows another part of it
    "703": DeviceBusy,
    "705": DeviceRemoved,
    "803": DeviceBusy,
    "805": DeviceRemoved,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error code of the device and its own words for it."""

    code: str
    info: str

    def outcome(self, seconds: float) -> TimedOut | TryAgain:
        """What a person can do about it; raises the `DeviceError` where nobody in front of it can."""
        if self.code in _TIMED_OUT:
            return TimedOut(seconds)
        if self.code in _HINTS:
            return TryAgain(_HINTS[self.code], self.info)
        fault = _FAULTS.get(self.code, DeviceProtocolError)
        raise fault(f"the device answers error {self.code}: {self.info}")


@dataclass(frozen=True, slots=True)
class DigitalId:
    """Who a device says it is; worth what the signature around it is worth."""

    serial: str
    maker: str
    model: str
    kind: DeviceKind
    sub_type: str

    @property
    def name(self) -> str:
        """Unique among devices, and the same wherever it is plugged in."""
        return ".".join((self.kind.value, self.maker, self.model, self.serial))


@dataclass(frozen=True, slots=True)
class Discovered:
    """A device of a discovery, all unsigned: good for a list, not for trust."""

    number: str
    sub_ids: tuple[str, ...]
    condition: Condition
    purpose: str
    digital_id: DigitalId


@dataclass(frozen=True, slots=True)
class Description:
    """The signed description of a device; `digital_id` is a token of its own."""

    number: str
    sub_ids: tuple[str, ...]
    code: str
    environment: str
    purpose: str
    firmware: str
    digital_id: str


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """One capture: `number` and `sub_id` name the device and its part, `previous` is the last hash (hex)."""

    environment: str
    purpose: Purpose
    transaction: str
    kind: DeviceKind
    positions: Positions
    missing: Positions
    number: str
    sub_id: str
    previous: str
    seconds: float
    least_quality: int
    asked_at: datetime

    def to_bytes(self) -> bytes:
        """The body of RCAPTURE and CAPTURE."""
        bio: dict[str, object] = {
            "type": kind_name(self.kind),
            "count": str(len(self.positions) or 1),
            "bioSubType": [position_name(position) for position in self.positions],
            "exception": [position_name(position) for position in self.missing],
            "requestedScore": str(self.least_quality),
            "deviceId": self.number,
            "deviceSubId": self.sub_id,
            "previousHash": self.previous,
        }
        return _packed(
            {
                "env": self.environment,
                "purpose": self.purpose.value,
                "specVersion": SPEC_VERSION,
                "timeout": str(round(self.seconds * 1000)),
                "captureTime": self.asked_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "transactionId": self.transaction,
                "bio": [bio],
                "customOpts": None,
            }
        )


@dataclass(frozen=True, slots=True)
class Biometric:
    """One part of an answer: a token, its place in the chain of hashes, and how it is sealed if it is."""

    token: str
    chain_hash: str
    session_key: str
    thumbprint: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What a token of a capture says. `value` is the record, sealed in a CAPTURE; `timestamp` as it came."""

    digital_id: str
    code: str
    kind: DeviceKind
    positions: Positions
    purpose: str
    environment: str
    value: bytes
    transaction: str
    timestamp: str
    taken_at: datetime
    quality: float


def type_request(kind: str = ANY_DEVICE) -> bytes:
    """The body of MOSIPDISC and MOSIPDINFO."""
    return _packed({"type": kind})


def stream_request(number: str, sub_id: str) -> bytes:
    """The body of STREAM; how long it may last is left to the service."""
    return _packed({"deviceId": number, "deviceSubId": sub_id})


def check_transaction(spec: CaptureSpec) -> str:
    """The transaction's id. Raises `DeviceUnavailable` for one that devices refuse."""
    one = spec.transaction
    if len(one) not in TRANSACTION_LENGTH or not (one.isascii() and one.isprintable()):
        raise DeviceUnavailable(
            f"a transaction of SBI is named by {TRANSACTION_LENGTH[0]} to {TRANSACTION_LENGTH[-1]} "
            f"ASCII characters, not {one[:60]!r}"
        )
    return one


def read_discovery(body: bytes) -> tuple[Discovered, ...]:
    """The devices of an answer to MOSIPDISC that report no error."""
    found = []
    for fields in _devices(body):
        if _refusal(fields) is not None:
            continue
        digital_id = read_digital_id(unpadded(_text(fields, "digitalId", _LONGEST_TOKEN), "digitalId"))
        found.append(
            Discovered(
                number=_text(fields, "deviceId"),
                sub_ids=_texts(fields, "deviceSubId"),
                condition=_CONDITIONS.get(_text(fields, "deviceStatus").lower(), Condition.FAILING),
                purpose=_text(fields, "purpose"),
                digital_id=digital_id,
            )
        )
    return tuple(found)


def read_device_infos(body: bytes) -> tuple[str, ...]:
    """The tokens of an answer to MOSIPDINFO, of those devices that report no error."""
    return tuple(
        _text(item, "deviceInfo", 4 * _LONGEST_TOKEN) for item in _devices(body) if _refusal(item) is None
    )


def read_description(payload: bytes) -> Description:
    """The payload of a token of MOSIPDINFO."""
    fields = _object(_parsed(payload), "the device's description")
    return Description(
        number=_text(fields, "deviceId"),
        sub_ids=_texts(fields, "deviceSubId"),
        code=_text(fields, "deviceCode"),
        environment=_text(fields, "env"),
        purpose=_text(fields, "purpose"),
        firmware=_text(fields, "firmware", _LONGEST_NAME),
        digital_id=_text(fields, "digitalId", _LONGEST_TOKEN),
    )


def read_digital_id(payload: bytes) -> DigitalId:
    """The payload of a digital id, signed or not."""
    fields = _object(_parsed(payload), "the digital id")
    return DigitalId(
        serial=_text(fields, "serialNo", _LONGEST_NAME),
        maker=_text(fields, "make", _LONGEST_NAME),
        model=_text(fields, "model", _LONGEST_NAME),
        kind=_kind(_text(fields, "type")),
        sub_type=_text(fields, "deviceSubType"),
    )


def read_capture(body: bytes) -> tuple[Biometric, ...] | Refusal:
    """The parts of an answer to RCAPTURE or CAPTURE, or why there are none."""
    answer = _object(_parsed(body), "the answer")
    items = [_object(item, "a biometric") for item in _array(answer.get("biometrics"), "biometrics")]
    if not items:
        raise DeviceProtocolError("the device answers with no biometrics and no error")
    for item in items:
        if (refusal := _refusal(item)) is not None:
            return refusal
    return tuple(
        Biometric(
            token=_text(item, "data", len(body)),
            chain_hash=_text(item, "hash", 64),
            session_key=_text(item, "sessionKey") if "sessionKey" in item else "",
            thumbprint=_text(item, "thumbprint") if "thumbprint" in item else "",
        )
        for item in items
    )


def read_stream_refusal(body: bytes) -> Refusal:
    """Why there is no stream: the JSON that came in its place."""
    parsed = _parsed(body)
    first = next(iter(parsed), None) if isinstance(parsed, list) else parsed
    refusal = _refusal(_object(first, "the answer"))
    if refusal is None:
        raise DeviceProtocolError("the device answers a request for its stream with neither stream nor error")
    return refusal


def read_block(payload: bytes) -> Block:
    """The payload of a token of a capture."""
    fields = _object(_parsed(payload), "the captured block")
    kind = _kind(_text(fields, "bioType"))
    timestamp = _text(fields, "timestamp")
    return Block(
        digital_id=_text(fields, "digitalId", _LONGEST_TOKEN),
        code=_text(fields, "deviceCode"),
        kind=kind,
        positions=_positions(kind, fields.get("bioSubType")),
        purpose=_text(fields, "purpose"),
        environment=_text(fields, "env"),
        value=unpadded(_text(fields, "bioValue", len(payload)), "bioValue"),
        transaction=_text(fields, "transactionId"),
        timestamp=timestamp,
        taken_at=_moment(timestamp),
        quality=_score(fields, "qualityScore"),
    )


def json_object(data: bytes, what: str) -> Mapping[str, object]:
    """An object of JSON. Raises `DeviceProtocolError`."""
    return _object(_parsed(data), what)


def unpadded(text: str, what: str) -> bytes:
    """Base64url as JOSE writes it, with or without padding. Raises `DeviceProtocolError`."""
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DeviceProtocolError(f"{what} is not base64url: {error}") from None


def position_name(position: FingerPosition | EyePosition) -> str:
    """The name SBI has for it."""
    return _FINGER_NAMES[position] if isinstance(position, FingerPosition) else _EYE_NAMES[position]


def kind_name(kind: DeviceKind) -> str:
    """The name SBI has for a kind of device."""
    return next(name for name, known in _KINDS.items() if known is kind)


def _packed(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _parsed(data: bytes) -> object:
    """JSON without duplicate keys, numbers without end, or structure that takes memory."""
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > _MOST_STRUCTURE:
        raise DeviceProtocolError("the device answers JSON of more parts than any message has")
    try:
        parsed: object = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DeviceProtocolError(f"the device answers what is no JSON: {str(error)[:200]}") from None
    return parsed


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Two values of one name would let signer and reader see different ones."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DeviceProtocolError(f"{what} is no object of JSON")
    return value


def _array(value: object, what: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise DeviceProtocolError(f"{what} is no array of JSON")
    return value


def _text(fields: Mapping[str, object], name: str, longest: int = LONGEST_TEXT) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise DeviceProtocolError(f"{name} is not a printable text of at most {longest} characters")
    return value


def _texts(fields: Mapping[str, object], name: str) -> tuple[str, ...]:
    return tuple(_text({name: value}, name, 8) for value in _array(fields.get(name), name))


def _devices(body: bytes) -> Sequence[Mapping[str, object]]:
    items = _array(_parsed(body), "the answer")
    if len(items) > _MOST_DEVICES:
        raise DeviceProtocolError(f"a service of {len(items)} devices is none")
    return [_object(item, "a device") for item in items]


def _refusal(fields: Mapping[str, object]) -> Refusal | None:
    error = fields.get("error")
    if error is None:
        return None
    error = _object(error, "error")
    code, info = _text(error, "errorCode", 16), error.get("errorInfo")
    words = info[:200] if isinstance(info, str) and info.isprintable() else ""
    return None if code == "0" else Refusal(code, words)


def _kind(name: str) -> DeviceKind:
    if name not in _KINDS:
        raise DeviceProtocolError(f"{name[:40]!r} is no kind of device")
    return _KINDS[name]


def _positions(kind: DeviceKind, name: object) -> Positions:
    if kind is DeviceKind.FACE:
        return ()
    if kind is DeviceKind.FINGERPRINT and isinstance(name, str) and name in _FINGERS:
        return (_FINGERS[name],)
    if kind is DeviceKind.IRIS and isinstance(name, str) and name in _EYES:
        return (_EYES[name],)
    raise DeviceProtocolError(f"{str(name)[:40]!r} is no part of a {kind.value}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or not 2000 <= moment.year < 2200:
            raise ValueError("it has no time zone, or is of another age")
    except ValueError as error:
        raise DeviceProtocolError(f"timestamp {text[:40]!r} is no moment: {error}") from None
    return moment


def _score(fields: Mapping[str, object], name: str) -> float:
    try:
        score = float(_text(fields, name, 16))
    except ValueError:
        score = -1.0
    if not 0 <= score <= 100:
        raise DeviceProtocolError(f"{name} is not between 0 and 100")
    return score
