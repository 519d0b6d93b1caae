from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.decode import decode_image
from capture.fingerprint.classical import _convolved, classical_minutiae
from capture.fingerprint.dislocations import dislocations
from capture.fingerprint.foreground import foreground
from capture.fingerprint.ridge_waves import ridge_waves

SHAPE = (240, 260)
PLACE = (131.0, 117.0)  # x, y of the planted minutia
TURN = 2 * np.pi


def planted(period: float, angle: float, sign: int, ending: bool) -> tuple[NDArray[np.uint8], float]:
    """A wave with one more ridge on one side of `PLACE`, and the direction of that minutia.

    Along the direction from the minutia a ridge begins where it is an ending, else a valley.
    """
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    x, y = x - PLACE[0], PLACE[1] - y
    normal = x * np.cos(angle) + y * np.sin(angle)
    around = np.angle(np.exp(1j * (np.arctan2(y, x) - angle)))
    phase = TURN / period * normal + sign * around
    # Counter-clockwise from the normal the phase gains half a turn more on one side than on the other.
    direction = angle - sign * np.pi / 2
    ahead = -np.pi / 2 if ending else np.pi / 2
    grey = 128 + 100 * np.cos(phase + ahead)
    return np.rint(grey).astype(np.uint8), direction % TURN


def apart(a: float, b: float) -> float:
    return abs((a - b + np.pi) % TURN - np.pi)


def ridges(row: NDArray[np.uint8]) -> int:
    return int((np.diff((row < 128).astype(int)) == 1).sum())


def everywhere(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ones(image.shape, dtype=np.bool_)


@pytest.fixture(scope="module")
def real_print(development_data: Path) -> NDArray[np.uint8]:
    path = development_data / "fingerprint" / "fvc2002_db1_b" / "101_2.png"
    return decode_image(path.read_bytes(), ppi=500).image


def test_the_planted_minutia_points_where_there_are_more_ridges() -> None:
    for sign in (1, -1):
        for ending in (True, False):
            image, direction = planted(9.0, 0.0, sign, ending)
            row = round(PLACE[1])
            more = [ridges(image[row - away]) - ridges(image[row + away]) for away in range(4, 20)]
            assert np.mean(more) * np.sin(direction) > 0.5


@settings(deadline=None, max_examples=40)
@given(
    period=st.floats(7.0, 12.0),
    angle=st.floats(0.0, np.pi),
    sign=st.sampled_from([1, -1]),
    ending=st.booleans(),
)
def test_a_planted_dislocation_is_the_only_one_found(
    period: float, angle: float, sign: int, ending: bool
) -> None:
    image, direction = planted(period, angle, sign, ending)
    waves = ridge_waves(image, everywhere(image))
    found = dislocations(waves)
    # At the border of the image the reflected wave is broken.
    place = 2 * found[:, :2] + 0.5
    margin = 24
    inner = ((place > margin) & (place < np.array(SHAPE[::-1]) - margin)).all(axis=1)
    assert inner.sum() == 1
    assert np.hypot(*(place[inner][0] - PLACE)) < 2.0
    assert apart(float(found[inner][0, 2]), direction) < np.radians(10)
    x, y = (np.array(PLACE) / 2).astype(int)
    assert 2 * waves.period[y - 20, x - 20] == pytest.approx(period, rel=0.08)


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize("angle", [0.3, 1.4, 2.6])
def test_a_planted_minutia_is_found_with_its_direction_and_type(angle: float, ending: bool) -> None:
    image, direction = planted(9.0, angle, 1, ending)
    minutiae = classical_minutiae(image, everywhere(image))
    near = minutiae[np.hypot(minutiae[:, 0] - PLACE[0], minutiae[:, 1] - PLACE[1]) < 6]
    assert len(near) == 1
    assert apart(float(near[0, 2]), direction) < np.radians(15)
    assert (near[0, 3] > 0) == ending
    assert near[0, 4] >= 0.5


def test_ridges_without_a_minutia_show_none() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    straight = 128 + 100 * np.cos(TURN / 9 * (x * 0.8 + y * 0.6))
    # Curved as in a print: circles around a point outside the image.
    curved = 128 + 100 * np.cos(TURN / 9 * np.hypot(x - 130, y - 330))
    for grey in (straight, curved):
        image = np.rint(grey).astype(np.uint8)
        minutiae = classical_minutiae(image, everywhere(image))
        inner = (minutiae[:, :2] > 24).all(axis=1) & (minutiae[:, :2] < np.array(SHAPE[::-1]) - 24).all(
            axis=1
        )
        assert not inner.any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (31, 31), (32, 33), (240, 260)])
def test_a_uniform_image_or_an_empty_mask_shows_nothing(shape: tuple[int, int]) -> None:
    image = np.full(shape, 130, dtype=np.uint8)
    assert classical_minutiae(image, everywhere(image)).shape == (0, 5)
    image[::5] = 20
    assert classical_minutiae(image, np.zeros(shape, dtype=np.bool_)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(33, 47), (1500, 1401)])
def test_noise_gives_valid_minutiae_at_most(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    minutiae = classical_minutiae(image, everywhere(image))
    check(minutiae, shape)


def check(minutiae: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    assert minutiae.dtype == np.float32
    assert minutiae.shape[1] == 5
    assert len(minutiae) <= 99
    x, y, direction, ending, score = minutiae.T
    assert ((x >= 0) & (x <= shape[1] - 1) & (y >= 0) & (y <= shape[0] - 1)).all()
    assert ((direction >= 0) & (direction < np.float32(TURN))).all()
    assert np.isin(ending, (0, 1)).all()
    assert ((score >= 0) & (score <= 1)).all()
    assert (np.diff(score) <= 0).all()


def test_a_real_print_gives_the_same_minutiae_each_time(real_print: NDArray[np.uint8]) -> None:
    mask = foreground(real_print)
    minutiae = classical_minutiae(real_print, mask)
    check(minutiae, real_print.shape)
    assert (minutiae[:, 4] >= 0.44).sum() >= 15
    np.testing.assert_array_equal(minutiae, classical_minutiae(real_print.copy(), mask.copy()))


def test_a_print_turned_by_quarters_keeps_its_minutiae(real_print: NDArray[np.uint8]) -> None:
    """Sides even, so that the half-resolution grid turns with the image."""
    image = real_print[: real_print.shape[0] // 2 * 2, : real_print.shape[1] // 2 * 2]
    upright = classical_minutiae(image, foreground(image))
    upright = upright[upright[:, 4] >= 0.6]
    turned = np.ascontiguousarray(np.rot90(image))
    found = classical_minutiae(turned, foreground(turned))
    # A quarter turn counter-clockwise: x becomes height - 1 - x, along y.
    expected = np.column_stack([upright[:, 1], image.shape[1] - 1 - upright[:, 0], upright[:, 2] + np.pi / 2])
    away = np.hypot(expected[:, None, 0] - found[None, :, 0], expected[:, None, 1] - found[None, :, 1])
    alike = np.cos(expected[:, None, 2] - found[None, :, 2]) > np.cos(np.radians(20))
    assert ((away < 4) & alike).any(axis=1).mean() >= 0.85


def test_convolution_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((3, 2, 11, 11)).astype(np.float32)
    weight = rng.standard_normal((4, 2, 5, 5)).astype(np.float32)
    bias = rng.standard_normal(4).astype(np.float32)
    result = _convolved(planes, weight, bias)
    assert result.shape == (3, 4, 4, 4)
    for k, channel, i, j in np.ndindex(result.shape):
        window = planes[k, :, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5]
        expected = max(0.0, float((window * weight[channel]).sum() + bias[channel]))
        assert result[k, channel, i, j] == pytest.approx(expected, abs=1e-4)


def test_other_types_and_shapes_are_refused() -> None:
    image = np.zeros((64, 64), dtype=np.uint8)
    with pytest.raises(TypeError):
        classical_minutiae(image.astype(np.float32), everywhere(image))
    with pytest.raises(TypeError):
        classical_minutiae(image, np.ones((64, 63), dtype=np.bool_))
