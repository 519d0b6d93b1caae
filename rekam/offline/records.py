"""`rekam template`: minutiae in files of every format, converted, extracted, shown and compared."""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capture.errors import RecordRefused, TemplateRefused
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.formats.card_minutiae import (
    TEMPLATE_TAG,
    CardMinutiae,
    CardOrder,
    CardSize,
    read_card_minutiae,
    read_card_template,
)
from capture.formats.extended_data import CoresAndDeltas, RidgeCounts, ZonalQuality, read_extended_data
from capture.formats.minutiae_record import (
    MAGIC,
    ExtendedBlock,
    FingerView,
    Minutia,
    MinutiaeRecord,
    MinutiaType,
    RecordFormat,
    read_minutiae_record,
)
from capture.formats.minutiae_template import (
    MAX_CARD_MINUTIAE,
    card_of,
    record_of,
    template_of,
    template_of_card,
)
from capture.formats.record_conversion import converted
from capture.sample import FingerPosition
from rekam.faults import told_faults
from rekam.offline.explain_prints import explain_prints
from rekam.offline.prints import decode_print
from rekam.written import written

template_app = typer.Typer(no_args_is_help=True, help="Minutiae in files of every format.")

_NATIVE = b"RF"


class TemplateFormat(StrEnum):
    """A format of minutiae in files, as a word of the command line."""

    NATIVE = "native"
    ISO_2005 = "iso2005"
    ISO_2011 = "iso2011"
    ANSI_378 = "ansi378"
    ISO_2005_CARD = "iso2005-card"
    ISO_2005_CARD_COMPACT = "iso2005-card-compact"


class CardOrderChoice(StrEnum):
    """The order a card wants its minutiae in, as a word of the command line."""

    NONE = "none"
    X_Y_ASCENDING = "x-y-ascending"
    X_Y_DESCENDING = "x-y-descending"
    Y_X_ASCENDING = "y-x-ascending"
    Y_X_DESCENDING = "y-x-descending"
    ANGLE_ASCENDING = "angle-ascending"
    ANGLE_DESCENDING = "angle-descending"
    POLAR_ASCENDING = "polar-ascending"
    POLAR_DESCENDING = "polar-descending"


Minutiae = FingerprintTemplate | MinutiaeRecord | CardMinutiae

Source = Annotated[Path, typer.Argument(help="A native template, a minutiae record, or card minutiae.")]
Target = Annotated[Path, typer.Argument(help="The file to write.")]
To = Annotated[TemplateFormat, typer.Option("--to", help="Format to write.")]
From = Annotated[
    TemplateFormat | None,
    typer.Option("--from", help="Format of the file: needed for card minutiae, which do not say."),
]
View = Annotated[int | None, typer.Option(min=1, help="Which view of a record; all of them without.")]
Position = Annotated[
    int | None, typer.Option(min=0, max=10, help="Finger, 1 right thumb to 10 left little; 0 unknown.")
]
NewPosition = Annotated[
    int | None,
    typer.Option(
        "--position",
        min=0,
        max=10,
        help="Finger, 1 right thumb to 10 left little, 0 unknown, whatever the file says.",
    ),
]
MaxMinutiae = Annotated[int, typer.Option(min=1, max=255, help="Minutiae a card takes.")]
Order = Annotated[CardOrderChoice, typer.Option(help="The order a card wants its minutiae in.")]
Wrapped = Annotated[
    bool, typer.Option("--wrapped", help="Write card minutiae as the card's data object 7F2E.")
]
Ppi = Annotated[float | None, typer.Option(help="Pixels per inch of the image, whatever it says.")]
Finder = Annotated[ExtractorChoice, typer.Option("--extractor", help="What finds the minutiae in images.")]


def read_minutiae(data: bytes, known: TemplateFormat | None = None) -> Minutiae:
    """Minutiae of any format; `known` is needed for card minutiae, which carry no sign of what they are.

    Raises `RecordRefused`, `TemplateRefused`.
    """
    if known in _CARDS:
        size = _CARDS[known]
        return read_card_template(data, size) if data[:2] == TEMPLATE_TAG else read_card_minutiae(data, size)
    if data.startswith(_NATIVE) and known in (None, TemplateFormat.NATIVE):
        return FingerprintTemplate.from_bytes(data)
    if data.startswith(MAGIC) and known is not TemplateFormat.NATIVE:
        record = read_minutiae_record(data)
        if known is not None and record.format is not _RECORDS[known]:
            raise RecordRefused(f"the record is {record.format}, not {known}", 0)
        return record
    expected = "native template or minutiae record" if known is None else f"file of format {known}"
    raise TemplateRefused(f"no {expected}; card minutiae need their format said")


_RECORDS = {TemplateFormat(kind.value): kind for kind in RecordFormat}
_CARDS = {TemplateFormat(size.value): size for size in CardSize}


def chosen(minutiae: Minutiae, view: int | None, position: FingerPosition | None) -> Minutiae:
    """The same, of one view (from 1) where that is given, and as of `position` where that is.

    Raises `RecordRefused` where there is no such view.
    """
    if not isinstance(minutiae, MinutiaeRecord):
        if view not in (None, 1):
            raise RecordRefused(f"there is one view, no view {view}")
        if position is None:
            return minutiae
        if isinstance(minutiae, CardMinutiae):
            return template_of_card(minutiae, position)
        return replace(minutiae, position=position)
    views = minutiae.views
    if view is not None:
        if view > len(views):
            there = "1 view" if len(views) == 1 else f"{len(views)} views"
            raise RecordRefused(f"the record has {there}, no view {view}")
        views = (views[view - 1],)
    if position is not None:
        views = tuple(replace(one, position=int(position)) for one in views)
    if views == minutiae.views:
        return minutiae
    return replace(minutiae, views=views, declared_length=None, trailing=b"")


def minutiae_bytes(
    minutiae: Minutiae,
    to: TemplateFormat,
    *,
    max_minutiae: int = MAX_CARD_MINUTIAE,
    order: CardOrder = CardOrder.Y_X_ASCENDING,
    wrapped: bool = False,
) -> bytes:
    """Minutiae as the bytes of a format; a record keeps all its views in another record, else the first.

    Raises `RecordRefused` for what the format cannot hold.
    """
    if to in _RECORDS and isinstance(minutiae, MinutiaeRecord):
        return converted(minutiae, _RECORDS[to]).to_bytes()
    template = template_from(minutiae)
    if to in _RECORDS:
        return record_of([template], _RECORDS[to]).to_bytes()
    if to in _CARDS:
        card = card_of(template, _CARDS[to], max_minutiae=max_minutiae, order=order)
        return replace(card, before=() if wrapped else None).to_bytes()
    return template.to_bytes()


def template_from(minutiae: Minutiae) -> FingerprintTemplate:
    """A template, of a record's first view. Raises `RecordRefused`."""
    match minutiae:
        case FingerprintTemplate():
            return minutiae
        case CardMinutiae():
            return template_of_card(minutiae)
        case MinutiaeRecord():
            return template_of(minutiae.views[0], minutiae.format)


@template_app.command()
def convert(
    source: Source,
    target: Target,
    to: To,
    known: From = None,
    view: View = None,
    position: NewPosition = None,
    max_minutiae: MaxMinutiae = MAX_CARD_MINUTIAE,
    order: Order = CardOrderChoice.Y_X_ASCENDING,
    wrapped: Wrapped = False,
) -> None:
    """Convert a template, record or card minutiae to another format."""
    with told_faults(source):
        read = read_minutiae(source.read_bytes(), known)
        made = minutiae_bytes(
            chosen(read, view, None if position is None else FingerPosition(position)),
            to,
            max_minutiae=max_minutiae,
            order=CardOrder[order.name],
            wrapped=wrapped,
        )
        written(target, made)
    typer.echo(f"{target}: {to}, {len(made)} bytes")


@template_app.command()
def extract(
    image: Annotated[
        Path, typer.Argument(help="A print: PNG, JPEG, BMP, TIFF, WSQ, JPEG 2000, or an ISO 19794-4 record.")
    ],
    target: Target,
    to: To = TemplateFormat.ISO_2005,
    ppi: Ppi = None,
    position: Position = None,
    extractor: Finder = ExtractorChoice.ACCURATE,
    max_minutiae: MaxMinutiae = MAX_CARD_MINUTIAE,
    order: Order = CardOrderChoice.Y_X_ASCENDING,
    wrapped: Wrapped = False,
) -> None:
    """Find the minutiae in an image and write them in any format."""
    with told_faults(image):
        template = _extracted(image.read_bytes(), ppi, extractor, FingerPosition(position or 0))
        made = minutiae_bytes(
            template,
            to,
            max_minutiae=max_minutiae,
            order=CardOrder[order.name],
            wrapped=wrapped,
        )
        written(target, made)
    typer.echo(f"{target}: {to}, {len(made)} bytes, {len(template)} minutiae found")


@template_app.command()
def show(
    source: Source,
    known: From = None,
    all_minutiae: Annotated[bool, typer.Option("--minutiae", help="List every minutia.")] = False,
) -> None:
    """Show in words what a template, record or card minutiae hold."""
    with told_faults(source):
        data = source.read_bytes()
        minutiae = read_minutiae(data, known)
        tables = list(_tables(minutiae, all_minutiae))
    out = Console()
    out.print(
        f"{source.name}: {_headline(minutiae)}, {len(data)} bytes",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for table in tables:
        out.print(table)


@template_app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="An image, a template or a record.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to compare it with.")],
    known: From = None,
    ppi: Ppi = None,
    extractor: Finder = ExtractorChoice.ACCURATE,
) -> None:
    """Compare two fingers, images or minutiae of any format, and say what the score is worth.

    Of a record the first view counts. `--from` says what card minutiae are, whose files do not.
    """
    templates = []
    for path in (a, b):
        with told_faults(path):
            templates.append(_any_template(path.read_bytes(), known, ppi, extractor))
    with told_faults():
        typer.echo(explain_prints(templates[0], templates[1]).verdict)


def _any_template(
    data: bytes, known: TemplateFormat | None, ppi: float | None, extractor: ExtractorChoice
) -> FingerprintTemplate:
    if data.startswith((_NATIVE, MAGIC)):
        return template_from(read_minutiae(data))
    if known is not None:
        return template_from(read_minutiae(data, known))
    return _extracted(data, ppi, extractor)


def _extracted(
    data: bytes,
    ppi: float | None,
    extractor: ExtractorChoice,
    position: FingerPosition = FingerPosition.UNKNOWN,
) -> FingerprintTemplate:
    made = FingerprintExtractor(extractor).extract(decode_print(data, ppi, position))
    if made.template is None:
        advice = " ".join(word.advice for word in made.quality.feedback)
        raise TemplateRefused(f"the image gave no template. {advice}")
    return made.template


# --- in words


_STANDARDS = {
    RecordFormat.ISO_2005: "ISO/IEC 19794-2:2005 record",
    RecordFormat.ISO_2011: "ISO/IEC 19794-2:2011 record",
    RecordFormat.ANSI_378: "ANSI INCITS 378-2004 record",
    CardSize.NORMAL: "ISO/IEC 19794-2 card minutiae, normal size",
    CardSize.COMPACT: "ISO/IEC 19794-2 card minutiae, compact size",
}


def _headline(minutiae: Minutiae) -> str:
    match minutiae:
        case FingerprintTemplate():
            return f"native template of {minutiae.extractor.name}"
        case CardMinutiae():
            return _STANDARDS[minutiae.size]
        case MinutiaeRecord():
            text = _STANDARDS[minutiae.format]
            if minutiae.declared_length is not None:
                text += f", which declares {minutiae.declared_length} bytes"
            if minutiae.trailing:
                text += f", with {len(minutiae.trailing)} bytes behind it"
            return text


def _tables(minutiae: Minutiae, all_minutiae: bool) -> Iterator[Table]:
    match minutiae:
        case FingerprintTemplate():
            yield _template_table(minutiae)
            if all_minutiae:
                yield _minutia_table(_minutiae_of(minutiae), 360)
        case CardMinutiae():
            yield _table([("minutiae", _counts(minutiae.minutiae))])
            if all_minutiae:
                yield _minutia_table(minutiae.minutiae, minutiae.size.angles)
        case MinutiaeRecord():
            for number, view in enumerate(minutiae.views, start=1):
                yield _view_table(number, view, minutiae)
                if all_minutiae:
                    yield _minutia_table(view.minutiae, minutiae.format.angles)


def _template_table(template: FingerprintTemplate) -> Table:
    return _table(
        [
            ("finger", template.position.words),
            ("quality", f"{template.quality} of 100"),
            ("image", f"{template.width} x {template.height} pixels at 500 ppi"),
            ("minutiae", _counts(_minutiae_of(template))),
        ]
    )


def _minutiae_of(template: FingerprintTemplate) -> tuple[Minutia, ...]:
    """The minutiae in whole pixels and degrees."""
    degrees = np.rint(np.degrees(template.direction)) % 360
    return tuple(
        Minutia(
            MinutiaType.ENDING if template.ending[k] else MinutiaType.BIFURCATION,
            round(float(template.x[k])),
            round(float(template.y[k])),
            int(degrees[k]),
            round(float(template.reliability[k]) * 100),
        )
        for k in range(len(template))
    )


def _view_table(number: int, view: FingerView, record: MinutiaeRecord) -> Table:
    image = view.image
    captured = view.capture.captured_at
    rows = [
        ("finger", FingerPosition(view.position).words),
        ("view", str(view.number)),
        ("impression", _IMPRESSIONS.get(view.impression, f"code {view.impression}")),
        ("quality", "not known" if view.quality is None else f"{view.quality} of 100"),
        ("image", f"{image.width} x {image.height} pixels, {image.x_resolution} x {image.y_resolution} a cm"),
        ("minutiae", _counts(view.minutiae)),
    ]
    if captured is not None:
        rows.append(("captured", f"{captured:%Y-%m-%d %H:%M:%S} UTC"))
    rows += [("extended data", _about_block(block, record.format)) for block in view.extended]
    return _table(rows, f"view {number} of {len(record.views)}")


_IMPRESSIONS = {
    0: "live, plain",
    1: "live, rolled",
    2: "not live, plain",
    3: "not live, rolled",
    4: "latent",
    5: "latent tracing",
    6: "latent photograph",
    7: "latent lift",
    8: "swiped",
}


def _about_block(block: ExtendedBlock, kind: RecordFormat) -> str:
    try:
        data = read_extended_data(block, kind)
    except RecordRefused as refused:
        return f"type {block.type}, not readable: {refused}"
    match data:
        case RidgeCounts():
            return f"{len(data.counts)} ridge counts"
        case CoresAndDeltas():
            return f"{len(data.cores)} cores, {len(data.deltas)} deltas"
        case ZonalQuality():
            return f"quality by cells of {data.cell_width} x {data.cell_height} pixels"
        case None:
            return f"type {block.type}, {len(block.data)} bytes"


def _counts(minutiae: tuple[Minutia, ...]) -> str:
    names = {
        MinutiaType.ENDING: "endings",
        MinutiaType.BIFURCATION: "bifurcations",
        MinutiaType.OTHER: "of unknown type",
    }
    parts = [f"{n} {name}" for kind, name in names.items() if (n := sum(m.type is kind for m in minutiae))]
    return f"{len(minutiae)}" + (f": {', '.join(parts)}" if parts else "")


def _table(rows: list[tuple[str, str]], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _minutia_table(minutiae: tuple[Minutia, ...], angles: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("", "x", "y", "direction", "quality"):
        table.add_column(name, justify="right")
    table.add_column("type")
    for number, m in enumerate(minutiae, start=1):
        quality = str(m.quality) if 1 <= m.quality <= 100 else "-"
        degrees = f"{m.angle * 360 / angles:.0f}°"
        table.add_row(str(number), str(m.x), str(m.y), degrees, quality, m.type.name.lower())
    return table
