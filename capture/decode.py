"""File bytes to a `Sample`: PNG, JPEG, BMP, TIFF, WSQ and JPEG 2000, within limits.

The format is told by its first bytes, never by a name. The declared size is checked before a pixel is
decoded, and again afterwards. Orientation tags (EXIF, TIFF) are not applied: the pixel grid as stored is
the evidence that minutiae refer to, and comparison does not depend on rotation.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
)

from capture.errors import CaptureError, ImageProblem, ImageRefused
from capture.sample import FingerPosition, Sample
from capture.wsq import read_wsq, wsq_pixels


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What an image of one finger may be: file size in bytes, sides in pixels and inches, resolution in ppi.

    A rolled finger's box is 1.6 x 1.5 inches; the area bounds the time and memory of extraction (1 GB at 3
    square inches). The resolutions cover scanners of 250 to 1500 ppi, with room for rounding in headers.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 4_000_000
    min_side: int = 48
    max_inches: float = 3.0
    max_square_inches: float = 3.0
    min_ppi: float = 240.0
    max_ppi: float = 1600.0


_DEFAULT_LIMITS = DecodeLimits()
_PPI_TOLERANCE = 0.02
# Written by encoders that know nothing of the scanner: no statement about this image.
_ENCODER_DEFAULTS = (72.0, 96.0)

_FORMATS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\xff\xa0", "wsq"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "j2k"),
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


def decode_image(
    data: bytes,
    *,
    position: FingerPosition = FingerPosition.UNKNOWN,
    ppi: float | None = None,
    limits: DecodeLimits = _DEFAULT_LIMITS,
) -> Sample:
    """Decode one fingerprint image to 8-bit grey, `(H, W) uint8`.

    `ppi` is the resolution the sender declares; without it the file's own is taken. Colour becomes luma,
    16 bits become 8, transparency is laid on white. Raises `ImageRefused`, and nothing else, whatever the
    bytes are. Thread-safe. Cost: 2 to 20 ms for a print of 500 x 500 pixels.
    """
    # 1. What can be refused without reading the file.
    if not data:
        raise ImageRefused(ImageProblem.EMPTY, "the image has no bytes")
    if len(data) > limits.max_bytes:
        text = f"the image has {len(data):,} bytes, more than the {limits.max_bytes:,} allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_BYTES, text)
    if ppi is not None:
        _check_ppi(ppi, "declared", limits)
    encoding = next((name for magic, name in _FORMATS if data.startswith(magic)), None)
    if encoding is None:
        text = "the bytes are no PNG, JPEG, BMP, TIFF, WSQ or JPEG 2000 image"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)

    # 2. Pixels and embedded resolution; whatever a decoder raises means a damaged file.
    try:
        image, embedded = (
            _decode_wsq(data, limits) if encoding == "wsq" else _decode_pillow(data, encoding, limits)
        )
    except CaptureError:
        raise
    except Exception as error:
        raise ImageRefused(ImageProblem.DAMAGED, f"the {encoding} image is damaged: {error}") from error

    # 3. One resolution, or none at all. Registry software in use writes 1000 ppi into the JPEG 2000 files
    #    of 500 ppi scanners: there the sender's word alone counts.
    if encoding == "jp2" and ppi is not None:
        embedded = None
    resolution = _agreed_ppi(ppi, embedded, limits)
    height, width = (side / resolution for side in image.shape)
    if max(height, width) > limits.max_inches or height * width > limits.max_square_inches:
        text = f"at {resolution:g} ppi the image is {width:.1f} x {height:.1f} inches, too large for a finger"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    return Sample(image=image, ppi=resolution, position=position, format=encoding)


def _decode_wsq(data: bytes, limits: DecodeLimits) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    file = read_wsq(data)
    _check_size(file.width, file.height, limits)
    ppi = None if file.ppi is None else (file.ppi, file.ppi)
    return wsq_pixels(file), ppi


def _decode_pillow(
    data: bytes, encoding: str, limits: DecodeLimits
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    with _PLUGINS[encoding](io.BytesIO(data)) as picture:
        _check_size(*picture.size, limits)
        if getattr(picture, "n_frames", 1) != 1:
            raise ImageRefused(
                ImageProblem.SEVERAL_FRAMES, "the file holds several images: send one finger each"
            )
        dpi = picture.info.get("dpi")
        picture.load()
        _check_size(*picture.size, limits)
        image = _grey(picture)
    if encoding == "png":
        # `load` stops at the last row; only `verify` compares every chunk's checksum.
        PngImagePlugin.PngImageFile(io.BytesIO(data)).verify()
    return image, None if dpi is None else (float(dpi[0]), float(dpi[1]))


def _grey(picture: Image.Image) -> NDArray[np.uint8]:
    """8-bit luma `(H, W) uint8` of a loaded picture of any mode; transparent parts become white."""
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint32)
        return ((wide * 255 + 32767) // 65535).astype(np.uint8)
    if picture.mode in ("I", "F"):
        text = "pixels of 32 bits are not accepted: send 8 or 16 bits a channel"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    if picture.has_transparency_data:
        colour = picture.convert("RGBA")
        paper = Image.new("RGBA", colour.size, "white")
        picture = Image.alpha_composite(paper, colour)
    return np.array(picture.convert("L"), dtype=np.uint8)


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if width * height > limits.max_pixels:
        text = f"the image has {width} x {height} pixels, more than the {limits.max_pixels:,} allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    if min(width, height) < limits.min_side:
        text = f"the image has {width} x {height} pixels; {limits.min_side} a side are needed"
        raise ImageRefused(ImageProblem.TOO_SMALL, text)


def _check_ppi(ppi: float, origin: str, limits: DecodeLimits) -> None:
    if not (math.isfinite(ppi) and limits.min_ppi <= ppi <= limits.max_ppi):
        text = (
            f"the {origin} resolution is {ppi:g} ppi; {limits.min_ppi:g} to {limits.max_ppi:g} are accepted"
        )
        raise ImageRefused(ImageProblem.RESOLUTION_OUT_OF_RANGE, text)


def _agreed_ppi(declared: float | None, embedded: tuple[float, float] | None, limits: DecodeLimits) -> float:
    """The resolution of the image, from what the sender declares and what the file says.

    A file's value that is an encoder's default, or that no scanner has, says nothing beside a declared one.
    Two credible values that differ are refused: a wrong scale makes a returning person look new.
    """
    if embedded is not None and not _says_something(embedded):
        embedded = None
    if embedded is None:
        if declared is None:
            text = "the file does not carry its resolution: declare the scanner's pixels per inch"
            raise ImageRefused(ImageProblem.RESOLUTION_UNKNOWN, text)
        return float(declared)
    across, down = embedded
    if declared is None:
        _check_ppi(across, "embedded", limits)
        _check_ppi(down, "embedded", limits)
    elif not all(limits.min_ppi <= value <= limits.max_ppi for value in embedded):
        return float(declared)
    if abs(across - down) > _PPI_TOLERANCE * across:
        text = f"pixels are not square: the file says {across:g} ppi across and {down:g} ppi down"
        raise ImageRefused(ImageProblem.RESOLUTION_CONFLICT, text)
    if declared is not None and abs(across - declared) > _PPI_TOLERANCE * declared:
        text = f"the file says {across:g} ppi, the sender {declared:g} ppi"
        raise ImageRefused(ImageProblem.RESOLUTION_CONFLICT, text)
    return across if declared is None else float(declared)


def _says_something(embedded: tuple[float, float]) -> bool:
    if not all(math.isfinite(value) and value > 1 for value in embedded):
        return False
    return not any(all(abs(value - default) < 1 for value in embedded) for default in _ENCODER_DEFAULTS)
