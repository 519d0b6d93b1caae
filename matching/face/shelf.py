"""The faces of a gallery: one matrix of vectors per embedder, searched exactly by inner products."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from matching.arrays import Growing
from matching.face.comparison import FaceForm


@dataclass(frozen=True, slots=True, eq=False)
class FaceShelf:
    """Faces of one embedder, m of them, in the order of their encounters.

    `slot` `(m,) int32`: whose each is, by the encounter's row in its segment; `vector` `(m, D) float32`;
    `quality` `(m,) uint8`.
    """

    slot: NDArray[np.int32]
    vector: NDArray[np.float32]
    quality: NDArray[np.uint8]

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)

    def form(self, embedder: bytes, row: int) -> FaceForm | None:
        """The face of the encounter in this row, if it has one."""
        number = int(np.searchsorted(self.slot, row))
        if number == len(self.slot) or self.slot[number] != row:
            return None
        vector = self.vector[number].copy()
        vector.setflags(write=False)
        return FaceForm(vector, embedder, int(self.quality[number]))

    def kept(self, new_row: NDArray[np.int32]) -> "FaceShelf":
        """The faces whose encounters get a new row, by the old one; those with -1 are left out."""
        rows = np.flatnonzero(new_row[self.slot] >= 0)
        return FaceShelf(new_row[self.slot[rows]], self.vector[rows], self.quality[rows])

    @classmethod
    def joined(cls, shelves: Sequence["FaceShelf"]) -> "FaceShelf":
        """The faces of all of them behind each other."""
        return cls(
            slot=np.concatenate([shelf.slot for shelf in shelves]),
            vector=np.concatenate([shelf.vector for shelf in shelves]),
            quality=np.concatenate([shelf.quality for shelf in shelves]),
        )


class GrowingFaceShelf:
    """A shelf that faces are put on."""

    __slots__ = ("_quality", "_slot", "_vector")

    def __init__(self, length: int) -> None:
        self._slot = Growing(np.zeros(0, dtype=np.int32))
        self._vector = Growing(np.zeros((0, length), dtype=np.float32))
        self._quality = Growing(np.zeros(0, dtype=np.uint8))

    def add(self, row: int, face: FaceForm) -> None:
        """Keep the face of the encounter in this row."""
        self._vector.append(face.vector)
        self._quality.append(face.quality)
        self._slot.append(row)

    def shelf(self) -> FaceShelf:
        """The faces there are."""
        return FaceShelf(self._slot.filled, self._vector.filled, self._quality.filled)


def raise_cosines(
    shelves: Mapping[bytes, FaceShelf],
    faces: Sequence[FaceForm | None],
    totals: NDArray[np.float32],
    base: int,
) -> None:
    """Put into `totals[i, base + row]` the cosine of face i with each encounter's of its embedder.

    Cost: 25 ms for a million vectors of 128 values, one thread.
    """
    for i, face in enumerate(faces):
        if face is not None and face.embedder in shelves:
            shelf = shelves[face.embedder]
            # einsum: faster than BLAS here, and without threads of its own beneath those of the searches
            totals[i, base + shelf.slot] = np.einsum("nd,d->n", shelf.vector, face.vector)
