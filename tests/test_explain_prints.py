"""`rekam explain`: the picture and the words of a comparison."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from capture.fingerprint.template import FingerprintTemplate
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import record_of
from capture.sample import FingerPosition
from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import cylinders
from rekam.offline.explain_command import explain
from rekam.offline.explain_prints import (
    OVERLAP_COLOUR,
    ROLE_COLOURS,
    explain_prints,
    odds,
    picture_of_pair,
    rate,
    words,
)
from rekam.offline.overlap import Role
from rekam.offline.prints import read_print
from tests.test_written import full_disk


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)


BLUE = rgb(ROLE_COLOURS[Role.ALONE])


@pytest.mark.parametrize(
    ("llr", "expected"),
    [
        (3.0, "1,000 times likelier from one finger (log10 ratio +3.0)"),
        (4.4624, "29,000 times likelier from one finger (log10 ratio +4.5)"),
        (-0.5, "3.2 times likelier from two fingers (log10 ratio -0.5)"),
        (0.01, "says nothing either way"),
    ],
)
def test_a_likelihood_ratio_in_words(llr: float, expected: str) -> None:
    assert odds(llr) == expected


def test_a_false_match_rate_in_words() -> None:
    assert rate(1 / 31234) == "at most 1 in 31,000 prints of two fingers scores as much"
    assert rate(1.0) == "most prints of two fingers score as much"


def drawn_template(seed: int, n: int = 30, width: int = 300, height: int = 320) -> FingerprintTemplate:
    generator = np.random.default_rng(seed)
    return FingerprintTemplate(
        x=generator.uniform(20, width - 20, n).astype(np.float32),
        y=generator.uniform(20, height - 20, n).astype(np.float32),
        direction=generator.uniform(0, 6.28, n).astype(np.float32),
        ending=generator.random(n) < 0.5,
        reliability=np.linspace(1, 0.5, n).astype(np.float32),
        width=width,
        height=height,
        position=FingerPosition.UNKNOWN,
        quality=60,
    )


def white(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width), 255, np.uint8)


def count(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) <= 6).sum())


def test_the_picture_joins_the_pairs_and_leaves_the_other_minutiae_blue() -> None:
    a, b = drawn_template(1), drawn_template(1)
    comparison = compare(cylinders(a), cylinders(b))
    assert len(comparison.pairs) >= 8
    image = white(320, 300)
    with_pairs = picture_of_pair(image, image, a, b, comparison, "Title\nmore")
    without = picture_of_pair(image, image, a, b, None, "Title\nmore")
    assert with_pairs.dtype == np.uint8
    assert with_pairs.shape[1:] == (1500, 3)
    # every pair takes two minutiae from the blue ones
    lone = 1 - len(comparison.pairs) / 30
    assert count(with_pairs, BLUE) == pytest.approx(lone * count(without, BLUE), rel=0.15)
    # only lines cross the gap between the prints, one for every pair or two that overlap
    middle = slice(742, 758)
    assert (without[110:820, middle] == 255).all()
    rows = (with_pairs[110:820, middle] < 240).any(axis=(1, 2))
    assert 4 <= int((np.diff(rows.astype(int)) == 1).sum()) <= len(comparison.pairs)
    assert np.array_equal(with_pairs, picture_of_pair(image, image, a, b, comparison, "Title\nmore"))


def test_the_colour_of_a_pair_is_its_contribution() -> None:
    a, b = drawn_template(1), drawn_template(1)
    found = compare(cylinders(a), cylinders(b))
    image = white(320, 300)
    weak, strong = (
        picture_of_pair(
            image,
            image,
            a,
            b,
            replace(found, contributions=np.full(len(found.pairs), share, np.float32)),
            "T",
        )
        for share in (0.0, 1.0)
    )
    # the colours of the two ends of the scale; the scale itself is in both pictures
    amber, violet = (0xF6, 0xC0, 0x4D), (0x5E, 0x11, 0x93)
    assert count(weak, amber) > 4 * count(strong, amber)
    assert count(strong, violet) > 4 * count(weak, violet)


def test_images_are_stretched_to_their_template_and_need_none() -> None:
    a = drawn_template(1)
    # a print at 1000 ppi: a black square at its centre stays at the centre of the left half
    image = white(640, 600)
    image[280:360, 260:340] = 0
    picture = picture_of_pair(image, white(100, 300), a, None, None, "No comparison")
    same = picture_of_pair(image[::2, ::2], white(100, 300), a, None, None, "No comparison")
    assert picture.shape == same.shape
    assert np.abs(picture.astype(int) - same).mean() < 1


def test_the_overlap_is_outlined_and_minutiae_wear_their_role() -> None:
    a = drawn_template(1)
    lacking = 25
    columns = ("x", "y", "direction", "ending", "reliability")
    b = replace(a, **{name: getattr(a, name)[np.arange(30) != lacking] for name in columns})
    explanation = explain_prints(a, b)
    assert explanation.overlap is not None
    assert explanation.comparison is not None
    picture = picture_of_pair(None, None, a, b, explanation.comparison, common=explanation.overlap)
    plain = picture_of_pair(None, None, a, b, explanation.comparison)
    assert count(picture, rgb(OVERLAP_COLOUR)) > 300 > count(plain, rgb(OVERLAP_COLOUR))
    assert count(picture, rgb(ROLE_COLOURS[Role.PARTNER])) > 20 * count(
        plain, rgb(ROLE_COLOURS[Role.PARTNER])
    )
    compact = picture_of_pair(
        None, None, a, b, explanation.comparison, common=explanation.overlap, compact=True
    )
    assert compact.shape[0] < picture.shape[0] - 80
    # the one minutia that B lacks is the only blue one, and named in words
    assert 0 < count(compact, BLUE) < 0.1 * count(plain, BLUE)
    lines = words(explanation, ("a", "b"))
    (at,) = [i for i, line in enumerate(lines) if line == "minutiae of A without partner (1):"]
    assert f"A ({a.x[lacking]:.0f}, {a.y[lacking]:.0f})" in lines[at + 1]
    assert any("B not turned; partners 0.0 pixels apart" in line for line in lines)
    # support and overlap make up the score
    comparison = explanation.comparison
    assert f"support gives {comparison.by_support:.3f}: 12 pairs" in lines[3]
    assert f"overlap gives {comparison.score - comparison.by_support:.3f}: " in lines[4]
    assert f"{len(comparison.partners)} minutiae have a partner, 1 of A and 0 of B have none" in lines[4]
    assert lines[6] == "pairs that carry the support (12), and their shares of the score:"


def test_strangers_are_laid_upon_one_another_only_with_support() -> None:
    explanation = explain_prints(drawn_template(1), drawn_template(2))
    assert explanation.overlap is None
    lines = words(explanation, ("a", "b"))
    assert "overlap gives nothing: too little support to lay one print upon the other" in lines
    assert not any("apart" in line or "without partner" in line for line in lines)


def test_pairs_that_lie_apart_are_dashed_and_named() -> None:
    a = drawn_template(1)
    explanation = explain_prints(a, a)
    assert explanation.overlap is not None
    agreeing = explanation.overlap.agreeing.copy()
    agreeing[0] = False
    off = replace(explanation, overlap=replace(explanation.overlap, agreeing=agreeing))
    lines = words(off, ("a", "a"))
    assert sum(line.endswith("  lies apart") for line in lines) == 1
    assert any(line.endswith("; 1 of the pairs lies further apart") for line in lines)
    whole, dashed = (
        picture_of_pair(None, None, a, a, one.comparison, common=one.overlap, compact=True)
        for one in (explanation, off)
    )
    assert 0 < np.mean(whole != dashed) < 0.02


def test_two_templates_are_explained_without_images(tmp_path: Path) -> None:
    a = drawn_template(1)
    (tmp_path / "a.rf").write_bytes(a.to_bytes())
    record = record_of([a], RecordFormat.ISO_2005)
    (tmp_path / "a.fmr").write_bytes(record.to_bytes())
    result = run(tmp_path / "a.rf", tmp_path / "a.fmr", "--out", tmp_path / "pair.png")
    assert result.exit_code == 0, result.stderr
    # another maker's minutiae: the score is shown, what it is worth is not known
    assert "templates of LEADER_1 and FOREIGN were never calibrated together" in result.stdout
    assert "B a.fmr: quality 60 of 100, 30 minutiae" in result.stdout
    assert cv2.imread(str(tmp_path / "pair.png")) is not None
    for name, kind in (("a.rf", "template"), ("a.fmr", "record")):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-3])
        result = run(tmp_path / "a.rf", tmp_path / "a.fmr", "--out", tmp_path / "again.png")
        assert result.exit_code == 1
        assert name in result.stderr
        assert kind in result.stderr
        (tmp_path / name).write_bytes(data)
    assert not (tmp_path / "again.png").exists()
    good = (tmp_path / "pair.png").read_bytes()
    with full_disk():
        result = run(tmp_path / "a.rf", tmp_path / "a.fmr", "--out", tmp_path / "pair.png")
    assert result.exit_code == 1
    assert f"{tmp_path / 'pair.png'} cannot be written: File too large" in result.stderr
    assert (tmp_path / "pair.png").read_bytes() == good


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(explain)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_two_prints_of_one_finger(development_data: Path, tmp_path: Path) -> None:
    folder = development_data / "fingerprint" / "fvc2002_db1_b"
    result = run(folder / "105_1.png", folder / "105_3.png", "--ppi", "500", "--out", tmp_path / "pair.png")
    assert result.exit_code == 0, result.stderr
    picture = cv2.imread(str(tmp_path / "pair.png"))
    assert picture is not None
    assert picture.shape[1] == 1500
    lines = result.stdout.splitlines()
    assert "likelier from one finger" in lines[0]
    assert lines[1].startswith("A 105_1.png: quality ")
    first, third = (read_print(folder / f"105_{i}.png", 500) for i in (1, 3))
    explanation = explain_prints(first, third)
    assert lines[:-1] == words(explanation, ("105_1.png", "105_3.png"))
    assert explanation.comparison is not None
    assert f"score {explanation.comparison.score:.4f}" in lines[0]
    assert any(line.startswith("overlap gives ") for line in lines)
    shares = [float(line.split()[0]) for line in lines if line.startswith("  0.")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(explanation.comparison.score, abs=1e-3)


def test_a_print_without_template_is_explained(development_data: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), white(300, 300))
    good = development_data / "fingerprint" / "fvc2002_db1_b" / "105_1.png"
    result = run(good, blank, "--ppi", "500", "--out", tmp_path / "pair.png")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("no comparison: print B gave no template")
    assert "B blank.png: Nothing was captured: place the finger on the sensor." in result.stdout
    assert cv2.imread(str(tmp_path / "pair.png")) is not None


def test_refused_files_are_named(tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.png"
    cv2.imwrite(str(unknown), white(300, 300))
    result = run(unknown, unknown, "--out", tmp_path / "pair.png")
    assert result.exit_code == 1
    assert "unknown.png" in result.stderr
    assert "resolution" in result.stderr
    result = run(tmp_path / "missing.png", unknown, "--ppi", "500", "--out", tmp_path / "pair.png")
    assert result.exit_code == 1
    assert "missing.png" in result.stderr
    assert not (tmp_path / "pair.png").exists()
