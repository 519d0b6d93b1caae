"""`rekam template`: convert, extract, show and compare minutiae in files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.formats.card_minutiae import CardMinutiae, CardSize, read_card_template
from capture.formats.minutiae_record import (
    FingerView,
    Minutia,
    MinutiaeRecord,
    MinutiaType,
    RecordFormat,
    ScannedImage,
    read_minutiae_record,
)
from capture.formats.minutiae_template import record_of
from capture.sample import FingerPosition
from rekam.offline.records import TemplateFormat, read_minutiae, template_app
from tests.minutiae import made_template
from tests.test_written import full_disk


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(template_app, [str(argument) for argument in arguments])


def score(result: Result) -> float:
    assert result.exit_code == 0, result.output
    return float(result.output.removeprefix("score ").split(":")[0])


@pytest.fixture
def template() -> FingerprintTemplate:
    made = made_template(45, seed=3, side=400)
    return replace(
        made, position=FingerPosition.LEFT_THUMB, reliability=np.linspace(1, 0.5, 45).astype(np.float32)
    )


@pytest.fixture
def native(template: FingerprintTemplate, tmp_path: Path) -> Path:
    path = tmp_path / "finger.rf"
    path.write_bytes(template.to_bytes())
    return path


@pytest.mark.parametrize("to", TemplateFormat)
def test_a_template_goes_into_every_format_and_comes_back(to: TemplateFormat, native: Path) -> None:
    there, back = native.with_name("there"), native.with_name("back")
    result = run("convert", native, there, "--to", to)
    assert result.exit_code == 0, result.output
    assert result.output == f"{there}: {to}, {there.stat().st_size} bytes\n"
    result = run("convert", there, back, "--to", "native", "--from", to)
    assert result.exit_code == 0, result.output
    kept = FingerprintTemplate.from_bytes(back.read_bytes())
    assert len(kept) == 45
    assert kept.extractor is (Extractor.LEADER_1 if to is TemplateFormat.NATIVE else Extractor.FOREIGN)
    card = to in ("iso2005-card", "iso2005-card-compact")
    assert kept.position is (FingerPosition.UNKNOWN if card else FingerPosition.LEFT_THUMB)
    result = run("compare", native, there, "--from", to)
    assert score(result) > 0.6 * score(run("compare", native, native))
    assert ("never calibrated" in result.output) is (to is not TemplateFormat.NATIVE)


def two_fingers(tmp_path: Path) -> Path:
    minutiae = (Minutia(MinutiaType.ENDING, 10, 20, 64, 80), Minutia(MinutiaType.OTHER, 30, 40, 0, 0))
    views = tuple(FingerView(finger, ScannedImage(300, 200, 224, 224), minutiae) for finger in (2, 7))
    path = tmp_path / "two.fmr"
    path.write_bytes(MinutiaeRecord(RecordFormat.ISO_2005, views).to_bytes())
    return path


def test_from_record_to_record_all_views_go_unless_one_is_named(tmp_path: Path) -> None:
    source, target = two_fingers(tmp_path), tmp_path / "out"
    assert run("convert", source, target, "--to", "ansi378").exit_code == 0
    record = read_minutiae_record(target.read_bytes())
    assert [view.position for view in record.views] == [2, 7]
    assert record.views[0].image.x_resolution == 224
    assert [m.angle for m in record.views[0].minutiae] == [45, 0]
    assert run("convert", source, target, "--to", "iso2011", "--view", "2", "--position", "8").exit_code == 0
    record = read_minutiae_record(target.read_bytes())
    assert [view.position for view in record.views] == [8]
    assert record.views[0].minutiae[1].type is MinutiaType.OTHER
    result = run("convert", source, target, "--to", "iso2011", "--view", "3")
    assert result.exit_code == 1
    assert f"error: {source}: the record has 2 views, no view 3" in result.output


def test_card_options(native: Path) -> None:
    card = native.with_name("card")
    arguments = (
        "--to",
        "iso2005-card-compact",
        "--max-minutiae",
        "12",
        "--order",
        "x-y-descending",
        "--wrapped",
    )
    assert run("convert", native, card, *arguments).exit_code == 0
    minutiae = read_card_template(card.read_bytes(), CardSize.COMPACT).minutiae
    assert len(minutiae) == 12
    assert list(minutiae) == sorted(minutiae, key=lambda m: (-m.x, -m.y))
    assert isinstance(read_minutiae(card.read_bytes(), TemplateFormat.ISO_2005_CARD_COMPACT), CardMinutiae)


def test_what_a_file_holds_in_words(native: Path, tmp_path: Path) -> None:
    shown = run("show", native).output
    assert "finger.rf: native template of LEADER_1" in shown
    assert "left thumb" in shown
    assert "45: 45 endings" in shown
    shown = run("show", two_fingers(tmp_path), "--minutiae").output
    assert "ISO/IEC 19794-2:2005 record, 60 bytes" in shown
    assert "view 2 of 2" in shown
    assert "300 x 200 pixels, 224 x 224 a cm" in shown
    assert "2: 1 endings, 1 of unknown type" in shown
    assert "90°" in shown


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        (b"", (), "no native template or minutiae record; card minutiae need their format said"),
        (b"RF\x01", (), "at least 16 bytes"),
        (b"FMR\x00 20\x00", (), "byte 8: "),
        (b"\x01\x02\x03\x04", ("--from", "iso2005-card-compact"), "byte 3: "),
        (b"\x01", ("--from", "ansi378"), "no file of format ansi378"),
    ],
)
def test_what_is_not_readable_is_one_message(
    data: bytes, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(data)
    result = run("show", path, *arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {path}: ")
    assert words in result.output
    assert result.output.count("\n") == 1
    assert run("show", tmp_path / "absent").exit_code == 1


def test_a_record_of_another_format_than_said_is_refused(tmp_path: Path) -> None:
    result = run("show", two_fingers(tmp_path), "--from", "ansi378")
    assert result.exit_code == 1
    assert "the record is iso2005, not ansi378" in result.output


def test_an_image_becomes_a_record(development_data: Path, tmp_path: Path) -> None:
    prints = development_data / "fingerprint" / "fvc2002_db1_b"
    record, other = tmp_path / "a.fmr", prints / "101_2.png"
    result = run("extract", prints / "101_1.png", record, "--ppi", "500", "--position", "7")
    assert result.exit_code == 0, result.output
    (view,) = read_minutiae_record(record.read_bytes()).views
    assert view.position == 7
    assert len(view.minutiae) > 20
    stranger = prints / "102_1.png"
    genuine, impostor = (run("compare", record, one, "--ppi", "500") for one in (other, stranger))
    assert score(genuine) > 1.3 * score(impostor)
    result = run("extract", other, record)
    assert result.exit_code == 1
    assert "resolution" in result.output


def test_an_extracted_record_keeps_its_finger(development_data: Path, tmp_path: Path) -> None:
    record = development_data / "conformance" / "iso19794" / "Automatic" / "Auth" / "0001Left_Index.iso"
    out = tmp_path / "out"
    for position, expected in (((), 7), (("--position", "7"), 7), (("--position", "6"), None)):
        result = run("extract", record, out, "--to", "iso2005", "--extractor", "fast", *position)
        if expected is None:
            assert result.exit_code == 1
            assert "shows the left index finger, the sender declares left thumb" in result.output
        else:
            assert result.exit_code == 0, result.output
            assert read_minutiae_record(out.read_bytes()).views[0].position == expected
            out.unlink()
    assert not out.exists()


def test_a_full_disk_leaves_the_older_file(native: Path, development_data: Path) -> None:
    out = native.with_name("out")
    out.write_bytes(b"older")
    image = development_data / "fingerprint" / "fvc2002_db1_b" / "101_1.png"
    for arguments in (
        ("convert", native, out, "--to", "iso2005"),
        ("extract", image, out, "--ppi", "500", "--extractor", "fast"),
    ):
        with full_disk(100):
            result = run(*arguments)
        assert result.exit_code == 1
        assert result.output == f"error: {out} cannot be written: File too large\n"
        assert out.read_bytes() == b"older"


def test_a_view_that_is_not_there(native: Path, tmp_path: Path) -> None:
    record, out = tmp_path / "one.fmr", tmp_path / "out"
    assert run("convert", native, record, "--to", "iso2005").exit_code == 0
    for source, words in (
        (record, "the record has 1 view, no view 3"),
        (two_fingers(tmp_path), "has 2 views"),
    ):
        assert words in run("convert", source, out, "--to", "native", "--view", "3").output


def test_only_the_first_view_counts_in_a_comparison(template: FingerprintTemplate, tmp_path: Path) -> None:
    other = made_template(45, seed=9, side=400)
    path = tmp_path / "several.fmr"
    path.write_bytes(record_of([template, other], RecordFormat.ISO_2011).to_bytes())
    alone = tmp_path / "alone.rf"
    alone.write_bytes(template.to_bytes())
    second = tmp_path / "second.rf"
    second.write_bytes(other.to_bytes())
    assert score(run("compare", path, alone)) > 1.3 * score(run("compare", path, second))
