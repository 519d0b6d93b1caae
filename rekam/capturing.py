"""Presented samples to templates: decoded and extracted on a pool, or read where templates were sent."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TypeVar

import numpy as np

from capture.decode import decode_face_image, decode_image, decode_iris_image
from capture.errors import ImageRefused, TemplateRefused
from capture.face.embedder import DlibEmbedder, FaceEmbedder
from capture.face.extract import FaceExtractor
from capture.face.onnx_embedder import OnnxEmbedder
from capture.face.template import FaceTemplate
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from capture.iris.extract import IrisExtractor
from capture.iris.template import IrisCoder, IrisTemplate
from capture.quality import Feedback, Quality
from capture.sample import EyePosition, FaceSample, FingerPosition, IrisSample, Modality, Sample
from matching.encounter import EncounterForm, encounter_form
from matching.errors import NotCalibrated
from matching.face.calibration import SCORES as FACE_SCORES
from matching.face.calibration import face_calibration
from matching.fingerprint.calibration import fingerprint_calibration
from rekam.config import Settings
from rekam.errors import InvalidRequest
from rekam.exchange import Assessed, Presentation, Presented
from rekam.metrics import Metrics, Stage
from rekam.position import Position, modality_of

P = TypeVar("P", FingerPosition, EyePosition)
Template = FingerprintTemplate | IrisTemplate | FaceTemplate
Check = Callable[[], None]
"""Called between stages; raises `DeadlinePassed` when nobody waits for the answer any more."""

_FEW_MINUTIAE = 6
_FINGERS = tuple(position for position in FingerPosition if position)
_EYES = tuple(position for position in EyePosition if position)


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """One presented sample after extraction; `template` is as the store keeps it.

    `quality` and `image_format` are None where a template was presented.
    """

    presented: Presented
    position: Position
    template: Template | None
    quality: Quality | None
    image_format: str | None

    @property
    def refused(self) -> bool:
        """Whether it should be captured again."""
        if self.template is None:
            return True
        if self.quality is not None:
            return not _taken(self.quality, self.presented)
        few = isinstance(self.template, FingerprintTemplate) and len(self.template) < _FEW_MINUTIAE
        return few and not self.presented.best_effort


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What one image shows."""

    sample: Sample | IrisSample | FaceSample
    template: Template | None
    quality: Quality


class _Faces:
    """The extractor of faces, and how many values its embedder gives.

    Raises `ModelUnavailable`, and `MatchingError` where nobody knows what the embedder's scores are worth.
    """

    __slots__ = ("extractor", "values")

    def __init__(self, embedder: FaceEmbedder, calibration: Path | None) -> None:
        face_calibration(embedder.digest, calibration)
        if calibration is not None:
            _require_known(embedder.digest.hex(), calibration)
        self.extractor = FaceExtractor(embedder)
        picture = np.zeros((200, 200, 3), dtype=np.uint8)
        # Outer and inner corner of the left eye, of the right eye, base of the nose.
        landmarks = np.array([(140.0, 80.0), (120.0, 80.0), (60.0, 80.0), (80.0, 80.0), (100.0, 120.0)])
        self.values = embedder.vectors(embedder.crops(picture, landmarks)[:1]).shape[1]


def _require_known(embedder: str, calibration: Path) -> None:
    """A file that was named and does not know the embedder is a mistake: it is not passed over."""
    try:
        FACE_SCORES.read_file(calibration, embedder, embedder)
    except NotCalibrated as error:
        raise NotCalibrated(
            f"{calibration} does not say what faces of the embedder {embedder} are worth: "
            "fit it with `rekam evaluate face DIR --calibrate FILE`, or name no file"
        ) from error


class Capturing:
    """Extracts presented samples on a bounded pool of threads. Thread-safe."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self._metrics = Metrics() if metrics is None else metrics
        self._default = settings.extractor
        self._fingers = {choice: FingerprintExtractor(choice) for choice in ExtractorChoice}
        self._irises = IrisExtractor()
        self._calibration = settings.face_embedder_calibration
        self._faces: _Faces | None = None
        self._faces_lock = threading.Lock()
        own = settings.face_embedder
        if own is not None or self._calibration is not None:
            # What the user set is tried at once.
            self._faces = _Faces(DlibEmbedder() if own is None else OnnxEmbedder(own), self._calibration)
        self._calibrated = _calibrated()
        self._workers = settings.workers
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="rekam-extract")

    def close(self) -> None:
        """Wait for what is being extracted."""
        self._pool.shutdown()

    def capture(self, samples: Sequence[Presented], check: Check) -> tuple[Captured, ...]:
        """Decode and extract every sample; raises `InvalidRequest`, which names every faulty one."""

        def image(place: int, presented: Presented) -> Captured:
            with _at_sample(place):
                return _captured(presented, self._seen(presented, presented.image or b"", check))

        captured: dict[int, Captured] = {}
        faults: dict[int, InvalidRequest] = {}
        jobs: dict[int, Future[Captured]] = {}
        pending: set[Future[Captured]] = set()
        try:
            for place, presented in enumerate(samples):
                check()
                if presented.template is not None:
                    try:
                        with _at_sample(place):
                            captured[place] = self._given(presented, presented.template)
                    except InvalidRequest as error:
                        faults[place] = error
                    continue
                # No more than the pool has threads at a time: images of others get in between.
                if len(pending) == self._workers:
                    pending = wait(pending, return_when=FIRST_COMPLETED).not_done
                jobs[place] = self._pool.submit(image, place, presented)
                pending.add(jobs[place])
            for place, job in jobs.items():
                try:
                    captured[place] = job.result()
                except InvalidRequest as error:
                    faults[place] = error
        finally:
            for job in jobs.values():
                job.cancel()
        if faults:
            raise InvalidRequest([one for place in sorted(faults) for one in faults[place].violations])
        in_order = tuple(captured[place] for place in range(len(samples)))
        _require_one_of_each([c.position for c in in_order])
        return in_order

    def assess(self, presented: Presented, check: Check) -> Assessed:
        """Judge one image. Raises `ImageRefused`, and `InvalidRequest` where there is none."""
        if presented.image is None:
            text = "an image is needed: a template has no quality to assess"
            raise InvalidRequest([("sample.image", text)])
        seen = self._pool.submit(self._seen, presented, presented.image, check).result()
        template = seen.template
        sendable = _taken(seen.quality, presented)
        return Assessed(
            quality=seen.quality,
            template=template.to_bytes() if template is not None and sendable else None,
            format=seen.sample.format,
            width=seen.sample.image.shape[1],
            height=seen.sample.image.shape[0],
            minutiae=len(template) if isinstance(template, FingerprintTemplate) else 0,
            ppi=seen.sample.ppi if isinstance(seen.sample, Sample) else 0.0,
            iris_bits=template.bits if isinstance(template, IrisTemplate) else 0,
        )

    def current(self, template: Template) -> bool:
        """Whether it was made by what extracts its modality here, where a request does not say."""
        match template:
            case FingerprintTemplate():
                return template.extractor is self._fingers[self._default].made_by
            case IrisTemplate():
                return template.coder is max(IrisCoder)
            case FaceTemplate():
                return template.embedder == self.faces.extractor.embedder

    @property
    def faces(self) -> _Faces:
        """The face network, loaded when the first face comes: 2 s, and many offices have none."""
        with self._faces_lock:
            if self._faces is None:
                self._faces = _Faces(DlibEmbedder(), self._calibration)
            return self._faces

    def _seen(self, presented: Presented, image: bytes, check: Check) -> _Seen:
        check()
        with self._metrics.stage(Stage.DECODE):
            sample = _decoded(presented, image)
        check()
        with self._metrics.stage(Stage.EXTRACT):
            match sample:
                case Sample():
                    print_ = self._fingers[presented.extractor or self._default].extract(sample)
                    return _Seen(sample, print_.template, print_.quality)
                case IrisSample():
                    code = self._irises.extract(sample)
                    return _Seen(sample, code.template, code.quality)
                case FaceSample():
                    face = self.faces.extractor.extract(sample)
                    return _Seen(sample, face.template, face.quality)

    def _given(self, presented: Presented, data: bytes) -> Captured:
        """A template that was sent: of a version, a maker and a position that can be taken here."""
        template = read_template(presented.position, data)
        match template:
            case FingerprintTemplate():
                if len(template) == 0:
                    raise TemplateRefused("the template has no minutiae: declare the finger missing")
                if template.extractor not in self._calibrated:
                    raise TemplateRefused(
                        f"what templates of the extractor {template.extractor.name} are worth is not known "
                        "here: send the image"
                    )
                template = replace(template, position=_agreed(presented.position, template.position))
            case IrisTemplate():
                if template.bits == 0:
                    raise TemplateRefused("the template has no bits that count: declare the eye missing")
                template = replace(template, eye=_agreed(presented.position, template.eye))
            case FaceTemplate():
                if template.embedder != self.faces.extractor.embedder:
                    raise TemplateRefused(
                        "the template was made by another face embedder than is set here: send the image"
                    )
                if len(template.vector) != self.faces.values:
                    raise TemplateRefused(
                        f"a template of this face embedder has {self.faces.values} values, "
                        f"not {len(template.vector)}"
                    )
        return Captured(presented, position_of(template), template, None, None)


def read_template(position: Position, data: bytes) -> Template:
    """Native bytes of the modality that has such a position. Raises `TemplateRefused`."""
    match modality_of(position):
        case Modality.FINGERPRINT:
            return FingerprintTemplate.from_bytes(data)
        case Modality.IRIS:
            return IrisTemplate.from_bytes(data)
        case Modality.FACE:
            return FaceTemplate.from_bytes(data)


def position_of(template: Template) -> Position:
    """Where on the body a template is from."""
    match template:
        case FingerprintTemplate():
            return template.position
        case IrisTemplate():
            return template.eye
        case FaceTemplate():
            return None


def form_of(templates: Sequence[Template | None]) -> EncounterForm:
    """The templates of one encounter, ready to be compared; None is left out."""
    faces = [t for t in templates if isinstance(t, FaceTemplate)]
    return encounter_form(
        [t for t in templates if isinstance(t, FingerprintTemplate)],
        [t for t in templates if isinstance(t, IrisTemplate)],
        faces[0] if faces else None,
    )


def require_complete(
    presentation: Presentation, positions: Sequence[Position], required: Collection[Modality]
) -> None:
    """What is required, or presented or declared missing in part, is complete; `positions` were presented.

    Every finger is presented or declared missing, and none both; so is every eye, and the face. Raises
    `InvalidRequest`.
    """
    fingers = [p for p in positions if isinstance(p, FingerPosition)]
    eyes = [p for p in positions if isinstance(p, EyePosition)]
    faces = positions.count(None)
    missing_fingers = [m.position for m in presentation.missing]
    missing_eyes = [m.position for m in presentation.missing_eyes]
    if fingers or missing_fingers or Modality.FINGERPRINT in required:
        _require_each(_FINGERS, fingers, missing_fingers, "missing", "fingers")
    if eyes or missing_eyes or Modality.IRIS in required:
        _require_each(_EYES, eyes, missing_eyes, "missing_eyes", "eyes")
    if faces and presentation.missing_face is not None:
        raise InvalidRequest([("missing_face", "presented and declared missing: the face")])
    if not faces and presentation.missing_face is None and Modality.FACE in required:
        raise InvalidRequest([("samples", "neither presented nor declared missing: the face")])


def _require_each(
    every: Sequence[FingerPosition | EyePosition],
    presented: Sequence[FingerPosition | EyePosition],
    missing: Sequence[FingerPosition | EyePosition],
    field: str,
    what: str,
) -> None:
    """Each of these is presented or declared missing, and none both; one of unknown position is any."""
    known = [position for position in presented if position]
    unknown = len(presented) - len(known)
    if both := sorted(set(known) & set(missing)):
        raise InvalidRequest([(field, f"presented and declared missing: {_words(both)}")])
    absent = [position for position in every if position not in known and position not in missing]
    if len(absent) > unknown:
        raise InvalidRequest([("samples", f"neither presented nor declared missing: {_words(absent)}")])
    if len(absent) < unknown:
        text = f"more {what} of unknown position ({unknown}) than are left that they could be ({len(absent)})"
        raise InvalidRequest([(field, text)])


def _require_one_of_each(positions: Sequence[Position]) -> None:
    """No finger and no eye twice, also where templates and records tell the positions."""
    for kind in (FingerPosition, EyePosition):
        known = [position for position in positions if isinstance(position, kind) and position]
        if twice := sorted({position for position in known if known.count(position) > 1}):
            raise InvalidRequest([("samples", f"presented more than once: {_words(twice)}")])


def _words(positions: Sequence[FingerPosition | EyePosition]) -> str:
    return ", ".join(position.words for position in positions)


def _agreed(declared: Position, told: P) -> P:
    """The one position that the sender declares and the template tells, where either does."""
    if declared and told and declared != told:
        raise TemplateRefused(f"the template is of the {told.words}, not the {type(told)(declared).words}")
    return type(told)(declared or told)


def _taken(quality: Quality, presented: Presented) -> bool:
    """Whether an image is good enough. Of several faces nobody can say whose is meant, best effort or not."""
    if Feedback.SEVERAL_FACES in quality.feedback:
        return False
    return quality.usable or presented.best_effort


def _decoded(presented: Presented, image: bytes) -> Sample | IrisSample | FaceSample:
    match presented.position:
        case FingerPosition() as finger:
            return decode_image(image, position=finger, ppi=presented.ppi)
        case EyePosition() as eye:
            return decode_iris_image(image, eye=eye)
        case None:
            return decode_face_image(image)


def _captured(presented: Presented, seen: _Seen) -> Captured:
    # Compare what will be stored, not what was rounded away.
    made = seen.template
    kept = None if made is None else read_template(presented.position, made.to_bytes())
    match seen.sample:
        case Sample():
            position: Position = seen.sample.position
        case IrisSample():
            position = seen.sample.eye
        case FaceSample():
            position = None
    return Captured(presented, position, kept, seen.quality, seen.sample.format)


@contextmanager
def _at_sample(place: int) -> Iterator[None]:
    """Say which sample a refusal is about."""
    try:
        yield
    except (ImageRefused, TemplateRefused) as error:
        raise InvalidRequest([(f"samples[{place}]", str(error))]) from error


def _calibrated() -> frozenset[Extractor]:
    """Extractors whose templates may meet here: every two of them are calibrated together.

    Raises `MatchingError` where those of this installation are not.
    """
    own = {extractor for extractor in Extractor if extractor is not Extractor.FOREIGN}
    for first, second in combinations_with_replacement(sorted(own), 2):
        fingerprint_calibration(first, second)
    return frozenset(own)
