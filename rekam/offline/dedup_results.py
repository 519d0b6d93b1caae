"""What `rekam dedup` found: clusters of subjects that may be one person, as tables.

A cluster is what matching pairs and pairs to review connect. Its `cores` are what the matching ones alone
connect: a cluster of several cores hangs together by pairs that an operator must judge.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rekam.offline.dedup import Compared, Found
from rekam.offline.dedup_gathered import Fault
from rekam.offline.dedup_sources import Member
from rekam.written import written

MEMBERS, PAIRS, OWN, ERRORS = "members.csv", "pairs.csv", "own_encounters.csv", "errors.csv"
_EVIDENCE = (
    "verdict",
    "reasons",
    "llr",
    "fingers_llr",
    "irises_llr",
    "face_llr",
    "fingers",
    "irises",
    "arrangement",
    "eyes",
)
_OF_BOTH = ("name_a", "subject_a", "encounter_a", "name_b", "subject_b", "encounter_b")
MEMBER_COLUMNS = ("cluster", "core", "weak", "name", "subject", "encounter", "state")
PAIR_COLUMNS = ("cluster", *_OF_BOTH, *_EVIDENCE, "named_by", "encounter_pairs")
OWN_COLUMNS = (*_OF_BOTH, *_EVIDENCE)
ERROR_COLUMNS = ("record", "place", "reason")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Members by number, each with its core, and the pairs that connect their subjects, strongest first."""

    members: tuple[int, ...]
    cores: tuple[int, ...]
    pairs: tuple[Compared, ...]

    @property
    def weak(self) -> bool:
        """Whether it would fall apart without pairs to review."""
        return len(set(self.cores)) > 1

    @property
    def certain(self) -> bool:
        """Whether any of its pairs matches."""
        return any(pair.verdict == "match" for pair in self.pairs)


def clusters(members: Sequence[Member], doubles: Sequence[Compared]) -> list[Cluster]:
    """Connected subjects with all their encounters; matching ones first, then by strength and number."""
    together = _connected(members, doubles)
    cores = _connected(members, [pair for pair in doubles if pair.verdict == "match"])
    pairs: dict[str, list[Compared]] = {}
    for pair in doubles:
        pairs.setdefault(together[members[pair.a].subject], []).append(pair)
    inside: dict[str, list[int]] = {name: [] for name in pairs}
    for number, member in enumerate(members):
        if member.subject in together:
            inside[together[member.subject]].append(number)
    found = []
    for name, numbers in inside.items():
        core_of = [cores.get(members[number].subject, members[number].subject) for number in numbers]
        places = {core: place for place, core in enumerate(dict.fromkeys(core_of), start=1)}
        strongest_first = sorted(pairs[name], key=lambda pair: (-pair.llr, pair.a, pair.b))
        found.append(Cluster(tuple(numbers), tuple(places[core] for core in core_of), tuple(strongest_first)))
    return sorted(found, key=lambda one: (not one.certain, -one.pairs[0].llr, one.members))


def _connected(members: Sequence[Member], pairs: Sequence[Compared]) -> dict[str, str]:
    """Of each subject in a pair, one that stands for all it is connected to."""
    standing: dict[str, str] = {}

    def stands_for(subject: str) -> str:
        while (other := standing.setdefault(subject, subject)) != subject:
            standing[subject] = standing[other]
            subject = other
        return subject

    for pair in pairs:
        standing[stands_for(members[pair.a].subject)] = stands_for(members[pair.b].subject)
    return {subject: stands_for(subject) for subject in list(standing)}


def write_tables(
    folder: Path, members: Sequence[Member], faults: Sequence[Fault], found: Found, groups: Sequence[Cluster]
) -> None:
    """Write the four tables; the same results are the same bytes. Raises `NotWritten`."""
    member_rows = [
        (number, core, "yes" if group.weak else "no", one.name, one.subject, one.encounter, one.state)
        for number, group in enumerate(groups, start=1)
        for member, core in zip(group.members, group.cores, strict=True)
        for one in (members[member],)
    ]
    pair_rows = [
        (number, *_both(members, pair), *_evidence(pair), pair.named_by, pair.pairs)
        for number, group in enumerate(groups, start=1)
        for pair in group.pairs
    ]
    own = sorted(found.own, key=lambda pair: (pair.verdict != "differ", pair.llr, pair.a, pair.b))
    own_rows = [(*_both(members, pair), *_evidence(pair)) for pair in own]
    for name, columns, rows in (
        (MEMBERS, MEMBER_COLUMNS, member_rows),
        (PAIRS, PAIR_COLUMNS, pair_rows),
        (OWN, OWN_COLUMNS, own_rows),
        (ERRORS, ERROR_COLUMNS, sorted(faults)),
    ):
        written(folder / name, _table(columns, rows))


def _both(members: Sequence[Member], pair: Compared) -> tuple[str, ...]:
    return tuple(
        text for one in (members[pair.a], members[pair.b]) for text in (one.name, one.subject, one.encounter)
    )


def _evidence(pair: Compared) -> tuple[str, ...]:
    llrs = (pair.llr, pair.fingers_llr, pair.irises_llr, pair.face_llr)
    words = (pair.fingers, pair.irises, pair.arrangement, pair.eyes)
    return (pair.verdict, " ".join(pair.reasons), *(f"{llr:.3f}" for llr in llrs), *words)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
