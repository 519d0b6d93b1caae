"""Extended data of minutiae records: ridge counts, cores and deltas, zonal quality.

Records keep blocks of extended data as bytes; here those that the standards define are read and written.
Nothing is lost either way: a block that is read is written as the same bytes.

    1  ridge counts      method 1, then three bytes each: two minutiae, numbered from 1, ridges between them
    2  cores and deltas  number 1, cores of 4 or 5 bytes, number 1, deltas of 4 or 7 bytes: x and y 2 each,
                         one angle of a core, three of a delta. Whether there are angles says bit 14 of x,
                         in ANSI 378 bit 6 of the number, for all alike
    3  zonal quality     2011: vendor 2, algorithm 2; cell width 1, height 1, bits of a cell 1, then the cells
                         row by row
    from 256             a vendor's own
"""

from dataclasses import dataclass
from typing import NamedTuple

from capture.errors import RecordRefused
from capture.formats.minutiae_record import MAX_COORDINATE, ExtendedBlock, RecordFormat
from capture.formats.representation import Fields, packed

RIDGE_COUNTS, CORES_AND_DELTAS, ZONAL_QUALITY = 1, 2, 3
_ANGLES_IN_X, _ANGLES_IN_NUMBER = 0x4000, 0x40
_MAX_POINTS = 15


class RidgeCount(NamedTuple):
    """Ridges crossed between two minutiae, which are numbered from 1 in the order of the record."""

    first: int
    second: int
    ridges: int


@dataclass(frozen=True, slots=True)
class RidgeCounts:
    """`method`: 0 as its maker chose, 1 nearest neighbour of each quadrant, 2 of each octant."""

    method: int
    counts: tuple[RidgeCount, ...]


class SingularPoint(NamedTuple):
    """A core or a delta in pixels; one angle, three of a delta, or none, in the units of the record."""

    x: int
    y: int
    angles: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CoresAndDeltas:
    """Singular points of a print."""

    cores: tuple[SingularPoint, ...]
    deltas: tuple[SingularPoint, ...]


@dataclass(frozen=True, slots=True)
class ZonalQuality:
    """Quality by cells of `cell_width` x `cell_height` pixels, `depth` bits each, packed in `cells`."""

    cell_width: int
    cell_height: int
    depth: int
    cells: bytes
    vendor: int = 0
    algorithm: int = 0


ExtendedData = RidgeCounts | CoresAndDeltas | ZonalQuality


def read_extended_data(block: ExtendedBlock, kind: RecordFormat) -> ExtendedData | None:
    """What a block of a record of this format says; None for a vendor's block and for reserved types.

    Raises `RecordRefused` for a block that is not what its type says; offsets count from its first byte.
    """
    fields = Fields(block.data)
    match block.type:
        case 1:
            data: ExtendedData = _read_ridge_counts(fields)
        case 2:
            data = _read_cores_and_deltas(fields, kind)
        case 3 if kind is not RecordFormat.ANSI_378:
            data = _read_zonal_quality(fields, kind)
        case _:
            return None
    fields.done("the block")
    return data


def extended_block(data: ExtendedData, kind: RecordFormat) -> ExtendedBlock:
    """What `read_extended_data` reads. Raises `RecordRefused` for values that have no place in the format."""
    match data:
        case RidgeCounts():
            numbers = (data.method, *(number for count in data.counts for number in count))
            block = ExtendedBlock(RIDGE_COUNTS, packed(*((number, 1, "ridge count") for number in numbers)))
        case CoresAndDeltas():
            points = _point_bytes(data.cores, kind) + _point_bytes(data.deltas, kind)
            block = ExtendedBlock(CORES_AND_DELTAS, points)
        case ZonalQuality():
            by = packed((data.vendor, 2, "vendor"), (data.algorithm, 2, "algorithm"))
            head = packed(
                (data.cell_width, 1, "cell width"),
                (data.cell_height, 1, "cell height"),
                (data.depth, 1, "depth"),
            )
            block = ExtendedBlock(
                ZONAL_QUALITY, (by if kind is RecordFormat.ISO_2011 else b"") + head + data.cells
            )
    if read_extended_data(block, kind) != data:
        raise RecordRefused(f"a value has no place in the extended data of {kind}")
    return block


def _read_ridge_counts(fields: Fields) -> RidgeCounts:
    method = fields.number(1, "method of counting")
    counts = []
    while fields.at < fields.end:
        counts.append(RidgeCount(*fields.take(3, "ridge count")))
    return RidgeCounts(method, tuple(counts))


def _read_cores_and_deltas(fields: Fields, kind: RecordFormat) -> CoresAndDeltas:
    return CoresAndDeltas(_read_points(fields, kind, 1), _read_points(fields, kind, 3))


def _read_points(fields: Fields, kind: RecordFormat, angles: int) -> tuple[SingularPoint, ...]:
    number = fields.number(1, "number of points")
    ansi = kind is RecordFormat.ANSI_378
    all_angles = ansi and bool(number & _ANGLES_IN_NUMBER)
    count = number & ~_ANGLES_IN_NUMBER if ansi else number
    if count > _MAX_POINTS or (all_angles and not count):
        raise RecordRefused(f"at most {_MAX_POINTS} points, not {number}", fields.at - 1)
    points = []
    for _ in range(count):
        at = fields.at
        x, y = fields.number(2, "x"), fields.number(2, "y")
        has_angles = all_angles if ansi else bool(x & _ANGLES_IN_X)
        x = x if ansi else x & ~_ANGLES_IN_X
        if max(x, y) > MAX_COORDINATE:
            raise RecordRefused("what is reserved is 0", at)
        points.append(SingularPoint(x, y, tuple(fields.take(angles if has_angles else 0, "angles"))))
    return tuple(points)


def _point_bytes(points: tuple[SingularPoint, ...], kind: RecordFormat) -> bytes:
    ansi = kind is RecordFormat.ANSI_378
    flag = _ANGLES_IN_NUMBER if ansi and points and points[0].angles else 0
    written = packed((flag | len(points), 1, "number of points"))
    for point in points:
        has_angles = _ANGLES_IN_X if point.angles and not ansi else 0
        written += packed(
            (has_angles | point.x, 2, "x"),
            (point.y, 2, "y"),
            *((angle, 1, "angle") for angle in point.angles),
        )
    return written


def _read_zonal_quality(fields: Fields, kind: RecordFormat) -> ZonalQuality:
    size = 2 if kind is RecordFormat.ISO_2011 else 0
    vendor, algorithm = fields.number(size, "vendor"), fields.number(size, "algorithm")
    width, height = fields.number(1, "cell width"), fields.number(1, "cell height")
    depth = fields.number(1, "depth")
    if not (width and height and 1 <= depth <= 8):
        raise RecordRefused(f"cells of {width} x {height} pixels and {depth} bits", fields.at - 3)
    return ZonalQuality(width, height, depth, fields.rest(), vendor, algorithm)
