"""Minutiae records and card minutiae to fingerprint templates, and templates to them.

Both count angles anticlockwise from the x axis, along the ridge of an ending, and pixels from the upper left
with y down, so that only units change. A template's grid is 500 ppi; a record's resolution, in whole pixels
per cm, makes 197 of that, which is therefore taken for 500 ppi exactly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capture.errors import RecordRefused
from capture.fingerprint.template import (
    MAX_MINUTIAE,
    MAX_SIDE,
    TEMPLATE_PPI,
    Extractor,
    FingerprintTemplate,
)
from capture.formats.card_minutiae import CardMinutiae, CardOrder, CardSize
from capture.formats.minutiae_record import (
    FingerView,
    Minutia,
    MinutiaeRecord,
    MinutiaType,
    RecordFormat,
    ScannedImage,
)
from capture.formats.representation import Capture, QualityBlock
from capture.sample import FingerPosition

MM_PER_INCH = 25.4
RESOLUTION_500_PPI = 197
MAX_CARD_MINUTIAE = 60
UNKNOWN_QUALITY = 50
# Every maker has a scale of its own, and comparison leaves out what is unreliable on ours: foreign qualities
# order minutiae and leave none out. With mindtct's taken as they are, the EER is several times as high.
FOREIGN_FLOOR = 0.5
_TURN = np.float32(2 * np.pi)


def template_of(view: FingerView, kind: RecordFormat) -> FingerprintTemplate:
    """One view of a record of this format as a template, at 500 ppi, of the extractor `FOREIGN`.

    Of more than 99 minutiae those of best quality are kept. A quality nobody knows is 50. Raises
    `RecordRefused` where the image is larger than a template can be. Cost: 0.1 ms.
    """
    scale_x, scale_y = (_scale(value) for value in (view.image.x_resolution, view.image.y_resolution))
    width, height = max(1, round(view.image.width * scale_x)), max(1, round(view.image.height * scale_y))
    if max(width, height) > MAX_SIDE + 1:
        raise RecordRefused(
            f"an image of {width} x {height} pixels at 500 ppi is larger than {MAX_SIDE + 1} a side"
        )
    return _template(
        view.minutiae,
        (scale_x, scale_y),
        kind.angles,
        (width, height),
        FingerPosition(view.position),
        view.quality,
    )


def template_of_card(
    card: CardMinutiae, position: FingerPosition = FingerPosition.UNKNOWN
) -> FingerprintTemplate:
    """Card minutiae as a template of the extractor `FOREIGN`; the image ends where the minutiae do.

    Raises `RecordRefused` where minutiae lie further from the corner than a template reaches. Cost: 0.1 ms.
    """
    scale = card.size.unit / MM_PER_INCH * TEMPLATE_PPI
    width, height = (
        1 + max((round(place * scale) for place in places), default=0)
        for places in ([m.x for m in card.minutiae], [m.y for m in card.minutiae])
    )
    if max(width, height) > MAX_SIDE + 1:
        raise RecordRefused(f"minutiae up to {width} x {height} pixels at 500 ppi: more than {MAX_SIDE + 1}")
    return _template(card.minutiae, (scale, scale), card.size.angles, (width, height), position, None)


def record_of(templates: Sequence[FingerprintTemplate], kind: RecordFormat) -> MinutiaeRecord:
    """Templates as the views of one record at 500 ppi, minutiae by falling reliability.

    Views of one finger are numbered in their order. Records of 2004 and 2005 have one image size, the largest
    of the templates'. Raises `ValueError` without a template. Cost: 0.2 ms a template.
    """
    sizes = [(template.width, template.height) for template in templates]
    if kind is not RecordFormat.ISO_2011:
        sizes = [(max(width for width, _ in sizes), max(height for _, height in sizes))] * len(sizes)
    views = []
    seen = dict.fromkeys(FingerPosition, 0)
    for template, (width, height) in zip(templates, sizes, strict=True):
        views.append(
            FingerView(
                position=int(template.position),
                image=ScannedImage(width, height, RESOLUTION_500_PPI, RESOLUTION_500_PPI),
                minutiae=_minutiae(template, kind.angles),
                number=seen[template.position],
                capture=Capture(qualities=(QualityBlock(template.quality),)),
                # Where our extractors see a ridge end; older formats cannot say so.
                endings=1 if kind is RecordFormat.ISO_2011 else 0,
            )
        )
        seen[template.position] += 1
    return MinutiaeRecord(kind, tuple(views))


def card_of(
    template: FingerprintTemplate,
    size: CardSize,
    *,
    max_minutiae: int = MAX_CARD_MINUTIAE,
    order: CardOrder = CardOrder.Y_X_ASCENDING,
) -> CardMinutiae:
    """The most reliable minutiae of a template as a card of this size holds them.

    A print larger than compact minutiae reach, 25.5 mm, is moved so that its middle is within reach; what
    still is not is left out. Cost: 0.1 ms.
    """
    scale = MM_PER_INCH / TEMPLATE_PPI / size.unit
    x, y = (np.rint(_within_reach(places * scale, size.limit)) for places in (template.x, template.y))
    inside = (x >= 0) & (x <= size.limit) & (y >= 0) & (y <= size.limit)
    angle = np.rint(template.direction * (size.angles / _TURN)) % size.angles
    minutiae = tuple(
        Minutia(_type(template.ending[k]), int(x[k]), int(y[k]), int(angle[k]))
        for k in np.flatnonzero(inside)[:max_minutiae]
    )
    return CardMinutiae(size, order.sorted(minutiae))


def _within_reach(places: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    if not len(places) or places.max() <= limit:
        return places
    return places - np.float32(max(0.0, float(np.median(places)) - limit / 2))


def _scale(resolution: int) -> float:
    """Pixels at 500 ppi of one pixel at this resolution, pixels per cm."""
    return 1.0 if resolution == RESOLUTION_500_PPI else TEMPLATE_PPI / (resolution * 2.54)


def _type(ending: np.bool_) -> MinutiaType:
    return MinutiaType.ENDING if ending else MinutiaType.BIFURCATION


def _minutiae(template: FingerprintTemplate, angles: int) -> tuple[Minutia, ...]:
    angle = np.rint(template.direction * (angles / _TURN)) % angles
    reliability = template.reliability
    if template.extractor is Extractor.FOREIGN:
        reliability = (reliability - FOREIGN_FLOOR) / (1 - FOREIGN_FLOOR)
    quality = np.clip(np.rint(reliability * 100), 1, 100)
    x, y = np.rint(template.x), np.rint(template.y)
    return tuple(
        Minutia(_type(template.ending[k]), int(x[k]), int(y[k]), int(angle[k]), int(quality[k]))
        for k in range(len(template))
    )


def _template(
    minutiae: Sequence[Minutia],
    scale: tuple[float, float],
    angles: int,
    size: tuple[int, int],
    position: FingerPosition,
    quality: int | None,
) -> FingerprintTemplate:
    columns = np.array([(m.x, m.y, m.angle, m.quality) for m in minutiae], np.float64).reshape(-1, 4)
    # Unknown type counts as ending, the commoner one.
    ending = np.array([m.type is not MinutiaType.BIFURCATION for m in minutiae], np.bool_)
    reliability = _reliability(columns[:, 3])
    best = np.argsort(-reliability, kind="stable")[:MAX_MINUTIAE]
    width, height = size
    return FingerprintTemplate(
        x=np.clip(columns[best, 0] * scale[0], 0, width - 1).astype(np.float32),
        y=np.clip(columns[best, 1] * scale[1], 0, height - 1).astype(np.float32),
        direction=(columns[best, 2] * (2 * np.pi / angles)).astype(np.float32),
        ending=ending[best],
        reliability=reliability[best],
        width=width,
        height=height,
        position=position,
        quality=UNKNOWN_QUALITY if quality is None else quality,
        extractor=Extractor.FOREIGN,
    )


def _reliability(quality: NDArray[np.float64]) -> NDArray[np.float32]:
    known = (quality >= 1) & (quality <= 100)
    share = np.where(known, quality / 100, 1)
    return (FOREIGN_FLOOR + (1 - FOREIGN_FLOOR) * share).astype(np.float32)
