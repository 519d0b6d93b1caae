"""Cylinders packed for a gallery: only the cells of the round base, all planes in one row of words.

Of a base's 16 x 16 cells 208 lie within the radius; six layers and the mask make 1,456 bits, 184 bytes a
cylinder instead of 224. Packing and unpacking are exact inverses.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from matching.fingerprint.cylinders import BASE_WORDS, LAYERS, SIDE, Cylinders

_RADIUS2 = (SIDE / 2) ** 2
_MIDDLE = (SIDE - 1) / 2
# of each row of cells: the first within the radius, and how many
_FIRST = np.array(
    [
        next(j for j in range(SIDE) if (i - _MIDDLE) ** 2 + (j - _MIDDLE) ** 2 <= _RADIUS2)
        for i in range(SIDE)
    ],
    dtype=np.uint64,
)
_WIDTH = np.uint64(SIDE) - np.uint64(2) * _FIRST
PLANES = LAYERS + 1
TURN = 1024
PACKED_WORDS = -(-PLANES * int(_WIDTH.sum()) // 64)


def packed(cylinders: Cylinders) -> NDArray[np.uint64]:
    """`(n, 23) uint64`: bits and mask of each cylinder. Cost: 10 us."""
    return _pack(cylinders.bits, cylinders.mask, _FIRST, _WIDTH)


def places(cylinders: Cylinders) -> NDArray[np.int16]:
    """`(n, 4) int16`: x, y in pixels, direction in 1/1024 turn, index of the minutia.

    As exact as the template's native bytes.
    """
    turn = np.rint(cylinders.direction * (TURN / (2 * np.pi))) % TURN
    return np.column_stack([np.rint(cylinders.x), np.rint(cylinders.y), turn, cylinders.minutia]).astype(
        np.int16
    )


def unpacked(rows: NDArray[np.uint64], place: NDArray[np.int16]) -> Cylinders:
    """Undo `packed` and `places`. Cost: 20 us."""
    bits, mask = _unpack(rows, _FIRST, _WIDTH)
    x, y, turn = np.ascontiguousarray(place[:, :3].T, dtype=np.float32)
    return Cylinders(x, y, turn * np.float32(2 * np.pi / TURN), bits, mask, place[:, 3].astype(np.int32))


@njit(cache=True, nogil=True)
def _pack(
    bits: NDArray[np.uint64], mask: NDArray[np.uint64], first: NDArray[np.uint64], width: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    one, sixteen, word_bits = np.uint64(1), np.uint64(16), np.uint64(64)
    rows = np.zeros((len(bits), PACKED_WORDS), dtype=np.uint64)
    for n in range(len(bits)):
        at = np.uint64(0)
        for plane in range(PLANES):
            for i in range(SIDE):
                w = i * SIDE // 64
                word = mask[n, w] if plane == LAYERS else bits[n, plane * BASE_WORDS + w]
                shift = np.uint64(i % 4) * sixteen + first[i]
                cells = (word >> shift) & ((one << width[i]) - one)
                target, offset = at >> np.uint64(6), at & np.uint64(63)
                rows[n, target] |= cells << offset
                if offset + width[i] > word_bits:
                    rows[n, target + one] |= cells >> (word_bits - offset)
                at += width[i]
    return rows


@njit(cache=True, nogil=True)
def _unpack(
    rows: NDArray[np.uint64], first: NDArray[np.uint64], width: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    one, sixteen, word_bits = np.uint64(1), np.uint64(16), np.uint64(64)
    bits = np.zeros((len(rows), LAYERS * BASE_WORDS), dtype=np.uint64)
    mask = np.zeros((len(rows), BASE_WORDS), dtype=np.uint64)
    for n in range(len(rows)):
        at = np.uint64(0)
        for plane in range(PLANES):
            for i in range(SIDE):
                source, offset = at >> np.uint64(6), at & np.uint64(63)
                cells = rows[n, source] >> offset
                if offset + width[i] > word_bits:
                    cells |= rows[n, source + one] << (word_bits - offset)
                cells &= (one << width[i]) - one
                w = i * SIDE // 64
                cells <<= np.uint64(i % 4) * sixteen + first[i]
                if plane == LAYERS:
                    mask[n, w] |= cells
                else:
                    bits[n, plane * BASE_WORDS + w] |= cells
                at += width[i]
    return bits, mask
