"""What the pages of `rekam evaluate` have in common: figures, tables and pieces of HTML.

A page stands alone: everything is in it, pictures too. It needs neither network nor script, and prints on
paper.
"""

import base64
import io
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.quality import Feedback
from matching.error_rates import Interval
from rekam.offline.evaluate_prints import Curve, FnmrAtFmr, Rates, draw_curves, pooled_pairs
from rekam.offline.panels import INK
from rekam.offline.samples import EvaluationError, Kind, Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_FAILURES = 30
_GENUINE, _IMPOSTOR = "#0f7d6b", "#d8642a"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a page says of its making. Given, not looked up, so that the same page can be made again."""

    date: str
    command: str
    versions: tuple[tuple[str, str], ...]
    extractor: str
    replicates: int
    seed: int


def require_html(path: Path) -> None:
    """Raise `EvaluationError` for a report that is no HTML file."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"--report writes HTML, not {path.name}: name it .html; a browser prints it as PDF"
        )


def versions(*further: str) -> tuple[tuple[str, str], ...]:
    """Name and version of what the figures depend on: these packages and `further` ones."""
    packages = ("rekam", "numpy", "numba", "opencv-python-headless", "onnxruntime", *further)
    return (
        *((package, version(package)) for package in packages),
        ("Python", platform.python_version()),
        ("machine", f"{platform.system()} {platform.machine()}"),
    )


def document(title: str, body: str) -> str:
    """The whole page around its sections."""
    style = (files("rekam.offline") / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


# --- 1. headline


def headline(kind: Kind, compared: Sequence[Scored], pooled: Rates, subjects: int) -> str:
    """Four figures, and what they mean."""
    count = sum(len(one.extracted) for one in compared)
    failed = sum(made.template is None for one in compared for made in one.extracted)
    supported = [at for at in pooled.fnmr_at_fmr if at.fnmr is not None]
    tiles = [
        (
            "equal error rate",
            f"{in_percent(pooled.equal_error_rate.value)} %",
            bounds(pooled.equal_error_rate),
        ),
        *(
            (f"FNMR at FMR {at.fmr:g}", f"{in_percent(at.fnmr.value)} %", bounds(at.fnmr))
            for at in supported[-2:]
            if at.fnmr is not None
        ),
        ("failures to extract", f"{in_percent(failed / count)} %", f"{failed:,} of {count:,} {kind.samples}"),
    ]
    cells = "".join(
        f"<div><small>{name}</small><b>{value}</b><small>{note}</small></div>" for name, value, note in tiles
    )
    text = (
        f"{count:,} {kind.samples} of {subjects:,} {kind.subjects}; {pooled.genuine_pairs:,} genuine and "
        f"{pooled.impostor_pairs:,} impostor pairs"
        + (f", pooled over {len(compared)} sets." if len(compared) > 1 else ".")
    )
    if supported and (last := supported[-1]).fnmr is not None:
        lost = round(last.fnmr.value * pooled.genuine_pairs)
        text += (
            f" With a threshold that lets at most one in {1 / last.fmr:,.0f} pairs of two {kind.subjects} "
            f"pass, {lost:,} of the {pooled.genuine_pairs:,} pairs of one {kind.subject} are missed."
        )
    else:
        text += " There are too few impostor pairs for a rate at any threshold named below."
    return f'<div class="tiles">{cells}</div><p>{text}</p>'


# --- 2. figures of sets


def at_fmr(at: FnmrAtFmr) -> str:
    """An FNMR as a cell, or how many impostor pairs it needs."""
    if at.fnmr is None:
        return f'<span class="quiet">not supported</span><small>needs {at.impostor_pairs_needed:,}</small>'
    return figure(at.fnmr)


def det(compared: Sequence[Scored]) -> str:
    """DET curves of every set and of all together."""
    drawing = new_figure(7.2, 6.6)
    curves = [Curve(one.name, one.pairs, f"C{i % 10}", width=1.5) for i, one in enumerate(compared)]
    if len(compared) > 1:
        curves.append(Curve("all, pooled", pooled_pairs([one.pairs for one in compared]), INK, width=2.6))
    draw_curves(drawing.add_subplot(), curves)
    return plot(drawing, "DET curves of every set, all pairs", "medium") + (
        "<p>A curve ends at the left where one impostor pair is all that its sample has; where it shows no "
        "error, it runs along the frame.</p>"
    )


def histograms(compared: Sequence[Scored], pooled: Rates) -> str:
    """Genuine and impostor scores of every set, on one scale; shares are logarithmic to show the tails.

    The dashed line is the threshold of the smallest FMR that the pooled sample supports.
    """
    from matplotlib.ticker import FuncFormatter

    thresholds = [(at.threshold, at.fmr) for at in pooled.fnmr_at_fmr if at.threshold is not None]
    pooled_over = "pooled " if len(compared) > 1 else ""
    columns = min(2, len(compared))
    rows = math.ceil(len(compared) / columns)
    drawing = new_figure(5.4 * columns if columns > 1 else 8, 2.6 * rows + 0.3)
    top = max(float(one.pairs.score.max(initial=0.0)) for one in compared)
    bins = np.linspace(_left(compared), max(top, 0.01), 61)
    for i, one in enumerate(compared):
        axes = drawing.add_subplot(rows, columns, i + 1)
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
            axes.axvline(threshold, color=INK, linewidth=1, linestyle="--", label=f"{pooled_over}FMR {fmr:g}")
        axes.set(yscale="log", ylim=(smallest / 2, 1), xlim=(bins[0], bins[-1]))
        axes.set_title(one.name, fontsize=10, loc="left", color=INK)
        axes.grid(color="0.93", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.legend(fontsize=8, loc="upper right")
        if i % columns == 0:
            axes.set_ylabel("share of pairs", fontsize=9)
        if i >= len(compared) - columns:
            axes.set_xlabel("comparison score", fontsize=9)
        axes.tick_params(labelsize=8)
    return plot(drawing, "Histograms of genuine and impostor scores", "wide")


def _left(compared: Sequence[Scored]) -> float:
    """Where the scale of scores begins: 0, or a little before the lowest where all are far from it."""
    every = np.concatenate([one.pairs.score for one in compared])
    lowest = float(every[np.isfinite(every)].min(initial=1.0))
    return max(0.0, lowest - 0.02) if lowest > 0.1 else 0.0


def quality(kind: Kind, compared: Sequence[Scored]) -> list[str]:
    """How good the samples are, and what captures could do better."""
    drawing = new_figure(8, 2.6)
    axes = drawing.add_subplot()
    for i, one in enumerate(compared):
        scores = np.sort([made.quality for made in one.extracted])
        share = np.arange(1, len(scores) + 1) / len(scores)
        axes.step(scores, 100 * share, where="post", color=f"C{i % 10}", label=one.name)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="quality", ylabel=f"% of {kind.samples} at or below")
    axes.grid(color="0.93", linewidth=0.6)
    axes.legend(fontsize=8, loc="upper left")
    parts = [plot(drawing, "Cumulative quality of every set", "medium")]
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
    head = [f"{kind.samples} whose capture draws this advice", *(escape(one.name) for one in compared)]
    return [*parts, table(head, rows)]


def verdict(score: float, genuine: bool, pooled: Rates) -> str:
    """Where the pair goes wrong: at the thresholds of the FMRs that the sample supports."""
    supported = [at for at in pooled.fnmr_at_fmr if at.threshold is not None]
    if not supported:
        return "the sample supports no threshold to judge it by"
    wrong = [
        f"{at.fmr:g}" for at in supported if at.threshold is not None and (score < at.threshold) == genuine
    ]
    what = "missed" if genuine else "a false match"
    if wrong:
        return f"{what} at FMR {', '.join(wrong)}"
    return "matches at every FMR named" if genuine else "no match at any FMR named"


def failures(
    kind: Kind, compared: Sequence[Scored], picture: Callable[[int, int], NDArray[np.uint8] | None]
) -> str:
    """The samples without template with the reason; `picture` gives sample j of set i, None if unreadable."""
    rows = []
    failed = [
        (i, j)
        for i, one in enumerate(compared)
        for j, made in enumerate(one.extracted)
        if made.template is None
    ]
    for i, j in failed[:SHOWN_FAILURES]:
        one, image = compared[i], picture(i, j)
        shown = '<span class="quiet">no image</span>'
        if image is not None:
            height, width = image.shape[:2]
            scale = min(1.0, 180 / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
            shown = image_tag(jpeg(small), "thumbnail")
        name = escape(one.files[j].path.name)
        rows.append([shown, f"{name}<small>{escape(one.name)}</small>", escape(one.extracted[j].reason)])
    if not rows:
        return f"<p>Every {kind.sample} gave a template.</p>"
    more = len(failed) - len(rows)
    rest = f"<p>and {more:,} more, which the table of scores and the JSON report name.</p>" if more else ""
    return table([kind.sample, "file", "why"], rows) + rest


# --- 3. pieces of HTML


def section(title: str, *parts: str) -> str:
    """A section of the page; the title is HTML."""
    return f"<section><h2>{title}</h2>\n" + "\n".join(parts) + "\n</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells."""
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table></div>'


def in_percent(share: float) -> str:
    """A share as a number of per cent."""
    return f"{100 * share:.2f}"


def bounds(rate: Interval) -> str:
    """An interval of a rate."""
    if math.isnan(rate.low):
        return "no interval"
    return f"{in_percent(rate.low)} to {in_percent(rate.high)}"


def figure(rate: Interval) -> str:
    """A rate with its interval, as a cell."""
    return f"{in_percent(rate.value)}<small>{bounds(rate)}</small>"


def milli(milliseconds: float) -> str:
    """A time of milliseconds; NaN where it is not known."""
    return "–" if math.isnan(milliseconds) else f"{milliseconds:.0f} ms"


def micro(milliseconds: float) -> str:
    """A time of microseconds, given in milliseconds."""
    return "–" if math.isnan(milliseconds) else f"{1000 * milliseconds:,.0f} µs"


def sentence(text: str) -> str:
    """The text with a capital letter."""
    return f"{text[:1].upper()}{text[1:]}"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=170, layout="constrained", facecolor="white")


def plot(drawing: "Figure", words: str, size: str) -> str:
    """A figure as an image of the page; `words` for those who do not see it."""
    file = io.BytesIO()
    drawing.savefig(file, format="png")
    return image_tag(("png", file.getvalue()), words, size)


def jpeg(picture: NDArray[np.uint8]) -> tuple[str, bytes]:
    """A picture `(H, W)` grey or `(H, W, 3) uint8` RGB as JPEG."""
    stored = picture if picture.ndim == 2 else picture[..., ::-1]
    _, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "jpeg", data.tobytes()


def image_tag(data: tuple[str, bytes], words: str, size: str = "") -> str:
    """An image file, its kind and bytes, within the page."""
    kind, content = data
    encoded = base64.b64encode(content).decode()
    return f'<img class="{size}" alt="{escape(words)}" src="data:image/{kind};base64,{encoded}">'
