"""From a comparison score to what it is worth: a likelihood ratio, and the false match rate it stands for.

The shipped curves were fitted by `benchmarks/calibrate.py` on real genuine and impostor pairs. They claim
nothing the sample does not support: the likelihood ratio is capped on both sides, by how much detail there
is, and no false match rate is below the rule of three (three over the number of impostor pairs).

Strangers rich in detail score more than poor ones, so the score is first corrected for the number of
cylinders of the finger that has fewer. They are counted; a quality would be what a template claims.
"""

import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

from capture.fingerprint.template import Extractor
from matching.errors import MatchingError, ParametersUnavailable
from matching.fingerprint.comparison import COMPARISON_VERSION

FMR_1E2 = 1e-2
FMR_1E3 = 1e-3
FMR_1E4 = 1e-4
FORMAT = 3
TYPICAL = 30  # cylinders at which a score is taken as it is
FEWEST = 10  # fewer are corrected for like so many


class RateUnsupported(MatchingError):
    """A false match rate was asked for that the calibration sample is too small to support."""


class NotCalibrated(MatchingError):
    """Templates of two extractors that were never calibrated together: their scores say nothing known."""


def detail_of(cylinders: int) -> float:
    """What the correction of a score is proportional to: 0 where detail is typical."""
    return math.log(max(cylinders, FEWEST) / TYPICAL)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Two monotone curves over the comparison score, and the sample they rest on.

    `llr_scores`, `llrs`: corners of the log10 likelihood ratio over the corrected score, rising, straight
    between them, constant outside. `correction`: what a finger e times as rich scores more by chance.
    `cylinders`: where a bin of detail ends and the next begins; `lowest`, `highest`: what the pairs of each
    bin support. `fmr_scores`, `fmrs`: steps of the false match rate, each an upper 95 % confidence bound that
    holds from its score on; scores rise, rates fall, the last is the smallest that is supported.
    `extractors`: of the two templates compared, in either order.
    """

    llr_scores: tuple[float, ...]
    llrs: tuple[float, ...]
    correction: float
    cylinders: tuple[int, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    fmr_scores: tuple[float, ...]
    fmrs: tuple[float, ...]
    genuine_pairs: int
    impostor_pairs: int
    extractors: tuple[Extractor, Extractor]
    comparison_version: int

    def __post_init__(self) -> None:
        curves = ((self.llr_scores, self.llrs, 1), (self.fmr_scores, self.fmrs, -1))
        for scores, values, sign in curves:
            if not scores or len(scores) != len(values):
                raise ValueError("a calibration curve needs as many values as scores")
            if not all(math.isfinite(number) for number in (*scores, *values)):
                raise ValueError("a calibration curve is made of numbers")
            if any(b <= a for a, b in pairwise(scores)):
                raise ValueError("the scores of a calibration curve rise")
            if any(sign * b < sign * a for a, b in pairwise(values)):
                raise ValueError("a likelihood ratio rises and a false match rate falls with the score")
        if not (math.isfinite(self.correction) and self.correction >= 0):
            raise ValueError("calibration corrects for detail that raises the scores of strangers")
        if not len(self.lowest) == len(self.highest) == len(self.cylinders) + 1:
            raise ValueError("each bin of detail has a lowest and a highest likelihood ratio")
        if not all(math.isfinite(number) for number in self.cylinders) or any(
            b <= a for a, b in pairwise(self.cylinders)
        ):
            raise ValueError("the bins of detail of a calibration rise")
        if not all(
            -math.inf < a <= 0 <= b < math.inf for a, b in zip(self.lowest, self.highest, strict=True)
        ):
            raise ValueError("the lowest likelihood ratio is 0 at most, the highest at least")
        if not (self.impostor_pairs > 0 and all(0 <= rate <= 1 for rate in self.fmrs)):
            raise ValueError("a false match rate of a calibration is 0 to 1, of at least one impostor pair")
        if self.fmrs[-1] < self.floor:
            raise ValueError(f"{self.impostor_pairs} impostor pairs do not support an FMR of {self.fmrs[-1]}")

    @classmethod
    @cache
    def load(
        cls, first: Extractor = Extractor.LEADER_1, second: Extractor = Extractor.LEADER_1
    ) -> "Calibration":
        """Read the shipped calibration for templates of two extractors, in either order.

        Raises `NotCalibrated` where there is none, `ParametersUnavailable` where it does not fit this code.
        """
        try:
            text = (files("matching.fingerprint") / "calibration.json").read_text(encoding="utf-8")
        except OSError as error:
            raise ParametersUnavailable(f"the fingerprint calibration cannot be read: {error}") from error
        return cls.from_json(text, first, second)

    @classmethod
    def from_json(
        cls, text: str, first: Extractor = Extractor.LEADER_1, second: Extractor = Extractor.LEADER_1
    ) -> "Calibration":
        """Parse what `benchmarks/calibrate.py` writes; extra keys are notes for people."""
        extractors = (min(first, second), max(first, second))
        try:
            content = json.loads(text)
            if content["format"] != FORMAT or content["comparison_version"] != COMPARISON_VERSION:
                raise ParametersUnavailable(
                    "the fingerprint calibration was fitted for another version of the comparison: "
                    "run benchmarks/calibrate.py"
                )
            found = [one for one in content["pairs"] if tuple(one["extractors"]) == extractors]
            if not found:
                raise NotCalibrated(
                    f"templates of {first.name} and {second.name} are not calibrated together: "
                    "extract both prints again with one extractor"
                )
            [data] = found
            return cls(
                llr_scores=tuple(data["llr_scores"]),
                llrs=tuple(data["llrs"]),
                correction=data["correction"],
                cylinders=tuple(data["cylinders"]),
                lowest=tuple(data["lowest"]),
                highest=tuple(data["highest"]),
                fmr_scores=tuple(data["fmr_scores"]),
                fmrs=tuple(data["fmrs"]),
                genuine_pairs=data["genuine_pairs"],
                impostor_pairs=data["impostor_pairs"],
                extractors=extractors,
                comparison_version=content["comparison_version"],
            )
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ParametersUnavailable(f"the fingerprint calibration is damaged: {error!r}") from error

    @property
    def floor(self) -> float:
        """The smallest false match rate the sample supports: the rule of three."""
        return 3 / self.impostor_pairs

    def llr(self, score: float, cylinders: int = TYPICAL) -> float:
        """Log10 of how much more often one finger gives this score than two do. Cost: about 1 us.

        `cylinders`: of the finger that has fewer.
        """
        detail = bisect_right(self.cylinders, cylinders)
        llr = self._llr(score - self.correction * detail_of(cylinders))
        return min(max(llr, self.lowest[detail]), self.highest[detail])

    def _llr(self, score: float) -> float:
        """Read the curve at a corrected score."""
        right = bisect_right(self.llr_scores, score)
        if right == 0:
            return self.llrs[0]
        if right == len(self.llrs):
            return self.llrs[-1]
        left = right - 1
        share = (score - self.llr_scores[left]) / (self.llr_scores[right] - self.llr_scores[left])
        return self.llrs[left] + share * (self.llrs[right] - self.llrs[left])

    def fmr(self, score: float) -> float:
        """Give the false match rate at this score as threshold: an upper bound, 1 below the first step."""
        step = bisect_right(self.fmr_scores, score)
        return self.fmrs[step - 1] if step else 1.0

    def threshold(self, fmr: float) -> float:
        """Give the smallest score whose false match rate is at most `fmr`; raises `RateUnsupported`."""
        for score, rate in zip(self.fmr_scores, self.fmrs, strict=True):
            if rate <= fmr:
                return score
        raise RateUnsupported(
            f"an FMR of {fmr:g} needs more than the {self.impostor_pairs} impostor pairs "
            f"of this calibration, which support {self.fmrs[-1]:.2g}"
        )
