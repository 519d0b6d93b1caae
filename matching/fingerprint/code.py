"""One binary code a finger: 512 bits whose Hamming distance says whether two prints may be of one finger.

What each minutia sees of its neighbours (`matching.fingerprint.descriptors`) is projected, softly assigned to
clusters and summed there, and the sums are projected to bits: an aggregation of local descriptors whose every
part is learnt (R. Arandjelovic et al., "NetVLAD", CVPR 2016), by `benchmarks/train_finger_code.py` on
synthetic prints. Turning or shifting a print changes nothing but rounding. The code is a first filter: whom
it names is compared exactly.
"""

from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import FingerprintTemplate
from matching.errors import ParametersUnavailable
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.descriptors import RAW_SIZE, neighbourhoods

CODE_VERSION = 1
CODE_WORDS = 8
CODE_BITS = 64 * CODE_WORDS
# A print's detail is how many reliable minutiae it has: where one bin ends and the next begins.
DETAIL_ENDS = (8, 14, 20, 27, 35, 45)
DETAIL_BINS = len(DETAIL_ENDS) + 1


@dataclass(frozen=True, slots=True, eq=False)
class CodeModel:
    """What was learnt once; arrays are float32 and read-only.

    F projected values and the type of each minutia, H hidden, K clusters and one whose content is dropped, D
    values summed in each. `evidence` `(bins, bins, bits + 1)`. `identity` names this fit.
    """

    mean: NDArray[np.float32]  # (384,)
    projection: NDArray[np.float32]  # (384, F)
    hidden: NDArray[np.float32]  # (F + 2, H), the last row is what is added
    clusters: NDArray[np.float32]  # (H + 1, K + 1)
    values: NDArray[np.float32]  # (H + 1, D)
    bits: NDArray[np.float32]  # (K D + 1, 512)
    evidence: NDArray[np.float32]
    identity: str

    def __post_init__(self) -> None:
        projected, hidden = self.projection.shape[1], self.hidden.shape[1]
        clusters, values = self.clusters.shape[1] - 1, self.values.shape[1]
        expected = {
            "mean": (RAW_SIZE,),
            "projection": (RAW_SIZE, projected),
            "hidden": (projected + 2, hidden),
            "clusters": (hidden + 1, clusters + 1),
            "values": (hidden + 1, values),
            "bits": (clusters * values + 1, CODE_BITS),
            "evidence": (DETAIL_BINS, DETAIL_BINS, CODE_BITS + 1),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise TypeError(f"{name} is {shape} float32, not {array.shape} {array.dtype}")
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
                arrays = {f.name: data[f.name].astype(np.float32) for f in fields(cls)[:-1]}
                weights = arrays["bits"] * data["bits_scale"].astype(np.float32)  # kept as whole numbers
                arrays["bits"] = np.vstack([weights, data["bits_offset"].astype(np.float32)])
                return cls(**arrays, identity=str(data["identity"]))
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ParametersUnavailable(f"the finger codes' model cannot be read: {error}") from error


def finger_code(template: FingerprintTemplate, model: CodeModel | None = None) -> NDArray[np.uint64]:
    """`(8,) uint64`: the finger's code; zeros where nothing can be said, detail is in bin 0 then.

    Never raises. Cost: about 0.25 ms on one thread; thread-safe.
    """
    model = model or CodeModel.load()
    used = template.reliability >= CYLINDER_PARAMS.min_reliability
    seen = neighbourhoods(template.x[used], template.y[used], template.direction[used])
    ending = template.ending[used][seen.any(axis=1)]
    seen = seen[seen.any(axis=1)]
    if len(seen) == 0:
        return np.zeros(CODE_WORDS, dtype=np.uint64)
    # 1. each minutia: projected to unit length, then what it is and which clusters it belongs to
    projected = (seen - model.mean) @ model.projection
    projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-9)
    token = np.column_stack([projected, ending - np.float32(0.7)])
    hidden = np.maximum(token @ model.hidden[:-1] + model.hidden[-1], 0)
    logit = hidden @ model.clusters[:-1] + model.clusters[-1]
    share = np.exp(logit - logit.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    values = hidden @ model.values[:-1] + model.values[-1]
    # 2. the finger: sums by cluster, of unit length together, and the signs of their projections
    sums = (share[:, :-1].T @ values).ravel()
    sums /= max(float(np.linalg.norm(sums)), 1e-9)
    positive = sums @ model.bits[:-1] + model.bits[-1] > 0
    return np.packbits(positive, bitorder="little").view(np.uint64)


def finger_detail(template: FingerprintTemplate) -> int:
    """How many minutiae the code is made of; `detail_bin` says which rows of the evidence that means."""
    return int((template.reliability >= CYLINDER_PARAMS.min_reliability).sum())


def detail_bin(detail: int) -> int:
    """0 to `DETAIL_BINS` - 1: prints that tell about as much share a bin."""
    return int(np.searchsorted(DETAIL_ENDS, detail, side="right"))


def code_evidence() -> NDArray[np.float32]:
    """`(bins, bins, 513)`: log10 likelihood ratio of a Hamming distance, by the bins of both prints' detail.

    Symmetric in the bins and not rising with the distance.
    """
    return CodeModel.load().evidence


def code_identity() -> str:
    """Which weights codes are made with; codes of different ones are not comparable."""
    return CodeModel.load().identity
