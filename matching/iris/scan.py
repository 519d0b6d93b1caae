"""Exact 1:N scan of iris codes: every code of a gallery against all rotations of a probe, in compiled code.

Eight codes lie side by side, word by word, so that one vector holds the same word of eight codes: it is
loaded once for nine rotations, and eight sums come out without adding across a vector. The other layout
tried, rows of whole codes, needs that addition for every rotation and is less than half as fast;
`benchmarks/iris_scan.py` measures both. The vector code is spelt out, as in
`matching/fingerprint/block_counts.py`, and like there it is right on every processor: without vector
population counts, LLVM composes them.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# (llvmlite has no types to name)

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from capture.iris.template import GROUP_WORDS, rotated
from matching.iris.comparison import MAX_STEPS, PARAMS, IrisForm

LANES = 8
Words = NDArray[np.uint64]

# Rotations counted together: their sums stay in registers, and they are abandoned together.
_GROUP = 9
# A group of rotations may be abandoned once, after so many words: where a sample of the gallery says that it
# saves most. Several checks on the way cost more than they save.
_CHECKS = range(8, GROUP_WORDS)
_SAMPLE = 32
_USUAL = PARAMS.usual * GROUP_WORDS * 64
# Words are read in an order that no hardware foresees: so much of the gallery is fetched ahead, one block.
_AHEAD = GROUP_WORDS * 2 * LANES
_ROUNDING = 1e-6


def blocked(codes: Words, masks: Words) -> Words:
    """`(B, 32, 2, 8) uint64`: codes and masks `(N, 32)` as the scan wants them, the last block filled up.

    Code n is lane n % 8 of block n // 8; empty lanes have empty masks, and so may removed codes.
    """
    blocks = np.zeros((-(-len(codes) // LANES) * LANES, GROUP_WORDS, 2), dtype=np.uint64)
    blocks[: len(codes), :, 0], blocks[: len(codes), :, 1] = codes & masks, masks
    return np.ascontiguousarray(blocks.reshape(-1, LANES, GROUP_WORDS, 2).transpose(0, 2, 3, 1))


def unblocked(blocks: Words, count: int) -> Words:
    """`(count, 32, 2) uint64`: word by word code and mask of the first codes, the inverse of `blocked`."""
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2).reshape(-1, GROUP_WORDS, 2)[:count])


@dataclass(frozen=True, slots=True, eq=False)
class Rotations:
    """A probe made ready for scans: codes and masks `(32, R)` of its rotations, the word of most bits first.

    `order` `(32,)`: which words these are; `rest` `(32, R)`: valid bits from each of them on.
    """

    codes: Words
    masks: Words
    order: NDArray[np.int64]
    rest: NDArray[np.int64]


def scan(probe: IrisForm | Rotations, blocks: Words) -> NDArray[np.float32]:
    """`(8 B,) float32`: normalised distance of every code at its best rotation, as `compare_irises` has it.

    0.5 where nothing is common to both masks. Cost: 80 ns a code, one thread, without the GIL; thread-safe.
    """
    turned = probe if isinstance(probe, Rotations) else rotations(probe)
    distances = np.empty(len(blocks) * LANES, dtype=np.float32)
    _scan(turned.codes, turned.masks, turned.order, blocks, _USUAL, distances)
    return distances


def scan_within(
    probe: IrisForm | Rotations, blocks: Words, limit: float
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Numbers and distances of the codes at `limit` or below: exactly those that `scan` puts there.

    Rotations are abandoned half way for eight codes at a time, where none of them can pass any more: a
    twentieth to a sixth of the time is saved at a limit of 0.32, little at 0.40. Thread-safe.
    """
    if limit >= 0.5:
        distances = scan(probe, blocks)
        numbers = np.flatnonzero(distances <= limit)
        return numbers, distances[numbers]
    turned = probe if isinstance(probe, Rotations) else rotations(probe)
    codes, masks, order, rest = turned.codes, turned.masks, turned.order, turned.rest
    # what square / scale of `_keep_best` must reach, give or take what float32 rounds off
    needed = max(1.0 - 2.0 * limit - _ROUNDING, 0.0) ** 2
    sample = blocks[:: len(blocks) // _SAMPLE + 1].copy()
    passing = np.zeros(GROUP_WORDS, dtype=np.int64)
    _passing(codes, masks, order, rest, sample, _USUAL, needed, passing)
    groups = max(len(sample) * codes.shape[1] // _GROUP, 1)
    check = min(_CHECKS, key=lambda words: words + (GROUP_WORDS - words) * passing[words] / groups)
    distances = np.empty(len(blocks) * LANES, dtype=np.float32)
    numbers = np.empty(len(blocks) * LANES, dtype=np.intp)
    least = np.float32(limit)
    found = _scan_within(codes, masks, order, rest, blocks, _USUAL, needed, least, check, numbers, distances)
    return numbers[:found].copy(), distances[:found].copy()


def rotations(probe: IrisForm) -> Rotations:
    """Make a probe ready for several scans. Cost: 1 ms.

    Words with most valid bits go first, so that little is left open. The last rotation is repeated to fill
    its group.
    """
    steps = list(range(-MAX_STEPS, MAX_STEPS + 1))
    steps += [MAX_STEPS] * (-len(steps) % _GROUP)
    turned = [rotated(probe.code[:GROUP_WORDS], probe.mask[:GROUP_WORDS], step) for step in steps]
    codes, masks = np.array(turned).transpose(1, 2, 0)
    valid = np.bitwise_count(masks).astype(np.int64)
    order = np.argsort(-valid.sum(axis=1), kind="stable")
    valid = valid[order]
    rest = valid[::-1].cumsum(axis=0)[::-1]
    codes, masks, rest = (np.ascontiguousarray(part) for part in (codes[order], masks[order], rest))
    return Rotations(codes, masks, order.astype(np.int64), rest)


def _vectors(context, builder, signature, arguments, names):
    """The arguments by name, arrays as structures, and what the generators below do with vectors of eight."""
    given = dict(zip(names, arguments, strict=True))
    for name, kind in zip(names, signature.args, strict=True):
        if isinstance(kind, types.Array):
            given[name] = context.make_array(kind)(context, builder, given[name])
    return given, _Vectors(builder, given)


class _Vectors:
    """Writes loads, stores and constants of eight lanes into a compiled function."""

    def __init__(self, builder, given):
        self.builder = builder
        self._given = given

    def _place(self, name, index):
        return self.builder.gep(self._given[name].data, [index])

    def load(self, name, index):
        """Eight numbers that follow each other."""
        place = self._place(name, index)
        kind = _REALS if place.type.pointee == _REAL else _INTEGERS
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()), align=8)

    def store(self, value, name, index):
        place = self.builder.bitcast(self._place(name, index), value.type.as_pointer())
        self.builder.store(value, place, align=8)

    def prefetch(self, name, index):
        """Have a cache line fetched; one beyond the array does no harm."""
        place = self._place(name, index)
        kind = ir.FunctionType(ir.VoidType(), [place.type, _SMALL, _SMALL, _SMALL])
        fetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(fetch, [place, *(ir.Constant(_SMALL, value) for value in (0, 3, 1))])

    def single(self, name, index):
        return self.builder.load(self._place(name, index))

    def repeated(self, value):
        """One number in every lane."""
        kind = ir.VectorType(value.type, LANES)
        lone = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_SMALL, 0))
        lanes = ir.Constant(ir.VectorType(_SMALL, LANES), [0] * LANES)
        return self.builder.shuffle_vector(lone, ir.Constant(kind, ir.Undefined), lanes)

    def square_and_scale(self, common, surplus, usual):
        """`(1 - 2 distance)^2` as a fraction, see `_keep_best`: of n bits in common, and S of them."""
        builder = self.builder
        nothing = ir.Constant(_REALS, [0.0] * LANES)
        common, surplus = builder.sitofp(common, _REALS), builder.sitofp(surplus, _REALS)
        surplus = builder.select(builder.fcmp_ordered(">", surplus, nothing), surplus, nothing)
        usual = self.repeated(usual)
        longer = builder.select(builder.fcmp_ordered(">", common, usual), common, usual)
        return builder.fmul(surplus, surplus), builder.fmul(common, longer)

    def common_and_surplus(self, rotation, more=None):
        """Of one counted rotation n and S, with so many more bits that agree."""
        common = self.load("counts", _number(2 * rotation * LANES))
        differ = self.load("counts", _number((2 * rotation + 1) * LANES))
        if more is not None:
            common = self.builder.add(common, self.repeated(more))
        return common, self.builder.sub(common, self.builder.add(differ, differ))


_WORD, _SMALL, _REAL = ir.IntType(64), ir.IntType(32), ir.DoubleType()
_INTEGERS, _REALS = ir.VectorType(_WORD, LANES), ir.VectorType(_REAL, LANES)


def _number(value):
    return ir.Constant(_WORD, value)


def _count_type(typing_context, codes, masks, first, order, start, end, blocks, block, counts):
    """Add to `counts` what words `start` to `end` say of rotations `first` and following against eight codes.

    `counts` `(_GROUP, 2, 8) int64`: bits in both masks, and those of them that differ.
    """
    names = ("codes", "masks", "first", "order", "start", "end", "blocks", "block", "counts")

    def generate(context, builder, signature, arguments):
        given, vectors = _vectors(context, builder, signature, arguments, names)
        ones = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_INTEGERS, [_INTEGERS]), f"llvm.ctpop.v{LANES}i64"
        )
        rotations = cgutils.unpack_tuple(builder, given["masks"].shape)[1]
        sums = [cgutils.alloca_once(builder, _INTEGERS) for _ in range(2 * _GROUP)]
        for i, total in enumerate(sums):
            builder.store(vectors.load("counts", _number(i * LANES)), total)
        with cgutils.for_range_slice(builder, given["start"], given["end"], _number(1)) as (at, _):
            row = builder.mul(given["block"], _number(GROUP_WORDS))
            place = builder.mul(builder.add(row, vectors.single("order", at)), _number(2 * LANES))
            code = vectors.load("blocks", place)
            mask = vectors.load("blocks", builder.add(place, _number(LANES)))
            for line in range(0, 2 * LANES, LANES):
                vectors.prefetch("blocks", builder.add(place, _number(_AHEAD + line)))
            own = builder.add(builder.mul(at, rotations), given["first"])
            for i in range(_GROUP):
                rotation = builder.add(own, _number(i))
                own_code = vectors.repeated(vectors.single("codes", rotation))
                both = builder.and_(mask, vectors.repeated(vectors.single("masks", rotation)))
                differ = builder.and_(both, builder.xor(code, own_code))
                for total, bits in zip(sums[2 * i : 2 * i + 2], (both, differ), strict=True):
                    builder.store(builder.add(builder.load(total), builder.call(ones, [bits])), total)
        for i, total in enumerate(sums):
            vectors.store(builder.load(total), "counts", _number(i * LANES))
        return context.get_dummy_value()

    place = types.intp
    return types.void(codes, masks, place, order, place, place, blocks, place, counts), generate


def _keep_best_type(typing_context, counts, usual, square, scale):
    """Keep the best rotation of each code, as (1 - 2 distance)^2 = square / scale: exact, without a division.

    With n bits in common, of which d differ, and S = n - 2d: 1 - 2 distance = S / n sqrt(min(1, n / usual)),
    and its square is S^2 / (n max(n, usual)); distances above 0.5 count as 0.5.
    """

    def generate(context, builder, signature, arguments):
        given, vectors = _vectors(
            context, builder, signature, arguments, ("counts", "usual", "square", "scale")
        )
        square, scale = vectors.load("square", _number(0)), vectors.load("scale", _number(0))
        for i in range(_GROUP):
            own, own_scale = vectors.square_and_scale(*vectors.common_and_surplus(i), given["usual"])
            better = builder.fcmp_ordered(">", builder.fmul(own, scale), builder.fmul(square, own_scale))
            square, scale = builder.select(better, own, square), builder.select(better, own_scale, scale)
        vectors.store(square, "square", _number(0))
        vectors.store(scale, "scale", _number(0))
        return context.get_dummy_value()

    return types.void(counts, usual, square, scale), generate


def _may_pass_type(typing_context, counts, rest, check, first, usual, needed):
    """Whether any of the eight codes can still pass at any of the counted rotations.

    S and n as in `_keep_best`, of the words counted so far; at most `rest` further bits are in both masks.
    Any a of them that agree and d that differ make of them S + a - d and n + a + d. Below the usual number of
    bits, (1 - 2 distance) goes with S / sqrt(n), above it with S / n: as |S| <= n, both rise with every bit
    that agrees and fall with every one that differs, so nothing beats a = rest, d = 0. Of several rotations
    nothing beats the largest S over the smallest n: one test for all of them.
    """
    names = ("counts", "rest", "check", "first", "usual", "needed")

    def generate(context, builder, signature, arguments):
        given, vectors = _vectors(context, builder, signature, arguments, names)
        rotations = cgutils.unpack_tuple(builder, given["rest"].shape)[1]
        own = builder.add(builder.mul(given["check"], rotations), given["first"])
        fewest = most = None
        for i in range(_GROUP):
            more = vectors.single("rest", builder.add(own, _number(i)))
            common, surplus = vectors.common_and_surplus(i, more)
            if fewest is None:
                fewest, most = common, surplus
            fewest = builder.select(builder.icmp_signed("<", common, fewest), common, fewest)
            most = builder.select(builder.icmp_signed(">", surplus, most), surplus, most)
        square, scale = vectors.square_and_scale(fewest, most, given["usual"])
        passing = builder.fcmp_ordered(">=", square, builder.fmul(vectors.repeated(given["needed"]), scale))
        bits = builder.bitcast(passing, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(counts, rest, check, first, usual, needed), generate


_Counts = NDArray[np.int64]
_Reals = NDArray[np.float64]
_Count = Callable[[Words, Words, int, NDArray[np.int64], int, int, Words, int, _Counts], None]
_count = cast("_Count", intrinsic(_count_type))
_keep_best = cast("Callable[[_Counts, float, _Reals, _Reals], None]", intrinsic(_keep_best_type))
_may_pass = cast("Callable[[_Counts, _Counts, int, int, float, float], bool]", intrinsic(_may_pass_type))


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    codes: Words,
    masks: Words,
    order: NDArray[np.int64],
    blocks: Words,
    usual: float,
    distances: NDArray[np.float32],
) -> None:
    counts = np.empty((_GROUP, 2, LANES), dtype=np.int64)
    square, scale = np.empty(LANES), np.empty(LANES)
    for block in range(len(blocks)):
        square[:], scale[:] = 0.0, 1.0
        for first in range(0, codes.shape[1], _GROUP):
            counts[:] = 0
            _count(codes, masks, first, order, 0, GROUP_WORDS, blocks, block, counts)
            _keep_best(counts, usual, square, scale)
        for lane in range(LANES):
            distances[block * LANES + lane] = 0.5 - 0.5 * sqrt(square[lane] / scale[lane])


@njit(cache=True, nogil=True, error_model="numpy")
def _scan_within(
    codes: Words,
    masks: Words,
    order: NDArray[np.int64],
    rest: _Counts,
    blocks: Words,
    usual: float,
    needed: float,
    limit: np.float32,
    check: int,
    numbers: NDArray[np.intp],
    distances: NDArray[np.float32],
) -> int:
    counts = np.empty((_GROUP, 2, LANES), dtype=np.int64)
    square, scale = np.empty(LANES), np.empty(LANES)
    found = 0
    for block in range(len(blocks)):
        square[:], scale[:] = 0.0, 1.0
        for first in range(0, codes.shape[1], _GROUP):
            counts[:] = 0
            _count(codes, masks, first, order, 0, check, blocks, block, counts)
            if _may_pass(counts, rest, check, first, usual, needed):
                _count(codes, masks, first, order, check, GROUP_WORDS, blocks, block, counts)
                _keep_best(counts, usual, square, scale)
        for lane in range(LANES):
            if square[lane] >= needed * scale[lane]:
                distance = np.float32(0.5 - 0.5 * sqrt(square[lane] / scale[lane]))
                if distance <= limit:
                    numbers[found], distances[found] = block * LANES + lane, distance
                    found += 1
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _passing(
    codes: Words,
    masks: Words,
    order: NDArray[np.int64],
    rest: _Counts,
    blocks: Words,
    usual: float,
    needed: float,
    passing: NDArray[np.int64],
) -> None:
    """Count into `passing` `(32,)` the groups of rotations that cannot be abandoned after so many words."""
    counts = np.empty((_GROUP, 2, LANES), dtype=np.int64)
    for block in range(len(blocks)):
        for first in range(0, codes.shape[1], _GROUP):
            counts[:] = 0
            for word in range(GROUP_WORDS):
                passing[word] += _may_pass(counts, rest, word, first, usual, needed)
                _count(codes, masks, first, order, word, word + 1, blocks, block, counts)
