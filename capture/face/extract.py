"""Portrait to face template: the pipeline, top to bottom."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capture.face.detection import DetectedFace, FaceFinder
from capture.face.embedder import DlibEmbedder, FaceEmbedder
from capture.face.quality import face_measures, no_face, portrait_quality
from capture.face.template import FaceTemplate
from capture.quality import Feedback, Quality
from capture.sample import FaceSample
from capture.trace import Trace, no_trace


@dataclass(frozen=True, slots=True)
class FaceExtraction:
    """What came of one portrait.

    `template` is None where there is no face. Where `quality.usable` is false and there is one, it is of the
    picked face; it may serve if the person cannot give a better portrait.
    """

    template: FaceTemplate | None
    quality: Quality


class FaceExtractor:
    """Extracts face templates, with dlib's network or another embedder. Thread-safe.

    Creating the first one takes 2 s; raises `ModelUnavailable`.
    """

    __slots__ = ("_embedder", "_finder")

    def __init__(self, embedder: FaceEmbedder | None = None) -> None:
        self._finder = FaceFinder()
        self._embedder = DlibEmbedder() if embedder is None else embedder

    @property
    def embedder(self) -> bytes:
        """Eight bytes that name what makes the vectors, as templates carry them."""
        return self._embedder.digest

    def extract(self, sample: FaceSample, trace: Trace = no_trace) -> FaceExtraction:
        """Template and quality of one portrait. A poor one is an outcome, not an error.

        Trace keys: `detections` `(n, 5) float32`: left, top, right, bottom in pixels, score, the picked face
        first; `landmarks` `(5, 2) float32`, see `FaceFinder.landmarks`; `aligned` `(h, w, 3) uint8`: what the
        network sees; `vector` `(D,) float32`. Cost: `python -m benchmarks.face`, one thread.
        """
        image = sample.image
        faces = picked_first(self._finder.faces(image), image.shape[1], image.shape[0])
        trace("detections", _rows(faces))
        if not faces:
            return FaceExtraction(None, no_face())
        landmarks = self._finder.landmarks(image, faces[0])
        trace("landmarks", landmarks.astype(np.float32))
        crops = self._embedder.crops(image, landmarks)
        trace("aligned", crops[0])
        vectors = self._embedder.vectors(crops)
        quality = portrait_quality(face_measures(image, faces, landmarks, vectors), self._embedder.steady)
        vector = one_direction(vectors)
        if vector is None:
            unclear = replace(quality, score=0, usable=False, feedback=(Feedback.FACE_UNCLEAR,))
            return FaceExtraction(None, unclear)
        trace("vector", vector)
        return FaceExtraction(FaceTemplate(vector, quality.score, self._embedder.digest), quality)


def picked_first(faces: tuple[DetectedFace, ...], width: int, height: int) -> tuple[DetectedFace, ...]:
    """The faces with the one a portrait of this size is of before the others.

    The largest, less its distance from the middle: of two faces of one size the central one, and a face to
    the side only where it is larger by as many pixels as it is farther out.
    """

    def prominence(face: DetectedFace) -> float:
        x, y = face.middle
        return face.side - float(np.hypot(x - width / 2, y - height / 2))

    return tuple(sorted(faces, key=lambda face: (-prominence(face), face.left, face.top)))


def one_direction(vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The mean of `(n, D)` vectors at length 1; None where they cancel out."""
    mean = vectors.astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        return None
    direction: NDArray[np.float32] = (mean / length).astype(np.float32)
    return direction


def _rows(faces: tuple[DetectedFace, ...]) -> NDArray[np.float32]:
    rows = [(face.left, face.top, face.right, face.bottom, face.score) for face in faces]
    return np.array(rows, dtype=np.float32).reshape(-1, 5)
