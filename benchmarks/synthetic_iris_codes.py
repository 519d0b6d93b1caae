"""Iris codes of people who do not exist, without drawing their eyes: for galleries of millions.

A texture is noise with the power spectrum that unrolled irises have along the angle, whose neighbouring rows
are alike as theirs are; it is made as a spectrum, filtered as `capture.iris.phase_code` filters, and its
phase taken, so that neighbouring bits depend on each other as in real codes. Lids, lashes and specks mask
what they mask in the development eyes (CASIA-V1). Another capture is rolled, noisier in some places than in
others, and its lids stand differently. `benchmarks.check_scale_population` compares with real eyes.
"""

from dataclasses import dataclass
from functools import cache
from math import log

import numpy as np
from numpy.typing import NDArray

from capture.iris.phase_code import PARAMS as CODER
from capture.iris.template import COLUMNS, ROWS, IrisTemplate, packed
from capture.sample import EyePosition

_ANGLES = 2 * COLUMNS  # whole and half columns
_FREQUENCIES = np.arange(1, 128)  # cycles a turn; beyond, irises have next to nothing
# Power of the texture in each row, from the pupil outwards: of folds and furrows, and of fine fibres.
_COARSE = np.array([1.3, 2.0, 2.7, 3.3, 3.3, 3.3, 3.0, 2.8])
_FINE = np.array([1.3, 1.2, 1.0, 0.9, 0.85, 0.8, 0.7, 0.65])
_Reals = NDArray[np.float32]
_Spectra = NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class Params:
    """How eyes look and how captures differ. Widths and shifts in columns of the code, 128 a turn."""

    coarse_width: float = 0.48  # of the coarse texture's bell over the logarithm of the frequency
    fine_end: float = 40.0  # cycles a turn
    alike: float = 1.65  # rows over which the texture stays alike
    tilt: float = 0.15  # how eyes differ in coarseness: exponent of the frequency
    # lids: middle, width at the limbus and by how much less at the pupil; of the eye, and of the capture
    upper: float = 100.0
    upper_width: float = 35.5
    upper_less: float = 20.0
    lower: float = 33.0
    lower_width: float = 20.0
    lower_less: float = 36.0
    width_of_eye: float = 12.0
    width_of_capture: float = 8.0
    less_spread: float = 14.0
    ragged: float = 5.0  # from row to row
    lid_shift: float = 3.0
    specks: float = 4.0  # how many, on average
    speck_width: float = 4.0
    # a capture
    roll: float = 0.6
    noise: float = 0.30  # of the texture's strength, the median
    noise_of_eye: float = 0.15  # spread of its logarithm
    noise_of_capture: float = 0.25
    uneven: float = 0.4  # spread of its logarithm around the eye
    fine: float = 0.7  # noise grows with this power of the frequency


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class Eyes:
    """What the captures of a person's right and left eye have in common.

    `texture` `(2, 8, 127) complex64`, spectrum along the angle; `lids` `(2, 2, 2) float32`: of each eye, the
    upper and the lower, their width at the limbus and by how much less at the pupil; `noise` `(2,)`: how much
    worse than others, logarithm; `seed`: what captures are drawn from.
    """

    texture: _Spectra
    lids: _Reals
    noise: _Reals
    seed: tuple[int, int]


def eyes(index: int, seed: int, params: Params = PARAMS) -> Eyes:
    """The eyes of person `index` of the population `seed`. Cost: 0.1 ms."""
    rng = np.random.default_rng((seed, index, 1))
    amplitude, mixing = _spectrum(params)
    texture = mixing @ _noise(rng) * amplitude
    slope = params.tilt * rng.standard_normal((2, 1, 1), np.float32)
    texture *= np.exp(slope * _LOG_FREQUENCY)
    drawn = rng.standard_normal((2, 2, 2), np.float32)
    usual = np.array([[params.upper_width, params.upper_less], [params.lower_width, params.lower_less]])
    spread = np.array([params.width_of_eye, params.less_spread])
    lids = (usual + spread * drawn).astype(np.float32)
    return Eyes(texture, lids, params.noise_of_eye * rng.standard_normal(2, np.float32), (seed, index))


def capture(of: Eyes, number: int, params: Params = PARAMS) -> tuple[IrisTemplate, IrisTemplate]:
    """Templates of both eyes; `number` makes it this capture. Cost: 0.5 ms."""
    rng = np.random.default_rng((*of.seed, 2, number))
    # 1. rolled, with noise that differs around the eye
    roll = params.roll * rng.standard_normal((2, 1, 1), np.float32)
    turned = of.texture * np.exp(-2j * np.pi / COLUMNS * roll * _FREQUENCIES).astype(np.complex64)
    amplitude, mixing = _spectrum(params)
    noise = mixing @ _noise(rng) * (amplitude * _fineness(params))
    worse = of.noise + params.noise_of_capture * rng.standard_normal(2, np.float32)
    level = log(params.noise) + worse[:, None] + params.uneven * _wave(rng)
    # 2. filtered
    bank = _filters()
    answer = _answers(turned, bank) + np.exp(level)[:, None, None, :] * _answers(noise, bank)
    parts = np.stack([answer.real, answer.imag], axis=3)  # (2, 2, 8, 2, 256)
    # 3. masked
    valid = _valid(of.lids, roll[:, 0, 0], rng, params)
    templates = []
    for eye, position in enumerate((EyePosition.RIGHT, EyePosition.LEFT)):
        clear = valid[eye, :, None, :].repeat(2, axis=1)
        strength = np.abs(parts[eye])
        masks = np.empty((len(bank), 2, ROWS, 2, COLUMNS), dtype=np.bool_)
        bits = np.empty_like(masks)
        for group in range(len(bank)):
            of_group = strength[group][clear]
            rank = int(CODER.fragile * len(of_group))
            # one eye in a million is covered altogether
            fragile = np.partition(of_group, rank)[rank] if len(of_group) else np.inf
            telling = clear & (strength[group] > fragile)
            positive = (parts[eye, group] > 0) & telling
            for half in range(2):
                masks[group, half], bits[group, half] = telling[..., half::2], positive[..., half::2]
        words = [packed(part.reshape(-1, ROWS, 2, COLUMNS)) for part in (bits, masks)]
        templates.append(IrisTemplate(words[0], words[1], position, int(rng.integers(80, 101))))
    return templates[0], templates[1]


def _noise(rng: np.random.Generator) -> _Spectra:
    """`(2, 8, 127)`: white."""
    return rng.standard_normal((2, ROWS, 2 * len(_FREQUENCIES)), np.float32).view(np.complex64)


def _wave(rng: np.random.Generator) -> _Reals:
    """`(2, 256)`: one slow wave around each eye, of standard deviation 1 over eyes."""
    a, b = rng.standard_normal((2, 2, 1), np.float32)
    return np.asarray(a * _COSINE + b * _SINE)


def _answers(spectra: _Spectra, bank: _Reals) -> _Spectra:
    """`(eyes, filters, 8, 256)`."""
    full = np.zeros((len(spectra), len(bank), ROWS, _ANGLES), dtype=np.complex64)
    full[..., _FREQUENCIES[0] : _FREQUENCIES[-1] + 1] = spectra[:, None] * bank[:, None, :]
    return np.asarray(np.fft.ifft(full, axis=-1))


def _valid(lids: _Reals, roll: _Reals, rng: np.random.Generator, params: Params) -> NDArray[np.bool_]:
    """`(2, 8, 256)`: what neither lids nor specks cover, at whole and half columns."""
    drawn = rng.standard_normal((2, 2, 2 + ROWS), np.float32)
    width = lids[..., :1] + params.width_of_capture * drawn[..., :1] - lids[..., 1:] * _INWARDS
    width = width + params.ragged * drawn[..., 2:]
    middle = (
        np.array([params.upper, params.lower], np.float32) + params.lid_shift * drawn[..., 1] + roll[:, None]
    )
    covered = np.zeros((2, ROWS, _ANGLES), dtype=np.bool_)
    for lid in range(2):
        away = np.abs((_PLACES - middle[:, lid, None] + COLUMNS / 2) % COLUMNS - COLUMNS / 2)
        covered |= away[:, None, :] < width[:, lid, :, None] / 2
    for eye in range(2):
        for _ in range(rng.poisson(params.specks)):
            row, at = int(rng.integers(ROWS)), int(rng.integers(_ANGLES))
            wide = 1 + int(rng.exponential(2 * params.speck_width))
            covered[eye, row : row + 2, at : at + wide] = True
    return ~covered


_LOG_FREQUENCY = np.log(_FREQUENCIES / 16).astype(np.float32)
_PLACES = np.arange(_ANGLES, dtype=np.float32) / 2
_COSINE, _SINE = (f(2 * np.pi * np.arange(_ANGLES) / _ANGLES).astype(np.float32) for f in (np.cos, np.sin))
_INWARDS = np.linspace(1, 0, ROWS, dtype=np.float32)


@cache
def _spectrum(params: Params) -> tuple[_Reals, _Reals]:
    """Amplitude `(8, 127)` of the texture, and the matrix `(8, 8)` that makes neighbouring rows alike."""
    k = _FREQUENCIES
    coarse = np.exp(-0.5 * (np.log(k / 9.5) / params.coarse_width) ** 2)
    fine = np.exp(-((k / params.fine_end) ** 2)) + 0.15 * np.exp(-k / 40)
    power = _COARSE[:, None] * coarse + _FINE[:, None] * fine
    rows = np.arange(ROWS)
    alike = np.exp(-((np.abs(rows[:, None] - rows) / params.alike) ** 1.5))
    return np.sqrt(power).astype(np.float32), np.linalg.cholesky(alike).astype(np.float32)


@cache
def _fineness(params: Params) -> _Reals:
    return np.asarray((_FREQUENCIES / 16) ** params.fine, np.float32)


@cache
def _filters() -> _Reals:
    """`(2, 127)`: the coder's log-Gabor filters."""
    waves = 4 * COLUMNS / np.array(CODER.wavelengths)[:, None]
    bell = np.exp(-(np.log(_FREQUENCIES / waves) ** 2) / (2 * np.log(CODER.spread) ** 2))
    return np.asarray(bell, np.float32)
