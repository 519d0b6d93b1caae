"""Ways to find a face among many vectors: processor time and mates found.

    python -m benchmarks.face_scan [--faces 1000000]

Vectors are random directions of 128 values; a probe is its mate with noise, at a cosine of 0.55: lower than
genuine pairs of a good network. Kept is the exact inner product; decision 13 says why.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from benchmarks.provenance import ROOT, provenance

RESULT = ROOT / "benchmarks" / "results" / "face_scan.json"
VALUES = 128
PROBES = 100
NAMED = 5


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, the best of three."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return round(1000 * min(times), 2)


def measure(count: int) -> dict[str, dict[str, float]]:
    """Milliseconds a probe, bytes a face and share of mates among the first five, of each way."""
    rng = np.random.default_rng(2026)
    vectors = rng.normal(size=(count, VALUES)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mates = rng.integers(0, count, PROBES)
    probes = vectors[mates] + 0.135 * rng.normal(size=(PROBES, VALUES)).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    higher = [
        int((vectors @ probe > vectors[mate] @ probe).sum())
        for probe, mate in zip(probes, mates, strict=True)
    ]
    ways = {
        "exact, einsum": {
            "ms": milliseconds(lambda: np.einsum("nd,d->n", vectors, probes[0])),
            "bytes": 4.0 * VALUES,
            "found": float(np.mean(np.array(higher) < NAMED)),
        }
    }
    for kind, size in (("SQ8", 128.0), ("PQ64x4fs,Refine(SQ8)", 160.0)):
        index = faiss.index_factory(VALUES, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:20_000])
        index.add(vectors)
        if "PQ" in kind:
            index.k_factor = 20  # type: ignore[attr-defined]  # of IndexRefine
        _, named = index.search(probes, NAMED)
        ways[kind] = {
            "ms": milliseconds(lambda index=index: index.search(probes[:1], NAMED)),  # type: ignore[misc]
            "bytes": size,
            "found": float(np.mean([mate in row for mate, row in zip(mates, named, strict=True)])),
        }
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description="compare ways to search faces")
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    report = {
        "what": "search among face vectors",
        "command": f"OMP_NUM_THREADS=1 python -m benchmarks.face_scan --faces {arguments.faces}",
        **provenance(),
        "faces": {str(count): measure(count) for count in (arguments.faces // 10, arguments.faces)},
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["faces"], indent=1))


if __name__ == "__main__":
    main()
