"""Faces in a portrait, and the five landmarks of one: dlib's, on an image of bounded size.

The detector is the one compiled into dlib (histograms of oriented gradients, N. Dalal, B. Triggs, CVPR 2005;
D. King, "Max-margin object detection", arXiv 1502.00046): five views of nearly frontal faces, 80 pixels and
larger. Where it finds nothing, dlib's convolutional detector looks, which also finds faces that are tilted,
turned or small, at seventy times the cost. The landmarks are a cascade of regression trees (V. Kazemi,
J. Sullivan, CVPR 2014).
"""

from dataclasses import dataclass
from functools import cache
from threading import Lock

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from capture.errors import ModelUnavailable
from capture.face.weights import Weights


@dataclass(frozen=True, slots=True)
class Params:
    """Longest side, in pixels, of the image searched: at most `longest`, then exactly `second`.

    `narrowest`: shortest side of what the second detector takes; a face does not fit into less.
    """

    longest: int = 640
    second: int = 300
    max_enlarged: float = 4.0
    narrowest: int = 40


_PARAMS = Params()
# dlib's detectors write into buffers of their own, without the interpreter's lock. The second's work must not
# hold up the first's.
_FIRST, _SECOND = Lock(), Lock()


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """A face's square in pixels of the image, and how sure the first detector is, 0 if the second found it.

    Of the portraits of LFW, 1 in 100 has less than 0.4 and half have more than 1.8.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def side(self) -> float:
        """Of the square, which goes from the brows to the chin."""
        return (self.right - self.left + self.bottom - self.top) / 2

    @property
    def middle(self) -> tuple[float, float]:
        """Of the square, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class FaceFinder:
    """Finds faces and their landmarks. Thread-safe; each detector runs one search at a time.

    Creating the first one takes 1 s; raises `ModelUnavailable`.
    """

    __slots__ = ("_models", "_params")

    def __init__(self, params: Params = _PARAMS) -> None:
        self._models = _models()
        self._params = params

    def faces(self, image: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """All faces of `image` `(H, W, 3) uint8`, surest first.

        Cost: 6 ms for 250 x 250 pixels, 40 ms for a large portrait; 400 ms more where the first detector
        finds none.
        """
        longest = max(image.shape[:2])
        small, back = _resized(image, min(1.0, self._params.longest / longest))
        with _FIRST:
            squares, scores, _ = self._models.first.run(small, 0, 0.0)
        found = [_face(square, back, float(score)) for square, score in zip(squares, scores, strict=True)]
        if not found:
            small, back = _resized(image, min(self._params.second / longest, self._params.max_enlarged))
            if min(small.shape[:2]) < self._params.narrowest:
                return ()
            with _SECOND:
                found = [_face(one.rect, back, 0.0) for one in self._models.second(small, 0)]
        return tuple(sorted(found, key=lambda face: (-face.score, face.left, face.top)))

    def landmarks(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float64]:
        """`(5, 2) float64`, x and y in pixels: corners of the eyes and the base of the nose.

        In dlib's order: outer and inner corner of the eye at the right of the image (the person's left), then
        of the other eye, then where the nose meets the lip. Whole pixels: that is all dlib gives, so a large
        face is more exact. Cost: 1 ms.
        """
        square = dlib.rectangle(
            round(face.left), round(face.top), round(face.right) - 1, round(face.bottom) - 1
        )
        found = self._models.landmarks(np.ascontiguousarray(image), square)
        return np.array([(point.x, point.y) for point in found.parts()], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Models:
    first: dlib.fhog_object_detector
    second: dlib.cnn_face_detection_model_v1
    landmarks: dlib.shape_predictor


@cache
def _models() -> _Models:
    second, landmarks = Weights.DETECTOR.path(), Weights.LANDMARKS_5.path()
    try:
        return _Models(
            dlib.get_frontal_face_detector(),
            dlib.cnn_face_detection_model_v1(str(second)),
            dlib.shape_predictor(str(landmarks)),
        )
    except RuntimeError as error:
        raise ModelUnavailable(f"dlib does not load its models: {error}") from error


def _resized(image: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The image with its sides scaled, contiguous, and what its x and y are multiplied by to go back."""
    height, width = image.shape[:2]
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if (w, h) != (width, height):
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (w, h), interpolation=interpolation).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image), (width / w, height / h)


def _face(square: dlib.rectangle, back: tuple[float, float], score: float) -> DetectedFace:
    x, y = back
    return DetectedFace(
        square.left() * x, square.top() * y, (square.right() + 1) * x, (square.bottom() + 1) * y, score
    )
