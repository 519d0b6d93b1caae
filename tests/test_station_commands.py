"""The workstation as an operator has it: commands, slaps through the pipelines, a server that loads none."""

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.encounters import made_up_nik
from benchmarks.synthetic_portraits import portrait
from benchmarks.synthetic_prints import impression
from benchmarks.synthetic_slaps import LEFT_FOUR, RIGHT_FOUR, Hands, Kind, drawn_slap, hands
from capture.quality import Feedback, Quality
from devices.device import Captured, CaptureSpec, DeviceInfo, TimedOut
from devices.ektp import CardFile, Personalisation
from devices.errors import DeviceRemoved, DeviceUnavailable
from devices.frame import DeviceKind, Frame, Provenance
from devices.opencv_camera import OpencvDriver
from devices.position import FingerPosition
from devices.supervisor import Supervisor
from devices.virtual.ektp_card import EktpCard
from devices.virtual.sbi_simulator import SLAP, FolderPictures, simulator
from devices.virtual.sbi_simulator import Settings as SbiSettings
from devices.virtual.test_sam import TestIssuer, TestSam
from rekam.errors import InvalidSettings, SpoolError
from rekam.exchange import MissingReason
from rekam.session import (
    FACE,
    Began,
    Entry,
    HolderSeen,
    Result,
    Seen,
    Session,
    Unfit,
    Verdict,
    places,
    read_entry,
)
from rekam.spool import Spool
from rekam.station.attendance import Attendance, Choice, Decision
from rekam.station.examiner import PipelineExaminer
from rekam.station.settings import drivers, examiner_of, load_station
from rekam.station.terminal import Terminal
from tests.card_places import CARD, SAM, card_table, personalisation
from tests.conftest import ROOT
from tests.sbi_services import identity
from tests.service import running
from tests.signing import signing
from tests.test_cli import Cli, Ran

PAGE = ROOT / "docs" / "station.md"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
INK = "<ink><trace>0 0, 40 30, 80 0</trace><trace>0 40, 80 40</trace></ink>"
HEAVY = ("gi", "smartcard", "harvesters", "genicam", "cryptography")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("REKAM_SPOOL_PASSPHRASE", "kopi susu")
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(capsys)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A terminal in place of the standard input; called once, with all that will be typed."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        def typed(text: str) -> None:
            os.write(ours, f"{text}\x04".encode())  # who asks for more is told that there is none

        yield typed
    os.close(ours)


def put(path: Path, data: bytes) -> None:
    """A whole file, at once."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    beside.replace(path)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[None]:
    """Somebody who signs on the station's pad."""
    with signing(lambda: put(tmp_path / "signed.inkml", INK.encode())):
        yield


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """A camera that is a folder of a drawn portrait, and a signature pad that is a file."""
    camera = tmp_path / "camera"
    camera.mkdir()
    for frame in range(3):
        Image.fromarray(portrait(1, frame)).save(camera / f"{frame}.png")
    (tmp_path / "signed.inkml").write_text(INK)
    file = tmp_path / "station.toml"
    file.write_text(
        f'spool = "{tmp_path / "spool"}"\ncaptures = ["face", "signature"]\ngood_quality = 40\n'
        f'[face_camera]\nsources = ["{camera}"]\n[signature]\npads = ["{tmp_path / "signed.inkml"}"]\n'
    )
    return file


def changed(station: Path, *settings: str) -> Path:
    """The station's file with these settings instead."""
    names = {text.partition(" = ")[0] for text in settings}
    kept = [line for line in station.read_text().splitlines() if line.partition(" = ")[0] not in names]
    file = station.with_name("changed.toml")
    file.write_text("\n".join((*settings, *kept)))
    return file


# What a server loads ------------------------------------------------------------------------------------


def test_a_server_loads_neither_glib_nor_pcsc_nor_a_camera_stack(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import rekam.cli
from rekam.config import load_settings
from rekam.server import Server
from rekam.workflow import Workflow
settings = load_settings(data_dir=Path(sys.argv[1]), port=0)
workflow = Workflow(settings)
server = Server(settings, workflow)
server.stop()
workflow.close()
print(*sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    loaded = set(ran.stdout.split())
    assert {"rekam.server", "rekam.station.capture_command"} <= loaded
    assert not loaded & set(HEAVY)
    types = {"devices", "devices.device", "devices.errors", "devices.frame", "devices.position"}
    assert {name for name in loaded if name.partition(".")[0] == "devices"} <= types


# Settings -----------------------------------------------------------------------------------------------


def test_a_station_has_the_devices_its_file_names(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_text(
        '[libfprint]\nppi = 508\n[face_camera]\n[iris_camera]\nsources = ["/dev/video2"]\n[genicam]\n'
        '[sbi]\nroots = ["root.pem"]\n[signature]\npads = ["pad"]\n[cards]\nsam_slot = "x"\n'
    )
    made, missing = drivers(load_station(file))
    assert missing == []
    names = ["libfprint", "opencv-face", "opencv-iris", "genicam", "sbi", "signature", "pcsc"]
    assert [driver.name for driver in made] == names


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("sever = 1", "sever"),
        ("[libfprint]\nppi = 'x'", "libfprint.ppi"),
        ("best_of = 0", "best_of"),
        ("[", ""),
    ],
)
def test_a_mistake_in_the_stations_file_is_named(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "station.toml"
    file.write_text(text)
    with pytest.raises(InvalidSettings) as refusal:
        load_station(file)
    assert refusal.value.violations[0][0] == (field or str(file))


# rekam devices ------------------------------------------------------------------------------------------


def test_devices_are_listed_watched_and_their_health_is_shown(cli: Cli, station: Path) -> None:
    listed = cli("devices", "list", "--station", station).out
    assert "opencv-face" in listed
    assert "signature" in listed
    kinds = {info["kind"] for info in json.loads(cli("devices", "list", "--station", station, "--json").out)}
    assert kinds == {"face", "signature"}
    assert "ready" in cli("devices", "health", "--station", station).out
    command = [sys.executable, "-c", "from rekam.cli import main; main()", "devices", "watch"]
    options = ["--station", str(station), "--seconds", "120"]
    with subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "attached opencv-face" in line:
                (station.parent / "camera").rename(station.parent / "away")
            elif "detached opencv-face" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    watched = "".join(said)
    assert watched.count("attached opencv-face") == 1
    assert watched.count("detached opencv-face") == 1


def test_what_the_settings_name_and_is_not_there_is_said(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_text('[face_camera]\nsources = ["/dev/null/camera"]\n[signature]\npads = ["/dev/null/pad"]\n')
    listed = cli("devices", "list", "--station", file)
    assert "no devices" in listed.out
    assert "face_camera.sources: there is no /dev/null/camera" in listed.err
    assert "signature.pads: there is no /dev/null/pad" in listed.err


# The terminal, and which device is asked ----------------------------------------------------------------


def begun(*kinds: DeviceKind) -> Session:
    began = Began("e1", made_up_nik(0), "Sari", kinds, NOW)
    return Session.begin(began, PipelineExaminer(), lambda entry: None)


def terminal() -> tuple[Terminal, io.StringIO]:
    """An operator's, and what it shows."""
    shown = io.StringIO()
    return Terminal(Console(file=shown, force_terminal=True, width=200), unattended=False), shown


def test_a_reader_of_single_fingers_is_asked_for_one() -> None:
    asks, shown = terminal()
    session = begun(DeviceKind.FINGERPRINT)
    assert session.step is not None
    one_by_one = tuple((position,) for position in FingerPosition if position)
    of = Provenance("virtual", "reader", model="small")
    asks.begins(session, session.step, DeviceInfo("reader", DeviceKind.FINGERPRINT, of, one_by_one))
    assert "(right index) on small" in shown.getvalue()
    assert "right middle" not in shown.getvalue()


def test_an_empty_line_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asks, shown = terminal()
    session = begun(DeviceKind.FACE)
    typed = ("m", "", "m", "face", "", "m", "face", "bandaged")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join((*typed, ""))))
    decided = asks.decide(session, session.step, None)
    assert decided == Decision(Choice.MISSING, (FACE,), MissingReason.BANDAGED)
    session.declare(FACE, MissingReason.BANDAGED)
    monkeypatch.setattr(sys, "stdin", io.StringIO("d\n\n\n"))
    assert asks.decide(session, None, None) == Decision(Choice.AGAIN)
    assert shown.getvalue().count("goes back") == 6


def test_the_live_bar_shows_no_number_and_a_usable_capture_is_told_from_a_poor_one() -> None:
    asks, shown = terminal()
    session = begun(DeviceKind.FACE)
    frame = Frame(portrait(1), DeviceKind.FACE, (), None, NOW, Provenance("virtual", "camera"))
    asks.live(frame, Quality(77, usable=True), (Feedback.HEAD_TILTED,))
    assert Feedback.HEAD_TILTED.advice in shown.getvalue()
    assert "77" not in shown.getvalue()
    for usable in (True, False):
        seen = (Seen(FACE, b"", None, Quality(65, usable=usable)),)
        asks.result(session, Result(Verdict.AGAIN, (FACE,), ("face, quality 65: Try again.",), seen))
        assert shown.getvalue().count("can be used as it is") == 1


def test_after_a_fault_the_next_device_that_fits_is_asked(tmp_path: Path) -> None:
    for name in ("broken", "whole"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (200, 100), "white").save(tmp_path / "whole" / "1.png")
    (tmp_path / "broken" / "1.png").write_text("no picture")
    kind, shown = DeviceKind.SIGNATURE, io.StringIO()
    cameras = [OpencvDriver((tmp_path / name,), kind, name) for name in ("broken", "whole")]
    session = begun(kind)
    with (
        Supervisor(cameras) as supervisor,
        Terminal(Console(file=shown, width=200), unattended=True, patience=2) as operator,
        Attendance(supervisor, PipelineExaminer(), operator) as attendance,
    ):
        assert attendance.attend(session), shown.getvalue()
    assert shown.getvalue().index("on broken") < shown.getvalue().index("on whole")


class Desk:
    """A supervisor's list of devices, as a test has it; none is ever opened."""

    def __init__(self, *names: str) -> None:
        self.infos = [
            DeviceInfo(name, DeviceKind.SIGNATURE, Provenance("pad", name), previews=False) for name in names
        ]

    def devices(self) -> list[DeviceInfo]:
        return self.infos


def test_a_device_that_failed_is_asked_again_once_it_was_pulled_and_came_back() -> None:
    desk, session = Desk("first", "second"), begun(DeviceKind.SIGNATURE)
    attendance = Attendance(desk, PipelineExaminer(), Terminal(Console()))  # type: ignore[arg-type]
    step = session.steps[0]

    def asked() -> str:
        info = attendance._device(session, step)
        assert info is not None
        return info.id

    assert asked() == "first"
    attendance._faults[step.name, "pad", "first"] += 1
    assert asked() == "second"
    first = desk.infos.pop(0)
    assert asked() == "second"
    desk.infos.insert(0, first)
    assert asked() == "first"


# rekam capture ------------------------------------------------------------------------------------------


def test_an_encounter_is_captured_offline_shown_and_sent_later(
    cli: Cli, station: Path, tmp_path: Path, signer: None
) -> None:
    picture = tmp_path / "seen.xyz"  # a PNG, whatever its name
    command = ("capture", made_up_nik(1), "--station", station, "--unattended", "--picture", picture)
    with signing(lambda: (tmp_path / "signed.inkml").write_text(INK)):
        ran = cli(*command, "--no-send")
    assert "portrait (face)" in ran.out
    assert "taken: signature" in ran.out
    with Image.open(picture) as image:
        seen = np.array(image)
    assert seen.std() > 20
    assert picture.stat().st_mode & 0o777 == 0o600
    assert "waiting" in cli("spool", "list", "--station", station).out
    cli("spool", "send", "--station", station, "--server", "127.0.0.1:1", status=4)  # nobody answers
    with running(tmp_path / "data", required_modalities=["face"]) as service:
        sent = cli("spool", "send", "--station", station, "--server", service.server.address, status=2)
        assert "REVIEW" in sent.out  # a face alone is enough for nothing
        assert service.stats().faces == 1
        cli("spool", "send", "--station", station, "--server", service.server.address)
        assert service.stats().faces == 1
    listed = cli("spool", "list", "--station", station).out
    assert "recorded" in listed
    assert "REVIEW" in listed


def stopped(ran: Ran) -> str:
    """The name of an encounter that is not finished."""
    name = re.search(r"--resume (\S+)", ran.out)
    assert name is not None, ran
    return name[1]


def test_an_unfinished_encounter_waits_and_goes_on(cli: Cli, station: Path, tmp_path: Path) -> None:
    command = ("--unattended", "--no-send", "--station")
    unsigned = cli("capture", made_up_nik(1), *command, changed(station, "seconds = 1"), status=5)
    assert "Nothing was captured in time" in unsigned.out
    name = stopped(unsigned)
    assert "open" in cli("spool", "list", "--station", station).out
    with signing(lambda: put(tmp_path / "signed.inkml", INK.encode())):
        resumed = cli("capture", "--resume", name, *command, station, "--operator", "Budi")
    assert "operator Budi nothing is known here" in resumed.err
    assert "taken: signature" in resumed.out
    assert "taken: face" not in resumed.out  # it was there already
    cli("spool", "discard", name, "--station", station)
    assert not list((tmp_path / "spool").glob("2*.spool"))


def test_what_is_missing_is_declared_before_it_is_asked_for_and_changed_before_the_end(
    cli: Cli, station: Path, keyboard: Callable[[str], None]
) -> None:
    portrait_missing = ("d", "m", "nose", "face", "not_captured")  # nothing is there to be discarded yet
    signature_missing = ("m", "all", "unreadable")
    at_the_end = ("d", "signature, face", "m", "all", "bandaged", "m", "signature", "not_captured", "")
    keyboard("\n".join((*portrait_missing, *signature_missing, *at_the_end, "")))
    ran = cli("capture", made_up_nik(1), "--station", station, "--no-send")
    assert "Please select one of the available options" in ran.out
    shown = [line for line in ran.out.splitlines() if "missing: " in line and "│" in line]
    assert [re.findall(r"missing: (\w+)", line)[0] for line in shown] == [
        "not_captured",
        "unreadable",
        "bandaged",
        "not_captured",
    ]
    assert " on " not in ran.out  # no device was asked
    assert "waiting" in cli("spool", "list", "--station", station).out


def test_the_end_of_the_input_is_a_stop(cli: Cli, station: Path, keyboard: Callable[[str], None]) -> None:
    keyboard("m\nface\nnot_captured\nm\n")  # and nothing to the question which
    name = stopped(cli("capture", made_up_nik(1), "--station", station, "--no-send", status=5))
    assert name in cli("spool", "list", "--station", station).out


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), SpoolError("no space left"), DeviceUnavailable("there is no reader")]
)
def test_whatever_ends_a_capture_its_name_is_told(
    cli: Cli, station: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    def attend(attendance: Attendance, session: Session) -> bool:
        raise end

    monkeypatch.setattr(Attendance, "attend", attend)
    ran = cli("capture", made_up_nik(1), "--station", station, "--unattended", "--no-send", status=5)
    assert (str(end) or "interrupted") in ran.err
    assert [stopped(ran)] == [file.stem for file in (station.parent / "spool").glob("2*.spool")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("123",), "16 digits"),
        ((made_up_nik(1), "--birth-date", "1990-13-01"), "written YYYY-MM-DD"),
        ((made_up_nik(1), "--birth-date", "01-07-1990"), "written YYYY-MM-DD"),
        ((made_up_nik(1), "--birth-date", "19900701x"), "written YYYY-MM-DD"),
        ((made_up_nik(1), "--picture", "/dev/null/seen.png"), "there is no folder"),
    ],
)
def test_what_was_asked_for_is_checked_before_there_is_a_spool(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "station.toml"
    file.write_text(f'spool = "{tmp_path / "spool"}"\n')
    assert words in cli("capture", *arguments, "--station", file, "--unattended", status=1).err
    assert not (tmp_path / "spool").exists()


def test_an_image_of_the_operator_that_is_none_is_named(cli: Cli, station: Path) -> None:
    own = station.parent / "own"
    own.mkdir()
    (own / "face.png").write_text("no picture")
    command = ("capture", made_up_nik(1), "--station", station, "--unattended", "--operator-samples", own)
    assert "--operator-samples: face.png: " in cli(*command, status=1).err


def test_a_birth_date_that_is_not_the_niks_is_said(cli: Cli, station: Path, signer: None) -> None:
    only = changed(station, 'captures = ["signature"]')
    command = ("capture", "3273014107900001", "--station", only, "--unattended", "--no-send", "--birth-date")
    assert "differs from the one given" in cli(*command, "1991-07-01").err
    same = cli(*command, "1990-07-01", "--picture", "/dev/full")
    assert "differs" not in same.err
    assert "/dev/full cannot be written: No space left" in same.err  # and it waits all the same


def test_what_the_service_refused_as_missing_is_captured_after_all(
    cli: Cli, station: Path, tmp_path: Path, signer: None
) -> None:
    narrow = changed(station, 'captures = ["signature"]')
    with running(tmp_path / "data", required_modalities=["face"]) as service:
        options = ("--unattended", "--server", service.server.address, "--station")
        refused = cli("capture", made_up_nik(1), *options, narrow, status=1)
        name = re.search(r"refused: (\S+):", refused.out)
        assert name is not None
        again = cli("capture", "--resume", name[1], *options, station, status=2)
        assert "taken: face" in again.out
        assert "taken: signature" not in again.out  # it was there already
        assert "REVIEW" in again.out
        assert service.stats().faces == 1


def test_an_office_judges_by_a_measure_of_its_own(
    cli: Cli, station: Path, tmp_path: Path, signer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strict_office.py").write_text(
        "from dataclasses import replace\n"
        "from capture.quality import Quality\n"
        "from rekam.station.examiner import PipelineExaminer\n"
        "class Strict(PipelineExaminer):\n"
        "    def judged(self, *given):\n"
        "        return replace(super().judged(*given), quality=Quality(3, usable=False))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = changed(station, 'captures = ["signature"]', 'examiner = "strict_office:Strict"')
    ran = cli("capture", made_up_nik(1), "--station", own, "--unattended", "--no-send", status=5)
    assert "signature, quality 3" in ran.out
    for name in ("nowhere:Strict", "strict_office:Lax", "pathlib:Path", "a b"):
        with pytest.raises(InvalidSettings, match="examiner"):
            examiner_of(load_station(changed(station, f'examiner = "{name}"')))


def test_the_operators_own_face_is_never_taken_for_a_citizens(
    cli: Cli, station: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    Image.fromarray(portrait(1, 0)).save(own / "face.png")
    face = changed(station, 'captures = ["face"]')
    command = ("capture", made_up_nik(1), "--station", face, "--unattended", "--no-send", "--operator")
    other = cli(*command, "Budi")
    assert "operator Budi nothing is known here to compare with: face" in other.err
    assert "taken: face" in other.out
    seen = cli(*command, "Sari", "--operator-samples", own, status=5)
    assert "The face is an operator's own face: nothing of it is kept." in seen.out
    assert "nothing is known" not in seen.err


def test_another_passphrase_is_refused_in_words(
    cli: Cli, station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool.open(station.parent / "spool", "kopi susu").close()
    monkeypatch.setenv("REKAM_SPOOL_PASSPHRASE", "teh tarik")
    assert "not the passphrase" in cli("spool", "list", "--station", station, status=1).err


def test_either_a_nik_or_a_card_or_a_resumed_session_is_wanted(cli: Cli, station: Path) -> None:
    assert "either a NIK" in cli("capture", "--station", station, status=1).err
    assert "either a NIK" in cli("capture", made_up_nik(1), "--card", "--station", station, status=1).err


def test_ten_fingers_go_from_a_slap_scanner_to_a_decision(cli: Cli, station: Path, tmp_path: Path) -> None:
    prints = tmp_path / "prints"
    prints.mkdir()
    for position, finger in person().fingers.items():
        name = f"{position.words.replace(' ', '_')}.png"
        Image.fromarray(impression(finger, int(position))).save(prints / name, dpi=(500, 500))
    root = tmp_path / "root.pem"
    root.write_bytes(identity().root)
    picture = tmp_path / "seen.png"
    with (
        simulator(SbiSettings(identity(), (SLAP,), FolderPictures(prints))) as port,
        running(tmp_path / "data", extractor="fast") as service,
    ):
        desk = changed(station, 'captures = ["fingerprint"]')
        with desk.open("a") as text:
            text.write(f'\n[sbi]\nroots = ["{root}"]\nenvironment = "Staging"\n')
            text.write(f"first_port = {port}\nlast_port = {port}\n")
        command = ("capture", made_up_nik(3), "--station", desk, "--unattended", "--picture", picture)
        ran = cli(*command, "--server", service.server.address)
        assert "right four fingers (right index, right middle, right ring, right little) on" in ran.out
        assert "UNIQUE: " in ran.out
        assert service.stats().fingers == 10
    with Image.open(picture) as image:
        assert np.array(image).std() > 20


# Slaps --------------------------------------------------------------------------------------------------


@cache
def person() -> Hands:
    return hands(3)


def slap(positions: tuple[int, ...], seed: int = 1) -> NDArray[np.uint8]:
    shown = tuple(p for p in RIGHT_FOUR + LEFT_FOUR if p in positions)
    return np.asarray(drawn_slap(person(), shown, Kind.PLAIN, seed).image, np.uint8)


def taken(image: NDArray[np.uint8]) -> Captured:
    of = Provenance("virtual", "slap", model="drawn")
    return Captured((Frame(image, DeviceKind.FINGERPRINT, (), 500.0, NOW, of),))


def test_a_slap_becomes_four_fingers_three_are_short_and_the_other_hand_is_told() -> None:
    examiner = PipelineExaminer()
    kept: list[Entry] = []
    began = Began("e1", made_up_nik(0), "Sari", (DeviceKind.FINGERPRINT,), NOW)
    session = Session.begin(began, examiner, kept.append)
    right = places(DeviceKind.FINGERPRINT, RIGHT_FOUR)
    left = places(DeviceKind.FINGERPRINT, LEFT_FOUR)

    three = session.judge(taken(slap(RIGHT_FOUR[:3])), right)
    assert three.verdict is Verdict.SHORT
    assert "3 of 4 fingers were seen" in three.advice[0]
    swapped = session.judge(taken(slap(LEFT_FOUR)), right)
    assert swapped.verdict is Verdict.AGAIN
    assert "other hand" in swapped.advice[0]
    assert len(kept) == 1

    verdicts = [session.judge(taken(slap(RIGHT_FOUR)), right).verdict]
    while verdicts[-1] is Verdict.AGAIN and len(verdicts) < 3:  # the best of three
        verdicts.append(session.judge(taken(slap(RIGHT_FOUR)), right).verdict)
    assert verdicts[-1] is Verdict.ACCEPTED
    assert set(session.taken) == set(right)
    once_more = session.judge(taken(slap(RIGHT_FOUR, seed=2)), left)
    assert once_more.verdict is Verdict.AGAIN
    assert "other hand" in once_more.advice[0]


def test_what_is_no_picture_of_a_finger_is_refused_in_words() -> None:
    blank = np.full((500, 500), 250, np.uint8)
    [seen] = PipelineExaminer().examine(taken(blank), places(DeviceKind.FINGERPRINT, RIGHT_FOUR[:1]))  # type: ignore[misc]
    assert not seen.quality.usable
    tiny = np.full((10, 10), 250, np.uint8)
    unfit = PipelineExaminer().examine(taken(tiny), places(DeviceKind.FINGERPRINT, RIGHT_FOUR[:1]))
    assert isinstance(unfit, Unfit)
    assert "cannot be used" in unfit.advice


# docs/station.md ----------------------------------------------------------------------------------------


def test_every_test_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 20
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_the_station_file_of_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "station.toml"
    file.write_text(text)
    assert len(drivers(load_station(file))[0]) == 7


def test_the_driver_of_the_page_works_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 100
    (tmp_path / "folder_scanner.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    module = importlib.import_module("folder_scanner")
    scanner = tmp_path / "scanner"
    scanner.mkdir()
    drawn = np.tile(np.arange(256, dtype=np.uint8), (300, 1))
    print_ = io.BytesIO()
    Image.fromarray(drawn).save(print_, "PNG")
    with Supervisor([module.FolderScannerDriver((scanner,))]) as supervisor:
        [info] = supervisor.devices()
        device = supervisor.open("folder-scanner", info.id)
        with signing(lambda: put(scanner / f"{uuid4()}.png", print_.getvalue())):
            outcome = device.capture(CaptureSpec((FingerPosition.RIGHT_INDEX,), seconds=30))
        assert isinstance(outcome, Captured)
        assert np.array_equal(outcome.frames[0].pixels, drawn)
        assert isinstance(device.capture(CaptureSpec((FingerPosition.RIGHT_INDEX,), seconds=0.2)), TimedOut)
        scanner.rename(tmp_path / "away")
        with pytest.raises(DeviceRemoved):
            device.capture(CaptureSpec((FingerPosition.RIGHT_INDEX,), seconds=5))


# rekam card, and rekam capture --card ----------------------------------------------------------------------


@cache
def photo(quality: int = 90) -> bytes:
    small = cv2.resize(portrait(1)[..., ::-1], (240, 320), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def card_of(issuer: TestIssuer, nik: str = "3273014107900001") -> EktpCard:
    holder = personalisation()
    demographics = replace(holder.demographics, nik=nik)
    return EktpCard.personalised(
        issuer, Personalisation(photo(), demographics, holder.signature, holder.minutiae)
    )


def exchanged(card: EktpCard) -> EktpCard:
    """The same card with another photo of the same person: its digital signature is not good."""
    card.files[CardFile.PHOTO] = bytearray(len(photo(60)).to_bytes(2, "big") + photo(60))
    return card


def card_station(station: Path, captures: str) -> Path:
    file = changed(station, f'captures = ["{captures}"]')
    with file.open("a") as text:
        text.write(f'\n[cards]\nsam_slot = "{SAM}"\n')
    return file


def test_a_card_that_proves_nothing_stops_and_is_asked_for_again(
    cli: Cli, station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = TestIssuer()
    monkeypatch.setenv("REKAM_SAM_CODE", issuer.code.hex())
    options = ("--station", card_station(station, "face"), "--unattended", "--no-send")
    with card_table() as table:
        table.sam.insert(TestSam(issuer))
        table.card.insert(exchanged(card_of(issuer)))
        doubted = cli("capture", "--card", *options, status=5)
        assert "signature of the card is not good" in doubted.err
        assert re.search(r"holder of the card: uncertain .*card unverified", doubted.out)
        resume = ("capture", "--resume", stopped(doubted), *options)
        table.card.remove()
        table.card.insert(card_of(issuer, made_up_nik(2)))
        another = cli(*resume, status=5)
        assert "another card" in another.err
        assert stopped(another) == stopped(doubted)
        table.card.remove()
        table.card.insert(card_of(issuer))
        known = cli(*resume)
        assert "put the e-KTP on the reader" in known.out
        assert "holder of the card: holder" in known.out
    assert "waiting" in cli("spool", "list", "--station", station).out


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 5)])
def test_only_the_operator_overrules_a_card_and_that_is_kept(
    cli: Cli,
    station: Path,
    monkeypatch: pytest.MonkeyPatch,
    keyboard: Callable[[str], None],
    signer: None,
    answer: str,
    status: int,
) -> None:
    issuer = TestIssuer()
    monkeypatch.setenv("REKAM_SAM_CODE", issuer.code.hex())
    with card_table() as table:
        table.sam.insert(TestSam(issuer))
        table.card.insert(card_of(issuer))
        keyboard(f"\n\n{answer}\n")  # capture, finish, and go on all the same or not
        ran = cli(
            "capture", "--card", "--station", card_station(station, "signature"), "--no-send", status=status
        )
    assert "nothing to compare" in ran.out
    with Spool.open(station.parent / "spool", "kopi susu") as spool:
        [name] = (name for name in spool.names if name.startswith("2"))
        entries = [read_entry(record) for record in spool.records(name)]
    assert [entry.overruled for entry in entries if isinstance(entry, HolderSeen)] == [True] * (status == 0)


def test_a_card_is_read_with_and_without_a_sam(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = TestIssuer()
    free, whole = tmp_path / "free.toml", tmp_path / "whole.toml"
    free.write_text("[cards]\n")
    whole.write_text(f'[cards]\nsam_slot = "{SAM}"\n')
    with card_table() as table:
        table.card.insert(card_of(issuer))
        table.sam.insert(TestSam(issuer))
        said = json.loads(cli("card", "read", "--station", free, "--reader", CARD, "--json").out)
        assert set(said) == {"uid", "photo"}
        monkeypatch.setenv("REKAM_SAM_CODE", issuer.code.hex())
        picture = tmp_path / "card.png"
        shown = cli("card", "read", "--station", whole, "--picture", picture)
        assert "3273014107900001" in shown.out
        assert "SITI CONTOH" in shown.out
        assert "good" in shown.out
        assert picture.stat().st_mode & 0o777 == 0o600
        nowhere = tmp_path / "none" / "card.png"
        assert "there is no folder" in cli("card", "read", "--picture", nowhere, status=1).err
        monkeypatch.setenv("REKAM_SAM_CODE", os.urandom(32).hex())
        refused = cli("card", "read", "--station", whole, status=1)
        assert "does not open with this code" in refused.err
        monkeypatch.setenv("REKAM_SAM_CODE", "xyz")
        assert "not hexadecimal" in cli("card", "read", "--station", whole, status=1).err
        table.card.remove()
        none = cli("card", "read", "--station", free, "--reader", CARD, "--seconds", "1", status=1)
        assert "no card was put in" in none.err
