"""Cells that two cylinders share, counted for eight cylinders at a time.

The vector code is spelt out, because the compiler's own vectorisation of such loops comes and goes with small
changes. It is right on every processor: without vector population counts, LLVM composes them.
The compiled cache of `comparison.py` does not notice a change here: change its version as well.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# (llvmlite has no types to name)

from collections.abc import Callable
from typing import cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from matching.fingerprint.cylinders import BASE_WORDS, WORDS

LANES = 8
BLOCK_WORDS = WORDS + BASE_WORDS  # bits, then mask


def _count_block_type(typing_context, bits, mask, row, blocks, block, counts):
    """Count cells of cylinder `row` against the eight cylinders of `block`, into `counts` at its place.

    Each count is four 16-bit numbers, lowest first: ones of the first within the second's mask, ones of the
    second within the first's mask, ones of both, cells in both masks.
    """

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        vector = ir.VectorType(word, LANES)
        lanes = ir.VectorType(ir.IntType(32), LANES)
        ones = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{LANES}i64"
        )
        data = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

        def place(base, stride, index, offset):
            start = builder.mul(data[index], ir.Constant(word, stride))
            return builder.gep(data[base], [builder.add(start, ir.Constant(word, offset))])

        def repeated(base, stride, offset):
            value = builder.load(place(base, stride, 2, offset))
            first = builder.insert_element(
                ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
            )
            return builder.shuffle_vector(
                first, ir.Constant(vector, ir.Undefined), ir.Constant(lanes, [0] * LANES)
            )

        def eight(offset):
            start = place(3, BLOCK_WORDS * LANES, 4, offset * LANES)
            return builder.load(builder.bitcast(start, vector.as_pointer()), align=8)

        totals = [ir.Constant(vector, [0] * LANES)] * 4

        def count(which, first, second):
            totals[which] = builder.add(totals[which], builder.call(ones, [builder.and_(first, second)]))

        for base in range(BASE_WORDS):
            own_mask, other_mask = repeated(1, BASE_WORDS, base), eight(WORDS + base)
            count(3, own_mask, other_mask)
            for layer in range(base, WORDS, BASE_WORDS):
                own, other = repeated(0, WORDS, layer), eight(layer)
                count(0, own, other_mask)
                count(1, other, own_mask)
                count(2, own, other)
        packed = totals[0]
        for which in range(1, 4):
            shifted = builder.shl(totals[which], ir.Constant(vector, [16 * which] * LANES))
            packed = builder.or_(packed, shifted)
        target = builder.bitcast(place(5, LANES, 4, 0), vector.as_pointer())
        builder.store(packed, target, align=8)
        return context.get_dummy_value()

    return types.void(bits, mask, types.intp, blocks, types.intp, counts), generate


_Words = NDArray[np.uint64]
_CountBlock = Callable[[_Words, _Words, int, _Words, int, _Words], None]
count_block = cast("_CountBlock", intrinsic(_count_block_type))
