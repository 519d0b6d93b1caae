"""How like real prints synthetic ones are: figures side by side, for prints and for templates alike.

One finger: comparison scores of every two impressions. Two fingers: log10 likelihood ratios of two fingers
of one person, summed as `matching.encounter` sums them. The sets of prints do not always say which fingers
are one person's, so any two fingers of a set stand for a person's two, real or synthetic.

A sum of likelihood ratios has no zero that a tolerance could be taken of, and rises a decade in a fiftieth
of the scores' range. Its quantile is therefore also told as a score: the one that both fingers would have
to reach for this sum. That is held to the tolerance of one finger's scores; the sum itself is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from capture.fingerprint.template import FingerprintTemplate
from matching.error_rates import Pairs, operating_points, resampled_fingers, resampled_points
from matching.fingerprint.calibration import FMR_1E3, fingerprint_calibration
from matching.fingerprint.cylinders import cylinders
from rekam.offline.prints import Compared
from rekam.offline.samples import all_pairs

QUANTILE = 0.999
FACTOR = 1.5  # what FNMR may differ by
TOLERANCE = 0.10  # what the quantile of the impostor scores may differ by
TWO_FINGERS = 40_000  # impostor pairs of two fingers a set
REPLICATES = 400
SEED = 2026

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """What is compared of a population: `one` and `two` fingers' pairs, and its templates.

    Scores of `two` are sums of log10 likelihood ratios; its finger numbers only tell the classes apart.
    """

    one: Pairs
    two: Pairs
    templates: tuple[FingerprintTemplate, ...]
    impressions: int


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both; `met` is None where nothing is asked for.

    `low` and `high`: 95 % of the real one, by bootstrap over fingers; `made_low`, `made_high`: of the other.
    """

    name: str
    real: float
    low: float | None
    high: float | None
    synthetic: float
    met: bool | None
    made_low: float | None = None
    made_high: float | None = None


def likeness(sets: Sequence[Compared]) -> Likeness:
    """Pool sets of compared prints, which are never compared with one another."""
    ones, twos, templates, first_finger = [], [], [], 0
    for one in sets:
        ones.append(_shifted(one.pairs, first_finger))
        first_finger += int(one.pairs.finger_b.max()) + 1
        twos.append(_two_fingers(one))
        templates += [FingerprintTemplate.from_bytes(e.template) for e in one.extracted if e.template]
    impressions = sum(len(one.extracted) for one in sets)
    return Likeness(pooled(ones), pooled(twos), tuple(templates), impressions)


def pooled(parts: Sequence[Pairs]) -> Pairs:
    """One sample of several."""
    return Pairs(
        *(
            np.concatenate([getattr(part, column) for part in parts])
            for column in ("score", "genuine", "finger_a", "finger_b")
        )
    )


def classes(genuine: Floats, impostor: Floats) -> Pairs:
    """Pairs of which only the class is known."""
    is_genuine = np.concatenate([np.ones(len(genuine), np.bool_), np.zeros(len(impostor), np.bool_)])
    finger = np.zeros(len(is_genuine), np.int64)
    return Pairs(np.concatenate([genuine, impostor]), is_genuine, finger, finger + ~is_genuine)


def log_likelihood_ratios(scores: Floats, fewer: NDArray[np.int64]) -> Floats:
    """Log10 likelihood ratio of each score; a failure says as little as the lowest score.

    `fewer`: cylinders of the finger that has fewer, a pair.
    """
    calibration = fingerprint_calibration()
    return np.array(
        [
            calibration.llr(score, n)
            for score, n in zip(np.maximum(scores, 0).tolist(), fewer.tolist(), strict=True)
        ]
    )


def evenly_reached(sums: Floats) -> Floats:
    """The score that two fingers of typical detail would both have to reach for each sum."""
    calibration = fingerprint_calibration()
    return np.interp(sums / 2, calibration.llrs, calibration.llr_scores)


def _shifted(pairs: Pairs, by: int) -> Pairs:
    return Pairs(pairs.score.copy(), pairs.genuine.copy(), pairs.finger_a + by, pairs.finger_b + by)


def _cylinders(template: bytes | None) -> int:
    return 0 if template is None else len(cylinders(FingerprintTemplate.from_bytes(template)))


def _two_fingers(one: Compared) -> Pairs:
    """Sums over two fingers: all genuine ones, impostors as drawn; impression n goes with impression n."""
    n = len(one.extracted)
    llr = np.zeros((n, n))
    detail = np.array([_cylinders(extracted.template) for extracted in one.extracted])
    first, second = all_pairs(n)
    llr[first, second] = log_likelihood_ratios(one.pairs.score, np.minimum(detail[first], detail[second]))
    llr += llr.T
    names = np.array([impression.finger for impression in one.prints.impressions])
    rows = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    genuine = [
        llr[a[i], a[j]] + llr[b[i], b[j]]
        for a, b in combinations(rows, 2)
        for i, j in combinations(range(min(len(a), len(b))), 2)
    ]
    rng = np.random.default_rng(SEED)
    chosen = four_fingers(rng, len(rows), TWO_FINGERS)
    counts = np.array([len(own) for own in rows])[chosen]
    starts = np.array([own[0] for own in rows])[chosen]
    both = np.minimum(counts[:, ::2], counts[:, 1::2])
    n1, n2 = (rng.random((TWO_FINGERS, 2)) * both).astype(np.int64).T
    impostor = llr[starts[:, 0] + n1, starts[:, 2] + n2] + llr[starts[:, 1] + n1, starts[:, 3] + n2]
    return classes(np.array(genuine), impostor)


def four_fingers(rng: np.random.Generator, fingers: int, count: int) -> NDArray[np.int64]:
    """Draw four different fingers `(count, 4)`, eight or more to choose from: two strangers' two each."""
    drawn = np.sort(rng.integers(fingers, size=(6 * count, 4)), axis=1)
    different = drawn[(np.diff(drawn, axis=1) > 0).all(axis=1)][:count]
    return rng.permuted(different, axis=1)


def rows(real: Likeness, synthetic: Likeness, *, both_bounds: bool = False) -> list[Row]:
    """Figures of both; FNMR in per cent. `both_bounds`: intervals of the synthetic figures as well."""
    found = []
    for name, a, b, as_score in (
        ("one finger", real.one, synthetic.one, None),
        ("two fingers", real.two, synthetic.two, evenly_reached),
    ):
        bounds = _intervals(a) if as_score is None else None
        made_bounds = _intervals(b) if as_score is None and both_bounds else None
        pairs = int(a.genuine.sum())
        wanted, made = _fnmr(a), _fnmr(b)
        # Where no real pair is lost, one might just as well be: so are half as many again.
        floor = 1 / pairs
        met = made <= FACTOR * floor if wanted < floor else 1 / FACTOR <= made / wanted <= FACTOR
        found.append(
            Row(
                f"{name}: FNMR % at FMR 1e-3",
                100 * wanted,
                *_scaled(bounds, 0, 100),
                100 * made,
                bool(met),
                *_scaled(made_bounds, 0, 100),
            )
        )
        ends = [float(np.quantile(p.score[~p.genuine], QUANTILE)) for p in (a, b)]
        if as_score is not None:
            found.append(Row(f"{name}: impostor 99.9 %, LLR", ends[0], None, None, ends[1], None))
            ends = as_score(np.array(ends)).tolist()
        close = abs(ends[1] / ends[0] - 1) <= TOLERANCE
        found.append(
            Row(
                f"{name}: impostor 99.9 %, score",
                ends[0],
                *_scaled(bounds, 1, 1),
                ends[1],
                close,
                *_scaled(made_bounds, 1, 1),
            )
        )
    one = real.one, synthetic.one
    found += [
        _quantile("impostor", at, *(pairs.score[~pairs.genuine] for pairs in one)) for at in (0.5, 0.99)
    ]
    found += [
        _quantile("genuine", at, *(pairs.score[pairs.genuine] for pairs in one))
        for at in (0.01, 0.05, 0.1, 0.25, 0.5)
    ]
    lost = [100 * (1 - len(side.templates) / side.impressions) for side in (real, synthetic)]
    found.append(Row("no template, %", lost[0], None, None, lost[1], None))
    looks = statistics(real.templates), statistics(synthetic.templates)
    found += [Row(name, looks[0][name], None, None, looks[1][name], None) for name in looks[0]]
    return found


def _quantile(name: str, at: float, real: Floats, synthetic: Floats) -> Row:
    wanted, made = (float(np.quantile(scores, at, method="lower")) for scores in (real, synthetic))
    return Row(f"one finger: {name} {100 * at:g} %", wanted, None, None, made, None)


def _fnmr(pairs: Pairs) -> float:
    points = operating_points(pairs.score[pairs.genuine], pairs.score[~pairs.genuine])
    return points.at_fmr(FMR_1E3)[1]


def _scaled(bounds: tuple[Floats, Floats] | None, which: int, by: float) -> tuple[float | None, float | None]:
    return (None, None) if bounds is None else (by * float(bounds[which][0]), by * float(bounds[which][1]))


def _intervals(pairs: Pairs) -> tuple[Floats, Floats]:
    """95 % bootstrap intervals of FNMR at FMR 1e-3 and of the impostor quantile, over fingers."""
    drawn = resampled_fingers(int(pairs.finger_b.max()) + 1, replicates=REPLICATES, seed=(SEED,))
    fnmr, quantile = [], []
    for points in resampled_points(pairs, drawn):
        if points is not None:
            threshold, rate = points.at_fmr(1 - QUANTILE)
            fnmr.append(rate)
            quantile.append(threshold)
    return np.quantile(fnmr, [0.025, 0.975]), np.quantile(quantile, [0.025, 0.975])


def statistics(templates: Sequence[FingerprintTemplate]) -> dict[str, float]:
    """What minutiae look like: numbers, density, spacing, kinds, reliability."""
    counts = np.array([len(one) for one in templates])
    density, nearest = [], []
    for one in templates:
        if len(one) < 5:
            continue
        apart = np.hypot(one.x[:, None] - one.x, one.y[:, None] - one.y)
        np.fill_diagonal(apart, np.inf)
        nearest.append(apart.min(axis=1))
        # area by second moments: that of the ellipse which has them
        spread = np.linalg.det(np.cov(one.x, one.y))
        density.append(len(one) / (4 * np.pi * np.sqrt(max(spread, 1.0))))
    reliability = np.concatenate([one.reliability for one in templates])
    distances = np.concatenate(nearest)
    found = {f"minutiae, {100 * q:g} %": float(np.quantile(counts, q)) for q in (0.05, 0.5, 0.95)}
    found["minutiae in 100 x 100 pixels"] = 1e4 * float(np.median(density))
    found |= {
        f"nearest minutia, {100 * q:g} %, px": float(np.quantile(distances, q)) for q in (0.05, 0.5, 0.95)
    }
    found["endings, %"] = 100 * float(np.mean(np.concatenate([one.ending for one in templates])))
    found |= {f"reliability, {100 * q:g} %": float(np.quantile(reliability, q)) for q in (0.05, 0.25, 0.5)}
    found |= {
        f"quality, {100 * q:g} %": float(np.quantile([one.quality for one in templates], q))
        for q in (0.05, 0.5, 0.95)
    }
    return found


def table(title: str, found: Sequence[Row]) -> Table:
    """The rows as a table for the terminal."""
    shown = Table(title=title)
    for heading in ("", "real", "95 %", "synthetic", "95 %", "ratio", "met"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in found:
        digits = 4 if abs(row.real) < 0.5 else 2
        shown.add_row(
            row.name,
            f"{row.real:.{digits}f}",
            "" if row.low is None else f"{row.low:.{digits}f} to {row.high:.{digits}f}",
            f"{row.synthetic:.{digits}f}",
            "" if row.made_low is None else f"{row.made_low:.{digits}f} to {row.made_high:.{digits}f}",
            f"{row.synthetic / row.real:.2f}" if row.real > 0 else "",
            "" if row.met is None else "yes" if row.met else "NO",
        )
    return shown
