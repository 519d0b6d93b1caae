"""`rekam evaluate iris` and `rekam evaluate face`: error rates on folders of eyes and portraits.

Every two images of a set are compared once; pairs of one subject are genuine, all others impostors. An image
without template matches nothing. Rates are those of `matching/error_rates.py`; figures, score files and plots
are made as for prints (`rekam/offline/evaluate_prints.py`).
"""

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from capture.face.onnx_embedder import OnnxEmbedderSettings
from capture.face.template import FaceTemplate
from capture.sample import Modality
from matching.error_rates import Interval, interval
from matching.face.calibration import POOR_QUALITY
from matching.face.calibration import SCORES as FACE_SCORES
from matching.fitting import Measured, content_with, fitted
from rekam.config import load_settings
from rekam.faults import told_faults
from rekam.offline.evaluate_prints import (
    CORES,
    REPLICATES,
    SEED,
    Cache,
    Curve,
    Det,
    Json,
    Page,
    Rates,
    Replicates,
    Scores,
    Seed,
    Workers,
    drawn_fingers,
    percent,
    plain,
    pooled_pairs,
    rates,
    rates_table,
    say_ignored,
    write_curves,
    write_scores,
)
from rekam.offline.samples import (
    EYES,
    PORTRAITS,
    ComparedSamples,
    EvaluationError,
    Kind,
    all_pairs,
    compare_samples,
    sample_sets,
)
from rekam.written import require_writable, written

# --- 1. error rates


@dataclass(frozen=True, slots=True)
class SampleSetReport:
    """One set's figures.

    `failures` pairs the name of each file without template with the reason; `not_usable` counts the images
    that enrolment would not take, failures included; `feedback` the images that drew each word.
    """

    name: str
    subjects: int
    images: int
    failures: tuple[tuple[str, str], ...]
    not_usable: int
    ignored: tuple[str, ...]
    mean_quality: float
    feedback: dict[str, int]
    all_pairs: Rates


@dataclass(frozen=True, slots=True)
class SamplesReport:
    """Figures of every set; over several also the mean of their EERs, and all pairs pooled."""

    modality: Modality
    sets: tuple[SampleSetReport, ...]
    mean_eer_all_pairs: Interval
    pooled: Rates


def samples_report(
    compared: Sequence[ComparedSamples], *, replicates: int = REPLICATES, seed: int = SEED
) -> SamplesReport:
    """Compute the error rates of compared sets. Cost: about 4 s for 80,000 pairs and 1,000 replicates."""
    sets, drawn, eers = [], [], []
    for result in compared:
        drawn.append(drawn_fingers(result, replicates=replicates, seed=seed))
        figures, replicated = rates(result.pairs, drawn[-1])
        eers.append(replicated)
        made = result.extracted
        words = Counter(word for one in made for word in one.feedback)
        sets.append(
            SampleSetReport(
                name=result.name,
                subjects=len({file.subject for file in result.files}),
                images=len(result.files),
                failures=tuple(
                    (file.stem, one.reason)
                    for file, one in zip(result.files, made, strict=True)
                    if one.template is None
                ),
                not_usable=sum(not one.usable for one in made),
                ignored=result.ignored,
                mean_quality=float(np.mean([one.quality for one in made])),
                feedback=dict(words.most_common()),
                all_pairs=figures,
            )
        )
    mean = float(np.mean([one.all_pairs.equal_error_rate.value for one in sets]))
    pooled = (
        sets[0].all_pairs
        if len(sets) == 1
        else rates(pooled_pairs([result.pairs for result in compared]), np.hstack(drawn))[0]
    )
    modality = compared[0].samples.kind.modality
    return SamplesReport(modality, tuple(sets), interval(mean, np.mean(eers, axis=0)), pooled)


# --- 2. what is shown and written


def samples_tables(result: SamplesReport, kind: Kind) -> list[Table]:
    """Show the report to a person: one table a set, and one over all where there are several."""
    found = []
    for one in result.sets:
        title = f"{one.name}: {one.subjects} {kind.subjects}, {one.images} {kind.samples}"
        table = rates_table(title, kind.subject, ("all pairs", one.all_pairs))
        table.add_row("failures to extract", f"{len(one.failures)} of {one.images}")
        table.add_row("not usable for enrolment", f"{one.not_usable} of {one.images}")
        table.add_row("mean quality", f"{one.mean_quality:.0f}")
        for word, count in one.feedback.items():
            table.add_row(f"feedback {word}", f"{count}")
        found.append(table)
    if len(result.sets) > 1:
        title = f"{len(result.sets)} sets together"
        table = rates_table(title, kind.subject, ("all pairs, pooled", result.pooled))
        table.add_row("mean EER % of the sets, all pairs", percent(result.mean_eer_all_pairs))
        found.append(table)
    return found


def samples_json(result: SamplesReport, kind: Kind, replicates: int, seed: int) -> str:
    """Write the report as JSON text, rates as shares of 1, null where there is no figure."""
    bootstrap = {"by": kind.subject, "confidence": 0.95, "replicates": replicates, "seed": seed}
    return json.dumps(plain({**asdict(result), "bootstrap": bootstrap}), indent=1) + "\n"


def calibration_of_faces(compared: Sequence[ComparedSamples], before: str = "") -> str:
    """The text of a file that says what scores of the sets' embedder are worth, fitted to all their pairs.

    `before`: the text of an older such file, whose other embedders are kept. Raises `EvaluationError`.
    """
    templates = [made.template for one in compared for made in one.extracted if made.template is not None]
    if not templates:
        raise EvaluationError("no portrait gave a template: there is nothing to calibrate on")
    embedder = FaceTemplate.from_bytes(templates[0]).embedder.hex()
    sets = []
    for one in compared:
        quality = np.array([made.quality for made in one.extracted], np.int64)
        first, second = all_pairs(len(quality))
        poorer = np.minimum(quality[first], quality[second])
        sets.append(Measured(one.pairs, poorer, poorer))
    try:
        found = fitted(sets, FACE_SCORES, bins=(POOR_QUALITY,))
    except ValueError as error:
        raise EvaluationError(f"the portraits cannot be calibrated on: {error}") from error
    return content_with(FACE_SCORES, {(embedder, embedder): found}, [one.name for one in compared], before)


# --- 3. the commands


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options that both commands have."""

    workers: int
    det: Path | None
    scores: Path | None
    json_out: str | None
    page: Path | None
    cache: Path | None
    replicates: int
    seed: int
    calibrate: Path | None = None


def evaluate_iris(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR",
            help="Folders of near-infrared eyes, each a set: files <eye>_<rest>.*, or a folder for each eye.",
        ),
    ],
    workers: Workers = CORES,
    det: Det = None,
    scores: Scores = None,
    json_out: Json = None,
    page: Page = None,
    cache_folder: Cache = None,
    replicates: Replicates = REPLICATES,
    seed: Seed = SEED,
) -> None:
    """Measure EER, FNMR at FMR 1e-2, 1e-3 and 1e-4 with intervals, on folders of real eyes."""
    wanted = _Wanted(workers, det, scores, json_out, page, cache_folder, replicates, seed)
    _evaluate(folders, EYES, wanted)


def evaluate_face(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR", help="Folders of portraits, each a set: within it, a folder for each person."
        ),
    ],
    workers: Workers = CORES,
    det: Det = None,
    scores: Scores = None,
    json_out: Json = None,
    page: Page = None,
    cache_folder: Cache = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Write what scores are worth, for a face network of your own, to this file: "
            "the setting face_embedder_calibration names it."
        ),
    ] = None,
    replicates: Replicates = REPLICATES,
    seed: Seed = SEED,
) -> None:
    """Measure EER, FNMR at FMR 1e-2, 1e-3 and 1e-4 with intervals, on folders of real portraits.

    The network is dlib's, or the one that the settings face_embedder_* name.
    """
    wanted = _Wanted(workers, det, scores, json_out, page, cache_folder, replicates, seed, calibrate)
    _evaluate(folders, PORTRAITS, wanted)


def _maker(kind: Kind, embedder: OnnxEmbedderSettings | None) -> str:
    """What makes the templates, for a heading."""
    if kind is EYES:
        return "coder log-Gabor 1"
    return "dlib's network" if embedder is None else f"network {embedder.path.name}"


def _evaluate(folders: Sequence[Path], kind: Kind, wanted: _Wanted) -> None:
    """What both commands do."""
    # Here, because the page is made of this module's figures.
    from rekam.offline.page import Circumstances, require_html, versions
    from rekam.offline.samples_page import OwnNetwork, samples_page

    console = Console(stderr=True)
    started = time.monotonic()
    with told_faults():
        if wanted.page is not None:
            require_html(wanted.page)
        json_file = None if wanted.json_out in (None, "-") else Path(wanted.json_out or "")
        for target in (wanted.scores, wanted.det, json_file, wanted.page, wanted.calibrate):
            if target is not None:
                require_writable(target)
        settings = load_settings()
        embedder = settings.face_embedder if kind is PORTRAITS else None
        sets = sample_sets(folders, kind)
        for one in sets:
            say_ignored(one.name, one.ignored, console)
        compared = [
            compare_samples(
                one,
                workers=wanted.workers,
                cache_folder=wanted.cache,
                console=console,
                embedder=embedder,
            )
            for one in sets
        ]
        console.print(f"resampling {kind.subjects}", highlight=False)
        result = samples_report(compared, replicates=wanted.replicates, seed=wanted.seed)
        if wanted.scores is not None:
            write_scores(wanted.scores, compared)
        if wanted.det is not None:
            write_curves(wanted.det, [Curve(one.name, one.pairs, f"C{i}") for i, one in enumerate(compared)])
        if json_file is not None:
            text = samples_json(result, kind, wanted.replicates, wanted.seed)
            written(json_file, text.encode())
        if wanted.calibrate is not None:
            before = wanted.calibrate.read_text(encoding="utf-8") if wanted.calibrate.exists() else ""
            written(wanted.calibrate, calibration_of_faces(compared, before).encode())
        if wanted.page is not None:
            own = OwnNetwork(embedder, wanted.calibrate or settings.face_embedder_calibration)
            made = Circumstances(
                date=f"{datetime.now().astimezone():%d %B %Y}",
                command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                versions=versions(*["dlib-bin"][: int(kind is PORTRAITS)]),
                extractor=_maker(kind, embedder),
                replicates=wanted.replicates,
                seed=wanted.seed,
            )
            written(wanted.page, samples_page(compared, result, made, console, own).encode())
            console.print(f"report: {wanted.page}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"done in {time.monotonic() - started:.0f} s", highlight=False)
    if wanted.json_out == "-":
        sys.stdout.write(samples_json(result, kind, wanted.replicates, wanted.seed))
        return
    for table in samples_tables(result, kind):
        Console(width=max(100, Console().width)).print(table)
