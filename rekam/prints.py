"""Sets of prints: which files a folder holds, their templates, and the scores of every two.

A set is a folder of files `<finger>_<impression>.*`: the finger is what stands before the last underscore,
the impression the rest of the name. Results do not depend on the number of worker processes or on the cache.
"""

import ast
import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from importlib import import_module
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import capture
from capture.decode import decode_image
from capture.errors import ImageProblem, ImageRefused, TemplateRefused
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.quality import Feedback
from capture.sample import FingerPosition, Sample
from matching.error_rates import FAILED, Pairs
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import Cylinders, cylinders
from rekam.written import written

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".wsq", ".jp2", ".j2k", ".iso")

Result = TypeVar("Result")


class EvaluationError(Exception):
    """The prints cannot be evaluated as asked; the text says what to change."""


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
    impressions.sort(key=lambda impression: (_natural(impression.finger), _natural(impression.number)))
    return PrintSet(folder.resolve().name, ppi, tuple(impressions), tuple(ignored))


def print_sets(folders: Sequence[Path], ppi: Sequence[float]) -> list[PrintSet]:
    """Find the sets in `folders`, `ppi` given never, once or for each. Raises `EvaluationError`."""
    if len(ppi) not in (0, 1, len(folders)):
        raise EvaluationError(
            f"--ppi is given once, or once for each of the {len(folders)} folders, not {len(ppi)} times"
        )
    each = [None] * len(folders) if not ppi else list(ppi) * (len(folders) if len(ppi) == 1 else 1)
    sets = [print_set(folder, one) for folder, one in zip(folders, each, strict=True)]
    names = Counter(one.name for one in sets)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise EvaluationError(f"several folders are named {twice[0]}: sets need different names")
    return sets


def _natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Give a key that sorts numbers within names by value."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), text


# --- 2. templates


@dataclass(frozen=True, slots=True)
class Extracted:
    """What extraction made of one file: native template bytes, or the reason there are none."""

    template: bytes | None
    quality: int
    feedback: tuple[str, ...]
    reason: str


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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    key = hashlib.sha256(f"{_extraction_version()} {extractor} {ppi} ".encode() + data).hexdigest()
    cached = None if cache_folder is None else cache_folder / f"{key}.json"
    if cached is not None:
        found = _from_cache(cached)
        if found is not None:
            return found
    extracted = _extract(path, data, ppi, extractor)
    if cached is not None:
        _to_cache(cached, extracted)
    return extracted


def _extract(path: Path, data: bytes, ppi: float | None, extractor: ExtractorChoice) -> Extracted:
    try:
        sample = decode_print(data, ppi)
    except ImageRefused as refused:
        if refused.problem in _RESOLUTION_PROBLEMS:
            raise EvaluationError(
                f"{path}: {refused}. Give the scanner's resolution with --ppi."
            ) from refused
        return Extracted(None, 0, (), str(refused))
    extraction = _extractor(extractor).extract(sample)
    quality = extraction.quality
    feedback = tuple(str(word) for word in quality.feedback)
    if extraction.template is None:
        return Extracted(None, quality.score, feedback, _advice(feedback))
    return Extracted(extraction.template.to_bytes(), quality.score, feedback, "")


def _advice(feedback: Sequence[str]) -> str:
    return " ".join(Feedback(word).advice for word in feedback)


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
    """Digest of what templates depend on: libraries, and the code and data of extraction."""
    digest = hashlib.sha256()
    for module in ("numpy", "cv2", "onnx", "onnxruntime", "PIL"):
        digest.update(f"{module} {import_module(module).__version__} ".encode())
    for source in extraction_sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()


# Words, texts and types: they have no say in what a template holds.
_NO_SAY = {"capture.errors", "capture.quality", "capture.trace"}


def extraction_sources() -> list[Path]:
    """The files of `capture` that templates depend on: what decoding and extraction import, and its data."""
    root = Path(capture.__file__).parent
    data = [path for path in (root / "fingerprint").rglob("*") if path.is_file() and path.suffix != ".py"]
    found = {path for path in data if "__pycache__" not in path.parts}
    waiting, seen = ["capture.decode", "capture.fingerprint.extract"], set(_NO_SAY)
    while waiting:
        module = waiting.pop()
        path = root.parent.joinpath(*module.split(".")).with_suffix(".py")
        if module in seen or not path.is_file():
            continue
        seen.add(module)
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return sorted(found)


def _from_cache(path: Path) -> Extracted | None:
    """Read what was cached, None where nothing usable is."""
    try:
        stored = json.loads(path.read_text())
        template = None if stored["template"] is None else base64.b64decode(stored["template"])
        if template is not None:
            FingerprintTemplate.from_bytes(template)
        feedback = tuple(stored["feedback"])
        # The wording of advice is today's, whenever the template was made.
        reason = _advice(feedback) if template is None and feedback else stored["reason"]
        return Extracted(template, stored["quality"], feedback, reason)
    except (OSError, ValueError, KeyError, TypeError, TemplateRefused):
        return None


def _to_cache(path: Path, extracted: Extracted) -> None:
    template = None if extracted.template is None else base64.b64encode(extracted.template).decode()
    written(path, json.dumps({**asdict(extracted), "template": template}).encode())


# --- 3. scores


def compare_chunk(templates: tuple[bytes | None, ...], chunk: tuple[int, int]) -> NDArray[np.float64]:
    """Scores of pairs `chunk[0]` to `chunk[1]` of `all_pairs`, -inf where a template is missing."""
    described = _described(templates)
    first, second = all_pairs(len(templates))
    scores = np.full(chunk[1] - chunk[0], FAILED)
    for k, (i, j) in enumerate(zip(first[slice(*chunk)], second[slice(*chunk)], strict=True)):
        a, b = described[i], described[j]
        if a is not None and b is not None:
            scores[k] = similarity(a, b)
    return scores


@lru_cache(maxsize=1)
def all_pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every two of `n` impressions, the earlier one first: two read-only arrays `(n (n - 1) / 2,)`."""
    first, second = np.triu_indices(n, 1)
    first.setflags(write=False)
    second.setflags(write=False)
    return first, second


@lru_cache(maxsize=1)
def _described(templates: tuple[bytes | None, ...]) -> tuple[Cylinders | None, ...]:
    """Cylinders of a set's templates, kept for the next chunk of the same set."""
    return tuple(
        None if data is None else cylinders(FingerprintTemplate.from_bytes(data)) for data in templates
    )


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A set, what was extracted from it, and the scores of all its pairs.

    `pairs` are in the order of `all_pairs`; `fvc` `(n,) bool` marks those of the FVC protocol.
    """

    prints: PrintSet
    extracted: tuple[Extracted, ...]
    pairs: Pairs
    fvc: NDArray[np.bool_]


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
    scores = all_scores(templates, workers=workers, text=f"{prints.name}: comparing", console=console)
    first, second = all_pairs(len(templates))

    # 3. Who is who.
    names = [impression.finger for impression in prints.impressions]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    finger = np.array([number[name] for name in names], np.int64)
    is_first = np.array([i == 0 or names[i] != names[i - 1] for i in range(len(names))])
    genuine = finger[first] == finger[second]
    pairs = Pairs(scores, genuine, finger[first], finger[second])
    return Compared(prints, extracted, pairs, genuine | (is_first[first] & is_first[second]))


def all_scores(
    templates: tuple[bytes | None, ...], *, workers: int, text: str, console: Console
) -> NDArray[np.float64]:
    """Scores in the order of `all_pairs`, found in chunks of equal size."""
    n = len(all_pairs(len(templates))[0])
    chunks = chunked(n, workers)
    with mapped(compare_chunk, (repeat(templates), chunks), min(workers, len(chunks))) as scored:
        return np.concatenate(list(with_progress(scored, len(chunks), text, console)))


def chunked(n: int, workers: int) -> list[tuple[int, int]]:
    """Cut `n` pairs into pieces for `workers`, large enough to be worth their way."""
    size = max(500, n // (32 * workers))
    return [(start, min(start + size, n)) for start in range(0, n, size)]


@contextmanager
def mapped(
    function: Callable[..., Result], arguments: tuple[Iterable[object], ...], workers: int
) -> Iterator[Iterator[Result]]:
    """`map`, here or in `workers` processes; results come in the order of the arguments either way."""
    if workers == 1:
        yield map(function, *arguments)
        return
    # Spawned, never forked: ONNX Runtime and OpenMP do not survive it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield pool.map(function, *arguments)
        except BrokenExecutor as error:
            raise EvaluationError("a worker process died, perhaps of memory: try fewer --workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def with_progress(results: Iterator[Result], total: int, text: str, console: Console) -> Iterator[Result]:
    """Pass `results` on while a bar shows how many of `total` have come; one line where nobody watches."""
    if not console.is_terminal:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        yield from results
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield from progress.track(results, total=total, description=text)
