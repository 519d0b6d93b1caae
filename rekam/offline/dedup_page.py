"""The page that `rekam dedup` writes: clusters side by side, with pictures where images are kept.

It stands alone, and holds NIKs and people's biometric data: it is to be kept accordingly.
"""

from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.decode import decode_face_image, decode_iris_image
from capture.errors import ImageRefused
from capture.sample import EyePosition, FingerPosition
from matching.decision import Reason
from rekam.client import words
from rekam.offline import page
from rekam.offline.dedup import Compared, Found
from rekam.offline.dedup_gathered import Fault
from rekam.offline.dedup_results import ERRORS, MEMBERS, OWN, PAIRS, Cluster
from rekam.offline.dedup_sources import Member, Source
from rekam.offline.prints import decode_print
from rekam.position import Position

SHOWN_CLUSTERS = 40
SHOWN_MEMBERS = 6
SHOWN_OWN = 20
_SHOWN_FAULTS = 20
_PICTURE = 150  # pixels high
_SHOWN_FIRST: tuple[Position, ...] = (
    None,
    FingerPosition.RIGHT_THUMB,
    FingerPosition.RIGHT_INDEX,
    FingerPosition.LEFT_INDEX,
    EyePosition.RIGHT,
    EyePosition.LEFT,
)
_VERDICTS = {
    "match": "one person",
    "review": "to be looked at",
    "differ": "not one person",
}


def dedup_page(
    members: Sequence[Member],
    faults: Sequence[Fault],
    found: Found,
    groups: Sequence[Cluster],
    source: Source,
    input_name: str,
    date: str,
) -> str:
    """The whole page. Raises `StoreError` where pictures cannot be read."""
    own = sorted(found.own, key=lambda pair: (pair.verdict != "differ", pair.llr, pair.a, pair.b))
    parts = [
        f"<header><h1>Everybody against everybody</h1><p>{escape(input_name)}, {escape(date)}</p>"
        '<p class="private">It holds NIKs and biometrics: keep it as you keep those.</p></header>',
        _headline(found, groups),
        page.section("Clusters", *_clusters(members, groups, source)),
        page.section("Own encounters that do not match", *_own(members, own, source)),
        page.section("What could not be read", *_faults(faults)),
    ]
    return page.document("Everybody against everybody", "\n".join(parts))


def _headline(found: Found, groups: Sequence[Cluster]) -> str:
    weak = sum(group.weak for group in groups)
    involved = sum(len(group.members) for group in groups)
    tiles = (
        (
            "clusters",
            f"{len(groups):,}",
            f"{involved:,} encounters; {weak:,} hang together by pairs to review",
        ),
        (
            "pairs that match",
            f"{sum(pair.verdict == 'match' for pair in found.doubles):,}",
            "of two subjects",
        ),
        (
            "pairs to review",
            f"{sum(pair.verdict == 'review' for pair in found.doubles):,}",
            "of two subjects",
        ),
        ("own encounters", f"{len(found.own):,}", "pairs of one subject that do not match"),
    )
    cells = "".join(
        f"<div><small>{name}</small><b>{value}</b><small>{note}</small></div>" for name, value, note in tiles
    )
    limits = found.thresholds
    text = (
        f"{found.members:,} encounters of {found.subjects:,} subjects, {found.named:,} pairs compared "
        f"exactly. A pair matches from a log10 likelihood ratio of {limits.match:.1f} on and "
        f"is to be looked at from {limits.review:.1f} on; encounters of one subject match from "
        f"{limits.verify:.1f} on. Nothing was changed: opening cases is a step of its own."
    )
    return f'<div class="tiles">{cells}</div><p>{text}</p>'


def _clusters(members: Sequence[Member], groups: Sequence[Cluster], source: Source) -> list[str]:
    if not groups:
        return ["<p>No two subjects are one person, as far as their biometrics tell.</p>"]
    parts = []
    for number, group in enumerate(groups[:SHOWN_CLUSTERS], start=1):
        weak = " Hangs together by pairs to review: judge these first." if group.weak else ""
        shown = list(zip(group.members, group.cores, strict=True))[:SHOWN_MEMBERS]
        marks = [f"core {core}" if group.weak else "" for _, core in shown]
        left = len(group.members) - len(shown)
        more = f"<p>and {left:,} more, which {MEMBERS} names.</p>" if left else ""
        side_by_side = _side_by_side([members[member] for member, _ in shown], marks, source)
        pairs = _pairs(members, group.pairs[: 2 * SHOWN_MEMBERS])
        parts.append(
            f"<article><h3><span>{number}</span> {len(group.members):,} encounters.{weak}</h3>"
            f"{side_by_side}{more}{pairs}</article>"
        )
    if len(groups) > SHOWN_CLUSTERS:
        parts.append(
            f"<p>and {len(groups) - SHOWN_CLUSTERS:,} more clusters, in {MEMBERS} and {PAIRS}, "
            "the strongest first as here.</p>"
        )
    return parts


def _own(members: Sequence[Member], own: Sequence[Compared], source: Source) -> list[str]:
    if not own:
        return ["<p>Encounters of one subject match each other, as far as there are several.</p>"]
    parts = []
    for pair in own[:SHOWN_OWN]:
        side_by_side = _side_by_side([members[pair.a], members[pair.b]], ["", ""], source)
        parts.append(f"<article>{side_by_side}{_pairs(members, [pair])}</article>")
    if len(own) > SHOWN_OWN:
        parts.append(f"<p>and {len(own) - SHOWN_OWN:,} more, which {OWN} names.</p>")
    return parts


def _side_by_side(shown: Sequence[Member], marks: Sequence[str], source: Source) -> str:
    heads = [
        f"{escape(one.name)}<br><small>{escape(one.state)} {escape(mark)}</small>"
        for one, mark in zip(shown, marks, strict=True)
    ]
    cells = [f"{_pictures(source.images(one))}<small>{escape(one.encounter)}</small>" for one in shown]
    return page.table(heads, [cells])


def _pictures(images: Sequence[tuple[Position, bytes]]) -> str:
    """The samples that tell people most, as far as they can be shown."""
    by_position: dict[tuple[type, Position], bytes] = {}
    for position, data in images:
        by_position.setdefault((type(position), position), data)
    order = [(type(position), position) for position in _SHOWN_FIRST]
    chosen = [key for key in order if key in by_position][:4] or list(by_position)[:4]
    tags = []
    for key in chosen:
        pixels = _pixels(key[1], by_position[key])
        if pixels is not None:
            tags.append(page.image_tag(page.jpeg(pixels), words(key[1]), "thumbnail"))
    if not tags:
        return '<span class="quiet">no image kept</span>'
    return f'<div style="display: flex; flex-wrap: wrap; gap: 6px">{"".join(tags)}</div>'


def _pixels(position: Position, data: bytes) -> NDArray[np.uint8] | None:
    """An image as small as it is shown; None where it cannot be decoded."""
    try:
        match position:
            case FingerPosition():
                pixels = decode_print(data, 500).image
            case EyePosition():
                pixels = decode_iris_image(data).image
            case None:
                pixels = decode_face_image(data).image
    except ImageRefused:
        return None
    scale = min(1.0, _PICTURE / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _pairs(members: Sequence[Member], pairs: Sequence[Compared]) -> str:
    head = ("pair", "verdict", "LLR", "fingers", "irises", "face", "reasons")
    rows = []
    for pair in pairs:
        a, b = members[pair.a], members[pair.b]
        rows.append(
            (
                f"{escape(a.name)}<small>{escape(a.encounter)}</small>{escape(b.name)}<small>{escape(b.encounter)}</small>",
                _VERDICTS[pair.verdict],
                f"{pair.llr:.1f}",
                _said(pair.fingers_llr, pair.fingers),
                _said(pair.irises_llr, pair.irises),
                f"{pair.face_llr:.1f}",
                escape(_in_words(pair.reasons)),
            )
        )
    return page.table(head, rows)


def _said(llr: float, matching: str) -> str:
    """What a modality says, and how many of how many match."""
    if matching == "0 of 0":
        return '<span class="quiet">none in common</span>'
    return f"{llr:.1f}<small>{matching} match</small>"


def _in_words(reasons: Sequence[Reason]) -> str:
    return ", ".join(reason.replace("_", " ") for reason in reasons)


def _faults(faults: Sequence[Fault]) -> list[str]:
    if not faults:
        return ["<p>Everything was read.</p>"]
    rows = [tuple(escape(text) for text in fault) for fault in sorted(faults)[:_SHOWN_FAULTS]]
    more = f"<p>and {len(faults) - len(rows):,} more, in {ERRORS}.</p>" if len(faults) > len(rows) else ""
    return [page.table(("record", "place", "reason"), rows), more]
