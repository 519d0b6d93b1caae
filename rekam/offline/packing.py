"""Images into image records of ISO/IEC 19794 and CBEFF files, with sensible fields around them.

A file goes in as it is where the record's edition takes it; other images as PNG, bare pixels or lossless
JPEG 2000, whichever it takes. What nobody knows (device, time, geometry, description of the person) is left
unsaid.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capture.decode import FACE_LIMITS, IRIS_LIMITS, decode_face_image, decode_image, decode_iris_image
from capture.errors import ImageRefused, RecordRefused
from capture.formats.cbeff import (
    BdbInfo,
    BiometricType,
    Bir,
    CbeffFile,
    Level,
    Patron,
    RegistryId,
    Subtype,
    Version,
    write_cbeff,
)
from capture.formats.face_image import FaceImage, FaceImage2005, FaceRecord, FaceRecord2005
from capture.formats.finger_image import (
    Compression,
    FingerImageRecord2005,
    FingerImageRecord2011,
    FingerRepresentation2011,
    FingerView2005,
    Grid,
)
from capture.formats.iris_image import (
    Eye2005,
    IrisImage2005,
    IrisRecord2005,
    IrisRecord2011,
    IrisRepresentation2011,
)
from capture.pixels import Turning, encoding_of, picture
from capture.sample import EyePosition, FingerPosition
from rekam.client import FingerFile

_COMPRESSIONS = {
    "wsq": Compression.WSQ,
    "jpeg": Compression.JPEG,
    "jp2": Compression.JPEG_2000,
    "j2k": Compression.JPEG_2000,
}
_FINGER_SUBTYPES = (
    Subtype.THUMB,
    Subtype.INDEX_FINGER,
    Subtype.MIDDLE_FINGER,
    Subtype.RING_FINGER,
    Subtype.LITTLE_FINGER,
)
# Registered by ISO/IEC JTC 1/SC 37 (organisation 257): image records of ISO/IEC 19794-4, -6 and -5.
_CBEFF_TYPES = {BiometricType.FINGER: "7", BiometricType.IRIS: "9", BiometricType.FACE: "8"}
# Properties of an iris image: neither axis flipped; of 2011 also that pixels once were a JPEG. Of other files
# nobody can say what they went through.
_AS_SEEN, _WAS_LOSSY = 0b0101, 2 << 6
_RGB, _GREY = 1, 3


class PackedFormat(StrEnum):
    """What images are packed into."""

    ISO_2005 = "iso2005"
    ISO_2011 = "iso2011"
    CBEFF = "cbeff"


@dataclass(frozen=True, slots=True)
class EyeFile:
    """An image file and the eye it shows."""

    eye: EyePosition
    path: Path


def packed_fingers(files: list[FingerFile], kind: PackedFormat, ppi: float | None) -> bytes:
    """A record, or a CBEFF file of one record a finger, around the images of `files`.

    WSQ, JPEG and JPEG 2000 files go in as they are, other images as PNG. Raises `CaptureError`, `OSError`.
    """
    if kind is PackedFormat.ISO_2005:
        return FingerImageRecord2005(images=tuple(_view(file, ppi) for file in files)).to_bytes()
    images = tuple(_representation(file, ppi) for file in files)
    if kind is PackedFormat.ISO_2011:
        positions = len({image.position for image in images})
        return FingerImageRecord2011(images=images, positions=positions).to_bytes()
    parts = [
        (_subtypes(FingerPosition(image.position)), FingerImageRecord2011(images=(image,)).to_bytes())
        for image in images
    ]
    return _cbeff(BiometricType.FINGER, parts)


def _subtypes(position: FingerPosition) -> tuple[Subtype, ...] | None:
    if position is FingerPosition.UNKNOWN:
        return None
    hand = Subtype.RIGHT if position < FingerPosition.LEFT_THUMB else Subtype.LEFT
    return hand, _FINGER_SUBTYPES[(position - 1) % 5]


def _representation(file: FingerFile, ppi: float | None) -> FingerRepresentation2011:
    data, grid, width, height = _image(file, ppi)
    return FingerRepresentation2011(position=file.position, width=width, height=height, grid=grid, data=data)


def _view(file: FingerFile, ppi: float | None) -> FingerView2005:
    data, grid, width, height = _image(file, ppi)
    return FingerView2005(position=file.position, width=width, height=height, grid=grid, data=data)


def _image(file: FingerFile, ppi: float | None) -> tuple[bytes, Grid, int, int]:
    """What a record needs of an image file: the bytes it holds, how they are coded, width and height."""
    data = file.path.read_bytes()
    try:
        sample = decode_image(data, position=file.position, ppi=ppi)
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{file.path}: {refused}") from refused
    compression = _COMPRESSIONS.get(encoding_of(data) or "", Compression.PNG)
    if compression is Compression.PNG:
        data = _png(sample.image)
    resolution = (round(sample.ppi), round(sample.ppi))
    height, width = sample.image.shape
    return data, Grid(resolution, resolution, compression), width, height


def eye_of(path: Path) -> EyePosition:
    """The eye that a file's name tells: `right_iris.png`, `left_eye_2.jp2`, `iris-left.bmp`; else unknown."""
    words = path.stem.lower().replace("-", "_").split("_")
    told = [eye for eye in (EyePosition.RIGHT, EyePosition.LEFT) if eye.name.lower() in words]
    return told[0] if len(told) == 1 else EyePosition.UNKNOWN


def packed_irises(files: Sequence[EyeFile], kind: PackedFormat) -> bytes:
    """A record, or a CBEFF file of one record an eye, around images of eyes; colour becomes grey.

    2011 takes JPEG 2000 files as they are and others as PNG. A record of 2005 has one size and one coding:
    JPEG or JPEG 2000 files as they are where all are that, bare pixels where not. Raises `CaptureError`,
    `OSError`.
    """
    images = [_iris(file) for file in files]
    if kind is PackedFormat.ISO_2005:
        return _irises_2005(images)
    records = [_iris_2011(image) for image in images]
    if kind is PackedFormat.ISO_2011:
        return IrisRecord2011(images=tuple(records), eyes=_eyes(images)).to_bytes()
    parts = [
        (_EYE_SUBTYPES[image.eye], IrisRecord2011(images=(one,), eyes=_eyes([image])).to_bytes())
        for image, one in zip(images, records, strict=True)
    ]
    return _cbeff(BiometricType.IRIS, parts)


_EYE_SUBTYPES = {
    EyePosition.UNKNOWN: None,
    EyePosition.RIGHT: (Subtype.RIGHT,),
    EyePosition.LEFT: (Subtype.LEFT,),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Iris:
    """An eye decoded: its pixels `(H, W) uint8`, how its file is coded, and the file where that is grey."""

    eye: EyePosition
    pixels: NDArray[np.uint8]
    encoding: str
    file: bytes | None


def _iris(file: EyeFile) -> _Iris:
    data = file.path.read_bytes()
    try:
        sample = decode_iris_image(data, eye=file.eye)
        grey = encoding_of(data) in ("jpeg", "jp2", "j2k") and _is_grey(
            picture(data, sample.format, IRIS_LIMITS, colour=True, turning=Turning.AS_STORED).pixels
        )
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{file.path}: {refused}") from refused
    return _Iris(sample.eye, sample.image, sample.format, data if grey else None)


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _eyes(images: Sequence[_Iris]) -> int:
    """What the header of 2011 says: 0 unknown, 1 left or right, 2 left and right."""
    return len({image.eye for image in images} - {EyePosition.UNKNOWN})


def _iris_2011(image: _Iris) -> IrisRepresentation2011:
    height, width = image.pixels.shape
    as_it_is = image.file is not None and image.encoding in ("jp2", "j2k")
    return IrisRepresentation2011(
        eye=image.eye,
        width=width,
        height=height,
        data=image.file if as_it_is and image.file is not None else _png(image.pixels),
        format=10 if as_it_is else 14,
        properties=_AS_SEEN | (_WAS_LOSSY if image.encoding == "jpeg" else 0),
    )


def _irises_2005(images: Sequence[_Iris]) -> bytes:
    sizes = {image.pixels.shape for image in images}
    if len(sizes) != 1:
        raise RecordRefused("the images of an iris record of 2005 have one size: pack them one by one")
    height, width = sizes.pop()
    codings = {None if image.file is None else image.encoding for image in images}
    coding = {"jpeg": 6, "jp2": 14, "j2k": 14}.get(codings.pop() or "") if len(codings) == 1 else None
    by_eye: dict[EyePosition, list[IrisImage2005]] = {}
    for image in images:
        data = image.pixels.tobytes() if coding is None or image.file is None else image.file
        of_eye = by_eye.setdefault(image.eye, [])
        of_eye.append(IrisImage2005(data=data, number=len(of_eye) + 1))
    eyes = tuple(Eye2005(eye=eye, images=tuple(some)) for eye, some in by_eye.items())
    return IrisRecord2005(
        eyes=eyes, width=width, height=height, format=coding or 2, properties=_AS_SEEN
    ).to_bytes()


def packed_face(path: Path, kind: PackedFormat) -> bytes:
    """A record of one portrait, or a CBEFF file around one of 2011.

    JPEG and JPEG 2000 files go in as they are where they are stored upright; others as PNG, in 2005 as
    lossless JPEG 2000. Raises `CaptureError`, `OSError`.
    """
    data = path.read_bytes()
    try:
        sample = decode_face_image(data)
        encoding = encoding_of(data) or ""
        upright = encoding in ("jpeg", "jp2", "j2k") and np.array_equal(
            picture(data, encoding, FACE_LIMITS, colour=True, turning=Turning.AS_STORED).pixels, sample.image
        )
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{path}: {refused}") from refused
    height, width = sample.image.shape[:2]
    grey = _is_grey(sample.image)
    pixels = np.ascontiguousarray(sample.image[..., 0]) if grey else sample.image
    colour_space = _GREY if grey else _RGB
    coding = (0 if encoding == "jpeg" else 1) if upright else None
    if kind is PackedFormat.ISO_2005:
        old = FaceImage2005(
            width=width,
            height=height,
            data=_lossless_jpeg_2000(pixels) if coding is None else data,
            format=1 if coding is None else coding,
            colour_space=colour_space,
        )
        return FaceRecord2005(images=(old,)).to_bytes()
    image = FaceImage(
        width=width,
        height=height,
        data=_png(pixels) if coding is None else data,
        format=3 if coding is None else coding,
        colour_space=colour_space,
    )
    record = FaceRecord(images=(image,)).to_bytes()
    return record if kind is PackedFormat.ISO_2011 else _cbeff(BiometricType.FACE, [(None, record)])


def _cbeff(what: BiometricType, parts: Sequence[tuple[tuple[Subtype, ...] | None, bytes]]) -> bytes:
    """A CBEFF file of records, each with its subtypes."""
    one = Version(major=1, minor=1)
    birs = tuple(
        Bir(
            version=one,
            cbeff_version=one,
            bdb_info=BdbInfo(
                format=RegistryId(organization="257", type=_CBEFF_TYPES[what]),
                types=(what,),
                subtypes=subtypes,
                level=Level.RAW,
            ),
            bdb=record,
        )
        for subtypes, record in parts
    )
    return write_cbeff(CbeffFile(Bir(version=one, cbeff_version=one, birs=birs), Patron.ISO_19785_3))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """`(H, W)` grey or `(H, W, 3)` RGB as PNG."""
    _, png = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[..., ::-1])
    return png.tobytes()


def _lossless_jpeg_2000(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False)
    return stream.getvalue()
