"""`rekam capture`: an encounter at this workstation, and `rekam spool`: what waits here to be sent."""

import getpass
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rekam.errors import InvalidRequest, SpoolError
from rekam.station.devices_command import Station, supervised

if TYPE_CHECKING:
    from devices.ektp import Ektp
    from rekam.session import Session
    from rekam.station.card_holder import HolderVerdict
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
_EXITS = {"waiting": 4, "reopened": 3, "refused": 1, "open": 5}


def capture_command(
    nik: Annotated[str, typer.Argument(help="National identity number, 16 digits.")] = "",
    station: Station = None,
    card: Annotated[bool, typer.Option("--card", help="Take NIK and date of birth from an e-KTP.")] = False,
    birth_date: Annotated[str, typer.Option(help="YYYY-MM-DD, checked against the NIK.")] = "",
    resume: Annotated[
        str, typer.Option(help="Name of an encounter that waits unfinished in the spool, instead of a NIK.")
    ] = "",
    operator: Annotated[str, typer.Option(help="Who captures; the user of this machine if not given.")] = "",
    operator_samples: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Images of the operator's own fingers, eyes and face, kept in the spool as templates: "
            "they are never taken for a citizen's.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write what was captured, side by side, as a PNG.")
    ] = None,
    unattended: Annotated[
        bool, typer.Option("--unattended", help="Ask nobody: capture again a few times, then stop.")
    ] = False,
    send: Annotated[bool, typer.Option("--send/--no-send", help="Send it now, or leave it waiting.")] = True,
    server: Server = None,
) -> None:
    """Capture an encounter at this workstation and enrol it.

    Exit status 2: held, a case was opened. 3: the service wants something captured again. 4: it waits to be
    sent. 5: it is not finished, and waits in the spool.
    """
    if [bool(nik), card, bool(resume)].count(True) != 1:
        raise InvalidRequest([("", "give either a NIK, --card or --resume")])
    with _outbox(station) as (box, examiner, settings):
        if operator_samples is not None:
            _keep_operator(box, examiner, operator_samples)
        read = _read(station) if card else None
        if read is not None and read.demographics is not None:
            nik, birth_date = read.demographics.nik, read.demographics.birth_date.isoformat()
        session = box.resume(resume) if resume else _begun(box, settings, nik, birth_date, operator)
        for line in session.advice:
            out.print(f"  {line}", highlight=False, markup=False)
        finished = _attended(session, examiner, station, unattended=unattended)
        if picture is not None:
            _write_picture(session, picture)
        if not finished:
            out.print(f"not finished: --resume {session.began.name} goes on with it", highlight=False)
            raise typer.Exit(_EXITS["open"])
        if read is not None:
            verdict = holder_of(read, session)
            out.print(f"holder of the card: {holder_words(verdict)}", highlight=False)
        session.seal()
        for name in box.alike(session):
            err.print(f"{name}, which waits here too, shows the same person", highlight=False)
        if send:
            _send(box, server or settings.server, session.began.name)


@spool_app.command("list")
def list_command(station: Station = None) -> None:
    """List the encounters of this workstation: what waits, and what the service said of those it has."""
    with _outbox(station) as (box, _, _):
        table = Table("encounter", "state", "decision", "recorded as", "")
        for one in box.states():
            cells = (one.name, one.sync.value, one.decision, one.encounter_id, one.text)
            table.add_row(*(escape(cell) for cell in cells))
        out.print(table)


@spool_app.command("send")
def send_command(station: Station = None, server: Server = None) -> None:
    """Send what waits, oldest first. Exit status 4: something waits on."""
    with _outbox(station) as (box, _, settings):
        _send(box, server or settings.server, None)


@spool_app.command("discard")
def discard_command(
    name: Annotated[str, typer.Argument(help="Which encounter.")],
    station: Station = None,
) -> None:
    """Give up an encounter that the service has not recorded; what was captured is erased."""
    with _outbox(station) as (box, _, _):
        box.discard(name)
    out.print(f"{name} is erased", highlight=False)


@contextmanager
def _outbox(
    station: Path | None,
) -> "Iterator[tuple[Outbox, PipelineExaminer, StationSettings]]":
    """The spool of a station, opened; what was repaired or damaged is said."""
    from rekam.session import Params
    from rekam.spool import Spool
    from rekam.station.examiner import PipelineExaminer
    from rekam.station.outbox import Outbox
    from rekam.station.settings import load_station

    settings = load_station(station)
    # No option of the command: others can see those.
    word = os.environ.get(PASSPHRASE) or getpass.getpass("passphrase of the spool: ")
    if not word:
        raise SpoolError("the spool needs a passphrase")
    params = Params(settings.good_quality, settings.best_of, settings.seconds)
    with Spool.open(settings.spool, word) as spool:
        for text in (*spool.notices, *spool.damaged.values()):
            err.print(text, highlight=False, markup=False)
        examiner = PipelineExaminer()
        yield Outbox(spool, examiner, params), examiner, settings


def _read(station: Path | None) -> "Ektp":
    """The card that is put in; it tells whose it is."""
    from rekam.station.card_command import read_card

    out.print("put the e-KTP on the reader", highlight=False)
    with supervised(station) as supervisor:
        read = read_card(supervisor, station)
    if read.demographics is None:
        raise InvalidRequest([("--card", "without a SAM a card does not tell its NIK")])
    return read


def holder_of(card: "Ektp", session: "Session") -> "HolderVerdict":
    """Whether who was captured is the holder of the card, by an index finger and the portrait. Cost: 4 s.

    The finger is extracted anew, accurately, as the card's calibration wants it.
    """
    from capture.face.template import FaceTemplate
    from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
    from devices.frame import DeviceKind
    from devices.position import FingerPosition
    from rekam.session import FACE, Place
    from rekam.station.card_holder import verify_holder
    from rekam.station.examiner import PipelineExaminer

    examiner = PipelineExaminer(ExtractorChoice.ACCURATE)
    finger, faces = None, None
    for position in (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX):
        taken = session.taken.get(Place(DeviceKind.FINGERPRINT, int(position)))
        if taken is not None and finger is None:
            finger = examiner.judged(taken.place, taken.image, taken.ppi).template
    portrait = session.taken.get(FACE)
    if portrait is not None:
        live = FaceTemplate.from_bytes(portrait.template)
        photo = examiner.judged(FACE, card.photo).template
        faces = (photo, live) if isinstance(photo, FaceTemplate) else None
    return verify_holder(card, finger if isinstance(finger, FingerprintTemplate) else None, faces)


def holder_words(verdict: "HolderVerdict") -> str:
    """A verdict in one line."""
    doubts = "".join(f", {doubt.value.replace('_', ' ')}" for doubt in verdict.doubts)
    decision = verdict.decision.value.replace("_", " ")
    return f"{decision} (LLR {verdict.llr:.1f}, accepted from {verdict.needed:.1f}{doubts})"


def _begun(box: "Outbox", settings: "StationSettings", nik: str, birth_date: str, operator: str) -> "Session":
    from rekam.nik import parse_nik
    from rekam.session import Began

    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(8)}"
    digits = parse_nik(nik).digits
    return box.begin(Began(name, digits, operator or getpass.getuser(), settings.captures, now, birth_date))


def _attended(
    session: "Session", examiner: "PipelineExaminer", station: Path | None, *, unattended: bool
) -> bool:
    from rekam.station.attendance import Attendance
    from rekam.station.terminal import Terminal, summary

    if session.sealed is not None or session.step is None:
        return True
    with (
        supervised(station) as supervisor,
        Terminal(out, unattended=True if unattended else None) as terminal,
        Attendance(supervisor, examiner, terminal) as attendance,
    ):
        finished = attendance.attend(session)
    out.print(summary(session))
    return finished


def _keep_operator(box: "Outbox", examiner: "PipelineExaminer", folder: Path) -> None:
    from rekam.client import sample_files
    from rekam.session import place_at

    templates = []
    for file in sample_files([folder]):
        template = examiner.judged(place_at(file.position), file.path.read_bytes()).template
        if template is None:
            raise InvalidRequest([("operator-samples", f"{file.path.name} shows nothing to recognise")])
        templates.append(template)
    box.enrol_operator(templates)
    out.print(f"the operator's own {len(templates)} are known to the spool", highlight=False)


def _write_picture(session: "Session", path: Path) -> None:
    from PIL import Image

    from rekam.station.picture import encounter_picture

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(encounter_picture(session)).save(path)
    out.print(f"picture of what was captured: {path}", highlight=False, soft_wrap=True)


def _send(box: "Outbox", address: str, name: str | None) -> None:
    """Send what waits and say what became of it; leaves with the status of `name`, or of the worst."""
    from rekam.client import Client

    with Client(address) as client:
        sent = box.send(client)
    for one in sent:
        out.print(_line(one), highlight=False, soft_wrap=True)
    statuses = [_status(one) for one in sent if name in (None, one.name)]
    left = [one.name for one in box.states() if one.sync == "waiting" and name in (None, one.name)]
    status = max(statuses, default=0) or (_EXITS["waiting"] if left else 0)
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
    return _EXITS.get(one.sync.value, 1)
