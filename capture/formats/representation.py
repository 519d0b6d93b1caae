"""What the image records of ISO/IEC 19794 share: a cursor over their bytes, and how a capture is described.

Numbers are big-endian and unsigned. The 2011 editions begin every representation with the same description of
its capture; fields nobody needs are kept as numbers, so that what was read is written back byte for byte.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from capture.errors import RecordRefused


class Fields:
    """Takes a record apart from front to back; running past `end` raises `RecordRefused`."""

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = start
        self.end = len(data) if end is None else end

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if count > self.end - self.at:
            raise RecordRefused(f"{what}: {count} bytes announced, {self.end - self.at} there", self.at)
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int, what: str) -> int:
        """The next number of `size` bytes."""
        return int.from_bytes(self.take(size, what), "big")

    def part(self, length: int, what: str) -> "Fields":
        """A cursor over the next `length` bytes, which this one skips."""
        start = self.at
        self.take(length, what)
        return Fields(self.data, start, self.at)

    def rest(self) -> bytes:
        """Everything up to `end`."""
        return self.take(self.end - self.at, "the rest")

    def done(self, what: str) -> None:
        """Raise `RecordRefused` where bytes are left."""
        if self.at != self.end:
            raise RecordRefused(f"{what} has {self.end - self.at} bytes that belong to nothing", self.at)


def packed(*fields: tuple[int, int, str]) -> bytes:
    """Bytes of (value, size, name) in order. Raises `RecordRefused` for a value that does not fit."""
    try:
        return b"".join(value.to_bytes(size, "big") for value, size, _ in fields)
    except OverflowError:
        value, size, name = next(f for f in fields if not 0 <= f[0] < 1 << 8 * f[1])
        raise RecordRefused(f"{name} is {value}, which does not fit into {size} bytes") from None


@dataclass(frozen=True, slots=True)
class QualityBlock:
    """A score of 0-100, 255 where it could not be computed, and who computed it how."""

    score: int
    vendor: int = 0
    algorithm: int = 0


@dataclass(frozen=True, slots=True)
class Certification:
    """A certification of the capture device: authority and the scheme it certified by."""

    authority: int
    scheme: int


@dataclass(frozen=True, slots=True)
class Capture:
    """When and with what a representation was captured. `time` is 9 bytes: year to milliseconds, UTC."""

    time: bytes = bytes([0xFF] * 9)
    technology: int = 0
    vendor: int = 0
    device: int = 0
    qualities: tuple[QualityBlock, ...] = ()

    @property
    def captured_at(self) -> datetime | None:
        """The time of capture, None where the record does not say or no calendar has it."""
        year, milliseconds = int.from_bytes(self.time[:2], "big"), int.from_bytes(self.time[7:], "big")
        month, day, hour, minute, second = self.time[2:7]
        try:
            return datetime(year, month, day, hour, minute, second, milliseconds * 1000, tzinfo=UTC)
        except ValueError:
            return None


def read_capture(fields: Fields) -> Capture:
    """Read time, device and quality blocks. Raises `RecordRefused`."""
    time = fields.take(9, "time of capture")
    technology = fields.number(1, "capture technology")
    vendor, device = fields.number(2, "device vendor"), fields.number(2, "device type")
    qualities = tuple(
        QualityBlock(
            fields.number(1, "quality score"),
            fields.number(2, "quality vendor"),
            fields.number(2, "algorithm"),
        )
        for _ in range(fields.number(1, "number of quality blocks"))
    )
    return Capture(time, technology, vendor, device, qualities)


def capture_bytes(capture: Capture) -> bytes:
    """What `read_capture` reads. Raises `RecordRefused`."""
    if len(capture.time) != 9:
        raise RecordRefused(f"a time of capture has 9 bytes, not {len(capture.time)}")
    return capture.time + packed(
        (capture.technology, 1, "capture technology"),
        (capture.vendor, 2, "device vendor"),
        (capture.device, 2, "device type"),
        (len(capture.qualities), 1, "number of quality blocks"),
        *(
            field
            for block in capture.qualities
            for field in (
                (block.score, 1, "quality score"),
                (block.vendor, 2, "quality vendor"),
                (block.algorithm, 2, "algorithm"),
            )
        ),
    )


def record_fields(data: bytes, magic: bytes, length_size: int, *, before_length: int = 0) -> Fields:
    """A cursor behind magic, version and length of a record whose length is what it says.

    `before_length`: bytes skipped before the length. Raises `RecordRefused`.
    """
    fields = Fields(data)
    if fields.take(4, "the record's kind") != magic:
        raise RecordRefused(f"the record does not begin with {magic[:3].decode()}", 0)
    fields.take(4 + before_length, "the record's version")
    length = fields.number(length_size, "the record's length")
    if length != len(data):
        raise RecordRefused(f"the record announces {length} bytes and has {len(data)}", 8 + before_length)
    return fields
