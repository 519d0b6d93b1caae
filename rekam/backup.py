"""Backups of a running service: one folder each, whole or not there at all, and verified when restored.

    NAME/rekam.sqlite    all records, a compact copy of one moment
    NAME/index/          the search index of shortly before; it catches up when a restored service starts
    NAME/backup.json     versions, size and SHA-256 of every file

An index on a server of its own (Milvus) is not in it: it is derived, and is made anew.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from matching.arrays import synced
from rekam.errors import InvalidRequest, NotWritten, StoreDamaged, StoreFull, WrongState
from rekam.store import DATABASE, LOCK, Store

MANIFEST = "backup.json"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PARTIAL = ".partial-"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A backup: its folder, bytes, last change and subjects, and the SHA-256 of its manifest."""

    folder: Path
    size: int
    sequence: int
    subjects: int
    manifest_digest: bytes


class Backups:
    """Makes the backups of one store in the folder `parent`, one at a time; None where that is not set.

    `copy_index` puts a copy of the search index into a folder.
    """

    def __init__(
        self, store: Store, parent: Path | None, copy_index: Callable[[Path], None] = lambda folder: None
    ) -> None:
        self._store = store
        self._parent = parent
        self._copy_index = copy_index
        self._one = Lock()

    def make(self, name: str, check: Callable[[], None]) -> BackedUp:
        """Write a backup; on the disk when this returns, and nothing of it left where it raises.

        Everything acknowledged before the call is in it. Raises `InvalidRequest` for a name that cannot be,
        `WrongState`, `StoreFull` and what `check` raises, which is called now and then. Cost: reads and
        writes the database once, about 0.1 GB a second; enrolment goes on meanwhile.
        """
        if not _NAME.fullmatch(name):
            text = "is required: 1 to 64 letters, digits, _, - and ., beginning with a letter or a digit"
            raise InvalidRequest([("name", text)])
        if self._parent is None:
            raise WrongState("backups are not set up here: the setting backup_dir names no folder")
        self._store.check_copies()
        if not self._one.acquire(blocking=False):
            raise WrongState("another backup is under way")
        try:
            return self._made(self._parent, name, check)
        except OSError as error:
            raise StoreFull(f"the backup cannot be written: {error.strerror or error}") from error
        finally:
            self._one.release()

    def _made(self, parent: Path, name: str, check: Callable[[], None]) -> BackedUp:
        # 1. What a killed process left goes; no finished backup is ever written over.
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in parent.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        if (parent / name).exists():
            raise WrongState(f"there is a backup {name} already")
        partial = parent / f"{_PARTIAL}{secrets.token_hex(8)}"
        partial.mkdir(mode=0o700)
        try:
            # 2. The index first: it may be behind the records, never ahead of them. Then one moment of these.
            self._copy_index(partial)
            self._store.copy_to(partial / DATABASE, check)
            with closing(
                sqlite3.connect(f"{(partial / DATABASE).absolute().as_uri()}?immutable=1", uri=True)
            ) as copy:
                [[sequence]] = copy.execute("SELECT coalesce(max(seq), 0) FROM change")
                [[subjects]] = copy.execute("SELECT count(*) FROM subject")
                [[schema]] = copy.execute("SELECT version_num FROM alembic_version")
            # 3. What came to lie there is read back for its checksums.
            names = sorted(path.relative_to(partial).as_posix() for path in _files(partial))
            files = {name: _checked(partial / name, check) for name in names}
            manifest = {
                "format": _FORMAT,
                "rekam": version("rekam"),
                "schema": schema,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "sequence": sequence,
                "subjects": subjects,
                "files": {name: {"bytes": size, "sha256": sha} for name, (size, sha) in files.items()},
            }
            written = json.dumps(manifest, indent=1).encode()
            (partial / MANIFEST).write_bytes(written)
            # 4. All of it on the disk before it has a name.
            for path in (*partial.rglob("*"), partial):
                synced(path)
            partial.rename(parent / name)
            synced(parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        size = sum(size for size, _ in files.values())
        return BackedUp(parent / name, size, sequence, subjects, hashlib.sha256(written).digest())


def restore(backup: Path, data_dir: Path) -> BackedUp:
    """Make a data folder of a backup, after every byte was verified. `data_dir` is new or empty.

    Raises `StoreDamaged` where the backup is not what was made, `NotWritten` where there is something at
    `data_dir` already or it cannot be written. A folder that is not finished has no database.
    """
    try:
        written = (backup / MANIFEST).read_bytes()
        manifest = json.loads(written)
        if manifest["format"] != _FORMAT:
            raise StoreDamaged(f"{backup} was made by another version of Rekam: restore it with that one")
        files = {str(name): (int(f["bytes"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        if DATABASE not in files or any(not _inside(name) for name in files):
            raise StoreDamaged(f"{backup} is no backup: its manifest names no database, or files elsewhere")
        digest = hashlib.sha256(written).digest()
        size = sum(size for size, _ in files.values())
        made = BackedUp(backup, size, int(manifest["sequence"]), int(manifest["subjects"]), digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{backup} is no backup, or not a whole one: {error}") from error
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in data_dir.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)  # of a restore that was killed
        if there := sorted(path.name for path in data_dir.iterdir() if path.name != LOCK):
            raise NotWritten(f"{data_dir} holds {there[0]} already: nothing was restored; name a new folder")
        partial = data_dir / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            partial.mkdir(mode=0o700)
            for name, expected in files.items():
                target = partial / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copied(backup / name, target)
                # What was copied is verified, not what it was copied from.
                if _checked(target, lambda: None) != expected:
                    raise StoreDamaged(f"{backup / name} is not what was backed up: its checksum differs")
            for path in (*partial.rglob("*"), partial):
                synced(path)
            # The database comes last: before, there is nothing that could be started.
            for path in sorted(partial.iterdir(), key=lambda path: path.name == DATABASE):
                path.rename(data_dir / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for path in (data_dir, data_dir.parent):
            synced(path)
    except OSError as error:
        raise NotWritten(f"{data_dir} cannot be written: {error.strerror or error}") from error
    return made


def _copied(source: Path, target: Path) -> None:
    """Raises `StoreDamaged` where there is nothing to read, `OSError` where it cannot be written."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise StoreDamaged(f"{source} of the backup cannot be read: {error.strerror}") from error
    with file, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(file, copy, _BLOCK)


def _inside(name: str) -> bool:
    """Whether a manifest's name of a file stays in its folder."""
    return not name.startswith("/") and set(name.split("/")).isdisjoint({"", ".", ".."})


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _checked(path: Path, check: Callable[[], None]) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            check()
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
