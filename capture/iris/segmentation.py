"""Where the iris lies: highlights, pupil, limbus and both eyelids.

The pupil is looked for with J. Daugman's integro-differential operator ("High Confidence Visual Recognition
of Persons by a Test of Statistical Independence", IEEE TPAMI 15(11), 1993) at every place and radius of a
small picture, by Fourier transform; a candidate counts for its limbus as well.
Both boundaries are then followed as the best closed path in polar coordinates, and a circle is fitted to each
path, robustly. An eyelid is the parabola along which the picture brightens most consistently, away from the
pupil.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_Grey = NDArray[np.uint8]
_Floats = NDArray[np.float32]
_Numbers = NDArray[np.floating]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Params:
    """Lengths are shares of the picture's longer side or of a radius where they are not in pixels."""

    # highlights: width of the widest, and how much brighter than around them they are
    highlight: float = 0.055
    highlight_rise: int = 40
    # the small picture in which the pupil is looked for: longer side, side with margin, in its pixels
    small: int = 96
    canvas: int = 128
    min_pupil: float = 3.4
    max_pupil: float = 22.0
    radii: int = 22
    candidates: int = 6
    dark_weight: float = 0.35  # of a dark inside, against the edge around it
    soft_edge: float = 4.0  # grey values a pixel at which an edge counts half
    # limbus: radius over that of the pupil; what its two sides may differ by
    max_ratio: float = 7.0
    max_side: float = 0.56
    limbus_step: float = 1.13
    limbus_soft: float = 8.0
    # eyelids: least sum of edges over 49 columns, share of the limbus kept clear of the arc
    min_lid: float = 3.0
    lid_soft: float = 3.0
    lid_least: float = 0.35


PARAMS = Params()
ANGLES = 128
_AROUND = np.arange(ANGLES) * (2 * np.pi / ANGLES)  # clockwise as seen: y points down
_RIGHT = np.deg2rad(np.arange(-35.0, 50.0, 2.5))  # where lids seldom are
_SIDES = np.concatenate([_RIGHT, np.pi - _RIGHT])
_COLUMNS = np.linspace(-1, 1, 49)
_LINES = np.linspace(-1.1, 1.1, 89)


@dataclass(frozen=True, slots=True)
class Circle:
    """A circle in pixels; `roundness` of the outline it fits: its narrowest over its widest diameter."""

    x: float
    y: float
    radius: float
    roundness: float = 1.0

    def of_larger(self, scale: float) -> "Circle":
        """The same circle in the picture that was shrunk by `scale`."""
        # The middle of a pixel is at a whole number.
        x, y = (self.x + 0.5) / scale - 0.5, (self.y + 0.5) / scale - 0.5
        return Circle(x, y, self.radius / scale, self.roundness)


@dataclass(frozen=True, slots=True)
class Eyelid:
    """The arc y = limbus.y + c0 + c1 d + c2 d^2, d = x - limbus.x, in pixels; `side` -1 above, 1 below."""

    side: int
    c0: float
    c1: float
    c2: float

    def covers(self, x: _Floats, y: _Floats, limbus: Circle, margin: float) -> _Bools:
        """Whether points lie beyond the arc, or less than `margin` pixels within it."""
        d = x - np.float32(limbus.x)
        arc = np.float32(limbus.y + self.c0) + d * np.float32(self.c1) + d * d * np.float32(self.c2)
        return self.side * (y - arc) > -margin


@dataclass(frozen=True, slots=True, eq=False)
class Eye:
    """A segmented eye, in pixels of its picture; arrays are read-only.

    `clean` `(H, W) uint8`: the picture with its highlights filled in; `highlights` `(H, W) bool`; `upper`,
    `lower` None where no lid covers the iris; `found`: how well pupil and limbus stand out, each 0 to 1.
    """

    clean: _Grey
    highlights: _Bools
    pupil: Circle
    limbus: Circle
    upper: Eyelid | None
    lower: Eyelid | None
    found: tuple[float, float]

    def __post_init__(self) -> None:
        self.clean.setflags(write=False)
        self.highlights.setflags(write=False)


def segmented(image: _Grey, params: Params = PARAMS) -> Eye:
    """The best guess at an eye in `image` `(H, W) uint8`, at least 32 pixels a side; never raises.

    Whether it is one is for the quality to say. Cost: about 30 ms at 320 x 280.
    """
    spots, clean = highlights(image, params)
    smooth = cv2.GaussianBlur(clean, (0, 0), max(0.6, max(image.shape) / 320)).astype(np.float32)
    candidates = pupil_candidates(clean, params)
    sides = [limbus_sides(smooth, candidate, params)[1] for _, candidate in candidates]
    best = int(np.argmax([strength + side for (strength, _), side in zip(candidates, sides, strict=True)]))
    pupil = pupil_circle(smooth, spots, candidates[best][1])
    limbus = limbus_circle(smooth, spots, limbus_sides(smooth, pupil, params)[0])
    upper, lower = eyelids(clean, pupil, limbus, params)
    return Eye(clean, spots, pupil, limbus, upper, lower, (candidates[best][0], sides[best]))


def highlights(image: _Grey, params: Params = PARAMS) -> tuple[_Bools, _Grey]:
    """Reflections of the light `(H, W) bool`, and the picture with them filled in. Cost: 2 ms."""
    size = max(3, round(params.highlight * max(image.shape) / 2) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    opened = cv2.morphologyEx(half, cv2.MORPH_OPEN, kernel)
    ground = cv2.resize(opened, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    bright = (cv2.subtract(image, ground) > params.highlight_rise).astype(np.uint8)
    spots = cv2.dilate(bright, np.ones((3, 3), np.uint8)) > 0
    return spots, np.where(spots, ground, image).astype(np.uint8)


def pupil_candidates(clean: _Grey, params: Params = PARAMS) -> list[tuple[float, Circle]]:
    """The discs that look most like a pupil, best first: strength, about 0 to 1, and circle. Cost: 10 ms."""
    height, width = clean.shape
    scale = params.small / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    shrunk = cv2.resize(clean, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    small = cv2.GaussianBlur(_without_wide_highlights(shrunk).astype(np.float32), (0, 0), 0.8)
    # 1. Edges, strong ones not much more than weak ones.
    gx, gy = (cv2.Sobel(small, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    soft = np.hypot(gx, gy) + params.soft_edge
    # 2. How dark it is, from the darkest to the usual grey.
    darkest, usual = np.percentile(small, [1, 60]).tolist()
    light = np.clip((small - darkest) / max(usual - darkest, 8), 0, 1.5)
    # 3. Brightening across every circle, less the light within it.
    radii, kernels = _circles(params)
    frequencies = np.fft.rfft2(np.stack([gx / soft, gy / soft, light]), s=(params.canvas, params.canvas))
    spectra = np.einsum("rfyx,fyx->ryx", kernels, frequencies)
    strength = np.fft.irfft2(spectra, s=(params.canvas, params.canvas))
    strength = strength[:, : size[1], : size[0]]
    # 4. The best, and the best that are not about the same.
    found = []
    y, x = np.mgrid[: size[1], : size[0]]
    for _ in range(params.candidates):
        r, row, column = np.unravel_index(int(np.argmax(strength)), strength.shape)
        radius = radii[r]
        found.append(
            (
                float(strength[r, row, column]),
                Circle(
                    float((column + 0.5) / scale - 0.5),
                    float((row + 0.5) / scale - 0.5),
                    float(radius / scale),
                ),
            )
        )
        near = np.hypot(x - column, y - row) < max(2.0, 0.4 * radius)
        alike = (radii > 0.6 * radius) & (radii < 1.7 * radius)
        strength[np.ix_(alike, np.arange(size[1]), np.arange(size[0]))] -= np.float32(9) * near
    return found


def _without_wide_highlights(small: _Grey) -> _Grey:
    """Open what is narrow and bright; within the dark also what is wider, as reflections in a pupil are."""
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    wider = cv2.morphologyEx(small, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    darkest, usual = np.percentile(opened, [1, 60])
    return np.where(wider < darkest + 0.3 * (usual - darkest), wider, opened).astype(np.uint8)


@cache
def _circles(params: Params) -> tuple[NDArray[np.float64], NDArray[np.complex64]]:
    """Radii, and for each the spectra `(3, canvas, canvas // 2 + 1)` for edges in x, in y, and light."""
    side = params.canvas
    place = np.fft.fftfreq(side, 1 / side)
    x, y = np.meshgrid(place, place)
    distance = np.hypot(x, y)
    ux, uy = x / np.maximum(distance, 1), y / np.maximum(distance, 1)
    radii = np.geomspace(params.min_pupil, params.max_pupil, params.radii)
    kernels = []
    for radius in radii:
        ring = np.exp(-0.5 * ((distance - radius) / max(0.7, 0.06 * radius)) ** 2)
        disc = 1 / (1 + np.exp(3 * (distance - 0.8 * radius)))
        ring, disc = ring / ring.sum(), -params.dark_weight * disc / disc.sum()
        kernels.append(np.fft.rfft2(np.stack([ring * ux, ring * uy, disc])).conj())
    return radii, np.array(kernels).astype(np.complex64)


def limbus_sides(smooth: _Floats, pupil: Circle, params: Params = PARAMS) -> tuple[Circle, float]:
    """A circle around the pupil where both sides brighten, and how well they do, half of it each.

    On either side apart, because the pupil is not in the middle. Cost: 0.5 ms.
    """
    n = 96
    widest = max(min(params.max_ratio * pupil.radius, params.max_side * max(smooth.shape)), 2 * pupil.radius)
    radii = np.geomspace(1.15 * pupil.radius, widest, n)
    unrolled, inside = polar(smooth, pupil, radii, _SIDES)
    # The mean of the next eighth of the radius less that of the last.
    k = max(1, round(np.log(params.limbus_step) / np.log(radii[1] / radii[0])))
    total = np.concatenate([np.zeros((len(_SIDES), 1)), np.cumsum(unrolled, axis=1)], axis=1)
    step = np.zeros(unrolled.shape)
    step[:, k : n - k] = (total[:, 2 * k : n] - 2 * total[:, k : n - k] + total[:, : n - 2 * k]) / k
    step[:, k : n - k] *= inside[:, 2 * k : n]
    clear = step / (np.abs(step) + params.limbus_soft)
    right, left = clear[: len(_RIGHT)].mean(axis=0), clear[len(_RIGHT) :].mean(axis=0)
    mean = (radii[:, None] + radii) / 2
    uneven = np.abs(radii[:, None] - radii) / mean
    both = right[:, None] + left - np.maximum(uneven - 0.08, 0)
    both[(uneven > 0.4) | (mean < 1.25 * pupil.radius)] = -9
    i, j = np.unravel_index(int(np.argmax(both)), both.shape)
    limbus = Circle(float(pupil.x + (radii[i] - radii[j]) / 2), pupil.y, float(mean[i, j]))
    return limbus, float(both[i, j] / 2)


def pupil_circle(smooth: _Floats, spots: _Bools, start: Circle) -> Circle:
    """The circle of the pupil, from one nearby. Cost: 5 ms."""
    circle = start
    for nearest, farthest in ((0.65, 1.4), (0.8, 1.2)):
        radii = np.linspace(nearest, farthest, 48) * circle.radius
        gain = _edges(smooth, spots, circle, radii, (1.5, 1.0), np.ones(ANGLES, np.bool_))
        path = closed_path(gain, 0.15)
        circle = _fitted(circle, radii[path], gain[np.arange(ANGLES), path])
    return circle


def limbus_circle(smooth: _Floats, spots: _Bools, start: Circle) -> Circle:
    """The circle of the limbus, from one nearby; its sides count most. Cost: 5 ms."""
    # Degrees below the horizontal, either side.
    below = np.rad2deg(np.arcsin(np.sin(_AROUND)))
    weight = np.clip(np.minimum((50 + below) / 20, (70 - below) / 20), 0, 1).astype(np.float32)
    circle = start
    for nearest, farthest in ((0.78, 1.25), (0.86, 1.14)):
        radii = np.linspace(nearest, farthest, 56) * circle.radius
        blur = 0.02 * circle.radius / float(radii[1] - radii[0])
        gain = _edges(smooth, spots, circle, radii, (blur, 1.5), weight > 0.5)
        path = closed_path(gain * (0.1 + 0.9 * weight[:, None]), 0.1)
        circle = _fitted(circle, radii[path], weight * gain[np.arange(ANGLES), path])
    return circle


def _edges(
    smooth: _Floats,
    spots: _Bools,
    circle: Circle,
    radii: _Numbers,
    blur: tuple[float, float],
    clear: _Bools,
) -> _Floats:
    """`(ANGLES, radii)`: brightening outwards, 1 where it is as usual at the `clear` angles, at most 1."""
    unrolled, inside = polar(smooth, circle, radii, _AROUND)
    spotted, _ = polar(spots.astype(np.uint8), circle, radii, _AROUND)
    evened = cv2.GaussianBlur(unrolled, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    rise = np.gradient(evened, axis=1) / np.float32(radii[1] - radii[0])
    rise[(spotted > 0) | ~inside] = 0
    usual = max(float(np.percentile(rise[clear].max(axis=1), 55)), 1e-3)
    return np.asarray(np.clip(rise / usual, -0.5, 1), np.float32)


def closed_path(gain: _Floats, bend: float) -> NDArray[np.int64]:
    """`(A,)`: for every row of `gain` `(A, R)` a column, so that the sum is about the largest possible.

    Columns of neighbouring rows, the last and the first too, differ by one at most, and each such step costs
    `bend`. Dynamic programming over two turns, of which the middle is kept. Cost: 3 ms for 128 x 48.
    """
    rows, columns = gain.shape
    # Sums so far, between two columns that no path may take.
    sums = np.full((2 * rows + 1, columns + 2), -1e9, np.float32)
    sums[0, 1:-1] = 0
    step = np.empty(columns, np.float32)
    for t in range(2 * rows):
        np.maximum(sums[t, :-2], sums[t, 2:], out=step)
        np.subtract(step, bend, out=step)
        np.maximum(step, sums[t, 1:-1], out=step)
        np.add(step, gain[t % rows], out=sums[t + 1, 1:-1])
    column = int(sums[-1].argmax())
    path = np.empty(2 * rows, np.int64)
    for t in range(2 * rows - 1, -1, -1):
        path[t] = column - 1
        left, right = (sums[t, column - 1 : column + 2 : 2] - np.float32(bend)).tolist()
        stay = float(sums[t, column])
        if left >= right and left >= stay:
            column -= 1
        elif right > stay:
            column += 1
    half = rows // 2
    return np.concatenate([path[rows : rows + half], path[half:rows]])


def _fitted(circle: Circle, distance: _Numbers, weight: _Floats) -> Circle:
    """The circle through most of the points at `distance` from the middle of `circle`.

    Algebraic least squares, weighed again and again by how near the points lie.
    """
    x, y = np.cos(_AROUND) * distance, np.sin(_AROUND) * distance
    given = np.clip(weight, 0.02, 1).astype(np.float64) * (weight > 0)
    if given.sum() < 5:
        return circle
    now, equations, squares = given, np.column_stack([x, y, np.ones(ANGLES)]), x * x + y * y
    for _ in range(8):
        normal = (equations * now[:, None]).T
        a, b, c = np.linalg.lstsq(normal @ equations, normal @ squares, rcond=None)[0]
        radius = np.sqrt(max(c + a * a / 4 + b * b / 4, 1.0))
        off = np.abs(np.hypot(x - a / 2, y - b / 2) - radius)
        near = max(0.6, 1.5 * float(np.median(off[given > 0])))
        now = given / (1 + (off / near) ** 2) ** 2
    moved = np.hypot(a, b) / 2
    if moved > 0.5 * circle.radius or not 0.6 < radius / circle.radius < 1.6:
        return circle
    # The second harmonic of the outline around that middle.
    angle, reach = np.arctan2(y - b / 2, x - a / 2), np.hypot(x - a / 2, y - b / 2)
    waves = np.column_stack([np.cos(2 * angle), np.sin(2 * angle), np.ones(ANGLES)])
    normal = (waves * now[:, None]).T
    oval = np.linalg.lstsq(normal @ waves, normal @ reach, rcond=None)[0]
    oval = min(float(np.hypot(oval[0], oval[1]) / radius), 1.0)
    return Circle(
        float(circle.x + a / 2), float(circle.y + b / 2), float(radius), float((1 - oval) / (1 + oval))
    )


def eyelids(
    clean: _Grey, pupil: Circle, limbus: Circle, params: Params = PARAMS
) -> tuple[Eyelid | None, Eyelid | None]:
    """The upper and the lower lid where they cover the iris. Cost: 5 ms."""
    # 1. The square around the limbus, blurred along the lids, so that lashes count little.
    x, y = np.meshgrid(limbus.x + limbus.radius * _COLUMNS, limbus.y + limbus.radius * _LINES)
    x, y = x.astype(np.float32), y.astype(np.float32)
    square = cv2.remap(clean, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    rise = np.gradient(cv2.GaussianBlur(square, (0, 0), sigmaX=2.0, sigmaY=1.2), axis=0)
    rise[(x < 0) | (x >= clean.shape[1]) | (y < 0) | (y >= clean.shape[0])] = 0
    # 2. What an arc gains at every point: nothing beside the iris, a loss in the pupil.
    within = _COLUMNS**2 + _LINES[:, None] ** 2 < 0.95**2
    from_pupil = np.hypot(x - pupil.x, y - pupil.y) / pupil.radius
    lids = []
    for side in (-1, 1):
        clear = side * rise / (np.abs(rise) + params.lid_soft) - params.lid_least
        gain = np.where(within, clear, 0)
        gain = np.where(from_pupil < 1.4, np.minimum(gain, 0), gain)
        gain = np.where(from_pupil < 1.05, -1, gain).astype(np.float32)
        # 3. The best of all arcs.
        arcs, lines = _arcs(side)
        sums = gain[lines, np.arange(len(_COLUMNS))].sum(axis=1)
        k = int(np.argmax(sums))
        c0, c1, c2 = (float(c) for c in arcs[k])
        r = limbus.radius
        lids.append(Eyelid(side, c0 * r, c1, c2 / r) if sums[k] > params.min_lid else None)
    return lids[0], lids[1]


@cache
def _arcs(side: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """`(n, 3)`: arcs to try, in radii of the limbus, and `(n, columns)` the lines they run along."""
    height, slope, bend = np.meshgrid(
        side * np.linspace(0.15, 1.05, 37),
        np.linspace(-0.45, 0.45, 10),
        np.linspace(0, 0.6, 7),
        indexing="ij",
    )
    arcs = np.column_stack([height.ravel(), slope.ravel(), -side * bend.ravel()])
    at = arcs[:, :1] + arcs[:, 1:2] * _COLUMNS + arcs[:, 2:] * _COLUMNS**2
    lines = np.rint((at - _LINES[0]) / (_LINES[1] - _LINES[0])).astype(np.intp)
    # Beside the square nothing is gained, as on its first and last line.
    return arcs, np.clip(lines, 0, len(_LINES) - 1)


def polar(
    picture: NDArray[np.float32] | _Grey,
    circle: Circle,
    radii: _Numbers,
    angles: _Numbers,
) -> tuple[_Floats, _Bools]:
    """`(angles, radii)`: the picture around a circle's middle, and which points lie in the picture."""
    x = (circle.x + np.cos(angles)[:, None] * radii).astype(np.float32)
    y = (circle.y + np.sin(angles)[:, None] * radii).astype(np.float32)
    unrolled = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= 0) & (x <= picture.shape[1] - 1) & (y >= 0) & (y <= picture.shape[0] - 1)
    return unrolled.astype(np.float32), inside
