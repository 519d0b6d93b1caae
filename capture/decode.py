"""File bytes to a sample: one print, one eye or one portrait, as an image file or an exchange record.

Pixels are `capture/pixels.py`'s; here is what each modality asks of them. Orientation tags (EXIF, TIFF) are
applied to portraits alone: phones store a portrait as their sensor lay, and say by the tag how they were
held. A print's and an eye's pixel grid as stored is the evidence that minutiae and codes refer to, comparison
does not depend on a print's rotation, and a tag that mirrors would make another finger or eye of it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capture.errors import ImageProblem, ImageRefused, RecordRefused
from capture.formats.face_image import MAGIC as FACE_MAGIC
from capture.formats.face_image import FaceImage, FaceImage2005, read_face_images
from capture.formats.finger_image import MAGIC as FINGER_MAGIC
from capture.formats.finger_image import Compression, FingerImage, read_finger_images
from capture.formats.iris_image import MAGIC as IRIS_MAGIC
from capture.formats.iris_image import IrisCoding, IrisView, iris_views, read_iris_images
from capture.pixels import (
    Picture,
    PixelLimits,
    Turning,
    check_bytes,
    check_size,
    eight_bits,
    encoding_of,
    luma,
    picture,
)
from capture.sample import EyePosition, FaceSample, FingerPosition, IrisSample, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits(PixelLimits):
    """What an image of one finger may be: also sides in inches, and resolutions in ppi.

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


_FINGER_LIMITS = DecodeLimits()
# An iris has to be some 100 pixels wide to be coded, and cropped images (ISO/IEC 19794-6) leave little beside
# it. Iris cameras give 640 x 480 to about 2000 x 2000, two eyes at once 4000 a side; a longer one is no eye.
IRIS_LIMITS = PixelLimits(max_bytes=16 * 1024 * 1024, max_pixels=8_000_000, min_side=120, max_side=4000)
# The smallest portraits are those of card chips; 24 megapixels are what today's cameras and phones give, and
# take 72 MB as pixels. A JPEG of that size has 5 to 12 MB.
FACE_LIMITS = PixelLimits(max_bytes=16 * 1024 * 1024, max_pixels=24_000_000, min_side=64, max_side=8000)
SIGNATURE_LIMITS = PixelLimits(max_bytes=2**20, max_pixels=4_000_000, min_side=16, max_side=4000)
_PPI_TOLERANCE = 0.02
# Written by encoders that know nothing of the scanner: no statement about this image.
_ENCODER_DEFAULTS = (72.0, 96.0)

_COMPRESSED = {
    Compression.WSQ: ("wsq",),
    Compression.JPEG: ("jpeg",),
    Compression.JPEG_2000: ("jp2", "j2k"),
    Compression.JPEG_2000_LOSSLESS: ("jp2", "j2k"),
    Compression.PNG: ("png",),
}
_IRIS_FILES = {
    IrisCoding.JPEG: ("jpeg",),
    IrisCoding.JPEG_2000: ("jp2", "j2k"),
    IrisCoding.PNG: ("png",),
}
# By the number that says how a face record's image is coded.
_FACE_FILES = {0: ("jpeg",), 1: ("jp2", "j2k"), 2: ("jp2", "j2k"), 3: ("png",)}


def decode_image(
    data: bytes,
    *,
    position: FingerPosition = FingerPosition.UNKNOWN,
    ppi: float | None = None,
    limits: DecodeLimits = _FINGER_LIMITS,
) -> Sample:
    """Decode one fingerprint image to 8-bit grey, `(H, W) uint8`.

    `ppi` is the resolution the sender declares; without it the file's own is taken. Colour becomes luma,
    16 bits become 8, transparency is laid on white. A finger image record (ISO/IEC 19794-4) holds one finger,
    and neither its position nor its resolution contradicts what is declared. Raises `ImageRefused`, and
    nothing else, whatever the bytes are. Thread-safe. Cost: 2 to 20 ms for a print of 500 x 500 pixels.
    """
    # 1. What can be refused without reading the file.
    check_bytes(data, limits)
    if ppi is not None:
        _check_ppi(ppi, "declared", limits)
    if data.startswith(FINGER_MAGIC):
        return _decode_record(data, position, ppi, limits)
    encoding = encoding_of(data)
    if encoding is None:
        text = "the bytes are no PNG, JPEG, BMP, TIFF, WSQ or JPEG 2000 image and no finger image record"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)

    # 2. Pixels, and one resolution or none at all. Registry software in use writes 1000 ppi into the JPEG
    #    2000 files of 500 ppi scanners: there the sender's word alone counts.
    shown = picture(data, encoding, limits, turning=Turning.AS_STORED)
    embedded = None if encoding == "jp2" and ppi is not None else shown.dpi
    return _sample(shown.pixels, _agreed_ppi(ppi, embedded, limits), position, encoding, limits)


def decode_finger_image(
    image: FingerImage, *, ppi: float | None = None, limits: DecodeLimits = _FINGER_LIMITS
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
    check_size(image.width, image.height, limits)
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


def decode_iris_image(
    data: bytes, *, eye: EyePosition = EyePosition.UNKNOWN, limits: PixelLimits = IRIS_LIMITS
) -> IrisSample:
    """Decode one near-infrared image of one eye to 8-bit grey, `(H, W) uint8`; no resolution is needed.

    An iris image record (ISO/IEC 19794-6 of 2005, its draft, IREX, or of 2011) holds one image, bare pixels
    or a file, and its eye does not contradict the declared one; an image said to be flipped is flipped back.
    Colour becomes luma. Raises `ImageRefused`, and nothing else, whatever the bytes are. Thread-safe. Cost:
    1 to 15 ms for 640 x 480 pixels.
    """
    check_bytes(data, limits)
    if not data.startswith(IRIS_MAGIC):
        seen = _image_file(data, limits, "iris", colour=False)
        return IrisSample(image=seen.pixels, eye=eye, format=seen.encoding)
    try:
        views = iris_views(read_iris_images(data))
        if len(views) != 1:
            text = f"the record holds {len(views)} images: send one eye each"
            raise ImageRefused(ImageProblem.SEVERAL_FRAMES, text)
        sample = decode_iris_view(views[0], limits=limits)
    except RecordRefused as error:
        raise ImageRefused(ImageProblem.DAMAGED, f"the iris image record is damaged: {error}") from error
    if EyePosition.UNKNOWN not in (eye, sample.eye) and eye is not sample.eye:
        text = f"the record shows the {sample.eye.words}, the sender declares the {eye.words}"
        raise ImageRefused(ImageProblem.POSITION_CONFLICT, text)
    return replace(sample, eye=eye or sample.eye)


def decode_iris_view(view: IrisView, *, limits: PixelLimits = IRIS_LIMITS) -> IrisSample:
    """Decode one image of an iris image record, `(H, W) uint8`.

    Raises `RecordRefused` where the record says of its image what is not so, `ImageRefused` where the image
    is none this stage accepts: damaged, beyond the limits, unrolled to polar coordinates, or JPEG-LS.
    """
    if view.eye not in set(EyePosition):
        raise RecordRefused(f"the record shows eye {view.eye}, which is neither left nor right")
    if not view.rectilinear:
        text = "the record's image is no picture of an eye but its iris unrolled: send the picture"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    check_size(view.width, view.height, limits)
    if view.coding in (IrisCoding.BARE_GREY, IrisCoding.BARE_COLOUR):
        pixels, encoding = _bare_iris(view), "none"
    elif view.coding in _IRIS_FILES:
        inner = _recorded_file(view.data, _IRIS_FILES[view.coding], (view.width, view.height), limits)
        pixels, encoding = inner.pixels, inner.encoding
    else:
        text = f"the record's image is {view.coding.value}, which is not read here"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    upright = pixels[:: -1 if view.upside_down else 1, :: -1 if view.mirrored else 1]
    return IrisSample(image=np.ascontiguousarray(upright), eye=EyePosition(view.eye), format=encoding)


def decode_face_image(data: bytes, *, limits: PixelLimits = FACE_LIMITS) -> FaceSample:
    """Decode one portrait to 8-bit colour, `(H, W, 3) uint8` RGB, turned upright as its EXIF tag says.

    A face image record (ISO/IEC 19794-5 of 2005 or 2011) holds one image. Grey becomes three equal channels,
    transparency is laid on white. Raises `ImageRefused`, and nothing else, whatever the bytes are.
    Thread-safe. Cost: 6 ms for a JPEG of 600 x 800 pixels, 60 ms as JPEG 2000; 0.6 s and some 300 MB for 24
    megapixels.
    """
    check_bytes(data, limits)
    if not data.startswith(FACE_MAGIC):
        seen = _image_file(data, limits, "face", colour=True)
        return FaceSample(image=seen.pixels, format=seen.encoding)
    try:
        images = read_face_images(data).images
        if len(images) != 1:
            text = f"the record holds {len(images)} images: send one portrait each"
            raise ImageRefused(ImageProblem.SEVERAL_FRAMES, text)
        return decode_recorded_face(images[0], limits=limits)
    except RecordRefused as error:
        raise ImageRefused(ImageProblem.DAMAGED, f"the face image record is damaged: {error}") from error


def decode_recorded_face(
    image: FaceImage | FaceImage2005, *, limits: PixelLimits = FACE_LIMITS
) -> FaceSample:
    """Decode one image of a face image record, `(H, W, 3) uint8` RGB; raises as `decode_iris_view` does."""
    if image.format not in _FACE_FILES:
        raise RecordRefused(f"the record's image is of format {image.format}, which no edition knows")
    check_size(image.width, image.height, limits)
    size = (image.width, image.height)
    inner = _recorded_file(image.data, _FACE_FILES[image.format], size, limits, colour=True)
    return FaceSample(image=inner.pixels, format=inner.encoding)


def check_signature(data: bytes) -> None:
    """That the bytes are the image of a signature, within limits. Raises `ImageRefused`, and nothing else."""
    check_bytes(data, SIGNATURE_LIMITS)
    encoding = encoding_of(data)
    if encoding is None or encoding == "wsq":
        text = "the bytes are no PNG, JPEG, BMP, TIFF or JPEG 2000 image"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    picture(data, encoding, SIGNATURE_LIMITS, colour=True, turning=Turning.AS_STORED)


def _image_file(data: bytes, limits: PixelLimits, what: str, *, colour: bool) -> Picture:
    """The pixels of an image file of an eye or a portrait. Raises `ImageRefused`."""
    encoding = encoding_of(data)
    if encoding is None or encoding == "wsq":
        text = f"the bytes are no PNG, JPEG, BMP, TIFF or JPEG 2000 image and no {what} image record"
        raise ImageRefused(ImageProblem.UNKNOWN_FORMAT, text)
    turning = Turning.UPRIGHT if colour else Turning.AS_STORED
    return picture(data, encoding, limits, colour=colour, turning=turning)


def _recorded_file(
    data: bytes,
    encodings: tuple[str, ...],
    size: tuple[int, int],
    limits: PixelLimits,
    *,
    colour: bool = False,
) -> Picture:
    """The pixels of a file within a record, whose header has to agree with the record's."""
    if encoding_of(data) not in encodings:
        raise RecordRefused(f"the record announces {encodings[0]}, and its image is something else")
    inner = _image_file(data, limits, "", colour=colour)
    height, width = inner.pixels.shape[:2]
    # A portrait may lie in its record as the camera stored it: turned by its tag, width and height change.
    if (width, height) != size and not (colour and (height, width) == size):
        raise RecordRefused(
            f"the record announces {size[0]} x {size[1]} pixels, its image has {width} x {height}"
        )
    return inner


def _bare_iris(view: IrisView) -> NDArray[np.uint8]:
    """Uncompressed pixels of 8 or 16 bits a channel, rows from the top, `(H, W) uint8`."""
    channels = 3 if view.coding is IrisCoding.BARE_COLOUR else 1
    if not 1 <= view.bit_depth <= 16:
        raise RecordRefused(f"the record announces {view.bit_depth} bits a channel")
    size = 1 if view.bit_depth <= 8 else 2
    expected = view.width * view.height * channels * size
    if len(view.data) != expected:
        raise RecordRefused(f"the record announces {expected:,} bytes of pixels and holds {len(view.data):,}")
    values = np.frombuffer(view.data, np.uint8 if size == 1 else ">u2").astype(np.uint16)
    pixels = eight_bits(values, view.bit_depth).reshape(view.height, view.width, channels)
    return pixels[..., 0] if channels == 1 else luma(pixels)


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
    return eight_bits(values, depth).reshape(image.height, image.width)


def _sample(
    image: NDArray[np.uint8], ppi: float, position: FingerPosition, encoding: str, limits: DecodeLimits
) -> Sample:
    """A sample, if a finger can be as large as the image is at its resolution."""
    height, width = (side / ppi for side in image.shape)
    if max(height, width) > limits.max_inches or height * width > limits.max_square_inches:
        text = f"at {ppi:g} ppi the image is {width:.1f} x {height:.1f} inches, too large for a finger"
        raise ImageRefused(ImageProblem.TOO_MANY_PIXELS, text)
    return Sample(image=image, ppi=ppi, position=position, format=encoding)


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
