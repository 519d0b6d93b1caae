"""The demo of the workstation, and its benchmark, where the service does not start."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import demo_station, server_process, station


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended
            continue
    return [line for line in lines if str(folder) in line]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nobody waits for a service; a folder for everything that is written."""
    monkeypatch.setattr(server_process, "START_SECONDS", 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # what TMPDIR was before
    return tmp_path


def test_a_demo_whose_service_does_not_start_says_so_and_leaves_none_behind(impatient: Path) -> None:
    (impatient / "drawn").touch()
    ran = CliRunner().invoke(demo_station.app, ["--out", str(impatient)])
    assert not processes_of(impatient)
    assert ran.exit_code == 1
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert "the server did not start" in ran.output


def test_a_benchmark_whose_service_does_not_start_leaves_none_behind(impatient: Path) -> None:
    with pytest.raises(server_process.Broken, match="did not start"):
        station.ten_fingers(people=1, others=0)
    assert not processes_of(impatient)
