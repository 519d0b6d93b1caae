"""How a pipeline shows its intermediate results: a callback with stable stage keys."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Trace(Protocol):
    """Receives each stage's array under a stable key; pictures and golden tests use it."""

    def __call__(self, stage: str, value: NDArray[np.generic]) -> None:
        """Take `value`, the result of `stage`."""


def no_trace(stage: str, value: NDArray[np.generic]) -> None:
    """Drop the value: the default trace."""
