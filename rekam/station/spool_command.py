"""`rekam spool`: what waits at this workstation to be sent."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rekam.errors import SpoolError
from rekam.station.devices_command import Station

if TYPE_CHECKING:
    from rekam.station.examiner import PipelineExaminer
    from rekam.station.outbox import Outbox, Sent
    from rekam.station.settings import StationSettings

spool_app = typer.Typer(no_args_is_help=True, help="Encounters that wait at this workstation.")
out = Console()
err = Console(stderr=True)

Server = Annotated[
    str | None,
    typer.Option(
        "--server", envvar="REKAM_SERVER", help="Address of the server, in place of the station's setting."
    ),
]
PASSPHRASE = "REKAM_SPOOL_PASSPHRASE"
EXITS = {"waiting": 4, "reopened": 3, "refused": 1, "open": 5}


@spool_app.command("list")
def list_command(station: Station = None) -> None:
    """List the encounters of this workstation: what waits, and what the service said of those it has."""
    with opened_outbox(station) as (box, _, _):
        table = Table("encounter", "state", "decision", "recorded as", "operator", "")
        for one in box.states():
            words = one.text or one.holder
            cells = (one.name, one.sync.value, one.decision, one.encounter_id, one.operator, words)
            table.add_row(*(escape(cell) for cell in cells))
        out.print(table)


@spool_app.command("send")
def send_command(station: Station = None, server: Server = None) -> None:
    """Send what waits, oldest first. Exit status 4: something waits on."""
    with opened_outbox(station) as (box, _, settings):
        send_waiting(box, server or settings.server, None)


@spool_app.command("discard")
def discard_command(
    name: Annotated[str, typer.Argument(help="Which encounter.")],
    station: Station = None,
) -> None:
    """Give up an encounter that waits here; what was captured is erased at this workstation."""
    with opened_outbox(station) as (box, _, _):
        gone = box.discard(name)
    out.print(f"{name} is erased here" + (f"; {gone.text}" if gone.text else ""), highlight=False)


@spool_app.command("forget-operator")
def forget_operator_command(
    operator: Annotated[str, typer.Argument(help="Whose, as given to `rekam capture --operator`.")],
    station: Station = None,
) -> None:
    """Erase the templates of an operator's own fingers, eyes and face from the spool."""
    with opened_outbox(station) as (box, _, _):
        box.forget_operator(operator)
    out.print(f"nothing of the operator {operator} is kept here any more", highlight=False, markup=False)


@contextmanager
def opened_outbox(
    station: Path | None, *, create: bool = False
) -> "Iterator[tuple[Outbox, PipelineExaminer, StationSettings]]":
    """The spool of a station, opened, or made if `create`; what was repaired or lost is said."""
    from rekam.session import Params
    from rekam.station.settings import examiner_of, load_station

    try:
        from rekam.spool import Spool, is_spool
    except ImportError as error:
        raise SpoolError(f"{error.name} is not installed: pip install 'rekam[devices]'") from error
    from rekam.station.outbox import Outbox

    settings = load_station(station)
    new = create and not is_spool(settings.spool)
    word = _passphrase(twice=new)
    params = Params(settings.good_quality, settings.best_of, settings.seconds)
    with Spool.open(settings.spool, word, create=create) as spool:
        if new:
            err.print(f"a new spool is made: {settings.spool}", highlight=False, markup=False)
        for text in (*spool.notices, *spool.damaged.values()):
            err.print(text, highlight=False, markup=False)
        examiner = examiner_of(settings)
        yield Outbox(spool, examiner, params), examiner, settings


def _passphrase(*, twice: bool) -> str:
    """From the environment or the keyboard: no option of the command, others can see those."""
    if word := os.environ.get(PASSPHRASE):
        return word
    word = getpass.getpass("passphrase of the spool: ")
    if twice and word != getpass.getpass("once more, for there is no spool yet: "):
        raise SpoolError("the two passphrases differ: no spool was made")
    if not word:
        raise SpoolError("the spool needs a passphrase")
    return word


def send_waiting(box: "Outbox", address: str, name: str | None) -> None:
    """Send what waits and say what became of it; leaves with the status of `name`, or of the worst."""
    from rekam.client import Client

    with Client(address) as client:
        sent = box.send(client)
    for one in sent:
        out.print(_line(one), highlight=False, soft_wrap=True)
    statuses = [_status(one) for one in sent if name in (None, one.name)]
    left = [one.name for one in box.states() if one.sync == "waiting" and name in (None, one.name)]
    status = max(statuses, default=0) or (EXITS["waiting"] if left else 0)
    if status:
        raise typer.Exit(status)


def _line(one: "Sent") -> str:
    if one.sync == "recorded":
        case = f", case {one.case_id}" if one.case_id else ""
        return f"[bold]{one.decision}[/]: {one.name} is encounter {one.encounter_id}{case}"
    return f"[bold]{one.sync.value}[/]: {one.name}: {escape(one.text)}"


def _status(one: "Sent") -> int:
    if one.sync == "recorded":
        return 2 if one.case_id else 0
    return EXITS.get(one.sync.value, 1)
