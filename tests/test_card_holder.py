"""Whether somebody is the holder of a card."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.encounters import made_up_nik
from benchmarks.population import impression, person
from benchmarks.synthetic_faces import capture, face
from capture.errors import RecordRefused
from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.formats.card_minutiae import CardSize
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import card_of, record_of
from capture.sample import FingerPosition
from devices.ektp import Ektp
from devices.frame import DeviceKind
from matching.errors import NotCalibrated
from matching.fingerprint.calibration import FMR_1E2, FMR_1E3
from rekam.errors import WrongState
from rekam.exchange import MissingReason
from rekam.session import FACE, Began, Entry, Session, entry_bytes, read_entry
from rekam.station.card_holder import (
    Doubt,
    Holder,
    card_calibrations,
    card_finger,
    verify_holder,
)
from rekam.station.examiner import PipelineExaminer

NOW = datetime(2026, 11, 22, tzinfo=UTC)
INDEXES = (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX)


def holder(number: int) -> tuple[FingerprintTemplate, ...]:
    return person(number, 5, INDEXES)


def on_card(template: FingerprintTemplate) -> bytes:
    return card_of(template, CardSize.COMPACT).to_bytes()


def card_of_holder(number: int, signed: bool | None = True) -> Ektp:
    first, second = (on_card(finger) for finger in holder(number))
    return Ektp(bytes(7), bytes(35), b"", minutiae=(first, second), signed=signed)


def live(number: int, finger: int = 0) -> FingerprintTemplate:
    return impression(holder(number)[finger], np.random.default_rng(number))


def portraits(first: int, second: int) -> tuple[FaceTemplate, FaceTemplate]:
    return capture(face(first), 1), capture(face(second), 2)


@pytest.mark.parametrize("finger", [0, 1])
def test_holders_are_known_by_either_finger(finger: int) -> None:
    verdicts = [verify_holder(card_of_holder(n), live(n, finger), fmr=FMR_1E2) for n in range(30)]
    known = [verdict for verdict in verdicts if verdict.decision is Holder.HOLDER]
    assert len(known) >= 24
    assert all(v.finger is not None and v.finger.finger == finger + 1 and v.llr >= 2 for v in known)


def test_strangers_are_not_taken_for_holders() -> None:
    verdicts = [verify_holder(card_of_holder(n), live(n + 1)) for n in range(200)]
    assert all(verdict.decision is not Holder.HOLDER for verdict in verdicts)
    assert sum(verdict.llr >= 1 for verdict in verdicts) <= 30


def test_a_finger_and_a_face_are_added() -> None:
    alone = verify_holder(card_of_holder(1), live(1))
    both = verify_holder(card_of_holder(1), live(1), portraits(1, 1))
    assert both.finger == alone.finger
    assert both.face is not None
    assert both.finger is not None
    assert both.llr == pytest.approx(both.finger.llr + both.face.llr)
    assert both.decision is Holder.HOLDER
    assert (both.fmr, both.needed) == (FMR_1E3, 3.0)


def test_a_finger_and_a_face_that_disagree_are_for_a_person_to_look_at() -> None:
    verdict = verify_holder(card_of_holder(1), live(1), portraits(1, 2))
    assert verdict.finger is not None
    assert verdict.finger.llr >= 2
    assert verdict.decision is Holder.UNCERTAIN
    assert verdict.doubts == (Doubt.MODALITIES_DISAGREE,)


@pytest.mark.parametrize("signed", [None, False])
def test_a_card_that_nobody_vouches_for_proves_nothing(signed: bool | None) -> None:
    card = card_of_holder(1, signed)
    verdict = verify_holder(card, live(1), portraits(1, 1))
    assert verdict.llr >= verdict.needed
    assert verdict.decision is Holder.UNCERTAIN
    assert verdict.doubts == (Doubt.CARD_UNVERIFIED,)
    assert verify_holder(card, faces=portraits(1, 2)).decision is Holder.NOT_HOLDER


def test_without_anything_to_compare_nothing_is_said() -> None:
    card = replace(card_of_holder(1), minutiae=None)
    verdict = verify_holder(card, live(1))
    assert (verdict.decision, verdict.llr) == (Holder.UNCERTAIN, 0)
    assert verdict.doubts == (Doubt.NOTHING_TO_COMPARE,)
    with pytest.raises(ValueError, match="rate"):
        verify_holder(card, live(1), fmr=0)


def test_faces_of_two_embedders_are_not_compared() -> None:
    ours, _ = portraits(1, 1)
    other = FaceTemplate(ours.vector, ours.quality, bytes(8))
    with pytest.raises(NotCalibrated):
        verify_holder(card_of_holder(1), faces=(ours, other))
    assert ours.embedder == DlibEmbedder().digest


@pytest.mark.parametrize("kind", RecordFormat)
def test_a_card_may_hold_a_whole_record(kind: RecordFormat) -> None:
    finger = holder(1)[0]
    read = card_finger(record_of([finger], kind).to_bytes())
    assert (len(read), read.extractor) == (len(finger), Extractor.FOREIGN)


@pytest.mark.parametrize("size", CardSize)
def test_a_card_may_hold_minutiae_with_or_without_a_template(size: CardSize) -> None:
    made = card_of(holder(1)[0], size)
    bare = card_finger(made.to_bytes(), size)
    around = card_finger(replace(made, before=()).to_bytes(), size)
    assert len(bare) == len(around) == len(made.minutiae)
    assert np.array_equal(bare.x, around.x)


def test_what_is_no_minutiae_is_refused() -> None:
    for data in (b"FMR\x00 20\x00", b"1234", b"\x7f\x2e\x00"):
        with pytest.raises(RecordRefused):
            card_finger(data)


def test_a_score_counts_for_what_both_calibrations_support() -> None:
    verdict = verify_holder(card_of_holder(1), live(1))
    assert verdict.finger is not None
    score, fewer = verdict.finger.score, verdict.finger.cylinders
    both = card_calibrations()
    assert verdict.finger.llr == pytest.approx(min(one.llr(score, fewer) for one in both) - np.log10(2))
    assert verdict.finger.fmr == max(one.fmr(score) for one in both)
    assert all(one.impostor_pairs > 50_000 for one in both)


def test_an_encounter_of_a_card_is_not_sealed_before_its_holder_was_seen() -> None:
    entries: list[Entry] = []
    began = Began("e1", made_up_nik(1), "Sari", (DeviceKind.FACE,), NOW, card=True)
    session = Session.begin(began, PipelineExaminer(), entries.append)
    session.declare(FACE, MissingReason.NOT_CAPTURED)
    with pytest.raises(WrongState, match="holder of the card"):
        session.seal()
    session.keep_holder("uncertain", overruled=True)
    # What changes who was captured has to be compared anew.
    session.discard(FACE)
    session.declare(FACE, MissingReason.NOT_CAPTURED)
    with pytest.raises(WrongState, match="holder of the card"):
        Session(entries, PipelineExaminer(), entries.append).seal()
    session.keep_holder("uncertain", overruled=True)
    kept = [read_entry(entry_bytes(entry)) for entry in entries]
    assert Session(kept, PipelineExaminer(), entries.append).seal() == session.seal()
