"""Measure the finger codes as first filter: how much of a gallery must be looked at to find a mate.

    python -m benchmarks.finger_code --cache DIR [--people 10000]

The gallery is synthetic people of ten fingers, whom the codes' training never saw. Probes are real prints
(CrossMatch, FVC2002) and other impressions of synthetic people, whole and damaged; a real print's mate is the
first impression of its finger. Real people have few fingers here, so persons of two, four and ten fingers are
put together from the fingers of one scanner. The rank of a mate among strangers, as a share
of the gallery, is the penetration that finds it; its 99 and 99.9 % quantiles over probes are reported.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.development import development_templates
from benchmarks.identify import damaged
from benchmarks.population import impression, person
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.code import CodeModel, detail_bin, finger_code, finger_detail
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders

RESULT = ROOT / "benchmarks" / "results" / "finger_code.json"
SEED = 4026
FINGERS = {1: (1,), 2: (1, 6), 4: (1, 2, 6, 7), 10: tuple(range(10))}  # columns of a person of ten
SYNTHETIC_PROBES = 100
ALLOWED = 0.1  # false matches a search of the whole gallery: a pair passes from log10(people / this) on
TAIL = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])

Prints = tuple[FingerprintTemplate, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Codes `(..., words) uint64` and bins of detail `(...) int64`."""

    code: NDArray[np.uint64]
    bin: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A probe and its mate's prints, of the same fingers in the same order."""

    kind: str
    probe: Prints
    mate: Prints
    llr: float  # of the direct comparison, summed over fingers


def coded(prints: Sequence[FingerprintTemplate], model: CodeModel) -> Coded:
    """Codes and detail of each print."""
    code = np.array([finger_code(template, model) for template in prints])
    return Coded(code, np.array([detail_bin(finger_detail(template)) for template in prints]))


def summed_evidence(probe: Coded, gallery: Coded, evidence: NDArray[np.float32]) -> NDArray[np.float64]:
    """`(n,)`: evidence of each person, whose fingers `gallery` holds as `(n, k, words)`."""
    away = np.bitwise_count(gallery.code ^ probe.code[None]).sum(axis=2)
    summed: NDArray[np.float64] = evidence[probe.bin[None], gallery.bin, away].sum(axis=1, dtype=np.float64)
    return summed


def real_pairs(
    fingers: list[list[FingerprintTemplate]], kind: str, count: int
) -> Iterator[tuple[str, Prints, Prints]]:
    """Persons of `count` fingers: each later impression against the first."""
    rng = np.random.default_rng((SEED, count))
    order = rng.permutation(len(fingers))
    for start in range(0, len(order) - count + 1, count):
        chosen = [fingers[i] for i in order[start : start + count]]
        for take in range(1, min(map(len, chosen))):
            probe = tuple(impressions[take] for impressions in chosen)
            yield kind, probe, tuple(impressions[0] for impressions in chosen)


def pairs_of(count: int, real: dict[str, list[list[FingerprintTemplate]]], people: int) -> list[Pair]:
    """Every probe of `count` fingers, whole and damaged."""
    rng = np.random.default_rng((SEED, count, 1))
    whole = [pair for kind, fingers in real.items() for pair in real_pairs(fingers, kind, count)]
    for index in range(people, people + SYNTHETIC_PROBES):
        prints = person(index, SEED)
        mate = tuple(prints[column] for column in FINGERS[count])
        whole.append(("synthetic", tuple(impression(template, rng) for template in mate), mate))
    poor = [(f"{kind}, damaged", tuple(damaged(t, rng) for t in probe), mate) for kind, probe, mate in whole]
    return [
        Pair(kind, probe, mate, exact_llr(probe, mate))
        for kind, probe, mate in track(whole + poor, f"comparing {count} fingers")
    ]


def exact_llr(probes: Prints, mates: Prints) -> float:
    """Log10 likelihood ratio of the direct comparison, summed over fingers."""
    total = 0.0
    for probe, mate in zip(probes, mates, strict=True):
        a, b = cylinders(probe), cylinders(mate)
        calibration = fingerprint_calibration(probe.extractor, mate.extractor)
        total += calibration.llr(similarity(a, b), min(len(a), len(b)))
    return total


def quantiles(shares: NDArray[np.float64]) -> dict[str, float]:
    """Penetration needed for 1 and 0.1 % filter error, in per cent of the gallery."""
    at = {"1%": 0.99, "0.1%": 0.999}
    row = {
        f"penetration_{n}": round(100 * float(np.quantile(shares, q, method="higher")), 3)
        for n, q in at.items()
    }
    return {"probes": len(shares), "found_first": round(float((shares == 0).mean()), 4), **row}


def measure_code(
    pairs: dict[int, list[Pair]],
    everybody: Coded,
    model: CodeModel,
) -> tuple[dict[str, object], dict[int, NDArray[np.float64]]]:
    """What is needed, by number of fingers and kind of probe; and each pair's penetration."""
    people = len(everybody.bin)
    result: dict[str, object] = {}
    penetration: dict[int, NDArray[np.float64]] = {}
    for count, asked in pairs.items():
        columns = list(FINGERS[count])
        shelf = Coded(
            np.ascontiguousarray(everybody.code[:, columns]), np.ascontiguousarray(everybody.bin[:, columns])
        )
        share, mated = np.empty(len(asked)), np.empty(len(asked))
        strangers: list[NDArray[np.float64]] = []
        spent = 0.0
        for i, pair in enumerate(track(asked, f"{count} fingers")):
            mate = coded(pair.mate, model)
            began = time.thread_time()
            probe = coded(pair.probe, model)
            found = summed_evidence(probe, shelf, model.evidence)
            spent += time.thread_time() - began
            [mated[i]] = summed_evidence(probe, Coded(mate.code[None], mate.bin[None]), model.evidence)
            share[i] = (found >= mated[i]).mean()  # who ties with the mate may go first
            strangers.append(np.sort(found)[-len(found) // 20 :])
        top = np.sort(np.concatenate(strangers))[::-1]
        met = len(asked) * people
        passing = np.array([pair.llr >= math.log10(people / ALLOWED) for pair in asked])
        result[str(count)] = {
            "probes": by_kind(asked, share),
            "mates_whose_comparison_passes": int(passing.sum()),
            "shortlist_that_holds_them_all": math.ceil(share[passing].max(initial=0) * people) + 1,
            "their_least_evidence": round(float(mated[passing].min(initial=np.inf)), 2)
            if passing.any()
            else None,
            "stranger_evidence_at": {f"{tail:g}": round(float(top[int(tail * met)]), 2) for tail in TAIL},
            "cpu_ms_a_probe": round(1000 * spent / len(asked), 2),
        }
        penetration[count] = share
    return result, penetration


def by_kind(pairs: Sequence[Pair], share: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Penetration by kind of probe, all real ones together besides."""
    kinds = np.array([pair.kind for pair in pairs])
    rows = {kind: quantiles(share[kinds == kind]) for kind in dict.fromkeys(kinds.tolist())}
    for damage in ("", ", damaged"):
        real = np.isin(kinds, [f"crossmatch{damage}", f"fvc{damage}"])
        rows[f"real{damage}"] = quantiles(share[real])
    return rows


def draw(shares: dict[int, NDArray[np.float64]], pairs: dict[int, list[Pair]], path: Path) -> None:
    """Share of mates missed by how much of the gallery is looked at: real prints, whole and damaged."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, damage in zip(axes, ("", ", damaged"), strict=True):
        for count in (1, 2, 4):
            kinds = np.array([pair.kind for pair in pairs[count]])
            chosen = np.sort(shares[count][np.isin(kinds, [f"crossmatch{damage}", f"fvc{damage}"])])
            missed = 1 - np.arange(1, len(chosen) + 1) / len(chosen)
            axis.step(100 * np.maximum(chosen, 1e-5), 100 * missed, where="post", label=f"fingers: {count}")
        axis.set(xscale="log", xlabel="penetration, %", title=f"real prints{damage}")
        axis.grid(alpha=0.3)
    axes[0].set(yscale="log", ylabel="mates missed, %")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def real_fingers(data: Path, cache: Path | None) -> dict[str, list[list[FingerprintTemplate]]]:
    """Impressions of each finger, by scanner."""
    found: dict[str, dict[str, list[FingerprintTemplate]]] = {"crossmatch": {}, "fvc": {}}
    for name, templates in development_templates(data, cache).items():
        group = found["crossmatch" if name == "crossmatch" else "fvc"]
        for stem, template in sorted(templates.items()):
            group.setdefault(f"{name} {stem.split('_')[0]}", []).append(template)
    return {kind: list(fingers.values()) for kind, fingers in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the finger codes as first filter")
    parser.add_argument("--cache", type=Path, help="keep templates here, and take them from here")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    cache = arguments.cache
    real = real_fingers(data, cache)
    pairs = {count: pairs_of(count, real, arguments.people) for count in FINGERS}
    gallery = [person(index, SEED) for index in track(range(arguments.people), "drawing the gallery")]
    model = CodeModel.load()
    began = time.thread_time()
    flat = coded([template for prints in gallery for template in prints], model)
    coding = time.thread_time() - began
    everybody = Coded(flat.code.reshape(-1, 10, flat.code.shape[1]), flat.bin.reshape(-1, 10))
    measured, shares = measure_code(pairs, everybody, model)
    report = {
        "what": "penetration that finds a mate among synthetic people by finger codes",
        "command": f"python -m benchmarks.finger_code --people {arguments.people}",
        **provenance(),
        "people": arguments.people,
        "code": model.identity,
        "cpu_ms_to_code_a_finger": round(1000 * coding / (10 * arguments.people), 3),
        "fingers": measured,
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    draw(shares, pairs, arguments.output.with_suffix(".png"))
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
