"""The searchable gallery of fingerprint encounters: an inverted-list index per finger position.

Search has two stages. Votes of local descriptors, summed over fingers, shortlist at most 20 subjects; each of
them is then compared exactly. The gallery is derived data: the store can rebuild it, `watermark` says up to
where it has followed the store, and a damaged copy on disk is refused, never repaired.
"""

import json
import os
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar
from uuid import uuid4
from zipfile import BadZipFile

import faiss
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import MAX_MINUTIAE, Extractor
from capture.sample import FingerPosition
from matching.encounter import EncounterComparison, EncounterForm, FingerForm, compare_encounters
from matching.errors import GalleryDamaged
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.descriptors import SIZE, DescriptorModel
from matching.fingerprint.packed import PACKED_WORDS, packed, places, unpacked
from matching.fingerprint.votes import votes

# Searches run on a pool of their own: one thread each, or FAISS would start its own beneath them.
faiss.omp_set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Params:
    """How much of the gallery a search looks at."""

    shortlist: int = 20  # subjects compared exactly
    most_held: int = 5  # of them negative ones: somebody's many held attempts must not hide who they are
    lists_probed: int = 16
    # nearest descriptors that vote, a cylinder: one for so many fingers of the position, within these bounds
    fingers_a_vote: int = 40
    fewest_votes: int = 64
    most_votes: int = 2000
    # the strongest fingers are enough, if they have this many cylinders; then less of each is enough, too
    enough_fingers: int = 4
    enough_cylinders: int = 20
    cylinders_asked: int = 40
    fingers_a_vote_of_many: int = 100
    # these many are sought on the other hand too
    other_hand_fingers: int = 2
    # an enrolled finger with fewer cylinders gathers too few votes: the probe is compared with it instead
    few_cylinders: int = 12
    # and a probe of few fingers is compared with everybody, for each finger with fewer cylinders than this
    few_asked: int = 16
    longest_walk: int = 20_000
    size_offset: float = 10.0  # votes for a finger of n cylinders are divided by (n + offset)^power
    size_power: float = 0.3
    most_deviations: float = 25.0  # what one finger may add to a subject's votes


PARAMS = Params()
_FORMAT = 2
_MANIFEST = "gallery.json"
_BLOCK = 1 << 20
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Match:
    """A subject, its encounter that compares best, and how."""

    key: int
    subject: int
    comparison: EncounterComparison


class FingerprintGallery:
    """Encounters by key, each of one subject. Thread-safe: searches share, changes exclude.

    A subject is any number; a negative one stands for an encounter that is nobody's yet.
    `watermark` is the store's sequence number this gallery has followed up to; its owner sets it. Memory: 220
    bytes a cylinder, 300 a finger; most of what a removed one held comes back when the gallery is built anew.
    """

    __slots__ = (
        "_entries",
        "_lock",
        "_model",
        "_saving",
        "_shelves",
        "_slots",
        "_subjects",
        "watermark",
    )

    def __init__(self) -> None:
        self.watermark = 0
        self._lock = _ReadersWriterLock()
        self._saving = threading.Lock()
        self._model = DescriptorModel.load()
        self._shelves = {position: _Shelf(self._model) for position in FingerPosition}
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
            return self._form(self._entries[key])

    def subject_keys(self, subject: int) -> tuple[int, ...]:
        """Keys of the subject's encounters, in the order they were added; none for an unknown subject."""
        with self._lock.reading():
            return tuple(self._subjects.get(subject, ()))

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        """Add an encounter. Raises `ValueError` where the key is in use or the form has no descriptors.

        Places and directions are kept as exactly as a template's native bytes keep them. Cost: 0.5 ms a
        finger.
        """
        if any(len(finger.descriptors) != len(finger.cylinders) for finger in form.fingers):
            raise ValueError("a form handed out by a gallery has no descriptors: build it from the templates")
        with self._lock.writing():
            if key in self._entries:
                raise ValueError(f"encounter {key} is in the gallery already")
            slot = self._slots.take(subject)
            at = tuple((f.position, self._shelves[f.position].add(slot, f)) for f in form.fingers)
            self._entries[key] = _Entry(subject, slot, at)
            self._note_thin(at)
            self._subjects.setdefault(subject, []).append(key)

    def _note_thin(self, at: tuple[tuple[FingerPosition, int], ...]) -> None:
        """Mark an encounter's thin fingers, and whether it has no others."""
        sizes = [self._shelves[position].size(finger) for position, finger in at]
        alone = max(sizes, default=0) < PARAMS.few_cylinders
        for (position, finger), size in zip(at, sizes, strict=True):
            if 0 < size < PARAMS.few_cylinders:
                self._shelves[position].thin[finger] = alone

    def remove(self, key: int) -> None:
        """Forget an encounter; raises `KeyError`. Cost about 1 ms a finger at 10,000 people."""
        with self._lock.writing():
            entry = self._entries.pop(key)
            self._subjects[entry.subject].remove(key)
            if not self._subjects[entry.subject]:
                del self._subjects[entry.subject]
            for position, finger in entry.fingers:
                self._shelves[position].remove(finger)

    def search(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Find the subjects most like the probe, best first, 20 at most, none of `exclude`.

        Cost: about 50 ms on one thread at 10,000 people of ten fingers; four times that where ten fingers
        of unknown position are sought on every shelf.
        """
        with self._lock.reading():
            forms = self._forms(self._shortlist(probe, frozenset(exclude)))
        return self._ranked(probe, forms)

    def search_exhaustively(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Compare every subject not in `exclude` exactly: what `search` is measured against."""
        with self._lock.reading():
            subjects = sorted(self._subjects.keys() - frozenset(exclude))
        matches: list[Match] = []
        for first in range(0, len(subjects), PARAMS.shortlist):
            with self._lock.reading():
                forms = self._forms(subjects[first : first + PARAMS.shortlist])
            matches += self._ranked(probe, forms)
        return sorted(matches, key=_rank)

    def _form(self, entry: "_Entry") -> EncounterForm:
        return EncounterForm(
            tuple(self._shelves[position].form(position, finger) for position, finger in entry.fingers)
        )

    def _forms(self, subjects: list[int]) -> list[tuple[int, int, EncounterForm]]:
        """Key, subject and form of all encounters of these subjects, those that are gone left out."""
        return [
            (key, subject, self._form(self._entries[key]))
            for subject in subjects
            for key in self._subjects.get(subject, ())
        ]

    def _ranked(self, probe: EncounterForm, forms: list[tuple[int, int, EncounterForm]]) -> list[Match]:
        """Best encounter of each subject, best subject first, ties by scores, then by key."""
        best: dict[int, Match] = {}
        for key, subject, form in forms:
            match = Match(key, subject, compare_encounters(probe, form))
            if subject not in best or _rank(match) < _rank(best[subject]):
                best[subject] = match
        return sorted(best.values(), key=_rank)

    def _shortlist(self, probe: EncounterForm, excluded: frozenset[int]) -> list[int]:
        """Subjects to compare exactly, at most `PARAMS.shortlist`."""
        subjects = [subject for subject in self._subjects if subject not in excluded]
        if len(subjects) <= PARAMS.shortlist:
            return subjects
        # 1. the fingers that say most
        strongest = sorted(probe.fingers, key=lambda f: (-len(f.cylinders), f.position))
        strongest = [finger for finger in strongest if len(finger.cylinders)]
        rich = [f for f in strongest if len(f.cylinders) >= PARAMS.enough_cylinders][: PARAMS.enough_fingers]
        if len(rich) == PARAMS.enough_fingers:
            asked, cylinders, fingers_a_vote = rich, PARAMS.cylinders_asked, PARAMS.fingers_a_vote_of_many
        else:
            asked, cylinders, fingers_a_vote = strongest, MAX_MINUTIAE, PARAMS.fingers_a_vote
        # Of a person of many fingers, others are found by votes; a probe of few may need the thin one.
        every_thin = asked is strongest

        def deviations(finger: FingerForm, positions: set[FingerPosition]) -> NDArray[np.float32]:
            """By how many standard deviations each encounter's best finger stands out."""
            best = np.zeros(len(self._slots), dtype=np.float32)
            place, descriptors = places(finger.cylinders)[:cylinders], finger.descriptors[:cylinders]
            for position in positions:
                shelf = self._shelves[position]
                shelf.raise_to_votes(place, descriptors, fingers_a_vote, best)
                shelf.raise_to_thin(finger, best, every=every_thin)
            return best

        # 2. their votes where they were declared, and where they would be with the hands swapped
        declared = np.zeros(len(self._slots), dtype=np.float32)
        swapped = np.zeros(len(self._slots), dtype=np.float32)
        for finger in asked:
            positions = {finger.position, FingerPosition.UNKNOWN} if finger.position else set(FingerPosition)
            declared += deviations(finger, positions)
        for finger in asked[: PARAMS.other_hand_fingers]:
            if finger.position:
                swapped += deviations(finger, {finger.position.other_hand})
        # 3. the subjects with the best encounters
        total = np.maximum(declared, swapped)
        order = np.argsort(-total, kind="stable")
        listed: dict[int, None] = {}
        held = 0
        for slot in order:
            subject = int(self._slots.subject[slot])
            if subject in listed or subject not in self._subjects or subject in excluded:
                continue
            if subject < 0 and held == PARAMS.most_held:
                continue
            held += subject < 0
            listed[subject] = None
            if len(listed) == PARAMS.shortlist:
                break
        return list(listed)

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
                "model": self._model.identity,
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
        fingers = [(key, *at) for key, entry in self._entries.items() for at in entry.fingers]
        table = _npz(
            encounters=np.array(encounters, dtype=np.int64).reshape(-1, 3),
            fingers=np.array(fingers, dtype=np.int64).reshape(-1, 3),
            subject_of_slot=self._slots.subject,
        )
        files: dict[str, Iterable[bytes]] = {"table.npz": [table]}
        for position, shelf in self._shelves.items():
            if len(shelf):
                files |= {f"{position:02d}{end}": content for end, content in shelf.files().items()}
        return files

    @classmethod
    def load(cls, folder: Path) -> "FingerprintGallery":
        """Read what `save` wrote; raises `GalleryDamaged` where it is incomplete, altered or outdated.

        Every byte is checked against its checksum; the cylinders then stay in the page cache, mapped.
        """
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            gallery = cls()
            versions = (_FORMAT, gallery._model.identity, asdict(CYLINDER_PARAMS))
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
            encounters, fingers, subject_of_slot = (
                table[name] for name in ("encounters", "fingers", "subject_of_slot")
            )
        self._slots = _Slots(subject_of_slot)
        at: dict[int, list[tuple[FingerPosition, int]]] = {}
        for key, position, finger in fingers.tolist():
            at.setdefault(key, []).append((FingerPosition(position), finger))
        for key, subject, slot in encounters.tolist():
            self._entries[key] = _Entry(subject, slot, tuple(at.get(key, ())))
            self._subjects.setdefault(subject, []).append(key)
        for position, shelf in self._shelves.items():
            if f"{tag}-{position:02d}.faiss" in files:
                shelf.restore(folder, f"{tag}-{position:02d}")
        for entry in self._entries.values():
            self._note_thin(entry.fingers)


def _rank(match: Match) -> tuple[float, float, int]:
    """Likelihood ratios are capped: among equals the higher scores go first."""
    return -match.comparison.llr, -sum(share.score for share in match.comparison.shares), match.key


@dataclass(frozen=True, slots=True)
class _Entry:
    """An encounter: whose, its place in the vote arrays, and its fingers as (shelf, number on the shelf)."""

    subject: int
    slot: int
    fingers: tuple[tuple[FingerPosition, int], ...]


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
        self._subject = _grown(self._subject, self._count + 1)
        self._subject[self._count] = subject
        self._count += 1
        return self._count - 1


class _Shelf:
    """The fingers of one position: their descriptors in inverted lists, and their cylinders, packed.

    Rows are cylinders, numbered as in the index; a finger's rows follow each other. Numbers of removed rows
    and fingers are not used again. `thin`: fingers of few cylinders; whether their encounter has no others.
    """

    __slots__ = (
        "_extractor",
        "_finger",
        "_fingers",
        "_packed",
        "_place",
        "_rows",
        "_slot",
        "_start",
        "index",
        "thin",
    )

    def __init__(self, model: DescriptorModel) -> None:
        self.index = _empty_index(model)
        self._rows = 0
        self._place = np.zeros((0, 4), dtype=np.int16)  # of each row, see `places`
        self._finger = np.zeros(0, dtype=np.int32)  # of each row, -1 where removed
        self._fingers = 0
        self._start = np.zeros(1, dtype=np.int32)  # first row of each finger, and one past the last
        self._slot = np.zeros(0, dtype=np.int32)  # of each finger, -1 where removed
        self._extractor = np.zeros(0, dtype=np.uint8)  # of each finger
        self._packed: list[NDArray[np.uint64]] = []  # of each finger, empty where removed
        self.thin: dict[int, bool] = {}

    def __len__(self) -> int:
        return self._fingers

    def add(self, slot: int, finger: FingerForm) -> int:
        """Its number on this shelf."""
        number, first, last = self._fingers, self._rows, self._rows + len(finger.cylinders)
        self._place = _grown(self._place, last)
        self._finger = _grown(self._finger, last)
        self._slot = _grown(self._slot, number + 1)
        self._extractor = _grown(self._extractor, number + 1)
        self._start = _grown(self._start, number + 2)
        self._place[first:last] = places(finger.cylinders)
        self._finger[first:last] = number
        self._slot[number] = slot
        self._extractor[number] = finger.extractor
        self._start[number + 1] = last
        self._packed.append(packed(finger.cylinders))
        self._rows, self._fingers = last, number + 1
        if last > first:
            self.index.add_with_ids(finger.descriptors, np.arange(first, last, dtype=np.int64))
        return number

    def remove(self, number: int) -> None:
        first, last = int(self._start[number]), int(self._start[number + 1])
        self._finger[first:last] = -1
        self._slot[number] = -1
        self._packed[number] = _NOTHING_PACKED
        self.thin.pop(number, None)
        if last > first:
            self.index.remove_ids(faiss.IDSelectorRange(first, last))

    def size(self, number: int) -> int:
        """How many cylinders this finger has."""
        return len(self._packed[number])

    def form(self, position: FingerPosition, number: int) -> FingerForm:
        """What was added under this number, and not removed; without descriptors."""
        place = self._place[self._start[number] : self._start[number + 1]]
        made = unpacked(self._packed[number], place)
        return FingerForm(position, made, _NO_DESCRIPTORS, Extractor(self._extractor[number]))

    def raise_to_votes(
        self,
        place: NDArray[np.int16],
        descriptors: NDArray[np.float32],
        fingers_a_vote: int,
        best: NDArray[np.float32],
    ) -> None:
        """Raise `best` `(slots,)` to the standardised votes of the shelf's fingers for these cylinders."""
        if self.index.ntotal == 0:
            return
        n = self._fingers
        k = min(max(n // fingers_a_vote, PARAMS.fewest_votes), PARAMS.most_votes)
        k = min(k, max(8, n // 2))  # or everybody gets votes
        _, hits = self.index.search(descriptors, k)
        score = votes(hits, place, self._place, self._finger, n)
        score /= (np.diff(self._start[: n + 1]) + PARAMS.size_offset) ** PARAMS.size_power
        deviation = (score - score.mean()) / max(float(score.std()), 1e-6)
        slot = self._slot[:n]
        kept = slot >= 0
        np.maximum.at(best, slot[kept], np.minimum(deviation[kept], PARAMS.most_deviations))

    def raise_to_thin(self, probe: FingerForm, best: NDArray[np.float32], *, every: bool) -> None:
        """Raise `best` `(slots,)` by exact comparison with the thin fingers, on the scale of votes.

        Those whose encounter has other fingers only where `every` is set; with everybody, on a shelf that is
        not too long, where the probe itself is thin. Cost: 30 us each.
        """
        scale = PARAMS.most_deviations / fingerprint_calibration(probe.extractor, probe.extractor).llr(1.0)
        if every and len(probe.cylinders) < PARAMS.few_asked and self._fingers <= PARAMS.longest_walk:
            numbers = np.flatnonzero(self._slot[: self._fingers] >= 0).tolist()
        else:
            numbers = [number for number, alone in self.thin.items() if alone or every]
        for number in numbers:
            finger = self.form(probe.position, number)
            score = similarity(probe.cylinders, finger.cylinders)
            calibration = fingerprint_calibration(probe.extractor, finger.extractor)
            llr = calibration.llr(score, min(len(probe.cylinders), len(finger.cylinders)))
            slot = self._slot[number]
            # Likelihood ratios are capped: among equals the higher scores go first.
            best[slot] = max(best[slot], scale * llr + score)

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by the end of the file name, as `restore` reads them."""
        rows = _npz(
            place=self._place[: self._rows],
            finger=self._finger[: self._rows],
            slot=self._slot[: self._fingers],
            extractor=self._extractor[: self._fingers],
            start=self._start[: self._fingers + 1],
            packed_rows=np.array([len(rows) for rows in self._packed], dtype=np.int64),
        )
        return {
            ".faiss": [faiss.serialize_index(self.index).tobytes()],
            ".npz": [rows],
            ".packed": map(np.ndarray.tobytes, list(self._packed)),
        }

    def restore(self, folder: Path, name: str) -> None:
        """Become what the shelf was that wrote these files."""
        index = faiss.deserialize_index(np.fromfile(folder / f"{name}.faiss", dtype=np.uint8))
        if not isinstance(index, faiss.IndexIVFPQFastScan):
            raise TypeError(f"an index of another kind: {type(index).__name__}")
        self.index = index
        self.index.nprobe = PARAMS.lists_probed
        with np.load(folder / f"{name}.npz", allow_pickle=False) as rows:
            self._place, self._finger = rows["place"], rows["finger"]
            self._slot, self._start = rows["slot"], rows["start"]
            self._extractor = rows["extractor"]
            ends = np.cumsum(rows["packed_rows"])
        self._rows, self._fingers = len(self._finger), len(self._slot)
        whole = _mapped(folder / f"{name}.packed").reshape(-1, PACKED_WORDS)
        self._packed = [whole[end - n : end] for n, end in zip(np.diff(ends, prepend=0), ends, strict=True)]


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


_NO_DESCRIPTORS = np.zeros((0, SIZE), dtype=np.float32)
_NOTHING_PACKED = np.zeros((0, PACKED_WORDS), dtype=np.uint64)


def _empty_index(model: DescriptorModel) -> faiss.IndexIVFPQFastScan:
    """Inverted lists with the shipped centroids and codebooks; nothing is ever trained here."""
    quantiser = faiss.IndexFlatL2(SIZE)
    quantiser.add(model.centroids)
    parts = len(model.codebooks)
    index = faiss.IndexIVFPQFastScan(quantiser, SIZE, len(model.centroids), parts, 4)
    faiss.copy_array_to_vector(model.codebooks.ravel(), index.pq.centroids)
    index.is_trained = True
    index.nprobe = PARAMS.lists_probed
    return index


def _grown(array: NDArray[_Number], size: int) -> NDArray[_Number]:
    """The array with room for `size` rows, a quarter more than needed where it must grow."""
    if size <= len(array):
        return array
    larger = np.zeros((size + size // 4, *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def _npz(**arrays: NDArray[np.generic]) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


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


def _mapped(path: Path) -> NDArray[np.uint64]:
    """The file as a read-only array that lives in the page cache."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint64)
    return np.asarray(np.memmap(path, dtype=np.uint64, mode="r"))
