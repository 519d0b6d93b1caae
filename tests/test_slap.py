import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.slaps import edges, placed
from benchmarks.synthetic_prints import impression
from benchmarks.synthetic_slaps import (
    LEFT_FOUR,
    RIGHT_FOUR,
    THUMBS,
    DrawnSlap,
    Hands,
    Kind,
    Laid,
    drawn_slap,
    hands,
)
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.slap import CutOff, OtherHand, Segmented, WrongCount, as_they_lie, segment
from capture.fingerprint.template import ExtractorChoice, FingerprintTemplate
from capture.sample import FingerPosition, Sample
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders


@pytest.fixture(scope="module")
def right() -> Hands:
    return hands(7, RIGHT_FOUR)


@pytest.fixture(scope="module")
def thumbs() -> Hands:
    return hands(7, THUMBS)


@pytest.fixture(scope="module")
def plain(right: Hands) -> DrawnSlap:
    return drawn_slap(right, RIGHT_FOUR, Kind.PLAIN, 1)


def sample(slap: DrawnSlap) -> Sample:
    return Sample(slap.image, 500.0)


def mirrored(slap: DrawnSlap) -> DrawnSlap:
    """What the other hand would leave, without drawing it: mirrored, from left to right again."""
    wide = slap.image.shape[1]
    fingers = []
    for finger in slap.fingers[::-1]:
        corners = (finger.corners * [-1, 1] + [wide, 0])[[1, 0, 3, 2]].astype(np.float32)
        fingers.append(Laid(finger.position.other_hand, corners, -finger.angle, finger.inside))
    return DrawnSlap(np.ascontiguousarray(slap.image[:, ::-1]), tuple(fingers), slap.kind)


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.TILTED, Kind.TOUCHING, Kind.DRY, Kind.DIRTY, Kind.HEAVY])
def test_four_fingers_come_out_in_their_places_from_either_hand(right: Hands, kind: Kind) -> None:
    drawn = drawn_slap(right, RIGHT_FOUR, kind, 2)
    for slap, four in ((drawn, RIGHT_FOUR), (mirrored(drawn), LEFT_FOUR)):
        outcome = segment(sample(slap), four)
        assert isinstance(outcome, Segmented)
        assert [finger.position for finger in outcome.fingers] == list(four)
        for laid, found in zip(slap.fingers, outcome.fingers, strict=True):
            assert placed(laid, found), edges(laid, found)
            assert abs(found.angle - laid.angle) < 12
            assert found.sample.position == laid.position
        assert outcome.hand > 0.9


def test_what_comes_out_is_the_finger_upright(right: Hands) -> None:
    outcome = segment(sample(drawn_slap(right, RIGHT_FOUR, Kind.TILTED, 2)), RIGHT_FOUR)
    assert isinstance(outcome, Segmented)
    extractor = FingerprintExtractor(ExtractorChoice.FAST)

    def template(one: Sample) -> FingerprintTemplate:
        made = extractor.extract(one).template
        assert made is not None
        return made

    index = template(outcome.fingers[0].sample)
    alone = {
        position: template(Sample(impression(right.fingers[position], 3), 500.0, position))
        for position in (FingerPosition.RIGHT_INDEX, FingerPosition.RIGHT_MIDDLE)
    }
    own, other = (similarity(cylinders(index), cylinders(one)) for one in alone.values())
    assert own > 0.35
    assert own > 1.5 * other


def test_the_other_hand_is_told(plain: DrawnSlap) -> None:
    for slap, asked in ((plain, LEFT_FOUR), (mirrored(plain), RIGHT_FOUR)):
        outcome = segment(sample(slap), asked)
        assert isinstance(outcome, OtherHand)
        assert outcome.hand < 0.05
        assert all(finger.position is FingerPosition.UNKNOWN for finger in outcome.fingers)


@pytest.mark.parametrize("fingers", [RIGHT_FOUR[:2], RIGHT_FOUR[:3], RIGHT_FOUR])
def test_what_speaks_for_one_hand_speaks_against_the_other(
    right: Hands, fingers: tuple[FingerPosition, ...]
) -> None:
    slap = sample(drawn_slap(right, fingers, Kind.PLAIN, 1))
    ours, others = segment(slap, fingers), segment(slap, tuple(one.other_hand for one in fingers))
    assert isinstance(ours, Segmented)
    assert isinstance(others, Segmented | OtherHand)
    assert ours.hand + others.hand == pytest.approx(1)


@pytest.mark.parametrize("missing", RIGHT_FOUR)
def test_three_of_four_are_three(right: Hands, missing: FingerPosition) -> None:
    three = tuple(position for position in RIGHT_FOUR if position != missing)
    slap = drawn_slap(right, three, Kind.PLAIN, 3)
    outcome = segment(sample(slap), RIGHT_FOUR)
    assert isinstance(outcome, WrongCount)
    assert outcome.asked == RIGHT_FOUR
    assert len(outcome.fingers) == 3
    assert all(finger.position is FingerPosition.UNKNOWN for finger in outcome.fingers)
    declared = segment(sample(slap), three)
    assert isinstance(declared, Segmented)
    assert [finger.position for finger in declared.fingers] == list(three)


def test_more_fingers_than_asked_for_are_told(plain: DrawnSlap) -> None:
    outcome = segment(sample(plain), RIGHT_FOUR[:2])
    assert isinstance(outcome, WrongCount)
    assert len(outcome.fingers) == 4


def test_a_finger_beyond_the_glass_is_told(right: Hands) -> None:
    slap = drawn_slap(right, RIGHT_FOUR, Kind.OFF_EDGE, 4)
    cut = [finger.position for finger in slap.fingers if finger.inside < 0.8]
    assert cut
    outcome = segment(sample(slap), RIGHT_FOUR)
    assert isinstance(outcome, CutOff)
    assert set(cut) <= set(outcome.cut_off)


def test_thumbs(thumbs: Hands) -> None:
    slap = drawn_slap(thumbs, THUMBS, Kind.PLAIN, 5)
    outcome = segment(sample(slap), THUMBS[::-1])
    assert isinstance(outcome, Segmented)
    assert [finger.position for finger in outcome.fingers] == list(THUMBS)
    assert all(placed(*pair) for pair in zip(slap.fingers, outcome.fingers, strict=True))
    assert outcome.hand == 0.5  # two thumbs look alike from either side


def test_a_slap_of_1000_ppi_gives_the_same(plain: DrawnSlap) -> None:
    twice = cv2.resize(plain.image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    outcome, usual = (segment(one, RIGHT_FOUR) for one in (Sample(twice, 1000.0), sample(plain)))
    assert isinstance(outcome, Segmented)
    assert isinstance(usual, Segmented)
    for one, other in zip(outcome.fingers, usual.fingers, strict=True):
        assert np.abs(one.corners - other.corners).max() < 12
        assert one.sample.ppi == 500


@pytest.mark.parametrize(
    "image",
    [
        np.full((1500, 1600), 240, np.uint8),
        np.random.default_rng(1).integers(220, 250, (1500, 1600)).astype(np.uint8),
        np.tile(np.linspace(0, 255, 1600).astype(np.uint8), (1500, 1)),
    ],
    ids=["blank", "noise", "shade"],
)
def test_nothing_on_the_glass_is_no_finger(image: np.ndarray) -> None:
    outcome = segment(Sample(image, 500.0), RIGHT_FOUR)
    assert isinstance(outcome, WrongCount)
    assert not outcome.fingers


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    seed=st.integers(0, 1000),
    blocks=st.integers(1, 60),
    ppi=st.sampled_from([250.0, 500.0, 1000.0]),
)
def test_whatever_the_image_shows_the_outcome_is_a_value(
    shape: tuple[int, int], seed: int, blocks: int, ppi: float
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-shape[0] // blocks), -(-shape[1] // blocks))).astype(np.uint8)
    image = np.kron(coarse, np.ones((blocks, blocks), np.uint8))[: shape[0], : shape[1]]
    outcome = segment(Sample(np.ascontiguousarray(image), ppi), THUMBS)
    assert isinstance(outcome, Segmented | WrongCount | CutOff)


def test_fingers_that_make_no_slap_are_refused() -> None:
    assert as_they_lie(LEFT_FOUR[::-1]) == LEFT_FOUR
    for wrong in (
        (),
        (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX),
        RIGHT_FOUR[:1] * 2,
        (FingerPosition(0),),
    ):
        with pytest.raises(ValueError, match="no slap"):
            as_they_lie(wrong)
