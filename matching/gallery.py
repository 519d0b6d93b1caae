"""The searchable gallery of encounters: sealed segments, and the newest encounters before them.

Encounters are added to a delta in memory; now and then it becomes a segment whose arrays never change, is
written to the gallery's folder, and merged with others as small. Removed encounters are marked, and left out
when their segment is written anew. All of this happens behind the searches: a search takes the segments
there are, and waits for nobody. The gallery is derived data: the store can rebuild it, `watermark` says up
to where it has followed the store, and a damaged copy on disk is refused, never repaired.
"""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.sample import Modality
from matching import folder as folders
from matching.delta import Delta
from matching.encounter import EncounterForm
from matching.errors import GalleryDamaged
from matching.search import Match, Snapshot
from matching.segment import Segment, check, joined

__all__ = ["Gallery", "Match", "Sizes"]

log = logging.getLogger(__name__)

FormOf = Callable[[int], EncounterForm | None]


@dataclass(frozen=True, slots=True)
class Params:
    """When segments are made and made anew."""

    # encounters after which the delta becomes a segment, and the most of a segment that is merged
    sealed: int = 1024
    largest: int = 65_536
    # so many segments of a size become one
    merged: int = 4
    # share of removed encounters at which a segment is written anew
    removed: float = 0.05


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a gallery is: by modality, bytes that every search reads and that exact comparison reads."""

    encounters: int
    segments: int
    searched: dict[Modality, int]
    compared: dict[Modality, int]


class Gallery:
    """Encounters by key, each of one subject. Thread-safe; no method but `save` and `close` waits for long.

    A subject is any number; a negative one stands for an encounter that is nobody's yet.
    `watermark` is the store's sequence number this gallery has followed up to; its owner sets it after the
    change is made. `folder`: where segments are kept as they are made, else they stay in memory; what is
    there is replaced. `face_file`: the calibration of the user's own face embedder, if there is one. Memory
    and disk: see `sizes`.
    """

    __slots__ = (
        "_alive",
        "_delta",
        "_face_file",
        "_face_values",
        "_folder",
        "_lock",
        "_maintaining",
        "_params",
        "_sealed",
        "_segments",
        "_worker",
        "watermark",
    )

    def __init__(
        self, folder: Path | None = None, *, face_file: Path | None = None, params: Params = PARAMS
    ) -> None:
        self.watermark = 0
        self._params = params
        self._folder = folder
        self._face_file = face_file
        self._lock = threading.Lock()  # held for what takes microseconds
        self._maintaining = threading.Lock()  # held while segments are written
        self._worker: threading.Thread | None = None
        self._segments: tuple[Segment, ...] = ()
        self._sealed = 0  # the watermark of what is in segments
        self._delta = Delta()
        self._alive = 0
        self._face_values: dict[bytes, int] = {}

    @classmethod
    def load(cls, folder: Path, *, face_file: Path | None = None) -> "Gallery":
        """The gallery kept in this folder; raises `GalleryDamaged` where it is altered or outdated.

        What searches read is checked against its checksums, the rest by `verify`; all of it stays in the
        page cache, mapped. Cost: 1 s for 2 GB.
        """
        gallery = cls(folder, face_file=face_file)
        segments, watermark = folders.read(folder)
        gallery._segments = tuple(segments)
        gallery._alive = sum(int((~segment.dead).sum()) for segment in segments)
        for segment in segments:
            gallery._face_values |= {e: shelf.vector.shape[1] for e, shelf in segment.faces.items()}
        gallery.watermark = gallery._sealed = watermark
        return gallery

    def verify(self) -> None:
        """Check what `load` did not; raises `GalleryDamaged`. Cost: 1 s for 2 GB, more from disk."""
        for segment in self._segments:
            check(segment, read_later=True)

    def repair(self, form_of: FormOf, stop: threading.Event) -> int:
        """Check what `load` did not, and make damaged segments anew of what `form_of` gives for their keys.

        How many encounters these were. Searches go on meanwhile; `stop` ends it early.
        """
        repaired = 0
        for segment in self._segments:
            with self._maintaining:
                if segment not in self._segments or stop.is_set():
                    continue
                try:
                    check(segment, read_later=True)
                except GalleryDamaged as damage:
                    log.error("a segment of the gallery is made anew: %s", damage)
                    repaired += self._repaired(segment, form_of, stop)
        return repaired

    def _repaired(self, segment: Segment, form_of: FormOf, stop: threading.Event) -> int:
        delta, alive = Delta(), ~segment.dead
        for row in np.flatnonzero(alive).tolist():
            if stop.is_set():
                return 0
            form = form_of(int(segment.keys[row]))
            if form is None:
                alive[row] = False
            else:
                delta.add(int(segment.keys[row]), int(segment.subjects[row]), form)
        self._replace([segment], delta.segment(), [alive])
        if self._folder is not None:
            self._persist(self._folder)
        return len(delta)

    def __len__(self) -> int:
        return self._alive

    def __contains__(self, key: int) -> bool:
        with self._lock:
            return self._found(key) is not None

    def _found(self, key: int) -> tuple[Segment, int] | None:
        """Where the encounter is, if it is there."""
        if (row := self._delta.row(key)) is not None:
            return self._delta.segment(), row
        for segment in reversed(self._segments):
            if (row := segment.row(key)) is not None:
                return segment, row
        return None

    def _now(self) -> Snapshot:
        with self._lock:
            segments = (*self._segments, self._delta.segment()) if len(self._delta) else self._segments
        return Snapshot(segments, self._face_file)

    # Reading --------------------------------------------------------------------------------------

    def form(self, key: int) -> EncounterForm:
        """The encounter's form; raises `KeyError`. Cost: 30 us, and that of cylinders where they are used."""
        with self._lock:
            found = self._found(key)
        if found is None:
            raise KeyError(key)
        segment, row = found
        return segment.form(row)

    def subject_keys(self, subject: int) -> tuple[int, ...]:
        """Keys of the subject's encounters, in the order they were added; none for an unknown subject."""
        return self._now().subject_keys(subject)

    def search(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Find the subjects most like the probe, best first, none of `exclude`.

        Raises `NotCalibrated` where it meets samples that nobody has calibrated with the probe's, and
        `GalleryDamaged` where a template on disk cannot be read. It sees every change that was made before.
        """
        return self.search_many([probe], exclude=exclude)[0]

    def search_many(
        self, probes: Sequence[EncounterForm], *, exclude: Collection[int] = ()
    ) -> list[list[Match]]:
        """`search` for several probes in one pass over the finger codes."""
        now = self._now()
        shortlists = now.shortlists(probes, frozenset(exclude))
        return [now.compared(probe, names) for probe, names in zip(probes, shortlists, strict=True)]

    def search_exhaustively(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Compare every subject not in `exclude` exactly: what `search` is measured against."""
        now, excluded = self._now(), set(exclude)
        return now.compared(probe, [subject for subject in now.subjects() if subject not in excluded])

    def segments(self) -> Iterator[Segment]:
        """The segments there are, for whoever works on whole arrays; they do not change but for `dead`."""
        with self._lock:
            delta = (self._delta.segment(),) if len(self._delta) else ()
            return iter((*self._segments, *delta))

    def removed(self) -> int:
        """How many encounters are removed whose data segments still hold."""
        return sum(int(segment.dead.sum()) for segment in self.segments())

    def sizes(self) -> Sizes:
        """How large the gallery is."""
        searched, compared = dict.fromkeys(Modality, 0), dict.fromkeys(Modality, 0)
        segments = list(self.segments())
        for segment in segments:
            for modality, (always, later) in segment.sizes().items():
                searched[modality] += always
                compared[modality] += later
        return Sizes(len(self), len(segments), searched, compared)

    # Changing -------------------------------------------------------------------------------------

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        """Add an encounter; every search that begins afterwards sees it.

        Raises `ValueError` where the key is in use, or a face vector is not as long as others of its
        embedder. Minutiae are kept as exactly as a template's native bytes keep them. Cost: that of finger
        codes, 0.3 ms a finger.
        """
        for finger in form.fingers:
            _ = finger.code, finger.native  # before the lock
        with self._lock:
            if self._found(key) is not None:
                raise ValueError(f"encounter {key} is in the gallery already")
            if form.face is not None:
                values = self._face_values.setdefault(form.face.embedder, len(form.face.vector))
                if len(form.face.vector) != values:
                    raise ValueError(
                        f"a vector of {len(form.face.vector)} values from an embedder of {values}"
                    )
            self._delta.add(key, subject, form)
            self._alive += 1
            full = len(self._delta) >= self._params.sealed
        if full:
            self._freeze()
            self._maintain_soon()

    def remove(self, key: int) -> None:
        """Forget an encounter; no search that begins afterwards sees it. Raises `KeyError`.

        Its data leave memory and disk when its segment is made anew, on `save` at the latest.
        """
        with self._lock:
            found = self._found(key)
            if found is None:
                raise KeyError(key)
            segment, row = found
            if self._delta.row(key) is not None:
                self._delta.remove(key)
                crowded = False
            else:
                segment.dead[row] = True
                crowded = segment.dead.mean() > self._params.removed
            self._alive -= 1
        if crowded:
            self._maintain_soon()

    # Segments -------------------------------------------------------------------------------------

    def _freeze(self) -> None:
        """Make the delta a segment in memory, and begin another."""
        with self._lock:
            if len(self._delta):
                self._segments = (*self._segments, self._delta.segment())
                self._delta = Delta()
            self._sealed = self.watermark

    def _maintain_soon(self) -> None:
        """Have segments written, merged and made anew in the background."""
        with self._lock:
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._maintain, name="gallery", daemon=True)
                self._worker.start()

    def _maintain(self) -> None:
        try:
            with self._maintaining:
                while group := self._due():
                    self._made_anew(group)
                if self._folder is not None:
                    self._persist(self._folder)
        except (OSError, GalleryDamaged):  # what is not on disk is in memory; the next seal tries again
            log.exception("the gallery could not be kept in its folder")

    def _due(self) -> tuple[Segment, ...]:
        """Adjacent segments to be made one, or one that has too many removed; none if all is well."""
        segments = self._segments
        for segment in segments:
            if segment.dead.mean() > self._params.removed:
                return (segment,)
        # The newest are the smallest: of each size the last few that are no larger, once they are enough.
        sizes = [int(math.log(len(segment), self._params.merged)) for segment in segments]
        for size in sorted(set(sizes)):
            first = len(segments)
            rows = 0
            while (
                first and sizes[first - 1] <= size and rows + len(segments[first - 1]) <= self._params.largest
            ):
                first -= 1
                rows += len(segments[first])
            if len(segments) - first >= self._params.merged:
                return segments[first:]
        return ()

    def _made_anew(self, group: Sequence[Segment]) -> None:
        """Replace adjacent segments by one without what was removed."""
        for segment in group:
            check(segment, read_later=True)  # or damage would get a checksum of its own
        alive = [~segment.dead for segment in group]
        self._replace(group, joined(group, alive), alive)

    def _replace(self, group: Sequence[Segment], made: Segment, alive: Sequence[NDArray[np.bool_]]) -> None:
        """Put a segment of the group's rows that are alive in its place; on disk, if the gallery is kept."""
        if self._folder is not None and len(made):
            self._folder.mkdir(parents=True, exist_ok=True)
            made = folders.keep(made, self._folder)
        with self._lock:
            # what was removed meanwhile
            made.dead[:] = np.concatenate([s.dead[rows] for s, rows in zip(group, alive, strict=True)])
            self._alive -= sum(int((~s.dead & ~rows).sum()) for s, rows in zip(group, alive, strict=True))
            first = self._segments.index(group[0])
            kept = (made,) if len(made) else ()
            self._segments = (*self._segments[:first], *kept, *self._segments[first + len(group) :])

    def _persist(self, folder: Path) -> None:
        """Write what is not on disk yet, then make it the state that comes back."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            loose = [segment for segment in self._segments if segment.file is None]
            for segment in loose:
                self._made_anew([segment])
            with self._lock:
                if all(segment.file is not None for segment in self._segments):
                    # Removals after `_sealed` are among these; to remove once more does no harm.
                    noted = [replace(segment, dead=segment.dead.copy()) for segment in self._segments]
                    sealed = self._sealed
                    break
        folders.publish(folder, noted, sealed)

    def save(self, folder: Path) -> None:
        """Keep everything in this folder, nothing of what was removed; the old state is valid until then.

        The gallery's own folder, or another: a snapshot, which shares the files where it can. Searches and
        changes go on meanwhile.
        """
        with self._maintaining:
            self._freeze()
            for segment in self._segments:
                if segment.dead.any():
                    self._made_anew([segment])
            if self._folder is not None:
                self._persist(self._folder)
            if folder != self._folder:
                folder.mkdir(parents=True, exist_ok=True)
                with self._lock:
                    noted = [replace(segment, dead=segment.dead.copy()) for segment in self._segments]
                    sealed = self._sealed
                folders.publish(folder, [folders.keep(segment, folder) for segment in noted], sealed)

    def snapshot(self, folder: Path) -> None:
        """A copy in a new folder that can be loaded, consistent though searches and changes go on.

        Segments are linked where both folders are in one file system. Raises `FileExistsError`.
        """
        folder.mkdir(parents=True)
        self.save(folder)

    def close(self) -> None:
        """Wait for what goes on in the background."""
        if self._worker is not None:
            self._worker.join()
