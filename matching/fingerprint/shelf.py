"""The fingers of a gallery: code and template of each, one shelf per position, and what all codes say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from capture.sample import FingerPosition
from matching.arrays import Growing, Ragged, joined_ends, picked
from matching.fingerprint.code import CODE_WORDS, code_evidence, detail_bin, finger_detail
from matching.fingerprint.code_scan import ABSENT, scan_codes
from matching.fingerprint.hands import PARAMS as HANDS_PARAMS
from matching.fingerprint.hands import FingerForm


@dataclass(frozen=True, slots=True)
class Params:
    """What a search looks at."""

    # the fingers of most detail are sought on the other hand too
    other_hand_fingers: int = 2


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class FingerShelf:
    """Fingers of one position, m of them, in the order of their encounters.

    `slot` `(m,) int32`: whose each is, by the encounter's row in its segment; `code` `(m, W) uint64`;
    `detail` `(m,) uint8`: which bin of the evidence its detail is in; `template` uint8: native bytes behind
    each other, each up to `end` `(m,) int64`.
    """

    slot: NDArray[np.int32]
    code: NDArray[np.uint64]
    detail: NDArray[np.uint8]
    template: NDArray[np.uint8]
    end: NDArray[np.int64]

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)

    def forms(self, position: FingerPosition, row: int) -> list[FingerForm]:
        """The fingers of the encounter in this row."""
        first, last = np.searchsorted(self.slot, (row, row + 1)).tolist()
        ends = [int(self.end[first - 1]) if first else 0, *self.end[first:last].tolist()]
        return [
            FingerForm.stored(position, self.template[start:end].tobytes()) for start, end in pairwise(ends)
        ]

    def kept(self, new_row: NDArray[np.int32]) -> "FingerShelf":
        """The fingers whose encounters get a new row, by the old one; those with -1 are left out."""
        rows = np.flatnonzero(new_row[self.slot] >= 0)
        template, end = picked(self.template, self.end, rows)
        return FingerShelf(new_row[self.slot[rows]], self.code[rows], self.detail[rows], template, end)

    @classmethod
    def joined(cls, shelves: Sequence["FingerShelf"]) -> "FingerShelf":
        """The fingers of all of them behind each other."""
        return cls(
            slot=np.concatenate([shelf.slot for shelf in shelves]),
            code=np.concatenate([shelf.code for shelf in shelves]),
            detail=np.concatenate([shelf.detail for shelf in shelves]),
            template=np.concatenate([shelf.template for shelf in shelves]),
            end=joined_ends([shelf.end for shelf in shelves]),
        )


class GrowingFingerShelf:
    """A shelf that fingers are put on."""

    __slots__ = ("_code", "_detail", "_slot", "_template")

    def __init__(self) -> None:
        self._slot = Growing(np.zeros(0, dtype=np.int32))
        self._code = Growing(np.zeros((0, CODE_WORDS), dtype=np.uint64))
        self._detail = Growing(np.zeros(0, dtype=np.uint8))
        self._template = Ragged(np.zeros(0, dtype=np.uint8))

    def add(self, row: int, finger: FingerForm) -> None:
        """Keep a finger of the encounter in this row."""
        self._template.append(np.frombuffer(finger.native, dtype=np.uint8))
        self._code.append(finger.code)
        self._detail.append(detail_bin(finger_detail(finger.template)))
        self._slot.append(row)

    def shelf(self) -> FingerShelf:
        """The fingers there are."""
        template = self._template
        return FingerShelf(
            self._slot.filled,
            self._code.filled,
            self._detail.filled,
            template.flat.filled,
            template.end.filled,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A probe's finger: its code, and the evidence `(bins, distances)` of prints of its detail."""

    position: FingerPosition
    code: NDArray[np.uint64]
    table: NDArray[np.float32]


class FingersProbe:
    """A probe's fingers made ready for the scan, those of most detail first."""

    __slots__ = ("asked",)

    def __init__(self, fingers: Sequence[FingerForm]) -> None:
        told = sorted(((finger_detail(f.template), f) for f in fingers), key=lambda told: -told[0])
        evidence = code_evidence()
        self.asked = [_Asked(f.position, f.code, evidence[detail_bin(n)]) for n, f in told if n]


Shelves = Mapping[FingerPosition, FingerShelf]


def raise_evidence(
    shelves: Shelves, probes: Sequence[FingersProbe], totals: NDArray[np.float32], base: int, rows: int
) -> None:
    """Put into `totals[i, base : base + rows]` what the fingers of probe i say of each encounter.

    Log10 likelihood ratios, summed over fingers, where they were declared or with the hands swapped; `ABSENT`
    where they have no finger in common. Several probes are held against the codes together.
    """
    unknown = shelves.get(FingerPosition.UNKNOWN)
    swapped = np.full((len(probes), rows), ABSENT, dtype=np.float32)
    # 1. fingers of known position with their like, and the strongest with their like of the other hand
    for position, shelf in shelves.items():
        declared = [(i, a) for i, probe in enumerate(probes) for a in probe.asked if a.position == position]
        crossed = [
            (i, a)
            for i, probe in enumerate(probes)
            for a in probe.asked[: PARAMS.other_hand_fingers]
            if a.position and a.position.other_hand == position
        ]
        if position and unknown is None:
            _scan(shelf, declared, totals, base)
        _scan(shelf, crossed, swapped, 0)
    # 2. whatever position is unknown, where it fits best
    for i, probe in enumerate(probes):
        for asked in probe.asked:
            if asked.position and unknown is None:
                continue
            best = np.full((1, rows), ABSENT, dtype=np.float32)
            for position in (asked.position, FingerPosition.UNKNOWN) if asked.position else shelves:
                if position in shelves:
                    _scan(shelves[position], [(0, asked)], best, 0, summed=False)
            own = totals[i, base : base + rows]
            own[:] = np.where(own == ABSENT, best[0], own + np.where(best[0] == ABSENT, 0, best[0]))
    own = totals[: len(probes), base : base + rows]
    np.maximum(own, swapped + np.float32(HANDS_PARAMS.swapped_prior), out=own)


def _scan(
    shelf: FingerShelf,
    asked: list[tuple[int, _Asked]],
    totals: NDArray[np.float32],
    base: int,
    *,
    summed: bool = True,
) -> None:
    if asked:
        which = np.array([i for i, _ in asked], dtype=np.intp)
        codes = np.stack([a.code for _, a in asked])
        tables = np.stack([a.table for _, a in asked])
        scan_codes(shelf.code, shelf.detail, shelf.slot, codes, tables, which, totals, base, summed=summed)


def most_detail(shelves: Shelves, rows: int) -> NDArray[np.int16]:
    """`(rows,)`: bin of the finger of most detail of each encounter, -1 where it has none."""
    most = np.full(rows, -1, dtype=np.int16)
    for shelf in shelves.values():
        np.maximum.at(most, shelf.slot, shelf.detail.astype(np.int16))
    return most
