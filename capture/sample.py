"""Decoded images and what is known about them."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from devices.position import EyePosition, FingerPosition

__all__ = ["EyePosition", "FaceSample", "FingerPosition", "IrisSample", "Modality", "Sample"]


class Modality(StrEnum):
    """Biometric characteristic a sample shows."""

    FINGERPRINT = "fingerprint"
    IRIS = "iris"
    FACE = "face"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One decoded fingerprint image.

    `image` is `(H, W) uint8`, dark ridges on light ground, read-only, at `ppi` pixels per inch;
    `format` names the encoding it came in (`png`, `wsq`, ...).
    """

    image: NDArray[np.uint8]
    ppi: float
    position: FingerPosition = FingerPosition.UNKNOWN
    modality: Modality = Modality.FINGERPRINT
    format: str = "pixels"

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.image.dtype != np.uint8:
            raise TypeError(f"a sample's image is (H, W) uint8, not {self.image.shape} {self.image.dtype}")
        if not 0 < self.ppi < 10_000:
            raise ValueError(f"a sample's resolution is in pixels per inch, not {self.ppi}")
        self.image.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class IrisSample:
    """One decoded near-infrared image of one eye: `image` `(H, W) uint8`, read-only, upright."""

    image: NDArray[np.uint8]
    eye: EyePosition = EyePosition.UNKNOWN
    format: str = "pixels"

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.image.dtype != np.uint8:
            raise TypeError(f"an iris image is (H, W) uint8, not {self.image.shape} {self.image.dtype}")
        self.image.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One decoded portrait: `image` `(H, W, 3) uint8` in red, green, blue, read-only, upright."""

    image: NDArray[np.uint8]
    format: str = "pixels"

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise TypeError(f"a portrait is (H, W, 3) uint8, not {self.image.shape} {self.image.dtype}")
        self.image.setflags(write=False)
