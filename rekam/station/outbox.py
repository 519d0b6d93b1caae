"""What waits at a station: sessions in the spool, resumed after anything, and sent exactly once.

A session's request is in the spool, with its request id, before it is sent for the first time. It is sent as
it is, however often, until the service answers; the service answers a repetition with what it answered first.
What the station says of an encounter is what the service said, or that it waits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
from pydantic import TypeAdapter

from devices.frame import DeviceKind
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
    place_of,
    read_entry,
)
from rekam.session import PARAMS as SESSION
from rekam.spool import Spool
from rekam.v1 import enrollment_pb2, types_pb2

OPERATOR = "operator"
_MATCH = 6.0
_LATER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)


class Sync(StrEnum):
    """Where an encounter stands at this station."""

    OPEN = "open"
    WAITING = "waiting"
    RECORDED = "recorded"
    REOPENED = "reopened"
    REFUSED = "refused"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one encounter. `text`: the service's own words, or why it was not reached."""

    name: str
    sync: Sync
    text: str = ""
    decision: str = ""
    encounter_id: str = ""
    case_id: str = ""


_SENT = TypeAdapter(Sent)


class Outbox:
    """The sessions of one spool. Not thread-safe."""

    def __init__(self, spool: Spool, examiner: Examiner, params: Params = SESSION) -> None:
        self._spool = spool
        self._examiner = examiner
        self._params = params
        self._refused: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Encounters that the service has not recorded, oldest first, less those that cannot be read."""
        return tuple(n for n in self._spool.names if n != OPERATOR and n not in self._spool.damaged)

    @property
    def operator(self) -> tuple[Template, ...]:
        """The operator's own templates, as they were given last."""
        if OPERATOR not in self._spool.names:
            return ()
        *_, last = self._spool.records(OPERATOR) or (b"[]",)
        try:
            given = [
                (DeviceKind(kind), int(code), bytes.fromhex(data)) for kind, code, data in json.loads(last)
            ]
        except (ValueError, TypeError) as error:
            raise SpoolDamaged("the operator's templates cannot be read") from error
        return tuple(read_template(Place(kind, code).position, data) for kind, code, data in given)

    def enrol_operator(self, templates: Sequence[Template]) -> None:
        """Keep whose biometrics are never taken for a citizen's, in place of those given before."""
        if OPERATOR not in self._spool.names:
            self._spool.begin(OPERATOR)
        kept = [(of.kind, of.code, one.to_bytes().hex()) for one in templates for of in [place_of(one)]]
        self._spool.append(OPERATOR, json.dumps(kept).encode())

    def begin(self, began: Began) -> Session:
        """A new session; nothing of it is lost from here on."""
        self._spool.begin(began.name)
        return Session.begin(began, self._examiner, self._keeper(began.name), self.operator, self._params)

    def resume(self, name: str) -> Session:
        """The session as it was kept. Raises `SpoolDamaged`."""
        entries = [read_entry(record) for record in self._spool.records(name)]
        return Session(entries, self._examiner, self._keeper(name), self.operator, self._params)

    def states(self) -> list[Sent]:
        """Where every encounter stands: what waits, and what the service said."""
        standing = [_SENT.validate_json(outcome) for outcome in self._spool.settled.values()]
        for name in self.names:
            session = self.resume(name)
            if name in self._refused:
                standing.append(Sent(name, Sync.REFUSED, self._refused[name]))
            elif session.sealed is not None:
                standing.append(Sent(name, Sync.WAITING))
            else:
                standing.append(Sent(name, Sync.OPEN, "; ".join(session.advice)))
        return standing

    def alike(self, session: Session) -> tuple[str, ...]:
        """Encounters that wait here and show the same person: the service will find out, the operator now."""
        mine = _form_of(session)
        others = ((name, self.resume(name)) for name in self.names if name != session.began.name)
        return tuple(
            name for name, other in others if compare_encounters(mine, _form_of(other)).llr >= _MATCH
        )

    def send(self, client: Client, timeout: float = 120.0) -> list[Sent]:
        """Send what waits, oldest first; what gets no answer stays. Raises `SpoolError`."""
        sent = []
        for name in self.names:
            session = self.resume(name)
            if session.sealed is None:
                continue
            one = self._send(client, session, session.sealed, timeout)
            sent.append(one)
            if one.sync is Sync.WAITING:
                break  # nobody answers: the others wait as well
        return sent

    def discard(self, name: str) -> None:
        """Give up an encounter; what was captured is erased. Raises `SpoolError`."""
        if name == OPERATOR:
            raise SpoolError("the operator's templates are no encounter")
        self._spool.settle(name, _SENT.dump_json(Sent(name, Sync.DISCARDED)).decode())

    def _send(self, client: Client, session: Session, request: bytes, timeout: float) -> Sent:
        name = session.began.name
        try:
            message = enrollment_pb2.EnrollRequest.FromString(request)
            answer = client.enrollment.Enroll(message, timeout=timeout)
        except grpc.RpcError as error:
            # Whether it was recorded is not known, or it cannot be: it stays as it is either way.
            if not isinstance(error, grpc.Call) or error.code() in _LATER:
                return Sent(name, Sync.WAITING, words_of(error))
            self._refused[name] = words_of(error)
            return Sent(name, Sync.REFUSED, words_of(error))
        self._refused.pop(name, None)
        if answer.WhichOneof("outcome") == "recapture":
            items = answer.recapture.items
            advice = tuple(f"{_place(item).words}: {item.advice}" for item in items)
            session.reopen([_place(item) for item in items], advice)
            return Sent(name, Sync.REOPENED, "; ".join(advice))
        encounter = answer.encounter
        decision = types_pb2.Decision.Name(encounter.decision).removeprefix("DECISION_")
        sent = Sent(name, Sync.RECORDED, "", decision, encounter.encounter_id, encounter.case_id)
        self._spool.settle(name, _SENT.dump_json(sent).decode())
        return sent

    def _keeper(self, name: str) -> "_Keeper":
        return _Keeper(self._spool, name)


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Writes a session's entries into its spool."""

    spool: Spool
    name: str

    def __call__(self, entry: Entry) -> None:
        self.spool.append(self.name, entry_bytes(entry))


def _form_of(session: Session) -> EncounterForm:
    kept = [(place, taken) for place, taken in session.taken.items() if place != SIGNATURE]
    return form_of([read_template(place.position, taken.template) for place, taken in kept])


def _place(item: enrollment_pb2.RecaptureItem) -> Place:
    if item.modality == types_pb2.MODALITY_FACE:
        return FACE
    if item.modality == types_pb2.MODALITY_IRIS:
        return Place(DeviceKind.IRIS, item.eye)
    return Place(DeviceKind.FINGERPRINT, item.position)
