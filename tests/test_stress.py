"""Damage done to templates: repeatable, of the size asked for, and none where none is asked for."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stress import (
    DAMAGES,
    UNDAMAGED,
    Damage,
    Minutiae,
    cropped,
    damaged,
    dropped,
    jittered,
    warped,
    with_spurious,
)
from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import cylinders
from tests.minutiae import made_template

COLUMNS = tuple(field.name for field in fields(Minutiae))
seeds = st.integers(0, 2**32 - 1)


def minutiae(n: int, seed: int) -> Minutiae:
    """At random, each as reliable as no other."""
    template = made_template(n, seed, 400)
    return Minutiae(
        template.x.astype(np.float64),
        template.y.astype(np.float64),
        template.direction.astype(np.float64),
        template.ending,
        np.linspace(0.95, 0.5, n),
    )


def same(a: FingerprintTemplate, b: FingerprintTemplate) -> bool:
    return a.to_bytes() == b.to_bytes() and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in COLUMNS)


def rows(made: Minutiae) -> set[tuple[float, ...]]:
    return set(zip(*(getattr(made, column).tolist() for column in COLUMNS), strict=True))


@given(n=st.integers(0, 99), seed=seeds)
def test_no_damage_is_the_template_itself(n: int, seed: int) -> None:
    template = made_template(n, seed, 300)
    assert same(damaged(template, UNDAMAGED, np.random.default_rng(seed)), template)


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "none"])
@given(n=st.integers(1, 99), seed=seeds)
def test_the_same_seed_does_the_same_damage(name: str, n: int, seed: int) -> None:
    template = made_template(n, seed, 300)
    first, again = (damaged(template, DAMAGES[name], np.random.default_rng(seed)) for _ in range(2))
    assert same(first, again)
    assert FingerprintTemplate.from_bytes(first.to_bytes()).to_bytes() == first.to_bytes()
    assert np.all(np.diff(first.reliability) <= 0)


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "none"])
def test_other_seeds_do_other_damage(name: str) -> None:
    template = made_template(60, 0, 300)
    made = [damaged(template, DAMAGES[name], np.random.default_rng(seed)) for seed in range(10)]
    assert len({one.to_bytes() for one in (template, *made)}) == 11


@given(n=st.integers(2, 99), share=st.floats(0, 1), seed=seeds)
def test_so_many_are_lost(n: int, share: float, seed: int) -> None:
    whole = minutiae(n, seed)
    left = dropped(whole, share, np.random.default_rng(seed))
    assert len(left) == max(1, round((1 - share) * n))
    assert len(rows(left)) == len(left)
    assert rows(left) <= rows(whole)


@given(n=st.integers(2, 99), share=st.floats(0.1, 0.9), seed=seeds)
def test_so_many_are_cut_off_on_one_side(n: int, share: float, seed: int) -> None:
    whole = minutiae(n, seed)
    left = cropped(whole, share, np.random.default_rng(seed))
    assert len(left) == max(1, round(share * n))
    assert rows(left) <= rows(whole)
    # some straight line parts what is left from what is gone
    gone = np.array([row[:2] for row in rows(whole) - rows(left)]).reshape(-1, 2)
    kept = np.column_stack([left.x, left.y])
    angles = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    lines = np.stack([np.cos(angles), np.sin(angles)])
    if len(gone):
        assert ((kept @ lines).max(axis=0) <= (gone @ lines).min(axis=0) + 1).any()


@given(n=st.integers(3, 60), count=st.integers(0, 30), seed=seeds)
def test_so_many_are_added_within_the_print(n: int, count: int, seed: int) -> None:
    whole = minutiae(n, seed)
    more = with_spurious(whole, count, np.random.default_rng(seed))
    assert len(more) == n + count
    assert rows(more[np.arange(n)]) == rows(whole)
    for axis in ("x", "y"):
        added, true = getattr(more, axis)[n:], getattr(whole, axis)
        assert np.all((added >= true.min() - 1e-6) & (added <= true.max() + 1e-6))


def test_jitter_and_turns_are_as_wide_as_asked() -> None:
    rng = np.random.default_rng(0)
    whole = minutiae(99, 1)
    moved = [jittered(whole, Damage(jitter=2.5, direction=0.12, type_flip=0.15), rng) for _ in range(100)]
    assert np.std([one.x - whole.x for one in moved]) == pytest.approx(2.5, rel=0.05)
    assert np.std([one.y - whole.y for one in moved]) == pytest.approx(2.5, rel=0.05)
    assert np.std([one.direction - whole.direction for one in moved]) == pytest.approx(0.12, rel=0.05)
    assert np.mean([one.ending != whole.ending for one in moved]) == pytest.approx(0.15, abs=0.02)


@given(n=st.integers(5, 99), size=st.floats(0, 20), seed=seeds)
def test_a_warp_is_as_large_as_asked(n: int, size: float, seed: int) -> None:
    whole = minutiae(n, seed)
    bent = warped(whole, size, np.random.default_rng(seed))
    moved = np.column_stack([bent.x - whole.x, bent.y - whole.y])
    assert np.sqrt((moved**2).sum(axis=1).mean()) == pytest.approx(size, abs=1e-6)
    assert moved.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert np.array_equal(bent.reliability, whole.reliability)


@given(seed=seeds)
def test_directions_bend_with_the_finger(seed: int) -> None:
    """A minutia's direction turns as the line to a point just ahead of it does."""
    whole = minutiae(30, seed)
    step = 1e-4
    x, y = whole.x + step * np.cos(whole.direction), whole.y - step * np.sin(whole.direction)
    columns = {name: np.concatenate([getattr(whole, name)] * 2) for name in COLUMNS}
    both = replace(Minutiae(**columns), x=np.concatenate([whole.x, x]), y=np.concatenate([whole.y, y]))
    bent = warped(both, 7, np.random.default_rng(seed))
    line = np.arctan2(bent.y[:30] - bent.y[30:], bent.x[30:] - bent.x[:30])
    assert np.abs(np.angle(np.exp(1j * (line - bent.direction[:30])))).max() < 1e-3


@given(seed=st.integers(0, 1000))
def test_a_whole_damage_is_of_the_size_asked_for(seed: int) -> None:
    template = made_template(80, seed, 400)
    made = {name: damaged(template, DAMAGES[name], np.random.default_rng(seed)) for name in DAMAGES}
    assert 48 + 8 <= len(made["drop"]) <= 64 + 16
    assert 44 <= len(made["crop"]) <= 68
    assert len(made["warp"]) == 80
    assert made["warp"].x.max() < made["warp"].width
    assert 45 + 4 <= len(made["all"]) <= 67 + 10


def test_damage_harms() -> None:
    whole = [made_template(60, seed, 400) for seed in range(8)]
    for name, damage in DAMAGES.items():
        rng = np.random.default_rng(1)
        scores = [
            compare(*(cylinders(damaged(template, damage, rng)) for _ in range(2))).score
            for template in whole
        ]
        unharmed = [compare(*[cylinders(template)] * 2).score for template in whole]
        assert np.mean(scores) == np.mean(unharmed) if name == "none" else np.mean(scores) < np.mean(unharmed)
