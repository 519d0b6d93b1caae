"""1:1 comparison of two faces: the angle between their vectors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capture.face.template import FaceTemplate
from matching.errors import NotCalibrated

COMPARISON_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class FaceForm:
    """What comparison needs of a face: `vector` `(D,) float32` of length 1, read-only, and what made it."""

    vector: NDArray[np.float32]
    embedder: bytes
    quality: int


def face_form(template: FaceTemplate) -> FaceForm:
    """Prepare a template for comparison. Cost: under 1 us."""
    return FaceForm(template.vector, template.embedder, template.quality)


def compare_faces(a: FaceForm, b: FaceForm) -> float:
    """How alike two faces are, 0 to 1: (1 + cosine) / 2; symmetric.

    Raises `NotCalibrated` for vectors of two embedders, whose angle means nothing. Cost: about 2 us.
    """
    if a.embedder != b.embedder:
        raise NotCalibrated(
            f"faces of the embedders {a.embedder.hex()} and {b.embedder.hex()} cannot be compared: "
            "extract both portraits again with one embedder"
        )
    cosine = float(np.dot(a.vector, b.vector))
    return (1 + min(max(cosine, -1.0), 1.0)) / 2
