"""Images out of and into records on the command line."""

import io
from pathlib import Path

import numpy as np
import pytest
import typer
from lxml import etree
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from capture.decode import decode_face_image, decode_image, decode_iris_image
from capture.formats.face_image import read_face_images
from capture.formats.finger_image import FingerImageRecord2005, read_finger_images
from capture.formats.iris_image import iris_views, read_iris_images
from capture.sample import EyePosition, FingerPosition
from rekam.client import finger_files
from rekam.errors import InvalidRequest
from rekam.offline.image_records import images_within, pack, unpack
from rekam.offline.packing import eye_of
from tests.test_written import full_disk

APP = typer.Typer()
APP.command()(unpack)
APP.command()(pack)
RUN = CliRunner()


def picture(seed: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:120, :100]
    waves = 128 + 100 * np.sin(2 * np.pi * np.hypot(x - 10 * seed, y - 60) / 9)
    return np.asarray(waves, dtype=np.uint8)


@pytest.fixture
def fingers(tmp_path: Path) -> Path:
    folder = tmp_path / "fingers"
    folder.mkdir()
    Image.fromarray(picture(1)).save(folder / "right_thumb.png", dpi=(500, 500))
    Image.fromarray(picture(7)).save(folder / "left_index.bmp", dpi=(500, 500))
    Image.fromarray(picture(10)).save(folder / "left_little.jpg", dpi=(500, 500), quality=95)
    return folder


@pytest.mark.parametrize("kind", ["iso2005", "iso2011", "cbeff"])
def test_packed_fingers_are_unpacked_again(kind: str, fingers: Path, tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    if kind == "iso2005":
        for image in fingers.iterdir():
            if image.suffix != ".jpg":  # records of 2005 have one coding for all images
                continue
            image.unlink()
    result = RUN.invoke(APP, ["pack", str(fingers), "--out", str(packed), "--to", kind])
    assert result.exit_code == 0, result.output
    result = RUN.invoke(APP, ["unpack", str(packed), "--out", str(out)])
    assert result.exit_code == 0, result.output
    expected = {"right_thumb.png", "left_index.png"} | ({"left_little.jpg"} if kind != "iso2005" else set())
    assert {path.name for path in out.iterdir()} == expected
    assert np.array_equal(decode_image((out / "left_index.png").read_bytes(), ppi=500).image, picture(7))
    if kind != "iso2005":
        assert (out / "left_little.jpg").read_bytes() == (fingers / "left_little.jpg").read_bytes()


def test_packed_cbeff_follows_the_schema(fingers: Path, tmp_path: Path, development_data: Path) -> None:
    packed = tmp_path / "packed.xml"
    assert RUN.invoke(APP, ["pack", str(fingers), "--out", str(packed), "--to", "cbeff"]).exit_code == 0
    schema = etree.XMLSchema(etree.parse(development_data / "conformance" / "cbeff" / "updatedcbeff.xsd"))
    schema.assertValid(etree.parse(packed))


def test_one_finger_is_sent_as_a_record(fingers: Path, tmp_path: Path) -> None:
    packed = tmp_path / "thumb.iso"
    arguments = ["pack", str(fingers / "right_thumb.png"), "--out", str(packed), "--to", "iso2005"]
    assert RUN.invoke(APP, arguments).exit_code == 0
    sample = decode_image(packed.read_bytes())
    assert (sample.position, sample.ppi) == (FingerPosition.RIGHT_THUMB, 500)
    assert np.array_equal(sample.image, picture(1))
    assert isinstance(read_finger_images(packed.read_bytes()), FingerImageRecord2005)


def test_conformance_files_are_unpacked(development_data: Path, tmp_path: Path) -> None:
    folder = development_data / "conformance"
    names = [image.name for image in images_within((folder / "cbeff" / "cbeff-sample.xml").read_bytes())]
    assert len(names) == 13
    assert {FingerPosition(i).name.lower() for i in range(1, 11)} < set(names)
    (image,) = images_within((folder / "paired" / "info_left_auth.iso").read_bytes())
    assert (image.name, image.suffix) == ("left_iris", ".jp2")
    assert image.data == (folder / "paired" / "info_left_auth.jp2").read_bytes()
    (image,) = images_within((folder / "paired" / "info_face_auth.iso").read_bytes())
    assert image.data == (folder / "paired" / "info_face_auth.jp2").read_bytes()
    irises = images_within((folder / "iso19794" / "iris_2005_two_eyes.raw").read_bytes())
    assert [(image.name, image.suffix) for image in irises] == [("left_iris", ".jpg"), ("right_iris", ".jpg")]


def test_what_is_no_record_ends_with_a_message(tmp_path: Path, fingers: Path) -> None:
    for arguments in (
        ["unpack", str(fingers / "right_thumb.png"), "--out", str(tmp_path / "out")],
        ["unpack", str(tmp_path / "missing")],
        ["pack", str(tmp_path / "missing_thumb.png"), "--out", str(tmp_path / "out.iso")],
        ["pack", str(fingers), "--out", str(tmp_path / "out.iso"), "--to", "iso2005"],
    ):
        result = RUN.invoke(APP, arguments)
        assert result.exit_code == 1
        assert "error:" in result.output
    stream = io.BytesIO()
    Image.fromarray(picture(1)).save(stream, "PNG")
    (tmp_path / "2.png").write_bytes(stream.getvalue())
    result = RUN.invoke(APP, ["pack", str(tmp_path / "2.png"), "--out", str(tmp_path / "out.iso")])
    assert "2.png" in result.output
    assert "resolution" in result.output


def test_unpacking_says_which_file_is_no_record(tmp_path: Path, fingers: Path) -> None:
    thumb, xml = fingers / "right_thumb.png", tmp_path / "bad.xml"
    xml.write_text("\ufeff <BIR")
    for path, words in (
        (thumb, "no finger, iris or face image record and no CBEFF file"),
        (xml, "the document is no well-formed XML: "),
    ):
        result = RUN.invoke(APP, ["unpack", str(path), "--out", str(tmp_path / "out")])
        assert result.exit_code == 1
        assert result.output.startswith(f"error: {path}: {words}")
        assert "<string>" not in result.output
    assert not (tmp_path / "out").exists()


def test_unpacking_overwrites_nothing(tmp_path: Path, fingers: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    assert RUN.invoke(APP, ["pack", str(fingers), "--out", str(packed)]).exit_code == 0
    out.mkdir()
    (out / "left_little.jpg").write_bytes(b"mine")
    result = RUN.invoke(APP, ["unpack", str(packed), "--out", str(out)])
    assert result.exit_code == 1
    assert f"{out / 'left_little.jpg'} is there already" in result.output
    assert [path.read_bytes() for path in out.iterdir()] == [b"mine"]


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, fingers: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    arguments = ["pack", str(fingers), "--out", str(packed)]
    assert RUN.invoke(APP, arguments).exit_code == 0
    good = packed.read_bytes()
    with full_disk():
        packing, unpacking = (
            RUN.invoke(APP, one) for one in (arguments, ["unpack", str(packed), "--out", str(out)])
        )
    assert packing.output == f"error: {packed} cannot be written: File too large\n"
    assert "cannot be written: File too large" in unpacking.output
    assert packed.read_bytes() == good
    assert list(out.iterdir()) == []


def test_one_file_given_twice_is_refused(tmp_path: Path, fingers: Path) -> None:
    for again in (fingers, fingers / "right_thumb.png"):
        result = RUN.invoke(APP, ["pack", str(fingers), str(again), "--out", str(tmp_path / "out.iso")])
        assert result.exit_code == 1
        assert "is given twice" in result.output
    assert not (tmp_path / "out.iso").exists()


def test_a_record_tells_its_finger_where_its_name_does_not(
    tmp_path: Path, fingers: Path, development_data: Path
) -> None:
    folder = development_data / "conformance" / "iso19794" / "Automatic" / "Auth"
    named = [folder / f"0001{hand}_Index.iso" for hand in ("Left", "Right")]
    assert [file.position for file in finger_files(named)] == [
        FingerPosition.LEFT_INDEX,
        FingerPosition.RIGHT_INDEX,
    ]
    for name, expected in (
        ("unknown.iso", FingerPosition.LEFT_INDEX),
        ("left_ring.iso", FingerPosition.LEFT_RING),  # who decodes it finds the contradiction
    ):
        (tmp_path / name).write_bytes(named[0].read_bytes())
        assert finger_files([tmp_path / name])[0].position is expected
    several = tmp_path / "several.iso"
    assert RUN.invoke(APP, ["pack", str(fingers), "--out", str(several)]).exit_code == 0
    assert finger_files([several])[0].position is FingerPosition.UNKNOWN
    several.write_bytes(several.read_bytes()[:50])
    assert finger_files([several])[0].position is FingerPosition.UNKNOWN
    several.write_bytes(b"FI")
    with pytest.raises(InvalidRequest, match=r"several\.iso tells no finger"):
        finger_files([several])


# --- irises and portraits


def eye_pixels(seed: int = 1) -> NDArray[np.uint8]:
    y, x = np.mgrid[:140, :160]
    return np.asarray((x * seed + y * y // 80) % 251, dtype=np.uint8)


def portrait_pixels() -> NDArray[np.uint8]:
    plain = eye_pixels()
    return np.stack([plain, plain[:, ::-1], plain[::-1]], axis=2)


def run(*arguments: str | Path) -> str:
    result = RUN.invoke(APP, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", ["iso2005", "iso2011", "cbeff"])
def test_packed_irises_are_unpacked_again(kind: str, tmp_path: Path) -> None:
    Image.fromarray(eye_pixels(1)).save(tmp_path / "right_iris.png")
    Image.fromarray(eye_pixels(3)).save(tmp_path / "left_eye_2.bmp")
    packed, out = tmp_path / "packed", tmp_path / "out"
    eyes = [tmp_path / "right_iris.png", tmp_path / "left_eye_2.bmp"]
    run("pack", *eyes, "--out", packed, "--to", kind, "--modality", "iris")
    run("unpack", packed, "--out", out)
    assert {path.name for path in out.iterdir()} == {"right_iris.png", "left_iris.png"}
    for name, seed in (("right_iris", 1), ("left_iris", 3)):
        assert np.array_equal(decode_iris_image((out / f"{name}.png").read_bytes()).image, eye_pixels(seed))


@pytest.mark.parametrize("kind", ["iso2005", "iso2011"])
@pytest.mark.parametrize(("suffix", "stays"), [(".jp2", True), (".jpg", None), (".png", False)])
def test_an_iris_record_is_an_image(kind: str, suffix: str, stays: bool | None, tmp_path: Path) -> None:
    file, packed = tmp_path / f"iris-left{suffix}", tmp_path / "packed.iso"
    Image.fromarray(eye_pixels()).save(file)
    run("pack", file, "--out", packed, "--to", kind, "--modality", "iris")
    sample = decode_iris_image(packed.read_bytes())
    assert sample.eye is EyePosition.LEFT
    assert np.array_equal(sample.image, decode_iris_image(file.read_bytes()).image)
    # JPEG files fit into records of 2005 only.
    assert (file.read_bytes() in packed.read_bytes()) == (kind == "iso2005" if stays is None else stays)


def test_coloured_and_unnamed_eyes(tmp_path: Path) -> None:
    file, packed = tmp_path / "eye.jp2", tmp_path / "packed.iso"
    Image.fromarray(portrait_pixels()).save(file)
    run("pack", file, "--out", packed, "--modality", "iris")
    sample = decode_iris_image(packed.read_bytes())
    assert sample.eye is EyePosition.UNKNOWN
    assert sample.format == "png"
    assert np.array_equal(sample.image, decode_iris_image(file.read_bytes()).image)
    assert eye_of(Path("left_and_right.png")) is EyePosition.UNKNOWN
    assert eye_of(Path("copyright.png")) is EyePosition.UNKNOWN
    assert eye_of(Path("EYE_Right.PNG")) is EyePosition.RIGHT


def test_an_iris_record_of_2005_has_one_size(tmp_path: Path) -> None:
    for name, part in (("right", eye_pixels()), ("left", eye_pixels()[:-1])):
        Image.fromarray(part).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / "right.png"), str(tmp_path / "left.png")]
    common = ["pack", *files, "--out", str(tmp_path / "packed"), "--modality", "iris", "--to"]
    result = RUN.invoke(APP, [*common, "iso2005"])
    assert result.exit_code == 1
    assert "one size" in result.output
    assert RUN.invoke(APP, [*common, "iso2011"]).exit_code == 0
    views = iris_views(read_iris_images((tmp_path / "packed").read_bytes()))
    assert [(view.eye, view.height) for view in views] == [(1, 140), (2, 139)]


@pytest.mark.parametrize("kind", ["iso2005", "iso2011"])
@pytest.mark.parametrize(
    ("suffix", "stays"), [(".jp2", True), (".jpg", True), (".png", False), (".bmp", False)]
)
def test_a_portrait_is_packed_and_unpacked(kind: str, suffix: str, stays: bool, tmp_path: Path) -> None:
    file, packed, out = tmp_path / f"portrait{suffix}", tmp_path / "packed.iso", tmp_path / "out"
    Image.fromarray(portrait_pixels()).save(file)
    run("pack", file, "--out", packed, "--to", kind, "--modality", "face")
    expected = decode_face_image(file.read_bytes()).image
    assert np.array_equal(decode_face_image(packed.read_bytes()).image, expected)
    run("unpack", packed, "--out", out)
    (unpacked,) = out.iterdir()
    assert np.array_equal(decode_face_image(unpacked.read_bytes()).image, expected)
    assert (unpacked.read_bytes() == file.read_bytes()) == stays
    (image,) = read_face_images(packed.read_bytes()).images
    assert (image.width, image.height, image.colour_space) == (160, 140, 1)


@pytest.mark.parametrize("kind", ["iso2005", "iso2011", "cbeff"])
def test_a_portrait_that_lies_is_packed_upright(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 8
    file, packed = tmp_path / "phone.jpg", tmp_path / "packed"
    Image.fromarray(portrait_pixels()[..., 0]).save(file, exif=exif)
    run("pack", file, "--out", packed, "--to", kind, "--modality", "face")
    (image,) = images_within(packed.read_bytes())
    assert image.suffix == (".jp2" if kind == "iso2005" else ".png")
    with Image.open(io.BytesIO(image.data)) as inner:
        assert (inner.size, inner.mode) == ((140, 160), "L")
        assert inner.getexif().get(274, 1) == 1
        upright = np.asarray(inner)
    assert np.array_equal(upright, decode_face_image(file.read_bytes()).image[..., 0])


@pytest.mark.parametrize("modality", ["iris", "face"])
def test_cbeff_around_other_modalities_follows_the_schema(
    modality: str, tmp_path: Path, development_data: Path
) -> None:
    file, packed = tmp_path / "left.png", tmp_path / "packed.xml"
    Image.fromarray(eye_pixels()).save(file)
    run("pack", file, "--out", packed, "--to", "cbeff", "--modality", modality)
    schema = etree.XMLSchema(etree.parse(development_data / "conformance" / "cbeff" / "updatedcbeff.xsd"))
    schema.assertValid(etree.parse(packed))
    (image,) = images_within(packed.read_bytes())
    assert image.name == ("left_iris" if modality == "iris" else "face")


def test_what_is_no_eye_or_portrait_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "left.png").write_bytes(b"no image")
    for modality in ("iris", "face"):
        arguments = ["pack", str(tmp_path / "left.png"), "--out", str(tmp_path / "out")]
        result = RUN.invoke(APP, [*arguments, "--modality", modality])
        assert result.exit_code == 1
        assert "left.png" in result.output
    two = [str(tmp_path / "left.png")] * 2
    result = RUN.invoke(APP, ["pack", *two, "--out", str(tmp_path / "out"), "--modality", "face"])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_bare_irises_become_png(development_data: Path) -> None:
    record = (development_data / "conformance" / "iso19794" / "iris_irex_sample.raw").read_bytes()
    (image,) = images_within(record)
    assert (image.name, image.suffix) == ("left_iris", ".png")
    assert np.array_equal(decode_iris_image(image.data).image, decode_iris_image(record).image)
