"""What a file of an older register holds: one image, one native template, or many images in one record."""

from collections.abc import Iterator
from dataclasses import replace

from capture.errors import RecordRefused, TemplateRefused
from capture.formats.cbeff import BdbInfo, BiometricType, Bir, Subtype, read_cbeff
from capture.formats.face_image import MAGIC as FACE_MAGIC
from capture.formats.finger_image import MAGIC as FINGER_MAGIC
from capture.formats.finger_image import FingerImageRecord2005, read_finger_images
from capture.formats.iris_image import MAGIC as IRIS_MAGIC
from capture.formats.iris_image import IrisRecord2005, iris_views, read_iris_images
from capture.formats.minutiae_record import MAGIC as MINUTIAE_MAGIC
from capture.sample import EyePosition, FingerPosition, Modality
from rekam.errors import InvalidRequest
from rekam.exchange import Presented
from rekam.position import Position

UNKNOWN: dict[Modality, Position] = {
    Modality.FINGERPRINT: FingerPosition.UNKNOWN,
    Modality.IRIS: EyePosition.UNKNOWN,
    Modality.FACE: None,
}
_TEMPLATES = {b"RF": Modality.FINGERPRINT, b"RI": Modality.IRIS, b"RV": Modality.FACE}
_RECORDS = {FINGER_MAGIC: Modality.FINGERPRINT, IRIS_MAGIC: Modality.IRIS, FACE_MAGIC: Modality.FACE}
_TYPES = {
    BiometricType.FINGER: Modality.FINGERPRINT,
    BiometricType.IRIS: Modality.IRIS,
    BiometricType.FACE: Modality.FACE,
}
_EYES = {frozenset({Subtype.RIGHT}): EyePosition.RIGHT, frozenset({Subtype.LEFT}): EyePosition.LEFT}
_BOM = b"\xef\xbb\xbf"


def samples_within(
    data: bytes, modality: Modality | None, position: Position, ppi: float | None
) -> Iterator[Presented]:
    """Every sample of a file: what is declared of it counts, then what the file tells of itself.

    A CBEFF file and an image record (ISO/IEC 19794-4, -6) may hold many. Poor images are not refused: nobody
    can take them again. Raises `InvalidRequest` where nobody tells what it shows, `RecordRefused`,
    `TemplateRefused`; whether an image can be decoded shows when that is done.
    """
    if data.startswith(MINUTIAE_MAGIC):
        raise TemplateRefused(
            "minutiae of another maker cannot be compared with ours, because nobody has calibrated them: "
            "give the image"
        )
    if data.removeprefix(_BOM).lstrip().startswith(b"<"):
        yield from _of_cbeff(read_cbeff(data).bir, ppi)
        return
    told = _TEMPLATES.get(data[:2]) or _RECORDS.get(data[:4])
    if None not in (modality, told) and modality is not told:
        raise InvalidRequest([("modality", f"the file holds a {told}, the manifest says {modality}")])
    modality = modality or told
    if modality is None:
        raise InvalidRequest([("modality", "is required: neither manifest nor file tells what it shows")])
    if position is None:
        position = UNKNOWN[modality]
    if data[:2] in _TEMPLATES:
        yield Presented(position, template=data, best_effort=True)  # which tells its own position
        return
    for one in _single_images(data):
        yield Presented(_shown(one, position), image=one, ppi=ppi, best_effort=True)


def _of_cbeff(bir: Bir, ppi: float | None) -> Iterator[Presented]:
    for inner in bir.birs:
        yield from _of_cbeff(inner, ppi)
    if bir.bdb is None:
        return
    info = bir.bdb_info or BdbInfo()
    kinds = {_TYPES[kind] for kind in info.types or () if kind in _TYPES}
    modality = kinds.pop() if len(kinds) == 1 else None
    position: Position = None
    if modality is Modality.FINGERPRINT:
        position = info.finger_position
    elif modality is Modality.IRIS:
        position = _EYES.get(frozenset(info.subtypes or ()), EyePosition.UNKNOWN)
    yield from samples_within(bir.bdb, modality, position, ppi)


def _single_images(data: bytes) -> Iterator[bytes]:
    """The file itself, or, of a record with many images, one record for each."""
    if data.startswith(FINGER_MAGIC):
        fingers = read_finger_images(data)
        if len(fingers.images) > 1:
            if isinstance(fingers, FingerImageRecord2005):
                for view in fingers.images:
                    yield replace(fingers, images=(view,)).to_bytes()
            else:
                for finger in fingers.images:
                    yield replace(fingers, images=(finger,), positions=1).to_bytes()
            return
    elif data.startswith(IRIS_MAGIC):
        irises = read_iris_images(data)
        if len(iris_views(irises)) > 1:
            if isinstance(irises, IrisRecord2005):
                for eye in irises.eyes:
                    for image in eye.images:
                        yield replace(irises, eyes=(replace(eye, images=(image,)),)).to_bytes()
            else:
                for iris in irises.images:
                    yield replace(irises, images=(iris,), eyes=1).to_bytes()
            return
    yield data


def _shown(data: bytes, position: Position) -> Position:
    """The declared position, else what an image record says of its one image."""
    try:
        if position is FingerPosition.UNKNOWN and data.startswith(FINGER_MAGIC):
            return FingerPosition(read_finger_images(data).images[0].position)
        if position is EyePosition.UNKNOWN and data.startswith(IRIS_MAGIC):
            return EyePosition(iris_views(read_iris_images(data))[0].eye)
    except (RecordRefused, ValueError):
        pass  # whoever decodes it says what is wrong with it
    return position
