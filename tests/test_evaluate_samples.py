"""`rekam evaluate iris` and `rekam evaluate face`: sets, labels, pairs, score files and the page."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from capture.face.template import FaceTemplate
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.quality import Feedback
from capture.sample import EyePosition, Modality
from matching.error_rates import FAILED, Pairs
from matching.face.calibration import face_calibration
from matching.face.comparison import compare_faces, face_form
from matching.iris.comparison import compare_irises, iris_form
from rekam.cli import app
from rekam.offline import samples, samples_page
from rekam.offline.evaluate_prints import write_scores
from rekam.offline.evaluate_samples import calibration_of_faces, samples_report, samples_tables
from rekam.offline.page import Circumstances
from rekam.offline.samples import (
    EYES,
    PORTRAITS,
    ComparedSamples,
    EvaluationError,
    Extracted,
    Kind,
    SampleFile,
    SampleSet,
    all_pairs,
    compare_chunk,
    compare_samples,
    extract_file,
    sample_set,
    sample_sets,
)
from tests.test_prints_page import Page

QUIET = Console(quiet=True)


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


# --- 1. which samples


def test_an_eye_is_what_stands_before_the_first_underscore(tmp_path: Path) -> None:
    touched(tmp_path, "10_1_2.jpg", "2_1_10.png", "2_1_9.bmp", "10_2_1.jp2", "notes.txt", "_1.png", "3.png")
    found = sample_set(tmp_path, EYES)
    assert [(one.subject, one.stem) for one in found.files] == [
        ("2", "2_1_9"),
        ("2", "2_1_10"),
        ("10", "10_1_2"),
        ("10", "10_2_1"),
    ]
    assert set(found.ignored) == {"notes.txt", "_1.png", "3.png"}


def test_an_eye_in_a_folder_is_of_that_folder(tmp_path: Path) -> None:
    touched(tmp_path, "1/left/a_1.png", "1/left/b_1.png", "1/right/a_2.png", "007_1.png", "007_2.png")
    found = sample_set(tmp_path, EYES)
    assert {one.subject for one in found.files} == {"1/left", "1/right", "007"}
    assert {one.stem for one in found.files} == {"a_1", "b_1", "a_2", "007_1", "007_2"}


def test_a_folder_may_be_a_link_but_no_circle(tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    for name in ("ani", "budi"):
        (there / name).mkdir(parents=True)
        touched(there / name, "1.jpg", "2.jpg")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("ani", "budi"):
        (linked / name).symlink_to(there / name)
    (there / "ani" / "round").symlink_to(linked)
    found = sample_set(linked, PORTRAITS)
    assert [file.subject for file in found.files] == ["ani", "ani", "budi", "budi"]


def test_a_face_is_of_its_folder_and_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    touched(tmp_path, "Ana/1.jpg", "Ana/2.jpg", "Budi/1.jpg", "Budi/x.doc", "loose_1.jpg", "Ana/3.wsq")
    found = sample_set(tmp_path, PORTRAITS)
    assert [(one.subject, one.stem) for one in found.files] == [
        ("Ana", "Ana/1"),
        ("Ana", "Ana/2"),
        ("Budi", "Budi/1"),
    ]
    assert set(found.ignored) == {"Budi/x.doc", "loose_1.jpg", "Ana/3.wsq"}


@pytest.mark.parametrize(
    ("kind", "names", "says"),
    [
        (EYES, ["a.png", "b.png"], "no image named <eye>_<rest>"),
        (PORTRAITS, ["a_1.png", "a_2.png"], "in a folder of its person"),
        (EYES, ["a_1.png", "a_2.png"], "one eye only"),
        (PORTRAITS, ["a/1.png", "b/1.png"], "one image of each person"),
        (PORTRAITS, ["a/1.png", "a/1.jpg", "b/1.png"], "several files of one name: a/1"),
    ],
)
def test_sets_that_give_no_rates_are_refused(tmp_path: Path, kind: Kind, names: list[str], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        sample_set(touched(tmp_path, *names), kind)


def test_missing_folders_and_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no readable folder"):
        sample_set(tmp_path / "nowhere", EYES)
    one, two = (touched(tmp_path / n / "set", "a_1.png", "a_2.png", "b_1.png", "b_2.png") for n in ("x", "y"))
    with pytest.raises(EvaluationError, match="several folders are named set"):
        sample_sets([one, two], EYES)


# --- 2. sets made of templates


def eye(number: int, n: int) -> IrisTemplate:
    """Impression `n` of an eye: its code with a tenth of the bits changed, a fifth masked."""
    code = np.random.default_rng(number).integers(0, 2**63, GROUP_WORDS, np.uint64)
    noise = np.random.default_rng([number, n])
    flips, mask = (
        np.packbits(noise.random((GROUP_WORDS, 64)) < share, axis=1).view(np.uint64)[:, 0]
        for share in (0.1, 0.8)
    )
    return IrisTemplate((code ^ flips) & mask, mask, EyePosition.UNKNOWN, 50 + n)


def face(number: int, n: int) -> FaceTemplate:
    direction = np.random.default_rng(number).normal(size=128)
    direction += 0.5 * np.random.default_rng([number, n]).normal(size=128)
    return FaceTemplate((direction / np.linalg.norm(direction)).astype(np.float32), 60 + n, b"embedder")


def made_set(kind: Kind, name: str = "made", subjects: int = 8, each: int = 3) -> ComparedSamples:
    """A set whose last image failed; its files are nowhere."""
    make = eye if kind is EYES else face
    every = [(s, n) for s in range(subjects) for n in range(each)]
    files = tuple(SampleFile(Path(f"nowhere/{s}_{n}.png"), str(s), f"{s}_{n}") for s, n in every)
    extracted = [Extracted(make(s, n).to_bytes(), 50 + n, (), "") for s, n in every]
    extracted[0] = Extracted(extracted[0].template, 20, ("too_dark",), "", usable=False)
    extracted[-1] = Extracted(None, 0, ("blank",), Feedback.BLANK.advice, usable=False)
    templates = tuple(one.template for one in extracted)
    first, second = all_pairs(len(files))
    scores = compare_chunk(kind.modality, templates, (0, len(first)))
    subject = np.array([s for s, _ in every])
    pairs = Pairs(scores, subject[first] == subject[second], subject[first], subject[second])
    return ComparedSamples(SampleSet(kind, name, files, ("notes.txt",)), tuple(extracted), pairs)


@pytest.mark.parametrize("kind", [EYES, PORTRAITS])
def test_scores_are_those_of_the_comparison_and_failures_match_nothing(kind: Kind) -> None:
    found = made_set(kind)
    first, second = all_pairs(len(found.files))
    for k in (0, 5, 100, len(first) - 1):
        a, b = (found.extracted[int(side[k])].template for side in (first, second))
        if a is None or b is None:
            assert found.pairs.score[k] == FAILED
        elif kind is EYES:
            expected = compare_irises(*(iris_form(IrisTemplate.from_bytes(one)) for one in (a, b))).score
            assert found.pairs.score[k] == expected
        else:
            expected = compare_faces(*(face_form(FaceTemplate.from_bytes(one)) for one in (a, b)))
            assert found.pairs.score[k] == expected
    assert (found.pairs.score == FAILED).sum() == len(found.files) - 1
    assert found.pairs.score[found.pairs.genuine][:3].min() > found.pairs.score[~found.pairs.genuine].max()


@pytest.mark.parametrize("kind", [EYES, PORTRAITS])
def test_the_report_counts_and_its_tables_show(kind: Kind) -> None:
    sets = [made_set(kind, "a"), made_set(kind, "b", subjects=5)]
    result = samples_report(sets, replicates=20, seed=1)
    one = result.sets[0]
    assert (one.subjects, one.images, one.not_usable) == (8, 24, 2)
    assert one.failures == (("7_2", Feedback.BLANK.advice),)
    assert one.feedback == {"too_dark": 1, "blank": 1}
    assert (one.all_pairs.genuine_pairs, one.all_pairs.impostor_pairs) == (24, 252)
    # two of 24 genuine pairs have no score
    at = one.all_pairs.fnmr_at_fmr[0]
    assert at.fnmr is not None
    assert at.fnmr.value == pytest.approx(2 / 24)
    assert result.pooled.genuine_pairs == 24 + 15
    shown = Console(width=120, file=io.StringIO())
    for table in samples_tables(result, kind):
        shown.print(table)
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue()
    assert f"8 {kind.subjects}, 24 {kind.samples}" in text
    assert "failures to extract" in text
    assert "1 of 24" in text
    assert "2 sets together" in text


def test_score_files_are_those_of_prints(tmp_path: Path) -> None:
    found = made_set(PORTRAITS)
    write_scores(tmp_path / "scores.csv", [found])
    rows = read(tmp_path / "scores.csv")
    assert list(rows[0]) == ["a", "b", "genuine", "score"]
    assert len(rows) == 24 * 23 // 2
    for row, score, genuine in zip(rows, found.pairs.score, found.pairs.genuine, strict=True):
        assert bool(int(row["genuine"])) == genuine == (row["a"].split("_")[0] == row["b"].split("_")[0])
        assert (row["score"] == "") == (score == FAILED)
        assert row["score"] == "" or float(row["score"]) == score


@pytest.mark.parametrize("kind", [EYES, PORTRAITS])
def test_a_page_of_sets_whose_images_are_gone(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_page, "SHOWN_PAIRS", 1)
    monkeypatch.setattr(samples_page, "_costs", lambda *_: [])
    sets = [made_set(kind, "<b>a"), made_set(kind, "b", subjects=5)]
    made = Circumstances("1 May 2030", "rekam <x>", (("rekam", "0"),), "coder", 5, 1)
    result = samples_report(sets, replicates=5, seed=1)
    written = samples_page.samples_page(sets, result, made, QUIET)
    page = Page(written)
    assert page.tags.count("article") == 2
    assert "<b>a" in page.text
    assert "all, pooled" in page.text
    assert "rekam <x>" in page.text
    assert f"2 of 39 {kind.samples}" in page.text
    assert Feedback.BLANK.advice in page.text
    assert "://" not in written
    if kind is PORTRAITS:  # the same page from the same figures
        assert samples_page.samples_page(sets, result, made, QUIET) == written


def test_a_calibration_of_ones_own_embedder(tmp_path: Path) -> None:
    sets = [made_set(PORTRAITS, subjects=20), made_set(PORTRAITS, "b")]
    file = tmp_path / "calibration.json"
    file.write_text(calibration_of_faces(sets))
    found = face_calibration(b"embedder", file)
    assert (found.genuine_pairs, found.impostor_pairs) == (58 + 22, 59 * 58 // 2 - 58 + 23 * 22 // 2 - 22)
    assert found.llr(0.99, 60) > 1 > -0.5 > found.llr(0.5, 60)
    # none of the portraits was poor: nothing is known of such
    assert found.llr(0.99, 20) < found.llr(0.99, 60)
    assert found.fmr(0.5) > found.fmr(0.9)
    # another embedder's calibration is kept
    again = calibration_of_faces(sets, file.read_text().replace(b"embedder".hex(), b"embedde2".hex()))
    (tmp_path / "both.json").write_text(again)
    for embedder in (b"embedder", b"embedde2"):
        assert face_calibration(embedder, tmp_path / "both.json").llr(0.99, 60) == found.llr(0.99, 60)
    none = made_set(PORTRAITS)
    failed = tuple(Extracted(None, 0, (), "") for _ in none.extracted)
    with pytest.raises(EvaluationError, match="nothing to calibrate on"):
        calibration_of_faces([replace(none, extracted=failed)])


# --- 3. from images


def drawn_eye(number: int, n: int) -> NDArray[np.uint8]:
    """A pupil, an iris of radial and round waves, a sclera, and a little noise."""
    y, x = np.mgrid[:240, :320].astype(float)
    dx, dy = x - 160 - n, y - 120 + n
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    rng = np.random.default_rng(number)
    texture = sum(
        rng.normal() * np.cos(k * angle + rng.uniform(0, 7)) * np.cos(radius / rng.uniform(3, 9))
        for k in range(4, 34)
    )
    image = np.where(radius < 85, 110 + 7 * texture, 200)
    image = np.where(radius < 32, 30, image)
    image += np.random.default_rng([number, n]).normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn eyes twice each, and a blank image."""
    folder = tmp_path_factory.mktemp("eyes")
    for number in range(1, 4):
        for n in range(2):
            Image.fromarray(drawn_eye(number, n)).save(folder / f"{number}_{n}.png")
    Image.new("L", (320, 240), 128).save(folder / "3_9.png")
    (folder / "3_8.png").write_bytes(b"no image")
    return folder


def test_drawn_eyes_from_files_to_page(eyes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_page, "SHOWN_PAIRS", 2)
    out, scores, report, det = (tmp_path / name for name in ("p.html", "s.csv", "r.json", "d.png"))
    files = ("--report", out, "--scores", scores, "--det", det, "--json", report)
    cache = tmp_path / "cache"
    result = run("iris", eyes, "--workers", "1", "--replicates", "10", *files, "--cache", cache)
    assert result.exit_code == 0, result.output
    said = json.loads(report.read_text())
    (one,) = said["sets"]
    assert said["modality"] == "iris"
    assert (one["subjects"], one["images"]) == (3, 8)
    assert {name for name, _ in one["failures"]} == {"3_8", "3_9"}
    rows = read(scores)
    assert len(rows) == 28
    genuine, impostor = (
        [float(row["score"]) for row in rows if row["score"] and row["genuine"] == kind] for kind in "10"
    )
    assert (len(genuine), len(impostor)) == (3, 12)
    assert min(genuine) > max(impostor)
    assert all((row["score"] == "") == (row["b"] in ("3_8", "3_9")) for row in rows)
    page = Page(out.read_text())
    assert page.tags.count("article") == 4
    assert "2 of 8 images" in page.text
    assert det.read_bytes().startswith(b"\x89PNG")
    # from the cache, and by two processes, the same
    again = tmp_path / "again.csv"
    result = run("iris", eyes, "--scores", again, "--cache", cache, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == scores.read_bytes()
    assert len(list(cache.iterdir())) == 8


def test_the_cache_is_asked_and_damaged_entries_are_made_again(
    eyes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract_file(eyes / "1_0.png", Modality.IRIS, tmp_path)
    (entry,) = tmp_path.iterdir()
    monkeypatch.setattr(samples, "_extract", lambda *_: Extracted(None, 1, (), "made again", usable=False))
    assert extract_file(eyes / "1_0.png", Modality.IRIS, tmp_path) == first
    entry.write_text(entry.read_text()[:-30])
    assert extract_file(eyes / "1_0.png", Modality.IRIS, tmp_path).reason == "made again"
    # another modality is another template
    assert extract_file(eyes / "1_0.png", Modality.FACE, None).reason == "made again"


def test_wrong_use_ends_with_a_message(tmp_path: Path, eyes: Path) -> None:
    wrong: tuple[tuple[tuple[str | Path, ...], str], ...] = (
        (("iris", tmp_path / "missing"), "no readable folder"),
        (("face", eyes), "in a folder of its person"),
        (("iris", eyes, "--report", tmp_path / "page.pdf"), "name it .html"),
        (("iris", eyes, "--scores", tmp_path / "no" / "such.csv"), "such.csv"),
    )
    for arguments, says in wrong:
        result = run(*arguments)
        assert result.exit_code == 1
        assert says in result.output.replace("\n", "")


def test_portraits_of_three_people(development_data: Path, tmp_path: Path) -> None:
    lfw = development_data / "face" / "lfw"
    people = [folder for folder in sorted(lfw.iterdir()) if len(list(folder.glob("*.jpg"))) >= 4][:3]
    for folder in people:
        (tmp_path / "set" / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*.jpg"))[:2]:
            (tmp_path / "set" / folder.name / path.name).write_bytes(path.read_bytes())
    (found,) = sample_sets([tmp_path / "set"], PORTRAITS)
    compared = compare_samples(found, workers=1, cache_folder=None, console=QUIET)
    assert {one.subject for one in found.files} == {folder.name for folder in people}
    assert all(made.template is not None for made in compared.extracted)
    genuine = compared.pairs.genuine
    assert compared.pairs.score[genuine].min() > compared.pairs.score[~genuine].max()
