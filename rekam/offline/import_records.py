"""Bulk import of an older register's records: extracted on all cores, recorded without a search.

Reading the manifest, extraction and writing go on side by side; records are written in the manifest's order,
many in one transaction. Each is remembered there under `import:<record>`, so a run that was killed, at
whatever moment, goes on where it stood: nothing is lost, nothing is in twice.

Nobody is searched: the record of a new NIK is enrolled as IMPORTED, and the batch deduplication that follows
finds who has two. A NIK that is in already is compared 1:1 with its own subject, and joins it only if it
matches: else it would be a hole for swapped identities.
"""

import csv
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol, Self

from capture.errors import CaptureError
from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition, Modality
from matching.decision import Decision, Reason, Thresholds, candidate_of, decide
from matching.encounter import beside, compare_encounters, enough_evidence
from matching.errors import MatchingError
from rekam.capturing import Captured, Capturing, form_of, read_template
from rekam.codec import MOST_OF
from rekam.config import Settings
from rekam.errors import InvalidRequest, RekamError
from rekam.exchange import Evidence, MissingReason, Person, Presented
from rekam.nik import NikWarning, parse_nik
from rekam.offline.legacy_files import samples_within
from rekam.offline.manifest import ManifestRecord, read_manifest
from rekam.position import Position, modality_of
from rekam.recorded import EVIDENCE, sample_record
from rekam.store import EncounterState, MissingRecord, SampleRecord, Store, SubjectRecord, Transaction

METHOD = "Import"
_BATCH = 256
_AHEAD = 8
_ALL: dict[Modality, tuple[Position, ...]] = {
    Modality.FINGERPRINT: tuple(p for p in FingerPosition if p),
    Modality.IRIS: tuple(p for p in EyePosition if p),
    Modality.FACE: (),
}


@dataclass(slots=True)
class Imported:
    """What an import came to, by records; `left_out` counts samples."""

    enrolled: int = 0
    joined: int = 0
    held: int = 0
    there_already: int = 0
    refused: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not in as the manifest has it: a whole record, or a sample of one (then `file` names it)."""

    line: int
    record: str
    file: str
    reason: str


class Problems:
    """The CSV file of what is not in, written as it is found."""

    def __init__(self, path: Path) -> None:
        self.number = 0
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(("line", "record", "file", "reason"))

    def tell(self, problem: Problem) -> None:
        """Add a line."""
        self.number += 1
        self._rows.writerow((problem.line, problem.record, problem.file, problem.reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Progress(Protocol):
    """Told how far an import has come."""

    def __call__(self, read: int) -> None:
        """So many bytes of the manifest are done."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A record that can be written, with what of it cannot."""

    record: ManifestRecord
    nik: str
    warnings: tuple[NikWarning, ...]
    captured: tuple[Captured, ...]
    missing: tuple[MissingRecord, ...]
    problems: tuple[Problem, ...]


def import_records(
    store: Store,
    capturing: Capturing,
    settings: Settings,
    manifest: Path,
    problems: Problems,
    progress: Progress,
    *,
    ppi: float | None = None,
) -> Imported:
    """Import the records of a manifest; files are named relative to its folder.

    `ppi`: resolution of fingers for whose images neither they nor the manifest tell one.

    A record at fault is refused whole and told in `problems`; mended, the same command takes it in. A poor
    sample is taken as it is; one that yields nothing is left out, told, and declared unreadable. Raises
    `InvalidRequest` where the manifest ends to be one, and `StoreError`; everything told as imported before
    is in. Cost: see docs/moving.md.
    """
    total = Imported()
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="rekam-import") as threads:

        def prepared(records: Iterable[ManifestRecord]) -> Iterator[Future[_Ready | Problem]]:
            for record in records:
                yield threads.submit(_prepared, record, manifest.parent, capturing, settings, ppi)

        waiting: deque[Future[_Ready | Problem]] = deque()
        coming = prepared(_new(store, read_manifest(manifest), total, problems, progress))
        try:
            while True:
                # A batch is written while what comes after it is extracted.
                waiting.extend(islice(coming, _BATCH + _AHEAD * settings.workers - len(waiting)))
                batch = [waiting.popleft().result() for _ in range(min(_BATCH, len(waiting)))]
                if not batch:
                    return total
                _write(store, settings, batch, total, problems)
        finally:
            for job in waiting:
                job.cancel()


def _new(
    store: Store,
    records: Iterator[ManifestRecord],
    total: Imported,
    problems: Problems,
    progress: Progress,
) -> Iterator[ManifestRecord]:
    """The records that are not in yet."""
    while batch := list(islice(records, _BATCH)):
        with store.read() as reader:
            answered = [reader.request(_request_id(record)) for record in batch]
        for record, request in zip(batch, answered, strict=True):
            progress(record.read)
            if request is None:
                yield record
            elif request.digest == record.digest:
                total.there_already += 1
            else:
                total.refused += 1
                text = "is in already, with other lines: the lines of a record stand together, once"
                problems.tell(Problem(record.line, record.record, "", text))


def _prepared(
    record: ManifestRecord, folder: Path, capturing: Capturing, settings: Settings, ppi: float | None
) -> _Ready | Problem:
    """Read and extract one record; of its images only those are kept that will be written."""
    try:
        if record.fault:
            raise InvalidRequest([("", record.fault)])
        nik = parse_nik(record.claim.nik)
        warnings = nik.warnings(birth_date=record.claim.birth_date, sex=record.claim.sex)
        samples, files = _samples(record, folder, ppi)
        try:
            captured = capturing.capture(samples, lambda: None)
        except InvalidRequest as error:
            raise _naming(error, files) from error
    except (RekamError, CaptureError, MatchingError) as error:
        return Problem(record.line, record.record, "", str(error))
    kept = tuple(c for c in captured if not c.refused)
    left_out = [c for c in captured if c.refused]
    if not kept:
        text = "no sample of it yields a template"
        return Problem(record.line, record.record, ", ".join(dict.fromkeys(files)), text)
    told = tuple(
        Problem(record.line, record.record, file, _why(one))
        for one, file in zip(captured, files, strict=True)
        if one.refused
    )
    try:
        missing = _missing(record, kept, left_out)
    except InvalidRequest as error:
        return Problem(record.line, record.record, "", str(error))
    if not settings.keep_images:  # hundreds of records wait to be written
        kept = tuple(replace(c, presented=replace(c.presented, image=None)) for c in kept)
    return _Ready(record, nik.digits, warnings, kept, missing, told)


def _samples(record: ManifestRecord, folder: Path, ppi: float | None) -> tuple[list[Presented], list[str]]:
    """The samples of a record, and the file each is from."""
    samples: list[Presented] = []
    files: list[str] = []
    for line in record.samples:
        try:
            data = (folder / line.file).read_bytes()
            within = list(samples_within(data, line.modality, line.position, line.ppi or ppi))
        except (OSError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidRequest([(line.file, f"cannot be read: {text}")]) from error
        except (InvalidRequest, CaptureError) as error:
            raise InvalidRequest([(line.file, str(error))]) from error
        samples += within
        files += [line.file] * len(within)
    if not samples:
        raise InvalidRequest([("file", "the record has no sample")])
    for modality, most in MOST_OF.items():
        if (many := sum(modality_of(s.position) is modality for s in samples)) > most:
            text = f"one person has {most} of {modality} at most, not {many}: give the best of each position"
            raise InvalidRequest([("file", text)])
    return samples, files


def _naming(error: InvalidRequest, files: Sequence[str]) -> InvalidRequest:
    """The same, told of files instead of places in a list."""
    names = {f"samples[{place}]": file for place, file in enumerate(files)}
    return InvalidRequest([(names.get(field, field), text) for field, text in error.violations])


def _why(captured: Captured) -> str:
    if captured.quality is not None and captured.quality.feedback:
        return f"left out: {captured.quality.feedback[0].advice}"
    return "left out: it yields no template"


def _missing(
    record: ManifestRecord, kept: Sequence[Captured], left_out: Sequence[Captured]
) -> tuple[MissingRecord, ...]:
    """What the record declares missing, what was left out, and, of modalities it has, what it lacks."""
    reasons: dict[tuple[Modality, Position], MissingReason] = {}
    for one in left_out:
        if one.position or one.position is None:
            reasons[modality_of(one.position), one.position] = MissingReason.UNREADABLE
    reasons |= {(line.modality, line.position): line.reason for line in record.missing}
    there = {(modality_of(c.position), c.position) for c in kept}
    if both := reasons.keys() & there:
        words = ", ".join(sorted(f"{m} {p.words if p else ''}".strip() for m, p in both))
        raise InvalidRequest([("missing", f"presented and declared missing: {words}")])
    for modality in Modality:
        if not any(m is modality for m, _ in (*there, *reasons)):
            continue
        if any(m is modality and p is not None and not p for m, p in there):
            continue  # one of unknown position may be any of them
        for position in _ALL[modality]:
            if (modality, position) not in there:
                reasons.setdefault((modality, position), MissingReason.NOT_CAPTURED)
    return tuple(MissingRecord(position, reason) for (_, position), reason in reasons.items())


def _write(
    store: Store,
    settings: Settings,
    batch: Sequence[_Ready | Problem],
    total: Imported,
    problems: Problems,
) -> None:
    """Record a batch in one transaction; it counts once that is durable."""
    now = datetime.now(UTC)
    counted = Imported()
    told: list[Problem] = []
    with store.transaction() as t:
        for one in batch:
            if isinstance(one, Problem):
                counted.refused += 1
                told.append(one)
            elif t.request(_request_id(one.record)) is not None:
                counted.refused += 1
                text = "stands in the manifest before: the lines of a record stand together, once"
                told.append(Problem(one.record.line, one.record.record, "", text))
            else:
                _record(t, settings, one, now, counted)
                counted.left_out += len(one.problems)
                told += one.problems
    for name in Imported.__slots__:
        setattr(total, name, getattr(total, name) + getattr(counted, name))
    for problem in told:
        problems.tell(problem)


def _record(t: Transaction, settings: Settings, ready: _Ready, now: datetime, counted: Imported) -> None:
    own = t.subject_by_nik(ready.nik)
    decision, reasons, evidence = _judged(t, settings, ready, own)
    subject_key = None
    if decision.enrolled:
        subject_key = t.add_subject(_new_id("s"), ready.nik, now) if own is None else own.key
    encounter_id = _new_id("e")
    request_id = _request_id(ready.record)
    t.add_encounter(
        encounter_id=encounter_id,
        subject_key=subject_key,
        nik=ready.nik,
        decision=decision,
        reasons=reasons,
        state=EncounterState.ENROLLED if decision.enrolled else EncounterState.HELD,
        request_id=request_id,
        created_at=now,
        samples=[sample_record(c, keep_image=settings.keep_images) for c in ready.captured],
        missing=ready.missing,
        evidence=EVIDENCE.dump_json(evidence),
    )
    if not decision.enrolled:
        t.add_case(_new_id("c"), encounter_id, now)
        counted.held += 1
    elif own is None:
        counted.enrolled += 1
    else:
        counted.joined += 1
    t.remember(request_id, METHOD, ready.record.digest, encounter_id.encode())


def _judged(
    t: Transaction, settings: Settings, ready: _Ready, own: SubjectRecord | None
) -> tuple[Decision, tuple[Reason, ...], Evidence]:
    """IMPORTED for a new NIK, and for a known one whose own subject matches; else what the table says."""
    if own is None:
        nothing = Evidence((), 0.0, 0.0, 0.0, 0, nik_known=False, nik_warnings=ready.warnings)
        return Decision.IMPORTED, (Reason.NOT_SEARCHED,), nothing
    form = form_of([c.template for c in ready.captured])
    compared = {
        encounter_id: compare_encounters(
            form, form_of(_templates(encounter.samples)), face_file=settings.face_embedder_calibration
        )
        for encounter_id in own.encounters
        if (encounter := t.encounter(encounter_id)) is not None
    }
    best_id = max(compared, key=lambda one: (compared[one].comparable, compared[one].llr))
    best = beside(compared[best_id], [c for one, c in compared.items() if one != best_id])
    thresholds = Thresholds.for_gallery(
        len(compared),
        own=len(compared),
        fpir_match=settings.fpir_match,
        fpir_review=settings.fpir_review,
        fmr_verify=settings.fmr_verify,
    )
    decision, reasons = decide(
        nik_known=True,
        candidates=[candidate_of(best, own=True)],
        thresholds=thresholds,
        enough_evidence=enough_evidence(form, thresholds.review) and best.comparable,
    )
    evidence = Evidence(
        candidates=(Person(own.subject_id, best_id, own.nik, False, best),),
        match_llr=thresholds.match,
        review_llr=thresholds.review,
        verify_llr=thresholds.verify,
        gallery_encounters=len(compared),
        nik_known=True,
        nik_warnings=ready.warnings,
    )
    decision = Decision.IMPORTED if decision is Decision.RETURNING else decision
    return decision, (*reasons, Reason.NOT_SEARCHED), evidence


def _templates(samples: Iterable[SampleRecord]) -> list[FingerprintTemplate | IrisTemplate | FaceTemplate]:
    return [read_template(s.position, s.template) for s in samples]


def _request_id(record: ManifestRecord) -> str:
    return f"import:{record.record}"


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(10)}"
