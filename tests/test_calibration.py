import json
from dataclasses import replace
from importlib.resources import files
from math import log, log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.fingerprint.template import Extractor
from matching.calibration import FORMAT, Calibration
from matching.error_rates import Pairs
from matching.errors import NotCalibrated, ParametersUnavailable, RateUnsupported
from matching.face.calibration import face_calibration
from matching.fingerprint.calibration import (
    FMR_1E2,
    FMR_1E3,
    FMR_1E4,
    TYPICAL,
    fingerprint_calibration,
)
from matching.fingerprint.calibration import (
    SCORES as FINGERPRINT,
)
from matching.fingerprint.comparison import COMPARISON_VERSION
from matching.fitting import (
    Measured,
    cllr,
    content_with,
    fitted,
    fmr_steps,
    isotonic_llr,
    support,
    upper_count,
)
from matching.iris.calibration import iris_calibration

SCORES = st.floats(-1, 2, allow_nan=False)
ONE = (Extractor.LEADER_1, Extractor.LEADER_1)

SMALL = Calibration(
    llr_scores=(0.1, 0.2, 0.4),
    llrs=(-1.5, 0.5, 2.5),
    correction=0.1,
    bins=(20,),
    lowest=(-1.0, -1.5),
    highest=(2.0, 2.5),
    fmr_scores=(0.1, 0.2, 0.3),
    fmrs=(0.5, 0.05, 0.003),
    genuine_pairs=100,
    impostor_pairs=1000,
    detail=FINGERPRINT.detail,
)


def of_detail(pairs: Pairs, cylinders: int = TYPICAL) -> Measured:
    n = len(pairs)
    return Measured(pairs, np.full(n, cylinders), np.full(n, 70))


def normal_pairs(n: int, seed: int) -> Pairs:
    """Genuine scores around 2, impostors around 0, both with unit variance: the true ratio is known."""
    random = np.random.default_rng(seed)
    genuine = np.arange(2 * n) < n
    finger_a = np.arange(2 * n, dtype=np.int64)
    return Pairs(
        random.normal(np.where(genuine, 2.0, 0.0)),
        genuine,
        finger_a,
        np.where(genuine, finger_a, finger_a + 1).astype(np.int64),
    )


def test_shipped_calibration_loads_and_supports_its_named_rates() -> None:
    shipped = fingerprint_calibration()
    assert shipped.impostor_pairs == 81_600 + 11_520
    thresholds = [shipped.threshold(rate) for rate in (FMR_1E2, FMR_1E3, FMR_1E4)]
    assert 0 < thresholds[0] < thresholds[1] < thresholds[2] < 0.3
    assert -3 < shipped.llr(0.0) < -1
    assert shipped.llr(1.0, 50) == pytest.approx(log10(shipped.impostor_pairs / 3), abs=0.3)


def test_shipped_calibration_claims_no_more_than_its_sample_supports() -> None:
    shipped = fingerprint_calibration()
    assert shipped.fmr(1.0) == shipped.floor == 3 / shipped.impostor_pairs
    for cylinders in (0, 15, 30, 99):
        assert shipped.llr(1.0, cylinders) < log10(shipped.impostor_pairs / 3)
        assert shipped.llr(0.0, cylinders) > log10(1 / shipped.genuine_pairs)
    with pytest.raises(RateUnsupported, match="needs more than"):
        shipped.threshold(1e-5)


@given(SCORES, SCORES, st.integers(0, 99))
def test_llr_rises_and_fmr_falls(a: float, b: float, cylinders: int) -> None:
    low, high = min(a, b), max(a, b)
    shipped = fingerprint_calibration()
    assert shipped.llr(low, cylinders) <= shipped.llr(high, cylinders)
    assert shipped.fmr(low) >= shipped.fmr(high)


def test_values_between_and_outside_the_corners() -> None:
    assert SMALL.llr(-1.0) == SMALL.llr(0.1) == -1.5
    assert SMALL.llr(0.15) == pytest.approx(-0.5)
    assert SMALL.llr(0.2) == pytest.approx(0.5)
    assert SMALL.llr(0.3) == pytest.approx(1.5)
    assert SMALL.llr(0.4) == SMALL.llr(9.0) == 2.5
    # Detail: the score is corrected, and the caps are those of its bin.
    assert SMALL.llr(0.2 + 0.1 * log(40 / TYPICAL), 40) == pytest.approx(0.5)
    assert SMALL.llr(0.2 + 0.1 * log(10 / TYPICAL), 10) == pytest.approx(0.5)
    assert SMALL.llr(0.1, 3) == SMALL.llr(0.1, 10)
    assert (SMALL.llr(0.0, 19), SMALL.llr(9.0, 19), SMALL.llr(9.0, 20)) == (-1.0, 2.0, 2.5)
    assert [SMALL.fmr(score) for score in (0.0, 0.1, 0.19, 0.2, 0.3, 5.0)] == [
        1,
        0.5,
        0.5,
        0.05,
        0.003,
        0.003,
    ]
    assert SMALL.threshold(0.05) == 0.2
    assert SMALL.threshold(0.01) == 0.3
    with pytest.raises(RateUnsupported):
        SMALL.threshold(0.0029)


@pytest.mark.parametrize("rate", [FMR_1E2, FMR_1E3, FMR_1E4])
def test_a_threshold_stands_for_its_rate(rate: float) -> None:
    shipped = fingerprint_calibration()
    assert shipped.fmr(shipped.threshold(rate)) <= rate
    assert shipped.fmr(np.nextafter(shipped.threshold(rate), 0)) > rate


@pytest.mark.parametrize(
    "change",
    [
        {"llr_scores": (0.1, 0.1, 0.4)},
        {"llrs": (0.0, -1.0, 1.0)},
        {"fmrs": (0.5, 0.6, 0.003)},
        {"fmrs": (0.5, 0.05, 0.002)},
        {"llrs": (0.0,)},
        {"llr_scores": (), "llrs": ()},
        {"llr_scores": (0.1, 0.2, float("nan"))},
        {"llrs": (-1.5, 0.5, float("inf"))},
        {"fmrs": (1.5, 0.05, 0.003)},
        {"impostor_pairs": 0},
        {"correction": -0.1},
        {"correction": float("nan")},
        {"bins": (20, 20), "lowest": (-1.0, -1.0, -1.0), "highest": (2.0, 2.0, 2.0)},
        {"bins": (float("nan"),)},
        {"highest": (2.0,)},
        {"lowest": (0.5, -1.0)},
        {"highest": (2.0, float("inf"))},
    ],
)
def test_impossible_curves_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"calibration|likelihood|support"):
        replace(SMALL, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "nonsense"])
def test_a_damaged_file_is_a_typed_error(text: str) -> None:
    with pytest.raises(ParametersUnavailable):
        FINGERPRINT.read(text, *ONE)


def test_a_calibration_of_another_comparison_is_refused() -> None:
    content = {"format": FORMAT, "comparison_version": COMPARISON_VERSION + 1}
    with pytest.raises(ParametersUnavailable, match="another version"):
        FINGERPRINT.read(json.dumps(content), *ONE)


def test_the_fit_finds_the_true_ratio_of_two_normals() -> None:
    sample, other = normal_pairs(40_000, 1), normal_pairs(20_000, 2)
    scores, llrs = isotonic_llr(sample.score[sample.genuine], sample.score[~sample.genuine], -2.5)
    true = (2 * other.score - 2) / np.log(10)
    fit = np.interp(other.score, scores, llrs)
    middle = (other.score > 0) & (other.score < 2.5)
    assert np.abs(fit - true)[middle].max() < 0.25
    assert np.abs(fit - true)[middle].mean() < 0.05
    best = cllr(true[other.genuine], true[~other.genuine])
    assert cllr(fit[other.genuine], fit[~other.genuine]) == pytest.approx(best, abs=0.01)


def test_failed_extractions_do_not_count() -> None:
    sample = normal_pairs(200, 4)
    failed = sample.score.copy()
    failed[[0, 399]] = -np.inf
    calibration = fitted([of_detail(replace(sample, score=failed))], FINGERPRINT)
    assert (calibration.genuine_pairs, calibration.impostor_pairs) == (199, 199)


def test_fmr_steps_bound_the_empirical_rate() -> None:
    impostor = np.random.default_rng(3).normal(size=5000)
    scores, rates = fmr_steps(impostor)
    assert rates[-1] == 3 / 5000
    for score, rate in zip(scores, rates, strict=True):
        assert (impostor >= score).mean() < rate


def test_caps_come_from_the_sample() -> None:
    genuine, impostor = np.linspace(5, 6, 50), np.linspace(0, 1, 3000)
    scores, llrs = isotonic_llr(genuine, impostor, -1.5)
    assert llrs == [-1.5, pytest.approx(log10(1000), abs=0.01)]
    assert scores == [1.0, 5.0]
    assert support(1, 50, 3000) == pytest.approx((log10(upper_count(1) / 50 / 0.99), 3.0))
    assert support(0, 0, 0) == (0.0, 0.0)  # nothing known, nothing claimed


def test_detail_is_corrected_for_and_caps_are_those_of_its_bin() -> None:
    few, many = normal_pairs(2000, 8), normal_pairs(20_000, 9)
    poor, rich = (replace(one, score=one.score + log(n / TYPICAL)) for one, n in ((few, 15), (many, 60)))
    found = fitted([of_detail(poor, 15), of_detail(rich, 60)], FINGERPRINT, correction=1.0, bins=(20, 40))
    alike = fitted([of_detail(few), of_detail(many)], FINGERPRINT, bins=())
    assert found.llr_scores == pytest.approx(alike.llr_scores)
    assert found.correction == 1.0
    assert found.bins == (20, 40)
    assert found.highest == pytest.approx((log10(2000 / 3), 0.0, log10(20_000 / 3)))
    assert found.lowest[1] == 0.0
    assert found.lowest[0] < 0
    assert found.llr(9.0, 30) == found.llr(-9.0, 30) == 0.0


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (5, 10.513), (100, 118.08)])
def test_upper_bounds_of_a_count(count: int, bound: float) -> None:
    assert upper_count(count) == pytest.approx(bound, rel=0.011)


def test_cllr_of_known_answers() -> None:
    assert cllr(np.zeros(3), np.zeros(5)) == 1.0
    assert cllr(np.full(3, 9.0), np.full(5, -9.0)) < 1e-8
    assert cllr(np.full(3, -2.0), np.full(5, 2.0)) > 6


def test_extractors_not_calibrated_together_are_refused() -> None:
    with pytest.raises(NotCalibrated, match="FOREIGN"):
        fingerprint_calibration(Extractor.LEADER_1, Extractor.FOREIGN)


def test_a_file_holds_each_pair_of_extractors_once_in_either_order() -> None:
    mixed = (Extractor.LEADER_1, Extractor.FAST_1)
    sample = fitted([of_detail(normal_pairs(200, 5))], FINGERPRINT)
    other = fitted([of_detail(normal_pairs(300, 6))], FINGERPRINT)
    text = content_with(FINGERPRINT, {ONE: sample}, ["a"], "")
    text = content_with(FINGERPRINT, {mixed: other}, ["a"], text)
    text = content_with(FINGERPRINT, {mixed: other}, ["a"], text)
    assert FINGERPRINT.read(text, *ONE) == sample
    assert FINGERPRINT.read(text, *mixed) == FINGERPRINT.read(text, *reversed(mixed)) == other
    with pytest.raises(NotCalibrated):
        FINGERPRINT.read(text, Extractor.FAST_1, Extractor.FAST_1)


def test_a_score_few_strangers_reach_does_not_deny_where_no_mate_was_seen_as_low() -> None:
    """Classes that do not overlap: between them, nobody knows."""
    genuine = np.arange(4000) < 1000
    score = np.where(genuine, np.linspace(8, 9, 4000), np.linspace(0, 1, 4000))
    a = np.arange(4000)
    apart = Pairs(score, genuine, a, np.where(genuine, a, a + 1))
    careful = fitted([of_detail(apart)], FINGERPRINT)
    bold = fitted([of_detail(apart)], FINGERPRINT, unseen_mates=False)
    near_the_top = float(np.quantile(score[~genuine], 0.9999))
    assert bold.llr(near_the_top) == min(bold.lowest)
    assert careful.llr(near_the_top) > -1
    for score_ in (0.3, 9.0):
        assert careful.llr(score_) == pytest.approx(bold.llr(score_), abs=0.01)


@given(SCORES, SCORES, st.integers(0, 5000))
def test_shipped_curves_of_irises_and_faces_rise(a: float, b: float, detail: int) -> None:
    content = json.loads((files("matching.face") / "calibration.json").read_text(encoding="utf-8"))
    embedder = bytes.fromhex(content["pairs"][0]["embedders"][0])
    for shipped in (iris_calibration(), face_calibration(embedder)):
        low, high = min(a, b), max(a, b)
        assert shipped.llr(low, detail) <= shipped.llr(high, detail)
        assert shipped.fmr(low) >= shipped.fmr(high)
        assert shipped.llr(2.0, detail) <= log10(shipped.impostor_pairs / 3)
        assert shipped.llr(-1.0, detail) > -log10(shipped.genuine_pairs)
