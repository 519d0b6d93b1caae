from dataclasses import replace
from math import erf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.cylinders import BASE_CELLS, LAYERS, PARAMS, SIDE, Cylinders, cylinders
from tests.minutiae import made_template
from tests.prints import cut

SLACK = 1e-5  # a cell whose value is this close to the threshold may fall on either side


def unpacked(words: NDArray[np.uint64], layers: int) -> NDArray[np.bool_]:
    """`(n, layers * 4) uint64` to `(n, layers, 16, 16) bool`."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=-1, bitorder="little")
    return bits.reshape(len(words), layers, SIDE, SIDE).astype(np.bool_)


def distance_to_hull(point: NDArray[np.float64], corners: NDArray[np.float64]) -> float:
    """0 inside the convex hull of `corners`; by brute force over all segments and triangles."""

    def to_segment(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        length2 = float((b - a) @ (b - a))
        along = 0.0 if length2 == 0 else min(1.0, max(0.0, float((point - a) @ (b - a)) / length2))
        return float(np.hypot(*(point - a - along * (b - a))))

    for i in range(1, len(corners)):
        for j in range(i + 1, len(corners)):
            matrix = np.column_stack([corners[i] - corners[0], corners[j] - corners[0]])
            if abs(np.linalg.det(matrix)) > 1e-9:
                s, t = np.linalg.solve(matrix, point - corners[0])
                if s >= 0 and t >= 0 and s + t <= 1:
                    return 0.0
    return min(to_segment(a, b) for a in corners for b in corners)


def reference(template: FingerprintTemplate) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
    """Minutiae with a cylinder, values `(n, 6, 16, 16)`, distances to the hull `(n, 16, 16)`."""
    place = np.column_stack([template.x, template.y]).astype(np.float64)
    angle = template.direction.astype(np.float64)
    n = len(template)
    cell = 2 * PARAMS.radius / SIDE
    sigma_s, sigma_d = PARAMS.sigma_distance, PARAMS.sigma_direction
    values = np.zeros((n, LAYERS, SIDE, SIDE))
    outside = np.full((n, SIDE, SIDE), np.inf)
    kept = []
    for m in range(n):
        c, s = np.cos(angle[m]), np.sin(angle[m])
        for i in range(SIDE):
            for j in range(SIDE):
                u, v = cell * (i - 7.5), cell * (j - 7.5)
                if u * u + v * v > PARAMS.radius**2:
                    continue
                centre = place[m] + [c * u + s * v, c * v - s * u]
                outside[m, i, j] = distance_to_hull(centre, place)
                for t in range(n):
                    away = float(np.hypot(*(place[t] - centre)))
                    near = np.hypot(*(place[t] - place[m])) <= PARAMS.radius + 3 * sigma_s
                    if t == m or not near or away > 3 * sigma_s:
                        continue
                    spatial = np.exp(-(away**2) / (2 * sigma_s**2)) / (sigma_s * sqrt(2 * pi))
                    for k in range(LAYERS):
                        centred = angle[m] - angle[t] - (-pi + (k + 0.5) * 2 * pi / LAYERS)
                        turn = (centred + pi) % (2 * pi) - pi
                        half = pi / LAYERS
                        share = (
                            erf((turn + half) / (sigma_d * sqrt(2)))
                            - erf((turn - half) / (sigma_d * sqrt(2)))
                        ) / 2
                        values[m, k, i, j] += spatial * share
        neighbours = sum(
            t != m and np.hypot(*(place[t] - place[m])) <= PARAMS.radius + 3 * sigma_s for t in range(n)
        )
        valid = (outside[m] <= PARAMS.hull_margin).sum()
        if valid >= PARAMS.min_valid * BASE_CELLS and neighbours >= PARAMS.min_neighbours:
            kept.append(m)
    return kept, values, outside


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formulas_of_the_paper(seed: int) -> None:
    template = FingerprintTemplate.from_bytes(made_template(8, seed, side=140).to_bytes())
    kept, values, outside = reference(template)
    found = cylinders(template)
    assert found.minutia.tolist() == kept
    assert np.array_equal(found.x, template.x[kept])
    mask = unpacked(found.mask, 1)[:, 0]
    bits = unpacked(found.bits, LAYERS)
    sure = np.abs(outside[kept] - PARAMS.hull_margin) > 1e-3
    assert np.array_equal(mask[sure], (outside[kept] <= PARAMS.hull_margin)[sure])
    certain = (np.abs(values[kept] - PARAMS.bit_threshold) > SLACK) & sure[:, None]
    expected = (values[kept] > PARAMS.bit_threshold) & mask[:, None]
    assert np.array_equal(bits[certain], expected[certain])
    assert bits.any()


@given(st.integers(0, 99), st.integers(0, 2**32 - 1))
def test_shapes_and_masks_hold_for_any_template(n: int, seed: int) -> None:
    found = cylinders(made_template(n, seed, side=300))
    assert len(found) <= n
    bits, mask = unpacked(found.bits, LAYERS), unpacked(found.mask, 1)
    assert not (bits & ~mask).any()
    assert (mask.sum(axis=(1, 2, 3)) >= PARAMS.min_valid * BASE_CELLS).all()
    assert (np.diff(found.minutia) > 0).all()


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_minutiae_in_one_place_or_line_do_no_harm(n: int, seed: int) -> None:
    template = made_template(n, seed, side=300)
    line = FingerprintTemplate(
        x=template.x,
        y=np.full(n, 7, np.float32),
        direction=template.direction,
        ending=template.ending,
        reliability=template.reliability,
        width=300,
        height=300,
        position=FingerPosition.UNKNOWN,
        quality=50,
    )
    assert len(cylinders(line)) <= n


def test_unreliable_minutiae_are_as_if_they_were_not_there() -> None:
    template = made_template(40, 5, side=200)
    reliability = template.reliability.copy()
    reliability[25:] = PARAMS.min_reliability - 0.01
    found, expected = cylinders(replace(template, reliability=reliability)), cylinders(cut(template, 25))
    assert len(expected) > 0
    assert np.array_equal(found.bits, expected.bits)
    assert np.array_equal(found.minutia, expected.minutia)


def test_arrays_are_read_only_and_checked() -> None:
    found = cylinders(made_template(30, 1, side=200))
    with pytest.raises(ValueError, match="read-only"):
        found.bits[0, 0] = 1
    with pytest.raises(TypeError, match="mask"):
        Cylinders(found.x, found.y, found.direction, found.bits, found.mask[:, :2], found.minutia)


def test_trace_shows_the_stages() -> None:
    seen = {}
    found = cylinders(made_template(30, 1, side=200), lambda stage, value: seen.update({stage: value}))
    assert list(seen) == ["hull", "cylinder_bits", "cylinder_mask"]
    assert np.array_equal(seen["cylinder_bits"], found.bits)
