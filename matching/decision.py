"""From candidates to one decision.

The table (columns: is the claimed NIK known; whom do the biometrics match):

    new    nobody                          UNIQUE     enrolled
    known  its own subject                 RETURNING  a new encounter of that subject
    new    another subject                 DUPLICATE  held, case opened
    known  another subject, or not its own COLLISION  held, case opened
    any    uncertain                       REVIEW     held, case opened
    any    modalities disagree             REVIEW     held, case opened

IMPORTED stands beside the table: a record of an older register, enrolled without searching anybody.

What a face may do (the arithmetic is in `docs/decisions/0010-fusion.md`): about one person in a hundred has
an identical twin, whatever the size of the gallery, so a face never accuses alone. It counts in the sum, but
a match needs fingers and irises that reach the review threshold without it; nor does it clear anybody whom
they suspect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log10

from matching.encounter import Arrangement, EncounterComparison, EyeArrangement


class Decision(StrEnum):
    """What becomes of an encounter."""

    UNIQUE = "unique"
    RETURNING = "returning"
    DUPLICATE = "duplicate"
    COLLISION = "collision"
    REVIEW = "review"
    IMPORTED = "imported"

    @property
    def enrolled(self) -> bool:
        """Whether the encounter enters the gallery as its claimed subject's; otherwise it is held."""
        return self in (Decision.UNIQUE, Decision.RETURNING, Decision.IMPORTED)


class Reason(StrEnum):
    """Why a decision is what it is, and what an operator should notice besides."""

    NOBODY_MATCHES = "nobody_matches"
    OWN_SUBJECT_MATCHES = "own_subject_matches"
    OTHER_SUBJECT_MATCHES = "other_subject_matches"
    OWN_SUBJECT_DIFFERS = "own_subject_differs"
    OTHER_SUBJECT_UNCERTAIN = "other_subject_uncertain"
    OWN_SUBJECT_UNCERTAIN = "own_subject_uncertain"
    TOO_LITTLE_EVIDENCE = "too_little_evidence"
    HANDS_SWAPPED = "hands_swapped"
    POSITIONS_DIFFER = "positions_differ"
    HELD_ENCOUNTER_MATCHES = "held_encounter_matches"
    FINGERS_DISAGREE = "fingers_disagree"
    MODALITIES_DISAGREE = "modalities_disagree"
    EYES_SWAPPED = "eyes_swapped"
    FACE_ALONE = "face_alone"
    NOT_SEARCHED = "not_searched"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fused log10 likelihood ratios above which two encounters are of one person.

    A likelihood ratio of 10^t is exceeded by at most 10^-t of the impostors, so a search of N encounters
    accuses an innocent person with probability N 10^-t at most: t = log10(N / FPIR). In the same way the best
    of a subject's k encounters passes a stranger k times as often as one: t = log10(k / FMR).
    """

    match: float
    review: float
    verify: float
    verify_review: float

    @classmethod
    def for_gallery(
        cls,
        encounters: int,
        *,
        own: int = 1,
        fpir_match: float = 1e-3,
        fpir_review: float = 1e-1,
        fmr_verify: float = 1e-3,
    ) -> "Thresholds":
        """Thresholds for a gallery of `encounters`, `own` of them the claimed subject's; wanted rates.

        Fewer than ten encounters count as ten, so that the first enrolments are not judged more leniently.
        """
        size = max(encounters, 10)
        verify = log10(max(own, 1) / fmr_verify)
        return cls(
            match=log10(size / fpir_match),
            review=log10(size / fpir_review),
            verify=verify,
            verify_review=verify - 1,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one subject (or one held encounter) scored: `llr`, the fused log10 likelihood ratio.

    `fingers`, `irises` and `face`: what each modality says, for itself. `agreeing` is the sum over the
    fingers and eyes that match alone, less the logarithm of the number they were chosen from; `denied` tells
    that some finger does not match. Both at once is what an encounter put together from two people looks
    like.
    `mixed`: some fingers match and others do not. `conflict`: some modality denies what another asserts.
    `own` marks the subject the claimed NIK belongs to, `held` an encounter that waits for an operator.
    """

    llr: float
    own: bool = False
    held: bool = False
    agreeing: float = float("-inf")
    denied: bool = False
    fingers: float = 0.0
    irises: float = 0.0
    face: float = 0.0
    conflict: bool = False
    mixed: bool = False

    @property
    def without_face(self) -> float:
        """What the sum would be without the face."""
        return self.llr - self.face


def candidate_of(comparison: EncounterComparison, *, own: bool = False, held: bool = False) -> Candidate:
    """What a decision needs of a comparison with a subject or a held encounter."""
    return Candidate(
        llr=comparison.llr,
        own=own,
        held=held,
        agreeing=comparison.agreeing,
        denied=comparison.denied,
        fingers=comparison.fingers_llr,
        irises=comparison.irises_llr,
        face=comparison.face_llr,
        conflict=bool(comparison.conflict),
        mixed=comparison.mixed,
    )


def notices(comparison: EncounterComparison) -> tuple[Reason, ...]:
    """What an operator should notice about how a candidate's fingers and eyes were paired, and matched."""
    fingers: dict[Arrangement, tuple[Reason, ...]] = {
        Arrangement.AS_DECLARED: (),
        Arrangement.HANDS_SWAPPED: (Reason.HANDS_SWAPPED,),
        Arrangement.REARRANGED: (Reason.POSITIONS_DIFFER,),
    }
    swapped = comparison.eyes is EyeArrangement.EYES_SWAPPED
    disagree = comparison.denied and comparison.mixed
    return (
        *fingers[comparison.arrangement],
        *((Reason.EYES_SWAPPED,) if swapped else ()),
        *((Reason.FINGERS_DISAGREE,) if disagree else ()),
    )


def decide(
    *, nik_known: bool, candidates: Sequence[Candidate], thresholds: Thresholds, enough_evidence: bool
) -> tuple[Decision, tuple[Reason, ...]]:
    """Decide by the table. `candidates` must hold the claimed NIK's own subject where `nik_known`.

    `enough_evidence` is false when the encounter is too poor to be told from others: it is then never
    UNIQUE. A held encounter that matches makes a new NIK a DUPLICATE, but does not accuse the owner of a
    known one: its case is open already, and the reason names it.
    """
    own = max((c for c in candidates if c.own), key=lambda c: (c.llr, c.without_face), default=None)
    others = [c for c in candidates if not c.own and not c.held]
    held = [c for c in candidates if not c.own and c.held]
    other_matches = any(matches(c, thresholds) for c in others)
    held_matches = any(matches(c, thresholds) for c in held)

    if not nik_known:
        # 1. A new NIK: whoever matches already has one, or has asked for one.
        split = _split([*others, *held], thresholds)
        if other_matches and not split:
            return Decision.DUPLICATE, (Reason.OTHER_SUBJECT_MATCHES,)
        if held_matches and not split:
            return Decision.DUPLICATE, (Reason.HELD_ENCOUNTER_MATCHES,)
        doubts = {_doubt(c, thresholds) for c in (*others, *held)}
        if split:
            doubts.add(Reason.MODALITIES_DISAGREE)
        if found := _in_order(doubts):
            return Decision.REVIEW, found
        if not enough_evidence:
            return Decision.REVIEW, (Reason.TOO_LITTLE_EVIDENCE,)
        return Decision.UNIQUE, (Reason.NOBODY_MATCHES,)

    # 2. A known NIK: it must be its own subject, and nobody else.
    split = _split([*others, *([own] if own else [])], thresholds)
    if other_matches and not split:
        return Decision.COLLISION, (Reason.OTHER_SUBJECT_MATCHES,)
    doubts = {_doubt(c, thresholds) for c in others}
    # A held one's match is its own case; that it is put together of two people may be this case, too.
    doubts |= {_doubt(c, thresholds) for c in held if c.agreeing >= thresholds.review > c.llr}
    if split:
        doubts.add(Reason.MODALITIES_DISAGREE)
    if own is None or max(own.llr, own.without_face) < thresholds.verify_review:
        if enough_evidence and not split and not (own and own.conflict):
            return Decision.COLLISION, (Reason.OWN_SUBJECT_DIFFERS,)
    elif own.llr >= thresholds.verify and own.without_face < thresholds.verify_review:
        doubts.add(Reason.FACE_ALONE)
    if own is None or own.llr < thresholds.verify:
        doubts.add(Reason.OWN_SUBJECT_UNCERTAIN)
    if own and own.conflict:
        doubts.add(Reason.MODALITIES_DISAGREE)
    if own and own.denied:
        doubts.add(Reason.FINGERS_DISAGREE)
    if not enough_evidence:
        doubts.add(Reason.TOO_LITTLE_EVIDENCE)
    if found := _in_order(doubts):
        return Decision.REVIEW, found
    notice = (Reason.HELD_ENCOUNTER_MATCHES,) if held_matches else ()
    return Decision.RETURNING, (Reason.OWN_SUBJECT_MATCHES, *notice)


def matches(c: Candidate, t: Thresholds) -> bool:
    """Whether a candidate is this person beyond doubt: not by the face, and with no modality against it."""
    return c.llr >= t.match and c.without_face >= t.review and not c.conflict


def _doubt(c: Candidate, t: Thresholds) -> Reason | None:
    """Why somebody else has to be looked at, if at all.

    A face that fingers or irises deny must reach the match threshold itself: at the review threshold, one
    look-alike in a large gallery for every ten people would be looked at.
    """
    if c.without_face < t.review <= t.match <= c.face and c.llr < t.review:
        return Reason.MODALITIES_DISAGREE
    if max(c.llr, c.without_face, c.agreeing) < t.review:
        return None
    if c.conflict:
        return Reason.MODALITIES_DISAGREE
    if c.without_face >= t.review:
        return Reason.OTHER_SUBJECT_UNCERTAIN
    if c.llr >= t.review:
        return Reason.FACE_ALONE
    # Below, but for fingers that do not match, or for what it costs to have swapped eyes or hands.
    return Reason.FINGERS_DISAGREE if c.mixed else Reason.OTHER_SUBJECT_UNCERTAIN


def _split(candidates: Sequence[Candidate], t: Thresholds) -> bool:
    """Whether the modalities point to different people: no candidate has all that some candidate has."""
    asserted = [
        (
            c.fingers >= (t.verify if c.own else t.review),
            c.irises >= (t.verify if c.own else t.review),
            c.face >= t.match,
        )
        for c in candidates
    ]
    together = tuple(any(column) for column in zip(*asserted, strict=True))
    return sum(together) > 1 and together not in asserted


def _in_order(doubts: set[Reason | None]) -> tuple[Reason, ...]:
    """Doubts in the order an operator reads them in."""
    return tuple(reason for reason in _DOUBTS if reason in doubts)


_DOUBTS = (
    Reason.OWN_SUBJECT_UNCERTAIN,
    Reason.OTHER_SUBJECT_UNCERTAIN,
    Reason.TOO_LITTLE_EVIDENCE,
    Reason.MODALITIES_DISAGREE,
    Reason.FINGERS_DISAGREE,
    Reason.FACE_ALONE,
)
