"""Sets of prints: which files a folder holds, their templates, and the scores of every two.

A set is a folder of files `<finger>_<impression>.*`: the finger is what stands before the last underscore,
the impression the rest of the name. What sets of all modalities share is `rekam/offline/samples.py`'s.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from capture.decode import decode_image
from capture.errors import ImageProblem, ImageRefused
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.sample import FingerPosition, Modality, Sample
from matching.error_rates import Pairs
from rekam.offline.samples import (
    EvaluationError,
    Extracted,
    advice,
    all_pairs,
    all_scores,
    extraction_version,
    labelled_pairs,
    mapped,
    natural,
    read_bytes,
    require_names,
    through_cache,
    with_progress,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".wsq", ".jp2", ".j2k", ".iso")


# --- 1. which prints


@dataclass(frozen=True, slots=True)
class Impression:
    """One file of a set: `stem` is its name without suffix, `<finger>_<number>`."""

    path: Path
    finger: str
    number: str

    @property
    def stem(self) -> str:
        """What names the impression in a set."""
        return self.path.stem


@dataclass(frozen=True, slots=True, eq=False)
class PrintSet:
    """A folder's impressions in natural order, the resolution to assume, and the files left out."""

    name: str
    ppi: float | None
    impressions: tuple[Impression, ...]
    ignored: tuple[str, ...]


def print_set(folder: Path, ppi: float | None = None) -> PrintSet:
    """Find the impressions in `folder`. Raises `EvaluationError` where no error rate can be had from them."""
    # 1. Files whose name and suffix say what they are.
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise EvaluationError(f"{folder} is no readable folder: {error.strerror}") from error
    impressions, ignored = [], []
    for path in files:
        finger, underscore, number = path.stem.rpartition("_")
        if path.suffix.lower() in IMAGE_SUFFIXES and underscore and finger and number:
            impressions.append(Impression(path, finger, number))
        else:
            ignored.append(path.name)
    if not impressions:
        raise EvaluationError(
            f"{folder} holds no print named <finger>_<impression> with one of {IMAGE_SUFFIXES}"
        )

    # 2. One file an impression.
    stems = Counter(impression.stem for impression in impressions)
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice:
        raise EvaluationError(f"{folder} holds several files of one name: {', '.join(twice[:5])}")

    # 3. Enough of them for both kinds of pairs.
    fingers = Counter(impression.finger for impression in impressions)
    if len(fingers) < 2:
        raise EvaluationError(f"{folder} holds one finger only: impostor pairs need a second one")
    if max(fingers.values()) < 2:
        raise EvaluationError(f"{folder} holds one impression a finger: genuine pairs need a second one")
    impressions.sort(key=lambda impression: (natural(impression.finger), natural(impression.number)))
    return PrintSet(folder.resolve().name, ppi, tuple(impressions), tuple(ignored))


def print_sets(folders: Sequence[Path], ppi: Sequence[float]) -> list[PrintSet]:
    """Find the sets in `folders`, `ppi` given never, once or for each. Raises `EvaluationError`."""
    if len(ppi) not in (0, 1, len(folders)):
        raise EvaluationError(
            f"--ppi is given once, or once for each of the {len(folders)} folders, not {len(ppi)} times"
        )
    each = [None] * len(folders) if not ppi else list(ppi) * (len(folders) if len(ppi) == 1 else 1)
    sets = [print_set(folder, one) for folder, one in zip(folders, each, strict=True)]
    require_names([one.name for one in sets])
    return sets


# --- 2. templates


def read_print(path: Path, ppi: float | None) -> Sample:
    """Decode a print file; `ppi`, where given, holds whatever the file says.

    Raises `ImageRefused`, `OSError`.
    """
    return decode_print(path.read_bytes(), ppi)


def decode_print(data: bytes, ppi: float | None, position: FingerPosition = FingerPosition.UNKNOWN) -> Sample:
    """As `read_print`, from a file's bytes; a record that shows another finger than `position` is refused."""
    try:
        return decode_image(data, position=position, ppi=ppi)
    except ImageRefused as refused:
        if ppi is None or refused.problem is not ImageProblem.RESOLUTION_CONFLICT:
            raise
        # Whoever evaluates a set knows the scanner better than the program that wrote the files.
        return replace(decode_image(data, position=position), ppi=ppi)


def extract(
    path: Path,
    ppi: float | None,
    cache_folder: Path | None,
    extractor: ExtractorChoice = ExtractorChoice.ACCURATE,
) -> Extracted:
    """Extract one file's template, or take it from the cache.

    A file that is no acceptable image, or too poor, is a failure to extract; one whose resolution is
    unknown or absurd raises `EvaluationError`, because the option `--ppi` is what is wrong.
    """
    data = read_bytes(path)
    key = f"{_extraction_version()} {extractor} {ppi} "
    return through_cache(
        cache_folder,
        key,
        data,
        FingerprintTemplate.from_bytes,
        lambda: _extract(path, data, ppi, extractor),
    )


def _extract(path: Path, data: bytes, ppi: float | None, extractor: ExtractorChoice) -> Extracted:
    try:
        sample = decode_print(data, ppi)
    except ImageRefused as refused:
        if refused.problem in _RESOLUTION_PROBLEMS:
            raise EvaluationError(
                f"{path}: {refused}. Give the scanner's resolution with --ppi."
            ) from refused
        return Extracted(None, 0, (), str(refused), usable=False)
    extraction = _extractor(extractor).extract(sample)
    quality = extraction.quality
    feedback = tuple(str(word) for word in quality.feedback)
    if extraction.template is None:
        return Extracted(None, quality.score, feedback, advice(feedback), usable=False)
    return Extracted(extraction.template.to_bytes(), quality.score, feedback, "", quality.usable)


_RESOLUTION_PROBLEMS = {
    ImageProblem.RESOLUTION_UNKNOWN,
    ImageProblem.RESOLUTION_OUT_OF_RANGE,
    ImageProblem.RESOLUTION_CONFLICT,
}


@cache
def _extractor(choice: ExtractorChoice) -> FingerprintExtractor:
    """One a process: loading the network takes a second."""
    return FingerprintExtractor(choice)


@cache
def _extraction_version() -> str:
    libraries = ("numpy", "cv2", "onnx", "onnxruntime", "PIL")
    return extraction_version(libraries, ("capture.decode", "capture.fingerprint.extract"), "fingerprint")


# --- 3. scores


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A set, what was extracted from it, and the scores of all its pairs.

    `pairs` are in the order of `all_pairs`; `fvc` `(n,) bool` marks those of the FVC protocol.
    """

    prints: PrintSet
    extracted: tuple[Extracted, ...]
    pairs: Pairs
    fvc: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """Of the set."""
        return self.prints.name

    @property
    def files(self) -> tuple[Impression, ...]:
        """Its prints."""
        return self.prints.impressions

    @property
    def ignored(self) -> tuple[str, ...]:
        """The files left out."""
        return self.prints.ignored


def compare_set(
    prints: PrintSet,
    *,
    workers: int,
    cache_folder: Path | None,
    console: Console,
    extractor: ExtractorChoice = ExtractorChoice.ACCURATE,
) -> Compared:
    """Extract every impression of a set and compare every two.

    Raises `EvaluationError` for unreadable files or an unknown resolution, `CaptureError` where the network
    is missing. Cost, a core: about 0.2 s an impression, fast 0.04 s, and 0.05 ms a pair.
    """
    # 1. Templates.
    paths = [impression.path for impression in prints.impressions]
    arguments = (paths, repeat(prints.ppi), repeat(cache_folder), repeat(extractor))
    with mapped(extract, arguments, min(workers, len(paths))) as results:
        extracted = tuple(with_progress(results, len(paths), f"{prints.name}: extracting", console))

    # 2. Scores of all pairs.
    templates = tuple(result.template for result in extracted)
    text = f"{prints.name}: comparing"
    scores = all_scores(Modality.FINGERPRINT, templates, workers=workers, text=text, console=console)

    # 3. Who is who.
    names = [impression.finger for impression in prints.impressions]
    pairs = labelled_pairs(scores, names)
    is_first = np.array([i == 0 or names[i] != names[i - 1] for i in range(len(names))])
    first, second = all_pairs(len(names))
    return Compared(prints, extracted, pairs, pairs.genuine | (is_first[first] & is_first[second]))
