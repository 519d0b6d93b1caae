"""What the SBI client costs, against the simulator in a process of its own.

    python -m benchmarks.sbi [--results benchmarks/results/sbi.json]

Discovery among a hundred ports, opening, captures of a slap, checking an answer, live pictures, and services
that are killed in the middle of an answer. CPU is of this process, so without the simulator's own work
(records in JPEG 2000, signing), which is timed apart.
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from cryptography import x509

from benchmarks.provenance import provenance
from devices.device import Captured, CaptureSpec
from devices.errors import DeviceError, DeviceRemoved
from devices.frame import DeviceKind, Provenance
from devices.position import FingerPosition
from devices.sbi import SbiDriver
from devices.sbi_messages import CaptureRequest, Purpose, Refusal, read_capture, read_digital_id
from devices.sbi_trust import FIRST_HASH, TrustedRoots, verified_records
from devices.virtual.sbi_simulator import SLAP, Fault, Identity, Settings, _Server, control, simulator

SLAP_FINGERS = tuple(FingerPosition)[2:6]
FIRST_PORT = 4501


def main(
    results: Annotated[Path, typer.Option()] = Path("benchmarks/results/sbi.json"),
    repeats: int = 30,
    kills: int = 20,
) -> None:
    """Measure, print, and write the figures."""
    identity = Identity.generated()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root.pem"
        root.write_bytes(identity.root)
        figures = _service_figures(identity, TrustedRoots((root,)), repeats, kills)
    figures |= _answer_figures(identity, repeats)
    for name, value in figures.items():
        typer.echo(f"{name:42} {value:10.2f}")
    results.write_text(json.dumps({"figures": figures, "provenance": provenance()}, indent=2) + "\n")


def _service_figures(identity: Identity, trust: TrustedRoots, repeats: int, kills: int) -> dict[str, float]:
    with simulator(Settings(identity)) as port:
        ports = [port, *(one for one in range(FIRST_PORT, FIRST_PORT + 100) if one != port)][:100]
        driver = SbiDriver(trust, "Staging", ports=ports)
        name = next(info.id for info in driver.discover() if info.provenance.model == SLAP.model)
        device = driver.open(name)
        spec = CaptureSpec(SLAP_FINGERS)
        figures = {
            **_timed("discovery, 100 ports, 3 devices", driver.discover, repeats),
            **_timed("opening", lambda: driver.open(name), repeats),
            **_timed("health", device.health, repeats),
            **_timed("capture of a slap", lambda: device.capture(spec), repeats),
        }
        with closing(device.preview(spec)) as live:
            next(live)
            busy, shown = time.process_time(), 0
            until = time.monotonic() + 5
            while time.monotonic() < until:
                next(live)
                shown += 1
            figures["live pictures, CPU ms each"] = (time.process_time() - busy) * 1000 / shown
            figures["live pictures a second (20 are sent)"] = shown / 5
    return figures | _killed(identity, trust, kills)


def _killed(identity: Identity, trust: TrustedRoots, kills: int) -> dict[str, float]:
    """Services that die in the middle of an answer: each is noticed as removed, and found again."""
    settings, noticed, found = Settings(identity, (SLAP,)), 0, 0
    for _ in range(kills):
        with simulator(settings) as port:
            settings = replace(settings, port=port)
            driver = SbiDriver(trust, "Staging", ports=[port])
            listed = driver.discover()
            found += len(listed)
            device = driver.open(listed[0].id)
            control(port, fault=Fault.DIES)
            try:
                device.capture(CaptureSpec(SLAP_FINGERS))
            except DeviceRemoved:
                noticed += not driver.discover()
            except DeviceError as error:
                typer.echo(f"noticed as {error!r}")
    return {"services killed": kills, "noticed as removed": noticed, "found when started again": found}


def _answer_figures(identity: Identity, repeats: int) -> dict[str, float]:
    """What the client computes of an answer to a slap: JSON, signatures, certificates, hashes."""
    now = datetime.now(UTC)
    request = CaptureRequest(
        environment="Staging",
        purpose=Purpose.REGISTRATION,
        transaction="benchmark",
        kind=DeviceKind.FINGERPRINT,
        positions=SLAP_FINGERS,
        missing=(),
        number=SLAP.number,
        sub_id="2",
        previous=FIRST_HASH.hex().upper(),
        seconds=10,
        least_quality=0,
        asked_at=now,
    )
    roots = [x509.load_pem_x509_certificate(identity.root)]
    with _Server(Settings(identity)) as server:
        told = json.loads(request.to_bytes())
        making = _timed("the simulator's making it", lambda: server.capture("RCAPTURE", told), 5)
        body = json.dumps(server.capture("RCAPTURE", told)).encode()
        named = read_digital_id(json.dumps(dict(server.digital_id(SLAP))).encode())

    def checked() -> Captured:
        answer = read_capture(body)
        assert not isinstance(answer, Refusal)
        code = f"simulated-{SLAP.model.lower()}-{SLAP.serial}"
        records, _ = verified_records(
            answer, request, named, code, Provenance("sbi", ""), roots, None, datetime.now(UTC)
        )
        return Captured(records=records)

    return {
        **_timed("checking the answer of a slap", checked, repeats),
        "its size, kB": len(body) / 1000,
        **making,
    }


def _timed(name: str, work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians of the wall clock and of this process's CPU."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {f"{name}, wall ms": median(walls) * 1000, f"{name}, CPU ms": median(cpus) * 1000}


if __name__ == "__main__":
    typer.run(main)
