"""Templates made anew of the images that were kept, after the extractor of a modality has changed.

What is due shows in the templates themselves: each says what made it. So a run that was killed goes on where
it stood, and one that is done finds nothing. Decisions, evidence and quality stay what they were; the change
log tells every index to take the encounter anew.
"""

import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capture.decode import decode_image
from capture.errors import ImageRefused
from capture.fingerprint.template import TEMPLATE_PPI, FingerprintTemplate
from capture.sample import Modality
from rekam.capturing import Capturing, Template, read_template
from rekam.errors import InvalidRequest
from rekam.exchange import Presented
from rekam.position import Position, modality_of
from rekam.store import SampleRecord, SearchableEncounter, Store

_PAGE = 64
_FINEST_PPI = 1600.0


@dataclass(slots=True)
class Reextracted:
    """What a run came to, by samples: made anew, without an image, and those whose image gave nothing."""

    replaced: int = 0
    without_image: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A template that stays as it is, though something else would make it now, and why."""

    encounter_id: str
    position: Position
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Anew:
    """New templates of one encounter, by place, and those that stay."""

    encounter_id: str
    templates: Mapping[int, bytes]
    kept: Sequence[Kept]


_NO_IMAGE = "no image was kept"


def reextract(
    store: Store,
    capturing: Capturing,
    modalities: Collection[Modality],
    workers: int,
    *,
    told: Callable[[Kept], None],
    progress: Callable[[int], None],
) -> Reextracted:
    """Replace every template of these modalities that the current extractor did not make.

    Where no image was kept, or it yields no usable template now, the old one stays and is told. `progress`
    is told how many encounters more are done. Raises `StoreError`; what was done before stays done. Cost:
    the extraction, on all workers; 64 encounters are committed together.
    """
    total = Reextracted()
    with ThreadPoolExecutor(workers, thread_name_prefix="rekam-reextract") as threads:
        for page in _pages(store):
            due = [
                (encounter, places)
                for encounter in page
                if (places := _due(encounter, capturing, modalities))
            ]
            anew = list(threads.map(lambda one: _anew(store, capturing, *one), due))
            if any(one.templates for one in anew):
                with store.transaction() as t:
                    for one in anew:
                        if one.templates:
                            t.replace_templates(one.encounter_id, one.templates)
            for one in anew:
                total.replaced += len(one.templates)
                for kept in one.kept:
                    total.without_image += kept.reason == _NO_IMAGE
                    total.kept += kept.reason != _NO_IMAGE
                    told(kept)
            progress(len(page))
    return total


def _pages(store: Store) -> Iterator[tuple[SearchableEncounter, ...]]:
    """All enrolled and held encounters, no read open between: it would keep the log from shrinking."""
    after = 0
    while True:
        with store.read() as reader:
            page = reader.searchable(after, _PAGE)
        if not page:
            return
        yield page
        after = page[-1].seq


def _due(
    encounter: SearchableEncounter, capturing: Capturing, modalities: Collection[Modality]
) -> dict[int, Template]:
    """The templates that something else would make now, by place."""
    templates = {
        place: read_template(position, data)
        for place, (position, data) in enumerate(encounter.templates)
        if modality_of(position) in modalities
    }
    return {place: one for place, one in templates.items() if not capturing.current(one)}


def _anew(
    store: Store, capturing: Capturing, encounter: SearchableEncounter, due: Mapping[int, Template]
) -> _Anew:
    with store.read() as reader:
        record = reader.encounter(encounter.encounter_id, images=True)
    if record is None:
        return _Anew(encounter.encounter_id, {}, ())
    templates: dict[int, bytes] = {}
    kept: list[Kept] = []
    for place, old in due.items():
        sample = record.samples[place]
        made = _made(capturing, sample, old)
        if isinstance(made, bytes):
            templates[place] = made
        else:
            kept.append(Kept(encounter.encounter_id, sample.position, made))
    return _Anew(encounter.encounter_id, templates, kept)


def _made(capturing: Capturing, sample: SampleRecord, old: Template) -> bytes | str:
    """The new template, or why there is none."""
    if sample.image is None:
        return _NO_IMAGE
    try:
        ppi = _resolution(sample.image, old) if isinstance(old, FingerprintTemplate) else None
        presented = Presented(sample.position, image=sample.image, ppi=ppi, best_effort=True)
        [captured] = capturing.capture([presented], lambda: None)
    except InvalidRequest as error:
        return "; ".join(text for _, text in error.violations)
    except ImageRefused as error:
        return str(error)
    if captured.template is None or captured.refused:
        advice = captured.quality.feedback if captured.quality is not None else ()
        return advice[0].advice if advice else "the image yields no template"
    return captured.template.to_bytes()


def _resolution(image: bytes, old: FingerprintTemplate) -> float | None:
    """The resolution to declare: None where the image's own made the old template, else what did.

    Who sent the image may have declared it, and that is not kept; but the old template knows how large the
    image was at 500 ppi. Raises `ImageRefused`.
    """
    try:
        sample = decode_image(image)
        if _at_500_ppi(sample.image.shape, sample.ppi) == (old.height, old.width):
            return None
    except ImageRefused:
        pass  # what it is without a resolution is looked at next
    height, width = decode_image(image, ppi=_FINEST_PPI).image.shape
    exact = TEMPLATE_PPI * (width / old.width if width > height else height / old.height)
    whole = float(round(exact))
    return whole if _at_500_ppi((height, width), whole) == (old.height, old.width) else exact


def _at_500_ppi(shape: tuple[int, ...], ppi: float) -> tuple[int, int]:
    height, width = shape
    return max(1, round(height * TEMPLATE_PPI / ppi)), max(1, round(width * TEMPLATE_PPI / ppi))


class Report:
    """The CSV file of templates that stayed, written as they are found."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(("encounter_id", "modality", "position", "reason"))

    def tell(self, kept: Kept) -> None:
        """Add a line."""
        words = "" if kept.position is None else kept.position.words
        self._rows.writerow((kept.encounter_id, modality_of(kept.position), words, kept.reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
