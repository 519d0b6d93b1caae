"""From candidates to one decision.

The table (columns: is the claimed NIK known; whom do the biometrics match):

    new    nobody                          UNIQUE     enrolled
    known  its own subject                 RETURNING  a new encounter of that subject
    new    another subject                 DUPLICATE  held, case opened
    known  another subject, or not its own COLLISION  held, case opened
    any    uncertain                       REVIEW     held, case opened
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log10


class Decision(StrEnum):
    """What becomes of an encounter."""

    UNIQUE = "unique"
    RETURNING = "returning"
    DUPLICATE = "duplicate"
    COLLISION = "collision"
    REVIEW = "review"

    @property
    def enrolled(self) -> bool:
        """Whether the encounter enters the gallery as its claimed subject's; otherwise it is held."""
        return self in (Decision.UNIQUE, Decision.RETURNING)


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

    `agreeing` is the sum over the fingers that match alone, less the logarithm of the number of fingers it
    was chosen from; `denied` tells that some finger does not match. Both at once is what an encounter put
    together from two people looks like. `own` marks the subject the claimed NIK belongs to, `held` an
    encounter that waits for an operator.
    """

    llr: float
    own: bool = False
    held: bool = False
    agreeing: float = float("-inf")
    denied: bool = False


def decide(
    *, nik_known: bool, candidates: Sequence[Candidate], thresholds: Thresholds, enough_evidence: bool
) -> tuple[Decision, tuple[Reason, ...]]:
    """Decide by the table. `candidates` must hold the claimed NIK's own subject where `nik_known`.

    `enough_evidence` is false when the encounter is too poor to be told from others: it is then never
    UNIQUE. A held encounter that matches makes a new NIK a DUPLICATE, but does not accuse the owner of a
    known one: its case is open already, and the reason names it.
    """
    own = max((c.llr for c in candidates if c.own), default=float("-inf"))
    other = max((c.llr for c in candidates if not c.own and not c.held), default=float("-inf"))
    held = max((c.llr for c in candidates if not c.own and c.held), default=float("-inf"))

    if not nik_known:
        # 1. A new NIK: whoever matches already has one, or has asked for one.
        if max(other, held) >= thresholds.match:
            if other >= thresholds.match:
                return Decision.DUPLICATE, (Reason.OTHER_SUBJECT_MATCHES,)
            return Decision.DUPLICATE, (Reason.HELD_ENCOUNTER_MATCHES,)
        if max(other, held) >= thresholds.review:
            return Decision.REVIEW, (Reason.OTHER_SUBJECT_UNCERTAIN,)
        if any(c.agreeing >= thresholds.review for c in candidates):
            return Decision.REVIEW, (Reason.FINGERS_DISAGREE,)
        if not enough_evidence:
            return Decision.REVIEW, (Reason.TOO_LITTLE_EVIDENCE,)
        return Decision.UNIQUE, (Reason.NOBODY_MATCHES,)

    # 2. A known NIK: it must be its own subject, and nobody else.
    if other >= thresholds.match:
        return Decision.COLLISION, (Reason.OTHER_SUBJECT_MATCHES,)
    if own < thresholds.verify_review and enough_evidence:
        return Decision.COLLISION, (Reason.OWN_SUBJECT_DIFFERS,)
    uncertain = []
    if own < thresholds.verify:
        uncertain.append(Reason.OWN_SUBJECT_UNCERTAIN)
    if other >= thresholds.review:
        uncertain.append(Reason.OTHER_SUBJECT_UNCERTAIN)
    if not enough_evidence:
        uncertain.append(Reason.TOO_LITTLE_EVIDENCE)
    others_agree = any(not c.own and c.agreeing >= thresholds.review > c.llr for c in candidates)
    if others_agree or any(c.own and c.denied for c in candidates):
        uncertain.append(Reason.FINGERS_DISAGREE)
    if uncertain:
        return Decision.REVIEW, tuple(uncertain)
    notice = (Reason.HELD_ENCOUNTER_MATCHES,) if held >= thresholds.match else ()
    return Decision.RETURNING, (Reason.OWN_SUBJECT_MATCHES, *notice)
