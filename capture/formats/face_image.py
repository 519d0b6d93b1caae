"""Face image records, ISO/IEC 19794-5:2011: bytes to typed records and back, byte for byte.

    17 bytes: FAC 030, length 4, representations 2, certified 1 (always 0), temporal semantics 2
    each representation: length 4, capture (see `representation.py`), landmarks 2, subject 15, landmarks of
    8 bytes, kind, format, width 2, height 2, sampling, processing 2, cross reference, colour space,
    length 4, the image, extended data (three-dimensional shapes)

The description of the subject (sex, colours, height, properties, expression, pose) and the extended data are
kept as they came; nothing is decoded here.
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
_VERSION = b"030\x00"


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


def read_face_images(data: bytes) -> FaceRecord:
    """Take a face image record apart; `to_bytes` of the result gives `data` again.

    Raises `RecordRefused`, and nothing else. Cost: copies each image once.
    """
    if data[4:8] != _VERSION:
        raise RecordRefused(f"version {data[4:8]!r} of face image records is not known here", 4)
    fields = record_fields(data, MAGIC, 4)
    count, flag = fields.number(2, "number of representations"), fields.number(1, "certification flag")
    if flag:
        raise RecordRefused(f"face records have no certifications; the flag is {flag}", 14)
    temporal = fields.number(2, "temporal semantics")
    images = []
    for _ in range(count):
        length = int.from_bytes(fields.data[fields.at : fields.at + 4], "big")
        images.append(_representation(fields.part(length, "representation")))
    fields.done("the record")
    return FaceRecord(images=tuple(images), temporal=temporal)


def _representation(part: Fields) -> FaceImage:
    part.number(4, "length of the representation")
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
