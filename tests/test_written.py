"""Files are written whole or not at all."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rekam.errors import NotWritten
from rekam.written import require_writable, written


@contextmanager
def full_disk(room: int = 1000) -> Iterator[None]:
    """No file grows beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    written(old, b"good")
    for path in (old, new):
        with full_disk(), pytest.raises(NotWritten, match=f"{path} cannot be written: File too large"):
            written(path, bytes(1001))
    assert old.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [old]


def test_a_file_is_replaced_and_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    written(path, b"first")
    path.chmod(0o640)
    link.symlink_to(path)
    written(link, b"second")
    assert link.is_symlink()
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_private_file_is_its_owners_alone_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path, b"first", private=True)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    written(path, b"second", private=True)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_device_and_a_pipe_are_written_directly(tmp_path: Path) -> None:
    written(Path("/dev/null"), b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(NotWritten, match="/dev/full cannot be written: No space left on device"):
        written(Path("/dev/full"), b"gone")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    written(pipe, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "file")
    require_writable(tmp_path / "new")
    for path, words in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "new", "there is no folder"),
        (tmp_path / "file" / "new", "there is no folder"),
    ):
        with pytest.raises(NotWritten, match=f"{path} cannot be written: {words}"):
            require_writable(path)
    with pytest.raises(NotWritten, match="name too long"):
        written(tmp_path / ("n" * 300), b"")
