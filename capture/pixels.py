"""Image file bytes to pixels: PNG, JPEG, BMP, TIFF, WSQ and JPEG 2000, within limits.

The format is told by its first bytes, never by a name. The declared size is checked before a pixel is
decoded, and again afterwards. What a print, an eye and a portrait need besides is `capture/decode.py`'s.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
)

from capture.errors import CaptureError, ImageProblem, ImageRefused
from capture.wsq import read_wsq, wsq_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLimits:
    """What an image may be: bytes of its file, pixels in all, and pixels a side."""

    max_bytes: int
    max_pixels: int
    min_side: int
    max_side: int = 65_535


class Turning(Enum):
    """What is done about a tag that says how a camera was held (EXIF, TIFF)."""

    AS_STORED = "as stored"
    UPRIGHT = "upright"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image file: `pixels` `(H, W) uint8` grey or `(H, W, 3) uint8` RGB, and what its bytes said.

    `dpi`: across and down, None where the file tells nothing.
    """

    pixels: NDArray[np.uint8]
    encoding: str
    dpi: tuple[float, float] | None


_CODESTREAM = b"\xff\x4f\xff\x51"
_FORMATS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\xff\xa0", "wsq"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (_CODESTREAM, "j2k"),
)
# The plugins themselves, not `Image.open`: no other format is tried, and the limit on pixels is ours.
_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "j2k": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
# Pillow turns a TIFF as its tag says while it loads it; this turns it back.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoding_of(data: bytes) -> str | None:
    """Which image format bytes begin like, as a sample's `format` names it; None where it is none."""
    return next((name for magic, name in _FORMATS if data.startswith(magic)), None)


def check_bytes(data: bytes, limits: PixelLimits) -> None:
    """Raise `ImageRefused` for what can be refused without reading the file."""
    if not data:
        raise ImageRefused(ImageProblem.EMPTY, "the image has no bytes")
    if len(data) > limits.max_bytes:
        text = f"the image has {len(data):,} bytes, more than the {limits.max_bytes:,} allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_BYTES, text)


def check_size(width: int, height: int, limits: PixelLimits) -> None:
    """Raise `ImageRefused` for a size beyond the limits."""
    if width * height > limits.max_pixels:
        text = f"the image has {width} x {height} pixels, more than the {limits.max_pixels:,} allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    if max(width, height) > limits.max_side:
        text = f"the image has {width} x {height} pixels; {limits.max_side:,} a side are allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    if min(width, height) < limits.min_side:
        text = f"the image has {width} x {height} pixels; {limits.min_side} a side are needed"
        raise ImageRefused(ImageProblem.TOO_SMALL, text)


def picture(
    data: bytes, encoding: str, limits: PixelLimits, *, colour: bool = False, turning: Turning
) -> Picture:
    """Decode the bytes of a file of a known `encoding` to grey or, with `colour`, RGB.

    Colour becomes luma or grey three equal channels, 16 bits become 8, transparency is laid on white; colour
    profiles are not applied. Raises `ImageRefused`, and nothing else, whatever the bytes are. Thread-safe.
    """
    # Whatever a decoder raises means a damaged file.
    try:
        if encoding == "wsq":
            return _wsq(data, limits)
        return _pillow(data, encoding, limits, colour, turning)
    except CaptureError:
        raise
    except Exception as error:
        raise ImageRefused(ImageProblem.DAMAGED, f"the {encoding} image is damaged: {error}") from error


def eight_bits(values: NDArray[np.uint16], depth: int) -> NDArray[np.uint8]:
    """Pixels of 1 to 16 bits, of any shape, stretched to 0 to 255; what exceeds `depth` bits is white."""
    white = (1 << depth) - 1
    return ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey `(H, W) uint8` of RGB `(H, W, 3) uint8`, as image files become it."""
    return np.array(Image.fromarray(pixels).convert("L"), dtype=np.uint8)


def _wsq(data: bytes, limits: PixelLimits) -> Picture:
    file = read_wsq(data)
    check_size(file.width, file.height, limits)
    return Picture(wsq_pixels(file), "wsq", None if file.ppi is None else (file.ppi, file.ppi))


def _pillow(data: bytes, encoding: str, limits: PixelLimits, colour: bool, turning: Turning) -> Picture:
    with _PLUGINS[encoding](io.BytesIO(data)) as loaded:
        check_size(*loaded.size, limits)
        if getattr(loaded, "n_frames", 1) != 1:
            raise ImageRefused(ImageProblem.SEVERAL_FRAMES, "the file holds several images: send one each")
        if encoding in ("jp2", "j2k"):
            _check_depth(data)
        dpi = loaded.info.get("dpi")
        turned = loaded.getexif().get(ExifTags.Base.Orientation) if encoding == "tiff" else None
        loaded.load()
        check_size(*loaded.size, limits)
        upright: Image.Image = loaded
        if encoding != "tiff" and turning is Turning.UPRIGHT:
            upright = ImageOps.exif_transpose(loaded)
        elif turning is Turning.AS_STORED and turned in _BACK:
            upright = loaded.transpose(_BACK[turned])
        pixels = _rgb(upright) if colour else _grey(upright)
    if encoding == "png":
        # `load` stops at the last row; only `verify` compares every chunk's checksum.
        PngImagePlugin.PngImageFile(io.BytesIO(data)).verify()
    return Picture(pixels, encoding, None if dpi is None else (float(dpi[0]), float(dpi[1])))


def _check_depth(data: bytes) -> None:
    """Refuse JPEG 2000 of several channels of more than 8 bits: Pillow 13 turns what is white there to black.

    Channels and depth stand in the SIZ segment at the beginning of the codestream (ISO/IEC 15444-1, A.5.1).
    """
    at = data.find(_CODESTREAM) + len(_CODESTREAM) + 38
    channels = int.from_bytes(data[at - 2 : at], "big")
    depths = [(coded & 0x7F) + 1 for coded in data[at : at + 3 * channels : 3]]
    if channels > 1 and max(depths, default=8) > 8:
        text = f"JPEG 2000 of {channels} channels and {max(depths)} bits is not read: send 8 bits a channel"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """8-bit luma `(H, W) uint8` of a loaded image of any mode; transparent parts become white."""
    if image.mode.startswith("I;16"):
        return eight_bits(np.asarray(image).astype(np.uint16), 16)
    return _pixels(_opaque(image), "L")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """8-bit colour `(H, W, 3) uint8` of a loaded image of any mode; transparent parts become white."""
    if image.mode.startswith("I;16"):
        return np.repeat(_grey(image)[..., None], 3, axis=2)
    return _pixels(_opaque(image), "RGB")


def _pixels(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    """The pixels in a mode of 8 bits a channel, read-only; nothing is copied twice: portraits are large."""
    return np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        text = "pixels of 32 bits are not accepted: send 8 or 16 bits a channel"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    if not image.has_transparency_data:
        return image
    colour = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
