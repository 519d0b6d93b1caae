"""Arrays that grow by appending, are saved whole, and come back mapped from disk."""

from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)


def grown(array: NDArray[_Number], size: int) -> NDArray[_Number]:
    """The array with room for `size` rows, a quarter more than needed where it must grow."""
    if size <= len(array):
        return array
    larger = np.zeros((size + size // 4, *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def npz(**arrays: NDArray[np.generic]) -> bytes:
    """A file of these arrays, as `numpy.load` reads it."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def mapped(path: Path, dtype: type[_Number]) -> NDArray[_Number]:
    """The numbers in the file, in the page cache; what is changed is changed in memory, not in the file."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="c"))
