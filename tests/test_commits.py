"""Group commit: one writer, one durable answer each, and a fault that stays where it belongs."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

import rekam.commits
from rekam.commits import GroupCommit
from rekam.errors import DeadlinePassed, RekamError, ShuttingDown, StoreFull, WrongState
from rekam.store import Reader, Store, Transaction
from tests.places import Place, now

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened


@pytest.fixture
def commits(store: Store) -> Iterator[GroupCommit]:
    group = GroupCommit(store, lambda: None, largest_group=16)
    yield group
    group.close()


def subject(number: int) -> Callable[[Transaction], int]:
    return lambda t: t.add_subject(f"s-{number}", f"{number:016}", NOW)


class Gate:
    """Holds the writer inside a job until it is opened, so that others gather behind it."""

    def __init__(self, commits: GroupCommit) -> None:
        self._commits = commits
        self._inside = threading.Event()
        self._open = threading.Event()
        self._thread = threading.Thread(target=commits.submit, args=(self._hold,))
        self._thread.start()
        assert self._inside.wait(10)

    def _hold(self, t: Transaction) -> None:
        self._inside.set()
        assert self._open.wait(10)

    def wait_for(self, waiting: int) -> None:
        """Return once so many jobs are queued."""
        while len(self._commits._waiting) < waiting:
            threading.Event().wait(0.001)

    def open(self) -> None:
        self._open.set()
        self._thread.join(10)


def test_the_answer_is_durable_and_followed_before_it_is_given(store: Store) -> None:
    seen: list[str | None] = []

    def follow() -> None:
        seen.append(None if (s := now(store, lambda r: r.subject("s-1"))) is None else s.subject_id)

    commits = GroupCommit(store, follow, largest_group=16)
    key = commits.submit(subject(1))
    assert seen == ["s-1"]  # committed when followed, followed when answered
    assert now(store, lambda r: r.subject_by_key(key)) is not None
    commits.close()


def test_what_waits_is_committed_together_in_order(store: Store) -> None:
    groups: list[int] = []
    commits = GroupCommit(store, lambda: groups.append(now(store, Reader.counts).subjects), largest_group=4)
    gate = Gate(commits)
    keys = []
    with ThreadPoolExecutor(10) as threads:
        for number in range(10):
            keys.append(threads.submit(commits.submit, subject(number)))
            gate.wait_for(number + 1)
        gate.open()
        assert [k.result() for k in keys] == sorted(k.result() for k in keys)
    assert groups == [0, 4, 8, 10]  # the gate, then at most four at a time
    commits.close()


def test_work_sees_what_stands_before_it_in_its_own_group(commits: GroupCommit) -> None:
    gate = Gate(commits)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(commits.submit, subject(1))
        gate.wait_for(1)
        second = threads.submit(commits.submit, lambda t: t.subject("s-1"))
        gate.wait_for(2)
        gate.open()
        seen = second.result()
        assert seen is not None
        assert seen.key == first.result()


def test_a_fault_undoes_its_own_work_and_nothing_else(store: Store, commits: GroupCommit) -> None:
    def faulty(t: Transaction) -> None:
        subject(2)(t)
        raise WrongState("no")

    gate = Gate(commits)
    with ThreadPoolExecutor(3) as threads:
        jobs = []
        for n, work in enumerate((subject(1), faulty, subject(3))):
            jobs.append(threads.submit(commits.submit, work))
            gate.wait_for(n + 1)
        gate.open()
        assert isinstance(jobs[1].exception(), WrongState)
        assert jobs[0].result() != jobs[2].result()
    assert [s.subject_id for s in now(store, lambda r: r.subjects(None, 10))] == ["s-1", "s-3"]


def test_work_nobody_waits_for_any_more_is_not_done(store: Store, commits: GroupCommit) -> None:
    left = threading.Event()

    def check() -> None:
        if left.is_set():
            raise DeadlinePassed("too late")

    gate = Gate(commits)
    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(commits.submit, subject(1), check)
        gate.wait_for(1)
        waiting = threads.submit(commits.submit, subject(2))
        gate.wait_for(2)
        left.set()
        gate.open()
        with pytest.raises(DeadlinePassed):
            late.result(10)
        waiting.result(10)
    with store.read() as reader:
        assert [s.subject_id for s in reader.subjects(None, 10)] == ["s-2"]


def test_a_failed_commit_is_told_to_everybody_in_the_group(
    store: Store, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(commits)
    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(commits.submit, subject(n)) for n in (1, 2)]
        gate.wait_for(2)
        real = Transaction.commit

        def disk_full(t: Transaction) -> None:
            if t.subject("s-1") is not None:
                raise StoreFull("the disk is full")
            real(t)

        monkeypatch.setattr(Transaction, "commit", disk_full)
        gate.open()
        assert [type(job.exception()) for job in jobs] == [StoreFull, StoreFull]
    assert now(store, lambda r: r.subjects(None, 10)) == ()
    monkeypatch.undo()
    commits.submit(subject(3))  # the writer lives on
    assert [s.subject_id for s in now(store, lambda r: r.subjects(None, 10))] == ["s-3"]


def test_what_is_durable_is_acknowledged_even_where_the_index_cannot_follow(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RekamError("no index")

    commits = GroupCommit(store, broken, largest_group=16)
    assert commits.submit(subject(1)) > 0
    assert "could not follow" in caplog.text
    commits.close()


def test_an_index_that_could_not_follow_is_told_again_without_another_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekam.commits, "_FOLLOW_AGAIN_SECONDS", 0.01)
    calls: list[int] = []
    followed = threading.Event()

    def fails_twice() -> None:
        calls.append(now(store, Reader.counts).subjects)
        if len(calls) <= 2:
            raise RekamError("no index")
        followed.set()

    commits = GroupCommit(store, fails_twice, largest_group=16)
    commits.submit(subject(1))
    assert followed.wait(10)
    commits.close()
    assert calls == [1, 1, 1]  # and no more once it went well


def test_close_does_not_wait_for_an_index_that_never_follows(store: Store) -> None:
    def broken() -> None:
        raise RekamError("no index")

    commits = GroupCommit(store, broken, largest_group=16)
    commits.submit(subject(1))
    closing = threading.Thread(target=commits.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_close_finishes_what_waits_and_then_refuses(store: Store) -> None:
    commits = GroupCommit(store, lambda: None, largest_group=2)
    gate = Gate(commits)
    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(commits.submit, subject(n)) for n in range(5)]
        gate.wait_for(5)
        closing = threads.submit(commits.close)
        gate.open()
        closing.result(10)
        assert all(job.result(10) > 0 for job in jobs)
    commits.close()  # again does no harm
    with pytest.raises(ShuttingDown):
        commits.submit(subject(9))
    assert now(store, Reader.counts).subjects == 5


def test_a_crowd_of_callers_gets_each_its_own_answer(store: Store, commits: GroupCommit) -> None:
    with ThreadPoolExecutor(32) as threads:
        keys = list(threads.map(lambda n: (n, commits.submit(subject(n))), range(200)))
    assert len({key for _, key in keys}) == 200
    with store.read() as reader:
        for number, key in keys:
            found = reader.subject_by_key(key)
            assert found is not None
            assert found.subject_id == f"s-{number}"
