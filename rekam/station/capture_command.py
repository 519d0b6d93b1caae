"""`rekam capture`: an encounter at this workstation."""

import getpass
import secrets
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from capture.errors import CaptureError
from devices.errors import DeviceError
from matching.errors import MatchingError
from rekam.errors import InvalidRequest, NotWritten, RekamError
from rekam.faults import say_fault
from rekam.station.devices_command import Station, supervised
from rekam.station.spool_command import EXITS, Server, opened_outbox, send_waiting
from rekam.written import require_writable

if TYPE_CHECKING:
    from devices.ektp import Ektp
    from rekam.nik import Nik
    from rekam.session import Session
    from rekam.station.card_holder import HolderVerdict
    from rekam.station.examiner import PipelineExaminer
    from rekam.station.outbox import Outbox
    from rekam.station.settings import StationSettings
    from rekam.station.terminal import Terminal

out = Console()
err = Console(stderr=True)


def capture_command(
    nik: Annotated[str, typer.Argument(help="National identity number, 16 digits.")] = "",
    station: Station = None,
    card: Annotated[bool, typer.Option("--card", help="Take NIK and date of birth from an e-KTP.")] = False,
    birth_date: Annotated[str, typer.Option(help="YYYY-MM-DD, checked against the NIK.")] = "",
    resume: Annotated[
        str, typer.Option(help="Name of an encounter that waits unfinished in the spool, instead of a NIK.")
    ] = "",
    operator: Annotated[
        str,
        typer.Option(help="Who captures. If not given: the user of this machine; of a resumed one, who did."),
    ] = "",
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
    # 1. What was asked for, before there is a spool, and before the person is asked for anything.
    if [bool(nik), card, bool(resume)].count(True) != 1:
        raise InvalidRequest([("", "give either a NIK, --card or --resume")])
    if picture is not None:
        require_writable(picture)
    read = _read(station) if card else None
    if read is not None and read.demographics is not None:
        nik, birth_date = read.demographics.nik, read.demographics.birth_date.isoformat()
    person = None if resume else _person(nik, birth_date)
    here = operator or getpass.getuser()
    with opened_outbox(station, create=True) as (box, examiner, settings):
        if operator_samples is not None:
            _keep_operator(box, examiner, here, operator_samples)
        session = (
            box.resume(resume, operator) if person is None else _begun(box, settings, person, here, card=card)
        )
        # 2. Captured. Whatever ends that before it is finished, the operator learns its name.
        try:
            if session.sealed is not None or _finished(
                session, box, examiner, settings, station, read, unattended=unattended
            ):
                session.seal()
        except (KeyboardInterrupt, RekamError, CaptureError, MatchingError, DeviceError) as end:
            say_fault(str(end) or "interrupted")
        finally:
            if session.sealed is None:
                out.print(f"not finished: --resume {session.began.name} goes on with it", highlight=False)
        # 3. Shown and sent.
        if picture is not None:
            _write_picture(session, picture)
        if session.sealed is None:
            raise typer.Exit(EXITS["open"])
        for name in box.alike(session):
            err.print(f"{name}, which waits here too, shows the same person", highlight=False)
        if send:
            send_waiting(box, server or settings.server, session.began.name)


def _finished(
    session: "Session",
    box: "Outbox",
    examiner: "PipelineExaminer",
    settings: "StationSettings",
    station: Path | None,
    card: "Ektp | None",
    *,
    unattended: bool,
) -> bool:
    """Whether nothing is left to capture, and the card, if it began with one, is the person's."""
    from rekam.station.terminal import Terminal

    for line in session.advice:
        out.print(f"  {line}", highlight=False, markup=False)
    session.widen(settings.captures)
    if warning := box.operator_warning(session):
        err.print(f"{warning} (--operator-samples)", highlight=False, markup=False)
    terminal = Terminal(out, unattended=True if unattended else None)
    if not _attended(session, examiner, station, terminal):
        return False
    if not session.began.card or session.holder is not None:
        return True
    return _held(session, card or _read(station), terminal)


def _read(station: Path | None) -> "Ektp":
    """The card that is put in; it tells whose it is."""
    from rekam.station.card_command import read_card

    out.print("put the e-KTP on the reader", highlight=False)
    with supervised(station) as supervisor:
        read = read_card(supervisor, station)
    if read.demographics is None:
        raise InvalidRequest([("--card", "without a SAM a card does not tell its NIK")])
    if not read.signed:
        err.print("the digital signature of the card is not good: it proves nothing", highlight=False)
    return read


def _held(session: "Session", card: "Ektp", terminal: "Terminal") -> bool:
    """Whether the card is whose fingers and face were captured, or the operator says to go on; kept."""
    from rekam.station.card_holder import Holder

    if card.demographics is None or card.demographics.nik != session.began.nik:
        raise InvalidRequest([("--card", "this is another card than the encounter was begun from")])
    try:
        verdict = holder_of(card, session)
        known, words = verdict.decision is Holder.HOLDER, holder_words(verdict)
    except (CaptureError, MatchingError) as error:  # of what lies on the card
        known, words = False, f"not compared: {error}"
    out.print(f"holder of the card: {words}", highlight=False)
    overruled = not known and terminal.confirms("The card proves nothing of this person. Go on all the same")
    if known or overruled:
        session.keep_holder(words, overruled=overruled)
    return known or overruled


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


def _person(nik: str, birth_date: str) -> "tuple[Nik, date | None]":
    """NIK and date of birth, checked; where they do not go together that is said."""
    from rekam.nik import parse_nik

    number = parse_nik(nik)
    try:
        born = date.fromisoformat(birth_date) if birth_date else None
    except ValueError:
        raise InvalidRequest([("--birth-date", "is a date written YYYY-MM-DD")]) from None
    for warning in number.warnings(born):
        err.print(warning.text, highlight=False)
    return number, born


def _begun(
    box: "Outbox",
    settings: "StationSettings",
    person: "tuple[Nik, date | None]",
    operator: str,
    *,
    card: bool,
) -> "Session":
    from rekam.session import Began

    number, born = person
    now = datetime.now(UTC)
    return box.begin(
        Began(
            name=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(8)}",
            nik=number.digits,
            operator=operator,
            kinds=settings.captures,
            at=now,
            birth_date="" if born is None else born.isoformat(),
            card=card,
        )
    )


def _attended(
    session: "Session", examiner: "PipelineExaminer", station: Path | None, terminal: "Terminal"
) -> bool:
    from rekam.station.attendance import Attendance
    from rekam.station.terminal import summary

    with (
        supervised(station) as supervisor,
        terminal,
        Attendance(supervisor, examiner, terminal) as attendance,
    ):
        finished = attendance.attend(session)
    if not finished:
        out.print(summary(session))
    return finished


def _keep_operator(box: "Outbox", examiner: "PipelineExaminer", operator: str, folder: Path) -> None:
    from rekam.client import sample_files
    from rekam.session import place_at

    templates = []
    for file in sample_files([folder]):
        try:
            template = examiner.judged(place_at(file.position), file.path.read_bytes()).template
        except CaptureError as error:
            raise InvalidRequest([("--operator-samples", f"{file.path.name}: {error}")]) from error
        if template is None:
            raise InvalidRequest([("--operator-samples", f"{file.path.name} shows nothing to recognise")])
        templates.append(template)
    box.enrol_operator(operator, templates)
    out.print(f"{len(templates)} of the operator {operator} are known here", highlight=False, markup=False)


def _write_picture(session: "Session", path: Path) -> None:
    """What was captured, as a picture; where it cannot be written, the encounter goes on without."""
    from rekam.station.picture import encounter_picture, write_picture

    try:
        write_picture(path, encounter_picture(session))
    except NotWritten as fault:
        say_fault(str(fault))
    else:
        out.print(f"picture of what was captured: {path}", highlight=False, soft_wrap=True)
