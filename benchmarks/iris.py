"""Error rates, cost and worst pairs of the iris pipeline, recorded in `benchmarks/results/iris.json`.

    python -m benchmarks.iris [--cache DIR]

on the development eyes (CASIA-V1, `iris/casia_v1` of REKAM_DATA): every pair of images is compared, once with
the whole code as `compare_irises` does and once with the scan code alone, which is what a search looks at. An
image that gives no usable template matches nothing. Then the same eyes are spoilt (`spoilt`), because the
publisher painted their pupils over and other cameras are worse: rates of each kind against plain ones.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.provenance import ROOT, provenance
from benchmarks.spoilt_irises import KINDS, spoilt
from capture.decode import decode_iris_image
from capture.errors import TemplateRefused
from capture.iris import phase_code, quality, rubber_sheet, segmentation
from capture.iris.extract import IrisExtractor
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import IrisSample
from matching.error_rates import (
    FAILED,
    Interval,
    OperatingPoints,
    Pairs,
    interval,
    operating_points,
    resampled_fingers,
    resampled_points,
)
from matching.iris import comparison
from matching.iris.comparison import IrisForm, compare_irises, iris_form

RESULTS = ROOT / "benchmarks" / "results" / "iris.json"
RATES = (1e-2, 1e-3, 1e-4)
REPLICATES = 1000
SEED = 2026
WORST = 10
EVERY = 6  # image is spoilt


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """All pairs of some images: `pairs`, and of each the two images' numbers and the bits compared."""

    pairs: Pairs
    image_a: NDArray[np.int64]
    image_b: NDArray[np.int64]
    bits: NDArray[np.int64]


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    results: Annotated[Path, typer.Option(help="File of the results.")] = RESULTS,
) -> None:
    """Measure the iris pipeline on the development eyes and record it."""
    folder = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "iris" / "casia_v1"
    console = Console(stderr=True)
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise typer.BadParameter(f"no iris images in {folder}: set REKAM_DATA to the development data")
    started = time.monotonic()
    samples = [decode_iris_image(file.read_bytes()) for file in files]
    eyes = np.array([int(file.name.split("_")[0]) for file in files])
    forms, milliseconds, failed = _forms(files, samples, cache, console)
    # 1. Every pair, with the whole code and with the scan code.
    whole = compare_all(forms, forms, eyes, same=True)
    scan = [None if form is None else _scan_part(form) for form in forms]
    part = compare_all(scan, scan, eyes, same=True)
    figures = {"whole_code": rates(whole.pairs), "scan_code": rates(part.pairs)}
    # 2. The worst pairs.
    worst = {
        "genuine": _pairs(whole, files, whole.pairs.genuine, 1),
        "impostor": _pairs(whole, files, ~whole.pairs.genuine, -1),
    }
    # 3. Spoilt images against plain ones of the same eyes, the same image apart.
    spoiling = {}
    for kind in KINDS:
        chosen = range(0, len(files), EVERY)
        probes, _, lost = _forms(
            [files[number] for number in chosen],
            [spoilt(samples[number], kind, number) for number in chosen],
            cache and cache / kind,
            console,
        )
        # In the places of the plain images they were made of.
        spread = [probes[number // EVERY] if number in chosen else None for number in range(len(files))]
        compared = compare_all(spread, forms, eyes, same=False)
        kept = np.isin(compared.image_a, chosen)
        spoiling[kind] = {
            "images": len(probes),
            "failed_to_extract": lost,
            **rates(compared.pairs[kept], replicates=0),
        }
    record = {
        "command": "python -m benchmarks.iris",
        **provenance(),
        "parameters": {
            "segmentation": repr(segmentation.PARAMS),
            "rubber_sheet": repr(rubber_sheet.PARAMS),
            "phase_code": repr(phase_code.PARAMS),
            "quality": repr(quality.PARAMS),
            "comparison": repr(comparison.PARAMS),
            "comparison_version": comparison.COMPARISON_VERSION,
            "rotations": comparison.ROTATIONS,
            "bootstrap": {"by": "eye", "confidence": 0.95, "replicates": REPLICATES, "seed": SEED},
        },
        "seconds": round(time.monotonic() - started),
        "images": len(files),
        "eyes": len(set(eyes.tolist())),
        "failed_to_extract": failed,
        "cpu_ms_an_image": milliseconds,
        "cpu_us_a_comparison": _comparison_cost(forms),
        **figures,
        "worst": worst,
        "spoilt_against_plain": spoiling,
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _show(record, console)


def _forms(
    files: list[Path], samples: list[IrisSample], cache: Path | None, console: Console
) -> tuple[list[IrisForm | None], float | None, int]:
    """Forms, None where no usable template came; CPU milliseconds an image (None from a cache); failures."""
    extractor = IrisExtractor()
    forms: list[IrisForm | None] = []
    extractor.extract(samples[0])
    spent, extracted = 0, 0
    for file, sample in track(list(zip(files, samples, strict=True)), "extracting", console=console):
        kept = cache and cache / f"{file.stem}.iris"
        if kept and kept.exists():
            data = kept.read_bytes()
        else:
            begun = time.process_time_ns()
            extraction = extractor.extract(sample)
            spent += time.process_time_ns() - begun
            extracted += 1
            usable = extraction.template if extraction.quality.usable else None
            data = usable.to_bytes() if usable else b""
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
        try:
            forms.append(iris_form(IrisTemplate.from_bytes(data)) if data else None)
        except TemplateRefused as error:
            raise typer.BadParameter(f"{kept}: {error}; empty the cache") from error
    cost = round(spent / extracted / 1e6, 1) if extracted else None
    return forms, cost, sum(form is None for form in forms)


def compare_all(
    probes: list[IrisForm | None], references: list[IrisForm | None], eyes: NDArray[np.int64], *, same: bool
) -> Compared:
    """Compare all pairs of images: each once where both lists are the `same`, else none with itself."""
    n = len(eyes)
    a, b = np.triu_indices(n, 1) if same else np.nonzero(~np.eye(n, dtype=np.bool_))
    score, bits = np.full(len(a), FAILED), np.zeros(len(a), np.int64)
    for k, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        probe, reference = probes[i], references[j]
        if probe is not None and reference is not None:
            found = compare_irises(probe, reference)
            score[k], bits[k] = found.score, found.bits
    _, numbers = np.unique(eyes, return_inverse=True)
    pairs = Pairs(score, eyes[a] == eyes[b], numbers[a].astype(np.int64), numbers[b].astype(np.int64))
    return Compared(pairs, a, b, bits)


def rates(pairs: Pairs, replicates: int = REPLICATES) -> dict[str, object]:
    """EER and FNMR at each of `RATES`, percent, with 95 % intervals by bootstrap over eyes; d'."""
    genuine, impostor = pairs.score[pairs.genuine], pairs.score[~pairs.genuine]
    points = operating_points(genuine, impostor)
    measured: list[Callable[[OperatingPoints], float]] = [
        _eer,
        *(partial(_fnmr, rate=rate) for rate in RATES),
    ]
    names = ("eer", *(f"fnmr_at_fmr_{rate:.0e}" for rate in RATES))
    drawn = resampled_fingers(int(pairs.finger_a.max()) + 1, replicates=replicates, seed=[SEED])
    again = [[of(one) for of in measured] for one in resampled_points(pairs, drawn) if one is not None]
    columns = np.array(again).reshape(-1, len(names))
    figures = {
        name: _percent(interval(of(points), columns[:, k]), bounded=replicates > 0)
        for k, (name, of) in enumerate(zip(names, measured, strict=True))
    }
    known_genuine, known_impostor = (s[np.isfinite(s)] for s in (genuine, impostor))
    apart = known_genuine.mean() - known_impostor.mean()
    return {
        "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor),
        **figures,
        "thresholds": {f"{rate:.0e}": round(points.at_fmr(rate)[0], 4) for rate in RATES},
        "d_prime": round(float(apart / np.sqrt((known_genuine.var() + known_impostor.var()) / 2)), 2),
        "lowest_genuine": round(float(genuine.min()), 4),
        "highest_impostor": round(float(impostor.max()), 4),
    }


def _eer(points: OperatingPoints) -> float:
    return points.equal_error_rate


def _fnmr(points: OperatingPoints, rate: float) -> float:
    return points.at_fmr(rate)[1]


def _percent(figure: Interval, *, bounded: bool) -> dict[str, float]:
    value = {"value": round(100 * figure.value, 3)}
    bounds = {"low": round(100 * figure.low, 3), "high": round(100 * figure.high, 3)}
    return value | bounds if bounded else value


def _scan_part(form: IrisForm) -> IrisForm:
    """The form as a search sees it."""
    return replace(form, code=form.code[:GROUP_WORDS], mask=form.mask[:GROUP_WORDS])


def _pairs(
    compared: Compared, files: list[Path], chosen: NDArray[np.bool_], sign: int
) -> list[dict[str, object]]:
    """The pairs among `chosen` of lowest (`sign` 1) or highest score, by name."""
    among = np.flatnonzero(chosen)
    order = among[np.argsort(sign * compared.pairs.score[among], kind="stable")][:WORST]
    return [
        {
            "a": files[compared.image_a[k]].name,
            "b": files[compared.image_b[k]].name,
            "score": round(float(compared.pairs.score[k]), 4)
            if np.isfinite(compared.pairs.score[k])
            else None,
            "bits": int(compared.bits[k]),
        }
        for k in order
    ]


def _comparison_cost(forms: list[IrisForm | None]) -> float:
    """CPU microseconds of one `compare_irises`, the best of five rounds."""
    known = [form for form in forms if form is not None]
    rounds = []
    for _ in range(5):
        begun = time.process_time_ns()
        for form in known:
            compare_irises(known[0], form)
        rounds.append((time.process_time_ns() - begun) / len(known) / 1e3)
    return round(min(rounds), 1)


def _show(record: dict[str, Any], console: Console) -> None:
    table = Table("", "EER", *(f"FNMR at FMR {rate:.0e}" for rate in RATES), "not extracted", title="percent")

    def row(name: str, figures: dict[str, Any], lost: int, images: int) -> None:
        cells = [figures["eer"], *(figures[f"fnmr_at_fmr_{rate:.0e}"] for rate in RATES)]
        texts = [
            f"{c['value']:.2f}" + (f" ({c['low']:.2f} to {c['high']:.2f})" if "low" in c else "")
            for c in cells
        ]
        table.add_row(name, *texts, f"{lost} of {images}")

    row("whole code", record["whole_code"], record["failed_to_extract"], record["images"])
    row("scan code", record["scan_code"], record["failed_to_extract"], record["images"])
    for kind, figures in record["spoilt_against_plain"].items():
        row(kind, figures, figures["failed_to_extract"], figures["images"])
    console.print(table)
    for kind, pairs in record["worst"].items():
        for pair in pairs:
            console.print(f"{kind}: {pair['a']} {pair['b']} score {pair['score']}, {pair['bits']} bits")
    console.print(
        f"CPU: {record['cpu_ms_an_image']} ms an image, {record['cpu_us_a_comparison']} us a comparison"
    )


if __name__ == "__main__":
    typer.run(main)
