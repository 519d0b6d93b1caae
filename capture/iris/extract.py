"""Near-infrared image of an eye to template: the pipeline, top to bottom."""

from dataclasses import dataclass

from capture.iris.template import IrisTemplate
from capture.quality import Feedback, Quality
from capture.sample import IrisSample
from capture.trace import Trace, no_trace


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

    __slots__ = ()

    def extract(self, sample: IrisSample, trace: Trace = no_trace) -> IrisExtraction:
        """Template and quality of one eye. A poor sample is an outcome, not an error.

        Trace keys: `highlights` `(H, W) bool`; `pupil`, `limbus` `(3,) float32` x, y, radius in pixels of the
        sample; `eyelids` `(2, 3) float32`; `mask` `(rows, columns) bool` and `rubber_sheet`
        `(rows, columns) float32`; `code` `(G, 8, 2, 128) bool`.
        """
        return IrisExtraction(None, Quality(0, usable=False, feedback=(Feedback.BLANK,)))
