"""Cameras through OpenCV: UVC (webcams, near-infrared iris cameras), video and MJPEG files, image folders.

A file or folder stands for a camera that is plugged in as long as it exists and shows its pictures again and
again, at its own rate. A named pipe is a live stream.
"""

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from devices.device import Captured, CaptureSpec, Condition, DeviceInfo, Health
from devices.errors import DeviceBusy, DeviceProtocolError, DeviceRemoved, DeviceStuck, DeviceUnavailable
from devices.frame import DeviceKind, Frame, Positions, Provenance


@dataclass(frozen=True, slots=True)
class Params:
    """How cameras are read."""

    frames_per_second: float = 30.0  # of a folder, and of a video that does not say
    stale: int = 4  # frames that V4L2 keeps from before somebody asked
    seconds_without_frame: int = 2  # before a UVC camera counts as stuck
    rate_over: int = 30  # frames


@dataclass(frozen=True, slots=True)
class OpencvDriver:
    """Cameras of one kind: `sources`, each a file, a folder, a named pipe or a node; none: every USB camera.

    `quarter_turns` clockwise and `mirrored` make upright what a camera mounted otherwise shows. Irises come
    grey. `positions`: what an iris camera can show at once.
    """

    sources: tuple[Path, ...] = ()
    kind: DeviceKind = DeviceKind.FACE
    name: str = "opencv"
    positions: tuple[Positions, ...] = ()
    quarter_turns: int = 0
    mirrored: bool = False
    params: Params = field(default_factory=Params)
    sysfs: Path = Path("/sys/class/video4linux")

    def discover(self) -> list[DeviceInfo]:
        """The sources that exist, or the cameras the kernel knows. Opens none; cost: milliseconds."""
        return [info for info, _ in self._present()]

    def open(self, device_id: str) -> "OpencvCamera":
        """A camera, streaming; raises `DeviceRemoved`, `DeviceBusy`, `DeviceUnavailable`."""
        for info, path in self._present():
            if info.id == device_id:
                return OpencvCamera(self, info, path)
        raise DeviceRemoved(f"there is no camera {device_id}")

    def _present(self) -> list[tuple[DeviceInfo, Path]]:
        if self.sources:
            found = [(str(path), path, path.name, "", "") for path in self.sources if path.exists()]
        else:
            found = _cameras(self.sysfs)
        return [
            (
                DeviceInfo(
                    device_id,
                    self.kind,
                    Provenance(self.name, device_id, maker=maker, model=model, serial=serial),
                    self.positions,
                ),
                path,
            )
            for device_id, path, model, maker, serial in found
        ]


def _cameras(sysfs: Path) -> list[tuple[str, Path, str, str, str]]:
    """Id, node, model, maker and serial number of each USB camera.

    The id is made of vendor, product, serial number and interface, because the number of a node changes with
    the order of plugging in; and of the port where there is no serial number, or several share one.
    """
    found = []
    for node in sorted(sysfs.glob("video*")):
        interface = (node / "device").resolve()
        usb = interface.parent
        vendor, product, serial = (_line(usb / name) for name in ("idVendor", "idProduct", "serial"))
        if not vendor or _line(node / "index") not in ("", "0"):
            continue  # a codec, or the same camera's node for metadata
        device_id = ":".join((vendor, product, serial or usb.name, _line(interface / "bInterfaceNumber")))
        model, maker = _line(node / "name"), _line(usb / "manufacturer")
        found.append((device_id, usb.name, (Path("/dev") / node.name, model, maker, serial)))
    ids = Counter(device_id for device_id, _, _ in found)
    return [(f"{one}:{port}" if ids[one] > 1 else one, *rest) for one, port, rest in found]


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


class OpencvCamera:
    """An open camera. Not thread-safe."""

    def __init__(self, driver: OpencvDriver, info: DeviceInfo, path: Path) -> None:
        self.info = info
        self._driver = driver
        self._path = path
        self._times: deque[float] = deque(maxlen=driver.params.rate_over)
        self._due = 0.0
        self._count = 0
        self._images: list[Path] = []
        self._video: cv2.VideoCapture | None = None
        mode = _mode(path)
        self._node = stat.S_ISCHR(mode)
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(driver.params.seconds_without_frame)
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "probesize;65536|fpsprobesize;0"  # or it waits for 5 MB
        cv2.setNumThreads(1)  # its pool would spin between frames
        self._again = not self._node and not stat.S_ISFIFO(mode)
        self._pause = 1 / driver.params.frames_per_second if self._again else 0.0
        if not stat.S_ISDIR(mode):
            self._start()

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        """Frames as they come, until the iterator is closed."""
        while True:
            yield self._frame(spec)

    def capture(self, spec: CaptureSpec) -> Captured:
        """The next frame that shows what is before the camera now."""
        for _ in range(self._driver.params.stale if self._node else 0):
            self._read()
        return Captured((self._frame(spec),))

    def health(self) -> Health:
        """Whether it is there; `frames_per_second` of the last second or so, `frames` since it was opened."""
        spent = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        rate = (len(self._times) - 1) / spent if spent else 0.0
        condition = Condition.READY if self._path.exists() else Condition.REMOVED
        return Health(condition, figures={"frames_per_second": rate, "frames": float(self._count)})

    def close(self) -> None:
        """Let go of the camera."""
        if self._video is not None:
            self._video.release()

    def _frame(self, spec: CaptureSpec) -> Frame:
        image = self._read()
        self._count += 1
        self._times.append(time.monotonic())
        pixels = self._upright(image)
        now = datetime.now(UTC)
        return Frame(pixels, self.info.kind, spec.positions, None, now, self.info.provenance, self._count)

    def _upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`(H, W)` of an iris, `(H, W, 3)` red, green, blue of a face; from OpenCV's blue, green, red."""
        grey = self.info.kind is DeviceKind.IRIS
        colours = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
        turned = np.rot90(colours, -self._driver.quarter_turns)
        return np.ascontiguousarray(turned[:, ::-1] if self._driver.mirrored else turned, dtype=np.uint8)

    def _read(self) -> NDArray[np.uint8]:
        """The next image `(H, W, 3)` in blue, green, red, when it is due."""
        if self._pause:
            time.sleep(max(0.0, self._due - time.monotonic()))
            self._due = max(self._due, time.monotonic() - self._pause) + self._pause
        if not self._path.exists():
            raise DeviceRemoved(f"{self._path} is gone")
        image = self._next_image() if self._video is None else self._next_of_video(self._video)
        if image is None:
            raise self._reason()
        return image

    def _next_image(self) -> NDArray[np.uint8] | None:
        """The next of a folder by name; the folder is read anew after the last. None where there is none."""
        if not self._images:
            self._images = sorted(path for path in self._path.glob("*.*") if path.is_file())[::-1]
        if not self._images:
            return None
        image = cv2.imread(str(self._images.pop()), cv2.IMREAD_COLOR)  # turned as EXIF says
        return None if image is None else image.astype(np.uint8, copy=False)

    def _next_of_video(self, video: cv2.VideoCapture) -> NDArray[np.uint8] | None:
        good, image = video.read()
        if not good and self._again:  # at its end
            self._start()
            good, image = video.read()
        return image.astype(np.uint8, copy=False) if good else None

    def _start(self) -> None:
        """Open the stream, a file from its beginning."""
        if self._video is None:
            self._video = cv2.VideoCapture()
        backend = cv2.CAP_V4L2 if self._node else cv2.CAP_FFMPEG
        if not self._video.open(str(self._path), backend):
            if self._node and os.access(self._path, os.R_OK | os.W_OK):
                raise DeviceBusy(f"{self._path} is in use")
            raise self._reason()
        rate = self._video.get(cv2.CAP_PROP_FPS)
        if self._again and 1 <= rate <= 240:
            self._pause = 1 / rate

    def _reason(self) -> Exception:
        """Why there is no frame."""
        if not self._path.exists():
            return DeviceRemoved(f"{self._path} is gone")
        if not os.access(self._path, os.R_OK):
            return DeviceUnavailable(f"{self._path} may not be read: add the user to the group `video`")
        if self._node:
            return DeviceStuck(f"{self._path} gave no frame")
        if not self._again:
            return DeviceRemoved(f"the stream {self._path} ended")
        return DeviceProtocolError(f"{self._path} holds no picture that can be read")


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as gone:
        raise DeviceRemoved(f"{path} is gone") from gone
