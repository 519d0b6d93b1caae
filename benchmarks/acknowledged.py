"""Clients that send a request until it is acknowledged, and whether what was acknowledged is kept."""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from benchmarks.encounters import Fingers, again, enroll_request, made_up_nik
from benchmarks.population import person
from benchmarks.server_process import Broken
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.client import Client
from rekam.store import DATABASE
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2

SEED = 7
FINGERS = (
    FingerPosition.RIGHT_THUMB,
    FingerPosition.RIGHT_INDEX,
    FingerPosition.LEFT_THUMB,
    FingerPosition.LEFT_INDEX,
)
CALL_SECONDS = 60
PAUSE_SECONDS = 0.2
PEOPLE = 3_000
SECOND = 7_000
# What a client may answer by sending the same request again.
_RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of what was acknowledged: all of it, once, unchanged and found, or erased as told.

    `deleted` and `rejected` were acknowledged too; `not_erased` of them can still be seen or found.
    """

    acknowledged: int
    deleted: int
    rejected: int
    missing: int
    changed: int
    enrolled_twice: int
    niks_with_two_subjects: int
    not_found_by_search: int
    not_erased: int
    database_sound: bool

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        faults = self.missing, self.changed, self.enrolled_twice, self.niks_with_two_subjects
        return not any((*faults, self.not_found_by_search, self.not_erased)) and self.database_sound

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.deleted} deletions and {self.rejected} rejections "
            f"among them: {self.missing} missing, {self.changed} changed, "
            f"{self.enrolled_twice} enrolled twice, {self.not_found_by_search} not found, "
            f"{self.not_erased} not erased"
        )


class Enroller:
    """Clients that enrol one person after the other, each until it is acknowledged.

    Every fourth person is deleted afterwards; every fourth comes back under a second NIK and is rejected.
    Where they `forget`, everybody is deleted in the end, so that there are never more than the clients.
    """

    def __init__(self, address: str, clients: int, *, forget: bool = False) -> None:
        self.address = address
        self._forget = forget
        self.answers: dict[int, enrollment_pb2.EnrollResponse] = {}
        self.deleted: dict[int, enrollment_pb2.DeleteSubjectResponse] = {}
        self.rejected: dict[int, types_pb2.Encounter] = {}
        self.in_flight: set[int] = set()
        self.retries = 0
        self.refused: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._next = 0
        self._lock = threading.Lock()
        self._finish = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self) -> "Enroller":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let every client get its last acknowledgement."""
        self._finish.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise what ended a client."""
        if self.failure is not None:
            raise Broken(f"a client failed: {self.failure}") from self.failure

    def _work(self) -> None:
        try:
            with Client(self.address) as client:
                while not self._finish.is_set():
                    with self._lock:
                        number, self._next = self._next, self._next + 1
                    call = client.enrollment
                    answer = self._until_acknowledged(number, call.Enroll, enrolment(number))
                    self.answers[number] = answer
                    if number % 4 == 3:
                        held = self._until_acknowledged(number, call.Enroll, second_nik(number)).encounter
                        self._until_acknowledged(number, client.cases.ResolveCase, rejection(held))
                        self.rejected[number] = held
                    if number % 4 == 1 or self._forget:
                        request = deletion(number, answer)
                        self.deleted[number] = self._until_acknowledged(number, call.DeleteSubject, request)
        except BaseException as error:
            self.failure = error

    def _until_acknowledged(self, number: int, call: Callable[..., Answer], request: Message) -> Answer:
        while True:
            self.in_flight.add(number)
            try:
                return call(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                if not isinstance(error, grpc.Call) or error.code() not in _RETRIED:
                    raise
                with self._lock:
                    self.retries += 1
                    self.refused[str(error.details())] += 1
                time.sleep(PAUSE_SECONDS)
            finally:
                self.in_flight.discard(number)


def enrolment(number: int) -> enrollment_pb2.EnrollRequest:
    """The first enrolment of made-up person `number`, fingers and eyes: always the same bytes."""
    request = enroll_request(f"kill-{number}", made_up_nik(number % PEOPLE), fingers_of(number))
    request.samples.extend(_eyes(number))
    return request


def fingers_of(number: int) -> Fingers:
    """The fingers of made-up person `number`; there are so many people, who may come again once deleted."""
    return person(number % PEOPLE, SEED, FINGERS)


def deletion(number: int, answer: enrollment_pb2.EnrollResponse) -> enrollment_pb2.DeleteSubjectRequest:
    """The deletion of made-up person `number`."""
    return enrollment_pb2.DeleteSubjectRequest(
        request_id=f"delete-{number}", subject_id=answer.encounter.subject_id
    )


def second_nik(number: int) -> enrollment_pb2.EnrollRequest:
    """Made-up person `number` once more, under another NIK: to be held."""
    return enroll_request(
        f"second-{number}", made_up_nik(SECOND - number % PEOPLE), again(fingers_of(number), number)
    )


def rejection(held: types_pb2.Encounter) -> case_pb2.ResolveCaseRequest:
    """An operator rejects a held encounter."""
    return case_pb2.ResolveCaseRequest(
        request_id=f"reject-{held.case_id}",
        case_id=held.case_id,
        resolution=case_pb2.RESOLUTION_REJECTED,
        operator="operator",
    )


def _eyes(number: int, flipped: float = 0.0) -> list[types_pb2.Sample]:
    """Both eyes of made-up person `number`: codes by chance, and a share of their bits the other way."""
    samples = []
    for eye in (EyePosition.RIGHT, EyePosition.LEFT):
        rng = np.random.default_rng((SEED, number % PEOPLE, eye))
        bits = rng.random(64 * GROUP_WORDS) < 0.5
        turned = rng.random(len(bits)) < flipped
        code = np.packbits(bits ^ turned, bitorder="little").view("<u8").astype(np.uint64)
        iris = IrisTemplate(code, np.full(len(code), 2**64 - 1, dtype=np.uint64), eye, 80)
        position = types_pb2.EyePosition.ValueType(eye)
        samples.append(
            types_pb2.Sample(modality=types_pb2.MODALITY_IRIS, eye=position, template=iris.to_bytes())
        )
    return samples


def what_is_kept(client: Client, enroller: Enroller) -> Kept:
    """Ask for everything that was acknowledged, and enrol every fifth person once more under another NIK."""
    answers = enroller.answers
    there = {number: answer for number, answer in answers.items() if number not in enroller.deleted}
    missing = changed = lost = 0
    not_erased = _not_erased(client, enroller)
    for number, answer in there.items():
        expected = answer.encounter
        try:
            request = enrollment_pb2.GetEncounterRequest(encounter_id=expected.encounter_id)
            found = client.enrollment.GetEncounter(request, timeout=CALL_SECONDS).encounter
        except grpc.RpcError:
            missing += 1
            continue
        repeated = client.enrollment.Enroll(enrolment(number), timeout=CALL_SECONDS)
        right = expected.decision == types_pb2.DECISION_UNIQUE
        changed += not (right and found == expected and repeated == answer)
    for rank, number in enumerate(list(there)[::5]):
        # Every other one by the eyes alone.
        by_eyes = rank % 2 == 1
        fingers = () if by_eyes else again(fingers_of(number), number)
        request_back = enroll_request(f"back-{number}", made_up_nik(9_998 - number), fingers)
        request_back.samples.extend(_eyes(number, 0.1) if by_eyes else ())
        for sample in request_back.samples:
            sample.best_effort = True  # a poor print among them is searched with too
        back = client.enrollment.Enroll(request_back, timeout=CALL_SECONDS).encounter
        mates = [c.nik for c in back.evidence.candidates[:1]]
        # Two eyes are too little for an accusation among more than some 250 people: they go to an operator.
        enough = {types_pb2.DECISION_DUPLICATE, *([types_pb2.DECISION_REVIEW] if by_eyes else [])}
        caught = back.decision in enough
        lost += not (caught and mates == [made_up_nik(number)])
    niks = [subject.nik for subject in _subjects(client)]
    missing += len({made_up_nik(number) for number in there} - set(niks))
    return Kept(
        acknowledged=len(answers) + len(enroller.deleted) + 2 * len(enroller.rejected),
        deleted=len(enroller.deleted),
        rejected=len(enroller.rejected),
        missing=missing,
        changed=changed,
        enrolled_twice=len(niks) - len(there),
        niks_with_two_subjects=sum(count > 1 for count in Counter(niks).values()),
        not_found_by_search=lost,
        not_erased=not_erased,
        database_sound=True,
    )


def with_database(kept: Kept, data: Path) -> Kept:
    """The same, asked of the database of a stopped server."""
    with closing(sqlite3.connect(data / DATABASE)) as database:
        [[twice]] = database.execute(
            "SELECT count(*) FROM (SELECT request_id FROM encounter GROUP BY request_id HAVING count(*) > 1)"
        )
        [[sound]] = database.execute("PRAGMA integrity_check")
    return replace(kept, enrolled_twice=kept.enrolled_twice + twice, database_sound=sound == "ok")


def _not_erased(client: Client, enroller: Enroller) -> int:
    """How many of those erased can still be seen, are found, or whose erasure is not answered as before."""
    seen = 0
    for number, erased in enroller.deleted.items():
        answer = enroller.answers[number]
        repeated = client.enrollment.DeleteSubject(deletion(number, answer), timeout=CALL_SECONDS)
        request = enrollment_pb2.GetEncounterRequest(encounter_id=answer.encounter.encounter_id)
        try:
            client.enrollment.GetEncounter(request, timeout=CALL_SECONDS)
            gone = False
        except grpc.RpcError as error:
            gone = isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND
        search = identification_pb2.IdentifyRequest(
            samples=enroll_request("", "", again(fingers_of(number), number)).samples
        )
        found = client.identification.Identify(search, timeout=CALL_SECONDS)
        seen += not (gone and repeated == erased and found.match == identification_pb2.MATCH_NO)
    for held in enroller.rejected.values():
        request = enrollment_pb2.GetEncounterRequest(encounter_id=held.encounter_id)
        now = client.enrollment.GetEncounter(request, timeout=CALL_SECONDS).encounter
        seen += now.state != types_pb2.ENCOUNTER_STATE_REJECTED or len(now.fingers) > 0
    return seen


def _subjects(client: Client) -> Iterator[gallery_pb2.Subject]:
    request = gallery_pb2.ListSubjectsRequest(page_size=1000)
    while True:
        page = client.gallery.ListSubjects(request, timeout=CALL_SECONDS)
        yield from page.subjects
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
