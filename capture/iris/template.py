"""The iris template: a phase code with its mask, and its compact native bytes.

Layout of code and mask: groups of 32 words, 2,048 bits, of which the first is the scan code, all that a 1:N
search looks at. A group is 8 rows (from the pupil outwards) of 2 parts (sign of the real, then of the
imaginary part of the filter's answer) of 128 columns (angles, 2.8 degrees): column c of part p of row r is
bit c % 64 of word 4 r + 2 p + c // 64. A coder may add groups (`IrisCoder`).

Native format, version 1, big-endian, 16 + 16 W bytes for W words:

    0   2  "RI"
    2   1  format version, 1
    3   1  coder (see `IrisCoder`)
    4   1  eye, 0-2
    5   1  quality, 0-100
    6   1  number of groups, W / 32
    7   5  reserved, 0
    12  4  CRC-32 of everything but these four bytes
    16  8W code
        8W mask
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from capture.errors import TemplateRefused
from capture.sample import EyePosition

ROWS = 8
COLUMNS = 128
GROUP_WORDS = 32
MAX_GROUPS = 8
_ROW_SHAPE = (ROWS, 2, COLUMNS // 64)
_HEADER = struct.Struct(">2sBBBBB5sI")
_MAGIC = b"RI"
_VERSION = 1
_RESERVED = bytes(5)
_WORD_BITS = np.uint64(64)


class IrisCoder(IntEnum):
    """What made the code; codes of different coders are calibrated together or refused."""

    LOG_GABOR_1 = 1


@dataclass(frozen=True, slots=True, eq=False)
class IrisTemplate:
    """Code of one eye; arrays are read-only.

    `code` `(W,) uint64`, W a multiple of 32, 0 where masked; `mask` `(W,) uint64`, 1 where the bit counts.
    """

    code: NDArray[np.uint64]
    mask: NDArray[np.uint64]
    eye: EyePosition
    quality: int
    coder: IrisCoder = IrisCoder.LOG_GABOR_1

    def __post_init__(self) -> None:
        words = len(self.code)
        for name in ("code", "mask"):
            column = getattr(self, name)
            if column.shape != (words,) or column.dtype != np.uint64:
                raise TypeError(f"{name} is ({words},) uint64, not {column.shape} {column.dtype}")
            column.setflags(write=False)
        if words % GROUP_WORDS or not 0 < words <= MAX_GROUPS * GROUP_WORDS:
            raise ValueError(f"a code is 1 to {MAX_GROUPS} groups of {GROUP_WORDS} words, not {words} words")
        if (self.code & ~self.mask).any():
            raise ValueError("code bits are 0 where masked")
        if not 0 <= self.quality <= 100:
            raise ValueError(f"quality is 0 to 100, not {self.quality}")

    @property
    def bits(self) -> int:
        """How many bits of the whole code count."""
        return int(np.bitwise_count(self.mask).sum())

    def to_bytes(self) -> bytes:
        """Native bytes. Cost: about 10 us."""
        body = self.code.astype(">u8").tobytes() + self.mask.astype(">u8").tobytes()
        fields = (
            _MAGIC,
            _VERSION,
            self.coder,
            self.eye,
            self.quality,
            len(self.code) // GROUP_WORDS,
            _RESERVED,
        )
        crc = zlib.crc32(_HEADER.pack(*fields, 0)[:12] + body)
        return _HEADER.pack(*fields, crc) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "IrisTemplate":
        """Read native bytes. Raises `TemplateRefused` for anything but what `to_bytes` writes."""
        if len(data) < _HEADER.size:
            raise TemplateRefused(f"an iris template has at least {_HEADER.size} bytes, not {len(data)}")
        magic, version, coder, eye, quality, groups, reserved, crc = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != _MAGIC:
            raise TemplateRefused("not a native iris template")
        if version != _VERSION or reserved != _RESERVED:
            raise TemplateRefused(f"iris template version {version} is not known here")
        if len(body) != 16 * GROUP_WORDS * groups:
            raise TemplateRefused(
                f"the template announces {groups} groups of code and carries {len(body)} bytes"
            )
        if zlib.crc32(data[:12] + body) != crc:
            raise TemplateRefused("the template is damaged: its checksum differs")
        if coder not in set(IrisCoder) or eye not in set(EyePosition):
            raise TemplateRefused(f"coder {coder} or eye {eye} is not known here")
        words = np.frombuffer(body, dtype=">u8").astype(np.uint64).reshape(2, -1)
        try:
            return cls(words[0].copy(), words[1].copy(), EyePosition(eye), quality, IrisCoder(coder))
        except (TypeError, ValueError) as error:
            raise TemplateRefused(str(error)) from error


def packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Words of groups of bits: `(G, 8, 2, 128) bool`, by row, part and column, to `(32 G,) uint64`."""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64).ravel()


def unpacked(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """The inverse of `packed`."""
    in_bytes = words.astype("<u8").view(np.uint8).reshape(-1, ROWS, 2, COLUMNS // 8)
    return np.unpackbits(in_bytes, axis=-1, bitorder="little").view(np.bool_)


def rotated(
    code: NDArray[np.uint64], mask: NDArray[np.uint64], steps: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Code and mask, `(..., W) uint64`, of the eye rolled by `steps` columns: column c moves to c + steps.

    A permutation of the bits, so rotations add up and `COLUMNS` of them do nothing. Cost: about 20 us.
    """
    return _rolled(code, steps), _rolled(mask, steps)


def _rolled(words: NDArray[np.uint64], steps: int) -> NDArray[np.uint64]:
    rows = words.reshape(*words.shape[:-1], -1, *_ROW_SHAPE)
    whole, rest = divmod(steps % COLUMNS, 64)
    if whole:
        rows = rows[..., ::-1]
    if rest:
        up = np.uint64(rest)
        rows = (rows << up) | (rows[..., ::-1] >> (_WORD_BITS - up))
    return np.ascontiguousarray(rows).reshape(words.shape).copy()
