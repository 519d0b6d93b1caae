"""The LEADER network in a cheaper order gives what the published one gives."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from capture.decode import decode_image
from capture.fingerprint import leader
from capture.fingerprint.leader import Leader


@pytest.fixture(scope="module")
def published() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(leader._weights(), providers=["CPUExecutionProvider"])


def angle_between(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    difference: NDArray[np.float32] = np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)
    return difference


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("fvc2002_db1_b/102_1", slice(60, 252), slice(90, 314)),
        ("fvc2002_db3_b/104_3", slice(40, 264), slice(50, 210)),
        ("crossmatch/01203_1", slice(100, 228), slice(150, 342)),
    ],
)
def test_minutiae_are_those_of_the_published_network(
    published: onnxruntime.InferenceSession, development_data: Path, name: str, rows: slice, columns: slice
) -> None:
    # Ridges reach the edges on all sides, where zeros beyond the map must be the same too.
    data = (development_data / "fingerprint" / f"{name}.png").read_bytes()
    image = np.ascontiguousarray(decode_image(data, ppi=500).image[rows, columns])
    (expected,) = published.run(None, {"input": image[None, :, :, None].astype(np.float32)})
    _, direction, ending, score = np.moveaxis(expected[0], 2, 0)
    found = Leader()(image)
    there = score >= 0.1
    assert there.sum() >= 8
    assert np.array_equal(found.score > 0, there)
    assert np.abs(found.score - score)[there].max() < 1e-4
    assert angle_between(found.direction, direction)[there].max() < 1e-4
    assert np.abs(found.ending - ending)[there].max() < 1e-4


def test_a_minutia_in_the_corner_reads_zeros_beyond_the_edge() -> None:
    maps = np.arange(12, dtype=np.float32).reshape(1, 3, 4) + 1
    around = leader._around(maps, np.array([0, 2]), np.array([0, 3]), 3)
    assert around.shape == (2, 1, 3, 3)
    assert around[0, 0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 5, 6]]
    assert around[1, 0].tolist() == [[7, 8, 0], [11, 12, 0], [0, 0, 0]]


def test_an_image_without_minutiae_gives_none() -> None:
    found = Leader()(np.full((70, 90), 200, dtype=np.uint8))
    assert not found.score.any()


def test_no_more_candidates_than_told(development_data: Path) -> None:
    data = (development_data / "fingerprint/crossmatch/01203_1.png").read_bytes()
    part = decode_image(data, ppi=500).image[100:228, 150:278]
    found = Leader()(np.tile(part, (4, 4)))
    assert (found.score > 0).sum() == leader._MAX_CANDIDATES
