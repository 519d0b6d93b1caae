"""One minutiae record format to another; the way through a template would lose most of a record."""

from dataclasses import replace

from capture.formats.extended_data import CoresAndDeltas, SingularPoint, extended_block, read_extended_data
from capture.formats.minutiae_record import (
    QUALITY_UNKNOWN,
    ExtendedBlock,
    FingerView,
    Minutia,
    MinutiaeRecord,
    RecordFormat,
)
from capture.formats.representation import Capture, QualityBlock


def converted(record: MinutiaeRecord, kind: RecordFormat) -> MinutiaeRecord:
    """The record in another format: views, resolution, minutiae and extended data stay, angles change units.

    What the other format has no field for is left out (product, certification, time of capture), as are bytes
    behind the record. Raises `RecordRefused` for extended data that is not what its type says, and when it is
    written, for values the format has no room for (impressions above 15, or images of several sizes, in
    records of 2004 and 2005).
    """
    if record.format is kind:
        return record
    views = tuple(_converted(view, record, kind) for view in record.views)
    if kind is RecordFormat.ISO_2011:
        return MinutiaeRecord(kind, views)
    return MinutiaeRecord(kind, views, certification=record.certification, device=record.device)


def _converted(view: FingerView, record: MinutiaeRecord, kind: RecordFormat) -> FingerView:
    unknown = QUALITY_UNKNOWN if kind is RecordFormat.ISO_2011 else 0
    minutiae = tuple(
        Minutia(
            m.type,
            m.x,
            m.y,
            _turned(m.angle, record.format, kind),
            m.quality if 1 <= m.quality <= 100 else unknown,
        )
        for m in view.minutiae
    )
    quality = QualityBlock(unknown if view.quality is None else view.quality)

    extended = tuple(_converted_block(block, record.format, kind) for block in view.extended)
    capture = Capture(qualities=(quality,))
    if kind is RecordFormat.ISO_2011:
        capture = replace(capture, device=record.device)
    return FingerView(
        view.position,
        view.image,
        minutiae,
        number=view.number,
        impression=view.impression,
        capture=capture,
        extended=extended,
    )


def _converted_block(block: ExtendedBlock, old: RecordFormat, new: RecordFormat) -> ExtendedBlock:
    data = read_extended_data(block, old)
    if data is None:
        return block
    if isinstance(data, CoresAndDeltas):
        cores, deltas = (
            tuple(SingularPoint(p.x, p.y, tuple(_turned(a, old, new) for a in p.angles)) for p in points)
            for points in (data.cores, data.deltas)
        )
        data = CoresAndDeltas(cores, deltas)
    return extended_block(data, new)


def _turned(angle: int, old: RecordFormat, new: RecordFormat) -> int:
    return round(angle * new.angles / old.angles) % new.angles
