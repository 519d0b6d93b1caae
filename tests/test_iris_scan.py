import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.iris_scan import noise_codes
from capture.iris.template import GROUP_WORDS, IrisCoder, rotated
from capture.sample import EyePosition
from matching.iris.comparison import MAX_STEPS, IrisForm, compare_irises
from matching.iris.scan import LANES, Words, blocked, scan, scan_within


def form(code: Words, mask: Words) -> IrisForm:
    return IrisForm(EyePosition.LEFT, code & mask, mask, IrisCoder.LOG_GABOR_1, 50)


def gallery(seed: int, count: int, valid: float, alike: float) -> tuple[IrisForm, Words, Words]:
    """A probe, and codes of which some show the same eye: rolled, part of their bits wrong, other masks."""
    rng = np.random.default_rng(seed)
    shape = (count, 64 * GROUP_WORDS)

    def words(bits: np.ndarray) -> Words:
        return np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)

    own, own_mask = words(rng.random(shape[1]) < 0.5), words(rng.random(shape[1]) < valid)
    # masks as lids leave them: whole words are lost as well
    masks = words(rng.random(shape) < valid) * (rng.random((count, GROUP_WORDS)) < 0.9)
    codes = words(rng.random(shape) < 0.5)
    for i in np.flatnonzero(rng.random(count) < alike):
        wrong = words(rng.random(shape[1]) < rng.uniform(0, 0.6))
        if rng.random() < 0.7:  # as many as possible in the words that are looked at first, all others right
            wrong *= np.arange(GROUP_WORDS) < rng.integers(GROUP_WORDS)
            masks[i] |= rotated(own, own_mask, 0)[1] if rng.random() < 0.5 else ~np.uint64(0)
        codes[i] = (
            rotated(own, own_mask, int(rng.choice([0, *range(-MAX_STEPS - 1, MAX_STEPS + 2)])))[0] ^ wrong
        )
    return form(own, own_mask), codes & masks, masks


galleries = st.builds(
    gallery,
    st.integers(0, 2**32),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.02, 0.3, 0.6, 0.8, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(galleries)
def test_distances_are_those_of_the_comparison(made: tuple[IrisForm, Words, Words]) -> None:
    probe, codes, masks = made
    distances = scan(probe, blocked(codes, masks))
    expected = [
        compare_irises(probe, form(code, mask)).distance for code, mask in zip(codes, masks, strict=True)
    ]
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances[: len(codes)], np.reshape(expected, -1), atol=1e-7)
    np.testing.assert_array_equal(distances[len(codes) :], 0.5)


@settings(max_examples=150, deadline=None)
@given(galleries, st.floats(-0.1, 0.6), st.data())
def test_what_is_abandoned_could_not_pass(
    made: tuple[IrisForm, Words, Words], limit: float, data: st.DataObject
) -> None:
    probe, codes, masks = made
    blocks = blocked(codes, masks)
    brute = scan(probe, blocks)
    if len(brute) and data.draw(st.booleans()):
        limit = float(data.draw(st.sampled_from(brute.tolist())))  # just at the limit
    numbers, distances = scan_within(probe, blocks, limit)
    np.testing.assert_array_equal(numbers, np.flatnonzero(brute <= np.float32(limit)))
    np.testing.assert_array_equal(distances, brute[numbers])


@pytest.mark.parametrize("limit", [0.2, 0.3, 0.33, 0.36, 0.4, 0.44])
def test_correlated_codes_with_lids_are_abandoned_exactly(limit: float) -> None:
    codes, masks = noise_codes(600, np.random.default_rng(5))
    blocks = blocked(codes, masks)
    for i in range(3):
        probe = form(*rotated(codes[i], masks[i], i - 1))
        brute = scan(probe, blocks)
        numbers, distances = scan_within(probe, blocks, limit)
        assert brute[i] < 1e-6
        np.testing.assert_array_equal(numbers, np.flatnonzero(brute <= np.float32(limit)))
        np.testing.assert_array_equal(distances, brute[numbers])


def test_every_rotation_is_tried_and_no_more() -> None:
    codes, masks = noise_codes(9, np.random.default_rng(6))
    blocks = blocked(codes, masks)
    for step in range(-MAX_STEPS - 1, MAX_STEPS + 2):
        found, _ = scan_within(form(*rotated(codes[4], masks[4], step)), blocks, 0.01)
        assert found.tolist() == ([4] if abs(step) <= MAX_STEPS else [])


def test_longer_codes_are_scanned_by_their_first_group() -> None:
    codes, masks = noise_codes(6, np.random.default_rng(7))
    probe = form(np.concatenate([codes[0], codes[1]]), np.concatenate([masks[0], masks[1]]))
    blocks = blocked(codes, masks)
    np.testing.assert_array_equal(scan(probe, blocks), scan(form(codes[0], masks[0]), blocks))


def test_blocks_hold_the_words_of_eight_codes_side_by_side() -> None:
    codes, masks = noise_codes(11, np.random.default_rng(8))
    blocks = blocked(codes, masks)
    assert blocks.shape == (2, GROUP_WORDS, 2, LANES)
    for n in range(11):
        np.testing.assert_array_equal(blocks[n // LANES, :, 0, n % LANES], codes[n])
        np.testing.assert_array_equal(blocks[n // LANES, :, 1, n % LANES], masks[n])
    assert not blocks[1, :, :, 3:].any()
    assert blocked(codes[:0], masks[:0]).shape == (0, GROUP_WORDS, 2, LANES)


def test_blocks_mapped_from_a_file_are_scanned_by_many_threads(tmp_path: Path) -> None:
    codes, masks = noise_codes(100, np.random.default_rng(9))
    np.save(tmp_path / "blocks.npy", blocked(codes, masks))
    blocks = np.load(tmp_path / "blocks.npy", mmap_mode="r")
    expected = [scan(form(codes[i], masks[i]), blocked(codes, masks)) for i in range(4)]
    found: dict[int, bool] = {}

    def look(i: int) -> None:
        found[i] = all(np.array_equal(scan(form(codes[i], masks[i]), blocks), expected[i]) for _ in range(50))

    threads = [threading.Thread(target=look, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)
