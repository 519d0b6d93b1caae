"""Fingerprints of people who do not exist, for demonstrations and tests: no real print may ship.

A finger is grown in the manner of SFinGe (Cappelli, "SFinGe: an approach to synthetic fingerprint
generation", 2004): an orientation field from the singular points of a pattern class, a map of ridge
periods, and noise filtered again and again by Gabor kernels that follow both. Minutiae arise where ridges
fail to meet; none is placed by hand. An impression is what a live scanner sees of that finger once.

    python -m benchmarks.synthetic_prints OUT --people 3 --fingers 10 --impressions 2

writes `PPPFF_n.png` at 500 ppi: person, finger from left little (01) to right little (10), impression.
`benchmarks.check_synthetic_prints` shows how near they come to real ones.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import cos, exp, pi, sin
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numba import njit
from numpy.typing import NDArray
from PIL import Image

from capture.sample import FingerPosition

Field = NDArray[np.float32]

PPI = 500
PRINT_SHAPE = (500, 400)  # rows, columns of an impression
FINGER_SHAPE = (608, 448)  # rows, columns of a master; the last rows are the joint
_JOINT = 36.0  # pixels from the last row up to the flexion crease
_SLIM = (
    1.4  # the field is drawn on a finger this much broader, then narrowed: ridges fall steeper at the sides
)
_NAIL = 330.0  # pixels of that broad finger from the axis to where ridges converge beside the nail
_BREAKS = 180  # tries of a finger to interrupt a ridge
_ORIENTATIONS = 64  # kernels over half a turn
_GROWTH_STEPS = 7  # at half resolution; more steps leave fewer minutiae
_VALLEY = 0.6  # how much of a valley there is where ridges fail to meet: more makes more endings
# how fingers differ, or two of one pattern would be too much alike: standard deviations
_GROWTH_SPREAD = 0.5  # of the logarithm of the steps
_SLIM_SPREAD = 0.07  # relative
_NAIL_SPREAD = 0.09  # relative
_LEAN, _WANDER, _FINE = 0.26, 0.09, 0.05  # of the ridges' direction over 110, 40 and 16 pixels, radians
_IRREGULARITY_SPREAD = 0.5  # of the logarithm of the last two
# How far ridges widen where they diverge, instead of leaving room for new ones: 1 is as far as they can.
# New ridges begin where the flow has them begin, which fingers of one pattern have in common.
_WIDENING, _WIDENING_SPREAD = 0.53, 0.19
_WIDEST = 0.25  # of the logarithm of the period


class Pattern(StrEnum):
    """Pattern class, as seen in the print."""

    ARCH = "arch"
    TENTED_ARCH = "tented_arch"
    LEFT_LOOP = "left_loop"
    RIGHT_LOOP = "right_loop"
    WHORL = "whorl"
    DOUBLE_LOOP = "double_loop"


@dataclass(frozen=True, slots=True, eq=False)
class Master:
    """One whole finger, flat and undisturbed, at 500 ppi.

    `ridges` `(H, W) float32`: +1 on ridges, -1 in valleys, less where ridges fail to meet; `pores` and
    `creases` `(H, W) float32`: 0 to 1; all read-only. `half_width`, `half_height`: the area that a firm touch
    prints, in pixels.
    """

    pattern: Pattern
    ridges: Field
    pores: Field
    creases: Field
    half_width: float
    half_height: float

    def __post_init__(self) -> None:
        for field in (self.ridges, self.pores, self.creases):
            field.setflags(write=False)


def master(
    seed: int, pattern: Pattern | None = None, *, pitch: float | None = None, size: float = 1.0
) -> Master:
    """Grow the finger of `seed`.

    `pattern` and `pitch` (ridge period in pixels, 8 to 10) are drawn with natural frequencies unless given;
    `size` scales the touching area, and half as much the pattern. The same arguments give the same
    finger. Cost: about 0.4 CPU s.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = Pattern(rng.choice(list(_FREQUENCIES), p=list(_FREQUENCIES.values())))
    pattern = pattern or drawn
    pitch = pitch or float(np.clip(rng.normal(9.0, 0.45), 8.0, 10.0))

    orientation = _orientation(pattern, size, rng)
    period = _period(pitch, orientation, rng)
    ridges = _grow(orientation, period, rng)
    pores = _pores(ridges, rng)
    creases = np.maximum(_creases(rng), _breaks(ridges, rng))
    return Master(pattern, ridges, pores, creases, 140.0 * size, 205.0 * (0.5 + 0.5 * size))


def finger(owner: int, position: FingerPosition) -> Master:
    """One finger of the person with seed `owner`: the person's build, the position's pattern frequencies."""
    build = np.random.default_rng([owner, 2])
    pitch, size = np.clip(build.normal(9.0, 0.4), 7.9, 10.1), np.clip(build.normal(1.0, 0.05), 0.87, 1.13)
    rng = np.random.default_rng([owner, 3, position])
    digit = (position - 1) % 5
    kind = rng.choice(["whorl", "ulnar", "radial", "arch"], p=_SHARES[digit])
    right = position <= FingerPosition.RIGHT_LITTLE
    loops = (Pattern.RIGHT_LOOP, Pattern.LEFT_LOOP)
    if kind == "whorl":
        pattern = Pattern.WHORL if rng.random() < 0.8 else Pattern.DOUBLE_LOOP
    elif kind == "arch":
        pattern = Pattern.ARCH if rng.random() < 0.56 else Pattern.TENTED_ARCH
    else:  # an ulnar loop opens to the little finger: to the right in a right hand's print
        pattern = loops[right != (kind == "ulnar")]
    seed = int(rng.integers(2**62))
    return master(seed, pattern, pitch=float(pitch * rng.normal(1, 0.015)), size=float(size * _SIZES[digit]))


def person(seed: int) -> tuple[Master, ...]:
    """A person's ten fingers, right thumb to left little (`FingerPosition` 1 to 10). Cost: ten masters."""
    return tuple(finger(seed, position) for position in FingerPosition if position)


@dataclass(frozen=True, slots=True)
class Scanner:
    """What a kind of scanner makes of a touch. Lengths in pixels at 500 ppi, pairs are ranges.

    `reach`: share of a firm touch's width and height that it takes in; `light`: grey level of the empty
    platen; `shade`: how much less light there is in the corners; `ink`: share of the light that a touching
    ridge takes away; `stripes`: grey levels by which columns differ; `dust`: specks on the platen;
    `fussy`: how much pressure and moisture tell, relative; `astray`: how far from the middle fingers are put,
    relative.
    """

    shape: tuple[int, int]
    reach: tuple[float, float]
    light: tuple[float, float]
    shade: float
    ink: tuple[float, float]
    blur: tuple[float, float]
    noise: tuple[float, float]
    stripes: float
    dust: float
    fussy: float
    astray: float = 1.0


LIVE_SCAN = Scanner(PRINT_SHAPE, (1.0, 1.0), (232, 262), 6, (0.66, 0.82), (0.5, 0.8), (1, 4), 0, 0, 1.0)
OPTICAL = Scanner((374, 388), (0.88, 0.90), (246, 262), 2, (0.55, 0.95), (0.5, 0.8), (1, 3), 0, 10, 1.0)
NARROW = Scanner((492, 260), (0.90, 0.92), (165, 225), 45, (0.70, 0.85), (0.7, 1.0), (1, 3), 0, 120, 0.9)
CAPACITIVE = Scanner(
    (300, 300), (0.80, 0.65), (105, 135), 12, (0.60, 0.85), (0.5, 0.7), (1, 3), 3, 25, 1.2, 0.75
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """How fingers are put on which scanners: standard deviations, lengths in pixels.

    `shift`: across and along the platen; `roll`: of what part of the finger touches; `turn`: degrees;
    `strain`: of the skin, relative; `pressure` and `moisture`: 1 is as much as people can bring about;
    `creases`: how strongly the skin's white lines show, relative; `partial`: of the logarithm of how far
    along the finger a touch reaches, and half of how far across.
    """

    scanners: tuple[Scanner, ...]
    shift: tuple[float, float]
    roll: tuple[float, float]
    turn: float
    strain: float
    pressure: float
    moisture: float
    creases: float
    partial: float


ATTENDED = Conditions((LIVE_SCAN,), (12, 14), (10, 15), 7, 0.7, 0.4, 0.4, 0.8, 0.0)
VARIED = Conditions((OPTICAL, NARROW, CAPACITIVE), (16, 30), (12, 17), 10, 0.5, 0.47, 0.43, 0.9, 0.07)


def impression(whole: Master, seed: int, conditions: Conditions = ATTENDED) -> NDArray[np.uint8]:
    """One touch of a finger on a scanner: `(H, W) uint8` at 500 ppi, dark ridges on a lighter ground.

    The scanner, placement, skin distortion, pressure, moisture, scratches and sensor noise are drawn from
    `seed`. `ATTENDED` is what an officer at a live scanner accepts, always `PRINT_SHAPE`; `VARIED` is what
    people do who are left alone with three kinds of small scanners: partial, twisted, wet, dry and faint
    prints among good ones. The same arguments give the same image. Cost: about 0.03 CPU s.
    """
    rng = np.random.default_rng([seed, 4])
    scanner = conditions.scanners[int(rng.integers(len(conditions.scanners)))]
    shape = height, width = scanner.shape
    pressure = float(np.clip(scanner.fussy * conditions.pressure * rng.standard_normal(), -1.5, 1.5))
    moisture = float(np.clip(scanner.fussy * conditions.moisture * rng.standard_normal(), -2, 2))

    # 1. Where each pixel lies on the finger: placement and turn, then skin that lags behind the bone.
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x -= width / 2 + scanner.astray * conditions.shift[0] * rng.standard_normal()
    y -= height / 2 + scanner.astray * (12 + conditions.shift[1] * rng.standard_normal())
    turn = float(np.clip(conditions.turn * rng.standard_normal(), -35, 35)) * pi / 180
    x, y = x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)
    roll, pitch = (sigma * rng.standard_normal() for sigma in conditions.roll)
    part = exp(conditions.partial * rng.standard_normal())
    half_width = whole.half_width * scanner.reach[0] * part**0.5
    half_height = whole.half_height * scanner.reach[1] * part
    below = np.where(y > 0, 1.3 * half_height, half_height).astype(np.float32)
    touch = ((np.abs(x) / half_width) ** 2.4 + (np.abs(y) / below) ** 2.4) ** (1 / 2.4)
    x, y = _distort(x, y, touch, conditions.strain, rng)
    columns = x + (FINGER_SHAPE[1] / 2 + roll)
    rows = y + (FINGER_SHAPE[0] / 2 + pitch)
    ridges, pores, creases = (
        cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
        for field, outside in ((whole.ridges, -1), (whole.pores, 0), (whole.creases, 0))
    )

    # 2. What touches the glass: ridges above a level that rises with light pressure, dry skin and the rim.
    extent = 0.93 + 0.08 * pressure
    rim = np.maximum(touch + 0.03 * _smooth_noise(shape, 40, rng) - extent, -0.12) * 9
    rim = np.maximum(rim + 0.6, 0)
    uneven = 1 + 0.7 * abs(moisture)
    level = (
        rim
        + 0.12
        - 0.25 * pressure
        - 0.30 * moisture
        + 0.16 * uneven * _smooth_noise(shape, 45, rng)
        + 0.12 * uneven * _smooth_noise(shape, 12, rng)
    )
    grain = _smooth_noise(shape, 1.3, rng) * max(0.1, 0.34 - 0.16 * moisture)
    open_pores = rng.uniform(0.2, 1.3)
    lines = conditions.creases * (2.2 - 0.6 * pressure)
    contact = ridges + grain - open_pores * pores - lines * creases - _scratches(shape, rng) - level
    contact = np.maximum(contact, _dust(scanner, rng) - 1)
    ink = 0.5 + 0.5 * np.tanh(3.3 * contact)

    # 3. What the scanner makes of it: light, ink of uneven darkness, blur, sensor noise.
    darkness = rng.uniform(*scanner.ink) + 0.08 * pressure + 0.07 * _smooth_noise(shape, 60, rng)
    darkness += 0.07 * _smooth_noise(shape, 1.0, rng)
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = rng.uniform(*scanner.light) + rng.normal(0, 3) * u + rng.normal(0, 3) * v
    light = light - scanner.shade * (0.5 * u**2 + 0.5 * v**2) + scanner.stripes * rng.standard_normal(width)
    seen = _blur((light * (1 - darkness * ink)).astype(np.float32), rng.uniform(*scanner.blur))
    seen += rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(*scanner.noise))
    grey: NDArray[np.uint8] = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return grey


_FREQUENCIES = {  # Wilson, Candela, Watson 1994: natural class frequencies; whorls split four to one
    Pattern.ARCH: 0.037,
    Pattern.TENTED_ARCH: 0.029,
    Pattern.LEFT_LOOP: 0.338,
    Pattern.RIGHT_LOOP: 0.317,
    Pattern.WHORL: 0.223,
    Pattern.DOUBLE_LOOP: 0.056,
}
# Thumb to little: shares of whorl, ulnar loop, radial loop, arch, rounded; their mean agrees with the above.
_SHARES = (
    (0.40, 0.55, 0.01, 0.04),
    (0.30, 0.36, 0.20, 0.14),
    (0.18, 0.73, 0.02, 0.07),
    (0.40, 0.56, 0.01, 0.03),
    (0.13, 0.85, 0.01, 0.01),
)
_SIZES = (1.23, 0.97, 1.02, 0.95, 0.82)


def _orientation(pattern: Pattern, size: float, rng: np.random.Generator) -> Field:
    """Ridge orientation `(H, W)`, radians counter-clockwise, modulo pi.

    After Huckemann, Hotz, Munk, "Global models for the orientation field of fingerprints", 2008: a quadratic
    differential whose double poles beside the nail make the arch, whose simple poles are cores and whose
    zeros are deltas, each with its mirror image below the joint, where ridges run level.
    """
    rows, columns = np.mgrid[: FINGER_SHAPE[0], : FINGER_SHAPE[1]]
    slim = _SLIM * rng.normal(1, _SLIM_SPREAD)
    z = slim * (columns - FINGER_SHAPE[1] / 2) + 1j * (FINGER_SHAPE[0] - _JOINT - rows)
    z /= 0.5 + 0.5 * size
    core = rng.normal(0, 8) + 1j * rng.normal(275, 16)
    cores: list[complex] = []
    deltas: list[complex] = []
    if pattern is Pattern.TENTED_ARCH:
        cores, deltas = [core - 25j], [core + rng.normal(0, 5) - 1j * rng.uniform(75, 110)]
    elif pattern in (Pattern.LEFT_LOOP, Pattern.RIGHT_LOOP):
        side = 1 if pattern is Pattern.LEFT_LOOP else -1
        cores, deltas = [core], [core + side * rng.uniform(60, 200) - 1j * rng.uniform(70, 200)]
    elif pattern in (Pattern.WHORL, Pattern.DOUBLE_LOOP):
        gap = rng.uniform(14, 42) if pattern is Pattern.WHORL else rng.uniform(55, 80)
        lean = rng.normal(0, 0.35) + (0 if pattern is Pattern.WHORL else rng.choice([-0.9, 0.9]))
        half = 0.5j * gap * np.exp(1j * lean)
        cores = [core + half, core - half]
        deltas = [core + side * rng.uniform(135, 195) - 1j * rng.uniform(95, 150) for side in (-1, 1)]
    nail = _NAIL * rng.normal(1, _NAIL_SPREAD)
    twice = _twice_orientation(z, nail, cores, deltas)
    cap, reach = rng.uniform(0.1, 0.9), rng.uniform(45, 100)
    for core in cores:  # round each core: ridges turn faster over its cap and leave it side by side
        others = [c for c in cores if c != core]
        legs = _twice_orientation(np.array(core), nail, others, deltas) + pi / 2
        nearby = np.exp(-((np.abs(z - core) / reach) ** 2))
        twice -= cap * nearby * np.sin(np.angle(z - core) - legs)
    slope = np.arctan2(slim * np.sin(twice / 2), np.cos(twice / 2))
    irregular = exp(_IRREGULARITY_SPREAD * rng.standard_normal())
    wander = _WANDER * _smooth_noise(FINGER_SHAPE, 40, rng) + _FINE * _smooth_noise(FINGER_SHAPE, 16, rng)
    wander = irregular * wander + _LEAN * _smooth_noise(FINGER_SHAPE, 110, rng)
    return np.asarray(slope + wander, np.float32)


def _twice_orientation(
    z: NDArray[np.complex128], nail: float, cores: list[complex], deltas: list[complex]
) -> NDArray[np.float64]:
    twice: NDArray[np.float64] = 2 * np.angle(z**2 - nail**2)
    for core in cores:
        twice = twice + np.angle((z - core) * (z - core.conjugate()))
    for delta in deltas:
        twice = twice - np.angle((z - delta) * (z - delta.conjugate()))
    return twice


def _period(pitch: float, orientation: Field, rng: np.random.Generator) -> Field:
    """Ridge period `(H, W)`, pixels: wandering, wider towards tip and joint and where ridges diverge."""
    up = (FINGER_SHAPE[0] - np.arange(FINGER_SHAPE[0], dtype=np.float32)[:, None]) / FINGER_SHAPE[0]
    along = 1 + 0.16 * np.clip((0.35 - up) / 0.35, 0, 1) + 0.10 * np.clip((up - 0.6) / 0.4, 0, 1)
    wandering = 1 + 0.05 * _smooth_noise(FINGER_SHAPE, 22, rng)
    share = float(np.clip(rng.normal(_WIDENING, _WIDENING_SPREAD), 0, 1))
    return np.asarray(pitch * along * wandering * np.exp(share * _widening(orientation)), np.float32)


def _widening(orientation: Field) -> Field:
    """Logarithm of the period `(H, W)` with which fewest ridges must begin or end, about 0 on average.

    Ridges that diverge need no new one between them where they grow wider as fast: the period's logarithm
    g then rises along the ridge, of direction t, by the divergence of t. The g that comes nearest, by least
    squares with a price on its size and slope, is found by conjugate gradients every 16 pixels.
    """
    # 1. the divergence of the ridges' direction
    step = 16
    doubled = np.dstack([np.cos(2 * orientation), np.sin(2 * orientation)])
    cosine, sine = np.moveaxis(cv2.GaussianBlur(doubled, (0, 0), 10)[::step, ::step].astype(np.float64), 2, 0)
    height, width = cosine.shape
    down, right = (np.asarray(np.gradient(np.eye(n), axis=0), np.float64) / step for n in (height, width))
    strength = 2 * (cosine**2 + sine**2 + 0.05)  # weak at cores and deltas, where nothing diverges for ever
    across = (cosine * (sine @ right.T) - sine * (cosine @ right.T)) / strength
    along = (cosine * (down @ sine) - sine * (down @ cosine)) / strength
    angle = 0.5 * np.arctan2(sine, cosine)
    x, y = np.cos(angle), -np.sin(angle)  # rows run down
    divergence = y * across - x * along

    # 2. the equations' left side, a symmetric operator, and their right side
    def applied(g: NDArray[np.float64]) -> NDArray[np.float64]:
        rise = x * (g @ right.T) + y * (down @ g)
        slope = (g @ right.T) @ right + down.T @ (down @ g)
        total: NDArray[np.float64] = (x * rise) @ right + down.T @ (y * rise) + 0.1 * slope + g / 120**2
        return total

    rest = (x * divergence) @ right + down.T @ (y * divergence)
    g, towards = np.zeros_like(rest), rest
    for _ in range(60):
        changed = applied(towards)
        before = float(np.vdot(rest, rest))
        length = before / float(np.vdot(towards, changed))
        g, rest = g + length * towards, rest - length * changed
        towards = rest + float(np.vdot(rest, rest)) / before * towards

    # 3. every pixel's
    wide = _resized(g.astype(np.float32), (height * step, width * step))
    return np.asarray(np.clip(wide - wide.mean(), -_WIDEST, _WIDEST), np.float32)


def _grow(orientation: Field, period: Field, rng: np.random.Generator) -> Field:
    """Ridges out of noise: many steps at half resolution, where it is cheap, and two at full resolution."""
    height, width = orientation.shape
    field = rng.standard_normal((height // 2, width // 2), dtype=np.float32)
    grown = max(2, round(_GROWTH_STEPS * exp(_GROWTH_SPREAD * rng.standard_normal())))
    for scale, steps in ((2, grown), (1, 2)):
        field = _resized(field, (height // scale, width // scale))
        bank, which = _gabor_bank(orientation[::scale, ::scale], period[::scale, ::scale] / np.float32(scale))
        radius = bank.shape[1] // 2
        for _ in range(steps):
            padded = np.pad(field, radius, mode="reflect")
            field = np.tanh(1.6 * _filter(padded, which, bank))
    field /= np.float32(np.abs(field).max())
    # where ridges fail to meet, the wave is weak: there is rather a valley, so ridges end more than they join
    strength = np.sqrt(_blur(field**2, 4.0))
    missing = np.maximum(1 - strength / np.float32(np.median(strength)), 0)
    return np.asarray(field - _VALLEY * missing, np.float32)


def _gabor_bank(orientation: Field, period: Field) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Kernels `(n, k, k)` for every orientation and 4 % of period; each pixel's kernel `(H, W)`."""
    lowest = float(period.min())
    nth_period = np.rint(np.log(period / lowest) / 0.04).astype(np.int32)
    nth_orientation = np.rint(orientation * (_ORIENTATIONS / np.pi)).astype(np.int32) % _ORIENTATIONS
    periods = lowest * np.exp(0.04 * np.arange(nth_period.max() + 1))
    radius = int(np.ceil(1.55 * float(period.mean())))  # the few longest waves do without their rims
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    angles = np.arange(_ORIENTATIONS) * (np.pi / _ORIENTATIONS)
    across = x * np.sin(angles)[:, None, None] + y * np.cos(angles)[:, None, None]
    p = periods[:, None, None, None]
    envelope = np.exp(-(x**2 + y**2) / (2 * (0.5 * p) ** 2))
    wave = np.cos(2 * np.pi * across / p)
    kernels = envelope * wave
    kernels -= (
        envelope
        * (kernels.sum((2, 3)) / np.broadcast_to(envelope, kernels.shape).sum((2, 3)))[..., None, None]
    )
    kernels /= (kernels * wave).sum((2, 3))[..., None, None]  # a wave that fits passes unchanged
    bank = kernels.reshape(-1, *kernels.shape[2:]).astype(np.float32)
    return bank, nth_period * _ORIENTATIONS + nth_orientation


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _filter(padded: Field, which: NDArray[np.int32], bank: Field) -> Field:
    """Each pixel's own kernel at that pixel. Cost: height x width x kernel area."""
    height, width = which.shape
    side = bank.shape[1]
    out = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            kernel = bank[which[row, column]]
            total = np.float32(0)
            for i in range(side):
                for j in range(side):
                    total += padded[row + i, column + j] * kernel[i, j]
            out[row, column] = total
    return out


def _pores(ridges: Field, rng: np.random.Generator) -> Field:
    """Sweat pores `(H, W)`, 0 to 1, on ridge crests, about one per 13 pixels of ridge."""
    height, width = ridges.shape
    rows, columns = rng.integers(height, size=9000), rng.integers(width, size=9000)
    crest = ridges[rows, columns] > 0.75
    field = np.zeros(ridges.shape, np.float32)
    field[rows[crest], columns[crest]] = rng.uniform(0.3, 1, crest.sum())
    return np.asarray(np.clip(_blur(field, 1.1) * (2 * pi * 1.1**2), 0, 1), np.float32)


def _creases(rng: np.random.Generator) -> Field:
    """White lines of the skin `(H, W)`, 0 to 1: the flexion crease at the joint and a few wrinkles."""
    height, width = FINGER_SHAPE
    field = np.zeros(FINGER_SHAPE, np.float32)
    x = np.arange(0, width, 12)
    for _ in range(3):
        y = height - _JOINT + rng.normal(0, 7) + np.cumsum(rng.normal(0, 1.8, len(x)))
        cv2.polylines(field, [np.stack([x, y], 1).astype(np.int32)], False, 1, int(rng.integers(2, 7)))
    for _ in range(rng.poisson(2.5)):
        start = np.array([rng.uniform(60, width - 60), rng.uniform(120, height - 80)])
        angle, length = rng.normal(0, 0.5), rng.uniform(20, 110)
        steps = np.stack([np.full(8, np.cos(angle)), np.sin(angle) + rng.normal(0, 0.12, 8)], 1) * length / 8
        cv2.polylines(field, [(start + np.cumsum(steps, 0)).astype(np.int32)], False, rng.uniform(0.5, 1), 2)
    return np.asarray(np.clip(_blur(field, 1.2), 0, 1), np.float32)


def _breaks(ridges: Field, rng: np.random.Generator) -> Field:
    """Where ridges are interrupted for good `(H, W)`, 0 to 1: half of all endings face another one."""
    height, width = ridges.shape
    field = np.zeros(ridges.shape, np.float32)
    for _ in range(rng.poisson(_BREAKS * rng.gamma(4) / 4)):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        if ridges[row, column] > 0.5:
            axes = rng.integers(2, 6, 2).tolist()
            cv2.ellipse(field, (column, row), axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.7, 1.3), -1)
    return np.asarray(np.clip(_blur(field, 1.0), 0, 1), np.float32)


def _scratches(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Passing marks `shape`: thin lines and specks where nothing prints, this time only."""
    height, width = shape
    field = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(1.2)):
        start = rng.uniform(0, (width, height))
        end = start + rng.normal(0, 60, 2)
        cv2.line(field, start.astype(int).tolist(), end.astype(int).tolist(), rng.uniform(1, 3), 2)
    for _ in range(rng.poisson(3)):
        centre = rng.uniform(0, (width, height)).astype(int).tolist()
        axes = rng.integers(2, 9, 2).tolist()
        cv2.ellipse(field, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(1, 2), -1)
    return _blur(field, 1.0)


def _dust(scanner: Scanner, rng: np.random.Generator) -> Field:
    """Specks on the platen that print as skin does, 0 to 1."""
    height, width = scanner.shape
    field = np.zeros(scanner.shape, np.float32)
    n = rng.poisson(scanner.dust * rng.gamma(1.0))
    field[rng.integers(height, size=n), rng.integers(width, size=n)] = rng.uniform(1, 6, n)
    return np.minimum(_blur(field, 0.8), np.float32(1))


def _distort(
    x: Field, y: Field, touch: Field, strength: float, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Skin distortion after Cappelli, Maio, Maltoni 2001: the middle sticks, the rim follows the finger."""
    follow = (0.5 - 0.5 * np.cos(np.pi * np.clip((touch - 0.25) / 0.9, 0, 1))).astype(np.float32)
    strain = strength * rng.gamma(2.5, 0.3)  # most touches are gentle, some are not
    twist = follow * np.float32(rng.normal(0, 0.04) * strain)
    stretch = follow * np.float32(rng.normal(0, 0.02) * strain)
    dx, dy = rng.normal(0, 7, 2) * strain
    across, along = (np.float32(1.2 * strain) * _smooth_noise(touch.shape, 45, rng) for _ in range(2))
    return (
        x + follow * np.float32(dx) - twist * y + stretch * x + across,
        y + follow * np.float32(dy) + twist * x + stretch * y + along,
    )


def _smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Field:
    """Gaussian noise of unit variance that varies over about `sigma` pixels; drawn coarse where it may be."""
    step = max(1, int(sigma / 3))
    coarse = rng.standard_normal((shape[0] // step + 8, shape[1] // step + 8), dtype=np.float32)
    coarse = _blur(coarse, sigma / step) * np.float32(2 * np.sqrt(np.pi) * sigma / step)
    noise = _resized(coarse, (coarse.shape[0] * step, coarse.shape[1] * step))
    return noise[4 * step :, 4 * step :][: shape[0], : shape[1]]


def _blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def _resized(field: Field, shape: tuple[int, int]) -> Field:
    return np.asarray(cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


# Finger numbers of file names, left little (1) to right little (10), from the thumbs outwards.
_NUMBERS = {6: 1, 5: 6, 7: 2, 4: 7, 8: 3, 3: 8, 9: 4, 2: 9, 10: 5, 1: 10}
POSITION_OF_NUMBER = {number: FingerPosition(position) for number, position in _NUMBERS.items()}


def write(
    out: Annotated[Path, typer.Argument(help="Folder for the images; made where missing.")],
    people: Annotated[int, typer.Option(min=1, max=999, help="People to draw.")] = 3,
    fingers: Annotated[int, typer.Option(min=1, max=10, help="Fingers of each, thumbs first.")] = 10,
    impressions: Annotated[int, typer.Option(min=1, max=99, help="Impressions of each finger.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first person.")] = 0,
    varied: Annotated[bool, typer.Option(help="Small scanners and poor prints among good ones.")] = False,
) -> None:
    """Write a population of synthetic prints as PNG files of 500 ppi, named PPPFF_n.png."""
    out.mkdir(parents=True, exist_ok=True)
    for nth in range(1, people + 1):
        for number, position in list(_NUMBERS.items())[:fingers]:
            drawn = finger(seed + nth, FingerPosition(position))
            for n in range(1, impressions + 1):
                path = out / f"{nth:03}{number:02}_{n}.png"
                print_seed = ((seed + nth) * 16 + number) * 100 + n
                Image.fromarray(impression(drawn, print_seed, VARIED if varied else ATTENDED)).save(
                    path, dpi=(PPI, PPI)
                )


if __name__ == "__main__":
    typer.run(write)
