"""The iris between pupil and limbus as a rectangle, and which parts of it show iris.

J. Daugman, "How Iris Recognition Works", IEEE TCSVT 14(1), 2004, but along rays from the middle of the pupil:
what the pupil's radius pushes outwards stays on its ray.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.iris.segmentation import Circle, Eye

SHEET_ROWS = 64
SHEET_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Params:
    """How far from the usual grey of its row, in its deviations, a point is no iris any more.

    `lash`: darker, from a little below the middle of the pupil upwards; `dark`: darker elsewhere; `bright`:
    brighter.
    `margin`: what is kept clear of an eyelid's arc, of the limbus radius.
    """

    lash: float = 2.4
    dark: float = 4.5
    bright: float = 3.0
    margin: float = 0.08


PARAMS = Params()
_ANGLES = np.arange(SHEET_COLUMNS) * (2 * np.pi / SHEET_COLUMNS)  # from the right, clockwise as seen
_BELOW = np.rad2deg(np.arcsin(np.sin(_ANGLES)))  # degrees below the horizontal
_SELDOM_COVERED = (_BELOW > -20) & (_BELOW < 50)
_LASHES = _BELOW < 10


@dataclass(frozen=True, slots=True, eq=False)
class RubberSheet:
    """The unrolled iris: rows from pupil to limbus, columns clockwise as seen, from the right.

    `grey` `(64, 512) float32`; `iris` `(64, 512) bool`: where it is neither lid, lash nor highlight, and
    within the picture.
    """

    grey: NDArray[np.float32]
    iris: NDArray[np.bool_]


def rubber_sheet(eye: Eye, params: Params = PARAMS) -> RubberSheet:
    """Unroll the iris. Cost: 4 ms."""
    x, y = _places(eye.pupil, eye.limbus)
    grey = cv2.remap(eye.clean, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    # 1. Within the picture, beside highlights and lids.
    height, width = eye.clean.shape
    free = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    spots = eye.highlights.astype(np.uint8)
    free &= cv2.remap(spots, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) == 0
    for lid in (eye.upper, eye.lower):
        if lid is not None:
            free &= ~lid.covers(x, y, eye.limbus, params.margin * eye.limbus.radius)
    # 2. Lashes, shadows and rims differ from the grey that a row has at the sides.
    usual, spread = _row_greys(grey, free)
    off = (grey - usual) / spread
    other = (off < -params.dark) | (off > params.bright) | ((off < -params.lash) & _LASHES)
    other = cv2.dilate(other.astype(np.uint8), np.ones((3, 5), np.uint8)) > 0
    return RubberSheet(grey, free & ~other)


def _places(pupil: Circle, limbus: Circle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the picture each point of the sheet lies."""
    cosine, sine = np.cos(_ANGLES), np.sin(_ANGLES)
    dx, dy = pupil.x - limbus.x, pupil.y - limbus.y
    along = dx * cosine + dy * sine
    reach = np.sqrt(np.maximum(along**2 + limbus.radius**2 - dx**2 - dy**2, 1)) - along
    share = (np.arange(SHEET_ROWS)[:, None] + 0.5) / SHEET_ROWS
    distance = pupil.radius * (1 - share) + reach * share
    return (
        (pupil.x + distance * cosine).astype(np.float32),
        (pupil.y + distance * sine).astype(np.float32),
    )


def _row_greys(grey: NDArray[np.float32], free: NDArray[np.bool_]) -> tuple[NDArray[np.float32], np.float32]:
    """The usual grey of each row `(64, 1)`, and how far from it the sides of the iris are, robustly."""
    sides = np.where(free, grey, np.nan)[:, _SELDOM_COVERED]
    known = np.isfinite(sides).sum(axis=1) >= 16
    if not known.any():
        return np.full((SHEET_ROWS, 1), np.median(grey), np.float32), np.float32(255)
    usual = np.interp(
        np.arange(SHEET_ROWS), np.flatnonzero(known), np.nanmedian(sides[known], axis=1)
    ).astype(np.float32)[:, None]
    usual = cv2.GaussianBlur(usual, (1, 9), 2)
    return usual, np.float32(1.4826 * np.nanmedian(np.abs(sides - usual)) + 2)
