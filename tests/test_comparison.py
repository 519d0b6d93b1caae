from math import ceil, exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from matching.fingerprint.comparison import PARAMS, compare, similarity
from matching.fingerprint.cylinders import BASE_CELLS, LAYERS, Cylinders, cylinders
from tests.minutiae import made_template, moved_template, template_of

SEEDS = st.integers(0, 2**32 - 1)


def unpacked(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.unpackbits(words.astype("<u8").view(np.uint8), axis=-1).astype(np.bool_)


def reference_local(a: Cylinders, b: Cylinders) -> NDArray[np.float64]:
    """Local similarities by the paper's formula, one pair of bit vectors at a time."""
    local = np.zeros((len(a), len(b)))
    bits_a, bits_b = unpacked(a.bits), unpacked(b.bits)
    mask_a, mask_b = unpacked(np.tile(a.mask, LAYERS)), unpacked(np.tile(b.mask, LAYERS))
    for i in range(len(a)):
        for j in range(len(b)):
            common = mask_a[i] & mask_b[j]
            first, second = bits_a[i] & common, bits_b[j] & common
            norms = sqrt(first.sum()) + sqrt(second.sum())
            same_way = np.cos(float(a.direction[i]) - float(b.direction[j])) > 1e-6
            if same_way and common.sum() >= LAYERS * ceil(PARAMS.min_common * BASE_CELLS) and norms > 0:
                local[i, j] = 1 - sqrt((first ^ second).sum()) / norms
    return local


def reference_support(a: Cylinders, b: Cylinders) -> float:
    """The support by plain loops over complex numbers (y up); the first finger has fewer cylinders."""
    local = reference_local(a, b)
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-local, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(b))
        if local[i, j] > 0 and i not in [p for p, _ in pairs] and j not in [q for _, q in pairs]:
            pairs.append((i, j))
    if not pairs:
        return 0.0
    place_a, place_b = a.x - 1j * a.y, b.x - 1j * b.y

    def step(value: float, mu: float, tau: float) -> float:
        t = min(1.0, max(0.0, 0.5 - (value - mu) * tau / 6))
        return t * t * (3 - 2 * t)

    def angle_step(cosine: float) -> float:
        low, high = PARAMS.angle_mu - 3 / PARAMS.angle_tau, PARAMS.angle_mu + 3 / PARAMS.angle_tau
        t = min(1.0, max(0.0, 1 - (2 - 2 * cosine - low**2) / (high**2 - low**2)))
        return t * t * (3 - 2 * t)

    n = len(pairs)
    start = np.array([local[pair] for pair in pairs])
    support = np.zeros((n, n))
    for t, (i, j) in enumerate(pairs):
        for s, (p, q) in enumerate(pairs):
            if s == t:
                continue
            u, v = complex(place_a[p] - place_a[i]), complex(place_b[q] - place_b[j])
            turn = float(a.direction[i]) - float(b.direction[j])
            turn_s = float(a.direction[p]) - float(b.direction[q])
            bearing = np.cos(np.angle(u) - np.angle(v) - turn) if u and v else 0.0
            support[t, s] = (
                step(abs(abs(u) - abs(v)), PARAMS.distance_mu, PARAMS.distance_tau)
                * angle_step(np.cos(turn_s - turn))
                * angle_step(bearing)
            )
    weight = start
    for _ in range(PARAMS.rounds):
        share = (1 - PARAMS.own_weight) / max(1, n - 1)
        weight = PARAMS.own_weight * weight + share * support @ weight
    spread = PARAMS.max_pairs - PARAMS.min_pairs
    wanted = PARAMS.min_pairs + round(spread / (1 + exp(-PARAMS.pairs_tau * (len(a) - PARAMS.pairs_mu))))
    return float(np.sort(weight)[::-1][:wanted].sum() / wanted)


def impression(template: FingerprintTemplate, seed: int) -> FingerprintTemplate:
    """Another print of the same finger: some minutiae lost, all moved a little."""
    random = np.random.default_rng(seed)
    kept = random.random(len(template)) < 0.85
    n = int(kept.sum())
    return template_of(
        np.clip(template.x[kept] + random.normal(0, 1.5, n), 0, template.width - 1),
        np.clip(template.y[kept] + random.normal(0, 1.5, n), 0, template.width - 1),
        template.direction[kept] + random.normal(0, 0.08, n),
        template.width,
    )


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_plain_reference(seed: int) -> None:
    finger = made_template(30, seed, side=260)
    other = impression(finger, seed) if seed % 2 else made_template(34, seed + 100, side=260)
    a, b = sorted((cylinders(finger), cylinders(other)), key=len)
    assert len(a) > 5
    assert compare(a, b).support == pytest.approx(reference_support(a, b), abs=2e-6)


@given(SEEDS, SEEDS, st.integers(0, 60), st.integers(0, 60))
def test_symmetric_to_the_bit_and_repeatable(seed: int, other: int, n: int, m: int) -> None:
    a, b = cylinders(made_template(n, seed, side=250)), cylinders(made_template(m, other, side=250))
    score = similarity(a, b)
    assert 0 <= score <= 1
    assert score == similarity(b, a) == similarity(a, b) == compare(a, b).score


@given(SEEDS)
def test_symmetric_where_both_have_as_many_cylinders(seed: int) -> None:
    finger = made_template(30, seed, side=250)
    a, b = cylinders(finger), cylinders(moved_template(finger, 0.1, 3, 4))
    assert similarity(a, b) == similarity(b, a)


@given(SEEDS, st.floats(-1.2, 1.2), st.integers(-50, 50), st.integers(-50, 50))
def test_turning_and_shifting_a_finger_changes_little(seed: int, turn: float, dx: int, dy: int) -> None:
    finger = made_template(40, seed, side=280)
    a, b = cylinders(finger), cylinders(moved_template(finger, turn, dx, dy))
    assert similarity(a, a) == pytest.approx(similarity(a, b), abs=0.12)
    assert similarity(a, b) > 0.6


@given(SEEDS)
def test_the_order_of_minutiae_does_not_matter(seed: int) -> None:
    finger, other = made_template(40, seed, side=280), cylinders(made_template(35, seed + 1, side=280))
    order = np.random.default_rng(seed).permutation(40)
    shuffled = template_of(finger.x[order], finger.y[order], finger.direction[order].astype(np.float64), 280)
    assert similarity(cylinders(shuffled), other) == pytest.approx(
        similarity(cylinders(finger), other), abs=0.01
    )


@given(SEEDS)
def test_impressions_of_a_finger_score_above_strangers(seed: int) -> None:
    finger = made_template(45, seed, side=300)
    a, again = cylinders(finger), cylinders(impression(finger, seed))
    stranger = cylinders(made_template(45, seed + 1, side=300))
    assert similarity(a, again) > 2 * similarity(a, stranger)


def test_a_finger_is_itself() -> None:
    a = cylinders(made_template(50, 3, side=300))
    comparison = compare(a, a)
    assert comparison.support > 0.98
    assert comparison.score > 0.8
    assert comparison.common == len(a) == len(comparison.partners)
    assert np.array_equal(comparison.partners[:, 0], comparison.partners[:, 1])
    assert np.array_equal(comparison.pairs[:, 0], comparison.pairs[:, 1])


@given(SEEDS, SEEDS)
def test_pairs_and_contributions_explain_the_score(seed: int, other: int) -> None:
    finger = made_template(40, seed, side=280)
    a, b = cylinders(finger), cylinders(impression(finger, other))
    there, back = compare(a, b), compare(b, a)
    assert there.contributions.sum() == pytest.approx(there.score, abs=1e-6)
    assert len(there.pairs) == len(there.contributions) <= PARAMS.max_pairs
    assert (there.pairs >= 0).all()
    assert (there.pairs[:, 0] < len(a)).all()
    assert (there.pairs[:, 1] < len(b)).all()
    assert len(set(there.pairs[:, 0])) == len(set(there.pairs[:, 1])) == len(there.pairs)
    assert np.array_equal(there.pairs, back.pairs[:, ::-1])
    with pytest.raises(ValueError, match="read-only"):
        there.pairs[0, 0] = 0


@pytest.mark.parametrize("n", range(5))
def test_hardly_anything_gives_zero_or_little_and_no_error(n: int) -> None:
    few, many = cylinders(made_template(n, 1, side=60)), cylinders(made_template(40, 2, side=250))
    assert similarity(few, many) == similarity(many, few)
    assert similarity(few, many) < 0.6
    if len(few) == 0:
        assert similarity(few, many) == 0.0
        assert compare(few, many).pairs.shape == (0, 2)
        assert similarity(few, few) == 0.0
