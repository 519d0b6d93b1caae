"""`rekam explain --modality iris` and `face`: the picture and the words, of one image and of two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from capture.decode import decode_face_image, decode_iris_image
from capture.iris.template import COLUMNS, IrisTemplate, rotated
from capture.quality import Feedback, Quality
from capture.sample import FaceSample, IrisSample
from rekam.cli import app
from rekam.offline.explain_eyes import (
    EyeExplanation,
    about_eye_score,
    explain_eyes,
    eye_causes,
    eye_words,
    picture_of_eyes,
    seen_eye,
)
from rekam.offline.explain_faces import (
    FaceExplanation,
    SeenFace,
    explain_faces,
    face_causes,
    face_words,
    picture_of_faces,
    seen_face,
)
from rekam.offline.samples import face_extractor
from tests.test_evaluate_samples import drawn_eye, face

PUPIL, LIMBUS, DIFFERS = (246, 192, 77), (31, 179, 154), (194, 24, 91)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def count(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) <= 3).sum())


def picture_in(path: Path) -> NDArray[np.uint8]:
    """The pixels of a picture, `(H, W, 3) uint8` RGB."""
    return decode_face_image(path.read_bytes()).image


@pytest.fixture(scope="module")
def pair() -> EyeExplanation:
    return explain_eyes([seen_eye(IrisSample(drawn_eye(1, n))) for n in range(2)])


def test_the_boundaries_are_drawn_where_they_were_found(pair: EyeExplanation) -> None:
    picture = picture_of_eyes(pair, ("a", "b"), compact=True)
    assert picture.shape[1] == 1500
    # each eye is 710 pixels wide beside the other, drawn from 320 x 240
    for eye, left in zip(pair.eyes, (20, 770), strict=True):
        scale = 710 / 320
        for key, colour in (("pupil", PUPIL), ("limbus", LIMBUS)):
            x, y, radius = (float(value) for value in eye.stages[key])
            angles = np.deg2rad([20.0, 160.0, 200.0, 340.0])
            across, down = x + radius * np.cos(angles), y + radius * np.sin(angles)
            on = np.array([left + scale * across, 10 + scale * down])
            for column, row in np.rint(on.T).astype(int):
                around = picture[row - 4 : row + 5, column - 4 : column + 5]
                assert count(around, colour) > 0, (key, column, row)


def test_as_many_bits_are_red_as_differ(pair: EyeExplanation) -> None:
    compared = pair.comparison
    assert compared is not None
    templates = [eye.template for eye in pair.eyes]
    assert all(template is not None for template in templates)
    (said, _) = about_eye_score(pair)
    differ = int(said.split(" of ")[0].replace(",", ""))
    assert f"{compared.bits:,} common bits" in said
    # at the rotation that was found, as the comparison counts
    assert differ / compared.bits == pytest.approx(compared.distance, abs=0.06)
    assert differ / compared.bits < 0.4
    picture = picture_of_eyes(pair, ("a", "b"), compact=True)
    words = min(len(template.code) for template in templates if template is not None)
    cells = 64 * words
    rows = 64 * words // (2 * COLUMNS if words % 64 == 0 else COLUMNS)
    drawn = count(picture[-round(7 * rows) - 12 :], DIFFERS) / (1460 * 7 * rows)
    assert drawn == pytest.approx(differ / cells, rel=0.2)


def test_a_rolled_eye_is_rolled_back(pair: EyeExplanation) -> None:
    template = pair.eyes[0].template
    assert template is not None
    code, mask = rotated(template.code, template.mask, 3)
    rolled = IrisTemplate(code, mask, template.eye, template.quality, template.coder)
    explanation = explain_eyes([seen_eye(template), seen_eye(rolled)])
    assert about_eye_score(explanation)[0].startswith("0 of ")
    assert "A rolled by +8.4° to fit" in about_eye_score(explanation)[0]
    assert count(picture_of_eyes(explanation, ("a", "b")), DIFFERS) < 200  # the legend's word alone
    assert "times likelier from one eye" in explanation.verdict


def test_one_eye_and_one_without_iris(pair: EyeExplanation) -> None:
    alone = explain_eyes(pair.eyes[:1])
    assert alone.verdict.startswith("quality ")
    assert picture_of_eyes(alone, ("a",)).shape[1] == 1500
    blank = seen_eye(IrisSample(np.full((240, 320), 128, np.uint8)))
    explanation = explain_eyes([pair.eyes[0], blank])
    assert explanation.verdict == "no comparison: eye B gave no template"
    assert about_eye_score(explanation) == []
    assert eye_causes(explanation, genuine=True) == ["One eye gave no template."]
    lines = eye_words(explanation, ("a.png", "b.png"))
    assert f"B b.png: {Feedback.NO_EYE.advice}" in lines
    assert any(line.startswith("  usable_area ") for line in lines)
    picture_of_eyes(explanation, ("a.png", "b.png"))


def test_causes_of_eyes_say_what_is_wrong(pair: EyeExplanation) -> None:
    assert pair.comparison is not None
    a, b = pair.eyes
    rich = replace(pair, comparison=replace(pair.comparison, bits=5000))

    def causes(genuine: bool = True, **measures: float) -> str:
        quality = Quality(90, usable=True, measures={"usable_area": 80.0, "pupil_ratio": 40.0} | measures)
        good = Quality(90, usable=True, measures={"usable_area": 80.0, "pupil_ratio": 40.0})
        eyes = (replace(a, quality=quality), replace(b, quality=good))
        return " ".join(eye_causes(replace(rich, eyes=eyes), genuine=genuine))

    assert "Nothing stands out" in causes()
    assert "one eye under two names" in causes(genuine=False)
    good = [replace(eye, quality=Quality(90, usable=True)) for eye in (a, b)]
    strangers = replace(rich, llr=-1.0, eyes=(good[0], good[1]))
    assert eye_causes(strangers, genuine=False) == ["Chance: some pairs always agree among so many eyes."]
    assert "30 % of iris A" in causes(usable_area=30)
    assert "wider: 60 % of the iris in A, 40 % in B" in causes(pupil_ratio=60)
    assert "wider" not in causes(genuine=False, pupil_ratio=60)
    few = replace(pair, comparison=replace(pair.comparison, bits=100, steps=8.0))
    assert "Few common bits: 100 of" in " ".join(eye_causes(few, genuine=True))
    assert "last one tried" in " ".join(eye_causes(few, genuine=True))
    poor = replace(a, quality=Quality(20, usable=True, feedback=(Feedback.EYE_BLURRED,)))
    assert Feedback.EYE_BLURRED.advice in " ".join(eye_causes(replace(pair, eyes=(poor, b)), genuine=True))


def test_eyes_on_the_command_line(tmp_path: Path, development_data: Path) -> None:
    casia = development_data / "iris" / "casia_v1"
    out = tmp_path / "eyes.png"
    result = run("--modality", "iris", casia / "001_1_1.jpg", casia / "001_2_1.jpg", "--out", out)
    assert result.exit_code == 0, result.output
    assert "times likelier from one eye" in result.stdout
    assert picture_in(out).shape[1] == 1500
    template = seen_eye(decode_iris_image((casia / "001_1_1.jpg").read_bytes()))
    assert template.template is not None
    (tmp_path / "eye.ri").write_bytes(template.template.to_bytes())
    result = run("--modality", "iris", tmp_path / "eye.ri", casia / "001_2_1.jpg", "--out", out)
    assert result.exit_code == 0, result.output
    result = run("--modality", "iris", casia / "001_1_1.jpg", "--out", out)
    assert result.exit_code == 0, result.output
    assert "valid bits" in result.stdout


def test_wrong_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "a.ri").write_bytes(b"RI and no more")
    (tmp_path / "a.rv").write_bytes(b"RV and no more")
    for modality, name in (("iris", "a.png"), ("iris", "a.ri"), ("face", "a.png"), ("face", "a.rv")):
        result = run("--modality", modality, tmp_path / name, "--out", tmp_path / "out.png")
        assert result.exit_code == 1
        assert name in result.output.replace("\n", "")
    assert run(tmp_path / "a.png").exit_code == 2
    assert not (tmp_path / "out.png").exists()


# --- faces


def seen(number: int, n: int) -> SeenFace:
    return seen_face(face(number, n), face_extractor())


def test_templates_of_faces_are_explained_without_images() -> None:
    explanation = explain_faces([seen(1, 1), seen(1, 2)])
    assert explanation.score is not None
    # nobody calibrated this embedder
    assert explanation.llr is None
    assert "never calibrated" in explanation.verdict
    cosine = 2 * explanation.score - 1
    assert f"cosine {cosine:.4f}" in " ".join(face_words(explanation, ("a", "b")))
    assert picture_of_faces(explanation, ("a", "b")).shape[1] == 1500
    assert "Look-alikes" in face_causes(explanation, genuine=False)[0]
    assert "one person under two names" in face_causes(replace(explanation, llr=4.0), genuine=False)[0]
    poor = Quality(20, usable=True, feedback=(Feedback.HEAD_TURNED, Feedback.FACE_SMALL))
    turned = replace(explanation.faces[0], quality=poor)
    assert face_causes(replace(explanation, faces=(turned, explanation.faces[1])), genuine=True) == [
        "Portrait A is poor, quality 20.",
        f"A: {Feedback.HEAD_TURNED.advice}",
    ]


def test_a_portrait_without_face() -> None:
    blank = seen_face(FaceSample(np.full((200, 160, 3), 90, np.uint8)), face_extractor())
    explanation = explain_faces([blank, seen(1, 1)])
    assert explanation.verdict == "no comparison: portrait A gave no template"
    assert face_causes(explanation, genuine=True) == ["One portrait gave no template."]
    assert Feedback.NO_FACE.advice in " ".join(face_words(explanation, ("a", "b")))
    assert picture_of_faces(FaceExplanation((blank,), None, None, None), ("a",)).shape[1] == 1500


def test_portraits_on_the_command_line(tmp_path: Path, development_data: Path) -> None:
    lfw = development_data / "face" / "lfw"
    folder = next(one for one in sorted(lfw.iterdir()) if len(list(one.glob("*.jpg"))) >= 4)
    first, second = sorted(folder.glob("*.jpg"))[:2]
    out = tmp_path / "faces.png"
    result = run("--modality", "face", first, second, "--out", out)
    assert result.exit_code == 0, result.output
    assert "times likelier from one person" in result.stdout
    assert "face found" in result.stdout
    picture = picture_in(out)
    # the box of the face that was compared, in both portraits, and the landmarks
    for half in (picture[100:600, :375], picture[100:600, 750:1125]):
        assert count(half, LIMBUS) > 500
        assert count(half, PUPIL) > 40


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    told = run(tmp_path, "--modality", "iris", "--out", tmp_path / "out.png")
    assert told.exit_code == 1
    assert f"error: {tmp_path}: Is a directory" in told.output
