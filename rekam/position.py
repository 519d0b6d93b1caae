"""Where on the body a sample is from, whatever its modality."""

from capture.sample import EyePosition, FingerPosition, Modality

Position = FingerPosition | EyePosition | None
"""A finger, an eye, or None for the face, which is one.

A finger and an eye of the same code are equal numbers: never mix the two in one set or comparison.
"""


def modality_of(position: Position) -> Modality:
    """The modality that has such positions."""
    match position:
        case FingerPosition():
            return Modality.FINGERPRINT
        case EyePosition():
            return Modality.IRIS
        case None:
            return Modality.FACE
