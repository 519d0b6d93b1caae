"""`rekam explain`: the picture and the words of a comparison."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.comparison import Comparison, compare
from matching.fingerprint.cylinders import cylinders
from rekam.explain import explain, explain_prints, odds, picture_of_pair, rate, words
from rekam.prints import read_print

BLUE = (0x3B, 0x7D, 0xD8)


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
            Comparison(0.1, found.pairs, np.full(len(found.pairs), share, np.float32)),
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
    explanation = explain_prints(*(read_print(folder / f"105_{i}.png", 500) for i in (1, 3)))
    assert lines[:-1] == words(explanation, ("105_1.png", "105_3.png"))
    assert explanation.comparison is not None
    assert f"score {explanation.comparison.score:.4f}" in lines[0]
    shares = [float(line.split()[0]) for line in lines if line.startswith("  ")]
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
