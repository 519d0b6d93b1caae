"""Pictures of explanations: panels below each other with title, rows of images, notes, legend."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d2733"
QUIET = "#6b7785"
_WIDTH = 15.0  # inches of 100 pixels
_SIDE, _GAP = 0.2, 0.4


class Sheet:
    """Panels that are added from top to bottom; heights in inches of 100 pixels. Not thread-safe."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=(_WIDTH, 1), dpi=100, facecolor="white")
        # How far down what was added begins, and a way to put it there once the height is known.
        self._height = 0.1
        self._axes: list[tuple[Axes, float, float, float, float]] = []
        self._texts: list[tuple[float, float, str, dict[str, object]]] = []

    def title(self, verdict: str, lines: Sequence[str]) -> None:
        """What stands before the verdict's colon as headline, and below it the rest of it and more lines."""
        headline, _, said = verdict.partition(": ")
        below = [said, *lines] if said else lines
        headline, *others = (line[:1].upper() + line[1:] for line in (headline, *below))
        rest = "\n".join(others)
        self._texts.append((_SIDE, self._height + 0.12, headline, {"size": 16, "weight": "bold"}))
        self._height += 0.48
        if rest:
            self._texts.append((_SIDE, self._height + 0.02, rest, {"size": 13, "linespacing": 1.4}))
            self._height += 0.27 * (1 + rest.count("\n"))
        self._height += 0.1

    def row(self, height: float, columns: int) -> list["Axes"]:
        """A row of so many empty panels of equal width, without axes."""
        width = (_WIDTH - 2 * _SIDE - _GAP * (columns - 1)) / columns
        made = []
        for i in range(columns):
            axes = self._figure.add_axes((0, 0, 1, 1), label=str(len(self._axes)))
            axes.axis("off")
            self._axes.append((axes, _SIDE + i * (width + _GAP), self._height, width, height))
            made.append(axes)
        self._height += height + 0.12
        return made

    def label(self, axes: "Axes", text: str) -> None:
        """A small line over a panel."""
        i = next(i for i, (one, *_) in enumerate(self._axes) if one is axes)
        one, left, top, width, height = self._axes[i]
        self._axes[i] = (one, left, top + 0.22, width, height)
        self._texts.append((left, top, text, {"size": 11, "color": QUIET}))
        self._height += 0.22

    def notes(self, texts: Sequence[str], columns: int) -> None:
        """Lines of text beside each other, below what was added last."""
        width = (_WIDTH - 2 * _SIDE - _GAP * (columns - 1)) / columns
        for i, text in enumerate(texts):
            self._texts.append(
                (_SIDE + i * (width + _GAP), self._height, text, {"size": 12, "linespacing": 1.35})
            )
        self._height += 0.25 * max((1 + text.count("\n") for text in texts), default=0) + 0.05

    def legend(self, texts: Sequence[tuple[str, str]]) -> None:
        """Words in their colours, in one line."""
        at = _SIDE
        for text, colour in texts:
            self._texts.append((at, self._height, text, {"size": 11, "color": colour}))
            at += 0.25 + 0.0775 * len(text)
        self._height += 0.3

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, `(H, 1500, 3) uint8` RGB."""
        total = self._height + 0.05
        self._figure.set_size_inches(_WIDTH, total)
        for axes, left, top, width, height in self._axes:
            axes.set_position((left / _WIDTH, 1 - (top + height) / total, width / _WIDTH, height / total))
        for left, top, text, style in self._texts:
            looks = {"color": INK, "va": "top"} | style
            self._figure.text(left / _WIDTH, 1 - top / total, text, **looks)  # type: ignore[arg-type]
        return drawn(self._figure)


def drawn(figure: "Figure") -> NDArray[np.uint8]:
    """A figure as pixels, `(H, W, 3) uint8` RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's canvas is not annotated
    pixels: memoryview = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels, np.uint8)[..., :3].copy()


def tinted(
    pixels: NDArray[np.uint8], where: NDArray[np.bool_], colour: tuple[int, int, int], share: float
) -> NDArray[np.uint8]:
    """`(H, W, 3) uint8` with so much of `colour` where `(H, W) bool` is true."""
    mixed = (1 - share) * pixels + share * np.array(colour)
    return np.where(where[..., None], mixed, pixels).astype(np.uint8)


def measure_lines(measures: Mapping[str, float], each: int) -> list[str]:
    """Measures of a quality in lines of so many."""
    words = [f"{name} {value:.3g}" for name, value in measures.items()]
    return [", ".join(words[k : k + each]) for k in range(0, len(words), each)]
