"""Everybody against everybody: planted doubles found, and what it costs beside a loop of searches.

    python -m benchmarks.dedup [--people 1000 --people 3000] [--folder DIR] [--cache DIR]

The people are synthetic (`benchmarks.scale_population`): ten fingers, two irises and a face each. Some come
again once or twice under other names, in several ways: with everything, with fingers only, with hands
swapped, with fingers of unknown position, with two or one finger, four damaged ones, with irises only. A
planted pair that direct comparison does not send to an operator cannot be found by anybody: both counts are
given. So are the pairs of real prints of the development sets. Times are processor times of one process; the
loop of searches is a sample of searches in a gallery of the same people, extrapolated to everybody.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console

from benchmarks.identify import damaged, real_people
from benchmarks.population import impression, person
from benchmarks.provenance import ROOT, provenance
from benchmarks.scale_population import SEED
from benchmarks.synthetic_faces import capture as portrait
from benchmarks.synthetic_faces import face
from benchmarks.synthetic_iris_codes import capture, eyes
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.decision import Decision, candidate_of, decide
from matching.encounter import compare_encounters
from matching.fingerprint.code import DETAIL_BINS, code_evidence
from matching.fingerprint.code_scan import scan_codes
from matching.gallery import Gallery
from matching.join import (
    CLASS_ENDS,
    FINGERS,
    FingerCodes,
    IrisCodes,
    face_pairs,
    finger_evidence,
    finger_pairs,
    iris_pairs,
)
from rekam.capturing import Template, form_of, position_of
from rekam.config import load_settings
from rekam.exchange import Presented
from rekam.offline import dedup as dedup_module
from rekam.offline.dedup import PARAMS, Found, dedup
from rekam.offline.dedup_gathered import (
    Gathered,
    face_arrays,
    finger_arrays,
    iris_arrays,
    members_and_faults,
)
from rekam.offline.dedup_job import do_units
from rekam.offline.dedup_results import clusters
from rekam.offline.dedup_sources import Batch, Given, Member
from rekam.position import Position

RESULT = ROOT / "benchmarks" / "results" / "dedup.json"
SEARCHES = 60
BATCH = 256
Templates = list[Template]


def everything(index: int, again: int) -> Templates:
    """A person's fingers, irises and face, the first time (0) or another."""
    rng = np.random.default_rng((SEED, index, again))
    fingers = person(index, SEED)
    return [
        *(impression(finger, rng) if again else finger for finger in fingers),
        *capture(eyes(index, SEED), again),
        portrait(face(index), index + again * 10**8),
    ]


def _fingers(templates: Templates, count: int = 10, first: int = 0) -> Templates:
    return templates[first : first + count]


def _damaged(templates: Templates, count: int) -> Templates:
    rng = np.random.default_rng(templates[0].to_bytes()[20])
    return [damaged(one, rng) for one in templates[1 : 1 + count] if isinstance(one, FingerprintTemplate)]


def _moved(templates: Templates, where: Callable[[FingerPosition], FingerPosition]) -> Templates:
    fingers = [one for one in templates if isinstance(one, FingerprintTemplate)]
    return [replace(one, position=where(one.position)) for one in fingers]


# How people come again, and with what of themselves they came first.
WAYS: dict[str, tuple[Callable[[Templates], Templates], Callable[[Templates], Templates]]] = {
    "everything": (list, list),
    "ten fingers": (list, _fingers),
    "hands swapped": (list, lambda t: _moved(t, lambda p: p.other_hand)),
    "four fingers of unknown position": (
        list,
        lambda t: _moved(t, lambda p: FingerPosition.UNKNOWN)[1:5],
    ),
    "two fingers": (list, lambda t: _fingers(t, 2, 1)),
    "one finger": (list, lambda t: _fingers(t, 1, 1)),
    "one finger each time": (lambda t: _fingers(t, 1, 1), lambda t: _fingers(t, 1, 1)),
    "four damaged fingers": (list, lambda t: _damaged(t, 4)),
    "one damaged finger": (list, lambda t: _damaged(t, 1)),
    "irises": (lambda t: t[10:12], lambda t: t[10:12]),
    "one iris": (list, lambda t: t[10:11]),
}


class Planted:
    """A population of which some come again; a source of `rekam dedup` that makes them when read."""

    def __init__(self, people: int, share: float) -> None:
        each = max(2, int(people * share) // len(WAYS))
        self.groups: dict[str, list[list[int]]] = {}  # by way, members that are one person
        self._made: list[tuple[int, int, Callable[[Templates], Templates]]] = [
            (index, 0, list) for index in range(people)
        ]
        index = 0
        for way, (first, later) in WAYS.items():
            for turn in range(each):
                self._made[index] = (index, 0, first)
                group = [index]
                for again in range(1, 3 if turn % 3 == 0 else 2):  # a third of them are triples
                    group.append(len(self._made))
                    self._made.append((index, again, later))
                self.groups.setdefault(way, []).append(group)
                index += 1
        self.digest = f"{people} {share}"
        self._shown: dict[int, Templates] = {}

    def __len__(self) -> int:
        return len(self._made)

    def templates(self, member: int) -> Templates:
        """What a member shows."""
        if member not in self._shown:
            index, again, shown = self._made[member]
            self._shown[member] = shown(everything(index, again))
        return self._shown[member]

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-len(self) // BATCH)

    def read(self, skipped: Collection[int]) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, but for the skipped ones."""
        for number in range(self.batches):
            if number not in skipped:
                some = range(number * BATCH, min((number + 1) * BATCH, len(self)))
                yield number, tuple(_given(f"{member:08}", self.templates(member)) for member in some)

    def images(self, member: Member) -> list[tuple[Position, bytes]]:
        """None."""
        return []


def measure(people: int, folder: Path) -> dict[str, object]:
    """One population: found, and costs."""
    source = Planted(people, 0.03)
    settings = load_settings()
    console = Console(stderr=True)
    folder.mkdir(parents=True)
    # 1. the job, in this process
    steps = {"read_batch": 0.0, "join_tile": 0.0, "compare_batch": 0.0}

    def timed(team: object, units: object, do: Callable[..., None], advance: object) -> None:
        def clocked(*arguments: object) -> None:
            began = time.thread_time()  # the thread that makes the next people does not count
            do(*arguments)
            steps[do.__name__] += time.thread_time() - began

        do_units(team, units, clocked, advance)  # type: ignore[arg-type]

    with patch.object(dedup_module, "do_units", timed):
        found = dedup(source, folder / "job", settings, workers=1, console=console)
    gathered = Gathered((folder / "job").resolve())
    # 2. its results
    members, _ = members_and_faults(folder / "job")
    pairs = len(gathered) * (len(gathered) - 1) / 2
    named = {(a, b) for a, b, _ in np.load(folder / "job" / "named.npz")["named"].tolist()}
    planted = _found(source, found, named, [c.members for c in clusters(members, found.doubles)])
    # 3. what it costs
    millions = pairs / 1e6
    reading, comparing = steps["read_batch"] / len(gathered), steps["compare_batch"] / found.named
    batch = sum(steps.values()) / millions
    search, enrolling = _loop(source)
    loop = (search + enrolling) * len(gathered) / millions
    return {
        "people": people,
        "encounters": len(gathered),
        "pairs": int(pairs),
        "planted": planted,
        "named_for_exact_comparison": found.named,
        "named_an_encounter": round(found.named / len(gathered), 2),
        "false_matches": _false(source, found, "match"),
        "false_reviews": _false(source, found, "review"),
        "thresholds": asdict(found.thresholds),
        "cpu_s": {name: round(seconds, 1) for name, seconds in steps.items()},
        "cpu_ms_an_encounter_read": round(1000 * reading, 2),
        "cpu_ms_a_pair_compared": round(1000 * comparing, 3),
        "cpu_s_a_million_pairs": round(batch, 4),
        "loop_of_searches": {
            "searches_measured": SEARCHES,
            "cpu_ms_a_search": round(1000 * search, 1),
            "cpu_ms_an_encounter_added": round(1000 * enrolling, 2),
            "cpu_s_a_million_pairs_extrapolated": round(loop, 4),
            "times_the_batch": round(loop / batch, 1),
        },
    }


class Real:
    """Every impression of the development sets as an encounter: nine people, and 40 fingers of one each."""

    digest, batches = "development sets", 1

    def __init__(self, data: Path, cache: Path | None) -> None:
        people = [person for group in real_people(data, cache).values() for person in group]
        self.whose = [number for number, person in enumerate(people) for _ in person]
        self._encounters = [list(encounter) for person in people for encounter in person]

    def templates(self, member: int) -> Templates:
        """What a member shows."""
        return list(self._encounters[member])

    def read(self, skipped: Collection[int]) -> Iterator[tuple[int, Batch]]:
        """The batch with its number, if it is not skipped."""
        if 0 not in skipped:
            yield 0, tuple(_given(str(n), self.templates(n)) for n in range(len(self.whose)))

    def images(self, member: Member) -> list[tuple[Position, bytes]]:
        """None."""
        return []


def measure_real(data: Path, cache: Path | None, folder: Path) -> dict[str, object]:
    """Pairs of impressions of one person that direct comparison shows, found and false ones."""
    source = Real(data, cache)
    found = dedup(source, folder, load_settings(), workers=1, console=Console(stderr=True))
    pairs = {(pair.a, pair.b) for pair in found.doubles}
    rows = {}
    for name, several in (("people of six fingers", True), ("people of one finger", False)):
        row = {"pairs": 0, "shown_directly": 0, "found": 0}
        for a, b in combinations(range(len(source.whose)), 2):
            if source.whose[a] == source.whose[b] and (len(source.templates(a)) > 1) is several:
                shown = _shown_directly(source.templates(a), source.templates(b), found)
                row["pairs"] += 1
                row["shown_directly"] += shown
                row["found"] += (a, b) in pairs
        rows[name] = row
    false = sum(source.whose[pair.a] != source.whose[pair.b] for pair in found.doubles)
    return {"encounters": found.members, "named": found.named, "false": false, **rows}


def _shown_directly(first: Templates, second: Templates, found: Found) -> bool:
    """Whether a comparison of the two alone would be shown to an operator, or match."""
    candidate = candidate_of(compare_encounters(form_of(first), form_of(second)))
    decision, _ = decide(
        nik_known=False, candidates=[candidate], thresholds=found.thresholds, enough_evidence=True
    )
    return decision is not Decision.UNIQUE


def _given(name: str, templates: Templates) -> Given:
    samples = [
        (str(place), Presented(position_of(one), template=one.to_bytes()))
        for place, one in enumerate(templates)
    ]
    return Given(Member(name, name, name, "enrolled"), tuple(samples))


def _found(
    source: Planted, found: Found, named: set[tuple[int, int]], groups: Sequence[tuple[int, ...]]
) -> dict[str, dict[str, int]]:
    """By way: groups planted and found whole; pairs that direct comparison shows, and those of them named."""
    together = {member: place for place, members in enumerate(groups) for member in members}
    result = {}
    for way, planted in source.groups.items():
        row = {"groups": len(planted), "groups_found_whole": 0, "pairs": 0, "pairs_shown_directly": 0}
        row |= {"of_them_named": 0}
        for group in planted:
            row["groups_found_whole"] += len({together.get(member, -member - 1) for member in group}) == 1
            for a, b in combinations(group, 2):
                shown = _shown_directly(source.templates(a), source.templates(b), found)
                row["pairs"] += 1
                row["pairs_shown_directly"] += shown
                row["of_them_named"] += shown and (a, b) in named
        result[way] = row
    return result


def _false(source: Planted, found: Found, verdict: str) -> int:
    whose = {member: group[0] for planted in source.groups.values() for group in planted for member in group}
    return sum(
        whose.get(pair.a, -1) != whose.get(pair.b, -2) for pair in found.doubles if pair.verdict == verdict
    )


def join_costs() -> dict[str, float]:
    """Processor seconds a million pairs, of each modality, in tiles of 128 by 8,192 encounters."""
    people = [everything(index, 0) for index in range(128)]
    arrays = finger_arrays(people) | iris_arrays(people) | face_arrays(people)
    rows, columns = np.arange(128), np.resize(np.arange(128), 8192)
    fingers = FingerCodes(arrays["finger_codes"].astype(np.uint64), arrays["finger_bins"].astype(np.uint8))
    a, b = fingers, FingerCodes(fingers.codes[columns], fingers.bins[columns])
    words = np.zeros((2, len(people), 4, 32), dtype=np.uint64)
    for slot in range(2):
        words[:, :, slot] = arrays[f"iris_{slot}"].transpose(1, 0, 2)
    c, d = IrisCodes(words[0], words[1]), IrisCodes(words[0][columns], words[1][columns])
    [vectors] = [array.astype(np.float32) for name, array in arrays.items() if name.startswith("face")]
    e, f = vectors, vectors[columns]
    none = np.full(len(CLASS_ENDS) + 1, 1000, dtype=np.float32)
    works: dict[str, Callable[[], object]] = {
        "fingers, with hands swapped": lambda: finger_pairs(a, b, none, len(rows)),
        "fingers, as declared": lambda: finger_evidence(a, b),
        "fingers, as declared, one probe at a time": lambda: _one_by_one(a, b),
        "irises, with eyes swapped": lambda: iris_pairs(c, d, none[:3], PARAMS.farthest, len(rows)),
        "face": lambda: face_pairs(e, f, 2.0, len(rows)),
    }
    costs = {}
    for name, work in works.items():
        work()
        times = []
        for _ in range(3):
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        costs[name] = round(float(np.median(times)) / (len(rows) * len(columns)) * 1e6, 4)
    return costs


def _one_by_one(rows: FingerCodes, columns: FingerCodes) -> None:
    """The same sums by the scan of a 1:N search: each code against all of its position."""
    table, slots = code_evidence(), np.arange(len(columns), dtype=np.int32)
    codes = [np.ascontiguousarray(columns.codes[:, finger]) for finger in range(FINGERS)]
    detail = [np.minimum(columns.bins[:, finger], DETAIL_BINS - 1) for finger in range(FINGERS)]
    for row in range(len(rows)):
        totals = np.zeros((1, len(columns)), dtype=np.float32)
        for finger in range(FINGERS):
            own = min(int(rows.bins[row, finger]), DETAIL_BINS - 1)
            scan_codes(
                codes[finger],
                detail[finger],
                slots,
                rows.codes[row, finger : finger + 1],
                table[own : own + 1],
                np.zeros(1, dtype=np.intp),
                totals,
                0,
                summed=True,
            )


def _loop(source: Planted) -> tuple[float, float]:
    """Processor seconds of one search among all of them, and of adding one."""
    gallery = Gallery()
    adding = 0.0
    for member in range(len(source)):
        templates = source.templates(member)
        began = time.process_time()
        gallery.add(member, member, form_of(templates))
        adding += time.process_time() - began
    members = np.linspace(0, len(source) - 1, SEARCHES + 1).astype(int).tolist()
    times = []
    for member in members:
        templates = source.templates(member)
        began = time.process_time()
        gallery.search(form_of(templates), exclude=(member,))
        times.append(time.process_time() - began)
    return float(np.mean(times[1:])), adding / len(source)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure everybody against everybody")
    parser.add_argument("--people", type=int, action="append", help="sizes of populations")
    parser.add_argument("--folder", type=Path, help="work here")
    parser.add_argument("--cache", type=Path, help="keep templates here, and take them from here")
    parser.add_argument("--join", action="store_true", help="measure the join again, nothing else")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    sizes = arguments.people or [1_000, 3_000]
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    populations: list[dict[str, object]] = []
    if arguments.join:
        report = json.loads(arguments.output.read_text())
        report["join_cpu_s_a_million_pairs"] = join_costs()
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
        return
    report = {
        "what": "everybody against everybody, doubles and triples planted among synthetic people",
        "command": "python -m benchmarks.dedup " + " ".join(f"--people {people}" for people in sizes),
        **provenance(),
        "parameters": json.loads(json.dumps(asdict(PARAMS), default=str)),
        "join_cpu_s_a_million_pairs": join_costs(),
        "real_prints": measure_real(data, arguments.cache, folder / "real"),
        "populations": populations,
    }
    try:
        for people in sizes:
            populations.append(measure(people, folder / str(people)))
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    finally:
        shutil.rmtree(folder)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
