"""Measure how far the fingers of one person go together: fits `matching/fusion.json`.

    python -m benchmarks.dependence --cache DIR

CrossMatch shows six fingers each of nine people (three of one of them) eight times: the k-th impressions
of a person's fingers are taken for one encounter. Within genuine and within impostor pairs of encounters,
scores (corrected for detail, as normal scores) of different fingers are correlated. Nine people tell little:
the standard errors are those of the jackknife over people, and every person is left out in turn. Eyes have no
people in the development set: they are given the correlations of the fingers.
"""

import json
import os
from itertools import combinations
from math import log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint.calibration import SCORES, fingerprint_calibration
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from matching.fusion import FORMAT
from rekam.offline.prints import extract, print_set

OUTPUT = ROOT / "matching" / "fusion.json"
RESULTS = ROOT / "benchmarks" / "results" / "fusion.json"
TAILS = (0.2, 0.1, 0.05, 0.02)
Rows = NDArray[np.float64]
"""`(n, 5)`: both people, the pair of encounters, the finger, the score corrected for detail."""


def rows(folder: Path, cache: Path | None) -> Rows:
    """Every two impressions of like fingers of a set of files `PPPFF_n`."""
    found = []
    for impression in print_set(folder, 500.0).impressions:
        template = extract(impression.path, 500.0, cache).template
        if template is not None:
            person, finger = int(impression.finger[:3]), int(impression.finger[3:])
            made = cylinders(FingerprintTemplate.from_bytes(template))
            found.append((person, finger, int(impression.number), made))
    correction = fingerprint_calibration().correction
    table = []
    for (p, f, m, a), (q, g, n, b) in combinations(found, 2):
        if f == g:
            corrected = similarity(a, b) - correction * SCORES.detail.excess(min(len(a), len(b)))
            table.append((p, q, ((p * 10 + m) * 1000 + q) * 10 + n, f, corrected))
    return np.array(table, dtype=np.float64)


def correlation(table: Rows) -> float:
    """Between scores of different fingers of one pair of encounters, as normal scores."""
    ranks = np.argsort(np.argsort(table[:, 4], kind="stable"), kind="stable")
    normal = np.array([NormalDist().inv_cdf((rank + 0.5) / len(table)) for rank in range(len(table))])
    scores = normal[ranks]
    return _within(table, scores) / float(scores.var())


def tail(table: Rows, share: float, *, upper: bool) -> dict[str, float]:
    """How much more often than by chance two fingers are both in the tail, and the correlation that means."""
    scores = table[:, 4] if upper else -table[:, 4]
    hit = scores >= np.quantile(scores, 1 - share)
    both, one = _within(table, hit.astype(np.float64)), float(hit.mean())
    # of two that are worth log(both) / log(one) = 2 / (1 + r) independent ones
    return {"times_chance": both / one**2, "correlation": 2 * log(one) / log(both) - 1 if both > 0 else -1.0}


def _within(table: Rows, values: NDArray[np.float64]) -> float:
    """Mean product of the values of two different fingers of one pair of encounters."""
    _, group = np.unique(table[:, 2], return_inverse=True)
    sums, squares, counts = (
        np.bincount(group, weights=weights) for weights in (values, values**2, np.ones(len(values)))
    )
    return float((sums**2 - squares).sum() / (counts * (counts - 1)).sum())


def figures_of(table: Rows, *, upper: bool) -> dict[str, object]:
    """The correlation with its jackknife error, without each person, and in the tail that matters."""
    people = np.unique(table[:, :2])
    without = np.array([correlation(table[~(table[:, :2] == one).any(axis=1)]) for one in people])
    n = len(people)
    return {
        "pairs_of_encounters": len(np.unique(table[:, 2])),
        "people": n,
        "correlation": correlation(table),
        "standard_error": sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum())),
        "without_each_person": without.tolist(),
        "tails": {f"{share:g}": tail(table, share, upper=upper) for share in TAILS},
    }


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
) -> None:
    """Measure and write."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    table = rows(data / "fingerprint" / "crossmatch", cache)
    genuine = table[:, 0] == table[:, 1]
    strangers = figures_of(table[~genuine], upper=True)
    person = figures_of(table[genuine], upper=False)
    found = {"strangers": strangers["correlation"], "person": person["correlation"]}
    content = {
        "format": FORMAT,
        "fitted_by": "python -m benchmarks.dependence",
        "fingers": found,
        "eyes": found,
    }
    OUTPUT.write_text(json.dumps(content) + "\n", encoding="utf-8")
    text = json.dumps({**provenance(), "strangers": strangers, "person": person}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
