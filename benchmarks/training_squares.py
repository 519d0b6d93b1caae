"""Training examples for the fast extractor: squares of synthetic fingers that LEADER marked.

A finger is grown (`benchmarks.synthetic_prints`), drawn flat and clean, and LEADER marks its minutiae, once.
Each example then shows a square of it, turned, mirrored, stretched, half dry, smeared, scratched, half out of
touch, as a good or a bad scanner sees it; the minutiae move along. No real print is used.
"""

from dataclasses import dataclass
from math import pi
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_prints import FINGER_SHAPE, master
from capture.fingerprint import fast
from capture.fingerprint.leader import Leader

Field = NDArray[np.float32]

SIDE = 256  # pixels of a square
CELLS = SIDE // fast.STRIDE
_TAUGHT = (slice(48, 608), slice(48, 400))  # the part of a finger that touches the glass
_CENTRE = (FINGER_SHAPE[1] / 2 - 48, FINGER_SHAPE[0] / 2 - 48)  # its middle, x and y
_HALF = (152.0, 236.0)
_FIRST_SEED = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Finger:
    """A clean finger: `ridges` -1 to 1, `pores` and `creases` 0 to 1, each `(560, 352) float32`.

    `minutiae` `(n, 5) float32`: x, y, direction, ending, score, as LEADER finds them.
    """

    ridges: Field
    pores: Field
    creases: Field
    minutiae: Field


def taught(seed: int, leader: Leader, folder: Path) -> Finger:
    """Grow the finger of `seed` and let LEADER mark it; kept in `folder`. Cost: 1.5 CPU s, then 2 ms."""
    path = folder / f"{seed:05}.npz"
    if not path.exists():
        pitch = np.random.default_rng([seed, 77]).uniform(7.8, 10.2)
        whole = master(_FIRST_SEED + seed, pitch=float(pitch))
        ridges, pores, creases = (field[_TAUGHT] for field in (whole.ridges, whole.pores, whole.creases))
        found = leader(np.clip(140 - 95 * np.tanh(2 * ridges), 0, 255).astype(np.uint8))
        y, x = np.nonzero(found.score >= 0.1)
        marks = (x, y, found.direction[y, x], found.ending[y, x], found.score[y, x])
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(
                file,
                ridges=np.rint(127.5 + 127.5 * ridges).astype(np.uint8),
                pores=np.rint(255 * pores).astype(np.uint8),
                creases=np.rint(255 * creases).astype(np.uint8),
                minutiae=np.column_stack(marks).astype(np.float32),
            )
        partial.rename(path)
    with np.load(path) as stored:
        return Finger(
            stored["ridges"].astype(np.float32) / 127.5 - 1,
            stored["pores"].astype(np.float32) / 255,
            stored["creases"].astype(np.float32) / 255,
            stored["minutiae"],
        )


class Noise:
    """Smooth noise of unit variance that varies over `sigma` pixels, cut from sheets drawn once: 0.1 ms."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 5])
        self._sheets: dict[float, Field] = {}
        for sigma in (0.0, 0.8, 1.3, 2.0, 3.0, 5.0, 8.0, 14.0, 25.0, 45.0):
            sheet: Field = rng.standard_normal((1024, 1024), dtype=np.float32)
            if sigma:
                sheet = _blur(sheet, sigma)
            self._sheets[sigma] = (sheet - sheet.mean()) / sheet.std()

    def __call__(self, sigma: float, rng: np.random.Generator) -> Field:
        """`(SIDE, SIDE)`; `sigma` one of the sheets'."""
        top, left = rng.integers(0, 1024 - SIDE, 2)
        part = self._sheets[sigma][top : top + SIDE, left : left + SIDE]
        return part[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


def square(
    finger: Finger, noise: Noise, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Field, NDArray[np.bool_]]:
    """One example: image `(SIDE, SIDE) uint8`, minutiae `(n, 5)`, and where labels are sure, `bool`."""
    columns, rows, minutiae = _placed(finger, noise, rng)
    ridges, pores, creases = (
        np.asarray(cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderValue=outside), np.float32)
        for field, outside in ((finger.ridges, -1), (finger.pores, 0), (finger.creases, 0))
    )
    away = _contact_edge(columns, rows, noise, rng)
    ink = _ink(ridges, pores, creases, away, noise, rng)
    image = _scanned(ink, away, finger, noise, rng)

    # Whether a minutia at the very edge of the contact shows is anybody's guess.
    touch = (away < 0).astype(np.uint8)
    if rng.random() < 0.07:  # the image ends here, or has a frame
        left, top = rng.integers(0, 60, 2)
        image[:top], image[:, :left] = rng.integers(0, 256, 2)
        touch[:top], touch[:, :left] = 0, 0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    padded = cv2.copyMakeBorder(touch, 7, 7, 7, 7, cv2.BORDER_REPLICATE)
    inner, outer = cv2.erode(padded, disc)[7:-7, 7:-7] > 0, cv2.dilate(padded, disc)[7:-7, 7:-7] > 0
    sure = inner | ~outer
    x, y = np.rint(minutiae[:, :2]).astype(int).T
    seen = (x >= 0) & (y >= 0) & (x < SIDE) & (y < SIDE)
    seen[seen] = inner[y[seen], x[seen]]
    return image, minutiae[seen], sure


def _placed(finger: Finger, noise: Noise, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Where on the finger each pixel lies, `(SIDE, SIDE)` columns and rows, and the minutiae, moved there."""
    angle = rng.normal(0, 0.3) if rng.random() < 0.5 else rng.uniform(-pi, pi)
    scale = np.exp(rng.normal(0, 0.09)) * np.exp(rng.normal(0, 0.04, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    there = turn @ np.diag([rng.choice([-1, 1]) / scale[0], 1 / scale[1]])
    centre = _CENTRE + rng.uniform(-1, 1, 2) * (90, 150)
    strength = rng.gamma(1.5, 1.5)
    bend = np.stack([noise(45.0, rng), noise(45.0, rng)]) * np.float32(strength)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32(SIDE / 2)
    x, y = x + bend[0], y + bend[1]
    columns = (there[0, 0] * x + there[0, 1] * y + centre[0]).astype(np.float32)
    rows = (there[1, 0] * x + there[1, 1] * y + centre[1]).astype(np.float32)

    def seen_at(point: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = (point - centre) @ np.linalg.inv(there).T + SIDE / 2
        at = flat
        for _ in range(3):
            column, row = np.clip(np.rint(at), 0, SIDE - 1).astype(int).T
            at = flat - bend[:, row, column].T
        return at

    start = finger.minutiae[:, :2].astype(np.float64)
    facing = finger.minutiae[:, 2]
    here = seen_at(start)
    step = seen_at(start + 6 * np.column_stack([np.cos(facing), -np.sin(facing)])) - here
    direction = np.arctan2(-step[:, 1], step[:, 0]) % (2 * pi)
    minutiae = np.column_stack([here, direction, finger.minutiae[:, 3:]]).astype(np.float32)
    return columns, rows, minutiae


def _contact_edge(columns: Field, rows: Field, noise: Noise, rng: np.random.Generator) -> Field:
    """`(SIDE, SIDE)`: about the pixels from the edge of the contact, negative inside."""
    across, along = np.abs(columns - _CENTRE[0]) / _HALF[0], np.abs(rows - _CENTRE[1]) / _HALF[1]
    shape = (across**2.4 + along**2.4) ** (1 / 2.4)
    away = (shape - rng.uniform(0.65, 1.02)) * 150 + 6 * noise(25.0, rng) + 3 * noise(8.0, rng)
    if rng.random() < 0.15:  # a part of the finger only
        angle = rng.uniform(-pi, pi)
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32(SIDE / 2)
        away = np.maximum(away, np.cos(angle) * x + np.sin(angle) * y - rng.uniform(0, 90))
    if rng.random() < 0.1:  # places that do not touch
        away = np.maximum(away, 15 * (noise(25.0, rng) - rng.uniform(1, 2)))
    return np.asarray(away, np.float32)


def _ink(
    ridges: Field, pores: Field, creases: Field, away: Field, noise: Noise, rng: np.random.Generator
) -> Field:
    """What touches the glass, 0 to 1: ridges above a level that varies with pressure and moisture."""
    dry = rng.normal(0, 0.25)
    level = dry + abs(rng.normal(0, 0.2)) * noise(45.0, rng) + abs(rng.normal(0, 0.22)) * noise(14.0, rng)
    if rng.random() < 0.35:  # beaded ridges, merged ridges
        level = level + rng.uniform(0.1, 0.6) * noise(rng.choice([2.0, 3.0, 5.0]), rng)
    if rng.random() < 0.15:  # wet blots
        level = level - rng.uniform(0.5, 1.5) * np.maximum(noise(rng.choice([8.0, 14.0, 25.0]), rng) - 0.8, 0)
    if rng.random() < 0.15:  # dry blots
        level = level + rng.uniform(0.5, 1.5) * np.maximum(noise(rng.choice([8.0, 14.0, 25.0]), rng) - 0.8, 0)
    level = level + np.clip(0.06 * (away + 10), 0, 0.5) + np.clip(0.35 * away, 0, 20)
    grain = rng.gamma(2, 0.13) * noise(rng.choice([0.8, 1.3, 2.0]), rng)
    marks = rng.uniform(0, 2.5) * creases + _scratches(rng)
    contact = ridges + grain - rng.uniform(0, 1.6) * pores - marks - level
    return np.asarray(0.5 + 0.5 * np.tanh(rng.uniform(1.2, 5) * contact), np.float32)


def _scratches(rng: np.random.Generator) -> Field:
    """Lines and spots where nothing prints, negative where something does."""
    field = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.poisson(1.0)):
        start = rng.uniform(0, SIDE, 2)
        middle = start + rng.normal(0, 40, 2)
        end = middle + (middle - start) * rng.uniform(0.3, 1.5) + rng.normal(0, 12, 2)
        line = np.stack([start, middle, end]).astype(np.int32)
        cv2.polylines(
            field, [line], False, float(rng.choice([-1, 2, 2, 3])), int(rng.integers(1, 5)), cv2.LINE_AA
        )
    for _ in range(rng.poisson(2.0)):
        centre, axes = rng.integers(0, SIDE, 2).tolist(), rng.integers(2, 10, 2).tolist()
        cv2.ellipse(field, centre, axes, rng.uniform(0, 180), 0, 360, float(rng.choice([-2, 2, 2])), -1)
    return _blur(field, 1.0)


def _blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def _scanned(
    ink: Field, away: Field, finger: Finger, noise: Noise, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What the scanner makes of it: light, contrast, an older print, blur, noise, compression."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / np.float32(SIDE) - np.float32(0.5)
    if rng.random() < 0.15:  # what an earlier finger left
        old = finger.ridges[100:356, 40:296][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        ink = np.maximum(ink, rng.uniform(0.05, 0.3) * np.clip(old + noise(25.0, rng) - 0.3, 0, 1))
    if rng.random() < 0.15:  # grease between the ridges
        haze = np.clip(noise(rng.choice([14.0, 25.0, 45.0]), rng), 0, 2) * rng.uniform(0.1, 0.4)
        ink = ink + haze * (1 - ink)
    ground = rng.uniform(90, 262)
    contrast = ground * rng.uniform(0.25, 0.95) * (1 + 0.12 * noise(45.0, rng))
    contrast *= 1 + rng.uniform(0, 0.25) * noise(rng.choice([0.8, 1.3, 3.0]), rng)
    light = ground + rng.normal(0, 25) * x + rng.normal(0, 25) * y + rng.gamma(1.5, 3) * noise(45.0, rng)
    if rng.random() < 0.1:  # dark where nothing touches
        light = light - np.clip((away - rng.uniform(4, 14)) / 10, 0, 1) * rng.uniform(10, 150)
    seen = (light - contrast * ink).astype(np.float32)
    blur = rng.uniform(0, 1.3)
    if blur > 0.3:
        seen = _blur(seen, blur)
    sensor = rng.gamma(1.2, 0.045) * float(np.mean(contrast))
    seen = seen + sensor * noise(0.0, rng)
    if rng.random() < 0.25:  # fixed pattern of the sensor's rows and columns
        seen = seen + rng.normal(0, 4, (SIDE, 1)) * (rng.random() < 0.5) + rng.normal(0, 4, (1, SIDE))
    if rng.random() < 0.2:  # another resolution on the way
        side = int(SIDE * rng.uniform(0.55, 0.95))
        seen = cv2.resize(seen.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        seen = cv2.resize(seen, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:  # contrast stretched beyond black and white
        middle = float(np.mean(light) - np.mean(contrast) / 2) + rng.normal(0, 15)
        seen = (seen - middle) * rng.uniform(1, 5) + rng.uniform(90, 170)
    grey = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    return np.asarray(grey, np.uint8)


def encode(minutiae: Field) -> tuple[Field, Field]:
    """The cells of a square, `(6, CELLS, CELLS)`, as `fast.decode` reads them, and weights `(CELLS, CELLS)`.

    Channel 0 is 1 at the cell of a minutia and falls off around it; the others hold within a cell of one,
    as far as the weights say.
    """
    target = np.zeros((fast.CHANNELS, CELLS, CELLS), np.float32)
    weight = np.zeros((CELLS, CELLS), np.float32)
    for x, y, direction, ending, _ in minutiae:
        column, row = (x + 0.5) / fast.STRIDE, (y + 0.5) / fast.STRIDE
        j, i = int(np.clip(column, 0, CELLS - 1)), int(np.clip(row, 0, CELLS - 1))
        for r in range(max(0, i - 2), min(CELLS, i + 3)):
            for c in range(max(0, j - 2), min(CELLS, j + 3)):
                near = (
                    1.0
                    if (r, c) == (i, j)
                    else float(np.exp(-((c + 0.5 - column) ** 2 + (r + 0.5 - row) ** 2) / 1.1))
                )
                if near <= target[0, r, c]:
                    continue
                target[0, r, c] = near
                if abs(r - i) <= 1 and abs(c - j) <= 1:
                    weight[r, c] = near
                    target[1:, r, c] = (
                        column - c - 0.5,
                        row - r - 0.5,
                        np.cos(direction),
                        np.sin(direction),
                        ending,
                    )
    return target, weight
