"""A workstation from virtual devices: two encounters of one made-up person, UNIQUE, then a DUPLICATE.

    python -m benchmarks.demo_station

Every device is a real driver over its own stack, fed virtually: a slap scanner and an iris camera behind the
MOSIP SBI, a reader of single fingers through libfprint's virtual image driver, a camera that is a folder, a
signature pad's folder, and an e-KTP with a test SAM behind a pcscd of our own. The person and their cards do
not exist. The second card has another NIK. What runs is what an operator types: each command is shown with
what it says; only the person before the devices is played.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from math import cos, sin
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import numpy as np
import typer
from PIL import Image
from rich.console import Console

from benchmarks import synthetic_irises, synthetic_prints
from benchmarks.encounters import enroll_request, made_up_nik
from benchmarks.made_up_card import NOBODY
from benchmarks.population import TEN_FINGERS, person
from benchmarks.provenance import provenance
from benchmarks.server_process import Broken, server
from benchmarks.synthetic_portraits import portrait
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice
from capture.formats.card_minutiae import CardSize
from capture.formats.minutiae_template import card_of
from capture.sample import EyePosition, FingerPosition, Sample
from devices.ektp import CardSex, Personalisation
from devices.virtual.ektp_card import EktpCard
from devices.virtual.libfprint_feed import LibfprintFeed
from devices.virtual.pcscd import READER, SOCKET_VARIABLE, Pcscd
from devices.virtual.sbi_simulator import IRIS, SLAP, FolderPictures, Identity, Settings, simulator
from devices.virtual.test_sam import TestIssuer, TestSam
from devices.virtual.vpcd import Slot
from rekam.client import Client

NUMBER = 4711  # of the person who does not exist
OTHERS = 12
EXPECTED = ("UNIQUE", "DUPLICATE")
_THUMBS = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_THUMB)
_STROKE = [step / 8 for step in range(200)]
_SIGNED = "<ink><trace>{}</trace></ink>".format(
    ", ".join(f"{8 * t + 14 * cos(t):.0f} {60 + (30 - t / 2) * sin(t + t * t / 90):.0f}" for t in _STROKE)
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
console = Console()
app = typer.Typer(add_completion=False)


@dataclass(slots=True)
class Visitor:
    """The person before the devices: lays a thumb down and signs, when the command asks for it."""

    folder: Path
    feed: LibfprintFeed
    visit: int = 1

    def hears(self, line: str) -> None:
        """One line of what the command says."""
        if line.startswith("thumbs (") and " on " in line:
            asked = min(position for position in _THUMBS if position.words in line)
            path = self.folder / "thumbs" / f"{asked.words.replace(' ', '_')}_{self.visit}.png"
            with Image.open(path) as image:
                self.feed.touch(np.array(image))
        elif line.startswith("signature (") and " on " in line:
            for seconds in (0.5, 2, 5):  # a pad has people wait, too
                signing = threading.Timer(seconds, self._sign)
                signing.daemon = True
                signing.start()

    def _sign(self) -> None:
        (self.folder / "pad" / f"{uuid4()}.inkml").write_text(_SIGNED)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for pictures, spool, database and results.")] = Path(
        "demo-output/station"
    ),
    results: Annotated[Path | None, typer.Option(help="File for the record of this run.")] = None,
) -> None:
    """Run both encounters; exit status 1 where a decision is not the expected one."""
    out.mkdir(parents=True, exist_ok=True)
    _draw(out)
    folder = out / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir()
    pictures = [out / f"encounter-{visit}.png" for visit in (1, 2)]
    decisions, seconds = [], []
    with ExitStack() as held:
        console.print("starting the service and what stands for devices", highlight=False)
        try:
            service = held.enter_context(server(folder))
        except Broken as error:
            console.print(str(error), highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
        with Client(service.address) as client:
            _enrol_others(client)
        issuer = TestIssuer()
        card, feed, environment = held.enter_context(_devices(out, folder, issuer, service.address))
        visitor = Visitor(out, feed)
        _rekam(environment, "devices", "list")
        for visit, picture in enumerate(pictures, 1):
            visitor.visit = visit
            card.insert(EktpCard.personalised(issuer, _card(out, visit)))
            if visit == 1:
                _rekam(environment, "card", "read", "--picture", str(out / "card.png"))
            begin = time.monotonic()
            command = ("capture", "--card", "--unattended", "--picture", str(picture))
            said = _rekam(environment, *command, hears=visitor.hears)
            seconds.append(time.monotonic() - begin)
            found = re.search(r"^(\w+): \S+ is encounter", said, re.MULTILINE)
            decisions.append(found[1] if found else "none")
            card.remove()
        _rekam(environment, "spool", "list")
        _rekam(environment, "cases", "list")
    record = {
        "command": "python -m benchmarks.demo_station",
        **provenance(),
        "decisions": decisions,
        "seconds_of_each_encounter": [round(one, 1) for one in seconds],
    }
    (results or out / "demo_station.json").write_text(json.dumps(record, indent=1) + "\n")
    console.print(
        f"\nwhat was captured: {', '.join(map(str, pictures))}; decisions: {', '.join(decisions)}",
        highlight=False,
        soft_wrap=True,
    )
    if tuple(decisions) != EXPECTED:
        raise typer.Exit(1)


def _rekam(environment: dict[str, str], *words: str, hears: Callable[[str], None] = lambda line: None) -> str:
    """A command of the operator, shown as it comes, and told line by line; what it said."""
    console.print(f"\n$ rekam {shlex.join(words)}", style="bold", highlight=False, soft_wrap=True)
    rekam = str(Path(sys.executable).with_name("rekam"))
    lines, rest = list[str](), b""
    with subprocess.Popen(
        [rekam, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.append(_ESCAPES.sub("", line.decode()))
                hears(lines[-1])
    return "\n".join(lines)


@contextmanager
def _devices(
    out: Path, folder: Path, issuer: TestIssuer, address: str
) -> Iterator[tuple[Slot, LibfprintFeed, dict[str, str]]]:
    """Everything that stands for a device, and the station's settings: card slot, thumbs, environment."""
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
    with pcscd, simulator(sbi) as port, LibfprintFeed(reader / "socket") as feed:
        pcscd.start()
        card, sam = Slot(pcscd.ports[0]), Slot(pcscd.ports[1])
        sam.insert(TestSam(issuer))
        station = folder / "station.toml"
        station.write_text(
            f'server = "{address}"\nspool = "{folder / "spool"}"\n\n'
            f'[libfprint]\nvirtual_image = "{reader / "socket"}"\n\n'
            f'[sbi]\nroots = ["{root}"]\nenvironment = "{sbi.environment}"\n'
            f"first_port = {port}\nlast_port = {port}\n\n"
            f'[face_camera]\nsources = ["{out / "camera"}"]\n\n'
            f'[signature]\npads = ["{out / "pad"}"]\n\n'
            f'[cards]\nsam_slot = "{READER} slot 1"\n'
        )
        environment = {
            **os.environ,
            "REKAM_STATION": str(station),
            "REKAM_SERVER": address,
            "REKAM_SPOOL_PASSPHRASE": "a passphrase of the demo",
            "REKAM_SAM_CODE": issuer.code.hex(),
            SOCKET_VARIABLE: str(pcscd.socket),
            "COLUMNS": str(console.width if console.is_terminal else 110),
            **({"FORCE_COLOR": "1"} if console.is_terminal else {}),
        }
        try:
            yield card, feed, environment
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
    holder = replace(NOBODY, nik=made_up_nik(NUMBER + visit), birth_date=date(1990, 1, 1), sex=CardSex.MALE)
    return Personalisation(photo.getvalue(), holder, signature, minutiae)


def _draw(out: Path) -> None:
    """Two captures of everything the person shows, unless an earlier demo drew them."""
    if (out / "drawn").exists():
        return
    console.print("drawing a person who does not exist", highlight=False)
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
