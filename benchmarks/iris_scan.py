"""Exact 1:N scans of iris codes: codes a second on one core, beside other ways and the memory's own speed.

    python -m benchmarks.iris_scan [--codes 400000]

Codes are made as a coder makes them, from noise: log-Gabor phase of 8 rows at 128 angles, so that
neighbouring bits depend on each other; 12 % fragile bits and lids masked, so that valid bits are about as
many, and as differently many, as in the development eyes. 20,000 different eyes are repeated to the size
asked for, far larger than any cache; the development eyes, repeated as often as it takes, are scanned as
well. Processor time of one thread, the best of several rounds; `share_of_memory` is what 512 bytes a code
are of the rate at which the same core sums the same array, measured before and after.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from numba import njit
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.provenance import ROOT, provenance
from capture.decode import decode_iris_image
from capture.iris.extract import IrisExtractor
from capture.iris.template import COLUMNS, GROUP_WORDS, ROWS, IrisCoder, packed, rotated
from capture.sample import EyePosition
from matching.iris.comparison import MAX_STEPS, PARAMS, ROTATIONS, IrisForm, popcount
from matching.iris.scan import LANES, blocked, scan, scan_within

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
    fragile = np.quantile(strength.reshape(count, -1), 0.12, axis=1)
    mask = (strength > fragile[:, None, None, None]) & ~_lids(count, rng)[:, :, None]
    bits = (parts > 0) & mask
    words = [np.stack([packed(eye[None]) for eye in which]) for which in (bits, mask)]
    return words[0], words[1]


def _lids(count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """`(count, 8, 128)`: an upper lid over up to 55 angles, a lower one over up to 30."""
    outwards = np.arange(ROWS)[:, None] / (ROWS - 1)
    covered = np.zeros((count, ROWS, COLUMNS), dtype=np.bool_)
    for middle, narrowest, widest, inmost in ((100, 5, 55, 0.8), (32, 0, 30, 0.4)):
        width = rng.uniform(narrowest, widest, (count, 1, 1)) * (inmost + (1 - inmost) * outwards)
        away = np.abs((np.arange(COLUMNS) - rng.normal(middle, 3, (count, 1, 1)) + 64) % COLUMNS - 64)
        covered |= away < width / 2
    return covered


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


def development_codes(folder: Path) -> tuple[Words, Words]:
    """Codes and masks `(n, 32)` of all eyes in a folder of images."""
    extractor = IrisExtractor()
    made = [
        extraction.template
        for path in track(sorted(folder.glob("*.jpg")), "development eyes")
        if (extraction := extractor.extract(decode_iris_image(path.read_bytes()))).template is not None
    ]
    if not made:
        raise SystemExit(f"no irises in {folder}: set REKAM_DATA to the folder of development data")
    codes, masks = (np.stack([getattr(t, name)[:GROUP_WORDS] for t in made]) for name in ("code", "mask"))
    return codes, masks


def _forms(codes: Words, masks: Words) -> list[IrisForm]:
    return [
        IrisForm(EyePosition.UNKNOWN, code, mask, IrisCoder.LOG_GABOR_1, 50)
        for code, mask in zip(codes, masks, strict=True)
    ]


def _best_rates(runs: Sequence[Callable[[], object]], codes: int, rounds: int = 5) -> list[float]:
    """Million codes a second of this thread's processor time: the best of several rounds, taking turns."""
    best = [0.0] * len(runs)
    for run in runs:
        run()
    for _ in range(rounds):
        for i, run in enumerate(runs):
            began = time.thread_time()
            run()
            best[i] = max(best[i], codes / (time.thread_time() - began) / 1e6)
    return best


@dataclass(frozen=True, slots=True)
class Rates:
    """Million codes a second: in full, and by limit; whether both found the same."""

    full: float
    within: dict[float, float]
    same: bool


def rates(probes: list[IrisForm], one: Words, blocks: Words) -> Rates:
    """How fast `blocks`, which are `one` repeated, are scanned for the probes, the best of them."""
    same = all(
        np.array_equal(
            scan_within(probe, one, limit)[0], np.flatnonzero(scan(probe, one) <= np.float32(limit))
        )
        for probe in probes
        for limit in LIMITS
    )
    runs: list[Callable[[], object]] = []
    for probe in probes:
        runs.append(partial(scan, probe, blocks))
        runs += [partial(scan_within, probe, blocks, limit) for limit in LIMITS]
    measured = np.array(_best_rates(runs, len(blocks) * LANES)).reshape(len(probes), -1).max(axis=0)
    return Rates(measured[0], dict(zip(LIMITS, measured[1:], strict=True)), same)


def measure(count: int, data: Path) -> dict[str, object]:
    """Everything, as JSON values."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(SEED)
    codes, masks = noise_codes(EYES + PROBES, rng)
    probes = _forms(codes[EYES:], masks[EYES:])
    times = -(-count // EYES)
    one = blocked(codes[:EYES], masks[:EYES])
    blocks = np.tile(one, (times, 1, 1, 1))
    count = EYES * times
    flat = blocks.reshape(-1)
    streams = _best_rates([lambda: _sum(flat)], count)
    # 1. in full, and abandoned early
    made_up = rates(probes, one, blocks)
    eye_codes, eye_masks = development_codes(data / "iris" / "casia_v1")
    some = rng.permutation(len(eye_codes))
    some_eyes = blocked(eye_codes[some[PROBES:]], eye_masks[some[PROBES:]])
    eyes = rates(
        _forms(eye_codes[some[:PROBES]], eye_masks[some[:PROBES]]),
        some_eyes,
        np.tile(some_eyes, (count // len(some_eyes) // LANES, 1, 1, 1)),
    )
    # 2. the other ways
    turned = [rotated(probes[0].code, probes[0].mask, step) for step in range(-MAX_STEPS, MAX_STEPS + 1)]
    own_codes, own_masks = (np.ascontiguousarray(words) for words in np.array(turned).transpose(1, 0, 2))
    rows = np.tile(codes[:EYES], (times, 1)), np.tile(masks[:EYES], (times, 1))
    best = np.empty(count, dtype=np.float32)
    index = faiss.IndexBinaryFlat(2048)
    index.add(rows[0].view(np.uint8))
    queries = own_codes.view(np.uint8)
    in_rows, by_faiss = _best_rates(
        [
            lambda: _scan_rows(own_codes, own_masks, *rows, PARAMS.usual * 2048, best),
            lambda: index.search(queries, 10),
        ],
        count,
    )
    difference = float(np.abs(best[:EYES] - scan(probes[0], one)).max())
    by_numpy = _best_rates(
        [lambda: _scan_numpy(own_codes, own_masks, codes[:EYES], masks[:EYES])], EYES, rounds=2
    )[0]
    streams += _best_rates([lambda: _sum(flat)], count)
    memory = max(streams)

    def row(rate: float) -> dict[str, float]:
        return {"million_codes_per_s": round(rate, 2), "share_of_memory": round(rate / memory, 3)}

    def rows_of(measured: Rates, masks: Words) -> dict[str, object]:
        valid = np.bitwise_count(masks).sum(axis=1)
        return {
            "valid_bits": {"mean": round(float(valid.mean())), "deviation": round(float(valid.std()))},
            "in_full": row(measured.full),
            "abandoned_early": {str(limit): row(rate) for limit, rate in measured.within.items()},
            "abandoned_early_finds_the_same": measured.same,
        }

    return {
        "what": f"exact scans of masked 2,048-bit iris codes at {ROTATIONS} rotations, one core",
        "command": f"python -m benchmarks.iris_scan --codes {count}",
        **provenance(),
        "codes": count,
        "memory_GB_per_s": round(memory * CODE_BYTES / 1e3, 2),
        "memory_million_codes_per_s": round(memory, 2),
        "made_of_noise": rows_of(made_up, masks),
        "development_eyes": rows_of(eyes, eye_masks),
        "codes_in_rows": row(in_rows),
        "codes_in_rows_largest_difference": difference,
        "numpy_bitwise_count": row(by_numpy),
        "faiss_binary_flat_without_masks": row(by_faiss),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the scan of iris codes")
    parser.add_argument("--codes", type=int, default=400_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    report = measure(arguments.codes, data)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
