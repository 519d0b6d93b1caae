"""Another engine beside ours, on the same pairs: NBIS of NIST, through the package `nbis-py`.

    mindtct + Bozorth3            NBIS as it comes
    mindtct + our comparison      what the minutiae and what the comparison contribute

mindtct reads the image that our extraction reads, at 500 ppi. Minutiae travel between processes as the
package's own ISO records, from which Bozorth3 gives the same scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from capture.errors import ImageRefused
from capture.fingerprint.extract import to_500_ppi
from capture.fingerprint.template import MAX_MINUTIAE, Extractor, FingerprintTemplate
from capture.sample import FingerPosition, Modality, Sample
from matching.error_rates import FAILED, Pairs
from rekam.offline.prints import Compared, read_print
from rekam.offline.samples import EvaluationError, all_pairs, all_scores, chunked, mapped, with_progress

if TYPE_CHECKING:
    import nbis

MINDTCT_BOZORTH3 = "mindtct + Bozorth3"
MINDTCT_OURS = "mindtct + our comparison"
MAX_IMPOSTORS = 200_000  # of a set: 2.5 minutes of Bozorth3; beyond, a sample


@dataclass(frozen=True, slots=True)
class PeerPrint:
    """What mindtct made of one print: the package's record, and our template; both None for no minutiae."""

    record: bytes | None
    template: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class PeerResult:
    """A pipeline's scores of one set, and how many prints gave it nothing to compare."""

    pipeline: str
    pairs: Pairs
    failures: int


def require_peers() -> None:
    """Raise `EvaluationError` where the package is missing."""
    try:
        import nbis  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise EvaluationError("--peers needs the package nbis-py: pip install nbis-py==0.1.3") from error


def peer_pairs(compared: Compared, seed: int) -> NDArray[np.bool_]:
    """Which pairs peers compare: all, or of more impostor pairs than `MAX_IMPOSTORS` a seeded sample."""
    impostors = np.flatnonzero(~compared.pairs.genuine)
    chosen = np.ones(len(compared.pairs), np.bool_)
    if len(impostors) > MAX_IMPOSTORS:
        left_out = np.random.default_rng(seed).permutation(impostors)[MAX_IMPOSTORS:]
        chosen[left_out] = False
    return chosen


def peer_results(
    compared: Compared, chosen: NDArray[np.bool_], *, workers: int, console: Console
) -> list[PeerResult]:
    """Extract and compare a set by both pipelines, pairs `chosen` `(n,) bool` of `all_pairs`.

    Cost, a core: 30 ms a print, 0.7 ms an impostor pair, 16 ms a genuine pair. Raises `EvaluationError`.
    """
    name = compared.prints.name
    paths = [impression.path for impression in compared.prints.impressions]
    with mapped(mindtct_file, (paths, repeat(compared.prints.ppi)), min(workers, len(paths))) as made:
        prints = list(with_progress(made, len(paths), f"{name}: mindtct", console))
    failures = sum(one.record is None for one in prints)

    records = tuple(one.record for one in prints)
    first, second = (side[chosen] for side in all_pairs(len(paths)))
    parts = [(first[slice(*chunk)], second[slice(*chunk)]) for chunk in chunked(len(first), workers)]
    with mapped(bozorth3_chunk, (repeat(records), parts), min(workers, len(parts))) as scored:
        bozorth3 = np.concatenate(list(with_progress(scored, len(parts), f"{name}: Bozorth3", console)))

    templates = tuple(one.template for one in prints)
    text = f"{name}: mindtct with our comparison"
    ours = all_scores(Modality.FINGERPRINT, templates, workers=workers, text=text, console=console)
    pairs = compared.pairs[chosen]
    return [
        PeerResult(pipeline, Pairs(scores, pairs.genuine, pairs.finger_a, pairs.finger_b), failures)
        for pipeline, scores in ((MINDTCT_BOZORTH3, bozorth3), (MINDTCT_OURS, ours[chosen]))
    ]


def mindtct_file(path: Path, ppi: float | None) -> PeerPrint:
    """Find one file's minutiae by mindtct; a file that is no image gives none."""
    try:
        return mindtct(read_print(path, ppi))
    except ImageRefused:
        return PeerPrint(None, None)


def mindtct(sample: Sample) -> PeerPrint:
    """Find a sample's minutiae by mindtct, at 500 ppi. Cost: 30 ms."""
    image = to_500_ppi(sample).image
    _, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    found = _nbis().extract_minutiae(png.tobytes())
    if not found.get():
        return PeerPrint(None, None)
    return PeerPrint(bytes(found.to_iso_19794_2_2005()), _template(found, image.shape).to_bytes())


def bozorth3_chunk(
    records: tuple[bytes | None, ...], part: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Bozorth3's scores of the pairs `part`, -inf where a record is missing."""
    loaded = _loaded(records)
    scores = np.full(len(part[0]), FAILED)
    for k, (i, j) in enumerate(zip(*part, strict=True)):
        a, b = loaded[i], loaded[j]
        if a is not None and b is not None:
            scores[k] = a.compare(b)
    return scores


@cache
def _nbis() -> "nbis.NbisExtractor":
    import nbis

    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    return nbis.new_nbis_extractor(settings)


@lru_cache(maxsize=1)
def _loaded(records: tuple[bytes | None, ...]) -> "Sequence[nbis.Minutiae | None]":
    """The package's objects of a set, kept for the next chunk of the same set."""
    return [None if record is None else _nbis().load_iso_19794_2_2005(record) for record in records]


def _template(found: "nbis.Minutiae", shape: tuple[int, ...]) -> FingerprintTemplate:
    """Our template of mindtct's minutiae, the most reliable first.

    Its reliabilities mean something else than ours, so they are raised to where every minutia counts.
    """
    from nbis import MinutiaKind

    best = sorted(found.get(), key=lambda m: (-m.reliability(), m.y(), m.x()))[:MAX_MINUTIAE]
    columns = np.array([(m.x(), m.y(), m.angle(), m.reliability()) for m in best], np.float32)
    return FingerprintTemplate(
        x=np.clip(columns[:, 0], 0, shape[1] - 1),
        y=np.clip(columns[:, 1], 0, shape[0] - 1),
        direction=(np.radians(columns[:, 2]) % np.float32(2 * np.pi)).astype(np.float32),
        ending=np.array([m.kind() == MinutiaKind.RIDGE_ENDING for m in best]),
        reliability=(0.5 + 0.5 * np.clip(columns[:, 3], 0, 1)).astype(np.float32),
        width=shape[1],
        height=shape[0],
        position=FingerPosition.UNKNOWN,
        quality=0,
        extractor=Extractor.FOREIGN,
    )
