"""`rekam evaluate fingerprint`: what the engine's error rates are on folders of prints.

Every two impressions of a set are compared once.

    genuine pairs     every two impressions of one finger
    impostor pairs    all pairs:    every impression of a finger and every one of another
                      FVC protocol: the first impression of a finger and the first of another, where first
                      is meant in natural order (2 before 10)

What "equal error rate" and "FNMR at an FMR" mean exactly is said in `matching/error_rates.py`. Templates
go through their native bytes, as they do in a gallery.
"""

import csv
import io
import json
import math
import os
import shlex
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capture.fingerprint.template import ExtractorChoice
from matching.error_rates import (
    FAILED,
    Interval,
    OperatingPoints,
    Pairs,
    impostors_needed,
    interval,
    operating_points,
    resampled_fingers,
    resampled_points,
)
from rekam.faults import told_faults
from rekam.offline.prints import Compared, compare_set, print_sets
from rekam.offline.samples import EvaluationError, Scored, all_pairs
from rekam.written import require_writable, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORTED_FMR = (1e-2, 1e-3, 1e-4)
REPLICATES = 1000
SEED = 2002
CORES = len(os.sched_getaffinity(0))


# --- 1. error rates


@dataclass(frozen=True, slots=True)
class FnmrAtFmr:
    """FNMR at the smallest threshold whose FMR is at most `fmr`; None where impostor pairs are too few."""

    fmr: float
    impostor_pairs_needed: int
    threshold: float | None
    fnmr: Interval | None


@dataclass(frozen=True, slots=True)
class Rates:
    """Error rates over one selection of pairs, as shares of 1, with 95 % bootstrap intervals by finger."""

    genuine_pairs: int
    impostor_pairs: int
    equal_error_rate: Interval
    fvc_equal_error_rate: float
    fnmr_at_fmr: tuple[FnmrAtFmr, ...]


@dataclass(frozen=True, slots=True)
class SetReport:
    """One set's figures.

    `failures` pairs the name of each file without template with the reason; `feedback` counts the
    impressions that drew each word of feedback.
    """

    name: str
    ppi: float | None
    fingers: int
    impressions: int
    failures: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    mean_quality: float
    feedback: dict[str, int]
    fvc_protocol: Rates
    all_pairs: Rates


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of every set; over several also the mean of their EERs, and all pairs pooled."""

    sets: tuple[SetReport, ...]
    mean_eer_fvc_protocol: Interval
    mean_fvc_eer_fvc_protocol: float
    mean_eer_all_pairs: Interval
    pooled: Rates


def report(compared: Sequence[Compared], *, replicates: int = REPLICATES, seed: int = SEED) -> Report:
    """Compute the error rates of compared sets. Cost: about 4 s for 80,000 pairs and 1,000 replicates."""
    sets, drawn = [], []
    eers: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for result in compared:
        fingers = int(result.pairs.finger_b.max()) + 1
        drawn.append(drawn_fingers(result, replicates=replicates, seed=seed))
        fvc, fvc_eers = rates(result.pairs[result.fvc], drawn[-1])
        every, every_eers = rates(result.pairs, drawn[-1])
        eers.append((fvc_eers, every_eers))
        named = zip(result.prints.impressions, result.extracted, strict=True)
        sets.append(
            SetReport(
                name=result.prints.name,
                ppi=result.prints.ppi,
                fingers=fingers,
                impressions=len(result.prints.impressions),
                failures=tuple((one.path.name, made.reason) for one, made in named if made.template is None),
                ignored=result.prints.ignored,
                mean_quality=float(np.mean([made.quality for made in result.extracted])),
                feedback=dict(
                    Counter(word for made in result.extracted for word in made.feedback).most_common()
                ),
                fvc_protocol=fvc,
                all_pairs=every,
            )
        )
    mean_fvc = float(np.mean([one.fvc_protocol.equal_error_rate.value for one in sets]))
    mean_every = float(np.mean([one.all_pairs.equal_error_rate.value for one in sets]))
    return Report(
        sets=tuple(sets),
        mean_eer_fvc_protocol=interval(mean_fvc, np.mean([fvc for fvc, _ in eers], axis=0)),
        mean_fvc_eer_fvc_protocol=float(np.mean([one.fvc_protocol.fvc_equal_error_rate for one in sets])),
        mean_eer_all_pairs=interval(mean_every, np.mean([every for _, every in eers], axis=0)),
        pooled=rates(pooled_pairs([result.pairs for result in compared]), np.hstack(drawn))[0],
    )


def drawn_fingers(compared: Scored, *, replicates: int, seed: int) -> NDArray[np.int64]:
    """A set's bootstrap replicates, `(replicates, fingers) int64`: how often each finger, or eye, or person.

    Every set has a stream of its own, so that its intervals do not depend on the sets beside it.
    """
    stream = (seed, zlib.crc32(compared.name.encode()))
    fingers = int(compared.pairs.finger_b.max()) + 1
    return resampled_fingers(fingers, replicates=replicates, seed=stream)


def rates(pairs: Pairs, drawn: NDArray[np.int64]) -> tuple[Rates, NDArray[np.float64]]:
    """Error rates of `pairs` with intervals from the replicates `drawn`, and each replicate's EER."""
    points = _points(pairs)
    impostors = int((~pairs.genuine).sum())
    supported = [fmr for fmr in REPORTED_FMR if impostors >= impostors_needed(fmr)]
    eers = np.full(len(drawn), np.nan)
    fnmrs = np.full((len(drawn), len(supported)), np.nan)
    for i, resampled in enumerate(resampled_points(pairs, drawn)):
        if resampled is not None:
            eers[i] = resampled.equal_error_rate
            fnmrs[i] = [resampled.at_fmr(fmr)[1] for fmr in supported]
    at_fmr = []
    for i, fmr in enumerate(REPORTED_FMR):
        if fmr in supported:
            threshold, fnmr = points.at_fmr(fmr)
            at_fmr.append(FnmrAtFmr(fmr, impostors_needed(fmr), threshold, interval(fnmr, fnmrs[:, i])))
        else:
            at_fmr.append(FnmrAtFmr(fmr, impostors_needed(fmr), None, None))
    eer = interval(points.equal_error_rate, eers)
    return Rates(int(pairs.genuine.sum()), impostors, eer, points.fvc_equal_error_rate, tuple(at_fmr)), eers


def pooled_pairs(sets: Sequence[Pairs]) -> Pairs:
    """Join the pairs of several sets to one sample, fingers renumbered; none are made between sets."""
    offsets = np.cumsum([0, *(pairs.finger_b.max() + 1 for pairs in sets[:-1])])
    return Pairs(
        score=np.concatenate([pairs.score for pairs in sets]),
        genuine=np.concatenate([pairs.genuine for pairs in sets]),
        finger_a=np.concatenate([pairs.finger_a + o for pairs, o in zip(sets, offsets, strict=True)]),
        finger_b=np.concatenate([pairs.finger_b + o for pairs, o in zip(sets, offsets, strict=True)]),
    )


def _points(pairs: Pairs) -> OperatingPoints:
    return operating_points(pairs.score[pairs.genuine], pairs.score[~pairs.genuine])


# --- 2. what is shown and written


def tables(result: Report) -> list[Table]:
    """Show the report to a person: one table a set, and one over all where there are several."""
    found = []
    for one in result.sets:
        ppi = "resolution of each file" if one.ppi is None else f"{one.ppi:g} ppi"
        title = f"{one.name}: {one.fingers} fingers, {one.impressions} impressions, {ppi}"
        table = rates_table(title, "finger", ("FVC protocol", one.fvc_protocol), ("all pairs", one.all_pairs))
        failed = f"{len(one.failures)} of {one.impressions}"
        table.add_row("failures to extract", failed, failed)
        table.add_row("mean quality", f"{one.mean_quality:.0f}", f"{one.mean_quality:.0f}")
        for word, count in one.feedback.items():
            table.add_row(f"feedback {word}", f"{count}", f"{count}")
        found.append(table)
    if len(result.sets) > 1:
        title = f"{len(result.sets)} sets together"
        table = rates_table(title, "finger", ("all pairs, pooled", result.pooled))
        table.add_row("mean EER % of the sets, FVC protocol", percent(result.mean_eer_fvc_protocol))
        as_fvc = f"{100 * result.mean_fvc_eer_fvc_protocol:.3f}"
        table.add_row("mean EER % of the sets, FVC protocol, as FVC computes it", as_fvc)
        table.add_row("mean EER % of the sets, all pairs", percent(result.mean_eer_all_pairs))
        found.append(table)
    return found


def rates_table(title: str, subject: str, *columns: tuple[str, Rates]) -> Table:
    """Rates side by side, with intervals by `subject` (a finger, an eye, a person)."""
    caption = f"(95 % interval by {subject})"
    table = Table(title=escape(title), title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right")
    table.add_row("genuine pairs", *(f"{one.genuine_pairs:,}" for _, one in columns))
    table.add_row("impostor pairs", *(f"{one.impostor_pairs:,}" for _, one in columns))
    table.add_row("EER %", *(percent(one.equal_error_rate) for _, one in columns))
    table.add_row(
        "EER % as FVC computes it", *(f"{100 * one.fvc_equal_error_rate:.3f}" for _, one in columns)
    )
    for i, fmr in enumerate(REPORTED_FMR):
        cells = []
        for _, one in columns:
            at = one.fnmr_at_fmr[i]
            needed = f"not supported, needs {at.impostor_pairs_needed:,}"
            cells.append(needed if at.fnmr is None else percent(at.fnmr))
        table.add_row(f"FNMR % at FMR {fmr:g}", *cells)
    return table


def percent(figure: Interval) -> str:
    """A rate in % with its interval."""
    return f"{figure.value:.3%} ({figure.low:.2%} to {figure.high:.2%})".replace("%", "")


def write_scores(path: Path, compared: Sequence[Scored]) -> None:
    """Write `a,b,genuine,score` for every pair compared.

    `a` and `b` are file stems, `<set>/<stem>` where there are several sets. A score is its shortest exact
    decimal, empty where extraction failed.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("a", "b", "genuine", "score"))
    for result in compared:
        prefix = f"{result.name}/" if len(compared) > 1 else ""
        stems = [prefix + file.stem for file in result.files]
        first, second = all_pairs(len(stems))
        columns = (
            first.tolist(),
            second.tolist(),
            result.pairs.genuine.tolist(),
            result.pairs.score.tolist(),
        )
        for i, j, genuine, score in zip(*columns, strict=True):
            writer.writerow((stems[i], stems[j], int(genuine), "" if score == FAILED else repr(score)))
    written(path, text.getvalue().encode())


def plain(value: object) -> object:
    """`value` of dictionaries, sequences and numbers as JSON knows them: no number is NaN or infinite."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A DET curve to draw: the pairs it is of, and its looks."""

    label: str
    pairs: Pairs
    colour: str
    style: str = "-"
    width: float = 1.8


def draw_det(path: Path, compared: Sequence[Compared]) -> None:
    """Write a DET plot as PNG: FNMR over FMR, logarithmic, for every set by all pairs and FVC protocol."""
    curves = []
    for i, result in enumerate(compared):
        curves.append(Curve(f"{result.name}, all pairs", result.pairs, f"C{i}"))
        curves.append(Curve(f"{result.name}, FVC protocol", result.pairs[result.fvc], f"C{i}", ":", 1.4))
    write_curves(path, curves)


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write DET curves as a plot, a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 7), dpi=130, layout="constrained")
    draw_curves(figure.add_subplot(title="Detection error trade-off"), curves)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    written(path, png.getvalue())


def draw_curves(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw DET curves: each ends where its sample ends, at an FMR of one impostor pair."""
    from matplotlib.ticker import FuncFormatter

    frame = 0.5 / max(len(curve.pairs) for curve in curves)
    for curve in curves:
        points = _points(curve.pairs)
        eer = points.equal_error_rate
        shown = points.fmr > 0
        axes.plot(
            points.fmr[shown],
            np.maximum(points.fnmr[shown], frame),
            curve.style,
            color=curve.colour,
            linewidth=curve.width,
            drawstyle="steps-post",
            label=f"{curve.label}: EER {100 * eer:.3f} %",
        )
        if eer > 0:
            axes.plot(eer, eer, "o", color=curve.colour, markersize=4)
    axes.plot([frame, 1], [frame, 1], color="0.7", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(frame, 1), ylim=(frame, 1), aspect="equal")
    axes.set(xlabel="false match rate", ylabel="false non-match rate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.grid(color="0.92", linewidth=0.7)
    axes.legend(fontsize=8, loc="upper right")


# --- 3. the command

Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Det = Annotated[Path | None, typer.Option(help="Write a DET plot to this PNG.")]
Scores = Annotated[Path | None, typer.Option(help="Write a,b,genuine,score of every pair to this CSV.")]
Json = Annotated[
    str | None, typer.Option("--json", help="Write the report as JSON to this file, - for standard output.")
]
Page = Annotated[
    Path | None,
    typer.Option("--report", help="Write a report to look at, pictures included, to this HTML."),
]
Cache = Annotated[Path | None, typer.Option("--cache", help="Keep templates here, and take them from here.")]
Replicates = Annotated[int, typer.Option(min=1, help="Bootstrap replicates.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]

evaluate_app = typer.Typer(help="Measure error rates on folders of samples.", no_args_is_help=True)


@evaluate_app.callback()
def _evaluate() -> None:
    """Measure error rates on folders of samples."""


@evaluate_app.command("fingerprint")
def evaluate_fingerprint(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Folders of <finger>_<impression>.* files, each a set."),
    ],
    ppi: Annotated[
        list[float] | None,
        typer.Option(
            help="Pixels per inch, whatever the files say: once for all sets, or once for each in order."
        ),
    ] = None,
    workers: Workers = CORES,
    det: Det = None,
    scores: Scores = None,
    json_out: Json = None,
    page: Page = None,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Compare the same pairs by NBIS too (package nbis-py); with --report."),
    ] = False,
    extractor: Annotated[
        ExtractorChoice, typer.Option(help="What finds the minutiae.")
    ] = ExtractorChoice.ACCURATE,
    cache_folder: Cache = None,
    replicates: Replicates = REPLICATES,
    seed: Seed = SEED,
) -> None:
    """Measure EER, FNMR at FMR 1e-2, 1e-3 and 1e-4 with intervals, on folders of real prints."""
    # Here, because the page is made of this module's figures.
    from rekam.offline.page import Circumstances, require_html, versions
    from rekam.offline.peers import require_peers
    from rekam.offline.prints_page import evaluation_page, peer_pipelines

    console = Console(stderr=True)
    started = time.monotonic()
    with told_faults():
        if page is not None:
            require_html(page)
        json_file = None if json_out in (None, "-") else Path(json_out)
        for target in (scores, det, json_file, page):
            if target is not None:
                require_writable(target)
        if peers and page is None:
            raise EvaluationError("--peers is shown in a report: add --report FILE.html")
        if peers:
            require_peers()
        sets = print_sets(folders, ppi or [])
        if cache_folder is not None:
            cache_folder.mkdir(parents=True, exist_ok=True)
        for one in sets:
            say_ignored(one.name, one.ignored, console)
        compared = [
            compare_set(one, workers=workers, cache_folder=cache_folder, console=console, extractor=extractor)
            for one in sets
        ]
        console.print("resampling fingers", highlight=False)
        result = report(compared, replicates=replicates, seed=seed)
        if scores is not None:
            write_scores(scores, compared)
        if det is not None:
            draw_det(det, compared)
        if json_file is not None:
            written(json_file, report_json(result, replicates, seed).encode())
        if page is not None:
            made = Circumstances(
                date=f"{datetime.now().astimezone():%d %B %Y}",
                command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                versions=versions(*["nbis-py"][: int(peers)]),
                extractor=extractor,
                replicates=replicates,
                seed=seed,
            )
            beside = peer_pipelines(compared, made, workers=workers, console=console) if peers else []
            written(page, evaluation_page(compared, result, beside, made, console).encode())
            console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"done in {time.monotonic() - started:.0f} s", highlight=False)
    if json_out == "-":
        sys.stdout.write(report_json(result, replicates, seed))
        return
    for table in tables(result):
        Console(width=max(100, Console().width)).print(table)


def say_ignored(name: str, ignored: Sequence[str], console: Console) -> None:
    """Name files that a set leaves out."""
    if ignored:
        shown = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
        text = f"{name}: {len(ignored)} other files ignored: {shown}"
        console.print(text, markup=False, soft_wrap=True)


def report_json(result: Report, replicates: int, seed: int) -> str:
    """Write the report as JSON text, rates as shares of 1, null where there is no figure."""
    bootstrap = {"by": "finger", "confidence": 0.95, "replicates": replicates, "seed": seed}
    return json.dumps(plain({**asdict(result), "bootstrap": bootstrap}), indent=1) + "\n"
