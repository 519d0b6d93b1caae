"""Face vectors of people who do not exist, drawn from the spread of real ones.

No portrait is drawn: a drawing would not exercise the pipeline honestly. The vectors of dlib's network lie
in a narrow cone; people differ in some thirty directions, captures of one person in all of them.
The figures were measured on the development portraits (LFW).
"""

import numpy as np
from numpy.typing import NDArray

from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate

_SIZE = 128
_DIRECTIONS = 29
_MEAN_LENGTH = 0.92
_BETWEEN = 0.125  # variance between people, all directions together
_WITHIN = 0.042  # and between captures of one person
_SPREAD = np.random.default_rng(20_260_101)
_MEAN = _SPREAD.normal(size=_SIZE)
_MEAN *= _MEAN_LENGTH / np.linalg.norm(_MEAN)
_BASIS = np.linalg.qr(_SPREAD.normal(size=(_SIZE, _DIRECTIONS)))[0]


def face(person: int) -> NDArray[np.float64]:
    """What the captures of made-up `person` scatter around, `(128,)`."""
    rng = np.random.default_rng([1, person])
    return _MEAN + _BASIS @ rng.normal(scale=np.sqrt(_BETWEEN / _DIRECTIONS), size=_DIRECTIONS)


def capture(of: NDArray[np.float64], seed: int) -> FaceTemplate:
    """One portrait's template; `seed` makes it this one."""
    rng = np.random.default_rng([2, seed])
    vector = of + rng.normal(scale=np.sqrt(_WITHIN / _SIZE), size=_SIZE)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return FaceTemplate(unit, int(rng.integers(45, 76)), DlibEmbedder().digest)
