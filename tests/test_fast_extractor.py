"""The fast extractor's network, and the examples it learns from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.synthetic_prints import impression, master
from benchmarks.training_squares import CELLS, SIDE, Finger, Noise, encode, square
from capture.decode import decode_image
from capture.errors import ModelUnavailable
from capture.fingerprint import fast
from capture.fingerprint.fast import FastNetwork, Params
from capture.fingerprint.foreground import foreground
from capture.fingerprint.leader import Leader

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def network() -> FastNetwork:
    return FastNetwork()


@pytest.fixture(scope="module")
def print_of_a_finger() -> NDArray[np.uint8]:
    return impression(master(5), 7)


def turn_between(a: Floats, b: Floats) -> Floats:
    turn: Floats = np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)
    return turn


def check_contract(found: Floats, mask: NDArray[np.bool_]) -> None:
    assert found.dtype == np.float32
    assert found.shape == (min(len(found), 99), 5)
    x, y, direction, ending, score = found.T
    assert (mask[np.rint(y).astype(int), np.rint(x).astype(int)]).all()
    assert ((x >= 0) & (x <= mask.shape[1] - 1) & (y >= 0) & (y <= mask.shape[0] - 1)).all()
    assert ((direction >= 0) & (direction < 2 * np.pi)).all()
    assert np.isin(ending, (0, 1)).all()
    assert ((score > 0) & (score <= 1)).all()
    assert (np.diff(score) <= 0).all()


def test_finds_what_leader_finds(network: FastNetwork, development_data: Path) -> None:
    """On real prints: drawn ones change with their generator, and the network was taught on earlier ones."""
    prints = development_data / "fingerprint" / "crossmatch"
    hit = theirs = ours = 0
    turns, distances = [], []
    for name in ("01203_1", "01204_2", "01205_3"):
        image = decode_image((prints / f"{name}.png").read_bytes(), ppi=500.0).image
        mask = foreground(image)
        found = network(image, mask)
        check_contract(found, mask)
        taught = Leader()(image, mask)
        y, x = np.nonzero(taught.score >= 0.44)
        found = found[found[:, 4] >= 0.44]
        distance = np.hypot(x[:, None] - found[:, 0], y[:, None] - found[:, 1])
        near = distance.argmin(axis=1)
        same = distance.min(axis=1) < 9
        hit, theirs, ours = hit + int(same.sum()), theirs + len(x), ours + len(found)
        distances.append(distance.min(axis=1)[same])
        turns.append(turn_between(taught.direction[y, x][same], found[near[same], 2]))
    assert theirs > 100
    assert hit / theirs > 0.93
    assert hit / ours > 0.8
    assert np.median(np.concatenate(distances)) < 2.5
    assert np.median(np.concatenate(turns)) < np.radians(5)


def test_same_answer_every_time(network: FastNetwork, print_of_a_finger: NDArray[np.uint8]) -> None:
    mask = foreground(print_of_a_finger)
    first = network(print_of_a_finger, mask)
    assert len(first) > 20
    np.testing.assert_array_equal(first, FastNetwork()(print_of_a_finger, mask))


def test_a_second_look_is_taken_in_doubt_only(
    network: FastNetwork, print_of_a_finger: NDArray[np.uint8]
) -> None:
    never, always = (FastNetwork(params=Params(max_doubt=doubt)) for doubt in (np.inf, -1))
    noise = np.random.default_rng(5).normal(0, 200, print_of_a_finger.shape)
    poor = np.clip(print_of_a_finger + noise, 0, 255).astype(np.uint8)
    for image, right, wrong in ((print_of_a_finger, never, always), (poor, always, never)):
        mask = foreground(image)
        found = network(image, mask)
        np.testing.assert_array_equal(found, right(image, mask))
        assert not np.array_equal(found, wrong(image, mask))


def test_mirror_image_gives_mirrored_minutiae(print_of_a_finger: NDArray[np.uint8]) -> None:
    network = FastNetwork(params=Params(max_doubt=-1))
    whole = np.ones(print_of_a_finger.shape, np.bool_)
    mirrored = np.ascontiguousarray(print_of_a_finger[:, ::-1])
    here, there = network(print_of_a_finger, whole), network(mirrored, whole)
    np.testing.assert_allclose(here[:, 4], there[:, 4], atol=1e-4)
    here, there = here[here[:, 4] > 0.3], there[there[:, 4] > 0.3]
    there[:, 0] = print_of_a_finger.shape[1] - 1 - there[:, 0]
    there[:, 2] = np.pi - there[:, 2]
    distance = np.hypot(*(here[:, None, :2] - there[None, :, :2]).T)
    assert distance.min(axis=0).max() < 0.05
    assert turn_between(here[:, 2], there[distance.argmin(axis=0), 2]).max() < 0.01


def test_crops_to_the_mask(network: FastNetwork, print_of_a_finger: NDArray[np.uint8]) -> None:
    alone = network(print_of_a_finger, foreground(print_of_a_finger))
    around = np.full((900, 800), 255, np.uint8)
    around[200:700, 160:560] = print_of_a_finger
    mask = np.zeros(around.shape, np.bool_)
    mask[200:700, 160:560] = foreground(print_of_a_finger)
    found = network(around, mask)
    check_contract(found, mask)
    found[:, :2] -= (160, 200)
    # Where the image cuts the finger off, what lies beyond makes a difference.
    height, width = print_of_a_finger.shape
    far = (np.abs(alone[:, 0] - width / 2) < width / 2 - 40) & (
        np.abs(alone[:, 1] - height / 2) < height / 2 - 40
    )
    strong = alone[(alone[:, 4] > 0.6) & far]
    assert len(strong) > 20
    assert np.hypot(*(strong[:, None, :2] - found[None, :, :2]).T).min(axis=0).max() < 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 9), (33, 8), (900, 1100)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_uniform_images_have_none(network: FastNetwork, shape: tuple[int, int], grey: int) -> None:
    found = network(np.full(shape, grey, np.uint8), np.ones(shape, np.bool_))
    check_contract(found, np.ones(shape, np.bool_))
    assert len(found) == 0


def test_nothing_in_no_finger(network: FastNetwork, print_of_a_finger: NDArray[np.uint8]) -> None:
    found = network(print_of_a_finger, np.zeros(print_of_a_finger.shape, np.bool_))
    check_contract(found, np.zeros(print_of_a_finger.shape, np.bool_))
    assert len(found) == 0


def test_noise_keeps_the_contract(network: FastNetwork) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1100, 900), np.uint8)
    check_contract(network(noise, np.ones(noise.shape, np.bool_)), np.ones(noise.shape, np.bool_))


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not load"):
        FastNetwork(tmp_path / "none.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(fast.WEIGHTS.read_bytes()[:5000])
    with pytest.raises(ModelUnavailable, match="does not load"):
        FastNetwork(damaged)
    damaged.write_bytes(b"")
    with pytest.raises(ModelUnavailable):
        FastNetwork(damaged)


def test_weights_stay_small() -> None:
    assert fast.WEIGHTS.stat().st_size < 800_000


@st.composite
def minutiae(draw: st.DrawFn) -> Floats:
    """Minutiae of a square, at least 16 pixels apart."""
    places = draw(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
    within = st.floats(0, 9, width=32)
    rows = [
        (
            25 * column + 1 + draw(within),
            25 * row + 1 + draw(within),
            draw(st.floats(0, 6.25, width=32)),
            draw(st.sampled_from((0.0, 1.0))),
            1,
        )
        for column, row in sorted(places)
    ]
    return np.array(rows, np.float32)


@given(minutiae())
@settings(max_examples=40, deadline=None)
def test_decode_undoes_encode(marks: Floats) -> None:
    target, weight = encode(marks)
    assert target.shape == (fast.CHANNELS, CELLS, CELLS)
    assert weight.shape == (CELLS, CELLS)
    cells = target.copy()
    cells[0] = np.where(target[0] >= 1, 4.0, 8 * target[0] - 8)
    cells[5] = 2 * target[5] - 1
    found = fast.decode(cells)
    assert len(found) == len(marks)
    found = found[np.hypot(*(found[:, None, :2] - marks[None, :, :2]).T).argmin(axis=1)]
    np.testing.assert_allclose(found[:, :2], marks[:, :2], atol=1e-3)
    assert turn_between(found[:, 2], marks[:, 2]).max() < 1e-3
    np.testing.assert_array_equal(found[:, 3], marks[:, 3])
    np.testing.assert_array_equal(weight[target[0] >= 1], 1)


def test_of_two_close_minutiae_the_stronger_stays() -> None:
    cells = np.full((fast.CHANNELS, 16, 16), 0, np.float32)
    cells[0] = -9
    cells[0, 5, 5], cells[0, 5, 7] = 1, 2  # two cells apart, and drawn together by their offsets
    cells[1, 5, 5], cells[1, 5, 7] = 0.5, -0.5
    cells[3] = 1
    (found,) = fast.decode(cells)
    np.testing.assert_allclose(found[:4], [7 * 4 - 0.5, 21.5, 0, 0], rtol=1e-5)


def test_marks_of_a_square_lie_where_the_ridges_end() -> None:
    """A finger of straight ridges, one of which ends: wherever the square shows it, the label is there."""
    y, x = np.mgrid[:560, :352].astype(np.float32)
    ridges = np.where((np.abs(y - 256) < 2) & (x > 176), 1, -1).astype(np.float32)
    none = np.zeros_like(ridges)
    mark = np.array([[176, 256, 0, 1, 1]], np.float32)  # the ridge runs off along its direction
    finger, noise = Finger(ridges, none, none, mark), Noise(0)
    seen = 0
    for seed in range(30):
        image, marks, sure = square(finger, noise, np.random.default_rng(seed))
        assert image.shape == sure.shape == (SIDE, SIDE)
        assert image.dtype == np.uint8
        repeated, _, _ = square(finger, noise, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, repeated)
        for mx, my, direction, *_ in marks:
            ahead = [(mx + 8 * s * np.cos(direction), my - 8 * s * np.sin(direction)) for s in (1, -1)]
            if not all(4 <= u < SIDE - 4 and 4 <= v < SIDE - 4 for u, v in ahead):
                continue
            on, off = (image[int(v) - 2 : int(v) + 3, int(u) - 2 : int(u) + 3].min() for u, v in ahead)
            seen += int(on) < int(off)
    assert seen > 8
