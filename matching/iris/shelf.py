"""The irises of a gallery: the scan code of every eye in blocks, scanned exactly, one shelf per eye."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.iris.template import GROUP_WORDS, IrisCoder
from capture.sample import EyePosition
from matching.arrays import grown, mapped, npz
from matching.iris.comparison import IrisForm
from matching.iris.scan import LANES, Words, scan_within


@dataclass(frozen=True, slots=True)
class Params:
    """What could be a match."""

    # normalised distance of the scan code at which the rest of two codes is worth comparing
    farthest: float = 0.40


PARAMS = Params()


class IrisShelves:
    """The irises of encounters, which go by slots: small numbers, never used again. Not thread-safe."""

    __slots__ = ("_at", "_shelves")

    def __init__(self) -> None:
        self._shelves = {eye: _Shelf() for eye in EyePosition}
        # of each slot, its irises as (shelf, number on the shelf)
        self._at: dict[int, tuple[tuple[EyePosition, int], ...]] = {}

    def add(self, slot: int, irises: Sequence[IrisForm]) -> None:
        """Keep an encounter's irises."""
        if irises:
            self._at[slot] = tuple((iris.eye, self._shelves[iris.eye].add(slot, iris)) for iris in irises)

    def remove(self, slot: int) -> None:
        """Forget an encounter's irises, if it has any; nothing of their codes is kept."""
        for eye, number in self._at.pop(slot, ()):
            self._shelves[eye].remove(number)

    def forms(self, slot: int) -> tuple[IrisForm, ...]:
        """An encounter's irises, as they were added."""
        return tuple(self._shelves[eye].form(eye, number) for eye, number in self._at.get(slot, ()))

    def standing(self, irises: Sequence[IrisForm], slots: int) -> NDArray[np.float32]:
        """`(slots,)`: by how much each encounter's eyes are alike these, summed over eyes, 0 if not.

        One eye adds 0.5 less its distance, where that is near enough; eyes as they were declared or swapped.
        """
        declared = np.zeros(slots, dtype=np.float32)
        swapped = np.zeros(slots, dtype=np.float32)
        for iris in irises:
            eyes = {iris.eye, EyePosition.UNKNOWN} if iris.eye else set(EyePosition)
            declared += self._nearness(iris, eyes, slots)
            if iris.eye:
                swapped += self._nearness(iris, {iris.eye.other}, slots)
        return np.maximum(declared, swapped)

    def _nearness(self, iris: IrisForm, eyes: set[EyePosition], slots: int) -> NDArray[np.float32]:
        best = np.zeros(slots, dtype=np.float32)
        for eye in eyes:
            self._shelves[eye].raise_to_nearness(iris, best)
        return best

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by file name, as `restore` reads them; later changes do not show in them."""
        at = [(slot, *place) for slot, places in self._at.items() for place in places]
        files: dict[str, Iterable[bytes]] = {
            "irises.npz": [npz(at=np.array(at, dtype=np.int64).reshape(-1, 3))]
        }
        for eye, shelf in self._shelves.items():
            if len(shelf):
                files |= {f"iris-{eye}{end}": content for end, content in shelf.files().items()}
        return files

    def restore(self, folder: Path, tag: str, files: Collection[str]) -> None:
        """Become what wrote these files."""
        with np.load(folder / f"{tag}-irises.npz", allow_pickle=False) as table:
            rows = table["at"].tolist()
        at: dict[int, list[tuple[EyePosition, int]]] = {}
        for slot, eye, number in rows:
            at.setdefault(slot, []).append((EyePosition(eye), number))
        self._at = {slot: tuple(places) for slot, places in at.items()}
        for eye, shelf in self._shelves.items():
            if f"{tag}-iris-{eye}.npz" in files:
                shelf.restore(folder, f"{tag}-iris-{eye}")


class _Shelf:
    """Right, left or unknown eyes: their scan codes in blocks of eight, and what else their codes have.

    The blocks that came from disk stay mapped; those added since lie behind them. A number is not used again;
    codes of removed numbers are empty, so that no scan finds them.
    """

    __slots__ = ("_blocks", "_coder", "_count", "_mapped", "_quality", "_rest", "_slot")

    def __init__(self) -> None:
        self._mapped = _NO_BLOCKS
        self._blocks = _NO_BLOCKS  # grows
        self._count = 0
        self._slot = np.zeros(0, dtype=np.int32)
        self._coder = np.zeros(0, dtype=np.uint8)
        self._quality = np.zeros(0, dtype=np.uint8)
        self._rest: list[Words] = []  # `(2, w)`: code and mask beyond the scan code

    def __len__(self) -> int:
        return self._count

    def _block(self, number: int) -> NDArray[np.uint64]:
        """`(32, 2, 8)`: the block that holds this number."""
        block, before = number // LANES, len(self._mapped)
        part, at = (self._mapped, block) if block < before else (self._blocks, block - before)
        return part[at, :]

    def add(self, slot: int, iris: IrisForm) -> int:
        """Its number on this shelf."""
        number = self._count
        self._blocks = grown(self._blocks, number // LANES + 1 - len(self._mapped))
        self._slot = grown(self._slot, number + 1)
        self._coder = grown(self._coder, number + 1)
        self._quality = grown(self._quality, number + 1)
        words = np.stack([iris.code, iris.mask])
        self._block(number)[:, :, number % LANES] = words[:, :GROUP_WORDS].T
        self._rest.append(words[:, GROUP_WORDS:].copy())
        self._slot[number] = slot
        self._coder[number] = iris.coder
        self._quality[number] = iris.quality
        self._count += 1
        return number

    def remove(self, number: int) -> None:
        self._block(number)[:, :, number % LANES] = 0
        self._rest[number] = _NO_REST

    def form(self, eye: EyePosition, number: int) -> IrisForm:
        """What was added under this number, and not removed."""
        scanned = self._block(number)[:, :, number % LANES].T
        words = np.concatenate([scanned, self._rest[number]], axis=1)
        words.setflags(write=False)
        return IrisForm(eye, words[0], words[1], IrisCoder(self._coder[number]), int(self._quality[number]))

    def raise_to_nearness(self, iris: IrisForm, best: NDArray[np.float32]) -> None:
        """Raise `best` `(slots,)` to 0.5 less the distance of the shelf's eyes that are near enough."""
        used = -(-self._count // LANES) - len(self._mapped)
        for first, blocks in ((0, self._mapped), (len(self._mapped) * LANES, self._blocks[: max(used, 0)])):
            numbers, distances = scan_within(iris, blocks, PARAMS.farthest)
            np.maximum.at(best, self._slot[first + numbers], np.float32(0.5) - distances)

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by the end of the file name, as `restore` reads them."""
        rows = npz(
            slot=self._slot[: self._count],
            coder=self._coder[: self._count],
            quality=self._quality[: self._count],
            rest_words=np.array([rest.shape[1] for rest in self._rest], dtype=np.int64),
        )
        used = -(-self._count // LANES) - len(self._mapped)
        return {
            ".npz": [rows],
            ".blocks": [self._mapped.tobytes(), self._blocks[: max(used, 0)].tobytes()],
            ".rest": map(np.ndarray.tobytes, list(self._rest)),
        }

    def restore(self, folder: Path, name: str) -> None:
        """Become what the shelf was that wrote these files."""
        with np.load(folder / f"{name}.npz", allow_pickle=False) as rows:
            self._slot, self._coder, self._quality = rows["slot"], rows["coder"], rows["quality"]
            ends = 2 * np.cumsum(rows["rest_words"])
        self._count = len(self._slot)
        self._mapped = mapped(folder / f"{name}.blocks", np.uint64).reshape(-1, GROUP_WORDS, 2, LANES)
        rest = mapped(folder / f"{name}.rest", np.uint64)
        starts = np.concatenate([[0], ends[:-1]])
        self._rest = [rest[start:end].reshape(2, -1) for start, end in zip(starts, ends, strict=True)]


_NO_BLOCKS = np.zeros((0, GROUP_WORDS, 2, LANES), dtype=np.uint64)
_NO_REST = np.zeros((2, 0), dtype=np.uint64)
