"""Enrol, add, verify, identify, delete, resolve: what the service does, free of gRPC.

The way of an encounter, in `Workflow._record`: capture -> recapture? -> finger or eye twice? -> search ->
(one writer) compare with whoever was committed since -> decide -> commit -> index -> acknowledge.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from capture.decode import check_signature
from capture.errors import ImageRefused
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.quality import Feedback, Quality
from capture.sample import EyePosition, FingerPosition, Modality
from matching.decision import Reason, Thresholds, candidate_of, decide, matches, notices
from matching.encounter import (
    EncounterComparison,
    EncounterForm,
    beside,
    compare_encounters,
    encounter_form,
    enough_evidence,
    same_eye_twice,
    same_finger_twice,
)
from matching.errors import NotCalibrated
from matching.gallery import Gallery
from matching.gallery import Sizes as IndexSizes
from matching.wanted import while_wanted
from rekam.admission import Gate, calls_at_once
from rekam.backup import BackedUp, Backups
from rekam.capturing import Captured, Capturing, Check, form_of, require_complete
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
    Person,
    Presentation,
    Presented,
    Recapture,
    RecaptureItem,
    Recorded,
    Verified,
)
from rekam.index import Index, Progress, label_of
from rekam.metrics import Metrics, Sizes, Stage
from rekam.nik import NikWarning, parse_nik
from rekam.position import Position
from rekam.recorded import (
    EVIDENCE,
    missing_records,
    recorded,
    sample_record,
    signature_record,
    stored_sample,
)
from rekam.store import (
    CaseRecord,
    CaseState,
    ChangeKind,
    Counts,
    EncounterRecord,
    EncounterState,
    Reader,
    Resolution,
    SignatureRecord,
    Store,
    SubjectRecord,
    Transaction,
)

A = TypeVar("A")
T = TypeVar("T")

MOST_CANDIDATES = 20
_ALWAYS_SHOWN = 3
_POLL_SECONDS = 0.05
_PLURAL = {Modality.FINGERPRINT: "fingers", Modality.IRIS: "irises"}
_RECORDED: TypeAdapter[Recorded] = TypeAdapter(Recorded)
_ERASED = TypeAdapter(Erased)
_CASE = TypeAdapter(CaseRecord)


def no_deadline() -> None:
    """Never raises: the caller waits as long as it takes."""


class Whose(Protocol):
    """Reads whose encounter is claimed: the NIK, and its subject where it has one."""

    def __call__(self, reader: Reader) -> tuple[str, SubjectRecord | None]:
        """NIK and subject, as the reader sees them now."""


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    """What a request id was given for, and how its answer is written."""

    request_id: str
    method: str
    digest: bytes
    adapter: TypeAdapter[T]

    def answered(self, reader: Reader) -> T | None:
        """The answer it got before. Raises `RequestConflict` where the id was used for something else."""
        before = reader.request(self.request_id)
        if before is None:
            return None
        if (before.method, before.digest) != (self.method, self.digest):
            raise RequestConflict(self.request_id)
        return self.adapter.validate_json(before.response)


@dataclass(frozen=True, slots=True, eq=False)
class _Searched:
    """An encounter that was captured and searched; `at` is the watermark of the index it was searched in."""

    captured: tuple[Captured, ...]
    form: EncounterForm
    compared: dict[int, EncounterComparison]
    at: int


class Workflow:
    """Owns store, gallery and extraction pool; every method is thread-safe.

    Methods raise the trees of `rekam.errors` and `capture.errors`; outcomes (duplicate, recapture, no
    match) are returned. Nothing is returned as recorded before it is durable and searchable.
    """

    def __init__(
        self, settings: Settings, progress: Progress | None = None, metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self.metrics = Metrics() if metrics is None else metrics
        self._capturing = Capturing(settings, self.metrics)
        self._computing = Gate(calls_at_once(settings.workers))
        _warm_up()
        self._store = Store.open(settings.data_dir, settings.database_url)
        self._index = Index(self._store, settings, progress)
        self._backups = Backups(self._store, settings.backup_dir, self._index.copy_to)
        self._running: dict[str, tuple[str, bytes, Future[object]]] = {}
        self._running_lock = threading.Lock()
        self._commits = GroupCommit(self._store, self._index.follow, settings.max_batch, self.metrics)

    def close(self) -> None:
        """Finish what was accepted, save the index, release the store; what was erased leaves the disk."""
        self._commits.close()
        self._capturing.close()
        try:
            self._index.save()
        finally:
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
            required = self._settings.required_modalities
            require_complete(presentation, [s.position for s in presentation.samples], required)
            with self._store.read() as reader:
                whose(reader)
            _require_signature(presentation)
            with self._turn(check):
                captured = self._captured(presentation.samples, check)
                # Once more: templates may tell positions that the samples did not.
                require_complete(presentation, [c.position for c in captured], required)
                if poor := tuple(_poor(c) for c in captured if c.refused):
                    return self._recapture(poor)
                form = form_of([c.template for c in captured])
                twice = [_twice(a, b) for a, b, _ in same_finger_twice(form)]
                twice += [_twice(a, b) for a, b, _ in same_eye_twice(form)]
                if twice:
                    return self._recapture(tuple(twice))
                check()
                watermark = self._index.gallery.watermark
                with self.metrics.stage(Stage.SEARCH), while_wanted(check):
                    compared = {match.key: match.comparison for match in self._index.gallery.search(form)}
            # The turn of the next has come while this one waits for the disk.
            made = self._commit(request, settle(_Searched(captured, form, compared, watermark)), check)
            self.metrics.decisions.labels(made.decision.name).inc()
            return made

        def settle(searched: _Searched) -> Callable[[Transaction], Recorded]:
            return lambda t: self._settle(t, presentation, searched, whose, warnings)

        request = _Request(presentation.request_id, method, presentation.digest, _RECORDED)
        return self._once(request, produce, check)

    @contextmanager
    def _turn(self, check: Check) -> Iterator[None]:
        """Few extract and search at a time; the rest wait for their turn, and never start if nobody waits."""
        with self.metrics.stage(Stage.QUEUE):
            self._computing.enter(1, check)
        try:
            yield
        finally:
            self._computing.leave(1)

    def _captured(self, samples: Sequence[Presented], check: Check) -> tuple[Captured, ...]:
        with self.metrics.stage(Stage.CAPTURE):
            return self._capturing.capture(samples, check)

    def _recapture(self, items: tuple[RecaptureItem, ...]) -> Recapture:
        self.metrics.recaptures.inc()
        return Recapture(items)

    def _commit(self, request: _Request[T], work: Callable[[Transaction], T], check: Check) -> T:
        """Do the work and keep its answer, in the one writing thread, in one transaction."""

        def kept(t: Transaction) -> T:
            # A try whose connection broke in the commit may have been kept after all, unseen until now.
            if (answered := request.answered(t)) is not None:
                return answered
            answer = work(t)
            t.remember(request.request_id, request.method, request.digest, request.adapter.dump_json(answer))
            return answer

        with self.metrics.stage(Stage.COMMIT):
            return self._commits.submit(kept, check)

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
            late |= set(self._index.gallery.subject_keys(own.key))
        compared = searched.compared | self._index.compared(t, searched.form, late - searched.compared.keys())

        # 2. What those encounters are by now: deleted and rejected ones accuse nobody.
        persons = _persons(t, compared)
        thresholds = self._thresholds(own)
        decision, reasons = decide(
            nik_known=own is not None,
            candidates=[candidate_of(p.comparison, own=_is(p, own), held=p.held) for p in persons],
            thresholds=thresholds,
            enough_evidence=enough_evidence(searched.form, thresholds.review) and _comparable(persons, own),
        )
        evidence = Evidence(
            candidates=_shown(persons, own, thresholds.review),
            match_llr=thresholds.match,
            review_llr=thresholds.review,
            verify_llr=thresholds.verify,
            gallery_encounters=len(self._index.gallery),
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
            reasons=(*reasons, *(n for n in _notices(persons, thresholds) if n not in reasons)),
            state=EncounterState.ENROLLED if decision.enrolled else EncounterState.HELD,
            request_id=presentation.request_id,
            created_at=now,
            samples=[sample_record(c, keep_image=self._settings.keep_images) for c in searched.captured],
            missing=missing_records(presentation),
            evidence=EVIDENCE.dump_json(evidence),
            signed=signature_record(presentation),
        )
        if not decision.enrolled:
            t.add_case(_new_id("c"), encounter_id, now)
        self._index.expect(seq, searched.form)
        return recorded(t, _found(t.encounter(encounter_id), "encounter", encounter_id))

    def delete_subject(
        self, subject_id: str, request_id: str, digest: bytes, check: Check = no_deadline
    ) -> Erased:
        """Erase a subject with all its encounters, templates and images; durable when it returns."""

        def work(t: Transaction) -> Erased:
            gone = t.delete_subject(subject_id, deleted_at=datetime.now(UTC))
            return Erased(len(gone.encounters))

        request = _Request(request_id, "DeleteSubject", digest, _ERASED)
        return self._once(request, lambda: self._commit(request, work, check), check)

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
            return _found(t.case(case_id), "case", case_id)

        request = _Request(request_id, "ResolveCase", digest, _CASE)
        return self._once(request, lambda: self._commit(request, work, check), check)

    def _resolved_to(
        self, t: Transaction, held: EncounterRecord, resolution: Resolution, subject_id: str | None
    ) -> SubjectRecord | None:
        """The subject a held encounter goes to: None for a new one, or where it is rejected.

        Nobody's samples get into another's subject: where there are fingers or eyes to compare, they must
        not deny it.
        """
        if resolution is Resolution.REJECTED:
            return None
        evidence = EVIDENCE.validate_json(held.evidence)
        if resolution is Resolution.DIFFERENT_PEOPLE:
            subject = t.subject_by_nik(held.nik)
            if subject is None:
                return None
            if not evidence.nik_known:
                raise WrongState("the NIK was enrolled after this case was opened: compare the two first")
        else:
            subject = _found(t.subject(subject_id or _likely(t, evidence)), "subject", subject_id or "")
        form = _found(self._index.form(t, held.seq), "encounter", held.encounter_id)
        keys = self._index.gallery.subject_keys(subject.key)
        try:
            compared = self._index.compared(t, form, keys)
        except NotCalibrated:
            # Both faces are a former network's, and what its scores were worth is not known any more.
            compared = self._index.compared(t, replace(form, face=None), keys)
        best = max(compared.values(), key=_telling, default=None)
        if best is None:
            return subject
        if best.comparable and _suspicion(best) < self._thresholds(subject).verify_review:
            raise WrongState(
                f"the biometrics are not those of subject {subject.subject_id} (LLR {best.llr:.1f}): "
                "reject the case, or resolve it as the same person as another subject"
            )
        for modality in _told_of_others(best, compared.values()).conflict:
            if modality is not Modality.FACE:
                raise WrongState(
                    f"the {_PLURAL[modality]} are not those of subject {subject.subject_id}, whatever else "
                    "matches: reject the case and capture again"
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
        search = self._index.gallery.search_exhaustively if exhaustive else self._index.gallery.search
        with self._turn(check):
            captured = self._captured(samples, check)
            # A search records nothing, so whatever gave a template may help.
            form = form_of([c.template for c in captured])
            check()
            with self.metrics.stage(Stage.SEARCH), while_wanted(check):
                compared = {match.key: match.comparison for match in search(form, exclude=excluded)}
        with self._store.read() as reader:
            persons = [p for p in _persons(reader, compared) if p.comparison.anything][:MOST_CANDIDATES]
        thresholds = self._thresholds()
        return Identified(
            candidates=tuple(persons),
            match=identity([p.comparison for p in persons], thresholds),
            match_llr=thresholds.match,
            review_llr=thresholds.review,
            gallery_encounters=len(self._index.gallery),
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
        with self._turn(check):
            captured = self._captured(samples, check)
            # A search records nothing, so whatever gave a template may help.
            form = form_of([c.template for c in captured])
        check()
        with self._store.read() as reader:
            compared = self._index.compared(reader, form, self._index.gallery.subject_keys(subject.key))
            persons = [p for p in _persons(reader, compared) if _is(p, subject)]
        if not persons:
            raise NotFound("subject", subject.subject_id)
        thresholds = self._thresholds(subject)
        return Verified(
            match=_claim_holds(persons[0].comparison, thresholds),
            candidate=persons[0],
            verify_llr=thresholds.verify,
            qualities=_qualities(captured),
        )

    def assess(self, presented: Presented, check: Check = no_deadline) -> Assessed:
        """Judge one image; records nothing."""
        with self._turn(check), self.metrics.stage(Stage.CAPTURE):
            return self._capturing.assess(presented, check)

    def encounter(self, encounter_id: str) -> Recorded:
        """A recorded encounter as it stands now."""
        with self._store.read() as reader:
            return recorded(reader, _found(reader.encounter(encounter_id), "encounter", encounter_id))

    def signature(self, encounter_id: str) -> SignatureRecord | None:
        """The signature that was sent with an encounter, or why none was; None where nothing was said."""
        with self._store.read() as reader:
            return reader.signature(encounter_id)

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
            shown = recorded(reader, held)
            both: list[EncounterRecord] = []
            if samples:
                best = [p.encounter_id for p in shown.evidence.candidates[:1]]
                both = [held, *filter(None, (reader.encounter(e, images=True) for e in best))]
        return CaseFile(case, shown, tuple(stored_sample(e, s) for e in both for s in e.samples))

    def sizes(self) -> Sizes:
        """How large gallery and database are. Cheap."""
        gallery = self._index.gallery
        with self._store.read() as reader:
            return Sizes(len(gallery), reader.last_change() - gallery.watermark, reader.database_bytes())

    def stats(self) -> tuple[Counts, int, int]:
        """Counts of the store, its last change, and the last change the index holds."""
        with self._store.read() as reader:
            return reader.counts(), reader.last_change(), self._index.gallery.watermark

    def index_sizes(self) -> IndexSizes:
        """How many bytes the index holds, by modality."""
        return self._index.gallery.sizes()

    def back_up(self, name: str, check: Check = no_deadline) -> BackedUp:
        """Make a backup of all records while others read and write."""
        return self._backups.make(name, check)

    # Once per request id --------------------------------------------------------------------------

    def _once(self, request: _Request[T], produce: Callable[[], A], check: Check) -> T | A:
        """Produce an answer once per request id: a repetition gets the first one, also while it is made."""
        what = request.method, request.digest
        mine: Future[object] = Future()
        while True:
            with self._running_lock:
                *other, first = self._running.setdefault(request.request_id, (*what, mine))
            if first is mine:
                break
            if tuple(other) != what:
                # The other may be about to learn that the id is this one's.
                if (answered := self._answered(request)) is not None:
                    return answered
                raise RequestConflict(request.request_id)
            while not wait_for([first], timeout=_POLL_SECONDS).done:
                check()
            if first.exception() is None:
                return first.result()  # type: ignore[return-value]  # same method, hence same type
            # The first try failed; this one takes its place.
        try:
            # Outside the lock: a slow database holds up nobody with another id.
            answered = self._answered(request)
            answer = produce() if answered is None else answered
            mine.set_result(answer)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._running_lock:
                del self._running[request.request_id]
        return answer

    def _answered(self, request: _Request[T]) -> T | None:
        with self._store.read() as reader:
            return request.answered(reader)

    def _thresholds(self, claimed: SubjectRecord | None = None) -> Thresholds:
        own = () if claimed is None else self._index.gallery.subject_keys(claimed.key)
        return Thresholds.for_gallery(
            len(self._index.gallery),
            own=len(own),
            fpir_match=self._settings.fpir_match,
            fpir_review=self._settings.fpir_review,
            fmr_verify=self._settings.fmr_verify,
        )


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
    words = np.arange(2 * GROUP_WORDS, dtype=np.uint64)
    iris = IrisTemplate(words, np.full(len(words), 2**64 - 1, dtype=np.uint64), EyePosition.RIGHT, quality=50)
    form = encounter_form([template], [iris])
    compare_encounters(form, form)
    gallery = Gallery()
    # Beyond a shortlist of subjects, a search scans codes.
    for key in range(MOST_CANDIDATES + 1):
        gallery.add(key, key, form)
    gallery.search(form)


def _found(record: T | None, kind: str, name: str) -> T:
    if record is None:
        raise NotFound(kind, name)
    return record


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(10)}"


def _claimed(reader: Reader, subject_id: str | None, nik: str | None) -> SubjectRecord:
    if subject_id is not None:
        return _found(reader.subject(subject_id), "subject", subject_id)
    parsed = parse_nik(nik or "")
    return _found(reader.subject_by_nik(parsed.digits), "subject with NIK", parsed.masked)


def _is(person: Person, subject: SubjectRecord | None) -> bool:
    return subject is not None and person.subject_id == subject.subject_id


def _require_signature(presentation: Presentation) -> None:
    """A signature is an image, or declared missing, or neither. Raises `InvalidRequest`."""
    if presentation.signature is None:
        return
    if presentation.missing_signature is not None:
        raise InvalidRequest([("missing_signature", "presented and declared missing: the signature")])
    try:
        check_signature(presentation.signature)
    except ImageRefused as error:
        raise InvalidRequest([("signature", str(error))]) from error


def _poor(captured: Captured) -> RecaptureItem:
    quality = captured.quality
    if quality is not None and quality.feedback:
        advice = quality.feedback[0].advice
    else:
        advice = Feedback.TOO_FEW_MINUTIAE.advice
    return RecaptureItem(captured.position, quality, None, advice)


def _twice(first: FingerPosition | EyePosition, second: FingerPosition | EyePosition) -> RecaptureItem:
    what = "finger" if isinstance(first, FingerPosition) else "eye"
    advice = f"The {first.words} and the {second.words} are the same {what}: capture both again."
    return RecaptureItem(first, None, second, advice)


def _qualities(captured: Sequence[Captured]) -> tuple[tuple[Position, Quality], ...]:
    return tuple((c.position, c.quality) for c in captured if c.quality is not None)


def identity(candidates: Sequence[EncounterComparison], thresholds: Thresholds) -> Match:
    """Verdict of a search for whichever candidate says most: no match by the face alone."""
    if any(matches(candidate_of(one), thresholds) for one in candidates):
        return Match.YES
    suspected = any(_suspicion(one) >= thresholds.review for one in candidates)
    return Match.UNCERTAIN if suspected else Match.NO


def _claim_holds(compared: EncounterComparison, thresholds: Thresholds) -> Match:
    """Verdict of a 1:1 comparison."""
    if compared.llr >= thresholds.verify and not compared.conflict:
        return Match.YES
    return Match.UNCERTAIN if _suspicion(compared) >= thresholds.verify_review else Match.NO


def _suspicion(comparison: EncounterComparison) -> float:
    """What may be the case: a face adds to it, and clears nobody whom fingers and eyes suspect."""
    return max(comparison.llr, comparison.without_face)


def _persons(reader: Reader, compared: Mapping[int, EncounterComparison]) -> tuple[Person, ...]:
    """Whom the compared encounters belong to now, each by its best, by falling likelihood ratio."""
    of: dict[int, list[Person]] = {}
    for seq, comparison in sorted(compared.items()):
        encounter = reader.encounter_by_seq(seq)
        if encounter is None or not encounter.state.searchable:
            continue
        nik = encounter.nik
        if encounter.subject_key is not None:
            subject = reader.subject_by_key(encounter.subject_key)
            nik = nik if subject is None else subject.nik
        label = label_of(seq, encounter.subject_key)
        held = encounter.state is EncounterState.HELD
        person = Person(encounter.subject_id, encounter.encounter_id, nik, held, comparison)
        of.setdefault(label, []).append(person)
    best: list[Person] = []
    for persons in of.values():
        first = max(persons, key=lambda p: _telling(p.comparison))
        told = _told_of_others(first.comparison, [p.comparison for p in persons])
        best.append(replace(first, comparison=told))
    return tuple(sorted(best, key=lambda p: (-p.comparison.llr, p.held, p.encounter_id)))


def _told_of_others(best: EncounterComparison, own: Iterable[EncounterComparison]) -> EncounterComparison:
    """The best comparison with a subject, told what those with its other encounters deny."""
    return beside(best, [one for one in own if one is not best])


def _telling(comparison: EncounterComparison) -> tuple[bool, float]:
    """A comparison that had fingers or eyes to compare tells more than one that had none."""
    return comparison.comparable, comparison.llr


def _comparable(persons: Sequence[Person], own: SubjectRecord | None) -> bool:
    """Whether the claimed subject, where there is one, has a finger or an eye in common with it."""
    return own is None or any(_is(p, own) and p.comparison.comparable for p in persons)


def _shown(persons: Sequence[Person], own: SubjectRecord | None, review: float) -> tuple[Person, ...]:
    """The candidates kept as evidence: the best few, whoever is suspected, always the claimed subject.

    Whoever has nothing in common with the encounter is no candidate.
    """
    return tuple(
        person
        for rank, person in enumerate(p for p in persons if p.comparison.anything or _is(p, own))
        if rank < _ALWAYS_SHOWN
        or _is(person, own)
        or (rank < MOST_CANDIDATES - 1 and _suspicion(person.comparison) >= review)
    )


def _notices(persons: Sequence[Person], thresholds: Thresholds) -> tuple[Reason, ...]:
    """What an operator should notice about the best candidate besides the decision."""
    if not persons or max(persons[0].comparison.llr, persons[0].comparison.agreeing) < thresholds.review:
        return ()
    return notices(persons[0].comparison)


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
