"""Fingers, irises and face of two encounters together, and what a decision makes of them."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.population import impression, person
from capture.face.template import FaceTemplate
from capture.iris.template import IrisCoder, IrisTemplate
from capture.sample import EyePosition as Eye
from capture.sample import FingerPosition as Finger
from capture.sample import Modality
from matching.decision import Candidate, Decision, Reason, Thresholds, candidate_of, decide, notices
from matching.encounter import (
    Arrangement,
    EncounterComparison,
    EncounterForm,
    EyeArrangement,
    compare_encounters,
    encounter_form,
    enough_evidence,
    same_eye_twice,
)
from matching.errors import NotCalibrated
from matching.face.calibration import SCORES as FACE
from matching.face.calibration import face_calibration
from matching.fitting import Measured, content_with, fitted
from matching.fusion import Fusion, fused
from matching.iris.calibration import iris_calibration
from tests.test_calibration import normal_pairs

HAND = (Finger.RIGHT_THUMB, Finger.RIGHT_INDEX, Finger.RIGHT_MIDDLE)
WORDS = 128
SHIPPED = bytes.fromhex(
    json.loads((files("matching.face") / "calibration.json").read_text(encoding="utf-8"))["pairs"][0][
        "embedders"
    ][0]
)
OWN = b"my model"


def eye(number: int, position: Eye, taken: int = 0) -> IrisTemplate:
    """An eye of many; each picture of it has an eighth of its bits wrong."""
    code = np.random.default_rng([number, 1]).integers(0, 2**64, WORDS, dtype=np.uint64)
    if taken:
        a, b, c = np.random.default_rng([number, 2, taken]).integers(0, 2**64, (3, WORDS), dtype=np.uint64)
        code = code ^ (a & b & c)
    mask = np.full(WORDS, 2**64 - 1, dtype=np.uint64)
    return IrisTemplate(code, mask, position, 80, IrisCoder.LOG_GABOR_1)


def both(number: int, taken: int = 0) -> tuple[IrisTemplate, ...]:
    return eye(2 * number, Eye.RIGHT, taken), eye(2 * number + 1, Eye.LEFT, taken)


def portrait(number: int, score: float = 1.0, embedder: bytes = SHIPPED) -> FaceTemplate:
    """A face that scores so much against the same number's at 1; strangers score about a half."""
    one, other = np.random.default_rng(number).normal(size=(2, 128))
    one /= np.linalg.norm(one)
    other -= one * (one @ other)
    other /= np.linalg.norm(other)
    cosine = 2 * score - 1
    vector = cosine * one + np.sqrt(1 - cosine**2) * other
    return FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), 90, embedder)


MATE, LOOKALIKE = 0.985, 0.99


@pytest.fixture(scope="module")
def enrolled() -> EncounterForm:
    return encounter_form(person(0, 7, HAND), both(0), portrait(0))


@pytest.fixture(scope="module")
def again() -> EncounterForm:
    rng = np.random.default_rng(7)
    prints = [impression(template, rng) for template in person(0, 7, HAND)]
    return encounter_form(prints, both(0, taken=1), portrait(0, MATE))


@pytest.fixture(scope="module")
def stranger() -> EncounterForm:
    return encounter_form(person(1, 7, HAND), both(1), portrait(1))


def parts(form: EncounterForm, *modalities: Modality) -> EncounterForm:
    """Only these modalities of an encounter."""
    return EncounterForm(
        form.fingers if Modality.FINGERPRINT in modalities else (),
        form.irises if Modality.IRIS in modalities else (),
        form.face if Modality.FACE in modalities else None,
    )


def mixed(fingers: EncounterForm, irises: EncounterForm, face: EncounterForm) -> EncounterForm:
    """An encounter put together from several."""
    return EncounterForm(fingers.fingers, irises.irises, face.face)


# --- the eyes


def test_eyes_match_as_declared(again: EncounterForm, enrolled: EncounterForm) -> None:
    found = compare_encounters(parts(again, Modality.IRIS), enrolled)
    calibration, together = iris_calibration(), Fusion.load().eyes
    assert [(s.probe, s.reference) for s in found.irises] == [(Eye.RIGHT, Eye.RIGHT), (Eye.LEFT, Eye.LEFT)]
    assert all(s.llr == calibration.llr(s.score, s.bits) for s in found.irises)
    assert all(s.fmr == calibration.fmr(s.score) for s in found.irises)
    assert found.llr == found.irises_llr == fused([s.llr for s in found.irises], together)
    assert found.llr > 7
    assert found.eyes is EyeArrangement.AS_DECLARED
    assert notices(found) == ()


def test_swapped_eyes_match_at_a_price_and_are_noticed(again: EncounterForm, enrolled: EncounterForm) -> None:
    right, left = both(0, taken=1)
    swapped = encounter_form((), (eye(0, Eye.LEFT, 1), eye(1, Eye.RIGHT, 1)))
    found, declared = (
        compare_encounters(form, enrolled) for form in (swapped, encounter_form((), (right, left)))
    )
    assert found.eyes is EyeArrangement.EYES_SWAPPED
    assert found.llr == pytest.approx(declared.llr - 2)
    assert all(share.reference is share.probe.other for share in found.irises)
    assert notices(found) == (Reason.EYES_SWAPPED,)
    one = compare_encounters(encounter_form((), [eye(0, Eye.LEFT, 1)]), parts(enrolled, Modality.IRIS))
    assert one.eyes is EyeArrangement.EYES_SWAPPED


def test_unknown_eyes_are_found_at_a_price(enrolled: EncounterForm, again: EncounterForm) -> None:
    declared = compare_encounters(parts(again, Modality.IRIS), enrolled)
    unknown = encounter_form((), [eye(1, Eye.UNKNOWN, 1), eye(0, Eye.UNKNOWN, 1)])
    found = compare_encounters(unknown, enrolled)
    assert {share.reference for share in found.irises} == {Eye.RIGHT, Eye.LEFT}
    assert found.llr == pytest.approx(declared.llr - np.log10(2))
    back = compare_encounters(enrolled, unknown)
    assert back.llr == pytest.approx(found.llr)
    half = compare_encounters(encounter_form((), [eye(0, Eye.UNKNOWN, 1), eye(1, Eye.LEFT, 1)]), enrolled)
    assert half.llr == pytest.approx(declared.llr)  # there is one place left only


def test_eyes_that_were_not_both_taken_add_nothing(enrolled: EncounterForm) -> None:
    right, left = both(0, taken=1)
    one = compare_encounters(encounter_form((), [right]), enrolled)
    assert len(one.irises) == 1
    none = compare_encounters(encounter_form((), [right]), encounter_form((), [left]))
    assert (none.irises, none.llr, none.comparable) == ((), 0.0, False)


def test_eyes_of_strangers_do_not_match(enrolled: EncounterForm) -> None:
    for other in range(1, 20):
        assert compare_encounters(encounter_form((), both(other)), enrolled).irises_llr < 0


def test_comparing_irises_and_faces_is_symmetric(enrolled: EncounterForm, stranger: EncounterForm) -> None:
    for a, b in ((enrolled, stranger), (stranger, enrolled)):
        found = compare_encounters(
            parts(a, Modality.IRIS, Modality.FACE), parts(b, Modality.IRIS, Modality.FACE)
        )
        back = compare_encounters(
            parts(b, Modality.IRIS, Modality.FACE), parts(a, Modality.IRIS, Modality.FACE)
        )
        assert found.llr == pytest.approx(back.llr)


def test_one_eye_given_as_both_is_found(enrolled: EncounterForm) -> None:
    twice = encounter_form((), [eye(0, Eye.RIGHT), eye(0, Eye.LEFT, 1)])
    [(a, b, llr)] = same_eye_twice(twice)
    assert (a, b) == (Eye.RIGHT, Eye.LEFT)
    assert llr > 2
    assert same_eye_twice(enrolled) == ()
    assert same_eye_twice(EncounterForm()) == ()


def test_a_person_has_two_eyes_one_of_each() -> None:
    with pytest.raises(ValueError, match="twice"):
        encounter_form((), [eye(0, Eye.RIGHT), eye(1, Eye.RIGHT)])
    with pytest.raises(ValueError, match="two eyes"):
        encounter_form((), [eye(n, Eye.UNKNOWN) for n in range(3)])


# --- all modalities


def test_modalities_are_added_and_missing_ones_add_nothing(
    again: EncounterForm, enrolled: EncounterForm
) -> None:
    whole = compare_encounters(again, enrolled)
    assert whole.llr == whole.fingers_llr + whole.irises_llr + whole.face_llr
    assert whole.face is not None
    assert whole.face.llr == face_calibration(SHIPPED).llr(whole.face.score, 90)
    assert min(whole.fingers_llr, whole.irises_llr) > 6
    assert whole.conflict == ()
    for chosen in ((), (Modality.FINGERPRINT,), (Modality.IRIS, Modality.FACE), tuple(Modality)):
        said = {
            Modality.FINGERPRINT: whole.fingers_llr,
            Modality.IRIS: whole.irises_llr,
            Modality.FACE: whole.face_llr,
        }
        for a, b in ((parts(again, *chosen), enrolled), (again, parts(enrolled, *chosen))):
            found = compare_encounters(a, b)
            assert found.llr == pytest.approx(sum(said[modality] for modality in chosen))
            assert found.comparable == bool(set(chosen) - {Modality.FACE})


def test_evidence_of_before_is_all_the_fingers() -> None:
    old = EncounterComparison(8.0, Arrangement.AS_DECLARED, ())
    assert (old.fingers_llr, old.without_face, old.irises_llr, old.face) == (8.0, 8.0, 0.0, None)


def test_conflicts_name_who_denies(
    again: EncounterForm, enrolled: EncounterForm, stranger: EncounterForm
) -> None:
    def conflict(fingers: EncounterForm, irises: EncounterForm, face: EncounterForm) -> tuple[Modality, ...]:
        return compare_encounters(mixed(fingers, irises, face), enrolled).conflict

    assert conflict(again, stranger, again) == (Modality.IRIS,)
    assert conflict(stranger, again, again) == (Modality.FINGERPRINT,)
    assert conflict(again, again, stranger) == (Modality.FACE,)
    assert conflict(stranger, stranger, stranger) == ()  # nobody asserts anything
    one_each = encounter_form((), [eye(0, Eye.RIGHT, 1), eye(99, Eye.LEFT)])
    assert compare_encounters(one_each, enrolled).conflict == (Modality.IRIS,)


def test_faces_of_other_embedders(tmp_path: Path, enrolled: EncounterForm) -> None:
    mine = [encounter_form((), (), portrait(0, score, OWN)) for score in (1.0, MATE)]
    # Of another model than the enrolled one: nothing to compare.
    assert compare_encounters(mine[0], enrolled).face is None
    # Of one model that nobody calibrated: refused.
    with pytest.raises(NotCalibrated, match="calibrate"):
        compare_encounters(*mine)
    # Calibrated by its user.
    pairs = normal_pairs(300, 1)
    sample = Measured(pairs, np.full(len(pairs), 80), np.full(len(pairs), 80))
    file = tmp_path / "mine.json"
    file.write_text(content_with(FACE, {(OWN.hex(), OWN.hex()): fitted([sample], FACE)}, ["mine"]))
    found = compare_encounters(*mine, face_file=file)
    assert found.face is not None
    assert found.face.llr == face_calibration(OWN, file).llr(found.face.score, 90)
    # The shipped calibration holds on beside it.
    assert face_calibration(SHIPPED, file) == face_calibration(SHIPPED)


def test_two_irises_are_enough_without_fingers_and_a_face_never(enrolled: EncounterForm) -> None:
    a_million = Thresholds.for_gallery(1_000_000).review
    irises, face = parts(enrolled, Modality.IRIS), parts(enrolled, Modality.FACE)
    assert enough_evidence(irises, a_million)
    assert not enough_evidence(encounter_form((), both(0)[:1]), a_million)
    assert not enough_evidence(face, 0.1)
    assert enough_evidence(enrolled, a_million)
    masked = IrisTemplate(
        np.zeros(WORDS, dtype=np.uint64),
        np.zeros(WORDS, dtype=np.uint64),
        Eye.RIGHT,
        10,
        IrisCoder.LOG_GABOR_1,
    )
    assert not enough_evidence(encounter_form((), [masked]), 0.1)


# --- decisions

T = Thresholds(match=4.0, review=2.0, verify=3.0, verify_review=2.0)
MILLION = Thresholds.for_gallery(1_000_000)


def candidate(
    fingers: float = 0.0,
    irises: float = 0.0,
    face: float = 0.0,
    *,
    own: bool = False,
    held: bool = False,
    denied: bool = False,
) -> Candidate:
    """As `candidate_of` makes them where each modality speaks with one voice."""
    said = (fingers, irises, face)
    positive = max(fingers, 0) + max(irises, 0)
    return Candidate(
        llr=sum(said),
        own=own,
        held=held,
        agreeing=positive - 0.3 if positive else float("-inf"),
        denied=denied,
        fingers=fingers,
        irises=irises,
        face=face,
        conflict=max(said) >= 2 and min(said) <= -1,
    )


def own(fingers: float = 0.0, irises: float = 0.0, face: float = 0.0) -> Candidate:
    return candidate(fingers, irises, face, own=True)


R = Reason
ROWS: list[tuple[str, Thresholds, bool, list[Candidate], Decision, list[Reason]]] = [
    # --- a new NIK
    ("all agree", T, False, [candidate(9, 6, 4)], Decision.DUPLICATE, [R.OTHER_SUBJECT_MATCHES]),
    ("irises alone", T, False, [candidate(irises=7)], Decision.DUPLICATE, [R.OTHER_SUBJECT_MATCHES]),
    ("a twin with other fingers", T, False, [candidate(-5, 0, 5)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    ("a twin with other eyes", T, False, [candidate(0, -2.6, 5)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    (
        "a twin, not the same portrait",
        T,
        False,
        [candidate(-5, -3, 3.9)],
        Decision.UNIQUE,
        [R.NOBODY_MATCHES],
    ),
    ("a twin among a million", MILLION, False, [candidate(-5, -3, 5.3)], Decision.UNIQUE, [R.NOBODY_MATCHES]),
    ("a face alone", T, False, [candidate(face=5)], Decision.REVIEW, [R.FACE_ALONE]),
    ("a face alone, held", T, False, [candidate(face=5, held=True)], Decision.REVIEW, [R.FACE_ALONE]),
    (
        "a face alone among a million",
        MILLION,
        False,
        [candidate(face=5.3)],
        Decision.UNIQUE,
        [R.NOBODY_MATCHES],
    ),
    ("a face tips a finger", T, False, [candidate(1.9, 0, 5)], Decision.REVIEW, [R.FACE_ALONE]),
    ("a face confirms", T, False, [candidate(2.0, 0, 5)], Decision.DUPLICATE, [R.OTHER_SUBJECT_MATCHES]),
    (
        "a face acquits nobody",
        T,
        False,
        [candidate(2.5, 0, -0.9)],
        Decision.REVIEW,
        [R.OTHER_SUBJECT_UNCERTAIN],
    ),
    ("face against fingers", T, False, [candidate(9, 0, -2)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    ("irises against fingers", T, False, [candidate(20, -2.6, 0)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    ("fingers against irises", T, False, [candidate(-5, 7, 0)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    (
        "fingers of one, irises of another",
        T,
        False,
        [candidate(9, -2.6, 0), candidate(-5, 7, 0)],
        Decision.REVIEW,
        [R.MODALITIES_DISAGREE],
    ),
    (
        "the same, each enrolled with one modality",
        T,
        False,
        [candidate(fingers=9), candidate(irises=7)],
        Decision.REVIEW,
        [R.OTHER_SUBJECT_UNCERTAIN, R.MODALITIES_DISAGREE],
    ),
    (
        "one with both explains the other",
        T,
        False,
        [candidate(9, 7), candidate(irises=7)],
        Decision.DUPLICATE,
        [R.OTHER_SUBJECT_MATCHES],
    ),
    (
        "held and enrolled, one modality each",
        T,
        False,
        [candidate(fingers=9, held=True), candidate(irises=7)],
        Decision.REVIEW,
        [R.OTHER_SUBJECT_UNCERTAIN, R.MODALITIES_DISAGREE],
    ),
    # --- a known NIK
    ("returning", T, True, [own(9, 6, 3)], Decision.RETURNING, [R.OWN_SUBJECT_MATCHES]),
    ("returning by irises", T, True, [own(0, 6, 0)], Decision.RETURNING, [R.OWN_SUBJECT_MATCHES]),
    ("own fingers, other irises", T, True, [own(20, -2.6, 0)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    ("own fingers, other face", T, True, [own(20, 0, -2)], Decision.REVIEW, [R.MODALITIES_DISAGREE]),
    (
        "a twin under the other's NIK",
        T,
        True,
        [own(-5, -3, 5)],
        Decision.REVIEW,
        [R.OWN_SUBJECT_UNCERTAIN, R.MODALITIES_DISAGREE],
    ),
    ("somebody else", T, True, [own(-5, -3, -2)], Decision.COLLISION, [R.OWN_SUBJECT_DIFFERS]),
    ("own by the face alone", T, True, [own(1, 0, 3)], Decision.REVIEW, [R.FACE_ALONE]),
    ("own but for the face", T, True, [own(2.5, 0, -0.9)], Decision.REVIEW, [R.OWN_SUBJECT_UNCERTAIN]),
    (
        "another's face",
        T,
        True,
        [own(9, 6, 3), candidate(-5, -3, 5)],
        Decision.REVIEW,
        [R.MODALITIES_DISAGREE],
    ),
    (
        "another's face among a million",
        MILLION,
        True,
        [own(9, 6, 3), candidate(-5, -3, 5.3)],
        Decision.RETURNING,
        [R.OWN_SUBJECT_MATCHES],
    ),
    (
        "another's face alone",
        T,
        True,
        [own(9, 6, 0), candidate(face=5)],
        Decision.REVIEW,
        [R.MODALITIES_DISAGREE, R.FACE_ALONE],
    ),
    (
        "another's fingers, own irises",
        T,
        True,
        [own(0, 7, 0), candidate(fingers=9)],
        Decision.REVIEW,
        [R.OTHER_SUBJECT_UNCERTAIN, R.MODALITIES_DISAGREE],
    ),
    (
        "another in all",
        T,
        True,
        [own(-5, -3, 0), candidate(9, 7, 2)],
        Decision.COLLISION,
        [R.OTHER_SUBJECT_MATCHES],
    ),
]


@pytest.mark.parametrize(("name", "thresholds", "known", "candidates", "decision", "reasons"), ROWS)
def test_conflicts_of_modalities(
    name: str,
    thresholds: Thresholds,
    known: bool,
    candidates: list[Candidate],
    decision: Decision,
    reasons: list[Reason],
) -> None:
    for ordered in (candidates, candidates[::-1]):
        found = decide(nik_known=known, candidates=ordered, thresholds=thresholds, enough_evidence=True)
        assert found == (decision, tuple(reasons)), name


llrs = st.floats(-20, 20)
faces = st.floats(-3, 6)
candidates_ = st.builds(candidate, llrs, llrs, faces, held=st.booleans())


@given(st.lists(candidates_, max_size=5), faces, st.booleans(), st.booleans())
def test_nobody_is_accused_by_a_face(people: list[Candidate], face: float, known: bool, enough: bool) -> None:
    """Whatever the faces say, an accusation stands on fingers or irises that reach a review."""
    candidates = [*people, *([own(9, 6, face)] if known else [])]
    decision, reasons = decide(nik_known=known, candidates=candidates, thresholds=T, enough_evidence=enough)
    if decision in (Decision.DUPLICATE, Decision.COLLISION):
        accused = [c for c in people if c.without_face >= T.review and not c.conflict and c.llr >= T.match]
        assert accused
        assert reasons[0] in (Reason.OTHER_SUBJECT_MATCHES, Reason.HELD_ENCOUNTER_MATCHES)


@given(st.lists(candidates_, max_size=5))
def test_nobody_suspected_without_the_face_is_enrolled_for_it(people: list[Candidate]) -> None:
    decision, _ = decide(nik_known=False, candidates=people, thresholds=T, enough_evidence=True)
    if decision is Decision.UNIQUE:
        assert all(c.without_face < T.review for c in people)


@given(candidates_, st.booleans())
def test_a_conflict_is_never_averaged_away(one: Candidate, known: bool) -> None:
    """Whoever some modality accuses and another acquits is looked at."""
    if one.conflict and max(one.fingers, one.irises) >= T.match and not one.held:
        candidates = [one, *([own(9, 6, 3)] if known else [])]
        decision, reasons = decide(nik_known=known, candidates=candidates, thresholds=T, enough_evidence=True)
        assert decision is Decision.REVIEW
        assert Reason.MODALITIES_DISAGREE in reasons


def test_real_comparisons_come_to_the_same_decisions(
    again: EncounterForm, enrolled: EncounterForm, stranger: EncounterForm
) -> None:
    def decided(
        probe: EncounterForm, *, known: bool, size: int = 1000
    ) -> tuple[Decision, tuple[Reason, ...]]:
        compared = compare_encounters(probe, enrolled)
        return decide(
            nik_known=known,
            candidates=[candidate_of(compared, own=known)],
            thresholds=Thresholds.for_gallery(size),
            enough_evidence=enough_evidence(probe, Thresholds.for_gallery(size).review),
        )

    assert decided(again, known=False) == (Decision.DUPLICATE, (Reason.OTHER_SUBJECT_MATCHES,))
    assert decided(again, known=True) == (Decision.RETURNING, (Reason.OWN_SUBJECT_MATCHES,))
    assert decided(stranger, known=False) == (Decision.UNIQUE, (Reason.NOBODY_MATCHES,))
    assert decided(stranger, known=True) == (Decision.COLLISION, (Reason.OWN_SUBJECT_DIFFERS,))
    # A twin: the face of the enrolled, nothing else of hers; among a million look-alikes are many.
    twin = mixed(stranger, stranger, encounter_form((), (), portrait(0, LOOKALIKE)))
    assert decided(twin, known=False, size=1_000_000) == (Decision.UNIQUE, (Reason.NOBODY_MATCHES,))
    assert decided(twin, known=True)[0] is Decision.REVIEW
    # Somebody's fingers with somebody else's eyes.
    for patched in (mixed(again, stranger, again), mixed(stranger, again, again)):
        for known in (False, True):
            decision, reasons = decided(patched, known=known)
            assert decision is Decision.REVIEW
            assert Reason.MODALITIES_DISAGREE in reasons
    assert decided(parts(again, Modality.FACE), known=False) == (
        Decision.REVIEW,
        (Reason.FACE_ALONE,)
        if compare_encounters(again, enrolled).face_llr >= 4
        else (Reason.TOO_LITTLE_EVIDENCE,),
    )
