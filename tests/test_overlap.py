"""What two prints have in common: the comparison's own partners and region, as roles and masks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint.comparison import Comparison, compare
from matching.fingerprint.cylinders import cylinders
from rekam.offline.overlap import MM2_PER_PIXEL, Overlap, Role, overlap
from tests.minutiae import made_template, moved_template

COLUMNS = ("x", "y", "direction", "ending", "reliability")


def kept(template: FingerprintTemplate, chosen: NDArray[np.bool_]) -> FingerprintTemplate:
    return replace(template, **{name: getattr(template, name)[chosen] for name in COLUMNS})


def found(a: FingerprintTemplate, b: FingerprintTemplate) -> tuple[Comparison, Overlap]:
    described_a, described_b = cylinders(a), cylinders(b)
    comparison = compare(described_a, described_b)
    common = overlap(a, b, described_a, described_b, comparison)
    assert common is not None
    return comparison, common


def counts(roles: NDArray[np.uint8]) -> list[int]:
    return [int((roles == role).sum()) for role in Role]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.floats(-1.4, 1.4), dx=st.integers(-30, 30), dy=st.integers(-30, 30))
def test_a_moved_print_lies_on_itself(seed: int, turn: float, dx: int, dy: int) -> None:
    a = made_template(30, seed, 300)
    b = moved_template(a, turn, dx, dy)
    comparison, common = found(a, b)
    assert common.turn == pytest.approx(turn, abs=1e-3)
    assert common.agreeing.all()
    assert common.stretch < 0.01
    assert common.share > 0.97
    # a rounded pixel decides on a cylinder at the very edge
    assert counts(common.roles_a)[Role.PARTNER] == len(comparison.partners) >= 0.9 * len(cylinders(a))
    assert counts(common.roles_a)[Role.ALONE] <= 2
    assert common.area == pytest.approx(common.region_b.sum() * MM2_PER_PIXEL, rel=0.03)
    assert common.region_a.shape == (a.height, a.width)
    assert common.region_b.shape == (b.height, b.width)


def test_both_ways_show_the_same() -> None:
    a = made_template(40, 3, 300)
    b = moved_template(kept(a, a.x < 220), 0.7, 12, -9)
    (there, common), (back, other) = found(a, b), found(b, a)
    assert np.array_equal(there.inside_a, back.inside_b)
    assert np.array_equal(there.inside_b, back.inside_a)
    assert there.by_support == back.by_support
    assert common.turn == pytest.approx(-other.turn)
    assert common.stretch == pytest.approx(other.stretch, abs=1e-4)
    assert np.array_equal(common.roles_a, other.roles_b)
    assert common.area == pytest.approx(other.area, rel=0.01)
    assert np.mean(common.region_a == other.region_b) > 0.995


def test_what_is_shown_is_what_the_score_counts() -> None:
    a = made_template(50, 1, 320)
    # one half of a, with some minutiae of its own
    part = kept(a, a.x > 130)
    x = part.x.copy()
    x[:4] -= 25
    b = moved_template(replace(part, x=x), 0.2, 3, 4)
    comparison, common = found(a, b)
    in_a, in_b = counts(common.roles_a), counts(common.roles_b)
    assert in_a[Role.PARTNER] == in_b[Role.PARTNER] == len(comparison.partners)
    for roles, described, inside, side in (
        (common.roles_a, cylinders(a), comparison.inside_a, 0),
        (common.roles_b, cylinders(b), comparison.inside_b, 1),
    ):
        lone = np.setdiff1d(described.minutia[inside], described.minutia[comparison.partners[:, side]])
        assert np.array_equal(np.flatnonzero(roles == Role.ALONE), np.sort(lone))
    assert comparison.common == (comparison.inside_a.sum() + comparison.inside_b.sum()) / 2
    assert in_a[Role.ALONE] >= 2
    # the other half of A stands aside, outside the region
    outside = ~common.region_a[np.rint(a.y).astype(int), np.rint(a.x).astype(int)]
    assert (a.x[common.roles_a == Role.ALONE] > 100).all()
    assert (common.roles_a[outside] == Role.ASIDE).mean() > 0.9
    assert (common.roles_a[a.x < 80] == Role.ASIDE).all()
    assert 0.9 < common.share <= 1


def test_unsure_minutiae_stand_aside() -> None:
    a = made_template(30, 2, 300)
    reliability = a.reliability.copy()
    reliability[25:] = 0.1
    a = replace(a, reliability=reliability)
    _, common = found(a, a)
    assert (common.roles_a[25:] == Role.ASIDE).all()
    assert (common.roles_a[cylinders(a).minutia] == Role.PARTNER).all()


def test_without_support_nothing_is_shown() -> None:
    a, b = made_template(20, 4, 300), made_template(20, 5, 300)
    comparison = compare(cylinders(a), cylinders(b))
    assert comparison.by_support == pytest.approx(comparison.score)
    assert not comparison.inside_a.any()
    assert overlap(a, b, cylinders(a), cylinders(b), comparison) is None


def test_stretched_skin_is_told() -> None:
    a = made_template(40, 6, 300)
    b = replace(a, x=(a.x + 18 * (a.x / 300) ** 2).astype(np.float32), width=340)
    _, common = found(a, b)
    assert 2 < common.stretch < 12
    assert counts(common.roles_a)[Role.PARTNER] >= 30
