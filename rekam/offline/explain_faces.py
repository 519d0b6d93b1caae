"""`rekam explain --modality face A [B]`: what was found in a portrait, and what a comparison of two is worth.

Everything shown is what extraction and comparison themselves used: the pipeline's trace, and the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capture.face.extract import FaceExtractor
from capture.face.template import FaceTemplate
from capture.quality import Feedback, Quality
from capture.sample import FaceSample
from matching.errors import NotCalibrated
from matching.face.calibration import POOR_QUALITY, face_calibration
from matching.face.comparison import compare_faces, face_form
from rekam.offline.explain_prints import odds, rate
from rekam.offline.panels import QUIET, Sheet, measure_lines
from rekam.offline.samples import PORTRAITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PICKED, _OTHER, _LANDMARK = "#1fb39a", "#e0559a", "#f6c04d"
_ALIKE = 3.0  # log10 likelihood ratio beyond which two people are hardly two
# What makes a face hard to recognise; size and background seldom do.
_TELLING = (
    Feedback.FACE_UNCLEAR,
    Feedback.FACE_BLURRED,
    Feedback.HEAD_TURNED,
    Feedback.HEAD_NODDING,
    Feedback.FACE_TOO_DARK,
    Feedback.FACE_TOO_LIGHT,
    Feedback.LIGHT_UNEVEN,
    Feedback.EYES_UNCLEAR,
)


@dataclass(frozen=True, slots=True, eq=False)
class SeenFace:
    """One portrait as a person sees it.

    `image` `(H, W, 3) uint8`, None where only the template is known; `template` None where there is no face;
    `stages`: what extraction traced (see `FaceExtractor.extract`), nothing without image.
    """

    image: NDArray[np.uint8] | None
    template: FaceTemplate | None
    quality: Quality
    stages: dict[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FaceExplanation:
    """One portrait, or two and their score: None where one gave no template.

    `llr`: log10 likelihood ratio; `fmr`: an upper bound of the false match rate with this score as threshold;
    both None where scores of this embedder were never calibrated.
    """

    faces: tuple[SeenFace, ...]
    score: float | None
    llr: float | None
    fmr: float | None

    @property
    def worth(self) -> str:
        """What the score is worth, in words."""
        if self.llr is None or self.fmr is None:
            return "worth not known: scores of this embedder were never calibrated"
        return f"{odds(self.llr, PORTRAITS)}; {rate(self.fmr, PORTRAITS)}"

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        if len(self.faces) == 1:
            return about_face(self.faces[0])[0]
        if self.score is None:
            gave_none = [
                f"portrait {name}"
                for name, face in zip("AB", self.faces, strict=True)
                if face.template is None
            ]
            return f"no comparison: {' and '.join(gave_none)} gave no template"
        return f"score {self.score:.4f}: {self.worth}"


def seen_face(given: FaceSample | FaceTemplate, extractor: FaceExtractor) -> SeenFace:
    """Extract with a trace, or take a template as it is."""
    if isinstance(given, FaceTemplate):
        return SeenFace(None, given, Quality(given.quality, usable=True))
    stages: dict[str, NDArray[np.generic]] = {}

    def keep(stage: str, value: NDArray[np.generic]) -> None:
        stages[stage] = value

    made = extractor.extract(given, keep)
    return SeenFace(given.image, made.template, made.quality, stages)


def explain_faces(faces: Sequence[SeenFace], calibration_file: Path | None = None) -> FaceExplanation:
    """One portrait, or two compared; `calibration_file` is that of the user's own embedder.

    Raises `MatchingError`, also for templates of two embedders.
    """
    if len(faces) == 1:
        return FaceExplanation(tuple(faces), None, None, None)
    a, b = (face.template for face in faces)
    if a is None or b is None:
        return FaceExplanation(tuple(faces), None, 0.0, 1.0)
    score = compare_faces(face_form(a), face_form(b))
    try:
        calibration = face_calibration(a.embedder, calibration_file)
    except NotCalibrated:
        return FaceExplanation(tuple(faces), score, None, None)
    llr = calibration.llr(score, min(a.quality, b.quality))
    return FaceExplanation(tuple(faces), score, llr, calibration.fmr(score))


# --- 1. words


def face_words(explanation: FaceExplanation, names: Sequence[str]) -> list[str]:
    """The explanation in lines of text: verdict, what makes up the score, portraits with their measures."""
    lines = [explanation.verdict, *about_face_score(explanation)]
    for label, name, face in zip("AB", names, explanation.faces, strict=False):
        lines += [f"{label} {name}: {line}" for line in about_face(face)]
        lines += [f"  {key} {value:.4g}" for key, value in face.quality.measures.items()]
    return lines


def about_face(face: SeenFace) -> list[str]:
    """One portrait: quality and faces found, or that there is none; then what its capture should change."""
    if face.template is None:
        first = "no template could be made"
    else:
        count = len(face.stages.get("detections", ()))
        found = f", {count} face{'s' if count > 1 else ''} found" if count else ""
        first = f"quality {face.quality.score} of 100{found}"
        if not face.quality.usable:
            first += ", not usable for enrolment"
    return [first, *(word.advice for word in face.quality.feedback)]


def about_face_score(explanation: FaceExplanation) -> list[str]:
    """What makes up the score, in lines of text; none where nothing was compared."""
    if explanation.score is None:
        return []
    cosine = 2 * explanation.score - 1
    return [f"the vectors lie {np.degrees(np.arccos(cosine)):.1f}° apart, cosine {cosine:.4f}"]


def face_causes(explanation: FaceExplanation, *, genuine: bool) -> list[str]:
    """What probably decided a pair that scores unlike its kind, likeliest first; never empty."""
    if explanation.score is None:
        return ["One portrait gave no template."]
    found = []
    if not genuine and explanation.llr is not None and explanation.llr >= _ALIKE:
        found.append(
            "So alike that it may be one person under two names, or one picture twice: check the names."
        )
    for label, face in zip("AB", explanation.faces, strict=True):
        if len(face.stages.get("detections", ())) > 1:
            found.append(f"Several faces in {label}: another than the person's may have been picked.")
        if face.quality.score < POOR_QUALITY:
            found.append(f"Portrait {label} is poor, quality {face.quality.score}.")
        found += [f"{label}: {word.advice}" for word in face.quality.feedback if word in _TELLING]
    if found:
        return found
    if genuine:
        return ["Nothing stands out: look whether the landmarks are right, and whether it is one person."]
    return ["Look-alikes: nothing in the portraits explains it."]


# --- 2. pictures


def picture_of_faces(
    explanation: FaceExplanation, names: Sequence[str], *, compact: bool = False
) -> NDArray[np.uint8]:
    """Draw one or two portraits, `(H, 1500, 3) uint8` RGB; `compact` leaves out title, notes and legend.

    Of each the portrait with the faces found and the landmarks of the picked one, and beside it what the
    network sees. Thread-safe. Cost: 0.4 s.
    """
    faces = explanation.faces
    sheet = Sheet()
    if not compact:
        sheet.title(explanation.verdict, about_face_score(explanation))
    if any(face.image is not None for face in faces):
        panels = sheet.row(4.0, 4)
        for i, face in enumerate(faces):
            _draw_portrait(panels[2 * i], face)
            if "aligned" in face.stages:
                panels[2 * i + 1].imshow(
                    np.asarray(face.stages["aligned"], np.uint8), interpolation="lanczos"
                )
                panels[2 * i + 1].set_anchor("W")
    if not compact:
        notes = []
        for label, name, face in zip("AB", names, faces, strict=False):
            notes.append(
                "\n".join([f"{label}   {name}", *about_face(face), *measure_lines(face.quality.measures, 4)])
            )
        sheet.notes(notes, 2)
        sheet.legend(
            [
                ("the face compared", _PICKED),
                ("another face", _OTHER),
                ("landmarks", _LANDMARK),
                ("right of each portrait: what the network sees", QUIET),
            ]
        )
    return sheet.pixels()


def _draw_portrait(axes: "Axes", face: SeenFace) -> None:
    """The portrait with boxes around its faces and the landmarks."""
    if face.image is None:
        return
    height, width = face.image.shape[:2]
    axes.imshow(face.image, interpolation="lanczos")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_anchor("E")
    for i, row in enumerate(np.asarray(face.stages.get("detections", np.zeros((0, 5))), np.float64)):
        left, top, right, bottom = row[:4]
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
        axes.plot(*box.T, color=_OTHER if i else _PICKED, linewidth=2, linestyle="--" if i else "-")
    if "landmarks" in face.stages:
        points = np.asarray(face.stages["landmarks"], np.float64)
        axes.plot(*points.T, "o", color=_LANDMARK, markersize=5, markeredgecolor="black", markeredgewidth=0.6)
