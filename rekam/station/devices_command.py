"""`rekam devices`: what is plugged in, what happens to it, how it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from devices.device import DeviceInfo
    from devices.supervisor import Event, Supervisor

devices_app = typer.Typer(no_args_is_help=True, help="Devices of a workstation.")
out = Console()
err = Console(stderr=True)

Station = Annotated[
    Path | None,
    typer.Option(
        envvar="REKAM_STATION",
        help="Settings of the workstation; station.toml where it is here, else whatever is plugged in.",
    ),
]


@devices_app.command("list")
def list_command(
    station: Station = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """List the devices that are plugged in."""
    from rekam.station.settings import absent, load_station

    with supervised(station) as supervisor:
        found = supervisor.devices()
        trouble = {
            key[0]: one.detail for key, one in supervisor.health().items() if not key[1] and one.detail
        }
    if as_json:
        out.print_json(data=[asdict(info) for info in found], default=str)
    else:
        table = Table("kind", "driver", "device", "maker and model", "shows", "ppi", "signs")
        for info in found:
            of = info.provenance
            named = " ".join(filter(None, (of.maker, of.model, of.serial)))
            shows = str(max((len(some) for some in info.positions), default=1))
            ppi = f"{info.ppi:.0f}" if info.ppi else ""
            cells = (info.kind, of.driver, info.id, named, shows, ppi, "yes" if info.signs else "")
            table.add_row(*(escape(str(cell)) for cell in cells))
        out.print(table if found else "no devices")
    troubles = [f"{driver}: {detail}" for driver, detail in trouble.items()]
    for text in (*troubles, *absent(load_station(station))):
        err.print(text, highlight=False, markup=False, soft_wrap=True)


@devices_app.command("watch")
def watch_command(
    station: Station = None,
    seconds: Annotated[float | None, typer.Option(help="How long; until Ctrl-C where not given.")] = None,
) -> None:
    """Say when devices come, go, fail and recover."""
    with supervised(station) as supervisor, suppress(KeyboardInterrupt):
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            with suppress(Empty):
                words = said(supervisor.events.get(timeout=0.2))
                out.print(
                    f"{time.strftime('%H:%M:%S')} {words}", highlight=False, markup=False, soft_wrap=True
                )
        if lost := supervisor.events.lost:
            err.print(f"{lost} events came too fast to be shown", highlight=False)


@devices_app.command("health")
def health_command(station: Station = None) -> None:
    """Show how each driver and device is. Exit status 2: one is failing or gone."""
    from devices.device import Condition

    with supervised(station) as supervisor:
        supervisor.devices()
        table = Table("driver", "device", "condition", "detail", "figures")
        health = supervisor.health()
    for (driver, device), one in health.items():
        figures = ", ".join(f"{name} {value:g}" for name, value in sorted(one.figures.items()))
        cells = (driver, device, one.condition.value, one.detail, figures)
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)
    if any(one.condition in (Condition.FAILING, Condition.REMOVED) for one in health.values()):
        raise typer.Exit(2)


@contextmanager
def supervised(station: Path | None) -> "Iterator[Supervisor]":
    """The supervisor of a station's drivers, each in a process of its own."""
    from devices.supervisor import Supervisor
    from rekam.station.settings import drivers, load_station

    wanted, missing = drivers(load_station(station))
    for text in missing:
        err.print(text, highlight=False, markup=False, soft_wrap=True)
    with Supervisor(wanted) as supervisor:
        yield supervisor


def said(event: "Event") -> str:
    """An event in one line."""
    from devices.supervisor import Attached, Detached, Failed

    match event:
        case Attached(driver, info):
            return f"attached {driver} {_named(info)}"
        case Detached(driver, info):
            return f"detached {driver} {_named(info)}"
        case Failed(driver, device, error):
            return f"failed {driver} {device}: {error}"
        case _:
            return f"recovered {event.driver} {event.device}"


def _named(info: "DeviceInfo") -> str:
    return f"{info.kind} {info.id}"
