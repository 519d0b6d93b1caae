"""Group commit: one thread writes, and everything that waits is made durable by one fsync.

The thread is also the commit lock: what it runs sees everything committed before it and everything
earlier in its own group, so two enrolments can never both miss each other.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from rekam.capturing import Check
from rekam.errors import ShuttingDown
from rekam.metrics import Metrics
from rekam.store import Store, Transaction

T = TypeVar("T")
log = logging.getLogger(__name__)

_FOLLOW_AGAIN_SECONDS = 1.0


class _Job(Generic[T]):
    """Work that waits for the writer, and the caller that waits for it."""

    def __init__(self, work: Callable[[Transaction], T], check: Check | None) -> None:
        self.work = work
        self.check = check
        self.future: Future[T] = Future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self, transaction: Transaction) -> None:
        """Do the work in a savepoint of its own: its failure undoes nothing of the others."""
        try:
            if self.check is not None:
                self.check()
            with transaction.savepoint():
                self.result = self.work(transaction)
        except Exception as error:
            self.error = error

    def answer(self) -> None:
        """Let the caller go."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # set whenever there is no error


class GroupCommit:
    """Runs work in transactions of up to `largest_group` jobs; `committed` is called after each commit.

    The group is whatever gathered while the commit before was on its way to the disk, so a lone caller
    waits for nobody. Where `committed` raises, it is called again soon, commit or not. Thread-safe.
    """

    def __init__(
        self,
        store: Store,
        committed: Callable[[], None],
        largest_group: int,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._metrics = Metrics() if metrics is None else metrics
        self._committed = committed
        self._largest_group = largest_group
        self._waiting: deque[_Job[object]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._behind = False  # the writer's own: `committed` failed
        self._thread = threading.Thread(target=self._write, name="rekam-commit")
        self._thread.start()

    def submit(self, work: Callable[[Transaction], T], check: Check | None = None) -> T:
        """Run `work` and return its result once it is durable and `committed` was called.

        Raises what `work` raised, what `check` raised just before it, `StoreFull` or `StoreDamaged` where
        nothing could be written, `StoreDisconnected` where nobody knows, and `ShuttingDown` after `close`.
        """
        job = _Job(work, check)
        with self._wake:
            if self._closed:
                raise ShuttingDown("the service is shutting down")
            self._waiting.append(job)  # type: ignore[arg-type]  # a deque of jobs of any result
            self._wake.notify()
        return job.future.result()

    def close(self) -> None:
        """Finish what waits, then stop. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _write(self) -> None:
        while (group := self._next_group()) or self._behind:
            if group:
                self._commit(group)
            closed = self._closed
            try:
                self._committed()
                self._behind = False
            except Exception:  # the record is durable and must be acknowledged; the index catches up later
                log.exception("the search index could not follow the store")
                self._behind = not closed
            for job in group:
                job.answer()

    def _commit(self, group: list[_Job[object]]) -> None:
        self._metrics.commit_group.observe(len(group))
        try:
            with self._store.transaction() as transaction:
                for job in group:
                    job.run(transaction)
        except Exception as error:  # the commit itself failed: nothing of the group is acknowledged
            log.error("a commit of %d records failed", len(group), exc_info=error)
            for job in group:
                job.error = job.error or error

    def _next_group(self) -> list[_Job[object]]:
        """Who waits, once somebody does; nobody at the end, or when `committed` is to be called again."""
        with self._wake:
            again = _FOLLOW_AGAIN_SECONDS if self._behind else None
            self._wake.wait_for(lambda: self._waiting or self._closed, timeout=again)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._largest_group))]
