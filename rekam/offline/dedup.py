"""Everybody against everybody: the pairs of a gallery or a folder of records that may be one person.

    read       templates, and codes of fingers (`matching/fingerprint/code.py`), irises and faces, in batches
    join       every two members by their codes, tile by tile (`matching/join.py`): pairs worth a closer look
    compare    these, and each subject's own encounters, exactly in all modalities; judged as a search judges
    results    clusters and their evidence (`dedup_results.py`), a page with pictures (`dedup_page.py`)

Each step is done in units that do not depend on each other (`dedup_job.py`): a killed job goes on where it
was, and gives the same results as one that was not. No record of the source is changed.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from capture.sample import Modality
from matching.arrays import npz
from matching.decision import Decision, Reason, Thresholds, candidate_of, decide, notices
from matching.encounter import EncounterComparison, beside, compare_encounters
from matching.face.calibration import face_calibration
from matching.join import (
    CLASS_ENDS,
    Floats,
    Pairs,
    affordable_thresholds,
    face_pairs,
    finger_pairs,
    iris_pairs,
)
from rekam.config import GalleryKind, Settings
from rekam.offline.dedup_gathered import Gathered, gather, is_gathered, opened, read_batch
from rekam.offline.dedup_job import (
    Steps,
    do_units,
    done_units,
    durably_written,
    opened_job,
    read_unit,
    unit_file,
    workers_of,
)
from rekam.offline.dedup_sources import Source

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Params:
    """How the work is cut, and what is compared exactly.

    `everybody`: members up to which all pairs are compared exactly. `fingers`, `irises`, `faces`: beyond,
    exact comparisons for each member on average at most, named by that modality; `affordable`: so many by
    fingers in any case. `least_fingers`: summed evidence that is worth one, by class;
    `least_irises`: summed nearness, by number of eyes; `least_face`: log10 likelihood ratio.
    """

    tile: int = 2048  # members a side, at least
    strips: int = 150  # sides, at most
    pairs_a_batch: int = 400
    sampled: int = 2048
    seed: int = 1
    everybody: int = 64
    fingers: int = 40
    affordable: int = 200_000
    irises: int = 2
    faces: int = 2
    least_fingers: tuple[float, ...] = (-inf, -inf, -inf, -0.5, 3.0)
    least_irises: tuple[float, ...] = (inf, 0.145, 0.2)
    least_face: float = 2.0
    farthest: float = 0.40


PARAMS = Params()
_UNSENT = {"database_url": None, "gallery": GalleryKind.EMBEDDED, "milvus_uri": None, "milvus_token": None}
_NAMED_BY = {Modality.FINGERPRINT: 1, Modality.IRIS: 2, Modality.FACE: 4}


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair that matches or is to be looked at, by its encounters that match best; members by number.

    `verdict`: `match` or `review`; of two encounters of one subject, `differ` or `review`. `pairs`: how many
    pairs of encounters were compared.
    """

    a: int
    b: int
    verdict: str
    reasons: tuple[Reason, ...]
    llr: float
    fingers_llr: float
    irises_llr: float
    face_llr: float
    fingers: str
    irises: str
    arrangement: str
    eyes: str
    named_by: str
    pairs: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a job came to."""

    members: int
    subjects: int
    named: int
    thresholds: Thresholds
    doubles: tuple[Compared, ...]
    own: tuple[Compared, ...]


def dedup(
    source: Source,
    folder: Path,
    settings: Settings,
    *,
    workers: int,
    console: Console,
    dask: str | None = None,
    params: Params = PARAMS,
) -> Found:
    """Do the job in `folder`, or what is left of it. Raises `DedupError`, `StoreError`, `NotWritten`.

    Cost at a million people of ten fingers, extrapolated: 1.7 core-hours for their codes, 4 for the join, up
    to 12 for exact comparisons; 95 more where both irises are there as well (decision 14).
    """
    # What the work depends on: what workers are sent has no addresses and passwords.
    settings = settings.model_copy(update={"workers": 1, **_UNSENT})
    folder = folder.resolve()
    opened_job(folder, {"input": source.digest, "parameters": _plain(params, settings)})
    steps = Steps(console)
    with workers_of(workers, dask) as team:
        # 1. templates and codes
        if not is_gathered(folder):
            done = done_units(folder, "read")
            batches = ((n, (folder, batch, settings)) for n, batch in source.read(done))
            with steps.step("reading and extracting", source.batches, len(done)) as advance:
                do_units(team, batches, read_batch, advance)
            gather(folder)
        gathered = Gathered(folder)
        # 2. every two of them
        if not (folder / "named.npz").exists():
            plan = _plan(gathered, folder, params, settings, team[1], steps)
            if plan is None:
                named = _everybody(gathered)
            else:
                done = done_units(folder, "joined")
                with steps.step(plan.text, len(plan.tiles), len(done)) as advance:
                    tiles = (
                        (n, (folder, tile, plan.worth, params.farthest))
                        for n, tile in enumerate(plan.tiles)
                        if n not in done
                    )
                    do_units(team, tiles, join_tile, advance)
                named = _named(gathered, folder, len(plan.tiles))
            durably_written(folder / "named.npz", npz(named=np.concatenate([named, _own(gathered)])))
        with np.load(folder / "named.npz") as content:
            named = content["named"]
        # 3. those that were named, exactly
        thresholds = _thresholds(len(gathered), settings)
        done = done_units(folder, "compared")
        count = -(-len(named) // params.pairs_a_batch)
        others = int((named[:, 0] != named[:, 1]).sum())
        with steps.step(f"comparing {others:,} pairs exactly", count, len(done)) as advance:
            some = (
                (n, (folder, named[n * params.pairs_a_batch :][: params.pairs_a_batch], thresholds, settings))
                for n in range(count)
                if n not in done
            )
            do_units(team, some, compare_batch, advance)
    compared = [one for n in range(count) for one in _read_compared(folder, n)]
    same = gathered.subjects
    return Found(
        len(gathered),
        len(np.unique(same)),
        others,
        thresholds,
        tuple(one for one in compared if same[one.a] != same[one.b]),
        tuple(one for one in compared if same[one.a] == same[one.b]),
    )


def _plain(params: Params, settings: Settings) -> dict[str, object]:
    """Everything the results depend on, as JSON values."""
    used = settings.model_dump(
        mode="json",
        include={"extractor", "fpir_match", "fpir_review", "fmr_verify"}
        | {name for name in Settings.model_fields if name.startswith("face_embedder")},
    )
    result: dict[str, object] = json.loads(json.dumps(used | asdict(params), default=str))
    return result


def _thresholds(members: int, settings: Settings) -> Thresholds:
    return Thresholds.for_gallery(
        members,
        fpir_match=settings.fpir_match,
        fpir_review=settings.fpir_review,
        fmr_verify=settings.fmr_verify,
    )


# --- the join


@dataclass(frozen=True, slots=True, eq=False)
class Worth:
    """From which sums on a pair is named: fingers and irises by class, faces by embedder."""

    fingers: Floats
    irises: Floats
    faces: dict[str, float]


# First and last row, first and last column; rows may be places among those with fingers of unknown position.
Tile = tuple[bool, int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is joined, and what names a pair; `text` says how long it will take."""

    tiles: tuple[Tile, ...]
    worth: Worth
    text: str


def _plan(
    gathered: Gathered, folder: Path, params: Params, settings: Settings, workers: int, steps: Steps
) -> Plan | None:
    """What is to be joined and with which thresholds, from a sample of pairs; None: compare everybody."""
    n = len(gathered)
    pairs = n * (n - 1) / 2
    if n <= params.everybody:
        return None
    # 1. two samples of members, every one of the first with every one of the second
    drawn = np.random.default_rng((params.seed, n)).permutation(n)[: 2 * params.sampled]
    rows, columns = np.sort(drawn[: len(drawn) // 2]), np.sort(drawn[len(drawn) // 2 :])
    share = len(rows) * len(columns) / pairs
    seconds = 0.0

    def strangers(rows_: Indices, columns_: Indices, made: Pairs) -> NDArray[np.bool_]:
        differ: NDArray[np.bool_] = (
            gathered.subjects[rows_[made.row]] != gathered.subjects[columns_[made.column]]
        )
        return differ

    # 2. fingers
    everything = np.full(len(CLASS_ENDS) + 1, -inf, dtype=np.float32)
    a, b = gathered.fingers(rows), gathered.fingers(columns)
    finger_pairs(a[:8], b[:8], everything, n)  # compiled before the clock runs
    start = time.thread_time()
    made = finger_pairs(a, b, everything, n)
    seconds += (time.thread_time() - start) / share * gathered.has_fingers
    kept = strangers(rows, columns, made)
    classes = np.minimum(a.classes[made.row], b.classes[made.column])[kept]
    least, most = np.array(params.least_fingers, np.float32), max(params.fingers * n, params.affordable)
    fingers = affordable_thresholds(made.score[kept], classes, share, most, least)
    # 3. irises, of a sixteenth of the sample
    irises = np.array(params.least_irises, dtype=np.float32)
    if gathered.slots:
        few, others = rows[::4], columns[::4]
        c, d = gathered.irises(few), gathered.irises(others)
        iris_pairs(c[:8], d[:8], irises, params.farthest, n)
        start = time.thread_time()
        made = iris_pairs(c, d, np.zeros_like(irises), params.farthest, n)
        of_all = len(few) * len(others) / pairs
        seconds += (time.thread_time() - start) / of_all
        kept = strangers(few, others, made)
        eyes = np.minimum(c.classes[made.row], d.classes[made.column])[kept]
        irises = affordable_thresholds(made.score[kept], eyes, of_all, params.irises * n, irises)
    # 4. faces
    faces: dict[str, float] = {}
    for embedder in gathered.embedders:
        start = time.thread_time()
        made = face_pairs(gathered.faces(embedder, rows), gathered.faces(embedder, columns), -1.0, n)
        seconds += (time.thread_time() - start) / share
        kept = strangers(rows, columns, made)
        alike = np.zeros(int(kept.sum()), dtype=np.int64)
        worth = np.array([_face_worth_it(embedder, params, settings)], dtype=np.float32)
        [faces[embedder]] = affordable_thresholds(
            made.score[kept], alike, share, params.faces * n, worth
        ).tolist()
    # 5. tiles of the upper triangle, then whoever has fingers of unknown position with everybody
    side = max(params.tile, -(-n // params.strips))
    starts = range(0, n, side)
    tiles = [(False, r, min(r + side, n), c, min(c + side, n)) for r in starts for c in starts if c >= r]
    loose = len(gathered.loose_members)
    short = side // 16
    tiles += [
        (True, r, min(r + short, loose), c, min(c + side, n)) for r in range(0, loose, short) for c in starts
    ]
    text = f"joining {pairs:,.0f} pairs (about {_duration(seconds / workers)} by {workers})"
    return Plan(tuple(tiles), Worth(fingers, irises, faces), text)


def _face_worth_it(embedder: str, params: Params, settings: Settings) -> float:
    """The cosine from which on faces speak for one person as clearly as is worth a look."""
    calibration = face_calibration(bytes.fromhex(embedder), settings.face_embedder_calibration)
    scores = zip(calibration.llr_scores, calibration.llrs, strict=True)
    return 2 * next((score for score, llr in scores if llr >= params.least_face), 1.0) - 1


def _duration(seconds: float) -> str:
    """`3 h 20 min`, `12 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def join_tile(number: int, folder: Path, tile: Tile, worth: Worth, farthest: float) -> None:
    """Name the pairs of a tile: its file of the step `joined`, `(k, 3)` members and by which modalities."""
    gathered = opened(folder)
    loose, first_row, last_row, first_column, last_column = tile
    columns = np.arange(first_column, last_column)
    found: list[NDArray[np.int64]] = []

    def name(rows: Indices, pairs: Pairs, modality: Modality) -> None:
        a, b = rows[pairs.row], columns[pairs.column]
        found.append(np.column_stack([a, b, np.full(len(a), _NAMED_BY[modality])]))

    if loose:
        rows = gathered.loose_members[first_row:last_row]
        theirs = gathered.fingers(columns, loose=True)
        made = finger_pairs(gathered.fingers(rows, loose=True), theirs, worth.fingers, len(gathered))
        name(rows, made, Modality.FINGERPRINT)
    else:
        rows, ahead = np.arange(first_row, last_row), first_column - first_row
        if gathered.has_fingers:
            made = finger_pairs(gathered.fingers(rows), gathered.fingers(columns), worth.fingers, ahead)
            name(rows, made, Modality.FINGERPRINT)
        if gathered.slots:
            c, d = gathered.irises(rows), gathered.irises(columns)
            name(rows, iris_pairs(c, d, worth.irises, farthest, ahead), Modality.IRIS)
        for embedder, threshold in worth.faces.items():
            e, f = gathered.faces(embedder, rows), gathered.faces(embedder, columns)
            name(rows, face_pairs(e, f, threshold, ahead), Modality.FACE)
    named = np.concatenate([np.zeros((0, 3), dtype=np.int64), *found])
    durably_written(unit_file(folder, "joined", number), npz(named=named))


def _everybody(gathered: Gathered) -> Indices:
    """Every two subjects: a small gallery needs no join."""
    a, b = np.triu_indices(len(gathered.members_of), 1)
    return np.column_stack([a, b, np.zeros(len(a), dtype=np.int64)])


def _own(gathered: Gathered) -> Indices:
    """Subjects of several encounters, each with itself."""
    several = np.array([n for n, of in enumerate(gathered.members_of) if len(of) > 1], dtype=np.int64)
    return np.column_stack([several, several, np.zeros(len(several), dtype=np.int64)])


def _named(gathered: Gathered, folder: Path, tiles: int) -> Indices:
    """`(k, 3)`: pairs of subjects that any tile names, each once, in order, and by which modalities."""
    pairs = np.concatenate([read_unit(folder, "joined", number)["named"] for number in range(tiles)])
    subjects = np.sort(gathered.subjects[pairs[:, :2]], axis=1)
    others = subjects[:, 0] != subjects[:, 1]
    subjects, by = subjects[others], pairs[others, 2]
    unique, place = np.unique(subjects, axis=0, return_inverse=True)
    together = np.zeros(len(unique), dtype=np.int64)
    np.bitwise_or.at(together, place.ravel(), by)
    return np.column_stack([unique, together])


# --- exact comparison


def compare_batch(
    number: int, folder: Path, pairs: Indices, thresholds: Thresholds, settings: Settings
) -> None:
    """Compare pairs of subjects exactly: a file of the step `compared`, those worth an operator's look.

    Cost: 1 ms a pair as they are named, on average; see `benchmarks/results/dedup.json`.
    """
    gathered = opened(folder)
    found: list[Compared] = []
    for a, b, by in pairs.tolist():
        if a == b:
            found += _own_compared(gathered, a, thresholds, settings)
        elif (one := _subjects_compared(gathered, a, b, by, thresholds, settings)) is not None:
            found.append(one)
    rows = np.frombuffer(json.dumps([asdict(one) for one in found]).encode(), dtype=np.uint8)
    durably_written(unit_file(folder, "compared", number), npz(rows=rows))


def _subjects_compared(
    gathered: Gathered, a: int, b: int, by: int, thresholds: Thresholds, settings: Settings
) -> Compared | None:
    """Two subjects, by their encounters that match best, told what the others deny; None: two people."""
    pairs = [
        (int(i), int(j), _comparison(gathered, int(i), int(j), settings))
        for i in gathered.members_of[a]
        for j in gathered.members_of[b]
    ]
    pairs.sort(key=lambda pair: (-pair[2].llr, pair[0], pair[1]))
    (i, j, best), *others = pairs
    best = beside(best, [other for _, _, other in others])
    decision, reasons = decide(
        nik_known=False, candidates=[candidate_of(best)], thresholds=thresholds, enough_evidence=True
    )
    if decision is Decision.UNIQUE:
        return None
    verdict = "match" if decision is Decision.DUPLICATE else "review"
    return _compared(i, j, best, verdict, reasons, by, len(pairs))


def _own_compared(
    gathered: Gathered, subject: int, thresholds: Thresholds, settings: Settings
) -> Iterator[Compared]:
    """Encounters of one subject that do not match each other: one NIK, perhaps two people."""
    members = gathered.members_of[subject].tolist()
    for place, i in enumerate(members):
        for j in members[place + 1 :]:
            comparison = _comparison(gathered, i, j, settings)
            decision, reasons = decide(
                nik_known=True,
                candidates=[candidate_of(comparison, own=True)],
                thresholds=thresholds,
                enough_evidence=True,
            )
            if comparison.comparable and decision is not Decision.RETURNING:
                verdict = "differ" if decision is Decision.COLLISION else "review"
                yield _compared(i, j, comparison, verdict, reasons, 0, 1)


def _comparison(gathered: Gathered, i: int, j: int, settings: Settings) -> EncounterComparison:
    return compare_encounters(
        gathered.form(i), gathered.form(j), face_file=settings.face_embedder_calibration
    )


def _compared(
    i: int,
    j: int,
    comparison: EncounterComparison,
    verdict: str,
    reasons: tuple[Reason, ...],
    by: int,
    pairs: int,
) -> Compared:
    shown = dict.fromkeys((*reasons, *notices(comparison)))
    fingers, irises = comparison.shares, comparison.irises
    return Compared(
        a=i,
        b=j,
        verdict=verdict,
        reasons=tuple(shown),
        llr=comparison.llr,
        fingers_llr=comparison.fingers_llr,
        irises_llr=comparison.irises_llr,
        face_llr=comparison.face_llr,
        fingers=f"{sum(share.llr > 0 for share in fingers)} of {len(fingers)}",
        irises=f"{sum(share.llr > 0 for share in irises)} of {len(irises)}",
        arrangement=comparison.arrangement,
        eyes=comparison.eyes,
        named_by=" ".join(modality for modality, bit in _NAMED_BY.items() if by & bit),
        pairs=pairs,
    )


def _read_compared(folder: Path, number: int) -> Iterator[Compared]:
    for row in json.loads(read_unit(folder, "compared", number)["rows"].tobytes()):
        yield Compared(**row | {"reasons": tuple(Reason(word) for word in row["reasons"])})
