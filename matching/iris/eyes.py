"""The eyes of two encounters compared, in the arrangement of eyes that explains them best."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, permutations
from math import log10

from capture.sample import EyePosition
from matching.fusion import Fusion, fused
from matching.iris.calibration import iris_calibration
from matching.iris.comparison import IrisForm, compare_irises


@dataclass(frozen=True, slots=True)
class Params:
    """Log10 likelihood ratios, unless said otherwise."""

    # how often the eyes are taken for each other among a person's encounters
    swapped_prior: float = -2.0
    # the other arrangement is tried below this; nobody is accused on less
    matched: float = 4.0
    # an eye at or below this does not match
    denied: float = -1.0
    # valid bits an eye needs to be told from a gallery
    min_bits: int = 1000


PARAMS = Params()


class EyeArrangement(StrEnum):
    """How the probe's eyes map to the reference's; an unknown eye may be either."""

    AS_DECLARED = "as_declared"
    EYES_SWAPPED = "eyes_swapped"


@dataclass(frozen=True, slots=True)
class IrisShare:
    """What one pair of eyes adds: the comparison score, its log10 likelihood ratio and false match rate.

    Kept with the score: a later calibration does not change what was decided on. `bits`: compared.
    """

    probe: EyePosition
    reference: EyePosition
    score: float
    llr: float
    fmr: float
    bits: int


@dataclass(frozen=True, slots=True)
class EyesComparison:
    """The log10 likelihood ratio of the eyes together, how they were paired, and what each pair adds.

    `llr`: the shares fused (see `matching.fusion`), less what the arrangement costs a priori; 0 where no eyes
    can be compared.
    """

    llr: float
    arrangement: EyeArrangement
    shares: tuple[IrisShare, ...]


def compare_eyes(probe: Sequence[IrisForm], reference: Sequence[IrisForm]) -> EyesComparison:
    """Compare as declared; where that is no match, with the eyes swapped.

    A missing eye adds nothing. Eyes swapped cost their prior, and unknown eyes the logarithm of their
    choices, so that impostors gain nothing by the maximum. Raises `NotCalibrated` for codes of coders that
    are not calibrated together. Cost: at most four comparisons, 0.1 ms; thread-safe.
    """
    declared = _as_declared(probe, reference)
    if declared.llr >= PARAMS.matched:
        return declared
    swapped = _swapped(probe, reference)
    return swapped if swapped.llr > declared.llr and swapped.shares else declared


def same_eye_twice(irises: Sequence[IrisForm]) -> tuple[tuple[EyePosition, EyePosition, float], ...]:
    """Two eyes of one encounter that are the same eye, with their log10 likelihood ratio.

    At the smallest false match rate the calibration supports, beyond all its impostors.
    """
    found = []
    for a, b in combinations(irises, 2):
        compared = compare_irises(a, b)
        calibration = iris_calibration(a.coder, b.coder)
        if compared.score >= calibration.threshold(calibration.fmrs[-1]):
            found.append((a.eye, b.eye, calibration.llr(compared.score, compared.bits)))
    return tuple(found)


def most_of_eyes(irises: Sequence[IrisForm]) -> float:
    """The largest log10 likelihood ratio that eyes of enough valid bits could reach; 0 without any."""
    llrs = []
    for iris in irises:
        bits = sum(int(word).bit_count() for word in iris.mask)
        if bits >= PARAMS.min_bits:
            llrs.append(iris_calibration(iris.coder, iris.coder).llr(1.0, bits))
    return fused(llrs, Fusion.load().eyes)


def _as_declared(probe: Sequence[IrisForm], reference: Sequence[IrisForm]) -> EyesComparison:
    """Known eyes with their like; unknown ones where they fit best among those left."""
    at = {iris.eye: iris for iris in reference if iris.eye}
    known = [_share(iris, at[iris.eye]) for iris in probe if iris.eye in at]
    taken = {share.probe for share in known}
    left, right = ([i for i in side if i.eye not in taken] for side in (probe, reference))
    swap = len(left) > len(right)
    few, many = (right, left) if swap else (left, right)
    choices = [
        [_share(b, a) if swap else _share(a, b) for a, b in zip(few, chosen, strict=True)]
        for chosen in permutations(many, len(few))
        if all(not (a.eye and b.eye) for a, b in zip(few, chosen, strict=True))
    ]
    best = max(choices, key=lambda shares: sum(s.llr for s in shares), default=[])
    return _together([*known, *best], EyeArrangement.AS_DECLARED, log10(max(len(choices), 1)))


def _swapped(probe: Sequence[IrisForm], reference: Sequence[IrisForm]) -> EyesComparison:
    """Every known eye with the other one."""
    at = {iris.eye: iris for iris in reference if iris.eye}
    shares = [_share(iris, at[iris.eye.other]) for iris in probe if iris.eye and iris.eye.other in at]
    return _together(shares, EyeArrangement.EYES_SWAPPED, -PARAMS.swapped_prior)


def _together(shares: list[IrisShare], arrangement: EyeArrangement, cost: float) -> EyesComparison:
    """What the shares are worth together, less what it cost to choose their arrangement."""
    llr = fused([share.llr for share in shares], Fusion.load().eyes)
    return EyesComparison(llr - cost, arrangement, tuple(shares))


def _share(probe: IrisForm, reference: IrisForm) -> IrisShare:
    """What one pair of eyes adds; neutral where no bit is common to both."""
    compared = compare_irises(probe, reference)
    calibration = iris_calibration(probe.coder, reference.coder)
    llr = calibration.llr(compared.score, compared.bits) if compared.bits else 0.0
    fmr = calibration.fmr(compared.score)
    return IrisShare(probe.eye, reference.eye, compared.score, llr, fmr, compared.bits)
