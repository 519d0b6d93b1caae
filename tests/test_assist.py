"""Live assistance: advice that is steady, that agrees with the full quality, and the frame chosen by it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import synthetic_irises
from capture.best_frame import FrameChoice, Params
from capture.decode import decode_face_image
from capture.face import assist
from capture.face.assist import FaceAssistance, FaceAssistant, token_portrait
from capture.face.extract import FaceExtractor
from capture.face.quality import PARAMS as FACE_LIMITS
from capture.iris.assist import IrisAssistant
from capture.iris.extract import IrisExtractor
from capture.quality import Feedback, Quality
from capture.sample import FaceSample, IrisSample
from capture.steady_advice import Measures, SteadyAdvice
from devices.frame import DeviceKind, Frame, Provenance

Image = NDArray[np.uint8]


# Steady advice


def darkness(limit: float) -> Callable[[Measures], tuple[Feedback, ...]]:
    return lambda measures: (Feedback.FACE_TOO_DARK,) if measures["light"] < limit else ()


def advised(*lights: float | None) -> list[tuple[Feedback, ...]]:
    advice = SteadyAdvice(darkness(60), darkness(70), Feedback.NO_FACE)
    return [advice.after(None if light is None else {"light": light}) for light in lights]


DARK, NOBODY = (Feedback.FACE_TOO_DARK,), (Feedback.NO_FACE,)


def test_advice_goes_only_when_its_measure_is_well_past_the_limit() -> None:
    assert advised(50, 50, 50, 62, 63, 61, 64) == [DARK] * 7
    assert advised(62, 63, 61, 64, 66) == [()] * 5
    assert advised(50, 50, 72, 73, 74)[-1] == ()


def test_a_measure_that_hovers_at_its_limit_changes_nothing() -> None:
    assert set(advised(*[59, 61] * 10)) == {DARK}


def test_one_bad_frame_is_not_told() -> None:
    assert set(advised(90, 90, 10, 90, 90, 10, 90)) == {()}
    assert advised(90, 90, None, 90, 90) == [()] * 5


def test_nobody_is_told_after_most_frames_without_a_face_and_at_the_first() -> None:
    assert advised(None) == [NOBODY]
    assert advised(90, 90, None, None, None)[3:] == [NOBODY] * 2
    assert advised(None, None, 90, 90)[-1] == ()


# Portraits


@pytest.fixture(scope="module")
def plain(development_data: Path) -> Image:
    """A portrait with the eyes some 105 pixels apart, which satisfies what is asked of the face."""
    path = development_data / "face" / "lfw" / "AJ_Cook" / "AJ_Cook_0001.jpg"
    image = decode_face_image(path.read_bytes()).image
    return cv2.resize(image, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor() -> FaceExtractor:
    return FaceExtractor()


def moved(image: Image, turn: float = 0.0, size: float = 1.0, right: float = 0.0, down: float = 0.0) -> Image:
    height, width = image.shape[:2]
    motion = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), turn, size), np.float64)
    motion[:, 2] += np.array((right, down))
    return cv2.warpAffine(image, motion, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def watched(image: Image, frames: int = 4) -> FaceAssistance:
    assistant = FaceAssistant()
    seen = [assistant.look(image) for _ in range(frames)]
    return seen[-1]


def shaded(image: Image) -> Image:
    light = np.clip(np.linspace(3, -2.2, image.shape[1]), 0.2, 1)
    return np.asarray(image * light[None, :, None], np.uint8)


SPOILT: dict[Feedback, Callable[[Image], Image]] = {
    Feedback.HEAD_TILTED: lambda image: moved(image, turn=14),
    Feedback.FACE_SMALL: lambda image: moved(image, size=0.6),
    Feedback.FACE_OFF_CENTRE: lambda image: moved(image, right=170),
    Feedback.FACE_TOO_DARK: lambda image: (image * 0.2).astype(np.uint8),
    Feedback.FACE_TOO_LIGHT: lambda image: np.clip(image * 1.5 + 110.0, 0, 255).astype(np.uint8),
    Feedback.LIGHT_UNEVEN: shaded,
    Feedback.FACE_BLURRED: lambda image: cv2.GaussianBlur(image, (0, 0), 7).astype(np.uint8),
    Feedback.SEVERAL_FACES: lambda image: np.concatenate([image, image], axis=1),
    Feedback.NO_FACE: lambda image: np.full_like(image, 128),
}


def test_a_good_portrait_calls_for_none_of_it(plain: Image) -> None:
    seen = watched(plain)
    assert not set(seen.advice) & set(SPOILT)
    assert seen.quality.usable


@pytest.mark.parametrize("word", SPOILT)
def test_what_is_wrong_is_told_live_and_by_the_full_quality_alike(
    word: Feedback, plain: Image, extractor: FaceExtractor
) -> None:
    image = SPOILT[word](plain)
    seen = watched(image)
    assert word in seen.advice
    assert word in extractor.extract(FaceSample(image)).quality.feedback


def test_a_face_is_followed_between_searches_and_the_measures_stay(plain: Image) -> None:
    assistant = FaceAssistant()
    found = [assistant.look(moved(plain, right=3 * step)).landmarks for step in range(9)]
    whole = [FaceAssistant().look(moved(plain, right=3 * step)).landmarks for step in range(9)]
    for followed, searched in zip(found, whole, strict=True):
        assert followed is not None
        assert searched is not None
        assert np.abs(followed - searched).max() < 12


def test_a_face_that_leaves_is_missed_and_found_again_elsewhere(plain: Image) -> None:
    assistant = FaceAssistant()
    wide = np.full((plain.shape[0], 2 * plain.shape[1], 3), 120, np.uint8)
    left, right = wide.copy(), wide.copy()
    left[:, : plain.shape[1]], right[:, plain.shape[1] :] = plain, plain
    assert assistant.look(left).face is not None
    assert assistant.look(wide).face is None
    face = assistant.look(right).face
    assert face is not None
    assert face.left > plain.shape[1]


def test_a_monochrome_camera_gets_the_same_advice(plain: Image) -> None:
    grey = cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    assert watched(grey, 1).quality.feedback == watched(plain, 1).quality.feedback


def test_the_portrait_to_be_cut_out_has_the_proportions_of_the_standard() -> None:
    marks = np.array([(190.0, 200.0), (170, 200), (110, 200), (130, 200), (150, 240)])
    left, top, right, bottom = token_portrait(marks)
    assert (left, right) == (30, 270)  # 240 wide for 60 between the eyes
    assert bottom - top == 320
    assert 200 - top == 144


def test_a_face_too_near_the_top_for_a_portrait_is_off_centre(plain: Image) -> None:
    seen = watched(moved(plain, down=-110))
    assert seen.portrait is not None
    assert seen.portrait[1] < 0
    assert Feedback.FACE_OFF_CENTRE in seen.advice


def test_limits_for_going_lie_within_those_for_coming() -> None:
    stays = assist.PARAMS.stays
    for name in (
        "wanted_inter_eye_distance",
        "dark_face",
        "blurred",
        "min_eyes",
        "min_balance",
        "min_inside",
    ):
        assert getattr(stays, name) > getattr(FACE_LIMITS, name)
    for name in ("light_face", "max_white", "max_yaw", "max_pitch", "max_roll", "max_background"):
        assert getattr(stays, name) < getattr(FACE_LIMITS, name)


# Irises


def iris_looks() -> dict[Feedback | None, Image]:
    """Drawn eyes with something wrong, by what it is."""
    texture = synthetic_irises.iris_texture(3)
    look = replace(synthetic_irises.capture(3, 0).look, upper=0.9, lower=1.0, blur=0.8)
    pupil, limbus = look.pupil, look.limbus

    def drawn(**changed: object) -> Image:
        return synthetic_irises.picture(texture, replace(look, **changed), np.random.default_rng(5))  # type: ignore[arg-type]

    good = drawn()
    return {
        None: good,
        Feedback.EYE_BLURRED: drawn(blur=5.0, noise=0.3),
        Feedback.GAZE_ASIDE: drawn(
            pupil=replace(pupil, x=limbus.x + 0.25 * limbus.radius, radius=0.35 * limbus.radius)
        ),
        Feedback.EYE_COVERED: drawn(upper=0.35, lower=0.6),
        Feedback.PUPIL_WIDE: drawn(pupil=replace(pupil, radius=0.72 * limbus.radius)),
        Feedback.EYE_SMALL: cv2.resize(good, None, fx=0.36, fy=0.36, interpolation=cv2.INTER_AREA).astype(
            np.uint8
        ),
        Feedback.NO_EYE: np.full_like(good, 90),
    }


@pytest.mark.parametrize("word", iris_looks())
def test_an_eye_is_advised_live_as_by_the_full_quality(word: Feedback | None) -> None:
    image = iris_looks()[word]
    assistant = IrisAssistant()
    seen = [assistant.look(image) for _ in range(3)][-1]
    full = IrisExtractor().extract(IrisSample(image)).quality
    assert seen.quality.score == full.score
    assert set(full.feedback) <= set(seen.advice)
    assert (word in seen.advice) if word else not seen.advice


def test_circles_are_in_pixels_of_the_frame() -> None:
    image = synthetic_irises.capture(2, 1).image
    large = cv2.resize(image, None, fx=4, fy=4).astype(np.uint8)
    one, other = IrisAssistant().look(image).limbus, IrisAssistant().look(large).limbus
    assert one is not None
    assert other is not None
    assert other.radius == pytest.approx(4 * one.radius, rel=0.05)
    assert other.x == pytest.approx(4 * one.x, abs=20)


def test_a_picture_too_small_for_an_eye_is_none() -> None:
    assert IrisAssistant().look(np.zeros((20, 30), np.uint8)).advice == (Feedback.NO_EYE,)


# The best frame


def frame(number: int) -> Frame:
    pixels = np.full((2, 2), number, np.uint8)
    return Frame(pixels, DeviceKind.IRIS, (), None, datetime.now(UTC), Provenance("test", "t"), number)


def quality(score: int, *feedback: Feedback, usable: bool = True) -> Quality:
    return Quality(score, usable, feedback)


def test_the_full_quality_decides_among_the_frames_that_looked_best() -> None:
    choice = FrameChoice()
    for number, score in enumerate([10, 20, 90, 20, 20, 20, 80, 20, 20, 70, 20, 20, 60]):
        choice.show(frame(number), quality(score))
    asked = []

    def full(one: Frame) -> Quality:
        asked.append(one.number)
        return quality(95 if one.number == 6 else 40)

    best = choice.best(full)
    assert best is not None
    assert sorted(asked) == [2, 6, 9]
    assert best.frame.number == 6
    assert best.seen == 13
    assert best.why.startswith("Of 13 frames, frame 6: quality 95 (live 80)")
    assert "frame 2: quality 40 (live 90)" in best.why


def test_fewer_complaints_and_being_usable_come_before_the_score() -> None:
    choice = FrameChoice()
    choice.show(frame(0), quality(95, Feedback.HEAD_TILTED))
    choice.show(frame(10), quality(60))
    choice.show(frame(20), quality(99, usable=False))
    best = choice.best(
        lambda one: {0: quality(95, Feedback.HEAD_TILTED), 10: quality(60)}.get(
            one.number, quality(99, usable=False)
        )
    )
    assert best is not None
    assert [one.frame.number for one in best.considered] == [10, 0, 20]
    assert "head_tilted" in best.why
    assert "not usable" in best.why


def test_neighbours_are_one_moment_and_memory_is_bounded() -> None:
    choice = FrameChoice(Params(keep=4, apart=5))
    for number in range(200):
        choice.show(frame(number), quality(50 + number % 7))
    best = choice.best(lambda one: quality(50))
    assert best is not None
    numbers = sorted(one.frame.number for one in best.considered)
    assert len(numbers) == 4
    assert min(np.diff(numbers)) >= 5
    assert {one.live.score for one in best.considered} == {56}


def test_of_no_frames_none_is_best() -> None:
    assert FrameChoice().best(lambda one: quality(1)) is None
