"""`rekam evaluate fingerprint`: which files are taken, what is counted, what is written."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

import capture
from capture.fingerprint.template import ExtractorChoice
from capture.quality import Feedback
from capture.sample import Modality
from matching.error_rates import FAILED, Pairs, operating_points, resampled_fingers
from rekam.errors import NotWritten
from rekam.offline.evaluate_prints import (
    draw_det,
    evaluate_app,
    plain,
    pooled_pairs,
    rates,
    report,
    report_json,
    tables,
    write_scores,
)
from rekam.offline.prints import (
    Compared,
    Impression,
    PrintSet,
    extract,
    print_set,
    print_sets,
    read_print,
)
from rekam.offline.samples import EvaluationError, Extracted, all_pairs, compare_chunk, mapped, sources_of
from tests.test_written import full_disk

# --- which files


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_finger_is_everything_before_the_last_underscore_and_order_is_natural(tmp_path: Path) -> None:
    names = ["b_2.png", "b_10.TIF", "b_1.wsq", "left_2_1.bmp", "left_10_a.jpeg", "left_2_b.jp2"]
    found = print_set(touch(tmp_path, *names))
    assert [(one.finger, one.number) for one in found.impressions] == [
        ("b", "1"),
        ("b", "2"),
        ("b", "10"),
        ("left_2", "1"),
        ("left_2", "b"),
        ("left_10", "a"),
    ]
    assert found.name == tmp_path.name


def test_other_files_are_ignored_and_named(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "1_1.png",
        "1_2.png",
        "2_1.png",
        "notes.txt",
        "1_3.csv",
        "noimpression.png",
        "_1.png",
        "3_.png",
    )
    (tmp_path / "4_1.png").mkdir()
    found = print_set(tmp_path)
    assert [one.stem for one in found.impressions] == ["1_1", "1_2", "2_1"]
    assert found.ignored == ("1_3.csv", "3_.png", "_1.png", "noimpression.png", "notes.txt")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no print named"),
        (["readme.txt", "print.png"], "no print named"),
        (["1_1.png", "1_2.png"], "one finger only"),
        (["1_1.png", "2_1.png"], "one impression a finger"),
        (["1_1.png", "1_2.png", "1_1.bmp", "2_1.png"], "several files of one name: 1_1"),
    ],
)
def test_sets_that_give_no_rates_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        print_set(touch(tmp_path, *names))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no readable folder"):
        print_set(tmp_path / "nowhere")


def test_resolution_is_given_never_once_or_for_each_set(tmp_path: Path) -> None:
    folders = [touch(tmp_path / name, "1_1.png", "1_2.png", "2_1.png") for name in "abc"]
    assert [one.ppi for one in print_sets(folders, [])] == [None] * 3
    assert [one.ppi for one in print_sets(folders, [500])] == [500] * 3
    assert [one.ppi for one in print_sets(folders, [500, 569, 1000])] == [500, 569, 1000]
    with pytest.raises(EvaluationError, match="not 2 times"):
        print_sets(folders, [500, 569])


def test_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    names = ("1_1.png", "1_2.png", "2_1.png")
    with pytest.raises(EvaluationError, match="several folders are named a"):
        print_sets([touch(tmp_path / "a", *names), touch(tmp_path / "other" / "a", *names)], [])


# --- what is counted


def compared(
    name: str, fingers: int, impressions: int, failed: Sequence[int] = (), seed: int = 0
) -> Compared:
    """A set with drawn scores, as if the impressions numbered `failed` had given no template."""
    generator = np.random.default_rng(seed)
    found = tuple(
        Impression(Path(f"{f}_{i}.png"), str(f), str(i)) for f in range(fingers) for i in range(impressions)
    )
    extracted = tuple(
        Extracted(None, 0, ("blank",), "Nothing there.") if k in failed else Extracted(b"", 50, (), "")
        for k in range(len(found))
    )
    finger = np.repeat(np.arange(fingers), impressions)
    first, second = all_pairs(len(found))
    genuine = finger[first] == finger[second]
    score = generator.normal(np.where(genuine, 3.0, 0.0))
    score[np.isin(first, failed) | np.isin(second, failed)] = FAILED
    is_first = np.arange(len(found)) % impressions == 0
    fvc = genuine | (is_first[first] & is_first[second])
    pairs = Pairs(score, genuine, finger[first], finger[second])
    return Compared(PrintSet(name, 500, found, ()), extracted, pairs, fvc)


def test_pairs_are_counted_by_both_protocols() -> None:
    (one,) = report([compared("set", fingers=10, impressions=8)], replicates=20).sets
    assert (one.fvc_protocol.genuine_pairs, one.fvc_protocol.impostor_pairs) == (280, 45)
    assert (one.all_pairs.genuine_pairs, one.all_pairs.impostor_pairs) == (280, 2880)
    assert (one.fingers, one.impressions, one.mean_quality) == (10, 80, 50)


def test_a_rate_needs_as_many_impostor_pairs_as_it_says() -> None:
    (one,) = report([compared("set", fingers=10, impressions=8)], replicates=20).sets
    assert [(at.fmr, at.fnmr is not None, at.impostor_pairs_needed) for at in one.all_pairs.fnmr_at_fmr] == [
        (1e-2, True, 100),
        (1e-3, True, 1000),
        (1e-4, False, 10_000),
    ]
    assert not any(at.fnmr for at in one.fvc_protocol.fnmr_at_fmr)


def test_rates_are_those_of_the_operating_points() -> None:
    pairs = compared("set", fingers=6, impressions=5, seed=3).pairs
    points = operating_points(pairs.score[pairs.genuine], pairs.score[~pairs.genuine])
    found, eers = rates(pairs, resampled_fingers(6, replicates=200, seed=[1]))
    assert found.equal_error_rate.value == points.equal_error_rate
    assert found.equal_error_rate.low <= found.equal_error_rate.value <= found.equal_error_rate.high
    assert found.equal_error_rate.low < found.equal_error_rate.high
    assert len(eers) == 200
    at = found.fnmr_at_fmr[0]
    assert at.fnmr is not None
    assert (at.threshold, at.fnmr.value) == points.at_fmr(1e-2)


def test_failures_are_non_matches_of_both_classes() -> None:
    (one,) = report([compared("set", fingers=10, impressions=4, failed=[0, 17])], replicates=20).sets
    assert [name for name, _ in one.failures] == ["0_0.png", "4_1.png"]
    assert one.feedback == {"blank": 2}
    assert one.all_pairs.genuine_pairs == 60
    assert one.all_pairs.impostor_pairs == 720
    at = one.all_pairs.fnmr_at_fmr[0]
    assert at.fnmr is not None
    assert at.fnmr.value >= 6 / 60


def test_sets_pool_without_pairs_between_them() -> None:
    a, b = compared("a", 3, 2, seed=1), compared("b", 4, 3, seed=2)
    pooled = pooled_pairs([a.pairs, b.pairs])
    assert len(pooled) == len(a.pairs) + len(b.pairs)
    assert set(pooled.finger_a) | set(pooled.finger_b) == set(range(7))
    assert not ((pooled.finger_a < 3) & (pooled.finger_b >= 3)).any()
    result = report([a, b], replicates=50)
    assert result.pooled.impostor_pairs == sum(one.all_pairs.impostor_pairs for one in result.sets)
    mean = np.mean([one.fvc_protocol.equal_error_rate.value for one in result.sets])
    assert result.mean_eer_fvc_protocol.value == mean


def test_a_sets_figures_do_not_depend_on_the_sets_beside_it() -> None:
    a, b = compared("a", 5, 3, seed=1), compared("b", 5, 3, seed=2)
    alone = report([a], replicates=50)
    beside = report([b, a], replicates=50)
    assert alone.sets[0] == beside.sets[1]


def test_tables_show_every_figure() -> None:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as text:
        console.quiet = False
        for table in tables(report([compared("a", 10, 4), compared("b", 10, 4, seed=1)], replicates=20)):
            console.print(table)
    shown = text.get()
    assert "a: 10 fingers, 40 impressions, 500 ppi" in shown
    assert "not supported, needs 1,000" in shown
    assert "mean EER % of the sets, FVC protocol" in shown


# --- what is written


def test_scores_come_back_exactly_and_empty_where_extraction_failed(tmp_path: Path) -> None:
    made = compared("set", fingers=3, impressions=2, failed=[1], seed=4)
    write_scores(tmp_path / "scores.csv", [made])
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["a", "b", "genuine", "score"]
    assert [(rows[0]["a"], rows[0]["b"], rows[0]["genuine"], rows[0]["score"])] == [("0_0", "0_1", "1", "")]
    scores = np.array([float(row["score"]) if row["score"] else FAILED for row in rows])
    assert np.array_equal(scores, made.pairs.score)
    assert [row["genuine"] == "1" for row in rows] == made.pairs.genuine.tolist()
    assert all((row["a"].split("_")[0] == row["b"].split("_")[0]) == (row["genuine"] == "1") for row in rows)


def test_stems_are_qualified_where_there_are_several_sets(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", [compared("x", 2, 2), compared("y", 2, 2)])
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert rows[1].startswith("x/0_0,x/0_1,1,")
    assert rows[7].startswith("y/0_0,y/0_1,1,")


def test_a_full_disk_leaves_the_older_figures(tmp_path: Path) -> None:
    made = [compared("set", fingers=12, impressions=3)]
    for write in (write_scores, draw_det):
        target = tmp_path / "figures"
        target.write_bytes(b"older")
        with full_disk(), pytest.raises(NotWritten, match="figures cannot be written: File too large"):
            write(target, made)
        assert target.read_bytes() == b"older"
        write(target, made)
        assert target.stat().st_size > 1000


def test_json_holds_no_number_that_json_does_not_know() -> None:
    # two fingers: a replicate of one finger twice has no impostors, and none may be left
    text = report_json(report([compared("set", 2, 2)], replicates=1, seed=3), replicates=1, seed=3)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert plain({"a": (float("nan"), [float("inf"), 1.5])}) == {"a": [None, [None, 1.5]]}


# --- the whole command, on real prints


@pytest.fixture(scope="module")
def prints(development_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fingers of two impressions, one blank image and one that is no image."""
    folder = tmp_path_factory.mktemp("prints")
    for name in ("101_1", "101_2", "102_1", "102_2"):
        (folder / f"{name}.png").write_bytes(
            (development_data / "fingerprint" / "fvc2002_db1_b" / f"{name}.png").read_bytes()
        )
    cv2.imwrite(str(folder / "102_3.png"), np.full((300, 300), 250, np.uint8))
    (folder / "101_3.bmp").write_bytes(b"BM no bitmap")
    (folder / "notes.txt").touch()
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate_app, ["fingerprint", *map(str, arguments)])


def test_results_do_not_depend_on_workers_or_cache(prints: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results = []
    ways: list[list[str | Path]] = [
        ["--workers", "2", "--cache", cache],
        ["--workers", "1"],
        ["--cache", cache],
    ]
    for i, options in enumerate(ways):
        scores, written = tmp_path / f"{i}.csv", tmp_path / f"{i}.json"
        result = run(prints, "--ppi", "500", "--scores", scores, "--json", written, *options)
        assert result.exit_code == 0, result.output
        results.append((scores.read_bytes(), written.read_bytes()))
    assert results[0] == results[1] == results[2]
    assert len(list(cache.iterdir())) == 6

    rows = list(csv.DictReader(results[0][0].decode().splitlines()))
    assert len(rows) == 15
    genuine = {(row["a"], row["b"]): row["score"] for row in rows if row["genuine"] == "1"}
    impostor = [float(row["score"]) for row in rows if row["genuine"] == "0" and row["score"]]
    assert min(float(genuine["101_1", "101_2"]), float(genuine["102_1", "102_2"])) > max(impostor)
    assert all(not row["score"] for row in rows if {row["a"], row["b"]} & {"101_3", "102_3"})

    (one,) = json.loads(results[0][1])["sets"]
    assert [name for name, _ in one["failures"]] == ["101_3.bmp", "102_3.png"]
    assert all(reason for _, reason in one["failures"])
    assert one["ignored"] == ["notes.txt"]
    assert one["fvc_protocol"]["impostor_pairs"] == 1
    assert one["all_pairs"]["impostor_pairs"] == 9
    # both genuine pairs with a template match, the four others cannot
    assert one["all_pairs"]["genuine_pairs"] == 6


def test_scores_do_not_depend_on_chunks_or_processes(prints: Path) -> None:
    templates = tuple(extract(path, 500, None).template for path in sorted(prints.glob("*.png")))
    assert [template is None for template in templates] == [False, False, False, False, True]
    whole = compare_chunk(Modality.FINGERPRINT, templates, (0, 10))
    assert np.isinf(whole).sum() == 4
    chunks = [(0, 3), (3, 4), (4, 10)]
    with mapped(compare_chunk, (repeat(Modality.FINGERPRINT), [templates] * 3, chunks), 2) as parts:
        assert np.array_equal(np.concatenate(list(parts)), whole)


def test_standard_output_is_json_alone(prints: Path, tmp_path: Path) -> None:
    result = run(prints, "--ppi", "500", "--json", "-", "--workers", "1", "--det", tmp_path / "det.png")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["bootstrap"]["replicates"] == 1000
    assert "extracting" in result.stderr
    assert cv2.imread(str(tmp_path / "det.png")) is not None


def test_a_damaged_cache_entry_is_made_again(prints: Path, tmp_path: Path) -> None:
    path = prints / "101_1.png"
    made = extract(path, 500, tmp_path)
    assert made.template is not None
    (entry,) = tmp_path.iterdir()
    good = entry.read_bytes()
    for damage in (b"", b"{}", good.replace(b'"template": "', b'"template": "AAAA')):
        entry.write_bytes(damage)
        assert extract(path, 500, tmp_path) == made
        assert entry.read_bytes() == good
    # what the cache holds is taken, and only for the same resolution
    entry.write_text(json.dumps(json.loads(good) | {"quality": 1}))
    assert extract(path, 500, tmp_path).quality == 1
    assert extract(path, 508, tmp_path).quality != 1


def test_the_cache_knows_the_extractor(prints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ExtractorChoice] = []

    def _extract(path: Path, data: bytes, ppi: float | None, extractor: ExtractorChoice) -> Extracted:
        made.append(extractor)
        return Extracted(None, len(made), (), "no real extraction")

    monkeypatch.setattr("rekam.offline.prints._extract", _extract)
    choices = [ExtractorChoice.ACCURATE, ExtractorChoice.FAST]
    for _ in range(2):
        found = [extract(prints / "101_1.png", 500, tmp_path, choice).quality for choice in choices]
        assert found == [1, 2]
    assert made == choices


def test_cached_advice_is_worded_as_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = tmp_path / "1_1.png"
    cv2.imwrite(str(blank), np.full((300, 300), 250, np.uint8))
    cache = tmp_path / "cache"
    cache.mkdir()
    assert extract(blank, 500, cache).reason == Feedback.BLANK.advice
    (entry,) = cache.iterdir()
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"reason": "as it was said before"}))
    assert extract(blank, 500, cache).reason == Feedback.BLANK.advice


def test_the_cache_follows_every_module_that_extraction_loads() -> None:
    loaded = (
        "import sys, capture.decode, capture.fingerprint.extract\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith(('capture.', 'devices.'))))"
    )
    files = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout
    no_say = {"errors.py", "quality.py", "trace.py"}
    root = Path(capture.__file__).parent
    expected = {
        path
        for path in map(Path, files.split())
        if path.name != "__init__.py" and not (path.parent == root and path.name in no_say)
    }
    found = set(sources_of(("capture.decode", "capture.fingerprint.extract"), "fingerprint"))
    assert expected <= found
    assert {path for path in found if path.suffix == ".py"} - expected == set()
    assert root / "quality.py" not in found
    assert not any("__pycache__" in path.parts for path in found)


def test_an_unknown_resolution_is_said_with_its_remedy(prints: Path) -> None:
    result = run(prints, "--workers", "1")
    assert result.exit_code == 1
    assert "101_1.png" in result.stderr
    assert "--ppi" in result.stderr
    assert result.stdout == ""


def test_the_given_resolution_holds_whatever_the_file_says(tmp_path: Path) -> None:
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1_1.png", dpi=(500, 500))
    assert read_print(tmp_path / "1_1.png", None).ppi == pytest.approx(500, abs=0.1)
    assert read_print(tmp_path / "1_1.png", 1000).ppi == 1000


def test_wrong_use_ends_with_a_message(tmp_path: Path) -> None:
    result = run(tmp_path, "--workers", "1")
    assert result.exit_code == 1
    assert "holds no print named" in result.stderr


@pytest.mark.parametrize("option", ["--scores", "--det", "--json", "--report"])
def test_a_target_that_cannot_be_written_is_refused_before_the_work(
    option: str, prints: Path, tmp_path: Path
) -> None:
    target = tmp_path / "none" / "out.html"
    result = run(prints, "--ppi", "500", option, target)
    assert result.exit_code == 1
    assert f"{target} cannot be written: there is no folder" in result.stderr
    assert "extracting" not in result.stderr
