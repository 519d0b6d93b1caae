"""The faces of a gallery: one matrix of vectors per embedder, searched exactly by inner products."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matching.arrays import grown, mapped, npz
from matching.face.comparison import FaceForm


class FaceShelves:
    """The faces of encounters, which go by slots: small numbers, never used again. Not thread-safe."""

    __slots__ = ("_at", "_shelves")

    def __init__(self) -> None:
        self._shelves: dict[bytes, _Shelf] = {}
        self._at: dict[int, tuple[bytes, int]] = {}  # of each slot, embedder and number on its shelf

    def add(self, slot: int, face: FaceForm | None) -> None:
        """Keep an encounter's face, if it has one.

        Raises `ValueError` where its vector is not as long as others of its embedder.
        """
        if face is not None:
            shelf = self._shelves.setdefault(face.embedder, _Shelf(len(face.vector)))
            self._at[slot] = (face.embedder, shelf.add(slot, face))

    def remove(self, slot: int) -> None:
        """Forget an encounter's face, if it has one; nothing of its vector is kept."""
        if slot in self._at:
            embedder, number = self._at.pop(slot)
            self._shelves[embedder].remove(number)

    def form(self, slot: int) -> FaceForm | None:
        """An encounter's face, as it was added."""
        if slot not in self._at:
            return None
        embedder, number = self._at[slot]
        return self._shelves[embedder].form(embedder, number)

    def standing(self, face: FaceForm | None, slots: int) -> NDArray[np.float32]:
        """`(slots,)`: the cosine of each encounter's face with this one, at least 0; 0 of other embedders.

        Cost: 25 ms for a million vectors of 128 values, one thread.
        """
        best = np.zeros(slots, dtype=np.float32)
        if face is not None and face.embedder in self._shelves:
            self._shelves[face.embedder].raise_to_cosines(face.vector, best)
        return best

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by file name, as `restore` reads them; later changes do not show in them."""
        return {
            f"face-{embedder.hex()}{end}": content
            for embedder, shelf in self._shelves.items()
            for end, content in shelf.files().items()
        }

    def restore(self, folder: Path, tag: str, files: Collection[str]) -> None:
        """Become what wrote these files."""
        start, end = f"{tag}-face-", ".npz"
        for name in files:
            if name.startswith(start) and name.endswith(end):
                embedder = bytes.fromhex(name[len(start) : -len(end)])
                shelf = self._shelves[embedder] = _Shelf(0)
                shelf.restore(folder, name[: -len(end)])
                self._at |= {slot: (embedder, number) for number, slot in shelf.slots()}


class _Shelf:
    """Faces of one embedder. Vectors that came from disk stay mapped; those added since lie behind them.

    A number is not used again; vectors of removed numbers are zeros.
    """

    __slots__ = ("_count", "_mapped", "_quality", "_slot", "_vectors")

    def __init__(self, length: int) -> None:
        self._mapped = np.zeros((0, length), dtype=np.float32)
        self._vectors = np.zeros((0, length), dtype=np.float32)  # grows
        self._count = 0
        self._slot = np.zeros(0, dtype=np.int32)  # -1 where removed
        self._quality = np.zeros(0, dtype=np.uint8)

    def slots(self) -> list[tuple[int, int]]:
        """Number and slot of every face that is not removed."""
        return [(number, slot) for number, slot in enumerate(self._slot[: self._count].tolist()) if slot >= 0]

    def _vector(self, number: int) -> NDArray[np.float32]:
        before = len(self._mapped)
        part, at = (self._mapped, number) if number < before else (self._vectors, number - before)
        return part[at, :]

    def add(self, slot: int, face: FaceForm) -> int:
        """Its number on this shelf."""
        if len(face.vector) != self._vectors.shape[1]:
            raise ValueError(
                f"a vector of {len(face.vector)} values from an embedder of {self._vectors.shape[1]}"
            )
        number = self._count
        self._vectors = grown(self._vectors, number + 1 - len(self._mapped))
        self._slot = grown(self._slot, number + 1)
        self._quality = grown(self._quality, number + 1)
        self._vector(number)[:] = face.vector
        self._slot[number] = slot
        self._quality[number] = face.quality
        self._count += 1
        return number

    def remove(self, number: int) -> None:
        self._vector(number)[:] = 0
        self._slot[number] = -1

    def form(self, embedder: bytes, number: int) -> FaceForm:
        """What was added under this number, and not removed."""
        return FaceForm(self._vector(number).copy(), embedder, int(self._quality[number]))

    def raise_to_cosines(self, vector: NDArray[np.float32], best: NDArray[np.float32]) -> None:
        """Raise `best` `(slots,)` to the cosines of the shelf's faces with this vector."""
        added = self._vectors[: self._count - len(self._mapped)]
        # einsum: faster than BLAS here, and without threads of its own beneath those of the searches
        cosines = np.concatenate([np.einsum("nd,d->n", part, vector) for part in (self._mapped, added)])
        kept = self._slot[: self._count] >= 0
        slots = self._slot[: self._count][kept]
        best[slots] = np.maximum(best[slots], cosines[kept])

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by the end of the file name, as `restore` reads them."""
        added = self._vectors[: self._count - len(self._mapped)]
        rows = npz(slot=self._slot[: self._count], quality=self._quality[: self._count])
        return {".npz": [rows], ".vectors": [self._mapped.tobytes(), added.tobytes()]}

    def restore(self, folder: Path, name: str) -> None:
        """Become what the shelf was that wrote these files."""
        with np.load(folder / f"{name}.npz", allow_pickle=False) as rows:
            self._slot, self._quality = rows["slot"], rows["quality"]
        self._count = len(self._slot)
        self._mapped = mapped(folder / f"{name}.vectors", np.float32).reshape(self._count, -1)
        self._vectors = np.zeros((0, self._mapped.shape[1]), dtype=np.float32)
