"""One binary code a finger: 1,024 bits whose Hamming distance says whether two prints may be of one finger.

What each minutia sees of its neighbours (`matching.fingerprint.descriptors`) becomes a vector by a small
network; the vectors are softly assigned to clusters and summed there (after R. Arandjelovic et al.,
"NetVLAD", CVPR 2016), and the whitened sums are projected to bits. All of it is learnt by
`benchmarks/train_finger_code.py` from synthetic prints. Turning or shifting a print changes nothing but
rounding. The code is a first filter: whom it names is compared exactly.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from math import exp, sqrt
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numba import njit
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from matching.errors import ParametersUnavailable
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.descriptors import RAW_SIZE, neighbourhoods

CODE_VERSION = 2
CODE_WORDS = 16
CODE_BITS = 64 * CODE_WORDS
# A print's detail is how many reliable minutiae it has: where one bin ends and the next begins.
DETAIL_ENDS = (8, 14, 20, 27, 35, 45)
DETAIL_BINS = len(DETAIL_ENDS) + 1


@dataclass(frozen=True, slots=True, eq=False)
class CodeModel:
    """What was learnt once; arrays are read-only.

    A minutia's vector has F values, H more are hidden; there are K clusters. `evidence` is log10 of a
    likelihood ratio by both prints' bins of detail and the distance. `identity` names this fit.
    """

    first: NDArray[np.float32]  # (384 + 1, F + H), the last row is what is added
    second: NDArray[np.float32]  # (H, F)
    clusters: NDArray[np.float32]  # (F, K)
    bits: NDArray[np.int8]  # (K F, 1024)
    limits: NDArray[np.float32]  # (1024,): a bit is set above
    evidence: NDArray[np.float32]  # (bins, bins, 1024 + 1)
    identity: str

    def __post_init__(self) -> None:
        hidden, size = self.second.shape
        clusters = self.clusters.shape[1]
        expected = {
            "first": ((RAW_SIZE + 1, size + hidden), np.float32),
            "second": ((hidden, size), np.float32),
            "clusters": ((size, clusters), np.float32),
            "bits": ((clusters * size, CODE_BITS), np.int8),
            "limits": ((CODE_BITS,), np.float32),
            "evidence": ((DETAIL_BINS, DETAIL_BINS, CODE_BITS + 1), np.float32),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise TypeError(f"{name} is {shape} {dtype.__name__}, not {array.shape} {array.dtype}")
            array.setflags(write=False)

    @classmethod
    @cache
    def load(cls) -> "CodeModel":
        """Read the shipped model. Raises `ParametersUnavailable` where it does not fit this code."""
        with as_file(files("matching.fingerprint") / "code.npz") as path:
            return cls.from_file(path)

    @classmethod
    def from_file(cls, path: Path) -> "CodeModel":
        """Read what `benchmarks/train_finger_code.py` writes; raises `ParametersUnavailable`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                if int(data["version"]) != CODE_VERSION:
                    raise ParametersUnavailable(
                        "the finger codes were learnt for another version: "
                        "run benchmarks/train_finger_code.py"
                    )
                return cls(
                    first=data["first"].astype(np.float32),
                    second=data["second"].astype(np.float32),
                    clusters=data["clusters"].astype(np.float32),
                    bits=data["bits"],
                    limits=data["limits"].astype(np.float32),
                    evidence=data["evidence"].astype(np.float32),
                    identity=str(data["identity"]),
                )
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ParametersUnavailable(f"the finger codes' model cannot be read: {error}") from error


def finger_code(template: FingerprintTemplate, model: CodeModel | None = None) -> NDArray[np.uint64]:
    """`(16,) uint64`: the finger's code; zeros where no minutia sees another, its detail is in bin 0 then.

    Never raises. Cost: about 0.3 ms on one thread, without the GIL; thread-safe.
    """
    model = model or CodeModel.load()
    used = template.reliability >= CYLINDER_PARAMS.min_reliability
    seen = neighbourhoods(template.x[used], template.y[used], template.direction[used])
    sums = _cluster_sums(seen, model.first, model.second, model.clusters)
    if not sums.any():
        return np.zeros(CODE_WORDS, dtype=np.uint64)
    code: NDArray[np.uint64] = _signs(sums, model.bits, model.limits)
    return code


@njit(cache=True, nogil=True, fastmath=True)
def _cluster_sums(
    seen: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    clusters: NDArray[np.float32],
) -> NDArray[np.float32]:
    """`(K F,)` of unit length: minutiae's vectors of unit length, summed by cluster; zeros for none.

    A vector's length before says how much its minutia sees; the root of it is its weight.
    """
    hidden, size = second.shape
    count = clusters.shape[1]
    inner = np.empty(size + hidden, dtype=np.float32)
    share = np.empty(count, dtype=np.float32)
    sums = np.zeros((count, size), dtype=np.float32)
    for row in range(len(seen)):
        # 1. the vector of a minutia that sees others
        inner[:] = first[RAW_SIZE]
        alone = True
        for k in range(RAW_SIZE):
            value = seen[row, k]
            if value != 0:  # half of the cells are empty
                alone = False
                for j in range(size + hidden):
                    inner[j] += value * first[k, j]
        if alone:
            continue
        for k in range(hidden):
            value = inner[size + k]
            if value > 0:
                for j in range(size):
                    inner[j] += value * second[k, j]
        length = np.float32(0)
        for j in range(size):
            length += inner[j] * inner[j]
        length = np.float32(max(sqrt(length), 1e-9))
        # 2. what of it goes to which cluster
        share[:] = 0
        for j in range(size):
            value = inner[j] / length
            for k in range(count):
                share[k] += value * clusters[j, k]
        top, total = share.max(), np.float32(0)
        for k in range(count):
            share[k] = np.float32(exp(share[k] - top))
            total += share[k]
        for k in range(count):
            weight = share[k] / (total * np.float32(sqrt(length)))
            for j in range(size):
                sums[k, j] += weight * inner[j]
    whole = np.float32(0)
    for k in range(count):
        for j in range(size):
            whole += sums[k, j] * sums[k, j]
    if whole > 0:
        sums *= np.float32(1 / sqrt(whole))
    return sums.ravel()


@njit(cache=True, nogil=True, fastmath=True)
def _signs(
    sums: NDArray[np.float32], bits: NDArray[np.int8], limits: NDArray[np.float32]
) -> NDArray[np.uint64]:
    projected = np.zeros(CODE_BITS, dtype=np.float32)
    for k in range(len(sums)):
        value = sums[k]
        for j in range(CODE_BITS):
            projected[j] += value * np.float32(bits[k, j])
    code = np.zeros(CODE_WORDS, dtype=np.uint64)
    for j in range(CODE_BITS):
        if projected[j] > limits[j]:
            code[j >> 6] |= np.uint64(1) << np.uint64(j & 63)
    return code


def finger_detail(template: FingerprintTemplate) -> int:
    """How many minutiae the code is made of; `detail_bin` says which rows of the evidence that means."""
    return int((template.reliability >= CYLINDER_PARAMS.min_reliability).sum())


def detail_bin(detail: int) -> int:
    """0 to `DETAIL_BINS` - 1: prints that tell about as much share a bin."""
    return int(np.searchsorted(DETAIL_ENDS, detail, side="right"))


def code_evidence() -> NDArray[np.float32]:
    """`(bins, bins, 1025)`: log10 likelihood ratio of a Hamming distance, by the bins of both prints' detail.

    Symmetric in the bins and not rising with the distance.
    """
    return CodeModel.load().evidence


def code_identity() -> str:
    """Which weights codes are made with; codes of different ones are not comparable."""
    return CodeModel.load().identity
