from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.spoilt_irises import spoilt
from benchmarks.synthetic_irises import Look, capture, iris_texture, picture
from capture.decode import decode_image, decode_iris_image
from capture.errors import TemplateRefused
from capture.iris.extract import IrisExtraction, IrisExtractor
from capture.iris.quality import iris_quality
from capture.iris.rubber_sheet import rubber_sheet
from capture.iris.segmentation import Circle, closed_path, highlights, segmented
from capture.iris.template import COLUMNS, GROUP_WORDS, IrisTemplate, packed, rotated, unpacked
from capture.quality import Feedback
from capture.sample import EyePosition, IrisSample
from matching.error_rates import operating_points
from matching.iris.comparison import IrisForm, compare_irises, iris_form

EXTRACTOR = IrisExtractor()
# What an extraction shows on the way, and what it should be.
STAGES = {
    "highlights": ("bool", (280, 320)),
    "pupil": ("float32", (3,)),
    "limbus": ("float32", (3,)),
    "eyelids": ("float32", (2, 3)),
    "rubber_sheet": ("float32", (64, 512)),
    "mask": ("bool", (64, 512)),
    "code": ("bool", (4, 8, 2, 128)),
    "code_mask": ("bool", (4, 8, 2, 128)),
}


def traced(image: NDArray[np.uint8]) -> tuple[IrisExtraction, dict[str, NDArray[np.generic]]]:
    stages: dict[str, NDArray[np.generic]] = {}

    def keep(stage: str, value: NDArray[np.generic]) -> None:
        stages[stage] = value

    return EXTRACTOR.extract(IrisSample(image), keep), stages


def form_of(image: NDArray[np.uint8]) -> IrisForm:
    template = EXTRACTOR.extract(IrisSample(image)).template
    assert template is not None
    return iris_form(template)


def a_look(**changes: Any) -> Look:
    return replace(Look(Circle(158.0, 137.0, 41.0), Circle(160.0, 138.0, 102.0)), **changes)


def drawn(eye: int, **changes: Any) -> NDArray[np.uint8]:
    return picture(iris_texture(eye), a_look(**changes), np.random.default_rng(0))


def random_template(seed: int, groups: int) -> IrisTemplate:
    generator = np.random.default_rng(seed)
    bits, mask = generator.random((2, groups, 8, 2, COLUMNS)) < 0.6
    return IrisTemplate(packed(bits & mask), packed(mask), EyePosition(seed % 3), seed % 101)


# Segmentation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eye", range(4))
def test_drawn_circles_are_found(eye: int) -> None:
    shown = capture(eye, 0)
    found = segmented(shown.image)
    for circle, true, pixels in (
        (found.pupil, shown.look.pupil, 1.0),
        (found.limbus, shown.look.limbus, 3.0),
    ):
        off = (circle.x - true.x, circle.y - true.y, circle.radius - true.radius)
        assert np.abs(off).max() < pixels


@pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
def test_circles_follow_the_size_of_the_picture(factor: float) -> None:
    image = cv2.resize(drawn(1), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    _, stages = traced(image)
    for key, true in (("pupil", (158, 137, 41)), ("limbus", (160, 138, 102))):
        expected = np.array(
            [(true[0] + 0.5) * factor - 0.5, (true[1] + 0.5) * factor - 0.5, true[2] * factor]
        )
        assert np.abs(stages[key].astype(np.float64) - expected).max() < 3.5 * factor
    assert stages["highlights"].shape == image.shape


def test_lids_are_found_where_they_are_drawn() -> None:
    eye = segmented(drawn(2, upper=0.6, lower=0.75, lashes=0))
    assert eye.upper is not None
    assert eye.lower is not None
    assert eye.upper.c0 / 102 == pytest.approx(-0.6, abs=0.06)
    assert eye.lower.c0 / 102 == pytest.approx(0.75, abs=0.06)


def test_a_wide_open_eye_is_nearly_all_iris() -> None:
    # At the very rim the limbus may pass for a lid; no row of the code is that far out.
    sheet = rubber_sheet(segmented(drawn(2, upper=1.3, lower=1.3, lashes=0)))
    assert sheet.iris[:50].mean() > 0.9


def test_lids_and_reflections_are_no_iris() -> None:
    open_eye, lowered = (rubber_sheet(segmented(drawn(3, upper=u, lashes=0))) for u in (1.3, 0.5))
    top = slice(300, 468)  # columns above the pupil
    assert open_eye.iris[:50, top].mean() > 0.8
    assert lowered.iris[30:, top].mean() < 0.1
    assert lowered.iris[:, :256].mean() > 0.7


def test_lashes_are_masked() -> None:
    bare, lashes = (rubber_sheet(segmented(drawn(3, upper=0.8, lashes=n))).iris for n in (0, 120))
    assert lashes.sum() < bare.sum() - 500


def test_highlights_are_bright_spots_and_are_filled() -> None:
    image = np.full((200, 200), 90, np.uint8)
    cv2.circle(image, (80, 90), 5, 250, -1)
    spots, clean = highlights(image)
    assert spots[90, 80]
    assert not spots[20, 20]
    assert clean.max() < 130


def test_closed_path_follows_the_best_columns_around() -> None:
    true = np.rint(10 + 5 * np.sin(np.arange(64) * 2 * np.pi / 64)).astype(int)
    gain = np.zeros((64, 20), np.float32)
    gain[np.arange(64), true] = 1
    gain[30] = 0  # nothing to see there
    path = closed_path(gain, 0.1)
    seen = np.arange(64) != 30
    np.testing.assert_array_equal(path[seen], true[seen])
    assert np.abs(np.diff(np.append(path, path[0]))).max() <= 1


# Template -----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), groups=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_template_survives_its_bytes(seed: int, groups: int) -> None:
    template = random_template(seed, groups)
    data = template.to_bytes()
    back = IrisTemplate.from_bytes(data)
    assert len(data) == 16 + 16 * GROUP_WORDS * groups
    np.testing.assert_array_equal(back.code, template.code)
    np.testing.assert_array_equal(back.mask, template.mask)
    assert (back.eye, back.quality, back.coder) == (template.eye, template.quality, template.coder)
    assert back.to_bytes() == data


@given(at=st.integers(0, 16 + 16 * GROUP_WORDS - 1), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_template_is_refused(at: int, flip: int) -> None:
    data = bytearray(random_template(1, 1).to_bytes())
    data[at] ^= flip
    with pytest.raises(TemplateRefused):
        IrisTemplate.from_bytes(bytes(data))


@given(data=st.binary(max_size=600), keep=st.integers(0, 527))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_template_are_refused(data: bytes, keep: int) -> None:
    for wrong in (data, random_template(2, 1).to_bytes()[:keep], random_template(2, 1).to_bytes() + b"\0"):
        with pytest.raises(TemplateRefused):
            IrisTemplate.from_bytes(wrong)


def test_template_refuses_impossible_values() -> None:
    code = np.zeros(GROUP_WORDS, np.uint64)
    with pytest.raises(ValueError, match="masked"):
        IrisTemplate(code + np.uint64(1), code, EyePosition.LEFT, 50)
    with pytest.raises(ValueError, match="groups"):
        IrisTemplate(code[:31], code[:31], EyePosition.LEFT, 50)
    with pytest.raises(ValueError, match="quality"):
        IrisTemplate(code, code, EyePosition.LEFT, 101)
    with pytest.raises(TypeError, match="uint64"):
        IrisTemplate(code, code.astype(np.float64), EyePosition.LEFT, 50)


@given(seed=st.integers(0, 1000), steps=st.integers(-300, 300))
@settings(max_examples=40, deadline=None)
def test_rotated_moves_every_column(seed: int, steps: int) -> None:
    template = random_template(seed, 2)
    code, mask = rotated(template.code, template.mask, steps)
    np.testing.assert_array_equal(unpacked(code), np.roll(unpacked(template.code), steps, axis=-1))
    np.testing.assert_array_equal(unpacked(mask), np.roll(unpacked(template.mask), steps, axis=-1))
    again = rotated(*rotated(code, mask, 5), -5 - steps)
    np.testing.assert_array_equal(again[0], template.code)


# Comparison ---------------------------------------------------------------------------------------------


def distance_of(a: IrisForm, b: IrisForm) -> float:
    """What `compare_irises` should find for codes of one group, by brute force."""
    best = 0.5
    for steps in range(-8, 9):
        code, mask = rotated(a.code, a.mask, steps)
        both = mask & b.mask
        bits = int(np.bitwise_count(both).sum())
        differ = int(np.bitwise_count((code ^ b.code) & both).sum())
        if bits:
            best = min(best, 0.5 - (0.5 - differ / bits) * min(1, bits / (0.25 * 2048)) ** 0.5)
    return best


@given(seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
@settings(max_examples=40, deadline=None)
def test_comparison_is_what_counting_gives(seeds: tuple[int, int]) -> None:
    a, b = (iris_form(random_template(seed, 1)) for seed in seeds)
    found = compare_irises(a, b)
    assert found.distance == pytest.approx(distance_of(a, b), abs=1e-12)
    assert found.score == 1 - found.distance


@given(seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), groups=st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_comparison_is_symmetric(seeds: tuple[int, int], groups: int) -> None:
    a, b = (iris_form(random_template(seed, groups)) for seed in seeds)
    one, other = compare_irises(a, b), compare_irises(b, a)
    assert (one.score, one.bits) == (other.score, other.bits)


@given(seed=st.integers(0, 10**6), steps=st.integers(-16, 16))
@settings(max_examples=40, deadline=None)
def test_fine_codes_are_aligned_by_half_columns(seed: int, steps: int) -> None:
    texture, mask = np.random.default_rng(seed).random((2, 2, 8, 2, 2 * COLUMNS)) < 0.7

    def form(by: int) -> IrisForm:
        groups = [
            [np.roll(bits, by, axis=-1)[wave, ..., half::2] for wave in range(2) for half in range(2)]
            for bits in (texture & mask, mask)
        ]
        code, valid = (packed(np.array(one)) for one in groups)
        return iris_form(IrisTemplate(code, valid, EyePosition.RIGHT, 80))

    found = compare_irises(form(0), form(steps))
    assert found.distance == 0
    assert found.steps == steps / 2


def test_nothing_in_common_is_no_likeness() -> None:
    nothing = IrisTemplate(np.zeros(32, np.uint64), np.zeros(32, np.uint64), EyePosition.LEFT, 0)
    found = compare_irises(iris_form(nothing), iris_form(random_template(4, 1)))
    assert (found.score, found.bits) == (0.5, 0)


# The whole pipeline -------------------------------------------------------------------------------------


def test_one_eye_is_alike_and_two_are_not() -> None:
    first, second, other = (form_of(capture(*which).image) for which in ((0, 0), (0, 1), (1, 0)))
    assert compare_irises(first, second).score > 0.85
    assert compare_irises(first, other).score < 0.65


@pytest.mark.parametrize("degrees", [-15, -6, 9, 20])
def test_a_rolled_eye_is_a_rotated_code(degrees: float) -> None:
    upright = form_of(drawn(5, upper=1.2, lower=1.2, lashes=0))
    rolled = form_of(drawn(5, upper=1.2, lower=1.2, lashes=0, roll=np.deg2rad(degrees)))
    found = compare_irises(upright, rolled)
    assert found.score > 0.9
    assert found.steps == pytest.approx(degrees / 360 * COLUMNS, abs=0.5)


def test_extraction_is_deterministic_and_keeps_the_eye() -> None:
    sample = IrisSample(drawn(6), EyePosition.LEFT)
    one, two = (EXTRACTOR.extract(sample).template for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.eye is EyePosition.LEFT
    assert one.to_bytes() == two.to_bytes()


def test_trace_keys_are_stable() -> None:
    extraction, stages = traced(drawn(7))
    assert {key: (str(value.dtype), value.shape) for key, value in stages.items()} == STAGES
    assert extraction.template is not None
    np.testing.assert_array_equal(extraction.template.code, packed(stages["code"].astype(np.bool_)))
    np.testing.assert_array_equal(extraction.template.mask, packed(stages["code_mask"].astype(np.bool_)))


def test_stages_of_a_drawn_eye_stay_as_they_were() -> None:
    # Golden: print the stages of this capture to renew them.
    _, stages = traced(capture(0, 0).image)
    golden = {
        "pupil": [146.8, 147.9, 35.8],
        "limbus": [147.2, 147.2, 106.6],
    }
    for key, expected in golden.items():
        np.testing.assert_allclose(stages[key].astype(np.float64), expected, atol=0.3)
    np.testing.assert_allclose(stages["eyelids"][:, 0].astype(np.float64), [72.6, 245.8], atol=3)
    shares = [float(stages[key].astype(np.float64).mean()) for key in ("mask", "code_mask", "code")]
    np.testing.assert_allclose(shares, [0.732, 0.675, 0.336], atol=0.02)


GENERATOR = np.random.default_rng(3)
WRONG: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "black": lambda: np.zeros((280, 320), np.uint8),
    "white": lambda: np.full((280, 320), 255, np.uint8),
    "noise": lambda: GENERATOR.integers(0, 256, (280, 320)).astype(np.uint8),
    "slope": lambda: np.tile(np.linspace(0, 255, 320).astype(np.uint8), (280, 1)),
    "stripes": lambda: np.tile((np.arange(320) % 12 > 5).astype(np.uint8) * 200, (280, 1)),
    "one pixel": lambda: np.full((1, 1), 7, np.uint8),
    "a line": lambda: GENERATOR.integers(0, 256, (1, 4000)).astype(np.uint8),
    "a strip": lambda: GENERATOR.integers(0, 256, (3000, 50)).astype(np.uint8),
    "tiny": lambda: GENERATOR.integers(0, 256, (16, 16)).astype(np.uint8),
    "small": lambda: GENERATOR.integers(0, 256, (48, 48)).astype(np.uint8),
    "huge": lambda: np.full((4000, 5000), 90, np.uint8),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_eye_comes_back_with_advice(what: str) -> None:
    extraction = EXTRACTOR.extract(IrisSample(WRONG[what]()))
    assert not extraction.quality.usable
    assert Feedback.NO_EYE in extraction.quality.feedback
    assert extraction.template is None


@given(height=st.integers(1, 130), width=st.integers(1, 130), seed=st.integers(0, 99), blur=st.floats(0, 9))
@settings(max_examples=40, deadline=None)
def test_no_picture_raises(height: int, width: int, seed: int, blur: float) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    if blur:
        smooth = cv2.blur(noise, (1 + int(blur), 1 + int(blur))).astype(np.float64)
        noise = (255 * (smooth - smooth.min()) / max(np.ptp(smooth), 1)).astype(np.uint8)
    quality = EXTRACTOR.extract(IrisSample(noise)).quality
    assert quality.usable or quality.feedback


def test_fingerprints_and_faces_are_no_eyes(development_data: Path) -> None:
    prints = sorted((development_data / "fingerprint").glob("*/*.png"))[::120]
    faces = sorted((development_data / "face" / "lfw").rglob("*.jpg"))[::120]
    images = [decode_image(file.read_bytes(), ppi=500).image for file in prints]
    for file in faces:
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        images.append(np.ascontiguousarray(grey[80:170, 70:180], np.uint8))
    assert len(images) > 9
    for image in images:
        quality = EXTRACTOR.extract(IrisSample(image)).quality
        assert not quality.usable
        assert quality.feedback


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"blur": 6.0}, Feedback.EYE_BLURRED),
        ({"pupil": Circle(158.0, 137.0, 72.0)}, Feedback.PUPIL_WIDE),
        ({"pupil": Circle(56.0, 137.0, 41.0), "limbus": Circle(50.0, 137.0, 102.0)}, Feedback.EYE_CUT_OFF),
    ],
)
def test_poor_captures_come_with_advice(change: dict[str, Any], advice: Feedback) -> None:
    good = EXTRACTOR.extract(IrisSample(drawn(8))).quality
    poor = EXTRACTOR.extract(IrisSample(drawn(8, **change))).quality
    assert good.usable
    assert not good.feedback
    assert poor.score < good.score
    assert advice in poor.feedback


@pytest.mark.parametrize(
    ("measure", "value", "advice", "usable"),
    [
        ("usable_area", 11.0, Feedback.EYE_COVERED, False),
        ("usable_area", 30.0, Feedback.EYE_COVERED, True),
        ("iris_radius", 28.0, Feedback.EYE_SMALL, True),
        ("iris_radius", 20.0, Feedback.NO_EYE, False),
        ("in_picture", 60.0, Feedback.EYE_CUT_OFF, True),
        ("sharpness", 0.1, Feedback.EYE_BLURRED, False),
        ("iris_pupil_contrast", 9.0, Feedback.EYE_PALE, False),
        ("iris_sclera_contrast", 1.0, Feedback.EYE_PALE, True),
        ("concentricity", 70.0, Feedback.GAZE_ASIDE, True),
        ("pupil_roundness", 65.0, Feedback.GAZE_ASIDE, True),
        ("pupil_ratio", 70.0, Feedback.PUPIL_WIDE, True),
        ("pupil_ratio", 14.0, Feedback.PUPIL_NARROW, True),
        ("pupil_found", 0.1, Feedback.NO_EYE, False),
        ("limbus_found", 0.1, Feedback.NO_EYE, False),
    ],
)
def test_every_measure_has_its_advice(measure: str, value: float, advice: Feedback, usable: bool) -> None:
    good = dict(EXTRACTOR.extract(IrisSample(drawn(8))).quality.measures)
    quality = iris_quality(good | {measure: value})
    assert iris_quality(good).score > quality.score
    assert quality.feedback[0] is advice
    assert quality.usable is usable


# Real eyes ----------------------------------------------------------------------------------------------


def casia(data: Path, eyes: range, captures: slice) -> tuple[list[IrisSample], NDArray[np.int64]]:
    files = [
        file
        for eye in eyes
        for file in sorted((data / "iris" / "casia_v1").glob(f"{eye:03}_*.jpg"))[captures]
    ]
    if not files:
        pytest.fail(f"development irises not found in {data}: set REKAM_DATA to the development data")
    numbers = np.array([int(file.name[:3]) for file in files])
    return [decode_iris_image(file.read_bytes()) for file in files], numbers


def scores(forms: list[IrisForm], eyes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.triu_indices(len(forms), 1)
    score = np.array([compare_irises(forms[i], forms[j]).score for i, j in zip(a, b, strict=True)])
    return score[eyes[a] == eyes[b]], score[eyes[a] != eyes[b]]


def test_real_eyes_are_told_apart(development_data: Path) -> None:
    samples, eyes = casia(development_data, range(1, 55, 3), slice(0, None, 3))
    points = operating_points(*scores([form_of(sample.image) for sample in samples], eyes))
    assert points.equal_error_rate <= 0.008
    assert points.at_fmr(1e-3)[1] <= 0.015


@pytest.mark.parametrize("kind", ["reflections", "all at once"])
def test_reflections_and_poor_pictures_are_borne(kind: str, development_data: Path) -> None:
    samples, eyes = casia(development_data, range(2, 55, 5), slice(0, 4, 3))
    worse = [spoilt(sample, kind, number) for number, sample in enumerate(samples)]
    extractions = [EXTRACTOR.extract(sample) for sample in worse]
    assert sum(extraction.quality.usable for extraction in extractions) >= len(extractions) - 1
    forms = [iris_form(e.template) for e in extractions if e.template is not None]
    kept = np.array([e.template is not None for e in extractions])
    assert operating_points(*scores(forms, eyes[kept])).equal_error_rate <= 0.05
