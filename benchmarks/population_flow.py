"""The ridge flow of real fingers, as the few figures that `benchmarks.population` draws fingers from.

Each print's orientation field is explained by five models, which differ in their number of cores and deltas
(zero-pole model of Sherlock and Monro, Pattern Recognition 26(7), 1993) and share a smooth remainder; the
cheapest one names the pattern. Means and covariances over many prints are kept, no print's own figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.foreground import foreground

Floats = NDArray[np.float64]

UNIT = 100.0  # pixels
ORIGIN = 250.0  # pixels below the top of the contact
_GRID = 4  # pixels between the cells of an orientation field
_COEFFICIENTS = 10
_MIRRORED = np.array([1, 1, 1, 1, -1, -1, -1, -1, -1, -1], dtype=np.float64)
# what the smooth remainder's coefficients are expected to be, standard deviations
_EXPECTED = np.array([0.6, 0.3, 0.15, 0.15, 0.25, 0.2, 0.2, 0.15, 0.1, 0.1])
_ROUNDS = 40


class _Model(NamedTuple):
    """Where cores and deltas are looked for, and how much better than an arch the fit must be."""

    cores: tuple[tuple[float, float], ...]
    deltas: tuple[tuple[float, float], ...]
    price: float


_MODELS = {
    "arch": _Model((), (), 0.0),
    "tented": _Model(((0.0, 0.2),), ((0.0, -0.7),), 1.5),
    "left": _Model(((0.0, 0.4),), ((0.9, -1.3),), 1.0),
    "right": _Model(((0.0, 0.4),), ((-0.9, -1.3),), 1.0),
    "whorl": _Model(((0.0, 0.6), (0.0, -0.2)), ((-1.2, -1.2), (1.2, -1.2)), 2.5),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """Orientation of ridges at the points `x`, `y` of a print, radians counter-clockwise; cores in sight."""

    x: Floats
    y: Floats
    angle: Floats
    cores: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FlowPrint:
    """One print to learn from: 500 ppi, upright."""

    path: Path
    thumb: bool
    left_hand: bool


class Gathered(TypedDict):
    """What is known of a pattern: mean parameters of thumbs and of other fingers, and how they spread."""

    thumb: list[float]
    finger: list[float]
    covariance: list[list[float]]
    count: int


def fitted_flow(prints: Sequence[FlowPrint]) -> dict[str, Gathered]:
    """Fit every print and gather the patterns, as right hands: JSON values for `population.json`.

    Cost: about 0.5 CPU s a print.
    """
    patterns: dict[str, list[tuple[Floats, bool]]] = {"arch": [], "loop": [], "tented": [], "whorl": []}
    for one in prints:
        image = cv2.imread(str(one.path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise ValueError(f"{one.path} is no image")
        named = _named(*_best(_field(np.asarray(image, np.uint8))), left_hand=one.left_hand)
        if named is not None:
            patterns[named[0]].append((named[1], one.thumb))
    return {name: _gathered(found) for name, found in patterns.items() if found}


def _field(image: NDArray[np.uint8]) -> _Field:
    """Orientations by averaged squared gradients, away from the rim, every 16 pixels; cores by winding."""
    # 1. doubled angles on the grid
    grey = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2)
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    energy, cosine, sine = (
        cv2.GaussianBlur(term, (0, 0), 10)[::_GRID, ::_GRID]
        for term in (gx * gx + gy * gy, gy * gy - gx * gx, -2 * gx * gy)
    )
    cosine, sine = (cv2.GaussianBlur(term / (energy + 1e-6), (0, 0), 2) for term in (cosine, sine))
    mask = foreground(image)[::_GRID, ::_GRID].astype(np.uint8)

    # 2. the finger's frame: y up, origin below the top of the contact
    top = int(np.flatnonzero(mask.sum(axis=1) >= 8)[0])
    rows, columns = np.nonzero(mask)
    middle = float(columns[rows < top + 75].mean())

    def place(row: Floats, column: Floats) -> tuple[Floats, Floats]:
        return (column - middle) * _GRID / UNIT, (ORIGIN - (row - top) * _GRID) / UNIT

    # 3. cores: where the orientation turns half a turn around a square of 9 cells
    doubled = cv2.GaussianBlur(np.dstack([cosine, sine]), (0, 0), 3)
    turning = np.arctan2(doubled[..., 1], doubled[..., 0])
    reach = range(-4, 4)
    ring = (
        [(4, j) for j in reach]
        + [(-j, 4) for j in reach]
        + [(-4, -j) for j in reach]
        + [(j, -4) for j in reach]
    )
    around = np.array([np.roll(turning, (-dy, -dx), (0, 1)) for dx, dy in ring])
    steps = np.roll(around, -1, axis=0) - around
    winding = np.rint(((steps + np.pi) % (2 * np.pi) - np.pi).sum(axis=0) / (2 * np.pi))
    inside = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
    count, _, sizes, centres = cv2.connectedComponentsWithStats(((winding == 1) & inside).astype(np.uint8))
    cores = tuple(
        tuple(float(v) for v in place(centres[k, 1], centres[k, 0]))
        for k in range(1, count)
        if sizes[k, cv2.CC_STAT_AREA] >= 25
    )

    # 4. samples
    sampled = np.zeros_like(mask)
    sampled[::4, ::4] = cv2.erode(mask, np.ones((5, 5), np.uint8))[::4, ::4]
    rows, columns = np.nonzero(sampled)
    x, y = place(rows.astype(np.float64), columns.astype(np.float64))
    # image rows run down, angles counter-clockwise
    return _Field(x, y, -0.5 * np.arctan2(sine, cosine)[rows, columns].astype(np.float64), cores)  # type: ignore[arg-type]


def _best(field: _Field) -> tuple[str, Floats]:
    """The cheapest of the models and its parameters."""
    found = []
    for name, model in _MODELS.items():
        start = np.concatenate([np.ravel(model.cores + model.deltas), np.zeros(_COEFFICIENTS)])
        starts = [start]
        if len(model.cores) == 1 and field.cores:  # move core and delta together to the core in sight
            moved = start.copy()
            moved[:4] += np.tile(np.array(field.cores[0]) - start[:2], 2)
            starts.append(moved)
        if len(model.cores) == 2 and len(field.cores) == 2:
            moved = start.copy()
            moved[:4] = np.ravel(sorted(field.cores, key=lambda core: -core[1]))
            starts.append(moved)
        for first in starts:
            cost, parameters = _least_squares(field, first, start, len(model.cores))
            found.append((cost + model.price, name, parameters))
    _, name, parameters = min(found, key=lambda one: one[0])
    return name, parameters


def _least_squares(field: _Field, first: Floats, expected: Floats, cores: int) -> tuple[float, Floats]:
    """Levenberg-Marquardt on the sines of the angular errors, with a prior; cost and parameters."""
    points = len(first) - _COEFFICIENTS
    weight = 3 * np.sqrt(200 / len(field.x))
    prior = np.concatenate([np.full(points, 0.5), 1 / _EXPECTED])

    def evaluated(parameters: Floats) -> tuple[float, Floats, Floats]:
        angle, slope = _angle(field.x, field.y, parameters, cores)
        error = field.angle - angle
        residual = np.concatenate([weight * np.sin(error), prior * (parameters - expected)])
        jacobian = np.vstack([-weight * np.cos(error)[:, None] * slope, np.diag(prior)])
        return 0.5 * float(residual @ residual), residual, jacobian

    parameters, damping = first, 1e-2
    cost, residual, jacobian = evaluated(parameters)
    for _ in range(_ROUNDS):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residual)
        tried = evaluated(parameters + step)
        if tried[0] >= cost:
            damping *= 4
            continue
        gained, parameters, damping = cost - tried[0], parameters + step, damping / 3
        cost, residual, jacobian = tried
        if gained < 1e-5 * cost:
            break
    return cost, parameters


def _angle(x: Floats, y: Floats, parameters: Floats, cores: int) -> tuple[Floats, Floats]:
    """The model's orientation at points `(n,)`, and its derivatives `(n, parameters)`."""
    one = np.ones_like(x)
    smooth = np.column_stack([x, x * y, x * y * y, x**3, one, y, x * x, y * y, x * x * y, y**3])
    angle = smooth @ parameters[-_COEFFICIENTS:]
    slopes = []
    for k, (px, py) in enumerate(parameters[:-_COEFFICIENTS].reshape(-1, 2)):
        charge = 0.5 if k < cores else -0.5
        u, v = x - px, y - py
        square = u * u + v * v + 1e-3
        angle = angle + charge * np.arctan2(v, u)
        slopes += [charge * v / square, -charge * u / square]
    return angle, np.column_stack([*slopes, smooth])


def _named(model: str, parameters: Floats, *, left_hand: bool) -> tuple[str, Floats] | None:
    """Pattern and parameters as of a right hand; None where core and delta of a whorl fell together."""
    points = len(parameters) - _COEFFICIENTS
    name = "loop" if model in ("left", "right") else model
    if name == "loop" and abs(parameters[2] - parameters[0]) < 0.35:
        name = "tented"
    if name == "whorl":
        apart = parameters[:4].reshape(2, 1, 2) - parameters[4:8].reshape(1, 2, 2)
        if np.hypot(apart[..., 0], apart[..., 1]).min() < 0.55:
            return None
    # an ulnar loop's delta is on the thumb's side: to the left in a right hand's print
    if (parameters[2] > parameters[0]) if name == "loop" else left_hand:
        parameters = parameters.copy()
        parameters[:points:2] *= -1
        parameters[points:] *= _MIRRORED
    if name == "whorl" and parameters[4] > parameters[6]:
        parameters = parameters[[0, 1, 2, 3, 6, 7, 4, 5, *range(8, len(parameters))]]
    return name, parameters


def _gathered(found: Sequence[tuple[Floats, bool]]) -> Gathered:
    """Mean of thumbs and of other fingers, drawn to the common one as by three prints, and covariance."""
    values = np.array([parameters for parameters, _ in found])
    thumb = np.array([is_thumb for _, is_thumb in found])
    common = values.mean(axis=0)
    means: list[list[float]] = []
    rest = values.copy()
    for chosen in (thumb, ~thumb):
        mean = (values[chosen].sum(axis=0) + 3 * common) / (chosen.sum() + 3)
        means.append(mean.round(4).tolist())
        rest[chosen] -= mean
    covariance = rest.T @ rest / max(len(values) - 1, 1)
    return Gathered(
        thumb=means[0], finger=means[1], covariance=covariance.round(5).tolist(), count=len(values)
    )
