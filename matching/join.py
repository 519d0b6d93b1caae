"""Which pairs of encounters are worth an exact comparison: every one of a tile with every one of another.

Plain arrays in, pairs out, without a gallery: what a batch job runs tile by tile on any number of machines.
Fingers: evidence of their codes, summed over ten positions, as declared and with the hands swapped; irises:
nearness of scan codes at the best rotation, summed over both eyes; faces: cosines. A pair is named whose sum
reaches the threshold of its class: how much the poorer of the two could show, since one finger cannot reach
what ten do. Everything is exact: no pair is left out but by its sum.

Eight encounters lie side by side, as in `matching/iris/scan.py`, so that one vector holds the same word of
eight codes. The vector code is spelt out for the same reason as there.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False
# (llvmlite has no types to name, numba's decorators have none)

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log10
from typing import cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from capture.iris.template import IrisCoder
from capture.sample import EyePosition, FingerPosition
from matching.fingerprint.code import CODE_BITS, CODE_WORDS, DETAIL_BINS, code_evidence, detail_bin
from matching.iris.comparison import IrisForm, popcount
from matching.iris.scan import LANES, blocked, rotations, scan

FINGERS = 10
ABSENT = DETAIL_BINS
# Classes of encounters go by how many fingers have so much detail: where one class ends, the next begins.
TELLING_DETAIL = 20
CLASS_ENDS = (1, 2, 4, 6)
EYES = (EyePosition.RIGHT, EyePosition.LEFT, EyePosition.UNKNOWN, EyePosition.UNKNOWN)
# log10 of how often the hands are taken for each other, see `matching.fingerprint.hands`
_SWAPPED_COST = np.float32(2.0)
_SWAPPED = np.array([FingerPosition(code).other_hand - 1 for code in range(1, FINGERS + 1)])
# Columns that stay in the processor's cache while all rows pass them.
_COLUMNS = 512

Words = NDArray[np.uint64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FingerCodes:
    """The fingers of n encounters: slot p - 1 is position p, slots behind the ten are of unknown position.

    `codes` `(n, S, 8) uint64`; `bins` `(n, S) uint8`: bins of their detail, `ABSENT` where there is none.
    """

    codes: Words
    bins: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n, slots = self.bins.shape
        if self.codes.shape != (n, slots, CODE_WORDS) or slots < FINGERS:
            raise ValueError(f"codes are (n, 10 or more, {CODE_WORDS}), not {self.codes.shape}")
        if self.bins.max(initial=0) > ABSENT:
            raise ValueError(f"bins of detail are 0 to {ABSENT}")

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, some: slice) -> "FingerCodes":
        return FingerCodes(self.codes[some], self.bins[some])

    @property
    def classes(self) -> NDArray[np.uint8]:
        """`(n,)`: by how many telling fingers each has."""
        telling = ((self.bins >= detail_bin(TELLING_DETAIL)) & (self.bins != ABSENT)).sum(axis=1)
        found: NDArray[np.uint8] = np.searchsorted(CLASS_ENDS, telling, "right").astype(np.uint8)
        return found

    @property
    def swapped(self) -> "FingerCodes":
        """Every known finger where its like of the other hand would be; unknown ones are left out."""
        return FingerCodes(self.codes[:, _SWAPPED], self.bins[:, _SWAPPED])


@dataclass(frozen=True, slots=True, eq=False)
class IrisCodes:
    """The irises of n encounters in four slots: right, left, and two of unknown eye; empty masks where none.

    `codes`, `masks` `(n, 4, 32) uint64`: scan codes.
    """

    codes: Words
    masks: Words

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, some: slice) -> "IrisCodes":
        return IrisCodes(self.codes[some], self.masks[some])

    @property
    def present(self) -> NDArray[np.bool_]:
        """`(n, 4)`: which there are."""
        there: NDArray[np.bool_] = (self.masks != 0).any(axis=2)
        return there

    @property
    def classes(self) -> NDArray[np.int64]:
        """`(n,)`: how many eyes."""
        found: NDArray[np.int64] = np.minimum(self.present.sum(axis=1), 2)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs by their places in two tiles, and the sum that named each: three arrays of one length."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    score: Floats


# --- fingers


def finger_pairs(rows: FingerCodes, columns: FingerCodes, thresholds: Floats, ahead: int = 0) -> Pairs:
    """Pairs whose evidence, as declared or with the hands swapped, reaches the threshold of their class.

    `thresholds` `(5,)`: by the class of the poorer one. Only pairs with `column + ahead > row` count: of a
    tile with itself (`ahead` 0), each once. Cost: 29 ns a pair of ten fingers, one thread, without the GIL;
    more with fingers of unknown position.
    """
    classes, of_columns = rows.classes, columns.classes
    swapped = rows.swapped
    found: list[Pairs] = []
    for start in range(0, len(columns), _COLUMNS):
        part = columns[start : start + _COLUMNS]
        before_last = max(0, min(len(rows), len(part) + start + ahead - 1))
        declared = finger_evidence(rows[:before_last], part)
        other = finger_evidence(swapped[:before_last], part)
        row, column = _reaching(declared, other, thresholds.min())
        score = np.maximum(
            _or_nothing(declared[row, column]), _or_nothing(other[row, column]) - _SWAPPED_COST
        )
        column += start
        needed = thresholds[np.minimum(classes[row], of_columns[column])]
        kept = (score >= needed) & (score > -np.inf) & (column + ahead > row)
        found.append(Pairs(row[kept], column[kept], score[kept]))
    return _joined(found)


def finger_evidence(rows: FingerCodes, columns: FingerCodes) -> Floats:
    """`(R, C)`: evidence of every two, summed over positions; unknown fingers where they fit best."""
    table = _evidence_table()
    codes, bins = _blocked_fingers(columns)
    evidence = np.empty((len(rows), len(codes) * LANES), dtype=np.float32)
    own_codes = np.ascontiguousarray(rows.codes[:, :FINGERS])
    own_bins = np.ascontiguousarray(rows.bins[:, :FINGERS])
    _sum_evidence(own_codes, own_bins, codes, bins, table, evidence)
    evidence = evidence[:, : len(columns)]
    if max(rows.bins.shape[1], columns.bins.shape[1]) > FINGERS:
        _add_loose(rows.codes, rows.bins, columns.codes, columns.bins, table, evidence)
    return evidence


def _or_nothing(evidence: Floats) -> Floats:
    """No evidence at all, of encounters that have no finger in common, is less than any."""
    return np.where(evidence == 0, np.float32(-np.inf), evidence)


@cache
def _evidence_table() -> Floats:
    """`(bins + 1, bins + 1, bits + 1)`: the evidence, and nothing where a finger is absent."""
    table = np.zeros((DETAIL_BINS + 1, DETAIL_BINS + 1, CODE_BITS + 1), dtype=np.float32)
    table[:DETAIL_BINS, :DETAIL_BINS] = code_evidence()
    return table


def _blocked_fingers(fingers: FingerCodes) -> tuple[Words, NDArray[np.uint8]]:
    """`(B, 10, 8, 8)` codes and `(B, 10, 8)` bins: eight encounters side by side, the last filled up."""
    size = -(-len(fingers) // LANES) * LANES
    codes = np.zeros((size, FINGERS, CODE_WORDS), dtype=np.uint64)
    bins = np.full((size, FINGERS), ABSENT, dtype=np.uint8)
    codes[: len(fingers)], bins[: len(fingers)] = fingers.codes[:, :FINGERS], fingers.bins[:, :FINGERS]
    return (
        np.ascontiguousarray(codes.reshape(-1, LANES, FINGERS, CODE_WORDS).transpose(0, 2, 3, 1)),
        np.ascontiguousarray(bins.reshape(-1, LANES, FINGERS).transpose(0, 2, 1)),
    )


def _evidence_of_eight_type(typing_context, codes, bins, row, blocks, block_bins, block, table, sums):
    """Evidence of encounter `row` against the eight of `block`, summed over ten fingers, into `sums`."""

    def generate(context, builder, signature, arguments):
        word, small, real = ir.IntType(64), ir.IntType(32), ir.FloatType()
        words, reals = ir.VectorType(word, LANES), ir.VectorType(real, LANES)
        byte_lanes = ir.VectorType(ir.IntType(8), LANES)
        table_shape = context.make_array(signature.args[6])(context, builder, arguments[6]).shape
        _, of_bin, of_distance = cgutils.unpack_tuple(builder, table_shape)
        data = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        ones = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(words, [words]), f"llvm.ctpop.v{LANES}i64"
        )

        def number(value):
            return ir.Constant(word, value)

        def at(array, index, stride, offset):
            """Where element `index` of so many numbers each has its number `offset`."""
            return builder.gep(
                data[array], [builder.add(builder.mul(data[index], number(stride)), number(offset))]
            )

        def repeated(value):
            kind = ir.VectorType(value.type, LANES)
            lone = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(small, 0))
            lanes = ir.Constant(ir.VectorType(small, LANES), [0] * LANES)
            return builder.shuffle_vector(lone, ir.Constant(kind, ir.Undefined), lanes)

        def eight(place, kind, align):
            return builder.load(builder.bitcast(place, kind.as_pointer()), align=align)

        total = ir.Constant(reals, [0.0] * LANES)
        for finger in range(FINGERS):
            distance = ir.Constant(words, [0] * LANES)
            for at_word in range(finger * CODE_WORDS, (finger + 1) * CODE_WORDS):
                own = repeated(builder.load(at(0, 2, FINGERS * CODE_WORDS, at_word)))
                others = eight(at(3, 5, FINGERS * CODE_WORDS * LANES, at_word * LANES), words, 8)
                distance = builder.add(distance, builder.call(ones, [builder.xor(own, others)]))
            own_bin = builder.zext(builder.load(at(1, 2, FINGERS, finger)), word)
            other_bins = eight(at(4, 5, FINGERS * LANES, finger * LANES), byte_lanes, 1)
            first = builder.mul(own_bin, builder.mul(of_bin, of_distance))
            line = builder.mul(builder.zext(other_bins, words), repeated(of_distance))
            index = builder.add(builder.add(line, distance), repeated(first))
            found = ir.Constant(reals, ir.Undefined)
            for lane in range(LANES):
                lane_ = ir.Constant(small, lane)
                place = builder.gep(data[6], [builder.extract_element(index, lane_)])
                found = builder.insert_element(found, builder.load(place), lane_)
            total = builder.fadd(total, found)
        place = builder.gep(data[7], [builder.mul(data[5], number(LANES))])
        builder.store(total, builder.bitcast(place, reals.as_pointer()), align=4)
        return context.get_dummy_value()

    arrays = (codes, bins, types.intp, blocks, block_bins, types.intp, table, sums)
    return types.void(*arrays), generate


_Bins = NDArray[np.uint8]
_EvidenceOfEight = Callable[[Words, _Bins, int, Words, _Bins, int, Floats, Floats], None]
_evidence_of_eight = cast("_EvidenceOfEight", intrinsic(_evidence_of_eight_type))


@njit(cache=True, nogil=True)
def _sum_evidence(
    codes: Words, bins: _Bins, blocks: Words, block_bins: _Bins, table: Floats, evidence: Floats
) -> None:
    for row in range(len(codes)):
        sums = evidence[row]
        for block in range(len(blocks)):
            _evidence_of_eight(codes, bins, row, blocks, block_bins, block, table, sums)


@njit(cache=True, nogil=True)
def _add_loose(
    codes: Words, bins: _Bins, column_codes: Words, column_bins: _Bins, table: Floats, evidence: Floats
) -> None:
    """What fingers of unknown position add: each where it fits best, known ones not with known ones."""
    for row in range(len(codes)):
        for column in range(len(column_codes)):
            for i in range(FINGERS, bins.shape[1]):
                evidence[row, column] += _best_fit(
                    codes[row, i], bins[row, i], column_codes[column], column_bins[column], table
                )
            for j in range(FINGERS, column_bins.shape[1]):
                evidence[row, column] += _best_fit(
                    column_codes[column, j],
                    column_bins[column, j],
                    codes[row, :FINGERS],
                    bins[row, :FINGERS],
                    table,
                )


@njit(cache=True, nogil=True)
def _best_fit(code: Words, own_bin: int, codes: Words, bins: _Bins, table: Floats) -> np.float32:
    """The evidence of one finger against that of these which is most like it, less what choosing costs."""
    best, choices = np.float32(-np.inf), 0
    if own_bin != ABSENT:
        for i in range(len(bins)):
            if bins[i] != ABSENT:
                distance = np.uint64(0)
                for word in range(CODE_WORDS):
                    distance += popcount(code[word] ^ codes[i, word])
                best = max(best, table[own_bin, bins[i], np.int64(distance)])
                choices += 1
    return best - np.float32(log10(choices)) if choices else np.float32(0)


@njit(cache=True, nogil=True)
def _reaching(
    declared: Floats, swapped: Floats, least: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where either is no less: a tenth of the time that arrays of truth values take."""
    found = 0
    for row in range(declared.shape[0]):
        for column in range(declared.shape[1]):
            found += max(declared[row, column], swapped[row, column]) >= least
    rows, columns = np.empty(found, dtype=np.int64), np.empty(found, dtype=np.int64)
    found = 0
    for row in range(declared.shape[0] if len(rows) else 0):
        for column in range(declared.shape[1]):
            if max(declared[row, column], swapped[row, column]) >= least:
                rows[found], columns[found] = row, column
                found += 1
    return rows, columns


# --- irises


def iris_pairs(
    rows: IrisCodes, columns: IrisCodes, thresholds: Floats, farthest: float, ahead: int = 0
) -> Pairs:
    """Pairs whose eyes, as declared or swapped, are near enough: the sum of 0.5 less their distances.

    `thresholds` `(3,)`: by how many eyes the one of fewer has. A distance above `farthest` adds nothing. Only
    pairs with `column + ahead > row` count. Cost: 0.68 us a pair that has both, with eyes swapped, one
    thread, without the GIL.
    """
    there, classes, of_columns = columns.present, rows.classes, columns.classes
    blocks = {
        slot: blocked(columns.codes[:, slot], columns.masks[:, slot])
        for slot in range(len(EYES))
        if there[:, slot].any()
    }
    found: list[Pairs] = []
    for row, own in enumerate(rows.present):
        first = max(0, row - ahead + 1)
        if not own.any() or first >= len(columns):
            continue
        first -= first % LANES
        near: dict[tuple[int, int], Floats] = {}
        for slot in np.flatnonzero(own).tolist():
            form = IrisForm(
                EYES[slot], rows.codes[row, slot], rows.masks[row, slot], IrisCoder.LOG_GABOR_1, 0
            )
            turned = rotations(form)
            for other, some in blocks.items():
                distances = scan(turned, some[first // LANES :])[: len(columns) - first]
                near[slot, other] = np.where(distances <= farthest, np.float32(0.5) - distances, 0)
        declared, swapped = _together(near, len(columns) - first)
        score = np.maximum(declared, swapped)
        passing = np.flatnonzero(score >= thresholds[np.minimum(classes[row], of_columns[first:])])
        passing = passing[passing + first > row - ahead]
        found.append(Pairs(np.full(len(passing), row), passing + first, score[passing]))
    return _joined(found)


def _together(near: dict[tuple[int, int], Floats], size: int) -> tuple[Floats, Floats]:
    """Nearness summed over eyes as declared, unknown ones where they fit best, and of known ones swapped."""
    declared, swapped = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    best: dict[int, Floats] = {}
    for (slot, other), nearness in near.items():
        if EYES[slot] == EYES[other] or not (EYES[slot] and EYES[other]):
            best[slot] = np.maximum(best[slot], nearness) if slot in best else nearness
        else:
            swapped += nearness
    for nearness in best.values():
        declared += nearness
    return declared, swapped


# --- faces


def face_pairs(rows: Floats, columns: Floats, threshold: float, ahead: int = 0) -> Pairs:
    """Pairs of vectors `(n, D)` of one embedder whose cosine reaches the threshold; zeros where none is.

    Only pairs with `column + ahead > row` count. Cost: 10 ns a pair of 128 values, of a matrix product.
    """
    cosines = rows @ columns.T
    there = (rows != 0).any(axis=1)[:, None] & (columns != 0).any(axis=1)[None]
    after = np.arange(len(columns))[None] + ahead > np.arange(len(rows))[:, None]
    row, column = np.nonzero((cosines >= threshold) & there & after)
    return Pairs(row.astype(np.int64), column.astype(np.int64), cosines[row, column])


# --- which are worth it


def affordable_thresholds(
    scores: Floats, classes: NDArray[np.integer], share: float, most: float, least: Floats
) -> Floats:
    """For each class the threshold that it needs, or a higher one, so that about `most` pairs are named.

    `scores` and `classes` of a sample, `share` of all pairs; `least`: what each class needs. The last class,
    of the richest, goes first; what it does not use is the others'.
    """
    thresholds = least.copy()
    for number in reversed(range(len(least))):
        sample = scores[classes == number]
        allowed = int(most / (number + 1) * share)  # in the sample
        if len(sample) > allowed:
            beyond = np.partition(sample, len(sample) - allowed - 1)[len(sample) - allowed - 1]
            thresholds[number] = max(least[number], np.nextafter(beyond, np.float32(np.inf)))
        most -= float((sample >= thresholds[number]).sum()) / share
    return thresholds


def _joined(parts: list[Pairs]) -> Pairs:
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Pairs(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("row", "column", "score")))
