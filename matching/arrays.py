"""Arrays that grow by appending, and files of named arrays that come back mapped from disk."""

import os
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)
Arrays = Mapping[str, NDArray[np.generic]]

_ALIGNED = 64


class Growing(Generic[_Number]):
    """An array that grows by appending. What `filled` gave stays as it was, but for rows changed in place."""

    __slots__ = ("_array", "_count")

    def __init__(self, empty: NDArray[_Number]) -> None:
        self._array = empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def filled(self) -> NDArray[_Number]:
        """The rows there are, shared: writing to them changes what was given before."""
        return self._array[: self._count]

    def extend(self, rows: NDArray[_Number]) -> None:
        """Append these rows."""
        size = self._count + len(rows)
        if size > len(self._array):
            larger = np.zeros((size + size // 2, *self._array.shape[1:]), dtype=self._array.dtype)
            larger[: self._count] = self.filled
            self._array = larger
        self._array[self._count : size] = rows
        self._count = size

    def append(self, row: NDArray[_Number] | float) -> None:
        """Append one row."""
        self.extend(np.asarray(row, dtype=self._array.dtype)[None])


class Ragged(Generic[_Number]):
    """Rows of different length: all of them behind each other, and where each ends."""

    __slots__ = ("end", "flat")

    def __init__(self, empty: NDArray[_Number]) -> None:
        self.flat = Growing(empty)
        self.end = Growing(np.zeros(0, dtype=np.int64))

    def append(self, row: NDArray[_Number]) -> None:
        """Append one row."""
        self.flat.extend(row)
        self.end.append(len(self.flat))


def starts(end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row of a ragged array starts."""
    return np.concatenate([np.zeros(1, dtype=np.int64), end])[:-1]


def picked(
    flat: NDArray[_Number], end: NDArray[np.int64], rows: NDArray[np.intp]
) -> tuple[NDArray[_Number], NDArray[np.int64]]:
    """Some rows of a ragged array, as such."""
    if len(rows) == len(end):  # rows rise: these are all
        return flat, end
    first, length = starts(end)[rows], np.diff(end, prepend=0)[rows]
    new_end = np.cumsum(length)
    places = np.repeat(first - starts(new_end), length) + np.arange(new_end[-1] if len(rows) else 0)
    return flat[places], new_end


def joined_ends(ends: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Where each row ends when ragged arrays are put behind each other."""
    before = 0
    moved = [np.zeros(0, dtype=np.int64)]
    for end in ends:
        moved.append(end + before)
        before += int(end[-1]) if len(end) else 0
    return np.concatenate(moved)


def write_arrays(path: Path, arrays: Arrays) -> dict[str, tuple[str, list[int], int, int]]:
    """Write a new file of these arrays, on disk when this returns.

    Of each by its name: dtype, shape, place in the file and CRC-32, as `map_arrays` wants them.
    """
    table = {}
    try:
        with path.open("xb") as file:
            for name, array in arrays.items():
                file.write(bytes(-file.tell() % _ALIGNED))
                content = np.ascontiguousarray(array)
                table[name] = (array.dtype.str, list(array.shape), file.tell(), checksum(content))
                content.tofile(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)  # a part of it would take room that is wanted
        raise
    return table


def map_arrays(
    path: Path, table: Mapping[str, tuple[str, list[int], int, int]]
) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file, in the page cache, read-only.

    Raises `ValueError` where the file is cut short, or holds anything but zeros between them: what is in an
    array is for its checksum.
    """
    whole = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, dtype=np.uint8)
    arrays = {}
    end = 0
    for name, (dtype, shape, place, _) in table.items():
        between, end = whole[end:place], place + int(np.prod(shape)) * np.dtype(dtype).itemsize
        if end > len(whole):
            raise ValueError(f"{path.name} is cut short")
        if between.any():
            raise ValueError(f"{path.name} is damaged before {name}")
        arrays[name] = np.asarray(whole[place:end]).view(dtype).reshape(shape)
    if whole[end:].any():
        raise ValueError(f"{path.name} is damaged at its end")
    return arrays


def checksum(array: NDArray[np.generic]) -> int:
    """CRC-32 of what the array holds. Cost: 0.5 s a GB."""
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


def npz(**arrays: NDArray[np.generic]) -> bytes:
    """A file of these arrays, as `numpy.load` reads it."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
