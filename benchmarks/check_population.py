"""How like real prints the synthetic population compares, recorded in `benchmarks/results/population.json`.

    python -m benchmarks.check_population

Real scores are of every two CrossMatch prints (REKAM_DATA), extracted and compared by the product itself; the
synthetic ones of as many fingers of the same positions, each pair of two people. What decides: the 99.9 %
quantile of the impostor scores of both is within 10 %. That quantile alone is easily met, scores of strangers
lie close together; so the table also says which share of the synthetic pairs exceeds the real quantile, that
is, what a synthetic stranger is worth. Intervals are 95 %, by bootstrap over fingers, real ones only.

    python -m benchmarks.check_population --fit

chooses two figures of the population, its density and how far its minutiae gather, and writes them into
`population.json`. It draws from another seed than the check.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.population import FITTED_FILE, NOISE, PARAMS, Params, impression, people
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint import comparison
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import Cylinders, cylinders
from rekam.prints import Compared, all_pairs, compare_set, print_set

# CrossMatch counts fingers from the left little finger (01) to the right little finger (10).
CROSSMATCH_POSITIONS = {
    "03": FingerPosition.LEFT_MIDDLE,
    "04": FingerPosition.LEFT_INDEX,
    "05": FingerPosition.LEFT_THUMB,
    "06": FingerPosition.RIGHT_THUMB,
    "07": FingerPosition.RIGHT_INDEX,
    "08": FingerPosition.RIGHT_MIDDLE,
}
IMPOSTOR_QUANTILES = (0.5, 0.99, 0.999, 0.9999)
GENUINE_QUANTILES = (0.01, 0.1, 0.5)
COUNT_QUANTILES = (0.05, 0.5, 0.95)
PAIR_QUANTILES = (0.5, 0.99, 0.999)
TOLERANCE = 0.10
FIT_SEED, CHECK_SEED = 11, 2026
REPLICATES = 400

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What one population gives: `counts` of minutiae a finger, the rest comparison scores.

    `impostor_fingers` `(n, 2)`: which two fingers, for resampling; `together`: sums over two fingers of
    the same two positions of two people.
    """

    impostor: Floats
    impostor_fingers: NDArray[np.int64]
    same_position: Floats
    together: Floats
    genuine: Floats
    counts: Floats
    other_person: Floats
    pooled: Floats


def main(
    count: Annotated[int, typer.Option("--people", min=20, help="Synthetic people.")] = 250,
    pairs: Annotated[int, typer.Option(min=10_000, help="Synthetic impostor pairs.")] = 250_000,
    workers: Annotated[int, typer.Option(min=1, help="Threads and processes.")] = len(
        os.sched_getaffinity(0)
    ),
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    fit: Annotated[bool, typer.Option(help="Fit the population to the real scores first.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Compare the synthetic population with real prints."""
    started = time.monotonic()
    console = Console(width=max(110, Console().width))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    real = real_scores(workers, cache, Console(stderr=True))
    params = PARAMS
    if fit:
        params = fitted(real, workers, console)
        _keep(params)
    synthetic = synthetic_scores(params, CHECK_SEED, count, pairs, workers)
    rows = compared(real, synthetic)
    console.print(table(rows))
    ratio = next(row.ratio for row in rows if row.name == "impostor scores" and row.quantile == 0.999)
    met = abs(ratio - 1) <= TOLERANCE
    console.print(
        f"99.9 % quantile of impostor scores, synthetic to real: {ratio:.3f} "
        f"({'within' if met else 'NOT within'} {TOLERANCE:.0%})"
    )
    record = {
        "command": "python -m benchmarks.check_population",
        **provenance(),
        "parameters": {
            "population": asdict(params),
            "noise": asdict(NOISE),
            "comparison": comparison.PARAMS._asdict(),
            "comparison_version": comparison.COMPARISON_VERSION,
            "people": count,
            "seed": CHECK_SEED,
        },
        "seconds": round(time.monotonic() - started),
        "impostor_quantile_999_ratio": ratio,
        "rows": [asdict(row) for row in rows],
    }
    results.mkdir(exist_ok=True)
    (results / "population.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not met:
        raise typer.Exit(1)


# --- 1. real scores


def real_scores(workers: int, cache: Path | None, console: Console) -> Scores:
    """Scores of every two CrossMatch prints, and of every two of each of the FVC2002 sets."""
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    crossmatch = _compared(prints / "crossmatch", 500.0, workers, cache, console)
    fvc = [
        _compared(prints / f"fvc2002_db{n}_b", ppi, workers, cache, console)
        for n, ppi in ((1, 500.0), (2, 569.0), (3, 500.0), (4, 500.0))
    ]
    names = [one.finger for one in crossmatch.prints.impressions]
    numbers = [one.number for one in crossmatch.prints.impressions]
    person = np.array([name[:3] for name in names])
    finger = np.array([name[3:] for name in names])
    first, second = all_pairs(len(names))
    score, genuine = crossmatch.pairs.score, crossmatch.pairs.genuine
    compared = np.isfinite(score)
    impostor = compared & ~genuine
    others = compared & (person[first] != person[second])
    same = others & (finger[first] == finger[second])
    by_prints = {
        (names[i], numbers[i], names[j], numbers[j]): score[k]
        for k, (i, j) in enumerate(zip(first, second, strict=True))
        if same[k]
    }
    together = [
        value + by_prints[one[:3] + f, m, other[:3] + f, n]
        for (one, m, other, n), value in by_prints.items()
        for f in CROSSMATCH_POSITIONS
        if f > one[3:] and (one[:3] + f, m, other[:3] + f, n) in by_prints
    ]
    return Scores(
        impostor=score[impostor],
        impostor_fingers=np.column_stack([crossmatch.pairs.finger_a, crossmatch.pairs.finger_b])[impostor],
        same_position=score[same],
        together=np.array(together),
        genuine=score[compared & genuine],
        counts=np.array(
            [_minutiae(one.template) for one in crossmatch.extracted if one.template is not None]
        ),
        other_person=score[others],
        pooled=np.concatenate(
            [one.pairs.score[np.isfinite(one.pairs.score) & ~one.pairs.genuine] for one in fvc]
        ),
    )


def _compared(folder: Path, ppi: float, workers: int, cache: Path | None, console: Console) -> Compared:
    return compare_set(print_set(folder, ppi), workers=workers, cache_folder=cache, console=console)


def _minutiae(template: bytes) -> float:
    return float(len(FingerprintTemplate.from_bytes(template)))


# --- 2. synthetic scores


def synthetic_scores(params: Params, seed: int, count: int, pairs: int, workers: int) -> Scores:
    """Scores of `count` people's fingers of the positions the real set has, one impression each."""
    positions = tuple(CROSSMATCH_POSITIONS.values())
    rng = np.random.default_rng((seed, count))
    templates = [finger for fingers in people(count, seed, positions, params=params) for finger in fingers]
    described = [cylinders(template) for template in templates]
    person, position = np.divmod(np.arange(len(templates)), len(positions))

    # 1. strangers, any two fingers
    chosen = rng.integers(len(templates), size=(pairs, 2))
    chosen = chosen[person[chosen[:, 0]] != person[chosen[:, 1]]]
    impostor = _scores(described, described, chosen, workers)
    same = position[chosen[:, 0]] == position[chosen[:, 1]]

    # 2. strangers, two fingers of theirs
    strangers = rng.integers(count, size=(pairs // 8, 2))
    strangers = strangers[strangers[:, 0] != strangers[:, 1]]
    two = np.array(list(combinations(range(len(positions)), 2)))[rng.integers(15, size=len(strangers))]
    together = sum(
        _scores(described, described, strangers * len(positions) + two[:, [side]], workers) for side in (0, 1)
    )

    # 3. the same finger again
    again = [cylinders(impression(template, rng)) for template in templates]
    own = np.column_stack([np.arange(len(templates))] * 2)
    return Scores(
        impostor=impostor,
        impostor_fingers=chosen,
        same_position=impostor[same],
        together=np.asarray(together),
        genuine=_scores(described, again, own, workers),
        counts=np.array([float(len(template)) for template in templates]),
        other_person=impostor,
        pooled=impostor,
    )


def _scores(a: Sequence[Cylinders], b: Sequence[Cylinders], pairs: NDArray[np.int64], workers: int) -> Floats:
    def score(part: NDArray[np.int64]) -> list[float]:
        return [similarity(a[i], b[j]) for i, j in part]

    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(score, np.array_split(pairs, workers))))


# --- 3. side by side


@dataclass(frozen=True, slots=True)
class Row:
    """One quantile of one measure; `share` of the synthetic values above the real quantile."""

    name: str
    quantile: float
    real_size: int
    real: float
    low: float | None
    high: float | None
    synthetic: float
    ratio: float
    share: float


def compared(real: Scores, synthetic: Scores) -> list[Row]:
    """Quantiles of both populations."""
    low, high = _intervals(real, IMPOSTOR_QUANTILES)
    rows = []
    for name, a, b, quantiles in (
        ("impostor scores", real.impostor, synthetic.impostor, IMPOSTOR_QUANTILES),
        ("  of other people only", real.other_person, synthetic.other_person, IMPOSTOR_QUANTILES),
        ("  of the same position", real.same_position, synthetic.same_position, IMPOSTOR_QUANTILES),
        ("  two fingers, summed", real.together, synthetic.together, PAIR_QUANTILES),
        ("  FVC2002 DB1-4_B, pooled", real.pooled, synthetic.pooled, IMPOSTOR_QUANTILES),
        ("genuine scores", real.genuine, synthetic.genuine, GENUINE_QUANTILES),
        ("minutiae", real.counts, synthetic.counts, COUNT_QUANTILES),
    ):
        for k, quantile in enumerate(quantiles):
            at, made = float(np.quantile(a, quantile)), float(np.quantile(b, quantile))
            first = name == "impostor scores"
            rows.append(
                Row(
                    name,
                    quantile,
                    len(a),
                    at,
                    float(low[k]) if first else None,
                    float(high[k]) if first else None,
                    made,
                    made / at,
                    float(np.mean(b > at)),
                )
            )
    return rows


def _intervals(real: Scores, quantiles: Sequence[float]) -> tuple[Floats, Floats]:
    """95 % bootstrap intervals of the impostor quantiles, fingers drawn with replacement."""
    order = np.argsort(real.impostor)
    score, fingers = real.impostor[order], real.impostor_fingers[order]
    n = int(fingers.max()) + 1
    rng = np.random.default_rng(FIT_SEED)
    drawn = np.empty((REPLICATES, len(quantiles)))
    for replicate in drawn:
        times = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        weight = np.cumsum(times[fingers[:, 0]] * times[fingers[:, 1]])
        replicate[:] = score[np.searchsorted(weight, np.array(quantiles) * weight[-1])]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal."""
    shown = Table(title="Synthetic population against CrossMatch")
    for heading in ("", "quantile", "real values", "real", "95 %", "synthetic", "ratio", "above real's"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for k, row in enumerate(rows):
        new = k == 0 or rows[k - 1].name != row.name
        digits = 1 if row.name == "minutiae" else 4
        shown.add_row(
            row.name if new else "",
            f"{100 * row.quantile:g} %",
            f"{row.real_size:,}" if new else "",
            f"{row.real:.{digits}f}",
            "" if row.low is None else f"{row.low:.{digits}f} to {row.high:.{digits}f}",
            f"{row.synthetic:.{digits}f}",
            f"{row.ratio:.3f}",
            f"{row.share:.2g}",
            end_section=k + 1 == len(rows) or rows[k + 1].name != row.name,
        )
    return shown


# --- 4. fit


def fitted(real: Scores, workers: int, console: Console) -> Params:
    """Choose how far minutiae gather where the flow diverges, by quantiles of the impostor scores.

    The gathering makes what prints of one pattern have in common, and so the tail; the density follows from
    it, by the mean number of minutiae.
    """
    quantiles = (0.5, 0.99, 0.999)
    wanted = np.quantile(real.impostor, quantiles)
    tried, losses = [], []
    for gain in (250.0, 325.0, 400.0, 475.0):
        params = _with_count(replace(PARAMS, divergence_gain=gain), float(real.counts.mean()))
        made = synthetic_scores(params, FIT_SEED, 250, 120_000, workers).impostor
        ratios = np.quantile(made, quantiles) / wanted
        tried.append(params)
        losses.append(float(np.sum(np.log(ratios) ** 2)))
        console.print(f"divergence gain {gain:g}: ratios {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    return tried[int(np.argmin(losses))]


def _with_count(params: Params, mean: float) -> Params:
    """The density scaled until fingers have `mean` minutiae on average."""
    for _ in range(4):
        drawn = people(200, FIT_SEED, tuple(CROSSMATCH_POSITIONS.values()), params=params)
        made = np.mean([len(finger) for fingers in drawn for finger in fingers])
        params = replace(params, density=params.density * mean / float(made))
    return params


def _keep(params: Params) -> None:
    """Write what differs from the defaults into the population's file."""
    stored = json.loads(FITTED_FILE.read_text())
    defaults = asdict(Params())
    stored["population"] = {k: v for k, v in asdict(params).items() if v != defaults[k]}
    FITTED_FILE.write_text(json.dumps(stored, indent=0) + "\n")


if __name__ == "__main__":
    typer.run(main)
