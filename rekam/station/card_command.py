"""`rekam card`: an e-KTP, read through a card reader and, where there is one, a SAM."""

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from devices.errors import DeviceRemoved, DeviceUnavailable
from rekam.errors import InvalidSettings
from rekam.station.devices_command import Station, supervised
from rekam.written import require_writable

if TYPE_CHECKING:
    from devices.ektp import Ektp
    from devices.supervisor import Supervisor

card_app = typer.Typer(no_args_is_help=True, help="Identity cards (e-KTP).")
out = Console()
SAM_CODE = "REKAM_SAM_CODE"
_PLUG_SECONDS, _POLL_SECONDS = 5.0, 0.2


@card_app.command("read")
def read_command(
    station: Station = None,
    reader: Annotated[str, typer.Option(help="Slot of the card; the first without a SAM if not given.")] = "",
    seconds: Annotated[float, typer.Option(help="How long to wait for a card.")] = 30,
    picture: Annotated[Path | None, typer.Option(help="Write photo and signature as a PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Read an e-KTP: photo always; demographics, signature and minutiae with a SAM.

    The SAM is in the slot `cards.sam_slot` of the station's settings, or lent by `cards.sam_server`. Its code
    is the variable REKAM_SAM_CODE, in hexadecimal. Exit status 2: the SAM does not find the card's digital
    signature good.
    """
    if picture is not None:
        require_writable(picture)
    with supervised(station) as supervisor:
        card = read_card(supervisor, station, reader, seconds)
    shown = _fields(card)
    if as_json:
        out.print_json(data=shown)
    else:
        table = Table("field", "on the card", show_header=False)
        for name, value in shown.items():
            table.add_row(name.replace("_", " "), escape(str(value)))
        out.print(table)
    if picture is not None:
        _write_picture(card, picture)
    if card.signed is False:
        raise typer.Exit(2)


def read_card(
    supervisor: "Supervisor", station: Path | None, reader: str = "", seconds: float = 30
) -> "Ektp":
    """The card in a reader, waited for. Raises `DeviceError`s: `DeviceUnavailable` where none came."""
    from devices.device import TimedOut
    from devices.ektp import read_ektp
    from devices.frame import DeviceKind
    from devices.sam import SamServer, remote_sam, slot_sam
    from rekam.station.settings import load_station

    settings = load_station(station)
    sam_slot = "" if settings.cards is None else settings.cards.sam_slot
    until = time.monotonic() + min(seconds, _PLUG_SECONDS)
    while True:
        slots = [info for info in supervisor.devices() if info.kind is DeviceKind.CARD_READER]
        wanted = [info for info in slots if info.id == reader or (not reader and info.id != sam_slot)]
        if wanted and sam_slot in ("", *(info.id for info in slots)):
            break
        if time.monotonic() >= until:
            raise DeviceUnavailable(f"there is no card reader {sam_slot if wanted else reader}".rstrip())
        time.sleep(_POLL_SECONDS)
    with ExitStack() as held:
        slot = supervisor.open_reader(wanted[0].provenance.driver, wanted[0].id)
        held.callback(slot.close)
        sam = None
        if sam_slot:
            module = supervisor.open_reader(wanted[0].provenance.driver, sam_slot)
            held.callback(module.close)
            sam = held.enter_context(slot_sam(module, _sam_code()))
        elif settings.cards is not None and (far := settings.cards.sam_server) is not None:
            server = SamServer(far.host, far.port, far.authority, far.certificate, far.key)
            code = _sam_code()
            # It serves one terminal at a time: none may hold it while a card is only waited for.
            if isinstance(slot.connect(seconds), TimedOut):
                raise DeviceUnavailable(f"no card was put in within {seconds:.0f} s")
            sam, seconds = held.enter_context(remote_sam(server, code)), _PLUG_SECONDS
        card = read_ektp(slot, sam, seconds)
    if isinstance(card, TimedOut):
        raise DeviceUnavailable(f"no card was put in within {card.seconds:.0f} s")
    return card


@card_app.command("lend-sam")
def lend_command(
    authority: Annotated[Path, typer.Option(help="Who signed the terminals' certificates, PEM.")],
    certificate: Annotated[Path, typer.Option(help="Our certificate, which names this host, PEM.")],
    key: Annotated[Path, typer.Option(help="Its key, PEM.")],
    station: Station = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any.")] = 4700,
) -> None:
    """Lend the SAM in the slot `cards.sam_slot` to one terminal after another, over TLS, until Ctrl-C."""
    from devices.sam import serve_sam
    from rekam.station.settings import load_station

    settings = load_station(station)
    if settings.cards is None or not settings.cards.sam_slot:
        raise InvalidSettings([("cards.sam_slot", "names no slot")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        listening = socket.create_server((host, port))
    except OSError as error:
        raise InvalidSettings([("lend-sam", str(error))]) from error
    told = partial(out.print, highlight=False, markup=False, soft_wrap=True)
    with listening, supervised(station) as supervisor, suppress(KeyboardInterrupt):
        session = partial(_lent, supervisor, settings.cards.sam_slot)
        with session():
            told(f"lending on {host}:{listening.getsockname()[1]}")
        serve_sam(listening, context, session, told)


@contextmanager
def _lent(supervisor: "Supervisor", sam_slot: str) -> "Iterator[Callable[[bytes], bytes]]":
    """The module in a slot, powered up."""
    from devices.device import TimedOut

    with closing(supervisor.open_reader("pcsc", sam_slot)) as module:
        if isinstance(module.connect(_PLUG_SECONDS), TimedOut):
            raise DeviceRemoved(f"no SAM in {sam_slot}")
        yield module.transmit


def _sam_code() -> bytes:
    """The SAM's code; it is never printed. Raises `InvalidSettings`."""
    try:
        return bytes.fromhex(os.environ.get(SAM_CODE, ""))
    except ValueError:
        raise InvalidSettings([(SAM_CODE, "is not hexadecimal")]) from None


def _fields(card: "Ektp") -> dict[str, str]:
    """What the card says, by name; what nobody knows the meaning of is left out."""
    shown = {"uid": card.uid.hex().upper(), "photo": f"{len(card.photo)} bytes"}
    if card.demographics is not None:
        for field in fields(card.demographics):
            value = getattr(card.demographics, field.name)
            if isinstance(value, date):
                shown[field.name] = value.isoformat()
            elif isinstance(value, str):
                shown[field.name] = str(value)
    if card.minutiae is not None:
        shown["minutiae"] = ", ".join(f"{len(finger)} bytes" for finger in card.minutiae)
    if card.signed is not None:
        shown["digital_signature"] = "good" if card.signed else "NOT GOOD"
    return shown


def _write_picture(card: "Ektp", path: Path) -> None:
    """Photo, and signature below it where it was read."""
    import numpy as np
    from PIL import Image

    from capture.decode import decode_face_image
    from rekam.station.picture import write_picture

    photo = decode_face_image(card.photo).image
    width, below = photo.shape[1], 0
    signature = None
    if card.signature is not None:
        drawn = Image.fromarray(np.asarray(card.signature))
        below = round(width * drawn.height / drawn.width)
        signature = drawn.resize((width, below))
    page = Image.new("RGB", (width, photo.shape[0] + below), "white")
    page.paste(Image.fromarray(photo), (0, 0))
    if signature is not None:
        page.paste(signature, (0, photo.shape[0]))
    write_picture(path, np.asarray(page))
    out.print(f"picture: {path}", highlight=False, soft_wrap=True)
