"""Portrait assistance: what to tell the person before the camera, frame by frame.

The full pipeline's own measures and limits are used, so that what is shown live is what the portrait will be
judged by; what makes it fast is that the face is followed from frame to frame and nothing is embedded.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from capture.face import detection, quality
from capture.face.detection import DetectedFace, FaceFinder
from capture.face.extract import picked_first
from capture.face.quality import FaceMeasures, face_measures, no_face, portrait_quality
from capture.quality import Feedback, Quality
from capture.steady_advice import SteadyAdvice

# What a measure must have come to before its advice is taken back.
_STAYS = replace(
    quality.PARAMS,
    clear_score=35,
    wanted_inter_eye_distance=94.0,
    dark_face=68.0,
    light_face=207.0,
    max_white=0.17,
    blurred=0.15,
    max_yaw=17.0,
    max_pitch=26.0,
    max_roll=6.5,
    min_eyes=0.23,
    min_balance=0.65,
    min_inside=0.99,
    eyes_x=(0.42, 0.58),
    eyes_y=(0.27, 0.58),
    max_background=27.0,
)


@dataclass(frozen=True, slots=True)
class Params:
    """How the face is followed, and what `SteadyAdvice` goes by.

    `every`: frames from one search of the whole picture to the next; between, only a window around the last
    face is searched, `window` times its side, at a size at which the face has `side` pixels.
    """

    every: int = 5
    window: float = 2.4
    side: int = 110
    framed: tuple[float, float] = (0.97, 0.99)  # share of the portrait within the picture
    stays: quality.Params = _STAYS


PARAMS = Params()
_MEASURES = tuple(field.name for field in fields(FaceMeasures))
_NO_VECTORS = np.ones((1, 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FaceAssistance:
    """What one frame shows.

    `quality` is of this frame alone and serves to choose among frames; its score lacks what only the network
    knows (`steadiness` is -1). `advice` is what to show, steady over frames. `portrait`: left, top, right and
    bottom of the portrait to be cut out of the frame, in pixels, see `token_portrait`. Landmarks as
    `FaceFinder.landmarks` gives them; None, as `face` and `portrait`, where no face was found.
    """

    quality: Quality
    advice: tuple[Feedback, ...]
    face: DetectedFace | None = None
    landmarks: NDArray[np.float64] | None = None
    portrait: tuple[float, float, float, float] | None = None


class FaceAssistant:
    """Watches one stream of frames. Not thread-safe; creating the first one takes 1 s.

    Only dlib's first detector looks: a face turned or tilted so far that it takes the second counts as none.
    Raises `ModelUnavailable`.
    """

    __slots__ = ("_advice", "_frames", "_others", "_params", "_tracked", "_whole", "_window")

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params
        # No picture is wide enough for the second detector, which takes 400 ms.
        first_alone = replace(detection.Params(), narrowest=sys.maxsize)
        self._whole = FaceFinder(first_alone)
        self._window = FaceFinder(replace(first_alone, longest=round(params.window * params.side)))
        self._advice = SteadyAdvice(
            lambda measures: _feedback(measures, quality.PARAMS, params.framed[0]),
            lambda measures: _feedback(measures, params.stays, params.framed[1]),
            Feedback.NO_FACE,
        )
        self._frames = 0
        self._tracked: DetectedFace | None = None
        self._others: tuple[DetectedFace, ...] = ()

    def look(self, image: NDArray[np.uint8]) -> FaceAssistance:
        """Quality and advice of the next frame, `(H, W, 3)` or `(H, W) uint8`.

        Cost: `python -m benchmarks.live_assistance`, one thread.
        """
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        face = self._followed(image)
        if face is None:
            return FaceAssistance(no_face(), self._advice.after(None))
        landmarks = self._whole.landmarks(image, face)
        measured = face_measures(image, (face, *self._others), landmarks, _NO_VECTORS)
        portrait = token_portrait(landmarks)
        measures = asdict(measured) | {"steadiness": -1.0, "framed": _inside(portrait, image)}
        graded = portrait_quality(measured, None)
        feedback = _feedback(measures, quality.PARAMS, self._params.framed[0])
        return FaceAssistance(
            replace(graded, feedback=feedback, measures=measures),
            self._advice.after(measures),
            face,
            landmarks,
            portrait,
        )

    def _followed(self, image: NDArray[np.uint8]) -> DetectedFace | None:
        """The face that the portrait is of; others are looked for only with the whole picture."""
        height, width = image.shape[:2]
        face = None
        if self._tracked is not None and self._frames % self._params.every:
            face = self._near(image, self._tracked)
        if face is None:
            found = picked_first(self._whole.faces(image), width, height)
            face, self._others = (found[0] if found else None), found[1:]
            self._frames = 0
        self._frames += 1
        self._tracked = face
        return face

    def _near(self, image: NDArray[np.uint8], last: DetectedFace) -> DetectedFace | None:
        half = self._params.window * last.side / 2
        x, y = last.middle
        left, top = max(0, round(x - half)), max(0, round(y - half))
        part = image[top : round(y + half), left : round(x + half)]
        found = self._window.faces(part) if part.size else ()
        for face in picked_first(found, part.shape[1], part.shape[0]):
            return DetectedFace(
                face.left + left, face.top + top, face.right + left, face.bottom + top, face.score
            )
        return None


def token_portrait(landmarks: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the token image of ISO/IEC 19794-5 around these landmarks `(5, 2)`, pixels.

    Four distances between the eyes wide, four thirds as high, the eyes in the middle and 0.6 widths down.
    """
    eyes = landmarks[[0, 1]].mean(axis=0), landmarks[[2, 3]].mean(axis=0)
    x, y = ((eyes[0] + eyes[1]) / 2).tolist()
    width = 4 * float(np.hypot(*(eyes[0] - eyes[1])))
    top = y - 0.6 * width
    return x - width / 2, top, x + width / 2, top + width * 4 / 3


def _inside(box: tuple[float, float, float, float], image: NDArray[np.uint8]) -> float:
    """Share of the box that lies in the picture."""
    left, top, right, bottom = box
    width = min(right, image.shape[1]) - max(left, 0)
    height = min(bottom, image.shape[0]) - max(top, 0)
    share: float = max(width, 0.0) * max(height, 0.0) / max((right - left) * (bottom - top), 1.0)
    return share


def _feedback(measures: Mapping[str, float], limits: quality.Params, framed: float) -> tuple[Feedback, ...]:
    """As of a portrait; also off centre is a face around which no whole portrait can be cut out."""
    words = portrait_quality(
        FaceMeasures(**{name: measures[name] for name in _MEASURES}), None, limits
    ).feedback
    if measures["framed"] >= framed or Feedback.FACE_OFF_CENTRE in words:
        return words
    # Before the background, which comes last.
    at = len(words) - (Feedback.BACKGROUND_UNEVEN in words)
    return (*words[:at], Feedback.FACE_OFF_CENTRE, *words[at:])
