"""The newest encounters of a gallery, in arrays that grow, until they become a segment."""

import numpy as np

from capture.sample import EyePosition, FingerPosition
from matching.arrays import Growing
from matching.encounter import EncounterForm
from matching.face.shelf import GrowingFaceShelf
from matching.fingerprint.shelf import GrowingFingerShelf
from matching.iris.shelf import GrowingIrisShelf
from matching.segment import Segment


class Delta:
    """Encounters that can still be added to. Not thread-safe; the segments it gives may be read meanwhile."""

    __slots__ = ("_faces", "_fingers", "_irises", "_row_of", "_segment", "dead", "keys", "subjects")

    def __init__(self) -> None:
        self.keys = Growing(np.zeros(0, dtype=np.int64))
        self.subjects = Growing(np.zeros(0, dtype=np.int64))
        self.dead = Growing(np.zeros(0, dtype=np.bool_))
        self._fingers: dict[FingerPosition, GrowingFingerShelf] = {}
        self._irises: dict[EyePosition, GrowingIrisShelf] = {}
        self._faces: dict[bytes, GrowingFaceShelf] = {}
        self._row_of: dict[int, int] = {}
        self._segment: Segment | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, key: int) -> int | None:
        """Row of the encounter with this key, None where there is none or it was removed."""
        return self._row_of.get(key)

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        """Add an encounter under a key that is free."""
        row = len(self.keys)
        for finger in form.fingers:
            self._fingers.setdefault(finger.position, GrowingFingerShelf()).add(row, finger)
        for iris in form.irises:
            self._irises.setdefault(iris.eye, GrowingIrisShelf()).add(row, iris)
        if form.face is not None:
            shelf = self._faces.setdefault(form.face.embedder, GrowingFaceShelf(len(form.face.vector)))
            shelf.add(row, form.face)
        self.subjects.append(subject)
        self.dead.append(False)
        self.keys.append(key)
        self._row_of[key] = row
        self._segment = None

    def remove(self, key: int) -> None:
        """Mark an encounter as removed."""
        self.dead.filled[self._row_of.pop(key)] = True

    def segment(self) -> Segment:
        """What there is so far, as a segment that later additions do not change."""
        if self._segment is None:
            self._segment = Segment(
                keys=self.keys.filled,
                subjects=self.subjects.filled,
                dead=self.dead.filled,
                fingers={position: shelf.shelf() for position, shelf in sorted(self._fingers.items())},
                irises={eye: shelf.shelf() for eye, shelf in sorted(self._irises.items())},
                faces={embedder: shelf.shelf() for embedder, shelf in sorted(self._faces.items())},
            )
        return self._segment
