"""GenICam cameras: pixel formats on made-up buffers, the driver on the producer of the `genicam` wheel."""

import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.device import CaptureSpec, Condition
from devices.errors import DeviceBusy, DeviceProtocolError, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind
from devices.genicam_camera import GenicamDriver
from devices.pixel_formats import convertible, in_colour, pixels
from tests.place_genicam import CAMERA, faulty_producer

SPEC = CaptureSpec(seconds=5)
FORMATS = [
    *("Mono8", "Mono10", "Mono12", "Mono14", "Mono16", "Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed"),
    *("BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8", "BayerRG10p", "BayerGR12Packed", "BayerBG16"),
    *("RGB8", "BGR8", "RGBa8", "BGRa8", "RGB8Packed"),
    *("YUV422_8", "YUV422_8_UYVY", "YCbCr422_8", "YCbCr601_422_8", "YCbCr601_422_8_CbYCrY"),
]


# Pixel formats


def values(width: int, height: int, bits: int) -> NDArray[np.uint16]:
    return np.random.default_rng([width, height, bits]).integers(0, 2**bits, (height, width), dtype=np.uint16)


def in_a_stream(image: NDArray[np.uint16], bits: int) -> bytes:
    """Values one after another, lowest bit first, as PFNC packs what it marks `p`."""
    number = sum(int(value) << (bits * place) for place, value in enumerate(image.ravel()))
    return number.to_bytes(-(-image.size * bits // 8), "little")


def in_threes(image: NDArray[np.uint16], bits: int) -> bytes:
    """Two values in three bytes, as GigE Vision packs what PFNC marks `Packed`."""
    flat = [*image.ravel().tolist(), 0]
    low = bits - 8
    packed = bytearray()
    for a, b in zip(flat[: image.size : 2], flat[1::2], strict=False):
        packed += bytes([a >> low, (a & (2**low - 1)) | (b & (2**low - 1)) << 4, b >> low])
    return bytes(packed[: -(-image.size * 12 // 8)])


def test_grey_values_of_eight_bits_come_as_they_are_without_padding() -> None:
    image = values(5, 3, 8).astype(np.uint8)
    padded = np.pad(image, ((0, 0), (0, 2))).tobytes()
    assert np.array_equal(pixels(padded, "Mono8", 5, 3, padding=2), image)
    assert np.array_equal(pixels(padded[:-2], "Mono8", 5, 3, padding=2), image)
    assert np.array_equal(pixels(image.tobytes() + b"chunks", "Mono8", 5, 3), image)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_highest_eight_bits_of_wider_values_are_kept(bits: int) -> None:
    image = values(7, 4, bits)
    assert np.array_equal(pixels(image.astype("<u2").tobytes(), f"Mono{bits}", 7, 4), image >> (bits - 8))


@pytest.mark.parametrize("size", [(8, 3), (4, 3), (6, 2), (5, 3), (7, 1), (1, 1)])
@pytest.mark.parametrize("bits", [10, 12])
def test_packed_values_are_unpacked(bits: int, size: tuple[int, int]) -> None:
    image = values(*size, bits)
    assert np.array_equal(pixels(in_a_stream(image, bits), f"Mono{bits}p", *size), image >> (bits - 8))
    assert np.array_equal(pixels(in_threes(image, bits), f"Mono{bits}Packed", *size), image >> (bits - 8))


def test_packed_lines_are_padded_where_they_end_with_a_byte_and_refused_elsewhere() -> None:
    image = values(4, 3, 10)
    lines = [in_a_stream(line[None], 10) + b"\xff" for line in image]
    assert np.array_equal(pixels(b"".join(lines), "Mono10p", 4, 3, padding=1), image >> 2)
    with pytest.raises(DeviceProtocolError, match="padded"):
        pixels(bytes(100), "Mono10p", 5, 3, padding=1)


@pytest.mark.parametrize(
    ("name", "order"), [("RGB8", (0, 1, 2)), ("BGR8", (2, 1, 0)), ("RGBa8", (0, 1, 2)), ("BGRa8", (2, 1, 0))]
)
def test_colours_are_brought_into_one_order(name: str, order: tuple[int, ...]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (3, 4, 4 if "a" in name else 3), dtype=np.uint8)
    assert np.array_equal(pixels(image.tobytes(), name, 4, 3), image[:, :, order])


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("BayerRG8", ((0, 0), (0, 1), (1, 1))),
        ("BayerGR8", ((0, 1), (0, 0), (1, 0))),
        ("BayerGB8", ((1, 0), (0, 0), (0, 1))),
        ("BayerBG8", ((1, 1), (0, 1), (0, 0))),
    ],
)
def test_a_mosaic_gives_the_colours_that_made_it(name: str, places: tuple[tuple[int, int], ...]) -> None:
    colour = (200, 120, 40)
    (ry, rx), _, (by, bx) = places
    mosaic = np.full((8, 10), colour[1], np.uint8)
    mosaic[ry::2, rx::2], mosaic[by::2, bx::2] = colour[0], colour[2]
    assert (pixels(mosaic.tobytes(), name, 10, 8) == colour).all()


@pytest.mark.parametrize("name", ["YUV422_8", "YUV422_8_UYVY", "YCbCr422_8", "YCbCr422_8_CbYCrY"])
def test_colours_shared_by_two_pixels_come_back(name: str) -> None:
    colour = np.tile(np.array([210, 90, 60], np.uint8), (4, 6, 1))
    y, red, blue = cv2.split(cv2.cvtColor(colour, cv2.COLOR_RGB2YCrCb))
    first, second = np.empty((4, 6, 2), np.uint8), np.empty((4, 6, 2), np.uint8)
    first[:, :, 0], first[:, ::2, 1], first[:, 1::2, 1] = y, blue[:, ::2], red[:, ::2]
    second[:, :, 1], second[:, :, 0] = y, first[:, :, 1]
    sent = second if name.endswith(("UYVY", "CrY")) else first
    assert np.abs(pixels(sent.tobytes(), name, 6, 4).astype(int) - colour).max() <= 2


def test_television_levels_are_stretched() -> None:
    black, white = bytes([16, 128] * 8), bytes([235, 128] * 8)
    assert pixels(black, "YCbCr601_422_8", 4, 2).max() <= 1
    assert pixels(white, "YCbCr601_422_8", 4, 2).min() >= 254


@given(
    st.binary(max_size=200),
    st.sampled_from(FORMATS),
    st.integers(-1, 9),
    st.integers(-1, 9),
    st.integers(-1, 3),
)
def test_whatever_a_camera_sends_is_a_picture_or_a_protocol_error(
    data: bytes, name: str, width: int, height: int, padding: int
) -> None:
    try:
        picture = pixels(data, name, width, height, padding)
    except DeviceProtocolError:
        return
    assert picture.dtype == np.uint8
    assert picture.shape == ((height, width, 3) if in_colour(name) else (height, width))


@given(st.text(max_size=20))
@settings(max_examples=50)
def test_formats_that_are_not_known_are_refused(name: str) -> None:
    assert all(convertible(known) for known in FORMATS)
    if not convertible(name):
        with pytest.raises(DeviceProtocolError, match="not known"):
            pixels(bytes(64), name, 2, 2)


@pytest.mark.parametrize(
    "name", ["Mono8p", "Mono16p", "Mono14Packed", "Mono9", "RGB10", "BayerRG8Packed", "0x1"]
)
def test_what_pfnc_does_not_have_is_not_known(name: str) -> None:
    assert not convertible(name)


def test_a_picture_too_large_is_refused_before_anything_is_made_of_it() -> None:
    with pytest.raises(DeviceProtocolError):
        pixels(b"", "Mono8", 2**31, 2**31)


# The driver on the real producer, behind one that can pull its cables: a process loads it once


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[GenicamDriver, Path]:
    producer, cable = faulty_producer(tmp_path_factory.mktemp("producer"))
    return GenicamDriver((producer,), silence=3.0), cable


@pytest.fixture
def cable(stack: tuple[GenicamDriver, Path]) -> Iterator[Path]:
    yield stack[1]
    stack[1].unlink(missing_ok=True)


@pytest.fixture
def driver(stack: tuple[GenicamDriver, Path]) -> GenicamDriver:
    return stack[0]


def test_cameras_are_found_with_what_they_say_of_themselves(driver: GenicamDriver) -> None:
    cameras = driver.discover()
    assert [one.id for one in cameras] == [f"VikyTL_DEV_{colour}" for colour in ("red", "green", "blue")]
    assert {one.kind for one in cameras} == {DeviceKind.FACE}
    assert cameras[1].provenance.model == "Viky"
    assert cameras[1].provenance.serial == "1"
    assert pickle.loads(pickle.dumps(driver)) == driver


def test_producers_are_found_where_the_standard_says(
    driver: GenicamDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"{tmp_path}:{Path(driver.producers[0]).parent}")
    assert GenicamDriver().discover() == driver.discover()
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailable, match="producer"):
        GenicamDriver().discover()


def test_a_producer_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.cti"
    broken.write_bytes(b"no library")
    with pytest.raises(DeviceUnavailable, match=r"broken\.cti"):
        GenicamDriver((str(broken),)).discover()


def test_a_preview_streams_and_a_capture_in_between_leaves_it_running(driver: GenicamDriver) -> None:
    camera = driver.open(CAMERA)
    preview = camera.preview(SPEC)
    frames = [next(preview) for _ in range(6)]
    captured = camera.capture(SPEC).frames[0]
    after = next(preview)
    assert [one.number for one in [*frames, captured, after]] == list(range(1, 9))
    assert {one.pixels.shape for one in frames} == {(400, 400, 3)}
    assert any(not np.array_equal(frames[0].pixels, one.pixels) for one in frames[1:])
    health = camera.health()
    assert health.condition is Condition.READY
    assert 0 < health.figures["frames_per_second"] < 60
    assert health.figures["frames"] == 8
    preview.close()
    assert camera.capture(SPEC).frames[0].provenance.device == CAMERA
    camera.close()
    camera.close()
    assert camera.health().condition is Condition.REMOVED
    with pytest.raises(DeviceRemoved):
        camera.capture(SPEC)


def test_a_slow_watcher_sees_the_newest_frame(driver: GenicamDriver) -> None:
    camera = driver.open(CAMERA)
    preview = camera.preview(SPEC)
    next(preview)
    time.sleep(0.5)
    asked = time.monotonic()
    next(preview)
    assert camera.health().figures["skipped"] >= 1
    assert time.monotonic() - asked < 10
    camera.close()


def test_eyes_come_grey_and_only_the_cameras_that_are_meant(driver: GenicamDriver) -> None:
    eyes = GenicamDriver(driver.producers, DeviceKind.IRIS, "infrared", ("VikyTL_DEV_green",))
    (found,) = eyes.discover()
    assert found.kind is DeviceKind.IRIS
    camera = eyes.open(found.id)
    frame = camera.capture(SPEC).frames[0]
    assert frame.pixels.shape == (400, 400)
    assert frame.provenance.driver == "infrared"
    camera.close()
    with pytest.raises(DeviceRemoved):
        eyes.open(CAMERA)


def test_looking_for_cameras_does_not_disturb_one_that_is_open_nor_ctrl_c(driver: GenicamDriver) -> None:
    before = signal.getsignal(signal.SIGINT)
    camera = driver.open(CAMERA)
    assert signal.getsignal(signal.SIGINT) is before
    preview = camera.preview(SPEC)
    next(preview)
    assert len(driver.discover()) == 3
    assert next(preview).number == 2
    with pytest.raises(DeviceBusy):
        driver.open(CAMERA)
    camera.close()
    driver.open(CAMERA).close()


# A camera whose cable is pulled


def test_a_camera_pulled_during_a_preview_is_removed_and_comes_back(
    driver: GenicamDriver, cable: Path
) -> None:
    for _ in range(3):
        camera = driver.open(CAMERA)
        preview = camera.preview(SPEC)
        next(preview)
        cable.write_text("gone")
        asked = time.monotonic()
        with pytest.raises(DeviceRemoved):
            list(preview)
        assert time.monotonic() - asked < 30
        assert camera.health().condition is Condition.REMOVED
        assert driver.discover() == []
        with pytest.raises(DeviceRemoved):
            camera.capture(SPEC)
        camera.close()
        assert driver.discover() == []
        with pytest.raises(DeviceRemoved):
            driver.open(CAMERA)
        cable.unlink()
        assert CAMERA in [one.id for one in driver.discover()]


def test_a_camera_that_falls_silent_is_stuck_and_may_wake(driver: GenicamDriver, cable: Path) -> None:
    camera = driver.open(CAMERA)
    assert camera.capture(SPEC).frames
    cable.write_text("silent")
    with pytest.raises(DeviceStuck, match="no frame"):
        camera.capture(SPEC)
    cable.unlink()
    assert camera.capture(SPEC).frames
    camera.close()
