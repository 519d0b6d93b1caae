"""Signatures: whatever a pad or tablet writes into a folder, or one file, as an image or as strokes.

Pads come with a program of their own that saves what was signed; the driver waits for the file. What lies
there when a capture begins is of another person, and not taken; but a file of another time counts as written
anew, so nothing else may touch a pad's files. Strokes are InkML (W3C, 2011): they are drawn, and go along as
they came. A signature is stored, never compared.
"""

import contextlib
import io
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from devices.device import Captured, CaptureSpec, Condition, DeviceInfo, Health, TimedOut
from devices.errors import DeviceError, DeviceProtocolError, DeviceRemoved, DeviceUnavailable
from devices.frame import DeviceKind, Frame, Provenance, Record

_State = tuple[int, int, int]  # when a file was written last, its size, its number


@dataclass(frozen=True, slots=True)
class Params:
    """How signatures are taken and drawn."""

    most_bytes: int = 4 << 20
    most_pixels: int = 8_000_000
    most_points: int = 50_000
    farthest: float = 1e9  # a coordinate
    width: int = 600  # pixels of drawn strokes, as wide as high at most
    margin: int = 12
    pen: int = 3
    settled_seconds: float = 0.1  # a file that did not change for so long may be complete
    broken_seconds: float = 3.0  # one that cannot be read for so long is broken, not slow
    poll_seconds: float = 0.03


@dataclass(frozen=True, slots=True)
class SignatureDriver:
    """Pads: folders, or single files, that give what is written into them after a capture began."""

    pads: tuple[Path, ...]
    name: str = "signature"
    params: Params = field(default_factory=Params)

    def discover(self) -> list[DeviceInfo]:
        """The pads that exist."""
        return [self._info(pad) for pad in self.pads if pad.exists()]

    def open(self, device_id: str) -> "SignaturePad":
        """A pad; raises `DeviceRemoved`."""
        for pad in self.pads:
            if str(pad) == device_id and pad.exists():
                return SignaturePad(pad, self._info(pad), self.params)
        raise DeviceRemoved(f"there is no pad {device_id}")

    def _info(self, pad: Path) -> DeviceInfo:
        provenance = Provenance(self.name, str(pad), model=pad.name)
        return DeviceInfo(str(pad), DeviceKind.SIGNATURE, provenance, previews=False)


class SignaturePad:
    """An open pad. Not thread-safe."""

    def __init__(self, pad: Path, info: DeviceInfo, params: Params) -> None:
        self.info = info
        self._pad = pad
        self._params = params

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        """None: the person sees the ink on the pad."""
        raise DeviceUnavailable("a signature pad has no preview")

    def capture(self, spec: CaptureSpec) -> Captured | TimedOut:
        """What was signed, as a picture, and as strokes where they came: the newest file that can be read.

        Raises `DeviceProtocolError` where there is only something else, `DeviceUnavailable` where it may not
        be read.
        """
        params, start = self._params, time.monotonic()
        files = self._files()
        known = set(files.values())
        begun = set(files)  # before the capture: as these files first settle, they are known
        since: dict[tuple[Path, _State], float] = {}
        faults: list[DeviceError] = []
        while (now := time.monotonic()) < start + spec.seconds:
            before, files = files, self._files()
            if now - start < params.settled_seconds:
                begun |= files.keys()
            renamed = {before[path][2] for path in begun & before.keys() - files.keys()}
            begun |= {path for path, state in files.items() if state[2] in renamed}
            begun &= files.keys()  # the number of a file that is gone may be given again
            since = {file: since.get(file, now) for file in files.items()}
            settled = {file for file, first in since.items() if now - first >= params.settled_seconds}
            known |= {state for path, state in settled if path in begun}
            begun -= {path for path, _ in settled}
            new = sorted(((state, path) for path, state in settled if state not in known), reverse=True)
            faults = [] if new else faults
            for _, path in new:
                try:
                    return self._captured(self._read(path))
                except DeviceError as error:
                    faults.append(error)
            if new and now - since[new[0][::-1]] >= params.broken_seconds:
                raise faults[0]
            time.sleep(params.poll_seconds)
        if faults:
            raise faults[0]
        return TimedOut(spec.seconds)

    def health(self) -> Health:
        """Whether the pad's file or folder is there."""
        return Health(Condition.READY if self._pad.exists() else Condition.REMOVED)

    def close(self) -> None:
        """Nothing is held."""

    def _captured(self, data: bytes) -> Captured:
        now, origin, kind = datetime.now(UTC), self.info.provenance, DeviceKind.SIGNATURE
        if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return Captured((Frame(picture(data, self._params), kind, (), None, now, origin),))
        drawn = drawing(strokes(data, self._params), self._params)
        ink = Record(data, "InkML", kind, (), None, now, origin)
        return Captured((Frame(drawn, kind, (), None, now, origin),), (ink,))

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(self._params.most_bytes + 1)
        except OSError as error:
            raise DeviceUnavailable(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > self._params.most_bytes:
            raise DeviceProtocolError(f"{path} is larger than {self._params.most_bytes} bytes")
        return data

    def _files(self) -> dict[Path, _State]:
        """The pad's files as they are now. A file put in place of another differs by its number at least."""
        try:
            paths = [path for path in self._pad.iterdir() if not path.name.startswith(".")]
        except NotADirectoryError:
            paths = [self._pad]
        except FileNotFoundError as gone:
            raise DeviceRemoved(f"{self._pad} is gone") from gone
        except OSError as error:
            raise DeviceUnavailable(f"{self._pad} cannot be read: {error.strerror}") from error
        files = {}
        for path in paths:
            with contextlib.suppress(OSError):  # gone between two looks, or a link that leads nowhere
                now = path.stat()
                if stat.S_ISREG(now.st_mode):
                    files[path] = (now.st_mtime_ns, now.st_size, now.st_ino)
        return files


def picture(data: bytes, params: Params) -> NDArray[np.uint8]:
    """`(H, W, 3) uint8` of a PNG, JPEG, BMP or TIFF, upright, on white; raises `DeviceProtocolError`."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
            if image.width * image.height > params.most_pixels:
                raise DeviceProtocolError(f"a signature of {image.width} by {image.height} pixels")
            ink = ImageOps.exif_transpose(image).convert("RGBA")
            paper = Image.new("RGBA", ink.size, "white")
            return np.array(Image.alpha_composite(paper, ink).convert("RGB"), dtype=np.uint8)
    except DeviceProtocolError:
        raise
    except Exception as broken:  # Pillow's decoders raise whatever they like
        raise DeviceProtocolError(f"a signature that cannot be read: {broken}") from broken


class _NoEntities(ElementTree.TreeBuilder):
    """A tree without a document type: its entities can make a small file gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DeviceProtocolError("a signature with a document type")


def strokes(data: bytes, params: Params) -> list[NDArray[np.float64]]:
    """The traces of an InkML document, each `(N, 2)` of x, y downwards; raises `DeviceProtocolError`.

    Channels beyond X and Y (time, force) and differences (`'`, `"`) of the standard's compact form are not
    read: traces whose values are not plain numbers are refused.
    """
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoEntities()))
    except ElementTree.ParseError as broken:
        raise DeviceProtocolError(f"a signature that is no XML: {broken}") from broken
    traces, points = [], 0
    for trace in root.iter():
        if trace.tag.rpartition("}")[2] != "trace":
            continue
        text = trace.text or ""
        points += text.count(",") + 1
        if points > params.most_points:
            raise DeviceProtocolError("a signature of too many points")
        try:
            rows = [[float(number) for number in point.split(None, 2)[:2]] for point in text.split(",")]
            traces.append(np.array(rows, dtype=np.float64).reshape(len(rows), 2))
        except ValueError as broken:
            raise DeviceProtocolError(f"a trace that is not x y, x y: {broken}") from broken
        if not (abs(traces[-1]) <= params.farthest).all():
            raise DeviceProtocolError("a signature of points too far away")
    if not traces:
        raise DeviceProtocolError("a signature without a stroke")
    return traces


def drawing(traces: list[NDArray[np.float64]], params: Params) -> NDArray[np.uint8]:
    """`(H, W) uint8`: black strokes on white, fitted into `params.width` pixels either way."""
    points = np.concatenate(traces)
    low = points.min(axis=0)
    extent = points.max(axis=0) - low
    scale = (params.width - 2 * params.margin) / max(float(extent.max()), 1e-9)
    width, height = (int(side * scale) + 2 * params.margin for side in extent)
    paper = np.full((height, width), 255, np.uint8)
    for trace in traces:
        line = np.rint((trace - low) * scale + params.margin).astype(np.int32)
        cv2.polylines(paper, [line.reshape(-1, 1, 2)], len(line) == 1, (0,), params.pen, cv2.LINE_AA)
    return paper
