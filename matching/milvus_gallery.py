"""A gallery whose codes are on a Milvus server: for more people than one machine's memory holds.

Milvus names encounters, generously: the nearest fingers, eyes and faces of each that the probe shows. Their
codes are fetched, and from there on it is `matching.search` as in the embedded gallery: codes name the
shortlist, exact comparison decides. Templates are not on the server: `form_of` reads them from the store,
which is the truth, and which holds them anyway. Whose encounter each key is, is in memory, 24 bytes each, and
so are the finger codes of the few encounters that codes cannot tell: each probe is compared with the likest.

What is added or removed shows at once, to searches of this process. Changes are written behind its back,
together, and stay in a delta in memory until every reader of Milvus must see them: the searches there need
not wait for it, as with strong consistency. While Milvus is away searches raise `GalleryUnavailable`,
changes gather here, and everything goes on when it is back. The watermark is written after what it stands
for: who crashes repeats some changes, which does no harm.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.iris.template import GROUP_WORDS, rotated
from capture.sample import EyePosition, FingerPosition, Modality
from matching.delta import Delta
from matching.encounter import EncounterForm
from matching.errors import GalleryUnavailable
from matching.face.comparison import FaceForm
from matching.face.shelf import FaceShelf
from matching.fingerprint.shelf import FingerShelf, FingersProbe
from matching.gallery import FormOf, Sizes
from matching.iris.comparison import MAX_STEPS, ROTATIONS
from matching.iris.shelf import IrisShelf
from matching.milvus_rows import ANYBODY, ENROLLED, EYES_EACH, FINGERS_EACH, Hit, Rows, asked, surplus
from matching.search import Match, Snapshot, how_many, telling_fingers
from matching.segment import Segment, joined

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Params:
    """How much is asked of Milvus, and what is kept back until it shows it."""

    # nearest of each rotation of an eye, and of the face; of each finger twice as many as fingers name,
    # because those of both hands are searched together
    near_irises: int = 20
    near_faces: int = 50
    # encounters named by all fingers together, where `how_many` is not more; by both eyes together
    fingers: int = 100
    irises: int = 50
    # seconds after which readers of Milvus see what was written: more than its common.gracefulTime
    seen_after: float = 10.0
    # seconds that changes gather, and encounters after which they wait no longer
    written_after: float = 0.2
    most_unwritten: int = 1000
    again_after: float = 1.0
    call_seconds: float = 10.0


PARAMS = Params()


@dataclass(frozen=True, eq=False)
class _Stored(Segment):
    """Rows of encounters whose codes may be here, and whose templates are in the store."""

    form_of: FormOf = field(kw_only=True)

    def form(self, row: int) -> EncounterForm:
        """What the store has; nothing of an encounter that was erased meanwhile."""
        return self.form_of(int(self.keys[row])) or EncounterForm()


class MilvusGallery:
    """Encounters by key, each of one subject, as `matching.gallery.Gallery` has them. Thread-safe.

    `form_of` gives the form of an encounter from the store, None where there is none any more. `uri` and
    `token` are the server's; `prefix`: what the names of this gallery's collections begin with, one for each
    store, and one process at a time that writes. `strong`: each search waits until Milvus has everything
    (its next time tick), and nothing is kept back; `anew`: whatever is there is removed first. `history` is
    kept with the watermark: its owner names there which store was followed. Raises `GalleryUnavailable` where
    Milvus does not serve, `GalleryDamaged` where its rows were made by another version.
    """

    def __init__(
        self,
        uri: str,
        form_of: FormOf,
        *,
        prefix: str = "rekam",
        token: str = "",
        strong: bool = False,
        anew: bool = False,
        face_file: Path | None = None,
    ) -> None:
        self._form_of = form_of
        self._face_file = face_file
        self._strong = strong
        self._lock = threading.Lock()  # held for what takes microseconds
        self._writing = threading.Lock()  # held while changes are written
        self._delta = Delta()  # not written
        self._waiting: tuple[Delta, ...] = ()  # being written, or to be written again
        self._written: tuple[tuple[float, Delta], ...] = ()  # when, and what not everybody may see yet
        self._gone: list[int] = []  # keys to be deleted before anything is written
        self._face_values: dict[bytes, int] = {}
        self._wake, self._stop = threading.Event(), threading.Event()
        strong_for = inf if strong else PARAMS.seen_after
        self._rows = Rows(uri, token, prefix, strong_for=strong_for, seconds=PARAMS.call_seconds)
        try:
            if anew:
                self._rows.drop()
            self._rows.prepare()
            self._read()
        except BaseException:
            self._rows.close()
            raise
        self._writer = threading.Thread(target=self._write_behind, name="milvus-writer", daemon=True)
        self._writer.start()

    def _read(self) -> None:
        keys, subjects, thin, self._watermark, self.history = self._rows.encounters()
        self._noted = (self._watermark, self.history)
        self._face_values = self._rows.face_values()
        self._table: tuple[Segment, ...] = (_table(keys, subjects),)
        codes, _, _ = self._rows.shelves(thin, None, fingers=True, irises=False)
        self._thin = self._stored(thin, self._table, codes, {}, {})
        self._alive = len(keys)

    def __len__(self) -> int:
        return self._alive

    def __contains__(self, key: int) -> bool:
        with self._lock:
            return self._found(key) is not None

    def _deltas(self) -> tuple[Delta, ...]:
        return (*(delta for _, delta in self._written), *self._waiting, self._delta)

    def _found(self, key: int) -> tuple[Segment, int] | None:
        """Where the encounter is, if it is there."""
        for delta in reversed(self._deltas()):
            if (row := delta.row(key)) is not None:
                return delta.segment(), row
        for segment in reversed(self._table):
            if (row := segment.row(key)) is not None:
                return segment, row
        return None

    def _now(self) -> tuple[tuple[Segment, ...], tuple[Segment, ...], Segment]:
        """The table, what is not surely seen in Milvus, and whom codes cannot tell of the table."""
        with self._lock:
            self._retire()
            deltas = tuple(delta.segment() for delta in self._deltas() if len(delta))
            return self._table, deltas, self._thin

    # Reading --------------------------------------------------------------------------------------

    def form(self, key: int) -> EncounterForm:
        """The encounter's form; raises `KeyError`."""
        with self._lock:
            found = self._found(key)
            table = self._table
        form = None
        if found is not None:
            segment, row = found
            form = self._form_of(key) if segment in table else segment.form(row)
        if form is None:
            raise KeyError(key)
        return form

    def subject_keys(self, subject: int) -> tuple[int, ...]:
        """Keys of the subject's encounters, in the order they were added; none for an unknown subject."""
        table, deltas, _ = self._now()
        return Snapshot((*table, *deltas), self._face_file).subject_keys(subject)

    def subjects(self) -> list[int]:
        """Everybody."""
        table, deltas, _ = self._now()
        return Snapshot((*table, *deltas), self._face_file).subjects()

    def search(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Find the subjects most like the probe, best first, none of `exclude`.

        It sees every change that was made before in this process. Raises `GalleryUnavailable`, and
        `NotCalibrated` as the embedded gallery does.
        """
        excluded = frozenset(exclude)
        table, deltas, thin = self._now()
        people = Snapshot((*table, *deltas), self._face_file)
        if (everybody := people.few(excluded)) is not None:
            names = everybody
        else:
            keys = self._named(probe, excluded, table)
            shelves = self._rows.shelves(
                keys,
                None if probe.face is None else probe.face.embedder,
                fingers=bool(probe.fingers),
                irises=bool(probe.irises),
            )
            named = self._stored(keys, table, *shelves)
            seen = Snapshot((named, thin, *deltas), self._face_file, encounters=len(self))
            names = seen.shortlists([probe], excluded)[0]
        return self._compared(probe, names, table, deltas)

    def search_many(
        self, probes: Sequence[EncounterForm], *, exclude: Collection[int] = ()
    ) -> list[list[Match]]:
        """`search` for several probes, one after the other."""
        return [self.search(probe, exclude=exclude) for probe in probes]

    def search_exhaustively(self, probe: EncounterForm, *, exclude: Collection[int] = ()) -> list[Match]:
        """Compare every subject not in `exclude` exactly: what `search` is measured against."""
        table, deltas, _ = self._now()
        everybody = Snapshot((*table, *deltas), self._face_file).subjects()
        names = [subject for subject in everybody if subject not in frozenset(exclude)]
        return self._compared(probe, names, table, deltas)

    def _compared(
        self,
        probe: EncounterForm,
        names: Sequence[int],
        table: Sequence[Segment],
        deltas: Sequence[Segment],
    ) -> list[Match]:
        """The probe compared exactly with all encounters of these subjects."""
        keys = [int(s.keys[row]) for name in names for s in table for row in s.rows(name)]
        stored = self._stored(np.array(keys, dtype=np.int64), table, {}, {}, {})
        return Snapshot((stored, *deltas), self._face_file).compared(probe, names)

    def _stored(
        self,
        keys: NDArray[np.int64],
        table: Sequence[Segment],
        fingers: Mapping[FingerPosition, FingerShelf],
        irises: Mapping[EyePosition, IrisShelf],
        faces: Mapping[bytes, FaceShelf],
    ) -> _Stored:
        """These encounters of the table, in this order, with such codes as are given."""
        subjects = [self._subject(int(key), table) for key in keys]
        dead = np.array([subject is None for subject in subjects], dtype=np.bool_)
        whose = np.array([subject or 0 for subject in subjects], dtype=np.int64)
        return _Stored(keys, whose, dead, fingers, irises, faces, form_of=self._form_of)

    @staticmethod
    def _subject(key: int, table: Sequence[Segment]) -> int | None:
        """Whose encounter it is, None where the table has no such encounter any more."""
        for segment in table:
            if (row := segment.row(key)) is not None:
                return int(segment.subjects[row])
        return None

    # What Milvus names ----------------------------------------------------------------------------

    def _named(
        self, probe: EncounterForm, excluded: frozenset[int], table: Sequence[Segment]
    ) -> NDArray[np.int64]:
        """Keys of the encounters of the table that may be among the likest, rising."""
        fingers = max(PARAMS.fingers, how_many(telling_fingers(probe.fingers), len(self)))
        reach = sum(len(segment.rows(subject)) for subject in excluded for segment in table)
        named: set[int] = set()
        for of in (ANYBODY, ENROLLED):
            crowded = False
            standings = self._standings(probe, of, fingers, reach)
            for standing, most in zip(standings, (fingers, PARAMS.irises, PARAMS.near_faces), strict=True):
                likest = self._likest(standing, most, excluded, table)
                named |= likest.keys()
                crowded |= 2 * sum(subject < 0 for subject in likest.values()) > len(likest)
            if not crowded:  # with held attempts, which could hide who it is
                break
        return np.array(sorted(named), dtype=np.int64)

    def _likest(
        self, standing: dict[int, float], most: int, excluded: frozenset[int], table: Sequence[Segment]
    ) -> dict[int, int]:
        """Keys and subjects of the encounters that stand highest, so many at most."""
        likest: dict[int, int] = {}
        for key in sorted(standing, key=lambda key: (-standing[key], key)):
            subject = self._subject(key, table)
            if subject is not None and subject not in excluded:
                likest[key] = subject
            if len(likest) == most:
                break
        return likest

    def _standings(
        self, probe: EncounterForm, of: str, fingers: int, reach: int
    ) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """By key what fingers, irises and face say of whoever is near the probe in any; asked all at once."""
        near = 2 * fingers + reach
        told = FingersProbe(probe.fingers).asked
        calls: list[Callable[[], list[list[Hit]]]] = []
        places: list[list[int]] = []  # which fingers each of the first calls asks for
        for partition in _PARTITIONS:
            fit = [
                i
                for i, finger in enumerate(told)
                if not partition
                or not finger.position
                or partition in (finger.position, finger.position.other_hand)
            ]
            if fit:
                places.append(fit)
                codes = [told[i].code for i in fit]
                calls.append(partial(self._rows.near_fingers, partition, codes, near, of))
        queries = [
            asked(*rotated(iris.code[:GROUP_WORDS], iris.mask[:GROUP_WORDS], step))
            for iris in probe.irises
            for step in range(-MAX_STEPS, MAX_STEPS + 1)
        ]
        if queries:
            calls.append(partial(self._rows.near_irises, queries, PARAMS.near_irises + reach, of))
        if probe.face is not None:
            most = PARAMS.near_faces + reach
            calls.append(partial(self._rows.near_faces, probe.face.embedder, probe.face.vector, most, of))
        answers = self._rows.together(calls)

        by_finger: list[list[Hit]] = [[] for _ in told]
        for fit, answer in zip(places, answers, strict=False):
            for i, hits in zip(fit, answer, strict=True):
                by_finger[i] += hits
        fingers_say = _finger_standing(
            [(f.position, f.table, hits) for f, hits in zip(told, by_finger, strict=True)]
        )
        rest = answers[len(places) :]
        eyes = rest.pop(0) if queries else []
        irises_say = _summed(
            _best((hit.key, surplus(hit.value)) for hits in eyes[first : first + ROTATIONS] for hit in hits)
            for first in range(0, len(eyes), ROTATIONS)
        )
        face_says = _best((hit.key, hit.value) for answer in rest for hits in answer for hit in hits)
        return fingers_say, irises_say, face_says

    # Changing -------------------------------------------------------------------------------------

    def add(self, key: int, subject: int, form: EncounterForm) -> None:
        """Add an encounter; every search that begins afterwards sees it.

        Raises `ValueError` where the key is in use, or a face vector is not as long as others of its
        embedder; `GalleryUnavailable` where too many changes wait for Milvus, and then nothing was added.
        Cost: that of the codes of its fingers; Milvus is written to behind its back.
        """
        if len(form.fingers) > FINGERS_EACH or len(form.irises) > EYES_EACH:
            raise ValueError(f"an encounter has {FINGERS_EACH} fingers and {EYES_EACH} eyes at most")
        for finger in form.fingers:
            _ = finger.code, finger.native  # before the lock
        if len(self._delta) >= PARAMS.most_unwritten:
            self.flush()
        with self._lock:
            if self._found(key) is not None:
                raise ValueError(f"encounter {key} is in the gallery already")
            if form.face is not None:
                self._require_length(form.face)
            self._delta.add(key, subject, form)
            self._alive += 1
        self._wake.set()

    def _require_length(self, face: FaceForm) -> None:
        """Raise `ValueError` unless the vector is as long as others of its embedder."""
        values = self._face_values.setdefault(face.embedder, len(face.vector))
        if len(face.vector) != values:
            raise ValueError(f"a vector of {len(face.vector)} values from an embedder of {values}")

    def remove(self, key: int) -> None:
        """Forget an encounter; no search that begins afterwards sees it. Raises `KeyError`.

        Its codes leave Milvus's collections with the next changes written, and its files when it compacts.
        """
        with self._lock:
            found = self._found(key)
            if found is None:
                raise KeyError(key)
            segment, row = found
            segment.dead[row] = True
            holder = next((delta for delta in self._deltas() if delta.row(key) is not None), None)
            if holder is not None:
                holder.remove(key)
            if holder is not self._delta:
                self._gone.append(key)
            if (of_thin := self._thin.row(key)) is not None:
                self._thin.dead[of_thin] = True
            self._alive -= 1
        self._wake.set()

    @property
    def watermark(self) -> int:
        """The store's sequence number this gallery has followed up to; its owner sets it after the change."""
        return self._watermark

    @watermark.setter
    def watermark(self, seq: int) -> None:
        self._watermark = seq
        self._wake.set()

    def flush(self) -> None:
        """Have everything up to now in Milvus, the watermark after what it stands for.

        Raises `GalleryUnavailable`; then the changes are kept, and written again by the next call.
        """
        with self._writing:
            with self._lock:
                if len(self._delta):
                    self._waiting, self._delta = (*self._waiting, self._delta), Delta()
                waiting = [delta.segment() for delta in self._waiting]
                gone, self._gone = self._gone, []
                noted = (self._watermark, self.history)
            try:
                if gone:
                    self._rows.delete(gone)
                for segment in waiting:
                    # what is removed while it is written is deleted by the next call
                    self._rows.insert(replace(segment, dead=segment.dead.copy()))
                if noted != self._noted:
                    self._rows.note(*noted)
                    self._noted = noted
            except BaseException:
                with self._lock:  # nobody knows what came in: away with it before it is written again
                    perhaps = [int(key) for segment in waiting for key in segment.keys]
                    self._gone = sorted({*gone, *perhaps, *self._gone})
                raise
            with self._lock:
                now = time.monotonic()
                self._written = (*self._written, *((now, delta) for delta in self._waiting))
                self._waiting = ()
                self._retire()

    def _retire(self) -> None:
        """Leave to Milvus alone what all its readers see by now."""
        seen = time.monotonic() - (0 if self._strong else PARAMS.seen_after)
        while self._written and self._written[0][0] <= seen:
            (_, delta), *rest = self._written
            self._written = tuple(rest)
            segment = delta.segment()
            alive = ~segment.dead
            self._keep_thin(segment)
            self._table = (*self._table, _table(segment.keys[alive], segment.subjects[alive]))
            while len(self._table) > 1 and 2 * len(self._table[-1]) >= len(self._table[-2]):
                last = self._table[-2:]
                self._table = (*self._table[:-2], joined(last, [~segment.dead for segment in last]))

    def _keep_thin(self, segment: Segment) -> None:
        """Keep the finger codes of those whom codes cannot tell."""
        thin = np.zeros(len(segment), dtype=np.bool_)
        thin[segment.thin] = True
        if (thin := thin & ~segment.dead).any():
            fingers_alone = replace(segment, irises={}, faces={})
            both = joined([self._thin, fingers_alone], [~self._thin.dead, thin])
            self._thin = _Stored(
                both.keys, both.subjects, both.dead, both.fingers, {}, {}, form_of=self._form_of
            )

    def _write_behind(self) -> None:
        """Write changes a moment after they were made, again and again where Milvus does not serve."""
        away = False
        while not self._stop.is_set():  # it may be set just before the other is cleared
            self._wake.wait()
            if self._stop.wait(PARAMS.again_after if away else PARAMS.written_after):
                return
            self._wake.clear()
            try:
                self.flush()
            except Exception as error:  # whatever it is, the changes are kept
                if not away:
                    log.warning(
                        "changes wait until Milvus takes them: %s", error, exc_info=_unforeseen(error)
                    )
                away = True
                self._wake.set()
            else:
                if away:
                    log.warning("everything that waited is in Milvus")
                away = False

    # The whole ------------------------------------------------------------------------------------

    def save(self, folder: Path | None = None) -> None:
        """`flush`, as far as Milvus takes it: the store knows the rest. Nothing is kept in a folder."""
        try:
            self.flush()
        except GalleryUnavailable as error:
            log.warning("changes are not in Milvus, and are made again at the next start: %s", error)

    def clear(self) -> None:
        """Remove everything, from Milvus too: to be rebuilt."""
        with self._writing, self._lock:
            self._rows.drop()
            self._rows.prepare()
            self._delta, self._waiting, self._written, self._gone = Delta(), (), (), []
            self._read()

    def sizes(self) -> Sizes:
        """How large the gallery is: bytes of codes and vectors in Milvus, 0 where it cannot be asked."""
        nothing = dict.fromkeys(Modality, 0)
        try:
            searched = self._rows.sizes()
        except GalleryUnavailable:
            searched = nothing
        return Sizes(len(self), len(self._table), searched, nothing)

    def close(self) -> None:
        """Write what waits, as far as Milvus takes it, and let go of it; the store knows the rest."""
        self._stop.set()
        self._wake.set()
        self._writer.join()
        self.save()
        self._rows.close()


def _unforeseen(error: Exception) -> bool:
    return not isinstance(error, GalleryUnavailable)


# One finger of each kind on either hand, and those whose position nobody knows.
_PARTITIONS = tuple(FingerPosition(code) for code in range(6))


def _table(keys: NDArray[np.int64], subjects: NDArray[np.int64]) -> Segment:
    return Segment(keys, subjects, np.zeros(len(keys), dtype=np.bool_), {}, {}, {})


def _finger_standing(
    told: Sequence[tuple[FingerPosition, NDArray[np.float32], Sequence[Hit]]],
) -> dict[int, float]:
    """By key the evidence of its fingers, as declared or with the hands swapped, above that of strangers'.

    Whoever is not among the nearest of a finger has there what the farthest have: nothing is added.
    """
    declared: list[dict[int, float]] = []
    crossed: list[dict[int, float]] = []
    for position, table, hits in told:
        least = float(table.min())
        said = [(hit, float(table[hit.detail, int(hit.value)]) - least) for hit in hits]
        other = position.other_hand if position else None
        declared.append(_best((hit.key, says) for hit, says in said if hit.position != other))
        crossed.append(_best((hit.key, says) for hit, says in said if hit.position == other))
    return _best(pair for sums in (_summed(declared), _summed(crossed)) for pair in sums.items())


def _best(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """The highest value of each key."""
    best: dict[int, float] = {}
    for key, value in pairs:
        if value > best.get(key, -inf):
            best[key] = value
    return best


def _summed(parts: Iterable[dict[int, float]]) -> dict[int, float]:
    """The sum of the values of each key."""
    sums: dict[int, float] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums
