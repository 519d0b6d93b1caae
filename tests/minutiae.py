"""Templates with random minutiae, and small changes of them, for property tests."""

import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition


def template_of(
    x: NDArray[np.floating], y: NDArray[np.floating], direction: NDArray[np.floating], side: int
) -> FingerprintTemplate:
    turn = np.float32(2 * np.pi)
    wrapped = (direction.astype(np.float64) % (2 * np.pi)).astype(np.float32)
    return FingerprintTemplate(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        direction=np.where(wrapped >= turn, np.float32(0), wrapped),
        ending=np.ones(len(x), dtype=np.bool_),
        reliability=np.full(len(x), 0.9, dtype=np.float32),
        width=side,
        height=side,
        position=FingerPosition.UNKNOWN,
        quality=50,
    )


def made_template(n: int, seed: int, side: int) -> FingerprintTemplate:
    """`n` minutiae at random in a square; directions follow a smooth field with noise, as ridges do."""
    random = np.random.default_rng(seed)
    x, y = random.integers(0, side, (2, n)).astype(np.float64)
    flow = random.uniform(0, 2 * np.pi) + (x - y) * random.uniform(-0.01, 0.01)
    direction = flow + np.pi * random.integers(0, 2, n) + random.normal(0, 0.2, n)
    return template_of(x, y, direction, side)


def moved_template(template: FingerprintTemplate, turn: float, dx: float, dy: float) -> FingerprintTemplate:
    """The same finger turned counter-clockwise by `turn` about its middle and shifted, in a larger image."""
    c, s, middle = np.cos(turn), np.sin(turn), template.width / 2
    x, y = template.x.astype(np.float64) - middle, template.y.astype(np.float64) - middle
    return template_of(
        c * x + s * y + template.width + dx,
        c * y - s * x + template.width + dy,
        template.direction.astype(np.float64) + turn,
        2 * template.width,
    )
