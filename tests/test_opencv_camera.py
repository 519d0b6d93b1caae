"""Cameras through OpenCV: what they show, the right way up and in the right colours, and how they end."""

import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from devices.device import Captured, CaptureSpec, Condition
from devices.errors import DeviceProtocolError, DeviceRemoved, DeviceStuck
from devices.frame import DeviceKind, Frame
from devices.opencv_camera import OpencvDriver
from devices.position import EyePosition
from devices.worker import Deadlines, DeviceWorker

SPEC = CaptureSpec()
RED, GREEN, BLUE, GREY = (250, 10, 10), (10, 250, 10), (10, 10, 250), (90, 90, 90)


def scene() -> Image.Image:
    """Red above left, green above right, blue below left, grey below right; wider than high."""
    image = Image.new("RGB", (64, 32), GREY)
    image.paste(RED, (0, 0, 32, 16))
    image.paste(GREEN, (32, 0, 64, 16))
    image.paste(BLUE, (0, 16, 32, 32))
    return image


def corners(frame: Frame) -> list[tuple[int, ...]]:
    """The colours above left, above right, below left, below right."""
    pixels = frame.pixels.astype(int)
    named = (RED, GREEN, BLUE, GREY)
    places = (pixels[4, 4], pixels[4, -5], pixels[-5, 4], pixels[-5, -5])
    return [min(named, key=lambda colour: abs(place - colour).sum()) for place in places]


def frames(driver: OpencvDriver, count: int, spec: CaptureSpec = SPEC) -> list[Frame]:
    (info,) = driver.discover()
    camera = driver.open(info.id)
    shown = list(islice(camera.preview(spec), count))
    camera.close()
    return shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames, brighter each time, at 60 a second."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 60, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), (20 * number, 10, 10), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_colours_and_sides_are_right(suffix: str, folder: Path) -> None:
    scene().save(folder / f"1.{suffix}", quality=95)
    assert corners(frames(OpencvDriver((folder,)), 1)[0]) == [RED, GREEN, BLUE, GREY]


def test_a_picture_is_turned_as_its_file_says(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    scene().save(folder / "1.jpg", exif=exif, quality=95)
    (frame,) = frames(OpencvDriver((folder,)), 1)
    assert frame.pixels.shape == (64, 32, 3)
    assert corners(frame) == [BLUE, RED, GREY, GREEN]


@pytest.mark.parametrize(
    ("turns", "mirrored", "shown"),
    [
        (1, False, [BLUE, RED, GREY, GREEN]),
        (2, False, [GREY, BLUE, GREEN, RED]),
        (3, False, [GREEN, GREY, RED, BLUE]),
        (0, True, [GREEN, RED, GREY, BLUE]),
        (1, True, [RED, BLUE, GREEN, GREY]),
    ],
)
def test_a_camera_mounted_otherwise_is_made_upright(
    turns: int, mirrored: bool, shown: list[tuple[int, ...]], folder: Path
) -> None:
    scene().save(folder / "1.png")
    driver = OpencvDriver((folder,), quarter_turns=turns, mirrored=mirrored)
    (frame,) = frames(driver, 1)
    assert corners(frame) == shown
    assert frame.pixels.flags.c_contiguous  # or it would be copied on its way


def test_a_video_shows_its_colours_and_begins_again(video: Path) -> None:
    shown = frames(OpencvDriver((video,)), 13)
    assert [frame.number for frame in shown] == list(range(1, 14))
    blue = [int(frame.pixels[20, 20, 2]) for frame in shown]
    assert np.allclose(blue, [20 * (number % 10) for number in range(13)], atol=6)
    assert max(int(frame.pixels[20, 20, 0]) for frame in shown) < 20


def test_a_video_runs_at_its_own_rate(video: Path) -> None:
    driver = OpencvDriver((video,))
    camera = driver.open(str(video))
    list(islice(camera.preview(SPEC), 31))
    health = camera.health()
    assert health.condition is Condition.READY
    assert health.figures["frames"] == 31
    assert 1 < health.figures["frames_per_second"] < 90  # 60, or what a busy machine can do


def test_an_iris_is_grey_and_of_the_eyes_asked_for(folder: Path) -> None:
    Image.new("L", (40, 30), 77).save(folder / "1.png")
    eyes = (EyePosition.RIGHT, EyePosition.LEFT)
    driver = OpencvDriver((folder,), DeviceKind.IRIS, "opencv-iris", (eyes,))
    (frame,) = frames(driver, 1, CaptureSpec(eyes))
    assert frame.pixels.shape == (30, 40)
    assert (frame.pixels == 77).all()
    assert (frame.positions, frame.provenance.driver, frame.ppi) == (eyes, "opencv-iris", None)
    assert driver.discover()[0].positions == (eyes,)


def test_pictures_come_in_order_and_new_ones_too(folder: Path) -> None:
    for number in (1, 2):
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
    camera = OpencvDriver((folder,)).open(str(folder))
    stream = camera.preview(SPEC)
    assert [int(next(stream).pixels[0, 0, 0]) for _ in range(2)] == [10, 20]
    Image.new("L", (8, 8), 30).save(folder / "3.png")
    assert [int(next(stream).pixels[0, 0, 0]) for _ in range(3)] == [10, 20, 30]


@pytest.mark.parametrize("name", ["empty", "broken.png", "broken.avi"])
def test_what_shows_no_picture_is_refused(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    if name == "empty":
        source.mkdir()
    elif name == "broken.png":
        source = tmp_path / "folder"
        source.mkdir()
        (source / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    else:
        source.write_bytes(b"RIFF" + os.urandom(5000))
    with pytest.raises(DeviceProtocolError):
        OpencvDriver((source,)).open(str(source)).capture(SPEC)


def test_a_camera_that_is_gone_is_removed(video: Path, folder: Path) -> None:
    scene().save(folder / "1.png")
    for source in (video, folder):
        camera = OpencvDriver((source,)).open(str(source))
        assert isinstance(camera.capture(SPEC), Captured)
        source.rename(source.with_name(f"{source.name}-gone"))
        with pytest.raises(DeviceRemoved):
            camera.capture(SPEC)
        assert camera.health().condition is Condition.REMOVED
        with pytest.raises(DeviceRemoved):
            OpencvDriver((source,)).open(str(source))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Path, threading.Event]]:
    """A camera that sends some frames, then stalls until it is told to end."""
    path = tmp_path / "live"
    os.mkfifo(path)
    end = threading.Event()

    def send() -> None:
        picture = np.array(scene().resize((640, 320), Image.Resampling.NEAREST))[:, :, ::-1].copy()
        picture[50:-50, 50:-50] = np.random.default_rng(1).integers(0, 256, (220, 540, 3), dtype=np.uint8)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        with path.open("r+b", buffering=0) as stream:  # which waits for no reader, and outlives one
            for _ in range(20):
                stream.write(jpeg)
            end.wait()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    yield path, end
    end.set()
    sender.join(10)


def test_a_live_camera_that_ends_is_removed(live: tuple[Path, threading.Event]) -> None:
    path, end = live
    camera = OpencvDriver((path,)).open(str(path))
    stream = camera.preview(SPEC)
    assert corners(next(stream)) == [RED, GREEN, BLUE, GREY]
    end.set()
    with pytest.raises(DeviceRemoved, match="ended"):
        list(stream)


def test_a_live_camera_that_stalls_is_stuck(live: tuple[Path, threading.Event]) -> None:
    path, _ = live
    worker = DeviceWorker(OpencvDriver((path,)), str(path), Deadlines(call=3))
    stream = worker.preview(SPEC)
    assert corners(next(stream)) == [RED, GREEN, BLUE, GREY]
    with pytest.raises(DeviceStuck, match="no answer"):
        list(stream)
    assert worker.health().condition is Condition.FAILING


def plug(sysfs: Path, node: str, port: str, serial: str, interface: str, index: int) -> None:
    """A USB camera's node as the kernel shows it."""
    usb = sysfs / "devices" / port
    place = usb / f"{port}:1.{interface}"
    place.mkdir(parents=True)
    for name, text in (
        ("idVendor", "046d"),
        ("idProduct", "0825"),
        ("serial", serial),
        ("manufacturer", "Maker"),
    ):
        (usb / name).write_text(f"{text}\n")
    (place / "bInterfaceNumber").write_text(f"{interface}\n")
    entry = sysfs / "class" / node
    entry.mkdir(parents=True)
    (entry / "name").write_text("HD Camera\n")
    (entry / "index").write_text(f"{index}\n")
    (entry / "device").symlink_to(place)


def test_cameras_that_share_a_serial_number_are_told_apart_by_their_ports(tmp_path: Path) -> None:
    driver = OpencvDriver(sysfs=tmp_path / "class")
    plug(tmp_path, "video0", "1-1", "SN0001", "00", 0)
    plug(tmp_path, "video2", "1-2", "SN0001", "00", 0)
    plug(tmp_path, "video4", "1-3", "A1", "00", 0)
    shared = "046d:0825:SN0001:00"
    assert [info.id for info in driver.discover()] == [f"{shared}:1-1", f"{shared}:1-2", "046d:0825:A1:00"]
    with pytest.raises(DeviceRemoved, match="/dev/video2"):  # there is no such node here
        driver.open(f"{shared}:1-2")


def test_a_node_that_is_no_usb_camera_is_not_listed(tmp_path: Path) -> None:
    codec = tmp_path / "class" / "video9"
    codec.mkdir(parents=True)
    (codec / "name").write_text("decoder\n")
    (codec / "index").write_text("0\n")
    (tmp_path / "soc" / "codec").mkdir(parents=True)
    (codec / "device").symlink_to(tmp_path / "soc" / "codec")
    assert OpencvDriver(sysfs=tmp_path / "class").discover() == []


def test_uvc_cameras_keep_their_id_when_they_are_plugged_in_anew(tmp_path: Path) -> None:
    driver = OpencvDriver(sysfs=tmp_path / "class")
    assert driver.discover() == []
    plug(tmp_path, "video0", "1-1", "A1", "00", 0)
    plug(tmp_path, "video1", "1-1", "A1", "01", 1)  # metadata of the same camera
    plug(tmp_path, "video2", "1-2", "", "00", 0)
    first, second = driver.discover()
    assert (first.id, second.id) == ("046d:0825:A1:00", "046d:0825:1-2:00")
    assert (first.provenance.maker, first.provenance.model, first.provenance.serial) == (
        "Maker",
        "HD Camera",
        "A1",
    )
    with pytest.raises(DeviceRemoved):  # there is no such node here
        driver.open(first.id)
