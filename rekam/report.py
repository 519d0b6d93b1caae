"""The page that `rekam evaluate fingerprint --report FILE.html` writes: one file that stands alone.

Everything is in it, pictures of prints too: it holds people's biometric data and is to be kept accordingly.
It needs neither network nor script, and prints on paper.
"""

import base64
import io
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from capture.fingerprint.template import ExtractorChoice
from capture.quality import Feedback
from matching.error_rates import Interval, Pairs
from rekam.costs import OURS, PAIRS, PRINTS, Cost, costs
from rekam.evaluate import (
    REPORTED_FMR,
    Curve,
    FnmrAtFmr,
    Rates,
    Report,
    draw_curves,
    drawn_fingers,
    pooled_pairs,
    rates,
)
from rekam.explain import (
    CONTRIBUTION_COLOURS,
    OVERLAP_COLOUR,
    ROLE_COLOURS,
    STRONG_PAIR,
    about_score,
    picture_of_pair,
)
from rekam.extremes import Extreme, causes, extremes, seen
from rekam.overlap import Role
from rekam.peers import MAX_IMPOSTORS, MINDTCT_BOZORTH3, MINDTCT_OURS, peer_pairs, peer_results
from rekam.prints import Compared
from rekam.samples import EvaluationError, with_progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_PAIRS = 10
SHOWN_FAILURES = 30
_GENUINE, _IMPOSTOR = "#0f7d6b", "#d8642a"
_INK, _QUIET = "#1d2733", "#6b7785"
_PIPELINE_COLOURS = {OURS: "#1f5fbf", MINDTCT_OURS: "#0f9d76", MINDTCT_BOZORTH3: "#d8642a"}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the page says of its making. Given, not looked up, so that the same page can be made again."""

    date: str
    command: str
    versions: tuple[tuple[str, str], ...]
    extractor: ExtractorChoice
    replicates: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """A way from prints to scores, on the pairs that all pipelines compared: rates of each set, and pooled.

    `failures`: prints that gave it nothing to compare; `pairs`: of all sets, pooled.
    """

    name: str
    sets: tuple[Rates, ...]
    pooled: Rates
    failures: int
    pairs: Pairs


def require_html(path: Path) -> None:
    """Raise `EvaluationError` for a report that is no HTML file."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"--report writes HTML, not {path.name}: name it .html; a browser prints it as PDF"
        )


def versions(*, peers: bool) -> tuple[tuple[str, str], ...]:
    """Name and version of what the figures depend on."""
    packages = [
        "rekam",
        "numpy",
        "numba",
        "opencv-python-headless",
        "onnxruntime",
        *["nbis-py"][: int(peers)],
    ]
    return (
        *((package, version(package)) for package in packages),
        ("Python", platform.python_version()),
        ("machine", f"{platform.system()} {platform.machine()}"),
    )


def peer_pipelines(
    compared: Sequence[Compared], made: Circumstances, *, workers: int, console: Console
) -> list[Pipeline]:
    """Our pipeline and the peers', all on the same pairs. Raises `EvaluationError`."""
    names = (OURS, MINDTCT_BOZORTH3, MINDTCT_OURS)
    scored: dict[str, list[Pairs]] = {name: [] for name in names}
    failures = dict.fromkeys(names, 0)
    for result in compared:
        chosen = peer_pairs(result, made.seed)
        scored[OURS].append(result.pairs[chosen])
        failures[OURS] += sum(one.template is None for one in result.extracted)
        for peer in peer_results(result, chosen, workers=workers, console=console):
            scored[peer.pipeline].append(peer.pairs)
            failures[peer.pipeline] += peer.failures
    drawn = [drawn_fingers(result, replicates=made.replicates, seed=made.seed) for result in compared]
    pipelines = []
    for name, sets in scored.items():
        pairs = pooled_pairs(sets)
        each = tuple(rates(one, replicates)[0] for one, replicates in zip(sets, drawn, strict=True))
        pooled = rates(pairs, np.hstack(drawn))[0] if len(sets) > 1 else each[0]
        pipelines.append(Pipeline(name, each, pooled, failures[name], pairs))
    return pipelines


# --- 1. the page


def evaluation_page(
    compared: Sequence[Compared],
    result: Report,
    pipelines: Sequence[Pipeline],
    made: Circumstances,
    console: Console,
) -> str:
    """Write the report as HTML text; `pipelines` is empty where no peer was asked for.

    Raises `EvaluationError`, `MatchingError`. Cost: about 1 s a picture, 10 s for the costs.
    """
    spent = costs(compared, made.extractor, peers=bool(pipelines))
    worst, best = (list(extremes(compared, genuine=kind, count=SHOWN_PAIRS)) for kind in (True, False))
    drawn = with_progress(
        (_card(one, number, result.pooled) for kind in (worst, best) for number, one in enumerate(kind, 1)),
        len(worst) + len(best),
        "drawing pairs",
        console,
    )
    cards = list(drawn)
    parts = [
        _header(compared, made),
        _headline(compared, result),
        _section("Error rates", _rates_table(compared, result), _note_on_rates()),
        _section("Detection error trade-off", _det(compared)),
        _section("Side by side", *_side_by_side(compared, pipelines, spent)) if pipelines else "",
        "" if pipelines else _section("Cost", _costs_table(spent), _note_on_costs()),
        _section("Scores", _histograms(compared, result.pooled)),
        _section("Quality", *_quality(compared)),
        _section(
            f"The {len(worst)} genuine pairs that score lowest" if worst else "Genuine pairs",
            _legend() if worst else "<p>No genuine pair could be compared.</p>",
            *cards[: len(worst)],
        ),
        _section(
            f"The {len(best)} impostor pairs that score highest" if best else "Impostor pairs",
            "" if best else "<p>No impostor pair could be compared.</p>",
            *cards[len(worst) :],
        ),
        _section("Failures to extract", _failures(compared)),
        _section("How this was measured", _method(compared, made, peers=bool(pipelines))),
    ]
    body = "\n".join(parts)
    title = escape(", ".join(one.prints.name for one in compared))
    style = (files("rekam") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Fingerprint evaluation: {title}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(compared: Sequence[Compared], made: Circumstances) -> str:
    names = escape(", ".join(one.prints.name for one in compared))
    about = f"{names} · extractor {made.extractor} · Rekam {dict(made.versions)['rekam']} · {made.date}"
    return (
        f"<header><h1>Fingerprint evaluation</h1><p>{about}</p>"
        '<p class="private">This page holds pictures of fingerprints: keep it as you keep those.</p></header>'
    )


def _headline(compared: Sequence[Compared], result: Report) -> str:
    """Four figures, and what they mean."""
    pooled = result.pooled
    prints = sum(len(one.extracted) for one in compared)
    failed = sum(made.template is None for one in compared for made in one.extracted)
    supported = [at for at in pooled.fnmr_at_fmr if at.fnmr is not None]
    tiles = [
        (
            "equal error rate",
            f"{_percent(pooled.equal_error_rate.value)} %",
            _bounds(pooled.equal_error_rate),
        ),
        *(
            (f"FNMR at FMR {at.fmr:g}", f"{_percent(at.fnmr.value)} %", _bounds(at.fnmr))
            for at in supported[-2:]
            if at.fnmr is not None
        ),
        ("failures to extract", f"{_percent(failed / prints)} %", f"{failed:,} of {prints:,} prints"),
    ]
    cells = "".join(
        f"<div><small>{name}</small><b>{value}</b><small>{note}</small></div>" for name, value, note in tiles
    )
    fingers = sum(one.fingers for one in result.sets)
    sentence = (
        f"{prints:,} prints of {fingers:,} fingers; {pooled.genuine_pairs:,} genuine and "
        f"{pooled.impostor_pairs:,} impostor pairs"
        + (f", pooled over {len(compared)} sets." if len(compared) > 1 else ".")
    )
    if supported and (last := supported[-1]).fnmr is not None:
        lost = round(last.fnmr.value * pooled.genuine_pairs)
        sentence += (
            f" With a threshold that lets at most one in {1 / last.fmr:,.0f} pairs of two fingers pass, "
            f"{lost:,} of the {pooled.genuine_pairs:,} pairs of one finger are missed."
        )
    else:
        sentence += " There are too few impostor pairs for a rate at any threshold named below."
    return f'<div class="tiles">{cells}</div><p>{sentence}</p>'


# --- 2. its figures


def _rates_table(compared: Sequence[Compared], result: Report) -> str:
    rows = []
    for one, figures in zip(compared, result.sets, strict=True):
        size = f"{figures.fingers:,} fingers, {figures.impressions:,} prints"
        quality = [made.quality for made in one.extracted]
        fvc = f"{_percent(figures.fvc_protocol.equal_error_rate.value)}"
        failures = f"{len(figures.failures):,}"
        rows.append(_rates_row(figures.name, size, figures.all_pairs, failures, quality, fvc))
    if len(compared) > 1:
        quality = [made.quality for one in compared for made in one.extracted]
        size = f"{sum(one.fingers for one in result.sets):,} fingers, {len(quality):,} prints"
        fvc = f"{_percent(result.mean_eer_fvc_protocol.value)} <small>mean</small>"
        failures = f"{sum(len(one.failures) for one in result.sets):,}"
        rows.append(_rates_row("all, pooled", size, result.pooled, failures, quality, fvc))
    head = ["set", "genuine<br>impostor", "EER %", *(f"FNMR %<br>at FMR {fmr:g}" for fmr in REPORTED_FMR)]
    return _table([*head, "no<br>template", "quality", "EER %<br>FVC protocol"], rows)


def _rates_row(
    name: str, size: str, figures: Rates, failures: str, quality: Sequence[int], fvc: str
) -> list[str]:
    low, middle, high = np.percentile(quality, [10, 50, 90])
    return [
        f"<b>{escape(name)}</b><small>{size}</small>",
        f"{figures.genuine_pairs:,}<small>{figures.impostor_pairs:,}</small>",
        _figure(figures.equal_error_rate),
        *(_at_fmr(at) for at in figures.fnmr_at_fmr),
        failures,
        f"{middle:.0f}<small>{low:.0f} to {high:.0f}</small>",
        fvc,
    ]


def _at_fmr(at: FnmrAtFmr) -> str:
    if at.fnmr is None:
        return f'<span class="quiet">not supported</span><small>needs {at.impostor_pairs_needed:,}</small>'
    return _figure(at.fnmr)


def _note_on_rates() -> str:
    return (
        "<p>Under each rate its 95 % interval, by resampling fingers. An interval from 0 to 0 says that no "
        "resampling of these fingers shows an error, not that there is none. FNMR at an FMR is given where "
        "there are at least 1 / FMR impostor pairs. A print without template matches nothing. Quality is the "
        "median, with the range of the middle 80 %.</p>"
    )


def _side_by_side(
    compared: Sequence[Compared], pipelines: Sequence[Pipeline], spent: dict[str, Cost]
) -> list[str]:
    """Tables and curves of all pipelines on the same pairs."""
    head = ["pipeline", "EER %", *(f"FNMR %<br>at FMR {fmr:g}" for fmr in REPORTED_FMR), "no template"]
    rows = [
        [
            f"<b>{one.name}</b>",
            _figure(one.pooled.equal_error_rate),
            *(_at_fmr(at) for at in one.pooled.fnmr_at_fmr),
            f"{one.failures:,}",
        ]
        for one in pipelines
    ]
    parts = [_table(head, rows)]
    if len(compared) > 1:
        names = [escape(one.prints.name) for one in compared]
        by_set = [
            [f"<b>{one.name}</b>", *(_percent(figures.equal_error_rate.value) for figures in one.sets)]
            for one in pipelines
        ]
        parts.append(_table(["EER % by set", *names], by_set))
    figure = _new_figure(7.2, 6.6)
    curves = [
        Curve(one.name, one.pairs, _PIPELINE_COLOURS[one.name], width=2.4 if one.name == OURS else 1.6)
        for one in pipelines
    ]
    draw_curves(figure.add_subplot(), curves)
    parts.append(_plot(figure, "DET curves of all pipelines, all pairs pooled", "medium"))
    sampled = [one for one in compared if (~one.pairs.genuine).sum() > MAX_IMPOSTORS]
    if sampled:
        parts.append(
            f"<p>Of sets with more than {MAX_IMPOSTORS:,} impostor pairs, all pipelines are shown on a "
            f"seeded sample of as many: {escape(', '.join(one.prints.name for one in sampled))}.</p>"
        )
    parts += [_costs_table(spent), _note_on_costs()]
    return parts


def _costs_table(spent: dict[str, Cost]) -> str:
    if not spent:
        return "<p>No print gave a template: there is nothing to time.</p>"
    rows = [
        [f"<b>{name}</b>", _milli(cost.extraction), _micro(cost.impostor), _micro(cost.genuine)]
        for name, cost in spent.items()
    ]
    if MINDTCT_BOZORTH3 in spent:
        ours, theirs = spent[OURS], spent[MINDTCT_BOZORTH3]
        rows.append(
            [
                "<b>ratio</b>",
                f"{ours.extraction / theirs.extraction:.1f} times as long",
                *(
                    f"{b / a:.0f} times as fast" if b >= a else f"{a / b:.1f} times as long"
                    for a, b in ((ours.impostor, theirs.impostor), (ours.genuine, theirs.genuine))
                ),
            ]
        )
    head = ["CPU time, one thread", "extraction of a print", "impostor comparison", "genuine comparison"]
    return _table(head, rows)


def _note_on_costs() -> str:
    return (
        f"<p>Measured while this page was made, one after another in one process, on {PRINTS} prints of the "
        f"sets and up to {PAIRS} pairs of either kind of the first: read the ratios, not the absolutes.</p>"
    )


def _det(compared: Sequence[Compared]) -> str:
    figure = _new_figure(7.2, 6.6)
    curves = [Curve(one.prints.name, one.pairs, f"C{i % 10}", width=1.5) for i, one in enumerate(compared)]
    if len(compared) > 1:
        curves.append(Curve("all, pooled", pooled_pairs([one.pairs for one in compared]), _INK, width=2.6))
    draw_curves(figure.add_subplot(), curves)
    return _plot(figure, "DET curves of every set, all pairs", "medium") + (
        "<p>A curve ends at the left where one impostor pair is all that its sample has; where it shows no "
        "error, it runs along the frame.</p>"
    )


def _histograms(compared: Sequence[Compared], pooled: Rates) -> str:
    """Genuine and impostor scores of every set, on one scale; shares are logarithmic to show the tails.

    The dashed line is the threshold of the smallest FMR that the pooled sample supports.
    """
    from matplotlib.ticker import FuncFormatter

    thresholds = [(at.threshold, at.fmr) for at in pooled.fnmr_at_fmr if at.threshold is not None]
    pooled_over = "pooled " if len(compared) > 1 else ""
    columns = min(2, len(compared))
    rows = math.ceil(len(compared) / columns)
    figure = _new_figure(5.4 * columns if columns > 1 else 8, 2.6 * rows + 0.3)
    top = max(float(one.pairs.score.max(initial=0.0)) for one in compared)
    bins = np.linspace(0, max(top, 0.01), 61)
    for i, one in enumerate(compared):
        axes = figure.add_subplot(rows, columns, i + 1)
        smallest = 1.0
        for kind, colour, label in ((False, _IMPOSTOR, "impostor"), (True, _GENUINE, "genuine")):
            every = one.pairs.score[one.pairs.genuine == kind]
            counts, _ = np.histogram(every[np.isfinite(every)], bins)
            share = counts / max(1, len(every))
            smallest = min(smallest, 1 / max(1, len(every)))
            axes.stairs(share, bins, fill=True, color=colour, alpha=0.35)
            axes.stairs(share, bins, color=colour, linewidth=1.3, label=f"{label}, {len(every):,}")
        if thresholds:
            threshold, fmr = thresholds[-1]
            axes.axvline(
                threshold, color=_INK, linewidth=1, linestyle="--", label=f"{pooled_over}FMR {fmr:g}"
            )
        axes.set(yscale="log", ylim=(smallest / 2, 1), xlim=(0, bins[-1]))
        axes.set_title(one.prints.name, fontsize=10, loc="left", color=_INK)
        axes.grid(color="0.93", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.legend(fontsize=8, loc="upper right")
        if i % columns == 0:
            axes.set_ylabel("share of pairs", fontsize=9)
        if i >= len(compared) - columns:
            axes.set_xlabel("comparison score", fontsize=9)
        axes.tick_params(labelsize=8)
    return _plot(figure, "Histograms of genuine and impostor scores", "wide")


def _quality(compared: Sequence[Compared]) -> list[str]:
    """How good the prints are, and what captures could do better."""
    figure = _new_figure(8, 2.6)
    axes = figure.add_subplot()
    for i, one in enumerate(compared):
        quality = np.sort([made.quality for made in one.extracted])
        share = np.arange(1, len(quality) + 1) / len(quality)
        axes.step(quality, 100 * share, where="post", color=f"C{i % 10}", label=one.prints.name)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="quality", ylabel="% of prints at or below")
    axes.grid(color="0.93", linewidth=0.6)
    axes.legend(fontsize=8, loc="upper left")
    parts = [_plot(figure, "Cumulative quality of every set", "medium")]
    counts: dict[str, list[int]] = {}
    for i, one in enumerate(compared):
        for made in one.extracted:
            for word in made.feedback:
                counts.setdefault(word, [0] * len(compared))[i] += 1
    if not counts:
        return [*parts, "<p>No capture gave reason for advice.</p>"]
    rows = [
        [escape(Feedback(word).advice), *(f"{n:,}" if n else "" for n in counts[word])]
        for word in sorted(counts, key=lambda word: (-sum(counts[word]), word))
    ]
    head = ["prints whose capture draws this advice", *(escape(one.prints.name) for one in compared)]
    return [*parts, _table(head, rows)]


# --- 3. its pictures


def _legend() -> str:
    gradient = f"background: linear-gradient(90deg, {', '.join(CONTRIBUTION_COLOURS)})"
    roles = (
        (ROLE_COLOURS[Role.PARTNER], "has a partner"),
        (ROLE_COLOURS[Role.ALONE], "has none"),
        (ROLE_COLOURS[Role.ASIDE], "outside, or unsure"),
        (OVERLAP_COLOUR, "common region"),
    )
    marks = "".join(f'<span><i style="background: {colour}"></i>{text}</span>' for colour, text in roles)
    return (
        '<p class="legend"><span>a pair\'s share of the score: 0 '
        f'<i class="scale" style="{gradient}"></i> {STRONG_PAIR:g} or more</span>{marks}'
        "<span>○ ending</span><span>□ bifurcation</span>"
        "<span>dashed: a pair that lies apart</span></p>"
        "<p>Joined pairs carry the support. They lay one print upon the other; minutiae that then lie "
        "together are partners, within the region that the minutiae of both cover. What probably decided a "
        "pair is told by rules of thumb; the picture has the last word.</p>"
    )


def _card(one: Extreme, number: int, pooled: Rates) -> str:
    """A pair: picture, score, and what probably decided it."""
    explanation = one.explanation
    a, b = explanation.prints
    common = explanation.overlap
    picture = picture_of_pair(
        a.image, b.image, a.template, b.template, explanation.comparison, common=common, compact=True
    )
    facts = [
        "; ".join([f"{label}: quality {side.quality}", minutiae, *(word.advice for word in side.feedback)])
        for label, side in (("A", a), ("B", b))
        for minutiae in [f"{0 if side.template is None else len(side.template)} minutiae"]
    ]
    facts += [_sentence(line) for line in about_score(explanation)]
    facts.append(_sentence(explanation.worth))
    probable = escape(" ".join(causes(explanation, genuine=one.genuine)))
    first, second = (escape(name) for name in one.names)
    return (
        f"<article><h3><span>{number}</span> A {first} and B {second} "
        f"<small>{escape(one.set_name)}</small></h3>"
        f'<p class="score">score <b>{one.score:.4f}</b> · {_verdict(one, pooled)}</p>'
        f'<p class="cause"><b>Probably:</b> {probable}</p>'
        f"{_image(_jpeg(picture), f'{one.names[0]} and {one.names[1]} of {one.set_name}')}"
        f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul></article>"
    )


def _verdict(one: Extreme, pooled: Rates) -> str:
    """Where the pair goes wrong: at the thresholds of the FMRs that the sample supports."""
    supported = [at for at in pooled.fnmr_at_fmr if at.threshold is not None]
    if not supported:
        return "the sample supports no threshold to judge it by"
    wrong = [
        f"{at.fmr:g}"
        for at in supported
        if at.threshold is not None and (one.score < at.threshold) == one.genuine
    ]
    what = "missed" if one.genuine else "a false match"
    if wrong:
        return f"{what} at FMR {', '.join(wrong)}"
    return "matches at every FMR named" if one.genuine else "no match at any FMR named"


def _failures(compared: Sequence[Compared]) -> str:
    rows = []
    failed = [(one, i) for one in compared for i, made in enumerate(one.extracted) if made.template is None]
    for one, i in failed[:SHOWN_FAILURES]:
        image = seen(one, i).image
        shown = '<span class="quiet">no image</span>'
        if image is not None:
            height, width = image.shape
            scale = min(1.0, 180 / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
            shown = _image(_jpeg(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB).astype(np.uint8)), "thumbnail")
        name = escape(one.prints.impressions[i].path.name)
        rows.append(
            [shown, f"{name}<small>{escape(one.prints.name)}</small>", escape(one.extracted[i].reason)]
        )
    if not rows:
        return "<p>Every print gave a template.</p>"
    more = len(failed) - len(rows)
    rest = f"<p>and {more:,} more, which the table of scores and the JSON report name.</p>" if more else ""
    return _table(["print", "file", "why"], rows) + rest


def _method(compared: Sequence[Compared], made: Circumstances, *, peers: bool) -> str:
    ignored = sum(len(one.prints.ignored) for one in compared)
    resolutions = ", ".join(
        f"{escape(one.prints.name)} "
        + ("as its files say" if one.prints.ppi is None else f"{one.prints.ppi:g} ppi")
        for one in compared
    )
    notes = [
        "Every two impressions of a set are compared once, prints of different sets never. Genuine pairs are "
        "of one finger; impostor pairs are every impression of one finger with every one of another. The FVC "
        "protocol takes the first impressions of fingers as impostors instead.",
        "Two prints match at a threshold t when their score is t or more. FMR is the share of impostor pairs "
        "that match, FNMR the share of genuine pairs that do not, EER where both are equal. FNMR at an FMR "
        "is taken at the smallest threshold whose FMR is not above it.",
        f"Intervals: percentile bootstrap by finger, {made.replicates:,} replicates, seed {made.seed}.",
        f"Resolution: {resolutions}. Prints are resampled to 500 ppi; templates go through their stored "
        "bytes.",
        "Likelihood ratios, and the false match rates beside them, are those of the shipped calibration, not "
        "of these sets.",
    ]
    if peers:
        notes.append(
            "NBIS: mindtct reads the same images at 500 ppi; all its minutiae are used; Bozorth3 as the "
            f"package nbis-py calls it. “{MINDTCT_OURS}” compares mindtct's minutiae as we compare ours."
        )
    if ignored:
        notes.append(f"{ignored:,} files in the folders are not named like prints and were left out.")
    items = "".join(f"<li>{note}</li>" for note in notes)
    used = ", ".join(f"{escape(name)} {escape(number)}" for name, number in made.versions)
    return f"<ul>{items}</ul><p>{used}</p><pre>{escape(made.command)}</pre>"


# --- 4. pieces of HTML


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>\n" + "\n".join(parts) + "\n</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells."""
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table></div>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _bounds(figure: Interval) -> str:
    if math.isnan(figure.low):
        return "no interval"
    return f"{_percent(figure.low)} to {_percent(figure.high)}"


def _figure(figure: Interval) -> str:
    return f"{_percent(figure.value)}<small>{_bounds(figure)}</small>"


def _milli(milliseconds: float) -> str:
    return "–" if math.isnan(milliseconds) else f"{milliseconds:.0f} ms"


def _micro(milliseconds: float) -> str:
    return "–" if math.isnan(milliseconds) else f"{1000 * milliseconds:,.0f} µs"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=170, layout="constrained", facecolor="white")


def _plot(figure: "Figure", words: str, size: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _image(("png", file.getvalue()), words, size)


def _jpeg(picture: NDArray[np.uint8]) -> tuple[str, bytes]:
    """A picture `(H, W, 3) uint8` RGB as JPEG."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "jpeg", data.tobytes()


def _image(data: tuple[str, bytes], words: str, size: str = "") -> str:
    kind, content = data
    encoded = base64.b64encode(content).decode()
    return f'<img class="{size}" alt="{escape(words)}" src="data:image/{kind};base64,{encoded}">'
