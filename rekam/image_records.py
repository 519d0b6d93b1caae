"""`rekam unpack` and `rekam pack`: images out of and into image records and CBEFF files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.console import Console
from rich.markup import escape

from capture.decode import decode_finger_image, decode_image
from capture.errors import CaptureError, ImageRefused, RecordRefused
from capture.formats.cbeff import (
    BdbInfo,
    BiometricType,
    Bir,
    CbeffFile,
    Level,
    Patron,
    RegistryId,
    Subtype,
    Version,
    read_cbeff,
    write_cbeff,
)
from capture.formats.face_image import read_face_images
from capture.formats.finger_image import (
    Compression,
    FingerImageRecord2005,
    FingerImageRecord2011,
    FingerRepresentation2011,
    FingerView2005,
    Grid,
    read_finger_images,
)
from capture.formats.iris_image import IrisRecord2005, read_iris_images
from capture.pixels import encoding_of
from capture.sample import FingerPosition
from rekam.client import FingerFile, finger_files
from rekam.errors import NotWritten, RekamError
from rekam.written import written

_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "wsq": ".wsq", "jp2": ".jp2", "j2k": ".j2k"}
_COMPRESSIONS = {
    "wsq": Compression.WSQ,
    "jpeg": Compression.JPEG,
    "jp2": Compression.JPEG_2000,
    "j2k": Compression.JPEG_2000,
}
_EYES = {1: "right_iris", 2: "left_iris"}
_FINGER_SUBTYPES = (
    Subtype.THUMB,
    Subtype.INDEX_FINGER,
    Subtype.MIDDLE_FINGER,
    Subtype.RING_FINGER,
    Subtype.LITTLE_FINGER,
)


class PackedFormat(StrEnum):
    """What images are packed into."""

    ISO_2005 = "iso2005"
    ISO_2011 = "iso2011"
    CBEFF = "cbeff"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image taken out: what it shows, in words for a file's name, the suffix and the file's bytes."""

    name: str
    suffix: str
    data: bytes


def images_within(data: bytes) -> Iterator[Unpacked]:
    """Every image of an image record or CBEFF file; bare pixels of a finger become PNG, others stay bare.

    Data of a CBEFF file that is no image record known here is given as it is. Raises `CaptureError`.
    """
    if data.startswith(b"FIR\x00"):
        for finger in read_finger_images(data).images:
            known = finger.position in set(FingerPosition)
            name = FingerPosition(finger.position).name.lower() if known else f"position_{finger.position}"
            if finger.grid.compression in (Compression.NONE, Compression.PACKED):
                _, png = cv2.imencode(".png", decode_finger_image(finger).image)
                yield Unpacked(name, ".png", png.tobytes())
            else:
                yield _file(name, finger.data)
    elif data.startswith(b"IIR\x00"):
        record = read_iris_images(data)
        if isinstance(record, IrisRecord2005):
            for eye in record.eyes:
                for image in eye.images:
                    yield _file(_EYES.get(eye.eye, "iris"), image.data)
        else:
            for representation in record.images:
                yield _file(_EYES.get(representation.eye, "iris"), representation.data)
    elif data.startswith(b"FAC\x00"):
        for face in read_face_images(data).images:
            yield _file("face", face.data)
    elif data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        yield from _images_of(read_cbeff(data).bir)
    else:
        raise RecordRefused("no finger, iris or face image record and no CBEFF file")


def _images_of(bir: Bir) -> Iterator[Unpacked]:
    for inner in bir.birs:
        yield from _images_of(inner)
    if bir.bdb is None:
        return
    info = bir.bdb_info or BdbInfo()
    words = [*(info.subtypes or ()), *(info.types or ())]
    name = info.finger_position.name.lower() if info.finger_position else "_".join(words).lower() or "data"
    if not bir.bdb.startswith((b"FIR\x00", b"IIR\x00", b"FAC\x00")):
        yield _file(name, bir.bdb)
        return
    try:
        yield from images_within(bir.bdb)
    except CaptureError:
        # One damaged record does not hide the others; it is handed over as it came.
        yield Unpacked(name, ".damaged", bir.bdb)


def _file(name: str, data: bytes) -> Unpacked:
    return Unpacked(name, _SUFFIXES.get(encoding_of(data) or "", ".bin"), data)


def packed_fingers(files: list[FingerFile], kind: PackedFormat, ppi: float | None) -> bytes:
    """A record, or a CBEFF file of one record a finger, around the images of `files`.

    WSQ, JPEG and JPEG 2000 files go in as they are, other images as PNG. Raises `CaptureError`, `OSError`.
    """
    if kind is PackedFormat.ISO_2005:
        return FingerImageRecord2005(images=tuple(_view(file, ppi) for file in files)).to_bytes()
    images = tuple(_representation(file, ppi) for file in files)
    if kind is PackedFormat.ISO_2011:
        positions = len({image.position for image in images})
        return FingerImageRecord2011(images=images, positions=positions).to_bytes()
    one = Version(major=1, minor=1)
    birs = tuple(
        Bir(
            version=one,
            cbeff_version=one,
            bdb_info=BdbInfo(
                format=RegistryId(organization="257", type="7"),
                types=(BiometricType.FINGER,),
                subtypes=_subtypes(FingerPosition(image.position)),
                level=Level.RAW,
            ),
            bdb=FingerImageRecord2011(images=(image,)).to_bytes(),
        )
        for image in images
    )
    return write_cbeff(CbeffFile(Bir(version=one, cbeff_version=one, birs=birs), Patron.ISO_19785_3))


def _subtypes(position: FingerPosition) -> tuple[Subtype, ...] | None:
    if position is FingerPosition.UNKNOWN:
        return None
    hand = Subtype.RIGHT if position < FingerPosition.LEFT_THUMB else Subtype.LEFT
    return hand, _FINGER_SUBTYPES[(position - 1) % 5]


def _representation(file: FingerFile, ppi: float | None) -> FingerRepresentation2011:
    data, grid, width, height = _image(file, ppi)
    return FingerRepresentation2011(position=file.position, width=width, height=height, grid=grid, data=data)


def _view(file: FingerFile, ppi: float | None) -> FingerView2005:
    data, grid, width, height = _image(file, ppi)
    return FingerView2005(position=file.position, width=width, height=height, grid=grid, data=data)


def _image(file: FingerFile, ppi: float | None) -> tuple[bytes, Grid, int, int]:
    """What a record needs of an image file: the bytes it holds, how they are coded, width and height."""
    data = file.path.read_bytes()
    try:
        sample = decode_image(data, position=file.position, ppi=ppi)
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{file.path}: {refused}") from refused
    compression = _COMPRESSIONS.get(encoding_of(data) or "", Compression.PNG)
    if compression is Compression.PNG:
        _, png = cv2.imencode(".png", sample.image)
        data = png.tobytes()
    resolution = (round(sample.ppi), round(sample.ppi))
    height, width = sample.image.shape
    return data, Grid(resolution, resolution, compression), width, height


def unpack(
    record: Annotated[
        Path,
        typer.Argument(metavar="RECORD", help="A finger, iris or face image record, or a CBEFF XML file."),
    ],
    out: Annotated[Path, typer.Option(help="Write the images into this folder.")] = Path(),
) -> None:
    """Take the images out of an image record or CBEFF file, named by what they show."""
    errors = Console(stderr=True)
    names: Counter[str] = Counter()
    try:
        made: list[tuple[Path, bytes]] = []
        for image in images_within(record.read_bytes()):
            names[image.name] += 1
            count = names[image.name]
            path = out / f"{image.name}{f'_{count}' if count > 1 else ''}{image.suffix}"
            made.append((path, image.data))
        if there := [path for path, _ in made if path.exists()]:
            raise NotWritten(
                f"{there[0]} is there already: nothing was unpacked; name another folder by --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        for path, data in made:
            written(path, data)
            typer.echo(f"{path}: {len(data):,} bytes")
    except (CaptureError, RekamError, OSError) as error:
        text = f"{record}: {error}" if isinstance(error, CaptureError) else str(error)
        errors.print(f"[red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def pack(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Folders or images named by finger: right_thumb.png, 2.wsq."),
    ],
    out: Annotated[Path, typer.Option(help="Write the record to this file.")],
    to: Annotated[
        PackedFormat, typer.Option(help="ISO/IEC 19794-4 of 2005 or 2011, or CBEFF XML around the latter.")
    ] = PackedFormat.ISO_2011,
    ppi: Annotated[float | None, typer.Option(help="Pixels per inch, where the files do not tell.")] = None,
) -> None:
    """Put images of fingers into one image record or CBEFF file."""
    errors = Console(stderr=True)
    try:
        data = packed_fingers(finger_files(files), to, ppi)
        written(out, data)
    except (CaptureError, RekamError, OSError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    typer.echo(f"{out}: {len(data):,} bytes")
