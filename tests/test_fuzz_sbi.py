"""Hostile bytes in every message of SBI: a value, or a `DeviceError`, and nothing else."""

import base64
import http.client
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from devices.errors import DeviceError
from devices.frame import DeviceKind, Provenance
from devices.position import FingerPosition
from devices.sbi import PARAMS, _body, _next_picture, _pixels, judged
from devices.sbi_messages import (
    CaptureRequest,
    Purpose,
    Refusal,
    read_block,
    read_capture,
    read_description,
    read_device_infos,
    read_digital_id,
    read_discovery,
    read_stream_refusal,
)
from devices.sbi_trust import FIRST_HASH, verified, verified_records
from devices.virtual.sbi_simulator import SLAP, Settings, _Server
from tests.sbi_services import identity

FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
READERS: tuple[Callable[[bytes], object], ...] = (
    read_discovery,
    read_device_infos,
    read_description,
    read_digital_id,
    read_capture,
    read_stream_refusal,
    read_block,
)
NOW = datetime.now(UTC)
REQUEST = CaptureRequest(
    "Staging",
    Purpose.REGISTRATION,
    "golden-0001",
    DeviceKind.FINGERPRINT,
    (FingerPosition.LEFT_INDEX,),
    (),
    "2",
    "1",
    FIRST_HASH.hex().upper(),
    10,
    40,
    NOW,
)


@cache
def messages() -> tuple[bytes, ...]:
    """A message of each kind; the capture first, then discovery, descriptions, digital id and an error."""
    with _Server(Settings(identity())) as server:
        made = (
            server.capture("RCAPTURE", json.loads(REQUEST.to_bytes())),
            server.discovery("Biometric Device"),
            server.infos(),
            dict(server.digital_id(SLAP)),
            [{"error": {"errorCode": "605", "errorInfo": "gone"}}],
        )
    return tuple(json.dumps(one).encode() for one in made)


@cache
def roots() -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(identity().root)]


def signed_token() -> str:
    token: str = json.loads(messages()[2])[0]["deviceInfo"]
    return token


MESSAGES = st.integers(0, 4).map(lambda at: messages()[at])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=5
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Some pieces cut out and others put in their place."""
    for at, cut, put in edits:
        start = at % (len(data) + 1)
        data = data[:start] + put + data[start + cut :]
    return data


def refuses_or_reads(reader: Callable[[bytes], object], data: bytes) -> object:
    try:
        return reader(data)
    except DeviceError:
        return None


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for reader in READERS:
        refuses_or_reads(reader, data)


@FUZZ
@given(JSON)
def test_any_json(value: object) -> None:
    data = json.dumps(value).encode()
    for reader in READERS:
        refuses_or_reads(reader, data)
        refuses_or_reads(reader, b"[" + data + b"]")


@FUZZ
@given(MESSAGES, EDITS)
def test_damaged_messages(message: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for reader in READERS:
        refuses_or_reads(reader, edited(message, edits))


@FUZZ
@given(st.data())
def test_messages_with_a_part_of_another_kind(data: st.DataObject) -> None:
    """Every place of every message, the payloads of tokens too, takes any JSON."""
    message = json.loads(data.draw(MESSAGES))
    items = message.get("biometrics", [message]) if isinstance(message, dict) else message
    item = data.draw(st.sampled_from(items))
    name = data.draw(st.sampled_from(sorted(item)))
    item[name] = data.draw(JSON)
    body = json.dumps(message).encode()
    for reader in READERS:
        refuses_or_reads(reader, body)


@FUZZ
@given(st.sampled_from(["digitalId", "bioType", "bioSubType", "timestamp", "qualityScore", "bioValue"]), JSON)
def test_captures_with_a_part_of_another_kind(name: str, value: object) -> None:
    """Where nobody signs: the payload itself is hostile, and whatever comes of it is judged."""
    item = json.loads(messages()[0])["biometrics"][0]
    payload = item["data"].split(".")[1]
    block = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    block[name] = value
    coded = base64.urlsafe_b64encode(json.dumps(block).encode()).decode().rstrip("=")
    body = json.dumps({"biometrics": [{**item, "data": f"e30.{coded}.AA"}]}).encode()
    try:
        answer = read_capture(body)
        assert not isinstance(answer, Refusal)
        records, _ = verified_records(
            answer,
            REQUEST,
            read_digital_id(messages()[3]),
            f"simulated-slap01-{SLAP.serial}",
            Provenance("sbi", ""),
            None,
            None,
            NOW,
        )
        judged(REQUEST.positions, records)
    except DeviceError:
        return
    assert name in ("bioSubType", "qualityScore", "timestamp")  # of the same kind by chance


@FUZZ
@given(EDITS)
def test_damaged_tokens_are_never_believed(edits: list[tuple[int, int, bytes]]) -> None:
    token = signed_token()
    damaged = edited(token.encode(), edits).decode("latin-1")
    if damaged != token and refuses_or_reads(lambda _: verified(damaged, roots(), NOW), b""):
        # Only padding bits of base64 may differ.
        same = [base64.urlsafe_b64decode(one + "==") for one in damaged.split(".")]
        assert same == [base64.urlsafe_b64decode(one + "==") for one in token.split(".")]


@FUZZ
@given(st.integers(0, 1), EDITS)
def test_damaged_certificates_are_never_believed(at: int, edits: list[tuple[int, int, bytes]]) -> None:
    chain = list(identity().chain)
    chain[at] = edited(chain[at], edits)
    header = {"alg": "RS256", "x5c": [base64.b64encode(one).decode() for one in chain]}
    told = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    token = f"{told}.{signed_token().partition('.')[2]}"
    assert refuses_or_reads(lambda _: verified(token, roots(), NOW), b"") is None


class Recorded:
    """A socket that says what was recorded."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def makefile(self, _mode: str) -> io.BufferedIOBase:
        return io.BufferedReader(io.BytesIO(self.said))


def answer(said: bytes) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(Recorded(said))  # type: ignore[arg-type]
    response.begin()
    return response


PICTURE = io.BytesIO()
Image.fromarray(np.zeros((40, 30), np.uint8)).save(PICTURE, "JPEG")
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + bytes(20),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n--b\r\nContent-Length: %d\r\n\r\n%s"
    % (len(PICTURE.getvalue()), PICTURE.getvalue()),
)


@FUZZ
@given(st.sampled_from(ANSWERS), EDITS)
@pytest.mark.parametrize("reader", [lambda r: _body(r, 1000), lambda r: _next_picture(r, PARAMS)])
def test_damaged_http(
    reader: Callable[[http.client.HTTPResponse], bytes | None],
    said: bytes,
    edits: list[tuple[int, int, bytes]],
) -> None:
    """What is raised here, the client turns into its own errors, and no more than this."""
    try:
        body = reader(answer(edited(said, edits)))
        assert body is None or len(body) <= PARAMS.picture_bytes
    except (DeviceError, http.client.HTTPException, OSError, EOFError, ValueError):
        pass


@FUZZ
@given(EDITS)
def test_damaged_pictures(edits: list[tuple[int, int, bytes]]) -> None:
    data = edited(PICTURE.getvalue(), edits)
    pixels = refuses_or_reads(lambda picture: _pixels(picture, PARAMS), data)
    assert pixels is None or isinstance(pixels, np.ndarray)


def test_a_picture_that_claims_to_be_huge_is_not_decoded() -> None:
    data = bytearray(PICTURE.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xdc\xff\xdc"  # 65,500 pixels a side
    with pytest.raises(DeviceError, match="65500 x 65500"):
        _pixels(bytes(data), PARAMS)
