"""How good an iris image is: measures after ISO/IEC 29794-6, one score, and advice.

Names and definitions follow ISO/IEC 29794-6:2015 where it has them; `pupil_found`, `limbus_found`,
`in_picture` and the unit of `sharpness` are our own. Gaze is judged by `concentricity` and `pupil_roundness`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.iris.rubber_sheet import RubberSheet
from capture.iris.segmentation import Eye, polar
from capture.quality import Feedback, Quality


@dataclass(frozen=True, slots=True)
class Params:
    """Limits below which there is no eye, and for each measure where it is hopeless and where good enough.

    Units as in `iris_measures`.
    """

    pupil_found: float = 0.5
    limbus_found: float = 0.25
    both_found: float = 0.95
    least_radius: float = 24.0
    pupil_ratio: tuple[float, float] = (12.0, 78.0)
    least_contrast: float = 8.0
    least_area: float = 12.0
    advised: float = 0.5  # share of the way from hopeless to good enough below which advice is given
    poor: int = 15  # score below which a better picture is asked for


PARAMS = Params()

# Measure: hopeless, good enough, advice where it is not.
_SCALES = (
    ("usable_area", 10.0, 60.0, Feedback.EYE_COVERED),
    ("iris_radius", 25.0, 60.0, Feedback.EYE_SMALL),
    ("in_picture", 55.0, 95.0, Feedback.EYE_CUT_OFF),
    ("sharpness", 0.2, 0.9, Feedback.EYE_BLURRED),
    ("iris_pupil_contrast", 8.0, 40.0, Feedback.EYE_PALE),
    ("iris_sclera_contrast", 0.0, 5.0, Feedback.EYE_PALE),
    ("concentricity", 65.0, 88.0, Feedback.GAZE_ASIDE),
    ("pupil_roundness", 60.0, 88.0, Feedback.GAZE_ASIDE),
    ("pupil_width", 25.0, 42.0, Feedback.PUPIL_WIDE),
    ("pupil_ratio", 12.0, 20.0, Feedback.PUPIL_NARROW),
)
_ALL_AROUND = np.deg2rad(np.arange(0, 360, 5))
_SIDES = np.deg2rad(np.concatenate([np.arange(-25, 36, 5), np.arange(145, 206, 5)]))


def iris_measures(image: NDArray[np.uint8], eye: Eye, sheet: RubberSheet) -> dict[str, float]:
    """What can be said of a segmented eye, by stable names; all percent but where noted. Cost: 2 ms.

    `usable_area` of the iris that is neither covered nor reflects; `iris_radius`, pixels; `pupil_ratio`:
    radius of the pupil over that of the iris; `iris_sclera_contrast`, `iris_pupil_contrast`;
    `concentricity` of pupil and iris; `pupil_roundness`: its narrowest over its widest diameter;
    `sharpness`: deviation of the Laplacian of the iris beside the pupil, grey values; `margin`: room around
    the iris, of what the standard wants; `in_picture`: how much of the limbus circle is; `pupil_found`,
    `limbus_found`: how clear the boundaries are all around, 0 to 1.
    """
    pupil, limbus = eye.pupil, eye.limbus
    height, width = image.shape
    inner, _ = polar(eye.clean, pupil, np.linspace(0.1, 0.8, 6) * pupil.radius, _SIDES)
    outer, _ = polar(eye.clean, limbus, np.linspace(1.08, 1.2, 4) * limbus.radius, _SIDES)
    dark, bright = float(np.median(inner)), float(np.median(outer))
    grey = float(np.median(sheet.grey[sheet.iris])) if sheet.iris.any() else dark
    weber = abs(grey - dark) / (20 + dark)
    michelson = abs(bright - grey) / max(bright + grey - 2 * dark, 1.0)
    apart = float(np.hypot(pupil.x - limbus.x, pupil.y - limbus.y)) / limbus.radius
    beside = (limbus.x - limbus.radius, width - 1 - limbus.x - limbus.radius)
    above = (limbus.y - limbus.radius, height - 1 - limbus.y - limbus.radius)
    _, inside = polar(eye.clean, limbus, np.array([limbus.radius]), _ALL_AROUND)
    margin = min(min(beside) / 0.6, min(above) / 0.2) / limbus.radius
    return {
        "usable_area": 100 * float(sheet.iris.mean()),
        "iris_radius": limbus.radius,
        "pupil_ratio": 100 * pupil.radius / limbus.radius,
        "iris_sclera_contrast": 100 * min(michelson, 1.0) if bright > grey else 0.0,
        "iris_pupil_contrast": 100 * weber / (0.75 + weber) if grey > dark else 0.0,
        "concentricity": 100 * max(0.0, 1 - apart),
        "pupil_roundness": 100 * pupil.roundness,
        "sharpness": _sharpness(eye),
        "margin": 100 * min(max(margin, 0.0), 1.0),
        "in_picture": 100 * float(inside.mean()),
        "pupil_found": eye.found[0],
        "limbus_found": eye.found[1],
    }


def iris_quality(measures: dict[str, float], params: Params = PARAMS) -> Quality:
    """Score and advice. Unusable where no eye was found, or where too little of the iris can be compared."""
    narrowest, widest = params.pupil_ratio
    is_eye = (
        measures["pupil_found"] >= params.pupil_found
        and measures["limbus_found"] >= params.limbus_found
        and measures["pupil_found"] + measures["limbus_found"] >= params.both_found
        and measures["iris_radius"] >= params.least_radius
        and narrowest <= measures["pupil_ratio"] <= widest
        and measures["iris_pupil_contrast"] >= params.least_contrast
    )
    if not is_eye:
        return Quality(0, usable=False, feedback=(Feedback.NO_EYE,), measures=measures)
    graded = measures | {"pupil_width": 100 - measures["pupil_ratio"]}
    shares = [
        (min(max((graded[name] - hopeless) / (good - hopeless), 0.0), 1.0), advice)
        for name, hopeless, good, advice in _SCALES
    ]
    score = 100 * float(np.prod([0.1 + 0.9 * share for share, _ in shares]))
    poor = sorted((share, place) for place, (share, _) in enumerate(shares) if share < params.advised)
    feedback = tuple(dict.fromkeys(shares[place][1] for _, place in poor))
    usable = measures["usable_area"] >= params.least_area and score >= params.poor
    if not usable and not feedback:
        worst = min(range(len(shares)), key=lambda place: shares[place][0])
        feedback = (shares[worst][1],)
    return Quality(round(score), usable=usable, feedback=feedback, measures=measures)


def _sharpness(eye: Eye) -> float:
    """Deviation of the Laplacian of a Gaussian (1.4 pixels) left and right of the pupil."""
    pupil, limbus = eye.pupil, eye.limbus
    top, bottom = round(limbus.y - 0.3 * limbus.radius), round(limbus.y + 0.5 * limbus.radius)
    deviations = []
    for side in (-1, 1):
        ends = sorted(
            (round(pupil.x + side * 1.15 * pupil.radius), round(limbus.x + side * 0.9 * limbus.radius))
        )
        part = eye.clean[max(top, 0) : max(bottom, 0), max(ends[0], 0) : max(ends[1], 0)]
        if min(part.shape) >= 5:
            smooth = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.4)
            curved = cv2.Laplacian(smooth, cv2.CV_32F)[2:-2, 2:-2]
            deviations.append(float(curved.std()) if curved.size else 0.0)
    return max(deviations, default=0.0)
