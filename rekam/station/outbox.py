"""What waits at a station: sessions in the spool, resumed after anything, and sent exactly once.

A session's request is in the spool, with its request id, before it is sent for the first time. It is sent as
it is, however often, until the service answers; the service answers a repetition with what it answered first.
What the station says of an encounter is what the service said, or that it waits. One that cannot be read
holds up no other. Beside the encounters lie the operators' own templates, a file for each: every capture is
compared with all of them, whoever captures.
"""

import hashlib
import json
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
from pydantic import TypeAdapter

from capture.errors import CaptureError
from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate
from devices.frame import DeviceKind
from devices.position import EyePosition, FingerPosition
from matching.encounter import EncounterForm, compare_encounters
from rekam.capturing import Template, form_of, read_template
from rekam.client import Client, words_of
from rekam.errors import SpoolDamaged, SpoolError
from rekam.session import (
    FACE,
    SIGNATURE,
    Began,
    Entry,
    Examiner,
    Params,
    Place,
    Session,
    entry_bytes,
    place_at,
    place_of,
    read_entry,
)
from rekam.session import PARAMS as SESSION
from rekam.spool import Spool
from rekam.v1 import enrollment_pb2, types_pb2

OPERATOR = "operator-"
_MATCH = 6.0
_LATER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)
_TOO_LARGE = "larger than max"  # gRPC's own words: it has no code for that, and no service will ever take it
_VOID = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
_UNKNOWN = "the service gave an answer that this station does not know; it may have recorded the encounter"


class Sync(StrEnum):
    """Where an encounter stands at this station."""

    OPEN = "open"
    WAITING = "waiting"
    RECORDED = "recorded"
    REOPENED = "reopened"
    REFUSED = "refused"
    DISCARDED = "discarded"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one encounter. `text`: the service's own words, or why it was not reached or read.

    `operator` captured it last; `holder`: whether the person holds the card it was begun from, in words.
    """

    name: str
    sync: Sync
    text: str = ""
    decision: str = ""
    encounter_id: str = ""
    case_id: str = ""
    operator: str = ""
    holder: str = ""


_SENT = TypeAdapter(Sent)


class Outbox:
    """The sessions of one spool. Not thread-safe."""

    def __init__(self, spool: Spool, examiner: Examiner, params: Params = SESSION) -> None:
        self._spool = spool
        self._examiner = examiner
        self._params = params

    @property
    def names(self) -> tuple[str, ...]:
        """Encounters that the service has not recorded, oldest first; those that cannot be read too."""
        return tuple(name for name in self._spool.names if not name.startswith(OPERATOR))

    def operator(self, operator: str) -> tuple[Template, ...]:
        """An operator's own templates; () where none are here, or none that can be read."""
        *_, file = ("", *self._files_of(operator))
        return self._templates(file) if file else ()

    def _operators(self) -> tuple[Template, ...]:
        """Every operator's own: whoever captures now, another may hold a finger out."""
        return tuple(one for own in self._of_each_operator() for one in own)

    def _of_each_operator(self) -> list[tuple[Template, ...]]:
        """What is kept of each operator; () where it cannot be read."""
        names = (name for name in self._spool.names if name.startswith(OPERATOR))
        latest = {name.rpartition("-")[0]: name for name in names}
        return [self._templates(file) for file in latest.values()]

    def _templates(self, file: str) -> tuple[Template, ...]:
        try:
            records = self._spool.records(file)
            given = [
                (DeviceKind(kind), code, bytes.fromhex(data)) for kind, code, data in json.loads(records[0])
            ]
            return tuple(read_template(Place(kind, code).position, data) for kind, code, data in given)
        except (SpoolDamaged, CaptureError, ValueError, TypeError):
            return ()

    def operator_warning(self, session: Session) -> str:
        """Of which operators nothing can be read, and what of whoever captures is not known: not refused."""
        known = {
            place_of(one)
            for one in self.operator(session.operator)
            if not isinstance(one, FaceTemplate) or one.embedder == DlibEmbedder().digest
        }
        kinds = {place.kind for place in known}
        wanted = [place for step in session.steps for place in step.places if place != SIGNATURE]
        unknown = [one.words if one.kind in kinds else one.kind.value for one in wanted if one not in known]
        said = []
        if lost := self._of_each_operator().count(()):  # whose, only their name would tell
            said.append(f"of {lost} of the operators kept here nothing can be read: give their samples anew")
        if unknown:
            words = ", ".join(dict.fromkeys(unknown))
            said.append(f"of the operator {session.operator} nothing is known here to compare with: {words}")
        return "; ".join(said)

    def enrol_operator(self, operator: str, templates: Sequence[Template]) -> None:
        """Keep an operator's own, never taken for a citizen's, in place of those before, which are erased."""
        before = self._files_of(operator)
        kept = [(of.kind, of.code, one.to_bytes().hex()) for one in templates for of in [place_of(one)]]
        name = f"{_stem(operator)}{secrets.token_hex(8)}"
        self._spool.begin(name)
        self._spool.append(name, json.dumps(kept).encode())
        self._erase(before)

    def forget_operator(self, operator: str) -> None:
        """Erase an operator's own templates. Raises `SpoolError` where there are none."""
        if not (files := self._files_of(operator)):
            raise SpoolError(f"of the operator {operator} nothing is kept here")
        self._erase(files)

    def begin(self, began: Began) -> Session:
        """A new session; nothing of it is lost from here on."""
        own = self._operators()
        self._spool.begin(began.name)
        return Session.begin(began, self._examiner, self._keeper(began.name), own, self._params)

    def resume(self, name: str, operator: str = "") -> Session:
        """The session as it was kept, to go on with; opened again where the service refused it.

        `operator` captures from here on, if given. Its next request has the next id. It stays as it is where
        the service may have recorded it. Raises `SpoolDamaged`.
        """
        session = self._session(name, self._operators())
        if session.refused is not None and session.refused.void:
            session.reopen((), (session.refused.text,))
        if operator and session.sealed is None:
            session.taken_over(operator)
        return session

    def states(self) -> list[Sent]:
        """Where every encounter stands: what waits, and what the service said."""
        standing = [_SENT.validate_json(said) for said in self._spool.settled.values() if said]
        for name, session in self._sessions():
            if isinstance(session, str):
                standing.append(Sent(name, Sync.DAMAGED, session))
            elif session.refused is not None:
                standing.append(Sent(name, Sync.REFUSED, session.refused.text))
            elif session.sealed is not None:
                standing.append(Sent(name, Sync.WAITING))
            else:
                standing.append(Sent(name, Sync.OPEN, "; ".join(session.advice)))
        return standing

    def alike(self, session: Session) -> tuple[str, ...]:
        """Encounters that wait here and show the same person: the service will find out, the operator now."""
        mine = _form_of(session)
        return tuple(
            name
            for name, other in self._sessions()
            if name != session.began.name
            and not isinstance(other, str)
            and compare_encounters(mine, _form_of(other)).llr >= _MATCH
        )

    def send(self, client: Client, timeout: float = 120.0) -> list[Sent]:
        """Send what waits, oldest first; what gets no answer, or one that cannot be kept, stays."""
        sent = []
        for name, session in self._sessions():
            if isinstance(session, str):
                sent.append(Sent(name, Sync.DAMAGED, session))
            elif session.sealed is not None:
                try:
                    sent.append(self._send(client, session, session.sealed, timeout))
                except SpoolError as error:  # the disk is full: it is asked again, the next may make room
                    sent.append(Sent(name, Sync.WAITING, str(error)))
                    continue
                if sent[-1].sync is Sync.WAITING:
                    break  # nobody answers: the others wait as well
        return sent

    def discard(self, name: str) -> Sent:
        """Give up an encounter; what was captured is erased, here. Raises `SpoolError`."""
        if name not in self.names:
            raise SpoolError(f"no encounter {name} waits here")
        try:
            session = self._session(name)
            unsent = session.sealed is None or (session.refused is not None and session.refused.void)
        except SpoolDamaged:
            unsent = False
        sent = Sent(name, Sync.DISCARDED, "" if unsent else "the service may have recorded it")
        self._spool.settle(name, _SENT.dump_json(sent).decode())
        return sent

    def _send(self, client: Client, session: Session, request: bytes, timeout: float) -> Sent:
        name = session.began.name
        try:
            message = enrollment_pb2.EnrollRequest.FromString(request)
            answer = client.enrollment.Enroll(message, timeout=timeout)
        except grpc.RpcError as error:
            # Whether it was recorded is not known, or it cannot be: it stays as it is either way.
            too_large = isinstance(error, grpc.Call) and _TOO_LARGE in (error.details() or "")
            if not isinstance(error, grpc.Call) or (error.code() in _LATER and not too_large):
                return Sent(name, Sync.WAITING, words_of(error))
            session.refuse(words_of(error), void=too_large or error.code() in _VOID)
            return Sent(name, Sync.REFUSED, words_of(error))
        if answer.WhichOneof("outcome") == "recapture":
            again = [(_place(item), item.advice) for item in answer.recapture.items]
            advice = tuple(f"{place.words}: {text}" if place else text for place, text in again)
            session.reopen([place for place, _ in again if place], advice)
            return Sent(name, Sync.REOPENED, "; ".join(advice))
        encounter = answer.encounter
        if not encounter.encounter_id:  # of a newer service, or of something between: nothing is erased
            session.refuse(_UNKNOWN, void=False)
            return Sent(name, Sync.REFUSED, _UNKNOWN)
        sent = Sent(
            name,
            Sync.RECORDED,
            decision=_decision(encounter.decision),
            encounter_id=encounter.encounter_id,
            case_id=encounter.case_id,
            operator=session.operator,
            holder=_holder(session),
        )
        self._spool.settle(name, _SENT.dump_json(sent).decode())
        return sent

    def _sessions(self) -> Iterator[tuple[str, Session | str]]:
        """Every encounter that is not recorded, oldest first; why not, where it cannot be read."""
        for name in self.names:
            try:
                session: Session | str = self._session(name)
            except SpoolDamaged as error:
                session = str(error)
            yield name, session

    def _session(self, name: str, operator: Sequence[Template] = ()) -> Session:
        """The session as it was kept. Raises `SpoolDamaged`."""
        records = self._spool.records(name)
        try:
            entries = [read_entry(record) for record in records]
            return Session(entries, self._examiner, self._keeper(name), operator, self._params)
        except (SpoolDamaged, CaptureError) as error:
            raise SpoolDamaged(f"encounter {name} cannot be read: {error}") from error

    def _files_of(self, operator: str) -> tuple[str, ...]:
        """What the spool has of an operator: the last one counts, those before it are left of a power cut."""
        return tuple(name for name in self._spool.names if name.startswith(_stem(operator)))

    def _erase(self, files: Sequence[str]) -> None:
        for name in files:
            self._spool.settle(name, "")

    def _keeper(self, name: str) -> "_Keeper":
        return _Keeper(self._spool, name)


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Writes a session's entries into its spool."""

    spool: Spool
    name: str

    def __call__(self, entry: Entry) -> None:
        self.spool.append(self.name, entry_bytes(entry))


def _stem(operator: str) -> str:
    """What the names of an operator's files begin with, however the operator writes their name."""
    written = unicodedata.normalize("NFKC", operator).strip().casefold()
    return f"{OPERATOR}{hashlib.sha256(written.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}-"


def _form_of(session: Session) -> EncounterForm:
    kept = [(place, taken) for place, taken in session.taken.items() if place != SIGNATURE]
    return form_of([read_template(place.position, taken.template) for place, taken in kept])


def _place(item: enrollment_pb2.RecaptureItem) -> Place | None:
    """What a service asks for again; None for what this station does not know."""
    try:
        match item.modality:
            case types_pb2.MODALITY_FACE:
                return FACE
            case types_pb2.MODALITY_IRIS:
                return place_at(EyePosition(item.eye))
            case types_pb2.MODALITY_FINGERPRINT:
                return place_at(FingerPosition(item.position))
    except ValueError:
        pass
    return None


def _decision(decision: types_pb2.Decision.ValueType) -> str:
    """Its name; its number where a newer service has more of them."""
    known = types_pb2.Decision.values()
    return types_pb2.Decision.Name(decision).removeprefix("DECISION_") if decision in known else str(decision)


def _holder(session: Session) -> str:
    if session.holder is None:
        return ""
    return session.holder.verdict + (", overruled by the operator" if session.holder.overruled else "")
