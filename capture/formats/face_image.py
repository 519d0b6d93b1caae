"""Face image records, ISO/IEC 19794-5:2005 and :2011: bytes to typed records and back, byte for byte.

2005, which passports carry too (ICAO 9303)

    14 bytes: FAC 010, length 4, images 2
    each image: length 4, feature points 2, subject 14, points of 8 bytes, kind, format, width 2, height 2,
    colour space, source, device 2, quality 2, the image

2011

    17 bytes: FAC 030, length 4, representations 2, certified 1 (always 0), temporal semantics 2
    each representation: length 4, capture (see `representation.py`), landmarks 2, subject 15, landmarks of
    8 bytes, kind, format, width 2, height 2, sampling, processing 2, cross reference, colour space,
    length 4, the image, extended data (three-dimensional shapes)

The description of the subject (sex, colours, of 2011 also height, properties, expression, pose) and the
extended data are kept as they came; nothing is decoded here.
"""

from dataclasses import dataclass, field

from capture.errors import RecordRefused
from capture.formats.representation import (
    Capture,
    Fields,
    capture_bytes,
    packed,
    read_capture,
    record_fields,
)

MAGIC = b"FAC\x00"
_VERSION_2005 = b"010\x00"
_VERSION = b"030\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceImage2005:
    """One image of the first edition: a JPEG (format 0) or JPEG 2000 (1) file, as it came.

    `subject` has 14 bytes, each of `points` 8.
    """

    width: int
    height: int
    data: bytes
    format: int
    kind: int = 0
    subject: bytes = bytes(14)
    points: tuple[bytes, ...] = ()
    colour_space: int = 0
    source: int = 0
    device: int = 0
    quality: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecord2005:
    """A face image record of the first edition."""

    images: tuple[FaceImage2005, ...]

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what does not fit."""
        body = b"".join(_image_bytes_2005(image) for image in self.images)
        head = packed((14 + len(body), 4, "length"), (len(self.images), 2, "number of images"))
        return MAGIC + _VERSION_2005 + head + body


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceImage:
    """One image: a JPEG (format 0), JPEG 2000 (1, lossless 2) or PNG (3) file, as it came.

    `subject` has 15 bytes, each of `landmarks` 8.
    """

    width: int
    height: int
    data: bytes
    format: int
    kind: int = 0
    subject: bytes = bytes(15)
    landmarks: tuple[bytes, ...] = ()
    sampling: int = 0
    processing: int = 0
    cross_reference: int = 0
    colour_space: int = 0
    capture: Capture = field(default_factory=Capture)
    extended: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecord:
    """A face image record; `temporal` tells how its images follow each other."""

    images: tuple[FaceImage, ...]
    temporal: int = 0

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what does not fit."""
        body = b"".join(_representation_bytes(image) for image in self.images)
        head = packed(
            (17 + len(body), 4, "length"),
            (len(self.images), 2, "number of representations"),
            (0, 1, "certification flag"),
            (self.temporal, 2, "temporal semantics"),
        )
        return MAGIC + _VERSION + head + body


def read_face_images(data: bytes) -> FaceRecord2005 | FaceRecord:
    """Take a face image record apart; `to_bytes` of the result gives `data` again.

    Raises `RecordRefused`, and nothing else. Cost: copies each image once.
    """
    version = data[4:8]
    if version not in (_VERSION_2005, _VERSION):
        raise RecordRefused(f"version {version!r} of face image records is not known here", 4)
    fields = record_fields(data, MAGIC, 4)
    if version == _VERSION_2005:
        count = fields.number(2, "number of images")
        faces = tuple(_image_2005(_counted(fields, "image")) for _ in range(count))
        fields.done("the record")
        return FaceRecord2005(images=faces)
    count, flag = fields.number(2, "number of representations"), fields.number(1, "certification flag")
    if flag:
        raise RecordRefused(f"face records have no certifications; the flag is {flag}", 14)
    temporal = fields.number(2, "temporal semantics")
    images = tuple(_representation(_counted(fields, "representation")) for _ in range(count))
    fields.done("the record")
    return FaceRecord(images=images, temporal=temporal)


def _counted(fields: Fields, what: str) -> Fields:
    """A cursor behind the length that the next part begins with, to the part's end."""
    length = int.from_bytes(fields.data[fields.at : fields.at + 4], "big")
    part = fields.part(length, what)
    part.number(4, f"length of the {what}")
    return part


def _image_2005(part: Fields) -> FaceImage2005:
    points = part.number(2, "number of feature points")
    subject = part.take(14, "the subject")
    features = tuple(part.take(8, "feature point") for _ in range(points))
    kind, image_format = part.take(2, "kind of image")
    width, height = part.number(2, "width"), part.number(2, "height")
    colour_space, source = part.take(2, "colour space")
    return FaceImage2005(
        width=width,
        height=height,
        format=image_format,
        kind=kind,
        subject=subject,
        points=features,
        colour_space=colour_space,
        source=source,
        device=part.number(2, "device"),
        quality=part.number(2, "quality"),
        data=part.rest(),
    )


def _image_bytes_2005(image: FaceImage2005) -> bytes:
    if len(image.subject) != 14 or any(len(point) != 8 for point in image.points):
        raise RecordRefused("a subject is described in 14 bytes and a feature point in 8")
    head = packed((len(image.points), 2, "number of feature points")) + image.subject + b"".join(image.points)
    head += packed(
        (image.kind, 1, "kind"),
        (image.format, 1, "format"),
        (image.width, 2, "width"),
        (image.height, 2, "height"),
        (image.colour_space, 1, "colour space"),
        (image.source, 1, "source"),
        (image.device, 2, "device"),
        (image.quality, 2, "quality"),
    )
    return packed((4 + len(head) + len(image.data), 4, "length")) + head + image.data


def _representation(part: Fields) -> FaceImage:
    capture, landmarks = read_capture(part), part.number(2, "number of landmarks")
    subject = part.take(15, "the subject")
    points = tuple(part.take(8, "landmark") for _ in range(landmarks))
    kind, image_format = part.take(2, "kind of image")
    width, height = part.number(2, "width"), part.number(2, "height")
    sampling, processing = part.number(1, "sampling"), part.number(2, "processing")
    cross_reference, colour_space = part.take(2, "colour space")
    return FaceImage(
        width=width,
        height=height,
        data=part.take(part.number(4, "length of the image"), "the image"),
        format=image_format,
        kind=kind,
        subject=subject,
        landmarks=points,
        sampling=sampling,
        processing=processing,
        cross_reference=cross_reference,
        colour_space=colour_space,
        capture=capture,
        extended=part.rest(),
    )


def _representation_bytes(image: FaceImage) -> bytes:
    if len(image.subject) != 15 or any(len(point) != 8 for point in image.landmarks):
        raise RecordRefused("a subject is described in 15 bytes and a landmark in 8")
    body = capture_bytes(image.capture) + packed((len(image.landmarks), 2, "number of landmarks"))
    body += image.subject + b"".join(image.landmarks)
    body += packed(
        (image.kind, 1, "kind"),
        (image.format, 1, "format"),
        (image.width, 2, "width"),
        (image.height, 2, "height"),
        (image.sampling, 1, "sampling"),
        (image.processing, 2, "processing"),
        (image.cross_reference, 1, "cross reference"),
        (image.colour_space, 1, "colour space"),
        (len(image.data), 4, "length of the image"),
    )
    return packed((4 + len(body) + len(image.data) + len(image.extended), 4, "length")) + (
        body + image.data + image.extended
    )
