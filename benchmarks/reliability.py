"""What the service promises under ill treatment, shown on real processes; recorded in benchmarks/results/.

    python -m benchmarks.reliability kill      kill -9 amid enrolments and deletions, with clients that retry
    python -m benchmarks.reliability race      one person enrolled twice at the same moment
    python -m benchmarks.reliability trace     the log is on disk before the answer leaves: system calls
    python -m benchmarks.reliability full      the disk fills up amid enrolments, and is emptied again
    python -m benchmarks.reliability corrupt   bytes of the saved index are flipped, one file after the other
    python -m benchmarks.reliability clock     the wall clock jumps by years, there and back
    python -m benchmarks.reliability soak      everything at once for so many minutes, with memory watched

Every server here is `rekam serve` in a process of its own, every client a gRPC client; people are synthetic.
"""

import errno
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar
from unittest.mock import patch

import grpc
import numpy as np
import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.encounters import Fingers, again, enroll_request, made_up_nik
from benchmarks.population import person
from benchmarks.provenance import ROOT, provenance
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.client import Client
from rekam.codec import read_enroll, read_identify
from rekam.config import load_settings
from rekam.exchange import Match, Recorded
from rekam.store import DATABASE
from rekam.v1 import admin_pb2, case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from rekam.workflow import Workflow

RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
SEED = 7
FINGERS = (
    FingerPosition.RIGHT_THUMB,
    FingerPosition.RIGHT_INDEX,
    FingerPosition.LEFT_THUMB,
    FingerPosition.LEFT_INDEX,
)
CALL_SECONDS = 60
START_SECONDS = 120
PEOPLE = 3_000
SECOND = 7_000
PAUSE_SECONDS = 0.2
# What a client may answer by sending the same request again.
_RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
Step = Callable[[], None]
Answer = TypeVar("Answer")
Rounds = Annotated[int, typer.Option(min=1, help="How often.")]
Results = Annotated[Path, typer.Option(help="File of the results; each command renews its own part.")]


class Broken(Exception):
    """A promise was broken, or a server did not start; the text says which."""


class ServerProcess:
    """`rekam serve` on one port over one data folder, started, killed and started again."""

    def __init__(self, folder: Path, before: Sequence[str] = ()) -> None:
        self.data, self.log = folder / "data", folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._before = list(before)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process. Raises `Broken` where there is none."""
        if self._process is None:
            raise Broken("the server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens. Raises `Broken` with its log where it does not."""
        rekam = str(Path(sys.executable).with_name("rekam"))
        command = [rekam, "serve", "--port", str(self.port), "--data-dir", str(self.data), "--workers", "2"]
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            # A group of its own: a signal reaches the server also beneath another program.
            self._process = subprocess.Popen(
                [*self._before, *command], stderr=log, stdout=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while b"listens on" not in self.log.read_bytes()[said:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"the server did not start:\n{self.log.read_text()[said:]}")
            time.sleep(0.02)

    def memory_mib(self) -> float:
        """Memory of its own, without what is mapped from files."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux has it

    def kill(self) -> None:
        """Pull the plug: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
            self._process.wait(60)
            self._process = None


@contextmanager
def server(folder: Path, before: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """A started server that does not outlive the block."""
    process = ServerProcess(folder, before)
    try:
        process.start()
        yield process
    finally:
        process.stop()


# what was acknowledged --------------------------------------------------------------------------------


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


class _Enroller:
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

    def __enter__(self) -> "_Enroller":
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


def what_is_kept(client: Client, enroller: _Enroller) -> Kept:
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
        back = client.enrollment.Enroll(request_back, timeout=CALL_SECONDS).encounter
        mates = [c.nik for c in back.evidence.candidates[:1]]
        caught = back.decision == types_pb2.DECISION_DUPLICATE
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


def _not_erased(client: Client, enroller: _Enroller) -> int:
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


# kill -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Killed:
    """What `kill -9` did."""

    rounds: int
    in_flight_at_kill: int
    retries: int
    committed_but_unanswered: int
    slowest_start_s: float
    kept: Kept

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        return self.kept.held


def kill_rounds(folder: Path, rounds: int, *, clients: int = 4, step: Step = lambda: None) -> Killed:
    """Kill the server `rounds` times amid enrolments and deletions; then look at what was acknowledged."""
    chance = random.Random(SEED)
    in_flight = 0
    cut_off: dict[int, float] = {}
    starts = []
    with server(folder) as process:
        with _Enroller(process.address, clients) as enroller:
            for _ in range(rounds):
                # 1. Some are acknowledged, others are on their way: now.
                enough = len(enroller.answers) + chance.randint(1, 2 * clients)
                while len(enroller.answers) < enough or not enroller.in_flight:
                    enroller.check()
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, 0.1))
                under_way, answered = set(enroller.in_flight), set(enroller.answers)
                in_flight += len(under_way)
                process.kill()
                cut_off |= dict.fromkeys(under_way - answered, time.time())
                # 2. It starts again by itself; the clients go on with the same request ids.
                begin = time.monotonic()
                process.start()
                starts.append(time.monotonic() - begin)
                step()
        enroller.check()
        with Client(process.address) as client:
            kept = what_is_kept(client, enroller)
    return Killed(
        rounds=rounds,
        in_flight_at_kill=in_flight,
        retries=enroller.retries,
        committed_but_unanswered=sum(
            enroller.answers[number].encounter.create_time.ToNanoseconds() / 1e9 < moment
            for number, moment in cut_off.items()
        ),
        slowest_start_s=round(max(starts), 1),
        kept=with_database(kept, process.data),
    )


# race -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Raced:
    """Decisions of two enrolments of one person at the same moment, by pair."""

    rounds: int
    at_the_same_time: int
    decisions: dict[str, int]
    two_unique: int
    none_unique: int

    @property
    def held(self) -> bool:
        """Whether exactly one was unique, every time."""
        return self.two_unique == self.none_unique == 0


def race_rounds(
    address: str, rounds: int, *, same_nik: bool, first: int = 0, step: Step = lambda: None
) -> Raced:
    """Let two clients enrol the same person at once: under one NIK each, or both under the same."""
    pairs: Counter[str] = Counter()
    together = 0
    with Client(address) as one, Client(address) as other:
        for number in range(first, first + rounds):
            fingers = person(number, SEED + 1, FINGERS)
            requests = [
                enroll_request(
                    f"race-{number}-{k}",
                    made_up_nik(2 * number + (0 if same_nik else k)),
                    again(fingers, 2 * number + k),
                )
                for k in range(2)
            ]
            spans = _at_once([one, other], requests)
            together += max(s.begin for s in spans) < min(s.end for s in spans)
            pairs[" + ".join(sorted(s.decision for s in spans))] += 1
            step()
    unique = {pair: pair.split(" + ").count("UNIQUE") for pair in pairs}
    return Raced(
        rounds=rounds,
        at_the_same_time=together,
        decisions=dict(pairs),
        two_unique=sum(n for pair, n in pairs.items() if unique[pair] == 2),
        none_unique=sum(n for pair, n in pairs.items() if unique[pair] == 0),
    )


@dataclass(frozen=True, slots=True)
class _Span:
    begin: float
    end: float
    decision: str


def _at_once(clients: Sequence[Client], requests: Sequence[enrollment_pb2.EnrollRequest]) -> list[_Span]:
    line = threading.Barrier(len(requests))
    spans: dict[int, _Span] = {}

    def run(place: int) -> None:
        line.wait()
        begin = time.perf_counter()
        answer = clients[place].enrollment.Enroll(requests[place], timeout=CALL_SECONDS)
        name = types_pb2.Decision.Name(answer.encounter.decision).removeprefix("DECISION_")
        spans[place] = _Span(begin, time.perf_counter(), name)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(spans) != len(requests):
        raise Broken("a racing client got no answer")
    return [spans[place] for place in range(len(requests))]


# trace ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traced:
    """The system calls around one acknowledgement, as lines of the trace; numbers count its lines."""

    record_written: int
    last_log_write: int
    sync_called: int
    sync_returned: int
    reply_sent: int
    calls: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether the whole record was synced before the reply was sent."""
        return (
            self.record_written
            <= self.last_log_write
            < self.sync_called
            <= self.sync_returned
            < self.reply_sent
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """A system call on a file: where in the trace it began and returned, and its text."""

    name: str
    path: str
    began: int
    returned: int
    text: str


_LINE = re.compile(r"(?P<pid>\d+) +(?P<text>.*)")
_CALL = re.compile(r"(?P<name>\w+)\(\d+<(?P<path>[^>]*)>")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_UNFINISHED = "<unfinished ...>"
_WRITES = ("pwrite64", "write", "writev")
_SENDS = ("sendmsg", "sendto", "write", "writev")
_SYNCS = ("fdatasync", "fsync")


def traced_enrolment(folder: Path) -> Traced:
    """Enrol one person on a server under strace; when the log was synced and when the reply was sent."""
    if shutil.which("strace") is None:
        raise Broken("strace is needed: apt-get install strace")
    trace = folder / "trace"
    calls = "trace=openat,pwrite64,fdatasync,fsync,sendmsg,sendto,write,writev"
    before = ["strace", "-f", "-y", "-qq", "-s", "100000", "-e", calls, "-o", str(trace), "--seccomp-bpf"]
    with server(folder, before) as process, Client(process.address) as client:
        answer = client.enrollment.Enroll(enrolment(0), timeout=CALL_SECONDS)
    return read_trace(trace.read_text(errors="replace").splitlines(), answer.encounter.encounter_id)


def read_trace(lines: Sequence[str], encounter_id: str) -> Traced:
    """Find the record's way into the log, the sync and the reply. Raises `Broken` where one is not there.

    The reply is what carries the encounter's id to a socket, the record what carries it to the log.
    """
    calls = list(_calls(lines))
    reply = _first(
        "reply", (c for c in calls if c.name in _SENDS and "socket:" in c.path and encounter_id in c.text)
    )
    log = [c for c in calls if c.path.endswith(f"/{DATABASE}-wal") and c.began < reply.began]
    written = [c for c in log if c.name in _WRITES]
    record = _first("record in the log before the reply", (c for c in written if encounter_id in c.text))
    last = written[-1]
    sync = _first(
        "sync of the log between the record and the reply",
        (c for c in log if c.name in _SYNCS and c.began > last.returned and c.text.endswith("= 0")),
    )
    return Traced(
        record_written=record.began + 1,
        last_log_write=last.returned + 1,
        sync_called=sync.began + 1,
        sync_returned=sync.returned + 1,
        reply_sent=reply.began + 1,
        calls=tuple(map(_shortened, (record, last, sync, reply))),
    )


def _calls(lines: Sequence[str]) -> Iterator[_Call]:
    """Every call on a file, in the order they returned; interrupted lines are put together."""
    began: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        pid, text, start = match["pid"], match["text"], number
        if text.endswith(_UNFINISHED):
            began[pid] = number, text.removesuffix(_UNFINISHED)
            continue
        if _RESUMED.match(text) and pid in began:
            start, first_part = began.pop(pid)
            text = first_part + text
        if call := _CALL.match(text):
            yield _Call(call["name"], call["path"], start, number, text)


def _first(what: str, found: Iterator[_Call]) -> _Call:
    call = next(found, None)
    if call is None:
        raise Broken(f"the trace shows no {what}")
    return call


def _shortened(call: _Call) -> str:
    """A call without its data and its folder."""
    return f"{call.name}({Path(call.path).name}, ...) = {call.text.rsplit('= ', 1)[-1]}"


# full -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Full:
    """What a full disk did: requests refused for it, whether searches went on, and what is kept.

    `acknowledged_after`: how many were acknowledged once there was room again, without a new start.
    """

    how: str
    refused: int
    told: tuple[str, ...]
    searched_meanwhile: bool
    acknowledged_after: int
    kept: Kept

    @property
    def held(self) -> bool:
        """Whether it was told, searched through and got over."""
        return self.refused > 0 and self.searched_meanwhile and self.acknowledged_after > 0 and self.kept.held


Squeeze = Callable[[ServerProcess], AbstractContextManager[None]]


@contextmanager
def no_room_for_files(process: ServerProcess) -> Iterator[None]:
    """Every write of the server to a file fails (RLIMIT_FSIZE): what a full disk is to a process."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def ballast(process: ServerProcess) -> Iterator[None]:
    """A file that takes all the room there is, in the data folder of the server."""
    path = process.data.parent / "ballast"
    try:
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 14))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        yield
    finally:
        path.unlink()


def full_disk(folder: Path, squeeze: Squeeze, *, refusals: int = 5, clients: int = 2) -> Full:
    """Take the room away amid enrolments and deletions, and give it back."""
    with server(folder) as process:
        with _Enroller(process.address, clients) as enroller, Client(process.address) as client:
            _until(enroller, lambda: len(enroller.answers) >= 8)
            with squeeze(process):
                _until(
                    enroller, lambda: sum(n for t, n in enroller.refused.items() if "disk" in t) >= refusals
                )
                number = next(n for n in enroller.answers if n not in enroller.deleted and n % 4 == 0)
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(number), number)).samples
                )
                found = client.identification.Identify(search, timeout=CALL_SECONDS)
            before = len(enroller.answers)
            _until(enroller, lambda: len(enroller.answers) >= before + 5)
        enroller.check()
        with Client(process.address) as client:
            kept = what_is_kept(client, enroller)
    told = tuple(sorted({text.split(":")[0] for text in enroller.refused if "disk" in text}))
    return Full(
        how=squeeze.__doc__ or "",
        refused=sum(n for text, n in enroller.refused.items() if "disk" in text),
        told=told,
        searched_meanwhile=found.match == identification_pb2.MATCH_YES,
        acknowledged_after=len(enroller.answers) - before,
        kept=with_database(kept, process.data),
    )


def _until(enroller: _Enroller, reached: Callable[[], bool]) -> None:
    """Wait for what the clients bring about. Raises `Broken` where it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while not reached():
        enroller.check()
        if time.monotonic() > deadline:
            raise Broken("the clients got no further")
        time.sleep(0.01)


# corrupt ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corrupted:
    """What flipped bytes of the saved index did: each was to be noticed, and nobody to be lost."""

    files: int
    flips: int
    unnoticed: tuple[str, ...]
    lost: int

    @property
    def held(self) -> bool:
        """Whether every one was noticed and everybody found."""
        return self.flips > 0 and not self.unnoticed and not self.lost


class _Warnings(logging.Handler):
    """Counts warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.number += 1


def corrupted_index(
    folder: Path, people: int, places: Sequence[float], step: Step = lambda: None
) -> Corrupted:
    """Flip one byte at these places (0 to 1) of every file of a saved index, open it, look for everybody."""
    settings = load_settings(data_dir=folder / "data", workers=2)
    workflow = Workflow(settings)
    for number in range(people):
        workflow.enroll(*read_enroll(enrolment(number)))
    workflow.close()
    index = settings.data_dir / "index"
    kept = folder / "kept"
    shutil.copytree(index, kept)
    names = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
    unnoticed: list[str] = []
    lost = flips = 0
    for name in names:
        for place in places:
            shutil.rmtree(index)
            shutil.copytree(kept, index)
            content = bytearray((index / name).read_bytes())
            if not content:
                continue
            at = min(int(place * len(content)), len(content) - 1)
            content[at] ^= 0x10
            (index / name).write_bytes(content)
            warnings = _Warnings()
            logging.getLogger().addHandler(warnings)
            workflow = Workflow(settings)
            logging.getLogger().removeHandler(warnings)
            flips += 1
            if not warnings.number:
                unnoticed.append(f"{name} at {at}")
            for number in range(people):
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(number), number)).samples
                )
                found = workflow.identify(read_identify(search)[0])
                lost += found.match is not Match.YES or found.candidates[0].nik != made_up_nik(number)
            workflow.close()
            step()
    return Corrupted(len(names), flips, tuple(unnoticed), lost)


# clock ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Jumped:
    """The same requests under a steady clock and one that jumps by years: what differed but the times."""

    requests: int
    jumps: int
    earliest: str
    latest: str
    differences: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether nothing but times differed."""
        return self.jumps > 0 and not self.differences


def jumping_clock(folder: Path, people: int) -> Jumped:
    """Enrol, return, double, delete and resolve under two clocks; compare decisions, order and answers."""
    steady: list[datetime] = []
    jumping: list[datetime] = []
    first = _history(folder / "steady", people, _Clock(steady, years=0))
    second = _history(folder / "jumping", people, _Clock(jumping, years=20))
    differences = [f"{a} became {b}" for a, b in zip(first, second, strict=True) if a != b]
    return Jumped(
        requests=len(first),
        jumps=sum(b < a for a, b in pairwise(jumping)),
        earliest=min(jumping).isoformat(timespec="seconds"),
        latest=max(jumping).isoformat(timespec="seconds"),
        differences=tuple(differences),
    )


class _Clock:
    """Stands for `datetime`: its time jumps by up to so many years, either way, at every look."""

    def __init__(self, told: list[datetime], years: int) -> None:
        self._told = told
        self._years = years
        self._chance = random.Random(SEED)

    def now(self, zone: tzinfo) -> datetime:
        """A moment about today."""
        days = 365 * self._years * self._chance.uniform(-1, 1)
        self._told.append(datetime.now(zone) + timedelta(days=days))
        return self._told[-1]


def _history(folder: Path, people: int, clock: _Clock) -> list[str]:
    """What the service says to a fixed row of requests, without ids and times."""
    said: list[str] = []
    with patch("rekam.workflow.datetime", clock):
        workflow = Workflow(load_settings(data_dir=folder, workers=2))
        subjects: list[str] = []
        for number in range(people):
            claim, presentation = read_enroll(enrolment(number))
            enrolled = workflow.enroll(claim, presentation)
            doubled = workflow.enroll(*read_enroll(second_nik(number)))
            repeated = workflow.enroll(claim, presentation)
            if not (isinstance(enrolled, Recorded) and isinstance(doubled, Recorded)):
                raise Broken("an enrolment was not recorded")
            subjects.append(enrolled.subject_id or "")
            said += [f"{enrolled.decision} {doubled.decision} {doubled.state} {repeated == enrolled}"]
            if number % 3 == 1:
                request = deletion(number, enrollment_pb2.EnrollResponse())
                erased = workflow.delete_subject(subjects[-1], request.request_id, b"digest")
                said.append(f"erased {erased.encounters}")
        cases = workflow.cases(None, None, 1000)
        said += [f"case of {case.nik} {case.state}" for case in cases]
        workflow.close()
        # Opened again: the index is trusted and followed by numbers, not by times.
        workflow = Workflow(load_settings(data_dir=folder, workers=2))
        for number in range(people):
            search = identification_pb2.IdentifyRequest(
                samples=enroll_request("", "", again(fingers_of(number), number)).samples
            )
            found = workflow.identify(read_identify(search)[0])
            said.append(f"{found.match} {[p.nik for p in found.candidates[:1]]}")
        niks = [workflow.subject(nik=case.nik).nik for case in cases if case.subject_id is not None]
        said.append(f"{niks}")
        workflow.close()
    return said


# soak -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Soaked:
    """So many minutes of everything at once, and the server's own memory (anonymous, MiB) through it.

    `second_quarter_mib`, `last_quarter_mib`: medians. It holds where nothing is lost and the last is not
    above the second by more than a twentieth.
    """

    minutes: float
    enrolled: int
    searched: int
    backups: int
    second_quarter_mib: float
    last_quarter_mib: float
    most_mib: float
    kept: Kept

    @property
    def held(self) -> bool:
        """Whether nothing was lost and memory was flat."""
        return self.kept.held and self.last_quarter_mib <= 1.05 * self.second_quarter_mib


def soaked(folder: Path, minutes: float, *, clients: int = 3, every_seconds: float = 2.0) -> Soaked:
    """Enrol, double, reject, delete, search and back up until the time is over."""
    memory: list[float] = []
    searched = backups = 0
    with patch.dict(os.environ, {"REKAM_BACKUP_DIR": str(folder / "backups")}), server(folder) as process:
        with _Enroller(process.address, clients, forget=True) as enroller, Client(process.address) as client:
            end = time.monotonic() + 60 * minutes
            next_backup = time.monotonic() + 15 * minutes
            while time.monotonic() < end:
                enroller.check()
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(searched), searched)).samples
                )
                client.identification.Identify(search, timeout=CALL_SECONDS)
                searched += 1
                if time.monotonic() > next_backup:
                    client.admin.Backup(admin_pb2.BackupRequest(name=f"soak-{backups}"), timeout=CALL_SECONDS)
                    shutil.rmtree(folder / "backups" / f"soak-{backups}")
                    backups += 1
                    next_backup += 15 * minutes
                memory.append(process.memory_mib())
                time.sleep(every_seconds)
        enroller.check()
        with Client(process.address) as client:
            kept = what_is_kept(client, enroller)
    quarter = max(1, len(memory) // 4)
    return Soaked(
        minutes=minutes,
        enrolled=len(enroller.answers),
        searched=searched,
        backups=backups,
        second_quarter_mib=round(float(np.median(memory[quarter : 2 * quarter])), 1),
        last_quarter_mib=round(float(np.median(memory[-quarter:])), 1),
        most_mib=round(max(memory), 1),
        kept=with_database(kept, process.data),
    )


# The commands -----------------------------------------------------------------------------------------


@app.command("kill")
def kill_command(rounds: Rounds = 100, results: Results = RESULTS) -> None:
    """Pull the plug amid enrolments and deletions: all acknowledged is there, once, or erased."""
    with _folder() as folder, _bar("killing", rounds) as step:
        killed = kill_rounds(folder, rounds, step=step)
    _record(results, "kill", asdict(killed))
    console.print(
        f"{rounds} kills, {killed.in_flight_at_kill} requests cut off, {killed.retries} retries; "
        f"{killed.kept}; "
        f"{killed.committed_but_unanswered} were committed before the kill and answered after it; slowest "
        f"start {killed.slowest_start_s} s",
        highlight=False,
    )
    _judge(killed.held)


@app.command("race")
def race_command(rounds: Rounds = 50, results: Results = RESULTS) -> None:
    """One person enrolled by two clients at once: never two UNIQUE."""
    with _folder() as folder, server(folder) as process, _bar("racing", 2 * rounds) as step:
        different = race_rounds(process.address, rounds, same_nik=False, step=step)
        same = race_rounds(process.address, rounds, same_nik=True, first=rounds, step=step)
    _record(results, "race", {"different_niks": asdict(different), "same_nik": asdict(same)})
    for name, raced in (("different NIKs", different), ("the same NIK", same)):
        console.print(
            f"{rounds} races under {name}, {raced.at_the_same_time} of them at the same time: "
            f"{raced.two_unique} times two UNIQUE; {raced.decisions}",
            highlight=False,
        )
    _judge(different.held and same.held)


@app.command("trace")
def trace_command(results: Results = RESULTS) -> None:
    """The log is synced before the reply is sent: one enrolment under strace."""
    with _folder() as folder:
        traced = traced_enrolment(folder)
    _record(results, "trace", asdict(traced))
    for place, call in zip(
        (traced.record_written, traced.last_log_write, traced.sync_called, traced.reply_sent),
        traced.calls,
        strict=True,
    ):
        console.print(f"{place:>7}  {call}", highlight=False)
    _judge(traced.held)


@app.command("full")
def full_command(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="A small file system, which is filled up; where not given, the server may write to no file."
        ),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """The disk is full amid enrolments: it is told, searches go on, and nothing acknowledged is lost."""
    with _folder(folder) as inside:
        full = full_disk(inside, no_room_for_files if folder is None else ballast)
    _record(results, "full", asdict(full))
    console.print(f"{full.refused} refused ({full.told}); {full.kept}", highlight=False)
    _judge(full.held)


@app.command("corrupt")
def corrupt_command(
    people: Annotated[int, typer.Option(min=1, help="People in the index.")] = 40, results: Results = RESULTS
) -> None:
    """Bytes of the saved index are flipped: noticed, made anew, nobody lost."""
    with _folder() as folder, console.status("flipping"):
        corrupted = corrupted_index(folder, people, (0, 0.3, 0.7, 1))
    _record(results, "corrupt", asdict(corrupted))
    console.print(
        f"{corrupted.flips} flips in {corrupted.files} files: {len(corrupted.unnoticed)} not noticed, "
        f"{corrupted.lost} people not found",
        highlight=False,
    )
    _judge(corrupted.held)


@app.command("clock")
def clock_command(
    people: Annotated[int, typer.Option(min=3, help="People enrolled.")] = 60, results: Results = RESULTS
) -> None:
    """The wall clock jumps by up to 20 years at every look: decisions, order and answers do not care."""
    with _folder() as folder, console.status("jumping"):
        jumped = jumping_clock(folder, people)
    _record(results, "clock", asdict(jumped))
    console.print(
        f"{jumped.jumps} jumps back between {jumped.earliest} and {jumped.latest}: "
        f"{len(jumped.differences)} of {jumped.requests} answers differ",
        highlight=False,
    )
    _judge(jumped.held)


@app.command("soak")
def soak_command(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 30, results: Results = RESULTS
) -> None:
    """Enrol, double, reject, delete, search and back up for so long: nothing lost, memory flat."""
    with _folder() as folder, console.status(f"soaking for {minutes:g} minutes"):
        soak = soaked(folder, minutes)
    _record(results, "soak", asdict(soak))
    console.print(
        f"{soak.minutes:g} minutes, {soak.enrolled} enrolled, {soak.searched} searched, "
        f"{soak.backups} backups; {soak.second_quarter_mib} MiB in the second quarter, "
        f"{soak.last_quarter_mib} in the last; {soak.kept}",
        highlight=False,
    )
    _judge(soak.held)


def _judge(held: bool) -> None:
    console.print("the promise held" if held else "[red]THE PROMISE WAS BROKEN[/]")
    if not held:
        raise typer.Exit(1)


def _record(path: Path, part: str, figures: dict[str, object]) -> None:
    """Renew one part of the result file."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[part] = {"command": f"python -m benchmarks.reliability {part}", **provenance(), **figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _folder(parent: Path | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rekam-reliability-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _bar(text: str, total: int) -> Iterator[Step]:
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    app()
