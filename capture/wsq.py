"""WSQ, the FBI's wavelet scalar quantisation of fingerprint images: a decoder for untrusted files.

FBI IAFIS-IC-0110 (V3.1). Written because the decoders at hand are built on C code that crashes on
damaged files. Filters of odd length are read, which is what the standard's encoders write.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

_SOI, _EOI, _SOF, _SOB, _DTT, _DQT, _DHT, _COM = (
    0xFFA0,
    0xFFA1,
    0xFFA2,
    0xFFA3,
    0xFFA4,
    0xFFA5,
    0xFFA6,
    0xFFA8,
)
_SCAN_END = re.compile(rb"\xff[^\x00]", re.DOTALL)
_PPI = re.compile(rb"^PPI[ \t]+(\d{1,5})\s*$", re.MULTILINE)
_BANDS = 64
_CODED_BANDS = 60
_MAX_TAPS = 31
# Far more than encoders write; they bound the work on hostile files.
_MAX_SEGMENTS = 64
_MAX_TABLES = 8


class WsqDamaged(Exception):
    """The bytes are no complete WSQ file."""


@dataclass(frozen=True, slots=True)
class Band:
    """A rectangle of wavelet coefficients, pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class WsqFile:
    """A WSQ file taken apart, nothing decoded yet: size and ppi as the file claims them.

    `low`, `high` are the synthesis filters, `bins` `(64, 2) float64` width of a bin and of the zero bin,
    `centre` where in its bin a coefficient lies; `scans` are pairs of a Huffman table, `(65536,) uint16`
    (code length * 256 + symbol by the next 16 bits), and coded bytes.
    """

    width: int
    height: int
    ppi: float | None
    shift: float
    scale: float
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    centre: float
    bins: NDArray[np.float64]
    scans: tuple[tuple[NDArray[np.uint16], bytes], ...]


def read_wsq(data: bytes) -> WsqFile:
    """Take a WSQ file apart. Allocates nothing by the size it claims. Raises `WsqDamaged`."""
    frame: tuple[int, int, float, float] | None = None
    filters: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    quantisation: tuple[float, NDArray[np.float64]] | None = None
    ppi: float | None = None
    tables: dict[int, NDArray[np.uint16]] = {}
    scans: list[tuple[NDArray[np.uint16], bytes]] = []
    try:
        (first,) = struct.unpack_from(">H", data, 0)
        if first != _SOI:
            raise WsqDamaged("it does not start as a WSQ file")
        at = 2
        for _ in range(_MAX_SEGMENTS):
            (marker,) = struct.unpack_from(">H", data, at)
            if marker == _EOI:
                break
            (length,) = struct.unpack_from(">H", data, at + 2)
            body = data[at + 4 : at + 2 + length]
            if length < 2 or len(body) != length - 2:
                raise WsqDamaged("a segment is cut off")
            at += 2 + length
            if marker == _SOF:
                frame = _frame(body)
            elif marker == _DTT:
                filters = _filters(body)
            elif marker == _DQT:
                quantisation = _quantisation(body)
            elif marker == _DHT:
                tables.update(_huffman_tables(body))
            elif marker == _COM:
                found = _PPI.search(body) if body.startswith(b"NIST_COM") else None
                ppi = float(found[1]) if found else ppi
            elif marker == _SOB:
                end = _SCAN_END.search(data, at)
                if end is None:
                    raise WsqDamaged("the coded data has no end")
                if body[:1] == b"" or body[0] not in tables or len(scans) == 3:
                    raise WsqDamaged("a block names no table, or there are too many blocks")
                scans.append((tables[body[0]], data[at : end.start()].replace(b"\xff\x00", b"\xff")))
                at = end.start()
            else:
                raise WsqDamaged(f"marker {marker:04x} is not known")
        else:
            raise WsqDamaged(f"it has more than {_MAX_SEGMENTS} segments")
    except (struct.error, IndexError) as error:
        raise WsqDamaged("it is cut off") from error
    if frame is None or filters is None or quantisation is None or not scans:
        raise WsqDamaged("header, filters, quantisation or coded data are missing")
    return WsqFile(*frame[:2], ppi, *frame[2:], *filters, *quantisation, tuple(scans))


def wsq_pixels(file: WsqFile) -> NDArray[np.uint8]:
    """Decode to `(H, W) uint8`. Raises `WsqDamaged`. Cost: 5 ms for 500 x 500 pixels, once compiled."""
    # 1. Huffman: the quantised coefficients of every coded band, one after the other.
    bands = wsq_bands(file.width, file.height)
    coded = [i for i in range(_CODED_BANDS) if file.bins[i, 0] != 0]
    quantised = np.zeros(sum(bands[i].width * bands[i].height for i in coded), dtype=np.int32)
    filled = 0
    for table, scan in file.scans:
        filled = _decode_scan(np.frombuffer(scan, dtype=np.uint8), table, quantised, filled)
        if filled < 0:
            raise WsqDamaged("the coded data is no sequence of codes")
    if filled != len(quantised):
        raise WsqDamaged(f"{filled} of {len(quantised)} coefficients are there")

    # 2. Scalar dequantisation into each band's place.
    plane = np.zeros((file.height, file.width), dtype=np.float32)
    start = 0
    for i in coded:
        band = bands[i]
        count = band.width * band.height
        step, zero = file.bins[i]
        levels = quantised[start : start + count]
        magnitude = step * (np.abs(levels) - file.centre) + zero / 2
        values = np.where(levels == 0, 0, np.sign(levels) * magnitude)
        plane[band.y : band.y + band.height, band.x : band.x + band.width] = values.reshape(
            band.height, band.width
        )
        start += count

    # 3. Wavelet synthesis, and back to grey levels.
    _synthesise(plane, _TREE, file, flip_x=False, flip_y=False)
    grey = plane * np.float32(file.scale) + np.float32(file.shift)
    if not np.isfinite(grey).all():
        raise WsqDamaged("its coefficients are no numbers")
    pixels: NDArray[np.uint8] = np.clip(np.floor(grey + 0.5), 0, 255).astype(np.uint8)
    return pixels


# How a plane is split: its quarters (top left, top right, bottom left, bottom right), each a split or a band.
_Split: TypeAlias = "tuple[_Split | None, ...]"
_FOUR: _Split = (None, None, None, None)
_SIXTEEN: _Split = (_FOUR, _FOUR, _FOUR, _FOUR)
_LOW_PASS: _Split = ((_FOUR, None, None, None), _FOUR, _FOUR, _FOUR)
_TREE: _Split = ((_LOW_PASS, _SIXTEEN, _SIXTEEN, None), _FOUR, _FOUR, _FOUR)


def wsq_bands(width: int, height: int) -> tuple[Band, ...]:
    """The 64 bands of an image, in the order of the standard's figure."""
    return tuple(_bands(Band(0, 0, width, height), _TREE, flip_x=False, flip_y=False))


def _bands(area: Band, split: _Split, *, flip_x: bool, flip_y: bool) -> Iterator[Band]:
    left, top = _first_part(area.width, flip_x), _first_part(area.height, flip_y)
    for quarter, inner in enumerate(split):
        right, bottom = bool(quarter & 1), bool(quarter & 2)
        part = Band(
            area.x + left * right,
            area.y + top * bottom,
            area.width - left if right else left,
            area.height - top if bottom else top,
        )
        if inner is None:
            yield part
        else:
            yield from _bands(part, inner, flip_x=right, flip_y=bottom)


def _first_part(length: int, flip: bool) -> int:
    """The left or upper part's length. The low half comes first and is the longer one, unless flipped.

    A high-pass half has its spectrum reversed; flipping its split keeps the bands in order of frequency.
    """
    return length // 2 if flip else (length + 1) // 2


def _synthesise(
    plane: NDArray[np.float32], split: _Split, file: WsqFile, *, flip_x: bool, flip_y: bool
) -> None:
    """Turn the coefficients of `plane` into its pixels, in place, from the innermost split outwards."""
    height, width = plane.shape
    left, top = _first_part(width, flip_x), _first_part(height, flip_y)
    for quarter, inner in enumerate(split):
        right, bottom = bool(quarter & 1), bool(quarter & 2)
        if inner is not None:
            columns = slice(left, None) if right else slice(0, left)
            rows = slice(top, None) if bottom else slice(0, top)
            _synthesise(plane[rows, columns], inner, file, flip_x=right, flip_y=bottom)
    plane[:] = _joined(plane, flip_y, file)
    plane[:] = _joined(plane.T, flip_x, file).T


def _joined(plane: NDArray[np.float32], flip: bool, file: WsqFile) -> NDArray[np.float32]:
    """Join the low and high halves of the rows of `plane` `(n, m)`: one step of synthesis along axis 0."""
    first = _first_part(len(plane), flip)
    low, high = (plane[first:], plane[:first]) if flip else (plane[:first], plane[first:])
    even, odd = np.zeros(plane.shape, dtype=np.float32), np.zeros(plane.shape, dtype=np.float32)
    even[0::2], odd[1::2] = low, high
    # Symmetric filters about the first and last sample: correlation and convolution are the same.
    smooth = cv2.filter2D(even, -1, file.low[:, None], borderType=cv2.BORDER_REFLECT_101)
    detail = cv2.filter2D(odd, -1, file.high[:, None], borderType=cv2.BORDER_REFLECT_101)
    return smooth + detail


@numba.njit(cache=True, nogil=True)
def _decode_scan(
    scan: NDArray[np.uint8], table: NDArray[np.uint16], out: NDArray[np.int32], filled: int
) -> int:
    """Decode one block into `out` from `filled` on; returns the new fill, or -1 for an impossible code."""
    bits = 8 * len(scan)
    at = 0
    while at < bits:
        # 1. The next 16 bits, with ones beyond the end: no code is all ones.
        byte = at >> 3
        window = 0
        for i in range(3):
            window = (window << 8) | (int(scan[byte + i]) if byte + i < len(scan) else 255)
        entry = int(table[(window >> (8 - (at & 7))) & 0xFFFF])
        length, symbol = entry >> 8, entry & 255
        if entry == 0 or at + length > bits:
            return filled if bits - at < 8 else -1
        if filled >= len(out):
            return filled if bits - at < 8 else -1
        at += length

        # 2. Symbols that carry a number of 8 or 16 bits.
        number = 0
        if 101 <= symbol <= 106:
            wide = 16 if symbol in (103, 104, 106) else 8
            if at + wide > bits:
                return -1
            for _ in range(wide):
                number = (number << 1) | ((int(scan[at >> 3]) >> (7 - (at & 7))) & 1)
                at += 1

        # 3. A run of zeros, or one coefficient.
        run = symbol if 1 <= symbol <= 100 else number if symbol in (105, 106) else -1
        if run == 0 or run > len(out) - filled or symbol in (0, 255):
            return -1
        if run > 0:
            filled += run
        else:
            value = symbol - 180
            if symbol in (101, 103):
                value = number
            elif symbol in (102, 104):
                value = -number
            out[filled] = value
            filled += 1
    return filled


def _frame(body: bytes) -> tuple[int, int, float, float]:
    """Width, height, shift and scale of the frame header."""
    height, width, shift_power, shift, scale_power, scale = struct.unpack_from(">2xHHBHBH", body)
    if not (width and height and scale):
        raise WsqDamaged("its size or scale is zero")
    return width, height, shift / 10.0**shift_power, scale / 10.0**scale_power


def _filters(body: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low and high synthesis filters: the analysis filters with every other sign changed."""
    high_taps, low_taps = body[0], body[1]
    if not (high_taps % 2 and low_taps % 2 and max(high_taps, low_taps) <= _MAX_TAPS):
        raise WsqDamaged(f"filters of {high_taps} and {low_taps} taps are not read here")
    at = 2
    filters = []
    for taps in (high_taps, low_taps):
        half = np.zeros(taps // 2 + 1)
        for i in range(len(half)):
            sign, power, digits = struct.unpack_from(">BBI", body, at)
            half[i] = (-1) ** i * (-1 if sign else 1) * digits / 10.0**power
            at += 6
        filters.append(np.concatenate([half[:0:-1], half]).astype(np.float32))
    high, low = filters
    return low, high


def _quantisation(body: bytes) -> tuple[float, NDArray[np.float64]]:
    """Where in its bin a coefficient lies, and the widths of the bins and zero bins, `(64, 2)`."""
    values = [
        digits / 10.0**power for power, digits in struct.iter_unpack(">BH", body[: 3 * (1 + 2 * _BANDS)])
    ]
    if len(values) != 1 + 2 * _BANDS:
        raise WsqDamaged("the quantisation table is cut off")
    return values[0], np.array(values[1:]).reshape(_BANDS, 2)


def _huffman_tables(body: bytes) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """The tables of one segment by number: for each 16 bits the code they start with, 0 where none."""
    seen: set[int] = set()
    while body:
        if body[0] >= _MAX_TABLES or body[0] in seen:
            raise WsqDamaged("a Huffman table has an impossible number")
        seen.add(body[0])
        counts, symbols = body[1:17], body[17 : 17 + sum(body[1:17])]
        if len(counts) != 16 or len(symbols) != sum(counts):
            raise WsqDamaged("a Huffman table is cut off")
        table = np.zeros(1 << 16, dtype=np.uint16)
        at = taken = 0
        for length, count in enumerate(counts, start=1):
            for symbol in symbols[taken : taken + count]:
                after = at + (1 << (16 - length))
                # The code of all ones is reserved: it is what a block is padded with.
                if after >= 1 << 16:
                    raise WsqDamaged("a Huffman table has more codes than fit")
                table[at:after] = length << 8 | symbol
                at = after
            taken += count
        yield body[0], table
        body = body[17 + len(symbols) :]
