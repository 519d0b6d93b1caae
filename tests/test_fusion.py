import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.errors import ParametersUnavailable
from matching.fusion import Dependence, Fusion, effective_number, fused

LLRS = st.lists(st.floats(-5, 5), max_size=10)
DEPENDENCES = st.builds(Dependence, st.floats(0, 1), st.floats(0, 1))
HALF = Dependence(strangers=0.5, person=0.25)


def test_known_answers() -> None:
    assert fused([], HALF) == 0
    assert fused([3.0], HALF) == 3.0
    # Two of correlation 1/2 are worth 4/3 independent ones, three 3/2; two of 1/4 are worth 8/5.
    assert fused([3.0, 3.0], HALF) == pytest.approx(4.0)
    assert fused([3.0, 3.0, 3.0], HALF) == pytest.approx(4.5)
    assert fused([-1.0, 3.0, -1.0], HALF) == pytest.approx(3 - 1.6)
    assert fused([1.0, 3.0], HALF) == pytest.approx(3 + 1 / 3)


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 10.0), (1.0, 1.0), (0.1, 10 / 1.9)])
def test_effective_number_of_ten(correlation: float, expected: float) -> None:
    assert effective_number(10, correlation) == pytest.approx(expected)
    assert effective_number(0, correlation) == 0


@given(LLRS, DEPENDENCES)
def test_independent_ratios_are_added_and_others_count_for_less(llrs: list[float], any_: Dependence) -> None:
    assert fused(llrs, Dependence(0, 0)) == pytest.approx(sum(llrs))
    agreeing, denying = (sum(v for v in llrs if sign * v > 0) for sign in (1, -1))
    strongest, weakest = max([0.0, *llrs]), min([0.0, *llrs])
    assert strongest + denying - 1e-9 <= fused(llrs, any_) <= agreeing + weakest + 1e-9


@given(LLRS, DEPENDENCES, st.randoms(use_true_random=False))
def test_order_and_neutral_ones_do_not_matter(llrs: list[float], any_: Dependence, random: object) -> None:
    shuffled = [*llrs, 0.0]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fused(shuffled, any_) == pytest.approx(fused(llrs, any_), abs=1e-9)


@given(LLRS, DEPENDENCES, st.floats(0, 3), st.integers(0, 9))
def test_the_sum_rises_with_each(llrs: list[float], any_: Dependence, more: float, at: int) -> None:
    if llrs:
        at %= len(llrs)
        raised = [*llrs[:at], llrs[at] + more, *llrs[at + 1 :]]
        assert fused(raised, any_) >= fused(llrs, any_) - 1e-9


def test_shipped_parameters_are_measured_ones() -> None:
    shipped = Fusion.load()
    assert 0 < shipped.fingers.strangers < shipped.fingers.person < 1
    # Two eyes at their caps can be told from a gallery of a million, see decision 10.
    assert effective_number(2, shipped.eyes.strangers) > 1.6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        json.dumps({"format": 1, "fingers": {"strangers": 2, "person": 0}, "eyes": {}}),
        json.dumps({"format": 1, "fingers": {"strangers": float("nan"), "person": 0}, "eyes": {}}),
    ],
)
def test_damaged_parameters_are_a_typed_error(text: str) -> None:
    with pytest.raises(ParametersUnavailable):
        Fusion.from_json(text)
