from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.population import impression, people, person
from capture.sample import FingerPosition
from matching.errors import ParametersUnavailable
from matching.fingerprint.code import (
    CODE_BITS,
    CODE_WORDS,
    DETAIL_BINS,
    CodeModel,
    code_evidence,
    code_identity,
    detail_bin,
    finger_code,
    finger_detail,
)
from tests.minutiae import moved_template

INDEX = (FingerPosition.RIGHT_INDEX,)
SEED = 31


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b).sum())


def test_a_code_is_words_of_64_bits() -> None:
    [template] = person(0, SEED, INDEX)
    code = finger_code(template)
    assert code.shape == (CODE_WORDS,)
    assert code.dtype == np.uint64
    np.testing.assert_array_equal(code, finger_code(template))


def test_a_print_without_minutiae_has_a_code_that_says_nothing() -> None:
    [template] = person(0, SEED, INDEX)
    columns = ("x", "y", "direction", "ending", "reliability")
    for n in (0, 1):
        poor = replace(template, **{name: getattr(template, name)[:n] for name in columns})
        assert not finger_code(poor).any()
        assert detail_bin(finger_detail(poor)) == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-50, 50), st.floats(-50, 50), st.integers(0, 30))
def test_motion_changes_little(turn: float, dx: float, dy: float, who: int) -> None:
    [template] = person(who, SEED, INDEX)
    template = replace(template, ending=np.ones(len(template), dtype=np.bool_))
    moved = replace(moved_template(template, turn, dx, dy), reliability=template.reliability)
    assert distance(finger_code(template), finger_code(moved)) < CODE_BITS // 20


def test_the_order_of_minutiae_changes_nothing_but_rounding() -> None:
    [template] = person(1, SEED, INDEX)
    columns = ("x", "y", "direction", "ending")
    turned = replace(template, **{name: getattr(template, name)[::-1] for name in columns})
    same = np.full(len(template), 0.9, dtype=np.float32)
    one, other = (finger_code(replace(t, reliability=same)) for t in (template, turned))
    assert distance(one, other) <= 3


def test_mates_are_nearer_than_strangers() -> None:
    rng = np.random.default_rng(SEED)
    first = [templates[0] for templates in people(60, SEED, INDEX)]
    codes = np.array([finger_code(t) for t in first])
    again = np.array([finger_code(impression(t, rng)) for t in first])
    away = np.bitwise_count(codes[:, None] ^ again[None]).sum(axis=2)
    strangers = away[~np.eye(len(first), dtype=np.bool_)]
    assert abs(float(strangers.mean()) / CODE_BITS - 0.5) < 0.03
    assert np.mean(np.diag(away) < strangers.min()) > 0.9


def test_evidence_falls_with_distance_and_is_floored() -> None:
    evidence = code_evidence()
    assert evidence.shape == (DETAIL_BINS, DETAIL_BINS, CODE_BITS + 1)
    assert not evidence.flags.writeable
    assert (np.diff(evidence, axis=2) <= 0).all()
    np.testing.assert_array_equal(evidence, evidence.transpose(1, 0, 2))
    assert evidence.min() > -0.35  # a bad print of a finger takes little from what the others say
    assert evidence[-1, -1, 50] > 3


def test_detail_bins_rise() -> None:
    bins = [detail_bin(n) for n in range(100)]
    assert bins == sorted(bins)
    assert bins[0] == 0
    assert bins[-1] == DETAIL_BINS - 1


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with np.load(Path("matching/fingerprint/code.npz")) as data:
        right = dict(data)
    path = tmp_path / "model.npz"
    np.savez(path, **right)
    assert CodeModel.from_file(path).identity == code_identity()
    wrong = [
        right | {"version": 0},
        right | {"first": right["first"][:5]},
        {name: right[name] for name in right if name != "bits"},
    ]
    for content in wrong:
        np.savez(path, **content)
        with pytest.raises(ParametersUnavailable):
            CodeModel.from_file(path)
    path.write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ParametersUnavailable):
        CodeModel.from_file(path)
