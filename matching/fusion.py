"""How likelihood ratios become one.

Fingers of one person are pressed by the same hand on the same day, so their ratios are not independent. For k
equally telling scores, normal with one correlation r between any two, the best ratio is their sum divided by
1 + (k - 1) r: they are worth k / (1 + (k - 1) r) independent ones (their effective number). Here every
further ratio, ordered by size, counts with what it adds to that number, the positive and the negative ones
each for themselves: a ratio of 0 changes nothing, and a larger one never makes the sum smaller.

Modalities are added: finger, iris and face of strangers have nothing to do with each other. How the
correlations were measured, and what follows for thresholds: `docs/decisions/0010-fusion.md`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from matching.errors import ParametersUnavailable

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Fusion:
    """Correlations, 0 to 1, between the ratios of two `fingers` and of both `eyes` of one person."""

    fingers: float
    eyes: float

    def __post_init__(self) -> None:
        # Written so that NaN fails too.
        if not (0 <= self.fingers <= 1 and 0 <= self.eyes <= 1):
            raise ValueError("a correlation between likelihood ratios is 0 to 1")

    @classmethod
    @cache
    def load(cls) -> "Fusion":
        """Read the shipped parameters; raises `ParametersUnavailable` where they do not fit this code."""
        try:
            text = (files("matching") / "fusion.json").read_text(encoding="utf-8")
        except OSError as error:
            raise ParametersUnavailable(f"the parameters of the fusion cannot be read: {error}") from error
        return cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> "Fusion":
        """Parse what `benchmarks/calibrate.py` writes; extra keys are notes for people."""
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ParametersUnavailable("the parameters of the fusion are of another version")
            return cls(fingers=float(content["fingers"]), eyes=float(content["eyes"]))
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ParametersUnavailable(f"the parameters of the fusion are damaged: {error!r}") from error


def effective_number(count: int, correlation: float) -> float:
    """How many independent ratios `count` equally telling ones are worth."""
    return count / (1 + (count - 1) * correlation) if count else 0.0


def fused(llrs: Sequence[float], correlation: float) -> float:
    """One log10 likelihood ratio of several that are correlated; 0 of none. Rises with each; symmetric."""
    positive = sorted((llr for llr in llrs if llr > 0), reverse=True)
    negative = sorted(llr for llr in llrs if llr < 0)
    return sum(
        llr * (effective_number(rank + 1, correlation) - effective_number(rank, correlation))
        for side in (positive, negative)
        for rank, llr in enumerate(side)
    )
