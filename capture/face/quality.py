"""How good a portrait is: measures, one score, and what to do about it.

The measures follow what ISO/IEC 29794-5 and ICAO Doc 9303 look at, as far as five landmarks carry it.
"""

import numpy as np
from numpy.typing import NDArray

from capture.face.detection import DetectedFace
from capture.quality import Feedback, Quality


def no_face(image: NDArray[np.uint8]) -> Quality:
    """Of a picture in which no face was found."""
    return Quality(0, False, (Feedback.NO_FACE,), {"faces": 0.0})


def portrait_quality(
    image: NDArray[np.uint8],
    faces: tuple[DetectedFace, ...],
    landmarks: NDArray[np.float64],
    vectors: NDArray[np.float32],
) -> Quality:
    """Of the first of `faces`, whose landmarks `(5, 2)` and vectors `(n, D)`, one a crop, are given."""
    first, others = faces[0], faces[1:]
    several = any(other.side >= 0.6 * first.side for other in others)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    stability = float((unit @ unit.mean(axis=0)).mean())
    score = round(100 * min(max((stability - 0.9) / 0.1, 0), 1))
    feedback = (Feedback.SEVERAL_FACES,) if several else ()
    return Quality(score, not several, feedback, {"faces": float(len(faces)), "stability": stability})
