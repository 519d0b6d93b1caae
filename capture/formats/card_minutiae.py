"""Minutiae as cards hold them: ISO/IEC 19794-2, normal (5 bytes) and compact (3 bytes), byte for byte.

    normal   type 2 bits, x 14, reserved 2, y 14, angle 8: units of 0.01 mm and 1/256 turn
    compact  x 8, y 8, type 2, angle 6: units of 0.1 mm and 1/64 turn

Neither has a header: size, resolution, position and quality are not said. On a card the minutiae are the data
object 81 within the biometric data template 7F2E (ISO/IEC 7816-11); whatever other objects it holds are kept.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from capture.errors import RecordRefused
from capture.formats.minutiae_record import MAX_COORDINATE, Minutia, MinutiaType
from capture.formats.representation import Fields, packed

TEMPLATE_TAG = b"\x7f\x2e"
MINUTIAE_TAG = 0x81


class CardSize(StrEnum):
    """How much room a minutia takes."""

    NORMAL = "iso2005-card"
    COMPACT = "iso2005-card-compact"

    @property
    def unit(self) -> float:
        """Millimetres of one step of x and y."""
        return 0.01 if self is CardSize.NORMAL else 0.1

    @property
    def angles(self) -> int:
        """How many steps of a minutia's angle make a turn."""
        return 256 if self is CardSize.NORMAL else 64

    @property
    def limit(self) -> int:
        """The largest x and y."""
        return MAX_COORDINATE if self is CardSize.NORMAL else 0xFF


@dataclass(frozen=True, slots=True)
class CardMinutiae:
    """Minutiae of one finger in the units of `size`, in the order the card wants; qualities are unknown.

    `before`, `after`: the other data objects around the minutiae, (tag, value) each; None for minutiae
    without a template around them.
    """

    size: CardSize
    minutiae: tuple[Minutia, ...]
    before: tuple[tuple[int, bytes], ...] | None = None
    after: tuple[tuple[int, bytes], ...] = ()

    def to_bytes(self) -> bytes:
        """The bytes that go to the card. Raises `RecordRefused` where a value does not fit its field."""
        body = b"".join(_minutia_bytes(m, self.size) for m in self.minutiae)
        if self.before is not None:
            objects = (*self.before, (MINUTIAE_TAG, body), *self.after)
            body = b"".join(
                packed((tag, 1, "tag"), *_length_fields(len(value))) + value for tag, value in objects
            )
            body = TEMPLATE_TAG + packed(*_length_fields(len(body))) + body
        read = read_card_minutiae if self.before is None else read_card_template
        if read(body, self.size) != self:
            raise RecordRefused(f"a value has no place in card minutiae of size {self.size}")
        return body


class CardOrder(IntEnum):
    """The orders a card may ask for, by the code of ISO/IEC 19794-2's object 82 in its biometric information.

    Bits 1 and 2: 0 none, 1 ascending, 2 descending; bits 3 to 5: 1 by x then y, 2 by y then x, 3 by angle,
    4 by distance from the centre.
    """

    NONE = 0x00
    X_Y_ASCENDING = 0x05
    X_Y_DESCENDING = 0x06
    Y_X_ASCENDING = 0x09
    Y_X_DESCENDING = 0x0A
    ANGLE_ASCENDING = 0x0D
    ANGLE_DESCENDING = 0x0E
    POLAR_ASCENDING = 0x11
    POLAR_DESCENDING = 0x12

    def sorted(self, minutiae: tuple[Minutia, ...]) -> tuple[Minutia, ...]:
        """The minutiae in this order; ties stay as they were. The centre is the rounded mean position."""
        n = max(1, len(minutiae))
        cx, cy = round(sum(m.x for m in minutiae) / n), round(sum(m.y for m in minutiae) / n)

        def key(m: Minutia) -> tuple[int, int]:
            match self >> 2:
                case 1:
                    return m.x, m.y
                case 2:
                    return m.y, m.x
                case 3:
                    return m.angle, 0
                case _:
                    return (m.x - cx) ** 2 + (m.y - cy) ** 2, m.angle

        if self is CardOrder.NONE:
            return minutiae
        return tuple(sorted(minutiae, key=key, reverse=self & 3 == 2))


def read_card_minutiae(data: bytes, size: CardSize) -> CardMinutiae:
    """Read minutiae without anything around them. Raises `RecordRefused`."""
    return CardMinutiae(size, _read_minutiae(Fields(data), size))


def read_card_template(data: bytes, size: CardSize) -> CardMinutiae:
    """Read a biometric data template 7F2E, which says not in which size its minutiae are.

    Raises `RecordRefused` where it holds no object 81 or several, or is not coded in the shortest way.
    """
    fields = Fields(data)
    if fields.take(2, "tag") != TEMPLATE_TAG:
        raise RecordRefused("no biometric data template: it does not begin with 7F2E", 0)
    inner = fields.part(_read_length(fields), "template")
    fields.done("the template")
    minutiae: tuple[Minutia, ...] | None = None
    before: list[tuple[int, bytes]] = []
    after: list[tuple[int, bytes]] = []
    while inner.at < inner.end:
        at = inner.at
        tag = inner.number(1, "tag")
        if tag & 0x1F == 0x1F:
            raise RecordRefused("a tag of more than one byte is not known within a template", at)
        value = inner.part(_read_length(inner), "data object")
        if tag != MINUTIAE_TAG:
            (before if minutiae is None else after).append((tag, value.rest()))
        elif minutiae is None:
            minutiae = _read_minutiae(value, size)
        else:
            raise RecordRefused("the template holds minutiae twice", at)
    if minutiae is None:
        raise RecordRefused("the template holds no minutiae", 0)
    return CardMinutiae(size, minutiae, tuple(before), tuple(after))


def _read_minutiae(fields: Fields, size: CardSize) -> tuple[Minutia, ...]:
    minutiae = []
    while fields.at < fields.end:
        minutiae.append(_read_normal(fields) if size is CardSize.NORMAL else _read_compact(fields))
    return tuple(minutiae)


def _read_normal(fields: Fields) -> Minutia:
    at = fields.at
    x, y, angle = fields.number(2, "x"), fields.number(2, "y"), fields.number(1, "angle")
    if y >> 14:
        raise RecordRefused("what is reserved is 0", at + 2)
    return Minutia(_type(x >> 14, at), x & MAX_COORDINATE, y, angle)


def _read_compact(fields: Fields) -> Minutia:
    x, y, rest = fields.take(3, "minutia")
    return Minutia(_type(rest >> 6, fields.at - 1), x, y, rest & 0x3F)


def _type(code: int, at: int) -> MinutiaType:
    if code == 3:
        raise RecordRefused("minutia type 3 is reserved", at)
    return MinutiaType(code)


def _minutia_bytes(m: Minutia, size: CardSize) -> bytes:
    if size is CardSize.NORMAL:
        return packed((m.type << 14 | m.x, 2, "x"), (m.y, 2, "y"), (m.angle, 1, "angle"))
    return packed((m.x, 1, "x"), (m.y, 1, "y"), (m.type << 6 | m.angle, 1, "angle"))


def _read_length(fields: Fields) -> int:
    """A length as ISO/IEC 7816-4 codes it: one byte, or the number of bytes that follow."""
    at = fields.at
    first = fields.number(1, "length")
    length = first if first < 0x80 else fields.number(min(first & 0x7F, 3), "length")
    if packed(*_length_fields(length)) != fields.data[at : fields.at]:
        raise RecordRefused("a length is coded in the shortest way", at)
    return length


def _length_fields(length: int) -> tuple[tuple[int, int, str], ...]:
    if length < 0x80:
        return ((length, 1, "length"),)
    size = 1 if length <= 0xFF else 2
    return ((0x80 | size, 1, "length"), (length, size, "length"))
