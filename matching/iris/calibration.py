"""What a score of two irises is worth: conditioned on the bits that were compared."""

from functools import cache

from capture.iris.template import IrisCoder
from capture.sample import Modality
from matching.calibration import Calibration, Detail, Scores
from matching.iris.comparison import COMPARISON_VERSION

SCORES = Scores(Modality.IRIS, "coder", COMPARISON_VERSION, Detail("bits", typical=2900, fewest=500))


@cache
def iris_calibration(
    first: IrisCoder = IrisCoder.LOG_GABOR_1, second: IrisCoder = IrisCoder.LOG_GABOR_1
) -> Calibration:
    """Read the shipped calibration for codes of two coders, in either order.

    Raises `NotCalibrated` where there is none, `ParametersUnavailable` where it does not fit this code.
    """
    return SCORES.shipped(first, second)
