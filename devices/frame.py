"""What devices give: frames, which are pixels, and records, which are encoded already."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from devices.position import EyePosition, FingerPosition


class DeviceKind(StrEnum):
    """What a device captures, or that it reads cards."""

    FINGERPRINT = "fingerprint"
    IRIS = "iris"
    FACE = "face"
    SIGNATURE = "signature"
    CARD_READER = "card_reader"


Positions = tuple[FingerPosition, ...] | tuple[EyePosition, ...]
"""Fingers or eyes; empty for faces and signatures. Several fingers are a slap."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which device something came from; empty where it does not say. `signed_by`: of a verified signature."""

    driver: str
    device: str
    maker: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    signed_by: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image as a device gave it.

    `pixels` `(H, W) uint8` or `(H, W, 3) uint8` in red, green, blue; read-only, upright. `ppi` is None where
    the device has none (cameras). `positions` is what was asked for. `number` counts the frames of a stream.
    """

    pixels: NDArray[np.uint8]
    kind: DeviceKind
    positions: Positions
    ppi: float | None
    taken_at: datetime
    provenance: Provenance
    number: int = 0

    def __post_init__(self) -> None:
        colours = self.pixels.ndim == 3 and self.pixels.shape[2] == 3
        if self.pixels.dtype != np.uint8 or not (self.pixels.ndim == 2 or colours) or not self.pixels.size:
            raise TypeError(
                f"a frame is (H, W) or (H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}"
            )
        if self.ppi is not None and not 0 < self.ppi < 10_000:
            raise ValueError(f"a frame's resolution is in pixels per inch, not {self.ppi}")
        if self.taken_at.tzinfo is None:
            raise ValueError("the time of a frame has a time zone")
        self.pixels.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An encoded image or record as a device gave it, verified where devices sign: `data` in `format`.

    `format`: the interchange standard, as the device names it (`ISO19794_4_2011`). `quality` 0 to 100 is the
    device's own claim, None where it makes none.
    """

    data: bytes
    format: str
    kind: DeviceKind
    positions: Positions
    quality: float | None
    taken_at: datetime
    provenance: Provenance
