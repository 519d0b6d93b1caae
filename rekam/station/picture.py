"""The picture of an encounter: everything that was captured, side by side, with its quality."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capture.decode import decode_face_image, decode_image, decode_iris_image
from devices.frame import DeviceKind
from devices.position import FingerPosition
from rekam.exchange import MissingReason
from rekam.session import FACE, SIGNATURE, Place, Session, Taken
from rekam.written import written

_TILE = (180, 230)  # width, height
_CAPTION = 22
_PAPER, _FRAME = 248, 205
_COLUMNS = 5
_RIGHT, _LEFT = (1, 2, 3, 4, 5), (10, 9, 8, 7, 6)
_ROWS = (
    tuple(Place(DeviceKind.FINGERPRINT, code) for code in _LEFT),
    tuple(Place(DeviceKind.FINGERPRINT, code) for code in _RIGHT),
    (Place(DeviceKind.IRIS, 1), Place(DeviceKind.IRIS, 2), FACE, SIGNATURE),
)


def encounter_picture(session: Session) -> NDArray[np.uint8]:
    """Left hand, right hand, then eyes, portrait and signature, `(H, W, 3) uint8`. Cost: 0.2 s."""
    width, height = _TILE
    page = np.full((len(_ROWS) * (height + _CAPTION), _COLUMNS * width, 3), _PAPER, np.uint8)
    wanted = {place for step in session.steps for place in step.places}
    for row, shown in enumerate(_ROWS):
        for column, place in enumerate(shown):
            if place in wanted:
                top, left = row * (height + _CAPTION), column * width
                page[top : top + height + _CAPTION, left : left + width] = _tile(session, place)
    return page


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write `(H, W, 3) uint8` as a PNG that only its owner can read. Raises `NotWritten`."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    written(path, stream.getvalue(), private=True)


def _tile(session: Session, place: Place) -> NDArray[np.uint8]:
    width, height = _TILE
    tile = np.full((height + _CAPTION, width, 3), _PAPER, np.uint8)
    taken, missing = session.taken.get(place), session.missing.get(place)
    if taken is not None:
        image = _pixels(taken)
        scale = min((width - 8) / image.shape[1], (height - 8) / image.shape[0])
        size = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        tile[top : top + size[1], left : left + size[0]] = small
    cv2.rectangle(tile, (2, 2), (width - 3, height - 3), (_FRAME,) * 3, 1)
    words = _words(place, taken, missing)
    ink = (30, 30, 30) if taken is not None else (190, 60, 30)
    cv2.putText(tile, words, (6, height + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
    return tile


def _words(place: Place, taken: Taken | None, missing: MissingReason | None) -> str:
    if taken is None:
        return f"{place.words}: {'open' if missing is None else missing.value}"
    poor = ", poor" if taken.poor else ""
    return place.words if place == SIGNATURE else f"{place.words}: {taken.quality}{poor}"


def _pixels(taken: Taken) -> NDArray[np.uint8]:
    """What was kept as colours `(H, W, 3)`."""
    match taken.kind:
        case DeviceKind.FINGERPRINT:
            grey = decode_image(taken.image, position=FingerPosition(taken.code), ppi=taken.ppi).image
        case DeviceKind.IRIS:
            grey = decode_iris_image(taken.image).image
        case DeviceKind.SIGNATURE:
            with Image.open(io.BytesIO(taken.image)) as image:
                return np.array(image.convert("RGB"), dtype=np.uint8)
        case _:
            return decode_face_image(taken.image).image
    return np.repeat(grey[:, :, None], 3, axis=2)
