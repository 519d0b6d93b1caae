"""Decoding irises and portraits: every format and record, every kind of pixel, and how cameras are held."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from capture.decode import (
    FACE_LIMITS,
    IRIS_LIMITS,
    decode_face_image,
    decode_image,
    decode_iris_image,
    decode_iris_view,
)
from capture.errors import ImageProblem, ImageRefused
from capture.formats.face_image import MAGIC as FACE_MAGIC
from capture.formats.face_image import FaceImage, FaceImage2005, FaceRecord, FaceRecord2005
from capture.formats.iris_image import MAGIC as IRIS_MAGIC
from capture.formats.iris_image import (
    Eye2005,
    IrisImage2005,
    IrisRecord2005,
    IrisRecord2011,
    IrisRepresentation2011,
    Layout2005,
    iris_views,
    read_iris_images,
)
from capture.sample import EyePosition, FingerPosition

LOSSLESS = ("png", "bmp", "tiff", "jp2", "j2k")
# What each value of the orientation tag does to a stored image to make it upright.
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def grey(height: int = 130, width: int = 160) -> NDArray[np.uint8]:
    """No symmetry: every turn of it is another image."""
    y, x = np.mgrid[:height, :width]
    pixels: NDArray[np.uint8] = (x + y * y // 90 + 40 * (x > width // 3) * (y > height // 2)).astype(np.uint8)
    return pixels


def colour(height: int = 130, width: int = 160) -> NDArray[np.uint8]:
    plain = grey(height, width)
    return np.stack([plain, plain[::-1], np.full_like(plain, 40)], axis=2)


def encoded(
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32], name: str, **options: object
) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    if name in ("jp2", "j2k"):
        picture.save(stream, "JPEG2000", irreversible=False, no_jp2=name == "j2k", **options)
    else:
        picture.save(stream, name.upper(), **options)
    return stream.getvalue()


def held(pixels: NDArray[np.uint8], name: str, orientation: int) -> bytes:
    if name == "tiff":
        return encoded(pixels, name, tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(pixels, name, exif=exif, **({"quality": 97, "subsampling": 0} if name == "jpeg" else {}))


def iris_problem(data: bytes, eye: EyePosition = EyePosition.UNKNOWN) -> ImageProblem:
    with pytest.raises(ImageRefused) as caught:
        decode_iris_image(data, eye=eye)
    assert str(caught.value)
    return caught.value.problem


def face_problem(data: bytes) -> ImageProblem:
    with pytest.raises(ImageRefused) as caught:
        decode_face_image(data)
    assert str(caught.value)
    return caught.value.problem


def iris_2005(
    data: bytes,
    *,
    eye: int = 1,
    layout: Layout2005 = Layout2005.ISO,
    form: int = 2,
    properties: int = 0,
    bit_depth: int = 8,
    kind: int = 0,
) -> IrisRecord2005:
    image = IrisImage2005(data=data, geometry=bytes(51 if layout is Layout2005.IREX else 4))
    return IrisRecord2005(
        eyes=(Eye2005(eye=eye, images=(image,)),),
        width=160,
        height=130,
        format=form,
        layout=layout,
        properties=properties,
        bit_depth=bit_depth,
        kind=kind,
    )


def iris_2011(
    data: bytes,
    *,
    eye: int = 2,
    width: int = 160,
    height: int = 130,
    form: int = 2,
    properties: int = 0,
    bit_depth: int = 8,
) -> IrisRecord2011:
    image = IrisRepresentation2011(
        eye=eye,
        width=width,
        height=height,
        data=data,
        format=form,
        properties=properties,
        bit_depth=bit_depth,
    )
    return IrisRecord2011(images=(image,))


def face_record(data: bytes, *, width: int = 160, height: int = 130, form: int = 3) -> FaceRecord:
    return FaceRecord(images=(FaceImage(width=width, height=height, data=data, format=form),))


# --- image files


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    eye = decode_iris_image(encoded(grey(), name), eye=EyePosition.LEFT)
    assert np.array_equal(eye.image, grey())
    assert (eye.eye, eye.format) == (EyePosition.LEFT, name)
    portrait = decode_face_image(encoded(colour(), name))
    assert np.array_equal(portrait.image, colour())
    assert portrait.format == name
    assert not eye.image.flags.writeable
    assert not portrait.image.flags.writeable


def test_jpeg_stays_close() -> None:
    eye = decode_iris_image(encoded(grey(), "jpeg", quality=95)).image
    portrait = decode_face_image(encoded(colour(), "jpeg", quality=95, subsampling=0)).image
    assert np.abs(eye.astype(int) - grey()).mean() < 3
    assert np.abs(portrait.astype(int) - colour()).mean() < 4


@pytest.mark.parametrize("name", ["png", "tiff", "jp2"])
def test_sixteen_bits_become_eight_and_grey_three_channels(name: str) -> None:
    wide = grey().astype(np.uint16) * 257
    assert np.array_equal(decode_iris_image(encoded(wide, name)).image, grey())
    for deep in (wide, grey()):
        portrait = decode_face_image(encoded(deep, name)).image
        assert all(np.array_equal(portrait[..., i], grey()) for i in range(3))


@pytest.mark.parametrize("name", ["png", "tiff"])
def test_colour_of_sixteen_bits_becomes_eight(name: str) -> None:
    _, data = cv2.imencode(f".{name}", colour()[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(decode_face_image(data.tobytes()).image, colour())


def test_colour_of_sixteen_bits_in_jpeg_2000_is_refused_rather_than_falsified() -> None:
    _, data = cv2.imencode(".jp2", np.full((130, 160, 3), 65535, np.uint16))
    assert face_problem(data.tobytes()) is iris_problem(data.tobytes()) is ImageProblem.UNKNOWN_FORMAT
    _, data = cv2.imencode(".jp2", np.full((130, 160, 3), 255, np.uint8))
    assert (decode_face_image(data.tobytes()).image == 255).all()


def test_colour_becomes_luma_and_transparency_white() -> None:
    luma = decode_iris_image(encoded(colour(), "png")).image
    assert np.abs(luma - colour() @ np.array([0.299, 0.587, 0.114])).max() <= 1
    alpha = np.full(grey().shape, 255, np.uint8)
    alpha[:50] = 0
    seen_through = encoded(np.dstack([colour(), alpha]), "png")
    portrait, eye = decode_face_image(seen_through).image, decode_iris_image(seen_through).image
    assert (portrait[:50] == 255).all()
    assert np.array_equal(portrait[50:], colour()[50:])
    assert (eye[:50] == 255).all()


def test_other_kinds_of_pixels() -> None:
    palette = encoded(np.asarray(Image.fromarray(colour()).quantize(64).convert("RGB")), "png")
    assert decode_face_image(palette).image.shape == (130, 160, 3)
    stream = io.BytesIO()
    Image.fromarray(colour()).convert("CMYK").save(stream, "TIFF")
    cmyk = decode_face_image(stream.getvalue()).image
    assert np.abs(cmyk.astype(int) - colour()).max() <= 2
    floats = encoded(grey().astype(np.float32), "tiff")
    assert face_problem(floats) is iris_problem(floats) is ImageProblem.UNKNOWN_FORMAT


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["jpeg", "png", "tiff"])
def test_only_portraits_are_turned_as_the_camera_was_held(name: str, orientation: int) -> None:
    tolerance = 25 if name == "jpeg" else 0
    upright = decode_face_image(held(colour(), name, orientation)).image
    expected = TURNS[orientation](colour())
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).max() <= tolerance
    stored = held(grey(), name, orientation)
    for image in (decode_iris_image(stored).image, decode_image(stored, ppi=500).image):
        assert image.shape == grey().shape
        assert np.abs(image.astype(int) - grey()).max() <= tolerance


def test_a_phones_picture_with_a_second_one_behind_it_is_one_portrait() -> None:
    stream = io.BytesIO()
    picture = Image.fromarray(colour())
    picture.save(stream, "MPO", save_all=True, append_images=[picture.resize((80, 65))])
    assert decode_face_image(stream.getvalue()).image.shape == (130, 160, 3)


def test_an_orientation_that_no_camera_has_turns_nothing() -> None:
    for name in ("png", "tiff"):
        for orientation in (0, 9, 60_000):
            data = held(colour(), name, orientation)
            assert np.array_equal(decode_face_image(data).image, colour()), (name, orientation)


def test_limits() -> None:
    def iris(width: int, height: int) -> bytes:
        return encoded(np.zeros((height, width), np.uint8), "png")

    assert iris_problem(iris(119, 200)) is ImageProblem.TOO_SMALL
    assert iris_problem(iris(4001, 130)) is ImageProblem.TOO_MANY_PIXELS
    assert iris_problem(iris(2900, 2900)) is ImageProblem.TOO_MANY_PIXELS
    assert decode_iris_image(iris(4000, 120)).image.shape == (120, 4000)
    assert face_problem(iris(63, 200)) is ImageProblem.TOO_SMALL
    assert face_problem(iris(8001, 100)) is ImageProblem.TOO_MANY_PIXELS
    assert face_problem(iris(5000, 4801)) is ImageProblem.TOO_MANY_PIXELS
    small = replace(FACE_LIMITS, max_bytes=100)
    with pytest.raises(ImageRefused, match="bytes"):
        decode_face_image(iris(200, 200), limits=small)
    with pytest.raises(ImageRefused, match="bytes"):
        decode_iris_image(iris(200, 200), limits=replace(IRIS_LIMITS, max_bytes=100))


def test_what_is_no_image() -> None:
    wrong = (b"", b"GIF89a" + bytes(100), b"\xff\xa0" + bytes(100), b"FIR\x00" + bytes(100))
    expected = (ImageProblem.EMPTY, *[ImageProblem.UNKNOWN_FORMAT] * 3)
    for data, problem in zip(wrong, expected, strict=True):
        assert iris_problem(data) is face_problem(data) is problem
    assert iris_problem(FACE_MAGIC + bytes(100)) is ImageProblem.UNKNOWN_FORMAT
    assert face_problem(IRIS_MAGIC + bytes(100)) is ImageProblem.UNKNOWN_FORMAT
    stream = io.BytesIO()
    pages = [Image.fromarray(grey()), Image.fromarray(grey())]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    assert iris_problem(stream.getvalue()) is face_problem(stream.getvalue()) is ImageProblem.SEVERAL_FRAMES


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg"])
def test_truncated_files_are_refused(name: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (130, 160, 3), dtype=np.uint8)
    data = encoded(noise, name)
    for share in (0.02, 0.3, 0.6, 0.95):
        part = data[: int(share * len(data))]
        assert iris_problem(part) is face_problem(part) is ImageProblem.DAMAGED


# --- records of irises


@pytest.mark.parametrize("layout", Layout2005)
def test_bare_pixels_of_the_first_edition(layout: Layout2005) -> None:
    record = iris_2005(grey().tobytes(), layout=layout)
    sample = decode_iris_image(record.to_bytes())
    assert np.array_equal(sample.image, grey())
    assert (sample.eye, sample.format) == (EyePosition.RIGHT, "none")
    rgb = iris_2005(colour().tobytes(), layout=layout, form=4)
    assert np.array_equal(
        decode_iris_image(rgb.to_bytes()).image, decode_iris_image(encoded(colour(), "png")).image
    )
    wide = iris_2005((grey().astype(">u2") * 257).tobytes(), layout=layout, bit_depth=16)
    assert np.array_equal(decode_iris_image(wide.to_bytes()).image, grey())


def test_files_within_iris_records() -> None:
    for record in (
        iris_2005(encoded(grey(), "jp2"), form=14),
        iris_2005(encoded(grey(), "j2k"), form=16, layout=Layout2005.IREX),
        iris_2011(encoded(grey(), "png"), form=14),
        iris_2011(encoded(grey(), "jp2"), form=10),
        iris_2011(grey().tobytes()),
    ):
        assert np.array_equal(decode_iris_image(record.to_bytes()).image, grey())
    jpeg = encoded(grey(), "jpeg", quality=95)
    within = decode_iris_image(iris_2005(jpeg, form=6).to_bytes())
    assert np.array_equal(within.image, decode_iris_image(jpeg).image)
    assert within.format == "jpeg"


@pytest.mark.parametrize("properties", range(16))
def test_flipped_eyes_are_flipped_back(properties: int) -> None:
    horizontal, vertical = properties & 3, properties >> 2
    stored = grey()[:: -1 if vertical == 2 else 1, :: -1 if horizontal == 2 else 1]
    data = encoded(np.ascontiguousarray(stored), "png")
    for record in (
        iris_2011(data, form=14, properties=properties | 0x40),
        iris_2005(stored.tobytes(), properties=properties | 0x110),
    ):
        assert np.array_equal(decode_iris_image(record.to_bytes()).image, grey())


def test_the_eye_of_a_record() -> None:
    data = iris_2005(grey().tobytes(), eye=2).to_bytes()
    assert decode_iris_image(data).eye is EyePosition.LEFT
    assert decode_iris_image(data, eye=EyePosition.LEFT).eye is EyePosition.LEFT
    assert iris_problem(data, EyePosition.RIGHT) is ImageProblem.POSITION_CONFLICT
    unknown = iris_2005(grey().tobytes(), eye=0).to_bytes()
    assert decode_iris_image(unknown).eye is EyePosition.UNKNOWN
    assert decode_iris_image(unknown, eye=EyePosition.RIGHT).eye is EyePosition.RIGHT
    assert iris_problem(iris_2005(grey().tobytes(), eye=3).to_bytes()) is ImageProblem.DAMAGED


def test_iris_records_that_say_what_is_not_so() -> None:
    png = encoded(grey(), "png")
    pixels = grey().tobytes()
    for record, problem in (
        (iris_2011(png, form=10), ImageProblem.DAMAGED),
        (iris_2011(png, form=14, width=161), ImageProblem.DAMAGED),
        (iris_2011(png, form=6), ImageProblem.DAMAGED),
        (iris_2011(pixels[:-1]), ImageProblem.DAMAGED),
        (iris_2011(pixels + b"\0"), ImageProblem.DAMAGED),
        (iris_2011(pixels, bit_depth=0), ImageProblem.DAMAGED),
        (iris_2011(pixels, bit_depth=24), ImageProblem.DAMAGED),
        (iris_2011(b"", width=0, height=0), ImageProblem.TOO_SMALL),
        (iris_2011(b"", width=65535, height=65535), ImageProblem.TOO_MANY_PIXELS),
        (iris_2011(bytes(64), width=8, height=8), ImageProblem.TOO_SMALL),
        (iris_2005(png, form=10), ImageProblem.UNKNOWN_FORMAT),
        (iris_2005(png, form=18), ImageProblem.DAMAGED),
        (iris_2005(pixels, layout=Layout2005.IREX, kind=16), ImageProblem.UNKNOWN_FORMAT),
        (iris_2005(pixels, layout=Layout2005.IREX, kind=48), ImageProblem.UNKNOWN_FORMAT),
    ):
        assert iris_problem(record.to_bytes()) is problem
    one = iris_2011(pixels)
    two = IrisRecord2011(images=one.images * 2)
    none = IrisRecord2011(images=())
    assert iris_problem(two.to_bytes()) is iris_problem(none.to_bytes()) is ImageProblem.SEVERAL_FRAMES
    assert iris_problem(one.to_bytes()[:-1]) is ImageProblem.DAMAGED


# --- records of portraits


def test_files_within_face_records() -> None:
    for name, form in (("png", 3), ("jp2", 1), ("j2k", 2), ("jp2", 2)):
        sample = decode_face_image(face_record(encoded(colour(), name), form=form).to_bytes())
        assert np.array_equal(sample.image, colour())
        assert sample.format == name
    jpeg = encoded(colour(), "jpeg")
    within = decode_face_image(face_record(jpeg, form=0).to_bytes()).image
    assert np.array_equal(within, decode_face_image(jpeg).image)


def test_face_records_of_the_first_edition() -> None:
    for name, form in (("jpeg", 0), ("jp2", 1), ("j2k", 1)):
        file = encoded(colour(), name)
        image = FaceImage2005(width=160, height=130, data=file, format=form, points=(bytes(8),))
        record = FaceRecord2005(images=(image,))
        assert np.array_equal(decode_face_image(record.to_bytes()).image, decode_face_image(file).image)
        several = FaceRecord2005(images=(image, image))
        assert face_problem(several.to_bytes()) is ImageProblem.SEVERAL_FRAMES
        assert face_problem(record.to_bytes()[:-1]) is ImageProblem.DAMAGED


def test_a_portrait_is_turned_within_its_record_too() -> None:
    stored = held(colour(), "png", 6)
    for width, height in ((160, 130), (130, 160)):
        record = face_record(stored, width=width, height=height)
        assert np.array_equal(decode_face_image(record.to_bytes()).image, TURNS[6](colour()))


def test_face_records_that_say_what_is_not_so() -> None:
    png = encoded(colour(), "png")
    one = face_record(png)
    for record, problem in (
        (face_record(png, form=0), ImageProblem.DAMAGED),
        (face_record(png, form=4), ImageProblem.DAMAGED),
        (face_record(png, width=161), ImageProblem.DAMAGED),
        (face_record(png, width=8), ImageProblem.TOO_SMALL),
        (face_record(png, width=65535, height=65535), ImageProblem.TOO_MANY_PIXELS),
        (FaceRecord(images=one.images * 2), ImageProblem.SEVERAL_FRAMES),
        (FaceRecord(images=()), ImageProblem.SEVERAL_FRAMES),
    ):
        assert face_problem(record.to_bytes()) is problem
    assert face_problem(one.to_bytes()[:-1]) is ImageProblem.DAMAGED


# --- what holds for any image


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    st.integers(120, 180),
    st.integers(120, 180),
    st.sampled_from(LOSSLESS),
    st.sampled_from(EyePosition),
    st.integers(0, 2**32 - 1),
)
def test_any_eye_survives_any_lossless_way(h: int, w: int, name: str, eye: EyePosition, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)
    sample = decode_iris_image(encoded(pixels, name), eye=eye)
    assert np.array_equal(sample.image, pixels)
    coded = {"png": 14, "jp2": 10, "j2k": 10}.get(name)
    data = pixels.tobytes() if coded is None else encoded(pixels, name)
    record = iris_2011(data, eye=eye, width=w, height=h, form=coded or 2)
    again = decode_iris_image(record.to_bytes())
    assert np.array_equal(again.image, pixels)
    assert again.eye is eye


# --- real images


def test_every_conformance_record_is_decoded_or_refused_with_a_reason(development_data: Path) -> None:
    files = [path for kind in ("*.iso", "*.raw") for path in (development_data / "conformance").rglob(kind)]
    eyes, faces = {}, {}
    for path in files:
        data = path.read_bytes()
        if data.startswith(IRIS_MAGIC):
            eyes[path.name] = data
        elif data.startswith(FACE_MAGIC):
            faces[path.name] = data
    assert len(eyes) >= 8
    assert len(faces) >= 4
    two = eyes.pop("iris_2005_two_eyes.raw")
    assert iris_problem(two) is ImageProblem.SEVERAL_FRAMES
    left, right = (decode_iris_view(view) for view in iris_views(read_iris_images(two)))
    assert (left.eye, right.eye) == (EyePosition.LEFT, EyePosition.RIGHT)
    assert left.image.shape == right.image.shape == (480, 640)
    for name, data in eyes.items():
        sample = decode_iris_image(data)
        assert sample.image.std() > 10, name
        told = {"Left": EyePosition.LEFT, "Righ": EyePosition.RIGHT}.get(name.removeprefix("0001")[:4])
        assert told in (None, sample.eye), name
    for name, data in faces.items():
        assert decode_face_image(data).image.std() > 10, name


def test_records_hold_the_files_beside_them(development_data: Path) -> None:
    paired = development_data / "conformance" / "paired"
    for name in ("info_left_auth", "info_right_registration"):
        record, file = ((paired / f"{name}.{suffix}").read_bytes() for suffix in ("iso", "jp2"))
        assert np.array_equal(decode_iris_image(record).image, decode_iris_image(file).image)
    for name in ("info_face_auth", "info_face_registration"):
        record, file = ((paired / f"{name}.{suffix}").read_bytes() for suffix in ("iso", "jp2"))
        assert np.array_equal(decode_face_image(record).image, decode_face_image(file).image)


def test_real_eyes_and_portraits_decode(development_data: Path) -> None:
    eye = sorted((development_data / "iris" / "casia_v1").glob("*.jpg"))[0]
    assert decode_iris_image(eye.read_bytes()).image.shape == (280, 320)
    portrait = sorted((development_data / "face" / "lfw").glob("*/*.jpg"))[0]
    assert decode_face_image(portrait.read_bytes()).image.shape == (250, 250, 3)
    # A print is not told from an eye by its bytes: what it is, the caller says.
    assert decode_image(eye.read_bytes(), ppi=500).position is FingerPosition.UNKNOWN
