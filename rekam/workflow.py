"""Enrol, add, verify, identify, delete, resolve: what the service does, free of gRPC.

The way of an encounter, in `Workflow._record`: capture -> recapture? -> same finger twice? -> search ->
(one writer) compare with whoever was committed since -> decide -> commit -> index -> acknowledge.
"""

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations_with_replacement
from typing import Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from capture.decode import decode_image
from capture.errors import ImageRefused, TemplateRefused
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from capture.quality import Feedback, Quality
from capture.sample import FingerPosition
from matching.decision import Candidate, Reason, Thresholds, decide
from matching.encounter import (
    Arrangement,
    EncounterComparison,
    EncounterForm,
    compare_encounters,
    encounter_form,
    enough_evidence,
    same_finger_twice,
)
from matching.errors import GalleryDamaged
from matching.fingerprint.calibration import fingerprint_calibration
from matching.gallery import FingerprintGallery
from rekam.commits import GroupCommit
from rekam.config import Settings
from rekam.errors import InvalidRequest, NotFound, RequestConflict, WrongState
from rekam.exchange import (
    Assessed,
    CaseFile,
    Claim,
    Erased,
    Evidence,
    Identified,
    Match,
    Missing,
    MissingReason,
    Person,
    Presentation,
    Presented,
    Recapture,
    RecaptureItem,
    Recorded,
    RecordedFinger,
    StoredSample,
    Verified,
)
from rekam.nik import NikWarning, parse_nik
from rekam.store import (
    CaseRecord,
    CaseState,
    ChangeKind,
    Counts,
    EncounterRecord,
    EncounterState,
    MissingRecord,
    Position,
    Reader,
    Resolution,
    SampleRecord,
    Store,
    SubjectRecord,
    Transaction,
)

log = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")
Check = Callable[[], None]
"""Called between stages; raises `DeadlinePassed` when nobody waits for the answer any more."""

MOST_CANDIDATES = 20
_ALWAYS_SHOWN = 3
_FEW_MINUTIAE = 6
_INDEX = "index"
_SAVE_AFTER = 1000
_POLL_SECONDS = 0.05
_ALL_FINGERS = frozenset(FingerPosition) - {FingerPosition.UNKNOWN}
_RECORDED: TypeAdapter[Recorded] = TypeAdapter(Recorded)
_EVIDENCE = TypeAdapter(Evidence)
_ERASED = TypeAdapter(Erased)
_CASE = TypeAdapter(CaseRecord)


class Progress(Protocol):
    """Told how far a long work has come."""

    def __call__(self, done: int, of: int) -> None:
        """`done` of `of` steps are done."""


def no_deadline() -> None:
    """Never raises: the caller waits as long as it takes."""


class Whose(Protocol):
    """Reads whose encounter is claimed: the NIK, and its subject where it has one."""

    def __call__(self, reader: Reader) -> tuple[str, SubjectRecord | None]:
        """NIK and subject, as the reader sees them now."""


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    """One presented finger after extraction; `template` is as the store keeps it."""

    presented: Presented
    position: FingerPosition
    template: FingerprintTemplate | None
    quality: Quality | None
    image_format: str | None

    @property
    def refused(self) -> bool:
        """Whether it should be captured again."""
        if self.template is None:
            return True
        few = len(self.template) < _FEW_MINUTIAE
        poor = few if self.quality is None else not self.quality.usable
        return poor and not self.presented.best_effort


@dataclass(frozen=True, slots=True, eq=False)
class _Searched:
    """An encounter that was captured and searched; `at` is the watermark of the index it was searched in."""

    captured: tuple[_Captured, ...]
    form: EncounterForm
    compared: dict[int, EncounterComparison]
    at: int


class Workflow:
    """Owns store, gallery and extraction pool; every method is thread-safe.

    Methods raise the trees of `rekam.errors` and `capture.errors`; outcomes (duplicate, recapture, no
    match) are returned. Nothing is returned as recorded before it is durable and searchable.
    """

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self._settings = settings
        self._extractors = {choice: FingerprintExtractor(choice) for choice in ExtractorChoice}
        self._calibrated = _calibrated()
        _warm_up()
        self._store = Store.open(settings.data_dir)
        self._forms: dict[int, EncounterForm] = {}
        self._erased = False
        self._gallery = self._open_gallery(progress)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="rekam-extract")
        self._running: dict[str, tuple[str, bytes, Future[object]]] = {}
        self._running_lock = threading.Lock()
        self._commits = GroupCommit(self._store, self._follow_store, settings.max_batch)

    def close(self) -> None:
        """Finish what was accepted, save the index, release the store; what was erased leaves the disk."""
        self._commits.close()
        self._pool.shutdown()
        self._gallery.save(self._settings.data_dir / _INDEX)
        if self._erased:
            self._store.compact()
        self._store.close()

    # Recording ------------------------------------------------------------------------------------

    def enroll(
        self, claim: Claim, presentation: Presentation, check: Check = no_deadline
    ) -> Recorded | Recapture:
        """Record a person under a NIK after searching everybody; durable when it returns."""
        nik = parse_nik(claim.nik)
        warnings = nik.warnings(birth_date=claim.birth_date, sex=claim.sex)

        def whose(reader: Reader) -> tuple[str, SubjectRecord | None]:
            return nik.digits, reader.subject_by_nik(nik.digits)

        return self._record("Enroll", presentation, whose, warnings, check)

    def add_encounter(
        self, subject_id: str, presentation: Presentation, check: Check = no_deadline
    ) -> Recorded | Recapture:
        """Add an encounter to a subject: verified 1:1 against it and searched 1:N against everybody."""

        def whose(reader: Reader) -> tuple[str, SubjectRecord | None]:
            subject = _found(reader.subject(subject_id), "subject", subject_id)
            return subject.nik, subject

        return self._record("AddEncounter", presentation, whose, (), check)

    def _record(
        self,
        method: str,
        presentation: Presentation,
        whose: Whose,
        warnings: tuple[NikWarning, ...],
        check: Check,
    ) -> Recorded | Recapture:
        def produce() -> Recorded | Recapture:
            _require_every_finger([s.position for s in presentation.samples], presentation.missing)
            with self._store.read() as reader:
                whose(reader)
            captured = self._capture(presentation.samples, check)
            # Once more: templates may tell positions that the samples did not.
            _require_every_finger([c.position for c in captured], presentation.missing)
            if poor := tuple(_poor(c) for c in captured if c.refused):
                return Recapture(poor)
            form = encounter_form([c.template for c in captured if c.template is not None])
            if twice := same_finger_twice(form):
                return Recapture(tuple(_twice(a, b) for a, b, _ in twice))
            check()
            watermark = self._gallery.watermark
            compared = {match.key: match.comparison for match in self._gallery.search(form)}
            searched = _Searched(captured, form, compared, watermark)
            check()
            return self._commits.submit(settle(searched))

        def settle(searched: _Searched) -> Callable[[Transaction], Recorded]:
            def work(t: Transaction) -> Recorded:
                recorded = self._settle(t, presentation, searched, whose, warnings)
                t.remember(
                    presentation.request_id, method, presentation.digest, _RECORDED.dump_json(recorded)
                )
                return recorded

            return work

        return self._once(method, presentation.request_id, presentation.digest, _RECORDED, produce, check)

    def _settle(
        self,
        t: Transaction,
        presentation: Presentation,
        searched: _Searched,
        whose: Whose,
        warnings: tuple[NikWarning, ...],
    ) -> Recorded:
        """Decide and write. Runs in the one writing thread, so nobody is committed in between."""
        # 1. Whoever was committed since the search, and the claimed subject itself, are compared exactly.
        nik, own = whose(t)
        late = {change.encounter_seq for change in t.changes(searched.at) if change.kind is ChangeKind.ADD}
        if own is not None:
            late |= set(self._gallery.subject_keys(own.key))
        compared = searched.compared | self._compared(t, searched.form, late - searched.compared.keys())

        # 2. What those encounters are by now: deleted and rejected ones accuse nobody.
        persons = _persons(t, compared)
        thresholds = self._thresholds(own)
        decision, reasons = decide(
            nik_known=own is not None,
            candidates=[_candidate(p, own) for p in persons],
            thresholds=thresholds,
            enough_evidence=enough_evidence(searched.form, thresholds.review) and _comparable(persons, own),
        )
        evidence = Evidence(
            candidates=_shown(persons, own, thresholds.review),
            match_llr=thresholds.match,
            review_llr=thresholds.review,
            verify_llr=thresholds.verify,
            gallery_encounters=len(self._gallery),
            nik_known=own is not None,
            nik_warnings=warnings,
        )

        # 3. Record, decision and case go into the transaction.
        now = datetime.now(UTC)
        subject_key = None
        if decision.enrolled:
            subject_key = own.key if own is not None else t.add_subject(_new_id("s"), nik, now)
        encounter_id = _new_id("e")
        seq = t.add_encounter(
            encounter_id=encounter_id,
            subject_key=subject_key,
            nik=nik,
            decision=decision,
            reasons=reasons + _notices(persons, thresholds),
            state=EncounterState.ENROLLED if decision.enrolled else EncounterState.HELD,
            request_id=presentation.request_id,
            created_at=now,
            samples=[_finger_record(c, keep_image=self._settings.keep_images) for c in searched.captured],
            missing=[MissingRecord(m.position, m.reason) for m in presentation.missing],
            evidence=_EVIDENCE.dump_json(evidence),
        )
        if not decision.enrolled:
            t.add_case(_new_id("c"), encounter_id, now)
        self._forms[seq] = searched.form
        return _recorded(t, _found(t.encounter(encounter_id), "encounter", encounter_id))

    def delete_subject(
        self, subject_id: str, request_id: str, digest: bytes, check: Check = no_deadline
    ) -> Erased:
        """Erase a subject with all its encounters, templates and images; durable when it returns."""

        def work(t: Transaction) -> Erased:
            gone = t.delete_subject(subject_id, deleted_at=datetime.now(UTC))
            erased = Erased(len(gone.encounters))
            t.remember(request_id, "DeleteSubject", digest, _ERASED.dump_json(erased))
            return erased

        def produce() -> Erased:
            check()
            return self._commits.submit(work)

        return self._once("DeleteSubject", request_id, digest, _ERASED, produce, check)

    def resolve_case(
        self,
        case_id: str,
        resolution: Resolution,
        *,
        operator: str,
        comment: str,
        subject_id: str | None,
        request_id: str,
        digest: bytes,
        check: Check = no_deadline,
    ) -> CaseRecord:
        """Carry out what an operator found; durable when it returns. See `Resolution` for the effects."""

        def work(t: Transaction) -> CaseRecord:
            case = _found(t.case(case_id), "case", case_id)
            if case.state is CaseState.RESOLVED:
                raise WrongState(f"case {case_id} is resolved already")
            held = _found(t.encounter(case.encounter_id), "encounter", case.encounter_id)
            now = datetime.now(UTC)
            target = self._resolved_to(t, held, resolution, subject_id)
            if resolution is Resolution.REJECTED:
                t.reject_encounter(held.encounter_id)
            else:
                if target is None:
                    key = t.add_subject(_new_id("s"), held.nik, now)
                    target = _found(t.subject_by_key(key), "subject", str(key))
                t.move_encounter(held.encounter_id, target.key, EncounterState.ENROLLED)
            t.resolve_case(
                case_id,
                resolution,
                operator=operator,
                comment=comment,
                resolved_at=now,
                subject_id=None if target is None else target.subject_id,
            )
            resolved = _found(t.case(case_id), "case", case_id)
            t.remember(request_id, "ResolveCase", digest, _CASE.dump_json(resolved))
            return resolved

        def produce() -> CaseRecord:
            check()
            return self._commits.submit(work)

        return self._once("ResolveCase", request_id, digest, _CASE, produce, check)

    def _resolved_to(
        self, t: Transaction, held: EncounterRecord, resolution: Resolution, subject_id: str | None
    ) -> SubjectRecord | None:
        """The subject a held encounter goes to: None for a new one, or where it is rejected.

        Nobody's prints get into another's subject: where there are fingers to compare, they must not deny it.
        """
        if resolution is Resolution.REJECTED:
            return None
        evidence = _EVIDENCE.validate_json(held.evidence)
        if resolution is Resolution.DIFFERENT_PEOPLE:
            subject = t.subject_by_nik(held.nik)
            if subject is None:
                return None
            if not evidence.nik_known:
                raise WrongState("the NIK was enrolled after this case was opened: compare the two first")
        else:
            subject = _found(t.subject(subject_id or _likely(t, evidence)), "subject", subject_id or "")
        form = _found(self._form(t, held.seq), "encounter", held.encounter_id)
        compared = self._compared(t, form, self._gallery.subject_keys(subject.key))
        best = max(compared.values(), key=_telling, default=None)
        if best is not None and best.shares and best.llr < self._thresholds(subject).verify_review:
            raise WrongState(
                f"the prints are not those of subject {subject.subject_id} (LLR {best.llr:.1f}): "
                "reject the case, or resolve it as the same person as another subject"
            )
        return subject

    # Asking ---------------------------------------------------------------------------------------

    def identify(
        self,
        samples: Sequence[Presented],
        *,
        exclude: Collection[str] = (),
        exhaustive: bool = False,
        check: Check = no_deadline,
    ) -> Identified:
        """Search everybody but `exclude` (subject ids); records nothing. `exhaustive` asks the oracle."""
        with self._store.read() as reader:
            excluded = {_found(reader.subject(s), "subject", s).key for s in exclude}
        captured = self._capture(samples, check)
        form = _form_of(captured)
        check()
        search = self._gallery.search_exhaustively if exhaustive else self._gallery.search
        compared = {match.key: match.comparison for match in search(form, exclude=excluded)}
        with self._store.read() as reader:
            persons = _persons(reader, compared)[:MOST_CANDIDATES]
        thresholds = self._thresholds()
        best = persons[0].comparison.llr if persons else float("-inf")
        return Identified(
            candidates=persons,
            match=_match(best, thresholds.match, thresholds.review),
            match_llr=thresholds.match,
            review_llr=thresholds.review,
            gallery_encounters=len(self._gallery),
            qualities=_qualities(captured),
        )

    def verify(
        self,
        samples: Sequence[Presented],
        *,
        subject_id: str | None = None,
        nik: str | None = None,
        check: Check = no_deadline,
    ) -> Verified:
        """Compare with one subject, by its id or its NIK; records nothing."""
        with self._store.read() as reader:
            subject = _claimed(reader, subject_id, nik)
        captured = self._capture(samples, check)
        form = _form_of(captured)
        check()
        with self._store.read() as reader:
            compared = self._compared(reader, form, self._gallery.subject_keys(subject.key))
            persons = [p for p in _persons(reader, compared) if _is(p, subject)]
        if not persons:
            raise NotFound("subject", subject.subject_id)
        thresholds = self._thresholds(subject)
        llr = persons[0].comparison.llr
        return Verified(
            match=_match(llr, thresholds.verify, thresholds.verify_review),
            candidate=persons[0],
            verify_llr=thresholds.verify,
            qualities=_qualities(captured),
        )

    def assess(self, presented: Presented, check: Check = no_deadline) -> Assessed:
        """Judge one image; records nothing."""
        if presented.image is None:
            raise InvalidRequest(
                [("sample.image", "an image is needed: a template has no quality to assess")]
            )
        check()
        sample = decode_image(presented.image, position=presented.position, ppi=presented.ppi)
        extraction = self._pool.submit(self._extractor(presented).extract, sample).result()
        template = extraction.template
        sendable = extraction.quality.usable or presented.best_effort
        return Assessed(
            quality=extraction.quality,
            template=template.to_bytes() if template is not None and sendable else None,
            minutiae=0 if template is None else len(template),
            format=sample.format,
            width=sample.image.shape[1],
            height=sample.image.shape[0],
            ppi=sample.ppi,
        )

    def encounter(self, encounter_id: str) -> Recorded:
        """A recorded encounter as it stands now."""
        with self._store.read() as reader:
            return _recorded(reader, _found(reader.encounter(encounter_id), "encounter", encounter_id))

    def subject(self, *, subject_id: str | None = None, nik: str | None = None) -> SubjectRecord:
        """A subject by its id or its NIK."""
        with self._store.read() as reader:
            return _claimed(reader, subject_id, nik)

    def subjects(self, after: str | None, limit: int) -> tuple[SubjectRecord, ...]:
        """A page of subjects in a stable order."""
        with self._store.read() as reader:
            return reader.subjects(after, limit)

    def cases(self, state: CaseState | None, after: str | None, limit: int) -> tuple[CaseRecord, ...]:
        """A page of cases, oldest first."""
        try:
            with self._store.read() as reader:
                return reader.cases(state, after, limit)
        except NotFound as error:
            raise InvalidRequest([("page_token", "is no token this service gave")]) from error

    def case(self, case_id: str, *, samples: bool = False) -> CaseFile:
        """A case with its encounter and, where asked for, the samples of it and of its best candidate."""
        with self._store.read() as reader:
            case = _found(reader.case(case_id), "case", case_id)
            held = reader.encounter(case.encounter_id, images=samples)
            if held is None:
                return CaseFile(case, None, ())
            recorded = _recorded(reader, held)
            both: list[EncounterRecord] = []
            if samples:
                best = [p.encounter_id for p in recorded.evidence.candidates[:1]]
                both = [held, *filter(None, (reader.encounter(e, images=True) for e in best))]
        return CaseFile(case, recorded, tuple(_stored_sample(e, f) for e in both for f in e.samples))

    def stats(self) -> tuple[Counts, int, int]:
        """Counts of the store, its last change, and the last change the index holds."""
        with self._store.read() as reader:
            return reader.counts(), reader.last_change(), self._gallery.watermark

    # Stages ---------------------------------------------------------------------------------------

    def _capture(self, samples: Sequence[Presented], check: Check) -> tuple[_Captured, ...]:
        """Decode and extract every sample on the pool; every faulty one is named."""

        def one(place: int, presented: Presented) -> _Captured:
            check()
            return self._capture_one(place, presented)

        jobs = [self._pool.submit(one, place, presented) for place, presented in enumerate(samples)]
        captured: list[_Captured] = []
        faults: list[tuple[str, str]] = []
        try:
            for job in jobs:
                try:
                    captured.append(job.result())
                except InvalidRequest as error:
                    faults.extend(error.violations)
        finally:
            for job in jobs:
                job.cancel()
        if faults:
            raise InvalidRequest(faults)
        _require_one_of_each([c.position for c in captured])
        return tuple(captured)

    def _capture_one(self, place: int, presented: Presented) -> _Captured:
        with _at_sample(place):
            if presented.template is not None:
                template = FingerprintTemplate.from_bytes(presented.template)
                if len(template) == 0:
                    raise TemplateRefused("the template has no minutiae: declare the finger missing")
                if template.extractor not in self._calibrated:
                    raise TemplateRefused(
                        f"what templates of the extractor {template.extractor.name} are worth is not known "
                        "here: send the image"
                    )
                position = presented.position or template.position
                if template.position not in (FingerPosition.UNKNOWN, position):
                    raise TemplateRefused(
                        f"the template is of the {template.position.words}, not the {position.words}"
                    )
                return _Captured(presented, position, replace(template, position=position), None, None)
            sample = decode_image(presented.image or b"", position=presented.position, ppi=presented.ppi)
            extraction = self._extractor(presented).extract(sample)
            # Compare what will be stored, not what was rounded away.
            made = extraction.template
            kept = None if made is None else FingerprintTemplate.from_bytes(made.to_bytes())
            return _Captured(presented, sample.position, kept, extraction.quality, sample.format)

    def _extractor(self, presented: Presented) -> FingerprintExtractor:
        return self._extractors[presented.extractor or self._settings.extractor]

    def _once(
        self,
        method: str,
        request_id: str,
        digest: bytes,
        adapter: TypeAdapter[T],
        produce: Callable[[], A],
        check: Check,
    ) -> T | A:
        """Produce an answer once per request id: a repetition gets the first one, also while it is made."""
        while True:
            with self._running_lock:
                running = self._running.get(request_id)
                if running is None:
                    mine: Future[object] = Future()
                    if (answered := self._answered(method, request_id, digest)) is not None:
                        return adapter.validate_json(answered)
                    self._running[request_id] = (method, digest, mine)
                    break
            if running[:2] != (method, digest):
                raise RequestConflict(request_id)
            while not wait_for([running[2]], timeout=_POLL_SECONDS).done:
                check()
            if running[2].exception() is None:
                return running[2].result()  # type: ignore[return-value]  # same method, hence same type
            # The first try failed; this one takes its place.
        try:
            answer = produce()
            mine.set_result(answer)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._running_lock:
                del self._running[request_id]
        return answer

    def _answered(self, method: str, request_id: str, digest: bytes) -> bytes | None:
        with self._store.read() as reader:
            request = reader.request(request_id)
        if request is None:
            return None
        if (request.method, request.digest) != (method, digest):
            raise RequestConflict(request_id)
        return request.response

    # The index follows the store ------------------------------------------------------------------

    def _open_gallery(self, progress: Progress | None) -> FingerprintGallery:
        """The saved index, or an empty one where there is none to trust, caught up with the store."""
        folder = self._settings.data_dir / _INDEX
        try:
            gallery = FingerprintGallery.load(folder) if folder.exists() else FingerprintGallery()
        except GalleryDamaged as error:
            log.warning("the saved index is not used and is rebuilt from the store: %s", error)
            gallery = FingerprintGallery()
        self._gallery = gallery
        with self._store.read() as reader:
            last = reader.last_change()
        if gallery.watermark > last:
            log.warning("the saved index is newer than the store and is rebuilt from it")
            self._gallery = gallery = FingerprintGallery()
        behind = last - gallery.watermark
        self._follow_store(progress)
        if behind > _SAVE_AFTER:
            gallery.save(folder)
        return gallery

    def _follow_store(self, progress: Progress | None = None) -> None:
        """Apply the changes the index has not seen. Called after every commit, by the writing thread."""
        gone: set[int] = set()
        with self._store.read() as reader:
            start, last = self._gallery.watermark, reader.last_change()
            while changes := reader.changes(self._gallery.watermark, limit=_SAVE_AFTER):
                for change in changes:
                    added = change.kind is ChangeKind.ADD
                    form = self._search_form(reader, change.encounter_seq) if added else None
                    if change.encounter_seq in self._gallery:
                        self._gallery.remove(change.encounter_seq)
                        gone.add(change.encounter_seq)
                    if form is not None:
                        gone.discard(change.encounter_seq)
                        label = _label(change.encounter_seq, change.subject_key)
                        self._gallery.add(change.encounter_seq, label, form)
                    self._gallery.watermark = change.seq
                    if progress is not None:
                        progress(change.seq - start, last - start)
        self._forms.clear()
        if gone:
            # The saved copy still holds what was erased: better none, until the next one is saved.
            self._erased = True
            shutil.rmtree(self._settings.data_dir / _INDEX, ignore_errors=True)

    def _compared(
        self, reader: Reader, form: EncounterForm, keys: Iterable[int]
    ) -> dict[int, EncounterComparison]:
        """The form compared exactly with these encounters, by key; erased ones are left out."""
        return {
            key: compare_encounters(form, reference)
            for key in sorted(keys)
            if (reference := self._form(reader, key)) is not None
        }

    def _form(self, reader: Reader, key: int) -> EncounterForm | None:
        """The form of an encounter to compare with, from memory where it is indexed; None once erased."""
        try:
            return self._gallery.form(key)
        except KeyError:
            return self._search_form(reader, key)

    def _search_form(self, reader: Reader, key: int) -> EncounterForm | None:
        """The form of an encounter to index: as just captured, or made of its stored templates."""
        if (form := self._forms.get(key)) is not None:
            return form
        encounter = reader.encounter_by_seq(key)
        if encounter is None or not encounter.state.searchable:
            return None
        return encounter_form([FingerprintTemplate.from_bytes(f.template) for f in encounter.samples])

    def _thresholds(self, claimed: SubjectRecord | None = None) -> Thresholds:
        own = () if claimed is None else self._gallery.subject_keys(claimed.key)
        return Thresholds.for_gallery(
            len(self._gallery),
            own=len(own),
            fpir_match=self._settings.fpir_match,
            fpir_review=self._settings.fpir_review,
            fmr_verify=self._settings.fmr_verify,
        )


def _calibrated() -> frozenset[Extractor]:
    """Extractors whose templates may meet here: every two of them are calibrated together.

    Raises `MatchingError` where those of this installation are not.
    """
    own = {extractor for extractor in Extractor if extractor is not Extractor.FOREIGN}
    for first, second in combinations_with_replacement(sorted(own), 2):
        fingerprint_calibration(first, second)
    return frozenset(own)


def _warm_up() -> None:
    """Load the compiled kernels (or compile them, once in an environment) before anybody waits for them."""
    places = np.arange(30)
    template = FingerprintTemplate(
        x=(places % 6 * 40 + 20).astype(np.float32),
        y=(places // 6 * 40 + 20).astype(np.float32),
        direction=(places % 3).astype(np.float32),
        ending=np.ones(30, dtype=np.bool_),
        reliability=np.ones(30, dtype=np.float32),
        width=300,
        height=300,
        position=FingerPosition.RIGHT_INDEX,
        quality=50,
    )
    form = encounter_form([template])
    compare_encounters(form, form)
    gallery = FingerprintGallery()
    # Beyond a shortlist of subjects, a search votes.
    for key in range(MOST_CANDIDATES + 1):
        gallery.add(key, key, form)
    gallery.search(form)


def _found(record: T | None, kind: str, name: str) -> T:
    if record is None:
        raise NotFound(kind, name)
    return record


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(10)}"


def _label(seq: int, subject_key: int | None) -> int:
    """How the index groups an encounter: by subject, a held one by itself."""
    return -seq if subject_key is None else subject_key


def _claimed(reader: Reader, subject_id: str | None, nik: str | None) -> SubjectRecord:
    if subject_id is not None:
        return _found(reader.subject(subject_id), "subject", subject_id)
    parsed = parse_nik(nik or "")
    return _found(reader.subject_by_nik(parsed.digits), "subject with NIK", parsed.masked)


def _is(person: Person, subject: SubjectRecord | None) -> bool:
    return subject is not None and person.subject_id == subject.subject_id


def _require_every_finger(presented: Sequence[FingerPosition], declared: Sequence[Missing]) -> None:
    """Every finger is presented or declared missing, and none both."""
    known = [position for position in presented if position]
    unknown = len(presented) - len(known)
    missing = [m.position for m in declared]
    if both := sorted(set(known) & set(missing)):
        raise InvalidRequest([("missing", f"presented and declared missing: {_words(both)}")])
    absent = sorted(_ALL_FINGERS - set(known) - set(missing))
    if len(absent) > unknown:
        raise InvalidRequest([("samples", f"neither presented nor declared missing: {_words(absent)}")])
    if len(absent) < unknown:
        raise InvalidRequest(
            [("missing", f"{unknown} fingers of unknown position cannot all be missing ones")]
        )


def _require_one_of_each(presented: Sequence[FingerPosition]) -> None:
    """No finger twice, also where templates tell the positions."""
    known = [position for position in presented if position]
    if twice := sorted({position for position in known if known.count(position) > 1}):
        raise InvalidRequest([("samples", f"presented more than once: {_words(twice)}")])


def _words(positions: Iterable[FingerPosition]) -> str:
    return ", ".join(position.words for position in positions)


@contextmanager
def _at_sample(place: int) -> Iterator[None]:
    """Say which sample a refusal is about."""
    try:
        yield
    except (ImageRefused, TemplateRefused) as error:
        raise InvalidRequest([(f"samples[{place}]", str(error))]) from error


def _poor(captured: _Captured) -> RecaptureItem:
    quality = captured.quality
    if quality is not None and quality.feedback:
        advice = quality.feedback[0].advice
    else:
        advice = Feedback.TOO_FEW_MINUTIAE.advice
    return RecaptureItem(captured.position, quality, None, advice)


def _twice(first: FingerPosition, second: FingerPosition) -> RecaptureItem:
    advice = f"The {first.words} and the {second.words} are the same finger: capture both again."
    return RecaptureItem(first, None, second, advice)


def _form_of(captured: Sequence[_Captured]) -> EncounterForm:
    """The form of whatever gave a template: a search records nothing, so poor samples may help."""
    return encounter_form([c.template for c in captured if c.template is not None])


def _qualities(captured: Sequence[_Captured]) -> tuple[tuple[FingerPosition, Quality], ...]:
    return tuple((c.position, c.quality) for c in captured if c.quality is not None)


def _match(llr: float, match: float, review: float) -> Match:
    if llr >= match:
        return Match.YES
    return Match.UNCERTAIN if llr >= review else Match.NO


def _persons(reader: Reader, compared: Mapping[int, EncounterComparison]) -> tuple[Person, ...]:
    """Whom the compared encounters belong to now, each by its best, by falling likelihood ratio."""
    best: dict[int, Person] = {}
    for seq, comparison in sorted(compared.items()):
        encounter = reader.encounter_by_seq(seq)
        if encounter is None or not encounter.state.searchable:
            continue
        nik = encounter.nik
        if encounter.subject_key is not None:
            subject = reader.subject_by_key(encounter.subject_key)
            nik = nik if subject is None else subject.nik
        label = _label(seq, encounter.subject_key)
        if label not in best or _telling(comparison) > _telling(best[label].comparison):
            held = encounter.state is EncounterState.HELD
            best[label] = Person(encounter.subject_id, encounter.encounter_id, nik, held, comparison)
    return tuple(sorted(best.values(), key=lambda p: (-p.comparison.llr, p.held, p.encounter_id)))


def _telling(comparison: EncounterComparison) -> tuple[bool, float]:
    """A comparison that had fingers to compare tells more than one that had none."""
    return bool(comparison.shares), comparison.llr


def _candidate(person: Person, own: SubjectRecord | None) -> Candidate:
    comparison = person.comparison
    return Candidate(
        llr=comparison.llr,
        own=_is(person, own),
        held=person.held,
        agreeing=comparison.agreeing,
        denied=comparison.denied,
    )


def _comparable(persons: Sequence[Person], own: SubjectRecord | None) -> bool:
    """Whether the claimed subject, where there is one, has any finger in common with the encounter."""
    return own is None or any(_is(p, own) and p.comparison.shares for p in persons)


def _shown(persons: Sequence[Person], own: SubjectRecord | None, review: float) -> tuple[Person, ...]:
    """The candidates kept as evidence: the best few, whoever is suspected, always the claimed subject."""
    return tuple(
        person
        for rank, person in enumerate(persons)
        if rank < _ALWAYS_SHOWN
        or _is(person, own)
        or (person.comparison.llr >= review and rank < MOST_CANDIDATES - 1)
    )


def _notices(persons: Sequence[Person], thresholds: Thresholds) -> tuple[Reason, ...]:
    """What an operator should notice about the best candidate besides the decision."""
    if not persons or persons[0].comparison.llr < thresholds.review:
        return ()
    notice = {
        Arrangement.AS_DECLARED: (),
        Arrangement.HANDS_SWAPPED: (Reason.HANDS_SWAPPED,),
        Arrangement.REARRANGED: (Reason.POSITIONS_DIFFER,),
    }
    return notice[persons[0].comparison.arrangement]


def _likely(reader: Reader, evidence: Evidence) -> str:
    """The one enrolled subject a case's evidence points to, as things stand now."""
    likely = {
        encounter.subject_id
        for person in evidence.candidates
        if person.comparison.llr >= evidence.review_llr
        and (encounter := reader.encounter(person.encounter_id)) is not None
        and encounter.subject_id is not None
    }
    if len(likely) != 1:
        raise WrongState(
            f"{len(likely) or 'no'} enrolled candidates of this case are likely: name the subject it is"
        )
    return likely.pop()


def _finger(position: Position) -> FingerPosition:
    return position if isinstance(position, FingerPosition) else FingerPosition.UNKNOWN


def _finger_record(captured: _Captured, *, keep_image: bool) -> SampleRecord:
    template = captured.template
    if template is None:  # refused before; recorded encounters have every template
        raise AssertionError("a finger without template was to be recorded")
    return SampleRecord(
        position=captured.position,
        template=template.to_bytes(),
        quality=template.quality,
        image=captured.presented.image if keep_image else None,
        image_format=captured.image_format if keep_image else None,
    )


def _recorded(reader: Reader, encounter: EncounterRecord) -> Recorded:
    case = reader.case_of(encounter.encounter_id)
    return Recorded(
        encounter_id=encounter.encounter_id,
        subject_id=encounter.subject_id,
        nik=encounter.nik,
        decision=encounter.decision,
        reasons=encounter.reasons,
        state=encounter.state,
        created_at=encounter.created_at,
        fingers=tuple(
            RecordedFinger(
                _finger(f.position),
                f.quality,
                len(FingerprintTemplate.from_bytes(f.template)),
                f.image_format is not None,
            )
            for f in encounter.samples
        ),
        missing=tuple(Missing(_finger(m.position), MissingReason(m.reason)) for m in encounter.missing),
        evidence=_EVIDENCE.validate_json(encounter.evidence),
        case_id=None if case is None else case.case_id,
    )


def _stored_sample(encounter: EncounterRecord, finger: SampleRecord) -> StoredSample:
    return StoredSample(
        encounter.encounter_id, _finger(finger.position), finger.template, finger.image, finger.quality
    )
