"""What can go wrong between bytes and templates.

    CaptureError
    ├── ImageRefused      the bytes are no image this stage accepts
    ├── TemplateRefused   the bytes are no template this stage accepts
    ├── RecordRefused     the bytes are no exchange record this stage accepts
    └── ModelUnavailable  weights are missing or are not the expected ones

A poor or blank image is no error: it comes back as a `Quality` with feedback.
"""

from enum import StrEnum


class CaptureError(Exception):
    """Base of every fault of the capture stage."""


class ImageProblem(StrEnum):
    """Why an image was refused."""

    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    UNKNOWN_FORMAT = "unknown_format"
    DAMAGED = "damaged"
    RESOLUTION_UNKNOWN = "resolution_unknown"
    RESOLUTION_OUT_OF_RANGE = "resolution_out_of_range"
    RESOLUTION_CONFLICT = "resolution_conflict"
    SEVERAL_FRAMES = "several_frames"
    POSITION_CONFLICT = "position_conflict"


class ImageRefused(CaptureError):
    """The bytes are no acceptable image; `problem` says why in a stable word, the text for a person."""

    def __init__(self, problem: ImageProblem, text: str) -> None:
        super().__init__(text)
        self.problem = problem


class TemplateRefused(CaptureError):
    """The bytes are no acceptable template: truncated, damaged, of another version or extractor."""


class RecordRefused(CaptureError):
    """The bytes are no acceptable exchange record; the text says what is wrong, `offset` at which byte.

    `offset` is None where no single byte is to blame, or where the record is being written.
    """

    def __init__(self, text: str, offset: int | None = None) -> None:
        super().__init__(text if offset is None else f"byte {offset}: {text}")
        self.offset = offset


class ModelUnavailable(CaptureError):
    """A model's weights are missing or differ from the expected ones; the text says what to install."""
