"""What Prometheus may read of the service: counts, times and sizes; docs/operations.md describes each.

Every label takes few values that the program itself names: no caller can add one, nobody's number is in them.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from rekam.errors import RekamError, StoreError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_SIZES_SECONDS = 1.0
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Stage(StrEnum):
    """What time is spent on: of a call, READ to COMMIT one after the other; of each image, the last two."""

    READ = "read"
    QUEUE = "queue"
    CAPTURE = "capture"
    SEARCH = "search"
    COMMIT = "commit"
    DECODE = "decode"
    EXTRACT = "extract"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large things are: encounters that searches meet, changes the index has not seen, bytes."""

    gallery: int
    index_lag: int
    database_bytes: int


_spent: ContextVar[dict[Stage, float]] = ContextVar("spent")


class Metrics:
    """The metrics of one service, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.calls = Counter("rekam_calls", "Calls answered.", ["method", "code"], registry=own)
        self.refused = Counter(
            "rekam_calls_refused", "Calls that got an error, by its reason.", ["reason"], registry=own
        )
        self.call_seconds = Histogram(
            "rekam_call_seconds",
            "From the arrival of a call to its answer.",
            ["method"],
            buckets=_SECONDS,
            registry=own,
        )
        self.stage_seconds = Histogram(
            "rekam_stage_seconds", "Time spent in a stage.", ["stage"], buckets=_SECONDS, registry=own
        )
        self.in_flight = Gauge("rekam_calls_in_flight", "Calls being answered.", registry=own)
        self.lane_calls = Gauge(
            "rekam_lane_calls", "Calls that wait or are worked on.", ["lane"], registry=own
        )
        self.lane_wait = Gauge(
            "rekam_lane_expected_wait_seconds",
            "When a call that comes now would start.",
            ["lane"],
            registry=own,
        )
        self.request_bytes = Gauge("rekam_request_bytes", "Bytes of requests held.", registry=own)
        self.decisions = Counter(
            "rekam_decisions", "Encounters recorded, by decision.", ["decision"], registry=own
        )
        self.recaptures = Counter("rekam_recaptures", "Encounters to be captured again.", registry=own)
        self.commit_group = Histogram(
            "rekam_commit_group_size", "Records made durable together.", buckets=_GROUPS, registry=own
        )
        self.ready = Gauge("rekam_ready", "1 once calls are taken.", registry=own)
        self.gallery = Gauge("rekam_gallery_encounters", "Encounters that searches meet.", registry=own)
        self.index_lag = Gauge(
            "rekam_index_lag_changes", "Changes of the store that the index has not seen.", registry=own
        )
        self.database_bytes = Gauge("rekam_database_bytes", "Size of the database.", registry=own)
        ProcessCollector(registry=own)

    def told(self, method: str, code: str, reason: str | None, seconds: float) -> None:
        """Count an answered call; `reason` of an error."""
        self.calls.labels(method, code).inc()
        self.call_seconds.labels(method).observe(seconds)
        if reason is not None:
            self.refused.labels(reason).inc()

    def follow(self, sizes: Callable[[], Sizes]) -> None:
        """Ask for sizes when they are read, once a scrape; they are NaN where the store does not tell."""
        lock, until = threading.Lock(), 0.0
        last: Sizes | None = None

        def told(of: Callable[[Sizes], float]) -> float:
            nonlocal last, until
            with lock:
                if time.monotonic() >= until:
                    try:
                        last = sizes()
                    except StoreError:
                        last = None
                    until = time.monotonic() + _SIZES_SECONDS
                return math.nan if last is None else of(last)

        self.gallery.set_function(lambda: told(lambda s: s.gallery))
        self.index_lag.set_function(lambda: told(lambda s: s.index_lag))
        self.database_bytes.set_function(lambda: told(lambda s: s.database_bytes))

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time the block, for this call too where it runs in the call's own thread."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.stage_seconds.labels(stage).observe(seconds)
            if (spent := _spent.get(None)) is not None:
                spent[stage] = spent.get(stage, 0.0) + seconds

    @contextmanager
    def spending(self) -> Iterator[dict[Stage, float]]:
        """Seconds by stage of the call that this block answers, filled as it goes."""
        spent: dict[Stage, float] = {}
        token = _spent.set(spent)
        try:
            yield spent
        finally:
            _spent.reset(token)


def serve_metrics(metrics: Metrics, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Answer Prometheus over HTTP; the port, and what stops it. Raises `RekamError` where it is taken."""
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise RekamError(
            f"cannot serve metrics on {host}:{port}: is something else listening there?"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
