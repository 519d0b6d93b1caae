"""A population of whole people, as templates in shards on disk: what a large gallery is built from.

    python -m benchmarks.scale_population FOLDER [--people 1000000] [--modality fingerprint] [--workers 1]

A shard holds the native bytes of one modality of 2,000 people. It is written under a temporary name and
renamed: a killed run goes on where it stopped, several runs and processes may share the work. Person i of a
seed is the same whatever the shards: ten fingers of `benchmarks.population`, two irises of
`benchmarks.synthetic_iris_codes`, a face of
`benchmarks.synthetic_face_vectors`.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks import synthetic_face_vectors
from benchmarks.population import person
from benchmarks.synthetic_iris_codes import capture, eyes
from capture.sample import Modality

_Item = TypeVar("_Item")

SEED = 2026
SHARD = 2_000


def fingers_of(index: int) -> list[bytes]:
    """Ten fingers. Cost: 2 ms."""
    return [finger.to_bytes() for finger in person(index, SEED)]


def irises_of(index: int) -> list[bytes]:
    """Both eyes, as they are enrolled. Cost: 0.5 ms."""
    return [iris.to_bytes() for iris in capture(eyes(index, SEED), 0)]


def face_of(index: int) -> list[bytes]:
    """One portrait, as it is enrolled. Cost: 0.1 ms."""
    return [synthetic_face_vectors.capture(index, SEED, 0).to_bytes()]


PARTS: dict[Modality, Callable[[int], list[bytes]]] = {
    Modality.FINGERPRINT: fingers_of,
    Modality.IRIS: irises_of,
    Modality.FACE: face_of,
}


def shard_file(folder: Path, modality: Modality, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"{modality}-{shard:06}.npz"


def write_shard(folder: Path, modality: Modality, shard: int) -> None:
    """Make one shard, unless it is there."""
    path = shard_file(folder, modality, shard)
    if path.exists():
        return
    people = [PARTS[modality](index) for index in range(shard * SHARD, (shard + 1) * SHARD)]
    lengths = np.array([[len(data) for data in one] for one in people], dtype=np.uint16)
    data = np.frombuffer(b"".join(data for one in people for data in one), dtype=np.uint8)
    written = path.with_suffix(f".{os.getpid()}")
    with written.open("wb") as file:
        np.savez(file, allow_pickle=False, lengths=lengths, data=data)
    written.rename(path)


def read_shard(folder: Path, modality: Modality, shard: int) -> list[list[bytes]]:
    """Native bytes of the templates of each of its people; the shard is made if it is not there."""
    write_shard(folder, modality, shard)
    with np.load(shard_file(folder, modality, shard), allow_pickle=False) as content:
        lengths, data = content["lengths"], content["data"].tobytes()
    ends = np.cumsum(lengths, dtype=np.int64).reshape(lengths.shape).tolist()
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]]).reshape(lengths.shape).tolist()
    return [
        [data[a:b] for a, b in zip(first, last, strict=True)]
        for first, last in zip(starts, ends, strict=True)
    ]


def progress() -> Progress:
    """A bar that tells the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def in_processes(
    work: Callable[[_Item], None],
    items: Sequence[_Item],
    workers: int,
    what: str,
    until: float = float("inf"),
) -> None:
    """Do `work` for each item in its order, a bar on screen; none is begun after `until` (monotonic clock).

    In this process where one will do.
    """
    with progress() as bar:
        task = bar.add_task(what, total=len(items))
        if workers == 1:
            for item in items:
                if time.monotonic() < until:
                    work(item)
                    bar.advance(task)
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            waiting, running = deque(items), set[Future[None]]()
            while True:
                while waiting and len(running) < workers and time.monotonic() < until:
                    running.add(pool.submit(work, waiting.popleft()))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
                    bar.advance(task)


def build(folder: Path, people: int, modality: Modality, workers: int) -> None:
    """Make the shards of a modality that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        shard for shard in range(-(-people // SHARD)) if not shard_file(folder, modality, shard).exists()
    ]
    in_processes(partial(write_shard, folder, modality), missing, workers, f"{modality} shards")


def main(
    folder: Annotated[Path, typer.Argument(help="Where the shards lie; 7.5 GB for a million people.")],
    people: Annotated[
        int, typer.Option(min=1, help="How many people, rounded up to whole shards.")
    ] = 1_000_000,
    modality: Annotated[list[Modality] | None, typer.Option(help="Only these.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Make the shards that are missing."""
    for one in modality or Modality:
        build(folder, people, one, workers)


if __name__ == "__main__":
    typer.run(main)
