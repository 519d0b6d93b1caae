"""The load benchmark in small: it sends what it says, when it says, and counts what came of it."""

import math
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load import (
    Bystander,
    Due,
    Latency,
    Requests,
    Step,
    Workload,
    _arrivals,
    capacity,
    nik_of,
    picture,
    populate,
    send,
)
from rekam.nik import parse_nik
from rekam.v1 import enrollment_pb2, identification_pb2
from tests.service import running

PEOPLE = 25


def test_made_up_people_have_niks_of_their_own() -> None:
    numbers = [*range(0, 300_000, 1_009), *range(9_990, 10_010)]
    niks = [nik_of(number) for number in numbers]
    assert len(set(niks)) == len(set(numbers))
    assert all(parse_nik(nik).digits == nik for nik in niks)


def test_arrivals_are_as_many_as_are_due_and_in_order() -> None:
    at = _arrivals(20.0, 5.0, np.random.default_rng(1))
    assert len(at) == 100
    assert (np.diff(at) >= 0).all()
    assert 0 <= at[0] <= at[-1] <= 5


def test_quantiles_of_nothing_are_nothing() -> None:
    assert math.isnan(Latency.of([]).p99)
    assert Latency.of([1.0, 2.0, 3.0]).p50 == 2.0


def test_a_mixed_load_is_sent_answered_and_counted(tmp_path: Path) -> None:
    encounter_id = populate(tmp_path / "data", PEOPLE)
    with running(tmp_path / "data") as service:
        requests = Requests(Workload.MIXED, PEOPLE, encounter_id)
        methods, sent = requests.draw(20)
        assert set(methods) == {"identify", "enroll", "read"}
        at = tuple(0.02 * k for k in range(20))
        bystander = Bystander()
        with bystander.watching(service.server.address, encounter_id):
            told = send(service.server.address, time.monotonic() + 0.2, Due(at, methods, sent), 60.0)
        assert [one.outcome for one in told] == ["OK"] * 20
        assert sorted(one.method for one in told) == sorted(methods)
        assert all(0 <= one.late <= one.seconds for one in told)
        assert bystander.seconds
        assert bystander.failed == 0
        # Newcomers were new, and those looked for are there.
        assert service.stats().encounters_enrolled == PEOPLE + methods.count("enroll")
        probe = identification_pb2.IdentifyRequest.FromString(sent[methods.index("identify")])
        found = service.client.identification.Identify(probe, timeout=60)
        assert found.match == identification_pb2.MATCH_YES
        newcomer = enrollment_pb2.EnrollRequest.FromString(sent[methods.index("enroll")])
        assert parse_nik(newcomer.nik).digits == newcomer.nik
        assert capacity(service.server.address, requests, callers=2, seconds=0.5) > 0


def test_what_is_refused_is_told_from_what_failed() -> None:
    nothing = Latency.of([])
    one = Step(
        offered=10.0,
        of_capacity=3.0,
        sent=10,
        answered_rate=5.0,
        outcomes={"OK": 5, "QUEUE_FULL": 1, "WAIT_TOO_LONG": 2, "DEADLINE_EXCEEDED": 2},
        latency=Latency.of([0.1]),
        refusal_latency=nothing,
        bystander=nothing,
        bystander_failed=0,
        late_p99=0.0,
        commit_group=math.nan,
        resident_bytes=1,
    )
    assert one.refused == pytest.approx(0.3)
    assert one.failed == pytest.approx(0.2)
    assert len(picture({"identify": [one, one]}, timeout=5.0).axes) == 2
