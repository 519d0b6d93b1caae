"""What a comparison of two prints rests on, as a picture and in words (for `explain_command.py`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.errors import ImageRefused, RecordRefused, TemplateRefused
from capture.fingerprint.extract import FingerprintExtractor, to_500_ppi
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.formats.minutiae_record import MAGIC as RECORD_MAGIC
from capture.formats.minutiae_record import read_minutiae_record
from capture.formats.minutiae_template import template_of
from capture.quality import Feedback
from capture.sample import Sample
from matching.errors import NotCalibrated
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.comparison import Comparison, compare
from matching.fingerprint.cylinders import cylinders
from rekam.offline.overlap import Overlap, Role, overlap
from rekam.offline.panels import INK, QUIET, drawn
from rekam.offline.prints import decode_print
from rekam.offline.samples import PRINTS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

TEMPLATE_MAGIC = b"RF"
STRONG_PAIR = 0.06  # the contribution at the end of the colour scale: twelve such pairs score 0.72
MOST_ALONE = 10  # minutiae without partner that are listed of each print
CONTRIBUTION_COLOURS = ("#f6c04d", "#ee6c2f", "#c2185b", "#5e1193")
ROLE_COLOURS = {Role.PARTNER: "#0f9d76", Role.ALONE: "#3b7dd8", Role.ASIDE: "#9aa5b1"}
OVERLAP_COLOUR = "#0aa5b5"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One print as a person sees it: what its capture came to.

    `image` `(H, W) uint8` at 500 ppi, None where only the template is known; `template` None where the
    image gave none; `quality` 0 to 100; `feedback`, worst first.
    """

    image: NDArray[np.uint8] | None
    template: FingerprintTemplate | None
    quality: int
    feedback: tuple[Feedback, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Two prints and their comparison, None where one gave no template.

    `overlap` is None where the comparison found no reason to lay one print upon the other. `llr`: log10
    likelihood ratio; `fmr`: an upper bound of the false match rate with this score as threshold; both None
    where the templates' extractors were never calibrated together.
    """

    prints: tuple[Seen, Seen]
    comparison: Comparison | None
    overlap: Overlap | None
    llr: float | None
    fmr: float | None

    @property
    def worth(self) -> str:
        """What the score is worth, in words."""
        if self.llr is None or self.fmr is None:
            made_by = [one.template.extractor.name for one in self.prints if one.template is not None]
            return f"worth not known, templates of {' and '.join(made_by)} were never calibrated together"
        return f"{odds(self.llr)}; {rate(self.fmr)}"

    @property
    def verdict(self) -> str:
        """The comparison in one line."""
        if self.comparison is None:
            return "no comparison: " + " and ".join(
                f"print {name} gave no template"
                for name, one in zip("AB", self.prints, strict=True)
                if one.template is None
            )
        return f"score {self.comparison.score:.4f}: {self.worth}"


def explain_prints(
    a: Sample | FingerprintTemplate,
    b: Sample | FingerprintTemplate,
    extractor: ExtractorChoice = ExtractorChoice.ACCURATE,
) -> Explanation:
    """Extract where needed, and compare. Raises `CaptureError`, `MatchingError` where files are missing."""
    return explain_seen(_seen(a, extractor), _seen(b, extractor))


def _seen(given: Sample | FingerprintTemplate, extractor: ExtractorChoice) -> Seen:
    if isinstance(given, FingerprintTemplate):
        return Seen(None, given, given.quality)
    made = FingerprintExtractor(extractor).extract(given)
    return Seen(to_500_ppi(given).image, made.template, made.quality.score, made.quality.feedback)


def explain_seen(a: Seen, b: Seen) -> Explanation:
    """Compare two prints and show what they have in common. Raises `MatchingError`. Cost: about 5 ms."""
    if a.template is None or b.template is None:
        return Explanation((a, b), None, None, 0.0, 1.0)
    described_a, described_b = cylinders(a.template), cylinders(b.template)
    comparison = compare(described_a, described_b)
    common = overlap(a.template, b.template, described_a, described_b, comparison)
    try:
        calibration = fingerprint_calibration(a.template.extractor, b.template.extractor)
    except NotCalibrated:
        return Explanation((a, b), comparison, common, None, None)
    llr = calibration.llr(comparison.score, min(len(described_a), len(described_b)))
    return Explanation((a, b), comparison, common, llr, calibration.fmr(comparison.score))


def paired_minutiae(
    comparison: Comparison, template_a: FingerprintTemplate, template_b: FingerprintTemplate
) -> NDArray[np.int32]:
    """The minutiae of both templates that the pairs join, `(k, 2) int32`."""
    in_a, in_b = cylinders(template_a).minutia, cylinders(template_b).minutia
    return np.column_stack([in_a[comparison.pairs[:, 0]], in_b[comparison.pairs[:, 1]]])


def odds(llr: float, kind: Kind = PRINTS) -> str:
    """A log10 likelihood ratio in words."""
    if abs(llr) < 0.05:
        return "says nothing either way"
    likelier = f"one {kind.subject}" if llr > 0 else f"two {kind.subjects}"
    return f"{_round(10 ** abs(llr))} times likelier from {likelier} (log10 ratio {llr:+.1f})"


def rate(fmr: float, kind: Kind = PRINTS) -> str:
    """A false match rate in words."""
    if fmr >= 0.5:
        return f"most {kind.samples} of two {kind.subjects} score as much"
    return f"at most 1 in {_round(1 / fmr)} {kind.samples} of two {kind.subjects} scores as much"


def _round(number: float) -> str:
    """Two leading digits: the sample supports no more."""
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.1f}"


def words(explanation: Explanation, names: tuple[str, str]) -> list[str]:
    """The explanation in lines of text: verdict, prints, what makes up the score, pairs, lone minutiae."""
    lines = [explanation.verdict]
    for label, name, one in zip("AB", names, explanation.prints, strict=True):
        lines += [f"{label} {name}: {line}" for line in about(one)]
    comparison = explanation.comparison
    template_a, template_b = (one.template for one in explanation.prints)
    if comparison is None or template_a is None or template_b is None:
        return lines
    lines += about_score(explanation)
    lines.append(f"pairs that carry the support ({len(comparison.pairs)}), and their shares of the score:")
    pairs = paired_minutiae(comparison, template_a, template_b)
    for k in np.argsort(-comparison.contributions, kind="stable"):
        at_a, at_b = (
            _place(template, int(m)) for template, m in zip((template_a, template_b), pairs[k], strict=True)
        )
        off = explanation.overlap is not None and not explanation.overlap.agreeing[k]
        lines.append(
            f"  {comparison.contributions[k]:.4f}  A {at_a}  B {at_b}{'  lies apart' if off else ''}"
        )
    common = explanation.overlap
    if common is not None:
        for label, template, roles in (("A", template_a, common.roles_a), ("B", template_b, common.roles_b)):
            alone = np.flatnonzero(roles == Role.ALONE)
            most = f", of which the {MOST_ALONE} most reliable" if len(alone) > MOST_ALONE else ""
            if len(alone):
                lines.append(f"minutiae of {label} without partner ({len(alone)}{most}):")
                lines += [
                    f"  reliability {template.reliability[m]:.2f}  {label} {_place(template, int(m))}"
                    for m in alone[:MOST_ALONE]
                ]
    return lines


def _place(template: FingerprintTemplate, m: int) -> str:
    return f"({template.x[m]:.0f}, {template.y[m]:.0f}) {np.degrees(template.direction[m]):.0f}°"


def about(one: Seen) -> list[str]:
    """One print: quality and minutiae, or why there are none; then what its capture should change."""
    if one.template is None:
        first = "no template could be made"
    else:
        first = f"quality {one.quality} of 100, {len(one.template)} minutiae"
    return [first, *(word.advice for word in one.feedback)]


def about_score(explanation: Explanation) -> list[str]:
    """What makes up the score, support and overlap, and how the prints lie, in lines of text."""
    comparison, common = explanation.comparison, explanation.overlap
    if comparison is None:
        return []
    by_overlap = comparison.score - comparison.by_support
    lines = [
        f"support gives {comparison.by_support:.3f}: {len(comparison.pairs)} pairs agree in surroundings and "
        f"geometry by {comparison.support:.2f} of 1"
    ]
    if common is None:
        return [*lines, "overlap gives nothing: too little support to lay one print upon the other"]
    in_a, in_b = (np.bincount(roles, minlength=len(Role)) for roles in (common.roles_a, common.roles_b))
    turned = round(abs(np.degrees(common.turn)))
    side = "clockwise" if common.turn < 0 else "counter-clockwise"
    turn = f"B turned by {turned}° {side}" if turned else "B not turned"
    off = int((~common.agreeing).sum())
    return [
        *lines,
        f"overlap {'gives' if by_overlap >= 0 else 'takes'} {abs(by_overlap):.3f}: in the common region "
        f"{in_a[Role.PARTNER]} minutiae have a partner, {in_a[Role.ALONE]} of A and {in_b[Role.ALONE]} of B "
        "have none",
        f"common region: {common.area:.0f} mm², {common.share:.0%} of the smaller print; {turn}; partners "
        f"{common.stretch:.1f} pixels apart"
        + (f"; {off} of the pairs {'lies' if off == 1 else 'lie'} further apart" if off else ""),
    ]


def picture_of_pair(
    image_a: NDArray[np.uint8] | None,
    image_b: NDArray[np.uint8] | None,
    template_a: FingerprintTemplate | None,
    template_b: FingerprintTemplate | None,
    comparison: Comparison | None,
    title: str = "",
    captions: tuple[str, str] = ("", ""),
    common: Overlap | None = None,
    *,
    compact: bool = False,
) -> NDArray[np.uint8]:
    """Draw two prints side by side with their minutiae, the pairs joined: `(H, 1500, 3) uint8` RGB.

    Images are `(H, W) uint8` of any resolution, stretched to their template's 500 ppi; without, the ground is
    blank. Minutiae are drawn as circles (endings) and squares (bifurcations) with a stroke along the ridge;
    those of a pair, and the line between them, in the colour of the pair's share of the score, the others by
    their role in the common region, which is outlined; lines of pairs that lie apart there are dashed.
    Title and captions may have several lines; `compact` leaves out the legend and rows with nothing to see.
    Thread-safe. Cost: about 0.5 s.
    """
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
    first, last = (0, height)
    if compact:
        first, last = _rows_with_minutiae((template_a, template_b), height)

    # 2. A figure around it: title above, captions and legend below, in inches of 100 pixels.
    lines = 1 + title.count("\n"), 1 + max(caption.count("\n") for caption in captions)
    top = 0.38 + 0.3 * lines[0] if title else 0.1
    bottom = (0.0 if compact else 0.85) + (0.1 + 0.22 * lines[1] if any(captions) else 0.1)
    sides = 0.2
    scale = 14.6 / width
    figure_height = scale * (last - first) + top + bottom
    figure = Figure(figsize=(15, figure_height), dpi=100, facecolor="white")
    axes = figure.add_axes(
        (sides / 15, bottom / figure_height, 14.6 / 15, scale * (last - first) / figure_height)
    )
    axes.imshow(
        sheet,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="lanczos",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(last - 0.5, first - 0.5))
    axes.axis("off")

    # 3. Overlap, pairs and minutiae.
    if common is not None:
        for region, shift in ((common.region_a, 0), (common.region_b, offset)):
            _draw_region(axes, region, shift)
    colours = LinearSegmentedColormap.from_list("contribution", CONTRIBUTION_COLOURS)
    paired = np.zeros((0, 2), np.int32)
    if comparison is not None and template_a is not None and template_b is not None:
        paired = paired_minutiae(comparison, template_a, template_b)
        _draw_pairs(
            axes,
            colours,
            comparison,
            (template_a, paired[:, 0], 0),
            (template_b, paired[:, 1], offset),
            common,
        )
    for template, counted, roles, shift in (
        (template_a, paired[:, 0], None if common is None else common.roles_a, 0),
        (template_b, paired[:, 1], None if common is None else common.roles_b, offset),
    ):
        if template is not None:
            for m in np.setdiff1d(np.arange(len(template)), counted):
                role = Role.ALONE if roles is None else Role(roles[m])
                _draw_minutia(axes, template, int(m), shift, ROLE_COLOURS[role], 1.6)

    # 4. Words.
    headline, _, rest = title.partition("\n")
    figure.text(sides / 15, 1 - 0.22 / figure_height, headline, size=17, weight="bold", color=INK, va="top")
    figure.text(sides / 15, 1 - 0.58 / figure_height, rest, size=13, color=INK, va="top", linespacing=1.4)
    for caption, shift in zip(captions, (0, offset), strict=True):
        at = (sides + scale * shift) / 15
        figure.text(
            at, (bottom - 0.1) / figure_height, caption, size=12, color=INK, va="top", linespacing=1.35
        )
    if not compact:
        _draw_scale(
            figure.add_axes((sides / 15, 0.42 / figure_height, 3.6 / 15, 0.13 / figure_height)), colours
        )
        marks = "○ ending   □ bifurcation   stroke: along the ridge"
        if common is None:
            texts = [(marks + "   blue: in no pair", QUIET)]
        else:
            texts = [
                (marks, QUIET),
                ("has a partner", ROLE_COLOURS[Role.PARTNER]),
                ("has none", ROLE_COLOURS[Role.ALONE]),
                ("outside, or unsure", ROLE_COLOURS[Role.ASIDE]),
                ("common region", OVERLAP_COLOUR),
            ]
            if not common.agreeing.all():
                texts.append(("dashed: lies apart", QUIET))
        at = 5.2
        for text, colour in texts:
            figure.text(at / 15, 0.42 / figure_height, text, size=11, color=colour)
            at += 0.2 + 0.0725 * len(text.strip())
    return drawn(figure)


def _faded(image: NDArray[np.uint8] | None, template: FingerprintTemplate | None) -> NDArray[np.uint8]:
    """The print at its template's size, evenly contrasted, and lightened so that marks stand out."""
    if image is None:
        shape = (1, 1) if template is None else (template.height, template.width)
        return np.full(shape, 248, np.uint8)
    if template is not None and image.shape != (template.height, template.width):
        size = (template.width, template.height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    dark, light = np.percentile(image, [1, 95])
    # A nearly blank image stays one: its noise is not blown up.
    brightness: NDArray[np.float64] = np.clip((image - light) / max(light - dark, 60) + 1, 0, 1)
    return (110 + 145 * brightness).astype(np.uint8)


def _rows_with_minutiae(
    templates: tuple[FingerprintTemplate | None, FingerprintTemplate | None], height: int
) -> tuple[int, int]:
    """The first row to show and the one after the last: minutiae with some print around them."""
    rows = [int(y) for one in templates if one is not None for y in one.y]
    if not rows:
        return 0, height
    return max(0, min(rows) - 45), min(height, max(rows) + 45)


def _draw_region(axes: "Axes", region: NDArray[np.bool_], shift: int) -> None:
    """A tint over the common part, and a line around it."""
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        points = contour[:, 0] + np.array([shift, 0])
        axes.fill(*points.T, color=OVERLAP_COLOUR, alpha=0.09, linewidth=0)
        axes.plot(*np.vstack([points, points[:1]]).T, color=OVERLAP_COLOUR, linewidth=1.6)


def _draw_pairs(
    axes: "Axes",
    colours: "Colormap",
    comparison: Comparison,
    a: tuple[FingerprintTemplate, NDArray[np.int32], int],
    b: tuple[FingerprintTemplate, NDArray[np.int32], int],
    common: Overlap | None,
) -> None:
    """Lines and minutiae of the pairs, weakest first, so that the strongest lie on top."""
    for k in np.argsort(comparison.contributions, kind="stable"):
        share = min(1.0, float(comparison.contributions[k]) / STRONG_PAIR)
        colour = colours(share)
        ends = [(t.x[paired[k]] + shift, t.y[paired[k]]) for t, paired, shift in (a, b)]
        xs, ys = zip(*ends, strict=True)
        axes.plot(xs, ys, color="white", linewidth=3.2 + 1.2 * share, alpha=0.7, solid_capstyle="round")
        dash = (0, (4, 3)) if common is not None and not common.agreeing[k] else "-"
        axes.plot(xs, ys, color=colour, linewidth=1.2 + 1.2 * share, alpha=0.9, linestyle=dash)
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
    axes.tick_params(length=2, labelsize=10, labelcolor=QUIET, color=QUIET)
    axes.set_title("a pair's share of the score", size=11, color=QUIET, loc="left", pad=4)
    axes.spines[:].set_visible(False)


def draw(explanation: Explanation, names: tuple[str, str]) -> NDArray[np.uint8]:
    """The explanation as a picture, `(H, W, 3) uint8` RGB."""
    a, b = explanation.prints
    captions = [
        "\n".join([f"{label}   {name}", *about(one)])
        for label, name, one in zip("AB", names, (a, b), strict=True)
    ]
    headline, _, rest = explanation.verdict.partition(": ")
    title = [f"{headline[0].upper()}{headline[1:]}", f"{rest[0].upper()}{rest[1:]}"]
    title += [f"{line[0].upper()}{line[1:]}" for line in about_score(explanation)]
    return picture_of_pair(
        a.image,
        b.image,
        a.template,
        b.template,
        explanation.comparison,
        "\n".join(title),
        (captions[0], captions[1]),
        explanation.overlap,
    )


def read_print_or_template(path: Path, ppi: float | None) -> Sample | FingerprintTemplate:
    """A print from its image, its native template, or the first view of its exchange record.

    Raises `ImageRefused`, `TemplateRefused`, `OSError`.
    """
    data = path.read_bytes()
    try:
        if data.startswith(TEMPLATE_MAGIC):
            return FingerprintTemplate.from_bytes(data)
        if data.startswith(RECORD_MAGIC):
            record = read_minutiae_record(data)
            return template_of(record.views[0], record.format)
        return decode_print(data, ppi)
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{path}: {refused}") from refused
    except (TemplateRefused, RecordRefused) as refused:
        raise TemplateRefused(f"{path}: {refused}") from refused
