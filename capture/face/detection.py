"""Faces in a portrait, and the five landmarks of one: dlib's, on an image of bounded size.

The detector is the one compiled into dlib (histograms of oriented gradients, N. Dalal, B. Triggs, CVPR 2005;
D. King, "Max-margin object detection", arXiv 1502.00046): five views of nearly frontal faces, 80 pixels and
larger. The landmarks are a cascade of regression trees (V. Kazemi, J. Sullivan, CVPR 2014).
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
    """`longest`, `shortest`: sides in pixels a searched image is brought between, so that cost is bounded.

    `attempts`: enlargement and least score, tried in turn until one finds a face.
    """

    longest: int = 640
    attempts: tuple[tuple[int, float], ...] = ((1, 0.0), (2, 0.0), (1, -0.5), (2, -0.5))


_PARAMS = Params()
# dlib's detector writes into buffers of its own, without the interpreter's lock.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """A face's square in pixels of the image, and how sure the detector is (0 is its own threshold)."""

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
    """Finds faces and their landmarks. Thread-safe; one search runs at a time.

    Creating the first one takes 1 s; raises `ModelUnavailable`.
    """

    __slots__ = ("_detector", "_params", "_predictor")

    def __init__(self, params: Params = _PARAMS) -> None:
        self._detector, self._predictor = _models()
        self._params = params

    def faces(self, image: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """All faces of `image` `(H, W, 3) uint8`, surest first. Cost: 6 ms for 250 x 250 pixels.

        Where none is found at once, it is enlarged and then searched for doubtful ones, up to 60 ms.
        """
        height, width = image.shape[:2]
        scale = min(1.0, self._params.longest / max(height, width))
        small = image
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        for enlarged, least in self._params.attempts:
            searched = small
            if enlarged > 1:
                size = small.shape[1] * enlarged, small.shape[0] * enlarged
                searched = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR).astype(
                    np.uint8, copy=False
                )
            with _ONE_AT_A_TIME:
                squares, scores, _ = self._detector.run(np.ascontiguousarray(searched), 0, least)
            if squares:
                back = 1 / (scale * enlarged)
                found = [
                    DetectedFace(
                        one.left() * back,
                        one.top() * back,
                        (one.right() + 1) * back,
                        (one.bottom() + 1) * back,
                        float(score),
                    )
                    for one, score in zip(squares, scores, strict=True)
                ]
                return tuple(sorted(found, key=lambda face: (-face.score, face.left, face.top)))
        return ()

    def landmarks(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float64]:
        """`(5, 2) float64`, x and y in pixels: corners of the eyes and the base of the nose.

        In dlib's order: outer and inner corner of the eye at the right of the image (the person's left), then
        of the other eye, then where the nose meets the lip. Whole pixels: that is all dlib gives, so a large
        face is more exact. Cost: 1 ms.
        """
        square = dlib.rectangle(
            round(face.left), round(face.top), round(face.right) - 1, round(face.bottom) - 1
        )
        found = self._predictor(np.ascontiguousarray(image), square)
        return np.array([(point.x, point.y) for point in found.parts()], dtype=np.float64)


@cache
def _models() -> tuple[dlib.fhog_object_detector, dlib.shape_predictor]:
    path = Weights.LANDMARKS_5.path()
    try:
        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise ModelUnavailable(f"dlib does not load {path.name}: {error}") from error
