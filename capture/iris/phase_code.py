"""Phase of the iris texture as bits: log-Gabor filters along the rows of the rubber sheet.

J. Daugman's phase quadrant code with the log-Gabor filters of L. Masek ("Recognition of Human Iris Patterns
for Biometric Identification", University of Western Australia, 2003), and without its fragile bits: those
whose filter answers little (K. P. Hollingsworth, K. W. Bowyer, P. J. Flynn, "The Best Bits in an Iris Code",
IEEE TPAMI 31(6), 2009).
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.iris.rubber_sheet import SHEET_COLUMNS, SHEET_ROWS, RubberSheet
from capture.iris.template import COLUMNS, ROWS


@dataclass(frozen=True, slots=True)
class Params:
    """`wavelengths` in columns of the sheet, the first is that of the scan code; `spread` of the filters.

    `first_row`, `last_row` of the sheet that the rows of the code cover; `ground`: width over which the
    texture is evened out, columns; `fragile`: share of the bits that is masked; `least`: share of a bit's
    surroundings that must be iris.
    """

    wavelengths: tuple[float, ...] = (24.0, 12.0)
    spread: float = 0.4
    first_row: int = 4
    last_row: int = 50
    ground: int = 61
    fragile: float = 0.2
    least: float = 0.6


PARAMS = Params()
_Floats = NDArray[np.float32]


def phase_code(sheet: RubberSheet, params: Params = PARAMS) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bits and mask, each `(G, 8, 2, 128) bool`: groups, rows, real and imaginary part, angles. Cost: 4 ms.

    Each wavelength has a group for the even and one for the odd angles.
    """
    # 1. Texture without its ground and of equal strength everywhere.
    iris = sheet.iris.astype(np.float32)
    share = _smooth(iris, params.ground) + np.float32(1e-3)
    texture = (sheet.grey - _smooth(sheet.grey * iris, params.ground) / share) * iris
    strength = np.sqrt(np.maximum(_smooth(texture * texture, params.ground) / share, 0)) + np.float32(2)
    texture = np.clip(texture / strength, -3, 3)
    # 2. Rows of the code.
    rows = _row_weights(params)
    signal, known = rows @ texture, rows @ iris
    spectrum = np.fft.fft(signal, axis=1)
    # 3. Filters, one after the other.
    bits, masks = [], []
    for wavelength in params.wavelengths:
        answer = np.fft.ifft(spectrum * _log_gabor(wavelength, params.spread), axis=1)
        valid = (known > params.least) & (_along(known, round(wavelength / 2) | 1) > params.least)
        parts = np.stack([answer.real, answer.imag], axis=1)
        both = np.repeat(valid[:, None], 2, axis=1)
        if both.any():
            both &= np.abs(parts) > np.quantile(np.abs(parts)[both], params.fragile)
        step = SHEET_COLUMNS // COLUMNS
        for first in (0, step // 2):
            masks.append(both[..., first::step])
            bits.append((parts[..., first::step] > 0) & masks[-1])
    return np.array(bits), np.array(masks)


def _smooth(sheet: _Floats, width: int) -> _Floats:
    """Mean over 9 rows and `width` columns, around the pupil."""
    around = np.concatenate([sheet[:, -width:], sheet, sheet[:, :width]], axis=1)
    return cv2.blur(around, (width, 9), borderType=cv2.BORDER_REFLECT)[:, width:-width].astype(np.float32)


def _along(rows: NDArray[np.floating], width: int) -> _Floats:
    """Mean over `width` columns, around the pupil."""
    around = np.concatenate([rows[:, -width:], rows, rows[:, :width]], axis=1).astype(np.float32)
    return cv2.blur(around, (width, 1))[:, width:-width].astype(np.float32)


@cache
def _row_weights(params: Params) -> _Floats:
    """`(8, 64)`: how much each row of the sheet counts in each row of the code."""
    height = (params.last_row - params.first_row) / ROWS
    middle = params.first_row + height * (np.arange(ROWS)[:, None] + 0.5)
    weight = np.exp(-0.5 * ((np.arange(SHEET_ROWS) + 0.5 - middle) / (height / 2)) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(weight, np.float32)


@cache
def _log_gabor(wavelength: float, spread: float) -> _Floats:
    """The filter's spectrum: a bell over the logarithm of the positive frequencies."""
    frequency = np.fft.fftfreq(SHEET_COLUMNS)
    bell = np.zeros(SHEET_COLUMNS, np.float32)
    positive = frequency > 0
    bell[positive] = np.exp(-(np.log(frequency[positive] * wavelength) ** 2) / (2 * np.log(spread) ** 2))
    return bell
