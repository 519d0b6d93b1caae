"""A face network of the user's own, as an ONNX file.

The file must have one input of single precision, `N x 3 x H x W` or `N x H x W x 3`, and one output, a vector
for each image; anything else is refused when it is loaded, with what is wrong. OpenCV and ONNX Runtime both
run it then, and the one that takes less processor time here is kept: which that is depends on the network and
the machine, and they lie apart by factors. No network comes with Rekam for this.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from capture.errors import ModelUnavailable
from capture.face.alignment import cut_out, similarity, with_mirror_images
from capture.face.template import EMBEDDER_BYTES, MAX_VALUES
from capture.networks import session

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
# Runs that are timed, of which the shortest counts, and how far the engines' vectors may lie apart.
_TIMED = 5
_SAME = 1e-3
# Changed with everything that changes the vectors of one file under the same settings.
_RECIPE = "onnx, crop and mirror image, 1"


class ChannelOrder(StrEnum):
    """In which order a network takes colours."""

    RGB = "rgb"
    BGR = "bgr"


class Engine(StrEnum):
    """What runs the network; `fastest` measures both when it is loaded.

    OpenCV's runs one image at a time: one copy of a large network in memory is enough.
    """

    FASTEST = "fastest"
    ONNX_RUNTIME = "onnx_runtime"
    OPENCV = "opencv"


@dataclass(frozen=True, slots=True)
class OnnxEmbedderSettings:
    """Where the network is and what its input must look like.

    `size`: width and height of its input. A grey level x of a channel enters as (x - mean) * scale, the
    means in red, green, blue whatever the order. `places`: where, in pixels of the input, the middle of the
    person's right eye (at the left of the picture), that of the left eye and the base of the nose come to
    lie. The defaults are those of the networks for 112 x 112 pixels that follow ArcFace (J. Deng et al.,
    CVPR 2019); the base of the nose, which is none of their five points, lies where dlib's mean face has it.
    `mirrored`: the vector is the mean of the face's and its mirror image's.
    """

    path: Path
    size: tuple[int, int] = (112, 112)
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: float = 1 / 127.5
    channels: ChannelOrder = ChannelOrder.RGB
    places: tuple[tuple[float, float], tuple[float, float], tuple[float, float]] = (
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (55.9, 78.9),
    )
    mirrored: bool = True
    engine: Engine = Engine.FASTEST

    def __post_init__(self) -> None:
        if not all(16 <= side <= 1024 for side in self.size):
            raise ValueError(f"a face network's input is 16 to 1024 pixels a side, not {self.size}")
        if not np.isfinite([*self.mean, self.scale, *np.ravel(self.places)]).all() or self.scale == 0:
            raise ValueError("mean, scale and places of a face network are finite, and its scale is not 0")
        (ax, ay), (bx, by), _ = self.places
        if np.hypot(ax - bx, ay - by) < 1:
            raise ValueError("the eyes of a face network's input lie apart")


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    run: _Run
    engine: Engine
    milliseconds: dict[Engine, float] = field(default_factory=dict)


class OnnxEmbedder:
    """The network, checked and ready to run. Thread-safe. Raises `ModelUnavailable` saying what is wrong."""

    __slots__ = ("_channels_first", "_digest", "_network", "_settings")

    def __init__(self, settings: OnnxEmbedderSettings) -> None:
        path = settings.path
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ModelUnavailable(f"the face network {path} cannot be read: {error}") from error
        self._settings = settings
        loaded = session(model, f"the face network {path}")
        self._channels_first = _takes_channels_first(loaded, settings)
        self._network = _checked(loaded, model, settings, self._prepared(_pictures(settings.size)))
        made = settings.size, settings.mean, settings.scale, settings.places, settings.mirrored
        recipe = f"{_RECIPE}, {settings.channels}, {made}"
        self._digest = hashlib.sha256(recipe.encode() + model).digest()[:EMBEDDER_BYTES]

    @property
    def digest(self) -> bytes:
        """Of the file and of all settings but its path and engine."""
        return self._digest

    @property
    def steady(self) -> None:
        """Not known of this network."""

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._network.engine

    @property
    def milliseconds(self) -> dict[Engine, float]:
        """Processor time of one image by engine, where both were measured."""
        return dict(self._network.milliseconds)

    def crops(self, image: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The face, and its mirror image if so set, `(n, h, w, 3) uint8`. Cost: 1 ms."""
        settings = self._settings
        right_eye, left_eye = landmarks[2:4].mean(axis=0), landmarks[0:2].mean(axis=0)
        motion = similarity(np.array([right_eye, left_eye, landmarks[4]]), np.array(settings.places))
        crops = cut_out(image, motion, settings.size)[None]
        return with_mirror_images(crops) if settings.mirrored else crops

    def vectors(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(n, D) float32`; raises `ModelUnavailable` where the network gives no finite vector."""
        found = np.stack([self._network.run(one[None]) for one in self._prepared(crops)])
        if not np.isfinite(found).all():
            raise ModelUnavailable(f"the face network {self._settings.path} gives values that are no numbers")
        return found

    def _prepared(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        settings = self._settings
        mean = np.array(settings.mean, dtype=np.float32)
        pixels = (crops.astype(np.float32) - mean) * np.float32(settings.scale)
        if settings.channels is ChannelOrder.BGR:
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if self._channels_first else pixels)


def _takes_channels_first(loaded: onnxruntime.InferenceSession, settings: OnnxEmbedderSettings) -> bool:
    """Whether the input is N x 3 x H x W; raises `ModelUnavailable` where it is no input for faces."""
    name, (width, height) = f"the face network {settings.path}", settings.size
    inputs, outputs = loaded.get_inputs(), loaded.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelUnavailable(
            f"{name} has {len(inputs)} inputs and {len(outputs)} outputs: it needs one of each"
        )
    kind, shape = inputs[0].type, inputs[0].shape
    if kind != "tensor(float)":
        raise ModelUnavailable(f"{name} takes {kind}: its input must be tensor(float)")
    if len(shape) == 4 and 3 in (shape[1], shape[3]):
        first = bool(shape[1] == 3)
        wanted = (1, 3, height, width) if first else (1, height, width, 3)
        # A side the model leaves open is no number here.
        if all(have == want for have, want in zip(shape, wanted, strict=True) if isinstance(have, int)):
            return first
    raise ModelUnavailable(
        f"{name} takes {shape}: it needs N x 3 x {height} x {width} or N x {height} x {width} x 3"
    )


def _checked(
    loaded: onnxruntime.InferenceSession,
    model: bytes,
    settings: OnnxEmbedderSettings,
    pictures: NDArray[np.float32],
) -> _Network:
    """Try the network on two pictures with each engine asked for; raises `ModelUnavailable`."""
    name = f"the face network {settings.path}"
    first, second = pictures[:1], pictures[1:]
    by_runtime = _by_runtime(loaded)
    # 1. What comes out: one vector, the same every time, another for another picture.
    try:
        expected, again, other = by_runtime(first), by_runtime(first), by_runtime(second)
    except Exception as error:
        raise ModelUnavailable(f"{name} does not run on an image of {settings.size}: {error}") from error
    if expected.ndim != 1 or not 2 <= len(expected) <= MAX_VALUES:
        raise ModelUnavailable(
            f"{name} gives {expected.shape} for an image: it needs 2 to {MAX_VALUES} values"
        )
    if not (np.isfinite(expected).all() and np.isfinite(other).all()):
        raise ModelUnavailable(f"{name} gives values that are no numbers")
    if not np.array_equal(expected, again):
        raise ModelUnavailable(f"{name} gives two vectors for one image")
    if not (expected.any() and other.any()) or _apart(expected, other) < _SAME:
        raise ModelUnavailable(f"{name} gives the same vector for every image")

    # 2. The same from OpenCV, and which is faster.
    if settings.engine is Engine.ONNX_RUNTIME:
        return _Network(by_runtime, Engine.ONNX_RUNTIME)
    try:
        by_opencv = _by_opencv(model)
        same = _apart(expected, by_opencv(first)) < _SAME and _apart(other, by_opencv(second)) < _SAME
        problem = "gives other vectors than ONNX Runtime"
    except cv2.error as error:
        same, problem = False, f"does not run it: {error}"
    if settings.engine is Engine.OPENCV:
        if not same:
            raise ModelUnavailable(f"OpenCV cannot be used for {name}: it {problem}")
        return _Network(by_opencv, Engine.OPENCV)
    if not same:
        return _Network(by_runtime, Engine.ONNX_RUNTIME)
    cost = {
        Engine.ONNX_RUNTIME: _milliseconds(by_runtime, first),
        Engine.OPENCV: _milliseconds(by_opencv, first),
    }
    if cost[Engine.OPENCV] < cost[Engine.ONNX_RUNTIME]:
        return _Network(by_opencv, Engine.OPENCV, cost)
    return _Network(by_runtime, Engine.ONNX_RUNTIME, cost)


def _by_runtime(loaded: onnxruntime.InferenceSession) -> _Run:
    name = loaded.get_inputs()[0].name

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return _one_vector(loaded.run(None, {name: image})[0])

    return run


def _by_opencv(model: bytes) -> _Run:
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model, dtype=np.uint8))
    # A network of OpenCV holds the image it works on.
    one_at_a_time = Lock()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with one_at_a_time:
            network.setInput(image)
            return _one_vector(np.array(network.forward()))

    return run


def _one_vector(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop the axes of length one, as in 1 x D x 1 x 1."""
    return np.asarray(np.squeeze(output), dtype=np.float32)


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Distance of two vectors brought to length 1; infinite where they are of two lengths or none."""
    if a.shape != b.shape or not (a.any() and b.any()):
        return float("inf")
    return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))


def _milliseconds(run: _Run, image: NDArray[np.float32]) -> float:
    """Processor time of one image, the shortest of a few, all threads of the process together."""
    best = float("inf")
    for _ in range(_TIMED):
        start = time.process_time()
        run(image)
        best = min(best, time.process_time() - start)
    return 1000 * best


def _pictures(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Two smooth random pictures, always the same, `(2, h, w, 3) uint8`."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8) for one in coarse])
