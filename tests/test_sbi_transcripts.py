"""The client understands the reference service's answers, and our simulator answers as it does."""

import json
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from capture.decode import decode_face_image, decode_image, decode_iris_image
from capture.errors import CaptureError
from devices.device import Captured, CaptureSpec, Outcome, ShortCount
from devices.errors import DeviceError, DeviceProtocolError, DeviceRemoved, DeviceUntrusted
from devices.frame import DeviceKind, Positions, Provenance, Record
from devices.position import EyePosition, FingerPosition
from devices.sbi import judged
from devices.sbi_messages import (
    CaptureRequest,
    Purpose,
    Refusal,
    read_capture,
    read_description,
    read_device_infos,
    read_digital_id,
    unpadded,
)
from devices.sbi_trust import UnverifiedDevices, loaded_roots, verified, verified_records
from devices.virtual.sbi_simulator import Fault, Settings, control, simulator
from tests.sbi_services import driver_at, identity, raw_service, trusted

ROOT = Path(__file__).resolve().parent.parent
LEFT_SLAP = tuple(FingerPosition)[7:]
RIGHT_SLAP = tuple(FingerPosition)[2:6]
THUMBS = (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)
EYES = (EyePosition.LEFT, EyePosition.RIGHT)
CAPTURES: dict[str, tuple[DeviceKind, Positions, Positions]] = {
    "rcap_left_slap": (DeviceKind.FINGERPRINT, LEFT_SLAP, ()),
    "rcap_right_slap_exc": (DeviceKind.FINGERPRINT, RIGHT_SLAP[:3], RIGHT_SLAP[3:]),
    "rcap_thumbs": (DeviceKind.FINGERPRINT, THUMBS, ()),
    "rcap_iris": (DeviceKind.IRIS, EYES, ()),
    "rcap_face": (DeviceKind.FACE, (), ()),
}
MADE = datetime(2026, 11, 21, 19, 48, 22, tzinfo=UTC)
Fields = dict[str, object]


@pytest.fixture(scope="module")
def transcripts(development_data: Path) -> Path:
    return development_data / "conformance" / "sbi"


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    with simulator(Settings(identity())) as port:
        yield port


def asked(transcripts: Path, name: str) -> Fields:
    made: Fields = json.loads((transcripts / f"{name}.req.json").read_bytes())
    return made


def answered(transcripts: Path, name: str) -> bytes:
    """The body of an answer, as long as it says it is."""
    head, _, rest = (transcripts / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return rest[:length]


def request_of(kind: DeviceKind, positions: Positions, missing: Positions, body: Fields) -> CaptureRequest:
    """What the client asks where the transcript's program asked `body`."""
    bio = body["bio"]
    assert isinstance(bio, list)
    return CaptureRequest(
        environment="Staging",
        purpose=Purpose.REGISTRATION,
        transaction=str(body["transactionId"]),
        kind=kind,
        positions=positions,
        missing=missing,
        number=bio[0]["deviceId"],
        sub_id=bio[0]["deviceSubId"],
        previous=bio[0]["previousHash"],
        seconds=10,
        least_quality=40,
        asked_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def outcome_of(transcripts: Path, name: str, request: CaptureRequest) -> Outcome:
    """What the client makes of a transcript's answer, at the time it was given."""
    answer = read_capture(answered(transcripts, name))
    if isinstance(answer, Refusal):
        return answer.outcome(request.seconds)
    for token in read_device_infos(answered(transcripts, "info")):
        description = read_description(verified(token, None, MADE).payload)
        if description.number == request.number:
            named = read_digital_id(verified(description.digital_id, None, MADE).payload)
            told, _ = verified_records(
                answer,
                request,
                named,
                description.code,
                Provenance("sbi", named.name),
                None,
                None,
                MADE + timedelta(seconds=5),
            )
            return judged(request.positions, told)
    raise AssertionError(f"no device {request.number}")


def decodes(record: Record) -> bool:
    """Whether the next stage reads it."""
    try:
        if record.kind is DeviceKind.FINGERPRINT:
            sample = decode_image(record.data)
            return sample.ppi == 500 and (sample.position,) == record.positions
        if record.kind is DeviceKind.IRIS:
            return (decode_iris_image(record.data).eye,) == record.positions
        return decode_face_image(record.data).image.ndim == 3
    except CaptureError as error:
        raise AssertionError(f"{record.positions}: {error}") from error


@pytest.mark.parametrize("name", CAPTURES)
def test_captures_of_the_reference_are_understood(transcripts: Path, name: str) -> None:
    kind, positions, missing = CAPTURES[name]
    body = asked(transcripts, name)["body"]
    assert isinstance(body, dict)
    request = request_of(kind, positions, missing, body)
    assert json.loads(request.to_bytes()) == body
    outcome = outcome_of(transcripts, name, request)
    assert isinstance(outcome, Captured)
    assert [p for record in outcome.records for p in record.positions] == list(positions)
    assert len(outcome.records) == max(1, len(positions))
    for record in outcome.records:
        assert record.quality == 78
        assert record.provenance.signed_by == ""  # nobody vouches for it
        assert decodes(record)


def test_a_whole_slap_for_one_finger_is_not_taken_for_it(transcripts: Path) -> None:
    body = asked(transcripts, "rcap_wrong_count")["body"]
    assert isinstance(body, dict)
    outcome = outcome_of(
        transcripts, "rcap_wrong_count", request_of(DeviceKind.FINGERPRINT, LEFT_SLAP[:1], (), body)
    )
    assert isinstance(outcome, ShortCount)
    assert (outcome.asked, outcome.got, len(outcome.partial.records)) == (LEFT_SLAP[:1], 4, 4)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rcap_bad_device", DeviceRemoved),
        ("rcap_short_tx", DeviceProtocolError),
        ("capture_on_registration", DeviceProtocolError),
    ],
)
def test_refusals_of_the_reference_are_understood(
    transcripts: Path, name: str, fault: type[DeviceError]
) -> None:
    body = asked(transcripts, name)["body"]
    assert isinstance(body, dict)
    with pytest.raises(fault, match="the device answers error"):
        outcome_of(transcripts, name, request_of(DeviceKind.IRIS, EYES, (), body))


def test_answers_are_of_their_request_only(transcripts: Path) -> None:
    """An answer to another transaction, of another time, or after another record is not believed."""
    body = asked(transcripts, "rcap_iris")["body"]
    assert isinstance(body, dict)
    bio = body["bio"]
    assert isinstance(bio, list)
    later = {**body, "bio": [{**bio[0], "previousHash": "00" * 32}]}
    for other, words in (({**body, "transactionId": "golden-0002"}, "transaction"), (later, "hashes")):
        with pytest.raises(DeviceUntrusted, match=words):
            outcome_of(transcripts, "rcap_iris", request_of(DeviceKind.IRIS, EYES, (), other))
    with pytest.raises(DeviceUntrusted, match="a fingerprint was asked for"):
        outcome_of(transcripts, "rcap_iris", request_of(DeviceKind.FINGERPRINT, THUMBS, (), body))


def test_the_reference_is_trusted_only_where_that_is_said(transcripts: Path, tmp_path: Path) -> None:
    """Its signatures hold, but its certificates lead to nobody; and one of them has no extension at all."""
    token = read_device_infos(answered(transcripts, "info"))[0]
    with pytest.raises(DeviceUntrusted, match="not trusted"):
        verified(token, loaded_roots(trusted(tmp_path)), MADE)
    assert verified(token, loaded_roots(UnverifiedDevices()), MADE).signer == ""


def test_the_whole_client_against_recorded_answers(transcripts: Path, tmp_path: Path) -> None:
    """Discovery, description, stream; then errors in the place of a capture, over HTTP as they came."""
    names = {b"MOSIPDISC": "disc_all", b"MOSIPDINFO": "info", b"STREAM": "stream_face"}

    def recorded(line: bytes) -> Iterable[bytes]:
        name = names.get(line.split()[0], "bad_verb")
        return [(transcripts / f"{name}.http").read_bytes()]

    with raw_service(recorded) as port:
        driver = driver_at(port, UnverifiedDevices())
        found = {info.kind: info for info in driver.discover()}
        assert {kind: info.id for kind, info in found.items()} == {
            DeviceKind.FINGERPRINT: "fingerprint.MOSIP.SLAP01.1234567890",
            DeviceKind.FACE: "face.MOSIP.FACE01.2345678901",
            DeviceKind.IRIS: "iris.MOSIP.IRIS01.3456789012",
        }
        assert found[DeviceKind.FINGERPRINT].positions == (LEFT_SLAP, RIGHT_SLAP, THUMBS)
        assert not any(info.signs for info in found.values())
        face = driver.open(found[DeviceKind.FACE].id)
        assert (face.info.provenance.firmware, face.info.provenance.signed_by) == ("MOSIP.FACE.1.0.0.0", "")
        live = face.preview(CaptureSpec())
        frames = [next(live) for _ in range(11)]
        live.close()
        assert [frame.number for frame in frames] == list(range(11))
        assert len({frame.pixels.shape for frame in frames}) == 1
        with pytest.raises(DeviceProtocolError, match="status 405"):
            face.capture(CaptureSpec())
        with pytest.raises(DeviceUntrusted):
            driver_at(port, trusted(tmp_path)).open(found[DeviceKind.FACE].id)
        names[b"MOSIPDISC"] = "disc_bad"
        assert driver.discover() == []


def exchanged(port: int, request: Fields) -> bytes:
    """Everything that the simulator sends for a request."""
    body = json.dumps(request["body"]).encode()
    head = f"{request['verb']} {request['path']} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    parts = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def head_of(answer: bytes) -> list[str]:
    """Status and headers in their order, without what differs by address and length."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    varying = ("content-length", "location", "server")
    return [line.partition(":")[0] if line.lower().startswith(varying) else line for line in lines]


def shape(value: object) -> object:
    """Names and types of a message, through the tokens in it; of arrays, the kinds of their items."""
    if isinstance(value, dict):
        return {name: shape(of) for name, of in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(item)) for item in value})
    if isinstance(value, str) and value.count(".") == 2 and len(value) > 500:
        header, payload, _ = value.split(".")
        return {"token": [shape(json.loads(unpadded(part, "part"))) for part in (header, payload)]}
    return type(value).__name__


NAMES = [*CAPTURES, "rcap_wrong_count", "rcap_bad_device", "rcap_short_tx", "capture_on_registration"]


@pytest.mark.parametrize(
    "name", [*NAMES, "disc_all", "disc_finger", "disc_bad", "info", "bad_verb", "absolute_form"]
)
def test_the_simulator_answers_as_the_reference_does(transcripts: Path, service: int, name: str) -> None:
    control(service, fault=Fault.WHOLE_SLAP if name == "rcap_wrong_count" else Fault.NONE)
    ours, theirs = exchanged(service, asked(transcripts, name)), (transcripts / f"{name}.http").read_bytes()
    assert head_of(ours) == head_of(theirs)
    our_body, their_body = (json.loads(one.partition(b"\r\n\r\n")[2]) for one in (ours, theirs))
    assert list(shape_lines(our_body)) == list(shape_lines(their_body))
    if name not in CAPTURES and name not in ("rcap_wrong_count", "disc_all", "disc_finger", "info"):
        assert our_body == their_body  # errors, to the word


def shape_lines(body: object) -> Iterator[str]:
    """A message's shape with the number of its parts, and the order of its names."""
    parts = body.get("biometrics", []) if isinstance(body, dict) else body
    assert isinstance(parts, list)
    yield f"{len(parts)} parts"
    yield json.dumps(shape(body), indent=1)


def test_the_simulator_streams_as_the_reference_does(transcripts: Path, service: int) -> None:
    control(service, fault=Fault.NONE)
    theirs = (transcripts / "stream_face.http").read_bytes()
    body = json.dumps({"deviceId": "3", "deviceSubId": "0"}).encode()
    ours = b""
    with socket.create_connection(("127.0.0.1", service), timeout=20) as connection:
        connection.sendall(b"STREAM /stream HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while ours.count(b"--BoundaryString\r\n") < 4:
            ours += connection.recv(1 << 16)
    assert head_of(ours) == head_of(theirs)
    first, second = (part.partition(b"\xff\xd8")[0] for part in (ours, theirs))
    assert head_of(first.partition(b"\r\n\r\n")[2]) == head_of(second.partition(b"\r\n\r\n")[2])
