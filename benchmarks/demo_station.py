"""A workstation from virtual devices: two encounters of one made-up person, UNIQUE, then a DUPLICATE.

    python -m benchmarks.demo_station

Every device is a real driver over its own stack, fed virtually: a slap scanner and an iris camera behind the
MOSIP SBI, a reader of single fingers through libfprint's virtual image driver, a camera that is a folder, a
signature pad's folder, and an e-KTP with a test SAM behind a pcscd of our own. The person and their cards do
not exist. The second card has another NIK.
"""

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import numpy as np
import typer
from PIL import Image
from rich.console import Console

from benchmarks import synthetic_irises, synthetic_prints
from benchmarks.encounters import enroll_request, made_up_nik
from benchmarks.population import TEN_FINGERS, person
from benchmarks.provenance import provenance
from benchmarks.server_process import ServerProcess
from benchmarks.synthetic_portraits import portrait
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice
from capture.formats.card_minutiae import CardSize
from capture.formats.minutiae_template import card_of
from capture.sample import EyePosition, FingerPosition, Sample
from devices.device import DeviceInfo
from devices.ektp import CardSex, Demographics, Personalisation
from devices.supervisor import Supervisor
from devices.virtual.ektp_card import EktpCard
from devices.virtual.libfprint_feed import LibfprintFeed
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.sbi_simulator import IRIS, SLAP, FolderPictures, Identity, Settings, simulator
from devices.virtual.test_sam import TestIssuer, TestSam
from devices.virtual.vpcd import Slot
from rekam.client import Client
from rekam.session import Began, Session, Step
from rekam.session import Params as SessionParams
from rekam.spool import Spool
from rekam.station.attendance import Attendance
from rekam.station.capture_command import holder_of, holder_words
from rekam.station.card_command import SAM_CODE, read_card
from rekam.station.examiner import PipelineExaminer
from rekam.station.outbox import Outbox, Sent
from rekam.station.picture import encounter_picture
from rekam.station.settings import drivers, load_station
from rekam.station.terminal import Terminal, summary

NUMBER = 4711  # of the person who does not exist
OTHERS = 12
EXPECTED = ("UNIQUE", "DUPLICATE")
_THUMBS = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB)
_SIGNED = "<ink><trace>0 60, 30 10, 60 60, 90 10, 120 60</trace><trace>10 45, 150 40, 190 20</trace></ink>"
console = Console()
app = typer.Typer(add_completion=False)


class Visitor(Terminal):
    """The terminal, and the person before the devices: lays a thumb down, signs, when they are asked to."""

    def __init__(self, folder: Path, feed: LibfprintFeed) -> None:
        super().__init__(console, unattended=True)
        self._folder = folder
        self._feed = feed
        self.visit = 1

    def begins(self, session: Session, step: Step, device: DeviceInfo) -> None:
        """Do what the device waits for, in a moment."""
        super().begins(session, step, device)
        if device.provenance.driver == "libfprint":
            [asked] = session.spec(device).positions
            print_ = self._folder / "thumbs" / f"{asked.words.replace(' ', '_')}_{self.visit}.png"
            with Image.open(print_) as image:
                self._feed.touch(np.array(image))
        elif device.provenance.driver == "signature":
            pad = self._folder / "pad" / f"{uuid4()}.inkml"
            threading.Timer(0.5, lambda: pad.write_text(_SIGNED)).start()


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for pictures, spool, database and results.")] = Path(
        "demo-output/station"
    ),
    results: Annotated[Path | None, typer.Option(help="Also write the results as JSON here.")] = None,
) -> None:
    """Run both encounters; exit status 1 where a decision is not the expected one."""
    out.mkdir(parents=True, exist_ok=True)
    console.print("drawing a person who does not exist", highlight=False)
    _draw(out)
    with ExitStack() as held:
        folder = out / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        folder.mkdir()
        server = ServerProcess(folder)
        server.start()
        held.callback(server.stop)
        client = held.enter_context(Client(server.address))
        _enrol_others(client)
        issuer = TestIssuer()
        card, feed = held.enter_context(_devices(out, folder, issuer, server.address))
        station = folder / "station.toml"
        supervised, missing = drivers(load_station(station))
        if missing:
            raise typer.BadParameter("; ".join(missing))
        supervisor = held.enter_context(Supervisor(supervised))
        console.print(
            "devices: " + ", ".join(sorted(info.id for info in supervisor.devices())), highlight=False
        )
        spool = held.enter_context(Spool.open(folder / "spool", "a passphrase of the demo"))
        box = Outbox(spool, PipelineExaminer(), SessionParams(good=40))
        visitor = held.enter_context(Visitor(out, feed))
        sent, seconds = [], []
        for visit in (1, 2):
            visitor.visit = visit
            card.insert(EktpCard.personalised(issuer, _card(out, visit)))
            begin = time.monotonic()
            sent.append(
                _encounter(supervisor, box, visitor, client, station, folder / f"encounter-{visit}.png")
            )
            seconds.append(time.monotonic() - begin)
            card.remove()
    _report(sent, seconds, results or out / "demo_station.json")


def _encounter(
    supervisor: Supervisor, box: Outbox, visitor: Visitor, client: Client, station: Path, picture: Path
) -> Sent:
    """From the card to the service's answer."""
    read = read_card(supervisor, station)
    assert read.demographics is not None
    console.rule(f"{read.demographics.name}, NIK {read.demographics.nik}, of an e-KTP")
    name = f"demo-{visitor.visit}-{uuid4().hex[:8]}"
    of, born = read.demographics, read.demographics.birth_date.isoformat()
    kinds = load_station(station).captures
    session = box.begin(Began(name, of.nik, "demo", kinds, datetime.now(UTC), born))
    with Attendance(supervisor, PipelineExaminer(), visitor) as attendance:
        if not attendance.attend(session):
            raise typer.BadParameter(f"the session stopped at {session.step}")
    console.print(summary(session))
    console.print(f"holder of the card: {holder_words(holder_of(read, session))}", highlight=False)
    Image.fromarray(encounter_picture(session)).save(picture)
    console.print(f"picture of what was captured: {picture}", highlight=False, soft_wrap=True)
    session.seal()
    [sent] = box.send(client)
    case = f", case {sent.case_id}" if sent.case_id else ""
    console.print(f"[bold]{sent.decision or sent.sync}[/] {sent.text}{case}", highlight=False)
    return sent


def _report(sent: list[Sent], seconds: list[float], results: Path) -> None:
    decisions = tuple(one.decision for one in sent)
    summary_ = {
        "command": "python -m benchmarks.demo_station",
        **provenance(),
        "decisions": decisions,
        "seconds_of_each_encounter": [round(one, 1) for one in seconds],
    }
    results.write_text(json.dumps(summary_, indent=1) + "\n")
    console.print(f"decisions: {', '.join(decisions)}", highlight=False)
    if decisions != EXPECTED:
        raise typer.Exit(1)


@contextmanager
def _devices(
    out: Path, folder: Path, issuer: TestIssuer, server: str
) -> Iterator[tuple[Slot, LibfprintFeed]]:
    """Start everything that stands for a device, and write the station's settings; its card slot."""
    identity = Identity.generated()
    root = folder / "sbi-root.pem"
    root.write_bytes(identity.root)
    # A scanner for four fingers, which leaves the thumbs to the reader of single ones.
    slaps = replace(SLAP, sub_ids=("1", "2"))
    sbi = Settings(identity, (slaps, IRIS), FolderPictures(out / "sbi"))
    reader = folder / "reader"
    reader.mkdir()
    (out / "pad").mkdir(exist_ok=True)
    pcscd = Pcscd()
    os.environ[SOCKET_VARIABLE] = str(pcscd.socket)
    os.environ[SAM_CODE] = issuer.code.hex()
    with pcscd, simulator(sbi) as port, LibfprintFeed(reader / "socket") as feed:
        pcscd.start()
        card, sam = Slot(pcscd.ports[0]), Slot(pcscd.ports[1])
        sam.insert(TestSam(issuer))
        (folder / "station.toml").write_text(
            f'server = "{server}"\nspool = "{folder / "spool"}"\ngood_quality = 40\n\n'
            f'[libfprint]\nvirtual_image = "{reader / "socket"}"\n\n'
            f'[sbi]\nroots = ["{root}"]\nenvironment = "{sbi.environment}"\n'
            f"first_port = {port}\nlast_port = {port}\n\n"
            f'[face_camera]\nsources = ["{out / "camera"}"]\n\n'
            f'[signature]\npads = ["{out / "pad"}"]\n\n'
            f'[cards]\nsam_slot = "{READER} slot 1"\n'
        )
        try:
            yield card, feed
        finally:
            card.remove()
            sam.remove()


def _enrol_others(client: Client) -> None:
    """People of the synthetic population, so that there is somebody to be unlike."""
    for number in range(OTHERS):
        request = enroll_request(f"other-{number}", made_up_nik(number), person(number, 20_26, TEN_FINGERS))
        client.enrollment.Enroll(request, timeout=120)


def _card(out: Path, visit: int) -> Personalisation:
    """The person's card; the second one says another NIK."""
    photo, small = io.BytesIO(), Image.open(out / "camera" / "3.png").resize((240, 320))
    small.save(photo, "JPEG", quality=80)
    signature = np.full((44, 168), 255, np.uint8)
    signature[20:24, 30:130] = 0
    minutiae = (out / "minutiae-1").read_bytes(), (out / "minutiae-2").read_bytes()
    holder = Demographics(
        nik=made_up_nik(NUMBER + visit),
        address="JL. CONTOH NO. 1",
        neighbourhood="001",
        community="002",
        birthplace="BOGOR",
        district="CONTOH",
        village="CONTOH",
        regency="KABUPATEN BOGOR",
        sex=CardSex.MALE,
        blood="O",
        religion="-",
        marital_status="KAWIN",
        occupation="GURU",
        name="ORANG CONTOH",
        birth_date=date(1990, 1, 1),
        province="JAWA BARAT",
        unknown=("", "", ""),
        nationality="WNI",
    )
    return Personalisation(photo.getvalue(), holder, signature, minutiae)


def _draw(out: Path) -> None:
    """Two captures of everything the person shows, unless an earlier demo drew them."""
    if (out / "drawn").exists():
        return
    for name in ("sbi", "thumbs", "camera"):
        (out / name).mkdir(exist_ok=True)
    extractor = FingerprintExtractor(ExtractorChoice.FAST)
    for position in TEN_FINGERS:
        finger = synthetic_prints.finger(NUMBER, position)
        where = out / ("thumbs" if position in _THUMBS else "sbi")
        for visit in (1, 2):
            drawn = synthetic_prints.impression(finger, seed=100 * position + visit)
            path = where / f"{position.words.replace(' ', '_')}_{visit}.png"
            Image.fromarray(drawn).save(path, dpi=(synthetic_prints.PPI,) * 2)
        if position in (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX):
            template = extractor.extract(Sample(drawn, synthetic_prints.PPI, position)).template
            assert template is not None
            number = 1 if position == FingerPosition.RIGHT_INDEX else 2
            (out / f"minutiae-{number}").write_bytes(card_of(template, CardSize.COMPACT).to_bytes())
    for eye in (EyePosition.RIGHT, EyePosition.LEFT):
        for visit in (1, 2):
            taken = synthetic_irises.capture(2 * NUMBER + eye, visit)
            Image.fromarray(taken.image).save(out / "sbi" / f"{eye.words.replace(' ', '_')}_{visit}.png")
    for frame in range(8):
        Image.fromarray(portrait(NUMBER, frame)).save(out / "camera" / f"{frame}.png")
    (out / "drawn").touch()


if __name__ == "__main__":
    app()
