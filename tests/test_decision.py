"""The decision table, row by row, at its thresholds and at large."""

from math import inf, log10, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.decision import Candidate, Decision, Reason, Thresholds, decide

T = Thresholds(match=4.0, review=2.0, verify=3.0, verify_review=2.0)
JUST_BELOW_MATCH = nextafter(T.match, -inf)
JUST_BELOW_REVIEW = nextafter(T.review, -inf)
JUST_BELOW_VERIFY = nextafter(T.verify, -inf)
JUST_BELOW_VERIFY_REVIEW = nextafter(T.verify_review, -inf)

ROWS = [
    # NIK known, candidates (llr, own, held), enough evidence -> decision, reasons
    (False, [], True, Decision.UNIQUE, [Reason.NOBODY_MATCHES]),
    (False, [(JUST_BELOW_REVIEW, 0, 0)], True, Decision.UNIQUE, [Reason.NOBODY_MATCHES]),
    (False, [(JUST_BELOW_REVIEW, 0, 1)], True, Decision.UNIQUE, [Reason.NOBODY_MATCHES]),
    (False, [(T.review, 0, 0)], True, Decision.REVIEW, [Reason.OTHER_SUBJECT_UNCERTAIN]),
    (False, [(JUST_BELOW_MATCH, 0, 0)], True, Decision.REVIEW, [Reason.OTHER_SUBJECT_UNCERTAIN]),
    (False, [(JUST_BELOW_MATCH, 0, 1)], True, Decision.REVIEW, [Reason.OTHER_SUBJECT_UNCERTAIN]),
    (False, [(T.match, 0, 0)], True, Decision.DUPLICATE, [Reason.OTHER_SUBJECT_MATCHES]),
    (False, [(T.match, 0, 1)], True, Decision.DUPLICATE, [Reason.HELD_ENCOUNTER_MATCHES]),
    (False, [(9, 0, 1), (T.match, 0, 0)], True, Decision.DUPLICATE, [Reason.OTHER_SUBJECT_MATCHES]),
    (False, [(T.match, 0, 0)], False, Decision.DUPLICATE, [Reason.OTHER_SUBJECT_MATCHES]),
    (False, [], False, Decision.REVIEW, [Reason.TOO_LITTLE_EVIDENCE]),
    (True, [(T.verify, 1, 0)], True, Decision.RETURNING, [Reason.OWN_SUBJECT_MATCHES]),
    (
        True,
        [(T.verify, 1, 0), (JUST_BELOW_REVIEW, 0, 0)],
        True,
        Decision.RETURNING,
        [Reason.OWN_SUBJECT_MATCHES],
    ),
    (
        True,
        [(9, 1, 0), (T.match, 0, 1)],
        True,
        Decision.RETURNING,
        [Reason.OWN_SUBJECT_MATCHES, Reason.HELD_ENCOUNTER_MATCHES],
    ),
    (True, [(JUST_BELOW_VERIFY, 1, 0)], True, Decision.REVIEW, [Reason.OWN_SUBJECT_UNCERTAIN]),
    (True, [(9, 1, 0), (T.review, 0, 0)], True, Decision.REVIEW, [Reason.OTHER_SUBJECT_UNCERTAIN]),
    (
        True,
        [(JUST_BELOW_VERIFY, 1, 0), (T.review, 0, 0)],
        True,
        Decision.REVIEW,
        [Reason.OWN_SUBJECT_UNCERTAIN, Reason.OTHER_SUBJECT_UNCERTAIN],
    ),
    (True, [(JUST_BELOW_VERIFY_REVIEW, 1, 0)], True, Decision.COLLISION, [Reason.OWN_SUBJECT_DIFFERS]),
    (True, [(9, 1, 0), (T.match, 0, 0)], True, Decision.COLLISION, [Reason.OTHER_SUBJECT_MATCHES]),
    (True, [(-5, 1, 0), (T.match, 0, 0)], True, Decision.COLLISION, [Reason.OTHER_SUBJECT_MATCHES]),
    (
        True,
        [(-1, 1, 0)],
        False,
        Decision.REVIEW,
        [Reason.OWN_SUBJECT_UNCERTAIN, Reason.TOO_LITTLE_EVIDENCE],
    ),
    (True, [(9, 1, 0)], False, Decision.REVIEW, [Reason.TOO_LITTLE_EVIDENCE]),
]


@pytest.mark.parametrize(("known", "candidates", "enough", "decision", "reasons"), ROWS)
def test_every_row_of_the_table(
    known: bool,
    candidates: list[tuple[float, int, int]],
    enough: bool,
    decision: Decision,
    reasons: list[Reason],
) -> None:
    found = decide(
        nik_known=known,
        candidates=[Candidate(llr, bool(own), bool(held)) for llr, own, held in candidates],
        thresholds=T,
        enough_evidence=enough,
    )
    assert found == (decision, tuple(reasons))


def test_every_decision_is_in_the_table() -> None:
    assert {row[3] for row in ROWS} == set(Decision) - {Decision.IMPORTED}  # nothing is decided there
    assert {d for d in Decision if d.enrolled} == {Decision.UNIQUE, Decision.RETURNING, Decision.IMPORTED}


llrs = st.floats(-50, 50)
others = st.lists(st.builds(Candidate, llrs, st.just(False), st.booleans()), max_size=6)


@given(others, st.booleans())
def test_a_new_nik_is_unique_exactly_when_nobody_reaches_review(
    people: list[Candidate], enough: bool
) -> None:
    decision, _ = decide(nik_known=False, candidates=people, thresholds=T, enough_evidence=enough)
    nobody = all(p.llr < T.review for p in people)
    assert (decision is Decision.UNIQUE) == (nobody and enough)
    assert decision not in (Decision.RETURNING, Decision.COLLISION)


@given(others, llrs, st.booleans())
def test_a_known_nik_is_returning_only_with_its_own_subject_and_nobody_else(
    people: list[Candidate], own: float, enough: bool
) -> None:
    candidates = [*people, Candidate(own, own=True)]
    decision, _ = decide(nik_known=True, candidates=candidates, thresholds=T, enough_evidence=enough)
    others_clear = all(p.llr < T.review for p in people if not p.held)
    assert (decision is Decision.RETURNING) == (own >= T.verify and others_clear and enough)
    assert decision not in (Decision.UNIQUE, Decision.DUPLICATE)


@given(others, st.booleans(), llrs, st.booleans())
def test_one_more_suspect_never_enrols_anybody(
    people: list[Candidate], known: bool, suspect: float, enough: bool
) -> None:
    own = [Candidate(5.0, own=True)] if known else []

    def enrolled(candidates: list[Candidate]) -> bool:
        decision, _ = decide(nik_known=known, candidates=candidates, thresholds=T, enough_evidence=enough)
        return decision.enrolled

    assert enrolled([*own, *people]) or not enrolled([*own, *people, Candidate(suspect)])


@given(others, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    people: list[Candidate], known: bool, random: object
) -> None:
    candidates = [*people, *([Candidate(3.0, own=True)] if known else [])]
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        decide(nik_known=known, candidates=c, thresholds=T, enough_evidence=True)
        for c in (candidates, shuffled)
    )
    assert first == second


@given(st.integers(0, 10**9), st.floats(1e-9, 0.5), st.floats(1e-9, 0.5))
def test_thresholds_follow_from_the_rates_and_the_size(encounters: int, match: float, verify: float) -> None:
    review = min(0.9, 10 * match)
    t = Thresholds.for_gallery(encounters, fpir_match=match, fpir_review=review, fmr_verify=verify)
    size = max(encounters, 10)
    assert t.match == pytest.approx(log10(size) - log10(match))
    assert t.review == pytest.approx(log10(size) - log10(review))
    assert t.verify == pytest.approx(-log10(verify))
    assert t.review <= t.match
    assert t.verify_review == pytest.approx(t.verify - 1)


@pytest.mark.parametrize("own", [1, 2, 50])
def test_the_best_of_several_own_encounters_passes_a_stranger_no_more_often(own: int) -> None:
    one, several = Thresholds.for_gallery(100), Thresholds.for_gallery(100, own=own)
    assert several.verify == pytest.approx(one.verify + log10(own))
    assert several.verify_review == pytest.approx(several.verify - 1)
    assert (several.match, several.review) == (one.match, one.review)
    assert Thresholds.for_gallery(100, own=0) == one


def test_a_small_gallery_is_judged_like_one_of_ten() -> None:
    assert Thresholds.for_gallery(0) == Thresholds.for_gallery(9) == Thresholds.for_gallery(10)
    assert Thresholds.for_gallery(11).match > Thresholds.for_gallery(10).match
