"""Synthetic prints are deterministic, look like fingers to the real pipeline, and are told apart by it."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from benchmarks.synthetic_prints import (
    FINGER_SHAPE,
    PPI,
    PRINT_SHAPE,
    VARIED,
    Master,
    Pattern,
    Scanner,
    finger,
    impression,
    master,
)
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition, Sample
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders


@pytest.fixture(scope="module")
def fingers() -> tuple[Master, Master, Master]:
    return master(1, Pattern.LEFT_LOOP), master(2, Pattern.LEFT_LOOP), master(3, Pattern.WHORL)


@pytest.fixture(scope="module")
def templates(fingers: tuple[Master, ...]) -> list[tuple[int, FingerprintTemplate]]:
    """Two impressions of each finger through the real extractor; a refusal fails here."""
    extractor = FingerprintExtractor()
    found = []
    for i, whole in enumerate(fingers):
        for seed in (10 * i, 10 * i + 1):
            extraction = extractor.extract(Sample(impression(whole, seed), PPI))
            assert extraction.template is not None, extraction.quality
            found.append((i, extraction.template))
    return found


def test_same_seed_same_finger_and_print(fingers: tuple[Master, ...]) -> None:
    again = master(1, Pattern.LEFT_LOOP)
    assert np.array_equal(again.ridges, fingers[0].ridges)
    assert np.array_equal(impression(again, 5), impression(fingers[0], 5))


def test_other_seeds_give_other_fingers_and_prints(fingers: tuple[Master, ...]) -> None:
    a, b, _ = fingers
    assert abs(np.corrcoef(a.ridges.ravel(), b.ridges.ravel())[0, 1]) < 0.1
    assert not np.array_equal(impression(a, 5), impression(a, 6))


def test_shapes_and_ranges(fingers: tuple[Master, ...]) -> None:
    for whole in fingers:
        for field in (whole.ridges, whole.pores, whole.creases):
            assert field.shape == FINGER_SHAPE
            assert field.dtype == np.float32
            assert -2 <= field.min() <= field.max() <= 1
        assert min(whole.pores.min(), whole.creases.min()) >= 0
        image = impression(whole, 0)
        assert image.shape == PRINT_SHAPE
        assert image.dtype == np.uint8


def test_ridges_run_across_the_finger_at_their_period() -> None:
    """The strongest wave along the axis above an arch is the ridge period asked for, 9 % more at most."""
    whole = master(4, Pattern.ARCH, pitch=9.0)
    column = whole.ridges[150:406, FINGER_SHAPE[1] // 2 - 40 : FINGER_SHAPE[1] // 2 + 40]
    power = (np.abs(np.fft.rfft(column * np.hanning(256)[:, None], axis=0)) ** 2).sum(axis=1)
    assert 8.5 < 256 / (4 + int(power[4:].argmax())) < 10.0


def test_patterns_follow_the_finger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops open to the little finger's side, mirrored between the hands; index fingers are the exception."""
    drawn: dict[FingerPosition, Counter[Pattern]] = {}

    def only_the_pattern(seed: int, pattern: Pattern, *, pitch: float, size: float) -> None:
        drawn[position][pattern] += 1
        assert 7.5 < pitch < 10.5
        assert 0.65 < size < 1.45

    monkeypatch.setattr("benchmarks.synthetic_prints.master", only_the_pattern)
    for position in list(FingerPosition)[1:]:
        drawn[position] = Counter()
        for owner in range(300):
            finger(owner, position)
    right, left = drawn[FingerPosition.RIGHT_LITTLE], drawn[FingerPosition.LEFT_LITTLE]
    assert right[Pattern.RIGHT_LOOP] > 200 > 20 > right[Pattern.LEFT_LOOP]
    assert left[Pattern.LEFT_LOOP] > 200 > 20 > left[Pattern.RIGHT_LOOP]
    assert drawn[FingerPosition.RIGHT_INDEX][Pattern.LEFT_LOOP] > 30
    every = sum(drawn.values(), Counter())
    assert 0.25 < (every[Pattern.WHORL] + every[Pattern.DOUBLE_LOOP]) / every.total() < 0.32


def test_the_extractor_finds_as_much_as_on_real_prints(
    templates: list[tuple[int, FingerprintTemplate]],
) -> None:
    assert 40 <= np.mean([len(template) for _, template in templates]) <= 85
    for _, template in templates:
        assert len(template) >= 25
        assert template.quality >= 40


def test_same_finger_matches_and_others_do_not(templates: list[tuple[int, FingerprintTemplate]]) -> None:
    described = [(i, cylinders(template)) for i, template in templates]
    scores = [(i == j, similarity(a, b)) for (i, a), (j, b) in combinations(described, 2)]
    genuine = [score for same, score in scores if same]
    impostor = [score for same, score in scores if not same]
    assert len(genuine) == 3
    assert min(genuine) > 1.2 * max(impostor)


def test_command_writes_files_named_and_sized_as_a_scanner_would(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("prints") / "new"
    options = ["--people", "1", "--fingers", "2", "--impressions", "2", "--seed", "7"]
    subprocess.run([sys.executable, "-m", "benchmarks.synthetic_prints", str(out), *options], check=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "00105_1.png",
        "00105_2.png",
        "00106_1.png",
        "00106_2.png",
    ]
    with Image.open(out / "00106_1.png") as image:
        assert image.mode == "L"
        assert image.size == PRINT_SHAPE[::-1]
        assert image.info["dpi"] == pytest.approx((PPI, PPI), abs=0.1)


@pytest.mark.parametrize("scanner", VARIED.scanners)
def test_small_scanners_give_their_own_images(fingers: tuple[Master, ...], scanner: Scanner) -> None:
    conditions = replace(VARIED, scanners=(scanner,))
    image = impression(fingers[0], 3, conditions)
    assert image.shape == scanner.shape
    assert np.array_equal(image, impression(fingers[0], 3, conditions))
    corner, middle = image[:12, :12], image[scanner.shape[0] // 2 :, 60:-60]
    assert middle.std() > 4 * corner.std()


def test_varied_conditions_draw_every_scanner(fingers: tuple[Master, ...]) -> None:
    shapes = {impression(fingers[0], seed, VARIED).shape for seed in range(12)}
    assert shapes == {scanner.shape for scanner in VARIED.scanners}
