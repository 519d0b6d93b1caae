"""Admission: gates and lanes exactly, then a server that is given more than it can do."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.admission import simulated
from benchmarks.encounters import absent, enroll_request, made_up_nik
from capture.sample import FingerPosition
from matching.gallery import Gallery
from matching.wanted import while_wanted
from rekam.admission import MARGIN, Gate, Lane, calls_at_once
from rekam.capturing import Capturing, Check, form_of
from rekam.client import Client
from rekam.config import load_settings
from rekam.errors import DeadlinePassed, Overloaded, QueueFull, WaitTooLong
from rekam.exchange import Presented
from rekam.server import SERVICES, Server
from rekam.v1 import (
    case_pb2,
    enrollment_pb2,
    gallery_pb2,
    identification_pb2,
    quality_pb2,
    types_pb2,
)
from rekam.workflow import Workflow
from tests.service import FOUR, Service, fingers, running

Code = grpc.StatusCode
SECONDS = 30


def never() -> None:
    """No deadline."""


def gone() -> None:
    raise DeadlinePassed("too late")


def so_often(times: int) -> Check:
    """Raises from then on."""
    left = iter([never] * times)
    return lambda: next(left, gone)()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


# Gate -------------------------------------------------------------------------------------------------


def test_a_gate_lets_in_what_fits_in_the_order_it_came() -> None:
    gate, order = Gate(3), list[int]()
    gate.enter(2, never)
    with ThreadPoolExecutor(3) as threads:

        def enter(amount: int) -> None:
            gate.enter(amount, never)
            order.append(amount)

        jobs = []
        for amount in (3, 1):  # the one would fit, and waits behind the three
            jobs.append(threads.submit(enter, amount))
            until(lambda: len(gate._waiting) == len(jobs))
        assert order == []
        gate.leave(2)
        jobs[0].result(SECONDS)
        assert (order, gate.taken) == ([3], 3)
        gate.leave(3)
        jobs[1].result(SECONDS)
        assert (order, gate.taken) == ([3, 1], 1)


def test_who_waits_no_more_lets_the_next_in() -> None:
    gate, left = Gate(2), threading.Event()
    gate.enter(2, never)
    with ThreadPoolExecutor(2) as threads:

        def check() -> None:
            if left.is_set():
                gone()

        impatient = threads.submit(gate.enter, 2, check)
        until(lambda: len(gate._waiting) == 1)
        gate.leave(1)
        patient = threads.submit(gate.enter, 1, never)
        until(lambda: len(gate._waiting) == 2)
        left.set()
        with pytest.raises(DeadlinePassed):
            impatient.result(SECONDS)
        patient.result(SECONDS)
        assert gate.taken == 2


def test_who_is_let_in_too_late_does_not_start_and_gives_back_what_it_took() -> None:
    gate = Gate(1)
    with pytest.raises(DeadlinePassed):
        gate.enter(1, gone)
    assert gate.taken == 0


def test_a_crowd_never_has_more_than_there_is() -> None:
    gate, lock, inside, most = Gate(5), threading.Lock(), [0], [0]

    def work(amount: int) -> None:
        for _ in range(50):
            gate.enter(amount, never)
            with lock:
                inside[0] += amount
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= amount
            gate.leave(amount)

    with ThreadPoolExecutor(8) as threads:
        for job in [threads.submit(work, 1 + k % 5) for k in range(8)]:
            job.result(SECONDS)
    assert most[0] <= 5
    assert gate.taken == 0


# Lane -------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def served(lane: Lane, clock: Clock, seconds: float, check: Check = never) -> None:
    with lane.place(None), lane.in_line():
        clock.now += seconds
        check()


def test_nothing_is_known_of_a_lane_that_has_done_nothing() -> None:
    lane = Lane(1, 2)
    assert lane.expected_wait() is None
    with lane.place(0.001), lane.in_line(), lane.place(0.001):  # unknown is no reason to refuse
        pass


def test_the_wait_is_what_those_before_take() -> None:
    clock = Clock()
    lane = Lane(2, 10, clock)
    served(lane, clock, 4.0)  # one alone: four seconds of one of two
    clock.now += 1000  # idle time costs nothing
    assert lane.expected_wait() == 0
    with ExitStack() as line:
        waits = []
        for _ in range(5):
            line.enter_context(lane.place(None))
            line.enter_context(lane.in_line())
            waits.append(lane.expected_wait())
    assert waits == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_what_is_done_together_costs_less_each() -> None:
    clock = Clock()
    lane = Lane(2, 10, clock)
    with ExitStack() as line:
        for _ in range(4):  # four at once, done together after three seconds
            line.enter_context(lane.place(None))
            line.enter_context(lane.in_line())
        clock.now += 3
    for _ in range(200):
        with ExitStack() as line:
            for _ in range(4):
                line.enter_context(lane.place(None))
                line.enter_context(lane.in_line())
            clock.now += 3
    with ExitStack() as line:
        for _ in range(5):
            line.enter_context(lane.place(None))
            line.enter_context(lane.in_line())
        # Four in three seconds; a sixth call waits until four are done.
        assert lane.expected_wait() == pytest.approx(3.0, rel=0.15)


def test_work_that_was_thrown_away_is_a_cost_of_what_is_done() -> None:
    clock = Clock()
    lane = Lane(1, 10, clock)
    with pytest.raises(DeadlinePassed):
        served(lane, clock, 3.0, gone)
    assert lane.expected_wait() is None
    served(lane, clock, 1.0)
    with lane.place(None), lane.in_line():
        assert lane.expected_wait() == 4.0


def test_a_full_lane_refuses_with_advice() -> None:
    clock = Clock()
    lane = Lane(1, 2, clock)
    served(lane, clock, 2.0)
    with ExitStack() as line:
        for _ in range(3):
            line.enter_context(lane.place(None))
            line.enter_context(lane.in_line())
        with pytest.raises(QueueFull) as refused, lane.place(None):
            pass
        assert refused.value.retry_after == 6.0
    with lane.place(None):
        pass


def test_a_caller_without_the_time_is_refused_at_once_and_one_with_it_is_not() -> None:
    clock = Clock()
    lane = Lane(1, 10, clock)
    served(lane, clock, 1.0)
    with lane.place(None), lane.in_line():
        # One second until its turn, one of its own: half of four.
        with pytest.raises(WaitTooLong) as refused, lane.place(3.9):
            pass
        assert refused.value.retry_after == 1.0
        with lane.place(4.1):
            pass
    with lane.place(0.01):  # nobody before it: tried
        pass


@given(
    st.integers(1, 4),
    st.integers(0, 5),
    st.lists(st.tuples(st.floats(0, 100), st.one_of(st.none(), st.floats(0, 100))), max_size=30),
)
def test_whoever_finds_a_lane_free_is_taken_and_advice_is_within_bounds(
    at_once: int, queue: int, calls: list[tuple[float, float | None]]
) -> None:
    clock = Clock()
    lane = Lane(at_once, queue, clock)
    with ExitStack() as line:
        taken, advised = 0, list[float]()
        for seconds, remaining in calls:
            clock.now += seconds
            try:
                line.enter_context(lane.place(remaining))
            except Overloaded as error:
                advised.append(error.retry_after)
            else:
                line.enter_context(lane.in_line())
                taken += 1
        assert min(at_once, len(calls)) <= taken <= at_once + queue
        assert all(0.1 <= seconds <= 60 for seconds in advised)
    for seconds, _ in calls:
        served(lane, clock, seconds)


@pytest.mark.parametrize("of_capacity", [1.5, 3.0])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_overload_does_not_make_less_of_it(of_capacity: float, spread: float) -> None:
    """Simulated calls: what is answered at overload is what is answered at most, and hardly any is late."""
    peak = simulated(1.0, margin=MARGIN, spread=spread, seconds=100)
    over = simulated(of_capacity, margin=MARGIN, spread=spread, seconds=100)
    assert over.answered_rate >= 0.9 * peak.answered_rate
    assert over.late <= 0.02
    # What bounded queues alone would do: work for those who have left.
    queue_only = simulated(of_capacity, margin=None, spread=spread, seconds=100)
    assert queue_only.late >= 0.2


# A server that is given more than it can do -----------------------------------------------------------


class Held:
    """Searches that wait until they are let go, and how many began."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = threading.Event()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path / "data", max_queue=1) as started:
        yield started


@pytest.fixture
def held(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, search = Held(), Gallery.search

    def waiting(gallery: Gallery, *arguments: object, **options: object) -> object:
        held.begun += 1
        assert held.go_on.wait(SECONDS)
        return search(gallery, *arguments, **options)  # type: ignore[arg-type]

    service.enroll(0, fingers(0))
    # On a slow machine what it cost would be a reason to refuse; here the queue is looked at.
    service.server._door._computing_lane._cost = None
    monkeypatch.setattr(Gallery, "search", waiting)
    yield held
    held.go_on.set()


def identify_request() -> identification_pb2.IdentifyRequest:
    return identification_pb2.IdentifyRequest(samples=enroll_request("", "", fingers(0)).samples)


def advice(error: grpc.RpcError) -> tuple[str, float]:
    """The reason and the advised delay of a refusal."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = ErrorInfo(), RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(retry) for detail in status.details), info.reason
    assert info.domain == "rekam"
    return info.reason, retry.retry_delay.ToTimedelta().total_seconds()


def places(service: Service) -> int:
    return service.server._door._computing_lane._places


def test_more_than_may_wait_is_refused_and_records_are_read_meanwhile(service: Service, held: Held) -> None:
    with Client(service.server.address, patient=False) as client, ThreadPoolExecutor(3) as threads:
        identify = client.identification.Identify
        jobs = [threads.submit(identify, identify_request(), timeout=60) for _ in range(3)]
        until(lambda: places(service) == 3)
        # 1. Two are worked on, one waits; the fourth is told when to come again, whatever it asks.
        with pytest.raises(grpc.RpcError) as caught:
            identify(identify_request(), timeout=60)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        reason, delay = advice(caught.value)
        assert reason == "QUEUE_FULL"
        assert 0.1 <= delay <= 60
        for refused in (
            lambda: client.enrollment.Enroll(enroll_request("more", made_up_nik(1), fingers(1)), timeout=60),
            lambda: client.quality.Assess(quality_pb2.AssessRequest(), timeout=60),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                refused()
            assert advice(caught.value)[0] == "QUEUE_FULL"
        # 2. What is cheap is answered.
        assert client.gallery.Stats(gallery_pb2.StatsRequest(), timeout=10).subjects == 1
        assert not client.cases.ListCases(case_pb2.ListCasesRequest(), timeout=10).cases
        assert client.gallery.ListSubjects(gallery_pb2.ListSubjectsRequest(), timeout=10).subjects
        with grpc.insecure_channel(service.server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)  # type: ignore[attr-defined]
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        # 3. Those who were taken are answered.
        held.go_on.set()
        assert all(job.result(60).match == identification_pb2.MATCH_YES for job in jobs)
    until(lambda: places(service) == 0)


def test_who_left_or_is_too_late_never_starts(service: Service, held: Held) -> None:
    with Client(service.server.address, patient=False) as client:
        identify = client.identification.Identify
        first = [identify.future(identify_request(), timeout=60) for _ in range(2)]
        until(lambda: held.begun == 2)
        late = identify.future(identify_request(), timeout=0.5)
        assert late.code() is Code.DEADLINE_EXCEEDED
        until(lambda: places(service) == 2)
        left = identify.future(identify_request(), timeout=60)
        until(lambda: places(service) == 3)
        left.cancel()  # type: ignore[no-untyped-call]
        until(lambda: places(service) == 2)
        held.go_on.set()
        assert all(call.result(60).match == identification_pb2.MATCH_YES for call in first)
    assert held.begun == 2


def test_a_patient_client_comes_again_when_told(service: Service, held: Held) -> None:
    with Client(service.server.address, patient=False) as client, ThreadPoolExecutor(4) as threads:
        jobs = [
            threads.submit(client.identification.Identify, identify_request(), timeout=60) for _ in range(3)
        ]
        until(lambda: places(service) == 3)
        refusals = service.server._metrics.refused.labels("QUEUE_FULL")
        last = threads.submit(service.client.identification.Identify, identify_request(), timeout=60)
        until(lambda: refusals._value.get() >= 2)
        held.go_on.set()
        assert last.result(60).match == identification_pb2.MATCH_YES
        for job in jobs:
            job.result(60)


def test_its_timeout_bounds_the_patience_of_a_client(service: Service, held: Held) -> None:
    with Client(service.server.address, patient=False) as client, ThreadPoolExecutor(3) as threads:
        jobs = [
            threads.submit(client.identification.Identify, identify_request(), timeout=60) for _ in range(3)
        ]
        until(lambda: places(service) == 3)
        with pytest.raises(grpc.RpcError) as caught:
            service.client.identification.Identify(identify_request(), timeout=0.5)
        assert caught.value.code() in (Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)
        held.go_on.set()
        for job in jobs:
            job.result(60)


def test_a_client_does_not_repeat_what_it_is_not_asked_to(service: Service) -> None:
    for request in (
        enrollment_pb2.GetEncounterRequest(encounter_id="e-none"),
        enrollment_pb2.GetEncounterRequest(),
    ):
        calls = service.server._metrics.call_seconds.labels("GetEncounter")
        before = calls._sum.get()
        with pytest.raises(grpc.RpcError):
            service.client.enrollment.GetEncounter(request, timeout=60)
        assert calls._sum.get() > before
    families = {f.name: f for f in service.server._metrics.registry.collect()}
    told = {tuple(s.labels.values()): s.value for s in families["rekam_calls"].samples if "total" in s.name}
    assert told == {("GetEncounter", "NOT_FOUND"): 1, ("GetEncounter", "INVALID_ARGUMENT"): 1}


def test_requests_are_read_only_while_there_is_room_for_them(tmp_path: Path) -> None:
    with running(tmp_path / "data", max_message_bytes=2**20, max_request_bytes=2**20) as service:
        send = threading.Event()

        def slowly() -> Iterator[bytes]:
            assert send.wait(SECONDS)
            yield quality_pb2.AssessRequest().SerializeToString()

        with grpc.insecure_channel(service.server.address) as channel:
            assess = channel.stream_unary("/rekam.v1.QualityService/Assess", None, None)
            slow = assess.future(slowly(), timeout=60)
            until(lambda: service.server._door._memory.taken == 2**20)
            # A message that may be as large as all the room is on its way.
            with pytest.raises(grpc.RpcError) as caught:
                service.client.quality.Assess(quality_pb2.AssessRequest(), timeout=0.5)
            assert caught.value.code() is Code.DEADLINE_EXCEEDED
            assert service.stats().subjects == 0
            send.set()
            assert slow.code() is Code.INVALID_ARGUMENT  # no image in it
        until(lambda: service.server._door._memory.taken == 0)


def test_a_call_without_a_message_is_refused(service: Service) -> None:
    with grpc.insecure_channel(service.server.address) as channel:
        for method in ("QualityService/Assess", "GalleryService/Stats"):
            call = channel.stream_unary(f"/rekam.v1.{method}", None, None)
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(()), timeout=10)
            assert caught.value.code() is Code.INVALID_ARGUMENT


def test_a_server_that_loads_says_so(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", port=0, workers=2)
    server = Server(settings)
    request = gallery_pb2.StatsRequest()
    try:
        with (
            Client(server.address) as patient,
            Client(server.address, patient=False) as hasty,
            grpc.insecure_channel(server.address) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)

            def states() -> set[int]:
                asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", *SERVICES)]
                return {health.Check(one, timeout=10).status for one in asked}  # type: ignore[attr-defined]

            assert states() == {health_pb2.HealthCheckResponse.NOT_SERVING}
            with pytest.raises(grpc.RpcError) as caught:
                hasty.gallery.Stats(request, timeout=10)
            assert caught.value.code() is Code.UNAVAILABLE
            assert advice(caught.value) == ("STARTING", 1.0)
            with ThreadPoolExecutor(1) as threads:
                job = threads.submit(patient.gallery.Stats, request, timeout=60)
                until(lambda: server._metrics.refused.labels("STARTING")._value.get() >= 2)
                workflow = Workflow(settings)
                server.ready(workflow)
                assert job.result(60).subjects == 0
            assert states() == {health_pb2.HealthCheckResponse.SERVING}
    finally:
        server.stop()
    workflow.close()


# Extraction -------------------------------------------------------------------------------------------


class Slow:
    """Stands for decoding: notes whose image it is and waits to be let on, one image at a time."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.let_on = threading.Semaphore(0)

    def __call__(self, presented: Presented, image: bytes) -> object:
        self.order.append(image)
        assert self.let_on.acquire(timeout=SECONDS)
        raise RuntimeError("no image")


def test_a_large_encounter_lets_others_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr("rekam.capturing._decoded", slow)
    capturing = Capturing(load_settings(data_dir=tmp_path, workers=2))
    large = [Presented(position, image=b"large") for position in list(FingerPosition)[1:11]]
    small = [Presented(FingerPosition.LEFT_RING, image=b"small")]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(capturing.capture, large, never)
        until(lambda: len(slow.order) == 2)
        second = threads.submit(capturing.capture, small, never)
        until(lambda: capturing._pool._work_queue.qsize() == 1)
        for _ in range(11):
            slow.let_on.release()
        for job in (first, second):
            with pytest.raises(RuntimeError):
                job.result(SECONDS)
    capturing.close()
    assert slow.order.index(b"small") <= 3


@pytest.mark.parametrize(("checks", "decoded"), [(0, 0), (1, 0), (2, 1)])
def test_extraction_stops_where_the_deadline_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: int, decoded: int
) -> None:
    """Before anything, before decoding, and between decoding and extracting."""
    done = list[bytes]()
    monkeypatch.setattr("rekam.capturing._decoded", lambda presented, image: done.append(image))
    capturing = Capturing(load_settings(data_dir=tmp_path, workers=1))
    with pytest.raises(DeadlinePassed):
        capturing.capture([Presented(FingerPosition.LEFT_RING, image=b"i")], so_often(checks))
    capturing.close()
    assert len(done) == decoded


def test_templates_do_not_wait_for_images_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr("rekam.capturing._decoded", slow)
    capturing = Capturing(load_settings(data_dir=tmp_path, workers=1))
    with ThreadPoolExecutor(1) as threads:
        image = threads.submit(capturing.capture, [Presented(FingerPosition.LEFT_RING, image=b"i")], never)
        until(lambda: slow.order)
        templates = [Presented(f.position, template=f.to_bytes()) for f in fingers(0)]
        assert [c.position for c in capturing.capture(templates, never)] == list(FOUR)
        slow.let_on.release()
        with pytest.raises(RuntimeError):
            image.result(SECONDS)
    capturing.close()


def test_beside_a_large_call_there_is_room_for_another() -> None:
    assert [calls_at_once(workers) for workers in (1, 2, 3, 64)] == [2, 2, 3, 64]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_what_a_refused_request_held_is_let_go_at_once(service: Service, no_collector: None) -> None:
    """Not when the collector of cyclic garbage comes by: requests may be large."""
    image = types_pb2.Sample(
        modality=types_pb2.MODALITY_FINGERPRINT,
        image=b"no image",
        finger=types_pb2.FINGER_POSITION_RIGHT_INDEX,
    )
    requests = (
        lambda: service.client.quality.Assess(quality_pb2.AssessRequest(sample=image), timeout=60),
        lambda: service.client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=[image]), timeout=60
        ),
        lambda: service.client.enrollment.Enroll(
            enrollment_pb2.EnrollRequest(
                request_id="r", nik=made_up_nik(0), samples=[image], missing=absent(fingers(0)[1:2])
            ),
            timeout=60,
        ),
    )
    for request in requests:
        with pytest.raises(grpc.RpcError) as caught:
            request()
        assert caught.value.code() is Code.INVALID_ARGUMENT
        assert "image" in str(caught.value.details())
        until(lambda: service.server._door.calls._number == 0)
        until(lambda: not [one for one in gc.get_objects() if isinstance(one, Presented)])


def test_a_search_stops_where_the_deadline_passes(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "gallery")
    for number in range(60):
        gallery.add(number, number, form_of(fingers(number % 3)))
    probe, asked = form_of(fingers(0)), [0]

    def counting() -> None:
        asked[0] += 1

    with while_wanted(counting):
        gallery.search(probe)
    in_search, asked[0] = asked[0], 0
    with while_wanted(counting):
        gallery.search_exhaustively(probe)
    assert asked[0] == 60
    assert in_search > 20  # before each segment for each modality, and before each comparison
    for allowed in (0, 1, in_search - 1):
        with while_wanted(so_often(allowed)), pytest.raises(DeadlinePassed):
            gallery.search(probe)
    gallery.search(probe)  # nobody asks any more
    gallery.close()
