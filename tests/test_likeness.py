"""What says how near synthetic prints come to real ones can also say that they do not."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.likeness import Likeness, Row, classes, four_fingers, log_likelihood_ratios, rows
from benchmarks.population import people
from capture.sample import FingerPosition
from matching.error_rates import Pairs

TEMPLATES = tuple(finger for fingers in people(4, 1, [FingerPosition.RIGHT_INDEX]) for finger in fingers)


@pytest.fixture(autouse=True)
def calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Easily told: from -2 at score 0, one decade a tenth; less by few cylinders."""
    line = SimpleNamespace(
        llr=lambda score, n=30: (10 * score - 2) * min(n, 30) / 30, llrs=(-2, 18), llr_scores=(0, 2)
    )
    monkeypatch.setattr("benchmarks.likeness.fingerprint_calibration", lambda: line)


def one_finger(genuine: np.ndarray, impostor: np.ndarray) -> Pairs:
    """Ten fingers whose pairs are dealt out evenly."""
    a = np.concatenate([np.arange(len(genuine)), np.arange(len(impostor))]) % 10
    b = np.where(np.arange(len(a)) < len(genuine), a, (a + 1 + np.arange(len(a)) // 10 % 9) % 10)
    return Pairs(np.concatenate([genuine, impostor]), a == b, a, b)


def sample(seed: int, *, easier: float = 0.0, tail: float = 1.0) -> Likeness:
    rng = np.random.default_rng(seed)
    genuine = 0.3 + 0.05 * rng.standard_normal(5000) + easier
    genuine[: 100 if not easier else 5] = 0.0
    impostor = tail * np.abs(0.03 * rng.standard_normal(20_000))
    two = classes(np.full(200, 16.0), -4 + tail * rng.uniform(0, 3, 5000))
    return Likeness(one_finger(genuine, impostor), two, TEMPLATES, 5)


def met(found: list[Row]) -> list[bool | None]:
    return [row.met for row in found[:5] if row.met is not None]


def test_a_population_is_like_itself() -> None:
    found = rows(sample(1), sample(2))
    assert met(found) == [True] * 4
    assert found[0].real == pytest.approx(2.0)
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low <= 2.0 <= found[0].high
    assert all(row.met is None for row in found[5:])
    lost = next(row for row in found if row.name == "no template, %")
    assert lost.real == lost.synthetic == pytest.approx(20.0)


def test_an_easier_population_is_not() -> None:
    assert met(rows(sample(1), sample(2, easier=0.1)))[0] is False


def test_a_lighter_tail_is_not() -> None:
    found = rows(sample(1), sample(2, tail=0.8))
    assert found[1].met is False
    assert found[1].synthetic / found[1].real == pytest.approx(0.8, abs=0.05)


def test_a_heavier_tail_of_two_fingers_is_not() -> None:
    """99.9 % of the sums are below -1, where both fingers reach 0.15; here 0.5 and 0.225."""
    found = rows(sample(1), sample(2, tail=1.5))
    assert found[3].real == pytest.approx(-1, abs=0.05)
    assert (found[4].real, found[4].synthetic) == pytest.approx((0.15, 0.225), abs=0.002)
    assert found[4].met is False


def test_four_fingers_are_four() -> None:
    drawn = four_fingers(np.random.default_rng(1), 8, 1000)
    assert drawn.shape == (1000, 4)
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    assert np.abs(np.bincount(drawn[:, 0], minlength=8) / 1000 - 1 / 8).max() < 0.05


def test_where_no_real_pair_is_lost_one_synthetic_pair_may_be() -> None:
    whole = one_finger(np.full(1000, 0.9), np.linspace(0, 0.2, 2000))
    few, many = whole.score.copy(), whole.score.copy()
    few[0], many[:3] = 0.0, 0.0
    rest = (classes(np.ones(10), np.zeros(1000)), TEMPLATES, 4)
    real = Likeness(whole, *rest)
    again = [Likeness(Pairs(s, whole.genuine, whole.finger_a, whole.finger_b), *rest) for s in (few, many)]
    assert [rows(real, one)[0].met for one in again] == [True, False]


def test_a_failure_says_as_little_as_the_lowest_score() -> None:
    ratios = log_likelihood_ratios(np.array([-np.inf, 0.0]), np.array([30, 30]))
    assert ratios[0] == ratios[1] == -2


def test_few_cylinders_say_less() -> None:
    ratios = log_likelihood_ratios(np.array([0.4, 0.4]), np.array([30, 15]))
    assert ratios == pytest.approx([2, 1])
