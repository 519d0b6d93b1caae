from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.population import person
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.descriptors import RAW_SIZE, neighbourhoods

INDEX = (FingerPosition.RIGHT_INDEX,)


def seen(template: FingerprintTemplate) -> np.ndarray:
    return neighbourhoods(template.x, template.y, template.direction)


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


def test_one_vector_for_each_minutia() -> None:
    [template] = person(0, 1, INDEX)
    assert seen(template).shape == (len(template), RAW_SIZE)
    assert seen(template).dtype == np.float32
    nobody = np.zeros(0, dtype=np.float32)
    assert neighbourhoods(nobody, nobody, nobody).shape == (0, RAW_SIZE)


@settings(max_examples=40, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 20))
def test_motion_changes_nothing(turn: float, dx: float, dy: float, who: int) -> None:
    [template] = person(who, 1, INDEX)
    # the square root is steep at the rim, where a cell's only neighbour enters or leaves its reach
    assert np.abs(seen(template) - seen(moved(template, turn, dx, dy))).mean() < 2e-3
