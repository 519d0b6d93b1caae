"""The fingerprint template: minutiae at 500 ppi, and its compact native bytes.

Native format, version 1, big-endian, 16 + 5 n bytes, n <= 99, so 511 bytes at most:

    0   2  "RF"
    2   1  format version, 1
    3   1  extractor (see `Extractor`)
    4   1  finger position, 0-10
    5   1  quality, 0-100
    6   2  width of the image at 500 ppi, pixels
    8   2  height
    10  1  number of minutiae n
    11  1  reserved, 0
    12  4  CRC-32 of everything but these four bytes
    16  5n minutiae of 40 bits: x 11, y 11, direction 10 (1024 a turn), type 1 (1 = ending), quality 7
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from capture.errors import TemplateRefused
from capture.sample import FingerPosition

TEMPLATE_PPI = 500.0
MAX_MINUTIAE = 99
MAX_SIDE = 2047
_HEADER = struct.Struct(">2sBBBBHHBBI")
_MAGIC = b"RF"
_VERSION = 1
_TURN = 1024


class ExtractorChoice(StrEnum):
    """Which extractor to run: `accurate` for enrolment, `fast` where time is short."""

    ACCURATE = "accurate"
    FAST = "fast"


class Extractor(IntEnum):
    """What found the minutiae; templates of different extractors are calibrated together or refused.

    `FOREIGN`: minutiae read from an exchange record of another maker.
    """

    LEADER_1 = 1
    FAST_1 = 2
    FOREIGN = 255


@dataclass(frozen=True, slots=True, eq=False)
class FingerprintTemplate:
    """Minutiae of one finger, in pixels at 500 ppi, y down; arrays are read-only.

    `x`, `y` `(n,) float32` within the image; `direction` `(n,) float32`, radians in [0, 2 pi),
    counter-clockwise as seen, from the minutia along its ridge (ISO/IEC 19794-2); `ending` `(n,) bool`,
    else bifurcation; `reliability` `(n,) float32`, 0 to 1, not increasing.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    direction: NDArray[np.float32]
    ending: NDArray[np.bool_]
    reliability: NDArray[np.float32]
    width: int
    height: int
    position: FingerPosition
    quality: int
    extractor: Extractor = Extractor.LEADER_1

    def __post_init__(self) -> None:
        n = len(self.x)
        if n > MAX_MINUTIAE:
            raise ValueError(f"a template holds {MAX_MINUTIAE} minutiae at most, not {n}")
        for name, dtype in _COLUMNS.items():
            column = getattr(self, name)
            if column.shape != (n,) or column.dtype != dtype:
                raise TypeError(f"{name} is ({n},) {dtype}, not {column.shape} {column.dtype}")
            column.setflags(write=False)
        if not (0 < self.width <= MAX_SIDE + 1 and 0 < self.height <= MAX_SIDE + 1):
            raise ValueError(
                f"the image is 1 to {MAX_SIDE + 1} pixels a side, not {self.width} x {self.height}"
            )
        if not 0 <= self.quality <= 100:
            raise ValueError(f"quality is 0 to 100, not {self.quality}")
        for name, last in (
            ("x", self.width - 1),
            ("y", self.height - 1),
            ("direction", np.float32(2 * np.pi)),
            ("reliability", 1),
        ):
            column = getattr(self, name)
            # Written so that NaN fails too.
            if not ((column >= 0) & (column <= last)).all():
                raise ValueError(f"{name} has values outside 0 to {last}")

    def __len__(self) -> int:
        return len(self.x)

    def to_bytes(self) -> bytes:
        """Native bytes; coordinates are rounded to pixels, directions to 1/1024 turn. Cost: about 20 us."""
        minutiae = np.zeros(len(self), dtype=np.uint64)
        for value, bits in (
            (np.rint(self.x), 11),
            (np.rint(self.y), 11),
            (np.rint(self.direction * (_TURN / (2 * np.pi))) % _TURN, 10),
            (self.ending, 1),
            (np.rint(self.reliability * 127), 7),
        ):
            minutiae = (minutiae << np.uint64(bits)) | value.astype(np.uint64)
        body = minutiae.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:].tobytes()
        fields = (
            _MAGIC,
            _VERSION,
            self.extractor,
            self.position,
            self.quality,
            self.width - 1,
            self.height - 1,
            len(self),
            0,
        )
        crc = zlib.crc32(_HEADER.pack(*fields, 0)[:12] + body)
        return _HEADER.pack(*fields, crc) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "FingerprintTemplate":
        """Read native bytes. Raises `TemplateRefused` for anything but what `to_bytes` writes."""
        if len(data) < _HEADER.size:
            raise TemplateRefused(
                f"a fingerprint template has at least {_HEADER.size} bytes, not {len(data)}"
            )
        magic, version, extractor, position, quality, width, height, n, reserved, crc = _HEADER.unpack_from(
            data
        )
        body = data[_HEADER.size :]
        if magic != _MAGIC:
            raise TemplateRefused("not a native fingerprint template")
        if version != _VERSION or reserved != 0:
            raise TemplateRefused(f"fingerprint template version {version} is not known here")
        if len(body) != 5 * n:
            raise TemplateRefused(
                f"the template announces {n} minutiae and carries {len(body)} bytes of them"
            )
        if zlib.crc32(data[:12] + body) != crc:
            raise TemplateRefused("the template is damaged: its checksum differs")
        if extractor not in set(Extractor) or position not in set(FingerPosition):
            raise TemplateRefused(f"extractor {extractor} or position {position} is not known here")
        padded = np.zeros((n, 8), dtype=np.uint8)
        padded[:, 3:] = np.frombuffer(body, dtype=np.uint8).reshape(n, 5)
        packed = padded.view(">u8")[:, 0].astype(np.uint64)
        reliability, ending, direction, y, x = (
            (packed >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
            for shift, bits in ((0, 7), (7, 1), (8, 10), (18, 11), (29, 11))
        )
        try:
            return cls(
                x=x.astype(np.float32),
                y=y.astype(np.float32),
                direction=(direction * (2 * np.pi / _TURN)).astype(np.float32),
                ending=ending.astype(np.bool_),
                reliability=(reliability / np.float32(127)).astype(np.float32),
                width=width + 1,
                height=height + 1,
                position=FingerPosition(position),
                quality=quality,
                extractor=Extractor(extractor),
            )
        except (TypeError, ValueError) as error:
            raise TemplateRefused(str(error)) from error


_COLUMNS = {
    "x": np.dtype(np.float32),
    "y": np.dtype(np.float32),
    "direction": np.dtype(np.float32),
    "ending": np.dtype(np.bool_),
    "reliability": np.dtype(np.float32),
}
