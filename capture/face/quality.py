"""How good a portrait is: measures, one score, and what to do about it.

The measures follow what ISO/IEC 29794-5, ISO/IEC 19794-5 and ICAO Doc 9303 look at, as far as five landmarks
and grey levels carry it; `docs/models/face.md` says what they do not.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.face.alignment import cut_out, similarity
from capture.face.detection import DetectedFace
from capture.quality import Feedback, Quality

# A face upright and of one size: middle of the person's right eye, of the left eye, base of the nose. The
# nose lies as in dlib's mean face.
_SIZE = (128, 160)
_EYES_APART = 48.0
_PLACES = np.array([(40.0, 60.0), (88.0, 60.0), (64.0, 97.0)])
# In distances between the eyes: how far the base of the nose lies below their line, and before it.
_NOSE_BELOW = 0.77
_NOSE_BEFORE = 0.35


@dataclass(frozen=True, slots=True)
class FaceMeasures:
    """What the score and the feedback rest on.

    `faces`: of a size comparable with the picked one's, itself included; `detection`: how sure the detector
    is; `inter_eye_distance`: pixels between the middles of the eyes; `yaw`, `pitch`, `roll`: degrees, positive
    when the person turns to their own left, looks up, tilts to their own right; `eyes_x`, `eyes_y`: middle of
    the eyes as shares of the picture's width and height; `inside`: share of the head that is in the picture;
    `lightness`: mean grey level of the face; `dark`, `light`: shares of it that are nearly black and white;
    `balance`: the darker half's lightness over the lighter's; `contrast`: standard deviation of its grey
    levels; `sharpness`: of fine to all detail at the size networks see; `eyes`: how much darker the middle of
    an eye is than its cheek, the worse eye, as a share; `background`: standard deviation of grey levels beside
    and above the head, -1 where the picture shows too little of it; `stability`: cosine between the vectors of
    a face's crops and their mean.
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
    dark: float
    light: float
    balance: float
    contrast: float
    sharpness: float
    eyes: float
    background: float
    stability: float


def face_measures(
    image: NDArray[np.uint8],
    faces: tuple[DetectedFace, ...],
    landmarks: NDArray[np.float64],
    vectors: NDArray[np.float32],
) -> FaceMeasures:
    """Of the first of `faces`, whose landmarks `(5, 2)` and vectors `(n, D)`, one a crop, are given."""
    height, width = image.shape[:2]
    right, left, nose = landmarks[2:4].mean(axis=0), landmarks[0:2].mean(axis=0), landmarks[4]
    middle, across = (right + left) / 2, left - right
    apart = max(float(np.hypot(*across)), 1.0)
    along, down = across / apart, np.array([-across[1], across[0]]) / apart

    # 1. Pose, from where the base of the nose lies under the eyes.
    aside, below = float((nose - middle) @ along) / apart, float((nose - middle) @ down) / apart
    yaw = np.degrees(np.arctan2(aside, _NOSE_BEFORE))
    pitch = np.degrees(np.arctan2(_NOSE_BELOW * np.cos(np.radians(yaw)) - below, _NOSE_BEFORE))
    roll = np.degrees(np.arctan2(across[1], across[0]))

    # 2. The face at one size, in grey.
    motion = similarity(np.array([right, left, nose]), _PLACES)
    face = cv2.cvtColor(cut_out(image, motion, _SIZE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    seen = cut_out(np.full((height, width, 3), 255, dtype=np.uint8), motion, _SIZE)[..., 0] > 0
    x, y = np.meshgrid(np.arange(_SIZE[0]), np.arange(_SIZE[1]))
    oval = ((x - 64) / 38) ** 2 + ((y - 88) / 54) ** 2 <= 1
    skin = face[oval & seen] if (oval & seen).any() else np.zeros(1, dtype=np.float32)
    halves = [face[oval & seen & side] for side in (x < 64, x >= 64)]
    means = sorted(float(half.mean()) if len(half) else 0.0 for half in halves)
    fine = face - cv2.GaussianBlur(face, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(face, (0, 0), 1.0) - cv2.GaussianBlur(face, (0, 0), 4.0)
    sharpness = float(np.std(fine[oval & seen])) / max(float(np.std(coarse[oval & seen])), 1.0)
    blurred = cv2.GaussianBlur(face, (0, 0), 2.0)
    eyes = []
    for column in (40, 88):
        eye = float(blurred[54:67, column - 8 : column + 9].min())
        cheek = float(np.median(face[84:100, column - 8 : column + 9]))
        eyes.append(1 - eye / max(cheek, 1.0))

    # 3. The rest of the picture.
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    mean = unit.mean(axis=0)
    return FaceMeasures(
        faces=float(sum(other.side >= 0.6 * faces[0].side for other in faces)),
        detection=faces[0].score,
        inter_eye_distance=apart,
        yaw=float(yaw),
        pitch=float(pitch),
        roll=float(roll),
        eyes_x=float(middle[0]) / width,
        eyes_y=float(middle[1]) / height,
        inside=float(seen[oval].mean()),
        lightness=float(skin.mean()),
        dark=float((skin < 20).mean()),
        light=float((skin > 245).mean()),
        balance=means[0] / max(means[1], 1.0),
        contrast=float(skin.std()),
        sharpness=sharpness,
        eyes=min(eyes),
        background=_background(image, middle, apart),
        stability=float((unit @ mean).mean() / max(float(np.linalg.norm(mean)), 1e-12)),
    )


def _background(image: NDArray[np.uint8], middle: NDArray[np.float64], apart: float) -> float:
    """Standard deviation of grey levels beside and above the head."""
    height, width = image.shape[:2]
    scale = 200 / max(height, width)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    x, y = np.meshgrid(np.arange(grey.shape[1]) / scale, np.arange(grey.shape[0]) / scale)
    beside = (np.abs(x - middle[0]) > 2.0 * apart) & (y < middle[1] + 1.0 * apart)
    around = beside | (y < middle[1] - 2.4 * apart)
    if around.mean() < 0.03:
        return -1.0
    return float(np.std(grey[around]))


def no_face(image: NDArray[np.uint8]) -> Quality:
    """Of a picture in which no face was found."""
    return Quality(0, False, (Feedback.NO_FACE,), {"faces": 0.0})


def portrait_quality(
    image: NDArray[np.uint8],
    faces: tuple[DetectedFace, ...],
    landmarks: NDArray[np.float64],
    vectors: NDArray[np.float32],
) -> Quality:
    """Of the first of `faces`, whose landmarks `(5, 2)` and vectors `(n, D)`, one a crop, are given."""
    measures = face_measures(image, faces, landmarks, vectors)
    several = measures.faces > 1
    score = round(100 * min(max((measures.stability - 0.9) / 0.1, 0), 1))
    feedback = (Feedback.SEVERAL_FACES,) if several else ()
    return Quality(score, not several, feedback, asdict(measures))
