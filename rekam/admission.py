"""Admission: how much work is taken, and what is refused before it has cost anything.

A call first gets a place in its lane, where few enough wait and its turn can come before its deadline; else
it is refused at once and told when to ask again. A `Gate` then lets calls to what they share (processors,
memory), first come, first served. A caller that went away leaves both and never starts.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rekam.capturing import Check
from rekam.errors import DeadlinePassed, QueueFull, WaitTooLong
from rekam.metrics import Metrics

_LEAST_AT_ONCE = 2
_POLL_SECONDS = 0.2
_SMOOTHING = 1 / 16
MARGIN = 0.5
"""Part of the time left to a caller that its wait and its work may take, as estimated."""
_SOONEST_SECONDS = 0.1
_LATEST_SECONDS = 60.0
_UNKNOWN_SECONDS = 1.0


def calls_at_once(workers: int) -> int:
    """How many calls extract and search at a time: beside a large one there is room for another."""
    return max(workers, _LEAST_AT_ONCE)


class _Waiter:
    """Who waits at a gate, and for how much of it."""

    __slots__ = ("amount", "let_in")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.let_in = threading.Event()


class Gate:
    """Lets callers in, in the order they came, while what they take together fits. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = capacity
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How much of the capacity is taken."""
        return self._capacity - self._free

    def enter(self, amount: int, check: Check) -> None:
        """Wait until `amount` is free. Raises what `check` raises, while waiting or when let in."""
        waiter = _Waiter(amount)
        with self._lock:
            self._waiting.append(waiter)
            self._let_in()
        try:
            while not waiter.let_in.wait(_POLL_SECONDS):
                check()
            check()
        except BaseException:
            with self._lock:
                if waiter.let_in.is_set():
                    self._free += amount
                else:
                    self._waiting.remove(waiter)
                self._let_in()
            raise

    def leave(self, amount: int) -> None:
        """Give back what was taken, or a part of it."""
        with self._lock:
            self._free += amount
            self._let_in()

    @contextmanager
    def entered(self, check: Check) -> Iterator[None]:
        """One of the capacity, for the length of the block."""
        self.enter(1, check)
        try:
            yield
        finally:
            self.leave(1)

    def _let_in(self) -> None:
        while self._waiting and self._waiting[0].amount <= self._free:
            first = self._waiting.popleft()
            self._free -= first.amount
            first.let_in.set()


class Lane:
    """A class of calls of which `at_once` are worked on and `queue` more may wait. Thread-safe.

    What a call costs is measured, smoothed over the last few: for each that is done, the time since the one
    before, as often as calls were under way then, `at_once` at most. So whatever calls do side by side or
    together is counted as it is, and idle time is not.
    """

    def __init__(
        self,
        at_once: int,
        queue: int,
        clock: Callable[[], float] = time.monotonic,
        margin: float = MARGIN,
    ) -> None:
        self._margin = margin
        self._at_once = at_once
        self._most = at_once + queue
        self._clock = clock
        self._lock = threading.Lock()
        self._places = 0
        self._in_line = 0
        self._since = 0.0
        self._busy = 0.0
        self._cost: float | None = None

    def tell(self, metrics: Metrics, name: str) -> None:
        """Show under this name how many have a place, and when a call that comes now would start."""
        metrics.lane_calls.labels(name).set_function(lambda: self._places)
        metrics.lane_wait.labels(name).set_function(lambda: self.expected_wait() or 0)

    @contextmanager
    def place(self, remaining: float | None) -> Iterator[None]:
        """A place for the length of the block; `remaining` seconds until the caller's deadline, if any.

        Raises `QueueFull`, and `WaitTooLong` where it would have to wait so long that, were the estimate
        wrong by half, its answer would come too late: work that is thrown away costs others their turn.
        """
        with self._lock:
            wait = self._expected_wait()
            advice = _UNKNOWN_SECONDS if wait is None else wait
            advice = min(max(advice, _SOONEST_SECONDS), _LATEST_SECONDS)
            if self._places >= self._most:
                raise QueueFull(f"{self._places} calls are waiting or worked on", advice)
            # Without a wait it is tried however short its time: else a wrong estimate would never be mended.
            if wait and self._cost and remaining is not None and wait + self._cost > self._margin * remaining:
                raise WaitTooLong(
                    f"its turn would come in about {wait:.1f} s, too late for its deadline", advice
                )
            self._places += 1
        try:
            yield
        finally:
            with self._lock:
                self._places -= 1

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Counted among those that wait for their turn or have it: from when its request was read."""
        self._count(1)
        done = True
        try:
            yield
        except DeadlinePassed:
            done = False  # what was spent on it is a cost of those that are done
            raise
        finally:
            self._count(-1, done=done)

    def expected_wait(self) -> float | None:
        """Seconds until the turn of a call that comes now; None where nothing is known yet."""
        with self._lock:
            return self._expected_wait()

    def _expected_wait(self) -> float | None:
        if self._cost is None:
            return None
        return max(0, self._in_line + 1 - self._at_once) * self._cost / self._at_once

    def _count(self, change: int, *, done: bool = False) -> None:
        with self._lock:
            now = self._clock()
            self._busy += min(self._in_line, self._at_once) * (now - self._since)
            self._since = now
            self._in_line += change
            if done:
                known = self._busy if self._cost is None else self._cost
                self._cost = known + _SMOOTHING * (self._busy - known)
                self._busy = 0.0
