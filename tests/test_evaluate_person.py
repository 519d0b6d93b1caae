"""People put together of several sets, and the rates of searches for them."""

import csv
import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.persons import blurred, dark, turned
from benchmarks.population import impression, person
from capture.sample import EyePosition, FingerPosition, Modality
from matching.encounter import EncounterForm, compare_encounters, encounter_form
from rekam.cli import app
from rekam.offline.evaluate_person import (
    ENCOUNTERS,
    ROUNDS,
    drawn,
    eye_pairs,
    fewer,
    hands,
    person_rates,
    person_row,
    portrayed,
    summed,
    table,
    whole_sets,
)
from rekam.offline.samples import EvaluationError
from tests.test_modalities import eye, portrait

F, EYES = Modality.FINGERPRINT, Modality.IRIS


def told(people: int, encounters: int, mate: float, stranger: float) -> np.ndarray:
    """A table in which every mate and every stranger scores alike."""
    llrs = np.full((people, people, encounters, encounters), stranger)
    own = np.arange(people)
    llrs[own, own] = mate
    llrs[own[:, None], own[:, None], np.arange(encounters), np.arange(encounters)] = np.nan
    return llrs


def test_rates_of_known_answers() -> None:
    good = drawn({F: told(5, 6, 9.0, -2.0)}, rounds=3)[F]
    found = person_rates(good)
    assert (found.mated, found.unmated, found.gallery) == (5 * 3 * 12, 5 * 3 * 16, 4)
    assert found.threshold == np.nextafter(-2.0, inf)
    assert (found.fnir.value, found.fnir.low, found.fnir.high) == (0, 0, 0)
    assert found.modelled.value == 0  # 9 is more than log10(1 M / 1 %)
    assert person_rates(drawn({F: told(5, 6, 7.9, -2.0)}, rounds=3)[F]).modelled.value == 1
    assert person_rates(drawn({F: told(5, 6, 1.0, 1.0)}, rounds=3)[F]).fnir.value == 1


def test_the_threshold_is_passed_by_no_more_searches_than_wanted() -> None:
    rng = np.random.default_rng(3)
    llrs = rng.normal(size=(4, 6, 6, ENCOUNTERS, ENCOUNTERS))
    own = np.arange(6)
    found = person_rates(llrs, fpir=0.1)
    others = llrs.copy()
    others[:, own, own] = -inf
    best = others.max(axis=2)
    assert (best >= found.threshold).mean() <= 0.1 < (best >= np.nextafter(found.threshold, -inf)).mean()
    off = ~np.eye(ENCOUNTERS, dtype=bool)
    assert found.fnir.value == (llrs[:, own, own][:, :, off] < found.threshold).mean()
    assert found.fnir.low <= found.fnir.value <= found.fnir.high


def test_one_weak_person_widens_the_interval() -> None:
    llrs = drawn({F: told(8, 4, 9.0, -2.0)}, rounds=2)[F]
    llrs[:, 0, 0] = -3.0
    found = person_rates(llrs)
    assert found.fnir.value == 1 / 8
    assert found.fnir.low == 0
    assert found.fnir.high > 0.3


def test_people_are_the_same_in_every_row() -> None:
    """A draw depends on sizes and seed; mates stay mates, and nobody is compared with the same sample."""
    names = np.arange(7 * 7 * 5 * 5, dtype=np.float64).reshape(7, 7, 5, 5)
    tables = {F: told(4, 6, 9.0, -2.0), EYES: names}
    first, again = (
        drawn(tables, rounds=3, seed=5),
        drawn({**tables, F: told(4, 6, 0.0, 0.0)}, rounds=3, seed=5),
    )
    assert np.array_equal(first[EYES], again[EYES])
    assert not np.array_equal(first[EYES], drawn(tables, rounds=3, seed=6)[EYES])
    own, turn = np.arange(4), np.arange(ENCOUNTERS)
    assert np.isnan(first[F][:, own[:, None], own[:, None], turn, turn]).all()
    assert (first[F][:, own, own][:, :, ~np.eye(ENCOUNTERS, dtype=bool)] == 9).all()
    probe, reference = (names // (5 * 5)).astype(int) // 7, (names // (5 * 5)).astype(int) % 7
    mated = first[EYES][:, own, own].astype(int)
    assert (probe.ravel()[mated] == reference.ravel()[mated]).all()
    with pytest.raises(EvaluationError, match="as many"):
        drawn({F: told(4, 6, 9.0, -2.0), EYES: told(3, 6, 9.0, -2.0)})
    with pytest.raises(EvaluationError, match="samples"):
        drawn({F: told(4, 3, 9.0, -2.0)})


def test_a_table_holds_what_comparison_gives() -> None:
    eyes = eye_pairs([[eye(n, EyePosition.UNKNOWN, taken) for taken in (1, 2)] for n in range(4)])
    assert [[len(form.irises) for form in taken] for taken in eyes] == [[2, 2], [2, 2]]
    llrs = table(eyes, eyes)
    assert np.isnan(llrs[[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]]).all()
    assert llrs[0, 0, 0, 1] == compare_encounters(eyes[0][0], eyes[0][1]).llr > 7
    assert (llrs[0, 1] < 0).all()
    half = eye_pairs([[eye(0, EyePosition.UNKNOWN)], [None]])
    assert [iris.eye for iris in half[0][0].irises] == [EyePosition.RIGHT]
    faces = portrayed([[portrait(0), None]])
    assert faces[0][0].face is not None
    assert faces[0][1].face is None
    prints = [
        [
            encounter_form(
                [impression(t, np.random.default_rng(k)) for t in person(i, 7, [FingerPosition.RIGHT_INDEX])]
            )
            for k in range(2)
        ]
        for i in range(2)
    ]
    assert table(prints, prints)[1, 1, 0, 1] > 2
    assert table([[EncounterForm()] * 2] * 2, prints)[0, 0, 0, 1] == 0  # a failure to extract finds nobody


def test_prints_that_do_not_tell_the_finger_are_refused(tmp_path: Path) -> None:
    for name in ("a_1.png", "a_2.png", "b_1.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(EvaluationError, match="named"):
        hands(tmp_path, 500.0, None)


def test_damaged_images_keep_their_size_and_differ() -> None:
    image = np.random.default_rng(1).integers(0, 255, (60, 50, 3)).astype(np.uint8)
    for change in (blurred, dark, turned):
        changed = change(image)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, image)
    assert dark(image).mean() < image.mean() / 5


def test_every_set_of_modalities_is_a_row() -> None:
    tables = {
        F: {"1": told(4, 6, 3.0, -2.0), "2": told(4, 6, 6.0, -3.0)},
        EYES: {"both": told(5, 6, 4.0, -1.0)},
    }
    wanted = whole_sets(tables)
    assert wanted == [{EYES: "both"}, {F: "1"}, {F: "1", EYES: "both"}, {F: "2"}, {F: "2", EYES: "both"}]
    assert person_row(tables, wanted[-1], 0).rates.modelled.value == 0  # 6 and 4 are more than 8
    assert person_row(tables, wanted[-2], 0).rates.modelled.value == 1
    assert np.nanmax(summed(tables, wanted[-1], 0)) == 10


def test_fewer_fingers_are_those_used_first() -> None:
    ten = encounter_form(person(3, 0))
    two = encounter_form(
        [t for t in person(3, 0) if t.position in (FingerPosition.LEFT_RING, FingerPosition.LEFT_THUMB)]
    )
    [[all_of_them, some]] = fewer([[ten, two]], 3)
    used = {FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX, FingerPosition.RIGHT_THUMB}
    assert {finger.position for finger in all_of_them.fingers} == used
    assert some.fingers == ()


def test_the_command_writes_scores_and_figures(tmp_path: Path, development_data: Path) -> None:
    prints = tmp_path / "prints"
    prints.mkdir()
    for path in sorted((development_data / "fingerprint" / "crossmatch").iterdir()):
        who, number = path.stem.split("_")
        if who[:3] in ("012", "013") and who[3:] == "03" and int(number) <= ENCOUNTERS:
            (prints / path.name).write_bytes(path.read_bytes())
    eyes = tmp_path / "eyes"
    eyes.mkdir()
    for path in sorted((development_data / "iris" / "casia_v1").iterdir()):
        if path.stem[:3] in ("001", "002", "003", "004") and path.stem[4:] in ("1_1", "1_2", "2_1", "2_2"):
            (eyes / path.name).write_bytes(path.read_bytes())
    scores, figures = tmp_path / "scores.csv", tmp_path / "figures.json"
    arguments = ["evaluate", "person", str(prints), "--irises", str(eyes), "--scores", str(scores)]
    result = CliRunner().invoke(app, [*arguments, "--json", str(figures)])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(scores.read_text().splitlines()))
    assert len(rows) == ROUNDS * 8 * 7 // 2
    genuine = [float(row["score"]) for row in rows if row["genuine"] == "1"]
    assert len(genuine) == ROUNDS * 2 * 6
    assert min(genuine) > max(float(row["score"]) for row in rows if row["genuine"] == "0")
    content = json.loads(figures.read_text())
    assert content["people_of_each"] == {"fingerprint": 2, "iris": 2}
    assert [row["used"] for row in content["rows"]][-1] == {"fingers": "1", "irises": "both"}


def test_a_folder_without_prints_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "person", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no print" in result.output
