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

import json
import random
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.acknowledged import (
    CALL_SECONDS,
    FINGERS,
    SEED,
    Enroller,
    Kept,
    enrolment,
    what_is_kept,
    with_database,
)
from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.ill_treatment import (
    ballast,
    corrupted_index,
    full_disk,
    jumping_clock,
    no_room_for_files,
    soaked,
)
from benchmarks.population import person
from benchmarks.provenance import ROOT, provenance
from benchmarks.server_process import Broken, server
from rekam.client import Client
from rekam.store import DATABASE
from rekam.v1 import enrollment_pb2, types_pb2

RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
Step = Callable[[], None]
Rounds = Annotated[int, typer.Option(min=1, help="How often.")]
Results = Annotated[Path, typer.Option(help="File of the results; each command renews its own part.")]


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
        with Enroller(process.address, clients) as enroller:
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
