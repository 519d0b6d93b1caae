"""The synthetic population: repeatable, valid, and of fingers that are told apart."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.check_population import with_count
from benchmarks.population import PARAMS, SCANNERS, TEN_FINGERS, impression, people, person
from benchmarks.population_flow import FlowPrint, fitted_flow
from benchmarks.synthetic_prints import Pattern, master
from benchmarks.synthetic_prints import impression as print_of
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders

COLUMNS = ("x", "y", "direction", "ending", "reliability")


def same(a: FingerprintTemplate, b: FingerprintTemplate) -> bool:
    return a.to_bytes() == b.to_bytes() and all(
        np.array_equal(getattr(a, column), getattr(b, column)) for column in COLUMNS
    )


def test_the_same_seed_gives_the_same_people() -> None:
    first = [finger for fingers in people(5, seed=1) for finger in fingers]
    again = [finger for fingers in people(5, seed=1) for finger in fingers]
    other = [finger for fingers in people(5, seed=2) for finger in fingers]
    assert len(first) == 50
    assert all(map(same, first, again))
    assert not any(map(same, first, other))


@given(seed=st.integers(0, 2**63), index=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_a_person_alone_is_the_person_in_the_run(seed: int, index: int) -> None:
    fingers = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_INDEX)
    run = list(people(8, seed, fingers))
    assert all(map(same, run[index], person(index, seed, fingers)))
    (later,) = people(1, seed, fingers, first=index)
    assert all(map(same, run[index], later))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_templates_are_valid_and_survive_their_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for position, finger in zip(TEN_FINGERS, person(0, seed), strict=True):
        again = impression(finger, rng)
        assert finger.position == again.position == position
        for template in (finger, again, impression(again, rng)):
            data = template.to_bytes()
            assert len(data) <= 512
            back = FingerprintTemplate.from_bytes(data)
            assert back.to_bytes() == data
            assert np.array_equal(back.x, template.x)
            assert np.array_equal(back.y, template.y)
            turn = np.abs(np.angle(np.exp(1j * (back.direction - template.direction))))
            assert np.all(turn <= np.pi / 1024 + 1e-5)
            assert np.all(np.diff(template.reliability) <= 0)
            assert np.all((template.direction >= 0) & (template.direction < 2 * np.pi))


def test_an_impression_of_nothing_is_nothing() -> None:
    (finger,) = person(0, 1, [FingerPosition.RIGHT_INDEX])
    empty = FingerprintTemplate(
        **{column: getattr(finger, column)[:0] for column in COLUMNS},
        width=finger.width,
        height=finger.height,
        position=finger.position,
        quality=0,
    )
    assert len(impression(empty, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_an_impression_matches_its_finger_and_no_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fingers = [finger for fingers in people(4, seed) for finger in fingers]
    enrolled = [cylinders(finger) for finger in fingers]
    returned = [cylinders(impression(finger, rng)) for finger in fingers]
    genuine = np.array([similarity(a, b) for a, b in zip(enrolled, returned, strict=True)])
    impostor = np.array([similarity(a, b) for a, b in combinations(enrolled, 2)])
    assert np.median(genuine) > 2 * impostor.max()
    assert np.mean(genuine > impostor.max()) >= 0.95


def test_fingers_look_like_fingers() -> None:
    """Coarse bounds of any flat print at 500 ppi; `benchmarks.check_population` measures closely."""
    fingers = [finger for fingers in people(60, seed=3) for finger in fingers]
    counts = np.array([len(finger) for finger in fingers])
    assert 40 < counts.mean() < 70
    assert 8 < counts.std() < 25
    nearest = []
    for finger in fingers:
        apart = np.hypot(finger.x[:, None] - finger.x, finger.y[:, None] - finger.y)
        np.fill_diagonal(apart, np.inf)
        nearest.append(np.median(apart.min(axis=1)))
    assert 15 < np.mean(nearest) < 30


@pytest.mark.parametrize("scanner", SCANNERS)
def test_small_scanners_see_less_of_a_finger(scanner: str) -> None:
    params, noise = SCANNERS[scanner]
    whole = [finger for fingers in people(30, 3) for finger in fingers]
    seen = [finger for fingers in people(30, 3, params=params) for finger in fingers]
    assert {(finger.width, finger.height) for finger in seen} == {(params.width, params.height)}
    assert np.mean([len(finger) for finger in seen]) < np.mean([len(finger) for finger in whole])
    again = impression(seen[0], np.random.default_rng(1), noise)
    assert (again.width, again.height) == (params.width, params.height)


def test_the_flow_of_prints_is_named_and_mirrored(tmp_path: Path) -> None:
    """A whorl, and one loop shown by both hands: the same pattern once, counted twice."""
    prints = []
    for name, pattern, left_hand in (
        ("whorl", Pattern.WHORL, False),
        ("right", Pattern.RIGHT_LOOP, False),
        ("left", Pattern.RIGHT_LOOP, True),
    ):
        path = tmp_path / f"{name}.png"
        image = print_of(master(5, pattern), 1)
        Image.fromarray(image[:, ::-1] if left_hand else image).save(path)
        prints.append(FlowPrint(path, thumb=False, left_hand=left_hand))
    flow = fitted_flow(prints)
    assert {name: found["count"] for name, found in flow.items()} == {"whorl": 1, "loop": 2}
    spread = np.sqrt(np.diag(flow["loop"]["covariance"]))
    assert np.all(spread < 0.1)
    assert flow["loop"]["finger"][2] < flow["loop"]["finger"][0]  # the delta is on the left


def test_the_density_is_fitted_wherever_it_starts() -> None:
    positions = (FingerPosition.RIGHT_INDEX,)
    for density in (1.5e-4, 5e-4):
        params = with_count(replace(PARAMS, density=density), 50, positions)
        made = [len(finger) for fingers in people(400, 4, positions, params=params) for finger in fingers]
        assert np.mean(made) == pytest.approx(50, rel=0.04)
