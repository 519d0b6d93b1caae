from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from benchmarks.population import impression, person
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.sample import FingerPosition as Finger
from matching.calibration import Calibration
from matching.encounter import (
    Arrangement,
    EncounterComparison,
    compare_encounters,
    encounter_form,
    enough_evidence,
    same_finger_twice,
)
from matching.errors import NotCalibrated
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fusion import Fusion, fused
from tests.prints import at, cut

RIGHT = (Finger.RIGHT_THUMB, Finger.RIGHT_INDEX, Finger.RIGHT_MIDDLE)
LEFT = tuple(finger.other_hand for finger in RIGHT)
SIX = RIGHT + LEFT


@pytest.fixture(scope="module")
def enrolled() -> tuple[FingerprintTemplate, ...]:
    return person(0, 7, SIX)


@pytest.fixture(scope="module")
def again(enrolled: tuple[FingerprintTemplate, ...]) -> tuple[FingerprintTemplate, ...]:
    rng = np.random.default_rng(7)
    return tuple(impression(template, rng) for template in enrolled)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fingerprint_calibration()


def compared(a: tuple[FingerprintTemplate, ...], b: tuple[FingerprintTemplate, ...]) -> EncounterComparison:
    return compare_encounters(encounter_form(a), encounter_form(b))


def test_llr_is_the_sum_of_the_shares_as_declared(
    enrolled: tuple[FingerprintTemplate, ...],
    again: tuple[FingerprintTemplate, ...],
    calibration: Calibration,
) -> None:
    found = compared(again, enrolled)
    assert found.arrangement is Arrangement.AS_DECLARED
    assert found.llr == fused([share.llr for share in found.shares], Fusion.load().fingers)
    assert [share.probe for share in found.shares] == [share.reference for share in found.shares] == list(SIX)
    assert all(share.llr == calibration.llr(share.score, share.cylinders) for share in found.shares)
    assert found.llr > 10


def test_strangers_do_not_match(enrolled: tuple[FingerprintTemplate, ...]) -> None:
    assert max(compared(person(i, 7, SIX), enrolled).llr for i in range(1, 9)) < 0


def test_swapped_hands_match_and_are_noticed(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    swapped = tuple(at(template, template.position.other_hand) for template in again)
    found = compared(swapped, enrolled)
    assert found.arrangement is Arrangement.HANDS_SWAPPED
    assert found.llr > 10
    assert all(share.reference is share.probe.other_hand for share in found.shares)
    assert (
        found.llr == fused([s.llr for s in found.shares], Fusion.load().fingers) - 2
    )  # the hypothesis has its price


def test_fingers_in_another_order_match_and_are_noticed(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    turned = tuple(at(again[(i + 1) % 6], finger) for i, finger in enumerate(SIX))
    found = compared(turned, enrolled)
    assert found.arrangement is Arrangement.REARRANGED
    assert found.llr > 8
    assert {(SIX.index(s.probe) + 1) % 6 for s in found.shares} == {
        SIX.index(s.reference) for s in found.shares
    }


def test_two_exchanged_fingers_are_noticed(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    exchanged = (at(again[1], SIX[0]), at(again[0], SIX[1]), *again[2:])
    found = compared(exchanged, enrolled)
    assert found.arrangement is Arrangement.REARRANGED
    moved = {(share.probe, share.reference) for share in found.shares if share.probe is not share.reference}
    assert moved == {(SIX[0], SIX[1]), (SIX[1], SIX[0])}


def test_unknown_positions_are_found_at_a_price(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    unknown = tuple(at(template, Finger.UNKNOWN) for template in again)
    found = compared(unknown, enrolled)
    assert found.arrangement is Arrangement.REARRANGED
    assert found.llr > 10
    assert {share.reference for share in found.shares} == set(SIX)
    together = fused([share.llr for share in found.shares], Fusion.load().fingers)
    assert found.llr == pytest.approx(together - np.log10(720))


def test_missing_fingers_add_nothing(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    whole, part = compared(again, enrolled), compared(again[:2], enrolled[1:])
    assert part.shares == whole.shares[1:2]
    assert part.llr == whole.shares[1].llr
    assert compared(again[:1], enrolled[1:2]).llr == 0


def test_a_finger_without_minutiae_is_neutral(enrolled: tuple[FingerprintTemplate, ...]) -> None:
    assert compared((cut(enrolled[0], 0),), enrolled).llr == 0
    assert compared((), enrolled) == EncounterComparison(0, Arrangement.AS_DECLARED, ())


def test_a_position_given_twice_is_refused(enrolled: tuple[FingerprintTemplate, ...]) -> None:
    with pytest.raises(ValueError, match="twice"):
        encounter_form((enrolled[0], enrolled[0]))


def test_one_finger_under_two_positions_is_found(
    enrolled: tuple[FingerprintTemplate, ...],
) -> None:
    rng = np.random.default_rng(3)
    twice = (*enrolled[:3], at(impression(enrolled[1], rng), Finger.LEFT_INDEX), *enrolled[5:])
    [(a, b, llr)] = same_finger_twice(encounter_form(twice))
    assert (a, b) == (Finger.RIGHT_INDEX, Finger.LEFT_INDEX)
    assert llr > 2
    assert same_finger_twice(encounter_form(enrolled)) == ()


def test_distinct_fingers_of_a_person_are_not_taken_for_one() -> None:
    forms = [encounter_form(person(i, 11)) for i in range(20)]
    pairs = sum(len(list(combinations(form.fingers, 2))) for form in forms)
    assert pairs == 900
    assert sum(len(same_finger_twice(form)) for form in forms) == 0


def test_evidence_is_enough_where_the_fingers_could_reach_a_review(
    enrolled: tuple[FingerprintTemplate, ...],
) -> None:
    one, two = encounter_form(enrolled[:1]), encounter_form(enrolled[:2])
    small, large = 2.0, 5.0  # a review among 10 and among 10,000
    assert enough_evidence(one, small)
    assert not enough_evidence(one, large)
    assert enough_evidence(two, large)
    smear = encounter_form(tuple(cut(template, 8) for template in enrolled))
    assert not enough_evidence(smear, small)
    assert not enough_evidence(encounter_form(()), small)


def test_each_pair_of_fingers_is_judged_by_the_calibration_of_its_extractors(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    fast = tuple(replace(template, extractor=Extractor.FAST_1) for template in again)
    for probe, extractors in (
        (again, (Extractor.LEADER_1, Extractor.LEADER_1)),
        (fast, (Extractor.FAST_1, Extractor.LEADER_1)),
    ):
        calibration = fingerprint_calibration(*extractors)
        for share in compared(probe, enrolled).shares:
            assert share.llr == calibration.llr(share.score, share.cylinders)
            assert share.fmr == calibration.fmr(share.score)
    foreign = tuple(replace(template, extractor=Extractor.FOREIGN) for template in again)
    with pytest.raises(NotCalibrated, match="FOREIGN"):
        compared(foreign, enrolled)


def test_mixed_fingers_agree_and_deny(
    enrolled: tuple[FingerprintTemplate, ...], again: tuple[FingerprintTemplate, ...]
) -> None:
    mixed = compared((*again[:3], *person(1, 7, SIX)[3:]), enrolled)
    assert mixed.denied
    assert mixed.agreeing > mixed.llr
    assert mixed.agreeing > 9
    whole = compared(again, enrolled)
    assert not whole.denied
    assert whole.agreeing < whole.llr
    assert compared((), enrolled).agreeing == float("-inf")
