"""Placing one print on another by the pairs of their minutiae."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from rekam.overlap import MM2_PER_PIXEL, PARAMS, Overlap, Role, overlap
from tests.minutiae import made_template, moved_template

COLUMNS = ("x", "y", "direction", "ending", "reliability")


def kept(template: FingerprintTemplate, chosen: NDArray[np.bool_]) -> FingerprintTemplate:
    return replace(template, **{name: getattr(template, name)[chosen] for name in COLUMNS})


def same(*minutiae: int) -> NDArray[np.int32]:
    """Pairs of a minutia with itself."""
    return np.array([(m, m) for m in minutiae], np.int32)


def even(pairs: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.full(len(pairs), 0.02, np.float32)


def found(a: FingerprintTemplate, b: FingerprintTemplate, pairs: NDArray[np.int32]) -> Overlap:
    common = overlap(a, b, pairs, even(pairs))
    assert common is not None
    return common


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.floats(-3, 3), dx=st.integers(-30, 30), dy=st.integers(-30, 30))
def test_a_moved_print_lies_on_itself(seed: int, turn: float, dx: int, dy: int) -> None:
    a = made_template(25, seed, 300)
    b = moved_template(a, turn, dx, dy)
    common = found(a, b, same(0, 3, 6, 9, 12, 15))
    assert common.turn == pytest.approx(turn, abs=1e-3)
    assert common.agreeing.all()
    assert common.stretch < 0.01
    assert common.share > 0.97
    assert np.count_nonzero(common.roles_a == Role.COUNTED) == 6
    # at the very edge a rounded pixel decides whether a minutia is inside
    assert np.count_nonzero(common.roles_a == Role.AGREES) >= 17
    assert not (common.roles_a == Role.ALONE).any()
    assert common.area == pytest.approx(common.region_b.sum() * MM2_PER_PIXEL, rel=0.03)


def test_a_minutia_that_one_print_lacks_is_alone() -> None:
    a = made_template(30, 1, 300)
    without = np.ones(30, np.bool_)
    without[[20, 21, 22]] = False
    where = np.ones((300, 300), np.bool_)
    pairs = same(0, 1, 2, 3, 4, 5)
    common = overlap(a, kept(a, without), pairs, even(pairs), where, where)
    assert common is not None
    assert np.flatnonzero(common.roles_a == Role.ALONE).tolist() == [20, 21, 22]
    assert (common.roles_b != Role.ALONE).all()
    assert common.area == pytest.approx(300 * 300 * MM2_PER_PIXEL)


def test_unsure_minutiae_and_those_outside_stand_aside() -> None:
    a = made_template(30, 2, 300)
    reliability = a.reliability.copy()
    reliability[25:] = 0.1
    a = replace(a, reliability=reliability)
    left = np.zeros((300, 300), np.bool_)
    left[:, :150] = True
    pairs = same(0, 1, 2, 3, 4)
    common = overlap(a, a, pairs, even(pairs), np.ones((300, 300), np.bool_), left)
    assert common is not None
    aside = (a.x > 150) | (np.arange(30) >= 25)
    aside[:5] = False
    assert np.array_equal(common.roles_a == Role.ASIDE, aside)
    assert np.array_equal(common.region_a, left)
    assert common.share == 1


def test_a_wrong_pair_does_not_move_the_placement() -> None:
    a = made_template(30, 3, 300)
    b = moved_template(a, 0.4, 10, -5)
    pairs = np.vstack([same(0, 1, 2, 3, 4), [(7, 20), (8, 21)]]).astype(np.int32)
    common = found(a, b, pairs)
    assert common.turn == pytest.approx(0.4, abs=1e-3)
    assert common.agreeing.tolist() == [True] * 5 + [False] * 2


def test_pairs_that_agree_on_nothing_give_no_placement() -> None:
    a, b = made_template(30, 4, 300), made_template(30, 5, 300)
    random = np.random.default_rng(0)
    lone = np.column_stack([random.permutation(30)[:2], random.permutation(30)[:2]]).astype(np.int32)
    assert overlap(a, b, lone, even(lone)) is None
    assert overlap(a, b, np.zeros((0, 2), np.int32), np.zeros(0, np.float32)) is None


def test_stretched_skin_is_followed_by_mates_and_told() -> None:
    a = made_template(40, 6, 300)
    # to the right the print is stretched by up to 18 pixels, more than mates may lie apart
    b = replace(a, x=(a.x + 18 * (a.x / 300) ** 2).astype(np.float32), width=340)
    spread = np.argsort(a.x, kind="stable")[::4]
    common = found(a, b, same(*spread.tolist()))
    assert common.stretch > 3
    rest = np.setdiff1d(np.arange(40), spread)
    moved = np.abs(b.x - a.x - np.mean(b.x[spread] - a.x[spread]))[rest]
    assert moved.max() > PARAMS.mate * 0.8
    assert np.count_nonzero(common.roles_a[rest] == Role.ALONE) <= 4
    assert np.count_nonzero(common.roles_a[rest] == Role.AGREES) >= 22
