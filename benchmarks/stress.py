"""Error rates of damaged templates, without and with the look at the overlap, in `benchmarks/results/`.

    python -m benchmarks.stress --cache DIR [--extractor accurate|fast]

takes the templates of the development prints, damages each by itself (`DAMAGES`), compares every two of a
set, and sets error rates by support alone, as the comparison was before it looked at the overlap, beside
those of the whole score. The last row is not damaged: other minutiae, those of mindtct (`nbis-py`), through a
record of ISO/IEC 19794-2. Rates are of all impostor pairs; intervals by bootstrap over fingers. Prints are
found through REKAM_DATA.
"""

import json
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import nbis
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import SETS
from benchmarks.foreign_templates import mindtct_view
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import MAX_MINUTIAE, ExtractorChoice, FingerprintTemplate
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import template_of
from matching.error_rates import FAILED, Interval, Pairs
from matching.fingerprint import comparison, cylinders, overlap
from rekam.offline.evaluate_prints import REPLICATES, plain, report
from rekam.offline.prints import Compared, PrintSet, compare_set, print_sets
from rekam.offline.samples import all_pairs

SEED = 2026

Floats = NDArray[np.float64]
Templates = Sequence[FingerprintTemplate | None]


# --- 1. damage


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to one template; ranges are drawn from, evenly. Lengths in pixels, angles in radians."""

    kept: tuple[float, float] = (1.0, 1.0)  # share of the minutiae on the side of a cut that stays
    lost: tuple[float, float] = (0.0, 0.0)  # share of those, anywhere
    spurious: tuple[float, float] = (0.0, 0.0)  # added for each before the loss
    jitter: float = 0.0  # standard deviation, each axis
    direction: float = 0.0  # standard deviation
    type_flip: float = 0.0  # chance
    warp: float = 0.0  # root mean square displacement by an elastic field


UNDAMAGED = Damage()
DAMAGES = {
    "none": UNDAMAGED,
    "drop": Damage(lost=(0.2, 0.4), spurious=(0.1, 0.2), jitter=2.5, direction=0.12, type_flip=0.15),
    "warp": Damage(warp=7.0),
    "crop": Damage(kept=(0.55, 0.85)),
    "all": Damage(
        kept=(0.75, 0.95),
        lost=(0.12, 0.24),
        spurious=(0.06, 0.12),
        jitter=1.5,
        direction=0.08,
        type_flip=0.15,
        warp=5.0,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Minutiae:
    """The columns of a template on their way, `(n,)` each, still without an image's edge."""

    x: Floats
    y: Floats
    direction: Floats
    ending: NDArray[np.bool_]
    reliability: Floats

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, chosen: NDArray[np.int64]) -> "Minutiae":
        """Keep the minutiae of these indices."""
        return Minutiae(
            self.x[chosen],
            self.y[chosen],
            self.direction[chosen],
            self.ending[chosen],
            self.reliability[chosen],
        )


def damaged(template: FingerprintTemplate, damage: Damage, rng: np.random.Generator) -> FingerprintTemplate:
    """Cut off, lose, add, jitter and warp, in this order; the image grows where a minutia leaves it.

    Without damage, the template as it was. Cost: about 0.3 ms.
    """
    minutiae = Minutiae(
        template.x.astype(np.float64),
        template.y.astype(np.float64),
        template.direction.astype(np.float64),
        template.ending,
        template.reliability.astype(np.float64),
    )
    if not len(minutiae):
        return template
    whole = cropped(minutiae, rng.uniform(*damage.kept), rng)
    left = dropped(whole, rng.uniform(*damage.lost), rng)
    more = with_spurious(left, round(rng.uniform(*damage.spurious) * len(whole)), rng)
    moved = jittered(more, damage, rng)
    return _template(warped(moved, damage.warp, rng), template)


def cropped(minutiae: Minutiae, share: float, rng: np.random.Generator) -> Minutiae:
    """Keep `share` of the minutiae, those on one side of a straight cut of any direction."""
    towards = rng.uniform(0, 2 * np.pi)
    along = minutiae.x * np.cos(towards) + minutiae.y * np.sin(towards)
    return minutiae[np.sort(np.argsort(along, kind="stable")[: _part(minutiae, share)])]


def dropped(minutiae: Minutiae, share: float, rng: np.random.Generator) -> Minutiae:
    """Lose `share` of the minutiae."""
    return minutiae[np.sort(rng.permutation(len(minutiae))[: _part(minutiae, 1 - share)])]


def with_spurious(minutiae: Minutiae, count: int, rng: np.random.Generator) -> Minutiae:
    """Add `count` minutiae that are not there: amid three true ones, along the ridge of the nearest."""
    corners = rng.integers(len(minutiae), size=(count, 3))
    weight = rng.dirichlet((1, 1, 1), size=count)
    x, y = (weight * minutiae.x[corners]).sum(axis=1), (weight * minutiae.y[corners]).sum(axis=1)
    nearest = np.hypot(x[:, None] - minutiae.x, y[:, None] - minutiae.y).argmin(axis=1)
    either_way = np.pi * rng.integers(2, size=count)
    return Minutiae(
        np.concatenate([minutiae.x, x]),
        np.concatenate([minutiae.y, y]),
        np.concatenate([minutiae.direction, minutiae.direction[nearest] + either_way]),
        np.concatenate([minutiae.ending, rng.random(count) < 0.5]),
        # less sure than true ones, and partly below what comparison takes
        np.concatenate([minutiae.reliability, rng.uniform(0.3, 0.8, count)]),
    )


def jittered(minutiae: Minutiae, damage: Damage, rng: np.random.Generator) -> Minutiae:
    """Move and turn each minutia by itself, and take some for the other type."""
    n = len(minutiae)
    return Minutiae(
        minutiae.x + damage.jitter * rng.standard_normal(n),
        minutiae.y + damage.jitter * rng.standard_normal(n),
        minutiae.direction + damage.direction * rng.standard_normal(n),
        minutiae.ending ^ (rng.random(n) < damage.type_flip),
        minutiae.reliability,
    )


def warped(minutiae: Minutiae, size: float, rng: np.random.Generator) -> Minutiae:
    """Bend the finger by a smooth field that moves its minutiae by `size`, root mean square about the mean.

    The field is the sum of a few Gaussian bumps; directions turn with it.
    """
    p = np.column_stack([minutiae.x, minutiae.y])
    centres = p.mean(axis=0) + rng.normal(0, 80, (4, 2))
    width = rng.uniform(50, 110, 4)
    push = rng.standard_normal((4, 2))
    apart = p[:, None] - centres  # (n, 4, 2)
    bump = np.exp(-(apart**2).sum(axis=2) / (2 * width**2))  # (n, 4)
    shift = bump @ push
    shift -= shift.mean(axis=0)
    scale = size / max(np.sqrt((shift**2).sum(axis=1).mean()), 1e-9)
    ahead = np.column_stack([np.cos(minutiae.direction), -np.sin(minutiae.direction)])
    slope = -bump * (apart * ahead[:, None]).sum(axis=2) / width**2  # of each bump along the direction
    turned = ahead + scale * (slope @ push)
    turn = np.arctan2(-turned[:, 1], turned[:, 0]) - np.arctan2(-ahead[:, 1], ahead[:, 0])
    return replace(
        minutiae,
        x=minutiae.x + scale * shift[:, 0],
        y=minutiae.y + scale * shift[:, 1],
        direction=minutiae.direction + turn,
    )


def _part(minutiae: Minutiae, share: float) -> int:
    return max(1, round(share * len(minutiae)))


def _template(minutiae: Minutiae, like: FingerprintTemplate) -> FingerprintTemplate:
    """Most reliable first, in an image large enough; the rest as in `like`."""
    best = minutiae[np.argsort(-minutiae.reliability, kind="stable")[:MAX_MINUTIAE]]
    x, y = np.rint(best.x), np.rint(best.y)
    x, y = x - min(x.min(), 0), y - min(y.min(), 0)
    direction = (best.direction % (2 * np.pi)).astype(np.float32)
    return replace(
        like,
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        direction=np.where(direction >= np.float32(2 * np.pi), np.float32(0), direction),
        ending=best.ending,
        reliability=best.reliability.astype(np.float32),
        width=max(like.width, int(x.max()) + 1),
        height=max(like.height, int(y.max()) + 1),
    )


# --- 2. error rates


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of 1, all impostor pairs: the mean of the sets' EERs, FNMR of their pairs pooled."""

    eer: Interval
    fnmr_at_1e3: Interval
    fnmr_at_1e4: Interval


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """The same pairs by support alone, and by the whole score."""

    before: Figures
    after: Figures


def of_damaged(one: Compared, name: str, damage: Damage) -> Templates:
    """A set's templates, each damaged with random numbers of its own."""
    made: list[FingerprintTemplate | None] = []
    for impression, extracted in zip(one.prints.impressions, one.extracted, strict=True):
        if extracted.template is None:
            made.append(None)
            continue
        stream = zlib.crc32(f"{name} {one.prints.name} {impression.stem}".encode())
        template = FingerprintTemplate.from_bytes(extracted.template)
        made.append(damaged(template, damage, np.random.default_rng((SEED, stream))))
    return made


def of_mindtct(prints: PrintSet, ppi: float) -> Templates:
    """A set's templates of the minutiae that mindtct finds."""
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    mindtct = nbis.new_nbis_extractor(settings)
    views = (mindtct_view(mindtct, impression.path, ppi) for impression in prints.impressions)
    return [template_of(view, RecordFormat.ISO_2005) for view in views]


def compared_again(one: Compared, templates: Templates) -> tuple[Compared, Compared]:
    """The set with these templates instead of its own: by support alone, and by the whole score."""
    described = [
        None if t is None else cylinders.cylinders(FingerprintTemplate.from_bytes(t.to_bytes()))
        for t in templates
    ]
    first, second = all_pairs(len(described))
    support, score = np.full(len(first), FAILED), np.full(len(first), FAILED)
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        a, b = described[i], described[j]
        if a is not None and b is not None:
            found = comparison.compare(a, b)
            support[k], score[k] = found.support, found.score
    columns = one.pairs.genuine, one.pairs.finger_a, one.pairs.finger_b
    return replace(one, pairs=Pairs(support, *columns)), replace(one, pairs=Pairs(score, *columns))


def figures(sets: Sequence[Compared], replicates: int) -> Figures:
    """Error rates of a group of sets. Cost: 6 s for 80,000 pairs and 1,000 replicates."""
    rates = report(sets, replicates=replicates, seed=SEED)
    at_fmr = {one.fmr: one.fnmr for one in rates.pooled.fnmr_at_fmr}
    return Figures(
        rates.mean_eer_all_pairs, *(at_fmr[fmr] or Interval(*[float("nan")] * 3) for fmr in (1e-3, 1e-4))
    )


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    extractor: Annotated[
        ExtractorChoice, typer.Option(help="Whose templates to damage.")
    ] = ExtractorChoice.ACCURATE,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the extraction.")] = len(
        os.sched_getaffinity(0)
    ),
    replicates: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = REPLICATES,
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure error rates of damaged templates and record them."""
    started = time.monotonic()
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    console, quiet = Console(width=max(110, Console().width)), Console(stderr=True)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, BeforeAfter]] = {name: {} for name in (*DAMAGES, "mindtct")}
    for group, folders in SETS.items():
        sets = [
            compare_set(one, workers=workers, cache_folder=cache, console=quiet, extractor=extractor)
            for one in print_sets([prints / folder for folder in folders], list(folders.values()))
        ]
        for name, of_name in found.items():
            quiet.print(f"{group}: {name}")
            templates = [
                of_damaged(one, name, DAMAGES[name])
                if name in DAMAGES
                else of_mindtct(one.prints, folders[one.prints.name])
                for one in sets
            ]
            again = [compared_again(*pair) for pair in zip(sets, templates, strict=True)]
            before, after = zip(*again, strict=True)
            of_name[group] = BeforeAfter(figures(before, replicates), figures(after, replicates))
    console.print(table(found))
    record = {
        "command": f"python -m benchmarks.stress --extractor {extractor}",
        **provenance(),
        "parameters": {
            "extractor": extractor,
            "damages": {name: asdict(damage) for name, damage in DAMAGES.items()},
            "seed": SEED,
            "cylinders": repr(cylinders.PARAMS),
            "comparison": repr(comparison.PARAMS),
            "overlap": repr(overlap.PARAMS),
            "comparison_version": comparison.COMPARISON_VERSION,
            "bootstrap": {"by": "finger", "confidence": 0.95, "replicates": replicates, "seed": SEED},
        },
        "seconds": round(time.monotonic() - started),
        "rows": {
            name: {group: asdict(one) for group, one in groups.items()} for name, groups in found.items()
        },
    }
    results.mkdir(exist_ok=True)
    path = results / ("stress.json" if extractor is ExtractorChoice.ACCURATE else f"stress_{extractor}.json")
    path.write_text(json.dumps(plain(record), indent=1) + "\n", encoding="utf-8")


def table(found: dict[str, dict[str, BeforeAfter]]) -> Table:
    """Every row and group, in per cent with 95 % intervals."""
    made = Table("damage", "prints", "EER, %", "FNMR at FMR 1e-3, %", "FNMR at FMR 1e-4, %")
    for name, groups in found.items():
        for group, one in groups.items():
            cells = (
                f"{_percent(getattr(one.before, rate))} -> {_percent(getattr(one.after, rate))}"
                for rate in ("eer", "fnmr_at_1e3", "fnmr_at_1e4")
            )
            made.add_row(name, group, *cells)
    return made


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.3g} ({100 * rate.low:.3g}-{100 * rate.high:.3g})"


if __name__ == "__main__":
    typer.run(main)
