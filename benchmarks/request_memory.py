"""How much memory large requests take at once, in benchmarks/results/request_memory.json.

    python -m benchmarks.request_memory [--clients 10]

Clients send requests of 40 MiB, each over a connection of its own, to a `rekam serve` that may hold 96 MiB of
requests; every one is read and refused, for its image is too large. The growth is that of the server's
resident memory, at its largest, from when it was ready.
"""

import json
import os
import re
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console

from benchmarks.provenance import ROOT, provenance
from benchmarks.server_process import server
from rekam.client import Client
from rekam.v1 import identification_pb2, types_pb2

RESULT = ROOT / "benchmarks" / "results" / "request_memory.json"
MIB = 2**20
HELD = 96
REQUEST = 40
ROUNDS = 3


def ask(address: str, request: identification_pb2.IdentifyRequest, codes: list[str]) -> None:
    """Send it a few times over one connection."""
    with Client(address) as client:
        for _ in range(ROUNDS):
            try:
                client.identification.Identify(request, timeout=120)
            except grpc.RpcError as error:
                codes.append(error.code().name)


def resident(pid: int, what: str) -> float:
    """MiB of a process's memory, `VmRSS` or the largest it was, `VmHWM`."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise OSError(f"/proc/{pid}/status has no {what}")
    return int(found[1]) / 1024


def main(
    clients: Annotated[int, typer.Option(min=1, max=50, help="Clients at once.")] = 10,
    results: Annotated[Path, typer.Option(help="File of the results.")] = RESULT,
) -> None:
    """Measure and record it."""
    sample = types_pb2.Sample(
        modality=types_pb2.MODALITY_FINGERPRINT,
        finger=types_pb2.FINGER_POSITION_RIGHT_INDEX,
        image=os.urandom(REQUEST * MIB),
    )
    request = identification_pb2.IdentifyRequest(samples=[sample])
    codes: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder), ["env", f"REKAM_MAX_REQUEST_BYTES={HELD * MIB}"]) as process,
    ):
        before = resident(process.pid, "VmRSS")
        threads = [
            threading.Thread(target=ask, args=(process.address, request, codes)) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        most, after = resident(process.pid, "VmHWM"), resident(process.pid, "VmRSS")
    record = {
        "command": f"python -m benchmarks.request_memory --clients {clients}",
        **provenance(),
        "parameters": {"clients": clients, "request_mib": REQUEST, "held_mib": HELD, "rounds": ROUNDS},
        "answers": dict(Counter(codes)),
        "resident_mib_before": round(before),
        "growth_mib": round(most - before),
        "growth_mib_afterwards": round(after - before),
    }
    results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    Console().print({key: record[key] for key in ("answers", "growth_mib", "growth_mib_afterwards")})


if __name__ == "__main__":
    typer.run(main)
