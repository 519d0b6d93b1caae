"""How good a portrait is: measures, one score, and what to do about it.

The measures follow what ISO/IEC 29794-5, ISO/IEC 19794-5 and ICAO Doc 9303 look at, as far as five landmarks
and grey levels carry it; `docs/models/face.md` says what they do not.
"""

from dataclasses import asdict, dataclass
from math import log10

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.face.alignment import cut_out, similarity
from capture.face.detection import DetectedFace
from capture.quality import Feedback, Quality


@dataclass(frozen=True, slots=True)
class Params:
    """Where the measures begin to tell; see `FaceMeasures` for their units.

    The score is a product of ramps (0 to 1 between two values), each to the power given last. Steadiness is
    what predicts comparison; the others hold back what press photographs hardly show: faces that are dark,
    washed out, smeared, tiny or cut off. Feedback goes by the limits of the standards, widened by what a
    measure errs (yaw, pitch).
    """

    # a face upright and of one size: width, height; the middles of the eyes and the base of the nose
    size: tuple[int, int] = (128, 160)
    right_eye: tuple[float, float] = (40.0, 60.0)
    left_eye: tuple[float, float] = (88.0, 60.0)
    nose: tuple[float, float] = (64.0, 97.0)
    # how far the base of the nose lies below the eyes and before them, in distances between the eyes
    nose_below: float = 0.77
    nose_before: float = 0.35
    comparable: float = 0.6  # side of another face, as a share of the picked one's
    # the score
    detection: tuple[float, float, float] = (-0.5, 2.0, 0.2)
    yaw: tuple[float, float, float] = (60.0, 15.0, 0.2)  # where the vectors' steadiness is not known
    sharpness: tuple[float, float, float] = (0.08, 0.16, 0.3)
    darkness: tuple[float, float, float] = (10.0, 50.0, 0.3)
    lightness: tuple[float, float, float] = (250.0, 200.0, 0.3)
    contrast: tuple[float, float, float] = (2.0, 15.0, 0.3)
    inter_eye_distance: tuple[float, float, float] = (10.0, 30.0, 0.3)
    inside: tuple[float, float, float] = (0.5, 0.95, 0.5)
    # refusals
    min_inter_eye_distance: float = 20.0
    min_score: int = 10
    # feedback
    clear_score: int = 30
    wanted_inter_eye_distance: float = 90.0
    dark_face: float = 60.0
    light_face: float = 215.0
    max_white: float = 0.2
    blurred: float = 0.14
    max_yaw: float = 20.0
    max_pitch: float = 30.0
    max_roll: float = 8.0
    min_eyes: float = 0.2
    min_balance: float = 0.6
    min_inside: float = 0.98
    eyes_x: tuple[float, float] = (0.4, 0.6)
    eyes_y: tuple[float, float] = (0.25, 0.6)
    max_background: float = 30.0


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class FaceMeasures:
    """What the score and the feedback rest on.

    `faces`: of a size comparable with the picked one's, itself included; `detection`: how sure the detector
    is; `inter_eye_distance`: pixels between the middles of the eyes; `yaw`, `pitch`, `roll`: degrees, where
    positive means towards the right of the picture, upwards, and with the eye at the right lower; `eyes_x`,
    `eyes_y`: middle of the eyes as shares of the picture's width and height; `inside`: share of the
    head that is in the picture; `lightness`: mean grey level of the face, 0 to 255; `white`: share of it that
    is white; `balance`: lightness of its darker half over the other's; `contrast`: standard deviation of its
    grey levels; `sharpness`: of its finest detail, as a share of the coarser; `eyes`: how much darker the
    darkest part of an eye is than the cheek below it, as a share, of the eye where it is less; `background`:
    standard deviation of grey levels beside and above the head, -1 where the picture shows too little of it;
    `steadiness`: -log10 of 1 less the mean cosine between the vectors of a face's crops and their mean.
    """

    faces: float
    detection: float
    inter_eye_distance: float
    yaw: float
    pitch: float
    roll: float
    eyes_x: float
    eyes_y: float
    inside: float
    lightness: float
    white: float
    balance: float
    contrast: float
    sharpness: float
    eyes: float
    background: float
    steadiness: float


def face_measures(
    image: NDArray[np.uint8],
    faces: tuple[DetectedFace, ...],
    landmarks: NDArray[np.float64],
    vectors: NDArray[np.float32],
    params: Params = PARAMS,
) -> FaceMeasures:
    """Of the first of `faces`, whose landmarks `(5, 2)` and vectors `(n, D)`, one a crop, are given.

    Cost: 3 ms, more for a large image.
    """
    height, width = image.shape[:2]
    right, left, nose = landmarks[2:4].mean(axis=0), landmarks[0:2].mean(axis=0), landmarks[4]
    middle, across = (right + left) / 2, left - right
    apart = max(float(np.hypot(*across)), 1.0)

    # 1. Pose, from where the base of the nose lies under the eyes; turning brings the eyes closer together.
    along, down = across / apart, np.array([-across[1], across[0]]) / apart
    aside, below = float((nose - middle) @ along) / apart, float((nose - middle) @ down) / apart
    yaw = np.arctan2(aside, params.nose_before)
    pitch = np.arctan2(params.nose_below - below * np.cos(yaw), params.nose_before)

    # 2. Light and detail, on the face at one size and in grey.
    places = np.array([params.right_eye, params.left_eye, params.nose])
    motion = similarity(np.array([right, left, nose]), places)
    grey = cv2.cvtColor(cut_out(image, motion, params.size), cv2.COLOR_RGB2GRAY).astype(np.float32)
    seen = cut_out(np.full((height, width), 255, dtype=np.uint8), motion, params.size) > 0
    x, y = np.meshgrid(np.arange(params.size[0]), np.arange(params.size[1]))
    oval = ((x - 64) / 38) ** 2 + ((y - 88) / 54) ** 2 <= 1
    face = oval & seen
    darker, lighter = sorted((_mean(grey[face & (x < 64)]), _mean(grey[face & (x >= 64)])))
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    fine, coarse = grey - smooth, smooth - cv2.GaussianBlur(grey, (0, 0), 4.0)
    smoother = cv2.GaussianBlur(grey, (0, 0), 2.0).astype(np.float32, copy=False)
    eyes = (_darker(smoother, int(column)) for column in (params.right_eye[0], params.left_eye[0]))

    return FaceMeasures(
        faces=float(sum(other.side >= params.comparable * faces[0].side for other in faces)),
        detection=faces[0].score,
        inter_eye_distance=apart,
        yaw=float(np.degrees(yaw)),
        pitch=float(np.degrees(pitch)),
        roll=float(np.degrees(np.arctan2(across[1], across[0]))),
        eyes_x=float(middle[0]) / width,
        eyes_y=float(middle[1]) / height,
        inside=float(seen[oval].mean()),
        lightness=_mean(grey[face]),
        white=_mean(grey[face] > 245),
        balance=darker / max(lighter, 1.0),
        contrast=_deviation(grey[face]),
        sharpness=_deviation(fine[face]) / max(_deviation(coarse[face]), 1.0),
        eyes=min(eyes),
        background=_background(image, middle, apart),
        steadiness=_steadiness(vectors),
    )


def portrait_quality(
    measures: FaceMeasures, steady: tuple[float, float] | None, params: Params = PARAMS
) -> Quality:
    """The score, whether to refuse the portrait, and feedback.

    `steady`: steadiness of the embedder's vectors at which the score is 0 and 1, where known.
    """
    share = (
        _ramp(abs(measures.yaw), params.yaw) if steady is None else _ramp(measures.steadiness, (*steady, 1))
    )
    for value, ramp in (
        (measures.detection, params.detection),
        (measures.sharpness, params.sharpness),
        (measures.lightness, params.darkness),
        (measures.lightness, params.lightness),
        (measures.contrast, params.contrast),
        (measures.inter_eye_distance, params.inter_eye_distance),
        (measures.inside, params.inside),
    ):
        share *= _ramp(value, ramp)
    score = round(100 * share)
    usable = (
        measures.faces == 1
        and measures.inter_eye_distance >= params.min_inter_eye_distance
        and score >= params.min_score
    )
    feedback = tuple(
        word
        for word, applies in (
            (Feedback.SEVERAL_FACES, measures.faces > 1),
            (Feedback.FACE_SMALL, measures.inter_eye_distance < params.wanted_inter_eye_distance),
            (Feedback.FACE_TOO_DARK, measures.lightness < params.dark_face),
            (
                Feedback.FACE_TOO_LIGHT,
                measures.lightness > params.light_face or measures.white > params.max_white,
            ),
            (Feedback.FACE_BLURRED, measures.sharpness < params.blurred),
            (Feedback.HEAD_TURNED, abs(measures.yaw) > params.max_yaw),
            (Feedback.HEAD_NODDING, abs(measures.pitch) > params.max_pitch),
            (Feedback.HEAD_TILTED, abs(measures.roll) > params.max_roll),
            (Feedback.FACE_UNCLEAR, score < params.clear_score),
            (Feedback.EYES_UNCLEAR, measures.eyes < params.min_eyes),
            (Feedback.LIGHT_UNEVEN, measures.balance < params.min_balance),
            (
                Feedback.FACE_OFF_CENTRE,
                measures.inside < params.min_inside
                or not params.eyes_x[0] <= measures.eyes_x <= params.eyes_x[1]
                or not params.eyes_y[0] <= measures.eyes_y <= params.eyes_y[1],
            ),
            (Feedback.BACKGROUND_UNEVEN, measures.background > params.max_background),
        )
        if applies
    )
    return Quality(score, usable, feedback, asdict(measures))


def no_face() -> Quality:
    """Of a picture in which no face was found."""
    return Quality(0, False, (Feedback.NO_FACE,), {"faces": 0.0})


def _ramp(value: float, ramp: tuple[float, float, float]) -> float:
    low, high, power = ramp
    return float(min(max((value - low) / (high - low), 0.0), 1.0) ** power)


def _mean(values: NDArray[np.float32] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if values.size else 0.0


def _deviation(values: NDArray[np.float32]) -> float:
    return float(np.std(values)) if values.size else 0.0


def _darker(grey: NDArray[np.float32], column: int) -> float:
    """How much darker the darkest part of the eye there is than the cheek under it, -1 to 1."""
    eye = float(grey[54:67, column - 8 : column + 9].min())
    cheek = float(np.median(grey[84:100, column - 8 : column + 9]))
    return (cheek - eye) / max(cheek, eye, 1.0)


def _background(image: NDArray[np.uint8], middle: NDArray[np.float64], apart: float) -> float:
    """Standard deviation of grey levels beside and above the head, on a picture of 200 pixels."""
    height, width = image.shape[:2]
    scale = 200 / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = np.meshgrid(np.arange(size[0]) / scale, np.arange(size[1]) / scale)
    beside = (np.abs(x - middle[0]) > 2.0 * apart) & (y < middle[1] + apart)
    around = beside | (y < middle[1] - 2.4 * apart)
    return _deviation(grey[around]) if around.mean() >= 0.03 else -1.0


def _steadiness(vectors: NDArray[np.float32]) -> float:
    """From 0, where the crops say nothing in common, to 6, where they say the same."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # The length of the mean of unit vectors is their mean cosine with it.
    return -log10(min(max(1 - float(np.linalg.norm(unit.mean(axis=0))), 1e-6), 1.0))
