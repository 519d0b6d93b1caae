"""How fast encounters are committed: one a transaction against sixteen a transaction.

    python -m benchmarks.store_commits [--encounters N] [--folder DIR]

Each encounter has ten templates of 500 bytes, its subject and the answer to its request: what an enrolment
writes. DIR should lie on the disk the service will use. Writes benchmarks/results/store_commits.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

from capture.sample import FingerPosition
from matching.decision import Decision, Reason
from rekam.store import EncounterState, SampleRecord, Store

RESULTS = Path(__file__).resolve().parent / "results" / "store_commits.json"
BATCHES = (1, 4, 16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encounters", type=int, default=640, help="per batch size, a multiple of 64")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the databases are made")
    arguments = parser.parse_args()

    rows = [measure(batch, arguments.encounters, arguments.folder) for batch in BATCHES]
    for row in rows:
        print(
            f"{row['batch']:3} a transaction: {row['encounters_per_s']:7.0f} encounters/s, "
            f"median transaction {row['transaction_ms_median']:.1f} ms"
        )
    result = {
        "what": "durable commits of encounters with ten templates of 500 bytes",
        "command": "python -m benchmarks.store_commits",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": {
            "cpu": cpu(),
            "processors": os.cpu_count(),
            "load_average_1min": round(os.getloadavg()[0], 1),  # of everything else that runs here
            "python": platform.python_version(),
        },
        "parameters": {"encounters": arguments.encounters},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(batch: int, encounters: int, folder: Path) -> dict[str, float]:
    """Commit `encounters`, `batch` in a transaction, in a new database under `folder`."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    templates = [os.urandom(500) for _ in range(10)]
    fingers = [SampleRecord(FingerPosition(n), t, 60) for n, t in enumerate(templates, start=1)]
    times = []
    cpu_begun = process_time()
    with tempfile.TemporaryDirectory(dir=folder) as made, Store.open(Path(made) / "data") as store:
        for first in range(0, encounters, batch):
            begun = perf_counter()
            with store.transaction() as t:
                for number in range(first, first + batch):
                    nik = f"3201011708{number:06}"
                    t.add_encounter(
                        encounter_id=f"e{number}",
                        subject_key=t.add_subject(f"s{number}", nik, now),
                        nik=nik,
                        decision=Decision.UNIQUE,
                        reasons=(Reason.NOBODY_MATCHES,),
                        state=EncounterState.ENROLLED,
                        request_id=f"r{number}",
                        created_at=now,
                        samples=fingers,
                    )
                    t.remember(f"r{number}", "Enroll", bytes(32), bytes(300))
            times.append(perf_counter() - begun)
        cpu_s = process_time() - cpu_begun
    return {
        "batch": batch,
        "encounters_per_s": round(encounters / sum(times), 1),
        "cpu_ms_per_encounter": round(1000 * cpu_s / encounters, 3),
        "transaction_ms_median": round(1000 * statistics.median(times), 2),
        "transaction_ms_p95": round(1000 * statistics.quantiles(times, n=20)[-1], 2),
    }


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
