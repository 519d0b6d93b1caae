"""Synthetic people as templates: for galleries too large for pictures.

Nobody's minutiae are in here: a finger is drawn from a ridge flow (singular points and a smooth remainder,
after Sherlock and Monro's zero-pole model, Pattern Recognition 26(7), 1993), whose parameters follow
distributions fitted to real prints; minutiae are placed where the flow diverges, keep their distance, lie
along the ridges and point to the side where new ridges begin. `benchmarks.check_population` compares what
comes out with real prints; `population.json` holds the fitted figures, no one's in particular.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import atan2, cos, erf, exp, pi, sin, sqrt, tanh
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.template import MAX_MINUTIAE, FingerprintTemplate
from capture.sample import FingerPosition

TEN_FINGERS = tuple(FingerPosition(code) for code in range(1, 11))
UNIT = 100.0  # pixels: the flow's unit of length

# Per cent of arch, tented arch, radial loop, ulnar loop and whorl, thumb to little finger; rounded from
# published fingerprint-bureau counts. The order is that of the pattern's intensity.
_PATTERNS = np.array(
    [
        [3, 1, 0.5, 55.5, 40],
        [6, 8, 20, 35, 31],
        [5, 3, 3, 72, 17],
        [1.5, 1, 1, 56.5, 40],
        [1, 1, 0.5, 85, 12.5],
    ]
)
_ARCH, _TENTED, _RADIAL, _ULNAR, _WHORL = range(5)
_FLOW_NAMES = ("arch", "tented", "loop", "loop", "whorl")


@dataclass(frozen=True, slots=True)
class Params:
    """How a population looks. Lengths in pixels at 500 ppi, angles in radians."""

    width: int = 504
    height: int = 480
    # contact area: half an ellipse above the widest row, a longer half below, cut by the image
    thumb_half_width: float = 176.0
    finger_half_width: float = 142.0
    half_width_spread: float = 0.07
    top: float = 30.0
    top_spread: float = 28.0
    centre: float = 239.0
    centre_spread: float = 26.0
    rise: float = 250.0  # from the finger's origin up to the top of the contact
    upper_axis: float = 225.0
    lower_axis: float = 400.0
    tilt: float = 0.10
    # minutiae
    density: float = 2.75e-4  # a pixel
    person_spread: float = 0.16  # of the logarithm of the density
    finger_spread: float = 0.16
    edge: float = 20.0  # the density falls off towards the edge over this distance
    divergence_gain: float = 400.0  # more minutiae where ridges diverge, pixels
    divergence_most: float = 4.0  # times as many at most
    sign_order: float = 0.5  # 0: either way along the ridge alike; 0.5: always where the flow diverges
    sign_scale: float = 0.0045
    near: float = 7.0  # none closer than this, fewer up to `far`
    far: float = 16.0
    far_opposite: float = 11.0
    central: float = 0.5  # more of them towards the middle
    lean: float = 0.0035  # divergence that points the minutiae of a right hand to the left, a pixel
    facing: float = 0.09  # share of minutiae with another one facing them across a gap
    poor: float = 0.005  # share of fingers that give few minutiae: one print in 208 of the half fitted to
    fewest: int = 8
    drift: float = 0.0005  # divergence of the ridge spacing's own wandering, a pixel
    ripple: float = 0.04  # smooth wandering of the flow
    flow_spread: float = 0.3  # scale of the fitted spread of the flow, of the median finger
    direction_noise: float = 0.06
    wild: float = 0.06  # share of minutiae whose direction is three times as uncertain
    variety: float = 0.85  # spread of the logarithm of how irregular a finger's flow and directions are
    pattern_habit: float = 0.55  # correlation of the pattern among a person's fingers
    unsure: float = 1.0  # exponent; above 1 the extractor is less sure of its minutiae


@dataclass(frozen=True, slots=True)
class Noise:
    """How two impressions of a finger differ. Lengths in pixels at 500 ppi, angles in radians.

    `stretch`, `jitter` and `direction` are medians over impressions, whose severity differs; `missed` is of
    the minutiae the extractor is sure of, `missed_unsure` of those it is least sure of.
    """

    shift: float = 44.0
    turn: float = 0.085
    roll: float = 25.0  # of the contact area over the finger
    stretch: float = 4.6
    jitter: float = 1.05
    direction: float = 0.055
    severity: float = 0.50  # spread of the logarithm of the three above
    missed: float = 0.015
    missed_unsure: float = 0.60
    spurious: float = 0.045
    type_flip: float = 0.09


FITTED_FILE = Path(__file__).with_suffix(".json")
_FITTED = json.loads(FITTED_FILE.read_text())
PARAMS = Params(**_FITTED["population"])
NOISE = Noise(**_FITTED["noise"])
# The same fingers on the small scanners of FVC2002 DB1 to DB3; what stands above is a live scanner's.
SCANNERS = {
    name: (replace(PARAMS, **fitted["population"]), replace(NOISE, **fitted["noise"]))
    for name, fitted in _FITTED["scanners"].items()
}


@dataclass(frozen=True, slots=True, eq=False)
class _Flow:
    """Distribution of a pattern's parameters: points `(x, y)` of the cores and deltas, then ten coefficients.

    In units of `UNIT` pixels, y up, the origin 250 pixels below the top of the contact; right hand.
    """

    thumb: NDArray[np.float64]
    finger: NDArray[np.float64]
    root: NDArray[np.float64] = field(repr=False)  # square root of the covariance
    cores: int
    deltas: int


def _flow(name: str, fitted: dict[str, list[float]]) -> _Flow:
    value, vector = np.linalg.eigh(np.array(fitted["covariance"]))
    singular = {"arch": 0, "tented": 1, "loop": 1, "whorl": 2}[name]
    return _Flow(
        np.array(fitted["thumb"]),
        np.array(fitted["finger"]),
        vector * np.sqrt(np.maximum(value, 0)),
        singular,
        singular,
    )


_FLOWS: dict[str, _Flow] = {}


def load_flows() -> None:
    """Read the flow from `population.json`; again after a fit wrote it."""
    flows = json.loads(FITTED_FILE.read_text())["flow"]
    _FLOWS.update({name: _flow(name, flows[name]) for name in ("arch", "tented", "loop", "whorl")})


# Quantiles of the extractor's reliability; comparison leaves out the least reliable.
_RELIABILITY_AT = np.array([0.0, 0.01, 0.03, 0.05, 0.10, 0.15, 0.20, 0.25, 0.50, 0.75, 0.90, 1.0])
_RELIABILITY = np.array([0.30, 0.329, 0.39, 0.451, 0.598, 0.712, 0.791, 0.844, 0.934, 0.956, 0.964, 0.978])
_ENDINGS = 0.69
load_flows()


def people(
    count: int,
    seed: int,
    fingers: Sequence[FingerPosition] = TEN_FINGERS,
    *,
    first: int = 0,
    params: Params = PARAMS,
) -> Iterator[tuple[FingerprintTemplate, ...]]:
    """Yield `count` people, `first` and following, each one impression of each of `fingers`.

    Cost: about 0.2 ms a finger. Person i is the same in every call with the same seed and fingers.
    """
    for index in range(first, first + count):
        yield person(index, seed, fingers, params=params)


def person(
    index: int, seed: int, fingers: Sequence[FingerPosition] = TEN_FINGERS, *, params: Params = PARAMS
) -> tuple[FingerprintTemplate, ...]:
    """Person `index` of the population `seed`: one impression of each of `fingers`, in their order."""
    rng = np.random.default_rng((seed, index))
    habit, density = rng.standard_normal(2)
    return tuple(
        _finger(rng, position, habit, params.person_spread * density, params) for position in fingers
    )


def impression(
    template: FingerprintTemplate, rng: np.random.Generator, noise: Noise = NOISE
) -> FingerprintTemplate:
    """Take another impression of the finger `template` shows: moved, turned, stretched, partly covered.

    What the new contact area uncovers is filled with new minutiae that follow the ridge flow of the nearest
    ones. Cost: about 0.1 ms.
    """
    columns = (template.x, template.y, template.direction, template.ending, template.reliability)
    made = _impression(
        rng,
        np.column_stack(columns).astype(np.float64),
        template.width,
        template.height,
        noise.shift,
        noise.turn,
        noise.roll,
        noise.stretch,
        noise.jitter,
        noise.direction,
        noise.severity,
        noise.missed,
        noise.missed_unsure,
        noise.spurious,
        noise.type_flip,
    )
    return _template(made, template.width, template.height, template.position)


def _finger(
    rng: np.random.Generator, position: FingerPosition, habit: float, density: float, params: Params
) -> FingerprintTemplate:
    """Draw one finger: pattern, flow, contact area, then its minutiae."""
    # 1. pattern: the persons' fingers resemble one another in pattern intensity, by a Gaussian copula
    kind = (position - 1) % 5 if position else int(rng.integers(5))
    thumb = kind == 0
    latent = sqrt(params.pattern_habit) * habit + sqrt(1 - params.pattern_habit) * rng.standard_normal()
    share = np.cumsum(_PATTERNS[kind]) / 100
    pattern = min(int(np.searchsorted(share, 0.5 * (1 + erf(latent / sqrt(2))))), _WHORL)

    # 2. flow, mirrored for the left hand, and for the loop that opens to the thumb's side
    flow = _FLOWS[_FLOW_NAMES[pattern]]
    drawn = flow.root @ rng.standard_normal(flow.root.shape[1])
    irregular = exp(params.variety * rng.standard_normal())
    parameters = (flow.thumb if thumb else flow.finger) + params.flow_spread * irregular * drawn
    points = 2 * (flow.cores + flow.deltas)
    charges = np.repeat([0.5, -0.5], [flow.cores, flow.deltas])
    singular = np.column_stack([parameters[:points].reshape(-1, 2), charges])
    smooth = parameters[points:]
    if (position > 5) != (pattern == _RADIAL):
        singular[:, 0] *= -1
        smooth = smooth * _MIRRORED

    mirror = -1.0 if position > 5 else 1.0

    # 3. contact area
    half_width = params.thumb_half_width if thumb else params.finger_half_width
    half_width *= 1 + params.half_width_spread * rng.standard_normal()
    top = params.top + params.top_spread * rng.standard_normal()
    centre = params.centre + params.centre_spread * rng.standard_normal()
    tilt = params.tilt * rng.standard_normal()

    # 4. minutiae
    density = params.density * exp(density + params.finger_spread * rng.standard_normal())
    if rng.random() < params.poor:
        density *= 0.35 + 0.3 * rng.random()
    made = np.zeros((0, 5))
    while len(made) < params.fewest:  # a print with less is refused, and taken again
        made = _minutiae(
            rng,
            singular,
            smooth,
            half_width,
            max(top, -20.0),
            centre,
            tilt,
            density,
            params.width,
            params.height,
            params.rise,
            params.upper_axis,
            params.lower_axis,
            params.edge,
            params.divergence_gain,
            params.divergence_most,
            params.sign_order,
            params.sign_scale,
            params.near,
            params.far,
            params.far_opposite,
            params.central,
            mirror * params.lean,
            params.facing,
            params.drift,
            params.ripple * irregular,
            params.direction_noise * irregular,
            params.wild,
        )
        density *= 1.2
    made[:, 3] = rng.random(len(made)) < _ENDINGS
    made[:, 4] = np.interp(rng.random(len(made)) ** params.unsure, _RELIABILITY_AT, _RELIABILITY)
    return _template(made, params.width, params.height, position)


def _template(
    made: NDArray[np.float64], width: int, height: int, position: FingerPosition
) -> FingerprintTemplate:
    """Most reliable first, coordinates in whole pixels as the extractor gives them."""
    made = made[np.argsort(-made[:, 4], kind="stable")][:MAX_MINUTIAE]
    direction = (made[:, 2] % (2 * pi)).astype(np.float32)
    return FingerprintTemplate(
        x=np.clip(np.rint(made[:, 0]), 0, width - 1).astype(np.float32),
        y=np.clip(np.rint(made[:, 1]), 0, height - 1).astype(np.float32),
        direction=np.where(direction >= np.float32(2 * pi), np.float32(0), direction),
        ending=made[:, 3] > 0.5,
        reliability=made[:, 4].astype(np.float32),
        width=width,
        height=height,
        position=position,
        quality=round(100 * float(made[:, 4].mean())) if len(made) else 0,
    )


_MIRRORED = np.array([1, 1, 1, 1, -1, -1, -1, -1, -1, -1], dtype=np.float64)


@njit(cache=True, nogil=True)
def _orientation(
    x: float, y: float, singular: NDArray[np.float64], smooth: NDArray[np.float64], waves: NDArray[np.float64]
) -> tuple[float, float]:
    """Orientation of the ridges at a point, and the divergence of that direction, a pixel."""
    c = smooth
    angle = c[0] * x + c[1] * x * y + c[2] * x * y * y + c[3] * x * x * x
    angle += c[4] + c[5] * y + c[6] * x * x + c[7] * y * y + c[8] * x * x * y + c[9] * y * y * y
    dx = c[0] + c[1] * y + c[2] * y * y + 3 * c[3] * x * x + 2 * c[6] * x + 2 * c[8] * x * y
    dy = c[1] * x + 2 * c[2] * x * y + c[5] + 2 * c[7] * y + c[8] * x * x + 3 * c[9] * y * y
    for i in range(len(singular)):
        u, v, charge = x - singular[i, 0], y - singular[i, 1], singular[i, 2]
        angle += charge * atan2(v, u)
        square = u * u + v * v + 0.01
        dx -= charge * v / square
        dy += charge * u / square
    for i in range(len(waves)):
        phase = waves[i, 0] * x + waves[i, 1] * y + waves[i, 2]
        angle += waves[i, 3] * sin(phase)
        slope = waves[i, 3] * cos(phase)
        dx += waves[i, 0] * slope
        dy += waves[i, 1] * slope
    return angle, (cos(angle) * dy - sin(angle) * dx) / UNIT


@njit(cache=True, nogil=True)
def _waves(rng: np.random.Generator, count: int, size: float) -> NDArray[np.float64]:
    """Plane waves `(count, 4)` of random direction, length and phase, of `size` in standard deviation."""
    waves = np.empty((count, 4))
    for i in range(count):
        towards, length = rng.random() * 2 * pi, 0.9 + 1.2 * rng.random()
        waves[i, 0] = 2 * pi / length * cos(towards)
        waves[i, 1] = 2 * pi / length * sin(towards)
        waves[i, 2] = rng.random() * 2 * pi
        waves[i, 3] = size * sqrt(2.0 / count)
    return waves


@njit(cache=True, nogil=True)
def _spacing(
    x: float,
    y: float,
    sign: float,
    made: NDArray[np.float64],
    n: int,
    near: float,
    far: float,
    far_opposite: float,
) -> float:
    """Chance that a minutia of this sign may stand here, given those that stand already."""
    chance = 1.0
    for i in range(n):
        u, v = made[i, 0] - x, made[i, 1] - y
        square = u * u + v * v
        if square > 4 * far * far:
            continue
        reach = far_opposite
        if sign == made[i, 3]:
            # two of one sign hardly ever stand on one ridge
            along = u * cos(made[i, 2]) - v * sin(made[i, 2])
            reach = 2 * far if square - along * along < 36.0 else far
        if square < reach * reach:
            chance *= max(0.0, (sqrt(square) - near) / (reach - near))
    return chance


@njit(cache=True, nogil=True)
def _minutiae(
    rng: np.random.Generator,
    singular: NDArray[np.float64],
    smooth: NDArray[np.float64],
    half_width: float,
    top: float,
    centre: float,
    tilt: float,
    density: float,
    width: int,
    height: int,
    rise: float,
    upper_axis: float,
    lower_axis: float,
    edge: float,
    divergence_gain: float,
    divergence_most: float,
    sign_order: float,
    sign_scale: float,
    near: float,
    far: float,
    far_opposite: float,
    central: float,
    lean: float,
    facing: float,
    drift: float,
    ripple: float,
    direction_noise: float,
    wild: float,
) -> NDArray[np.float64]:
    """`(n, 5)`: x and y in pixels, y down, direction, and two columns to fill."""
    waves = _waves(rng, 4, ripple)
    drifts = _waves(rng, 4, drift)
    turn_c, turn_s = cos(tilt), sin(tilt)
    most = 4.2
    tries = int(density * most * width * height)
    tries = rng.poisson(tries)
    made = np.zeros((99, 5))
    n = 0
    for _ in range(tries):
        x, y = rng.random() * width, rng.random() * height
        # 1. into the finger's frame: y up, origin `rise` pixels below the top of the contact
        u, v = (x - centre) / UNIT, (top + rise - y) / UNIT
        u, v = turn_c * u + turn_s * v, turn_c * v - turn_s * u
        # 2. within the contact area
        below = (rise - upper_axis) / UNIT - v
        axis = (lower_axis if below > 0 else upper_axis) / UNIT
        across = u * UNIT / half_width
        radius = sqrt(across * across + (below / axis) ** 2)
        if radius >= 1.0:
            continue
        inside = (1.0 - radius) * half_width
        weight = (
            min(1.0, inside / edge)
            * min(1.2, 0.75 + 0.13 * (2.5 - v))
            * (0.8 + central * min(1.0, inside / 120.0))
        )
        # 3. more of them where ridges diverge
        angle, divergence = _orientation(u, v, singular, smooth, waves)
        weight *= 0.85 + min(divergence_gain * abs(divergence), divergence_most)
        if rng.random() * most >= weight:
            continue
        # 4. pointing to the side where new ridges begin, and keeping their distance
        for k in range(len(drifts)):
            divergence += drifts[k, 3] * sin(drifts[k, 0] * u + drifts[k, 1] * v + drifts[k, 2])
        divergence -= lean * cos(angle)
        sign = 1.0 if rng.random() < 0.5 + sign_order * tanh(divergence / sign_scale) else 0.0
        if rng.random() >= _spacing(x, y, sign, made, n, near, far, far_opposite):
            continue
        if sign == 0.0:
            angle += pi
        spread = 3 * direction_noise if rng.random() < wild else direction_noise
        made[n, 0], made[n, 1], made[n, 3] = x, y, sign
        made[n, 2] = angle + tilt + spread * rng.standard_normal()
        n += 1
        # 5. sometimes another one faces it: a broken ridge
        if n < len(made) and rng.random() < facing:
            gap = 11.0 + 25.0 * rng.random()
            off = 8.0 * rng.standard_normal()
            last = made[n - 1]
            px = last[0] + gap * cos(last[2]) + off * sin(last[2])
            py = last[1] - gap * sin(last[2]) + off * cos(last[2])
            if 0 <= px <= width - 1 and 0 <= py <= height - 1:
                made[n, 0], made[n, 1], made[n, 3] = px, py, 1.0 - sign
                made[n, 2] = last[2] + pi + 2 * direction_noise * rng.standard_normal()
                n += 1
        if n == len(made):
            break
    return made[:n]


@njit(cache=True, nogil=True)
def _impression(
    rng: np.random.Generator,
    old: NDArray[np.float64],
    width: int,
    height: int,
    shift: float,
    turn: float,
    roll: float,
    stretch: float,
    jitter: float,
    direction_noise: float,
    severity: float,
    missed: float,
    missed_unsure: float,
    spurious: float,
    type_flip: float,
) -> NDArray[np.float64]:
    """`(n, 5)` minutiae of another impression of the `(m, 5)` minutiae `old`."""
    m = len(old)
    if m == 0:
        return np.zeros((0, 5))
    # 1. how bad this one is
    common = rng.standard_normal()
    stretch *= exp(severity * (0.7 * common + 0.7 * rng.standard_normal()))
    jitter *= exp(0.6 * severity * (0.7 * common + 0.7 * rng.standard_normal()))
    direction_noise *= exp(severity * (0.7 * common + 0.7 * rng.standard_normal()))
    # 2. placement and elastic distortion: a rigid motion and three slow waves
    cx, cy = old[:, 0].mean(), old[:, 1].mean()
    ax, ay = 2.15 * old[:, 0].std() + 8.0, 2.15 * old[:, 1].std() + 8.0
    angle = turn * rng.standard_normal()
    c, s = cos(angle), sin(angle)
    tx, ty = shift * rng.standard_normal(), shift * rng.standard_normal()
    waves = np.empty((3, 5))
    for i in range(len(waves)):
        towards, length = rng.random() * 2 * pi, 300.0 + 300.0 * rng.random()
        waves[i, 0], waves[i, 1] = 2 * pi / length * cos(towards), 2 * pi / length * sin(towards)
        waves[i, 2] = rng.random() * 2 * pi
        waves[i, 3] = stretch * sqrt(2.0 / 3.0) * rng.standard_normal()
        waves[i, 4] = stretch * sqrt(2.0 / 3.0) * rng.standard_normal()
    # 3. the contact area, an ellipse by its moments, moves over the finger; put lower, it shows less below
    ox, oy = roll * rng.standard_normal(), roll * rng.standard_normal() - 0.4 * ty
    wrong = rng.poisson(spurious * m)
    uncovered = rng.poisson(0.9 * m * 2.6 * 2.6 / pi)
    made = np.zeros((m + wrong + uncovered, 5))
    n = 0
    for i in range(len(made)):
        if i < m:
            # 4. a minutia of before, if it is found again
            x, y, direction, ending, reliability = old[i, 0], old[i, 1], old[i, 2], old[i, 3], old[i, 4]
            unsure = min(1.0, max(0.0, (0.95 - reliability) / 0.65))
            if rng.random() < missed + (missed_unsure - missed) * unsure:
                continue
            if ((x - cx - ox) / ax) ** 2 + ((y - cy - oy) / ay) ** 2 > 1.1:
                continue
            if rng.random() < type_flip:
                ending = 1.0 - ending
            reliability = min(0.978, max(0.3, reliability + 0.04 * rng.standard_normal()))
        else:
            # 5. a new one: uncovered by the move, or wrong
            if i < m + wrong:
                radius, towards = sqrt(rng.random()), rng.random() * 2 * pi
                x, y = cx + ax * radius * cos(towards), cy + ay * radius * sin(towards)
                reliability = 0.3 + 0.5 * rng.random()
            else:
                x, y = cx + ox + ax * (2.6 * rng.random() - 1.3), cy + oy + ay * (2.6 * rng.random() - 1.3)
                if ((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 < 1.0:
                    continue
                if ((x - cx - ox) / ax) ** 2 + ((y - cy - oy) / ay) ** 2 > 1.0:
                    continue
                reliability = old[int(m * rng.random()), 4]
            sines, cosines, direction, nearest = 0.0, 0.0, 0.0, np.inf
            for j in range(m):
                square = (old[j, 0] - x) ** 2 + (old[j, 1] - y) ** 2
                weight = exp(-square / 3200.0)
                sines += weight * sin(2 * old[j, 2])
                cosines += weight * cos(2 * old[j, 2])
                if square < nearest:
                    nearest, direction = square, old[j, 2]
            if nearest < 64.0:
                continue
            along = 0.5 * atan2(sines, cosines)
            if cos(along - direction) < 0:
                along += pi
            if rng.random() < 0.4:
                along += pi
            direction = along + 0.12 * rng.standard_normal()
            ending = 1.0 if rng.random() < 0.69 else 0.0
        # 6. onto the sensor
        u, v = x - cx, y - cy
        px, py = cx + tx + c * u + s * v, cy + ty - s * u + c * v
        for k in range(len(waves)):
            bend = sin(waves[k, 0] * x + waves[k, 1] * y + waves[k, 2])
            px += waves[k, 3] * bend
            py += waves[k, 4] * bend
        px += jitter * rng.standard_normal()
        py += jitter * rng.standard_normal()
        if px < 0 or py < 0 or px > width - 1 or py > height - 1:
            continue
        made[n, 0], made[n, 1] = px, py
        made[n, 2] = direction + angle + direction_noise * rng.standard_normal()
        made[n, 3], made[n, 4] = ending, reliability
        n += 1
    return made[:n]
