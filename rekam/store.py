"""Records: the truth from which every search index is derived.

They lie in SQLite, in the data folder, or in PostgreSQL (`rekam.database`). One process owns a data folder (a
lock file says whose it is) and the database. Writing: `with store.transaction() as t`, one at a time, durable
when the block ends. Reading: from any thread at any time, each call sees one consistent state.

The change log is what indexes follow: `add` when an encounter becomes searchable (enrolled or held), `remove`
when it stops being so, both, in this order, when it changes subject. An index's watermark is the number of
the last change it applied.
"""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from sqlalchemy import (
    Connection,
    Delete,
    Row,
    Select,
    Table,
    Update,
    delete,
    func,
    insert,
    null,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from capture.sample import EyePosition, FingerPosition, Modality
from matching.arrays import synced
from matching.decision import Decision, Reason
from rekam.database import Database, faults, migrate
from rekam.errors import (
    NotFound,
    RekamError,
    RequestConflict,
    StoreError,
    StoreFull,
    StoreLocked,
    WrongState,
)
from rekam.position import Position, modality_of
from rekam.schema import (
    cases,
    change,
    encounter,
    missing_sample,
    opening,
    request,
    sample,
    sample_image,
    signature,
    subject,
    tombstone,
)
from rekam.sqlite import Sqlite

DATABASE = "rekam.sqlite"
LOCK = "rekam.lock"
_ERASE_AGAIN_SECONDS = 30.0
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class EncounterState(StrEnum):
    """Where an encounter stands: of a subject, waiting for an operator, or refused by one."""

    ENROLLED = "enrolled"
    HELD = "held"
    REJECTED = "rejected"

    @property
    def searchable(self) -> bool:
        """Whether searches meet it: a held one too, so that a second attempt is noticed."""
        return self is not EncounterState.REJECTED


class CaseState(StrEnum):
    """Whether a case still waits for an operator."""

    OPEN = "open"
    RESOLVED = "resolved"


class Resolution(StrEnum):
    """What an operator found.

    DIFFERENT_PEOPLE: the held encounter is enrolled under its own NIK. SAME_PERSON: it joins the matched
    subject, the claimed NIK is not created. REJECTED: its biometrics are erased, the fact stays on record.
    """

    DIFFERENT_PEOPLE = "different_people"
    SAME_PERSON = "same_person"
    REJECTED = "rejected"


class ChangeKind(StrEnum):
    """What an index does with an encounter."""

    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample of an encounter. `quality` 0-100; `image` as it came in, where kept and asked for."""

    position: Position
    template: bytes = field(repr=False)
    quality: int
    image: bytes | None = field(default=None, repr=False)
    image_format: str | None = None


@dataclass(frozen=True, slots=True)
class MissingRecord:
    """A finger, an eye or a face declared missing, and why."""

    position: Position
    reason: str


@dataclass(frozen=True, slots=True)
class SignatureRecord:
    """The signature as it was sent, or else the reason why it was declared missing."""

    image: bytes | None = field(default=None, repr=False)
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class EncounterRecord:
    """One recording event. `subject_key` and `subject_id` are set exactly when it is enrolled.

    `nik` is the claimed one, also after the encounter joined a subject with another. `evidence` is the
    workflow's own encoding of the decision's evidence and holds no biometric data.
    """

    seq: int
    encounter_id: str
    subject_key: int | None
    subject_id: str | None
    nik: str = field(repr=False)
    decision: Decision
    reasons: tuple[Reason, ...]
    state: EncounterState
    request_id: str
    created_at: datetime
    samples: tuple[SampleRecord, ...]
    missing: tuple[MissingRecord, ...]
    evidence: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SubjectRecord:
    """A person in the gallery, with the ids of the encounters, oldest first. Keys are never reused."""

    key: int
    subject_id: str
    nik: str = field(repr=False)
    created_at: datetime
    encounters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """A held encounter that waits for an operator, or what was found; `subject_id`: resolved to whom."""

    case_id: str
    encounter_id: str
    nik: str = field(repr=False)
    decision: Decision
    state: CaseState
    opened_at: datetime
    resolution: Resolution | None
    operator: str | None
    comment: str | None
    resolved_at: datetime | None
    subject_id: str | None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The answer a request id got. `digest` tells a repetition from another payload under the same id."""

    request_id: str
    method: str
    digest: bytes
    response: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the change log. By the time it is read, the encounter may be gone: a later line says so."""

    seq: int
    kind: ChangeKind
    encounter_seq: int
    subject_key: int | None


@dataclass(frozen=True, slots=True)
class SearchableEncounter:
    """What an index needs of an encounter; `templates` in the order the encounter lists its samples."""

    seq: int
    encounter_id: str
    subject_key: int | None
    templates: tuple[tuple[Position, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the store holds; `database_bytes` with the write-ahead log."""

    subjects: int
    encounters: Mapping[EncounterState, int]
    open_cases: int
    samples: Mapping[Modality, int]
    database_bytes: int


class Reader:
    """Reads of one consistent state, over one connection of one thread."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self._connection = connection
        self._database = database

    def encounter(self, encounter_id: str, *, images: bool = False) -> EncounterRecord | None:
        """The encounter, or None. Images are read only when asked for; `image_format` tells of one anyway."""
        return self._encounter(_ENCOUNTERS.where(encounter.c.encounter_id == encounter_id), images)

    def encounter_by_seq(self, seq: int, *, images: bool = False) -> EncounterRecord | None:
        """The encounter with this number, or None."""
        return self._encounter(_ENCOUNTERS.where(encounter.c.seq == seq), images)

    def signature(self, encounter_id: str) -> SignatureRecord | None:
        """The signature kept with the encounter, or why there is none; None where nothing was said."""
        kept = select(signature.c.image, signature.c.missing).join(encounter)
        rows = self._rows(kept.where(encounter.c.encounter_id == encounter_id))
        return _first(SignatureRecord(row.image, row.missing) for row in rows)

    def subject(self, subject_id: str) -> SubjectRecord | None:
        """The live subject, or None."""
        return _first(self._subjects(select(subject).where(subject.c.subject_id == subject_id)))

    def subject_by_nik(self, nik: str) -> SubjectRecord | None:
        """The live subject that has this NIK, or None."""
        return _first(self._subjects(select(subject).where(subject.c.nik == nik)))

    def subject_by_key(self, key: int) -> SubjectRecord | None:
        """The live subject with this key, or None."""
        return _first(self._subjects(select(subject).where(subject.c.key == key)))

    def subjects(self, after: str | None, limit: int) -> tuple[SubjectRecord, ...]:
        """Up to `limit` subjects by rising `subject_id`, beginning after `after`.

        Stable while subjects come and go: nobody who stays is left out or shown twice.
        """
        page = select(subject).order_by(subject.c.subject_id).limit(limit)
        return self._subjects(page if after is None else page.where(subject.c.subject_id > after))

    def case(self, case_id: str) -> CaseRecord | None:
        """The case, or None."""
        return _first(map(_case, self._rows(_CASES.where(cases.c.case_id == case_id))))

    def case_of(self, encounter_id: str) -> CaseRecord | None:
        """The case opened for this encounter, or None."""
        return _first(map(_case, self._rows(_CASES.where(cases.c.encounter_id == encounter_id))))

    def cases(self, state: CaseState | None, after: str | None, limit: int) -> tuple[CaseRecord, ...]:
        """Up to `limit` cases in that state (any where None), oldest first, beginning after the case `after`.

        Raises `NotFound` where `after` is no case.
        """
        page = _CASES.order_by(cases.c.number).limit(limit)
        if state is not None:
            page = page.where(cases.c.state == state)
        if after is not None:
            number = _first(self._rows(select(cases.c.number).where(cases.c.case_id == after)))
            if number is None:
                raise NotFound("case", after)
            page = page.where(cases.c.number > number[0])
        return tuple(map(_case, self._rows(page)))

    def request(self, request_id: str) -> RequestRecord | None:
        """What was answered to this request id, or None."""
        rows = self._rows(select(request).where(request.c.request_id == request_id))
        return _first(RequestRecord(row.request_id, row.method, row.digest, row.response) for row in rows)

    def last_change(self) -> int:
        """The number of the last change, 0 where there was none."""
        [[last]] = self._rows(select(func.max(change.c.seq)))
        return last or 0

    def continues(self, token: str, seq: int) -> bool:
        """Whether the process whose opening this is saw change `seq` of this very history.

        It saw what there was until the next opening. Restored copies have openings of their own.
        """
        opened = _first(self._rows(select(opening.c.number).where(opening.c.token == token)))
        if opened is None:
            return False
        later = select(func.min(opening.c.change_seq)).where(opening.c.number > opened[0])
        [[until]] = self._rows(later)
        return seq <= (self.last_change() if until is None else until)

    def changes(self, after: int, limit: int | None = None) -> tuple[Change, ...]:
        """The changes after number `after`, in order."""
        rows = self._rows(select(change).where(change.c.seq > after).order_by(change.c.seq).limit(limit))
        return tuple(
            Change(row.seq, ChangeKind(row.kind), row.encounter_seq, row.subject_key) for row in rows
        )

    def searchable(self, after_seq: int, limit: int) -> tuple[SearchableEncounter, ...]:
        """Up to `limit` enrolled and held encounters by rising number, beginning after `after_seq`."""
        page = (
            select(encounter.c.seq, encounter.c.encounter_id, encounter.c.subject_key)
            .where(encounter.c.seq > after_seq, encounter.c.state != EncounterState.REJECTED)
            .order_by(encounter.c.seq)
            .limit(limit)
        )
        rows = self._rows(page)
        if not rows:
            return ()
        templates: dict[int, list[tuple[Position, bytes]]] = {row.seq: [] for row in rows}
        columns = select(
            sample.c.encounter_seq, sample.c.modality, sample.c.position, sample.c.template
        ).where(sample.c.encounter_seq.between(rows[0].seq, rows[-1].seq))
        for row in self._rows(columns.order_by(sample.c.encounter_seq, sample.c.ordinal)):
            templates[row.encounter_seq].append((_position(row.modality, row.position), row.template))
        return tuple(
            SearchableEncounter(row.seq, row.encounter_id, row.subject_key, tuple(templates[row.seq]))
            for row in rows
        )

    def counts(self) -> Counts:
        """How much the store holds. Cost: walks the keys of all tables, about 10 ms at 100,000 samples."""
        states = dict.fromkeys(EncounterState, 0)
        for state, number in self._rows(select(encounter.c.state, func.count()).group_by(encounter.c.state)):
            states[EncounterState(state)] = number
        [[open_cases]] = self._rows(select(func.count()).where(cases.c.state == CaseState.OPEN))
        [[subjects]] = self._rows(select(func.count()).select_from(subject))
        samples = dict.fromkeys(Modality, 0)
        for modality, number in self._rows(
            select(sample.c.modality, func.count()).group_by(sample.c.modality)
        ):
            samples[Modality(modality)] = number
        return Counts(subjects, states, open_cases, samples, self.database_bytes())

    def database_bytes(self) -> int:
        """Size of the database on the disk."""
        with self._guard():
            return self._database.size(self._connection)

    def _encounter(self, statement: Select[*tuple[object, ...]], images: bool) -> EncounterRecord | None:
        row = _first(self._rows(statement))
        if row is None:
            return None
        of_encounter = select(
            sample.c.modality,
            sample.c.position,
            sample.c.template,
            sample.c.quality,
            sample_image.c.image if images else null().label("image"),
            sample.c.image_format,
        ).where(sample.c.encounter_seq == row.seq)
        if images:
            of_encounter = of_encounter.select_from(sample.outerjoin(sample_image))
        declared = (
            select(missing_sample.c.modality, missing_sample.c.position, missing_sample.c.reason)
            .where(missing_sample.c.encounter_seq == row.seq)
            .order_by(missing_sample.c.modality, missing_sample.c.position)
        )
        return EncounterRecord(
            seq=row.seq,
            encounter_id=row.encounter_id,
            subject_key=row.subject_key,
            subject_id=row.subject_id,
            nik=row.nik,
            decision=Decision(row.decision),
            reasons=tuple(Reason(word) for word in row.reasons.split()),
            state=EncounterState(row.state),
            request_id=row.request_id,
            created_at=row.created_at,
            samples=tuple(
                SampleRecord(
                    _position(s.modality, s.position), s.template, s.quality, s.image, s.image_format
                )
                for s in self._rows(of_encounter.order_by(sample.c.ordinal))
            ),
            missing=tuple(
                MissingRecord(_position(modality, position), reason)
                for modality, position, reason in self._rows(declared)
            ),
            evidence=row.evidence,
        )

    def _subjects(self, statement: Select[*tuple[object, ...]]) -> tuple[SubjectRecord, ...]:
        rows = self._rows(statement)
        encounters: dict[int, list[str]] = {row.key: [] for row in rows}
        of_subjects = select(encounter.c.subject_key, encounter.c.encounter_id).where(
            encounter.c.subject_key.in_(encounters)
        )
        for key, encounter_id in self._rows(of_subjects.order_by(encounter.c.seq)):
            encounters[key].append(encounter_id)
        return tuple(
            SubjectRecord(row.key, row.subject_id, row.nik, row.created_at, tuple(encounters[row.key]))
            for row in rows
        )

    def _rows(self, statement: Select[*_Ts]) -> Sequence[Row[*_Ts]]:
        with self._guard():
            return self._connection.execute(statement).all()

    def _guard(self) -> AbstractContextManager[None]:
        return faults(self._database)


class Transaction(Reader):
    """Writes, and reads that see them; all or nothing, except what a failed `savepoint` block undoes.

    After a refused write the block it was refused in, or the transaction, has to end.
    """

    def __init__(self, connection: Connection, database: Database) -> None:
        super().__init__(connection, database)
        self._fault: StoreError | None = None
        self._depth = 0
        self.erased = False

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A block whose writes are undone when it raises; the transaction goes on without them.

        A fault of the store itself (`StoreError`) ends the whole transaction, even if it is caught.
        """
        self._depth += 1
        name, erased = f"s{self._depth}", self.erased
        self._command(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            if self._fault is None:
                self._command(f"ROLLBACK TO {name}")
                self._command(f"RELEASE {name}")
                self.erased = erased
            raise
        else:
            self._command(f"RELEASE {name}")
        finally:
            self._depth -= 1

    def add_opening(self, token: str) -> None:
        """Note that a process opened the database."""
        self._insert(opening, {"token": token, "change_seq": self.last_change()})

    def add_subject(self, subject_id: str, nik: str, created_at: datetime) -> int:
        """A new subject; its key. Raises `WrongState` where a live subject has the NIK or the id."""
        [key] = self._insert(
            subject,
            {"subject_id": subject_id, "nik": nik, "created_at": created_at},
            lambda: WrongState("a subject with this NIK or id exists already"),
        )
        return key

    def add_encounter(
        self,
        *,
        encounter_id: str,
        subject_key: int | None,
        nik: str,
        decision: Decision,
        reasons: Sequence[Reason],
        state: EncounterState,
        request_id: str,
        created_at: datetime,
        samples: Sequence[SampleRecord],
        missing: Sequence[MissingRecord] = (),
        evidence: bytes = b"",
        signed: SignatureRecord | None = None,
    ) -> int:
        """A new encounter; its number, larger than any given before.

        `subject_key` is set exactly where `state` is ENROLLED. Raises `WrongState` where the id exists, the
        subject does not, or the two disagree.
        """
        [seq] = self._insert(
            encounter,
            {
                "encounter_id": encounter_id,
                "subject_key": subject_key,
                "nik": nik,
                "decision": decision,
                "reasons": " ".join(reasons),
                "state": state,
                "request_id": request_id,
                "created_at": created_at,
                "evidence": evidence,
            },
            lambda: WrongState(f"encounter {encounter_id} exists already, or its state and subject disagree"),
        )
        self._insert_many(
            sample,
            [
                {
                    "encounter_seq": seq,
                    "ordinal": ordinal,
                    "modality": modality_of(s.position),
                    "position": s.position or 0,
                    "quality": s.quality,
                    "template": s.template,
                    "image_format": s.image_format,
                }
                for ordinal, s in enumerate(samples)
            ],
        )
        self._insert_many(
            sample_image,
            [
                {"encounter_seq": seq, "ordinal": ordinal, "image": s.image}
                for ordinal, s in enumerate(samples)
                if s.image is not None
            ],
        )
        self._insert_many(
            missing_sample,
            [
                {
                    "encounter_seq": seq,
                    "modality": modality_of(m.position),
                    "position": m.position or 0,
                    "reason": m.reason,
                }
                for m in missing
            ],
        )
        if signed is not None:
            self._insert(signature, {"encounter_seq": seq, "image": signed.image, "missing": signed.missing})
        if state.searchable:
            self._record(ChangeKind.ADD, seq, subject_key)
        return seq

    def replace_templates(self, encounter_id: str, templates: Mapping[int, bytes]) -> None:
        """Give samples of an encounter, by their place in it, other templates of the same images.

        Indexes take the encounter anew; all else of it stays. Raises `NotFound`, and `WrongState` where its
        biometrics are erased.
        """
        before = self._existing(encounter_id)
        if not before.state.searchable:
            raise WrongState(f"encounter {encounter_id} is {before.state}")
        for ordinal, template in templates.items():
            self._write(
                update(sample)
                .where(sample.c.encounter_seq == before.seq, sample.c.ordinal == ordinal)
                .values(template=template)
            )
        self._record(ChangeKind.REMOVE, before.seq, before.subject_key)
        self._record(ChangeKind.ADD, before.seq, before.subject_key)

    def move_encounter(self, encounter_id: str, subject_key: int | None, state: EncounterState) -> None:
        """Give an encounter to a subject, to another one, or to none (then it is held).

        Raises `NotFound`, and `WrongState` where its biometrics are erased, or state and subject disagree.
        """
        before = self._existing(encounter_id)
        if not (before.state.searchable and state.searchable):
            raise WrongState(
                f"encounter {encounter_id} is {before.state}, it cannot become {state} by moving"
            )
        if (before.state, before.subject_key) == (state, subject_key):
            return
        self._write(
            update(encounter)
            .where(encounter.c.seq == before.seq)
            .values(subject_key=subject_key, state=state),
            lambda: WrongState(f"there is no such subject, or {state} disagrees with it"),
        )
        self._record(ChangeKind.REMOVE, before.seq, before.subject_key)
        self._record(ChangeKind.ADD, before.seq, subject_key)

    def reject_encounter(self, encounter_id: str) -> None:
        """Erase the templates, images and signature of a held encounter; the record of the attempt stays.

        Raises `NotFound`, and `WrongState` where it is not held.
        """
        before = self._existing(encounter_id)
        if before.state is not EncounterState.HELD:
            raise WrongState(f"encounter {encounter_id} is {before.state}, not held")
        self._erase(delete(sample).where(sample.c.encounter_seq == before.seq))
        # Why there is none is no biometric: it stays, as with fingers.
        of = signature.c.encounter_seq == before.seq
        self._erase(delete(signature).where(of, signature.c.image.is_not(None)))
        self._write(
            update(encounter).where(encounter.c.seq == before.seq).values(state=EncounterState.REJECTED)
        )
        self._record(ChangeKind.REMOVE, before.seq, None)

    def delete_subject(
        self, subject_id: str, *, deleted_at: datetime, operator: str = "", comment: str = ""
    ) -> SubjectRecord:
        """Erase a subject with all its encounters; what it was. A tombstone stays: the fact, no biometrics.

        A case still open on one of its encounters is closed as REJECTED. Cases of other, held encounters that
        matched it stay open: their encounters still wait. Raises `NotFound`.
        """
        gone = self.subject(subject_id)
        if gone is None:
            raise NotFound("subject", subject_id)
        for row in self._rows(select(encounter.c.seq).where(encounter.c.subject_key == gone.key)):
            self._record(ChangeKind.REMOVE, row.seq, gone.key)
        self._write(
            update(cases)
            .where(cases.c.encounter_id.in_(gone.encounters), cases.c.state == CaseState.OPEN)
            .values(
                state=CaseState.RESOLVED,
                resolution=Resolution.REJECTED,
                operator=operator,
                comment=comment,
                resolved_at=deleted_at,
            )
        )
        self._erase(delete(encounter).where(encounter.c.subject_key == gone.key))
        self._erase(delete(subject).where(subject.c.key == gone.key))
        self._insert(
            tombstone,
            {
                "key": gone.key,
                "subject_id": gone.subject_id,
                "nik": gone.nik,
                "encounter_ids": json.dumps(gone.encounters),
                "deleted_at": deleted_at,
                "operator": operator,
                "comment": comment,
            },
        )
        return gone

    def add_case(self, case_id: str, encounter_id: str, opened_at: datetime) -> None:
        """Open a case for a held encounter. Raises `NotFound`, `WrongState` where not held or with a case."""
        held = self._existing(encounter_id)
        if held.state is not EncounterState.HELD:
            raise WrongState(f"encounter {encounter_id} is {held.state}, not held")
        self._insert(
            cases,
            {
                "case_id": case_id,
                "encounter_id": encounter_id,
                "nik": held.nik,
                "decision": held.decision,
                "state": CaseState.OPEN,
                "opened_at": opened_at,
            },
            lambda: WrongState(f"encounter {encounter_id} has a case already"),
        )

    def resolve_case(
        self,
        case_id: str,
        resolution: Resolution,
        *,
        operator: str,
        comment: str,
        resolved_at: datetime,
        subject_id: str | None,
    ) -> None:
        """Record what an operator found; moving or rejecting the encounter is a step of its own.

        Raises `NotFound`, and `WrongState` where the case is resolved already.
        """
        before = self.case(case_id)
        if before is None:
            raise NotFound("case", case_id)
        if before.state is CaseState.RESOLVED:
            raise WrongState(f"case {case_id} is resolved already, as {before.resolution}")
        self._write(
            update(cases)
            .where(cases.c.case_id == case_id)
            .values(
                state=CaseState.RESOLVED,
                resolution=resolution,
                operator=operator,
                comment=comment,
                resolved_at=resolved_at,
                subject_id=subject_id,
            )
        )

    def remember(self, request_id: str, method: str, digest: bytes, response: bytes) -> None:
        """Keep the answer to a request. Raises `RequestConflict` where the id has one already."""
        self._insert(
            request,
            {"request_id": request_id, "method": method, "digest": digest, "response": response},
            lambda: RequestConflict(request_id),
        )

    def _existing(self, encounter_id: str) -> EncounterRecord:
        record = self.encounter(encounter_id)
        if record is None:
            raise NotFound("encounter", encounter_id)
        return record

    def _record(self, kind: ChangeKind, encounter_seq: int, subject_key: int | None) -> None:
        self._insert(change, {"kind": kind, "encounter_seq": encounter_seq, "subject_key": subject_key})

    def _erase(self, statement: Delete) -> None:
        self._write(statement)
        self.erased = True

    def _insert(
        self, table: Table, row: Mapping[str, object], conflict: Callable[[], RekamError] | None = None
    ) -> Sequence[int]:
        """Insert one row; its key, as one number. Values as parameters spare SQLAlchemy most of its work."""
        with self._guard(), _refused(conflict):
            return self._connection.execute(insert(table), row).inserted_primary_key or ()

    def _insert_many(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            refusal = WrongState(
                "a position is declared missing twice, or one, or a quality, is out of range"
            )
            with self._guard(), _refused(lambda: refusal):
                self._connection.execute(insert(table), rows)

    def _write(self, statement: Update | Delete, conflict: Callable[[], RekamError] | None = None) -> None:
        with self._guard(), _refused(conflict):
            self._connection.execute(statement)

    def _command(self, sql: str) -> None:
        with self._guard():
            self._connection.exec_driver_sql(sql)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        if self._fault is not None:
            raise self._fault
        try:
            with faults(self._database):
                yield
        except StoreError as fault:
            self._fault = fault
            raise

    def commit(self) -> None:
        """Make everything durable; `Store.transaction` calls this."""
        with self._guard():
            if not self._database.can_commit(self._connection):
                raise StoreError("the transaction was rolled back by the database")
            self._connection.commit()


class Store:
    """The records of one data folder, owned by this process until `close`. Safe to use from any thread.

    `opening` names this time that the database is open, see `Reader.continues`.
    """

    def __init__(self, folder: Path, lock: int, database: Database) -> None:
        self.folder = folder
        self._lock = lock
        self._database = database
        self._writing = Lock()
        self._unerased = False
        self._erase_at = 0.0
        self._open = True
        self.opening = secrets.token_hex(8)

    @classmethod
    def open(cls, folder: Path, database_url: str | None = None) -> Self:
        """Open the data folder and bring the database up to date: SQLite in it, else PostgreSQL at the URL.

        Raises `StoreLocked`, `StoreNewer`, `StoreDamaged`, `StoreFull`, `StoreDisconnected`, or `StoreError`
        where the folder cannot be used. Cost: 0.1 s and a migration where one is due.
        """
        # 1. Only this process and this user come near the biometrics.
        try:
            new = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock_folder(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
        try:
            database = database_in(folder, database_url)
            # 2. The entries of a new folder are as durable as what will lie in it.
            for path in (folder, *(path.parent for path in new)):
                synced(path)
            # 3. The schema is brought to this version in one transaction.
            try:
                migrate(database)
            except BaseException:
                database.close()
                raise
        except OSError as error:
            os.close(lock)
            raise _unusable(folder, error) from error
        except BaseException:
            os.close(lock)
            raise
        # 4. From here on, what is derived from it can be told from what another copy's life left.
        store = cls(folder, lock, database)
        try:
            with store.transaction() as t:
                t.add_opening(store.opening)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Wait for the transaction under way, let the database and the folder go."""
        with self._writing:
            if not self._open:
                return
            self._open = False
            if self._unerased:
                self._database.erase()
            self._database.close()
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write transaction, durable when the block ends, undone when it raises; others wait their turn.

        Cost: about 4 ms for the commit on a disk that syncs so fast; put several encounters into one.
        """
        with self._writing:
            self._check_open()
            with faults(self._database), self._database.writing.connect() as connection:
                t = Transaction(connection, self._database)
                with connection.begin():
                    yield t
                    t.commit()
            self._unerased |= t.erased
            # What was committed stays committed; where its remains cannot go yet, they do after a later one.
            if self._unerased and monotonic() >= self._erase_at:
                self._unerased = not self._database.erase()
                # Whoever keeps them holds up a commit now and then, not each.
                self._erase_at = monotonic() + _ERASE_AGAIN_SECONDS if self._unerased else 0.0

    def compact(self) -> None:
        """Take away what transactions that erased could not; see the database for what that is.

        SQLite overwrites what it deletes, at once, but deleting many can make it merge pages, and copies of
        rows may stay in their gaps: the file is written anew. PostgreSQL is vacuumed.
        """
        with self._writing:
            self._check_open()
            self._database.compact()

    def check_copies(self) -> None:
        """Raises `WrongState` where the database has its own tools for copies."""
        self._database.check_copies()

    def copy_to(self, file: Path, check: Callable[[], None]) -> None:
        """Write a consistent copy of the database into a new file; nobody waits.

        Everything committed before the call is in it. `check` is called now and then and may raise. Raises
        `WrongState` where the database has its own tools for this, and `StoreError`.
        """
        self._check_open()
        self._database.copy_to(file, check)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Reads of one state, that of the first. While it lasts, SQLite's log is not emptied."""
        self._check_open()
        with faults(self._database), self._database.reading.connect() as connection:
            yield Reader(connection, self._database)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"the store in {self.folder} is closed")


_ENCOUNTERS = select(encounter, subject.c.subject_id).select_from(encounter.outerjoin(subject))
_CASES = select(*(column for column in cases.c if column is not cases.c.number))


def _position(modality: str, code: int) -> Position:
    match Modality(modality):
        case Modality.FINGERPRINT:
            return FingerPosition(code)
        case Modality.IRIS:
            return EyePosition(code)
        case Modality.FACE:
            return None


def _case(row: Row[*tuple[object, ...]]) -> CaseRecord:
    return CaseRecord(
        case_id=row.case_id,
        encounter_id=row.encounter_id,
        nik=row.nik,
        decision=Decision(row.decision),
        state=CaseState(row.state),
        opened_at=row.opened_at,
        resolution=None if row.resolution is None else Resolution(row.resolution),
        operator=row.operator,
        comment=row.comment,
        resolved_at=row.resolved_at,
        subject_id=row.subject_id,
    )


def _first(rows: Iterable[_T]) -> _T | None:
    return next(iter(rows), None)


@contextmanager
def _refused(conflict: Callable[[], RekamError] | None) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        if conflict is None:
            raise
        raise conflict() from None  # its own text may quote the row, with the NIK


def database_in(folder: Path, url: str | None) -> Database:
    """The database at the URL, else SQLite's in the folder, made where it is missing. Raises `OSError`."""
    if not url:
        return Sqlite(folder / DATABASE)
    try:
        from rekam.postgres import Postgres  # its driver is an extra
    except ImportError as error:
        raise StoreError("PostgreSQL needs its driver: pip install 'rekam[postgres]'") from error
    return Postgres(url)


def _unusable(folder: Path, error: OSError) -> StoreError:
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS) else StoreError
    return kind(f"the data folder {folder} cannot be used: {error.strerror}")


def _lock_folder(folder: Path) -> int:
    """Take the folder for this process; the open file descriptor holds the lock."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 32).decode("ascii", "replace").strip()
        os.close(lock)
        by = f"process {holder}" if holder.isdigit() else "another process"
        raise StoreLocked(f"the data folder {folder} is in use by {by}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
