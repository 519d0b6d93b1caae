"""Exact 1:N scans of iris codes: codes a second on one core, beside other ways and the memory's own speed.

    python -m benchmarks.iris_scan [--codes 400000]

Codes are made as a coder makes them, from noise: log-Gabor phase of 8 rows at 128 angles, so that
neighbouring bits depend on each other; 30 % fragile bits masked, and lids over the outer rows, about 58 %
valid bits. 20,000 different eyes are repeated to the size asked for, far larger than any cache. Processor
time of one thread, the best of several runs; `share_of_memory` is what 512 bytes a code are of the rate at
which the same core sums the same array, measured before and after.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numba import njit
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.provenance import ROOT, provenance
from capture.iris.template import COLUMNS, ROWS, IrisCoder, packed, rotated
from capture.sample import EyePosition
from matching.iris.comparison import MAX_STEPS, PARAMS, ROTATIONS, IrisForm, popcount
from matching.iris.scan import blocked, scan, scan_within

RESULT = ROOT / "benchmarks" / "results" / "iris_scan.json"
SEED = 2026
EYES = 20_000
PROBES = 3
LIMITS = (0.25, 0.28, 0.30, 0.32, 0.34, 0.36, 0.38, 0.40)
CODE_BYTES = 512

Words = NDArray[np.uint64]


def noise_codes(count: int, rng: np.random.Generator, wavelength: float = 24.0) -> tuple[Words, Words]:
    """Codes and masks `(count, 32)`: wavelength in pixels of 512 angles, sigma 0.4 on the frequency axis."""
    angles = 4 * COLUMNS
    frequency = np.arange(1, angles // 2)
    response = np.zeros(angles)
    ratio = np.log(frequency * wavelength / angles) / np.log(0.4)
    response[frequency] = np.exp(-(ratio**2) / 2)
    spectrum = np.fft.fft(rng.normal(size=(count, ROWS, angles)))
    answer = np.fft.ifft(spectrum * response)[..., :: angles // COLUMNS]
    parts = np.stack([answer.real, answer.imag], axis=2)
    strength = np.abs(parts)
    fragile = np.quantile(strength.reshape(count, -1), 0.3, axis=1)
    mask = (strength > fragile[:, None, None, None]) & ~_lids(count, rng)[:, :, None]
    bits = (parts > 0) & mask
    words = [np.stack([packed(eye[None]) for eye in which]) for which in (bits, mask)]
    return words[0], words[1]


def _lids(count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """`(count, 8, 128)`: an upper lid over 10 to 50 angles of the outermost row, a lower one of half."""
    width = rng.uniform(10, 50, (count, 1, 1)) / 2 * (np.arange(ROWS)[:, None] / (ROWS - 1))
    middle = rng.normal(32, 3, (count, 1, 1))
    away = np.abs((np.arange(COLUMNS) - middle + 64) % COLUMNS - 64)
    return (away < width) | (64 - away < width / 2)


@njit(cache=True, nogil=True)
def _sum(words: Words) -> np.uint64:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _scan_rows(
    own_codes: Words, own_masks: Words, codes: Words, masks: Words, usual: float, best: NDArray[np.float32]
) -> None:
    """The other layout: a code's words follow each other."""
    for n in range(len(codes)):
        least = 0.5
        for r in range(len(own_codes)):
            common, differ = np.uint64(0), np.uint64(0)
            for word in range(codes.shape[1]):
                both = own_masks[r, word] & masks[n, word]
                common += popcount(both)
                differ += popcount((own_codes[r, word] ^ codes[n, word]) & both)
            if common:
                distance = 0.5 - (0.5 - differ / common) * np.sqrt(min(1.0, common / usual))
                least = min(least, distance)
        best[n] = least


def _scan_numpy(own_codes: Words, own_masks: Words, codes: Words, masks: Words) -> NDArray[np.float64]:
    best = np.full(len(codes), 0.5)
    usual = PARAMS.usual * 2048
    for code, mask in zip(own_codes, own_masks, strict=True):
        both = masks & mask
        common = np.maximum(np.bitwise_count(both).sum(axis=1, dtype=np.int64), 1)
        differ = np.bitwise_count((codes ^ code) & both).sum(axis=1, dtype=np.int64)
        best = np.minimum(best, 0.5 - (0.5 - differ / common) * np.sqrt(np.minimum(1.0, common / usual)))
    return best


def _rate(run: Callable[[], object], codes: int, times: int = 5) -> float:
    """Million codes a second of this thread's processor time, best of several runs."""
    run()
    taken = []
    for _ in range(times):
        began = time.thread_time()
        run()
        taken.append(time.thread_time() - began)
    return codes / min(taken) / 1e6


def measure(count: int) -> dict[str, object]:
    """Everything, as JSON values."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(SEED)
    codes, masks = noise_codes(EYES + PROBES, rng)
    probes = [
        IrisForm(EyePosition.RIGHT, codes[EYES + i], masks[EYES + i], IrisCoder.LOG_GABOR_1, 50)
        for i in range(PROBES)
    ]
    times = -(-count // EYES)
    one = blocked(codes[:EYES], masks[:EYES])
    blocks = np.tile(one, (times, 1, 1, 1))
    count = EYES * times
    flat = blocks.reshape(-1)
    streams = [_rate(lambda: _sum(flat), count)]
    # 1. in full, and abandoned early
    full = max(_rate(lambda p=probe: scan(p, blocks), count) for probe in track(probes, "in full"))  # type: ignore[misc]
    within = {
        limit: [_rate(lambda p=probe, at=limit: scan_within(p, blocks, at), count, 3) for probe in probes]  # type: ignore[misc]
        for limit in track(LIMITS, "abandoned early")
    }
    same = all(
        np.array_equal(scan_within(probe, one, limit)[0], np.flatnonzero(scan(probe, one) <= limit))
        for probe in probes
        for limit in LIMITS
    )
    # 2. the other ways
    turned = [rotated(probes[0].code, probes[0].mask, step) for step in range(-MAX_STEPS, MAX_STEPS + 1)]
    own_codes, own_masks = (np.ascontiguousarray(words) for words in np.array(turned).transpose(1, 0, 2))
    rows = np.tile(codes[:EYES], (times, 1)), np.tile(masks[:EYES], (times, 1))
    best = np.empty(count, dtype=np.float32)
    in_rows = _rate(lambda: _scan_rows(own_codes, own_masks, *rows, PARAMS.usual * 2048, best), count, 3)
    agreeing = float(np.abs(best[:EYES] - scan(probes[0], one)).max())
    numpy_rate = _rate(lambda: _scan_numpy(own_codes, own_masks, codes[:EYES], masks[:EYES]), EYES, 2)
    index = faiss.IndexBinaryFlat(2048)
    index.add(rows[0].view(np.uint8))
    queries = own_codes.view(np.uint8)
    faiss_rate = _rate(lambda: index.search(queries, 10), count, 3)
    streams.append(_rate(lambda: _sum(flat), count))
    memory = max(streams)

    def row(rate: float) -> dict[str, float]:
        return {"million_codes_per_s": round(rate, 2), "share_of_memory": round(rate / memory, 3)}

    return {
        "what": f"exact scans of masked 2,048-bit iris codes at {ROTATIONS} rotations, one core",
        "command": f"python -m benchmarks.iris_scan --codes {count}",
        **provenance(),
        "codes": count,
        "valid_bits_mean": round(float(np.bitwise_count(masks).sum(axis=1).mean()), 1),
        "memory_GB_per_s": round(memory * CODE_BYTES / 1e3, 2),
        "memory_million_codes_per_s": round(memory, 2),
        "in_full": row(full),
        "abandoned_early": {str(limit): row(max(rates)) for limit, rates in within.items()},
        "abandoned_early_finds_the_same": same,
        "codes_in_rows": row(in_rows),
        "codes_in_rows_largest_difference": agreeing,
        "numpy_bitwise_count": row(numpy_rate),
        "faiss_binary_flat_without_masks": row(faiss_rate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the scan of iris codes")
    parser.add_argument("--codes", type=int, default=400_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    report = measure(arguments.codes)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
