"""The tables of `docs/scale.md`: what was measured, and what follows from it for countries.

    python -m benchmarks.scale_page

Everything is computed from `benchmarks/results/scale.json`; a test compares the page with it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TypedDict

from benchmarks.provenance import ROOT
from benchmarks.scale import RESULT

PAGE = ROOT / "docs" / "scale.md"


class Recall(TypedDict):
    """How many mates passed the threshold, and how many of them were returned."""

    passing: int
    returned: int
    at_least: float


class Row(TypedDict):
    """What the results have of one size, as far as it is used here."""

    people: int
    resident_GiB: float
    build_core_s: float
    start_s: float
    core_seconds_a_dedup_median: float
    core_seconds_a_dedup_p99: float
    true_mate_recall: Recall
    true_mate_recall_by_fingers_alone: Recall
    bytes_a_person_searched: Mapping[str, float]
    bytes_a_person_compared: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Machine:
    """One of many, and how much of it may be used."""

    cores: int = 32
    memory_gib: int = 64
    busy: float = 0.6  # of the cores, so that bursts do not queue
    filled: float = 0.8  # of the memory
    hours: float = 10  # a day that enrolments arrive in


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a population takes; `machines` hold everything once, without a second copy."""

    people: int
    shards: int
    resident_gib: float
    disk_gib: float
    core_seconds: float  # a dedup, over all shards
    enrolments: int  # a day
    cores: float
    machines: int


MACHINE = Machine()
OUTLOOKS = ((10_000_000, 10_000), (10_000_000, 50_000), (280_000_000, 20_000), (280_000_000, 200_000))


def outlook(row: Row, people: int, enrolments: int, machine: Machine = MACHINE) -> Outlook:
    """From one measured gallery to a country of shards as large as it.

    A dedup asks every shard, and each costs what was measured; memory and disk are in proportion. Cores
    follow from the enrolments of a day, machines from the scarcer of cores and memory.
    """
    shards = ceil(people / row["people"])
    each = row["resident_GiB"] * 2**30
    kept = sum(row["bytes_a_person_searched"].values()) + sum(row["bytes_a_person_compared"].values())
    resident = people / row["people"] * each / 2**30
    core_seconds = shards * row["core_seconds_a_dedup_median"]
    cores = enrolments * core_seconds / (machine.hours * 3600 * machine.busy)
    by_memory = resident / (machine.memory_gib * machine.filled)
    return Outlook(
        people=people,
        shards=shards,
        resident_gib=resident,
        disk_gib=people * kept / 2**30,
        core_seconds=core_seconds,
        enrolments=enrolments,
        cores=cores,
        machines=ceil(max(by_memory, cores / machine.cores)),
    )


def largest(rows: Sequence[Row]) -> Row:
    """The measured size that is nearest to a country's."""
    return max(rows, key=lambda row: row["people"])


def measured_table(rows: Sequence[Row]) -> str:
    """What was measured, a line a size."""
    lines = [
        "| people | resident, GiB | bytes a person: searched + compared | build, core-hours | start, s "
        "| core-seconds a dedup: median, 99 % | true mates returned | by fingers alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        searched = sum(row["bytes_a_person_searched"].values())
        compared = sum(row["bytes_a_person_compared"].values())
        whole, fingers = row["true_mate_recall"], row["true_mate_recall_by_fingers_alone"]
        lines.append(
            f"| {row['people']:,} | {row['resident_GiB']:.2f} | {searched:,.0f} + {compared:,.0f} "
            f"| {row['build_core_s'] / 3600:.2f} | {row['start_s']:.1f} "
            f"| {row['core_seconds_a_dedup_median']:.3f}, {row['core_seconds_a_dedup_p99']:.3f} "
            f"| {_recall(whole)} | {_recall(fingers)} |"
        )
    return "\n".join(lines)


def _recall(told: Recall) -> str:
    return f"{told['returned']:,} of {told['passing']:,} (>= {100 * told['at_least']:.2f} %)"


def outlook_table(rows: Sequence[Row]) -> str:
    """What countries take, a line each."""
    lines = [
        "| people | shards | resident, GiB | disk, GiB | core-seconds a dedup | enrolments a day | cores "
        "| machines |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for people, enrolments in OUTLOOKS:
        o = outlook(largest(rows), people, enrolments)
        lines.append(
            f"| {o.people:,} | {o.shards:,} | {o.resident_gib:,.0f} | {o.disk_gib:,.0f} "
            f"| {o.core_seconds:,.1f} | {o.enrolments:,} | {o.cores:,.0f} | {o.machines:,} |"
        )
    return "\n".join(lines)


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """The page with its tables, and the size they rest on, computed anew."""
    basis = f"Computed from the gallery of {largest(rows)['people']:,} people."
    for name, text in (
        ("measured", measured_table(rows)),
        ("outlook", f"{basis}\n\n{outlook_table(rows)}"),
    ):
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)",
            partial(_between, text),
            page,
            flags=re.DOTALL,
        )
    return page


def _between(text: str, found: re.Match[str]) -> str:
    return found[1] + text + found[2]


def main() -> None:
    rows = json.loads(RESULT.read_text())["sizes"]
    PAGE.write_text(with_tables(PAGE.read_text(), rows))


if __name__ == "__main__":
    main()
