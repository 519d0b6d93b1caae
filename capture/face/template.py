"""The face template: one vector of length 1 and what made it, and its native bytes.

Native format, version 1, big-endian, 20 + 4 D bytes, D <= 4096:

    0   2  "RV"
    2   1  format version, 1
    3   1  quality, 0-100
    4   8  embedder: digest of the model and of how its input is made
    12  2  number of values D
    14  2  reserved, 0
    16  4  CRC-32 of everything but these four bytes
    20  4D values, IEEE 754 single precision
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capture.errors import TemplateRefused

MAX_VALUES = 4096
EMBEDDER_BYTES = 8
_HEADER = struct.Struct(">2sBB8sHHI")
_MAGIC = b"RV"
_VERSION = 1
# What rounding to single precision leaves of a length of 1, with room for other ways of adding up.
_LENGTH_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class FaceTemplate:
    """One face as a direction.

    `vector` `(D,) float32` of length 1, read-only; `quality` 0 to 100; `embedder` 8 bytes, a digest of the
    model and its preprocessing: only vectors of one embedder can be compared.
    """

    vector: NDArray[np.float32]
    quality: int
    embedder: bytes

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or self.vector.dtype != np.float32:
            raise TypeError(f"vector is (D,) float32, not {self.vector.shape} {self.vector.dtype}")
        if not 1 <= len(self.vector) <= MAX_VALUES:
            raise ValueError(f"a face vector has 1 to {MAX_VALUES} values, not {len(self.vector)}")
        length = float(np.linalg.norm(self.vector.astype(np.float64)))
        # Written so that NaN fails too.
        if not abs(length - 1) <= _LENGTH_TOLERANCE:
            raise ValueError(f"a face vector has length 1, not {length:g}")
        if not 0 <= self.quality <= 100:
            raise ValueError(f"quality is 0 to 100, not {self.quality}")
        if len(self.embedder) != EMBEDDER_BYTES:
            raise ValueError(f"an embedder is named by {EMBEDDER_BYTES} bytes, not {len(self.embedder)}")
        self.vector.setflags(write=False)

    def to_bytes(self) -> bytes:
        """Native bytes, exact. Cost: about 5 us."""
        fields = (_MAGIC, _VERSION, self.quality, self.embedder, len(self.vector), 0)
        body = self.vector.astype(">f4").tobytes()
        crc = zlib.crc32(_HEADER.pack(*fields, 0)[:-4] + body)
        return _HEADER.pack(*fields, crc) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "FaceTemplate":
        """Read native bytes. Raises `TemplateRefused` for anything but what `to_bytes` writes."""
        if len(data) < _HEADER.size:
            raise TemplateRefused(f"a face template has at least {_HEADER.size} bytes, not {len(data)}")
        magic, version, quality, embedder, values, reserved, crc = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != _MAGIC:
            raise TemplateRefused("not a native face template")
        if version != _VERSION or reserved != 0:
            raise TemplateRefused(f"face template version {version} is not known here")
        if len(body) != 4 * values:
            raise TemplateRefused(f"the template announces {values} values and carries {len(body)} bytes")
        if zlib.crc32(data[: _HEADER.size - 4] + body) != crc:
            raise TemplateRefused("the template is damaged: its checksum differs")
        try:
            return cls(np.frombuffer(body, dtype=">f4").astype(np.float32), quality, embedder)
        except (TypeError, ValueError) as error:
            raise TemplateRefused(str(error)) from error
