"""NFIQ 2 gives what NIST's program gives."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.errors import ModelUnavailable
from capture.fingerprint import nfiq2 as module
from capture.fingerprint.nfiq2 import nfiq2


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_score_and_every_measure_are_as_nist_prints_them(development_data: Path, number: int) -> None:
    folder = development_data / "conformance/nfiq2"
    image = cv2.imread(str(folder / f"SFinGe_Test0{number}.pgm"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    quality = nfiq2(image.astype(np.uint8))
    lines = (folder / f"SFinGe_Test0{number}_output.txt").read_text().splitlines()
    expected = dict(line.split(": ") for line in lines)
    found = {"UnifiedQualityScore": float(quality.score), **quality.measures}
    assert {name: f"{value:.6g}" for name, value in found.items()} == expected
    assert len(quality.measures) == 73
    assert quality.usable


@pytest.mark.parametrize("shape", [(300, 300), (1, 1), (1200, 1200)])
def test_what_it_cannot_judge_is_not_usable(shape: tuple[int, int]) -> None:
    quality = nfiq2(np.full(shape, 255, dtype=np.uint8))
    assert (quality.score, quality.usable, dict(quality.measures)) == (0, False, {})


@pytest.mark.parametrize("found", [None, sys])
def test_a_missing_or_other_package_is_told(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setitem(sys.modules, "nbis", found)
    module._nbis.cache_clear()
    with pytest.raises(ModelUnavailable, match=r"pip install 'rekam\[nfiq2\]'"):
        nfiq2(np.zeros((300, 300), dtype=np.uint8))
    module._nbis.cache_clear()
