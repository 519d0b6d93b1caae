from dataclasses import replace
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
from matching.fingerprint.cylinders import cylinders
from matching.fingerprint.descriptors import SIZE, DescriptorModel, descriptors, raw_descriptors

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
