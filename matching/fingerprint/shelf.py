"""The fingers of a gallery: an inverted-list index per position, whose votes say who stands out."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import MAX_MINUTIAE, Extractor
from capture.sample import FingerPosition
from matching.arrays import grown, mapped, npz
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.comparison import similarity
from matching.fingerprint.descriptors import SIZE, DescriptorModel
from matching.fingerprint.hands import FingerForm
from matching.fingerprint.packed import PACKED_WORDS, packed, places, unpacked
from matching.fingerprint.votes import votes

# Searches run on a pool of their own: one thread each, or FAISS would start its own beneath them.
faiss.omp_set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Params:
    """How much of the gallery a search looks at."""

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
    most_deviations: float = 25.0  # what one finger may add to an encounter's votes


PARAMS = Params()


class FingerShelves:
    """The fingers of encounters, which go by slots: small numbers, never used again. Not thread-safe."""

    __slots__ = ("_at", "_model", "_shelves")

    def __init__(self) -> None:
        self._model = DescriptorModel.load()
        self._shelves = {position: _Shelf(self._model) for position in FingerPosition}
        # of each slot, its fingers as (shelf, number on the shelf)
        self._at: dict[int, tuple[tuple[FingerPosition, int], ...]] = {}

    @property
    def model(self) -> str:
        """Which shipped centroids and codebooks the index is made with."""
        return self._model.identity

    def add(self, slot: int, fingers: Sequence[FingerForm]) -> None:
        """Keep an encounter's fingers. Raises `ValueError` where they have no descriptors."""
        if any(len(finger.descriptors) != len(finger.cylinders) for finger in fingers):
            raise ValueError("a form handed out by a gallery has no descriptors: build it from the templates")
        if fingers:
            self._at[slot] = tuple((f.position, self._shelves[f.position].add(slot, f)) for f in fingers)
            self._note_thin(slot)

    def _note_thin(self, slot: int) -> None:
        """Mark an encounter's thin fingers, and whether it has no others."""
        sizes = [self._shelves[position].size(finger) for position, finger in self._at[slot]]
        alone = max(sizes) < PARAMS.few_cylinders
        for (position, finger), size in zip(self._at[slot], sizes, strict=True):
            if 0 < size < PARAMS.few_cylinders:
                self._shelves[position].thin[finger] = alone

    def remove(self, slot: int) -> None:
        """Forget an encounter's fingers, if it has any."""
        for position, finger in self._at.pop(slot, ()):
            self._shelves[position].remove(finger)

    def forms(self, slot: int) -> tuple[FingerForm, ...]:
        """An encounter's fingers, without descriptors."""
        return tuple(self._shelves[position].form(position, f) for position, f in self._at.get(slot, ()))

    def standing(self, fingers: Sequence[FingerForm], slots: int) -> NDArray[np.float32]:
        """`(slots,)`: by how much each encounter stands out by the votes of these fingers, 0 if not.

        Standard deviations, summed over fingers, where they were declared or on the other hand.
        """
        # 1. the fingers that say most
        strongest = sorted(fingers, key=lambda f: (-len(f.cylinders), f.position))
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
            best = np.zeros(slots, dtype=np.float32)
            place, descriptors = places(finger.cylinders)[:cylinders], finger.descriptors[:cylinders]
            for position in positions:
                shelf = self._shelves[position]
                shelf.raise_to_votes(place, descriptors, fingers_a_vote, best)
                shelf.raise_to_thin(finger, best, every=every_thin)
            return best

        # 2. their votes where they were declared, and where they would be with the hands swapped
        declared = np.zeros(slots, dtype=np.float32)
        swapped = np.zeros(slots, dtype=np.float32)
        for finger in asked:
            positions = {finger.position, FingerPosition.UNKNOWN} if finger.position else set(FingerPosition)
            declared += deviations(finger, positions)
        for finger in asked[: PARAMS.other_hand_fingers]:
            if finger.position:
                swapped += deviations(finger, {finger.position.other_hand})
        return np.maximum(declared, swapped)

    def files(self) -> dict[str, Iterable[bytes]]:
        """Contents by file name, as `restore` reads them; later changes do not show in them."""
        at = [(slot, *place) for slot, places_ in self._at.items() for place in places_]
        files: dict[str, Iterable[bytes]] = {
            "fingers.npz": [npz(at=np.array(at, dtype=np.int64).reshape(-1, 3))]
        }
        for position, shelf in self._shelves.items():
            if len(shelf):
                files |= {f"finger-{position:02d}{end}": content for end, content in shelf.files().items()}
        return files

    def restore(self, folder: Path, tag: str, files: Collection[str]) -> None:
        """Become what wrote these files."""
        with np.load(folder / f"{tag}-fingers.npz", allow_pickle=False) as table:
            rows = table["at"].tolist()
        at: dict[int, list[tuple[FingerPosition, int]]] = {}
        for slot, position, finger in rows:
            at.setdefault(slot, []).append((FingerPosition(position), finger))
        self._at = {slot: tuple(places_) for slot, places_ in at.items()}
        for position, shelf in self._shelves.items():
            name = f"{tag}-finger-{position:02d}"
            if f"{name}.faiss" in files:
                shelf.restore(folder, name)
        for slot in self._at:
            self._note_thin(slot)


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
        self._place = grown(self._place, last)
        self._finger = grown(self._finger, last)
        self._slot = grown(self._slot, number + 1)
        self._extractor = grown(self._extractor, number + 1)
        self._start = grown(self._start, number + 2)
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
        rows = npz(
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
        whole = mapped(folder / f"{name}.packed", np.uint64).reshape(-1, PACKED_WORDS)
        self._packed = [whole[end - n : end] for n, end in zip(np.diff(ends, prepend=0), ends, strict=True)]


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
