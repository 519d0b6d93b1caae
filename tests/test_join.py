"""Tiles of everybody against everybody: exact sums, every pair once, whatever the tiles."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.iris.template import GROUP_WORDS, IrisCoder
from capture.sample import EyePosition, FingerPosition
from matching.fingerprint.code import CODE_WORDS, DETAIL_BINS, code_evidence
from matching.iris.comparison import IrisForm, compare_irises
from matching.join import (
    ABSENT,
    CLASS_ENDS,
    FingerCodes,
    IrisCodes,
    Pairs,
    affordable_thresholds,
    face_pairs,
    finger_evidence,
    finger_pairs,
    iris_pairs,
)

ANY = np.full(len(CLASS_ENDS) + 1, -np.inf, dtype=np.float32)
FAR = 10**6  # every pair of two tiles counts


def fingers(n: int, seed: int, loose: int = 0, absent: float = 0.2) -> FingerCodes:
    rng = np.random.default_rng(seed)
    # Few bits differ between codes, so that some pairs speak for one finger.
    base = rng.integers(0, 2**64, (1, 10 + loose, CODE_WORDS), dtype=np.uint64)
    flips = rng.integers(0, 2**64, (n, 10 + loose, CODE_WORDS), dtype=np.uint64)
    flips &= rng.integers(0, 2**64, flips.shape, dtype=np.uint64)
    bins = rng.integers(0, DETAIL_BINS, (n, 10 + loose)).astype(np.uint8)
    bins[rng.random(bins.shape) < absent] = ABSENT
    return FingerCodes(base ^ flips, bins)


def evidence_of(a: NDArray[np.uint64], a_bin: int, b: NDArray[np.uint64], b_bin: int) -> np.float32:
    if ABSENT in (a_bin, b_bin):
        return np.float32(0)
    evidence: np.float32 = code_evidence()[a_bin, b_bin, int(np.bitwise_count(a ^ b).sum())]
    return evidence


def of_one_pair(a: FingerCodes, i: int, b: FingerCodes, j: int) -> float:
    """Known fingers, then each loose one where it fits best, less what choosing costs."""
    total = sum(
        float(evidence_of(a.codes[i, p], a.bins[i, p], b.codes[j, p], b.bins[j, p])) for p in range(10)
    )
    loose = [(a.codes[i, s], a.bins[i, s], range(b.bins.shape[1]), b, j) for s in range(10, a.bins.shape[1])]
    loose += [(b.codes[j, s], b.bins[j, s], range(10), a, i) for s in range(10, b.bins.shape[1])]
    for code, own_bin, slots, other, k in loose:
        fits = [
            float(evidence_of(code, own_bin, other.codes[k, t], other.bins[k, t]))
            for t in slots
            if ABSENT not in (own_bin, other.bins[k, t])
        ]
        total += max(fits) - np.log10(len(fits)) if fits else 0
    return total


def as_set(pairs: Pairs, row: int = 0, column: int = 0) -> set[tuple[int, int]]:
    return set(zip((pairs.row + row).tolist(), (pairs.column + column).tolist(), strict=True))


def test_evidence_is_summed_exactly() -> None:
    for loose_a, loose_b in ((0, 0), (2, 0), (0, 1), (1, 2)):
        a, b = fingers(5, 1, loose_a), fingers(13, 2, loose_b)
        expected = [[of_one_pair(a, i, b, j) for j in range(13)] for i in range(5)]
        np.testing.assert_allclose(finger_evidence(a, b), expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 40), st.floats(-2, 6))
def test_tiles_name_what_the_whole_names(seed: int, n: int, side: int, least: float) -> None:
    everybody = fingers(n, seed)
    thresholds = np.full_like(ANY, least)
    whole = finger_pairs(everybody, everybody, thresholds)
    assert all(i < j for i, j in as_set(whole))
    assert len(as_set(whole)) == len(whole.row)
    tiled: set[tuple[int, int]] = set()
    for r in range(0, n, side):
        for c in range(r, n, side):
            made = finger_pairs(everybody[r : r + side], everybody[c : c + side], thresholds, c - r)
            assert not tiled & as_set(made, r, c)
            tiled |= as_set(made, r, c)
    assert tiled == as_set(whole)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 60))
def test_pairs_are_those_that_reach_their_class(seed: int, n: int) -> None:
    everybody = fingers(n, seed, absent=0.6)
    thresholds = np.array([0.5, 1, 2, 3, 4], dtype=np.float32)
    swapped = finger_evidence(everybody.swapped, everybody) - 2
    declared = finger_evidence(everybody, everybody)
    classes = everybody.classes
    expected = set()
    for i, j in combinations(range(n), 2):
        needed = thresholds[min(classes[i], classes[j])]
        if max(declared[i, j] or -np.inf, swapped[i, j] if swapped[i, j] != -2 else -np.inf) >= needed:
            expected.add((i, j))
    assert as_set(finger_pairs(everybody, everybody, thresholds)) == expected


def test_hands_that_were_swapped_are_found_at_a_price() -> None:
    one = fingers(1, 3, absent=0)
    found = finger_pairs(one.swapped, one, ANY, FAR)
    assert found.score[0] == np.float32(finger_evidence(one, one)[0, 0]) - 2


def test_encounters_with_nothing_in_common_are_no_pair() -> None:
    codes = fingers(2, 4, absent=0)
    bins = codes.bins.copy()
    bins[0, FingerPosition.RIGHT_THUMB :] = ABSENT
    bins[1, : FingerPosition.LEFT_THUMB] = ABSENT
    assert len(finger_pairs(FingerCodes(codes.codes, bins), FingerCodes(codes.codes, bins), ANY).row) == 0


def test_richer_encounters_are_of_a_higher_class() -> None:
    codes = np.zeros((3, 10, CODE_WORDS), dtype=np.uint64)
    bins = np.full((3, 10), ABSENT, dtype=np.uint8)
    bins[1, 0], bins[2] = DETAIL_BINS - 1, DETAIL_BINS - 1
    classes = FingerCodes(codes, bins).classes
    assert classes[0] == 0
    assert classes[2] == len(CLASS_ENDS) > classes[1]


def irises(n: int, seed: int) -> IrisCodes:
    rng = np.random.default_rng(seed)
    shape = (n, 4, GROUP_WORDS)
    masks = rng.integers(0, 2**64, shape, dtype=np.uint64)
    masks[rng.random((n, 4)) < 0.4] = 0
    codes = rng.integers(0, 2**64, (1, *shape[1:]), dtype=np.uint64)
    noise = rng.integers(0, 2**64, shape, dtype=np.uint64) & rng.integers(0, 2**64, shape, dtype=np.uint64)
    return IrisCodes((codes ^ noise) & masks, masks)


def nearness(a: IrisCodes, i: int, s: int, b: IrisCodes, j: int, t: int, farthest: float) -> float:
    forms = [
        IrisForm(EyePosition.UNKNOWN, side.codes[k, slot], side.masks[k, slot], IrisCoder.LOG_GABOR_1, 0)
        for side, k, slot in ((a, i, s), (b, j, t))
    ]
    distance = compare_irises(*forms).distance
    return 0.5 - distance if distance <= farthest else 0.0


def test_irises_are_summed_as_declared_or_swapped() -> None:
    a, b = irises(4, 1), irises(11, 2)
    least = np.full(3, 1e-6, dtype=np.float32)
    found = iris_pairs(a, b, least, 0.45, FAR)
    scores = dict(
        zip(zip(found.row.tolist(), found.column.tolist(), strict=True), found.score.tolist(), strict=True)
    )
    for i in range(4):
        for j in range(11):
            near = [[nearness(a, i, s, b, j, t, 0.45) for t in range(4)] for s in range(4)]
            declared = sum(max(near[s][t] for t in ((s, 2, 3) if s < 2 else range(4))) for s in range(4))
            expected = max(declared, near[0][1] + near[1][0])
            assert abs(scores.get((i, j), 0.0) - expected) < 1e-5


def test_iris_tiles_name_what_the_whole_names() -> None:
    everybody, least = irises(37, 3), np.array([np.inf, 0.2, 0.3], dtype=np.float32)
    whole = as_set(iris_pairs(everybody, everybody, least, 0.45))
    tiled: set[tuple[int, int]] = set()
    for r in range(0, 37, 10):
        for c in range(r, 37, 10):
            made = iris_pairs(everybody[r : r + 10], everybody[c : c + 10], least, 0.45, c - r)
            tiled |= as_set(made, r, c)
    assert tiled == whole
    assert 0 < len(whole) < 37 * 36 / 2


def test_faces_are_named_by_their_angle() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[5] = 0  # none
    found = as_set(face_pairs(vectors, vectors, 0.2))
    cosines = vectors @ vectors.T
    assert found == {(i, j) for i, j in combinations(range(20), 2) if cosines[i, j] >= 0.2}
    assert all(5 not in pair for pair in as_set(face_pairs(vectors, vectors, -1.0)))


def test_thresholds_rise_until_what_they_name_is_affordable() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=20_000).astype(np.float32)
    classes = rng.integers(0, 2, 20_000)
    least = np.array([-np.inf, 2.0], dtype=np.float32)
    share, most = 0.01, 100_000
    thresholds = affordable_thresholds(scores, classes, share, most, least)
    named = (scores >= thresholds[classes]).sum() / share
    assert thresholds[1] == 2.0
    assert 0.9 * most < named <= most
    assert affordable_thresholds(scores, classes, 1.0, 20_000, least).tolist() == [-np.inf, 2.0]
