"""Fingerprint image to template: the pipeline, top to bottom."""

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.fast import FastNetwork
from capture.fingerprint.foreground import foreground, has_light_ridges
from capture.fingerprint.leader import Leader, LeaderMap
from capture.fingerprint.quality import fingerprint_quality, ridge_measures, unusable
from capture.fingerprint.template import (
    MAX_MINUTIAE,
    TEMPLATE_PPI,
    Extractor,
    ExtractorChoice,
    FingerprintTemplate,
)
from capture.quality import Feedback, Quality
from capture.sample import Sample
from capture.trace import Trace, no_trace


@dataclass(frozen=True, slots=True)
class Params:
    """`min_score`: network score from which a local maximum is a minutia.

    `min_ending`: probability from which it is an ending, else a bifurcation. `hopeless`: an image below this
    share of what a usable one shows is not worth the network. `min_minutiae`: fewer make no template.
    """

    min_score: float = 0.3
    min_ending: float = 0.5
    max_minutiae: int = MAX_MINUTIAE
    min_minutiae: int = 3
    hopeless: float = 0.5


_PARAMS = Params()
_TURN = np.float32(2 * np.pi)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What came of one sample.

    `template` is None where the image shows nothing to make one of. Where `quality.usable` is false and there
    is one, it may serve if the person cannot give a better print.
    """

    template: FingerprintTemplate | None
    quality: Quality


class Finder(Protocol):
    """Finds the minutiae of one print."""

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """`(n, 5) float32`: x, y, direction (radians), ending, score; best first, ties by row and column.

        `image` `(H, W) uint8` at 500 ppi with dark ridges, `mask` `(H, W) bool` its foreground.
        """


class FingerprintExtractor:
    """Extracts minutiae templates: accurately with the LEADER network, or fast. Thread-safe.

    Creating the first accurate one loads the network, 0.2 s; raises `ModelUnavailable`.
    """

    __slots__ = ("_find", "_made_by", "_params")

    def __init__(self, choice: ExtractorChoice = ExtractorChoice.ACCURATE, params: Params = _PARAMS) -> None:
        self._find, self._made_by = _finder(choice, params)
        self._params = params

    @property
    def made_by(self) -> Extractor:
        """What its templates say they were made by."""
        return self._made_by

    def extract(self, sample: Sample, trace: Trace = no_trace) -> Extraction:
        """Template and quality of one finger. A poor sample is an outcome, not an error.

        Trace keys: `image_500`, `foreground`, `minutiae` (as a `Finder` gives them). Cost:
        `python -m benchmarks.extraction_cost`, one thread.
        """
        image = to_500_ppi(sample).image
        trace("image_500", image)
        mask = foreground(image)
        trace("foreground", mask)
        inverted = has_light_ridges(image, mask)
        if inverted:
            image = 255 - image
        measures = ridge_measures(image, mask)
        hopeless = unusable(measures, leniency=self._params.hopeless)
        if hopeless is not None:
            return Extraction(None, hopeless)
        minutiae = self._find(image, mask)
        trace("minutiae", minutiae)
        quality = unusable(measures) or fingerprint_quality(measures, minutiae[:, 4])
        if len(minutiae) < self._params.min_minutiae:
            return Extraction(None, quality)
        if inverted and quality.usable:
            quality = replace(quality, feedback=(*quality.feedback, Feedback.INVERTED))
        return Extraction(_template(minutiae, image, sample, quality, self._made_by), quality)


def _finder(choice: ExtractorChoice, params: Params) -> tuple[Finder, Extractor]:
    if choice is ExtractorChoice.FAST:
        return FastNetwork(), Extractor.FAST_1
    leader = Leader()
    return lambda image, mask: _minutiae(leader(image, mask), params), Extractor.LEADER_1


def to_500_ppi(sample: Sample) -> Sample:
    """The sample at 500 ppi: averaged over areas when it shrinks, cubic when it grows. Cost: 1 ms."""
    scale = TEMPLATE_PPI / sample.ppi
    height, width = (max(1, round(side * scale)) for side in sample.image.shape)
    if (height, width) == sample.image.shape:
        return sample if sample.ppi == TEMPLATE_PPI else replace(sample, ppi=TEMPLATE_PPI)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(sample.image, (width, height), interpolation=interpolation).astype(np.uint8)
    return replace(sample, image=image, ppi=TEMPLATE_PPI)


def _minutiae(found: LeaderMap, params: Params) -> NDArray[np.float32]:
    """`(n, 5) float32`: x, y, direction, ending, score; best first, ties by row and column."""
    y, x = np.nonzero(found.score >= params.min_score)
    score = found.score[y, x]
    best = np.lexsort((x, y, -score))[: params.max_minutiae]
    y, x = y[best], x[best]
    direction = found.direction[y, x] % _TURN
    # A tiny negative angle is rounded up to a full turn.
    direction[direction >= _TURN] = 0
    ending = found.ending[y, x] >= params.min_ending
    return np.column_stack([x, y, direction, ending, score[best]]).astype(np.float32)


def _template(
    minutiae: NDArray[np.float32],
    image: NDArray[np.uint8],
    sample: Sample,
    quality: Quality,
    made_by: Extractor,
) -> FingerprintTemplate:
    height, width = image.shape
    return FingerprintTemplate(
        x=minutiae[:, 0].copy(),
        y=minutiae[:, 1].copy(),
        direction=minutiae[:, 2].copy(),
        ending=minutiae[:, 3] > 0,
        reliability=np.clip(minutiae[:, 4], 0, 1),
        width=width,
        height=height,
        position=sample.position,
        quality=quality.score,
        extractor=made_by,
    )
