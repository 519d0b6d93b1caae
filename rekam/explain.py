"""`rekam explain A B`: what a comparison of two prints rests on, as a picture and in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from capture.errors import CaptureError, ImageRefused
from capture.fingerprint.extract import Extraction, FingerprintExtractor, to_500_ppi
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import Sample
from matching.errors import MatchingError
from matching.fingerprint.calibration import Calibration
from matching.fingerprint.comparison import Comparison, compare
from matching.fingerprint.cylinders import cylinders
from rekam.prints import read_print

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

STRONG_PAIR = 0.04  # the contribution at the end of the colour scale: twelve such pairs score 0.48
_INK = "#1d2733"
_QUIET = "#6b7785"
_LONE = "#3b7dd8"


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Two prints, what was found in each, and their comparison, None where one gave no template.

    `llr`: log10 likelihood ratio; `fmr`: an upper bound of the false match rate with this score as threshold.
    """

    samples: tuple[Sample, Sample]
    extractions: tuple[Extraction, Extraction]
    comparison: Comparison | None
    llr: float
    fmr: float

    @property
    def verdict(self) -> str:
        """The comparison in one line."""
        if self.comparison is None:
            return "no comparison: " + " and ".join(
                f"print {name} gave no template"
                for name, made in zip("AB", self.extractions, strict=True)
                if made.template is None
            )
        return f"score {self.comparison.score:.4f}: {odds(self.llr)}; {rate(self.fmr)}"


def explain_prints(a: Sample, b: Sample) -> Explanation:
    """Extract and compare two prints. Raises `CaptureError`, `MatchingError` where parameters are missing."""
    extractor = FingerprintExtractor()
    extractions = extractor.extract(a), extractor.extract(b)
    template_a, template_b = (made.template for made in extractions)
    if template_a is None or template_b is None:
        return Explanation((a, b), extractions, None, 0.0, 1.0)
    comparison = compare(cylinders(template_a), cylinders(template_b))
    calibration = Calibration.load()
    llr, fmr = calibration.llr(comparison.score), calibration.fmr(comparison.score)
    return Explanation((a, b), extractions, comparison, llr, fmr)


def odds(llr: float) -> str:
    """A log10 likelihood ratio in words."""
    if abs(llr) < 0.05:
        return "says nothing either way"
    likelier = "one finger" if llr > 0 else "two fingers"
    return f"{_round(10 ** abs(llr))} times likelier from {likelier} (log10 ratio {llr:+.1f})"


def rate(fmr: float) -> str:
    """A false match rate in words."""
    if fmr >= 0.5:
        return "most prints of two fingers score as much"
    return f"at most 1 in {_round(1 / fmr)} prints of two fingers scores as much"


def _round(number: float) -> str:
    """Two leading digits: the sample supports no more."""
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.1f}"


def words(explanation: Explanation, names: tuple[str, str]) -> list[str]:
    """The explanation in lines of text: the verdict, then each print, then the pairs."""
    lines = [explanation.verdict]
    for label, name, extraction in zip("AB", names, explanation.extractions, strict=True):
        lines += [f"{label} {name}: {line}" for line in _about(extraction)]
    comparison = explanation.comparison
    if comparison is not None:
        template_a, template_b = (made.template for made in explanation.extractions)
        if template_a is None or template_b is None:
            raise ValueError("a comparison has two templates")
        lines.append(f"pairs the score rests on ({len(comparison.pairs)}), by contribution:")
        numbers_a, numbers_b = _minutiae(comparison, template_a, template_b)
        for k in np.argsort(-comparison.contributions, kind="stable"):
            places = (
                f"({template.x[m]:.0f}, {template.y[m]:.0f}) {np.degrees(template.direction[m]):.0f}°"
                for template, m in ((template_a, numbers_a[k]), (template_b, numbers_b[k]))
            )
            lines.append(f"  {comparison.contributions[k]:.4f}  A {next(places)}  B {next(places)}")
    return lines


def _about(extraction: Extraction) -> list[str]:
    """One print: quality and minutiae, or why there are none; then what its capture should change."""
    quality = extraction.quality
    if extraction.template is None:
        first = "no template could be made"
    else:
        first = f"quality {quality.score} of 100, {len(extraction.template)} minutiae"
    return [first, *(word.advice for word in quality.feedback)]


def _minutiae(
    comparison: Comparison, template_a: FingerprintTemplate, template_b: FingerprintTemplate
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The minutiae of each print that the pairs join, `(k,) int32` each."""
    in_a, in_b = cylinders(template_a).minutia, cylinders(template_b).minutia
    return in_a[comparison.pairs[:, 0]], in_b[comparison.pairs[:, 1]]


def picture_of_pair(
    image_a: NDArray[np.uint8],
    image_b: NDArray[np.uint8],
    template_a: FingerprintTemplate | None,
    template_b: FingerprintTemplate | None,
    comparison: Comparison | None,
    title: str,
    captions: tuple[str, str] = ("", ""),
) -> NDArray[np.uint8]:
    """Draw two prints side by side with their minutiae, the pairs joined: `(H, 1500, 3) uint8` RGB.

    Images are `(H, W) uint8` of any resolution, stretched to their template's 500 ppi. Minutiae are drawn as
    circles (endings) and squares (bifurcations) with a stroke along the ridge; those of a pair, and the line
    between them, in the colour of what the pair contributes to the score. Title and captions may have
    several lines. Thread-safe. Cost: about 0.5 s.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    # 1. Both prints on one sheet, in pixels at 500 ppi.
    left, right = (_faded(*pair) for pair in ((image_a, template_a), (image_b, template_b)))
    gap = 40
    height = max(left.shape[0], right.shape[0])
    width = left.shape[1] + gap + right.shape[1]
    sheet = np.full((height, width), 255, np.uint8)
    sheet[: left.shape[0], : left.shape[1]] = left
    sheet[: right.shape[0], left.shape[1] + gap :] = right
    offset = left.shape[1] + gap

    # 2. A figure around it: title above, captions and the colour scale below, in inches of 100 pixels.
    lines = 1 + title.count("\n"), 1 + max(caption.count("\n") for caption in captions)
    top, bottom = 0.38 + 0.3 * lines[0], 0.95 + 0.22 * lines[1]
    sides = 0.2
    scale = 14.6 / width
    figure_height = scale * height + top + bottom
    figure = Figure(figsize=(15, figure_height), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((sides / 15, bottom / figure_height, 14.6 / 15, scale * height / figure_height))
    axes.imshow(
        sheet,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="lanczos",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.axis("off")

    # 3. Minutiae and pairs.
    colours = LinearSegmentedColormap.from_list("contribution", ["#f6c04d", "#ee6c2f", "#c2185b", "#5e1193"])
    paired_a, paired_b = np.zeros(0, np.int32), np.zeros(0, np.int32)
    if comparison is not None and template_a is not None and template_b is not None:
        paired_a, paired_b = _minutiae(comparison, template_a, template_b)
        _draw_pairs(axes, colours, comparison, (template_a, paired_a, 0), (template_b, paired_b, offset))
    for template, paired, shift in ((template_a, paired_a, 0), (template_b, paired_b, offset)):
        if template is not None:
            lone = np.setdiff1d(np.arange(len(template)), paired)
            for m in lone:
                _draw_minutia(axes, template, int(m), shift, _LONE, 1.2)

    # 4. Words.
    headline, _, rest = title.partition("\n")
    figure.text(sides / 15, 1 - 0.22 / figure_height, headline, size=17, weight="bold", color=_INK, va="top")
    figure.text(sides / 15, 1 - 0.58 / figure_height, rest, size=13, color=_INK, va="top", linespacing=1.4)
    for caption, shift in zip(captions, (0, offset), strict=True):
        at = (sides + scale * shift) / 15
        figure.text(
            at, (bottom - 0.1) / figure_height, caption, size=12, color=_INK, va="top", linespacing=1.35
        )
    _draw_scale(figure.add_axes((sides / 15, 0.42 / figure_height, 3.6 / 15, 0.13 / figure_height)), colours)
    figure.text(
        5.2 / 15,
        0.42 / figure_height,
        "○ ending   □ bifurcation   stroke: along the ridge   blue: in no pair",
        size=11,
        color=_QUIET,
    )
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's canvas is not annotated
    pixels: memoryview = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels, np.uint8)[..., :3].copy()


def _faded(image: NDArray[np.uint8], template: FingerprintTemplate | None) -> NDArray[np.uint8]:
    """The print at its template's size, evenly contrasted, and lightened so that marks stand out."""
    if template is not None and image.shape != (template.height, template.width):
        size = (template.width, template.height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    dark, light = np.percentile(image, [1, 95])
    # A nearly blank image stays one: its noise is not blown up.
    brightness: NDArray[np.float64] = np.clip((image - light) / max(light - dark, 60) + 1, 0, 1)
    return (110 + 145 * brightness).astype(np.uint8)


def _draw_pairs(
    axes: "Axes",
    colours: "Colormap",
    comparison: Comparison,
    a: tuple[FingerprintTemplate, NDArray[np.int32], int],
    b: tuple[FingerprintTemplate, NDArray[np.int32], int],
) -> None:
    """Lines and minutiae of the pairs, weakest first, so that the strongest lie on top."""
    for k in np.argsort(comparison.contributions, kind="stable"):
        share = min(1.0, float(comparison.contributions[k]) / STRONG_PAIR)
        colour = colours(share)
        ends = [(t.x[paired[k]] + shift, t.y[paired[k]]) for t, paired, shift in (a, b)]
        xs, ys = zip(*ends, strict=True)
        axes.plot(xs, ys, color="white", linewidth=3.2 + 1.2 * share, alpha=0.7, solid_capstyle="round")
        axes.plot(xs, ys, color=colour, linewidth=1.2 + 1.2 * share, alpha=0.9, solid_capstyle="round")
        for template, paired, shift in (a, b):
            _draw_minutia(axes, template, int(paired[k]), shift, colour, 2.0)


def _draw_minutia(
    axes: "Axes", template: FingerprintTemplate, m: int, shift: int, colour: object, thickness: float
) -> None:
    """A circle or square of 4 pixels' radius with a stroke of 11 pixels, all with a white rim."""
    x, y, direction = float(template.x[m]) + shift, float(template.y[m]), float(template.direction[m])
    along = np.array([np.cos(direction), -np.sin(direction)])
    turns = (
        np.linspace(0, 2 * np.pi, 25)
        if template.ending[m]
        else np.pi / 4 + np.arange(5) * np.pi / 2 + direction
    )
    outline = np.column_stack([x + 4 * np.cos(turns), y - 4 * np.sin(turns)])
    stroke = np.array([[x, y] + 4 * along, [x, y] + 11 * along])
    for line in (outline, stroke):
        axes.plot(*line.T, color="white", linewidth=thickness + 1.6, alpha=0.8, solid_capstyle="round")
        axes.plot(*line.T, color=colour, linewidth=thickness, solid_capstyle="round")


def _draw_scale(axes: "Axes", colours: "Colormap") -> None:
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto", extent=(0, STRONG_PAIR, 0, 1))
    axes.set_yticks([])
    axes.set_xticks(
        [0, STRONG_PAIR / 2, STRONG_PAIR], ["0", f"{STRONG_PAIR / 2:g}", f"{STRONG_PAIR:g} or more"]
    )
    axes.tick_params(length=2, labelsize=10, labelcolor=_QUIET, color=_QUIET)
    axes.set_title("contribution of a pair to the score", size=11, color=_QUIET, loc="left", pad=4)
    axes.spines[:].set_visible(False)


def draw(explanation: Explanation, names: tuple[str, str]) -> NDArray[np.uint8]:
    """The explanation as a picture, `(H, W, 3) uint8` RGB."""
    captions = [
        "\n".join([f"{label}   {name}", *_about(extraction)])
        for label, name, extraction in zip("AB", names, explanation.extractions, strict=True)
    ]
    image_a, image_b = (to_500_ppi(sample).image for sample in explanation.samples)
    template_a, template_b = (made.template for made in explanation.extractions)
    headline, _, rest = explanation.verdict.partition(": ")
    return picture_of_pair(
        image_a,
        image_b,
        template_a,
        template_b,
        explanation.comparison,
        f"{headline[0].upper()}{headline[1:]}\n{rest[0].upper()}{rest[1:]}",
        (captions[0], captions[1]),
    )


def explain(
    a: Annotated[Path, typer.Argument(metavar="A", help="A print: PNG, JPEG, BMP, TIFF, WSQ or JPEG 2000.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The print to compare it with.")],
    out: Annotated[Path, typer.Option(help="Write the picture to this PNG.")] = Path("explanation.png"),
    ppi: Annotated[
        list[float] | None,
        typer.Option(help="Pixels per inch, whatever the files say: once for both, or once for each."),
    ] = None,
) -> None:
    """Show why two prints match or do not: minutiae, pairs, score, and what the score is worth."""
    errors = Console(stderr=True)
    each: list[float | None] = [*ppi] if ppi else [None]
    try:
        if len(each) > 2:
            raise typer.BadParameter("--ppi is given once, or once for each print")
        samples = []
        for path, one in ((a, each[0]), (b, each[-1])):
            try:
                samples.append(read_print(path, one))
            except ImageRefused as refused:
                raise ImageRefused(refused.problem, f"{path}: {refused}") from refused
        explanation = explain_prints(samples[0], samples[1])
        picture = draw(explanation, (a.name, b.name))
        _, png = cv2.imencode(".png", picture[..., ::-1])
        out.write_bytes(png.tobytes())
    except (CaptureError, MatchingError, OSError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for line in words(explanation, (a.name, b.name)):
        typer.echo(line)
    typer.echo(f"picture: {out}")
