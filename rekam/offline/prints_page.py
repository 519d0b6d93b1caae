"""The page that `rekam evaluate fingerprint --report FILE.html` writes: one file that stands alone.

Everything is in it, pictures of prints too: it holds people's biometric data and is to be kept accordingly.
It needs neither network nor script, and prints on paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from rich.console import Console

from capture.fingerprint.template import ExtractorChoice
from matching.error_rates import Pairs
from rekam.offline import page
from rekam.offline.costs import OURS, PAIRS, Cost, costs
from rekam.offline.costs import PRINTS as TIMED_PRINTS
from rekam.offline.evaluate_prints import (
    REPORTED_FMR,
    Curve,
    Rates,
    Report,
    draw_curves,
    drawn_fingers,
    pooled_pairs,
    rates,
)
from rekam.offline.explain_prints import (
    CONTRIBUTION_COLOURS,
    OVERLAP_COLOUR,
    ROLE_COLOURS,
    STRONG_PAIR,
    about_score,
    picture_of_pair,
)
from rekam.offline.extremes import Extreme, causes, extremes, seen
from rekam.offline.overlap import Role
from rekam.offline.peers import MAX_IMPOSTORS, MINDTCT_BOZORTH3, MINDTCT_OURS, peer_pairs, peer_results
from rekam.offline.prints import Compared
from rekam.offline.samples import PRINTS, with_progress

SHOWN_PAIRS = 10
_PIPELINE_COLOURS = {OURS: "#1f5fbf", MINDTCT_OURS: "#0f9d76", MINDTCT_BOZORTH3: "#d8642a"}


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


def peer_pipelines(
    compared: Sequence[Compared], made: page.Circumstances, *, workers: int, console: Console
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
    made: page.Circumstances,
    console: Console,
) -> str:
    """Write the report as HTML text; `pipelines` is empty where no peer was asked for.

    Raises `EvaluationError`, `MatchingError`. Cost: about 1 s a picture, 10 s for the costs.
    """
    spent = costs(compared, ExtractorChoice(made.extractor), peers=bool(pipelines))
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
        page.headline(PRINTS, compared, result.pooled, sum(one.fingers for one in result.sets)),
        page.section("Error rates", _rates_table(compared, result), _note_on_rates()),
        page.section("Detection error trade-off", page.det(compared)),
        page.section("Side by side", *_side_by_side(compared, pipelines, spent)) if pipelines else "",
        "" if pipelines else page.section("Cost", _costs_table(spent), _note_on_costs()),
        page.section("Scores", page.histograms(compared, result.pooled)),
        page.section("Quality", *page.quality(PRINTS, compared)),
        page.section(
            f"The {len(worst)} genuine pairs that score lowest" if worst else "Genuine pairs",
            _legend() if worst else "<p>No genuine pair could be compared.</p>",
            *cards[: len(worst)],
        ),
        page.section(
            f"The {len(best)} impostor pairs that score highest" if best else "Impostor pairs",
            "" if best else "<p>No impostor pair could be compared.</p>",
            *cards[len(worst) :],
        ),
        page.section(
            "Failures to extract", page.failures(PRINTS, compared, lambda i, j: seen(compared[i], j).image)
        ),
        page.section("How this was measured", _method(compared, made, peers=bool(pipelines))),
    ]
    title = f"Fingerprint evaluation: {', '.join(one.name for one in compared)}"
    return page.document(title, "\n".join(parts))


def _header(compared: Sequence[Compared], made: page.Circumstances) -> str:
    names = escape(", ".join(one.name for one in compared))
    about = f"{names} · extractor {made.extractor} · Rekam {dict(made.versions)['rekam']} · {made.date}"
    return (
        f"<header><h1>Fingerprint evaluation</h1><p>{about}</p>"
        '<p class="private">This page holds pictures of fingerprints: keep it as you keep those.</p></header>'
    )


# --- 2. its figures


def _rates_table(compared: Sequence[Compared], result: Report) -> str:
    rows = []
    for one, figures in zip(compared, result.sets, strict=True):
        size = f"{figures.fingers:,} fingers, {figures.impressions:,} prints"
        quality = [made.quality for made in one.extracted]
        fvc = f"{page.in_percent(figures.fvc_protocol.equal_error_rate.value)}"
        failures = f"{len(figures.failures):,}"
        rows.append(_rates_row(figures.name, size, figures.all_pairs, failures, quality, fvc))
    if len(compared) > 1:
        quality = [made.quality for one in compared for made in one.extracted]
        size = f"{sum(one.fingers for one in result.sets):,} fingers, {len(quality):,} prints"
        fvc = f"{page.in_percent(result.mean_eer_fvc_protocol.value)} <small>mean</small>"
        failures = f"{sum(len(one.failures) for one in result.sets):,}"
        rows.append(_rates_row("all, pooled", size, result.pooled, failures, quality, fvc))
    head = ["set", "genuine<br>impostor", "EER %", *(f"FNMR %<br>at FMR {fmr:g}" for fmr in REPORTED_FMR)]
    return page.table([*head, "no<br>template", "quality", "EER %<br>FVC protocol"], rows)


def _rates_row(
    name: str, size: str, figures: Rates, failures: str, quality: Sequence[int], fvc: str
) -> list[str]:
    low, middle, high = np.percentile(quality, [10, 50, 90])
    return [
        f"<b>{escape(name)}</b><small>{size}</small>",
        f"{figures.genuine_pairs:,}<small>{figures.impostor_pairs:,}</small>",
        page.figure(figures.equal_error_rate),
        *(page.at_fmr(at) for at in figures.fnmr_at_fmr),
        failures,
        f"{middle:.0f}<small>{low:.0f} to {high:.0f}</small>",
        fvc,
    ]


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
            page.figure(one.pooled.equal_error_rate),
            *(page.at_fmr(at) for at in one.pooled.fnmr_at_fmr),
            f"{one.failures:,}",
        ]
        for one in pipelines
    ]
    parts = [page.table(head, rows)]
    if len(compared) > 1:
        names = [escape(one.name) for one in compared]
        by_set = [
            [f"<b>{one.name}</b>", *(page.in_percent(figures.equal_error_rate.value) for figures in one.sets)]
            for one in pipelines
        ]
        parts.append(page.table(["EER % by set", *names], by_set))
    figure = page.new_figure(7.2, 6.6)
    curves = [
        Curve(one.name, one.pairs, _PIPELINE_COLOURS[one.name], width=2.4 if one.name == OURS else 1.6)
        for one in pipelines
    ]
    draw_curves(figure.add_subplot(), curves)
    parts.append(page.plot(figure, "DET curves of all pipelines, all pairs pooled", "medium"))
    sampled = [one for one in compared if (~one.pairs.genuine).sum() > MAX_IMPOSTORS]
    if sampled:
        parts.append(
            f"<p>Of sets with more than {MAX_IMPOSTORS:,} impostor pairs, all pipelines are shown on a "
            f"seeded sample of as many: {escape(', '.join(one.name for one in sampled))}.</p>"
        )
    parts += [_costs_table(spent), _note_on_costs()]
    return parts


def _costs_table(spent: dict[str, Cost]) -> str:
    if not spent:
        return "<p>No print gave a template: there is nothing to time.</p>"
    rows = [
        [f"<b>{name}</b>", page.milli(cost.extraction), page.micro(cost.impostor), page.micro(cost.genuine)]
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
    return page.table(head, rows)


def _note_on_costs() -> str:
    return (
        "<p>Measured while this page was made, one after another in one process, on "
        f"{TIMED_PRINTS} prints of the sets and up to {PAIRS} pairs of either kind of the first: read the "
        "ratios, not the absolutes.</p>"
    )


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
    facts += [page.sentence(line) for line in about_score(explanation)]
    facts.append(page.sentence(explanation.worth))
    probable = escape(" ".join(causes(explanation, genuine=one.genuine)))
    first, second = (escape(name) for name in one.names)
    return (
        f"<article><h3><span>{number}</span> A {first} and B {second} "
        f"<small>{escape(one.set_name)}</small></h3>"
        f'<p class="score">score <b>{one.score:.4f}</b> · {page.verdict(one.score, one.genuine, pooled)}</p>'
        f'<p class="cause"><b>Probably:</b> {probable}</p>'
        f"{page.image_tag(page.jpeg(picture), f'{one.names[0]} and {one.names[1]} of {one.set_name}')}"
        f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul></article>"
    )


def _method(compared: Sequence[Compared], made: page.Circumstances, *, peers: bool) -> str:
    ignored = sum(len(one.prints.ignored) for one in compared)
    resolutions = ", ".join(
        f"{escape(one.name)} " + ("as its files say" if one.prints.ppi is None else f"{one.prints.ppi:g} ppi")
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
