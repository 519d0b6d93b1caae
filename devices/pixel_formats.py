"""Pixels as cameras send them, by the names of the GenICam Pixel Format Naming Convention (PFNC 2.4)."""

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from devices.errors import DeviceProtocolError

_SENSOR = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG))(8$|16$|14(?!P)|1[02])(p|Packed)?")
_COLOURS = {
    name + ending: (channels, order)
    for name, channels, order in (
        ("RGB8", 3, (0, 1, 2)),
        ("BGR8", 3, (2, 1, 0)),
        ("RGBa8", 4, (0, 1, 2)),
        ("BGRa8", 4, (2, 1, 0)),
    )
    for ending in ("", "Packed")  # as GigE Vision 1 called them
}
# Where luminance is first, and whether black is 0 and white 255, or 16 and 235.
_SUBSAMPLED = {
    "YUV422_8": (True, True),
    "YUV422_8_UYVY": (False, True),
    "YUV422Packed": (False, True),
    "YCbCr422_8": (True, True),
    "YCbCr422_8_CbYCrY": (False, True),
    "YCbCr601_422_8": (True, False),
    "YCbCr601_422_8_CbYCrY": (False, False),
}
_MOSAICS = {
    "BayerRG": cv2.COLOR_BayerRGGB2RGB,
    "BayerGR": cv2.COLOR_BayerGRBG2RGB,
    "BayerGB": cv2.COLOR_BayerGBRG2RGB,
    "BayerBG": cv2.COLOR_BayerBGGR2RGB,
}


def convertible(name: str) -> bool:
    """Whether `pixels` knows the format."""
    return bool(_SENSOR.fullmatch(name)) or name in _COLOURS or name in _SUBSAMPLED


def in_colour(name: str) -> bool:
    """Whether `pixels` gives colours for the format."""
    return convertible(name) and not name.startswith("Mono")


def pixels(data: bytes, name: str, width: int, height: int, padding: int = 0) -> NDArray[np.uint8]:
    """`(H, W) uint8` or `(H, W, 3) uint8` in red, green, blue, of a buffer; more than 8 bits lose the lowest.

    `padding`: bytes after each line. Raises `DeviceProtocolError` for a format that is not known here, and
    for a buffer too short for its picture. Cost: 1 ms a megapixel, 20 ms where values are packed.
    """
    if not convertible(name):
        raise DeviceProtocolError(f"pixel format {name} is not known here")
    if not (0 < width <= 2**15 and 0 < height <= 2**15 and padding >= 0):
        raise DeviceProtocolError(f"a picture of {width} x {height} pixels, {padding} bytes padding")
    if name in _COLOURS:
        channels, order = _COLOURS[name]
        lines = _lines(data, width * channels, height, padding)
        return np.ascontiguousarray(lines.reshape(height, width, channels)[:, :, order])
    if name in _SUBSAMPLED:
        return _from_subsampled(_lines(data, 2 * width, height, padding), width, *_SUBSAMPLED[name])
    sensor = _SENSOR.fullmatch(name)
    assert sensor is not None
    grey = _values(data, int(sensor[2]), sensor[3], width, height, padding)
    if sensor[1] == "Mono":
        return grey
    if min(width, height) < 4:
        raise DeviceProtocolError(f"a colour mosaic of {width} x {height} pixels")
    return cv2.demosaicing(grey, _MOSAICS[sensor[1]]).astype(np.uint8, copy=False)


def _lines(data: bytes, used: int, height: int, padding: int) -> NDArray[np.uint8]:
    """`(height, used)` bytes without what pads the lines; the last line need not be padded."""
    stride = used + padding
    if len(data) < stride * height - padding:
        raise DeviceProtocolError(f"a buffer of {len(data)} bytes for {height} lines of {stride}")
    whole = np.frombuffer(data, dtype=np.uint8, count=min(stride * height, len(data)))
    if len(whole) < stride * height:
        whole = np.concatenate([whole, np.zeros(stride * height - len(whole), np.uint8)])
    return whole.reshape(height, stride)[:, :used]


def _values(
    data: bytes, bits: int, packing: str | None, width: int, height: int, padding: int
) -> NDArray[np.uint8]:
    """`(height, width)`: the eight highest bits of every value."""
    if packing is None:
        size = 1 if bits == 8 else 2
        lines = np.ascontiguousarray(_lines(data, size * width, height, padding))
        if size == 1:
            return lines
        wide = lines.view(np.dtype("<u2")) >> (bits - 8)
        return wide.clip(0, 255).astype(np.uint8)
    # Lines that do not end with a byte run on into the next.
    stored = 12 if packing == "Packed" else bits
    rows, row = (height, width) if width * stored % 8 == 0 else (1, width * height)
    if rows < height and padding:
        raise DeviceProtocolError(f"lines of {width} packed values cannot be padded")
    lines = _lines(data, -(-row * stored // 8), rows, padding)
    if packing == "Packed":
        # Two values in three bytes: the high bits of both around what is left of them.
        place = np.arange(row)
        highest = lines[:, place // 2 * 3 + place % 2 * 2]
    else:
        # One stream of bits, the lowest first.
        stream = np.unpackbits(lines, axis=1, count=row * bits, bitorder="little").reshape(-1, bits)
        highest = np.packbits(stream[:, bits - 8 :], axis=1, bitorder="little")
    return highest.reshape(height, width)


def _from_subsampled(
    lines: NDArray[np.uint8], width: int, luminance_first: bool, full: bool
) -> NDArray[np.uint8]:
    if width % 2:
        raise DeviceProtocolError(f"lines of {width} pixels cannot share their colours in twos")
    if not full:
        code = cv2.COLOR_YUV2RGB_YUY2 if luminance_first else cv2.COLOR_YUV2RGB_UYVY
        pairs = np.ascontiguousarray(lines).reshape(len(lines), width, 2)
        return cv2.cvtColor(pairs, code).astype(np.uint8, copy=False)
    y = lines[:, 0 if luminance_first else 1 :: 2]
    blue, red = (
        np.repeat(lines[:, place::4], 2, axis=1) for place in ((1, 3) if luminance_first else (0, 2))
    )
    return cv2.cvtColor(np.dstack([y, red, blue]), cv2.COLOR_YCrCb2RGB).astype(np.uint8, copy=False)
