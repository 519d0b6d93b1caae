"""The command line against a live server: what it prints, how it exits, and that docs/cli.md describes it."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import typer.main
from PIL import Image

from benchmarks.encounters import made_up_nik
from benchmarks.server_process import ServerProcess
from benchmarks.synthetic_prints import finger, impression
from capture.sample import FingerPosition
from rekam.cli import app, main
from tests.conftest import ROOT

REKAM = str(Path(sys.executable).with_name("rekam"))
PAGE = ROOT / "docs" / "cli.md"
ID = r"[sec]-[0-9a-f]{20}"


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


class Cli:
    """The command in this process, which saves its start, with a server in its environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, status: int | None = 0) -> Ran:
        sys.argv = ["rekam", *map(str, arguments)]
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capsys.readouterr()
        ran = Ran(int(exit_.value.code or 0), out, err)
        assert status is None or ran.status == status, ran
        return ran


@pytest.fixture(scope="module")
def prints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people's thumbs, twice each: `<person>_<impression>/right_thumb.png`; and a blank image."""
    folder = tmp_path_factory.mktemp("prints")
    for person in (1, 2):
        thumb = finger(person, FingerPosition.RIGHT_THUMB)
        for n in (1, 2):
            into = folder / f"{person}_{n}"
            into.mkdir()
            image = Image.fromarray(impression(thumb, 10 * person + n))
            image.save(into / "right_thumb.png", dpi=(500, 500))
    (folder / "empty").mkdir()
    (folder / "blank").mkdir()
    Image.new("L", (400, 500), 255).save(folder / "blank" / "right_thumb.png", dpi=(500, 500))
    return folder


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def rekam(process: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("REKAM_SERVER", process.address)
    return Cli(capsys)


def installed(*arguments: str | Path) -> Ran:
    """The installed command, in a process of its own."""
    done = subprocess.run([REKAM, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_registry_at_work(rekam: Cli, prints: Path, process: ServerProcess) -> None:
    # 1. Enrolled, once, whatever happens to the answer.
    first = rekam("enroll", made_up_nik(1), prints / "1_1", "--rest-missing", "--request-id", "office-1")
    subject = re.search(rf"^UNIQUE \(nobody matches\); encounter {ID} enrolled, subject ({ID})$", first.out)
    assert subject is not None or re.search(rf"UNIQUE .* subject ({ID})\n", first.out), first.out
    subject_id = re.findall(rf"subject ({ID})", first.out)[0]
    assert (
        rekam("enroll", made_up_nik(1), prints / "1_1", "--rest-missing", "--request-id", "office-1") == first
    )
    rekam("enroll", made_up_nik(2), prints / "2_1", "--rest-missing", "--missing", "left_ring=amputated")

    # 2. Back under another NIK: held, exit status 2, ids in full though the terminal is narrow.
    back = rekam("enroll", made_up_nik(3), prints / "1_2", "--rest-missing", status=2)
    assert back.out.startswith("DUPLICATE (other subject matches)")
    assert subject_id in back.out.split("\n", 1)[1]
    assert made_up_nik(1) in back.out

    # 3. Asked who that is.
    assert rekam("identify", prints / "1_2").out.startswith("MATCH: 3 encounters searched")
    one = json.loads(rekam("identify", prints / "2_2", "--candidates", "1", "--exhaustive", "--json").out)
    assert [c["nik"] for c in one["candidates"]] == [made_up_nik(2)]
    assert rekam("verify", prints / "2_2", "--nik", made_up_nik(2)).out.startswith("MATCH: LLR ")
    assert rekam("verify", prints / "2_2", "--subject", subject_id, status=2).out.startswith("NO MATCH: LLR ")

    # 4. An operator finds one person behind two NIKs.
    listed = rekam("cases", "list")
    [case_id] = re.findall(r"c-[0-9a-f]{20}", listed.out)
    assert made_up_nik(3) in listed.out
    shown = rekam("cases", "show", case_id)
    assert shown.out.startswith("DUPLICATE")
    resolved = rekam(
        "cases", "resolve", case_id, "same-person", "--operator", "Siti", "--comment", "twins? no"
    )
    assert resolved.out == f"case {case_id} resolved: same-person, now of subject {subject_id}\n"
    again = rekam("cases", "resolve", case_id, "rejected", "--operator", "Siti", status=1)
    assert again.err == f"error: FAILED_PRECONDITION: case {case_id} is resolved already\n"
    assert rekam("cases", "list").out == "no cases\n"
    assert case_id in rekam("cases", "list", "--all").out
    assert "resolved by Siti: same person. twins? no" in rekam("cases", "show", case_id).out

    # 5. The count, with what is zero.
    stats = dict(re.findall(r"│ ([a-z ]+?) +│ (\S+) +│", rekam("stats").out))
    assert stats["subjects"] == "2"
    assert stats["encounters enrolled"] == "3"
    assert stats["encounters held"] == stats["cases open"] == "0"

    # 6. Nobody's NIK is in the log.
    log = process.log.read_text()
    assert not re.search(r"\d{16}", log)
    assert "Traceback" not in log


def test_a_print_is_judged(rekam: Cli, prints: Path) -> None:
    good = rekam("assess", prints / "1_1" / "right_thumb.png")
    assert re.match(r"quality \d+ of 100, \d+ minutiae; png, 400 x 500 pixels at 500 ppi\n", good.out)
    blank = rekam("assess", prints / "blank" / "right_thumb.png", status=2)
    assert "blank: Nothing was captured: place the finger on the sensor." in blank.out
    beside = rekam("assess", prints / "1_1" / "right_thumb.png", "--nfiq2")
    assert re.search(r"^NFIQ 2: [1-9][0-9]?$", beside.out, re.MULTILINE)
    assert "--json" in rekam("assess", prints / "1_1" / "right_thumb.png", "--nfiq2", "--json", status=1).err
    as_json = json.loads(rekam("assess", prints / "1_1" / "right_thumb.png", "--json").out)
    assert as_json["quality"]["usable"] is True


@pytest.fixture(scope="module")
def encounters(tmp_path_factory: pytest.TempPathFactory, prints: Path, development_data: Path) -> Path:
    """One person at two offices, `first` and `second`: a thumb, two eyes and a face in files named so."""
    folder = tmp_path_factory.mktemp("encounters")
    irises, portraits = development_data / "iris" / "casia_v1", development_data / "face" / "lfw"
    portrait = min(min(p for p in portraits.iterdir() if p.is_dir()).iterdir())
    for n, office in ((1, "first"), (2, "second")):
        into = folder / office
        into.mkdir()
        shutil.copy(prints / f"1_{n}" / "right_thumb.png", into)
        shutil.copy(irises / f"001_1_{n}.jpg", into / f"right_eye_{n}.jpg")
        shutil.copy(irises / f"002_1_{n}.jpg", into / f"eye_left_{n}.jpg")
        shutil.copy(portrait, into / "portrait.jpg")
    return folder


def test_an_encounter_of_all_modalities(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, encounters: Path
) -> None:
    process = ServerProcess(tmp_path)
    process.start()
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("REKAM_SERVER", process.address)
    rekam = Cli(capsys)
    try:
        first, second = encounters / "first", encounters / "second"
        enrolled = rekam(
            "enroll", made_up_nik(1), first, "--rest-missing", "--best-effort", "--json", "--timeout", "120"
        )
        encounter = json.loads(enrolled.out)["encounter"]
        assert encounter["decision"] == "DECISION_UNIQUE"
        assert [i["position"] for i in encounter["irises"]] == ["EYE_POSITION_LEFT", "EYE_POSITION_RIGHT"]
        assert len(encounter["missing"]) == 9
        assert "face" in encounter
        # Eyes alone, by name, under another NIK; declared missing one by one, and the rest at once.
        eyes = [second / "right_eye_2.jpg", second / "eye_left_2.jpg"]
        declared = ("--missing", "right_thumb=bandaged", "--missing", "face=unreadable", "--rest-missing")
        held = rekam("enroll", made_up_nik(2), *eyes, "--best-effort", *declared, status=2)
        assert held.out.startswith("DUPLICATE (other subject matches)")
        # Eighty columns hold what every modality says, nothing cut.
        assert re.search(r"│ eyes \d+\.\d \(2 of 2\)", held.out)
        assert "1 encounters searched; a match needs LLR 4.0, a review 2.0" in held.out
        assert "…" not in held.out
        assert rekam("identify", second).out.startswith("MATCH: 2 encounters searched")
        assert rekam("verify", *eyes, "--nik", made_up_nik(1)).out.startswith("MATCH: LLR ")
        stats = dict(re.findall(r"│ ([a-z ]+?) +│ (\S+) +│", rekam("stats").out))
        assert (stats["fingers"], stats["irises"], stats["faces"]) == ("1", "4", "1")
        # One eye of two.
        alone = rekam("enroll", made_up_nik(3), eyes[0], "--missing", "left_ring=amputated", status=1)
        assert "neither presented nor declared missing" in alone.err
        wrong = rekam("enroll", made_up_nik(3), eyes[0], "--missing", "third_eye=amputated", status=1)
        assert "third_eye=amputated is not POSITION=REASON" in wrong.err
        # An eye is declared missing by the names its files may have.
        named = rekam("enroll", made_up_nik(3), eyes[1], "--missing", "right_iris=bandaged", status=1)
        assert "eye" not in named.err
        assert "right thumb" in named.err
        # A faulty file is told by its name.
        broken = tmp_path / "left_eye.jpg"
        broken.write_bytes(b"no image")
        faulty = rekam("identify", eyes[0], broken, status=1)
        assert "  left_eye.jpg: the bytes are no PNG" in faulty.err
    finally:
        process.stop()


def test_an_eye_and_a_face_are_judged(rekam: Cli, encounters: Path, tmp_path: Path) -> None:
    eye, face = encounters / "first" / "right_eye_1.jpg", encounters / "first" / "portrait.jpg"
    judged = r"quality \d+ of 100, \d+ bits; jpeg, 320 x 280 pixels\n"
    any_name = tmp_path / "picture.jpg"
    any_name.write_bytes(eye.read_bytes())
    for arguments in ((eye,), (any_name, "--modality", "iris")):
        assert re.match(judged, _assessed(rekam, *arguments))
    assert re.match(r"quality \d+ of 100; jpeg, 250 x 250 pixels\n", _assessed(rekam, face))
    assert "judges fingerprints only" in rekam("assess", face, "--nfiq2", status=1).err
    blank = tmp_path / "face.png"
    Image.new("RGB", (400, 500), "white").save(blank)
    assert "no_face: No face was found" in rekam("assess", blank, status=2).out
    again = rekam("enroll", made_up_nik(9), blank, "--rest-missing", status=3)
    assert again.out.startswith("CAPTURE AGAIN: nothing was recorded\n  face (quality 0): No face was found")


def _assessed(rekam: Cli, *arguments: str | Path) -> str:
    """What is said of an image, usable or not."""
    as_json = rekam("assess", *arguments, "--json", status=None)
    return rekam("assess", *arguments, status=as_json.status).out


def test_a_blank_print_is_sent_back(rekam: Cli, prints: Path) -> None:
    again = rekam("enroll", made_up_nik(9), prints / "blank", "--rest-missing", status=3)
    assert again.out.startswith("CAPTURE AGAIN: nothing was recorded\n  right thumb (quality 0): Nothing was")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["enroll", "320101", "1_1", "--rest-missing"], "nik: a NIK has 16 digits, 0 to 9"),
        (["enroll", made_up_nik(8), "1_1"], "neither presented nor declared missing: right index"),
        (["enroll", made_up_nik(8), "empty"], "files: no images in "),
        (["enroll", made_up_nik(8), "1_1", "--missing", "thumb=gone"], "thumb=gone is not POSITION=REASON"),
        (["enroll", made_up_nik(8), "1_1", "--rest-missing", "--ppi", "700"], "ppi, the sender 700 ppi"),
        (["verify", "1_1"], "give either --nik or --subject"),
        (["verify", "1_1", "--nik", made_up_nik(8)], "NOT_FOUND: there is no subject with NIK 3201****"),
        (["cases", "show", "c-none"], "NOT_FOUND: there is no case c-none"),
        (
            ["stats", "--server", "127.0.0.1:1"],
            "no server answers on 127.0.0.1:1: start one with `rekam serve`",
        ),
    ],
)
def test_a_fault_is_one_message_and_status_1(
    rekam: Cli, prints: Path, arguments: list[str], says: str
) -> None:
    located = [prints / a if (prints / a).is_dir() else a for a in arguments]
    failed = rekam(*located, status=1)
    assert failed.err.startswith("error: ")
    assert says in failed.err
    assert failed.out == ""


def test_wrong_usage_is_status_2(rekam: Cli, prints: Path) -> None:
    assert "does not exist" in rekam("identify", prints / "nowhere", status=2).err
    assert "Missing option '--operator'" in rekam("cases", "resolve", "c-1", "rejected", status=2).err


def test_a_file_that_tells_no_finger_is_named(rekam: Cli, prints: Path, tmp_path: Path) -> None:
    odd = tmp_path / "scan.png"
    odd.write_bytes((prints / "1_1" / "right_thumb.png").read_bytes())
    assert "scan.png tells no finger" in rekam("identify", odd, status=1).err
    unknown = tmp_path / "unknown.png"
    odd.rename(unknown)
    assert rekam("identify", unknown).out.startswith("MATCH")


def test_a_second_server_is_refused_with_the_reason(process: ServerProcess, tmp_path: Path) -> None:
    same_folder = installed("serve", "--port", "0", "--data-dir", process.data)
    assert f"error: the data folder {process.data} is in use by process " in same_folder.err
    same_port = installed("serve", "--port", str(process.port), "--data-dir", tmp_path / "data")
    assert (
        f"error: cannot listen on 127.0.0.1:{process.port}: is another server running there?" in same_port.err
    )
    open_to_all = installed("serve", "--host", "0.0.0.0", "--data-dir", tmp_path / "data")
    assert "set allow_remote too if that is meant" in open_to_all.err
    assert [r.status for r in (same_folder, same_port, open_to_all)] == [1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_says_where_it_listens_and_stops_when_told(tmp_path: Path, number: signal.Signals) -> None:
    process = ServerProcess(tmp_path)
    process.start()
    assert process._process is not None
    process._process.send_signal(number)
    assert process._process.wait(20) == 0
    said = process.log.read_text()
    listens = f"listens on {process.address}; 0 subjects and 0 open cases in {process.data}\n"
    assert listens in said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


# docs/cli.md ------------------------------------------------------------------------------------------


class Parameter(Protocol):
    name: str | None
    opts: list[str]
    param_type_name: str


class Command(Protocol):
    """What typer's own copy of click gives."""

    help: str | None
    params: list[Parameter]


def commands(group: object, path: str = "rekam") -> Iterator[tuple[str, Command]]:
    """Every command with its path, in the order of the help."""
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def described(command: Command) -> list[tuple[str, str]]:
    """Every argument and option with its help, as rows of the page."""
    rows = []
    for parameter in command.params:
        option = parameter.param_type_name == "option"
        names = parameter.opts if option else [(parameter.name or "").upper()]
        help_text = " ".join((getattr(parameter, "help", None) or "").split())
        rows.append((", ".join(f"`{name}`" for name in names), help_text))
    return rows


def test_the_page_describes_every_command_and_option() -> None:
    group = typer.main.get_command(app)
    page = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(rekam [^`]+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    found = dict(commands(group))
    assert list(sections) == list(found)
    for path, command in found.items():
        rows = re.findall(r"^\| (`[^|]+`) \| (.*?) \|$", sections[path], re.MULTILINE)
        assert rows == described(command), f"docs/cli.md, {path}"
        summary = " ".join((command.help or "").split())
        assert summary in " ".join(sections[path].split()), f"docs/cli.md, {path}"
