"""How good a sample is, and what a person can do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Feedback(StrEnum):
    """What is wrong with a sample, as a stable word; `advice` says what to do."""

    BLANK = "blank"
    NOT_A_FINGERPRINT = "not_a_fingerprint"
    TOO_FEW_MINUTIAE = "too_few_minutiae"
    SMALL_CONTACT = "small_contact"
    OFF_CENTRE = "off_centre"
    TOO_DARK = "too_dark"
    TOO_LIGHT = "too_light"
    BLURRED = "blurred"
    INVERTED = "inverted"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_SMALL = "face_small"
    FACE_OFF_CENTRE = "face_off_centre"
    FACE_BLURRED = "face_blurred"
    FACE_UNCLEAR = "face_unclear"
    FACE_TOO_DARK = "face_too_dark"
    FACE_TOO_LIGHT = "face_too_light"
    LIGHT_UNEVEN = "light_uneven"
    HEAD_TURNED = "head_turned"
    HEAD_NODDING = "head_nodding"
    HEAD_TILTED = "head_tilted"
    EYES_UNCLEAR = "eyes_unclear"
    BACKGROUND_UNEVEN = "background_uneven"
    NO_EYE = "no_eye"
    EYE_COVERED = "eye_covered"
    EYE_SMALL = "eye_small"
    EYE_CUT_OFF = "eye_cut_off"
    EYE_BLURRED = "eye_blurred"
    EYE_PALE = "eye_pale"
    GAZE_ASIDE = "gaze_aside"
    PUPIL_WIDE = "pupil_wide"
    PUPIL_NARROW = "pupil_narrow"

    @property
    def advice(self) -> str:
        """One sentence for the person at the device."""
        return _ADVICE[self]


_ADVICE = {
    Feedback.BLANK: "Nothing was captured: place the finger on the sensor.",
    Feedback.NOT_A_FINGERPRINT: "This shows no ridges: capture a finger, not another object or picture.",
    Feedback.TOO_FEW_MINUTIAE: "Too little detail to compare: clean finger and sensor and capture again.",
    Feedback.SMALL_CONTACT: "Too little of the finger touches: lay the finger flat.",
    Feedback.OFF_CENTRE: "The finger is cut off at the edge: place it in the middle of the sensor.",
    Feedback.TOO_DARK: "The print is too dark: press lighter or dry the finger.",
    Feedback.TOO_LIGHT: "The print is too faint: press firmer or moisten the finger.",
    Feedback.BLURRED: "The ridges are smeared: keep the finger still.",
    Feedback.INVERTED: "Ridges were light on dark and have been turned: set the scanner to dark ridges.",
    Feedback.NO_FACE: "No face was found: let the person look straight into the camera, in even light.",
    Feedback.SEVERAL_FACES: "More than one face is in the picture: photograph one person alone.",
    Feedback.FACE_SMALL: "The face is too small: move the camera closer.",
    Feedback.FACE_OFF_CENTRE: "The head is not in the middle or is cut off: frame head and shoulders.",
    Feedback.FACE_BLURRED: "The face is blurred: keep still and let the camera focus on the eyes.",
    Feedback.FACE_UNCLEAR: "The face is hard to recognise: take off what covers it, look straight ahead.",
    Feedback.FACE_TOO_DARK: "The face is too dark: add light from the front.",
    Feedback.FACE_TOO_LIGHT: "The face is too light: reduce the light or the exposure.",
    Feedback.LIGHT_UNEVEN: "One side of the face is darker: light both sides alike.",
    Feedback.HEAD_TURNED: "The head is turned to the side: let the person look straight into the camera.",
    Feedback.HEAD_NODDING: "The head is raised or lowered: hold the chin level, camera at eye height.",
    Feedback.HEAD_TILTED: "The head is tilted: hold it upright.",
    Feedback.EYES_UNCLEAR: "The eyes are not clear: open them, without hair, shadow or tinted glasses.",
    Feedback.BACKGROUND_UNEVEN: "The background is uneven: use a plain, light wall without shadow.",
    Feedback.NO_EYE: "No iris was found: let the eye look straight into the camera, wide open.",
    Feedback.EYE_COVERED: "Lids, lashes or reflections cover the iris: open the eye wide, take glasses off.",
    Feedback.EYE_SMALL: "The iris is too small in the picture: come closer to the camera.",
    Feedback.EYE_CUT_OFF: "The iris is cut off at the edge: bring the eye into the middle.",
    Feedback.EYE_BLURRED: "The iris is blurred: keep still at the distance the camera asks for.",
    Feedback.EYE_PALE: "The iris hardly stands out: check the infrared light, shade the eye from the sun.",
    Feedback.GAZE_ASIDE: "The eye looks aside: look straight into the camera.",
    Feedback.PUPIL_WIDE: "The pupil is very wide: make the room lighter.",
    Feedback.PUPIL_NARROW: "The pupil is very narrow: make the room darker.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """A score of 0 (useless) to 100 (best), the measures behind it, and feedback, worst first.

    ISO/IEC 29794-1 convention. `usable` is false when no template should be made of the sample.
    """

    score: int
    usable: bool
    feedback: tuple[Feedback, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 100:
            raise ValueError(f"quality is 0 to 100, not {self.score}")
