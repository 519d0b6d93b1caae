"""Iris image records: ISO/IEC 19794-6:2005, the IREX dialect of it, and :2011, byte for byte.

    2005   45 bytes: IIR and version, length 4, device 2, eyes 1, length of this header 2, properties 2,
           diameter 2, format 2, width 2, height 2, bit depth, transform, unit 16
           each eye: code 1, images 2; each image: number 2, quality 1, rotation 2, uncertainty 2, length 4
    IREX   as 2005, but version 015, a kind of one byte before the length, and each image: length 4,
           number 2, quality 1, geometry 51
    2011   16 bytes: IIR 020, length 4, representations 2, certified 1 (always 0), eyes 1
           each representation: length 4, capture (see `representation.py`), number 2, eye, kind, format,
           properties, width 2, height 2, bit depth, range 2, geometry 16, length 4, the image

Geometry (rotation, uncertainty, centre, diameter, boundaries) is kept as it came; nothing is decoded here.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from capture.errors import RecordRefused
from capture.formats.representation import (
    Capture,
    Fields,
    capture_bytes,
    packed,
    read_capture,
    record_fields,
)

MAGIC = b"IIR\x00"
_VERSION_2011 = b"020\x00"


class Layout2005(IntEnum):
    """How a record of the first edition lays out its images, by the number in its version field."""

    ISO = 10
    ISO_DRAFT = 13
    IREX = 15


class IrisCoding(Enum):
    """How an image lies in its record."""

    BARE_GREY = "bare grey pixels"
    BARE_COLOUR = "bare colour pixels"
    JPEG = "JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    PNG = "PNG"


_CODINGS_2005 = {
    2: IrisCoding.BARE_GREY,
    4: IrisCoding.BARE_COLOUR,
    6: IrisCoding.JPEG,
    8: IrisCoding.JPEG,
    10: IrisCoding.JPEG_LS,
    12: IrisCoding.JPEG_LS,
    14: IrisCoding.JPEG_2000,
    16: IrisCoding.JPEG_2000,
}
_CODINGS_2011 = {2: IrisCoding.BARE_GREY, 10: IrisCoding.JPEG_2000, 14: IrisCoding.PNG}
# IREX: the iris sampled along rays from the pupil's centre, by the camera or from a rectilinear image.
_POLAR_KINDS = (16, 48)
_FLIPPED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class IrisView:
    """One image of a record of either edition, as decoding needs it.

    `eye`: 1 right, 2 left, 0 unknown. `mirrored`, `upside_down`: flipped against what somebody in front of
    the person sees. `rectilinear`: a picture, not an iris unrolled to polar coordinates.
    """

    eye: int
    width: int
    height: int
    data: bytes
    coding: IrisCoding
    bit_depth: int
    mirrored: bool
    upside_down: bool
    rectilinear: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IrisImage2005:
    """One image: a file or bare pixels as they came; `geometry` has 4 bytes, 51 in IREX."""

    data: bytes
    number: int = 1
    quality: int = 255
    geometry: bytes = b"\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye2005:
    """The images of one eye: 1 right, 2 left, 0 unknown."""

    eye: int
    images: tuple[IrisImage2005, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IrisRecord2005:
    """A record of the first edition; one size and format for all images.

    `unit` names the device, 16 bytes; `kind` is what IREX says before the length, 0 elsewhere.
    """

    eyes: tuple[Eye2005, ...]
    width: int
    height: int
    format: int
    layout: Layout2005 = Layout2005.ISO
    kind: int = 0
    device: int = 0
    header_length: int = 45
    properties: int = 0
    diameter: int = 0
    bit_depth: int = 8
    transform: int = 0
    unit: bytes = bytes(16)

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what does not fit."""
        if len(self.unit) != 16:
            raise RecordRefused(f"the name of the unit has 16 bytes, not {len(self.unit)}")
        body = b"".join(
            packed((eye.eye, 1, "eye"), (len(eye.images), 2, "number of images"))
            + b"".join(_image_bytes(image, self.layout) for image in eye.images)
            for eye in self.eyes
        )
        irex = self.layout is Layout2005.IREX
        return (
            MAGIC
            + f"{self.layout:03d}\x00".encode()
            + packed(
                (self.kind, irex, "kind"),
                (45 + irex + len(body), 4, "length"),
                (self.device, 2, "device"),
                (len(self.eyes), 1, "number of eyes"),
                (self.header_length, 2, "length of the header"),
                (self.properties, 2, "properties"),
                (self.diameter, 2, "diameter"),
                (self.format, 2, "format"),
                (self.width, 2, "width"),
                (self.height, 2, "height"),
                (self.bit_depth, 1, "bit depth"),
                (self.transform, 1, "transform"),
            )
            + self.unit
            + body
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IrisRepresentation2011:
    """One image of the 2011 edition; `eye` is 1 right, 2 left, 0 unknown; `geometry` has 16 bytes.

    `kind` tells how it is cropped, `format` how it is coded (2 bare, 10 JPEG 2000, 14 PNG).
    """

    eye: int
    width: int
    height: int
    data: bytes
    format: int
    kind: int = 1
    number: int = 1
    properties: int = 0
    bit_depth: int = 8
    distance: int = 0
    geometry: bytes = b"\xff\xff\xff\xff" + bytes(12)
    capture: Capture = field(default_factory=Capture)


@dataclass(frozen=True, slots=True, kw_only=True)
class IrisRecord2011:
    """A record of ISO/IEC 19794-6:2011."""

    images: tuple[IrisRepresentation2011, ...]
    eyes: int = 1

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what does not fit."""
        body = b"".join(_representation_bytes(image) for image in self.images)
        head = packed(
            (16 + len(body), 4, "length"),
            (len(self.images), 2, "number of representations"),
            (0, 1, "certification flag"),
            (self.eyes, 1, "number of eyes"),
        )
        return MAGIC + _VERSION_2011 + head + body


def iris_views(record: IrisRecord2005 | IrisRecord2011) -> tuple[IrisView, ...]:
    """The images of a record, in its order. Raises `RecordRefused` for a way of coding no edition knows."""
    if isinstance(record, IrisRecord2005):
        properties = record.properties
        return tuple(
            IrisView(
                eye=eye.eye,
                width=record.width,
                height=record.height,
                data=image.data,
                coding=_coding(record.format, _CODINGS_2005),
                bit_depth=record.bit_depth,
                mirrored=properties & 3 == _FLIPPED,
                upside_down=properties >> 2 & 3 == _FLIPPED,
                rectilinear=record.kind not in _POLAR_KINDS,
            )
            for eye in record.eyes
            for image in eye.images
        )
    return tuple(
        IrisView(
            eye=image.eye,
            width=image.width,
            height=image.height,
            data=image.data,
            coding=_coding(image.format, _CODINGS_2011),
            bit_depth=image.bit_depth,
            mirrored=image.properties & 3 == _FLIPPED,
            upside_down=image.properties >> 2 & 3 == _FLIPPED,
        )
        for image in record.images
    )


def _coding(number: int, known: dict[int, IrisCoding]) -> IrisCoding:
    if number not in known:
        raise RecordRefused(f"images of format {number} are not known here")
    return known[number]


def read_iris_images(data: bytes) -> IrisRecord2005 | IrisRecord2011:
    """Take an iris image record apart; `to_bytes` of the result gives `data` again.

    Raises `RecordRefused`, and nothing else. Cost: copies each image once.
    """
    version = data[4:8]
    if version == _VERSION_2011:
        return _read_2011(record_fields(data, MAGIC, 4))
    for layout in Layout2005:
        if version == f"{layout:03d}\x00".encode():
            return _read_2005(data, layout)
    raise RecordRefused(f"version {version!r} of iris image records is not known here", 4)


def _read_2005(data: bytes, layout: Layout2005) -> IrisRecord2005:
    irex = layout is Layout2005.IREX
    fields = record_fields(data, MAGIC, 4, before_length=irex)
    device, count = fields.number(2, "device"), fields.number(1, "number of eyes")
    header_length, properties, diameter, image_format, width, height = (
        fields.number(2, "header") for _ in range(6)
    )
    bit_depth, transform = fields.number(1, "bit depth"), fields.number(1, "transform")
    unit = fields.take(16, "name of the unit")
    eyes = tuple(
        Eye2005(
            eye=fields.number(1, "eye"),
            images=tuple(_image(fields, layout) for _ in range(fields.number(2, "number of images"))),
        )
        for _ in range(count)
    )
    fields.done("the record")
    return IrisRecord2005(
        eyes=eyes,
        width=width,
        height=height,
        format=image_format,
        layout=layout,
        kind=data[8] if irex else 0,
        device=device,
        header_length=header_length,
        properties=properties,
        diameter=diameter,
        bit_depth=bit_depth,
        transform=transform,
        unit=unit,
    )


def _image(fields: Fields, layout: Layout2005) -> IrisImage2005:
    if layout is Layout2005.IREX:
        length, number = fields.number(4, "length"), fields.number(2, "number")
        quality, geometry = fields.number(1, "quality"), fields.take(51, "geometry")
    else:
        number, quality = fields.number(2, "number"), fields.number(1, "quality")
        geometry, length = fields.take(4, "rotation"), fields.number(4, "length")
    data = fields.take(length, "the image")
    return IrisImage2005(data=data, number=number, quality=quality, geometry=geometry)


def _image_bytes(image: IrisImage2005, layout: Layout2005) -> bytes:
    irex = layout is Layout2005.IREX
    if len(image.geometry) != (51 if irex else 4):
        raise RecordRefused(f"{len(image.geometry)} bytes of geometry do not fit this kind of record")
    length = packed((len(image.data), 4, "length of the image"))
    head = packed((image.number, 2, "number"), (image.quality, 1, "quality")) + image.geometry
    return (length + head if irex else head + length) + image.data


def _read_2011(fields: Fields) -> IrisRecord2011:
    count, flag = fields.number(2, "number of representations"), fields.number(1, "certification flag")
    if flag:
        raise RecordRefused(f"iris records have no certifications; the flag is {flag}", 14)
    eyes = fields.number(1, "number of eyes")
    images = []
    for _ in range(count):
        part = fields.part(int.from_bytes(fields.data[fields.at : fields.at + 4], "big"), "representation")
        part.number(4, "length of the representation")
        capture, number = read_capture(part), part.number(2, "representation number")
        eye, kind, image_format, properties = part.take(4, "kind of image")
        width, height = part.number(2, "width"), part.number(2, "height")
        bit_depth, distance = part.number(1, "bit depth"), part.number(2, "distance")
        geometry = part.take(16, "geometry")
        data = part.take(part.number(4, "length of the image"), "the image")
        part.done("the representation")
        images.append(
            IrisRepresentation2011(
                eye=eye,
                width=width,
                height=height,
                data=data,
                format=image_format,
                kind=kind,
                number=number,
                properties=properties,
                bit_depth=bit_depth,
                distance=distance,
                geometry=geometry,
                capture=capture,
            )
        )
    fields.done("the record")
    return IrisRecord2011(images=tuple(images), eyes=eyes)


def _representation_bytes(image: IrisRepresentation2011) -> bytes:
    if len(image.geometry) != 16:
        raise RecordRefused(f"the geometry of an iris has 16 bytes, not {len(image.geometry)}")
    body = capture_bytes(image.capture)
    body += packed(
        (image.number, 2, "representation number"),
        (image.eye, 1, "eye"),
        (image.kind, 1, "kind"),
        (image.format, 1, "format"),
        (image.properties, 1, "properties"),
        (image.width, 2, "width"),
        (image.height, 2, "height"),
        (image.bit_depth, 1, "bit depth"),
        (image.distance, 2, "distance"),
    )
    body += image.geometry + packed((len(image.data), 4, "length of the image")) + image.data
    return packed((4 + len(body), 4, "length of the representation")) + body
