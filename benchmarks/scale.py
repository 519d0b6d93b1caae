"""Galleries of many people: memory, build and start, CPU of a dedup, and whether true mates are found.

    python -m benchmarks.scale --people 10000 --people 100000 --people 1000000 [--folder DIR] [--workers 2]

Every step goes on where a killed run stopped: the shards of the population (`benchmarks.scale_population`),
the gallery (in parts of 64,000 people, each a segment; anew where finger codes have changed), and the probes
(in blocks of 25; anew where the search has other parameters). `--again` forgets the probes, `--minutes` stops
early and reports on what there is. Sizes share their parts, and what was measured of other sizes stays in the
results.

A mated probe is another capture of somebody enrolled; every fifth has all its fingers damaged. The true-mate
recall is the share that a search returned, of those whose direct comparison with their mate passes the
threshold of this gallery size. A search returns whom it names, so beyond the first 300 probes of a kind only
the naming is done: by fingers, and where these do not name the mate by everything. CPU: processor time of the
whole process, templates to ranked result.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import pairwise
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from scipy.stats import beta  # type: ignore[import-untyped]

from benchmarks import synthetic_face_vectors, synthetic_iris_codes
from benchmarks.identify import damaged
from benchmarks.population import impression, person
from benchmarks.provenance import ROOT, provenance
from benchmarks.scale_population import SEED, SHARD, build, in_processes, read_shard
from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.sample import Modality
from matching import folder as folders
from matching.decision import Decision, Thresholds, candidate_of, decide
from matching.delta import Delta
from matching.encounter import EncounterForm, compare_encounters, encounter_form, enough_evidence
from matching.fingerprint.code import code_identity
from matching.gallery import Gallery
from matching.search import PARAMS, Snapshot

_Result = TypeVar("_Result")

RESULT = ROOT / "benchmarks" / "results" / "scale.json"
FOLDER = ROOT / ".bench-cache" / "scale"
PART = 32 * SHARD  # people
BLOCK = 25  # probes
SEARCHED = 300  # probes of a kind that are searched to the end, or FEW
FEW = 100
DAMAGED = 5  # every so manieth mated probe
STRANGERS = 1_000_000_000  # people from here on are never enrolled
CONFIDENCE = 0.95
TOGETHER = 16  # of a batch


@dataclass(frozen=True, slots=True)
class Kind:
    """What a probe shows: which of ten fingers, and whether irises and a face as well."""

    name: str
    fingers: tuple[int, ...]
    whole: bool = False


KINDS = (
    Kind("all modalities", tuple(range(10)), whole=True),
    Kind("ten fingers", tuple(range(10))),
    Kind("four fingers", (1, 2, 3, 4)),
    Kind("two fingers", (1, 6)),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A block of probes of one kind; `named`: told is only whether a search would return their mates."""

    kind: int
    mated: bool
    block: int
    named: bool = False

    def file(self, folder: Path) -> Path:
        """Where its results lie."""
        what = "named" if self.named else "mated" if self.mated else "strangers"
        return folder / f"{self.kind}-{what}-{self.block:05}.json"


@dataclass(frozen=True, slots=True)
class Met:
    """What one probe met. Log10 likelihood ratios; -1 where its mate was not returned, or has no place."""

    cpu_s: float
    damaged: bool
    direct: float  # of the comparison with the mate itself
    place: int  # of the mate among the subjects returned
    returned: int
    stranger: float  # the highest of somebody else
    decision: str


@dataclass(frozen=True, slots=True)
class Mate:
    """Whether a search returns a probe's mate, and what the direct comparison says, log10."""

    damaged: bool
    direct: float
    returned: bool


# --- the gallery


def parts(people: int) -> list[tuple[int, int]]:
    """First person and number of people of each part."""
    return [(first, min(PART, people - first)) for first in range(0, people, PART)]


def part_folder(folder: Path, part: tuple[int, int]) -> Path:
    """Where a part of the galleries lies that have the codes of today."""
    return folder / f"parts-{code_identity()[:12]}" / f"{part[0]:09}-{part[1]}"


def templates(
    fingers: Sequence[bytes], irises: Sequence[bytes], face: Sequence[bytes]
) -> tuple[list[FingerprintTemplate], list[IrisTemplate], FaceTemplate]:
    """What the bytes of a shard hold of one person."""
    return (
        [FingerprintTemplate.from_bytes(data) for data in fingers],
        [IrisTemplate.from_bytes(data) for data in irises],
        FaceTemplate.from_bytes(face[0]),
    )


def build_part(folder: Path, part: tuple[int, int]) -> None:
    """Make one part of a gallery, a segment on disk, unless it is there; person i is encounter i.

    Memory: 9 kB a person. Cost: some 4 ms a person.
    """
    to = part_folder(folder, part)
    if (to / "cost.json").exists():
        return
    to.mkdir(parents=True, exist_ok=True)
    first, count = part
    wall, cpu = time.monotonic(), time.process_time()
    delta = Delta()
    for shard in range(first // SHARD, -(-(first + count) // SHARD)):
        read = [read_shard(folder / "people", modality, shard) for modality in Modality]
        for key, one in enumerate(zip(*read, strict=True), start=shard * SHARD):
            if key < first + count:
                delta.add(key, key, encounter_form(*templates(*one)))
    folders.publish(to, [folders.keep(delta.segment(), to)], first + count)
    cost = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    (to / "cost.json").write_text(json.dumps(cost))


def build_gallery(folder: Path, people: int, workers: int) -> Path:
    """The folder of a gallery of so many people, made of parts that are built where they are missing."""
    for modality in Modality:
        build(folder / "people", people, modality, workers)
    wanted = parts(people)
    missing = [part for part in wanted if not (part_folder(folder, part) / "cost.json").exists()]
    in_processes(partial(build_part, folder), missing, workers, f"parts of {people:,} people")
    whole = folder / f"gallery-{code_identity()[:12]}-{people}"
    if not (whole / "gallery.json").exists():
        whole.mkdir(parents=True, exist_ok=True)
        segments = [one for part in wanted for one in folders.read(part_folder(folder, part))[0]]
        folders.publish(whole, [folders.keep(segment, whole) for segment in segments], people)
    return whole


def build_cost(folder: Path, people: int) -> dict[str, float]:
    """Seconds of making the parts, one after the other."""
    costs = [json.loads((part_folder(folder, part) / "cost.json").read_text()) for part in parts(people)]
    return {name: sum(cost[name] for cost in costs) for name in ("wall_s", "cpu_s")}


# --- probes


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Somebody's capture: whose, whether damaged, and its templates."""

    index: int
    damaged: bool
    fingers: Sequence[FingerprintTemplate]
    irises: Sequence[IrisTemplate] = ()
    face: FaceTemplate | None = None

    def form(self) -> EncounterForm:
        """Ready to be searched."""
        return encounter_form(self.fingers, self.irises, self.face)


def probe_of(people: int, task: Task, number: int) -> Probe:
    """The probe of this number."""
    kind = KINDS[task.kind]
    rng = np.random.default_rng((SEED, 3, people, task.mated, number))
    index = int(rng.integers(people)) if task.mated else STRANGERS + number
    worse = task.mated and number % DAMAGED == 0
    enrolled = person(index, SEED)
    prints = [impression(enrolled[finger], rng) for finger in kind.fingers]
    if worse:
        prints = [damaged(one, rng) for one in prints]
    if not kind.whole:
        return Probe(index, worse, prints)
    irises = synthetic_iris_codes.capture(synthetic_iris_codes.eyes(index, SEED), 1 + number)
    face = synthetic_face_vectors.capture(index, SEED, 1 + number)
    return Probe(index, worse, prints, irises, face)


@cache
def opened(folder: Path) -> Gallery:
    """The gallery, warm: once in a process."""
    gallery = Gallery.load(folder)
    for kind in range(len(KINDS)):
        gallery.search(probe_of(len(gallery), Task(kind, mated=False, block=0), 10**6).form())
    return gallery


def meet(gallery: Gallery, thresholds: Thresholds, task: Task, number: int) -> Met:
    """Search one probe."""
    shown = probe_of(len(gallery), task, number)
    index = shown.index
    began = time.process_time()
    probe = shown.form()
    found = gallery.search(probe)
    cpu = time.process_time() - began
    others = [match.comparison.llr for match in found if match.subject != index]
    places = [place for place, match in enumerate(found) if match.subject == index]
    decision, _ = decide(
        nik_known=False,
        candidates=[candidate_of(match.comparison) for match in found],
        thresholds=thresholds,
        enough_evidence=enough_evidence(probe, thresholds.review),
    )
    return Met(
        cpu_s=cpu,
        damaged=shown.damaged,
        direct=compare_encounters(probe, gallery.form(index)).llr if task.mated else -1,
        place=places[0] if places else -1,
        returned=len(found),
        stranger=max(others, default=-1),
        decision=decision,
    )


def name_mates(gallery: Gallery, task: Task, numbers: Iterable[int]) -> list[tuple[Mate, Mate]]:
    """For each probe whether its mate is returned: of all modalities, and of its fingers alone."""
    now = Snapshot(tuple(gallery.segments()), None)
    shown = [probe_of(len(gallery), task, number) for number in numbers]
    whole = [probe.form() for probe in shown]
    fingers = [encounter_form(probe.fingers, (), None) for probe in shown]
    by_fingers = [
        p.index in names for p, names in zip(shown, now.shortlists(fingers, frozenset()), strict=True)
    ]
    # whom the fingers name, all modalities name too
    others = [n for n, named in enumerate(by_fingers) if not named]
    by_all = list(by_fingers)
    for n, names in zip(others, now.shortlists([whole[n] for n in others], frozenset()), strict=True):
        by_all[n] = shown[n].index in names
    return [
        (
            Mate(probe.damaged, compare_encounters(all_of_it, mate).llr, named),
            Mate(probe.damaged, compare_encounters(alone, mate).llr, named_alone),
        )
        for probe, all_of_it, alone, named, named_alone in zip(
            shown, whole, fingers, by_all, by_fingers, strict=True
        )
        for mate in [gallery.form(probe.index)]
    ]


def run_block(gallery_folder: Path, results: Path, task: Task) -> None:
    """Search a block of probes, unless it is done."""
    path = task.file(results)
    if path.exists():
        return
    gallery = opened(gallery_folder)
    thresholds = Thresholds.for_gallery(len(gallery))
    numbers = range(task.block * BLOCK, (task.block + 1) * BLOCK)
    told: list[object]
    if task.named:
        told = [[asdict(mate) for mate in both] for both in name_mates(gallery, task, numbers)]
    else:
        told = [asdict(meet(gallery, thresholds, task, number)) for number in numbers]
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(told))
    written.rename(path)


def plan(mated: int) -> list[Task]:
    """All blocks, so ordered that some of every kind are done first.

    `mated` probes with all modalities, the same with fingers alone; the first of them are searched to the
    end, and so are strangers and a few of the other kinds.
    """
    most = min(mated, SEARCHED)
    counts = {(kind, True): most if kind < 2 else min(most, FEW) for kind in range(len(KINDS))}
    counts |= {(kind, False): most if kind < 1 else min(most, FEW) for kind in range(len(KINDS))}
    tasks = [Task(*of, block) for of, count in counts.items() for block in range(-(-count // BLOCK))]
    tasks += [Task(0, mated=True, block=n, named=True) for n in range(-(-most // BLOCK), -(-mated // BLOCK))]
    return sorted(tasks, key=lambda task: task.block)


# --- memory and start


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of this process, GiB: its own, and of files, which the system may drop."""

    resident: float
    own: float
    files: float


def memory() -> Memory:
    """What Linux says of this process now."""
    told: dict[str, float] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        told[name.rstrip(":")] = int(value) / 2**20
    resident, own = told["Rss"], told["Anonymous"]
    return Memory(round(resident, 3), round(own, 3), round(resident - own, 3))


def forget_cached(folder: Path) -> None:
    """Have the system drop what it holds of these files in memory."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True, slots=True)
class Start:
    """How long a process takes to its first answer, and what it holds in memory, then and after more."""

    open_s: float
    open_core_s: float
    first_search_s: float
    memory_at_start: Memory
    memory: Memory


def start(folder: Path, searches: int) -> Start:
    """In a fresh process: open the gallery, answer a first search, then some more."""
    began, cpu = time.monotonic(), time.process_time()
    gallery = Gallery.load(folder)
    loaded, loaded_cpu = time.monotonic(), time.process_time()
    at_start = memory()
    first = probe_of(len(gallery), Task(0, mated=False, block=0), 0).form()
    prepared = time.monotonic()
    gallery.search(first)
    answered = time.monotonic()
    for number in range(1, searches):
        gallery.search(probe_of(len(gallery), Task(0, mated=False, block=0), number).form())
    return Start(
        open_s=round(loaded - began, 2),
        open_core_s=round(loaded_cpu - cpu, 2),
        first_search_s=round(answered - prepared, 2),
        memory_at_start=at_start,
        memory=memory(),
    )


def batched(folder: Path, rounds: int) -> float:
    """Core-seconds a probe of all modalities when 16 are searched together; the median of some batches."""
    gallery = opened(folder)
    costs = []
    for number in range(rounds):
        numbers = range(number * TOGETHER, (number + 1) * TOGETHER)
        probes = [probe_of(len(gallery), Task(0, mated=False, block=0), n) for n in numbers]
        began = time.process_time()
        gallery.search_many([probe.form() for probe in probes])
        costs.append((time.process_time() - began) / len(probes))
    return float(np.median(costs))


def in_fresh_process(work: Callable[[], _Result]) -> _Result:
    """Do it where nothing was done before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


# --- results


def at_least(found: int, of: int) -> float:
    """Lower end of the one-sided Clopper-Pearson interval of a share."""
    return float(beta.ppf(1 - CONFIDENCE, found, of - found + 1)) if found else 0.0


def mates(met: Iterable[Met]) -> list[Mate]:
    """Of probes that were searched to the end, whether their mates were returned."""
    return [Mate(one.damaged, one.direct, one.place >= 0) for one in met]


def recall(of: Iterable[Mate], threshold: float) -> dict[str, float]:
    """Of the mates that pass the threshold when they are compared, how many were returned, and at least."""
    passing = [one.returned for one in of if one.direct >= threshold]
    found = sum(passing)
    return {
        "passing": len(passing),
        "returned": found,
        "share": round(found / len(passing), 5) if passing else 0.0,
        "at_least": round(at_least(found, len(passing)), 5),
    }


def of_kind(met: Sequence[Met], thresholds: Thresholds, *, mated: bool) -> dict[str, object]:
    """What probes of one kind met, as JSON values."""
    cpu = np.array([one.cpu_s for one in met])
    others = np.array([one.stranger for one in met])
    decisions = {str(d): sum(one.decision == d for one in met) for d in Decision}
    row: dict[str, object] = {
        "probes": len(met),
        "core_seconds_median": round(float(np.median(cpu)), 4),
        "core_seconds_p99": round(float(np.quantile(cpu, 0.99)), 4),
        "compared_median": float(np.median([one.returned for one in met])),
        "largest_stranger_llr": round(float(others.max()), 2),
        "searches_with_a_stranger_above_review": int((others >= thresholds.review).sum()),
        "searches_with_a_stranger_above_match": int((others >= thresholds.match).sum()),
        "decisions": {name: count for name, count in decisions.items() if count},
    }
    if mated:
        row |= {
            "damaged": sum(one.damaged for one in met),
            "mates_first": sum(one.place == 0 for one in met),
            "mates_returned": sum(one.place >= 0 for one in met),
        }
    return row


def read_met(results: Path, tasks: Sequence[Task]) -> dict[tuple[int, bool], list[Met]]:
    """What is known so far of probes searched to the end, by kind and whether mated."""
    met: dict[tuple[int, bool], list[Met]] = {}
    for task in tasks:
        if not task.named and task.file(results).exists():
            done = [Met(**one) for one in json.loads(task.file(results).read_text())]
            met.setdefault((task.kind, task.mated), []).extend(done)
    return met


def read_mates(results: Path, tasks: Sequence[Task]) -> dict[int, list[Mate]]:
    """What is known so far of all mated probes, by kind."""
    known = {kind: mates(met) for (kind, mated), met in read_met(results, tasks).items() if mated}
    for task in tasks:
        if task.named and task.file(results).exists():
            for whole, fingers in json.loads(task.file(results).read_text()):
                known[0].append(Mate(**whole))
                known[1].append(Mate(**fingers))
    return known


def recalls(of: Sequence[Mate], thresholds: Thresholds) -> dict[str, object]:
    """The recall of one kind at both thresholds, and that of damaged probes by themselves, as JSON values."""
    damaged_ones = [one for one in of if one.damaged]
    return {
        "probes": len(of),
        "damaged": len(damaged_ones),
        "at_match": recall(of, thresholds.match),
        "at_review": recall(of, thresholds.review),
        "at_match_damaged": recall(damaged_ones, thresholds.match),
        "at_review_damaged": recall(damaged_ones, thresholds.review),
    }


def row_of(
    folder: Path, gallery: Path, people: int, tasks: Sequence[Task], results: Path, command: str
) -> dict[str, object]:
    """Everything measured of one size, as JSON values: first what matters most, then the rest."""
    met = read_met(results, tasks)
    thresholds = Thresholds.for_gallery(people)
    kinds = {
        f"{KINDS[kind].name}, {'mated' if mated else 'strangers'}": of_kind(some, thresholds, mated=mated)
        for (kind, mated), some in sorted(met.items(), key=lambda item: (item[0][0], not item[0][1]))
    }
    forget_cached(gallery)
    cold = in_fresh_process(partial(start, gallery, 1))
    warm = in_fresh_process(partial(start, gallery, 20))
    together = in_fresh_process(partial(batched, gallery, 5))
    sizes = Gallery.load(gallery).sizes()
    built = build_cost(folder, people)
    whole = [one for mated in (True, False) for one in met.get((0, mated), [])]
    cpu = np.array([one.cpu_s for one in whole])
    known = read_mates(results, tasks)
    return {
        "people": people,
        "resident_GiB": round(warm.memory.resident, 3),
        "bytes_a_person": round(sum(sizes.searched.values()) / people),
        "build_s": round(built["wall_s"], 1),
        "build_core_s": round(built["cpu_s"], 1),
        "start_s": round(cold.open_s + cold.first_search_s, 2),
        "core_seconds_a_dedup_median": round(float(np.median(cpu)), 4),
        "core_seconds_a_dedup_p99": round(float(np.quantile(cpu, 0.99)), 4),
        "true_mate_recall": recall(known.get(0, ()), thresholds.match),
        "true_mate_recall_by_fingers_alone": recall(known.get(1, ()), thresholds.match),
        "probes_planned": len(tasks) * BLOCK,
        "probes_done": sum(task.file(results).exists() for task in tasks) * BLOCK,
        "core_seconds_a_dedup_of_16_together": round(together, 4),
        "bytes_a_person_searched": {m: round(n / people, 1) for m, n in sizes.searched.items()},
        "bytes_a_person_compared": {m: round(n / people, 1) for m, n in sizes.compared.items()},
        "segments": sizes.segments,
        "start_from_cold_disk": asdict(cold),
        "start_from_page_cache": asdict(warm),
        "thresholds": {"match": round(thresholds.match, 2), "review": round(thresholds.review, 2)},
        "recall": {KINDS[kind].name: recalls(some, thresholds) for kind, some in sorted(known.items())},
        "searches": kinds,
        "command": command,
        "codes": code_identity(),
        **provenance(),
    }


def growth(rows: Sequence[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Exponents between each size and the next: 1 is in proportion to the people, 0 not at all."""
    exponents: dict[str, dict[str, float]] = {}
    for a, b in pairwise(rows):
        between = {}
        for name in ("resident_GiB", "core_seconds_a_dedup_median", "build_core_s", "start_s"):
            low, high = float(str(a[name])), float(str(b[name]))
            if low > 0 and high > 0:
                ratio = float(str(b["people"])) / float(str(a["people"]))
                between[name] = round(log(high / low) / log(ratio), 2)
        exponents[f"{a['people']} to {b['people']}"] = between
    return exponents


def report(row: dict[str, object], output: Path) -> dict[str, object]:
    """The results file with this row put in or replaced."""
    rows = json.loads(output.read_text())["sizes"] if output.exists() else []
    rows = sorted([r for r in rows if r["people"] != row["people"]] + [row], key=lambda r: r["people"])
    return {
        "what": "galleries of synthetic people: ten fingers, two irises and a face each",
        "sizes": rows,
        "growth_exponents": growth(rows),
    }


def main(
    people: Annotated[list[int], typer.Option(min=1, help="Sizes of galleries.")],
    folder: Annotated[Path, typer.Option(help="Where everything is kept: 17 GB for a million.")] = FOLDER,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    probes: Annotated[int, typer.Option(min=BLOCK, help="Mated probes of ten fingers and more.")] = 10_000,
    minutes: Annotated[float, typer.Option(help="Of searching at most, for each size.")] = float("inf"),
    again: Annotated[bool, typer.Option("--again", help="Search anew what was searched before.")] = False,
    output: Annotated[Path, typer.Option(help="The results.")] = RESULT,
) -> None:
    """Measure galleries of so many people."""
    for size in people:
        gallery = build_gallery(folder, size, workers)
        searched_so = hashlib.sha256(repr(PARAMS).encode()).hexdigest()[:8]
        results = folder / f"probes-{code_identity()[:12]}-{searched_so}-{size}"
        results.mkdir(exist_ok=True)
        tasks = plan(probes)
        if again:
            for path in results.iterdir():
                path.unlink()
        missing = [task for task in tasks if not task.file(results).exists()]
        ended = time.monotonic() + 60 * minutes
        in_processes(partial(run_block, gallery, results), missing, workers, f"{size:,} people", until=ended)
        if not {(0, True), (0, False)} <= read_met(results, tasks).keys():
            typer.echo(f"{size:,} people are built; nothing is told before some probes are searched")
            continue
        command = f"python -m benchmarks.scale --people {size} --probes {probes}"
        row = row_of(folder, gallery, size, tasks, results, command)
        output.write_text(json.dumps(report(row, output), indent=1) + "\n")
        typer.echo(json.dumps({name: row[name] for name in list(row)[:14]}, indent=1))


if __name__ == "__main__":
    typer.run(main)
