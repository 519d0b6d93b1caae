from dataclasses import replace
from math import log
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.population import person
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.sample import FingerPosition, Sample
from matching.errors import ParametersUnavailable
from matching.fingerprint.cylinders import BASE_WORDS, LAYERS, Cylinders, cylinders
from matching.fingerprint.descriptors import SIZE, DescriptorModel, descriptors, raw_descriptors
from matching.fingerprint.packed import PACKED_WORDS, packed, places, unpacked
from matching.fingerprint.votes import votes

INDEX = (FingerPosition.RIGHT_INDEX,)


def described(template: FingerprintTemplate) -> np.ndarray:
    return descriptors(template, cylinders(template))


def moved(template: FingerprintTemplate, turn: float, dx: float, dy: float) -> FingerprintTemplate:
    """The print turned counter-clockwise as seen about its middle, and shifted; off the sensor if need be."""
    x, y = template.x - template.x.mean(), template.y - template.y.mean()
    c, s = np.cos(turn), np.sin(turn)
    direction = (template.direction + np.float32(turn)) % np.float32(2 * np.pi)
    return replace(
        template,
        x=(c * x + s * y + 500 + dx).astype(np.float32),
        y=(c * y - s * x + 500 + dy).astype(np.float32),
        direction=np.where(direction >= np.float32(2 * np.pi), np.float32(0), direction),
        width=1000,
        height=1000,
    )


def test_one_unit_vector_for_each_cylinder() -> None:
    [template] = person(0, 1, INDEX)
    made = described(template)
    assert made.shape == (len(cylinders(template)), SIZE)
    assert made.dtype == np.float32
    assert not made.flags.writeable
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)


def test_no_minutiae_no_descriptors() -> None:
    [template] = person(0, 1, INDEX)
    empty = replace(
        template,
        **{name: getattr(template, name)[:0] for name in ("x", "y", "direction", "ending", "reliability")},
    )
    assert described(empty).shape == (0, SIZE)


@settings(max_examples=40, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 20))
def test_motion_changes_nothing(turn: float, dx: float, dy: float, who: int) -> None:
    [template] = person(who, 1, INDEX)
    here, there = cylinders(template), cylinders(moved(template, turn, dx, dy))
    _, i, j = np.intersect1d(here.minutia, there.minutia, return_indices=True)
    assert len(i) >= len(here) - 3  # one at the edge of validity may come or go by rounding
    a = raw_descriptors(template, here)[i]
    b = raw_descriptors(moved(template, turn, dx, dy), there)[j]
    # the square root is steep at the rim, where a cell's only neighbour enters or leaves its reach
    assert np.abs(a - b).mean() < 2e-3
    cosine = (described(template)[i] * described(moved(template, turn, dx, dy))[j]).sum(axis=1)
    assert cosine.min() > 0.97


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ExtractorChoice.ACCURATE, ExtractorChoice.ACCURATE),
        (ExtractorChoice.ACCURATE, ExtractorChoice.FAST),
        (ExtractorChoice.FAST, ExtractorChoice.FAST),
    ],
)
def test_real_mates_are_nearer_than_strangers(
    development_data: Path, one: ExtractorChoice, other: ExtractorChoice
) -> None:
    extractors = {choice: FingerprintExtractor(choice) for choice in (one, other)}

    def read(name: str, choice: ExtractorChoice) -> np.ndarray:
        image = cv2.imread(str(development_data / "fingerprint" / "crossmatch" / name), cv2.IMREAD_GRAYSCALE)
        template = extractors[choice].extract(Sample(np.asarray(image, dtype=np.uint8), 500)).template
        assert template is not None
        return described(template)

    first, again = read("01203_1.png", one), read("01203_2.png", other)
    stranger = read("01704_1.png", other)
    mated, strange = (first @ again.T).max(axis=1), (first @ stranger.T).max(axis=1)
    assert np.median(mated) > np.quantile(strange, 0.99)
    assert np.mean(mated > strange.max()) > 0.5


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    shipped = DescriptorModel.load()
    arrays = {name: getattr(shipped, name) for name in ("mean", "projection", "centroids", "codebooks")}
    right = {"version": 1, "extractor": 1, "identity": "x", **arrays}
    path = tmp_path / "model.npz"
    np.savez(path, **right)
    assert DescriptorModel.from_file(path).identity == "x"
    wrong = [
        right | {"version": 0},
        right | {"extractor": 2},
        right | {"mean": shipped.mean[:5]},
        {name: right[name] for name in right if name != "codebooks"},
    ]
    for content in wrong:
        np.savez(path, **content)
        with pytest.raises(ParametersUnavailable):
            DescriptorModel.from_file(path)
    path.write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ParametersUnavailable):
        DescriptorModel.from_file(path)
    with pytest.raises(ParametersUnavailable):
        DescriptorModel.from_file(tmp_path / "missing.npz")


def test_votes_that_agree_add_up() -> None:
    # the probe's three cylinders, and a finger that shows them a quarter turn further
    probe = np.array([[0, 0, 0, 0], [100, 0, 100, 1], [0, 50, 900, 2]], dtype=np.int16)
    quarter = 256
    turned = np.array([[300, 300, quarter], [300, 200, 356], [350, 300, 1156 - 1024]], dtype=np.int16)
    nonsense = np.array([[0, 0, 0], [0, 300, 0], [7, 7, 700]], dtype=np.int16)
    reference = np.column_stack([np.concatenate([turned, nonsense]), np.zeros(6)]).astype(np.int16)
    finger = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)
    hits = np.array([[0, 3], [4, 1], [2, 5]])
    first, second = log(3 / 1), log(3 / 2)
    score = votes(hits, probe, reference, finger, 3)
    np.testing.assert_allclose(score, [2 * first + second, first, 0], rtol=1e-5)
    # a removed row has no vote, and -1 stands for no neighbour
    finger[2] = -1
    hits[0, 1] = -1
    np.testing.assert_allclose(
        votes(hits, probe, reference, finger, 3), [first + second, first, 0], rtol=1e-5
    )


def test_a_cylinder_votes_once_in_a_group() -> None:
    probe = np.array([[0, 0, 0, 0]], dtype=np.int16)
    reference = np.array([[5, 5, 3, 0], [6, 5, 3, 1]], dtype=np.int16)
    score = votes(np.array([[1, 0]]), probe, reference, np.zeros(2, dtype=np.int32), 1)
    np.testing.assert_allclose(score, [log(3)], rtol=1e-6)


def test_packing_is_exact() -> None:
    assert PACKED_WORDS == 23
    for template in person(3, 1):
        made = cylinders(template)
        kept = unpacked(packed(made), places(made))
        np.testing.assert_array_equal(kept.bits, made.bits)
        np.testing.assert_array_equal(kept.mask, made.mask)
        np.testing.assert_array_equal(kept.minutia, made.minutia)
        np.testing.assert_array_equal(kept.x, np.rint(made.x))
        np.testing.assert_array_equal(kept.y, np.rint(made.y))
        whole = np.rint(made.direction * (512 / np.pi)) % 1024
        np.testing.assert_allclose(kept.direction * (512 / np.pi), whole, atol=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_any_cells_within_the_base_survive_packing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middle = np.arange(16) - 7.5
    base = (middle[:, None] ** 2 + middle[None] ** 2 <= 64).ravel()
    cells = (rng.random((5, LAYERS + 1, 256)) < 0.5) & base
    words = np.packbits(cells, axis=2, bitorder="little").view(np.uint64)
    zeros = np.zeros(5, dtype=np.float32)
    made = Cylinders(
        zeros,
        zeros,
        zeros,
        np.ascontiguousarray(words[:, :LAYERS].reshape(5, LAYERS * BASE_WORDS)),
        np.ascontiguousarray(words[:, LAYERS]),
        np.arange(5, dtype=np.int32),
    )
    kept = unpacked(packed(made), places(made))
    np.testing.assert_array_equal(kept.bits, made.bits)
    np.testing.assert_array_equal(kept.mask, made.mask)
