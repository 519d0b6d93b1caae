"""The spool of a station: what was captured and not yet recorded, on its disk, encrypted, in order.

A folder holds the book and, for each encounter, one file of records. The key comes of the operator's
passphrase (scrypt, RFC 7914; the salt is the book's). All is sealed with AES-256-GCM, nonces by chance:

    book       "RKSP" 1 log2(n) r p, salt 16 | nonce 12, tag of nothing | nonce 12, sealed JSON
    encounter  for each record: length u32, nonce 12, sealed bytes

A record is sealed with its encounter's name, its number and the tag of the one before it, and the book says
how many records each encounter has and how the last one ends. So a record, or a whole file, that was altered,
left out, exchanged, put elsewhere or cut off is noticed. That the whole folder was put back to an older state
is not: sending is repeatable, so nothing is recorded twice by that.

Where the book itself is damaged, but not its first 52 bytes, the encounters are found by their files: then it
cannot be told whether one is gone or cut off between records, and `notices` says so; one that cannot be read
to its end is damaged, and stays as it is. Opening needs no room on the disk, and `settle` has a reserve of
it: a full disk can be seen, sent and emptied.

A record counts once `append` returned: it and then the book were waited for until they lay on the disk. What
a power cut left of another is dropped when the spool is opened next, and `notices` says so.
"""

import fcntl
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import TypeAdapter, ValidationError

from matching.arrays import synced
from rekam.errors import SpoolDamaged, SpoolError, SpoolInUse, WrongPassphrase

BOOK = "book"
RESERVE = "reserve"
_MAGIC = b"RKSP\x01"
_SALT, _NONCE, _TAG, _LENGTH = 16, 12, 16, 4
_HEADER = len(_MAGIC) + 3 + _SALT
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Params:
    """What deriving the key costs (128 n r bytes, 134 MB and 0.4 s here), and how much is ever read."""

    log2_n: int = 17
    r: int = 8
    p: int = 1
    most_log2_n: int = 18  # a book that asks for more is not the station's own
    most_rp: int = 8
    largest_record: int = 32 * 2**20
    largest_file: int = 256 * 2**20
    outcomes_kept: int = 500
    reserve: int = 2**20  # bytes: more than any book has


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class _Book:
    """How many records each open encounter has and the tag of its last; what became of the settled ones."""

    open: dict[str, tuple[int, str]]
    settled: dict[str, str]


_BOOK: TypeAdapter[_Book] = TypeAdapter(_Book)


@dataclass(slots=True)
class _End:
    """Where the next record of an encounter goes."""

    count: int = 0
    tag: bytes = bytes(_TAG)
    offset: int = 0


class Spool:
    """An open spool, of one process at a time. Not thread-safe.

    `notices` says what was repaired when it was opened; `damaged` names the encounters that cannot be read,
    and why: the others go on. Every method raises `SpoolError`s and nothing else.
    """

    def __init__(self, folder: Path, lock: int, header: bytes, key: bytes, params: Params) -> None:
        self.folder = folder
        self.notices: tuple[str, ...] = ()
        self.damaged: dict[str, str] = {}
        self._lock = lock
        self._header = header
        self._key = AESGCM(key)
        self._params = params
        self._ends: dict[str, _End] = {}
        self._settled: dict[str, str] = {}
        self._unsure = False  # whether the book on the disk is this one, after a fault

    @classmethod
    def open(cls, folder: Path, passphrase: str, params: Params = PARAMS, *, create: bool = True) -> Self:
        """Open the spool in a folder; `create`: made where there is none.

        Raises `WrongPassphrase`, `SpoolInUse`, `SpoolDamaged`. Cost: the key's, and reading everything once.
        """
        with _faults(folder):
            if create:
                _make(folder)
            elif not is_spool(folder):
                raise SpoolError(f"there is no spool in {folder}")
            lock = _locked(folder)
            try:
                book = folder / BOOK
                new = not book.exists()
                if new and is_spool(folder):
                    raise SpoolDamaged(f"the spool {folder} has lost its book")
                data = _new_header(params) if new else _bounded(book, params.largest_file)
                spool = cls(folder, lock, data[:_HEADER], _key(data, passphrase, params), params)
                if new:
                    spool._write_book()
                else:
                    spool._read_book(data[_HEADER:])
                spool._keep_reserve()
            except BaseException:
                os.close(lock)
                raise
        return spool

    @property
    def names(self) -> tuple[str, ...]:
        """The encounters with a record that are not settled, oldest first; the damaged ones too."""
        return tuple(name for name, end in self._ends.items() if end.count)

    @property
    def settled(self) -> dict[str, str]:
        """What became of encounters that were sent, oldest first; the last `outcomes_kept` of them."""
        return dict(self._settled)

    def begin(self, name: str) -> None:
        """A new encounter, dropped at the next opening if no record of it is kept until then.

        `name`: small letters, digits and hyphens, 64 at most.
        """
        if not _NAME.fullmatch(name) or name == BOOK or name in self._ends or name in self._settled:
            raise SpoolError(f"{name} cannot name a new encounter of the spool")
        self._ends[name] = _End()
        with _faults(self.folder):
            try:
                self._write_book()
            except OSError:
                del self._ends[name]
                raise

    def append(self, name: str, record: bytes) -> None:
        """Add a record; it is on the disk when this returns. Cost: three fsyncs.

        Raises `SpoolError` where it could not be written: then it does not count, and may be tried again.
        """
        if len(record) > self._params.largest_record:
            raise SpoolError(f"a record of {len(record)} bytes is too large for the spool")
        end = self._end(name)
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._key.encrypt(nonce, record, _bound_to(name, end))
        data = len(sealed).to_bytes(_LENGTH, "big") + nonce + sealed
        if end.offset + len(data) > self._params.largest_file:
            raise SpoolError(f"encounter {name} is too large for the spool: discard it and begin anew")
        with _faults(self.folder):
            if self._unsure:
                self._write_book()  # or what it counts would lie in the way of what is written now
            path = self._path(name)
            new = not path.exists()
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                file.truncate(end.offset)  # what a failed try left behind
                file.seek(end.offset)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                synced(self.folder)
            self._ends[name] = _End(end.count + 1, sealed[-_TAG:], end.offset + len(data))
            try:
                self._write_book()
            except OSError:
                self._ends[name] = end
                raise

    def records(self, name: str) -> tuple[bytes, ...]:
        """Every record of an encounter, in order. Raises `SpoolDamaged`."""
        end = self._end(name)
        with _faults(self.folder):
            records = []
            for record, at in self._unsealed(name):
                records.append(record)
                if at.count == end.count:
                    break
        if len(records) != end.count:
            raise SpoolDamaged(f"encounter {name} has {len(records)} of {end.count} records")
        return tuple(records)

    def settle(self, name: str, outcome: str) -> None:
        """Erase an encounter that has its answer; the outcome stays. A damaged one can be given up so."""
        if name not in self._ends:
            raise SpoolError(f"the spool holds no encounter {name}")
        before = dict(self._settled)
        self._settled[name] = outcome
        for old in list(self._settled)[: -self._params.outcomes_kept]:
            del self._settled[old]
        end = self._ends.pop(name)
        with _faults(self.folder):
            try:
                try:
                    self._write_book()
                except OSError:
                    (self.folder / RESERVE).unlink(missing_ok=True)  # what a full disk lacks for the book
                    self._write_book()
            except OSError:
                self._ends[name], self._settled = end, before
                raise
            self.damaged.pop(name, None)
            self._path(name).unlink(missing_ok=True)
            synced(self.folder)
            self._keep_reserve()

    def close(self) -> None:
        """Let others open it; a second time does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_book(self, data: bytes) -> None:
        """Take over what the book says, drop what it never counted. Raises `WrongPassphrase`."""
        proof, body = data[: _NONCE + _TAG], data[_NONCE + _TAG :]
        notices: list[str] = []
        try:
            said = self._key.decrypt(body[:_NONCE], body[_NONCE:], self._header)
        except (InvalidTag, ValueError):
            self._prove(proof)
            book = self._found()
            notices.append(
                "the book of the spool was damaged and is made anew: what became of what was sent "
                "is no longer known here, nor whether one that waits is gone or lacks its last captures"
            )
        else:
            try:
                book = _BOOK.validate_json(said)
            except ValidationError as error:
                raise SpoolDamaged(f"the book of the spool {self.folder} is not of this version") from error
        self._settled = book.settled
        for name, (count, tag) in book.open.items():
            self._ends[name] = _End(count, bytes.fromhex(tag))
            try:
                notices += self._recovered(name, count, bytes.fromhex(tag))
            except SpoolDamaged as error:
                self.damaged[name] = str(error)
            if not self._ends[name].count:
                del self._ends[name]
                self._path(name).unlink(missing_ok=True)
                notices.append(f"encounter {name}: nothing of it was kept before the power was cut")
        for name in book.settled:
            self._path(name).unlink(missing_ok=True)  # the power was cut between book and file
        self.notices = tuple(notices)
        if notices or book.open != self._counted():
            with suppress(OSError):  # the disk may be full: then what is written next writes it
                self._write_book()

    def _prove(self, proof: bytes) -> None:
        """That this key made the book. Raises `WrongPassphrase`."""
        try:
            self._key.decrypt(proof[:_NONCE], proof[_NONCE:], self._header)
        except (InvalidTag, ValueError) as error:
            raise WrongPassphrase("this is not the passphrase of the spool") from error

    def _found(self) -> _Book:
        """What a book would say of the files, oldest first; what it says of a damaged one fits no file."""
        book = _Book({}, {})
        for path in sorted(self.folder.glob("*.spool"), key=lambda one: (one.stat().st_mtime_ns, one.name)):
            end = _End(1)
            try:
                for _, next_one in self._unsealed(path.stem):
                    end = next_one
            except SpoolDamaged:
                end = _End(end.count + 1)  # no record has this tag: nobody knows how many there were
            book.open[path.stem] = (end.count, end.tag.hex())
        return book

    def _recovered(self, name: str, count: int, tag: bytes) -> Iterator[str]:
        """Set the end of an encounter, cut off what follows it, and say so."""
        end = _End()
        counted = count == 0
        try:
            for _, end in self._unsealed(name):
                counted = counted or (end.count, end.tag) == (count, tag)
        except SpoolDamaged:
            if not counted:
                raise
        if not counted:
            raise SpoolDamaged(
                f"encounter {name} lacks records that were kept: {end.count} of {count} are there"
            )
        self._ends[name] = end
        path = self._path(name)
        if end.count != count:
            synced(path)  # or the next book would count what is not on the disk yet
        left = path.stat().st_size - end.offset if path.exists() else 0
        if left:
            os.truncate(path, end.offset)
            synced(path)
            yield f"encounter {name}: the last capture was cut off after {left} bytes and is dropped"

    def _unsealed(self, name: str) -> Iterator[tuple[bytes, _End]]:
        """The records of a file as far as they go, each with where the next one begins."""
        path = self._path(name)
        data = _bounded(path, self._params.largest_file) if path.exists() else b""
        end = _End()
        while end.offset < len(data):
            start = end.offset + _LENGTH + _NONCE
            stop = start + int.from_bytes(data[end.offset : end.offset + _LENGTH], "big")
            sealed = data[start:stop]
            try:
                if stop > len(data):
                    raise ValueError("cut off")
                record = self._key.decrypt(data[end.offset + _LENGTH : start], sealed, _bound_to(name, end))
            except (InvalidTag, ValueError) as error:
                raise SpoolDamaged(f"record {end.count + 1} of encounter {name} is damaged") from error
            end = _End(end.count + 1, sealed[-_TAG:], stop)
            yield record, end

    def _counted(self) -> dict[str, tuple[int, str]]:
        return {name: (end.count, end.tag.hex()) for name, end in self._ends.items()}

    def _keep_reserve(self) -> None:
        """Room for a book, if there is any to be had."""
        with suppress(OSError):
            handle = os.open(self.folder / RESERVE, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._params.reserve)
            finally:
                os.close(handle)

    def _write_book(self) -> None:
        """Replace the book; it is on the disk when this returns. After a fault either may be there."""
        self._unsure = True
        book = {"open": self._counted(), "settled": self._settled}
        proof, nonce = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        data = self._header + proof + self._key.encrypt(proof, b"", self._header)
        data += nonce + self._key.encrypt(nonce, json.dumps(book).encode(), self._header)
        new = self.folder / f"{BOOK}.new"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        new.replace(self.folder / BOOK)
        synced(self.folder)
        self._unsure = False

    def _end(self, name: str) -> _End:
        if name not in self._ends:
            raise SpoolError(f"the spool holds no encounter {name}")
        if name in self.damaged:
            raise SpoolDamaged(self.damaged[name])
        return self._ends[name]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.spool"


def is_spool(folder: Path) -> bool:
    """Whether the folder has anything of a spool in it."""
    return (folder / BOOK).exists() or any(folder.glob("*.spool"))


def _make(folder: Path) -> None:
    """The folder, whose name and whose new parents' are on the disk when this returns."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in made:
        synced(path.parent)


@contextmanager
def _faults(folder: Path) -> Iterator[None]:
    """Turn faults of the disk into `SpoolError`."""
    try:
        yield
    except OSError as error:
        raise SpoolError(f"the spool {folder} cannot be used: {error}") from error


def _bound_to(name: str, end: _End) -> bytes:
    """What a record is sealed with: its encounter, its number, the tag of the one before."""
    return b"\0".join((name.encode(), end.count.to_bytes(8, "big"), end.tag))


def _new_header(params: Params) -> bytes:
    return _MAGIC + bytes((params.log2_n, params.r, params.p)) + secrets.token_bytes(_SALT)


def _key(book: bytes, passphrase: str, params: Params) -> bytes:
    """The key of a book with this passphrase. Raises `SpoolDamaged`."""
    header = book[:_HEADER]
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise SpoolDamaged("the book of the spool is damaged, or not of this version")
    log2_n, r, p = header[len(_MAGIC) : len(_MAGIC) + 3]
    if not (1 <= log2_n <= params.most_log2_n and r >= 1 and p >= 1 and r * p <= params.most_rp):
        raise SpoolDamaged("the book of the spool asks for more work than any spool does")
    # However a keyboard composes its letters, and whatever bytes a variable has, it is one word.
    word = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return Scrypt(header[-_SALT:], 32, n=2**log2_n, r=r, p=p).derive(word)


def _bounded(path: Path, most: int) -> bytes:
    """A file's bytes; raises `SpoolDamaged` where there are more than there can be."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise SpoolDamaged(f"{path.name} is larger than anything the spool writes")
    return data


def _locked(folder: Path) -> int:
    """A lock on the folder, let go when closed. Raises `SpoolInUse`."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SpoolInUse(f"another program has the spool {folder} open") from error
    return lock
