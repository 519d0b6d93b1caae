"""A job in a folder: units of work done in any order, by any number of processes, each written once.

    job.lock      held while a run is at it
    job.json      what the job is about; another input is refused
    backup/       a copy of the database, where the source is a backup; only while it is read
    read/         one file a batch of members: templates and codes; gone once gathered
    gathered/     the same of all members in arrays, mapped by whoever works
    joined/       one file a tile: the pairs it names
    compared/     one file a batch of named pairs: their evidence

A file appears whole, under its name, or not at all: whatever is there when a job starts again is done. It
holds biometrics and NIKs, so only its owner may read it.
"""

# mypy: disallow-untyped-calls=False
# (Dask's client is untyped)

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from matching.arrays import synced
from rekam.errors import NotWritten
from rekam.offline.dedup_sources import BACKUP, DedupError

FORMAT = 1
_MANIFEST = "job.json"
_LOCK = "job.lock"
DASK_SECONDS = 20
STEPS = ("read", "gathered", "joined", "compared")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """The job's folder, for its owner only, and ours alone meanwhile.

    Raises `DedupError` where another run has it, or it is no folder of a job; `NotWritten`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = [
            path.name
            for path in folder.iterdir()
            if path.name not in (_LOCK, BACKUP) and path.suffix != ".partial"
        ]
        if others and not (folder / _MANIFEST).exists():
            raise DedupError(f"{folder} holds {min(others)}, and no job: name a new folder")
        folder.chmod(0o700)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise NotWritten(f"{folder} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DedupError(f"another run is at the job in {folder}: wait for it, or stop it") from None
        yield
    finally:
        os.close(lock)


def opened_job(folder: Path, about: dict[str, object]) -> None:
    """Begin the job, or go on with it. Raises `DedupError` where the folder holds another one."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = folder / _MANIFEST
        if not manifest.exists():
            durably_written(manifest, json.dumps({"format": FORMAT, **about}, indent=1).encode())
        for step in STEPS:
            (folder / step).mkdir(mode=0o700, exist_ok=True)
            for partial in (folder / step).glob("*.partial"):
                partial.unlink()
        found = json.loads(manifest.read_text())
    except OSError as error:
        raise NotWritten(f"{folder} cannot be used: {error.strerror}") from error
    except ValueError as error:
        raise DedupError(f"{folder} holds a damaged job: remove it, or name another folder") from error
    if found != {"format": FORMAT, **about}:
        raise DedupError(
            f"{folder} holds a job of another input, or with other options: name another folder, or remove it"
        )


def durably_written(path: Path, data: bytes) -> None:
    """Write a file so that it is on disk, whole, before it has its name."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    with partial.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    synced(path.parent)


@contextmanager
def workers_of(count: int, dask: str | None) -> Iterator[tuple[Executor, int]]:
    """Who does the units, and how many: this process, several here, or those of a Dask scheduler.

    Raises `DedupError` where no scheduler answers, or it or a worker dies.
    """
    if dask is not None:
        yield from _of_dask(dask)
        return
    if count == 1:
        with ThreadPoolExecutor(1) as alone:
            yield alone, 1
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # a process a core: none needs threads of its own
    try:
        # Spawned, never forked: OpenMP and gRPC do not survive it.
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            try:
                yield pool, count
            except BrokenExecutor as error:
                raise DedupError(
                    "a worker process died, perhaps of memory: run the command again, with fewer --workers; "
                    "what is done is kept"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _of_dask(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        from distributed import CancelledError, Client, KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise DedupError("a Dask cluster needs the extra dask: pip install 'rekam[dask]'") from error
    try:
        client = Client(address, timeout=DASK_SECONDS)
    except (OSError, ValueError) as error:
        raise DedupError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise DedupError(f"the Dask scheduler at {address} has no workers")
        try:
            yield client.get_executor(), threads
        except KilledWorker as error:
            raise DedupError(
                "workers of the cluster died, perhaps of memory: run the command again; what is done is kept"
            ) from error
        except (CancelledError, FutureCancelled, CommClosedError) as error:
            raise DedupError(
                f"the Dask scheduler at {address} is gone: run the command again; what is done is kept"
            ) from error


class Steps:
    """Shows how far each step is, and how long it will take; lines where nobody watches."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str, of: int, done: int = 0) -> Iterator[Callable[[], None]]:
        """A step of so many units, some of them done before; call what it gives after each."""
        if not self._console.is_terminal:
            before = f", {done:,} of {of:,} done before" if done else ""
            self.say(f"{text}{before}")
        with self._progress:
            task: TaskID = self._progress.add_task(text, total=of, completed=done)
            yield lambda: self._progress.advance(task)
            self._progress.remove_task(task)


def unit_file(folder: Path, step: str, number: int) -> Path:
    """Where a unit of a step is written."""
    return folder / step / f"{number:07}"


def read_unit(folder: Path, step: str, number: int) -> dict[str, NDArray[np.generic]]:
    """The arrays of a unit. Raises `DedupError` where its file is damaged."""
    path = unit_file(folder, step, number)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DedupError(f"{path} is damaged: remove it and run the command again") from error


def done_units(folder: Path, step: str) -> set[int]:
    """Numbers of the units that are done."""
    return {int(path.name) for path in (folder / step).iterdir() if path.name.isdecimal()}


def do_units(
    workers: tuple[Executor, int],
    units: Iterable[tuple[int, tuple[object, ...]]],
    do: Callable[..., None],
    advance: Callable[[], None],
) -> None:
    """Have every unit done: `do(number, *arguments)`, which writes its own file. In any order."""
    executor, count = workers
    pending: set[Future[None]] = set()
    for number, arguments in units:
        pending.add(executor.submit(do, number, *arguments))
        if len(pending) >= 2 * count + 1:
            pending = _waited(pending, advance)
    while pending:
        pending = _waited(pending, advance)


def _waited(pending: set[Future[None]], advance: Callable[[], None]) -> set[Future[None]]:
    finished, left = wait(pending, return_when=FIRST_COMPLETED)
    for one in finished:
        one.result()
        advance()
    return left
