"""The irises of a gallery: the scan code of every eye in blocks, scanned exactly, one shelf per eye."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from capture.iris.template import GROUP_WORDS, IrisCoder
from capture.sample import EyePosition
from matching.arrays import Growing, Ragged, joined_ends, picked
from matching.iris.comparison import IrisForm
from matching.iris.scan import LANES, Rotations, Words, blocked, rotations, scan_within, unblocked


@dataclass(frozen=True, slots=True)
class Params:
    """What could be a match."""

    # normalised distance of the scan code at which the rest of two codes is worth comparing
    farthest: float = 0.40


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class IrisShelf:
    """Right, left or unknown eyes, m of them, in the order of their encounters.

    `slot` `(m,) int32`: whose each is, by the encounter's row in its segment; `blocks` `(B, 32, 2, 8)
    uint64`: scan codes and masks, see `matching.iris.scan`; `rest` uint64: code and mask beyond them, behind
    each other, each up to `end` `(m,) int64`; `coder` and `quality` `(m,) uint8`.
    """

    slot: NDArray[np.int32]
    blocks: Words
    coder: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    rest: Words
    end: NDArray[np.int64]

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)

    def forms(self, eye: EyePosition, row: int) -> list[IrisForm]:
        """The eyes of the encounter in this row, as they were added."""
        made = []
        for number in range(*np.searchsorted(self.slot, (row, row + 1)).tolist()):
            scanned = self.blocks[number // LANES, :, :, number % LANES].T
            rest = self.rest[self.end[number - 1] if number else 0 : self.end[number]].reshape(2, -1)
            words = np.concatenate([scanned, rest], axis=1)
            words.setflags(write=False)
            coder, quality = IrisCoder(self.coder[number]), int(self.quality[number])
            made.append(IrisForm(eye, words[0], words[1], coder, quality))
        return made

    def kept(self, new_row: NDArray[np.int32]) -> "IrisShelf":
        """The eyes whose encounters get a new row, by the old one; those with -1 are left out."""
        rows = np.flatnonzero(new_row[self.slot] >= 0)
        rest, end = picked(self.rest, self.end, rows)
        blocks = self.blocks
        if len(rows) < len(self.slot):
            words = unblocked(blocks, len(self.slot))[rows]
            blocks = blocked(words[:, :, 0], words[:, :, 1])
        return IrisShelf(new_row[self.slot[rows]], blocks, self.coder[rows], self.quality[rows], rest, end)

    @classmethod
    def joined(cls, shelves: Sequence["IrisShelf"]) -> "IrisShelf":
        """The eyes of all of them behind each other."""
        words = np.concatenate([unblocked(shelf.blocks, len(shelf.slot)) for shelf in shelves])
        return cls(
            slot=np.concatenate([shelf.slot for shelf in shelves]),
            blocks=blocked(words[:, :, 0], words[:, :, 1]),
            coder=np.concatenate([shelf.coder for shelf in shelves]),
            quality=np.concatenate([shelf.quality for shelf in shelves]),
            rest=np.concatenate([shelf.rest for shelf in shelves]),
            end=joined_ends([shelf.end for shelf in shelves]),
        )


class GrowingIrisShelf:
    """A shelf that eyes are put on."""

    __slots__ = ("_blocks", "_coder", "_quality", "_rest", "_slot")

    def __init__(self) -> None:
        self._slot = Growing(np.zeros(0, dtype=np.int32))
        self._blocks = Growing(np.zeros((0, GROUP_WORDS, 2, LANES), dtype=np.uint64))
        self._coder = Growing(np.zeros(0, dtype=np.uint8))
        self._quality = Growing(np.zeros(0, dtype=np.uint8))
        self._rest = Ragged(np.zeros(0, dtype=np.uint64))

    def add(self, row: int, iris: IrisForm) -> None:
        """Keep an eye of the encounter in this row."""
        number = len(self._slot)
        words = np.stack([iris.code, iris.mask])
        if number % LANES == 0:
            self._blocks.append(np.zeros((GROUP_WORDS, 2, LANES), dtype=np.uint64))
        self._blocks.filled[number // LANES, :, :, number % LANES] = words[:, :GROUP_WORDS].T
        self._rest.append(words[:, GROUP_WORDS:].ravel())
        self._coder.append(iris.coder)
        self._quality.append(iris.quality)
        self._slot.append(row)

    def shelf(self) -> IrisShelf:
        """The eyes there are."""
        return IrisShelf(
            self._slot.filled,
            self._blocks.filled,
            self._coder.filled,
            self._quality.filled,
            self._rest.flat.filled,
            self._rest.end.filled,
        )


class IrisesProbe:
    """A probe's eyes made ready for the scan."""

    __slots__ = ("asked",)

    def __init__(self, irises: Sequence[IrisForm]) -> None:
        self.asked = [(iris.eye, rotations(iris)) for iris in irises]


def raise_nearness(
    shelves: Mapping[EyePosition, IrisShelf],
    probes: Sequence[IrisesProbe],
    totals: NDArray[np.float32],
    base: int,
    rows: int,
) -> None:
    """Put into `totals[i, base : base + rows]` by how much each encounter's eyes are alike those of probe i.

    Summed over eyes, 0 if not alike: one eye adds 0.5 less its distance, where that is near enough; eyes as
    they were declared or swapped. Cost: 70 ms a million eyes for each eye of a probe, twice.
    """
    for i, probe in enumerate(probes):
        declared = np.zeros(rows, dtype=np.float32)
        swapped = np.zeros(rows, dtype=np.float32)
        for eye, turned in probe.asked:
            eyes = {eye, EyePosition.UNKNOWN} if eye else set(EyePosition)
            declared += _nearness(shelves, turned, eyes, rows)
            if eye:
                swapped += _nearness(shelves, turned, {eye.other}, rows)
        totals[i, base : base + rows] = np.maximum(declared, swapped)


def _nearness(
    shelves: Mapping[EyePosition, IrisShelf], turned: Rotations, eyes: set[EyePosition], rows: int
) -> NDArray[np.float32]:
    best = np.zeros(rows, dtype=np.float32)
    for eye in eyes & shelves.keys():
        shelf = shelves[eye]
        numbers, distances = scan_within(turned, shelf.blocks, PARAMS.farthest)
        # the last block may have lanes that are empty, or being filled
        there = numbers < len(shelf.slot)
        np.maximum.at(best, shelf.slot[numbers[there]], np.float32(0.5) - distances[there])
    return best
