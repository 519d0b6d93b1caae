"""Extraction: the network, the resampling, the pipeline on real prints."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from capture.decode import decode_image
from capture.errors import ModelUnavailable
from capture.fingerprint import leader
from capture.fingerprint.extract import FingerprintExtractor, Params, to_500_ppi
from capture.fingerprint.foreground import foreground, has_light_ridges
from capture.fingerprint.leader import Leader
from capture.fingerprint.template import FingerprintTemplate
from capture.quality import Feedback
from capture.sample import FingerPosition, Sample


@pytest.fixture(scope="module")
def extractor() -> FingerprintExtractor:
    return FingerprintExtractor()


@pytest.fixture(scope="module")
def sample(development_data: Path) -> Sample:
    data = (development_data / "fingerprint/fvc2002_db1_b/102_1.png").read_bytes()
    return decode_image(data, ppi=500, position=FingerPosition.RIGHT_INDEX)


@pytest.fixture(scope="module")
def template(extractor: FingerprintExtractor, sample: Sample) -> FingerprintTemplate:
    extraction = extractor.extract(sample)
    assert extraction.template is not None
    return extraction.template


def share_found(a: FingerprintTemplate, b: FingerprintTemplate, pixels: float = 5) -> float:
    """How many minutiae of `a` are in `b`, within some pixels and 20 degrees."""
    near = np.hypot(a.x[:, None] - b.x[None], a.y[:, None] - b.y[None]) <= pixels
    near &= np.cos(a.direction[:, None] - b.direction[None]) >= np.cos(np.radians(20))
    return float(near.any(axis=1).mean())


def test_the_template_of_a_real_print(template: FingerprintTemplate, sample: Sample) -> None:
    assert 15 <= len(template) <= 99
    assert (template.height, template.width) == sample.image.shape
    assert template.position is FingerPosition.RIGHT_INDEX
    assert (np.diff(template.reliability) <= 0).all()
    assert template.reliability.min() >= Params().min_score
    assert ((template.direction >= 0) & (template.direction < 2 * np.pi)).all()
    assert 0 < template.ending.mean() < 1
    mask = foreground(sample.image)
    rows, columns = template.y.astype(int), template.x.astype(int)
    assert mask[rows, columns].mean() > 0.9
    assert FingerprintTemplate.from_bytes(template.to_bytes()).to_bytes() == template.to_bytes()


def test_a_ridge_ending_points_along_its_ridge(template: FingerprintTemplate, sample: Sample) -> None:
    smooth = cv2.GaussianBlur(sample.image, (0, 0), 1)
    x, y, turn = (column[template.ending] for column in (template.x, template.y, template.direction))

    def grey(angle: NDArray[np.float32]) -> float:
        steps = np.arange(4, 9)[:, None]
        columns = np.clip(np.rint(x + steps * np.cos(angle)).astype(int), 0, smooth.shape[1] - 1)
        rows = np.clip(np.rint(y - steps * np.sin(angle)).astype(int), 0, smooth.shape[0] - 1)
        return float(smooth[rows, columns].mean())

    assert grey(turn) + 30 < grey(turn + np.float32(np.pi))


def test_extraction_is_the_same_every_time_and_on_every_thread(
    extractor: FingerprintExtractor, sample: Sample, template: FingerprintTemplate
) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(extractor.extract, [sample] * 3))
    for extraction in results:
        assert extraction.template is not None
        assert extraction.template.to_bytes() == template.to_bytes()


def test_the_stages_are_traced(extractor: FingerprintExtractor, sample: Sample) -> None:
    seen: dict[str, NDArray[np.generic]] = {}

    def trace(stage: str, value: NDArray[np.generic]) -> None:
        seen[stage] = value

    extraction = extractor.extract(sample, trace)
    assert extraction.template is not None
    assert list(seen) == ["image_500", "foreground", "minutiae"]
    assert seen["minutiae"].shape == (len(extraction.template), 5)
    for stage in ("image_500", "foreground"):
        assert seen[stage].shape == sample.image.shape


def test_resolution_is_undone(
    extractor: FingerprintExtractor, sample: Sample, template: FingerprintTemplate
) -> None:
    height, width = sample.image.shape
    fine = cv2.resize(sample.image, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    extraction = extractor.extract(Sample(image=fine.astype(np.uint8), ppi=1000))
    assert extraction.template is not None
    assert (extraction.template.height, extraction.template.width) == (height, width)
    assert share_found(template, extraction.template) > 0.9
    assert share_found(extraction.template, template) > 0.9


def test_an_inverted_print_is_turned_and_told(
    extractor: FingerprintExtractor, sample: Sample, template: FingerprintTemplate
) -> None:
    extraction = extractor.extract(Sample(image=255 - sample.image, ppi=500, position=sample.position))
    assert Feedback.INVERTED in extraction.quality.feedback
    assert extraction.template is not None
    assert np.array_equal(extraction.template.x, template.x)
    assert np.array_equal(extraction.template.direction, template.direction)


def test_prints_of_every_sensor_are_dark_on_light(development_data: Path) -> None:
    for path in sorted((development_data / "fingerprint").glob("*/*_1.png"))[::4]:
        image = decode_image(path.read_bytes(), ppi=500).image
        mask = foreground(image)
        assert mask.any(), path
        assert not has_light_ridges(image, mask), path


def test_resampling_keeps_size_and_grey_levels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 90), dtype=np.uint8)
    same = Sample(image=image, ppi=500)
    assert to_500_ppi(same) is same
    halved = to_500_ppi(Sample(image=image, ppi=1000))
    expected = image.reshape(60, 2, 45, 2).mean(axis=(1, 3))
    assert halved.ppi == 500
    assert np.abs(halved.image - expected).max() <= 1
    for ppi in (250, 363, 499.9, 569, 1200):
        flat = to_500_ppi(Sample(image=np.full((200, 100), 77, dtype=np.uint8), ppi=ppi))
        assert (flat.image == 77).all()
        assert flat.ppi == 500
        assert np.abs(np.array(flat.image.shape) - np.array([200, 100]) * 500 / ppi).max() <= 0.5


def test_the_foreground_is_where_the_contrast_is() -> None:
    assert not foreground(np.full((200, 200), 200, dtype=np.uint8)).any()
    image = np.full((300, 300), 230, dtype=np.uint8)
    y, x = np.mgrid[:300, :300]
    disc = np.hypot(x - 150, y - 150) < 80
    image[disc] = (128 + 100 * np.sin(2 * np.pi * x / 9))[disc]
    mask = foreground(image)
    assert mask[disc].mean() > 0.97
    assert mask[np.hypot(x - 150, y - 150) > 100].mean() < 0.02
    image[:, -2:] = 0
    assert not foreground(image)[:, -10:].any(), "a line along the edge is no finger"


def test_running_on_a_part_gives_the_same_minutiae() -> None:
    y, x = np.mgrid[:400, :430]
    ridges = 128 + 100 * np.sin(
        2 * np.pi * np.hypot(x - 60, y - 250 + 0.1 * x) / 9 + np.arctan2(y - 100, x - 90)
    )
    disc = np.hypot(x - 120, y - 130) < 90
    image = np.where(disc, ridges, 255).astype(np.uint8)
    network = Leader()
    whole, part = network(image), network(image, disc)
    assert part.score.shape == image.shape
    assert (part.score[300:] == 0).all()
    expected, found = (np.argwhere((m.score >= 0.55) & disc) for m in (whole, part))
    assert len(expected) > 0
    distance = np.hypot(*(expected[:, None] - found[None]).transpose(2, 0, 1))
    assert (distance.min(axis=1) <= 3).mean() >= 0.9


def test_the_network_is_loaded_once_per_process(extractor: FingerprintExtractor) -> None:
    assert leader._sessions() is leader._sessions()
    assert (Leader()._find, Leader()._read) == leader._sessions()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("_PACKAGE", "no-such-package", "is missing"),
        ("_VERSION", "0.0.1", "is installed"),
        ("_FILE", "afis/weights/leader/NOTHING.onnx", "not readable"),
        ("_SHA256", "0" * 64, "not the expected file"),
    ],
)
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str) -> None:
    monkeypatch.setattr(leader, name, value)
    with pytest.raises(ModelUnavailable, match=text) as caught:
        leader._weights()
    assert "install" in str(caught.value)


def test_the_carrier_package_is_never_imported() -> None:
    program = (
        "import sys\n"
        "from capture.fingerprint.extract import FingerprintExtractor\n"
        "FingerprintExtractor()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'afis']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
