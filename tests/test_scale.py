"""The scale benchmark: shards that go on where they stopped, galleries of parts, figures that add up."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale, scale_page, scale_population, synthetic_face_vectors, synthetic_iris_codes
from benchmarks.population import person
from benchmarks.scale import (
    KINDS,
    Mate,
    Task,
    at_least,
    build_gallery,
    mates,
    meet,
    name_mates,
    parts,
    plan,
    probe_of,
    read_mates,
    recall,
    run_block,
)
from benchmarks.scale_population import SEED, build, read_shard, shard_file
from capture.iris.template import IrisTemplate
from capture.sample import Modality
from matching import search
from matching.decision import Decision, Thresholds
from matching.gallery import Gallery
from matching.iris.comparison import compare_irises, iris_form
from matching.search import Snapshot

ROWS = json.loads(scale.RESULT.read_text())["sizes"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of four people, parts of eight, blocks of two."""
    monkeypatch.setattr(scale_population, "SHARD", 4)
    monkeypatch.setattr(scale, "SHARD", 4)
    monkeypatch.setattr(scale, "PART", 8)
    monkeypatch.setattr(scale, "BLOCK", 2)


def test_a_killed_run_makes_only_what_is_missing(tmp_path: Path, small: None) -> None:
    build(tmp_path, 8, Modality.FACE, workers=1)
    kept, lost = (shard_file(tmp_path, Modality.FACE, shard) for shard in (0, 1))
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    build(tmp_path, 8, Modality.FACE, workers=1)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}


def test_a_shard_holds_what_was_drawn(tmp_path: Path, small: None) -> None:
    for who, fingers in zip(range(4, 8), read_shard(tmp_path, Modality.FINGERPRINT, 1), strict=True):
        assert fingers == [finger.to_bytes() for finger in person(who, SEED)]
    for eyes in read_shard(tmp_path, Modality.IRIS, 1):
        assert [IrisTemplate.from_bytes(eye).eye for eye in eyes] == [1, 2]


def test_a_gallery_of_parts_holds_everybody_once_and_finds_them(tmp_path: Path, small: None) -> None:
    assert parts(20) == [(0, 8), (8, 8), (16, 4)]
    folder = build_gallery(tmp_path, 20, workers=1)
    gallery = Gallery.load(folder)
    assert sorted(key for segment in gallery.segments() for key in segment.keys.tolist()) == list(range(20))
    assert len(list(gallery.segments())) == 3
    thresholds = Thresholds.for_gallery(20)
    mated, stranger = (meet(gallery, thresholds, Task(0, mated, 0), 1) for mated in (True, False))
    assert mated.place == 0
    assert mated.direct >= thresholds.match
    assert mated.decision == Decision.DUPLICATE
    assert stranger.place == -1
    assert stranger.decision == Decision.UNIQUE
    # the parts of a smaller gallery are there, and a second run makes nothing new
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.segment")}
    build_gallery(tmp_path, 8, workers=1)
    assert build_gallery(tmp_path, 20, workers=1) == folder
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.segment")}
    assert {path: after[path] for path in before} == before


def test_naming_says_of_mates_what_whole_searches_say(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PARAMS", replace(search.PARAMS, fingers=1, fingers_always=1))
    folder = build_gallery(tmp_path, 20, workers=1)
    gallery = Gallery.load(folder)
    assert Snapshot(tuple(gallery.segments()), None).few(frozenset()) is None  # else everybody is named
    thresholds = Thresholds.for_gallery(20)
    named, results = Task(0, mated=True, block=1, named=True), tmp_path / "results"
    both = name_mates(gallery, named, range(4))
    for kind in (0, 1):
        searched = [meet(gallery, thresholds, Task(kind, mated=True, block=0), number) for number in range(4)]
        assert [pair[kind] for pair in both] == mates(searched)
    results.mkdir()
    for task in (Task(0, mated=True, block=0), Task(1, mated=True, block=0), named):
        run_block(folder, results, task)
    known = read_mates(results, [Task(0, mated=True, block=0), Task(1, mated=True, block=0), named])
    assert [(kind, len(of)) for kind, of in known.items()] == [(0, 4), (1, 4)]
    assert [of[2:] for of in known.values()] == [[pair[kind] for pair in both[2:]] for kind in (0, 1)]


def test_probes_are_the_same_in_every_run() -> None:
    first, again = (probe_of(1000, Task(0, mated=True, block=0), 5) for _ in range(2))
    assert first.index == again.index
    assert first.damaged
    assert [f.to_bytes() for f in first.fingers] == [f.to_bytes() for f in again.fingers]
    assert [i.to_bytes() for i in first.irises] == [i.to_bytes() for i in again.irises]
    others = probe_of(1000, Task(2, mated=True, block=0), 5)
    assert [finger.position for finger in others.fingers] == [2, 3, 4, 5]
    assert not others.irises


def test_the_plan_has_some_of_every_kind_first() -> None:
    tasks = plan(10_000)
    assert len(set(tasks)) == len(tasks)
    assert {(task.kind, task.mated) for task in tasks[: 2 * len(KINDS)]} == {
        (kind, mated) for kind in range(len(KINDS)) for mated in (True, False)
    }
    assert sum(scale.BLOCK for task in tasks if task.kind == 0 and task.mated) == 10_000


def mate(direct: float, *, returned: bool) -> Mate:
    return Mate(damaged=False, direct=direct, returned=returned)


def test_recall_counts_only_mates_that_can_be_told() -> None:
    of = [mate(9, returned=True), mate(9, returned=True), mate(9, returned=False), mate(5, returned=False)]
    told = recall(of, threshold=8)
    assert (told["passing"], told["returned"]) == (3, 2)
    # 0.05 = P(2 or more of 3 found) at the lower end
    low = told["at_least"]
    assert 3 * low**2 * (1 - low) + low**3 == pytest.approx(0.05, abs=1e-4)
    assert at_least(10_000, 10_000) == pytest.approx(0.05 ** (1 / 10_000))


def test_another_capture_of_an_eye_is_told_from_another_eye() -> None:
    eyes = [synthetic_iris_codes.eyes(index, SEED) for index in range(20)]
    first, again = (
        [iris_form(synthetic_iris_codes.capture(one, number)[0]) for one in eyes] for number in (0, 1)
    )
    mates = [compare_irises(a, b).distance for a, b in zip(first, again, strict=True)]
    strangers = [compare_irises(a, b).distance for a, b in zip(first, again[1:], strict=False)]
    assert max(mates) < 0.33 < min(strangers)
    assert 0.05 < float(np.median(mates)) < 0.16
    assert 0.41 < float(np.median(strangers)) < 0.47


def test_faces_of_one_person_are_nearer() -> None:
    a, b, c = (
        synthetic_face_vectors.capture(who, SEED, number).vector for who, number in ((0, 0), (0, 1), (1, 0))
    )
    assert float(a @ b) > float(a @ c)


def test_the_page_has_what_the_results_say() -> None:
    page = scale_page.PAGE.read_text()
    assert scale_page.with_tables(page, ROWS) == page
    assert f"{ROWS[-1]['people']:,}" in page


def test_a_country_takes_so_many_times_as_much() -> None:
    row = scale_page.largest(ROWS)
    one = scale_page.outlook(row, row["people"], 1000)
    ten = scale_page.outlook(row, 10 * row["people"], 1000)
    assert (one.shards, ten.shards) == (1, 10)
    assert one.core_seconds == row["core_seconds_a_dedup_median"]
    assert ten.resident_gib == pytest.approx(10 * row["resident_GiB"])
    assert ten.cores == pytest.approx(1000 * ten.core_seconds / (10 * 3600 * 0.6))
