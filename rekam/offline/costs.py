"""What extraction and comparison cost on this machine, ours and a peer's side by side in one run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.sample import Sample
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from rekam.offline.peers import MINDTCT_BOZORTH3, bozorth3_chunk, mindtct
from rekam.offline.prints import Compared, read_print
from rekam.offline.samples import all_pairs

OURS = "Rekam"
PRINTS = 12
PAIRS = 300


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds: to extract a print, to compare an impostor pair and a genuine one; NaN if unknown."""

    extraction: float
    impostor: float
    genuine: float


def costs(compared: Sequence[Compared], extractor: ExtractorChoice, *, peers: bool) -> dict[str, Cost]:
    """CPU time of each pipeline, one after another in this process, on some prints and pairs of the sets.

    Prints are spread over the sets and their fingers; pairs are of the first set. Empty where no print gave a
    template. Cost: some `PRINTS` extractions; with peers also `PAIRS` comparisons of 16 ms.
    """
    # 1. The prints, and the pairs of either kind both of whose prints gave a template.
    samples = []
    for result in compared:
        usable = [
            impression
            for impression, made in zip(result.prints.impressions, result.extracted, strict=True)
            if made.template is not None
        ]
        some = [usable[k] for k in _spread(len(usable), max(1, PRINTS // len(compared)))]
        samples += [read_print(one.path, result.prints.ppi) for one in some]
    if not samples:
        return {}
    one_set = compared[0]
    first, second = all_pairs(len(one_set.extracted))
    comparable = np.isfinite(one_set.pairs.score)
    kinds = [np.flatnonzero(kind & comparable) for kind in (~one_set.pairs.genuine, one_set.pairs.genuine)]
    kinds = [kind[_spread(len(kind), PAIRS)] for kind in kinds]

    # 2. Ours.
    engine = FingerprintExtractor(extractor)
    templates = [made.template for made in one_set.extracted]
    described = [None if one is None else cylinders(FingerprintTemplate.from_bytes(one)) for one in templates]

    def compare_ours(kind: NDArray[np.int64]) -> None:
        for i, j in zip(first[kind], second[kind], strict=True):
            a, b = described[i], described[j]
            if a is not None and b is not None:
                similarity(a, b)

    found = {OURS: _cost(engine.extract, samples, compare_ours, kinds)}

    # 3. The peer's.
    if peers:
        needed = {int(i) for kind in kinds for i in (*first[kind], *second[kind])}
        records = tuple(
            mindtct(read_print(impression.path, one_set.prints.ppi)).record if i in needed else None
            for i, impression in enumerate(one_set.prints.impressions)
        )
        found[MINDTCT_BOZORTH3] = _cost(
            mindtct, samples, lambda kind: bozorth3_chunk(records, (first[kind], second[kind])), kinds
        )
    return found


def _cost(
    extract: Callable[[Sample], object],
    samples: Sequence[Sample],
    compare: Callable[[NDArray[np.int64]], object],
    kinds: Sequence[NDArray[np.int64]],
) -> Cost:
    """Time both steps, each after one that is not counted: it loads or compiles."""
    extract(samples[0])
    start = time.process_time()
    for sample in samples:
        extract(sample)
    extraction = 1000 * (time.process_time() - start) / len(samples)
    times = []
    for kind in kinds:
        compare(kind[:1])
        start = time.process_time()
        compare(kind)
        times.append(1000 * (time.process_time() - start) / len(kind) if len(kind) else float("nan"))
    return Cost(extraction, times[0], times[1])


def _spread(n: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` of 0 .. n - 1, evenly."""
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)
