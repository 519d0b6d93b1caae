"""Group commit measured, in SQLite and in PostgreSQL: commits/s and how long each of so many callers waits.

    python -m benchmarks.store_commits [--commits N] [--folder DIR] [--database-url URL]

Callers commit encounters one after another through `rekam.commits.GroupCommit`, as enrolments do: ten
templates of 500 bytes, the subject, the answer to the request. DIR should lie on the disk the service will
use. Without a URL (an empty database that may be spoilt), a PostgreSQL is started in DIR.
Writes benchmarks/results/store_commits.json.
"""

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.provenance import provenance
from capture.sample import FingerPosition
from matching.decision import Decision, Reason
from rekam.commits import GroupCommit
from rekam.store import EncounterState, SampleRecord, Store, Transaction
from tests.places import postgres_server

RESULTS = Path(__file__).resolve().parent / "results" / "store_commits.json"
CALLERS = (1, 4, 16, 64)
LARGEST_GROUPS = (1, 4, 16, 64)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=960, help="of each measurement")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the databases are made")
    parser.add_argument("--database-url", help="an empty PostgreSQL database to measure instead")
    arguments = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, store in stores(Path(folder), arguments.database_url):
            numbers = count(1)
            for callers in CALLERS:
                for largest in LARGEST_GROUPS:
                    if largest > callers:
                        continue  # no group grows larger than those who wait
                    row = measured(store, numbers, callers, largest, arguments.commits)
                    rows.append({"database": name, **row})
                    print(
                        f"{name:10} {callers:3} callers, groups of at most {largest:2}: "
                        f"{row['commits_per_s']:6.0f} commits/s, {row['transactions_per_s']:5.0f} "
                        f"transactions/s, p50 {row['ms_p50']:6.1f} ms, p99 {row['ms_p99']:6.1f} ms"
                    )
    result = {
        "what": "durable commits of encounters with ten templates of 500 bytes, by waiting callers",
        "command": "python -m benchmarks.store_commits",
        **provenance(),
        "load_average_1min": round(os.getloadavg()[0], 1),  # of everything else that runs here
        "parameters": {"commits": arguments.commits},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def stores(folder: Path, url: str | None) -> Iterator[tuple[str, Store]]:
    """An empty store in each database."""
    with Store.open(folder / "sqlite") as store:
        yield "SQLite", store
    with postgres_url(folder, url) as at, Store.open(folder / "postgres", at) as store:
        yield "PostgreSQL", store


@contextmanager
def postgres_url(folder: Path, url: str | None) -> Iterator[str]:
    """The database to measure."""
    if url is not None:
        yield url
        return
    with postgres_server(folder) as server:
        yield server.emptied()


def measured(
    store: Store, numbers: Iterator[int], callers: int, largest: int, commits: int
) -> dict[str, float]:
    """`callers` threads commit one encounter after another until there are `commits`."""
    transactions = 0
    waited: list[float] = []

    def committed() -> None:
        nonlocal transactions
        transactions += 1

    group = GroupCommit(store, committed, largest)

    def call() -> None:
        for _ in range(commits // callers):
            number = next(numbers)
            begun = perf_counter()
            group.submit(lambda t: enrol(t, number))  # noqa: B023 - it has run when the next number comes
            waited.append(perf_counter() - begun)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    cpu, begun = process_time(), perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = perf_counter() - begun, process_time() - cpu
    group.close()
    p50, p95, p99 = np.percentile(waited, [50, 95, 99])
    return {
        "callers": callers,
        "largest_group": largest,
        "commits_per_s": round(len(waited) / seconds, 1),
        "transactions_per_s": round(transactions / seconds, 1),
        "mean_group": round(len(waited) / transactions, 2),
        "ms_p50": round(1000 * p50, 2),
        "ms_p95": round(1000 * p95, 2),
        "ms_p99": round(1000 * p99, 2),
        "cpu_ms_per_commit": round(1000 * cpu / len(waited), 3),  # without that of a database server
    }


TEMPLATES = [os.urandom(500) for _ in range(10)]
FINGERS = [SampleRecord(FingerPosition(n), data, 60) for n, data in enumerate(TEMPLATES, start=1)]


def enrol(t: Transaction, number: int) -> None:
    """What an enrolment writes."""
    nik = f"3201011708{number:06}"
    t.add_encounter(
        encounter_id=f"e{number}",
        subject_key=t.add_subject(f"s{number}", nik, NOW),
        nik=nik,
        decision=Decision.UNIQUE,
        reasons=(Reason.NOBODY_MATCHES,),
        state=EncounterState.ENROLLED,
        request_id=f"r{number}",
        created_at=NOW,
        samples=FINGERS,
    )
    t.remember(f"r{number}", "Enroll", bytes(32), bytes(300))


if __name__ == "__main__":
    main()
