"""Fit `matching/fingerprint/calibration.json` on the real pairs of the development sets.

    python -m benchmarks.calibrate --cache DIR

All genuine pairs and all impostor pairs within each set, those of one person's different fingers included.
`--cache` keeps the templates between runs: extraction takes most of the time.
"""

import argparse
import json
import os
from dataclasses import dataclass
from itertools import combinations
from math import log10, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import Extractor, FingerprintTemplate
from matching.fingerprint.calibration import Calibration
from matching.fingerprint.comparison import COMPARISON_VERSION, similarity
from matching.fingerprint.cylinders import cylinders

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "matching" / "fingerprint" / "calibration.json"
SETS = {
    "crossmatch": 500,
    "fvc2002_db1_b": 500,
    "fvc2002_db2_b": 569,
    "fvc2002_db3_b": 500,
    "fvc2002_db4_b": 500,
}

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Scores of all pairs of one set; `finger` numbers the finger of a pair's first print."""

    genuine: Scores
    genuine_finger: NDArray[np.int64]
    impostor: Scores
    impostor_fingers: NDArray[np.int64]  # (n, 2)


def load_templates(data: Path, name: str, ppi: int, cache: Path) -> dict[str, FingerprintTemplate]:
    """Templates of a set by print name, extracted where the cache has none."""
    templates = {}
    for path in sorted((data / "fingerprint" / name).glob("*.png")):
        kept = cache / name / f"{path.stem}.rft"
        if not kept.exists():
            raise SystemExit(f"{kept} is missing")
        templates[path.stem] = FingerprintTemplate.from_bytes(kept.read_bytes())
    return templates


def all_pairs(templates: dict[str, FingerprintTemplate]) -> Sample:
    """Compare every print with every other."""
    fingers = {name: i for i, name in enumerate(sorted({key.split("_")[0] for key in templates}))}
    finger = [fingers[key.split("_")[0]] for key in templates]
    described = [cylinders(template) for template in templates.values()]
    genuine: list[tuple[float, int, int]] = []
    impostor: list[tuple[float, int, int]] = []
    for i, j in combinations(range(len(described)), 2):
        score = similarity(described[i], described[j])
        (genuine if finger[i] == finger[j] else impostor).append((score, finger[i], finger[j]))
    mates, others = np.array(genuine), np.array(impostor)
    return Sample(mates[:, 0], mates[:, 1].astype(np.int64), others[:, 0], others[:, 1:].astype(np.int64))


def isotonic_llr(genuine: Scores, impostor: Scores, lower_cap: float) -> tuple[list[float], list[float]]:
    """Log10 likelihood ratio by pooling adjacent violators, with caps.

    Three imagined impostors above all scores keep the upper end at what the rule of three supports.
    """
    score = np.concatenate([genuine, impostor, [np.inf]])
    mates = np.concatenate([np.full(len(genuine), 1 / len(genuine)), np.zeros(len(impostor) + 1)])
    others = np.concatenate(
        [np.zeros(len(genuine)), np.full(len(impostor), 1 / len(impostor)), [3 / len(impostor)]]
    )
    order = np.lexsort((mates, score))
    blocks: list[list[float]] = []  # mates, others, first score, last score
    for i in order:
        blocks.append([mates[i], others[i], score[i], score[i]])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            g, o, _, last = blocks.pop()
            blocks[-1][0] += g
            blocks[-1][1] += o
            blocks[-1][3] = last
    scores: list[float] = []
    llrs: list[float] = []
    for g, o, first, last in blocks:
        llr = max(lower_cap, log10(g / o)) if g > 0 else lower_cap
        corners = [(first + last) / 2] if np.isfinite(last) else [first]
        for corner in corners:
            if scores and llr == llrs[-1]:
                continue
            scores.append(float(corner))
            llrs.append(llr)
    return scores, llrs


def fmr_steps(impostor: Scores) -> tuple[list[float], list[float]]:
    """Upper 95 % bounds of the false match rate, from above the highest impostor downwards, thinned."""
    falling = np.sort(impostor)[::-1]
    n = len(falling)
    scores, rates = [float(np.nextafter(falling[0], np.inf))], [3 / n]
    above = 1
    while above < n:
        bound = upper_count(above) / n
        if bound >= 1:
            break
        threshold = float(np.nextafter(falling[above], np.inf))  # at most `above` impostors reach it
        if threshold < scores[-1]:
            scores.append(threshold)
            rates.append(bound)
        above = max(above + 1, int(above * 1.1))
    return scores[::-1], rates[::-1]


def upper_count(count: int) -> float:
    """Upper 95 % bound of a Poisson mean of which `count` were seen (Wilson and Hilferty's approximation)."""
    freedom = 2 * count + 2
    return freedom * (1 - 2 / (9 * freedom) + 1.6449 * sqrt(2 / (9 * freedom))) ** 3 / 2


def cllr(genuine_llr: Scores, impostor_llr: Scores) -> float:
    """Cost of a log10 likelihood ratio in bits (N. Bruemmer, J. du Preez, 2006): 0 is perfect, 1 useless."""
    mates = np.log2(1 + 10.0**-genuine_llr).mean()
    others = np.log2(1 + 10.0**impostor_llr).mean()
    return float((mates + others) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the fingerprint calibration")
    parser.add_argument("--cache", type=Path, required=True, help="folder for templates")
    parser.add_argument("--lower-cap", type=float, default=-1.7)
    arguments = parser.parse_args()
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    samples = {
        name: all_pairs(load_templates(data, name, ppi, arguments.cache)) for name, ppi in SETS.items()
    }
    genuine = np.concatenate([s.genuine for s in samples.values()])
    impostor = np.concatenate([s.impostor for s in samples.values()])
    llr_scores, llrs = isotonic_llr(genuine, impostor, arguments.lower_cap)
    fmr_scores, fmrs = fmr_steps(impostor)
    content = {
        "format": 1,
        "extractor": int(Extractor.LEADER_1),
        "comparison_version": COMPARISON_VERSION,
        "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor),
        "llr_scores": llr_scores,
        "llrs": llrs,
        "fmr_scores": fmr_scores,
        "fmrs": fmrs,
    }
    text = json.dumps(content, indent=1) + "\n"
    fitted = Calibration.from_json(text)
    OUTPUT.write_text(text, encoding="utf-8")
    for rate in (1e-2, 1e-3, 1e-4):
        threshold = fitted.threshold(rate)
        print(f"FMR {rate:g}: score {threshold:.4f}, FNMR {100 * (genuine < threshold).mean():.3f} %")
    print(f"llr {llrs[0]:.2f} to {llrs[-1]:.2f}, {len(llrs)} corners, {len(fmrs)} steps")


if __name__ == "__main__":
    main()
