"""What a score of two fingers is worth.

Strangers rich in detail score more than poor ones, so the score is first corrected for the number of
cylinders of the finger that has fewer. They are counted; a quality would be what a template claims.
"""

from functools import cache

from capture.fingerprint.template import Extractor
from capture.sample import Modality
from matching.calibration import Calibration, Detail, Scores
from matching.fingerprint.comparison import COMPARISON_VERSION

FMR_1E2 = 1e-2
FMR_1E3 = 1e-3
FMR_1E4 = 1e-4
TYPICAL = 30
SCORES = Scores(
    Modality.FINGERPRINT, "extractor", COMPARISON_VERSION, Detail("cylinders", typical=TYPICAL, fewest=10)
)


@cache
def fingerprint_calibration(
    first: Extractor = Extractor.LEADER_1, second: Extractor = Extractor.LEADER_1
) -> Calibration:
    """Read the shipped calibration for templates of two extractors, in either order.

    Raises `NotCalibrated` where there is none, `ParametersUnavailable` where it does not fit this code.
    """
    return SCORES.shipped(first, second)
