"""A segment of a gallery: encounters in arrays that never change, in memory or mapped from a file.

What changes is only which of them are removed (`dead`). A segment file holds the arrays behind each other;
its table in the gallery's manifest says where they are and what their checksums are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from capture.sample import EyePosition, FingerPosition, Modality
from matching.arrays import checksum, map_arrays, write_arrays
from matching.encounter import EncounterForm
from matching.errors import GalleryDamaged
from matching.face.shelf import FaceShelf
from matching.fingerprint.shelf import FingerShelf, most_detail
from matching.iris.shelf import IrisShelf

Table = Mapping[str, tuple[str, list[int], int, int]]
Columns = Mapping[str, NDArray[np.generic]]
Name = TypeVar("Name", FingerPosition, EyePosition, bytes)
Shelf = TypeVar("Shelf", FingerShelf, IrisShelf, FaceShelf)

# Arrays that only exact comparison reads: they need not be in memory, and are checked later.
_READ_LATER = (".template", ".rest")
# An encounter none of whose fingers has so much detail is not found by codes.
_TELLING_DETAIL = 2
_ROWS = np.dtype(np.int32)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """Where a segment is on disk, and what the manifest says of its arrays."""

    path: Path
    table: Table


@dataclass(frozen=True, eq=False)  # without slots: what is derived is kept
class Segment:
    """Encounters, n of them: `keys` and `subjects` `(n,) int64`, `dead` `(n,) bool`, and their shelves.

    Shelves know an encounter by its row. Reading is thread-safe.
    """

    keys: NDArray[np.int64]
    subjects: NDArray[np.int64]
    dead: NDArray[np.bool_]
    fingers: Mapping[FingerPosition, FingerShelf]
    irises: Mapping[EyePosition, IrisShelf]
    faces: Mapping[bytes, FaceShelf]
    file: SegmentFile | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _by_key(self) -> NDArray[np.intp]:
        return np.argsort(self.keys, kind="stable")

    @cached_property
    def _by_subject(self) -> NDArray[np.int32]:
        return np.argsort(self.subjects, kind="stable").astype(_ROWS)

    @cached_property
    def thin(self) -> NDArray[np.intp]:
        """Rows of encounters whose fingers all show too little for their codes to tell them."""
        most = most_detail(self.fingers, len(self))
        return np.flatnonzero((most >= 0) & (most < _TELLING_DETAIL))

    def row(self, key: int) -> int | None:
        """Row of the encounter with this key, None where there is none or it was removed."""
        order = self._by_key
        first, last = (
            int(np.searchsorted(self.keys, key, side=side, sorter=order)) for side in ("left", "right")
        )
        return next((int(row) for row in order[first:last] if not self.dead[row]), None)

    def rows(self, subject: int) -> list[int]:
        """Rows of the subject's encounters that are not removed, in the order they were added."""
        order = self._by_subject
        first, last = (
            int(np.searchsorted(self.subjects, subject, side=side, sorter=order))
            for side in ("left", "right")
        )
        return [row for row in order[first:last].tolist() if not self.dead[row]]

    def finger_count(self, row: int) -> int:
        """How many fingers the encounter in this row has. Cost: some 20 us, no template is read."""
        return sum(
            int(np.searchsorted(shelf.slot, row + 1) - np.searchsorted(shelf.slot, row))
            for shelf in self.fingers.values()
        )

    def form(self, row: int) -> EncounterForm:
        """The encounter in this row."""
        fingers = [f for position, shelf in self.fingers.items() for f in shelf.forms(position, row)]
        irises = [iris for eye, shelf in self.irises.items() for iris in shelf.forms(eye, row)]
        faces = [shelf.form(embedder, row) for embedder, shelf in self.faces.items()]
        return EncounterForm(
            tuple(fingers), tuple(irises), next((face for face in faces if face is not None), None)
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything but `dead`, by the names they have in a file."""
        named: dict[str, NDArray[np.generic]] = {"keys": self.keys, "subjects": self.subjects}
        fingers = {f"finger-{position:02d}": shelf for position, shelf in self.fingers.items()}
        irises = {f"iris-{eye}": shelf for eye, shelf in self.irises.items()}
        faces = {f"face-{embedder.hex()}": shelf for embedder, shelf in self.faces.items()}
        for name, shelf in (fingers | irises | faces).items():
            named |= {f"{name}.{field.name}": getattr(shelf, field.name) for field in fields(shelf)}
        return named

    def sizes(self) -> dict[Modality, tuple[int, int]]:
        """Of each modality the bytes that every search reads, and those that only exact comparison reads."""
        kinds = {"finger": Modality.FINGERPRINT, "iris": Modality.IRIS, "face": Modality.FACE}
        read = dict.fromkeys(Modality, (0, 0))
        for name, array in self.arrays().items():
            if (modality := kinds.get(name.split("-")[0])) is not None:
                always, later = read[modality]
                read_later = name.endswith(_READ_LATER)
                read[modality] = (
                    always + (0 if read_later else array.nbytes),
                    later + (array.nbytes if read_later else 0),
                )
        return read


def joined(segments: Sequence[Segment], alive: Sequence[NDArray[np.bool_]]) -> Segment:
    """The encounters of all of them that are alive, in their order, in memory."""
    new_rows = []
    before = 0
    for rows in alive:
        new_rows.append(np.where(rows, before + np.cumsum(rows) - 1, -1).astype(_ROWS))
        before += int(rows.sum())
    return Segment(
        keys=np.concatenate([s.keys[rows] for s, rows in zip(segments, alive, strict=True)]),
        subjects=np.concatenate([s.subjects[rows] for s, rows in zip(segments, alive, strict=True)]),
        dead=np.zeros(before, dtype=np.bool_),
        fingers=_joined_shelves(FingerShelf, [segment.fingers for segment in segments], new_rows),
        irises=_joined_shelves(IrisShelf, [segment.irises for segment in segments], new_rows),
        faces=_joined_shelves(FaceShelf, [segment.faces for segment in segments], new_rows),
    )


def _joined_shelves(
    kind: type[Shelf], given: Sequence[Mapping[Name, Shelf]], new_rows: Sequence[NDArray[np.int32]]
) -> dict[Name, Shelf]:
    parts: dict[Name, list[Shelf]] = {}
    for shelves, new_row in zip(given, new_rows, strict=True):
        for name, shelf in shelves.items():
            parts.setdefault(name, []).append(shelf.kept(new_row))
    made = {name: kind.joined(shelves) for name, shelves in sorted(parts.items())}
    return {name: shelf for name, shelf in made.items() if len(shelf.slot)}


def written(segment: Segment, path: Path) -> Segment:
    """The same segment, on disk and mapped from there."""
    return opened(SegmentFile(path, write_arrays(path, segment.arrays())), segment.dead)


def opened(file: SegmentFile, dead: NDArray[np.bool_] | None = None) -> Segment:
    """The segment in this file, mapped; none of it dead unless said so. Raises `ValueError`, `OSError`."""
    arrays = map_arrays(file.path, file.table)
    shelves: dict[str, dict[str, NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        shelf, _, field = name.partition(".")
        shelves.setdefault(shelf, {})[field] = array
    keys, subjects = shelves.pop("keys")[""], shelves.pop("subjects")[""]

    def of(kind: str) -> Iterator[tuple[str, Columns]]:
        return (
            (name.removeprefix(kind), columns) for name, columns in shelves.items() if name.startswith(kind)
        )

    # the arrays have the types that they were written with
    return Segment(
        keys=keys,  # type: ignore[arg-type]
        subjects=subjects,  # type: ignore[arg-type]
        dead=np.zeros(len(keys), dtype=np.bool_) if dead is None else dead,
        fingers={FingerPosition(int(n)): FingerShelf(**c) for n, c in of("finger-")},  # type: ignore[arg-type]
        irises={EyePosition(int(n)): IrisShelf(**c) for n, c in of("iris-")},  # type: ignore[arg-type]
        faces={bytes.fromhex(n): FaceShelf(**c) for n, c in of("face-")},  # type: ignore[arg-type]
        file=file,
    )


def check(segment: Segment, *, read_later: bool) -> None:
    """Raise `GalleryDamaged` unless the file's arrays have their checksums.

    Those that every search reads, or those that only exact comparison reads. Cost: 1 s for 2 GB.
    """
    if segment.file is None:
        return
    arrays = segment.arrays()
    for name, (_, _, _, crc) in segment.file.table.items():
        if name.endswith(_READ_LATER) == read_later and checksum(arrays[name]) != crc:
            raise GalleryDamaged(f"{name} in {segment.file.path} fails its checksum: rebuild the gallery")
