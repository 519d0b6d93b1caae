"""From a comparison score to what it is worth: a likelihood ratio, and the false match rate it stands for.

One class for fingers, irises and faces. The shipped curves were fitted by `benchmarks/calibrate.py` on real
genuine and impostor pairs. They claim nothing the sample does not support: the likelihood ratio is capped on
both sides, by how much detail there is, and no false match rate is below the rule of three (three over the
number of impostor pairs).
"""

import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise

from capture.sample import Modality
from matching.errors import NotCalibrated, ParametersUnavailable, RateUnsupported

FORMAT = 3


@dataclass(frozen=True, slots=True)
class Detail:
    """What decides how much a score can tell, a count: of the template that has less.

    `name` in files; a score is taken as it is where there is `typical` of it; `fewest` or less is all alike.
    """

    name: str
    typical: float
    fewest: float

    def excess(self, count: float) -> float:
        """What the correction of a score is proportional to: 0 where detail is typical."""
        return math.log(max(count, self.fewest) / self.typical)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Two monotone curves over the comparison score, and the sample they rest on.

    `llr_scores`, `llrs`: corners of the log10 likelihood ratio over the corrected score, rising, straight
    between them, constant outside. `correction`: what a template e times as rich scores more by chance.
    `bins`: where a bin of `detail` ends and the next begins; `lowest`, `highest`: what the pairs of each bin
    support. `fmr_scores`, `fmrs`: steps of the false match rate, each an upper 95 % confidence bound that
    holds from its score on; scores rise, rates fall, the last is the smallest that is supported.
    """

    llr_scores: tuple[float, ...]
    llrs: tuple[float, ...]
    correction: float
    bins: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    fmr_scores: tuple[float, ...]
    fmrs: tuple[float, ...]
    genuine_pairs: int
    impostor_pairs: int
    detail: Detail

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
        if not len(self.lowest) == len(self.highest) == len(self.bins) + 1:
            raise ValueError("each bin of detail has a lowest and a highest likelihood ratio")
        if not all(math.isfinite(number) for number in self.bins) or any(
            b <= a for a, b in pairwise(self.bins)
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

    @property
    def floor(self) -> float:
        """The smallest false match rate the sample supports: the rule of three."""
        return 3 / self.impostor_pairs

    def llr(self, score: float, detail: float | None = None) -> float:
        """Log10 of how much more often two samples of one source give this score than two of different ones.

        `detail`: of the template that has less; typical where None. Cost: about 1 us.
        """
        count = self.detail.typical if detail is None else detail
        found = bisect_right(self.bins, count)
        llr = self._llr(score - self.correction * self.detail.excess(count))
        return min(max(llr, self.lowest[found]), self.highest[found])

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


@dataclass(frozen=True, slots=True)
class Scores:
    """A kind of score that is calibrated, and how a file of its calibrations is read.

    `maker`: what makes a template, one word; a file names both makers of a pair, in either order. `version`:
    of the comparison that the curves were fitted to.
    """

    modality: Modality
    maker: str
    version: int
    detail: Detail

    @property
    def makers(self) -> str:
        """Key of the pair of makers in a file."""
        return f"{self.maker}s"

    def shipped(self, first: IntEnum | str, second: IntEnum | str) -> Calibration:
        """As `read`, from the file that comes with this code."""
        return self.read_file(files("matching") / self.modality / "calibration.json", first, second)

    def read_file(self, file: Traversable, first: IntEnum | str, second: IntEnum | str) -> Calibration:
        """As `read`; raises `ParametersUnavailable` where the file cannot be read, too."""
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParametersUnavailable(
                f"the {self.modality} calibration {file} cannot be read: {error}"
            ) from error
        return self.read(text, first, second)

    def read(self, text: str, first: IntEnum | str, second: IntEnum | str) -> Calibration:
        """Find the calibration for templates of two makers in the text of a file.

        Raises `NotCalibrated` where it holds none, `ParametersUnavailable` where it is damaged or fitted for
        another version.
        """
        makers = sorted((first, second), key=str)
        try:
            content = json.loads(text)
            if content["format"] != FORMAT or content["comparison_version"] != self.version:
                raise ParametersUnavailable(
                    f"the {self.modality} calibration was fitted for another version of the comparison: "
                    f"run `python -m benchmarks.calibrate --modality {self.modality}`"
                )
            found = [one for one in content["pairs"] if sorted(one[self.makers], key=str) == makers]
            if not found:
                names = " and ".join(m.name if isinstance(m, IntEnum) else m for m in (first, second))
                raise NotCalibrated(
                    f"{self.modality} templates of {names} are not calibrated together: "
                    f"extract both samples again with one {self.maker}"
                )
            [data] = found
            return Calibration(
                llr_scores=tuple(data["llr_scores"]),
                llrs=tuple(data["llrs"]),
                correction=data["correction"],
                bins=tuple(data[self.detail.name]),
                lowest=tuple(data["lowest"]),
                highest=tuple(data["highest"]),
                fmr_scores=tuple(data["fmr_scores"]),
                fmrs=tuple(data["fmrs"]),
                genuine_pairs=data["genuine_pairs"],
                impostor_pairs=data["impostor_pairs"],
                detail=self.detail,
            )
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ParametersUnavailable(f"the {self.modality} calibration is damaged: {error!r}") from error
