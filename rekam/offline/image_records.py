"""`rekam record unpack` and `rekam record pack`: images out of and into image records and CBEFF files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import typer

from capture.decode import decode_finger_image, decode_iris_view
from capture.errors import CaptureError, RecordRefused
from capture.formats.cbeff import BdbInfo, Bir, read_cbeff
from capture.formats.face_image import MAGIC as FACE_MAGIC
from capture.formats.face_image import read_face_images
from capture.formats.finger_image import MAGIC as FINGER_MAGIC
from capture.formats.finger_image import Compression, read_finger_images
from capture.formats.iris_image import MAGIC as IRIS_MAGIC
from capture.formats.iris_image import IrisCoding, iris_views, read_iris_images
from capture.pixels import encoding_of
from capture.sample import FingerPosition, Modality
from rekam.client import finger_files
from rekam.errors import NotWritten
from rekam.faults import told_faults
from rekam.offline.packing import EyeFile, PackedFormat, eye_of, packed_face, packed_fingers, packed_irises
from rekam.written import written

_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "wsq": ".wsq", "jp2": ".jp2", "j2k": ".j2k"}
_EYES = {1: "right_iris", 2: "left_iris"}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image taken out: what it shows, in words for a file's name, the suffix and the file's bytes."""

    name: str
    suffix: str
    data: bytes


def images_within(data: bytes) -> Iterator[Unpacked]:
    """Every image of an image record or CBEFF file; bare pixels become PNG, files stay as they are.

    Data of a CBEFF file that is no image record known here is given as it is. Raises `CaptureError`.
    """
    if data.startswith(FINGER_MAGIC):
        for finger in read_finger_images(data).images:
            known = finger.position in set(FingerPosition)
            name = FingerPosition(finger.position).name.lower() if known else f"position_{finger.position}"
            if finger.grid.compression in (Compression.NONE, Compression.PACKED):
                _, png = cv2.imencode(".png", decode_finger_image(finger).image)
                yield Unpacked(name, ".png", png.tobytes())
            else:
                yield _file(name, finger.data)
    elif data.startswith(IRIS_MAGIC):
        for view in iris_views(read_iris_images(data)):
            name = _EYES.get(view.eye, "iris")
            if view.coding in (IrisCoding.BARE_GREY, IrisCoding.BARE_COLOUR):
                _, png = cv2.imencode(".png", decode_iris_view(view).image)
                yield Unpacked(name, ".png", png.tobytes())
            else:
                yield _file(name, view.data)
    elif data.startswith(FACE_MAGIC):
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
    if not bir.bdb.startswith((FINGER_MAGIC, IRIS_MAGIC, FACE_MAGIC)):
        yield _file(name, bir.bdb)
        return
    try:
        yield from images_within(bir.bdb)
    except CaptureError:
        # One damaged record does not hide the others; it is handed over as it came.
        yield Unpacked(name, ".damaged", bir.bdb)


def _file(name: str, data: bytes) -> Unpacked:
    return Unpacked(name, _SUFFIXES.get(encoding_of(data) or "", ".bin"), data)


def unpack(
    record: Annotated[
        Path,
        typer.Argument(metavar="RECORD", help="A finger, iris or face image record, or a CBEFF XML file."),
    ],
    out: Annotated[Path, typer.Option(help="Write the images into this folder.")] = Path(),
) -> None:
    """Take the images out of an image record or CBEFF file, named by what they show."""
    names: Counter[str] = Counter()
    with told_faults(record):
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


def pack(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Folders or images named by finger: right_thumb.png, 2.wsq. With --modality iris, images "
            "named by eye: right_iris.png, left_eye.jp2. With --modality face, one portrait.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Write the record to this file.")],
    to: Annotated[
        PackedFormat,
        typer.Option(
            help="ISO/IEC 19794-4 (fingers), -6 (irises) or -5 (face) of 2005 or 2011, or CBEFF XML around "
            "the latter."
        ),
    ] = PackedFormat.ISO_2011,
    modality: Annotated[Modality, typer.Option(help="What the images show.")] = Modality.FINGERPRINT,
    ppi: Annotated[
        float | None, typer.Option(help="Pixels per inch of fingers, where the files do not tell.")
    ] = None,
) -> None:
    """Put images of fingers or irises, or a portrait, into one image record or CBEFF file."""
    if modality is Modality.FACE and len(files) != 1:
        raise typer.BadParameter("a face image record is packed of one portrait")
    with told_faults():
        if modality is Modality.FINGERPRINT:
            data = packed_fingers(finger_files(files), to, ppi)
        elif modality is Modality.IRIS:
            data = packed_irises([EyeFile(eye_of(path), path) for path in files], to)
        else:
            data = packed_face(files[0], to)
        written(out, data)
    typer.echo(f"{out}: {len(data):,} bytes")
