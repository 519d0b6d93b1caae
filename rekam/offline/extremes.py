"""The pairs that score least like their kind, and what probably decided each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capture.errors import ImageRefused
from capture.fingerprint.extract import to_500_ppi
from capture.fingerprint.template import FingerprintTemplate
from capture.quality import Feedback
from matching.error_rates import FAILED
from rekam.offline.explain_prints import Explanation, Seen, explain_seen
from rekam.offline.overlap import Overlap, Role
from rekam.offline.prints import Compared, read_print
from rekam.offline.samples import all_pairs


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a fact is named as what probably decided a pair: rules of thumb for people's eyes.

    Nine of ten genuine pairs of the development prints are on the good side of each.

    `agreeing`: share of the score whose pairs must be partners for the common region to be believed.
    """

    small_area: float = 45.0  # square millimetres
    small_share: float = 0.5
    few_minutiae: int = 12
    thin_template: int = 24  # minutiae
    poor_quality: int = 50
    good_quality: int = 70
    partnered: float = 0.7  # of the minutiae in the common region
    stretch: float = 7.5  # pixels
    turn: float = np.pi / 4
    agreeing: float = 0.5
    same_finger: int = 12  # partners


LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Extreme:
    """One pair: its set, the stems of its prints, and its explanation."""

    set_name: str
    names: tuple[str, str]
    genuine: bool
    explanation: Explanation

    @property
    def score(self) -> float:
        """What the comparison gave."""
        return FAILED if self.explanation.comparison is None else self.explanation.comparison.score


def extremes(compared: Sequence[Compared], *, genuine: bool, count: int) -> Iterator[Extreme]:
    """The lowest genuine or the highest impostor scores of all sets, most extreme first.

    Pairs of which a print gave no template are left out: there is nothing to see. Images are read again.
    """
    found: list[tuple[float, int, int]] = []
    for number, result in enumerate(compared):
        scores = result.pairs.score
        kind = np.flatnonzero((result.pairs.genuine == genuine) & np.isfinite(scores))
        order = np.argsort(scores[kind] if genuine else -scores[kind], kind="stable")[:count]
        found += [(float(scores[k]), number, int(k)) for k in kind[order]]
    found.sort(key=lambda one: (one[0] if genuine else -one[0], *one[1:]))
    for _, number, k in found[:count]:
        result = compared[number]
        i, j = (int(side[k]) for side in all_pairs(len(result.extracted)))
        names = result.prints.impressions[i].stem, result.prints.impressions[j].stem
        yield Extreme(result.prints.name, names, genuine, explain_seen(seen(result, i), seen(result, j)))


def seen(result: Compared, i: int) -> Seen:
    """Impression `i` of a set with its image, which is None where it cannot be read."""
    made, impression = result.extracted[i], result.prints.impressions[i]
    image: NDArray[np.uint8] | None
    try:
        image = to_500_ppi(read_print(impression.path, result.prints.ppi)).image
    except (ImageRefused, OSError):
        image = None
    template = None if made.template is None else FingerprintTemplate.from_bytes(made.template)
    return Seen(image, template, made.quality, tuple(Feedback(word) for word in made.feedback))


def causes(explanation: Explanation, *, genuine: bool) -> list[str]:
    """What probably decided a pair that scores unlike its kind, likeliest first; never empty."""
    if explanation.comparison is None:
        return ["One print gave no template."]
    return _genuine_causes(explanation) if genuine else _impostor_causes(explanation)


def _genuine_causes(explanation: Explanation) -> list[str]:
    common = explanation.overlap
    poor = _poor_prints(explanation)
    if common is None or not _placed(explanation, common):
        found = [
            "The pairs that carry the support do not come to lie upon one another: "
            "wrong minutiae were paired, or there is little in common."
        ]
        if all(one.quality >= LIMITS.good_quality for one in explanation.prints):
            found.append("Both prints are good all the same: check that they show one finger.")
        return found + poor
    found = []
    in_a, in_b, partners = _in_common(common)
    if common.area < LIMITS.small_area or common.share < LIMITS.small_share:
        found.append(f"Small common region: {common.area:.0f} mm², {common.share:.0%} of the smaller print.")
    if min(in_a, in_b) < LIMITS.few_minutiae:
        found.append(f"Few minutiae in the common region: {in_a} of A, {in_b} of B.")
    found += poor
    if partners < LIMITS.partnered * max(in_a, in_b):
        found.append(
            f"Only {partners} minutiae of {in_a} of A and {in_b} of B in the common region have a partner: "
            "minutiae were missed or are false, or the prints were laid upon one another wrongly."
        )
    if common.stretch > LIMITS.stretch:
        found.append(f"Stretched skin: partners lie {common.stretch:.1f} pixels apart.")
    if abs(common.turn) > LIMITS.turn:
        found.append(f"Turned by {abs(np.degrees(common.turn)):.0f}° against each other.")
    return found or ["Nothing stands out: a little of everything."]


def _impostor_causes(explanation: Explanation) -> list[str]:
    common = explanation.overlap
    found = []
    if common is not None and _placed(explanation, common):
        in_a, in_b, partners = _in_common(common)
        if partners >= LIMITS.same_finger and partners >= LIMITS.partnered * max(in_a, in_b):
            found.append("So much agrees that it may be one finger under two names: check the names.")
        where = "ridges flow alike" if common.area >= LIMITS.small_area else "within a small area"
        found.append(
            f"{partners} minutiae of {in_a} and {in_b} in the common region have a partner: {where}."
        )
    counts = [0 if one.template is None else len(one.template) for one in explanation.prints]
    if min(counts) < LIMITS.thin_template:
        found.append(f"Few minutiae, {counts[0]} and {counts[1]}: chance agreement weighs more.")
    found += _poor_prints(explanation)
    return found or ["Chance: some pairs always agree among so many prints."]


def _placed(explanation: Explanation, common: Overlap) -> bool:
    """Whether most of the score rests on pairs that are partners too."""
    comparison = explanation.comparison
    if comparison is None:
        return False
    agreeing = comparison.contributions[common.agreeing].sum()
    return bool(agreeing >= LIMITS.agreeing * comparison.contributions.sum())


def _in_common(common: Overlap) -> tuple[int, int, int]:
    """Minutiae of A and of B in the common region, and how many are partners."""
    in_a, in_b = (int((roles != Role.ASIDE).sum()) for roles in (common.roles_a, common.roles_b))
    return in_a, in_b, int((common.roles_a == Role.PARTNER).sum())


def _poor_prints(explanation: Explanation) -> list[str]:
    found = []
    for label, one in zip("AB", explanation.prints, strict=True):
        if one.quality < LIMITS.poor_quality:
            advice = f": {one.feedback[0].advice}" if one.feedback else "."
            found.append(f"Print {label} is poor, quality {one.quality}{advice}")
    return found
