"""Near-infrared image of an eye to template: the pipeline, top to bottom."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.iris.phase_code import phase_code
from capture.iris.quality import iris_measures, iris_quality
from capture.iris.rubber_sheet import rubber_sheet
from capture.iris.segmentation import Circle, Eye, segmented
from capture.iris.template import IrisTemplate, packed
from capture.quality import Feedback, Quality
from capture.sample import IrisSample
from capture.trace import Trace, no_trace


@dataclass(frozen=True, slots=True)
class Params:
    """`max_side`: larger images are shrunk to it; `min_side`: smaller ones show no iris. Pixels."""

    max_side: int = 640
    min_side: int = 48


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class IrisExtraction:
    """What came of one sample.

    `template` is None where the image shows no iris. Where `quality.usable` is false and there is one, it may
    serve if the person cannot give a better picture.
    """

    template: IrisTemplate | None
    quality: Quality


class IrisExtractor:
    """Extracts iris templates. Thread-safe."""

    __slots__ = ("_params",)

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params

    def extract(self, sample: IrisSample, trace: Trace = no_trace) -> IrisExtraction:
        """Template and quality of one eye. A poor sample is an outcome, not an error.

        Trace keys, pixels of the sample: `highlights` `(H, W) bool`; `pupil`, `limbus` `(3,) float32`: x, y,
        radius; `eyelids` `(2, 3) float32`: of the upper and the lower, c0, c1, c2 of the arc
        y = c0 + c1 d + c2 d^2, d = x less that of the limbus, NaN where no lid covers the iris. Unrolled,
        from pupil to limbus: `rubber_sheet` `(64, 512) float32`, `mask` `(64, 512) bool`, true where iris;
        `code` and `code_mask` `(G, 8, 2, 128) bool`. All are traced, whether what was found is an eye or not.
        Cost: `python -m benchmarks.iris`, one thread.
        """
        image, scale = at_most(sample.image, self._params.max_side)
        if min(image.shape) < self._params.min_side:
            return IrisExtraction(None, Quality(0, usable=False, feedback=(Feedback.NO_EYE,)))
        eye = segmented(image)
        _trace_eye(eye, scale, sample.image.shape, trace)
        sheet = rubber_sheet(eye)
        trace("rubber_sheet", sheet.grey)
        trace("mask", sheet.iris)
        quality = iris_quality(iris_measures(image, eye, sheet))
        bits, valid = phase_code(sheet)
        trace("code", bits)
        trace("code_mask", valid)
        if Feedback.NO_EYE in quality.feedback or not valid.any():
            return IrisExtraction(None, quality)
        return IrisExtraction(IrisTemplate(packed(bits), packed(valid), sample.eye, quality.score), quality)


def at_most(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """The image `(H, W)`, shrunk where its longer side is longer, and by how much it was."""
    scale = side / max(image.shape)
    if scale >= 1:
        return image, 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8), scale


def _trace_eye(eye: Eye, scale: float, shape: tuple[int, ...], trace: Trace) -> None:
    if trace is no_trace:
        return

    def circle(one: Circle) -> NDArray[np.float32]:
        larger = one.of_larger(scale)
        return np.array([larger.x, larger.y, larger.radius], np.float32)

    limbus = circle(eye.limbus)
    arcs = [
        (np.nan,) * 3 if lid is None else (limbus[1] + lid.c0 / scale, lid.c1, lid.c2 * scale)
        for lid in (eye.upper, eye.lower)
    ]
    highlights = eye.highlights.astype(np.uint8)
    if highlights.shape != shape:
        highlights = cv2.resize(highlights, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    trace("highlights", highlights > 0)
    trace("pupil", circle(eye.pupil))
    trace("limbus", limbus)
    trace("eyelids", np.array(arcs, np.float32))
