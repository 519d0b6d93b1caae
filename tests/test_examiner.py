"""What a capture is taken for: nothing goes by its turn, and what may be the other hand is not taken."""

import io
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.synthetic_slaps import RIGHT_FOUR, Kind, drawn_slap, hands
from capture.fingerprint.slap import Segmented, segment
from capture.sample import Sample
from devices.device import Captured
from devices.frame import DeviceKind, Frame, Positions, Provenance, Record
from devices.position import EyePosition, FingerPosition
from rekam.session import FACE, SIGNATURE, Place, Seen, Unfit, places
from rekam.station.examiner import PipelineExaminer

FINGERPRINT, IRIS = DeviceKind.FINGERPRINT, DeviceKind.IRIS
RIGHT, LEFT = EyePosition.RIGHT, EyePosition.LEFT
INDEX, MIDDLE = FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_MIDDLE
EYES, FINGERS = places(IRIS, (RIGHT, LEFT)), places(FINGERPRINT, (INDEX, MIDDLE))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
OF = Provenance("virtual", "flat")


def frame(kind: DeviceKind, positions: Positions = (), shade: int = 90) -> Frame:
    return Frame(np.full((480, 640), shade, np.uint8), kind, positions, None, NOW, OF)


def record(kind: DeviceKind, positions: Positions = (), shade: int = 90) -> Record:
    data = io.BytesIO()
    Image.fromarray(frame(kind, positions, shade).pixels).save(data, "PNG", dpi=(500, 500))
    return Record(data.getvalue(), "PNG", kind, positions, None, NOW, OF)


def shades(seen: tuple[Seen, ...] | Unfit) -> dict[Place, int]:
    """The grey of the image that is kept of each place."""
    assert not isinstance(seen, Unfit), seen.advice
    assert len({one.place for one in seen}) == len(seen)
    return {one.place: int(np.array(Image.open(io.BytesIO(one.image)))[0, 0]) for one in seen}


def test_two_eyes_are_what_they_say_in_whatever_order_they_come() -> None:
    examiner = PipelineExaminer()
    right, left = EYES
    for captured in (
        Captured((frame(IRIS, (LEFT,), 80), frame(IRIS, (RIGHT,), 160))),
        Captured(records=(record(IRIS, (LEFT,), 80), record(IRIS, (RIGHT,), 160))),
    ):
        assert shades(examiner.examine(captured, EYES)) == {left: 80, right: 160}


@pytest.mark.parametrize("positions", [(), (INDEX,)])
def test_a_single_one_that_does_not_say_is_what_was_asked_for(positions: Positions) -> None:
    examiner = PipelineExaminer()
    [index] = places(FINGERPRINT, (INDEX,))
    assert shades(examiner.examine(Captured((frame(FINGERPRINT, positions, 80),)), (index,))) == {index: 80}
    captured = Captured(records=(record(FINGERPRINT, positions, 80),))
    assert shades(examiner.examine(captured, (index,))) == {index: 80}


@pytest.mark.parametrize(
    ("captured", "asked"),
    [
        # More than was asked for, whatever it says.
        (Captured((frame(FACE.kind), frame(FACE.kind))), (FACE,)),
        (Captured((frame(SIGNATURE.kind), frame(SIGNATURE.kind))), (SIGNATURE,)),
        (Captured((frame(IRIS), frame(IRIS))), EYES[:1]),
        (Captured((frame(IRIS, (RIGHT,)), frame(IRIS, (LEFT,)))), EYES[:1]),
        (Captured((frame(IRIS, (RIGHT,)), frame(IRIS, (LEFT,)), frame(IRIS, (LEFT,)))), EYES),
        (Captured((frame(FINGERPRINT), frame(FINGERPRINT))), FINGERS),
        (Captured((frame(FINGERPRINT, (INDEX, MIDDLE)), frame(FINGERPRINT, (INDEX, MIDDLE)))), FINGERS),
        (Captured(records=(record(FACE.kind), record(FACE.kind))), (FACE,)),
        # As many, but nobody says which is which.
        (Captured((frame(IRIS), frame(IRIS))), EYES),
        # Others than were asked for, or fewer.
        (Captured((frame(IRIS, (LEFT,)),)), EYES[:1]),
        (Captured((frame(IRIS, (LEFT,)), frame(IRIS, (LEFT,)))), EYES),
        (Captured((frame(FACE.kind),)), EYES[:1]),
        (Captured((frame(FINGERPRINT, (MIDDLE,)),)), FINGERS[:1]),
        (Captured((frame(FINGERPRINT, (INDEX,)),)), FINGERS),
        (Captured(records=(record(IRIS, (LEFT,)),)), EYES[:1]),
        (Captured(records=(record(FINGERPRINT, (INDEX,)),)), FINGERS),
        # Two in one picture are two only of fingers, which can be cut.
        (Captured((frame(IRIS, (RIGHT, LEFT)),)), EYES),
        (Captured(records=(record(FINGERPRINT, (INDEX, MIDDLE)),)), FINGERS),
    ],
)
def test_what_is_not_what_was_asked_for_is_short(captured: Captured, asked: tuple[Place, ...]) -> None:
    unfit = PipelineExaminer().examine(captured, asked)
    assert isinstance(unfit, Unfit)
    assert unfit.short
    assert unfit.advice


def slap(image: NDArray[np.uint8]) -> Captured:
    return Captured((Frame(image, FINGERPRINT, (), 500.0, NOW, OF),))


def test_a_slap_that_may_be_of_the_other_hand_is_not_taken() -> None:
    examiner, right = PipelineExaminer(), hands(3, RIGHT_FOUR)
    whole = drawn_slap(right, RIGHT_FOUR, Kind.PLAIN, 1).image
    # The little finger's tip is drawn up to where an index finger's would be.
    shear = np.array([[1, 0, 0], [-0.45, 1, 360]], np.float32)
    doubtful = cv2.warpAffine(whole, shear, whole.shape[::-1], borderValue=(240,)).astype(np.uint8)
    between = segment(Sample(doubtful, 500.0), RIGHT_FOUR)
    assert isinstance(between, Segmented)
    assert 0.05 < between.hand < 0.95
    asked = places(FINGERPRINT, RIGHT_FOUR)
    unfit = examiner.examine(slap(doubtful), asked)
    assert isinstance(unfit, Unfit)
    assert "other hand" in unfit.advice
    taken = examiner.examine(slap(whole), asked)
    assert not isinstance(taken, Unfit)
    assert [one.place for one in taken] == list(asked)


def test_three_fingers_that_do_not_tell_their_hand_are_taken() -> None:
    three = RIGHT_FOUR[:3]
    image = drawn_slap(hands(3, RIGHT_FOUR), three, Kind.PLAIN, 1).image
    of = segment(Sample(image, 500.0), three)
    assert isinstance(of, Segmented)
    assert of.hand < 0.95
    taken = PipelineExaminer().examine(slap(image), places(FINGERPRINT, three))
    assert not isinstance(taken, Unfit)
    assert len(taken) == 3


@pytest.mark.parametrize("ppi", [1.0, 239.0, 1601.0, 9999.0])
@pytest.mark.parametrize("asked", [RIGHT_FOUR, (INDEX,)])
def test_prints_of_a_resolution_that_no_scanner_has_are_refused(
    ppi: float, asked: tuple[FingerPosition, ...]
) -> None:
    claimed = Frame(np.full((1500, 1600), 240, np.uint8), FINGERPRINT, (), ppi, NOW, OF)
    unfit = PipelineExaminer().examine(Captured((claimed,)), places(FINGERPRINT, asked))
    assert isinstance(unfit, Unfit)
    assert f"{ppi:g} ppi" in unfit.advice


def test_a_glass_larger_than_any_is_refused() -> None:
    vast = Frame(np.full((240, 8 * 240 + 1), 240, np.uint8), FINGERPRINT, (), 240.0, NOW, OF)
    unfit = PipelineExaminer().examine(Captured((vast,)), FINGERS)
    assert isinstance(unfit, Unfit)
    assert "too large" in unfit.advice


@pytest.mark.parametrize("finger", [INDEX, FingerPosition.RIGHT_LITTLE, FingerPosition.LEFT_THUMB])
def test_a_finger_alone_on_the_glass_of_a_slap_is_found(finger: FingerPosition) -> None:
    alone = drawn_slap(hands(3, (finger,)), (finger,), Kind.PLAIN, 1).image
    (asked,) = places(FINGERPRINT, (finger,))
    taken = PipelineExaminer().examine(slap(alone), (asked,))
    assert not isinstance(taken, Unfit), taken.advice
    (seen,) = taken
    assert seen.place == asked
    assert seen.quality.usable
    with Image.open(io.BytesIO(seen.image)) as image:
        assert max(image.size) < 800 < max(alone.shape)


def test_two_fingers_for_one_on_the_glass_of_a_slap_are_told() -> None:
    pair = drawn_slap(hands(3, (INDEX, MIDDLE)), (INDEX, MIDDLE), Kind.PLAIN, 1).image
    unfit = PipelineExaminer().examine(slap(pair), places(FINGERPRINT, (INDEX,)))
    assert isinstance(unfit, Unfit)
    assert unfit.short
    assert "2 of 1 fingers" in unfit.advice
