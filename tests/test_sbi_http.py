"""Hostile HTTP: whatever listens on a port, the client comes back with a typed error within its deadline."""

import itertools
import json
import socket
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from devices.device import CaptureSpec, DeviceInfo
from devices.errors import DeviceError, DeviceProtocolError, DeviceRemoved, DeviceStuck
from devices.frame import DeviceKind, Provenance
from devices.sbi import Params, SbiDevice, SbiDriver, _Service, _Vouched
from devices.sbi_messages import Description, DigitalId
from devices.sbi_trust import UnverifiedDevices
from devices.virtual.sbi_simulator import FACE, Settings, simulator
from devices.worker import DeviceWorker
from tests.sbi_services import HASTY, driver_at, identity, raw_service

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
SHORT = replace(HASTY, answer_seconds=1, grace_seconds=0.5, frame_seconds=1)


def answers_in_time(service: Iterable[bytes], params: Params = HASTY) -> tuple[str, float]:
    """What a capture of a device comes to when its service then answers so."""
    with raw_service(lambda _: service) as port:
        started = time.monotonic()
        with pytest.raises(DeviceError) as raised:
            device_at(port, params).capture(CaptureSpec(seconds=0.5))
        return raised.type.__name__, time.monotonic() - started


def device_at(port: int, params: Params = HASTY) -> SbiDevice:
    """A face device as it was before its service turned hostile."""
    named = Provenance("sbi", "face.X.Y.1")
    description = Description("1", ("0",), "code", "Staging", "Registration", "1", "")
    vouched = _Vouched(description, DigitalId("1", "X", "Y", DeviceKind.FACE, "Full face"), "")
    info = DeviceInfo("face.X.Y.1", DeviceKind.FACE, named)
    return SbiDevice(info, _Service(port, params), vouched, None, None)


def trickled(message: bytes, every: float = 0.05) -> Iterator[bytes]:
    for byte in message:
        time.sleep(every)
        yield bytes([byte])


HOSTILE: dict[str, tuple[Iterable[bytes], str]] = {
    "nothing": ([], "DeviceProtocolError"),
    "no http": ([b"SSH-2.0-OpenSSH_9.2\r\n"], "DeviceProtocolError"),
    "endless status line": (itertools.repeat(b"HTTP/1.1 200 " + b"x" * 60_000), "DeviceProtocolError"),
    "endless headers": (
        itertools.chain([OK], itertools.repeat(b"X-More: header\r\n" * 64)),
        "DeviceProtocolError",
    ),
    "endless header": (itertools.chain([OK, b"X: "], itertools.repeat(b"x" * 4096)), "DeviceProtocolError"),
    "endless interim answers": (itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), "DeviceStuck"),
    "longer than it says": (
        [OK, JSON, b"Content-Length: 2\r\n\r\n{}", b"x" * 100_000],
        "DeviceProtocolError",
    ),
    "shorter than it says": ([OK, JSON, b"Content-Length: 999\r\n\r\n{}"], "DeviceProtocolError"),
    "too long": ([OK, JSON, b"Content-Length: 99999999999\r\n\r\n{}"], "DeviceProtocolError"),
    "negative length": ([OK, JSON, b"Content-Length: -5\r\n\r\n{}"], "DeviceProtocolError"),
    "length no number": ([OK, JSON, b"Content-Length: many\r\n\r\n{}"], "DeviceProtocolError"),
    "no body": ([OK, JSON, b"Content-Length: 0\r\n\r\n"], "DeviceProtocolError"),
    "chunk of a bad size": ([OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"], "DeviceProtocolError"),
    "chunk cut off": ([OK, b"Transfer-Encoding: chunked\r\n\r\nff\r\n{}"], "DeviceProtocolError"),
    "endless trailers": (
        itertools.chain([OK, b"Transfer-Encoding: chunked\r\n\r\n0\r\n"], itertools.repeat(b"X: y\r\n" * 99)),
        "DeviceStuck",
    ),
    "redirect": ([b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"], "DeviceProtocolError"),
    "server error": ([b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"], "DeviceProtocolError"),
    "slow head": (trickled(OK + b"X: y\r\n" * 100), "DeviceStuck"),
    "slow body": (
        itertools.chain([OK, b"Content-Length: 400\r\n\r\n"], trickled(b" " * 400)),
        "DeviceStuck",
    ),
    "silence": (trickled(b" ", 9), "DeviceStuck"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_have_their_type_within_the_deadline(name: str) -> None:
    service, expected = HOSTILE[name]
    raised, seconds = answers_in_time(service, SHORT if expected == "DeviceStuck" else HASTY)
    assert raised == expected
    assert seconds < 30  # the deadline is some seconds; the rest is for busy machines


def sent(body: Iterable[bytes], _line: bytes) -> Iterable[bytes]:
    return body


def test_memory_is_bounded_whatever_comes() -> None:
    """An endless body, and JSON of nothing but brackets, which would take thirty times its size."""
    small = replace(SHORT, capture_bytes=1 << 20, grace_seconds=10)
    endless = itertools.chain(
        [OK, b"Content-Length: 1099511627776\r\n\r\n"], itertools.repeat(b"[]," * 20_000)
    )
    brackets = b"[" + b"[]," * 300_000 + b"[]]"
    bodies: dict[str, Iterable[bytes]] = {"longer": endless, "more parts": [OK, b"\r\n", brackets]}
    for words, body in bodies.items():
        with raw_service(partial(sent, body)) as port:
            device = device_at(port)
            device._service = replace(device._service, params=small)
            tracemalloc.start()
            with pytest.raises(DeviceProtocolError, match=words):
                device.capture(CaptureSpec(seconds=0.5))
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert most < 8 << 20


def test_chunked_answers_are_read() -> None:
    error = {"biometrics": [{"error": {"errorCode": "111", "errorInfo": "busy"}}]}
    body = json.dumps(error).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    raised, _ = answers_in_time([OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks])
    assert raised == "DeviceBusy"


PART = b"--b\r\nContent-Type: image/jpeg\r\n"
STREAM = OK + b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ([STREAM + PART + b"Content-Length: 99999999\r\n\r\n"], DeviceProtocolError),
        ([STREAM + PART + b"Content-Length: -1\r\n\r\n"], DeviceProtocolError),
        ([STREAM + PART + b"Content-Length: x\r\n\r\n"], DeviceProtocolError),
        ([STREAM + PART + b"Content-Length: 4\r\n\r\nJPEG"], DeviceProtocolError),
        (itertools.chain([STREAM], itertools.repeat(b"no part\r\n")), DeviceProtocolError),
        (itertools.chain([STREAM], itertools.repeat(b"x" * 4096)), DeviceProtocolError),
        ([OK + JSON + b"\r\n{}"], DeviceProtocolError),
        ([OK + JSON + b'\r\n{"error":{"errorCode":"605","errorInfo":""}}'], DeviceRemoved),
        (itertools.chain([STREAM + PART], trickled(b"Content-Length: 9\r\n" * 9)), DeviceStuck),
    ],
)
def test_hostile_streams(service: Iterable[bytes], expected: type[DeviceError]) -> None:
    params = SHORT if expected is DeviceStuck else HASTY
    with raw_service(lambda _: service) as port, pytest.raises(expected):
        next(device_at(port, params).preview(CaptureSpec()))


def test_a_stream_without_pictures_ends() -> None:
    """A service that begins streams and ends them does not keep the client asking for ever."""
    with raw_service(lambda _: [STREAM]) as port:
        assert list(device_at(port).preview(CaptureSpec())) == []


def test_other_programs_on_the_ports_hide_no_device(tmp_path: Path) -> None:
    """A program that never answers, one that is no service and an empty port stand beside a real service."""
    with (
        raw_service(lambda _: trickled(b" ", 9)) as silent,
        raw_service(lambda _: [b"220 mail ready\r\n"]) as mail,
        simulator(Settings(identity(), (FACE,))) as port,
    ):
        everything = SbiDriver(UnverifiedDevices(), "Staging", ports=(silent, mail, port), params=HASTY)
        assert [info.provenance.model for info in everything.discover()] == ["FACE01"]
        assert driver_at(mail, UnverifiedDevices()).discover() == []


def test_ports_that_swallow_connections_hide_no_device() -> None:
    """As a firewall does, or a program that no longer accepts: a fifth of a second each, within one call."""
    with ExitStack() as held:
        ports = []
        for _ in range(60):
            full = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            ports.append(full.getsockname()[1])
            for _ in range(3):
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
        ports.append(held.enter_context(simulator(Settings(identity(), (FACE,)))))
        driver = SbiDriver(UnverifiedDevices(), "Staging", ports=ports)
        worker = held.enter_context(closing(DeviceWorker(driver)))
        assert [info.provenance.model for info in worker.call(SbiDriver.discover)] == ["FACE01"]
