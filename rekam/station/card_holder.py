"""Whether the person before us is the holder of an e-KTP: a live finger and a live portrait against the card.

Fingerprints are compared off the card. Who found the minutiae of a card is not said on it, so a score counts
for what two calibrations have in common: of live prints against minutiae as cards hold them, once another
maker's (mindtct's) and once our own (`python -m benchmarks.calibrate_card`, `docs/decisions/0023-cards.md`).

A card proves something only if the SAM has found its digital signature good: the photo can be read, and so
copied, by everybody.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from math import log10

from capture.errors import RecordRefused
from capture.face.template import FaceTemplate
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.formats.card_minutiae import (
    TEMPLATE_TAG,
    CardSize,
    read_card_minutiae,
    read_card_template,
)
from capture.formats.minutiae_record import MAGIC, read_minutiae_record
from capture.formats.minutiae_template import template_of, template_of_card
from capture.sample import FingerPosition
from devices.ektp import Ektp
from matching.calibration import Calibration
from matching.encounter import FaceShare
from matching.face.calibration import face_calibration
from matching.face.comparison import compare_faces, face_form
from matching.fingerprint.calibration import FMR_1E3, SCORES
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import cylinders


@dataclass(frozen=True, slots=True)
class Params:
    """Log10 likelihood ratios: at or above, a modality asserts; at or below, it denies."""

    asserted: float = 2.0
    denied: float = -1.0


PARAMS = Params()


class Holder(StrEnum):
    """What comes of it."""

    HOLDER = "holder"
    NOT_HOLDER = "not_holder"
    UNCERTAIN = "uncertain"


class Doubt(StrEnum):
    """Why it is uncertain, or said of a card besides."""

    CARD_UNVERIFIED = "card_unverified"
    NOTHING_TO_COMPARE = "nothing_to_compare"
    MODALITIES_DISAGREE = "modalities_disagree"


@dataclass(frozen=True, slots=True)
class CardFingerShare:
    """What the live finger adds: against the card's likelier one, the first or the second.

    `llr` is less by the logarithm of how many there were to choose from; `fmr` of the one comparison.
    """

    finger: int
    score: float
    llr: float
    fmr: float
    cylinders: int


@dataclass(frozen=True, slots=True)
class HolderVerdict:
    """The decision at false match rate `fmr`, and what it rests on.

    `llr`: log10 of how much more often the holder gives what was seen than somebody else does, fingers and
    face added. One in 1 / `fmr` strangers reaches `needed` = -log10(`fmr`), at most.
    """

    decision: Holder
    llr: float
    fmr: float
    needed: float
    finger: CardFingerShare | None
    face: FaceShare | None
    doubts: tuple[Doubt, ...]


def verify_holder(
    card: Ektp,
    finger: FingerprintTemplate | None = None,
    faces: tuple[FaceTemplate, FaceTemplate] | None = None,
    fmr: float = FMR_1E3,
) -> HolderVerdict:
    """Compare a live finger, and `faces`: of the card's photo and of a live portrait.

    Raises `RecordRefused` where the card's minutiae cannot be read, `NotCalibrated` for faces of two
    embedders or of an unknown one, `ValueError` for an `fmr` that is no rate. Cost: 1 ms; thread-safe.
    """
    if not 0 < fmr < 1:
        raise ValueError(f"a false match rate lies between 0 and 1, not {fmr}")
    finger_share = None if finger is None or card.minutiae is None else _finger(card.minutiae, finger)
    face_share = None if faces is None else _face(*faces)
    said = [share.llr for share in (finger_share, face_share) if share is not None]
    llr, needed = sum(said), -log10(fmr)
    doubts = []
    if card.signed is not True:
        doubts.append(Doubt.CARD_UNVERIFIED)
    if not said:
        doubts.append(Doubt.NOTHING_TO_COMPARE)
    elif max(said) >= PARAMS.asserted and min(said) <= PARAMS.denied:
        doubts.append(Doubt.MODALITIES_DISAGREE)
    if said and llr <= PARAMS.denied and Doubt.MODALITIES_DISAGREE not in doubts:
        decision = Holder.NOT_HOLDER
    elif llr >= needed and not doubts:
        decision = Holder.HOLDER
    else:
        decision = Holder.UNCERTAIN
    return HolderVerdict(decision, llr, fmr, needed, finger_share, face_share, tuple(doubts))


def card_finger(data: bytes, size: CardSize = CardSize.COMPACT) -> FingerprintTemplate:
    """Minutiae of a card: a record of ISO/IEC 19794-2 or ANSI 378, a template 7F2E, or bare minutiae.

    The latter two do not say their `size`. Raises `RecordRefused`.
    """
    if data.startswith(MAGIC):
        record = read_minutiae_record(data)
        if not record.views:
            raise RecordRefused("the card's minutiae record holds no finger")
        return template_of(record.views[0], record.format)
    reading = read_card_template if data.startswith(TEMPLATE_TAG) else read_card_minutiae
    return template_of_card(reading(data, size), FingerPosition.UNKNOWN)


@cache
def card_calibrations() -> tuple[Calibration, Calibration]:
    """What scores of live prints against minutiae of cards are worth, another maker's and ours.

    Raises `ParametersUnavailable`.
    """
    file = files("rekam") / "station" / "card_calibration.json"
    theirs, ours = (
        SCORES.read_file(file, Extractor.LEADER_1, other) for other in (Extractor.FOREIGN, Extractor.LEADER_1)
    )
    return theirs, ours


def _finger(minutiae: tuple[bytes, bytes], live: FingerprintTemplate) -> CardFingerShare:
    theirs, ours = card_calibrations()
    probe = cylinders(live)
    shares = []
    for number, data in enumerate(minutiae, 1):
        reference = cylinders(card_finger(data))
        score, fewer = similarity(probe, reference), min(len(probe), len(reference))
        # The one nearer to nothing, or nothing where they contradict each other.
        _, llr, _ = sorted((theirs.llr(score, fewer), 0.0, ours.llr(score, fewer)))
        fmr = max(theirs.fmr(score), ours.fmr(score))
        shares.append(CardFingerShare(number, score, llr - log10(len(minutiae)), fmr, fewer))
    return max(shares, key=lambda share: share.llr)


def _face(photo: FaceTemplate, live: FaceTemplate) -> FaceShare:
    score = compare_faces(face_form(photo), face_form(live))
    calibration = face_calibration(photo.embedder)
    return FaceShare(score, calibration.llr(score, min(photo.quality, live.quality)), calibration.fmr(score))
