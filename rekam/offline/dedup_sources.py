"""Whom `rekam dedup` compares: the encounters of a data folder, or the records of a folder of files."""

import hashlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from capture.errors import CaptureError
from rekam.backup import MANIFEST
from rekam.client import file_of
from rekam.config import Settings
from rekam.errors import InvalidRequest, NotWritten, RekamError, StoreLocked
from rekam.exchange import Presented
from rekam.offline.legacy_files import samples_within
from rekam.offline.samples import natural
from rekam.position import Position, modality_of
from rekam.store import DATABASE, LOCK, EncounterState, Reader, SearchableEncounter, Store

# Encounters read together; records that may be of images, of which one takes seconds.
ENCOUNTERS_A_BATCH = 256
RECORDS_A_BATCH = 16
# In the job's folder: the copy of a backup, while it is read.
BACKUP = "backup"

_FINGERS = [
    f"{side}_{finger}"
    for side in ("right", "left")
    for finger in ("thumb", "index", "middle", "ring", "little")
]
_EYES = [f"{side}_{eye}" for side in ("right", "left") for eye in ("eye", "iris")]
_NAMED = {*_FINGERS, *_EYES, "face", "portrait"}


class DedupError(RekamError):
    """The job cannot be done as asked; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Member:
    """One encounter or record: whose, and what results call it.

    `name`: the NIK, or the record's name; members of one `subject` are one person already. `state`: enrolled,
    held, or record.
    """

    name: str = field(repr=False)
    subject: str
    encounter: str
    state: str


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A member, its samples with the places they lie in; what of it cannot be read: places and reasons."""

    member: Member
    samples: tuple[tuple[str, Presented], ...]
    faults: tuple[tuple[str, str], ...] = ()


Batch = tuple[Given, ...]


class Source(Protocol):
    """Where members come from, in an order that is always the same."""

    @property
    def digest(self) -> str:
        """Changes whenever there is anything else to compare."""

    @property
    def batches(self) -> int:
        """How many batches there are."""

    def read(self, skipped: Collection[int]) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, but for the skipped ones."""

    def images(self, member: Member) -> list[tuple[Position, bytes]]:
        """Image files of a member; none where none are kept."""


def opened_source(
    path: Path, settings: Settings, ppi: float | None, job: Path
) -> AbstractContextManager[Source]:
    """The source that lies in `path`. Raises `DedupError`, `StoreError`, `NotWritten`.

    Opening a database writes into it: of a backup, a copy in the job's folder is opened.
    """
    if not path.is_dir():
        raise DedupError(f"{path} is no folder: give a data folder, a backup of one, or a folder of records")
    if (path / MANIFEST).exists():
        return _backed_up(path, job / BACKUP)
    if (path / DATABASE).exists():
        return _stored(path, None)
    if settings.database_url and (path / LOCK).exists():
        return _stored(path, settings.database_url)
    return nullcontext(RecordFolder(path, ppi))


# --- a data folder


@contextmanager
def _stored(folder: Path, database_url: str | None) -> Iterator["StoredEncounters"]:
    """The store, ours while it is read."""
    try:
        store = Store.open(folder, database_url)
    except StoreLocked as error:
        raise StoreLocked(
            f"{error}: stop the server, or give a copy of the folder that `rekam backup` made"
        ) from error
    with store:
        yield StoredEncounters(store)


@contextmanager
def _backed_up(backup: Path, copy: Path) -> Iterator["StoredEncounters"]:
    """A copy of a backup's database, gone afterwards."""
    try:
        shutil.rmtree(copy, ignore_errors=True)  # of a run that was killed
        copy.mkdir(mode=0o700)
        shutil.copyfile(backup / DATABASE, copy / DATABASE)
    except OSError as error:
        raise NotWritten(f"{backup / DATABASE} cannot be copied to {copy}: {error.strerror}") from error
    try:
        with _stored(copy, None) as encounters:
            yield encounters
    finally:
        shutil.rmtree(copy, ignore_errors=True)


class StoredEncounters:
    """Enrolled and held encounters of a store, by rising number; nothing is written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._whose: dict[int, tuple[str, str]] = {}  # of each subject, its id and NIK
        digest = hashlib.sha256()
        after: str | None = None
        with store.read() as reader:
            while page := reader.subjects(after, 1000):
                for subject in page:
                    self._whose[subject.key] = (subject.subject_id, subject.nik)
                    digest.update(repr((subject.subject_id, subject.encounters)).encode())
                after = page[-1].subject_id
            counts = reader.counts().encounters
            digest.update(str(reader.last_change()).encode())
        self._count = counts[EncounterState.ENROLLED] + counts[EncounterState.HELD]
        self.digest = digest.hexdigest()

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-self._count // ENCOUNTERS_A_BATCH)

    def read(self, skipped: Collection[int]) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, but for the skipped ones."""
        after = 0
        for number in range(self.batches):
            with self._store.read() as reader:
                page = reader.searchable(after, ENCOUNTERS_A_BATCH)
                after = page[-1].seq
                if number in skipped:
                    continue
                batch = tuple(self._given(reader, one) for one in page)
            yield number, batch

    def _given(self, reader: Reader, one: SearchableEncounter) -> Given:
        if one.subject_key is None:
            record = reader.encounter_by_seq(one.seq)
            nik = "" if record is None else record.nik
            member = Member(nik, f"held {one.encounter_id}", one.encounter_id, EncounterState.HELD)
        else:
            subject, nik = self._whose[one.subject_key]
            member = Member(nik, subject, one.encounter_id, EncounterState.ENROLLED)
        samples = tuple(
            (f"sample {place}", Presented(position, template=data))
            for place, (position, data) in enumerate(one.templates, start=1)
        )
        return Given(member, samples)

    def images(self, member: Member) -> list[tuple[Position, bytes]]:
        """Image files of a member; none where none are kept."""
        with self._store.read() as reader:
            record = reader.encounter(member.encounter, images=True)
        samples = () if record is None else record.samples
        return [(one.position, one.image) for one in samples if one.image is not None]


# --- a folder of files


class RecordFolder:
    """Records of a folder: one a sub-folder, and one a file, or several files `<record>_<position>.*`.

    A file is an image, a native template, an image record or CBEFF. Raises `DedupError` where there is none.
    """

    def __init__(self, folder: Path, ppi: float | None) -> None:
        self._folder, self._ppi = folder, ppi
        records: dict[str, list[Path]] = {}
        digest = hashlib.sha256()
        try:
            for path in sorted(folder.rglob("*")):
                if path.name.startswith(".") or not path.is_file():
                    continue
                inside, size = path.relative_to(folder), path.stat()
                name = inside.parts[0] if len(inside.parts) > 1 else _record_name(path)
                records.setdefault(name, []).append(path)
                digest.update(repr((inside.as_posix(), size.st_size, size.st_mtime_ns)).encode())
        except OSError as error:
            raise DedupError(f"{folder} cannot be read: {error.strerror}") from error
        if not records:
            raise DedupError(f"{folder} holds neither a database nor records")
        self._records = sorted(records.items(), key=lambda record: natural(record[0]))
        self.digest = digest.hexdigest()

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-len(self._records) // RECORDS_A_BATCH)

    def read(self, skipped: Collection[int]) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, but for the skipped ones."""
        for number in range(self.batches):
            if number not in skipped:
                some = self._records[number * RECORDS_A_BATCH :][:RECORDS_A_BATCH]
                yield number, tuple(self._given(name, paths) for name, paths in some)

    def images(self, member: Member) -> list[tuple[Position, bytes]]:
        """Image files of a member; none where none are kept."""
        paths = dict(self._records).get(member.name, [])
        samples = [sample for _, sample in self._given(member.name, paths).samples]
        return [(sample.position, sample.image) for sample in samples if sample.image is not None]

    def _given(self, name: str, paths: Sequence[Path]) -> Given:
        samples: list[tuple[str, Presented]] = []
        faults: list[tuple[str, str]] = []
        for path in paths:
            place = path.relative_to(self._folder).as_posix()
            try:
                samples += [(place, sample) for sample in self._samples(path)]
            except OSError as error:
                faults.append((place, error.strerror or str(error)))
            except (CaptureError, InvalidRequest) as error:
                faults.append((place, str(error)))
        return Given(Member(name, name, name, "record"), tuple(samples), tuple(faults))

    def _samples(self, path: Path) -> list[Presented]:
        """What a file shows. Raises `CaptureError`, `InvalidRequest`, `OSError`."""
        data = path.read_bytes()
        named = _position_word(path.stem)
        # A name that tells the position behind the record's is read without the record's.
        told = path.with_name(f"{named}{path.suffix}") if named else path
        position = file_of(told, None).position
        unknown = position is not None and not position
        modality = None if unknown and _tells(data) else modality_of(position)
        return list(samples_within(data, modality, position, self._ppi))


def _record_name(path: Path) -> str:
    """A file's record: what stands before the position in its name, else the whole stem."""
    return path.stem[: -len(_position_word(path.stem)) - 1] if _position_word(path.stem) else path.stem


def _position_word(stem: str) -> str:
    """`right_index` of `a17_right_index`; nothing where nothing stands before it."""
    words = stem.lower().replace("-", "_").split("_")
    endings = ("_".join(words[-count:]) for count in (1, 2) if len(words) > count)
    return next((word for word in endings if word in _NAMED), "")


def _tells(data: bytes) -> bool:
    """Whether a file says itself what it shows: a template, a record or CBEFF, not a bare image."""
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:4]
    return start[:2] in (b"RF", b"RI", b"RV") or start in _MAGICS or start[:1] == b"<"


_MAGICS = (b"FIR\0", b"IIR\0", b"FAC\0", b"FMR\0")
