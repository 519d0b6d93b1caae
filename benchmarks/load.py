"""How the service behaves under load, in benchmarks/results/load.json and load.png.

    python -m benchmarks.load [--people 2000] [--seconds 8] [--workload identify --workload mixed]

`rekam serve` runs in a process of its own over a gallery of synthetic people, on loopback. First callers who
wait for each answer find how much it can do. Then clients in several processes send at set rates, from 0.3 to
3 times that, whether it answers or not: an open loop, arrivals by a Poisson process, latency counted from the
moment a call was due. Meanwhile a bystander reads a record and asks for health, ten times a second.
"""

import json
import math
import multiprocessing
import os
import secrets
import socket
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Annotated, cast

import grpc
import numpy as np
import typer
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from matplotlib.figure import Figure
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.encounters import Fingers, again, enroll_request, made_up_nik, samples
from benchmarks.population import TEN_FINGERS, person
from benchmarks.provenance import ROOT, provenance
from benchmarks.server_process import server
from matching.decision import Decision
from rekam.store import EncounterState, SampleRecord, Store
from rekam.v1 import enrollment_pb2, identification_pb2, types_pb2

RESULTS = ROOT / "benchmarks" / "results"
SEED = 2026
RATES = (0.3, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
REFUSED = ("QUEUE_FULL", "WAIT_TOO_LONG")
PROBES = 96
_BATCH = 200
_BYSTANDER_SECONDS = 0.1
_METHODS = {
    "identify": "/rekam.v1.IdentificationService/Identify",
    "enroll": "/rekam.v1.EnrollmentService/Enroll",
    "read": "/rekam.v1.EnrollmentService/GetEncounter",
}
console = Console()


class Workload(StrEnum):
    """What clients ask for."""

    IDENTIFY = "identify"  # ten fingers as templates, searched among everybody
    IMAGE = "identify-image"  # one finger as an image, by the fast extractor
    ENROLL = "enroll"  # new people, ten fingers as templates
    MIXED = "mixed"  # six searches, two enrolments, two records read


SHARES = {
    Workload.IDENTIFY: {"identify": 1.0},
    Workload.IMAGE: {"identify": 1.0},
    Workload.ENROLL: {"enroll": 1.0},
    Workload.MIXED: {"identify": 0.6, "enroll": 0.2, "read": 0.2},
}


# What is sent ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Due:
    """Calls of one client process: when each is due, seconds from the start, and what it sends."""

    at: tuple[float, ...]
    method: tuple[str, ...]
    request: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to one call. `seconds` from when it was due, `late` of them before it was sent."""

    method: str
    outcome: str  # OK, or the stable reason, or the code where there is no reason
    seconds: float
    late: float


class Requests:
    """Serialised requests of a workload; enrolments are of new people each."""

    def __init__(self, workload: Workload, people: int, encounter_id: str) -> None:
        self._shares = SHARES[workload]
        self._rng = np.random.default_rng((SEED, len(workload)))
        self._read = enrollment_pb2.GetEncounterRequest(encounter_id=encounter_id).SerializeToString()
        self._newcomers = people
        fingers = _images() if workload is Workload.IMAGE else None
        probes = fingers or [samples(again(person(k % people, SEED, TEN_FINGERS), k)) for k in range(PROBES)]
        self._probes = [
            identification_pb2.IdentifyRequest(samples=probe).SerializeToString() for probe in probes
        ]

    def draw(self, count: int) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
        """Methods and requests of so many calls."""
        methods = self._rng.choice(list(self._shares), size=count, p=list(self._shares.values()))
        return tuple(map(str, methods)), tuple(self._one(str(method)) for method in methods)

    def _one(self, method: str) -> bytes:
        match method:
            case "identify":
                return self._probes[int(self._rng.integers(len(self._probes)))]
            case "enroll":
                self._newcomers += 1
                fingers = person(self._newcomers, SEED, TEN_FINGERS)
                nik = nik_of(self._newcomers)
                return enroll_request(f"load-{secrets.token_hex(8)}", nik, fingers).SerializeToString()
            case _:
                return self._read


def nik_of(number: int) -> str:
    """A valid NIK for each of a few hundred thousand made-up people."""
    day, serial = divmod(number, 9_999)
    return f"{made_up_nik(serial)[:6]}{day % 28 + 1:02}{day // 28 % 12 + 1:02}90{serial + 1:04}"


def _images() -> list[list[types_pb2.Sample]]:
    """Real prints, one each. Raises `FileNotFoundError` where there are none."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    files = sorted((data / "fingerprint" / "crossmatch").glob("*_1.png"))
    if not files:
        raise FileNotFoundError(f"no prints in {data}: set REKAM_DATA to the folder of development images")
    return [
        [
            types_pb2.Sample(
                modality=types_pb2.MODALITY_FINGERPRINT,
                finger=types_pb2.FINGER_POSITION_RIGHT_INDEX,
                image=file.read_bytes(),
                ppi=500,
                extractor=types_pb2.EXTRACTOR_FAST,
                best_effort=True,
            )
        ]
        for file in files
    ]


def populate(folder: Path, people: int) -> str:
    """Write so many people into a new data folder; the id of an encounter of theirs."""
    now = datetime.now(UTC)
    with Store.open(folder) as store:
        for first in range(0, people, _BATCH):
            with store.transaction() as t:
                for number in range(first, min(first + _BATCH, people)):
                    fingers: Fingers = person(number, SEED, TEN_FINGERS)
                    nik = nik_of(number)
                    key = t.add_subject(f"s-{number}", nik, now)
                    t.add_encounter(
                        encounter_id=f"e-{number}",
                        subject_key=key,
                        nik=nik,
                        decision=Decision.UNIQUE,
                        reasons=(),
                        state=EncounterState.ENROLLED,
                        request_id=f"populate-{number}",
                        created_at=now,
                        samples=[SampleRecord(f.position, f.to_bytes(), f.quality) for f in fingers],
                        evidence=_NO_EVIDENCE,
                    )
    return "e-0"


_NO_EVIDENCE = (
    b'{"candidates":[],"match_llr":0,"review_llr":0,"verify_llr":0,"gallery_encounters":0,'
    b'"nik_known":false,"nik_warnings":[]}'
)


# The clients -----------------------------------------------------------------------------------------


def send(address: str, start: float, due: Due, timeout: float) -> list[Told]:
    """Send each call when it is due, on the clock that all processes share; wait for the last answer."""
    told: list[Told] = []
    answered = threading.Semaphore(0)
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stubs = {name: channel.unary_unary(path, None, None) for name, path in _METHODS.items()}
        for at, method, request in zip(due.at, due.method, due.request, strict=True):
            moment = start + at
            time.sleep(max(0.0, moment - time.monotonic()))
            late = time.monotonic() - moment
            call = stubs[method].future(request, timeout=timeout)

            def done(
                call: "grpc.Future[bytes]", method: str = method, moment: float = moment, late: float = late
            ) -> None:
                told.append(Told(method, _outcome(call), time.monotonic() - moment, late))
                answered.release()

            call.add_done_callback(done)
        for _ in due.at:
            answered.acquire()
    return told


def _outcome(call: object) -> str:
    answer = cast(grpc.Call, call)
    if answer.code() is grpc.StatusCode.OK:
        return "OK"
    status = rpc_status.from_call(answer)
    info = ErrorInfo()
    for detail in () if status is None else status.details:
        if detail.Unpack(info):
            return info.reason
    return str(answer.code().name)


def capacity(address: str, requests: Requests, callers: int, seconds: float) -> float:
    """Calls a second that callers get answered who each wait for one answer before they ask again."""
    done = [0] * callers
    until = time.monotonic() + seconds
    drawn = [requests.draw(max(50, round(40 * seconds))) for _ in range(callers)]

    def call(place: int) -> None:
        with grpc.insecure_channel(address) as channel:
            stubs = {name: channel.unary_unary(path, None, None) for name, path in _METHODS.items()}
            for method, request in zip(*drawn[place], strict=True):
                if time.monotonic() >= until:
                    return
                stubs[method](request, timeout=60)
                done[place] += 1

    until = time.monotonic() + seconds
    begin = time.monotonic()
    threads = [threading.Thread(target=call, args=(place,)) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - begin)


@dataclass(slots=True)
class Bystander:
    """Somebody who reads a record and asks for health while others load the service."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    @contextmanager
    def watching(self, address: str, encounter_id: str) -> Iterator[None]:
        """Ask all through the block."""
        stop = threading.Event()
        request = enrollment_pb2.GetEncounterRequest(encounter_id=encounter_id).SerializeToString()

        def ask() -> None:
            with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                read = channel.unary_unary(_METHODS["read"], None, None)
                health = health_pb2_grpc.HealthStub(channel)
                while not stop.wait(_BYSTANDER_SECONDS):
                    begin = time.monotonic()
                    try:
                        read(request, timeout=5)
                        health.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
                    except grpc.RpcError:
                        self.failed += 1
                    self.seconds.append(time.monotonic() - begin)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


# One rate --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of seconds; NaN where there was nothing."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Quantiles of these."""
        if not seconds:
            return cls(math.nan, math.nan, math.nan)
        return cls(*(round(float(np.quantile(seconds, q)), 4) for q in (0.5, 0.95, 0.99)))


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one offered rate. Rates are calls a second; latencies of answered calls, seconds."""

    offered: float
    of_capacity: float
    sent: int
    answered_rate: float
    outcomes: dict[str, int]
    latency: Latency
    refusal_latency: Latency
    bystander: Latency
    bystander_failed: int
    late_p99: float
    commit_group: float
    resident_bytes: int

    @property
    def refused(self) -> float:
        """Share of the calls that were refused at once."""
        return sum(self.outcomes.get(reason, 0) for reason in REFUSED) / max(self.sent, 1)

    @property
    def failed(self) -> float:
        """Share of the calls that were neither answered nor refused: their deadline passed, mostly."""
        neither = self.sent - sum(self.outcomes.get(outcome, 0) for outcome in ("OK", *REFUSED))
        return neither / max(self.sent, 1)


def step(
    pool: Pool,
    target: "Target",
    requests: Requests,
    rate: float,
    of_capacity: float,
    seconds: float,
    timeout: float,
) -> Step:
    """Offer one rate for so many seconds."""
    processes = cast(int, pool._processes)  # type: ignore[attr-defined]  # the pool has no public one
    rng = np.random.default_rng((SEED, round(1000 * rate)))
    dues = []
    for _ in range(processes):
        at = _arrivals(rate / processes, seconds, rng)
        dues.append(Due(tuple(map(float, at)), *requests.draw(len(at))))
    before = target.scrape()
    bystander = Bystander()
    with bystander.watching(target.address, target.encounter_id):
        start = time.monotonic() + 1.0  # time for the channels
        jobs = [(target.address, start, due, timeout) for due in dues]
        told = [one for answers in pool.starmap(send, jobs) for one in answers]
    after = target.scrape()
    good = [one for one in told if one.outcome == "OK"]
    refused = [one.seconds for one in told if one.outcome in REFUSED]
    return Step(
        offered=round(rate, 2),
        of_capacity=of_capacity,
        sent=len(told),
        # Those of the last moments are answered after the end: what was due in the window counts for it.
        answered_rate=round(len(good) / seconds, 2),
        outcomes=dict(Counter(one.outcome for one in told)),
        latency=Latency.of([one.seconds for one in good]),
        refusal_latency=Latency.of(refused),
        bystander=Latency.of(bystander.seconds),
        bystander_failed=bystander.failed,
        late_p99=Latency.of([one.late for one in told]).p99,
        commit_group=_mean(before, after, "rekam_commit_group_size"),
        resident_bytes=int(after["process_resident_memory_bytes"]),
    )


def _arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Moments of a Poisson process that has just as many as are due."""
    return np.sort(rng.uniform(0, seconds, max(1, round(rate * seconds))))


def _mean(before: dict[str, float], after: dict[str, float], name: str) -> float:
    count = after.get(f"{name}_count", 0) - before.get(f"{name}_count", 0)
    total = after.get(f"{name}_sum", 0) - before.get(f"{name}_sum", 0)
    return round(total / count, 2) if count else math.nan


@dataclass(frozen=True, slots=True)
class Target:
    """The server under load."""

    address: str
    metrics_port: int
    encounter_id: str

    def scrape(self) -> dict[str, float]:
        """Its metrics that have no labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return {one.name: one.value for family in families for one in family.samples if not one.labels}


# All of it -------------------------------------------------------------------------------------------


def main(
    people: Annotated[int, typer.Option(min=10, max=100_000, help="Gallery of synthetic people.")] = 2_000,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="How long each rate is offered.")] = 8.0,
    workload: Annotated[list[Workload] | None, typer.Option(help="What to ask for; repeat for more.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=16, help="Client processes.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.1, max=120, help="Deadline of each call, seconds.")] = 5.0,
    setting: Annotated[list[str] | None, typer.Option(help="REKAM_NAME=value for the server.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = RESULTS,
) -> None:
    """Load a server and record what it does."""
    workloads = workload or [Workload.IDENTIFY, Workload.MIXED]
    found: dict[str, dict[str, object]] = {}
    curves: dict[str, list[Step]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(processes) as pool,
    ):
        console.print(f"{people} people ...")
        encounter_id = populate(Path(folder) / "data", people)
        metrics_port = _free_port()
        settings = [f"REKAM_METRICS_PORT={metrics_port}", *(setting or [])]
        with server(Path(folder), ["env", *settings]) as process:
            target = Target(process.address, metrics_port, encounter_id)
            for number, one in enumerate(workloads):
                # Newcomers of each workload are others.
                requests = Requests(one, people + 50_000 * number, encounter_id)
                most = capacity(target.address, requests, callers=8, seconds=seconds)
                console.print(f"{one}: {most:.1f} calls a second")
                steps = []
                for share in RATES:
                    steps.append(step(pool, target, requests, share * most, share, seconds, timeout))
                    console.print(_line(steps[-1]))
                curves[one] = steps
                found[one] = _summary(most, steps)
    record = {
        "command": f"python -m benchmarks.load --people {people} --seconds {seconds:g} --timeout {timeout:g} "
        f"--processes {processes} " + " ".join(f"--workload {one}" for one in workloads),
        **provenance(),
        "parameters": {
            "people": people,
            "seconds": seconds,
            "timeout": timeout,
            "processes": processes,
            "settings": setting or [],
            "seed": SEED,
        },
        "workloads": found,
    }
    results.mkdir(exist_ok=True)
    (results / "load.json").write_text(json.dumps(_plain(record), indent=1) + "\n", encoding="utf-8")
    picture(curves, timeout).savefig(results / "load.png", dpi=110)
    for name, steps in curves.items():
        console.print(table(name, steps))


def _summary(most: float, steps: Sequence[Step]) -> dict[str, object]:
    peak = max(one.answered_rate for one in steps)
    return {
        "capacity": round(most, 2),
        "peak_rate": peak,
        "rate_at_most_overload": steps[-1].answered_rate,
        "kept_at_most_overload": round(steps[-1].answered_rate / peak, 3),
        "steps": [asdict(one) for one in steps],
    }


def _plain(value: object) -> object:
    """NaN is no JSON."""
    match value:
        case float() if math.isnan(value):
            return None
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value


def _free_port() -> int:

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _line(one: Step) -> str:
    answered, refusals = one.latency, one.refusal_latency
    return (
        f"  {one.of_capacity:.1f}x: offered {one.offered:.1f}/s, answered {one.answered_rate:.1f}/s, "
        f"refused {one.refused:.0%}, failed {one.failed:.0%}, "
        f"p50 {answered.p50:.3f} p95 {answered.p95:.3f} p99 {answered.p99:.3f} s; "
        f"refusals p99 {refusals.p99:.3f} s; bystander p99 {one.bystander.p99:.3f} s, "
        f"{one.bystander_failed} failed; {one.commit_group} a commit"
    )


def table(name: str, steps: Sequence[Step]) -> Table:
    """One workload, a row a rate."""
    made = Table(
        f"{name}, x capacity",
        "offered/s",
        "answered/s",
        "refused",
        "failed",
        "p50 s",
        "p95 s",
        "p99 s",
        "others",
    )
    for one in steps:
        made.add_row(
            f"{one.of_capacity:.1f}",
            f"{one.offered:.1f}",
            f"{one.answered_rate:.1f}",
            f"{one.refused:.1%}",
            f"{one.failed:.1%}",
            *(f"{q:.3f}" for q in (one.latency.p50, one.latency.p95, one.latency.p99)),
            f"{one.bystander.p99:.3f}",
        )
    return made


def picture(curves: dict[str, list[Step]], timeout: float) -> Figure:
    """Latency and throughput against the offered load, a row a workload."""
    figure = Figure(figsize=(10, 3.6 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 2, squeeze=False)
    for (latency, rate), (name, steps) in zip(axes, curves.items(), strict=True):
        offered = [one.offered for one in steps]
        for quantile in ("p50", "p95", "p99"):
            latency.plot(
                offered, [getattr(one.latency, quantile) for one in steps], marker="o", label=quantile
            )
        latency.axhline(timeout, color="grey", linestyle=":", label="deadline")
        latency.set(
            title=f"{name}: latency of answers",
            xlabel="offered, calls a second",
            ylabel="seconds",
            yscale="log",
        )
        latency.legend()
        rate.plot(offered, [one.answered_rate for one in steps], marker="o", label="answered in time")
        rate.plot(offered, offered, ":", color="grey", label="offered")
        rate.plot(offered, [one.refused * one.offered for one in steps], marker="x", label="refused at once")
        rate.set(title=f"{name}: throughput", xlabel="offered, calls a second", ylabel="calls a second")
        rate.legend()
    return figure


if __name__ == "__main__":
    typer.run(main)
