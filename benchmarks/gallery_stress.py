"""Everything that can happen to a gallery, at once: nobody is lost, and nobody removed comes back.

    python -m benchmarks.gallery_stress [--seconds 600]

Threads add, remove, search and take snapshots of a gallery on disk whose segments are so small that it seals
and merges all the time. Checked throughout: people who stay are found, by one modality after the other, and
in every snapshot; somebody just added is found, and once removed is not; nothing raises.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.iris_scan import noise_codes
from benchmarks.population import impression, person
from benchmarks.provenance import ROOT, provenance
from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition
from matching.encounter import EncounterForm, encounter_form
from matching.gallery import Gallery, Params

RESULT = ROOT / "benchmarks" / "results" / "gallery_stress.json"
SMALL = Params(sealed=40, largest=2000)
FINGERS = tuple(FingerPosition(code) for code in (1, 2, 6, 7))
STAYING = 20
COMING = 10
CROWD = 40
_SEED = 2026


@dataclass(slots=True)
class Ran:
    """What the threads did, and how long callers waited at most."""

    done: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count what is done within, and keep the longest time it took."""
        began = time.perf_counter()
        yield
        self.done[what] += 1
        self.longest[what] = max(self.longest.get(what, 0.0), time.perf_counter() - began)


def shown(number: int, seed: int = 0) -> EncounterForm:
    """Four fingers, an eye and the face of a made-up person; with a seed, seen again."""
    rng = np.random.default_rng((number, 1))
    prints = person(number, _SEED, FINGERS)
    [code], [mask] = noise_codes(1, rng)
    vector = rng.normal(size=128)
    if seed:
        rng = np.random.default_rng((number, seed))
        prints = tuple(impression(template, rng) for template in prints)
        code = (code ^ np.packbits(rng.random(64 * len(code)) < 0.05).view(np.uint64)) & mask
        vector += 0.1 * rng.normal(size=128)
    face = FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), 80, DlibEmbedder().digest)
    return encounter_form(prints, [IrisTemplate(code, mask, EyePosition.RIGHT, 70)], face)


def parts(form: EncounterForm) -> tuple[EncounterForm, ...]:
    """What is searched with: everything, and each of what tells alone."""
    return form, EncounterForm((), form.irises), EncounterForm((), form.irises, form.face)


def stress(folder: Path, seconds: float, *, searchers: int = 2) -> Ran:
    """Run everything for so long; raises `AssertionError` where a check fails."""
    ran = Ran()
    gallery = Gallery(folder / "gallery", params=SMALL)
    staying = {number: parts(shown(number, 1)) for number in range(STAYING)}
    for number in staying:
        gallery.add(number, number, shown(number))
    crowd = [shown(1000 + number) for number in range(CROWD)]
    for form in crowd:
        for finger in form.fingers:
            _ = finger.code  # made before the clock runs
    coming = [(shown(2000 + number), shown(2000 + number, 1)) for number in range(COMING)]
    ended = threading.Event()
    alive: list[int] = []
    gone: set[int] = set()

    def crowd_in() -> None:
        """Add people of the crowd, under one new key after the other; then somebody goes."""
        rng = np.random.default_rng(1)
        for key in range(10_000, 10_000_000):
            if ended.is_set():
                return
            with ran.timed("added"):
                gallery.add(key, key, crowd[key % len(crowd)])
            alive.append(key)
            gallery.watermark = key
            if len(alive) > 1500 or rng.random() < 0.4:
                leaver = alive.pop(int(rng.integers(len(alive))))
                with ran.timed("removed"):
                    gallery.remove(leaver)
                gone.add(leaver)
            ended.wait(0.002)

    def look(which: int) -> None:
        """People who stay are found, people who went are not."""
        rng = np.random.default_rng((2, which))
        while not ended.is_set():
            number = int(rng.integers(STAYING))
            probe = staying[number][int(rng.integers(3))]
            before = set(gone)
            matches = gallery.search(probe)
            ran.done["searched"] += 1
            assert matches[0].key == number, f"{number} was not found, but {matches[0].key}"
            assert not before & {match.key for match in matches}, "somebody removed was found"

    def come_and_go() -> None:
        """Whoever was just added is found, and once removed not any more."""
        for turn in range(10_000_000):
            if ended.is_set():
                return
            form, probe = coming[turn % COMING]
            key = 5000 + turn % COMING
            gallery.add(key, key, form)
            assert gallery.search(probe)[0].key == key, "somebody just added was not found"
            ended.wait(0.01)
            gallery.remove(key)
            assert key not in [match.key for match in gallery.search(probe)], "a removed key was found"
            assert key not in gallery
            ran.done["came and went"] += 1

    def copy() -> None:
        """Every snapshot can be opened and holds whoever stays."""
        for turn in range(10_000_000):
            if ended.is_set():
                return
            target = folder / f"copy{turn}"
            with ran.timed("snapshots"):
                gallery.snapshot(target)
            loaded = Gallery.load(target)
            loaded.verify()
            number = turn % STAYING
            assert loaded.search(staying[number][0])[0].key == number
            assert all(number in loaded for number in staying)
            shutil.rmtree(target)

    def guarded(work: Callable[..., None], *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as fault:
            ran.faults.append(repr(fault))
            ended.set()

    works: list[tuple[Callable[..., None], tuple[int, ...]]] = [(crowd_in, ()), (come_and_go, ()), (copy, ())]
    works += [(look, (which,)) for which in range(searchers)]
    threads = [threading.Thread(target=guarded, args=(work, *arguments)) for work, arguments in works]
    for thread in threads:
        thread.start()
    ended.wait(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    gallery.close()
    assert not ran.faults, ran.faults
    gallery.save(folder / "gallery")
    loaded = Gallery.load(folder / "gallery")
    assert len(loaded) == len(gallery) == len(alive) + STAYING
    assert all(key in loaded for key in alive)
    assert not any(key in loaded for key in gone)
    return ran


def main() -> None:
    parser = argparse.ArgumentParser(description="strain a gallery")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ran = stress(Path(folder), arguments.seconds)
    report = {
        "what": "adding, removing, searching and snapshots of one gallery at once",
        "command": f"python -m benchmarks.gallery_stress --seconds {arguments.seconds:g}",
        **provenance(),
        "seconds": arguments.seconds,
        "done": dict(ran.done),
        "longest_ms": {what: round(1000 * seconds, 1) for what, seconds in ran.longest.items()},
        "faults": 0,
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
