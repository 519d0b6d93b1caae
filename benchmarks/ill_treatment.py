"""A full disk, flipped bytes, a clock that jumps, and half an hour of everything at once."""

import errno
import logging
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.acknowledged import (
    CALL_SECONDS,
    SEED,
    Enroller,
    Kept,
    deletion,
    enrolment,
    fingers_of,
    second_nik,
    what_is_kept,
    with_database,
)
from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.server_process import START_SECONDS, Broken, ServerProcess, server
from rekam.client import Client
from rekam.codec import read_enroll, read_identify
from rekam.config import load_settings
from rekam.exchange import Match, Recorded
from rekam.v1 import admin_pb2, enrollment_pb2, identification_pb2
from rekam.workflow import Workflow

Step = Callable[[], None]


# full -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Full:
    """What a full disk did: requests refused for it, whether searches went on, and what is kept.

    `acknowledged_after`: how many were acknowledged once there was room again, without a new start.
    """

    how: str
    refused: int
    told: tuple[str, ...]
    searched_meanwhile: bool
    acknowledged_after: int
    kept: Kept

    @property
    def held(self) -> bool:
        """Whether it was told, searched through and got over."""
        return self.refused > 0 and self.searched_meanwhile and self.acknowledged_after > 0 and self.kept.held


Squeeze = Callable[[ServerProcess], AbstractContextManager[None]]


@contextmanager
def no_room_for_files(process: ServerProcess) -> Iterator[None]:
    """Every write of the server to a file fails (RLIMIT_FSIZE): what a full disk is to a process."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def ballast(process: ServerProcess) -> Iterator[None]:
    """A file that takes all the room there is, in the data folder of the server."""
    path = process.data.parent / "ballast"
    try:
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 14))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        yield
    finally:
        path.unlink()


def full_disk(folder: Path, squeeze: Squeeze, *, refusals: int = 5, clients: int = 2) -> Full:
    """Take the room away amid enrolments and deletions, and give it back."""
    with server(folder) as process:
        with Enroller(process.address, clients) as enroller, Client(process.address) as client:
            _until(enroller, lambda: len(enroller.answers) >= 8)
            with squeeze(process):
                _until(
                    enroller, lambda: sum(n for t, n in enroller.refused.items() if "disk" in t) >= refusals
                )
                number = next(n for n in enroller.answers if n not in enroller.deleted and n % 4 == 0)
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(number), number)).samples
                )
                found = client.identification.Identify(search, timeout=CALL_SECONDS)
            before = len(enroller.answers)
            _until(enroller, lambda: len(enroller.answers) >= before + 5)
        enroller.check()
        with Client(process.address) as client:
            kept = what_is_kept(client, enroller)
    told = tuple(sorted({text.split(":")[0] for text in enroller.refused if "disk" in text}))
    return Full(
        how=squeeze.__doc__ or "",
        refused=sum(n for text, n in enroller.refused.items() if "disk" in text),
        told=told,
        searched_meanwhile=found.match == identification_pb2.MATCH_YES,
        acknowledged_after=len(enroller.answers) - before,
        kept=with_database(kept, process.data),
    )


def _until(enroller: Enroller, reached: Callable[[], bool]) -> None:
    """Wait for what the clients bring about. Raises `Broken` where it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while not reached():
        enroller.check()
        if time.monotonic() > deadline:
            raise Broken("the clients got no further")
        time.sleep(0.01)


# corrupt ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corrupted:
    """What flipped bytes of the saved index did: each was to be noticed, and nobody to be lost."""

    files: int
    flips: int
    unnoticed: tuple[str, ...]
    lost: int

    @property
    def held(self) -> bool:
        """Whether every one was noticed and everybody found."""
        return self.flips > 0 and not self.unnoticed and not self.lost


class _Warnings(logging.Handler):
    """Counts warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.number += 1


def corrupted_index(
    folder: Path, people: int, places: Sequence[float], step: Step = lambda: None
) -> Corrupted:
    """Flip one byte at these places (0 to 1) of every file of a saved index, open it, look for everybody."""
    settings = load_settings(data_dir=folder / "data", workers=2)
    workflow = Workflow(settings)
    for number in range(people):
        workflow.enroll(*read_enroll(enrolment(number)))
    workflow.close()
    index = settings.data_dir / "index"
    kept = folder / "kept"
    shutil.copytree(index, kept)
    names = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
    unnoticed: list[str] = []
    lost = flips = 0
    for name in names:
        for place in places:
            shutil.rmtree(index)
            shutil.copytree(kept, index)
            content = bytearray((index / name).read_bytes())
            if not content:
                continue
            at = min(int(place * len(content)), len(content) - 1)
            content[at] ^= 0x10
            (index / name).write_bytes(content)
            warnings = _Warnings()
            logging.getLogger().addHandler(warnings)
            workflow = Workflow(settings)
            logging.getLogger().removeHandler(warnings)
            flips += 1
            if not warnings.number:
                unnoticed.append(f"{name} at {at}")
            for number in range(people):
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(number), number)).samples
                )
                found = workflow.identify(read_identify(search)[0])
                lost += found.match is not Match.YES or found.candidates[0].nik != made_up_nik(number)
            workflow.close()
            step()
    return Corrupted(len(names), flips, tuple(unnoticed), lost)


# clock ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Jumped:
    """The same requests under a steady clock and one that jumps by years: what differed but the times."""

    requests: int
    jumps: int
    earliest: str
    latest: str
    differences: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether nothing but times differed."""
        return self.jumps > 0 and not self.differences


def jumping_clock(folder: Path, people: int) -> Jumped:
    """Enrol, return, double, delete and resolve under two clocks; compare decisions, order and answers."""
    steady: list[datetime] = []
    jumping: list[datetime] = []
    first = _history(folder / "steady", people, _Clock(steady, years=0))
    second = _history(folder / "jumping", people, _Clock(jumping, years=20))
    differences = [f"{a} became {b}" for a, b in zip(first, second, strict=True) if a != b]
    return Jumped(
        requests=len(first),
        jumps=sum(b < a for a, b in pairwise(jumping)),
        earliest=min(jumping).isoformat(timespec="seconds"),
        latest=max(jumping).isoformat(timespec="seconds"),
        differences=tuple(differences),
    )


class _Clock:
    """Stands for `datetime`: its time jumps by up to so many years, either way, at every look."""

    def __init__(self, told: list[datetime], years: int) -> None:
        self._told = told
        self._years = years
        self._chance = random.Random(SEED)

    def now(self, zone: tzinfo) -> datetime:
        """A moment about today."""
        days = 365 * self._years * self._chance.uniform(-1, 1)
        self._told.append(datetime.now(zone) + timedelta(days=days))
        return self._told[-1]


def _history(folder: Path, people: int, clock: _Clock) -> list[str]:
    """What the service says to a fixed row of requests, without ids and times."""
    said: list[str] = []
    with patch("rekam.workflow.datetime", clock):
        workflow = Workflow(load_settings(data_dir=folder, workers=2))
        subjects: list[str] = []
        for number in range(people):
            claim, presentation = read_enroll(enrolment(number))
            enrolled = workflow.enroll(claim, presentation)
            doubled = workflow.enroll(*read_enroll(second_nik(number)))
            repeated = workflow.enroll(claim, presentation)
            if not (isinstance(enrolled, Recorded) and isinstance(doubled, Recorded)):
                raise Broken("an enrolment was not recorded")
            subjects.append(enrolled.subject_id or "")
            said += [f"{enrolled.decision} {doubled.decision} {doubled.state} {repeated == enrolled}"]
            if number % 3 == 1:
                request = deletion(number, enrollment_pb2.EnrollResponse())
                erased = workflow.delete_subject(subjects[-1], request.request_id, b"digest")
                said.append(f"erased {erased.encounters}")
        cases = workflow.cases(None, None, 1000)
        said += [f"case of {case.nik} {case.state}" for case in cases]
        workflow.close()
        # Opened again: the index is trusted and followed by numbers, not by times.
        workflow = Workflow(load_settings(data_dir=folder, workers=2))
        for number in range(people):
            search = identification_pb2.IdentifyRequest(
                samples=enroll_request("", "", again(fingers_of(number), number)).samples
            )
            found = workflow.identify(read_identify(search)[0])
            said.append(f"{found.match} {[p.nik for p in found.candidates[:1]]}")
        niks = [workflow.subject(nik=case.nik).nik for case in cases if case.subject_id is not None]
        said.append(f"{niks}")
        workflow.close()
    return said


# soak -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Soaked:
    """So many minutes of everything at once, and the server's own memory (anonymous, MiB) through it.

    `second_quarter_mib`, `last_quarter_mib`: medians. It holds where nothing is lost and the last is not
    above the second by more than a twentieth.
    """

    minutes: float
    enrolled: int
    searched: int
    backups: int
    second_quarter_mib: float
    last_quarter_mib: float
    most_mib: float
    kept: Kept

    @property
    def held(self) -> bool:
        """Whether nothing was lost and memory was flat."""
        return self.kept.held and self.last_quarter_mib <= 1.05 * self.second_quarter_mib


def soaked(folder: Path, minutes: float, *, clients: int = 3, every_seconds: float = 2.0) -> Soaked:
    """Enrol, double, reject, delete, search and back up until the time is over."""
    memory: list[float] = []
    searched = backups = 0
    with patch.dict(os.environ, {"REKAM_BACKUP_DIR": str(folder / "backups")}), server(folder) as process:
        with Enroller(process.address, clients, forget=True) as enroller, Client(process.address) as client:
            end = time.monotonic() + 60 * minutes
            next_backup = time.monotonic() + 15 * minutes
            while time.monotonic() < end:
                enroller.check()
                search = identification_pb2.IdentifyRequest(
                    samples=enroll_request("", "", again(fingers_of(searched), searched)).samples
                )
                client.identification.Identify(search, timeout=CALL_SECONDS)
                searched += 1
                if time.monotonic() > next_backup:
                    client.admin.Backup(admin_pb2.BackupRequest(name=f"soak-{backups}"), timeout=CALL_SECONDS)
                    shutil.rmtree(folder / "backups" / f"soak-{backups}")
                    backups += 1
                    next_backup += 15 * minutes
                memory.append(process.memory_mib())
                time.sleep(every_seconds)
        enroller.check()
        with Client(process.address) as client:
            kept = what_is_kept(client, enroller)
    quarter = max(1, len(memory) // 4)
    return Soaked(
        minutes=minutes,
        enrolled=len(enroller.answers),
        searched=searched,
        backups=backups,
        second_quarter_mib=round(float(np.median(memory[quarter : 2 * quarter])), 1),
        last_quarter_mib=round(float(np.median(memory[-quarter:])), 1),
        most_mib=round(max(memory), 1),
        kept=with_database(kept, process.data),
    )
