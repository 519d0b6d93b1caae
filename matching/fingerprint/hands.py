"""The fingers of two encounters compared, in the arrangement of fingers that explains them best."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import log10

import numpy as np
from numpy.typing import NDArray

from capture.errors import TemplateRefused
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.sample import FingerPosition
from matching.errors import GalleryDamaged
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.code import finger_code
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import Cylinders, cylinders
from matching.fusion import Fusion, fused


@dataclass(frozen=True, slots=True)
class Params:
    """Log10 likelihood ratios, unless said otherwise."""

    # how often the hands are taken for each other, and fingers for one another, among a person's encounters
    swapped_prior: float = -2.0
    rearranged_prior: float = -3.0
    # other arrangements are tried below this; nobody is accused on less
    matched: float = 4.0
    # an arrangement is given up unless its two strongest fingers together reach this
    promising: float = 2.0
    # a finger that fell below this is tried against the others that did
    missed: float = 0.0
    # cylinders that make a finger telling; more only make it slower
    telling: int = 35
    # a finger at or below this does not match, if both its prints have this many cylinders
    denied: float = -1.0
    rich_cylinders: int = 20
    # valid cylinders a finger needs to be told from a gallery: below, one damaged print in three is found
    min_cylinders: int = 12


PARAMS = Params()


class FingerForm:
    """One finger, ready to be compared and searched: its template, and what is made of it when asked for.

    Cylinders and code are made once and kept; two threads that ask at once make the same. A form that a
    gallery hands out reads its template when it is needed, and may raise `GalleryDamaged` then.
    """

    __slots__ = ("_code", "_cylinders", "_native", "_template", "position")

    def __init__(self, template: FingerprintTemplate) -> None:
        self.position = template.position
        self._template: FingerprintTemplate | None = template
        self._native = b""
        self._cylinders: Cylinders | None = None
        self._code: NDArray[np.uint64] | None = None

    @classmethod
    def stored(cls, position: FingerPosition, native: bytes) -> "FingerForm":
        """A finger whose template is kept as native bytes."""
        form = cls.__new__(cls)
        form.position, form._native = position, native
        form._template = form._cylinders = form._code = None
        return form

    @property
    def template(self) -> FingerprintTemplate:
        """What the form is made of."""
        if self._template is None:
            try:
                self._template = FingerprintTemplate.from_bytes(self._native)
            except TemplateRefused as error:
                raise GalleryDamaged(f"a template of the gallery cannot be read: {error}") from error
        return self._template

    @property
    def native(self) -> bytes:
        """The template's native bytes."""
        return self._native or self.template.to_bytes()

    @property
    def extractor(self) -> Extractor:
        """What found the minutiae."""
        return self.template.extractor

    @property
    def cylinders(self) -> Cylinders:
        """For exact comparison. Cost: 0.2 ms the first time."""
        if self._cylinders is None:
            self._cylinders = cylinders(self.template)
        return self._cylinders

    @property
    def code(self) -> NDArray[np.uint64]:
        """`(CODE_WORDS,) uint64`, for search. Cost: that of `finger_code` the first time."""
        if self._code is None:
            self._code = finger_code(self.template)
        return self._code


def finger_form(template: FingerprintTemplate) -> FingerForm:
    """Prepare a template to be compared and searched."""
    return FingerForm(template)


class Arrangement(StrEnum):
    """How the probe's fingers map to the reference's.

    `REARRANGED` whenever any finger maps to another position, an unknown one included.
    """

    AS_DECLARED = "as_declared"
    HANDS_SWAPPED = "hands_swapped"
    REARRANGED = "rearranged"


@dataclass(frozen=True, slots=True)
class FingerShare:
    """What one pair of fingers adds: the comparison score, its log10 likelihood ratio and false match rate.

    Both are kept with the score: a later calibration does not change what was decided on. `cylinders`: of the
    finger that has fewer.
    """

    probe: FingerPosition
    reference: FingerPosition
    score: float
    llr: float
    fmr: float
    cylinders: int


@dataclass(frozen=True, slots=True)
class FingersComparison:
    """The log10 likelihood ratio of the fingers together, how they were paired, and what each pair adds.

    `llr`: the shares fused (see `matching.fusion`), less what the arrangement costs a priori; 0 where no
    fingers can be compared.
    """

    llr: float
    arrangement: Arrangement
    shares: tuple[FingerShare, ...]


def compare_fingers(probe: Sequence[FingerForm], reference: Sequence[FingerForm]) -> FingersComparison:
    """Compare as declared; where that is no match, with the hands swapped, then in any order.

    A finger missing on either side adds nothing. Each arrangement but the declared one costs its prior, and
    each freely assigned finger the logarithm of its choices, so that impostors gain nothing by the maximum.
    Every two fingers are judged by the calibration of their extractors; raises `NotCalibrated` where there is
    none. Cost for ten fingers: ten comparisons if they match, else about twenty; thread-safe.
    """
    pairs = _Pairs(probe, reference)
    # 1. as declared, fingers of unknown position where they fit best
    best = _as_declared(pairs)
    # 2. the other hand
    if best.llr < PARAMS.matched:
        best = max(best, _hands_swapped(pairs), key=_llr)
    # 3. any order: all fingers if nothing matched, else those that did not
    if best.llr < PARAMS.matched:
        best = max(best, _any_order(pairs), key=_llr)
    elif best.arrangement is Arrangement.AS_DECLARED:
        best = max(best, _partly_reordered(pairs, best), key=_llr)
    return best


def likeness(probe: Sequence[FingerForm], reference: Sequence[FingerForm]) -> float:
    """The log10 likelihood ratio of these fingers as declared or with the hands swapped, to rank candidates.

    What `compare_fingers` tries first, without the arrangements that cost most; thread-safe.
    """
    pairs = _Pairs(probe, reference)
    declared = _as_declared(pairs)
    return declared.llr if declared.llr >= PARAMS.matched else max(declared.llr, _hands_swapped(pairs).llr)


def same_finger_twice(
    fingers: Sequence[FingerForm],
) -> tuple[tuple[FingerPosition, FingerPosition, float], ...]:
    """Pairs of positions of one encounter that show the same finger, with their log10 likelihood ratio.

    A pair counts at the smallest false match rate the calibration supports, beyond all its impostors, among
    them the fingers of one hand. Cost: 45 comparisons for ten fingers; thread-safe.
    """
    found = []
    for a, b in combinations(fingers, 2):
        score = similarity(a.cylinders, b.cylinders)
        calibration = fingerprint_calibration(a.extractor, b.extractor)
        if score >= calibration.threshold(calibration.fmrs[-1]):
            fewer = min(len(a.cylinders), len(b.cylinders))
            found.append((a.position, b.position, calibration.llr(score, fewer)))
    return tuple(found)


def most_of_fingers(fingers: Sequence[FingerForm]) -> float:
    """The largest log10 likelihood ratio that fingers of 12 valid cylinders or more could reach; 0 without.

    Each is worth what the calibration sample supports at most: one is enough in a small gallery only.
    """
    return fused(
        [
            fingerprint_calibration(f.extractor, f.extractor).llr(1.0, len(f.cylinders))
            for f in fingers
            if len(f.cylinders) >= PARAMS.min_cylinders
        ],
        Fusion.load().fingers,
    )


_NOTHING = FingersComparison(float("-inf"), Arrangement.REARRANGED, ())


def _llr(comparison: FingersComparison) -> float:
    return comparison.llr


class _Pairs:
    """Scores of pairs of fingers, computed when asked for and remembered."""

    __slots__ = ("_known", "probe", "probe_order", "reference")

    def __init__(self, probe: Sequence[FingerForm], reference: Sequence[FingerForm]) -> None:
        self.probe = probe
        self.reference = reference
        self.probe_order = sorted(range(len(self.probe)), key=self._usefulness)
        self._known: dict[tuple[int, int], FingerShare] = {}

    def _usefulness(self, i: int) -> tuple[bool, int, int]:
        """Telling fingers first, the cheapest of them first; then those with most cylinders."""
        n = len(self.probe[i].cylinders)
        return (False, n, i) if n >= PARAMS.telling else (True, -n, i)

    def share(self, i: int, j: int) -> FingerShare:
        """What finger i of the probe and finger j of the reference add; neutral where either is empty."""
        if (i, j) not in self._known:
            a, b = self.probe[i], self.reference[j]
            score = similarity(a.cylinders, b.cylinders)
            evidence = len(a.cylinders) > 0 and len(b.cylinders) > 0
            calibration = fingerprint_calibration(a.extractor, b.extractor)
            fewer = min(len(a.cylinders), len(b.cylinders))
            llr = calibration.llr(score, fewer) if evidence else 0.0
            fmr = calibration.fmr(score)
            self._known[i, j] = FingerShare(a.position, b.position, score, llr, fmr, fewer)
        return self._known[i, j]


def _as_declared(pairs: _Pairs) -> FingersComparison:
    at = {finger.position: j for j, finger in enumerate(pairs.reference) if finger.position}
    paired = {i: at[f.position] for i, f in enumerate(pairs.probe) if f.position in at}
    shares = [pairs.share(i, j) for i, j in paired.items()]
    free = [j for j in range(len(pairs.reference)) if j not in paired.values()]
    found, cost = sum(share.llr for share in shares), 0.0
    for i in pairs.probe_order:
        if i in paired:
            continue
        # a finger of unknown position may be any that is left, a known one only one of unknown position
        unknown = not pairs.probe[i].position
        choices = [j for j in free if unknown or not pairs.reference[j].position]
        if choices and found - cost > -PARAMS.promising:
            j, share = _best(pairs, i, choices)
            free.remove(j)
            shares.append(share)
            found += share.llr
            cost += log10(len(choices))
    moved = any(share.probe != share.reference for share in shares)
    return _together(shares, Arrangement.REARRANGED if moved else Arrangement.AS_DECLARED, cost)


def _together(shares: list[FingerShare], arrangement: Arrangement, cost: float) -> FingersComparison:
    """What the shares are worth together, less what it cost to choose their arrangement."""
    llr = fused([share.llr for share in shares], Fusion.load().fingers)
    return FingersComparison(llr - cost, arrangement, tuple(shares))


def _best(pairs: _Pairs, i: int, choices: list[int]) -> tuple[int, FingerShare]:
    """The choice that fits finger i best, and its share."""
    j = max(choices, key=lambda j: (pairs.share(i, j).llr, -j))
    return j, pairs.share(i, j)


def _hands_swapped(pairs: _Pairs) -> FingersComparison:
    """Every finger with its like of the other hand, given up after two that promise nothing."""
    at = {finger.position: j for j, finger in enumerate(pairs.reference) if finger.position}
    shares: list[FingerShare] = []
    for i in pairs.probe_order:
        j = at.get(pairs.probe[i].position.other_hand)
        if j is None:
            continue
        shares.append(pairs.share(i, j))
        if len(shares) == 2 and shares[0].llr + shares[1].llr < PARAMS.promising:
            return _NOTHING
    if not shares:
        return _NOTHING
    return _together(shares, Arrangement.HANDS_SWAPPED, -PARAMS.swapped_prior)


def _any_order(pairs: _Pairs) -> FingersComparison:
    """Each finger where it fits best among those left, strongest first, given up early."""
    free = list(range(len(pairs.reference)))
    shares: list[FingerShare] = []
    gained, cost = 0.0, -PARAMS.rearranged_prior
    for i in pairs.probe_order:
        if not free:
            break
        j, share = _best(pairs, i, free)
        gained += share.llr - log10(len(free))
        cost += log10(len(free))
        free.remove(j)
        shares.append(share)
        if gained < min(2, len(shares)) * PARAMS.promising / 2:
            return _NOTHING
    return _together(shares, Arrangement.REARRANGED, cost)


def _partly_reordered(pairs: _Pairs, declared: FingersComparison) -> FingersComparison:
    """A match in which some fingers missed: those tried among themselves, in any order."""
    missed = {share.probe for share in declared.shares if share.probe and share.llr < PARAMS.missed}
    if len(missed) < 2:
        return _NOTHING
    shares = [share for share in declared.shares if share.probe not in missed]
    free = [j for j, finger in enumerate(pairs.reference) if finger.position in missed]
    found, cost = False, -PARAMS.rearranged_prior
    for i in pairs.probe_order:
        if pairs.probe[i].position in missed:
            j, share = _best(pairs, i, free)
            cost += log10(len(free))
            free.remove(j)
            shares.append(share)
            found |= share.llr >= PARAMS.promising
    return _together(shares, Arrangement.REARRANGED, cost) if found else _NOTHING
