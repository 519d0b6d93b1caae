"""Portraits of people who do not exist, drawn: enough of a face for the detector, and nothing of anybody.

They show that a portrait goes its way through a camera, quality, session and service; what the network makes
of them says nothing about people (see `benchmarks.synthetic_faces`).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (640, 480)  # rows, columns


def portrait(person: int, seed: int = 0) -> NDArray[np.uint8]:
    """Made-up `person` before a plain wall, `(960, 720, 3) uint8` red, green, blue. Cost: 30 ms."""
    of, now = np.random.default_rng([person, 41]), np.random.default_rng([person, seed, 42])
    page = np.full((*SIZE, 3), of.uniform(205, 225), np.float32)
    skin = np.array([of.uniform(170, 225), of.uniform(125, 170), of.uniform(95, 135)], np.float32)
    hair = np.full(3, of.uniform(20, 60), np.float32)
    wide, long = of.uniform(92, 106), of.uniform(126, 142)
    x, y = 240 + now.normal(0, 3), 280 + now.normal(0, 3)
    eye_x, eye_y = of.uniform(40, 46), y - of.uniform(26, 34)
    # 1. Shoulders, neck, hair, head.
    cloth = of.uniform(40, 160, 3).astype(np.float32)
    _ellipse(page, (x, SIZE[0] + 10), (215, 165), cloth, 3)
    _ellipse(page, (x, y + long), (50, 80), skin * 0.8, 3)
    _ellipse(page, (x, y - 30), (wide + 14, long + 6), hair, 3)
    _ellipse(page, (x, y + 8), (wide, long), skin, 2)
    # 2. Light from above: cheeks, forehead and the ridge of the nose stand out, sockets lie in the shade.
    for side in (-1, 1):
        _shade(page, (x + side * eye_x, eye_y), (30, 17), -48)
        _shade(page, (x + side * 48, y + 38), (30, 26), 16)
        _shade(page, (x + side * (wide - 8), y + 30), (18, 80), -30)
        _shade(page, (x + side * 17, y + 38), (9, 7), -45)
    _shade(page, (x, y - 78), (56, 30), 16)
    _shade(page, (x, y + 8), (8, 40), 24)
    _shade(page, (x, y + 46), (22, 7), -40)
    _shade(page, (x, y + 104), (36, 10), -22)
    # 3. Brows, eyes, nostrils, mouth.
    for side in (-1, 1):
        centre = x + side * eye_x, eye_y
        _ellipse(page, (centre[0], eye_y - of.uniform(20, 24)), (27, 5), hair, 1.5)
        _ellipse(page, centre, (18, 8), np.full(3, 232, np.float32), 1)
        _ellipse(page, centre, (8, 8), np.array([60, 42, 30], np.float32), 1)
        _ellipse(page, centre, (4, 4), np.full(3, 12, np.float32), 0.8)
        _ellipse(page, (centre[0], eye_y - 8), (20, 2.5), hair * 0.8, 1)
        _ellipse(page, (x + side * 9, y + 42), (5, 3), skin * 0.4, 1)
    lips = skin * np.array([0.85, 0.55, 0.55], np.float32)
    wide_mouth = of.uniform(30, 36)
    _ellipse(page, (x, y + 76), (wide_mouth, 6), lips * 0.9, 1.5)
    _ellipse(page, (x, y + 83), (wide_mouth - 6, 7), lips, 2)
    _ellipse(page, (x, y + 78), (wide_mouth, 1.6), lips * 0.4, 1)
    # 4. The camera.
    page += now.normal(0, 2.5, page.shape)
    taken = cv2.resize(page, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    return np.clip(cv2.GaussianBlur(taken, (0, 0), 0.8), 0, 255).astype(np.uint8)


def _ellipse(
    page: NDArray[np.float32],
    centre: tuple[float, float],
    axes: tuple[float, float],
    colour: NDArray[np.float32],
    soft: float,
) -> None:
    """Fill an ellipse with a soft edge."""
    mask = np.zeros(SIZE, np.float32)
    shift = 4
    at, size = (tuple(round(v * 2**shift) for v in pair) for pair in (centre, axes))
    cv2.ellipse(mask, at, size, 0, 0, 360, 1.0, -1, cv2.LINE_8, shift)
    mask = cv2.GaussianBlur(mask, (0, 0), soft)[..., None].astype(np.float32)
    page *= 1 - mask
    page += mask * colour


def _shade(
    page: NDArray[np.float32], centre: tuple[float, float], spread: tuple[float, float], levels: float
) -> None:
    """Make a soft spot lighter or darker."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    off = ((columns - centre[0]) / spread[0]) ** 2 + ((rows - centre[1]) / spread[1]) ** 2
    page += np.float32(levels) * np.exp(-off / 2)[..., None]
