"""Agreement of two fingers in their common region."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import cylinders
from matching.fingerprint.overlap import PARAMS, evidence
from tests.minutiae import made_template, moved_template, template_of


def test_evidence_is_the_root_of_a_binomial_likelihood_ratio() -> None:
    chance = PARAMS.by_chance
    ratio = 12 * (0.75 * log(0.75 / chance) + 0.25 * log(0.25 / (1 - chance)))
    assert evidence(9.0, 12.0) == pytest.approx(sqrt(ratio))
    assert evidence(12 * chance, 12.0) == pytest.approx(0, abs=1e-6)
    assert evidence(0.0, 0.0) == pytest.approx(-sqrt(-log(1 - chance)))


def test_few_of_few_say_less_than_many_of_many_and_chance_says_nothing() -> None:
    assert evidence(3.0, 3.0) < evidence(9.0, 10.0) < evidence(36.0, 40.0)
    assert evidence(16.0, 57.0) < evidence(9.0, 10.0)
    assert evidence(1.0, 30.0) < 0


@given(st.floats(0, 60), st.floats(0, 60), st.floats(1, 99))
def test_evidence_rises_with_the_fit(one: float, other: float, common: float) -> None:
    low, high = sorted((min(one, common), min(other, common)))
    assert evidence(low, common) <= evidence(high, common)


@settings(deadline=None)  # the first call loads compiled code
@given(st.integers(0, 2**32 - 1), st.floats(-1.2, 1.2))
def test_partners_are_found_after_turning_and_stretching(seed: int, turn: float) -> None:
    finger = made_template(40, seed, side=280)
    x, y = finger.x.astype(np.float64), finger.y.astype(np.float64)
    bent = template_of(
        40 + x + 9 * np.sin(x / 90), 40 + y + 9 * np.cos(y / 90), finger.direction.astype(np.float64), 380
    )
    a, b = cylinders(finger), cylinders(moved_template(bent, turn, 0, 0))
    found = compare(a, b)
    same = a.minutia[found.partners[:, 0]] == b.minutia[found.partners[:, 1]]
    assert len(same) > 0.8 * min(len(a), len(b))
    assert same.mean() > 0.8


def test_a_part_of_a_finger_matches_by_what_is_common() -> None:
    finger = made_template(60, 5, side=320)
    half = finger.x > 130
    part = template_of(finger.x[half], finger.y[half], finger.direction[half].astype(np.float64), 320)
    found = compare(cylinders(finger), cylinders(part))
    assert len(found.partners) >= 0.9 * len(cylinders(part))
    assert found.common < 1.3 * len(cylinders(part))
    stranger = compare(cylinders(finger), cylinders(made_template(60, 6, side=320)))
    assert found.score > stranger.score + 0.2
