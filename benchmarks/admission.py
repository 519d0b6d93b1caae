"""Which admission keeps a service going that is asked for too much, in benchmarks/results/admission.json.

    python -m benchmarks.admission

Simulated calls on the real `rekam.admission.Lane`, with a clock of its own: two at a time, in the order they
came, costs drawn from a log-normal distribution, arrivals by a Poisson process. A call stops at its deadline
wherever it is, and what was done for it is lost. No processor is measured: figures are the same everywhere.
"""

import heapq
import json
from collections import deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provenance import ROOT, provenance
from rekam.admission import MARGIN, Lane
from rekam.errors import DeadlinePassed, Overloaded

RESULT = ROOT / "benchmarks" / "results" / "admission.json"
SEED = 2026
AT_ONCE = 2
QUEUE = 64
COST = 0.2
DEADLINE = 3.0
RATES = (0.8, 1.0, 1.5, 3.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one rate: answered calls a second, shares of all, seconds of the answered ones."""

    of_capacity: float
    answered_rate: float
    refused: float
    late: float
    p50: float
    p99: float


class _Clock:
    """Time as the simulation has it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Call:
    """A call that has its place."""

    def __init__(self, arrived: float, place: ExitStack) -> None:
        self.arrived = arrived
        self.place = place
        self.in_time = False

    def leave(self) -> None:
        """It is answered, or its deadline passed."""
        try:
            with self.place:
                if not self.in_time:
                    raise DeadlinePassed("too late")
        except DeadlinePassed:
            pass


def simulated(of_capacity: float, *, margin: float | None, spread: float, seconds: float = 400.0) -> Outcome:
    """Offer a share of the capacity for so long; `margin` None: refuse only where the queue is full."""
    rng = np.random.default_rng(SEED)
    offered = round(of_capacity * AT_ONCE / COST * seconds)
    clock = _Clock()
    lane = Lane(AT_ONCE, QUEUE, clock, margin or 1.0)
    arrivals = deque(np.sort(rng.uniform(0, seconds, offered)).tolist())
    working: list[tuple[float, float, _Call]] = []
    waiting: deque[_Call] = deque()
    answered: list[float] = []
    refused = 0
    while arrivals or working:
        if arrivals and (not working or arrivals[0] <= working[0][0]):
            # 1. One comes: it waits, or is refused.
            clock.now = arrivals.popleft()
            with ExitStack() as place:
                try:
                    place.enter_context(lane.place(None if margin is None else DEADLINE))
                except Overloaded:
                    refused += 1
                    continue
                place.enter_context(lane.in_line())
                waiting.append(_Call(clock.now, place.pop_all()))
        else:
            # 2. One is done, in time or not.
            clock.now, _, call = heapq.heappop(working)
            if call.in_time:
                answered.append(clock.now - call.arrived)
            call.leave()
        # 3. Whose turn has come, and has time left, starts.
        while waiting and len(working) < AT_ONCE:
            call = waiting.popleft()
            left = call.arrived + DEADLINE - clock.now
            if left <= 0:
                call.leave()
                continue
            cost = COST * rng.lognormal(-(spread**2) / 2, spread)
            call.in_time = cost <= left
            heapq.heappush(working, (clock.now + min(cost, left), call.arrived, call))
    p50, p99 = np.quantile(answered, [0.5, 0.99])
    return Outcome(
        of_capacity=of_capacity,
        answered_rate=round(len(answered) / seconds, 2),
        refused=round(refused / offered, 3),
        late=round((offered - refused - len(answered)) / offered, 3),
        p50=round(float(p50), 2),
        p99=round(float(p99), 2),
    )


def main(results: Annotated[Path, typer.Option(help="File of the results.")] = RESULT) -> None:
    """Simulate what may be done, and record what came of it."""
    table = Table(title=f"{AT_ONCE / COST:.0f} calls a second can be done")
    for name in ("margin", "spread", "x capacity", "answered/s", "refused", "late", "p50 s", "p99 s"):
        table.add_column(name)
    rows = []
    for margin in (None, 1.0, 0.75, MARGIN, 0.3):
        for spread in (0.3, 1.0):
            for rate in RATES:
                one = simulated(rate, margin=margin, spread=spread)
                rows.append({"margin": margin, "spread": spread, **asdict(one)})
                words = (
                    "queue only" if margin is None else f"{margin}",
                    f"{spread}",
                    f"{rate}",
                    f"{one.answered_rate}",
                )
                table.add_row(*words, f"{one.refused:.1%}", f"{one.late:.1%}", f"{one.p50}", f"{one.p99}")
    Console().print(table)
    record = {
        "command": "python -m benchmarks.admission",
        **provenance(),
        "parameters": {"at_once": AT_ONCE, "queue": QUEUE, "cost": COST, "deadline": DEADLINE, "seed": SEED},
        "rows": rows,
    }
    results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
