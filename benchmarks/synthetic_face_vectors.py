"""Face vectors as hard to tell apart as real ones, for galleries of millions.

Like `benchmarks.synthetic_faces`, whose people are easier to tell: vectors lie in a narrow cone, people
differ in a few directions, captures of one person in all, some far more than others. Fitted to the scores of
dlib's network on the development portraits (LFW); `benchmarks.check_scale_population` compares.
"""

import numpy as np
from numpy.typing import NDArray

from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate

_SIZE = 128
_DIRECTIONS = 20
_MEAN = 0.847  # squared length of what all faces have in common
_BETWEEN = 0.112  # variance between people, all directions together
_WITHIN = 0.040  # and between captures of one person: the median
_UNEVEN = 0.45  # spread of its logarithm, of captures
_SPREAD = np.random.default_rng(20_261_122)
_AXES = np.linalg.qr(_SPREAD.normal(size=(_SIZE, 1 + _DIRECTIONS)))[0]
_COMMON = _AXES[:, 0] * np.sqrt(_MEAN)
_BASIS = _AXES[:, 1:] * np.sqrt(_BETWEEN / _DIRECTIONS)


def face(index: int, seed: int) -> NDArray[np.float64]:
    """What the captures of person `index` of the population `seed` scatter around, `(128,)`."""
    return np.asarray(_COMMON + _BASIS @ np.random.default_rng((seed, index, 4)).standard_normal(_DIRECTIONS))


def capture(index: int, seed: int, number: int) -> FaceTemplate:
    """One portrait's template; `number` makes it this one. Cost: 0.1 ms."""
    rng = np.random.default_rng((seed, index, 5, number))
    within = _WITHIN * np.exp(_UNEVEN * rng.standard_normal())
    vector = face(index, seed) + rng.normal(scale=np.sqrt(within / _SIZE), size=_SIZE)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return FaceTemplate(unit, int(rng.integers(45, 76)), DlibEmbedder().digest)
