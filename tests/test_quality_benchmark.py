"""Errors against rejections: exact on a few pairs."""

import numpy as np
import pytest

from benchmarks.quality import REJECTED, area, lost_of_the_rest, rank_correlation

SCORES = np.arange(20.0)


def test_quality_that_says_nothing_changes_nothing() -> None:
    curve = lost_of_the_rest(SCORES, np.full(20, 50.0), 0.1)
    assert curve == pytest.approx(np.full(len(REJECTED), 0.1))
    assert area(curve) == pytest.approx(1)


def test_quality_that_knows_rejects_the_lost_first() -> None:
    curve = lost_of_the_rest(SCORES, SCORES, 0.1)
    assert curve[0] == pytest.approx(0.1)
    assert curve[REJECTED >= 0.1] == pytest.approx(0, abs=1e-12)
    (half,) = np.flatnonzero(np.isclose(REJECTED, 0.05))
    assert curve[half] == pytest.approx(1 / 19)
    assert area(curve) < 0.3


def test_quality_that_errs_makes_it_worse() -> None:
    curve = lost_of_the_rest(SCORES, -SCORES, 0.1)
    assert curve[-1] == pytest.approx(2 / 16)
    assert area(curve) > 1


def test_pairs_of_one_quality_are_rejected_in_equal_shares() -> None:
    quality = np.array([1.0] * 4 + [2.0] * 16)
    curve = lost_of_the_rest(SCORES, quality, 0.1)
    (half,) = np.flatnonzero(np.isclose(REJECTED, 0.1))
    assert curve[half] == pytest.approx(1 / 18)
    assert curve[-1] == pytest.approx(0, abs=1e-12)


def test_rank_correlation() -> None:
    a = np.array([3.0, 1.0, 2.0, 10.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1, 2, 2]), np.array([1.0, 2, 3, 4])) == pytest.approx(
        4 / np.sqrt(20)
    )
