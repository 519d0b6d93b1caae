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

from capture.decode import decode_image
from capture.formats.finger_image import FingerImageRecord2005, read_finger_images
from capture.sample import FingerPosition
from rekam.client import finger_files
from rekam.errors import InvalidRequest
from rekam.image_records import images_within, pack, unpack
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
