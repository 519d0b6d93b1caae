"""SBI devices, end to end: the client over HTTP against the simulator in a process of its own."""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from PIL import Image

from benchmarks.encounters import made_up_nik
from capture.decode import decode_face_image, decode_image, decode_iris_image
from devices.device import Captured, CaptureSpec, Condition, Hint, Outcome, ShortCount, TimedOut, TryAgain
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.frame import DeviceKind, Positions, Provenance, Record
from devices.position import EyePosition, FingerPosition
from devices.sbi import PARAMS, SbiDevice, SbiDriver, judged
from devices.sbi_trust import UnverifiedDevices
from devices.virtual.sbi_simulator import (
    FACE,
    IRIS,
    SINGLE,
    SLAP,
    Fault,
    FolderPictures,
    Identity,
    Settings,
    control,
    drawn,
    simulator,
)
from devices.worker import Deadlines
from rekam.session import Began, Entry, Place, Session, Unfit, Verdict
from rekam.station.settings import drivers, load_station
from tests.sbi_services import HASTY, driver_at, identity, lasting_port, our_key, raw_service, trusted

LEFT_SLAP = tuple(FingerPosition)[7:]
RIGHT_SLAP = tuple(FingerPosition)[2:6]
SIMULATED = (SLAP, IRIS, FACE, SINGLE)
SIGNER = "CN=Simulated device"


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    with simulator(Settings(identity(), SIMULATED)) as port:
        yield port


@pytest.fixture
def driver(service: int, tmp_path: Path) -> SbiDriver:
    control(service, fault=Fault.NONE, present=True)
    return driver_at(service, trusted(tmp_path))


def opened(driver: SbiDriver, model: str = "SLAP01") -> SbiDevice:
    return driver.open(next(info.id for info in driver.discover() if info.provenance.model == model))


@pytest.fixture
def slap(driver: SbiDriver) -> SbiDevice:
    return opened(driver)


def records_of(outcome: Outcome) -> list[tuple[Positions, float | None]]:
    assert isinstance(outcome, Captured)
    return [(record.positions, record.quality) for record in outcome.records]


def test_devices_are_found_and_describe_themselves_under_their_signature(driver: SbiDriver) -> None:
    found = {info.provenance.model: info for info in driver.discover()}
    assert sorted(found) == ["FACE01", "FINGER01", "IRIS01", "SLAP01"]
    assert [found[model].kind for model in ("FACE01", "IRIS01", "SLAP01")] == [
        DeviceKind.FACE,
        DeviceKind.IRIS,
        DeviceKind.FINGERPRINT,
    ]
    assert found["SLAP01"].positions[:2] == (LEFT_SLAP, RIGHT_SLAP)
    assert found["IRIS01"].positions[2] == (EyePosition.LEFT, EyePosition.RIGHT)
    assert found["FINGER01"].positions == tuple((finger,) for finger in tuple(FingerPosition)[1:])
    info = opened(driver).info
    assert info == found["SLAP01"]
    assert (info.provenance.signed_by, info.provenance.firmware) == (SIGNER, "SIMULATED.SLAP01.1.0")
    assert (info.signs, info.previews) == (True, True)


def test_a_device_whose_signature_does_not_hold_is_listed_but_not_opened(
    service: int, driver: SbiDriver
) -> None:
    control(service, fault=Fault.EXPIRED_CHAIN)
    info = driver.discover()[0]
    assert (info.provenance.model, info.provenance.signed_by) == ("SLAP01", "")
    with pytest.raises(DeviceUntrusted, match="not valid at validation time"):
        driver.open(info.id)


@pytest.mark.parametrize(
    ("model", "positions"),
    [
        ("SLAP01", LEFT_SLAP),
        ("SLAP01", RIGHT_SLAP),
        ("SLAP01", (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)),
        ("SLAP01", RIGHT_SLAP[:1]),
        ("FINGER01", (FingerPosition.LEFT_RING,)),
        ("IRIS01", (EyePosition.LEFT, EyePosition.RIGHT)),
        ("IRIS01", (EyePosition.RIGHT,)),
        ("FACE01", ()),
    ],
)
def test_captures_give_signed_records_that_the_next_stage_reads(
    driver: SbiDriver, model: str, positions: Positions
) -> None:
    outcome = opened(driver, model).capture(CaptureSpec(positions, least_quality=60))
    assert records_of(outcome) == [((position,), 78) for position in positions] or model == "FACE01"
    assert isinstance(outcome, Captured)
    for record in outcome.records:
        assert record.provenance.signed_by == SIGNER
        if record.kind is DeviceKind.FINGERPRINT:
            sample = decode_image(record.data)
            assert ((sample.position,), sample.ppi) == (record.positions, 500)
        elif record.kind is DeviceKind.IRIS:
            assert (decode_iris_image(record.data).eye,) == record.positions
        else:
            assert decode_face_image(record.data).image.shape == (320, 256, 3)


def test_pixels_come_through_unchanged(slap: SbiDevice) -> None:
    outcome = slap.capture(CaptureSpec(RIGHT_SLAP[:2]))
    assert isinstance(outcome, Captured)
    seen = [decode_image(record.data).image for record in outcome.records]
    assert any(
        all(
            np.array_equal(image, drawn(DeviceKind.FINGERPRINT, position, number))
            for image, position in zip(seen, RIGHT_SLAP, strict=False)
        )
        for number in range(7)
    )


def test_missing_fingers_are_declared_and_left_out(slap: SbiDevice) -> None:
    spec = CaptureSpec(LEFT_SLAP[:3], missing=(FingerPosition.LEFT_LITTLE, FingerPosition.RIGHT_THUMB))
    assert [positions for positions, _ in records_of(slap.capture(spec))] == [(f,) for f in LEFT_SLAP[:3]]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.BUSY, DeviceBusy),
        (Fault.IN_PROGRESS, DeviceBusy),
        (Fault.BAD_SIGNATURE, DeviceUntrusted),
        (Fault.EXPIRED_CHAIN, DeviceUntrusted),
        (Fault.OTHER_ROOT, DeviceUntrusted),
        (Fault.BROKEN_HASHES, DeviceUntrusted),
        (Fault.STALE, DeviceUntrusted),
        (Fault.OTHER_DEVICE, DeviceUntrusted),
        (Fault.OTHER_PURPOSE, DeviceUntrusted),
        (Fault.TRUNCATED, DeviceProtocolError),
        (Fault.UNPLUGGED, DeviceRemoved),
    ],
)
def test_what_goes_wrong_has_its_type_and_the_next_capture_succeeds(
    service: int, slap: SbiDevice, fault: Fault, expected: type[DeviceError]
) -> None:
    control(service, fault=fault)
    with pytest.raises(expected):
        slap.capture(CaptureSpec(RIGHT_SLAP[:1]))
    control(service, fault=Fault.NONE)
    assert records_of(slap.capture(CaptureSpec(RIGHT_SLAP[:1]))) == [(RIGHT_SLAP[:1], 78)]


def test_an_answer_of_before_is_not_believed_again(service: int, slap: SbiDevice) -> None:
    spec = CaptureSpec(RIGHT_SLAP[:1], transaction="encounter-1")
    for _ in range(2):
        records_of(slap.capture(spec))
    control(service, fault=Fault.REPLAYED)
    with pytest.raises(DeviceUntrusted, match="hashes"):  # the same transaction: its chain has moved on
        slap.capture(spec)
    with pytest.raises(DeviceUntrusted, match="transaction 'encounter-1'"):
        slap.capture(replace(spec, transaction="encounter-2"))


def test_nor_when_another_encounter_came_in_between(service: int, slap: SbiDevice) -> None:
    specs = [CaptureSpec(RIGHT_SLAP[:1], transaction=f"encounter-{number}") for number in (3, 4)]
    for spec in specs:
        records_of(slap.capture(spec))
    control(service, fault=Fault.REPLAYED)
    with pytest.raises(DeviceUntrusted, match="hashes"):
        slap.capture(specs[0])


def test_three_of_four_fingers_are_never_taken_for_four(service: int, slap: SbiDevice) -> None:
    control(service, fault=Fault.SHORT_COUNT)
    outcome = slap.capture(CaptureSpec(LEFT_SLAP))
    assert isinstance(outcome, ShortCount)
    assert (outcome.asked, outcome.got) == (LEFT_SLAP, 3)
    assert records_of(outcome.partial) == [((finger,), 78) for finger in LEFT_SLAP[:3]]


def test_one_eye_of_two_is_never_taken_for_both(service: int, driver: SbiDriver) -> None:
    eyes = (EyePosition.LEFT, EyePosition.RIGHT)
    iris = opened(driver, "IRIS01")
    control(service, fault=Fault.SHORT_COUNT)
    outcome = iris.capture(CaptureSpec(eyes))
    assert isinstance(outcome, ShortCount)
    assert (outcome.asked, outcome.got) == (eyes, 1)


def test_a_whole_slap_is_never_taken_for_one_finger(service: int, slap: SbiDevice) -> None:
    control(service, fault=Fault.WHOLE_SLAP)
    outcome = slap.capture(CaptureSpec(RIGHT_SLAP[1:2]))
    assert isinstance(outcome, ShortCount)
    assert (outcome.asked, outcome.got) == (RIGHT_SLAP[1:2], 4)


def test_the_other_hand_is_asked_for_again(service: int, slap: SbiDevice) -> None:
    control(service, fault=Fault.WRONG_SUBTYPE)
    outcome = slap.capture(CaptureSpec(LEFT_SLAP))
    assert isinstance(outcome, TryAgain)
    assert outcome.hint is Hint.WRONG_POSITION
    assert "Right IndexFinger" in outcome.detail


def test_poor_quality_is_told(service: int, slap: SbiDevice) -> None:
    control(service, fault=Fault.LOW_QUALITY)
    assert records_of(slap.capture(CaptureSpec(RIGHT_SLAP[:1], least_quality=60))) == [(RIGHT_SLAP[:1], 12)]


def test_nobody_at_the_device_is_an_outcome(service: int, slap: SbiDevice) -> None:
    control(service, present=False)
    assert slap.capture(CaptureSpec(RIGHT_SLAP[:1], seconds=0.3)) == TimedOut(0.3)
    control(service, present=True)
    control(service, fault=Fault.TIMEOUT)
    assert slap.capture(CaptureSpec(RIGHT_SLAP[:1], seconds=0.3)) == TimedOut(0.3)


def test_a_service_that_trickles_ends_at_the_deadline(
    service: int, driver: SbiDriver, tmp_path: Path
) -> None:
    hasty = opened(driver_at(service, trusted(tmp_path), params=replace(HASTY, grace_seconds=0.5)))
    control(service, fault=Fault.SLOW)
    before = time.monotonic()
    with pytest.raises(DeviceStuck, match="within 1 s"):
        hasty.capture(CaptureSpec(RIGHT_SLAP[:1], seconds=0.5))
    assert time.monotonic() - before < 30  # it would have taken hours


def test_captures_of_one_transaction_are_one_chain(slap: SbiDevice) -> None:
    """The second capture's hashes hold only where the request continued the first one's chain."""
    for positions in (LEFT_SLAP[:2], RIGHT_SLAP[:2]):
        records_of(slap.capture(CaptureSpec(positions, transaction="one encounter")))
    assert [*slap._chains] == ["one encounter"]


class Doubting:
    """Finds nothing good enough."""

    def examine(self, captured: Captured, asked: tuple[Place, ...]) -> Unfit:
        return Unfit("again")


def test_captures_of_one_encounter_are_one_chain(slap: SbiDevice) -> None:
    kept: list[Entry] = []
    began = Began("encounter-5", made_up_nik(1), "Sari", (DeviceKind.FINGERPRINT,), datetime.now(UTC))
    session = Session.begin(began, Doubting(), kept.append)
    for _ in range(2):
        assert session.capture(slap).verdict is Verdict.AGAIN
    assert [*slap._chains] == ["encounter-5"]


def test_transactions_that_devices_refuse_are_not_sent(slap: SbiDevice) -> None:
    for transaction in ("abc", "x" * 51, "wörter", "with\nline"):
        with pytest.raises(DeviceUnavailable, match="4 to 50 ASCII"):
            slap.capture(CaptureSpec(RIGHT_SLAP[:1], transaction=transaction))


@pytest.mark.parametrize(
    "positions",
    [(), (EyePosition.LEFT,), (LEFT_SLAP[0], RIGHT_SLAP[0]), (FingerPosition.LEFT_THUMB, LEFT_SLAP[0])],
)
def test_what_no_part_of_a_device_shows_is_not_asked_for(slap: SbiDevice, positions: Positions) -> None:
    with pytest.raises(DeviceUnavailable):
        slap.capture(CaptureSpec(positions))
    with pytest.raises(DeviceUnavailable):
        slap.preview(CaptureSpec(positions))


def test_live_pictures(service: int, slap: SbiDevice) -> None:
    with closing(slap.preview(CaptureSpec(LEFT_SLAP))) as live:
        frames = [next(live) for _ in range(6)]
    assert [frame.number for frame in frames] == list(range(6))
    assert {frame.pixels.shape for frame in frames} == {(320, 4 * 256)}
    assert all(frame.positions == LEFT_SLAP and frame.provenance.signed_by == SIGNER for frame in frames)
    # The device is free again at once.
    assert records_of(slap.capture(CaptureSpec(RIGHT_SLAP[:1])))


def test_a_damaged_or_silent_stream_is_a_fault(service: int, driver: SbiDriver, tmp_path: Path) -> None:
    hasty = opened(driver_at(service, trusted(tmp_path), params=replace(HASTY, frame_seconds=3)))
    faults = {
        Fault.TRUNCATED: DeviceProtocolError,
        Fault.SLOW: DeviceStuck,
        Fault.BUSY: DeviceBusy,
        Fault.UNPLUGGED: DeviceRemoved,
    }
    for fault, expected in faults.items():
        control(service, fault=fault)
        with closing(hasty.preview(CaptureSpec(LEFT_SLAP))) as live, pytest.raises(expected):
            next(live)


def test_health_follows_the_device(service: int, slap: SbiDevice) -> None:
    assert slap.health().condition is Condition.READY
    control(service, fault=Fault.BUSY)
    assert slap.health().condition is Condition.BUSY
    control(service, fault=Fault.UNPLUGGED)
    assert slap.health().condition is Condition.REMOVED
    control(service, fault=Fault.NONE)
    slap.close()
    slap.close()
    with pytest.raises(DeviceUnavailable, match="closed"):
        slap.capture(CaptureSpec(RIGHT_SLAP[:1]))


def test_devices_are_opened_only_where_they_are_trusted(
    service: int, driver: SbiDriver, tmp_path: Path
) -> None:
    found = driver.discover()[0].id
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    with pytest.raises(DeviceUntrusted, match="not trusted"):
        driver_at(service, trusted(stranger, Identity.generated("Another"))).open(found)
    with pytest.raises(DeviceUntrusted, match="'Staging', not 'Production'"):
        replace(driver, environment="Production").open(found)
    with pytest.raises(DeviceRemoved, match="no service tells"):
        driver.open("fingerprint.Nobody.X.1")
    with pytest.raises(DeviceUnavailable, match="cannot be read"):
        replace(driver, trust=replace(trusted(tmp_path), files=(tmp_path / "none.pem",))).open(found)
    control(service, fault=Fault.BAD_SIGNATURE)
    with pytest.raises(DeviceUntrusted, match="signature"):
        driver.open(found)
    # Who says so believes it, and records carry no signer's name.
    believed = driver_at(service, UnverifiedDevices())
    outcome = opened(believed).capture(CaptureSpec(RIGHT_SLAP[:1]))
    assert isinstance(outcome, Captured)
    assert outcome.records[0].provenance.signed_by == ""
    assert not believed.discover()[0].signs
    # Hashes, transaction and time are checked all the same.
    device = opened(believed)
    control(service, fault=Fault.BROKEN_HASHES)
    with pytest.raises(DeviceUntrusted, match="hashes"):
        device.capture(CaptureSpec(RIGHT_SLAP[:1]))


def test_an_impostor_on_a_lower_port_does_not_hide_the_device(tmp_path: Path) -> None:
    with (
        simulator(Settings(Identity.generated("Impostor"))) as one,
        simulator(Settings(identity(), (SLAP,))) as other,
    ):
        driver = replace(driver_at(one, trusted(tmp_path)), ports=(one, other))
        assert opened(driver).info.provenance.signed_by == SIGNER


def test_a_service_that_describes_nothing_hides_nothing(service: int, driver: SbiDriver) -> None:
    """It tells of the devices of another service, and then breaks off."""
    bodies = {b"MOSIPDISC": discovery_of(service)}

    def half(line: bytes) -> Iterable[bytes]:
        return [bodies.get(line.split()[0], b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")]

    with raw_service(half) as impostor:
        alone = replace(driver, ports=(impostor,))
        listed = alone.discover()
        assert {info.provenance.signed_by for info in listed} == {""}
        with pytest.raises(DeviceProtocolError, match="broke off"):
            alone.open(listed[0].id)
        for ports in ((impostor, service), (service, impostor)):
            beside = replace(driver, ports=ports)
            assert beside.discover() == driver.discover()
            assert opened(beside).info.provenance.signed_by == SIGNER


def discovery_of(port: int) -> bytes:
    """The whole answer of a service to a discovery."""
    request = b'MOSIPDISC /device HTTP/1.1\r\nContent-Length: 27\r\n\r\n{"type":"Biometric Device"}'
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_encrypted_captures_are_opened_with_our_key(tmp_path: Path) -> None:
    key, certificate = our_key(tmp_path)
    settings = Settings(
        identity(), (SLAP, FACE), encrypt_for=certificate.public_bytes(Encoding.PEM), environment="Staging"
    )
    with simulator(settings) as port:
        driver = driver_at(port, trusted(tmp_path), key)
        device = opened(driver)
        assert not device.info.previews
        with pytest.raises(DeviceUnavailable, match="no stream"):
            device.preview(CaptureSpec(LEFT_SLAP))
        outcome = device.capture(CaptureSpec(LEFT_SLAP, transaction="one" * 2))
        assert records_of(outcome) == [((finger,), 78) for finger in LEFT_SLAP]
        assert isinstance(outcome, Captured)
        assert [decode_image(record.data).position for record in outcome.records] == list(LEFT_SLAP)
        with pytest.raises(DeviceUnavailable, match="no key is set"):
            opened(replace(driver, key=None))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        with pytest.raises(DeviceUntrusted, match="not for us"):
            opened(replace(driver, key=our_key(elsewhere)[0])).capture(CaptureSpec(LEFT_SLAP[:1]))


@contextmanager
def process_of(settings: Settings) -> Iterator[tuple[int, int]]:
    """A simulator's port and process."""
    before = set(multiprocessing.active_children())
    with simulator(settings) as port:
        [process] = set(multiprocessing.active_children()) - before
        assert process.pid
        yield port, process.pid


def test_a_service_killed_in_the_middle_of_its_stream_is_gone_and_comes_back(tmp_path: Path) -> None:
    settings = Settings(identity(), (SLAP,), port=lasting_port())
    with process_of(settings) as (port, pid):
        device = opened(driver_at(port, trusted(tmp_path)))
        with closing(device.preview(CaptureSpec(LEFT_SLAP))) as live:
            assert [next(live).number for _ in range(3)] == [0, 1, 2]
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(DeviceRemoved):
                next(frame for frame in live if frame.number > 1_000)  # some may be on their way
        assert device.health().condition is Condition.REMOVED
    with simulator(settings), closing(device.preview(CaptureSpec(LEFT_SLAP))) as live:
        assert next(live).number == 0


def test_a_service_that_stalls_is_stuck_and_not_gone(tmp_path: Path) -> None:
    with process_of(Settings(identity(), (SLAP,))) as (port, pid):
        driver = driver_at(port, trusted(tmp_path), params=replace(HASTY, answer_seconds=1, health_seconds=1))
        device = opened(driver)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeviceStuck, match="MOSIPDISC within 1 s"):
            driver.open(device.info.id)
        assert device.health().condition is Condition.FAILING
        os.kill(pid, signal.SIGCONT)
        assert records_of(device.capture(CaptureSpec(LEFT_SLAP[:1])))


def test_a_service_tells_what_happened_before_its_process_is_given_up() -> None:
    given = Deadlines()
    assert max(PARAMS.grace_seconds, PARAMS.frame_seconds) < given.call
    assert PARAMS.health_seconds < given.health < given.busy


def test_two_faces_are_never_taken_for_one() -> None:
    of, now = Provenance("sbi", "face"), datetime.now(UTC)
    face = Record(b"", "ISO19794_5_2011", DeviceKind.FACE, (), 78, now, of)
    assert isinstance(judged((), (face,)), Captured)
    outcome = judged((), (face, face))
    assert isinstance(outcome, ShortCount)
    assert outcome.got == 2


def given(answer: Iterable[bytes], line: bytes) -> Iterable[bytes]:
    """The same answer to whatever is asked."""
    return answer


def test_a_service_of_thousands_of_devices_is_none(service: int, driver: SbiDriver) -> None:
    _, _, body = discovery_of(service).partition(b"\r\n\r\n")
    device = json.loads(body)[0]
    for many, listed in ((32, 1), (33, 0)):
        body = json.dumps([device] * many).encode()
        answer = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
        with raw_service(partial(given, answer)) as port:
            assert len(replace(driver, ports=(port,)).discover()) == listed


def test_a_station_opens_what_is_encrypted_for_it(tmp_path: Path) -> None:
    key, certificate = our_key(tmp_path)
    [root] = trusted(tmp_path).files
    settings = Settings(identity(), (SLAP,), encrypt_for=certificate.public_bytes(Encoding.PEM))
    with simulator(settings) as port:
        file = tmp_path / "station.toml"
        file.write_text(
            f'[sbi]\nroots = ["{root}"]\nenvironment = "Staging"\nfirst_port = {port}\nlast_port = {port}\n'
            f'key = {{ file = "{key.key_file}", certificate = "{key.certificate_file}", '
            f'password = "{key.password_file}" }}\n'
        )
        [driver], _ = drivers(load_station(file))
        device = driver.open(driver.discover()[0].id)
        assert isinstance(device, SbiDevice)
        assert records_of(device.capture(CaptureSpec(LEFT_SLAP[:1]))) == [(LEFT_SLAP[:1], 78)]


def test_a_service_that_dies_is_gone_and_comes_back(tmp_path: Path) -> None:
    settings = Settings(identity(), (SLAP,), port=lasting_port())
    with simulator(settings) as port:
        driver = driver_at(port, trusted(tmp_path))
        device = opened(driver)
        control(port, fault=Fault.DIES)
        with pytest.raises(DeviceRemoved):
            device.capture(CaptureSpec(LEFT_SLAP))
        assert device.health().condition is Condition.REMOVED
        assert driver.discover() == []
        with pytest.raises(DeviceRemoved):
            device.capture(CaptureSpec(LEFT_SLAP))
    with simulator(settings):
        assert [info.id for info in driver.discover()] == [device.info.id]
        assert records_of(device.capture(CaptureSpec(LEFT_SLAP[:1]))) == [(LEFT_SLAP[:1], 78)]


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shown = {name: np.full((300, 200), 10 * n, np.uint8) for n, name in enumerate(("left_eye", "right_eye"))}
    for name, pixels in shown.items():
        Image.fromarray(pixels).save(pictures / f"{name}_1.png")
    folder = FolderPictures(pictures)
    assert np.array_equal(folder(DeviceKind.IRIS, EyePosition.RIGHT, 3), shown["right_eye"])
    with pytest.raises(FileNotFoundError, match="left_thumb"):
        folder(DeviceKind.FINGERPRINT, FingerPosition.LEFT_THUMB, 0)
