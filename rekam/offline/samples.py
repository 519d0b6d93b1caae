"""Sets of samples of any modality: which files a folder holds, their templates, and the scores of every two.

What sets of prints add (resolution, the FVC protocol) is `prints.py`'s. Results do not depend on the
number of worker processes or on the cache.
"""

import ast
import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib import import_module
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import capture
from capture.decode import decode_face_image, decode_iris_image
from capture.errors import ImageRefused, TemplateRefused
from capture.face.extract import FaceExtraction, FaceExtractor
from capture.face.onnx_embedder import OnnxEmbedder, OnnxEmbedderSettings
from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.extract import IrisExtraction, IrisExtractor
from capture.iris.template import IrisTemplate
from capture.quality import Feedback
from capture.sample import Modality
from matching.error_rates import FAILED, Pairs
from matching.face.comparison import compare_faces, face_form
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders
from matching.iris.comparison import compare_irises, iris_form
from rekam.written import written

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".jp2", ".j2k", ".iso")

Result = TypeVar("Result")


class EvaluationError(Exception):
    """The samples cannot be evaluated as asked; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is evaluated, and how people call it, in singular and plural."""

    modality: Modality
    sample: str
    samples: str
    subject: str
    subjects: str


PRINTS = Kind(Modality.FINGERPRINT, "print", "prints", "finger", "fingers")
EYES = Kind(Modality.IRIS, "image", "images", "eye", "eyes")
PORTRAITS = Kind(Modality.FACE, "portrait", "portraits", "person", "people")


# --- 1. which samples


class NamedFile(Protocol):
    """A file of a set; `stem` names it there."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def stem(self) -> str:
        """What tables and scores call it."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One image of an eye or a face: whom it shows, and what names it in its set."""

    path: Path
    subject: str
    stem: str


@dataclass(frozen=True, slots=True, eq=False)
class SampleSet:
    """A folder's images in natural order, and the files left out."""

    kind: Kind
    name: str
    files: tuple[SampleFile, ...]
    ignored: tuple[str, ...]


def sample_set(folder: Path, kind: Kind) -> SampleSet:
    """Find the images of eyes or faces in `folder`.

    An image in a folder within it is of the subject that its folder names; one that lies in `folder` itself,
    of an eye, of what stands before the first underscore of its name. Raises `EvaluationError` where no error
    rate can be had from them.
    """
    # 1. Whom each file shows.
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is no readable folder")
    try:
        paths = sorted(path for path in _inside(folder) if path.is_file())
    except OSError as error:
        raise EvaluationError(f"{folder} is no readable folder: {error.strerror}") from error
    labelled, ignored = [], []
    for path in paths:
        inside = path.relative_to(folder)
        subject = inside.parent.as_posix()
        if subject == ".":
            before, underscore, rest = path.stem.partition("_")
            subject = before if kind is EYES and underscore and rest else ""
        if path.suffix.lower() in IMAGE_SUFFIXES and subject:
            labelled.append((path, subject, inside.with_suffix("").as_posix()))
        else:
            ignored.append(inside.as_posix())
    if not labelled:
        how = "named <eye>_<rest>, or in a folder of its eye" if kind is EYES else "in a folder of its person"
        raise EvaluationError(f"{folder} holds no image {how}, that ends in {', '.join(IMAGE_SUFFIXES)}")

    # 2. One name a file: its own where that is enough, else with its folder.
    twice = [name for name, count in Counter(name for *_, name in labelled).items() if count > 1]
    if twice:
        raise EvaluationError(f"{folder} holds several files of one name: {', '.join(twice[:5])}")
    short = len({path.stem for path, *_ in labelled}) == len(labelled)
    files = [SampleFile(path, subject, path.stem if short else name) for path, subject, name in labelled]

    # 3. Enough of them for both kinds of pairs.
    subjects = Counter(file.subject for file in files)
    if len(subjects) < 2:
        raise EvaluationError(
            f"{folder} holds one {kind.subject} only: impostor pairs need a second one, told by "
            + ("the name before the first underscore, or by its folder" if kind is EYES else "its folder")
        )
    if max(subjects.values()) < 2:
        raise EvaluationError(
            f"{folder} holds one image of each {kind.subject}: genuine pairs need a second one"
        )
    files.sort(key=lambda file: (natural(file.subject), natural(file.stem)))
    return SampleSet(kind, folder.resolve().name, tuple(files), tuple(ignored))


def _inside(folder: Path) -> Iterator[Path]:
    """Everything in a folder and those within it, links to folders followed, none twice. Raises `OSError`."""

    def fail(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for at, inner, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort()
        yield from (Path(at, name) for name in names)


def sample_sets(folders: Sequence[Path], kind: Kind) -> list[SampleSet]:
    """Find the sets in `folders`. Raises `EvaluationError`."""
    sets = [sample_set(folder, kind) for folder in folders]
    require_names([one.name for one in sets])
    return sets


def require_names(names: Sequence[str]) -> None:
    """Raise `EvaluationError` where two sets have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise EvaluationError(f"several folders are named {twice[0]}: sets need different names")


def natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Give a key that sorts numbers within names by value."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), text


# --- 2. templates


@dataclass(frozen=True, slots=True)
class Extracted:
    """What extraction made of one file: native template bytes, or the reason there are none.

    `usable`: whether enrolment would take it.
    """

    template: bytes | None
    quality: int
    feedback: tuple[str, ...]
    reason: str
    usable: bool = True


def advice(feedback: Sequence[str]) -> str:
    """What a person is told, from words of feedback."""
    return " ".join(Feedback(word).advice for word in feedback)


def extract_file(
    path: Path, modality: Modality, cache_folder: Path | None, embedder: OnnxEmbedderSettings | None = None
) -> Extracted:
    """Extract the template of an eye or a face, or take it from the cache.

    `embedder`: a face network of the user's own. A file that is no acceptable image, or shows nothing to
    compare, is a failure to extract. Raises `EvaluationError` where it cannot be read.
    """
    data = read_bytes(path)
    read = IrisTemplate.from_bytes if modality is Modality.IRIS else FaceTemplate.from_bytes
    key = "" if cache_folder is None else _version(modality, embedder)
    return through_cache(cache_folder, key, data, read, lambda: _extract(data, modality, embedder))


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises `EvaluationError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error


def _extract(data: bytes, modality: Modality, embedder: OnnxEmbedderSettings | None) -> Extracted:
    made: IrisExtraction | FaceExtraction
    try:
        if modality is Modality.IRIS:
            made = IrisExtractor().extract(decode_iris_image(data))
        else:
            made = face_extractor(embedder).extract(decode_face_image(data))
    except ImageRefused as refused:
        return Extracted(None, 0, (), str(refused), usable=False)
    feedback = tuple(str(word) for word in made.quality.feedback)
    if made.template is None:
        return Extracted(None, made.quality.score, feedback, advice(feedback), usable=False)
    template = made.template.to_bytes()
    return Extracted(template, made.quality.score, feedback, "", made.quality.usable)


@cache
def face_extractor(embedder: OnnxEmbedderSettings | None = None) -> FaceExtractor:
    """One a process: loading the networks takes seconds. Raises `ModelUnavailable`."""
    return FaceExtractor(None if embedder is None else OnnxEmbedder(embedder))


def through_cache(
    folder: Path | None,
    key: str,
    data: bytes,
    read: Callable[[bytes], object],
    make: Callable[[], Extracted],
) -> Extracted:
    """What the cache keeps under `key` and the digest of `data`; else what `make` gives, kept for next time.

    `read` reads a template and raises `TemplateRefused` for one that today's code does not take.
    """
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(key.encode() + data).hexdigest()}.json"
    found = _from_cache(path, read)
    if found is None:
        found = make()
        template = None if found.template is None else base64.b64encode(found.template).decode()
        written(path, json.dumps({**asdict(found), "template": template}).encode())
    return found


def _from_cache(path: Path, read: Callable[[bytes], object]) -> Extracted | None:
    """Read what was cached, None where nothing usable is."""
    try:
        stored = json.loads(path.read_text())
        template = None if stored["template"] is None else base64.b64decode(stored["template"])
        if template is not None:
            read(template)
        feedback = tuple(stored["feedback"])
        # The wording of advice is today's, whenever the template was made.
        reason = advice(feedback) if template is None and feedback else stored["reason"]
        return Extracted(template, stored["quality"], feedback, reason, bool(stored["usable"]))
    except (OSError, ValueError, KeyError, TypeError, TemplateRefused):
        return None


@cache
def _version(modality: Modality, embedder: OnnxEmbedderSettings | None) -> str:
    if modality is Modality.IRIS:
        return extraction_version(("numpy", "cv2", "PIL"), ("capture.decode", "capture.iris.extract"), "iris")
    libraries = ("numpy", "cv2", "dlib", "onnxruntime", "PIL")
    version = extraction_version(libraries, ("capture.decode", "capture.face.extract"), "face")
    return f"{version} {face_extractor(embedder).embedder.hex()} "


def extraction_version(libraries: Sequence[str], entries: Sequence[str], data: str) -> str:
    """Digest of what templates depend on: libraries, and the code and data of extraction."""
    digest = hashlib.sha256()
    for module in libraries:
        digest.update(f"{module} {import_module(module).__version__} ".encode())
    for source in sources_of(entries, data):
        digest.update(source.read_bytes())
    return digest.hexdigest()


# Words, texts and types: they have no say in what a template holds.
_NO_SAY = {"capture.errors", "capture.quality", "capture.trace"}


def sources_of(entries: Sequence[str], data: str) -> list[Path]:
    """The files of `capture` that the modules `entries` load, and the data in its folder `data`."""
    root = Path(capture.__file__).parent
    found = {
        path
        for path in (root / data).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    waiting, seen = [*entries], set(_NO_SAY)
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


# --- 3. scores


class Scored(Protocol):
    """A set of any modality, what was extracted from it, and the scores of all its pairs.

    `pairs` are in the order of `all_pairs`.
    """

    @property
    def name(self) -> str:
        """Of the set."""

    @property
    def files(self) -> Sequence[NamedFile]:
        """Its images."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """The files left out."""

    @property
    def extracted(self) -> tuple[Extracted, ...]:
        """What extraction made of each image."""

    @property
    def pairs(self) -> Pairs:
        """The scores of every two images."""


@dataclass(frozen=True, slots=True, eq=False)
class ComparedSamples:
    """A set of eyes or portraits, what was extracted, and the scores of all pairs in `all_pairs`' order."""

    samples: SampleSet
    extracted: tuple[Extracted, ...]
    pairs: Pairs

    @property
    def name(self) -> str:
        """Of the set."""
        return self.samples.name

    @property
    def files(self) -> tuple[SampleFile, ...]:
        """Its images."""
        return self.samples.files

    @property
    def ignored(self) -> tuple[str, ...]:
        """The files left out."""
        return self.samples.ignored


@lru_cache(maxsize=1)
def all_pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every two of `n` samples, the earlier one first: two read-only arrays `(n (n - 1) / 2,)`."""
    first, second = np.triu_indices(n, 1)
    first.setflags(write=False)
    second.setflags(write=False)
    return first, second


def compare_samples(
    samples: SampleSet,
    *,
    workers: int,
    cache_folder: Path | None,
    console: Console,
    embedder: OnnxEmbedderSettings | None = None,
) -> ComparedSamples:
    """Extract every image of a set and compare every two; `embedder`: a face network of the user's own.

    Raises `EvaluationError` for unreadable files, `CaptureError` where a model is missing. Cost, a core:
    40 ms an eye and 20 us a pair; 0.15 s a portrait and 2 us a pair.
    """
    modality = samples.kind.modality
    if cache_folder is not None:
        cache_folder.mkdir(parents=True, exist_ok=True)
    paths = [file.path for file in samples.files]
    arguments = (paths, repeat(modality), repeat(cache_folder), repeat(embedder))
    with mapped(extract_file, arguments, min(workers, len(paths))) as results:
        extracted = tuple(with_progress(results, len(paths), f"{samples.name}: extracting", console))

    templates = tuple(result.template for result in extracted)
    text = f"{samples.name}: comparing"
    scores = all_scores(modality, templates, workers=workers, text=text, console=console)
    pairs = labelled_pairs(scores, [file.subject for file in samples.files])
    return ComparedSamples(samples, extracted, pairs)


def all_scores(
    modality: Modality, templates: tuple[bytes | None, ...], *, workers: int, text: str, console: Console
) -> NDArray[np.float64]:
    """Scores in the order of `all_pairs`, found in chunks of equal size."""
    chunks = chunked(len(all_pairs(len(templates))[0]), workers)
    work = (repeat(modality), repeat(templates), chunks)
    with mapped(compare_chunk, work, min(workers, len(chunks))) as scored:
        return np.concatenate(list(with_progress(scored, len(chunks), text, console)))


def compare_chunk(
    modality: Modality, templates: tuple[bytes | None, ...], chunk: tuple[int, int]
) -> NDArray[np.float64]:
    """Scores of pairs `chunk[0]` to `chunk[1]` of `all_pairs`, -inf where a template is missing."""
    score = _scorer(modality, templates)
    first, second = (side[slice(*chunk)] for side in all_pairs(len(templates)))
    scores = np.full(chunk[1] - chunk[0], FAILED)
    for k, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if templates[i] is not None and templates[j] is not None:
            scores[k] = score(i, j)
    return scores


@lru_cache(maxsize=1)
def _scorer(modality: Modality, templates: tuple[bytes | None, ...]) -> Callable[[int, int], float]:
    """The comparison of two templates by number, kept for the next chunk of the same set."""
    there = {i: data for i, data in enumerate(templates) if data is not None}
    match modality:
        case Modality.FINGERPRINT:
            prints = {i: cylinders(FingerprintTemplate.from_bytes(data)) for i, data in there.items()}
            return lambda i, j: similarity(prints[i], prints[j])
        case Modality.IRIS:
            eyes = {i: iris_form(IrisTemplate.from_bytes(data)) for i, data in there.items()}
            return lambda i, j: compare_irises(eyes[i], eyes[j]).score
        case Modality.FACE:
            faces = {i: face_form(FaceTemplate.from_bytes(data)) for i, data in there.items()}
            return lambda i, j: compare_faces(faces[i], faces[j])


def labelled_pairs(scores: NDArray[np.float64], subjects: Sequence[str]) -> Pairs:
    """The pairs of `all_pairs` with their scores, genuine where both samples are of one subject."""
    number = {name: i for i, name in enumerate(dict.fromkeys(subjects))}
    subject = np.array([number[name] for name in subjects], np.int64)
    first, second = (subject[side] for side in all_pairs(len(subjects)))
    return Pairs(scores, first == second, first, second)


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
