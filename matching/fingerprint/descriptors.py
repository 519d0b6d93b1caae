"""Local descriptors for search: each cylinder as a short vector whose Euclidean distance is telling.

The values of a Minutia Cylinder-Code cylinder of 8 x 8 x 6 cells (Cappelli, Ferrara, Maltoni, IEEE TPAMI
32(12), 2010), their square roots, then a linear discriminant projection to 64 dimensions at unit length.
Projection, coarse centroids and codebooks are fitted once by `benchmarks/train_descriptors.py` on development
minutiae and shipped in `descriptors.npz`; they never see the gallery they index. Fast
templates find accurate ones, and the other way round, about as often as their like.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from math import ceil, cos, erf, floor, pi, sin, sqrt
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.template import Extractor, FingerprintTemplate
from matching.errors import ParametersUnavailable
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.cylinders import Cylinders

DESCRIPTORS_VERSION = 1
SIDE = 8
LAYERS = 6
RAW_SIZE = SIDE * SIDE * LAYERS
SIZE = 64


@dataclass(frozen=True, slots=True)
class Params:
    """The cylinder behind a descriptor, lengths in pixels at 500 ppi."""

    radius: float = 70.0
    sigma_distance: float = 28.0 / 3.0
    sigma_direction: float = 2.0 * pi / 9.0


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorModel:
    """What was learnt once; arrays are read-only.

    `mean` `(384,)` and `projection` `(384, 64)`, float32: raw values to descriptor. `centroids`
    `(lists, 64) float32`: the inverted lists' centres. `codebooks` `(parts, 16, 64 / parts) float32`: the
    product quantiser, four bits a part. `identity` names this fit.
    """

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    centroids: NDArray[np.float32]
    codebooks: NDArray[np.float32]
    identity: str

    def __post_init__(self) -> None:
        parts = len(self.codebooks)
        expected = {
            "mean": (RAW_SIZE,),
            "projection": (RAW_SIZE, SIZE),
            "centroids": (len(self.centroids), SIZE),
            "codebooks": (parts, 16, SIZE // max(1, parts)),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise TypeError(f"{name} is {shape} float32, not {array.shape} {array.dtype}")
            array.setflags(write=False)

    @classmethod
    @cache
    def load(cls) -> "DescriptorModel":
        """Read the shipped model. Raises `ParametersUnavailable` where it does not fit this code."""
        with as_file(files("matching.fingerprint") / "descriptors.npz") as path:
            return cls.from_file(path)

    @classmethod
    def from_file(cls, path: Path) -> "DescriptorModel":
        """Read what `benchmarks/train_descriptors.py` writes; raises `ParametersUnavailable`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                if (
                    int(data["version"]) != DESCRIPTORS_VERSION
                    or int(data["extractor"]) != Extractor.LEADER_1
                ):
                    raise ParametersUnavailable(
                        "the fingerprint descriptors were fitted for another version: "
                        "run benchmarks/train_descriptors.py"
                    )
                return cls(
                    mean=data["mean"].astype(np.float32),
                    projection=data["projection"].astype(np.float32),
                    centroids=data["centroids"].astype(np.float32),
                    codebooks=data["codebooks"].astype(np.float32),
                    identity=str(data["identity"]),
                )
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ParametersUnavailable(f"the fingerprint descriptors cannot be read: {error}") from error


def descriptors(
    template: FingerprintTemplate, cylinders: Cylinders, model: DescriptorModel | None = None
) -> NDArray[np.float32]:
    """`(n, 64) float32` of unit length, one for each of the template's valid `cylinders`.

    Never raises for what `cylinders` made of the template. Cost about 0.3 ms; thread-safe.
    """
    model = model or DescriptorModel.load()
    projected = (raw_descriptors(template, cylinders) - model.mean) @ model.projection
    length = np.linalg.norm(projected, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (projected / np.maximum(length, 1e-9)).astype(np.float32)
    unit.setflags(write=False)
    return unit


def raw_descriptors(template: FingerprintTemplate, cylinders: Cylinders) -> NDArray[np.float32]:
    """`(n, 384) float32`: square roots of the cylinders' values, before the projection."""
    used = template.reliability >= CYLINDER_PARAMS.min_reliability  # those that made the cylinders
    rows = (np.cumsum(used) - 1)[cylinders.minutia]
    seen: NDArray[np.float32] = neighbourhoods(template.x[used], template.y[used], template.direction[used])
    chosen: NDArray[np.float32] = seen[rows]
    return chosen


def neighbourhoods(
    x: NDArray[np.float32], y: NDArray[np.float32], direction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`(n, 384) float32`: what each minutia sees of the others, square roots of its cylinder's values.

    Cells run along the minutia's direction, then to its right, then through the angles. Cost: 0.08 ms for 58
    minutiae on one thread, without the GIL; thread-safe.
    """
    made: NDArray[np.float32] = _neighbourhoods(x, y, direction, _GAUSSIAN, _SHARES, _BASE)
    return made


_RADIUS = PARAMS.radius
_CELL = 2.0 * _RADIUS / SIDE
_REACH = 3.0 * PARAMS.sigma_distance
_STEPS = 8  # of the Gaussian's table, a pixel
_TURN = 1024


def _gaussian_table() -> NDArray[np.float32]:
    """Root of the two-dimensional Gaussian at its middle, falling with the distance in one direction."""
    away = np.arange(int(_REACH * _STEPS) + 2) / _STEPS
    peak = 1.0 / (PARAMS.sigma_distance * sqrt(2.0 * pi))
    table: NDArray[np.float64] = np.sqrt(peak) * np.exp(-((away / PARAMS.sigma_distance) ** 2) / 2)
    return table.astype(np.float32)


def _share_table() -> NDArray[np.float32]:
    """`(1024, 6)`: shares of a Gaussian around angle `2 pi i / 1024` within each layer."""
    scale = PARAMS.sigma_direction * sqrt(2)
    centre = (np.arange(LAYERS) + 0.5) / LAYERS - 0.5
    away = (np.arange(_TURN)[:, None] / _TURN - centre + 0.5) % 1.0 - 0.5
    edges = 2 * pi * away[:, :, None] + pi / LAYERS * np.array([-1.0, 1.0])
    below: NDArray[np.float64] = np.vectorize(erf, otypes=[np.float64])(edges / scale)
    return np.asarray(0.5 * np.diff(below, axis=2)[:, :, 0], dtype=np.float32)


def _base() -> NDArray[np.bool_]:
    """`(8, 8)`: cells whose centre lies within the radius."""
    centre = _CELL * (np.arange(SIDE) - (SIDE - 1) / 2)
    within: NDArray[np.bool_] = centre[:, None] ** 2 + centre**2 <= PARAMS.radius**2
    return within


_GAUSSIAN = _gaussian_table()
_SHARES = _share_table()
_BASE = _base()


@njit(cache=True, nogil=True, fastmath=True)
def _neighbourhoods(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    direction: NDArray[np.float32],
    gaussian: NDArray[np.float32],
    shares: NDArray[np.float32],
    base: NDArray[np.bool_],
) -> NDArray[np.float32]:
    n = len(x)
    raw = np.zeros((n, RAW_SIZE), dtype=np.float32)
    cell, reach, middle = np.float32(_CELL), np.float32(_REACH), np.float32((SIDE - 1) / 2)
    far = np.float32((_RADIUS + _REACH) ** 2)
    unit, half, steps = np.float32(_TURN / (2.0 * pi)), np.float32(0.5), np.float32(_STEPS)
    for m in range(n):
        c, s = np.float32(cos(direction[m])), np.float32(sin(direction[m]))
        for t in range(n):
            dx, dy = x[t] - x[m], y[t] - y[m]
            if t == m or dx * dx + dy * dy > far:
                continue
            # in the minutia's frame: u along its direction, v to its right, y is down
            u, v = c * dx - s * dy, s * dx + c * dy
            turn = int((direction[m] - direction[t]) * unit + half + np.float32(2 * _TURN)) & (_TURN - 1)
            first_i = max(0, ceil((u - reach) / cell + middle))
            last_i = min(SIDE, floor((u + reach) / cell + middle) + 1)
            first_j = max(0, ceil((v - reach) / cell + middle))
            last_j = min(SIDE, floor((v + reach) / cell + middle) + 1)
            for i in range(first_i, last_i):
                du = u - cell * (i - middle)
                along = gaussian[int(abs(du) * steps + half)]
                for j in range(first_j, last_j):
                    dv = v - cell * (j - middle)
                    if du * du + dv * dv > reach * reach or not base[i, j]:
                        continue
                    weight = along * gaussian[int(abs(dv) * steps + half)]
                    at = (i * SIDE + j) * LAYERS
                    for k in range(LAYERS):
                        raw[m, at + k] += weight * shares[turn, k]
        for value in range(RAW_SIZE):
            raw[m, value] = sqrt(raw[m, value])
    return raw
