"""Slaps of people who do not exist: several fingers on one platen, with what goes wrong there.

Fingers of `benchmarks.synthetic_prints` are laid side by side as hands lie: tips on an arc (index 11, ring 9,
little 30 mm behind the middle one, after the lengths of fingers in hand anthropometry), splayed, tilted, with
the second phalanx below the joint, on a glass of 3.2 x 3.0 inches at 500 ppi. Real prints can be laid down in
the same way (`patch_of_print`), in memory only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_prints import Conditions, Master, Pattern, Scanner, finger, impression, master
from capture.sample import FingerPosition

Field = NDArray[np.float32]

PPI = 500
GLASS = (1500, 1600)  # rows, columns
RIGHT_FOUR = tuple(FingerPosition(code) for code in (2, 3, 4, 5))
LEFT_FOUR = tuple(FingerPosition(code) for code in (10, 9, 8, 7))  # as they lie, from left to right
THUMBS = (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)

_MM = 500 / 25.4
# Index to little finger: how far the tip lies behind the middle one's, its spread, and the lean when splayed.
_BEHIND = np.array([11.0, 0.0, 9.0, 30.0]) * _MM
_BEHIND_SPREAD = np.array([2.5, 0.0, 2.3, 4.5]) * _MM
_LEAN = np.array([-5.0, -1.0, 3.0, 9.0])
_TOP = Scanner((580, 440), (1.0, 1.0), (255, 255), 0, (0.66, 0.82), (0.5, 0.8), (0, 0), 0, 0, 1.0)
_JOINT = Scanner((520, 440), (0.97, 0.75), (255, 255), 0, (0.5, 0.75), (0.5, 0.8), (0, 0), 0, 0, 1.0)


class Kind(StrEnum):
    """What is the matter with a slap."""

    PLAIN = "plain"
    TILTED = "tilted"
    TOUCHING = "touching"
    DRY = "dry"
    DIRTY = "dirty"
    HEAVY = "heavy"
    OFF_EDGE = "off_edge"


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One finger as it prints, upright: `ink` `(H, W) float32`, 0 to 1, and its last phalanx.

    `box`: left, top, right, bottom of what prints above the joint.
    """

    ink: Field
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """Where a finger lies in a slap: `corners` `(4, 2) float32`, x and y, from the tip's left clockwise.

    `inside`: share of its last phalanx that lies on the glass; `angle`: degrees it leans to the right.
    """

    position: FingerPosition
    corners: Field
    angle: float
    inside: float


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSlap:
    """A slap image `(H, W) uint8` at 500 ppi and the fingers that lie there."""

    image: NDArray[np.uint8]
    fingers: tuple[Laid, ...]
    kind: Kind


@dataclass(frozen=True, slots=True, eq=False)
class Hands:
    """A made-up person's fingers, and what their joints print."""

    fingers: Mapping[FingerPosition, Master]
    joint: Master


def hands(seed: int, positions: tuple[FingerPosition, ...] = RIGHT_FOUR + LEFT_FOUR + THUMBS) -> Hands:
    """The person of `seed`. Cost: 0.4 CPU s a finger."""
    joint = master(seed * 16 + 15, Pattern.ARCH)
    return Hands({position: finger(seed, position) for position in positions}, joint)


def drawn_slap(person: Hands, positions: tuple[FingerPosition, ...], kind: Kind, seed: int) -> DrawnSlap:
    """Fingers of one person, given from left to right, laid down once. Cost: 0.5 CPU s."""
    rng = np.random.default_rng([seed, 21])
    patches = {position: _patch(person, position, kind, rng) for position in positions}
    return laid_slap(patches, kind, seed)


def laid_slap(patches: Mapping[FingerPosition, Patch], kind: Kind, seed: int) -> DrawnSlap:
    """Fingers that print as `patches`, laid on the glass from left to right in that order."""
    rng = np.random.default_rng([seed, 22])
    placed = _placed(patches, kind, rng)
    height, width = GLASS
    clear = np.ones(GLASS, np.float32)
    for position, move in placed.items():
        ink = cv2.warpAffine(patches[position].ink, move, (width, height), flags=cv2.INTER_LINEAR)
        clear *= 1 - ink
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = (
        rng.uniform(225, 250)
        + rng.normal(0, 4) * u
        + rng.normal(0, 4) * v
        - rng.uniform(0, 10) * (u**2 + v**2)
    )
    if kind is Kind.DIRTY:
        clear *= _dirt(1 - clear, rng)
    seen = light * clear + rng.standard_normal(GLASS, dtype=np.float32) * np.float32(rng.uniform(1, 4))
    fingers = tuple(_laid(position, patches[position], move) for position, move in placed.items())
    return DrawnSlap(np.clip(np.rint(seen), 0, 255).astype(np.uint8), fingers, kind)


def patch_of_print(image: NDArray[np.uint8]) -> Patch:
    """A print `(H, W) uint8` of one finger, dark ridges, as something to lay down; its ground is clear."""
    light = np.float32(np.percentile(image, 90))
    ink = np.clip(1.04 * (1 - image / light) - 0.04, 0, 1).astype(np.float32)
    rim = np.minimum.outer(*(np.minimum(np.arange(n), np.arange(n)[::-1]) for n in ink.shape))
    ink *= np.clip(rim / 8, 0, 1).astype(np.float32)
    return Patch(ink, _box(ink))


def _patch(person: Hands, position: FingerPosition, kind: Kind, rng: np.random.Generator) -> Patch:
    """The last phalanx, and mostly some of the second one below it."""
    heavy = kind is Kind.HEAVY
    touch = Conditions(
        (_TOP,), (0, 0), (8, 12), 0, 0.6, 0.8 if heavy else 0.35, 0.6 if heavy else 0.3, 0.8, 0
    )
    joint = Conditions((_JOINT,), (0, 0), (20, 60), 0, 0.5, 0.5, 0.5, 0.8, 0.1)
    top = _ink(impression(person.fingers[position], int(rng.integers(2**31)), touch))
    box = _box(top)
    ink = np.zeros((1300, top.shape[1]), np.float32)
    ink[: top.shape[0]] = top
    if rng.random() < 0.8:
        below = _ink(impression(person.joint, int(rng.integers(2**31)), joint))
        if rng.random() < 0.5:
            below = below[::-1]
        below = _narrowed(below, (box[2] - box[0]) / (2 * person.joint.half_width))
        gap = float(np.clip(rng.normal(8 if heavy else 28, 18), -8, 80))
        start = round(box[3] + gap - _box(below)[1])
        ink[start : start + below.shape[0]] = np.maximum(ink[start : start + below.shape[0]], below)
    if kind is Kind.DRY:
        ink *= _dryness(ink.shape, rng)
    return Patch(np.clip(ink, 0, 1), box)


def _ink(image: NDArray[np.uint8]) -> Field:
    """Share of the light that an impression takes, without the faint unevenness of its ground."""
    return np.clip(1.05 - image / np.float32(240), 0, 1).astype(np.float32)


def _box(ink: Field) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what prints at all, without its thin fringe."""
    printed = cv2.GaussianBlur(ink, (0, 0), 7) > 0.12
    rows, columns = np.flatnonzero(printed.mean(1) > 0.08), np.flatnonzero(printed.mean(0) > 0.08)
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _placed(
    patches: Mapping[FingerPosition, Patch], kind: Kind, rng: np.random.Generator
) -> dict[FingerPosition, Field]:
    """The affine map `(2, 3)` of each patch onto the glass."""
    positions = tuple(patches)
    boxes = np.array([patches[position].box for position in positions])
    size = boxes[:, 2:] - boxes[:, :2]
    left_hand = positions[0] > FingerPosition.LEFT_THUMB
    if all(position in THUMBS for position in positions):
        lean = np.array([5.0 if position == THUMBS[0] else -5.0 for position in positions]) + rng.normal(
            0, 6, len(size)
        )
        tips = rng.normal(0, 60, len(size))
        gaps = np.abs(rng.normal(170, 80, len(size)))
    else:
        digit = np.array([(position - 1) % 5 - 1 for position in positions])
        splay = rng.uniform(0.1, 0.6 if kind is Kind.TOUCHING else 1.2)
        lean = (splay * _LEAN[digit] + rng.normal(0, 2, len(size))) * (-1 if left_hand else 1)
        behind = _BEHIND + _BEHIND_SPREAD * rng.standard_normal(4)
        tips = behind[digit]
        gaps = (
            rng.normal(-4, 7, len(size))
            if kind is Kind.TOUCHING
            else np.abs(rng.normal(26, 18, len(size))) + 6
        )
        # a finger that is missing leaves its room
        gaps = gaps + 300 * (np.abs(np.diff(digit, append=digit[-1])) - 1).clip(0)
    # Fingers that lean apart meet at their lower ends first.
    apart = np.abs(np.diff(np.radians(lean))) * 0.5 * (size[:-1, 1] + size[1:, 1]) / 2
    across = np.concatenate([[0.0], np.cumsum((size[:-1, 0] + size[1:, 0]) / 2 + gaps[:-1] + apart)])
    centres = np.column_stack([across, tips + size[:, 1] / 2])
    tilt = float(np.clip(rng.normal(0, 5), -12, 12))
    if kind is Kind.TILTED:
        tilt = float(rng.uniform(12, 45) * rng.choice([-1, 1]))
    turn = np.radians(tilt)
    around = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centres = (centres - centres.mean(0)) @ around.T
    angles = lean + tilt
    # Where the hand fits on the glass it lies anywhere, rather high; else in the middle.
    reach = np.array([_reach(one, angle) for one, angle in zip(size, angles, strict=True)])
    low, high = (centres - reach).min(0), (centres + reach).max(0)
    room = np.array(GLASS[::-1]) - (high - low)
    share = np.clip(rng.normal([0.5, 0.25], [0.2, 0.15]), 0.05, 0.95)
    shift = np.where(room > 0, room * share, room / 2) - low
    if kind is Kind.OFF_EDGE:
        shift = _off_edge(shift, low, high, size, rng)
    return {
        position: _affine(box, centre + shift, angle)
        for position, box, centre, angle in zip(positions, boxes, centres, angles, strict=True)
    }


def _off_edge(
    shift: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    size: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Let a good part of the outermost finger lie beyond the left, the right or the upper edge."""
    part = rng.uniform(0.3, 0.6)
    side = rng.integers(3)
    if side == 0:
        return np.array([-low[0] - part * size[0, 0], shift[1]])
    if side == 1:
        return np.array([GLASS[1] - high[0] + part * size[-1, 0], shift[1]])
    return np.array([shift[0], -low[1] - part * size[:, 1].mean()])


def _reach(size: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Half the width and height of an upright box around a leaning one."""
    c, s = abs(np.cos(np.radians(angle))), abs(np.sin(np.radians(angle)))
    return np.array([size[0] * c + size[1] * s, size[0] * s + size[1] * c]) / 2


def _affine(box: NDArray[np.float64], centre: NDArray[np.float64], angle: float) -> Field:
    """Turns a patch by `angle` degrees clockwise about its box's centre and puts that at `centre`."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[c, -s], [s, c]])
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    return np.column_stack([turn, centre - turn @ middle]).astype(np.float32)


def _laid(position: FingerPosition, patch: Patch, move: Field) -> Laid:
    left, top, right, bottom = patch.box
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    corners = (corners @ move[:, :2].T + move[:, 2]).astype(np.float32)
    x, y = np.meshgrid(np.linspace(left, right, 40), np.linspace(top, bottom, 60))
    spots = np.column_stack([x.ravel(), y.ravel()]) @ move[:, :2].T + move[:, 2]
    inside = ((spots >= 0) & (spots < GLASS[::-1])).all(1).mean()
    angle = float(np.degrees(np.arctan2(move[1, 0], move[0, 0])))
    return Laid(position, corners, angle, float(inside))


def _narrowed(ink: Field, share: float) -> Field:
    """The same print, as much smaller as its finger, about its middle column."""
    middle = ink.shape[1] / 2
    move = np.array([[share, 0, middle - share * middle], [0, share, 0]], np.float32)
    return np.asarray(cv2.warpAffine(ink, move, ink.shape[::-1]), np.float32)


def _dryness(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """How much of the ink is left `shape`: dry skin prints in grains, and not everywhere."""
    grain = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 2.0) * np.float32(7.1)
    coarse = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 22.0) * np.float32(78)
    level = rng.uniform(-0.4, 0.3)
    return np.clip((grain + 0.9 * coarse - level) * 1.5 + 0.5, 0.05, 1).astype(np.float32)


def _dirt(ink: Field, rng: np.random.Generator) -> Field:
    """What the glass lets through `(H, W)`: a moist halo of fingers, smears, crumbs, hairs, an old print."""
    touched = cv2.GaussianBlur(ink, (0, 0), 30)
    clear = 1 - np.clip(touched * rng.uniform(0.5, 1.2), 0, 0.35)
    height, width = ink.shape
    smears = np.zeros(ink.shape, np.float32)
    for _ in range(rng.poisson(5)):
        axes = rng.integers(15, 160, 2).tolist()
        centre = [int(rng.integers(width)), int(rng.integers(height))]
        cv2.ellipse(smears, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.1, 0.45), -1)
    clear *= 1 - cv2.GaussianBlur(smears, (0, 0), 9)
    crumbs = np.zeros(ink.shape, np.float32)
    for _ in range(rng.poisson(60)):
        cv2.circle(
            crumbs,
            [int(rng.integers(width)), int(rng.integers(height))],
            int(rng.integers(1, 9)),
            rng.uniform(0.3, 1),
            -1,
        )
    for _ in range(rng.poisson(3)):
        start = rng.uniform(0, (width, height))
        bend = start + np.cumsum(rng.normal(0, 40, (6, 2)), 0)
        cv2.polylines(crumbs, [bend.astype(np.int32)], False, 0.7, 2)
    clear *= 1 - cv2.GaussianBlur(crumbs, (0, 0), 1)
    dx, dy = (int(rng.integers(-400, 400)) for _ in range(2))
    old = cv2.warpAffine(ink, np.array([[1, 0, dx], [0, 1, dy]], np.float32), (width, height))
    clear *= 1 - np.float32(rng.uniform(0, 0.2)) * old
    return np.asarray(clear, np.float32)
