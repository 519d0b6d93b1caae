"""What the service promises under ill treatment, shown on real processes; recorded in benchmarks/results/.

    python -m benchmarks.reliability kill    kill -9 in the middle of enrolments, with clients that retry
    python -m benchmarks.reliability race    one person enrolled twice at the same moment
    python -m benchmarks.reliability trace   the log is on disk before the answer leaves: system calls

Every server here is `rekam serve` in a process of its own, every client a gRPC client; people are synthetic.
"""

import json
import os
import random
import re
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.population import person
from benchmarks.provenance import ROOT, provenance
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.client import Client
from rekam.store import DATABASE
from rekam.v1 import enrollment_pb2, gallery_pb2, types_pb2

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
PAUSE_SECONDS = 0.2
# What a client may answer by sending the same request again.
_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
Step = Callable[[], None]
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


# kill -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Killed:
    """What `kill -9` did. The promise holds where everything acknowledged is there, and once."""

    rounds: int
    acknowledged: int
    in_flight_at_kill: int
    retries: int
    committed_but_unanswered: int
    missing: int
    changed: int
    enrolled_twice: int
    niks_with_two_subjects: int
    not_found_by_search: int
    database_sound: bool
    slowest_start_s: float

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        faults = self.missing, self.changed, self.enrolled_twice, self.niks_with_two_subjects
        return not any(faults) and not self.not_found_by_search and self.database_sound


class _Enroller:
    """Clients that enrol one person after the other, each until it is acknowledged."""

    def __init__(self, address: str, clients: int) -> None:
        self.address = address
        self.answers: dict[int, enrollment_pb2.EnrollResponse] = {}
        self.in_flight: set[int] = set()
        self.retries = 0
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
                    request = enrolment(number)
                    self.answers[number] = self._until_acknowledged(client, number, request)
        except BaseException as error:
            self.failure = error

    def _until_acknowledged(
        self, client: Client, number: int, request: enrollment_pb2.EnrollRequest
    ) -> enrollment_pb2.EnrollResponse:
        while True:
            self.in_flight.add(number)
            try:
                return client.enrollment.Enroll(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                if not isinstance(error, grpc.Call) or error.code() not in _RETRIED:
                    raise
                with self._lock:
                    self.retries += 1
                time.sleep(PAUSE_SECONDS)
            finally:
                self.in_flight.discard(number)


def enrolment(number: int) -> enrollment_pb2.EnrollRequest:
    """The first enrolment of made-up person `number`, fingers and eyes: always the same bytes."""
    request = enroll_request(f"kill-{number}", made_up_nik(number), person(number, SEED, FINGERS))
    request.samples.extend(_eyes(number))
    return request


def _eyes(number: int, flipped: float = 0.0) -> list[types_pb2.Sample]:
    """Both eyes of made-up person `number`: codes by chance, and a share of their bits the other way."""
    samples = []
    for eye in (EyePosition.RIGHT, EyePosition.LEFT):
        rng = np.random.default_rng((SEED, number, eye))
        bits = rng.random(64 * GROUP_WORDS) < 0.5
        turned = rng.random(len(bits)) < flipped
        code = np.packbits(bits ^ turned, bitorder="little").view("<u8").astype(np.uint64)
        iris = IrisTemplate(code, np.full(len(code), 2**64 - 1, dtype=np.uint64), eye, 80)
        position = types_pb2.EyePosition.ValueType(eye)
        samples.append(
            types_pb2.Sample(modality=types_pb2.MODALITY_IRIS, eye=position, template=iris.to_bytes())
        )
    return samples


def kill_rounds(folder: Path, rounds: int, *, clients: int = 4, step: Step = lambda: None) -> Killed:
    """Kill the server `rounds` times while clients enrol; then look at everything that was acknowledged."""
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
                under_way = set(enroller.in_flight)
                in_flight += len(under_way)
                process.kill()
                cut_off |= dict.fromkeys(under_way, time.time())
                # 2. It starts again by itself; the clients go on with the same request ids.
                begin = time.monotonic()
                process.start()
                starts.append(time.monotonic() - begin)
                step()
        enroller.check()
        answers = enroller.answers

        # 3. Everything acknowledged is there, unchanged, once, and found.
        missing = changed = lost = 0
        with Client(process.address) as client:
            for number, answer in answers.items():
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
            for rank, number in enumerate(list(answers)[::5]):
                # Every other one by the eyes alone.
                by_eyes = rank % 2 == 1
                fingers = () if by_eyes else again(person(number, SEED, FINGERS), number)
                request_back = enroll_request(f"back-{number}", made_up_nik(9_000 - number), fingers)
                request_back.samples.extend(_eyes(number, 0.1) if by_eyes else ())
                back = client.enrollment.Enroll(request_back, timeout=CALL_SECONDS).encounter
                mates = [c.nik for c in back.evidence.candidates[:1]]
                caught = back.decision == types_pb2.DECISION_DUPLICATE
                lost += not (caught and mates == [made_up_nik(number)])
            niks = [subject.nik for subject in _subjects(client)]
    missing += len({made_up_nik(number) for number in answers} - set(niks))

    # 4. The same, asked of the database itself.
    with sqlite3.connect(process.data / DATABASE) as database:
        [[twice]] = database.execute(
            "SELECT count(*) FROM (SELECT request_id FROM encounter GROUP BY request_id HAVING count(*) > 1)"
        )
        [[sound]] = database.execute("PRAGMA integrity_check")
    database.close()
    return Killed(
        rounds=rounds,
        acknowledged=len(answers),
        in_flight_at_kill=in_flight,
        retries=enroller.retries,
        committed_but_unanswered=sum(
            answers[number].encounter.create_time.ToNanoseconds() / 1e9 < moment
            for number, moment in cut_off.items()
        ),
        missing=missing,
        changed=changed,
        enrolled_twice=twice + len(niks) - len(answers),
        niks_with_two_subjects=sum(count > 1 for count in Counter(niks).values()),
        not_found_by_search=lost,
        database_sound=sound == "ok",
        slowest_start_s=round(max(starts), 1),
    )


def _subjects(client: Client) -> Iterator[gallery_pb2.Subject]:
    request = gallery_pb2.ListSubjectsRequest(page_size=1000)
    while True:
        page = client.gallery.ListSubjects(request, timeout=CALL_SECONDS)
        yield from page.subjects
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


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


# The commands -----------------------------------------------------------------------------------------


@app.command("kill")
def kill_command(rounds: Rounds = 30, results: Results = RESULTS) -> None:
    """Pull the plug amid enrolments: nothing acknowledged is missing, nothing is enrolled twice."""
    with _folder() as folder, _bar("killing", rounds) as step:
        killed = kill_rounds(folder, rounds, step=step)
    _record(results, "kill", asdict(killed))
    console.print(
        f"{rounds} kills, {killed.in_flight_at_kill} enrolments cut off, {killed.retries} retries; "
        f"{killed.acknowledged} acknowledged: {killed.missing} missing, {killed.changed} changed, "
        f"{killed.enrolled_twice} enrolled twice; {killed.committed_but_unanswered} were committed before "
        f"the kill and answered after it; slowest start {killed.slowest_start_s} s",
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
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rekam-reliability-") as folder:
        yield Path(folder)


@contextmanager
def _bar(text: str, total: int) -> Iterator[Step]:
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    app()
