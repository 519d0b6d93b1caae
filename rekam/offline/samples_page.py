"""The page that `rekam evaluate iris` and `rekam evaluate face --report FILE.html` write.

It holds pictures of people's eyes or faces, and is to be kept accordingly.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from capture.decode import decode_face_image, decode_iris_image
from capture.errors import ImageRefused
from capture.face.onnx_embedder import OnnxEmbedderSettings
from capture.face.template import FaceTemplate
from capture.iris.template import IrisTemplate
from capture.quality import Feedback, Quality
from rekam.offline import page
from rekam.offline.evaluate_prints import REPORTED_FMR, Rates
from rekam.offline.evaluate_samples import SampleSetReport, SamplesReport
from rekam.offline.explain_eyes import (
    SeenEye,
    about_eye,
    about_eye_score,
    explain_eyes,
    eye_causes,
    picture_of_eyes,
    seen_eye,
)
from rekam.offline.explain_faces import (
    SeenFace,
    about_face,
    about_face_score,
    explain_faces,
    face_causes,
    picture_of_faces,
    seen_face,
)
from rekam.offline.page import Circumstances
from rekam.offline.samples import (
    EYES,
    ComparedSamples,
    Extracted,
    Kind,
    all_pairs,
    compare_chunk,
    extract_file,
    face_extractor,
    with_progress,
)

SHOWN_PAIRS = 10
_TIMED_IMAGES, _TIMED_PAIRS = 12, 2000


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """A face network of the user's own, and the file that says what its scores are worth."""

    embedder: OnnxEmbedderSettings | None = None
    calibration: Path | None = None


NO_NETWORK = OwnNetwork()


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair to show: the numbers of its set and of its images within it, and its score."""

    of_set: int
    a: int
    b: int
    genuine: bool
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What a card says of a pair."""

    picture: NDArray[np.uint8]
    worth: str
    facts: list[str]
    causes: list[str]


def samples_page(
    compared: Sequence[ComparedSamples],
    result: SamplesReport,
    made: Circumstances,
    console: Console,
    own: OwnNetwork = NO_NETWORK,
) -> str:
    """Write the report as HTML text; `own`: a face network of the user's own.

    Raises `MatchingError`. Cost: about 1 s a picture, 3 s for the costs.
    """
    kind = compared[0].samples.kind
    worst, best = (_extremes(compared, genuine=genuine) for genuine in (True, False))
    drawn = with_progress(
        (
            _card(compared, pair, number, result.pooled, own)
            for pairs in (worst, best)
            for number, pair in enumerate(pairs, 1)
        ),
        len(worst) + len(best),
        "drawing pairs",
        console,
    )
    cards = list(drawn)
    subjects = sum(one.subjects for one in result.sets)
    parts = [
        _header(kind, compared, made),
        page.headline(kind, compared, result.pooled, subjects),
        page.section("Error rates", _rates_table(kind, compared, result), _note_on_rates(kind)),
        page.section("Detection error trade-off", page.det(compared)),
        page.section("Cost", *_costs(kind, compared, own.embedder)),
        page.section("Scores", page.histograms(compared, result.pooled)),
        page.section("Quality", *page.quality(kind, compared)),
        page.section(
            f"The {len(worst)} genuine pairs that score lowest" if worst else "Genuine pairs",
            _legend(kind) if worst else "<p>No genuine pair could be compared.</p>",
            *cards[: len(worst)],
        ),
        page.section(
            f"The {len(best)} impostor pairs that score highest" if best else "Impostor pairs",
            "" if best else "<p>No impostor pair could be compared.</p>",
            *cards[len(worst) :],
        ),
        page.section(
            "Failures to extract", page.failures(kind, compared, lambda i, j: _image(compared[i], j))
        ),
        page.section("How this was measured", _method(kind, compared, made)),
    ]
    names = ", ".join(one.name for one in compared)
    return page.document(f"{_title(kind)}: {names}", "\n".join(parts))


def _title(kind: Kind) -> str:
    return "Iris evaluation" if kind is EYES else "Face evaluation"


def _header(kind: Kind, compared: Sequence[ComparedSamples], made: Circumstances) -> str:
    names = escape(", ".join(one.name for one in compared))
    about = f"{names} · {escape(made.extractor)} · Rekam {dict(made.versions)['rekam']} · {made.date}"
    shown = "eyes" if kind is EYES else "faces"
    return (
        f"<header><h1>{_title(kind)}</h1><p>{about}</p>"
        f'<p class="private">This page holds pictures of {shown}: keep it as you keep those.</p></header>'
    )


# --- 1. figures


def _rates_table(kind: Kind, compared: Sequence[ComparedSamples], result: SamplesReport) -> str:
    rows = []
    for one, figures in zip(compared, result.sets, strict=True):
        rows.append(_rates_row(kind, figures, figures.all_pairs, one.extracted))
    if len(compared) > 1:
        every = [made for one in compared for made in one.extracted]
        together = SampleSetReport(
            name="all, pooled",
            subjects=sum(one.subjects for one in result.sets),
            images=len(every),
            failures=tuple(failure for one in result.sets for failure in one.failures),
            not_usable=sum(one.not_usable for one in result.sets),
            ignored=(),
            mean_quality=0.0,
            feedback={},
            all_pairs=result.pooled,
        )
        rows.append(_rates_row(kind, together, result.pooled, every))
    head = ["set", "genuine<br>impostor", "EER %", *(f"FNMR %<br>at FMR {fmr:g}" for fmr in REPORTED_FMR)]
    return page.table([*head, "no<br>template", "not<br>usable", "quality"], rows)


def _rates_row(
    kind: Kind, figures: SampleSetReport, rates: Rates, extracted: Sequence[Extracted]
) -> list[str]:
    low, middle, high = np.percentile([made.quality for made in extracted], [10, 50, 90])
    size = f"{figures.subjects:,} {kind.subjects}, {figures.images:,} {kind.samples}"
    return [
        f"<b>{escape(figures.name)}</b><small>{size}</small>",
        f"{rates.genuine_pairs:,}<small>{rates.impostor_pairs:,}</small>",
        page.figure(rates.equal_error_rate),
        *(page.at_fmr(at) for at in rates.fnmr_at_fmr),
        f"{len(figures.failures):,}",
        f"{figures.not_usable:,}",
        f"{middle:.0f}<small>{low:.0f} to {high:.0f}</small>",
    ]


def _note_on_rates(kind: Kind) -> str:
    return (
        f"<p>Under each rate its 95 % interval, by resampling {kind.subjects}. An interval from 0 to 0 says "
        f"that no resampling of these {kind.subjects} shows an error, not that there is none. FNMR at an "
        "FMR is given where there are at least 1 / FMR impostor pairs. What gives no template matches "
        "nothing. “Not usable” counts what enrolment would send back for another capture, here compared all "
        "the same where there is a template. Quality is the median, with the range of the middle 80 %.</p>"
    )


def _costs(
    kind: Kind, compared: Sequence[ComparedSamples], embedder: OnnxEmbedderSettings | None
) -> list[str]:
    """CPU time of extraction and comparison, each after one that is not counted: it loads or compiles."""
    modality = kind.modality
    paths = [file.path for one in compared for file in one.files]
    some = [paths[i] for i in np.linspace(0, len(paths) - 1, min(_TIMED_IMAGES, len(paths))).astype(int)]
    extract_file(some[0], modality, None, embedder)
    start = time.process_time()
    for path in some:
        extract_file(path, modality, None, embedder)
    extraction = 1000 * (time.process_time() - start) / len(some)
    templates = tuple(made.template for made in compared[0].extracted)
    pairs = min(_TIMED_PAIRS, len(compared[0].pairs))
    compare_chunk(modality, templates, (0, 1))
    start = time.process_time()
    compare_chunk(modality, templates, (0, pairs))
    comparison = 1000 * (time.process_time() - start) / pairs
    head = ["CPU time, one thread", f"extraction of one {kind.sample}", "comparison"]
    return [
        page.table(head, [["<b>Rekam</b>", page.milli(extraction), page.micro(comparison)]]),
        f"<p>Measured while this page was made, in one process, on {len(some)} {kind.samples}, decoding "
        f"included, and {pairs:,} pairs.</p>",
    ]


# --- 2. pairs


def _extremes(compared: Sequence[ComparedSamples], *, genuine: bool) -> list[_Pair]:
    """The lowest genuine or the highest impostor scores of all sets, most extreme first."""
    found: list[_Pair] = []
    for number, result in enumerate(compared):
        scores = result.pairs.score
        of_kind = np.flatnonzero((result.pairs.genuine == genuine) & np.isfinite(scores))
        order = np.argsort(scores[of_kind] if genuine else -scores[of_kind], kind="stable")[:SHOWN_PAIRS]
        first, second = all_pairs(len(result.extracted))
        found += [
            _Pair(number, int(first[k]), int(second[k]), genuine, float(scores[k])) for k in of_kind[order]
        ]
    found.sort(key=lambda pair: pair.score if genuine else -pair.score)
    return found[:SHOWN_PAIRS]


def _card(
    compared: Sequence[ComparedSamples],
    pair: _Pair,
    number: int,
    pooled: Rates,
    own: OwnNetwork,
) -> str:
    """A pair: picture, score, and what probably decided it."""
    result = compared[pair.of_set]
    names = [result.files[i].stem for i in (pair.a, pair.b)]
    if result.samples.kind is EYES:
        shown = _shown_eyes(result, pair, names)
    else:
        shown = _shown_faces(result, pair, names, own)
    first, second = (escape(name) for name in names)
    facts = [*shown.facts, page.sentence(shown.worth)]
    verdict = page.verdict(pair.score, pair.genuine, pooled)
    return (
        f"<article><h3><span>{number}</span> A {first} and B {second} "
        f"<small>{escape(result.name)}</small></h3>"
        f'<p class="score">score <b>{pair.score:.4f}</b> · {verdict}</p>'
        f'<p class="cause"><b>Probably:</b> {escape(" ".join(shown.causes))}</p>'
        f"{page.image_tag(page.jpeg(shown.picture), f'{names[0]} and {names[1]} of {result.name}')}"
        f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul></article>"
    )


def _shown_eyes(result: ComparedSamples, pair: _Pair, names: Sequence[str]) -> _Shown:
    explanation = explain_eyes([_eye(result, i) for i in (pair.a, pair.b)])
    return _Shown(
        picture_of_eyes(explanation, names, compact=True),
        explanation.worth,
        [
            *(
                f"{label}: {'; '.join(about_eye(eye))}"
                for label, eye in zip("AB", explanation.eyes, strict=True)
            ),
            *(page.sentence(line) for line in about_eye_score(explanation)),
        ],
        eye_causes(explanation, genuine=pair.genuine),
    )


def _shown_faces(result: ComparedSamples, pair: _Pair, names: Sequence[str], own: OwnNetwork) -> _Shown:
    faces = [_face(result, i, own.embedder) for i in (pair.a, pair.b)]
    explanation = explain_faces(faces, own.calibration)
    return _Shown(
        picture_of_faces(explanation, names, compact=True),
        explanation.worth,
        [
            *(
                f"{label}: {'; '.join(about_face(face))}"
                for label, face in zip("AB", explanation.faces, strict=True)
            ),
            *(page.sentence(line) for line in about_face_score(explanation)),
        ],
        face_causes(explanation, genuine=pair.genuine),
    )


def _eye(result: ComparedSamples, i: int) -> SeenEye:
    """Eye `i` of a set with its image and stages; without, where the file cannot be read any more."""
    try:
        sample = decode_iris_image(result.files[i].path.read_bytes())
    except (ImageRefused, OSError):
        template, quality = result.extracted[i].template, _quality(result.extracted[i])
        return SeenEye(None, None if template is None else IrisTemplate.from_bytes(template), quality)
    return seen_eye(sample)


def _face(result: ComparedSamples, i: int, embedder: OnnxEmbedderSettings | None) -> SeenFace:
    """Portrait `i` of a set with its image and stages; without, where the file cannot be read any more."""
    try:
        sample = decode_face_image(result.files[i].path.read_bytes())
    except (ImageRefused, OSError):
        template, quality = result.extracted[i].template, _quality(result.extracted[i])
        return SeenFace(None, None if template is None else FaceTemplate.from_bytes(template), quality)
    return seen_face(sample, face_extractor(embedder))


def _quality(made: Extracted) -> Quality:
    return Quality(made.quality, made.usable, tuple(Feedback(word) for word in made.feedback))


def _image(result: ComparedSamples, i: int) -> NDArray[np.uint8] | None:
    """The pixels of image `i` of a set, None where it cannot be read."""
    try:
        data = result.files[i].path.read_bytes()
        return (decode_iris_image(data) if result.samples.kind is EYES else decode_face_image(data)).image
    except (ImageRefused, OSError):
        return None


def _legend(kind: Kind) -> str:
    if kind is EYES:
        text = (
            "Above, the eyes with the boundaries found: pupil yellow, limbus green, eyelids pink. Below them "
            "the irises unrolled, A rolled to fit B, what is not compared tinted pink. At the bottom, where "
            "their codes differ (red), agree (light), or are not compared (grey)."
        )
    else:
        text = (
            "Each portrait with the face that was compared (green), other faces (pink, dashed) and the "
            "landmarks (yellow); beside it what the network sees."
        )
    rules = "What probably decided a pair is told by rules of thumb; the picture has the last word."
    return f"<p>{text} {rules}</p>"


def _method(kind: Kind, compared: Sequence[ComparedSamples], made: Circumstances) -> str:
    ignored = sum(len(one.ignored) for one in compared)
    told = (
        "the part of a file's name before the first underscore, or its folder"
        if kind is EYES
        else "the folder of a file"
    )
    notes = [
        f"Every two {kind.samples} of a set are compared once, those of different sets never. Genuine pairs "
        f"are of one {kind.subject}, all others are impostor pairs. {kind.subject.capitalize()}: {told}.",
        f"Two {kind.samples} match at a threshold t when their score is t or more. FMR is the share of "
        "impostor pairs that match, FNMR the share of genuine pairs that do not, EER where both are equal. "
        "FNMR at an FMR is taken at the smallest threshold whose FMR is not above it.",
        f"Intervals: percentile bootstrap by {kind.subject}, {made.replicates:,} replicates, seed "
        f"{made.seed}.",
        "Templates go through their stored bytes. Likelihood ratios, and the false match rates beside "
        "them, are those of the shipped calibration, not of these sets.",
    ]
    if ignored:
        notes.append(f"{ignored:,} files in the folders tell no {kind.subject} and were left out.")
    items = "".join(f"<li>{note}</li>" for note in notes)
    used = ", ".join(f"{escape(name)} {escape(number)}" for name, number in made.versions)
    return f"<ul>{items}</ul><p>{used}</p><pre>{escape(made.command)}</pre>"
