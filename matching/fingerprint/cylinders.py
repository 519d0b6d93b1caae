"""Minutia Cylinder-Code: the fixed-length neighbourhood descriptor of each minutia.

R. Cappelli, M. Ferrara, D. Maltoni, "Minutia Cylinder-Code: a new representation and matching technique
for fingerprint recognition", IEEE TPAMI 32(12), 2010; the bit-based variant MCC16.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Cylinders:
    """The valid cylinders of one finger, in the order of its minutiae; arrays are read-only.

    `x`, `y` `(n,) float32` pixels at 500 ppi, y down; `direction` `(n,) float32` radians counter-clockwise;
    `bits` `(n, 24) uint64`: six angular layers of 16 x 16 cells; `mask` `(n, 4) uint64`: cells that count.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    direction: NDArray[np.float32]
    bits: NDArray[np.uint64]
    mask: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.x)
