"""`rekam explain --modality iris A [B]`: what was found in an eye, and what a comparison of two rests on.

Everything shown is what extraction and comparison themselves used: the pipeline's trace, and the codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capture.iris.extract import IrisExtractor
from capture.iris.template import COLUMNS, IrisTemplate, unpacked
from capture.quality import Quality
from capture.sample import IrisSample
from matching.errors import NotCalibrated
from matching.iris.calibration import iris_calibration
from matching.iris.comparison import MAX_STEPS, IrisComparison, compare_irises, iris_form
from rekam.offline.explain_prints import odds, rate
from rekam.offline.panels import QUIET, Sheet, measure_lines, tinted
from rekam.offline.samples import EYES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOUNDARY = {"pupil": "#f6c04d", "limbus": "#1fb39a", "eyelids": "#e0559a"}
_COVERED = (224, 85, 154)
_HIGHLIGHT = (246, 192, 77)
_AGREES, _DIFFERS, _MASKED = (222, 239, 233), (194, 24, 91), (198, 205, 213)
_ZERO, _ONE = (225, 232, 240), (31, 95, 191)


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a fact is named as what probably decided a pair: rules of thumb for people's eyes.

    Nine of ten genuine pairs of the development eyes are on the good side of each. `alike`: log10 likelihood
    ratio beyond which two eyes are hardly two.
    """

    few_bits: float = 0.4  # of the code
    small_area: float = 50.0  # per cent of the iris
    poor_quality: int = 60
    alike: float = 3.0
    dilation: float = 4.5  # difference of the pupils' share of the iris, per cent


LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class SeenEye:
    """One eye as a person sees it.

    `image` `(H, W) uint8`, None where only the template is known; `template` None where the image gave none;
    `stages`: what extraction traced (see `IrisExtractor.extract`), nothing without image.
    """

    image: NDArray[np.uint8] | None
    template: IrisTemplate | None
    quality: Quality
    stages: dict[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class EyeExplanation:
    """One eye, or two and their comparison: None where one gave no template.

    `llr`: log10 likelihood ratio; `fmr`: an upper bound of the false match rate with this score as threshold;
    both None where the coders of both were never calibrated together.
    """

    eyes: tuple[SeenEye, ...]
    comparison: IrisComparison | None
    llr: float | None
    fmr: float | None

    @property
    def worth(self) -> str:
        """What the score is worth, in words."""
        if self.llr is None or self.fmr is None:
            return "worth not known: codes of these coders were never calibrated together"
        return f"{odds(self.llr, EYES)}; {rate(self.fmr, EYES)}"

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        if len(self.eyes) == 1:
            return about_eye(self.eyes[0])[0]
        if self.comparison is None:
            gave_none = [
                f"eye {name}" for name, eye in zip("AB", self.eyes, strict=True) if eye.template is None
            ]
            return f"no comparison: {' and '.join(gave_none)} gave no template"
        return f"score {self.comparison.score:.4f}: {self.worth}"


def seen_eye(given: IrisSample | IrisTemplate) -> SeenEye:
    """Extract with a trace, or take a template as it is."""
    if isinstance(given, IrisTemplate):
        return SeenEye(None, given, Quality(given.quality, usable=True))
    stages: dict[str, NDArray[np.generic]] = {}

    def keep(stage: str, value: NDArray[np.generic]) -> None:
        stages[stage] = value

    made = IrisExtractor().extract(given, keep)
    return SeenEye(given.image, made.template, made.quality, stages)


def explain_eyes(eyes: Sequence[SeenEye]) -> EyeExplanation:
    """One eye, or two compared. Raises `MatchingError`."""
    templates = [eye.template for eye in eyes]
    if len(eyes) == 1:
        return EyeExplanation(tuple(eyes), None, None, None)
    a, b = templates
    if a is None or b is None:
        return EyeExplanation(tuple(eyes), None, 0.0, 1.0)
    compared = compare_irises(iris_form(a), iris_form(b))
    try:
        calibration = iris_calibration(a.coder, b.coder)
    except NotCalibrated:
        return EyeExplanation(tuple(eyes), compared, None, None)
    llr = calibration.llr(compared.score, compared.bits) if compared.bits else 0.0
    return EyeExplanation(tuple(eyes), compared, llr, calibration.fmr(compared.score))


# --- 1. words


def eye_words(explanation: EyeExplanation, names: Sequence[str]) -> list[str]:
    """The explanation in lines of text: verdict, what makes up the score, eyes with their measures."""
    lines = [explanation.verdict, *about_eye_score(explanation)]
    for label, name, eye in zip("AB", names, explanation.eyes, strict=False):
        lines += [f"{label} {name}: {line}" for line in about_eye(eye)]
        lines += [f"  {key} {value:.4g}" for key, value in eye.quality.measures.items()]
    return lines


def about_eye(eye: SeenEye) -> list[str]:
    """One eye: quality and valid bits, or why there are none; then what its capture should change."""
    if eye.template is None:
        first = "no template could be made"
    else:
        share = eye.template.bits / (64 * len(eye.template.mask))
        first = f"quality {eye.quality.score} of 100, {eye.template.bits:,} valid bits ({share:.0%})"
        if not eye.quality.usable:
            first += ", not usable for enrolment"
    return [first, *(word.advice for word in eye.quality.feedback)]


def about_eye_score(explanation: EyeExplanation) -> list[str]:
    """What makes up the score, in lines of text; none where nothing was compared."""
    found = _difference(explanation)
    compared = explanation.comparison
    if compared is None or found is None:
        return []
    differ, _ = found
    degrees = compared.steps * 360 / COLUMNS
    rolled = f"A rolled by {degrees:+.1f}° to fit" if compared.steps else "neither rolled"
    return [
        f"{int(differ.sum()):,} of {compared.bits:,} common bits differ; {rolled}",
        f"distance {compared.distance:.4f}, corrected for how many bits were compared; that of two eyes is a "
        "little below 0.5",
    ]


def eye_causes(explanation: EyeExplanation, *, genuine: bool) -> list[str]:
    """What probably decided a pair that scores unlike its kind, likeliest first; never empty."""
    compared, (a, b) = explanation.comparison, explanation.eyes
    if compared is None or a.template is None or b.template is None:
        return ["One eye gave no template."]
    found = []
    if not genuine and explanation.llr is not None and explanation.llr >= LIMITS.alike:
        found.append("So alike that it may be one eye under two names: check the names.")
    bits = 64 * min(len(a.template.mask), len(b.template.mask))
    if compared.bits < LIMITS.few_bits * bits:
        found.append(f"Few common bits: {compared.bits:,} of {bits:,}.")
    for label, eye in (("A", a), ("B", b)):
        area = eye.quality.measures.get("usable_area", 100.0)
        if area < LIMITS.small_area:
            found.append(f"Only {area:.0f} % of iris {label} is free of lids, lashes and highlights.")
    if genuine:
        pupils = [eye.quality.measures.get("pupil_ratio") for eye in (a, b)]
        if None not in pupils and abs(pupils[0] - pupils[1]) > LIMITS.dilation:  # type: ignore[operator]
            found.append(f"One pupil is wider: {pupils[0]:.0f} % of the iris in A, {pupils[1]:.0f} % in B.")
        if abs(compared.steps) >= MAX_STEPS - 0.5:
            found.append("The best rotation is the last one tried: the head may have been tilted further.")
    for label, eye in (("A", a), ("B", b)):
        if eye.quality.score < LIMITS.poor_quality:
            advice = f": {eye.quality.feedback[0].advice}" if eye.quality.feedback else "."
            found.append(f"Image {label} is poor, quality {eye.quality.score}{advice}")
    if found:
        return found
    if genuine:
        return ["Nothing stands out: look whether the boundaries are right, and whether it is one eye."]
    return ["Chance: some pairs always agree among so many eyes."]


# --- 2. pictures


def picture_of_eyes(
    explanation: EyeExplanation, names: Sequence[str], *, compact: bool = False
) -> NDArray[np.uint8]:
    """Draw one or two eyes, `(H, 1500, 3) uint8` RGB; `compact` leaves out title and legend.

    From top to bottom: the images with their boundaries; the irises unrolled, A rolled to fit, what is not
    compared tinted; of one eye its code, of two where their codes differ. Thread-safe. Cost: 0.5 s.
    """
    eyes = explanation.eyes
    sheet = Sheet()
    if not compact:
        sheet.title(explanation.verdict, about_eye_score(explanation))

    # 1. Images.
    tallest = max([0.0, *(eye.image.shape[0] / eye.image.shape[1] for eye in eyes if eye.image is not None)])
    if tallest:
        for eye, axes in zip(eyes, sheet.row(7.1 * min(tallest, 1.2), 2), strict=False):
            _draw_eye(axes, eye)
        notes = [
            f"{label}   {name}\n" + "\n".join(about_eye(eye))
            for label, name, eye in zip("AB", names, eyes, strict=False)
        ]
        if len(eyes) == 1:
            notes.append("\n".join(measure_lines(eyes[0].quality.measures, 4)))
        sheet.notes([] if compact else notes, 2)

    # 2. Rubber sheets, from the pupil (top) to the limbus, beginning at the right, clockwise.
    steps = 0.0 if explanation.comparison is None else explanation.comparison.steps
    for label, eye, turned in zip("AB", eyes, (steps, 0.0), strict=False):
        if "rubber_sheet" in eye.stages:
            grey = np.asarray(eye.stages["rubber_sheet"], np.float32)
            mask = np.asarray(eye.stages["mask"], np.bool_)
            shift = round(turned * grey.shape[1] / COLUMNS)
            (axes,) = sheet.row(1.3, 1)
            even = _stretched(np.roll(grey, shift, axis=1))
            covered = ~np.roll(mask, shift, axis=1)
            axes.imshow(tinted(even, covered, _COVERED, 0.45), aspect="auto", interpolation="lanczos")
            rolled = f", rolled by {turned * 360 / COLUMNS:+.1f}°" if turned else ""
            sheet.label(axes, f"{label} unrolled, the pupil above, clockwise from the right{rolled}")

    # 3. Codes.
    found = _difference(explanation)
    if found is not None:
        differ, common = found
        pixels = np.where(differ[..., None], _DIFFERS, _AGREES)
        pixels = np.where(common[..., None], pixels, _MASKED).astype(np.uint8)
        _draw_code(sheet, pixels, "where the codes differ")
    elif len(eyes) == 1 and (template := eyes[0].template) is not None:
        bits, mask = (_rows(_fine(words)) for words in (template.code, template.mask))
        pixels = np.where(bits[..., None], _ONE, _ZERO)
        _draw_code(sheet, np.where(mask[..., None], pixels, _MASKED).astype(np.uint8), "code")
    if not compact:
        texts = [
            ("pupil", _BOUNDARY["pupil"]),
            ("limbus", _BOUNDARY["limbus"]),
            ("eyelids", _BOUNDARY["eyelids"]),
            ("tinted: highlights, lids, lashes", _BOUNDARY["eyelids"]),
        ]
        if explanation.comparison is not None:
            texts.append(("bit differs", "#c2185b"))
        sheet.legend([*texts, ("grey: not compared", QUIET)])
    return sheet.pixels()


def _draw_eye(axes: "Axes", eye: SeenEye) -> None:
    """The image with highlights tinted, pupil and limbus as circles, eyelids as arcs within the limbus."""
    if eye.image is None:
        return
    height, width = eye.image.shape
    spots = eye.stages.get("highlights")
    shown = np.repeat(eye.image[..., None], 3, axis=2)
    if spots is not None:
        shown = tinted(shown, np.asarray(spots, np.bool_), _HIGHLIGHT, 0.5)
    axes.imshow(shown, interpolation="lanczos")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    around = np.linspace(0, 2 * np.pi, 181)
    for key in ("pupil", "limbus"):
        if key in eye.stages:
            x, y, radius = (float(value) for value in np.asarray(eye.stages[key]))
            circle = np.array([x + radius * np.cos(around), y + radius * np.sin(around)])
            axes.plot(*circle, color=_BOUNDARY[key], linewidth=1.8)
    if "limbus" in eye.stages and "eyelids" in eye.stages:
        x, _, radius = (float(value) for value in np.asarray(eye.stages["limbus"]))
        d = np.linspace(-1.15, 1.15, 91) * radius
        for c0, c1, c2 in np.asarray(eye.stages["eyelids"], np.float64):
            if np.isfinite(c0):
                axes.plot(x + d, c0 + c1 * d + c2 * d * d, color=_BOUNDARY["eyelids"], linewidth=1.8)


def _draw_code(sheet: Sheet, pixels: NDArray[np.uint8], text: str) -> None:
    (axes,) = sheet.row(0.07 * pixels.shape[0], 1)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    sheet.label(axes, text)


def _stretched(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Evenly contrasted, `(h, w, 3) uint8`."""
    dark, light = np.percentile(grey, [1, 99])
    even = np.clip(255 * (grey - dark) / max(float(light - dark), 20.0), 0, 255)
    return np.repeat(even.astype(np.uint8)[..., None], 3, axis=2)


# --- 3. codes as images


def _difference(explanation: EyeExplanation) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Where bits differ and where both count, `(rows, columns) bool`, at the comparison's rotation."""
    compared, templates = explanation.comparison, [eye.template for eye in explanation.eyes]
    if compared is None:
        return None
    a, b = templates
    if a is None or b is None:
        return None
    words = min(len(a.code), len(b.code))
    (code_a, mask_a), (code_b, mask_b) = (
        (_fine(one.code[:words]), _fine(one.mask[:words])) for one in (a, b)
    )
    shift = round(compared.steps * code_a.shape[-1] / COLUMNS)
    common = np.roll(mask_a, shift, axis=-1) & mask_b
    differ = (np.roll(code_a, shift, axis=-1) != code_b) & common
    return _rows(differ), _rows(common)


def _fine(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bits by group, row, part and angle; of fine codes the two groups of a filter are one of 256 angles."""
    bits = unpacked(words)
    if len(bits) % 2:
        return bits
    pairs = bits.reshape(-1, 2, *bits.shape[1:])
    return np.stack([pairs[:, 0], pairs[:, 1]], axis=-1).reshape(len(pairs), *bits.shape[1:-1], -1)


def _rows(bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All groups, rows and parts below each other."""
    return bits.reshape(-1, bits.shape[-1])
