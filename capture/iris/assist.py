"""Iris assistance: what to tell the person before a near-infrared camera, frame by frame.

The eye is segmented and measured as the full pipeline does it, and judged by its limits; only the code is
left out, and advice is kept steady.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capture.iris import quality
from capture.iris.extract import PARAMS as EXTRACT
from capture.iris.extract import at_most
from capture.iris.quality import iris_measures, iris_quality
from capture.iris.rubber_sheet import rubber_sheet
from capture.iris.segmentation import Circle, segmented
from capture.quality import Feedback, Quality
from capture.steady_advice import SteadyAdvice

# Share of the way from hopeless to good enough that a measure must have come before its advice is taken back.
_STAYS = replace(quality.PARAMS, advised=0.6)
_ORDER = {word: place for place, word in enumerate(Feedback)}


@dataclass(frozen=True, slots=True, eq=False)
class IrisAssistance:
    """What one frame shows.

    `quality` is of this frame alone, the same that the extractor would give it; `advice` is what to show,
    steady over frames, in an order that does not change. `pupil`, `limbus` in pixels of the frame, None
    without an eye.
    """

    quality: Quality
    advice: tuple[Feedback, ...]
    pupil: Circle | None = None
    limbus: Circle | None = None


class IrisAssistant:
    """Watches one stream of frames of one eye. Not thread-safe."""

    __slots__ = ("_advice",)

    def __init__(self) -> None:
        self._advice = SteadyAdvice(_appears, _stays, Feedback.NO_EYE)

    def look(self, image: NDArray[np.uint8]) -> IrisAssistance:
        """Quality and advice of the next frame, `(H, W) uint8`, one eye, upright.

        Cost: `python -m benchmarks.live_assistance`, one thread.
        """
        small, scale = at_most(image, EXTRACT.max_side)
        if min(small.shape) < EXTRACT.min_side:
            none = Quality(0, usable=False, feedback=(Feedback.NO_EYE,))
            return IrisAssistance(none, self._advice.after(None))
        eye = segmented(small)
        graded = iris_quality(iris_measures(small, eye, rubber_sheet(eye)))
        advice = self._advice.after(graded.measures)
        if Feedback.NO_EYE in graded.feedback:
            return IrisAssistance(graded, advice)
        return IrisAssistance(graded, advice, eye.pupil.of_larger(scale), eye.limbus.of_larger(scale))


def _appears(measures: Mapping[str, float]) -> tuple[Feedback, ...]:
    return _ordered(measures, quality.PARAMS)


def _stays(measures: Mapping[str, float]) -> tuple[Feedback, ...]:
    return _ordered(measures, _STAYS)


def _ordered(measures: Mapping[str, float], limits: quality.Params) -> tuple[Feedback, ...]:
    return tuple(sorted(iris_quality(dict(measures), limits).feedback, key=_ORDER.__getitem__))
