"""How good a sample is, and what a person can do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Feedback(StrEnum):
    """What is wrong with a sample, as a stable word; `advice` says what to do."""

    BLANK = "blank"
    NOT_A_FINGERPRINT = "not_a_fingerprint"
    TOO_FEW_MINUTIAE = "too_few_minutiae"
    SMALL_CONTACT = "small_contact"
    OFF_CENTRE = "off_centre"
    TOO_DARK = "too_dark"
    TOO_LIGHT = "too_light"
    BLURRED = "blurred"
    INVERTED = "inverted"

    @property
    def advice(self) -> str:
        """One sentence for the person at the device."""
        return _ADVICE[self]


_ADVICE = {
    Feedback.BLANK: "Nothing was captured: place the finger on the sensor.",
    Feedback.NOT_A_FINGERPRINT: "This shows no ridges: capture a finger, not another object or picture.",
    Feedback.TOO_FEW_MINUTIAE: "Too little detail to compare: clean finger and sensor and capture again.",
    Feedback.SMALL_CONTACT: "Too little of the finger touches: lay the finger flat.",
    Feedback.OFF_CENTRE: "The finger is cut off at the edge: place it in the middle of the sensor.",
    Feedback.TOO_DARK: "The print is too dark: press lighter or dry the finger.",
    Feedback.TOO_LIGHT: "The print is too faint: press firmer or moisten the finger.",
    Feedback.BLURRED: "The ridges are smeared: keep the finger still.",
    Feedback.INVERTED: "Ridges were light on dark and have been turned: set the scanner to dark ridges.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """A score of 0 (useless) to 100 (best), the measures behind it, and feedback, worst first.

    ISO/IEC 29794-1 convention. `usable` is false when no template should be made of the sample.
    """

    score: int
    usable: bool
    feedback: tuple[Feedback, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 100:
            raise ValueError(f"quality is 0 to 100, not {self.score}")
