"""How likelihood ratios become one.

Fingers of one person are pressed by the same hand on the same day, so their ratios are not independent. For k
scores, normal with one correlation r between any two, k times passing a threshold together is about as rare
as passing it k / (1 + (k - 1) r) times independently: they are worth so many independent ones (their
effective number). What k agreeing fingers are worth depends on how the scores of strangers go together, what
k denying ones are worth on how a person's own do. So the positive ratios, the largest first, each count with
what one more adds to the effective number, and so do the negative ones. A ratio of 0 changes nothing, and a
larger one never makes the sum smaller.

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
class Dependence:
    """Correlations, 0 to 1, between the scores of two like samples: of strangers, and of one person."""

    strangers: float
    person: float

    def __post_init__(self) -> None:
        # Written so that NaN fails too.
        if not (0 <= self.strangers <= 1 and 0 <= self.person <= 1):
            raise ValueError("a correlation between likelihood ratios is 0 to 1")


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the fingers of one person depend on each other, and how both eyes do."""

    fingers: Dependence
    eyes: Dependence

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
        """Parse what `benchmarks/dependence.py` writes; extra keys are notes for people."""
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ParametersUnavailable("the parameters of the fusion are of another version")
            return cls(
                **{
                    name: Dependence(float(content[name]["strangers"]), float(content[name]["person"]))
                    for name in ("fingers", "eyes")
                }
            )
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ParametersUnavailable(f"the parameters of the fusion are damaged: {error!r}") from error


def effective_number(count: int, correlation: float) -> float:
    """How many independent ratios `count` equally telling ones are worth."""
    return count / (1 + (count - 1) * correlation) if count else 0.0


def fused(llrs: Sequence[float], dependence: Dependence) -> float:
    """One log10 likelihood ratio of several that depend on each other; 0 of none. Cost: 5 us for ten."""
    agreeing = sorted((llr for llr in llrs if llr > 0), reverse=True)
    denying = sorted(llr for llr in llrs if llr < 0)
    return _weighted(agreeing, dependence.strangers) + _weighted(denying, dependence.person)


def _weighted(llrs: Sequence[float], correlation: float) -> float:
    """Each with what it adds to the effective number of those before it."""
    numbers = [effective_number(count, correlation) for count in range(len(llrs) + 1)]
    return sum(llr * (after - before) for llr, before, after in zip(llrs, numbers, numbers[1:], strict=False))
