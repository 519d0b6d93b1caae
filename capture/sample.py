"""Decoded images and what is known about them."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray


class Modality(StrEnum):
    """Biometric characteristic a sample shows."""

    FINGERPRINT = "fingerprint"
    IRIS = "iris"
    FACE = "face"


class FingerPosition(IntEnum):
    """Finger codes of ISO/IEC 19794-2 and ANSI/NIST-ITL 1; 0 where the position is not known."""

    UNKNOWN = 0
    RIGHT_THUMB = 1
    RIGHT_INDEX = 2
    RIGHT_MIDDLE = 3
    RIGHT_RING = 4
    RIGHT_LITTLE = 5
    LEFT_THUMB = 6
    LEFT_INDEX = 7
    LEFT_MIDDLE = 8
    LEFT_RING = 9
    LEFT_LITTLE = 10

    @property
    def other_hand(self) -> "FingerPosition":
        """The same finger of the other hand; unknown stays unknown."""
        return FingerPosition((self + 4) % 10 + 1) if self else self

    @property
    def words(self) -> str:
        """The position as a person says it: `right index`."""
        return self.name.lower().replace("_", " ")


class EyePosition(IntEnum):
    """Eye codes of ISO/IEC 19794-6: the person's own right and left; 0 where it is not known which."""

    UNKNOWN = 0
    RIGHT = 1
    LEFT = 2

    @property
    def other(self) -> "EyePosition":
        """The other eye; unknown stays unknown."""
        return EyePosition(3 - self) if self else self

    @property
    def words(self) -> str:
        """The eye as a person says it: `right eye`."""
        return f"{self.name.lower()} eye"


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
