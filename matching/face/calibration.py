"""What a score of two faces is worth: each embedder has its own calibration."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from capture.sample import Modality
from matching.calibration import Calibration, Detail, Scores
from matching.errors import NotCalibrated, ParametersUnavailable
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
    shipped = files("matching.face") / "calibration.json"
    for source in (shipped,) if file is None else (file, shipped):
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParametersUnavailable(f"the face calibration {source} cannot be read: {error}") from error
        try:
            return SCORES.read(text, embedder.hex(), embedder.hex())
        except NotCalibrated:
            continue
    raise NotCalibrated(
        f"what faces of the embedder {embedder.hex()} are worth is not known: "
        "fit a calibration on labelled portraits with `rekam evaluate face DIR --calibrate FILE` "
        "and name that file in the settings"
    )
