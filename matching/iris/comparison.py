"""1:1 comparison of two irises: Hamming distance within both masks, over rotations, normalised for its bits.

J. Daugman, "How Iris Recognition Works", IEEE TCSVT 14(1), 2004; the normalisation is that of J. Daugman,
"New Methods in Iris Recognition", IEEE TSMC-B 37(5), 2007: a distance from few bits counts for less.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# (numba's builders have no types to name)

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from capture.iris.template import COLUMNS, GROUP_WORDS, ROWS, IrisCoder, IrisTemplate
from capture.sample import EyePosition

COMPARISON_VERSION = 1

# Columns that an eye may be rolled against another: 8 either way, 22.5 degrees.
MAX_STEPS = 8
ROTATIONS = 2 * MAX_STEPS + 1

_Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Params:
    """`usual`: share of a code's bits that two good eyes have in common; distances are normalised to it."""

    usual: float = 0.25


PARAMS = Params()
_USUAL = PARAMS.usual


@dataclass(frozen=True, slots=True, eq=False)
class IrisForm:
    """One eye, ready to be compared: code and mask `(W,) uint64` as in `IrisTemplate`, read-only."""

    eye: EyePosition
    code: _Words
    mask: _Words
    coder: IrisCoder
    quality: int


@dataclass(frozen=True, slots=True)
class IrisComparison:
    """How alike two eyes are and what that rests on.

    `score` 0 to 1, one minus `distance`; `distance` the normalised Hamming distance at the best rotation;
    `bits` compared there; `steps`: columns that the first eye was rolled by, in halves where codes are fine.
    """

    score: float
    distance: float
    bits: int
    steps: float


def iris_form(template: IrisTemplate) -> IrisForm:
    """What comparison needs of a template. Cost: 1 us."""
    return IrisForm(template.eye, template.code, template.mask, template.coder, template.quality)


def compare_irises(a: IrisForm, b: IrisForm) -> IrisComparison:
    """Compare two eyes over all rotations; symmetric, `steps` changing its sign.

    Score 0.5 and no bits where nothing is common to both masks. Codes of different length are compared by
    what both have. Cost: under 20 us, one thread, without the GIL; thread-safe.
    """
    words = min(len(a.code), len(b.code))
    distance, bits, steps = _compare(a.code[:words], a.mask[:words], b.code[:words], b.mask[:words])
    return IrisComparison(1 - distance, distance, bits, steps / 2)


def _popcount_type(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


# Number of ones of a word, for compiled code.
popcount = cast("Callable[[np.uint64], np.uint64]", intrinsic(_popcount_type))


@njit(cache=True, nogil=True, error_model="numpy")
def _compare(acode: _Words, amask: _Words, bcode: _Words, bmask: _Words) -> tuple[float, int, int]:
    """Normalised distance, bits and half columns of the best rotation; of equal ones that of most bits."""
    words = len(acode)
    fine = words % (2 * GROUP_WORDS) == 0
    code, mask = np.empty(words, dtype=np.uint64), np.empty(words, dtype=np.uint64)
    usual = _USUAL * words * 64
    best, best_bits, best_steps = 0.5, 0, 0
    for trial in range(4 * MAX_STEPS + 1):
        # 0, -1, 1, -2, 2, ...
        steps = (trial + 1) // 2 * (1 if trial % 2 == 0 else -1)
        if steps % 2 and not fine:
            continue
        _roll(acode, steps, fine, code)
        _roll(amask, steps, fine, mask)
        differ, common = np.uint64(0), np.uint64(0)
        for word in range(words):
            both = mask[word] & bmask[word]
            differ += popcount((code[word] ^ bcode[word]) & both)
            common += popcount(both)
        bits = int(np.int64(common))
        if bits == 0:
            continue
        distance = 0.5 - (0.5 - differ / bits) * sqrt(min(1.0, bits / usual))
        if distance < best or (distance == best and bits > best_bits):
            best, best_bits, best_steps = distance, bits, steps
    return best, best_bits, best_steps


@njit(cache=True, nogil=True, error_model="numpy")
def _roll(words: _Words, half_steps: int, fine: bool, out: _Words) -> None:
    """`words` of an eye rolled by so many half columns, into `out`.

    Of fine codes the second of two groups holds the angles half a column on from the first's.
    """
    odd = half_steps & 1
    for group in range(len(words) // GROUP_WORDS):
        source, steps = group, half_steps >> 1
        if odd and fine:
            source = group ^ 1
            steps += 1 if group & 1 == 0 else 0
        whole, rest = (steps % COLUMNS) // 64, np.uint64(steps % 64)
        back = np.uint64(64) - rest
        for row in range(2 * ROWS):
            at, to = source * GROUP_WORDS + 2 * row, group * GROUP_WORDS + 2 * row
            low, high = words[at + whole], words[at + 1 - whole]
            if rest:
                low, high = (low << rest) | (high >> back), (high << rest) | (low >> back)
            out[to], out[to + 1] = low, high
