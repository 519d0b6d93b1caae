"""`rekam spool`, and the passphrase of a station's spool."""

import getpass
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rekam.errors import SpoolError
from rekam.spool import BOOK, Spool
from rekam.station.outbox import Outbox
from rekam.station.spool_command import PASSPHRASE, opened_outbox
from tests.service import fingers, running
from tests.test_cli import Cli
from tests.test_session import OfTemplates, began, fill, hands, over, shown, slap_scanner

WORD = "kopi susu"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv(PASSPHRASE, WORD)
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(capsys)


@pytest.fixture
def station(tmp_path: Path) -> Path:
    file = tmp_path / "station.toml"
    file.write_text(f'spool = "{tmp_path / "of" / "spool"}"\ncaptures = ["fingerprint"]\n')
    return file


def spool_of(station: Path) -> Path:
    return station.parent / "of" / "spool"


def test_none_but_capture_makes_a_spool(cli: Cli, station: Path) -> None:
    for command in (("list",), ("send",), ("discard", "e1"), ("forget-operator", "Sari")):
        assert "there is no spool in" in cli("spool", *command, "--station", station, status=1).err
    assert not spool_of(station).parent.exists()


def test_what_is_damaged_is_shown_and_can_be_given_up(cli: Cli, station: Path) -> None:
    with Spool.open(spool_of(station), WORD) as spool:
        box = Outbox(spool, OfTemplates())
        fill(box.begin(began("e1")), hands(0))
        box.begin(began("e2"))
        spool.append("e2", b"of another version")
        box.enrol_operator("Sari", fingers(7))
    listed = cli("spool", "list", "--station", station).out
    assert [word in listed for word in ("waiting", "encounter e2 cannot be read", "damaged")] == [True] * 3
    given_up = cli("spool", "discard", "e1", "--station", station)
    assert given_up.out == "e1 is erased here; the service may have recorded it\n"
    sent = cli("spool", "send", "--station", station, "--server", "127.0.0.1:1", status=1)
    assert "damaged: e2" in sent.out
    cli("spool", "discard", "e2", "--station", station)
    cli("spool", "forget-operator", "Sari", "--station", station)
    assert "operator Sari" in cli("spool", "forget-operator", "Sari", "--station", station, status=1).err
    assert not list(spool_of(station).glob("*.spool"))


def test_who_captured_and_what_the_card_proved_stays_with_the_outcome(
    cli: Cli, station: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "data") as service, Spool.open(spool_of(station), WORD) as spool:
        box = Outbox(spool, OfTemplates())
        of = box.begin(replace(began("e1", number=1), card=True))
        scanner = slap_scanner(shown(hands(1)))
        while of.step is not None:
            of.capture(scanner)
        of.keep_holder("nothing to compare", overruled=True)
        of.seal()
        box.send(over(service.client))
    listed = cli("spool", "list", "--station", station).out
    words = ("recorded", "UNIQUE", "Sari", "nothing to compare, overruled by the operator")
    assert [word in listed for word in words] == [True] * 4


def test_the_first_passphrase_is_asked_for_twice_and_a_new_spool_is_said(
    station: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.delenv(PASSPHRASE, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: said.pop(0))
    said += [WORD, "kopi sus"]
    with pytest.raises(SpoolError, match="differ"), opened_outbox(station, create=True):
        pass
    assert not spool_of(station).exists()
    said += [WORD, WORD]
    with opened_outbox(station, create=True):
        assert not said
    assert "new spool" in capsys.readouterr().err
    assert (spool_of(station) / BOOK).exists()
    for create in (True, False):
        said += [WORD]
        with opened_outbox(station, create=create):
            assert not said
        assert "new spool" not in capsys.readouterr().err


def test_what_has_to_be_installed_is_said(station: Path) -> None:
    command = ["rekam", "spool", "list", "--station", str(station)]
    script = f"import sys; sys.modules['cryptography'] = None; sys.argv = {command}"
    script += "; from rekam.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'rekam[devices]'" in ran.stderr
    assert "Traceback" not in ran.stderr
