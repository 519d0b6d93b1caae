"""Identify against 10,000 people of ten fingers: CPU, mates found, agreement with brute force, memory.

    python -m benchmarks.identify --cache DIR [--people 10000]

The gallery is the synthetic population plus one encounter of each real person of the development sets: nine
of CrossMatch with their fingers, and every FVC finger as a person of one finger. Probes are the others of
these impressions, other impressions of synthetic people, and people who are not enrolled. Each real probe is
also compared with everybody (the oracle), unless `--oracle` says fewer. Times are processor times of the
whole process, all threads, templates to result.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.development import development_templates
from benchmarks.population import impression, people, person
from benchmarks.provenance import ROOT, provenance
from benchmarks.synthetic_prints import POSITION_OF_NUMBER
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.encounter import EncounterForm, encounter_form
from matching.fingerprint.comparison import similarity
from matching.gallery import Gallery, Match
from matching.search import PARAMS

RESULT = ROOT / "benchmarks" / "results" / "identify.json"
SEED = 2026
REAL = 1_000_000_000  # subjects from here on are real

Encounter = tuple[FingerprintTemplate, ...]
Person = list[Encounter]


@dataclass(slots=True)
class Tally:
    """What a kind of probe met."""

    probes: int = 0
    mates_first: int = 0
    mates_shortlisted: int = 0
    compared_with_oracle: int = 0
    same_as_oracle: int = 0
    oracle_mates_first: int = 0
    mate_llr: list[float] = field(default_factory=list)
    other_llr: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Counts and quantiles as JSON values."""
        row: dict[str, float] = {
            name: getattr(self, name)
            for name in (
                "probes",
                "mates_first",
                "mates_shortlisted",
                "compared_with_oracle",
                "same_as_oracle",
            )
        }
        row["oracle_mates_first"] = self.oracle_mates_first
        row["cpu_ms_median"] = round(float(np.median(self.cpu_ms)), 1)
        row["cpu_ms_p99"] = round(float(np.quantile(self.cpu_ms, 0.99)), 1)
        if self.mate_llr:
            row["mate_llr_min"] = round(min(self.mate_llr), 2)
            row["mate_llr_median"] = round(float(np.median(self.mate_llr)), 2)
        row["other_llr_max"] = round(max(self.other_llr), 2)
        return row


def real_people(data: Path, cache: Path | None) -> dict[str, list[Person]]:
    """CrossMatch's people, and FVC's fingers as people of one finger: the right index, say."""
    found: dict[str, list[Person]] = {"crossmatch": [], "fvc": []}
    for name, templates in development_templates(data, cache).items():
        encounters: dict[str, dict[str, list[FingerprintTemplate]]] = {}
        for stem, template in templates.items():
            finger, number = stem.split("_")
            many_fingers = name == "crossmatch"
            position = POSITION_OF_NUMBER[int(finger[3:])] if many_fingers else FingerPosition.RIGHT_INDEX
            who = finger[:3] if many_fingers else finger
            encounter = encounters.setdefault(who, {}).setdefault(number, [])
            encounter.append(replace(template, position=position))
        group = found["crossmatch" if name == "crossmatch" else "fvc"]
        group += [[tuple(e) for _, e in sorted(numbered.items())] for numbered in encounters.values()]
    return found


def build(count: int, real: dict[str, list[Person]]) -> Gallery:
    """The synthetic population and the first impressions of the real people."""
    gallery = Gallery()
    for i, templates in enumerate(track(people(count, SEED), "enrolling synthetic people", total=count)):
        gallery.add(i, i, encounter_form(templates))
    for i, impressions in enumerate(p for group in real.values() for p in group):
        gallery.add(REAL + i, REAL + i, encounter_form(impressions[0]))
    return gallery


def meet(tally: Tally, gallery: Gallery, templates: Encounter, mate: int | None, *, oracle: bool) -> None:
    """One probe: identified, timed, and compared with the oracle."""
    began = time.process_time()
    probe = encounter_form(templates)
    found = gallery.search(probe)
    tally.cpu_ms.append((time.process_time() - began) * 1000)
    tally.probes += 1
    tally.mates_first += found[0].subject == mate
    for match in found:
        (tally.mate_llr if match.subject == mate else tally.other_llr).append(match.comparison.llr)
    tally.mates_shortlisted += any(match.subject == mate for match in found)
    if oracle:
        truth = gallery.search_exhaustively(probe)
        tally.compared_with_oracle += 1
        tally.oracle_mates_first += truth[0].subject == mate
        tally.same_as_oracle += _equal(found[0], truth[0])


def _equal(found: Match, truth: Match) -> bool:
    return (found.subject, found.comparison.llr) == (truth.subject, truth.comparison.llr)


def damaged(template: FingerprintTemplate, rng: np.random.Generator) -> FingerprintTemplate:
    """A part of a poor print: three fifths of the area, a fifth of the minutiae lost, a tenth made up."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * template.x + np.sin(angle) * template.y
    kept = np.flatnonzero((along <= np.quantile(along, 0.6)) & (rng.random(len(along)) > 0.2))
    made_up = rng.integers(0, len(along), len(kept) // 10)
    rows = np.concatenate([kept, made_up])
    moved = np.where(np.arange(len(rows)) < len(kept), 2.0, 60.0)
    x = template.x[rows] + rng.normal(0, moved)
    y = template.y[rows] + rng.normal(0, moved)
    direction = template.direction[rows] + rng.normal(0, np.where(moved > 2, 3.0, 0.1))
    return replace(
        template,
        x=np.clip(x, 0, template.width - 1).astype(np.float32),
        y=np.clip(y, 0, template.height - 1).astype(np.float32),
        direction=(direction % (2 * np.pi)).astype(np.float32) % np.float32(2 * np.pi),
        ending=template.ending[rows],
        reliability=template.reliability[rows],
    )


def impostor_quantile(forms: list[EncounterForm], rng: np.random.Generator, pairs: int) -> float:
    """The 99.9 % quantile of single fingers' scores between different people, same position or not."""
    fingers = [(i, finger.cylinders) for i, form in enumerate(forms) for finger in form.fingers]
    scores: list[float] = []
    while len(scores) < pairs:
        (i, a), (j, b) = (fingers[k] for k in rng.integers(0, len(fingers), 2))
        if i != j:
            scores.append(similarity(a, b))
    return float(np.quantile(scores, 0.999))


def measure(data: Path, cache: Path | None, count: int, oracle: int, kept: Path | None) -> dict[str, object]:
    """Everything, as JSON values; `oracle` limits the real probes of a kind that meet everybody."""
    real = real_people(data, cache)
    if kept and kept.exists():
        gallery = Gallery.load(kept)
    else:
        gallery = build(count, real)
        if kept:
            gallery.save(kept)
    rng = np.random.default_rng(SEED)
    gallery.search(encounter_form(person(0, SEED)))  # compiled and paged in before the clock runs
    tallies: dict[str, Tally] = {}
    first = REAL
    for name, group in real.items():
        tallies[name] = Tally()
        probes = [(first + i, probe) for i, impressions in enumerate(group) for probe in impressions[1:]]
        first += len(group)
        chosen = set(rng.permutation(len(probes))[:oracle].tolist())
        for i, (mate, probe) in enumerate(track(probes, f"{name} against everybody")):
            meet(tallies[name], gallery, probe, mate, oracle=i in chosen)
    ways: dict[str, Callable[[Encounter], Encounter]] = {
        "synthetic": lambda print_: print_,
        "synthetic, hands swapped": lambda print_: tuple(
            replace(template, position=template.position.other_hand) for template in print_
        ),
        "synthetic, two fingers of unknown position": lambda print_: tuple(
            replace(template, position=FingerPosition.UNKNOWN) for template in print_[1:3]
        ),
        "synthetic, four damaged fingers": lambda print_: tuple(
            damaged(template, rng) for template in print_[1:5]
        ),
        "synthetic, one damaged finger": lambda print_: (damaged(print_[1], rng),),
    }
    for name, way in ways.items():
        tallies[name] = Tally()
        for index in track(rng.integers(0, count, min(count, 100)).tolist(), name):
            again = tuple(impression(template, rng) for template in person(index, SEED))
            meet(tallies[name], gallery, way(again), index, oracle=False)
    tallies["synthetic, not enrolled"] = Tally()
    for templates in track(list(people(min(count, 100), SEED, first=count)), "strangers"):
        meet(tallies["synthetic, not enrolled"], gallery, templates, None, oracle=False)
    sizes = gallery.sizes()
    pairs = min(20_000, 100 * count)
    real_forms = [encounter_form(impressions[0]) for group in real.values() for impressions in group]
    return {
        "what": "identification in a gallery of synthetic and real people",
        "command": f"python -m benchmarks.identify --people {count}",
        **provenance(),
        "encounters": len(gallery),
        "parameters": asdict(PARAMS),
        "probes": {name: tally.summary() for name, tally in tallies.items()},
        "impostor_score_quantile_999": {
            "synthetic": impostor_quantile([gallery.form(i) for i in range(min(count, 1000))], rng, pairs),
            "real": impostor_quantile(real_forms, rng, pairs),
        },
        "bytes_an_encounter": {
            "searched": {m: round(n / len(gallery)) for m, n in sizes.searched.items()},
            "compared": {m: round(n / len(gallery)) for m, n in sizes.compared.items()},
        },
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="measure identification")
    parser.add_argument("--cache", type=Path, help="keep templates here, and take them from here")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument(
        "--oracle", type=int, default=10**9, help="real probes of a kind to compare exhaustively"
    )
    parser.add_argument("--gallery", type=Path, help="keep the gallery here, and use the one that is there")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    report = measure(data, arguments.cache, arguments.people, arguments.oracle, arguments.gallery)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
