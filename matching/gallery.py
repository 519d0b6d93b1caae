"""The searchable gallery of encounters: an index for fingers, one for irises, one for faces.

Search has two stages. Each modality names the subjects that stand out: fingers by votes of local descriptors,
irises and faces by exact scans of all codes and vectors. Whoever is named by any of them is then compared in
all modalities exactly. The gallery is derived data: the store can rebuild it, `watermark` says up to where it
has followed the store, and a damaged copy on disk is refused, never repaired.
"""

import json
import os
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from matching.arrays import grown, npz
from matching.encounter import EncounterComparison, EncounterForm, beside, compare_encounters
from matching.errors import GalleryDamaged
from matching.face.shelf import FaceShelves
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.shelf import FingerShelves
from matching.iris.shelf import IrisShelves


@dataclass(frozen=True, slots=True)
class Params:
    """How many subjects each modality has compared exactly."""

    fingers: int = 20
    irises: int = 5
    faces: int = 5
    # of them negative ones, one in so many: somebody's many held attempts must not hide who they are
    held: int = 4


PARAMS = Params()
_FORMAT = 3
_MANIFEST = "gallery.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Match:
    """A subject, its encounter that compares best, and how."""

    key: int
    subject: int
    comparison: EncounterComparison


class Gallery:
    """Encounters by key, each of one subject. Thread-safe: searches share, changes exclude.

    A subject is any number; a negative one stands for an encounter that is nobody's yet.
    `watermark` is the store's sequence number this gallery has followed up to; its owner sets it.
    `face_file`: the calibration of the user's own face embedder, if there is one. Memory: 220 bytes a
    cylinder, 300 a finger; 16 bytes a word of an iris code; 4 a value of a face vector. Codes, vectors and
    packed cylinders of what is removed are forgotten at once; their room comes back when the gallery is
    built anew.
    """

    __slots__ = (
        "_entries",
        "_face_file",
        "_faces",
        "_fingers",
        "_irises",
        "_lock",
        "_saving",
        "_slots",
        "_subjects",
        "watermark",
    )

    def __init__(self, *, face_file: Path | None = None) -> None:
        self.watermark = 0
        self._face_file = face_file
        self._lock = _ReadersWriterLock()
        self._saving = threading.Lock()
        self._fingers = FingerShelves()
        self._irises = IrisShelves()
        self._faces = FaceShelves()
        self._entries: dict[int, _Entry] = {}
        self._subjects: dict[int, list[int]] = {}  # keys of each subject
        self._slots = _Slots()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: int) -> bool:
        return key in self._entries

    def form(self, key: int) -> EncounterForm:
        """Give the encounter's form, without descriptors; raises `KeyError`. Cost: 30 us a finger."""
        with self._lock.reading():
            return self._form(self._entries[key].slot)

    def subject_keys(self, subject: int) -> tuple[int, ...]:
        """Keys of the subject's encounters, in the order they were added; none for an unknown subject."""
        with self._lock.reading():
            return tuple(self._subjects.get(subject, ()))

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        """Add an encounter.

        Raises `ValueError` where the key is in use, fingers have no descriptors, or a face vector is not as
        long as others of its embedder. Places and directions of minutiae are kept as exactly as a template's
        native bytes keep them. Cost: 0.5 ms a finger.
        """
        with self._lock.writing():
            if key in self._entries:
                raise ValueError(f"encounter {key} is in the gallery already")
            slot = self._slots.take(subject)
            try:
                self._faces.add(slot, form.face)
                self._fingers.add(slot, form.fingers)
                self._irises.add(slot, form.irises)
            except BaseException:
                self._forget(slot)
                raise
            self._entries[key] = _Entry(subject, slot)
            self._subjects.setdefault(subject, []).append(key)

    def remove(self, key: int) -> None:
        """Forget an encounter; raises `KeyError`. Cost about 1 ms a finger at 10,000 people."""
        with self._lock.writing():
            entry = self._entries.pop(key)
            self._subjects[entry.subject].remove(key)
            if not self._subjects[entry.subject]:
                del self._subjects[entry.subject]
            self._forget(entry.slot)

    def _forget(self, slot: int) -> None:
        self._fingers.remove(slot)
        self._irises.remove(slot)
        self._faces.remove(slot)

    def search(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Find the subjects most like the probe, best first, 30 at most, none of `exclude`.

        Raises `NotCalibrated` where it meets samples that nobody has calibrated with the probe's.
        Cost: about 50 ms on one thread at 10,000 people of ten fingers; four times that where ten fingers
        of unknown position are sought on every shelf. Irises and face add 4 ms for each further
        candidate they name, and at 100,000 people 40 ms for the scan of both eyes.
        """
        with self._lock.reading():
            forms = self._forms(self._shortlist(probe, frozenset(exclude)))
        return self._ranked(probe, forms)

    def search_exhaustively(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Compare every subject not in `exclude` exactly: what `search` is measured against."""
        with self._lock.reading():
            subjects = sorted(self._subjects.keys() - frozenset(exclude))
        matches: list[Match] = []
        for first in range(0, len(subjects), PARAMS.fingers):
            with self._lock.reading():
                forms = self._forms(subjects[first : first + PARAMS.fingers])
            matches += self._ranked(probe, forms)
        return sorted(matches, key=_rank)

    def _form(self, slot: int) -> EncounterForm:
        return EncounterForm(self._fingers.forms(slot), self._irises.forms(slot), self._faces.form(slot))

    def _forms(self, subjects: list[int]) -> list[tuple[int, int, EncounterForm]]:
        """Key, subject and form of all encounters of these subjects, those that are gone left out."""
        return [
            (key, subject, self._form(self._entries[key].slot))
            for subject in subjects
            for key in self._subjects.get(subject, ())
        ]

    def _ranked(self, probe: EncounterForm, forms: list[tuple[int, int, EncounterForm]]) -> list[Match]:
        """Best encounter of each subject, best subject first, ties by scores, then by key."""
        of_subject: dict[int, list[Match]] = {}
        for key, subject, form in forms:
            compared = compare_encounters(probe, form, face_file=self._face_file)
            of_subject.setdefault(subject, []).append(Match(key, subject, compared))
        best: list[Match] = []
        for matches in of_subject.values():
            first, *others = sorted(matches, key=_rank)
            told = beside(first.comparison, [other.comparison for other in others])
            best.append(replace(first, comparison=told))
        return sorted(best, key=_rank)

    def _shortlist(self, probe: EncounterForm, excluded: frozenset[int]) -> list[int]:
        """Subjects to compare exactly: those whom any modality names."""
        if len(self._subjects) - len(self._subjects.keys() & excluded) <= PARAMS.fingers:
            return [subject for subject in self._subjects if subject not in excluded]
        slots = len(self._slots)
        listed: dict[int, None] = {}
        if probe.fingers:
            # what votes say of the last of them is little: the list is filled up with anybody
            named = self._fingers.standing(probe.fingers, slots)
            listed |= self._standing_out(named, -1.0, PARAMS.fingers, excluded)
        if probe.irises:
            named = self._irises.standing(probe.irises, slots)
            listed |= self._standing_out(named, 0.0, PARAMS.irises, excluded)
        if probe.face is not None:
            named = self._faces.standing(probe.face, slots)
            listed |= self._standing_out(named, 0.0, PARAMS.faces, excluded)
        return list(listed)

    def _standing_out(
        self, standing: NDArray[np.float32], above: float, most: int, excluded: frozenset[int]
    ) -> dict[int, None]:
        """The subjects of the encounters that stand highest, so many at most, few of them held."""
        listed: dict[int, None] = {}
        held = 0
        slots = np.flatnonzero(standing > above)
        for slot in slots[np.argsort(-standing[slots], kind="stable")]:
            if len(listed) == most:
                break
            subject = int(self._slots.subject[slot])
            if subject in listed or subject not in self._subjects or subject in excluded:
                continue
            if subject < 0 and held == max(1, most // PARAMS.held):
                continue
            held += subject < 0
            listed[subject] = None
        return listed

    def save(self, folder: Path) -> None:
        """Write a copy; the old one stays valid until the new one is whole, whatever happens.

        Every file is written under a new name and fsynced, then the manifest with their checksums replaces
        the old one in one rename. Searches and changes wait only while the state is noted, under a second at
        10,000 people.
        """
        with self._saving:
            folder.mkdir(parents=True, exist_ok=True)
            tag = uuid4().hex[:12]
            with self._lock.reading():
                watermark, files = self.watermark, self._files()
            manifest = {
                "format": _FORMAT,
                "model": self._fingers.model,
                "cylinders": asdict(CYLINDER_PARAMS),
                "watermark": watermark,
                "tag": tag,
                "files": {
                    f"{tag}-{name}": _write_durably(folder / f"{tag}-{name}", content)
                    for name, content in files.items()
                },
            }
            written = folder / f"{tag}.json"
            _write_durably(written, [json.dumps(manifest, indent=1).encode()])
            written.rename(folder / _MANIFEST)
            _sync_folder(folder)
            for path in folder.iterdir():
                if path.name != _MANIFEST and not path.name.startswith(tag):
                    path.unlink()

    def _files(self) -> dict[str, Iterable[bytes]]:
        """The state as contents by file name; later changes do not show in it."""
        encounters = [(key, entry.subject, entry.slot) for key, entry in self._entries.items()]
        table = npz(
            encounters=np.array(encounters, dtype=np.int64).reshape(-1, 3),
            subject_of_slot=self._slots.subject,
        )
        shelves = self._fingers.files() | self._irises.files() | self._faces.files()
        return {"table.npz": [table]} | shelves

    @classmethod
    def load(cls, folder: Path, *, face_file: Path | None = None) -> "Gallery":
        """Read what `save` wrote; raises `GalleryDamaged` where it is incomplete, altered or outdated.

        Every byte is checked against its checksum; cylinders, codes and vectors then stay in the page cache,
        mapped.
        """
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            gallery = cls(face_file=face_file)
            versions = (_FORMAT, gallery._fingers.model, asdict(CYLINDER_PARAMS))
            if (manifest["format"], manifest["model"], manifest["cylinders"]) != versions:
                raise GalleryDamaged(f"the gallery in {folder} was made by another version: rebuild it")
            for name, checksum in manifest["files"].items():
                if _crc(folder / name) != checksum:
                    raise GalleryDamaged(f"{name} in {folder} fails its checksum: rebuild the gallery")
            gallery._read(folder, manifest["tag"], manifest["files"].keys())
            gallery.watermark = int(manifest["watermark"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, BadZipFile) as error:
            raise GalleryDamaged(f"the gallery in {folder} cannot be read: {error}") from error
        return gallery

    def _read(self, folder: Path, tag: str, files: Collection[str]) -> None:
        with np.load(folder / f"{tag}-table.npz", allow_pickle=False) as table:
            encounters, subject_of_slot = table["encounters"], table["subject_of_slot"]
        self._slots = _Slots(subject_of_slot)
        for key, subject, slot in encounters.tolist():
            self._entries[key] = _Entry(subject, slot)
            self._subjects.setdefault(subject, []).append(key)
        for shelves in (self._fingers, self._irises, self._faces):
            shelves.restore(folder, tag, files)


def _rank(match: Match) -> tuple[float, float, int]:
    """Likelihood ratios are capped: among equals the higher scores go first."""
    compared = match.comparison
    scores = sum(share.score for share in compared.shares) + sum(share.score for share in compared.irises)
    if compared.face is not None:
        scores += compared.face.score
    return -compared.llr, -scores, match.key


@dataclass(frozen=True, slots=True)
class _Entry:
    """An encounter: whose, and its slot, by which the shelves know it."""

    subject: int
    slot: int


class _Slots:
    """Numbers encounters densely, so that votes can be summed in arrays; a number is not used again."""

    __slots__ = ("_count", "_subject")

    def __init__(self, subject: NDArray[np.int64] | None = None) -> None:
        self._subject = np.zeros(0, dtype=np.int64) if subject is None else subject
        self._count = len(self._subject)

    def __len__(self) -> int:
        return self._count

    @property
    def subject(self) -> NDArray[np.int64]:
        """`(slots,)`: whose encounter each is."""
        return self._subject[: self._count]

    def take(self, subject: int) -> int:
        self._subject = grown(self._subject, self._count + 1)
        self._subject[self._count] = subject
        self._count += 1
        return self._count - 1


class _ReadersWriterLock:
    """Many readers or one writer; a waiting writer goes before new readers."""

    __slots__ = ("_changed", "_readers", "_waiting", "_writing")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._writing and not self._readers)
            self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def _write_durably(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a new file, on disk when this returns; its CRC-32."""
    checksum = 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
        file.flush()
        os.fsync(file.fileno())
    return checksum


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _crc(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
