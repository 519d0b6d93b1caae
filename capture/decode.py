"""File bytes to a `Sample`: PNG, JPEG, BMP, TIFF, WSQ, JPEG 2000 and finger image records, within limits.

The format is told by its first bytes, never by a name. The declared size is checked before a pixel is
decoded, and again afterwards. Orientation tags (EXIF, TIFF) are not applied: the pixel grid as stored is
the evidence that minutiae refer to, and comparison does not depend on rotation.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

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

from capture.errors import CaptureError, ImageProblem, ImageRefused, RecordRefused
from capture.formats.finger_image import MAGIC as RECORD_MAGIC
from capture.formats.finger_image import Compression, FingerImage, read_finger_images
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
_COMPRESSED = {
    Compression.WSQ: ("wsq",),
    Compression.JPEG: ("jpeg",),
    Compression.JPEG_2000: ("jp2", "j2k"),
    Compression.JPEG_2000_LOSSLESS: ("jp2", "j2k"),
    Compression.PNG: ("png",),
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
    16 bits become 8, transparency is laid on white. A finger image record (ISO/IEC 19794-4) holds one finger,
    and neither its position nor its resolution contradicts what is declared. Raises `ImageRefused`, and
    nothing else, whatever the bytes are. Thread-safe. Cost: 2 to 20 ms for a print of 500 x 500 pixels.
    """
    # 1. What can be refused without reading the file.
    if not data:
        raise ImageRefused(ImageProblem.EMPTY, "the image has no bytes")
    if len(data) > limits.max_bytes:
        text = f"the image has {len(data):,} bytes, more than the {limits.max_bytes:,} allowed"
        raise ImageRefused(ImageProblem.TOO_MANY_BYTES, text)
    if ppi is not None:
        _check_ppi(ppi, "declared", limits)
    if data.startswith(RECORD_MAGIC):
        return _decode_record(data, position, ppi, limits)
    encoding = encoding_of(data)
    if encoding is None:
        text = "the bytes are no PNG, JPEG, BMP, TIFF, WSQ or JPEG 2000 image and no finger image record"
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
    return _sample(image, _agreed_ppi(ppi, embedded, limits), position, encoding, limits)


def decode_finger_image(
    image: FingerImage, *, ppi: float | None = None, limits: DecodeLimits = _DEFAULT_LIMITS
) -> Sample:
    """Decode one image of a finger image record, `(H, W) uint8`; `ppi` as for `decode_image`.

    Raises `RecordRefused` where the record says of its image what is not so, `ImageRefused` where the image
    is none this stage accepts: damaged, beyond the limits, or of several fingers.
    """
    # 1. One finger, of a size and resolution that can be; nothing is decoded before.
    if image.position not in set(FingerPosition):
        text = f"the record shows position {image.position}, which is no single finger: send one finger each"
        raise ImageRefused(ImageProblem.SEVERAL_FRAMES, text)
    position = FingerPosition(image.position)
    _check_size(image.width, image.height, limits)
    resolution = _agreed_ppi(ppi, image.grid.ppi, limits)

    # 2. Pixels. A file inside the record has its own header, which has to agree with the record's.
    compression = image.grid.compression
    if compression not in _COMPRESSED:
        return _sample(_bare_pixels(image), resolution, position, compression.value, limits)
    if encoding_of(image.data) not in _COMPRESSED[compression]:
        raise RecordRefused(f"the record announces {compression.value}, and its image is something else")
    sample = decode_image(image.data, position=position, ppi=resolution, limits=limits)
    height, width = sample.image.shape
    if (width, height) != (image.width, image.height):
        raise RecordRefused(
            f"the record announces {image.width} x {image.height} pixels, its image has {width} x {height}"
        )
    return sample


def _decode_record(data: bytes, position: FingerPosition, ppi: float | None, limits: DecodeLimits) -> Sample:
    """The one finger of a finger image record, where nothing declared contradicts it."""
    try:
        images = read_finger_images(data).images
        if len(images) != 1:
            text = f"the record holds {len(images)} images: send one finger each"
            raise ImageRefused(ImageProblem.SEVERAL_FRAMES, text)
        sample = decode_finger_image(images[0], ppi=ppi, limits=limits)
    except RecordRefused as error:
        text = f"the finger image record is damaged: {error}"
        raise ImageRefused(ImageProblem.DAMAGED, text) from error
    if FingerPosition.UNKNOWN not in (position, sample.position) and position is not sample.position:
        text = f"the record shows the {sample.position.words} finger, the sender declares {position.words}"
        raise ImageRefused(ImageProblem.POSITION_CONFLICT, text)
    return replace(sample, position=position or sample.position)


def _bare_pixels(image: FingerImage) -> NDArray[np.uint8]:
    """Uncompressed pixels of 1 to 16 bits, `(H, W) uint8`; the record's reader has checked their length."""
    count, depth = image.width * image.height, image.grid.bit_depth
    if image.grid.compression is Compression.PACKED:
        bits = np.unpackbits(np.frombuffer(image.data, np.uint8), count=count * depth).reshape(count, depth)
        values: NDArray[np.uint16] = np.zeros(count, np.uint16)
        for i in range(depth):
            values = values << np.uint16(1) | bits[:, i]
    else:
        values = np.frombuffer(image.data, np.uint8 if depth <= 8 else ">u2").astype(np.uint16)
    white = (1 << depth) - 1
    pixels = (np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white
    return pixels.astype(np.uint8).reshape(image.height, image.width)


def encoding_of(data: bytes) -> str | None:
    """Which image format bytes begin like, as a sample's `format` names it; None where it is none."""
    return next((name for magic, name in _FORMATS if data.startswith(magic)), None)


def _sample(
    image: NDArray[np.uint8], ppi: float, position: FingerPosition, encoding: str, limits: DecodeLimits
) -> Sample:
    """A sample, if a finger can be as large as the image is at its resolution."""
    height, width = (side / ppi for side in image.shape)
    if max(height, width) > limits.max_inches or height * width > limits.max_square_inches:
        text = f"at {ppi:g} ppi the image is {width:.1f} x {height:.1f} inches, too large for a finger"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    return Sample(image=image, ppi=ppi, position=position, format=encoding)


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
