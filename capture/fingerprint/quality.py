"""How good a fingerprint image is: cheap measures, one score, and what to do about it.

The measures follow what ISO/IEC 29794-4 looks at: contact area, ridge clarity and frequency, contrast,
and the minutiae found.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from capture.quality import Feedback, Quality


@dataclass(frozen=True, slots=True)
class Params:
    """Limits of the measures, in their units (see `RidgeMeasures`)."""

    block: int = 64
    stride: int = 32
    min_period: float = 5.0
    max_period: float = 16.0
    ridge_clarity: float = 0.3
    min_contrast: float = 4.0
    min_area: float = 8.0
    min_ridge_area: float = 8.0
    min_ridge_share: float = 0.3
    min_minutiae: int = 6


_PARAMS = Params()
_MM2_PER_PIXEL = (25.4 / 500) ** 2


@dataclass(frozen=True, slots=True)
class RidgeMeasures:
    """What the image shows before minutiae are looked for.

    `area` of contact and `ridge_area` in mm²; `ridge_share` of the contact's blocks that show ridges;
    `clarity` 0 to 1, the share of a block's power in one wave; `period` of the ridges, pixels at 500 ppi;
    `contrast`, `brightness` in grey levels; `turning` 0 to 1, how much the ridges change direction;
    `sharpness`: power of details finer than ridges, beside the ridges'; `cut`: the largest share of one side
    of the image that the contact touches.
    """

    area: float
    ridge_area: float
    ridge_share: float
    clarity: float
    period: float
    contrast: float
    brightness: float
    turning: float
    sharpness: float
    cut: float


def ridge_measures(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], params: Params = _PARAMS
) -> RidgeMeasures:
    """Measure `image` `(H, W) uint8` at 500 ppi within its foreground `mask`. Cost: 10 ms for 500 x 500."""
    area = float(mask.sum()) * _MM2_PER_PIXEL
    contact = image[mask] if mask.any() else image.ravel()
    blocks, inside = _blocks(image, mask, params)
    if not len(blocks):
        return RidgeMeasures(area, 0, 0, 0, 0, float(contact.std()), float(contact.mean()), 0, 0, 0)

    # 1. The power spectrum of every block, and the strongest wave in the range of ridges.
    n = params.block
    window = np.outer(np.hanning(n + 2)[1:-1], np.hanning(n + 2)[1:-1]).astype(np.float32)
    centred = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.rfft2(centred * window)) ** 2
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    frequency = np.hypot(fx, fy)
    weight = np.where((fx == 0) | (fx == 0.5), 1.0, 2.0) * (frequency > 1.5 / n)
    ridge_band = (frequency >= 1 / params.max_period) & (frequency <= 1 / params.min_period)
    peaks = (power * ridge_band).reshape(len(blocks), -1).argmax(axis=1)
    peak_y, peak_x = fy.repeat(fx.shape[1], 1).ravel()[peaks], fx.repeat(n, 0).ravel()[peaks]

    # 2. How much of the power lies around that wave (or its mirror image at negative frequencies).
    around = np.zeros(power.shape, dtype=bool)
    for sign in (1, -1):
        distance = np.hypot(fy[None] - sign * peak_y[:, None, None], fx[None] - sign * peak_x[:, None, None])
        around |= distance <= 2.3 / n
    total = (power * weight).sum(axis=(1, 2)) + 1e-6
    clarity = (power * weight * around).sum(axis=(1, 2)) / total
    fine = (power * weight * (frequency > 1 / params.min_period)).sum(axis=(1, 2))
    in_band = (power * weight * ridge_band).sum(axis=(1, 2)) + 1e-6

    # 3. Over the blocks that show ridges.
    contrast = centred.std(axis=(1, 2))
    ridges = (clarity >= params.ridge_clarity) & (contrast >= params.min_contrast)
    block_area = params.stride**2 * _MM2_PER_PIXEL
    angle = 2 * np.arctan2(peak_y, peak_x)
    if not ridges.any():
        return RidgeMeasures(
            area,
            0,
            0,
            float(clarity.mean()),
            0,
            float(contrast.mean()),
            float(contact.mean()),
            0,
            0,
            _cut(mask),
        )
    turning = 1 - abs(np.exp(1j * angle[ridges]).mean())
    return RidgeMeasures(
        area=area,
        ridge_area=float((ridges * inside).sum()) * block_area,
        ridge_share=float((ridges * inside).sum() / inside.sum()),
        clarity=float(clarity[ridges].mean()),
        period=float(np.median(1 / np.hypot(peak_x, peak_y)[ridges])),
        contrast=float(np.median(contrast[ridges])),
        brightness=float(contact.mean()),
        turning=float(turning),
        sharpness=float(np.median((fine / in_band)[ridges])),
        cut=_cut(mask),
    )


def _blocks(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], params: Params
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Overlapping blocks `(n, block, block) float32` at least half in the mask, and the share that is."""
    if min(image.shape) < params.block:
        return np.zeros((0, params.block, params.block), np.float32), np.zeros(0, np.float32)
    size = (params.block, params.block)
    step = (slice(None, None, params.stride), slice(None, None, params.stride))
    images = np.lib.stride_tricks.sliding_window_view(image, size)[step]
    inside = np.lib.stride_tricks.sliding_window_view(mask, size)[step].mean(axis=(2, 3))
    kept = inside >= 0.5
    return images[kept].astype(np.float32), inside[kept].astype(np.float32)


def _cut(mask: NDArray[np.bool_]) -> float:
    """The largest share of one side of the image that the mask touches."""
    return float(max(side.mean() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])))


def unusable(measures: RidgeMeasures, params: Params = _PARAMS) -> Quality | None:
    """The refusal of an image that shows no fingerprint, before the network is run; else None."""
    if measures.area < params.min_area or measures.contrast < params.min_contrast:
        return _refusal(Feedback.BLANK, measures)
    if measures.ridge_area < params.min_ridge_area or measures.ridge_share < params.min_ridge_share:
        return _refusal(Feedback.NOT_A_FINGERPRINT, measures)
    return None


def fingerprint_quality(
    measures: RidgeMeasures, scores: NDArray[np.float32], params: Params = _PARAMS
) -> Quality:
    """Quality from the ridges and from the network's `scores` `(n,)` of the minutiae."""
    if len(scores) < params.min_minutiae:
        return _refusal(Feedback.TOO_FEW_MINUTIAE, measures)
    score = round(100 * min(1.0, len(scores) / 50))
    return Quality(score=score, usable=True, measures=asdict(measures) | {"minutiae": float(len(scores))})


def _refusal(reason: Feedback, measures: RidgeMeasures) -> Quality:
    return Quality(score=0, usable=False, feedback=(reason,), measures=asdict(measures))
