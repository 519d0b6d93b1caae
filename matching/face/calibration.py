"""What a score of two faces is worth: each embedder has its own calibration."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from capture.sample import Modality
from matching.calibration import Calibration, Detail, Scores
from matching.errors import NotCalibrated
from matching.face.comparison import COMPARISON_VERSION

# Quality of a portrait below which its scores are worth less: caps of their own, advice to look at it.
POOR_QUALITY = 34
SCORES = Scores(Modality.FACE, "embedder", COMPARISON_VERSION, Detail("quality", typical=60, fewest=10))


@cache
def face_calibration(embedder: bytes, file: Path | None = None) -> Calibration:
    """Read the calibration of an embedder: the shipped one, or from a `file` of the user's own.

    Raises `NotCalibrated` where neither knows this embedder, `ParametersUnavailable` where one cannot be read
    or does not fit this code. A file is read once in a process.
    """
    made = embedder.hex()
    if file is not None:
        with suppress(NotCalibrated):
            return SCORES.read_file(file, made, made)
    with suppress(NotCalibrated):
        return SCORES.shipped(made, made)
    raise NotCalibrated(
        f"what faces of the embedder {made} are worth is not known: "
        "fit a calibration on labelled portraits with `rekam evaluate face DIR --calibrate FILE` "
        "and name that file in the settings"
    )
