"""`rekam explain A [B]`: what a comparison rests on, or what one image shows, as a picture and in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from capture.decode import decode_face_image, decode_iris_image
from capture.errors import ImageRefused, TemplateRefused
from capture.face.template import FaceTemplate
from capture.fingerprint.template import ExtractorChoice
from capture.iris.template import IrisTemplate
from capture.sample import FaceSample, IrisSample, Modality
from rekam.config import load_settings
from rekam.faults import told_faults
from rekam.offline.explain_eyes import explain_eyes, eye_words, picture_of_eyes, seen_eye
from rekam.offline.explain_faces import explain_faces, face_words, picture_of_faces, seen_face
from rekam.offline.explain_prints import draw, explain_prints, read_print_or_template, words
from rekam.offline.samples import face_extractor
from rekam.written import written

S = TypeVar("S")
T = TypeVar("T")

_IRIS_TEMPLATE, _FACE_TEMPLATE = b"RI", b"RV"


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """A picture `(H, W, 3) uint8` RGB, and lines of text."""

    picture: NDArray[np.uint8]
    lines: list[str]


def explain(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="A print, eye or portrait: an image, an exchange record, or a native template.",
        ),
    ],
    b: Annotated[
        Path | None,
        typer.Argument(metavar="B", help="What to compare it with; prints need it, eyes and portraits may."),
    ] = None,
    modality: Annotated[Modality, typer.Option(help="What the files show.")] = Modality.FINGERPRINT,
    out: Annotated[Path, typer.Option(help="Write the picture to this PNG.")] = Path("explanation.png"),
    ppi: Annotated[
        list[float] | None,
        typer.Option(
            help="Pixels per inch of prints, whatever the files say: once for both, or once for each."
        ),
    ] = None,
    extractor: Annotated[
        ExtractorChoice, typer.Option(help="What finds the minutiae in prints.")
    ] = ExtractorChoice.ACCURATE,
) -> None:
    """Show why two prints, eyes or portraits match or do not, or what is found in one eye or portrait."""
    paths = [a] if b is None else [a, b]
    with told_faults():
        if modality is Modality.IRIS:
            shown = _eyes(paths)
        elif modality is Modality.FACE:
            shown = _faces(paths)
        else:
            shown = _prints(paths, ppi or [], extractor)
        _, png = cv2.imencode(".png", shown.picture[..., ::-1])
        written(out, png.tobytes())
    for line in shown.lines:
        typer.echo(line)
    typer.echo(f"picture: {out}")


def _prints(paths: Sequence[Path], ppi: Sequence[float], extractor: ExtractorChoice) -> _Shown:
    if len(paths) < 2:
        raise typer.BadParameter("a print is explained beside another one: name B")
    if len(ppi) > 2:
        raise typer.BadParameter("--ppi is given once, or once for each print")
    each: list[float | None] = [*ppi] or [None]
    given = [read_print_or_template(path, one) for path, one in zip(paths, (each[0], each[-1]), strict=True)]
    explanation = explain_prints(given[0], given[1], extractor)
    names = (paths[0].name, paths[1].name)
    return _Shown(draw(explanation, names), words(explanation, names))


def _eyes(paths: Sequence[Path]) -> _Shown:
    explanation = explain_eyes([seen_eye(_eye(path)) for path in paths])
    names = [path.name for path in paths]
    return _Shown(picture_of_eyes(explanation, names), eye_words(explanation, names))


def _faces(paths: Sequence[Path]) -> _Shown:
    settings = load_settings()
    extractor = face_extractor(settings.face_embedder)
    faces = [seen_face(_face(path), extractor) for path in paths]
    explanation = explain_faces(faces, settings.face_embedder_calibration)
    names = [path.name for path in paths]
    return _Shown(picture_of_faces(explanation, names), face_words(explanation, names))


def _eye(path: Path) -> IrisSample | IrisTemplate:
    return _read(path, _IRIS_TEMPLATE, IrisTemplate.from_bytes, decode_iris_image)


def _face(path: Path) -> FaceSample | FaceTemplate:
    return _read(path, _FACE_TEMPLATE, FaceTemplate.from_bytes, decode_face_image)


def _read(path: Path, magic: bytes, template: Callable[[bytes], T], image: Callable[[bytes], S]) -> S | T:
    """A template where the file begins so, else an image; a refusal names the file."""
    data = path.read_bytes()
    try:
        return template(data) if data.startswith(magic) else image(data)
    except ImageRefused as refused:
        raise ImageRefused(refused.problem, f"{path}: {refused}") from refused
    except TemplateRefused as refused:
        raise TemplateRefused(f"{path}: {refused}") from refused
