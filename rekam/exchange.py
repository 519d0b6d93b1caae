"""What the workflow takes and what it gives: plain values, no protobuf, no database."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from capture.fingerprint.template import ExtractorChoice
from capture.quality import Quality
from capture.sample import EyePosition, FingerPosition
from matching.decision import Decision, Reason
from matching.encounter import EncounterComparison
from rekam.nik import NikWarning, Sex
from rekam.position import Position
from rekam.store import CaseRecord, EncounterState


class MissingReason(StrEnum):
    """Why a finger, an eye or the face is not presented."""

    AMPUTATED = "amputated"
    BANDAGED = "bandaged"
    UNREADABLE = "unreadable"
    NOT_CAPTURED = "not_captured"


class Match(StrEnum):
    """What a comparison with a subject came to."""

    YES = "yes"
    UNCERTAIN = "uncertain"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Missing:
    """A finger declared missing."""

    position: FingerPosition
    reason: MissingReason


@dataclass(frozen=True, slots=True)
class MissingEye:
    """An eye declared missing."""

    position: EyePosition
    reason: MissingReason


@dataclass(frozen=True, slots=True, eq=False)
class Presented:
    """One finger, eye or face as handed in: an encoded image or a template.

    `position` is None for a face. Of fingers alone: `ppi` where declared, `extractor` where it is not the
    service's own setting.
    """

    position: Position
    image: bytes | None = None
    template: bytes | None = None
    ppi: float | None = None
    best_effort: bool = False
    extractor: ExtractorChoice | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Presentation:
    """One encounter as handed in. `digest` stands for the whole content, for recognising a retry.

    `missing_face` is None where the face was not declared missing, `signature`, an image, where there is
    none, and `missing_signature` where nobody said why.
    """

    request_id: str
    digest: bytes
    samples: tuple[Presented, ...]
    missing: tuple[Missing, ...]
    missing_eyes: tuple[MissingEye, ...] = ()
    missing_face: MissingReason | None = None
    signature: bytes | None = None
    missing_signature: MissingReason | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Who the person claims to be: a NIK as text, with what the register says beside it."""

    nik: str
    birth_date: date | None = None
    sex: Sex | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecaptureItem:
    """A sample to capture again, for its quality or as the same finger or eye given under two positions."""

    position: Position
    quality: Quality | None
    same_as: FingerPosition | EyePosition | None
    advice: str


@dataclass(frozen=True, slots=True, eq=False)
class Recapture:
    """Samples to capture again; nothing was recorded."""

    items: tuple[RecaptureItem, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """A candidate: a subject, or a held encounter (then `subject_id` is None), by its best encounter."""

    subject_id: str | None
    encounter_id: str
    nik: str
    held: bool
    comparison: EncounterComparison


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision rests on; thresholds are fused log10 likelihood ratios."""

    candidates: tuple[Person, ...]
    match_llr: float
    review_llr: float
    verify_llr: float
    gallery_encounters: int
    nik_known: bool
    nik_warnings: tuple[NikWarning, ...]


@dataclass(frozen=True, slots=True)
class RecordedFinger:
    """A finger of a recorded encounter."""

    position: FingerPosition
    quality: int
    minutiae: int
    image_kept: bool


@dataclass(frozen=True, slots=True)
class RecordedIris:
    """An eye of a recorded encounter; `bits` of its code that count."""

    position: EyePosition
    quality: int
    bits: int
    image_kept: bool


@dataclass(frozen=True, slots=True)
class RecordedFace:
    """The face of a recorded encounter."""

    quality: int
    image_kept: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded encounter with its decision. Answers stored by earlier releases lack what has a default."""

    encounter_id: str
    subject_id: str | None
    nik: str
    decision: Decision
    reasons: tuple[Reason, ...]
    state: EncounterState
    created_at: datetime
    fingers: tuple[RecordedFinger, ...]
    missing: tuple[Missing, ...]
    evidence: Evidence
    case_id: str | None
    irises: tuple[RecordedIris, ...] = ()
    face: RecordedFace | None = None
    missing_eyes: tuple[MissingEye, ...] = ()
    missing_face: MissingReason | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Identified:
    """Answer of a search: candidates by falling likelihood ratio and the verdict for the first."""

    candidates: tuple[Person, ...]
    match: Match
    match_llr: float
    review_llr: float
    gallery_encounters: int
    qualities: tuple[tuple[Position, Quality], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """Answer of a 1:1 comparison with a subject."""

    match: Match
    candidate: Person
    verify_llr: float
    qualities: tuple[tuple[Position, Quality], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Assessed:
    """Answer to one image: quality, and the template where it may be enrolled as it is.

    `minutiae` and `ppi` are those of a finger, `iris_bits` those of an eye.
    """

    quality: Quality
    template: bytes | None
    format: str
    width: int
    height: int
    minutiae: int = 0
    ppi: float = 0.0
    iris_bits: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredSample:
    """A sample out of the store, for looking at two people side by side."""

    encounter_id: str
    position: Position
    template: bytes
    image: bytes | None
    quality: int


@dataclass(frozen=True, slots=True, eq=False)
class CaseFile:
    """A case with its encounter, None once erased, and, where asked for, the samples of both sides."""

    case: CaseRecord
    encounter: Recorded | None
    samples: tuple[StoredSample, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """Answer of a deletion."""

    encounters: int
