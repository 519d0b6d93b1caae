"""Error rates: small cases by hand, brute force, and what must hold for any scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from matching.error_rates import (
    FAILED,
    Interval,
    Pairs,
    impostors_needed,
    interval,
    operating_points,
    resampled_fingers,
    resampled_points,
)

# few distinct values, so that ties within and between the classes are common; failures among them
scores = st.lists(st.one_of(st.integers(-4, 8).map(float), st.just(FAILED)), min_size=1, max_size=30).map(
    np.array
)
finite_scores = st.lists(st.integers(-4, 8).map(float), min_size=1, max_size=30).map(np.array)


def array(*values: float) -> NDArray[np.float64]:
    return np.array(values, np.float64)


def test_operating_points_of_five_scores() -> None:
    points = operating_points(array(2, 3, 3), array(1, 2))
    assert points.threshold.tolist() == [1, 2, 3, np.inf]
    assert points.fmr.tolist() == [1, 0.5, 0, 0]
    assert points.fnmr.tolist() == [0, 0, 1 / 3, 1]


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        (array(5, 6), array(1, 2), 0.0),  # apart
        (array(1, 2), array(5, 6), 1.0),  # the wrong way round
        (array(4, 4, 4), array(4, 4), 0.5),  # all alike
        (array(1, 6, 7, 8), array(2, 3, 4, 5), 0.25),  # one genuine pair below every impostor
        (array(1, 1, 7, 8), array(2, 3, 4, 9), 0.5),  # half the genuine pairs lie below: FNMR waits for FMR
        (
            array(2, 5, 6),
            array(1, 2),
            0.2,
        ),  # tie of one and one: (1/2, 0) to (0, 1/3) meets the diagonal at 1/5
        (
            array(FAILED, 5, 6, 7),
            array(1, 2, 3, 4),
            0.25,
        ),  # a failure is a non-match however low the threshold
        (array(FAILED, FAILED, FAILED, 9), array(FAILED, 1), 0.6),  # too many failures: (1, 0) to (1/2, 3/4)
    ],
)
def test_equal_error_rate_by_hand(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64], expected: float
) -> None:
    assert operating_points(genuine, impostor).equal_error_rate == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        (array(5, 6), array(1, 2), 0.0),  # apart
        (array(1, 6, 7, 8), array(2, 3, 4, 5), 0.25),  # FMR and FNMR meet at 1/4
        (array(1, 6, 7, 8), array(0, 3), 0.125),  # (1/2, 1/4) or (0, 1/4): the second
        (array(1, 1, 7, 8), array(0, 1), 0.25),  # (1/2, 0) or (0, 1/2), both sums are 1/2
    ],
)
def test_fvc_equal_error_rate_by_hand(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64], expected: float
) -> None:
    assert operating_points(genuine, impostor).fvc_equal_error_rate == expected


@given(genuine=scores, impostor=scores)
def test_fvc_equal_error_rate_agrees_with_its_definition(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> None:
    thresholds = [-np.inf, *np.nextafter(np.unique(np.concatenate([genuine, impostor])), np.inf)]
    fmr = [float(np.mean(impostor >= t)) for t in thresholds]
    fnmr = [float(np.mean(genuine < t)) for t in thresholds]
    t1 = max(i for i in range(len(thresholds)) if fnmr[i] <= fmr[i])
    t2 = min(i for i in range(len(thresholds)) if fnmr[i] >= fmr[i])
    low, high = (fnmr[t1], fmr[t1]) if fnmr[t1] + fmr[t1] <= fnmr[t2] + fmr[t2] else (fmr[t2], fnmr[t2])
    assert operating_points(genuine, impostor).fvc_equal_error_rate == (low + high) / 2


def test_fnmr_at_fmr_by_hand() -> None:
    impostor = np.arange(1000, dtype=np.float64)
    genuine = array(5, 989, 989.5, 990, 998, 999, 2000, FAILED)
    points = operating_points(genuine, impostor)
    # ten impostors of a thousand may match, 990 to 999: the threshold lies just above 989
    assert points.at_fmr(1e-2) == (np.nextafter(989, np.inf), 3 / 8)
    assert points.at_fmr(1e-3) == (np.nextafter(998, np.inf), 6 / 8)
    assert points.at_fmr(1e-4) == (np.nextafter(999, np.inf), 7 / 8)
    assert points.at_fmr(1.0) == (-np.inf, 0.0)


def test_a_tie_of_impostors_is_passed_whole() -> None:
    points = operating_points(array(3, 5), np.repeat([1.0, 4.0], [90, 10]))
    assert points.at_fmr(0.09) == (np.nextafter(4, np.inf), 0.5)
    assert points.at_fmr(0.10) == (np.nextafter(1, np.inf), 0.0)


def test_impostors_needed() -> None:
    assert [impostors_needed(fmr) for fmr in (1e-2, 1e-3, 1e-4, 0.3)] == [100, 1000, 10_000, 4]


def test_a_class_without_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one genuine and one impostor"):
        operating_points(array(), array(1))


@given(genuine=scores, impostor=scores)
def test_points_are_monotone_and_agree_with_counting(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> None:
    points = operating_points(genuine, impostor)
    assert np.all(np.diff(points.fmr) <= 0)
    assert np.all(np.diff(points.fnmr) >= 0)
    assert (points.fmr[0], points.fnmr[0], points.fmr[-1], points.fnmr[-1]) == (1, 0, 0, 1)
    for threshold, fmr, fnmr in zip(points.threshold, points.fmr, points.fnmr, strict=True):
        assert fmr == np.mean(impostor >= threshold)
        assert fnmr == np.mean(genuine < threshold)


@given(genuine=scores, impostor=scores, fmr=st.sampled_from([0.0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_fnmr_at_fmr_agrees_with_trying_every_threshold(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64], fmr: float
) -> None:
    occurring = np.unique(np.concatenate([genuine, impostor]))
    tried = [-np.inf, *np.nextafter(occurring, np.inf)]
    smallest = min(t for t in tried if np.mean(impostor >= t) <= fmr)
    assert operating_points(genuine, impostor).at_fmr(fmr) == (smallest, np.mean(genuine < smallest))


@given(genuine=scores, impostor=scores)
def test_fnmr_does_not_fall_as_the_allowed_fmr_falls(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> None:
    points = operating_points(genuine, impostor)
    fnmr = [points.at_fmr(fmr)[1] for fmr in (1.0, 0.5, 0.1, 1e-2, 1e-3)]
    assert fnmr == sorted(fnmr)


@given(genuine=finite_scores, impostor=finite_scores)
def test_equal_error_rate_is_symmetric_and_bracketed(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> None:
    points = operating_points(genuine, impostor)
    rate = points.equal_error_rate
    assert operating_points(-impostor, -genuine).equal_error_rate == pytest.approx(rate, abs=1e-12)
    # at every threshold one of the two rates is at least the EER, the other at most
    larger, smaller = np.maximum(points.fmr, points.fnmr), np.minimum(points.fmr, points.fnmr)
    assert smaller.max() - 1e-12 <= rate <= larger.min() + 1e-12


@given(genuine=scores, impostor=scores)
def test_equal_error_rate_depends_on_the_order_of_scores_only(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> None:
    rate = operating_points(genuine, impostor).equal_error_rate
    assert 0 <= rate <= 1
    assert operating_points(np.exp(genuine), np.exp(impostor)).equal_error_rate == rate
    assert operating_points(genuine[::-1], np.tile(impostor, 3)).equal_error_rate == pytest.approx(
        rate, abs=1e-12
    )


def sample_of(fingers: int, impressions: int, seed: int) -> Pairs:
    """Every pair of `impressions` of each of `fingers` fingers, scores overlapping and tied."""
    generator = np.random.default_rng(seed)
    finger = np.repeat(np.arange(fingers), impressions)
    first, second = np.triu_indices(len(finger), 1)
    genuine = finger[first] == finger[second]
    score = np.round(generator.normal(np.where(genuine, 2.0, 0.0), 1.0), 1)
    score[generator.random(len(score)) < 0.02] = FAILED
    return Pairs(score, genuine, finger[first], finger[second])


def test_a_replicate_equals_the_sample_with_its_fingers_repeated() -> None:
    pairs = sample_of(fingers=6, impressions=3, seed=1)
    drawn = resampled_fingers(6, replicates=20, seed=[7])
    for times, points in zip(drawn, resampled_points(pairs, drawn), strict=True):
        fingers = np.repeat(np.arange(6), times)
        genuine = [s for f in fingers for s in pairs.score[pairs.genuine & (pairs.finger_a == f)]]
        impostor = [
            s
            for i, f in enumerate(fingers)
            for g in fingers[i + 1 :]
            if f != g
            for s in pairs.score[(pairs.finger_a == min(f, g)) & (pairs.finger_b == max(f, g))]
        ]
        expected = operating_points(np.array(genuine), np.array(impostor))
        assert points is not None
        assert points.equal_error_rate == pytest.approx(expected.equal_error_rate, abs=1e-12)
        for fmr in (0.3, 0.1, 0.01):
            assert points.at_fmr(fmr)[1] == expected.at_fmr(fmr)[1]


def test_a_replicate_of_one_finger_only_gives_nothing() -> None:
    pairs = sample_of(fingers=3, impressions=2, seed=2)
    assert list(resampled_points(pairs, np.array([[0, 3, 0]]))) == [None]


def test_fingers_are_drawn_repeatably_and_as_many_as_there_are() -> None:
    drawn = resampled_fingers(7, replicates=50, seed=[3, 1])
    assert (drawn.sum(1) == 7).all()
    assert np.array_equal(drawn, resampled_fingers(7, replicates=50, seed=[3, 1]))
    assert not np.array_equal(drawn, resampled_fingers(7, replicates=50, seed=[3, 2]))


def test_interval_covers_the_true_rate_about_as_often_as_it_says() -> None:
    # two normal classes two deviations apart cross at Phi(-1), about 0.1587; one genuine pair a finger
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        fingers = 40
        finger = np.repeat(np.arange(fingers), 2)
        first, second = np.triu_indices(len(finger), 1)
        genuine = finger[first] == finger[second]
        pairs = Pairs(generator.normal(np.where(genuine, 2.0, 0.0)), genuine, finger[first], finger[second])
        value = operating_points(pairs.score[genuine], pairs.score[~genuine]).equal_error_rate
        drawn = resampled_fingers(fingers, replicates=100, seed=[6])
        rates = np.array([p.equal_error_rate for p in resampled_points(pairs, drawn) if p])
        found = interval(value, rates)
        covered += found.low <= 0.158655 <= found.high
    assert covered >= 50


def test_interval_ignores_replicates_without_a_figure() -> None:
    found = interval(0.5, np.array([np.nan, 0.0, 1.0, np.nan]), confidence=0.5)
    assert found == Interval(0.5, 0.25, 0.75)
    assert np.isnan(interval(0.5, np.array([np.nan])).low)


def test_pairs_are_checked() -> None:
    pairs = sample_of(fingers=2, impressions=2, seed=3)
    assert len(pairs[pairs.genuine]) == 2
    with pytest.raises(ValueError, match="genuine exactly where"):
        Pairs(pairs.score, ~pairs.genuine, pairs.finger_a, pairs.finger_b)
    with pytest.raises(ValueError, match="a number"):
        Pairs(np.full(len(pairs), np.nan), pairs.genuine, pairs.finger_a, pairs.finger_b)
    with pytest.raises(TypeError, match="finger_a"):
        Pairs(pairs.score, pairs.genuine, pairs.finger_a[:1], pairs.finger_b)
