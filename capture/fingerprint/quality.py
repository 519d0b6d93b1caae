"""How good a fingerprint image is: cheap measures, one score, and what to do about it.

The measures follow what ISO/IEC 29794-4 looks at: contact area, ridge clarity and frequency, contrast,
and the minutiae found.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.quality import Feedback, Quality


@dataclass(frozen=True, slots=True)
class Params:
    """Where the measures begin to tell; lengths in pixels at 500 ppi, areas in mm², contrast in grey levels.

    The refusals lie between 728 prints of five sensors and what is none: faces, irises, text, noise,
    stripes, checks. The score is a product of ramps (0 to 1 between two values), each to the power
    given last, stretched. The powers give the logarithm of genuine similarity best; whichever of five
    sensors is left out of the fit, they stay within 0.1. `python -m benchmarks.quality` says what it is
    worth.
    """

    # blocks
    block: int = 64
    stride: int = 32
    shortest_wave: float = 4.0
    longest_wave: float = 24.0
    peak_radius: float = 2.3
    min_period: float = 5.0
    max_period: float = 14.5
    min_clarity: float = 0.25
    min_contrast: float = 4.0
    # refusals
    blank_contrast: float = 12.0
    min_area: float = 20.0
    min_ridge_share: float = 0.12
    min_turning: float = 0.04
    min_minutiae: int = 6
    counted_score: float = 0.55
    sure_score: float = 0.8
    doubtful_ridge_share: float = 0.45
    min_sure_if_doubtful: int = 6
    # the score
    detail: tuple[float, float, float] = (2.0, 60.0, 0.1)
    sureness: tuple[float, float, float] = (0.5, 1.0, 0.4)
    ridges: tuple[float, float, float] = (0.1, 1.0, 0.05)
    curvature: tuple[float, float, float] = (-0.2, 0.8, 0.1)
    lightness: tuple[float, float, float] = (0.8, 0.2, 0.15)
    fineness: tuple[float, float, float] = (16.0, 7.0, 0.2)
    stretch: tuple[float, float] = (0.3, 0.85)
    # feedback
    small_area: float = 60.0
    max_cut: float = 0.5
    max_dark_share: float = 0.65
    min_dark_share: float = 0.2
    min_fine: float = 0.012


_PARAMS = Params()
_MM2_PER_PIXEL = (25.4 / 500) ** 2


@dataclass(frozen=True, slots=True)
class RidgeMeasures:
    """What the image shows before minutiae are looked for.

    `area` of contact and `ridge_area` in mm²; `ridge_share` of the contact's blocks that show ridges;
    `clarity` 0 to 1, the share of a block's power in one wave; `period` of the ridges, pixels at 500 ppi;
    `contrast` in grey levels; `dark_share` of the pixels nearer to black than to white; `turning` 0 to 1,
    how much the ridges change direction over the print; `fine`: share of the power in details finer than
    ridges; `cut`: how much more of one side of the image than of the opposite one the contact touches.
    """

    area: float
    ridge_area: float
    ridge_share: float
    clarity: float
    period: float
    contrast: float
    dark_share: float
    turning: float
    fine: float
    cut: float


def ridge_measures(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], params: Params = _PARAMS
) -> RidgeMeasures:
    """Measure `image` `(H, W) uint8` at 500 ppi within its foreground `mask`. Cost: 6 ms for 500 x 500."""
    area = float(mask.sum()) * _MM2_PER_PIXEL
    blocks = _blocks(image, mask, params)
    if not len(blocks):
        return RidgeMeasures(area, 0, 0, 0, 0, float(image.std()), 0, 0, 0, 0)

    # 1. The power spectrum of every block, without what changes more slowly than any ridge.
    n = params.block
    window = np.outer(np.hanning(n + 2)[1:-1], np.hanning(n + 2)[1:-1]).astype(np.float32)
    centred = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    frequency = np.hypot(fx, fy)
    twice = np.where((fx == 0) | (fx == 0.5), 1.0, 2.0)
    counted = (twice * (frequency >= 1 / params.longest_wave)).astype(np.float32)
    power = _half_spectra(centred * window) * counted

    # 2. The strongest wave, and the share of the power around it (and around its mirror image).
    searched = power * (frequency <= 1 / params.shortest_wave).astype(np.float32)
    peaks = searched.reshape(len(blocks), -1).argmax(axis=1)
    peak_y = np.broadcast_to(fy, frequency.shape).ravel()[peaks]
    peak_x = np.broadcast_to(fx, frequency.shape).ravel()[peaks]
    around = np.zeros(power.shape, dtype=bool)
    for sign in (1, -1):
        dy = (fy - sign * peak_y[:, None, None]).astype(np.float32)
        dx = (fx - sign * peak_x[:, None, None]).astype(np.float32)
        around |= dy * dy + dx * dx <= np.float32((params.peak_radius / n) ** 2)
    total = power.sum(axis=(1, 2)) + 1e-6
    clarity = (power * around).sum(axis=(1, 2)) / total
    fine = np.einsum("nij,ij->n", power, (frequency > 1 / params.min_period).astype(np.float32)) / total
    period = 1 / np.hypot(peak_x, peak_y)

    # 3. Blocks that show ridges: one clear wave as long as ridges are.
    contrast = centred.std(axis=(1, 2))
    ridges = (clarity >= params.min_clarity) & (contrast >= params.min_contrast)
    ridges &= (period >= params.min_period) & (period <= params.max_period)
    some = ridges if ridges.any() else np.ones_like(ridges)

    # 4. How the ridges run: doubled angles, so that a wave and its mirror image are one.
    run = np.exp(2j * np.arctan2(peak_y, peak_x)[ridges])
    darkest, lightest = np.percentile(blocks[some][:, ::2, ::2], (5, 95))
    return RidgeMeasures(
        area=area,
        ridge_area=float(ridges.sum()) * params.stride**2 * _MM2_PER_PIXEL,
        ridge_share=float(ridges.mean()),
        clarity=float(clarity[some].mean()),
        period=float(np.median(period[some])),
        contrast=float(np.median(contrast[some])),
        dark_share=float((blocks[some] < (darkest + lightest) / 2).mean()),
        turning=float(1 - abs(run.mean())) if ridges.any() else 0.0,
        fine=float(np.median(fine[some])),
        cut=_cut(mask),
    )


def _blocks(image: NDArray[np.uint8], mask: NDArray[np.bool_], params: Params) -> NDArray[np.float32]:
    """The overlapping blocks that lie in the mask to one half at least, `(n, block, block) float32`."""
    size = (params.block, params.block)
    height, width = (max(params.block, side) for side in image.shape)
    pad = ((0, height - image.shape[0]), (0, width - image.shape[1]))
    step = (slice(None, None, params.stride), slice(None, None, params.stride))
    images = np.lib.stride_tricks.sliding_window_view(np.pad(image, pad, mode="edge"), size)[step]
    inside = np.lib.stride_tricks.sliding_window_view(np.pad(mask, pad), size)[step].mean(axis=(2, 3))
    chosen: NDArray[np.float32] = images[inside >= 0.5].astype(np.float32)
    return chosen


def _half_spectra(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Power of each block's non-negative frequencies across, `(n, block, block / 2 + 1) float32`."""
    half = blocks.shape[2] // 2 + 1
    power = np.empty((*blocks.shape[:2], half), dtype=np.float32)
    # OpenCV's transform takes an eighth of the time of NumPy's.
    for block, into in zip(blocks, power, strict=True):
        spectrum = cv2.dft(block, flags=cv2.DFT_COMPLEX_OUTPUT)[:, :half]
        into[:] = spectrum[:, :, 0] ** 2 + spectrum[:, :, 1] ** 2
    return power


def _cut(mask: NDArray[np.bool_]) -> float:
    """How much more of the top, left or right side than of the opposite one the mask touches, 0 to 1.

    Where a finger enters, at the bottom, it is always cut.
    """
    top, bottom, left, right = (float(side.mean()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return max(top - bottom, left - right, right - left, 0.0)


def unusable(measures: RidgeMeasures, params: Params = _PARAMS, *, leniency: float = 1.0) -> Quality | None:
    """The refusal of an image that shows no fingerprint, judged before the network is run; else None.

    With a `leniency` below 1, that share of what is asked for is enough.
    """
    if measures.contrast < params.blank_contrast and measures.area < params.min_area:
        return _refusal(Feedback.BLANK, measures)
    ridge_share, turning = leniency * params.min_ridge_share, leniency * params.min_turning
    if measures.ridge_share < ridge_share or measures.turning < turning:
        return _refusal(Feedback.NOT_A_FINGERPRINT, measures)
    if measures.ridge_area < leniency * params.min_area:
        small = measures.ridge_share >= params.doubtful_ridge_share
        return _refusal(Feedback.SMALL_CONTACT if small else Feedback.NOT_A_FINGERPRINT, measures)
    return None


def fingerprint_quality(
    measures: RidgeMeasures, scores: NDArray[np.float32], params: Params = _PARAMS
) -> Quality:
    """Quality from the ridges and from the `scores` `(n,)` of the minutiae, 0 to 1, of either extractor.

    The score predicts how well the print compares with others of its finger: by how many minutiae there are
    and how sure, how much of the contact shows ridges, how far they turn (a tip or a side does not), how
    little ink or moisture darkens the valleys, and how narrow the ridges are.
    """
    # Comparison weighs faint minutiae by their score; how good the print is shows in the others.
    counted = scores[scores >= params.counted_score]
    sure = int((counted >= params.sure_score).sum())
    if measures.ridge_share < params.doubtful_ridge_share and sure < params.min_sure_if_doubtful:
        return _refusal(Feedback.NOT_A_FINGERPRINT, measures, len(scores))
    if len(scores) < params.min_minutiae or not len(counted):
        return _refusal(Feedback.TOO_FEW_MINUTIAE, measures, len(scores))
    # Each minutia counts by its chance to be found again, which is about its score squared.
    product = (
        _ramp(float((scores.astype(np.float64) ** 2).sum()), params.detail)
        * _ramp(float(counted.mean()), params.sureness)
        * _ramp(measures.ridge_share, params.ridges)
        * _ramp(measures.turning, params.curvature)
        * _ramp(measures.dark_share, params.lightness)
        * _ramp(measures.period, params.fineness)
    )
    low, high = params.stretch
    score = round(100 * min(1.0, max(0.01, (product - low) / (high - low))))
    return Quality(score, True, _feedback(measures, params), _named(measures, len(scores)))


def _ramp(value: float, ramp: tuple[float, float, float]) -> float:
    """0 to 1 from the first to the second end, to a power; never quite 0: one bad measure decides nothing."""
    start, stop, power = ramp
    return float(min(1.0, max(0.02, (value - start) / (stop - start))) ** power)


def _feedback(measures: RidgeMeasures, params: Params) -> tuple[Feedback, ...]:
    found = (
        (Feedback.SMALL_CONTACT, measures.ridge_area < params.small_area),
        (Feedback.OFF_CENTRE, measures.cut > params.max_cut),
        (Feedback.TOO_DARK, measures.dark_share > params.max_dark_share),
        (Feedback.TOO_LIGHT, measures.dark_share < params.min_dark_share),
        (Feedback.BLURRED, measures.fine < params.min_fine),
    )
    return tuple(feedback for feedback, holds in found if holds)


def _refusal(reason: Feedback, measures: RidgeMeasures, minutiae: int = 0) -> Quality:
    return Quality(0, False, (reason,), _named(measures, minutiae))


def _named(measures: RidgeMeasures, minutiae: int) -> dict[str, float]:
    return asdict(measures) | {"minutiae": float(minutiae)}
