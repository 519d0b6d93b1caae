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
from math import cos, erf, exp, floor, hypot, pi, sin, sqrt
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
    return _raw(
        template.x[used],
        template.y[used],
        template.direction[used],
        (np.cumsum(used) - 1)[cylinders.minutia],
        _DIRECTION_TABLE,
        PARAMS.radius,
        PARAMS.sigma_distance,
    )


def _direction_table(sigma: float) -> NDArray[np.float64]:
    """`(1024,)`: share of a Gaussian around angle `2 pi i / 1024` within the layer centred at 0."""
    half, scale = pi / LAYERS, sigma * sqrt(2)
    turn = np.arange(1024) * (2 * pi / 1024)
    turn = np.where(turn > pi, turn - 2 * pi, turn)
    return np.array([0.5 * (erf((a + half) / scale) - erf((a - half) / scale)) for a in turn])


_DIRECTION_TABLE = _direction_table(PARAMS.sigma_direction)


@njit(cache=True, nogil=True)
def _raw(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    direction: NDArray[np.float32],
    minutia: NDArray[np.int64],
    direction_table: NDArray[np.float64],
    radius: float,
    sigma: float,
) -> NDArray[np.float32]:
    n = len(minutia)
    raw = np.zeros((n, RAW_SIZE), dtype=np.float32)
    cell = 2.0 * radius / SIDE
    reach = 3.0 * sigma
    peak = 1.0 / (sigma * sqrt(2.0 * pi))
    gauss_u = np.empty(SIDE)
    share = np.empty(LAYERS)
    for row in range(n):
        m = minutia[row]
        c, s = cos(direction[m]), sin(direction[m])
        for t in range(len(x)):
            dx, dy = float(x[t] - x[m]), float(y[t] - y[m])
            if t == m or hypot(dx, dy) > radius + reach:
                continue
            # in the minutia's frame: u along its direction, v to its right, y is down
            u, v = c * dx - s * dy, s * dx + c * dy
            turn = (direction[m] - direction[t]) / (2.0 * pi)
            for k in range(LAYERS):
                away = turn - (k + 0.5) / LAYERS + 0.5
                share[k] = direction_table[floor((away - floor(away)) * 1024 + 0.5) & 1023]
            for i in range(SIDE):
                gauss_u[i] = exp(-((u - cell * (i - (SIDE - 1) / 2)) ** 2) / (2 * sigma * sigma))
            for j in range(SIDE):
                cv = cell * (j - (SIDE - 1) / 2)
                if abs(v - cv) > reach:
                    continue
                gauss_v = peak * exp(-((v - cv) ** 2) / (2 * sigma * sigma))
                for i in range(SIDE):
                    cu = cell * (i - (SIDE - 1) / 2)
                    if cu * cu + cv * cv > radius * radius or (u - cu) ** 2 + (v - cv) ** 2 > reach * reach:
                        continue
                    for k in range(LAYERS):
                        raw[row, (i * SIDE + j) * LAYERS + k] += gauss_u[i] * gauss_v * share[k]
        for value in range(RAW_SIZE):
            raw[row, value] = sqrt(raw[row, value])
    return raw
