"""Where a wave gains or loses a ridge: the dislocations of its phase, which are the minutiae.

Around a point where a ridge begins, one more ridge is crossed on one side than on the other, so the phase of
the wave turns once on a closed path around it, and the amplitude at the point is 0 (J. F. Nye, M. V. Berry,
"Dislocations in wave trains", Proc. R. Soc. A 336, 1974; for fingerprints K. G. Larkin, P. A. Fletcher, "A
coherent framework for fingerprint analysis", Optics Express 15, 2007). Nothing is binarised or thinned, and
breaks, spurs and pores too small to turn the phase do not appear at all.
"""

from math import atan2, cos, floor, hypot, pi, sin

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.ridge_waves import RidgeWaves

_Field = NDArray[np.float32]


def dislocations(waves: RidgeWaves) -> _Field:
    """`(n, 3) float32`, by row and column: x, y in pixels of the waves' fields, direction.

    The direction, radians counter-clockwise in [-pi, pi], points along the ridges to the side that has one
    more: along an ending ridge, or between the two that a bifurcation joins. Cost: 2 ms.
    """
    normal = waves.normal
    wave_number = np.float32(2 * pi) / waves.period
    return _dislocations(waves.wave, np.cos(normal) * wave_number, np.sin(normal) * wave_number, waves.inside)


@njit(cache=True, nogil=True)
def _dislocations(wave: _Field, kx: _Field, ky: _Field, inside: NDArray[np.bool_]) -> _Field:
    height, width = inside.shape
    found = np.zeros((256, 3), dtype=np.float32)
    n = 0
    # Corners of a cell: right along the top, left along the bottom.
    right, down = (0, 1, 1, 0), (0, 0, 1, 1)
    real, imaginary, x_number, y_number = np.zeros(4), np.zeros(4), np.zeros(4), np.zeros(4)
    for y in range(height - 1):
        for x in range(width - 1):
            # 1. The wave at the corners, all running the same way; impossible around a core or delta.
            whole = True
            for c in range(4):
                v, u = y + down[c], x + right[c]
                whole = whole and inside[v, u]
                real[c], imaginary[c] = wave[0, v, u], wave[1, v, u]
                x_number[c], y_number[c] = kx[v, u], ky[v, u]
                if c > 0 and x_number[c] * x_number[c - 1] + y_number[c] * y_number[c - 1] < 0:
                    imaginary[c], x_number[c], y_number[c] = -imaginary[c], -x_number[c], -y_number[c]
            if not whole or x_number[3] * x_number[0] + y_number[3] * y_number[0] < 0:
                continue
            # 2. Turns of the phase around the cell. A step may exceed half a turn: what the local wave
            #    number lets expect is taken off before the phase is wrapped.
            total = 0.0
            for c in range(4):
                d = (c + 1) % 4
                expected = (x_number[c] + x_number[d]) / 2 * (right[d] - right[c])
                expected += (y_number[c] + y_number[d]) / 2 * (down[d] - down[c])
                phase = atan2(
                    imaginary[d] * real[c] - real[d] * imaginary[c],
                    real[d] * real[c] + imaginary[d] * imaginary[c],
                )
                phase -= expected
                total += phase - 2 * pi * floor((phase + pi) / (2 * pi)) + expected
            turns = round(total / (2 * pi))
            if turns == 0:
                continue
            # 3. The zero of the wave within the cell, from a plane through its demodulated corners.
            mean_x, mean_y = x_number.mean(), y_number.mean()
            a, ax, ay, b, bx, by = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for c in range(4):
                du, dv = right[c] - 0.5, down[c] - 0.5
                phase = mean_x * du + mean_y * dv
                p = real[c] * cos(phase) + imaginary[c] * sin(phase)
                q = imaginary[c] * cos(phase) - real[c] * sin(phase)
                a, ax, ay = a + p / 4, ax + p * du, ay + p * dv
                b, bx, by = b + q / 4, bx + q * du, by + q * dv
            determinant = ax * by - ay * bx
            dx, dy = 0.0, 0.0
            if abs(determinant) > 1e-9 * hypot(ax, ay) * hypot(bx, by) + 1e-30:
                dx = min(0.5, max(-0.5, (ay * b - a * by) / determinant))
                dy = min(0.5, max(-0.5, (a * bx - ax * b) / determinant))
            if n == len(found):
                grown = np.zeros((2 * n, 3), dtype=np.float32)
                grown[:n] = found
                found = grown
            found[n, 0], found[n, 1] = x + 0.5 + dx, y + 0.5 + dy
            found[n, 2] = atan2(turns * mean_x, turns * mean_y)
            n += 1
    return found[:n].copy()
