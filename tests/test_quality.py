"""Quality: what is no fingerprint is refused with a reason, what is one is not, and worse scores lower."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from capture.decode import decode_image
from capture.fingerprint.extract import FingerprintExtractor, to_500_ppi
from capture.fingerprint.foreground import foreground
from capture.fingerprint.quality import RidgeMeasures, fingerprint_quality, ridge_measures, unusable
from capture.quality import Feedback, Quality
from capture.sample import Sample

PRINTS = (
    "crossmatch/01203_1",
    "fvc2002_db1_b/103_2",
    "fvc2002_db2_b/105_1",
    "fvc2002_db3_b/102_1",
    "fvc2002_db4_b/104_2",
)


@pytest.fixture(scope="module")
def extractor() -> FingerprintExtractor:
    return FingerprintExtractor()


def early_refusal(image: NDArray[np.generic], ppi: float = 500) -> Feedback | None:
    """The reason given before the network runs."""
    pixels = np.asarray(image).clip(0, 255).astype(np.uint8)
    grey = to_500_ppi(Sample(image=pixels, ppi=ppi)).image
    refusal = unusable(ridge_measures(grey, foreground(grey)))
    return None if refusal is None else refusal.feedback[0]


def print_of(development_data: Path, name: str) -> Sample:
    data = (development_data / "fingerprint" / f"{name}.png").read_bytes()
    return decode_image(data, ppi=569 if "db2" in name else 500)


def test_blank_images_are_told() -> None:
    rng = np.random.default_rng(1)
    for level in (0, 128, 255):
        assert early_refusal(np.full((300, 300), level)) is Feedback.BLANK
    assert early_refusal(rng.normal(240, 2, (300, 300))) is Feedback.BLANK
    speck = np.full((400, 400), 250.0)
    speck[100:104, 200:204] = 0
    assert early_refusal(speck) is Feedback.BLANK


def pattern(name: str) -> NDArray[np.generic]:
    """A picture that is no fingerprint, 400 x 400."""
    rng = np.random.default_rng(2)
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    y, x = np.mgrid[:400, :400].astype(float)
    if name == "noise":
        return rng.integers(0, 256, (400, 400))
    if name == "soft noise":
        soft: NDArray[np.float64] = cv2.GaussianBlur(rng.normal(0, 1, (400, 400)), (0, 0), 4).astype(float)
        return 128 + 60 * soft / float(soft.std())
    if name == "gradient":
        return x * 255 / 400
    if name == "stripes":
        return 128 + 127 * np.sign(np.sin(2 * np.pi * x / 10) + 1e-9)
    if name == "slanted wave":
        return 128 + 100 * np.sin(2 * np.pi * (x + 0.6 * y) / 11) + rng.normal(0, 20, x.shape)
    if name == "checks":
        return 255.0 * ((x // 8 + y // 8) % 2)
    if name == "large checks":
        return 255.0 * ((x // 24 + y // 24) % 2)
    page = np.full((400, 400), 255, np.uint8)
    for row in range(20, 400, 22):
        text = "Kartu Tanda Penduduk 3171234567890123"
        cv2.putText(page, text, (0, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1)
    return page.astype(float)


@pytest.mark.parametrize(
    "name", ["noise", "soft noise", "gradient", "stripes", "slanted wave", "checks", "large checks", "text"]
)
def test_patterns_are_no_fingerprints(name: str) -> None:
    assert early_refusal(pattern(name)) is Feedback.NOT_A_FINGERPRINT


def test_circles_have_ridges_but_no_minutiae(extractor: FingerprintExtractor) -> None:
    y, x = np.mgrid[:320, :320]
    image = (128 + 100 * np.sin(2 * np.pi * np.hypot(x - 160, y - 160) / 9)).astype(np.uint8)
    extraction = extractor.extract(Sample(image=image, ppi=500))
    assert extraction.template is None
    assert not extraction.quality.usable
    assert extraction.quality.feedback == (Feedback.TOO_FEW_MINUTIAE,)


def test_faces_and_irises_are_no_fingerprints(
    extractor: FingerprintExtractor, development_data: Path
) -> None:
    faces = sorted((development_data / "face/lfw").rglob("*.jpg"))[::70]
    irises = sorted((development_data / "iris/casia_v1").rglob("*.jpg"))[::40]
    assert len(faces) > 5
    assert len(irises) > 5
    for path in (*faces, *irises):
        for ppi in (300, 500):
            extraction = extractor.extract(decode_image(path.read_bytes(), ppi=ppi))
            assert not extraction.quality.usable, path
            assert extraction.quality.feedback == (Feedback.NOT_A_FINGERPRINT,), path
            assert extraction.quality.score == 0


@pytest.mark.parametrize("name", PRINTS)
def test_real_prints_are_usable(extractor: FingerprintExtractor, development_data: Path, name: str) -> None:
    extraction = extractor.extract(print_of(development_data, name))
    assert extraction.quality.usable
    assert extraction.quality.score >= 30
    assert extraction.template is not None
    assert extraction.template.quality == extraction.quality.score
    assert 6 <= extraction.quality.measures["period"] <= 13


def test_a_doubtful_print_keeps_its_minutiae(extractor: FingerprintExtractor, development_data: Path) -> None:
    extraction = extractor.extract(print_of(development_data, "fvc2002_db3_b/110_3"))
    assert not extraction.quality.usable
    assert extraction.template is not None


def test_no_print_is_refused_before_the_network(development_data: Path) -> None:
    paths = sorted((development_data / "fingerprint").glob("*/*.png"))[::9]
    assert len(paths) >= 80
    for path in paths:
        ppi = 569 if "db2" in path.parent.name else 500
        assert early_refusal(decode_image(path.read_bytes(), ppi=ppi).image, ppi) is None, path


def test_worse_images_score_lower(extractor: FingerprintExtractor, development_data: Path) -> None:
    good = print_of(development_data, PRINTS[0])
    grey = good.image.astype(np.float32)
    rng = np.random.default_rng(3)
    small = grey.copy()
    small[:, 230:] = 255
    small[:160] = 255
    worse = {
        "blurred": cv2.GaussianBlur(grey, (0, 0), 3.5),
        "noisy": grey + rng.normal(0, 90, grey.shape),
        "small": small,
    }
    best = extractor.extract(good).quality
    for name, image in worse.items():
        sample = Sample(image=np.clip(image, 0, 255).astype(np.uint8), ppi=500)
        assert extractor.extract(sample).quality.score < best.score, name


def test_feedback_names_what_is_wrong(development_data: Path) -> None:
    grey = print_of(development_data, PRINTS[0]).image.astype(np.float32)
    scores = np.full(30, 0.9, dtype=np.float32)

    def feedback(image: NDArray[np.generic]) -> tuple[Feedback, ...]:
        pixels = np.asarray(image).clip(0, 255).astype(np.uint8)
        return fingerprint_quality(ridge_measures(pixels, foreground(pixels)), scores).feedback

    assert feedback(grey) == ()
    assert Feedback.BLURRED in feedback(cv2.GaussianBlur(grey, (0, 0), 3))
    small = np.full_like(grey, 255)
    small[200:300, 200:320] = grey[200:300, 200:320]
    assert Feedback.SMALL_CONTACT in feedback(small)
    assert Feedback.OFF_CENTRE in feedback(grey[:, 260:])
    thick = cv2.erode(grey, np.ones((5, 5)))
    assert Feedback.TOO_DARK in feedback(cv2.GaussianBlur(thick, (0, 0), 0.7))
    thin = cv2.dilate(grey, np.ones((4, 4)))
    assert Feedback.TOO_LIGHT in feedback(cv2.GaussianBlur(thin, (0, 0), 0.7))


def measures(**changes: float) -> RidgeMeasures:
    usual = {
        "area": 200.0,
        "ridge_area": 180.0,
        "ridge_share": 0.9,
        "clarity": 0.6,
        "period": 9.0,
        "contrast": 50.0,
        "dark_share": 0.45,
        "turning": 0.6,
        "fine": 0.1,
        "cut": 0.0,
    }
    return RidgeMeasures(**(usual | changes))


def test_the_score_grows_with_every_good_thing() -> None:
    def score(count: int, sure: float, **changes: float) -> int:
        return fingerprint_quality(measures(**changes), np.full(count, sure, dtype=np.float32)).score

    assert score(60, 0.99, ridge_share=1.0) == 100
    assert score(20, 0.9) < score(40, 0.9) < score(60, 0.95)
    assert score(40, 0.82) < score(40, 0.9)
    assert score(40, 0.9, ridge_share=0.5) < score(40, 0.9)
    assert score(40, 0.9, turning=0.2) < score(40, 0.9)
    assert score(40, 0.9, dark_share=0.6) < score(40, 0.9)
    assert score(40, 0.9, period=12.0) < score(40, 0.9)


def test_too_few_or_unsure_minutiae_are_refused() -> None:
    few = fingerprint_quality(measures(), np.full(5, 0.9, dtype=np.float32))
    assert (few.usable, few.score, few.feedback) == (False, 0, (Feedback.TOO_FEW_MINUTIAE,))
    none = fingerprint_quality(measures(), np.zeros(0, dtype=np.float32))
    assert none.feedback == (Feedback.TOO_FEW_MINUTIAE,)
    faint = fingerprint_quality(measures(), np.full(30, 0.4, dtype=np.float32))
    assert faint.feedback == (Feedback.TOO_FEW_MINUTIAE,)
    unsure = fingerprint_quality(measures(ridge_share=0.2), np.full(30, 0.6, dtype=np.float32))
    assert (unsure.usable, unsure.feedback) == (False, (Feedback.NOT_A_FINGERPRINT,))
    assert fingerprint_quality(measures(ridge_share=0.2), np.full(30, 0.9, dtype=np.float32)).usable


def test_every_feedback_has_advice() -> None:
    for feedback in Feedback:
        assert feedback.advice.endswith(".")


def test_quality_is_0_to_100() -> None:
    for score in (-1, 101):
        with pytest.raises(ValueError, match="0 to 100"):
            Quality(score, usable=True)
