"""Finger image records, ISO/IEC 19794-4:2005 and :2011: bytes to typed records and back, byte for byte.

    2005   32 bytes: FIR 010, length 6, device 2, level 2, views 1, grid 11, reserved 2
           each view 14 bytes: length 4, position, views, number, quality, impression, width 2, height 2,
           reserved; then the image
    2011   16 bytes: FIR 020, length 4, representations 2, certified 1, positions 1
           each representation: length 4, capture (see `representation.py`), certifications where certified,
           position, number, grid, impression, width 2, height 2, length 4, the image, extended data

The grid is scale unit, scan and image resolution (across, down), bit depth and compression; 2005 gives one
for all its views. Extended data (segmentation, annotation, comments) is kept as it came. Nothing is decoded
here: `capture/decode.py` makes samples of the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from capture.errors import RecordRefused
from capture.formats.representation import (
    Capture,
    Certification,
    Fields,
    capture_bytes,
    packed,
    read_capture,
    record_fields,
)

MAGIC = b"FIR\x00"
_VERSION_2005, _VERSION_2011 = b"010\x00", b"020\x00"
_CM_PER_INCH = 2.54


class Compression(Enum):
    """How the pixels of an image are coded."""

    NONE = "none"
    PACKED = "packed"  # uncompressed, pixels of fewer than 8 bits side by side
    WSQ = "wsq"
    JPEG = "jpeg"
    JPEG_2000 = "jpeg 2000"
    JPEG_2000_LOSSLESS = "jpeg 2000 lossless"
    PNG = "png"


_CODES_2011 = tuple(Compression)
_CODES_2005 = tuple(code for code in Compression if code is not Compression.JPEG_2000_LOSSLESS)


class ScaleUnit(IntEnum):
    """What resolutions are counted in."""

    PIXELS_PER_INCH = 1
    PIXELS_PER_CM = 2


@dataclass(frozen=True, slots=True)
class Grid:
    """Resolutions (across, down) as the scanner had and as the image has them, and how pixels are coded."""

    scan_resolution: tuple[int, int]
    resolution: tuple[int, int]
    compression: Compression
    unit: ScaleUnit = ScaleUnit.PIXELS_PER_INCH
    bit_depth: int = 8

    @property
    def ppi(self) -> tuple[float, float]:
        """The image's pixels per inch, across and down."""
        factor = _CM_PER_INCH if self.unit is ScaleUnit.PIXELS_PER_CM else 1.0
        return self.resolution[0] * factor, self.resolution[1] * factor


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerImage:
    """One image as both editions describe it; `data` is a compressed file or bare pixels, row by row.

    `position` is the standard's code, 0-10 for single fingers as in `FingerPosition`, others for slaps and
    palms; `number` counts the images of one position; `impression` is the code of how it was taken.
    """

    position: int
    width: int
    height: int
    grid: Grid
    data: bytes
    number: int = 0
    impression: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerView2005(FingerImage):
    """An image with what only the 2005 edition says: quality (254 unknown), number of its finger's views."""

    quality: int = 254
    views: int = 1
    reserved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerRepresentation2011(FingerImage):
    """An image with what only the 2011 edition says; `extended` is the data behind the image, as it came."""

    capture: Capture = field(default_factory=Capture)
    certifications: tuple[Certification, ...] = ()
    extended: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerImageRecord2005:
    """A record of ISO/IEC 19794-4:2005; its images share one grid."""

    images: tuple[FingerView2005, ...]
    device: int = 0
    acquisition_level: int = 31
    reserved: int = 0

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what the edition cannot say."""
        if len({image.grid for image in self.images}) != 1:
            raise RecordRefused("a record of 2005 holds at least one image, and all have one grid")
        head = packed(
            (self.device, 2, "device"),
            (self.acquisition_level, 2, "acquisition level"),
            (len(self.images), 1, "number of views"),
        )
        head += _grid_bytes(self.images[0].grid, _CODES_2005) + packed((self.reserved, 2, "reserved"))
        views = b"".join(
            packed(
                (14 + len(image.data), 4, "length of the view"),
                (image.position, 1, "position"),
                (image.views, 1, "number of views"),
                (image.number, 1, "view number"),
                (image.quality, 1, "quality"),
                (image.impression, 1, "impression"),
                (image.width, 2, "width"),
                (image.height, 2, "height"),
                (image.reserved, 1, "reserved"),
            )
            + _checked(image)
            for image in self.images
        )
        length = 14 + len(head) + len(views)
        return MAGIC + _VERSION_2005 + packed((length, 6, "length")) + head + views


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerImageRecord2011:
    """A record of ISO/IEC 19794-4:2011; `positions` is how many fingers or palms it says it shows."""

    images: tuple[FingerRepresentation2011, ...]
    certified: bool = False
    positions: int = 1

    def to_bytes(self) -> bytes:
        """The record as bytes. Raises `RecordRefused` for what the edition cannot say."""
        if not self.images:
            raise RecordRefused("a record holds at least one image")
        body = b"".join(_representation_bytes(image, self.certified) for image in self.images)
        head = packed(
            (16 + len(body), 4, "length"),
            (len(self.images), 2, "number of representations"),
            (self.certified, 1, "certification flag"),
            (self.positions, 1, "number of positions"),
        )
        return MAGIC + _VERSION_2011 + head + body


def read_finger_images(data: bytes) -> FingerImageRecord2005 | FingerImageRecord2011:
    """Take a finger image record apart; `to_bytes` of the result gives `data` again.

    Every length is checked against the bytes that are there. Raises `RecordRefused`, and nothing else.
    Cost: copies each image once.
    """
    version = data[4:8]
    if version == _VERSION_2005:
        return _read_2005(record_fields(data, MAGIC, 6))
    if version == _VERSION_2011:
        return _read_2011(record_fields(data, MAGIC, 4))
    raise RecordRefused(f"version {version!r} of finger image records is not known here", 4)


def _read_2005(fields: Fields) -> FingerImageRecord2005:
    device = fields.number(2, "device")
    level = fields.number(2, "acquisition level")
    count = fields.number(1, "number of views")
    grid = _grid(fields, _CODES_2005)
    reserved = fields.number(2, "reserved")
    images = []
    for _ in range(count):
        view = fields.part(int.from_bytes(fields.data[fields.at : fields.at + 4], "big"), "view")
        view.number(4, "length of the view")
        position, views, number, quality, impression = view.take(5, "view")
        width, height = view.number(2, "width"), view.number(2, "height")
        last = view.number(1, "reserved")
        images.append(
            FingerView2005(
                position=position,
                width=width,
                height=height,
                grid=grid,
                data=view.rest(),
                number=number,
                impression=impression,
                quality=quality,
                views=views,
                reserved=last,
            )
        )
        _checked(images[-1])
    fields.done("the record")
    if not images:
        raise RecordRefused("the record holds no image", 18)
    return FingerImageRecord2005(
        images=tuple(images), device=device, acquisition_level=level, reserved=reserved
    )


def _read_2011(fields: Fields) -> FingerImageRecord2011:
    count = fields.number(2, "number of representations")
    flag = fields.number(1, "certification flag")
    if flag > 1:
        raise RecordRefused(f"the certification flag is {flag}, not 0 or 1", 14)
    positions = fields.number(1, "number of positions")
    images = []
    for _ in range(count):
        part = fields.part(int.from_bytes(fields.data[fields.at : fields.at + 4], "big"), "representation")
        images.append(_representation(part, certified=flag == 1))
    fields.done("the record")
    if not images:
        raise RecordRefused("the record holds no image", 12)
    return FingerImageRecord2011(images=tuple(images), certified=flag == 1, positions=positions)


def _representation(part: Fields, *, certified: bool) -> FingerRepresentation2011:
    part.number(4, "length of the representation")
    capture = read_capture(part)
    certifications = tuple(
        Certification(part.number(2, "certification authority"), part.number(1, "certification scheme"))
        for _ in range(part.number(1, "number of certifications") if certified else 0)
    )
    position, number = part.number(1, "position"), part.number(1, "representation number")
    grid = _grid(part, _CODES_2011)
    impression = part.number(1, "impression")
    width, height = part.number(2, "width"), part.number(2, "height")
    image = FingerRepresentation2011(
        position=position,
        width=width,
        height=height,
        grid=grid,
        data=part.take(part.number(4, "length of the image"), "the image"),
        number=number,
        impression=impression,
        capture=capture,
        certifications=certifications,
        extended=part.rest(),
    )
    _checked(image)
    return image


def _representation_bytes(image: FingerRepresentation2011, certified: bool) -> bytes:
    if image.certifications and not certified:
        raise RecordRefused("certifications need the record's certification flag")
    body = capture_bytes(image.capture)
    if certified:
        body += packed((len(image.certifications), 1, "number of certifications"))
        for one in image.certifications:
            body += packed((one.authority, 2, "certification authority"), (one.scheme, 1, "scheme"))
    body += packed((image.position, 1, "position"), (image.number, 1, "representation number"))
    body += _grid_bytes(image.grid, _CODES_2011)
    body += packed(
        (image.impression, 1, "impression"),
        (image.width, 2, "width"),
        (image.height, 2, "height"),
        (len(image.data), 4, "length of the image"),
    )
    body += _checked(image) + image.extended
    return packed((4 + len(body), 4, "length of the representation")) + body


def _grid(fields: Fields, codes: Sequence[Compression]) -> Grid:
    at = fields.at
    unit = fields.number(1, "scale unit")
    if unit not in set(ScaleUnit):
        raise RecordRefused(f"scale unit {unit} is not known here", at)
    across, down, image_across, image_down = (fields.number(2, "resolution") for _ in range(4))
    depth, code = fields.number(1, "bit depth"), fields.number(1, "compression")
    if not 1 <= depth <= 16:
        raise RecordRefused(f"pixels have 1 to 16 bits, not {depth}", fields.at - 2)
    if code >= len(codes):
        raise RecordRefused(f"compression {code} is not known here", fields.at - 1)
    return Grid((across, down), (image_across, image_down), codes[code], ScaleUnit(unit), depth)


def _grid_bytes(grid: Grid, codes: Sequence[Compression]) -> bytes:
    if grid.compression not in codes:
        raise RecordRefused(f"this edition has no code for {grid.compression.value}")
    if not 1 <= grid.bit_depth <= 16:
        raise RecordRefused(f"pixels have 1 to 16 bits, not {grid.bit_depth}")
    return packed(
        (grid.unit, 1, "scale unit"),
        *((number, 2, "resolution") for number in (*grid.scan_resolution, *grid.resolution)),
        (grid.bit_depth, 1, "bit depth"),
        (codes.index(grid.compression), 1, "compression"),
    )


def _checked(image: FingerImage) -> bytes:
    """The image's bytes, if there are some and, of bare pixels, as many as its size says."""
    if image.width == 0 or image.height == 0 or not image.data:
        raise RecordRefused(f"an image of {image.width} x {image.height} pixels in {len(image.data)} bytes")
    bare = bare_length(image)
    if bare is not None and len(image.data) != bare:
        raise RecordRefused(
            f"{image.width} x {image.height} pixels of {image.grid.bit_depth} bits are {bare} bytes, "
            f"not {len(image.data)}"
        )
    return image.data


def bare_length(image: FingerImage) -> int | None:
    """How many bytes the uncompressed pixels of an image take, None where it is compressed."""
    count, depth = image.width * image.height, image.grid.bit_depth
    if image.grid.compression is Compression.NONE:
        return count * (1 if depth <= 8 else 2)
    if image.grid.compression is Compression.PACKED:
        return (count * depth + 7) // 8
    return None
