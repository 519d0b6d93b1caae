"""The only place where protobuf and domain types meet.

Reading a request collects every fault into one `InvalidRequest`, so that a caller sees them all at once.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from capture.fingerprint.template import ExtractorChoice
from capture.quality import Feedback, Quality
from capture.sample import EyePosition, FingerPosition, Modality
from matching.encounter import Arrangement, EncounterComparison
from matching.gallery import Sizes
from rekam.backup import BackedUp
from rekam.errors import InvalidRequest
from rekam.exchange import (
    Assessed,
    CaseFile,
    Claim,
    Evidence,
    Identified,
    Match,
    Missing,
    MissingEye,
    MissingReason,
    Person,
    Presentation,
    Presented,
    Recapture,
    Recorded,
    StoredSample,
    Verified,
)
from rekam.nik import Sex
from rekam.position import Position, modality_of
from rekam.store import (
    CaseRecord,
    CaseState,
    Counts,
    EncounterState,
    Resolution,
    SignatureRecord,
    SubjectRecord,
)
from rekam.v1 import (
    admin_pb2,
    case_pb2,
    enrollment_pb2,
    gallery_pb2,
    identification_pb2,
    quality_pb2,
    types_pb2,
)
from rekam.workflow import MOST_CANDIDATES

MOST_OF = {Modality.FINGERPRINT: 10, Modality.IRIS: 2, Modality.FACE: 1}
MOST_SAMPLES = sum(MOST_OF.values())
MOST_EXCLUDED = 100
DEFAULT_CANDIDATES = 5
DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
_PAGE_TOKEN = re.compile(r"[a-z]-[0-9a-f]{1,40}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_LONGEST_OPERATOR, _LONGEST_COMMENT, _LONGEST_ID = 200, 2000, 100

_MODALITIES = {types_pb2.Modality.Value(f"MODALITY_{m.name}"): m for m in Modality}
_WHAT = {Modality.FINGERPRINT: "fingers", Modality.IRIS: "eyes", Modality.FACE: "face"}

E = TypeVar("E", bound=Enum)
P = TypeVar("P", FingerPosition, EyePosition)
Faults = list[tuple[str, str]]


# Requests -> domain ---------------------------------------------------------------------------------


def read_enroll(request: enrollment_pb2.EnrollRequest) -> tuple[Claim, Presentation]:
    """Claim and presentation of an Enroll request. Raises `InvalidRequest`."""
    faults: Faults = []
    claim = Claim(
        nik=request.nik,
        birth_date=_birth_date(request.birth_date, faults),
        sex=_enum(Sex, enrollment_pb2.Sex.DESCRIPTOR, "SEX_", request.sex, "sex", faults),
    )
    if not request.nik:
        faults.append(("nik", "is required: 16 digits"))
    presentation = _presentation(request, faults)
    _refuse(faults)
    return claim, presentation


def read_add_encounter(request: enrollment_pb2.AddEncounterRequest) -> tuple[str, Presentation]:
    """Subject id and presentation of an AddEncounter request. Raises `InvalidRequest`."""
    faults: Faults = []
    subject_id = _id(request.subject_id, "subject_id", faults)
    presentation = _presentation(request, faults)
    _refuse(faults)
    return subject_id, presentation


def read_delete_subject(request: enrollment_pb2.DeleteSubjectRequest) -> tuple[str, str, bytes]:
    """Subject id, request id and digest of a DeleteSubject request. Raises `InvalidRequest`."""
    faults: Faults = []
    request_id = _request_id(request.request_id, faults)
    subject_id = _id(request.subject_id, "subject_id", faults)
    _refuse(faults)
    return subject_id, request_id, _digest(request)


def read_identify(
    request: identification_pb2.IdentifyRequest,
) -> tuple[tuple[Presented, ...], int, tuple[str, ...]]:
    """Samples, number of candidates wanted and subjects to leave out. Raises `InvalidRequest`."""
    faults: Faults = []
    samples = _samples(request.samples, faults)
    if request.max_candidates > MOST_CANDIDATES:
        faults.append(("max_candidates", f"is 1 to {MOST_CANDIDATES}, or 0 for {DEFAULT_CANDIDATES}"))
    if len(request.exclude_subject_ids) > MOST_EXCLUDED:
        faults.append(("exclude_subject_ids", f"names {MOST_EXCLUDED} subjects at most"))
    for i, subject_id in enumerate(request.exclude_subject_ids[:MOST_EXCLUDED]):
        _id(subject_id, f"exclude_subject_ids[{i}]", faults)
    _refuse(faults)
    return samples, request.max_candidates or DEFAULT_CANDIDATES, tuple(request.exclude_subject_ids)


def read_verify(
    request: identification_pb2.VerifyRequest,
) -> tuple[tuple[Presented, ...], str | None, str | None]:
    """Samples, and the subject id or the NIK claimed. Raises `InvalidRequest`."""
    faults: Faults = []
    samples = _samples(request.samples, faults)
    subject_id, nik = _claim(request, faults)
    _refuse(faults)
    return samples, subject_id, nik


def read_get_subject(request: gallery_pb2.GetSubjectRequest) -> tuple[str | None, str | None]:
    """The subject id or the NIK asked for. Raises `InvalidRequest`."""
    faults: Faults = []
    key = _claim(request, faults)
    _refuse(faults)
    return key


def read_assess(request: quality_pb2.AssessRequest) -> Presented:
    """The one sample of an Assess request. Raises `InvalidRequest`."""
    faults: Faults = []
    if not request.HasField("sample"):
        faults.append(("sample", "is required"))
    presented = _sample(request.sample, "sample", faults)
    _refuse(faults)
    return presented


def read_resolve_case(request: case_pb2.ResolveCaseRequest) -> tuple[str, Resolution, str, bytes]:
    """Case id, resolution, request id and digest. Raises `InvalidRequest`."""
    faults: Faults = []
    request_id = _request_id(request.request_id, faults)
    case_id = _id(request.case_id, "case_id", faults)
    resolution = _enum(
        Resolution,
        case_pb2.Resolution.DESCRIPTOR,
        "RESOLUTION_",
        request.resolution,
        "resolution",
        faults,
        required=True,
    )
    if not 1 <= len(request.operator.strip()) <= _LONGEST_OPERATOR:
        faults.append(("operator", f"is required: 1 to {_LONGEST_OPERATOR} characters"))
    if len(request.comment) > _LONGEST_COMMENT:
        faults.append(("comment", f"has {_LONGEST_COMMENT} characters at most"))
    for path in ("operator", "comment", "subject_id"):
        _require_no_nul(getattr(request, path), path, faults)
    if request.subject_id and resolution is not Resolution.SAME_PERSON:
        faults.append(("subject_id", "belongs to SAME_PERSON only"))
    _refuse(faults)
    return case_id, resolution or Resolution.REJECTED, request_id, _digest(request)


def read_case_state(request: case_pb2.ListCasesRequest) -> CaseState | None:
    """The state to list, None for all. Raises `InvalidRequest`."""
    faults: Faults = []
    state = _enum(CaseState, case_pb2.CaseState.DESCRIPTOR, "CASE_STATE_", request.state, "state", faults)
    _refuse(faults)
    return state


def read_id(value: str, field: str) -> str:
    """A required identifier. Raises `InvalidRequest`."""
    faults: Faults = []
    _id(value, field, faults)
    _refuse(faults)
    return value


def read_page(request: case_pb2.ListCasesRequest | gallery_pb2.ListSubjectsRequest) -> tuple[str | None, int]:
    """The page to give: after which id, how many. Raises `InvalidRequest`."""
    if request.page_size > LARGEST_PAGE:
        raise InvalidRequest([("page_size", f"is 1 to {LARGEST_PAGE}, or 0 for {DEFAULT_PAGE}")])
    if request.page_token and not _PAGE_TOKEN.fullmatch(request.page_token):
        raise InvalidRequest([("page_token", "is no token this service gave")])
    return request.page_token or None, request.page_size or DEFAULT_PAGE


def _presentation(
    request: enrollment_pb2.EnrollRequest | enrollment_pb2.AddEncounterRequest, faults: Faults
) -> Presentation:
    return Presentation(
        request_id=_request_id(request.request_id, faults),
        digest=_digest(request),
        samples=_samples(request.samples, faults),
        missing=_missing(request.missing, faults),
        missing_eyes=_missing_eyes(request.missing_eyes, faults),
        missing_face=_reason(request.missing_face, "missing_face", faults),
        signature=request.signature or None,
        missing_signature=_reason(request.missing_signature, "missing_signature", faults),
    )


def _digest(request: Message) -> bytes:
    """SHA-256 of the whole request: equal for a retry of the same content."""
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()


def _samples(samples: Sequence[types_pb2.Sample], faults: Faults) -> tuple[Presented, ...]:
    if not 1 <= len(samples) <= MOST_SAMPLES:
        faults.append(("samples", f"holds 1 to {MOST_SAMPLES} fingers, eyes and faces, not {len(samples)}"))
        return ()
    presented = tuple(_sample(sample, f"samples[{i}]", faults) for i, sample in enumerate(samples))
    for kind, number in Counter(sample.modality for sample in samples).items():
        modality = _MODALITIES.get(kind)
        if modality is not None and number > MOST_OF[modality]:
            most, what = MOST_OF[modality], _WHAT[modality]
            faults.append(("samples", f"holds {most} {what} at most, not {number}"))
    # Fingers and eyes apart: their codes are equal numbers.
    for kind_of_position in (FingerPosition, EyePosition):
        counts = Counter(p.position for p in presented if isinstance(p.position, kind_of_position))
        for position, number in sorted((p, n) for p, n in counts.items() if p and n > 1):
            faults.append(("samples", f"the {position.words} is presented {number} times"))
    return presented


def _sample(sample: types_pb2.Sample, path: str, faults: Faults) -> Presented:
    content = sample.WhichOneof("content")
    if content is None or not (sample.image or sample.template):
        faults.append((path, "needs an image or a template"))
    # NaN fails this comparison too.
    if not 0 <= sample.ppi < 1e6:
        faults.append((f"{path}.ppi", "is in pixels per inch, or 0 where the image declares it"))
    return Presented(
        position=_sample_position(sample, path, faults),
        image=sample.image if content == "image" else None,
        template=sample.template if content == "template" else None,
        ppi=sample.ppi or None,
        best_effort=sample.best_effort,
        extractor=_enum(
            ExtractorChoice,
            types_pb2.Extractor.DESCRIPTOR,
            "EXTRACTOR_",
            sample.extractor,
            f"{path}.extractor",
            faults,
        ),
    )


def _sample_position(sample: types_pb2.Sample, path: str, faults: Faults) -> Position:
    """The position that belongs to the sample's modality; the other kind's is refused."""
    modality = _MODALITIES.get(sample.modality)
    if modality is None:
        faults.append((f"{path}.modality", "is fingerprint, iris or face"))
    if sample.finger and modality in (Modality.IRIS, Modality.FACE):
        faults.append((f"{path}.finger", f"does not belong to a sample of modality {modality}"))
    if sample.eye and modality in (Modality.FINGERPRINT, Modality.FACE):
        faults.append((f"{path}.eye", f"does not belong to a sample of modality {modality}"))
    match modality:
        case Modality.IRIS:
            return _eye(sample.eye, f"{path}.eye", faults)
        case Modality.FACE:
            return None
        case _:
            return _finger(sample.finger, f"{path}.finger", faults)


def _missing(declared: Sequence[types_pb2.MissingFinger], faults: Faults) -> tuple[Missing, ...]:
    found = _declared(declared, "missing", Modality.FINGERPRINT, _finger, faults)
    return tuple(Missing(position, reason) for position, reason in found)


def _missing_eyes(declared: Sequence[types_pb2.MissingEye], faults: Faults) -> tuple[MissingEye, ...]:
    found = _declared(declared, "missing_eyes", Modality.IRIS, _eye, faults)
    return tuple(MissingEye(position, reason) for position, reason in found)


def _declared(
    declared: Sequence[types_pb2.MissingFinger | types_pb2.MissingEye],
    field: str,
    modality: Modality,
    position_of: Callable[[int, str, Faults], P],
    faults: Faults,
) -> list[tuple[P, MissingReason]]:
    """What is declared missing in `field`, each position once, with the reason."""
    most = MOST_OF[modality]
    if len(declared) > most:
        faults.append((field, f"holds {most} {_WHAT[modality]} at most, not {len(declared)}"))
        return []
    found: list[tuple[P, MissingReason]] = []
    for i, one in enumerate(declared):
        path = f"{field}[{i}]"
        position = position_of(one.position, f"{path}.position", faults)
        reason = _reason(one.reason, f"{path}.reason", faults, required=True)
        _require_once(position, [before for before, _ in found], f"{path}.position", faults)
        found.append((position, reason or MissingReason.NOT_CAPTURED))
    return found


def _require_once(
    position: FingerPosition | EyePosition,
    before: Sequence[FingerPosition | EyePosition],
    path: str,
    faults: Faults,
) -> None:
    if not position:
        faults.append((path, "is required"))
    elif position in before:
        faults.append((path, f"the {position.words} is declared missing twice"))


def _finger(value: int, path: str, faults: Faults) -> FingerPosition:
    try:
        return FingerPosition(value)
    except ValueError:
        faults.append((path, f"{value} is no finger: 1 to 10, or 0 where not known"))
        return FingerPosition.UNKNOWN


def _eye(value: int, path: str, faults: Faults) -> EyePosition:
    try:
        return EyePosition(value)
    except ValueError:
        faults.append((path, f"{value} is no eye: 1 right, 2 left, or 0 where not known"))
        return EyePosition.UNKNOWN


def _reason(value: int, path: str, faults: Faults, *, required: bool = False) -> MissingReason | None:
    names = types_pb2.MissingReason.DESCRIPTOR
    return _enum(MissingReason, names, "MISSING_REASON_", value, path, faults, required=required)


def _enum(
    kind: type[E],
    names: EnumDescriptor,
    prefix: str,
    value: int,
    path: str,
    faults: Faults,
    *,
    required: bool = False,
) -> E | None:
    """The domain's member for a protobuf enum value; None where unspecified."""
    if value == 0 and not required:
        return None
    try:
        return kind[names.values_by_number[value].name.removeprefix(prefix)]
    except KeyError:
        faults.append((path, "is required" if value == 0 else f"{value} is not known"))
        return None


def _birth_date(text: str, faults: Faults) -> date | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        faults.append(("birth_date", "is a date written YYYY-MM-DD"))
        return None


def _claim(
    request: identification_pb2.VerifyRequest | gallery_pb2.GetSubjectRequest, faults: Faults
) -> tuple[str | None, str | None]:
    if request.subject_id:
        return _id(request.subject_id, "subject_id", faults), None
    if request.nik:
        return None, request.nik
    faults.append(("subject_id", "a subject id or a NIK is required"))
    return None, None


def _id(value: str, path: str, faults: Faults) -> str:
    if not 1 <= len(value) <= _LONGEST_ID:
        faults.append((path, f"is required: 1 to {_LONGEST_ID} characters"))
    _require_no_nul(value, path, faults)
    return value


def _require_no_nul(value: str, path: str, faults: Faults) -> None:
    if "\0" in value:  # PostgreSQL keeps none in a text
        faults.append((path, "holds a NUL character"))


def _request_id(value: str, faults: Faults) -> str:
    if not _REQUEST_ID.fullmatch(value):
        faults.append(("request_id", "is required: 1 to 64 printable ASCII characters without blanks"))
    return value


def _refuse(faults: Faults) -> None:
    if faults:
        raise InvalidRequest(faults)


# Domain -> responses --------------------------------------------------------------------------------


def write_encounter(recorded: Recorded) -> types_pb2.Encounter:
    """A recorded encounter."""
    return types_pb2.Encounter(
        encounter_id=recorded.encounter_id,
        subject_id=recorded.subject_id or "",
        nik=recorded.nik,
        decision=types_pb2.Decision.Value(f"DECISION_{recorded.decision.name}"),
        reasons=[types_pb2.Reason.Value(f"REASON_{reason.name}") for reason in recorded.reasons],
        state=write_state(recorded.state),
        create_time=_time(recorded.created_at),
        fingers=[
            types_pb2.RecordedFinger(
                position=write_finger(f.position),
                quality=f.quality,
                minutiae=f.minutiae,
                image_kept=f.image_kept,
            )
            for f in recorded.fingers
        ],
        missing=[
            types_pb2.MissingFinger(position=write_finger(m.position), reason=_missing_reason(m.reason))
            for m in recorded.missing
        ],
        evidence=_evidence(recorded.evidence),
        case_id=recorded.case_id or "",
        irises=[
            types_pb2.RecordedIris(
                position=write_eye(i.position), quality=i.quality, bits=i.bits, image_kept=i.image_kept
            )
            for i in recorded.irises
        ],
        face=None
        if recorded.face is None
        else types_pb2.RecordedFace(quality=recorded.face.quality, image_kept=recorded.face.image_kept),
        missing_eyes=[
            types_pb2.MissingEye(position=write_eye(m.position), reason=_missing_reason(m.reason))
            for m in recorded.missing_eyes
        ],
        missing_face=_missing_reason(recorded.missing_face),
    )


def write_signed(recorded: Recorded, signed: SignatureRecord | None) -> enrollment_pb2.GetEncounterResponse:
    """An encounter with its signature, or why it has none."""
    image, missing = (None, None) if signed is None else (signed.image, signed.missing)
    return enrollment_pb2.GetEncounterResponse(
        encounter=write_encounter(recorded),
        signature=image or b"",
        missing_signature=_missing_reason(None if missing is None else MissingReason(missing)),
    )


def write_recapture(recapture: Recapture) -> enrollment_pb2.Recapture:
    """What to capture again."""
    return enrollment_pb2.Recapture(
        items=[
            enrollment_pb2.RecaptureItem(
                position=write_finger(item.position),
                quality=None if item.quality is None else write_quality(item.quality),
                same_finger_as=write_finger(item.same_as),
                advice=item.advice,
                modality=write_modality(modality_of(item.position)),
                eye=write_eye(item.position),
                same_eye_as=write_eye(item.same_as),
            )
            for item in recapture.items
        ]
    )


def write_identified(identified: Identified, wanted: int) -> identification_pb2.IdentifyResponse:
    """Answer of a search, cut to the `wanted` best candidates."""
    return identification_pb2.IdentifyResponse(
        candidates=[_candidate(p) for p in identified.candidates[:wanted]],
        match=_match(identified.match),
        match_llr=identified.match_llr,
        review_llr=identified.review_llr,
        gallery_encounters=identified.gallery_encounters,
        qualities=_qualities(identified.qualities),
    )


def write_verified(verified: Verified) -> identification_pb2.VerifyResponse:
    """Answer of a 1:1 comparison."""
    return identification_pb2.VerifyResponse(
        match=_match(verified.match),
        candidate=_candidate(verified.candidate),
        verify_llr=verified.verify_llr,
        qualities=_qualities(verified.qualities),
    )


def write_assessed(assessed: Assessed, *, template: bool) -> quality_pb2.AssessResponse:
    """Judgement of one image, with its template where asked for."""
    return quality_pb2.AssessResponse(
        quality=write_quality(assessed.quality),
        minutiae=assessed.minutiae,
        template=(assessed.template or b"") if template else b"",
        format=assessed.format,
        width=assessed.width,
        height=assessed.height,
        ppi=assessed.ppi,
        iris_bits=assessed.iris_bits,
    )


def write_case(case: CaseRecord) -> case_pb2.Case:
    """A case without its encounter."""
    resolution = "UNSPECIFIED" if case.resolution is None else case.resolution.name
    return case_pb2.Case(
        case_id=case.case_id,
        encounter_id=case.encounter_id,
        nik=case.nik,
        decision=types_pb2.Decision.Value(f"DECISION_{case.decision.name}"),
        state=case_pb2.CaseState.Value(f"CASE_STATE_{case.state.name}"),
        open_time=_time(case.opened_at),
        resolution=case_pb2.Resolution.Value(f"RESOLUTION_{resolution}"),
        operator=case.operator or "",
        comment=case.comment or "",
        resolve_time=None if case.resolved_at is None else _time(case.resolved_at),
        subject_id=case.subject_id or "",
    )


def write_case_file(file: CaseFile) -> case_pb2.GetCaseResponse:
    """A case with encounter, evidence and samples."""
    return case_pb2.GetCaseResponse(
        case=write_case(file.case),
        encounter=None if file.encounter is None else write_encounter(file.encounter),
        samples=[_stored_sample(s) for s in file.samples],
    )


def write_subject(subject: SubjectRecord) -> gallery_pb2.Subject:
    """A person in the gallery."""
    return gallery_pb2.Subject(
        subject_id=subject.subject_id,
        nik=subject.nik,
        create_time=_time(subject.created_at),
        encounter_ids=subject.encounters,
    )


def write_stats(
    counts: Counts, last_change: int, watermark: int, index: Sizes, version: str
) -> gallery_pb2.StatsResponse:
    """Counts and states; the bytes of the index are shared out to subjects and held encounters."""
    people = max(counts.subjects + counts.encounters[EncounterState.HELD], 1)
    return gallery_pb2.StatsResponse(
        subjects=counts.subjects,
        encounters_enrolled=counts.encounters[EncounterState.ENROLLED],
        encounters_held=counts.encounters[EncounterState.HELD],
        encounters_rejected=counts.encounters[EncounterState.REJECTED],
        cases_open=counts.open_cases,
        fingers=counts.samples[Modality.FINGERPRINT],
        store_bytes=counts.database_bytes,
        store_sequence=last_change,
        index_sequence=watermark,
        version=version,
        irises=counts.samples[Modality.IRIS],
        faces=counts.samples[Modality.FACE],
        finger_bytes_a_person=index.searched[Modality.FINGERPRINT] // people,
        iris_bytes_a_person=index.searched[Modality.IRIS] // people,
        face_bytes_a_person=index.searched[Modality.FACE] // people,
        compared_bytes_a_person=sum(index.compared.values()) // people,
    )


def write_backed_up(made: BackedUp) -> admin_pb2.BackupResponse:
    """A finished backup."""
    return admin_pb2.BackupResponse(
        folder=str(made.folder),
        bytes=made.size,
        sequence=made.sequence,
        subjects=made.subjects,
        manifest_digest=made.manifest_digest,
    )


def write_quality(quality: Quality) -> types_pb2.Quality:
    """Score, feedback and measures."""
    return types_pb2.Quality(
        score=quality.score,
        usable=quality.usable,
        feedback=[_feedback(f) for f in quality.feedback],
        measures=[types_pb2.QualityMeasure(name=n, value=v) for n, v in quality.measures.items()],
    )


def write_finger(position: Position) -> types_pb2.FingerPosition.ValueType:
    """The same ISO code; unspecified for what is no finger."""
    return types_pb2.FingerPosition.ValueType(position if isinstance(position, FingerPosition) else 0)


def write_eye(position: Position) -> types_pb2.EyePosition.ValueType:
    """The same ISO code; unspecified for what is no eye."""
    return types_pb2.EyePosition.ValueType(position if isinstance(position, EyePosition) else 0)


def write_modality(modality: Modality) -> types_pb2.Modality.ValueType:
    """The modality of a sample."""
    return types_pb2.Modality.Value(f"MODALITY_{modality.name}")


def _missing_reason(reason: MissingReason | None) -> types_pb2.MissingReason.ValueType:
    return types_pb2.MissingReason.Value(f"MISSING_REASON_{'UNSPECIFIED' if reason is None else reason.name}")


def write_state(state: EncounterState) -> types_pb2.EncounterState.ValueType:
    """The state of an encounter."""
    return types_pb2.EncounterState.Value(f"ENCOUNTER_STATE_{state.name}")


def _feedback(feedback: Feedback) -> types_pb2.Feedback:
    return types_pb2.Feedback(code=feedback.value, advice=feedback.advice)


def _match(match: Match) -> identification_pb2.Match.ValueType:
    return identification_pb2.Match.Value(f"MATCH_{match.name}")


def _qualities(
    qualities: Sequence[tuple[Position, Quality]],
) -> list[identification_pb2.SampleQuality]:
    return [
        identification_pb2.SampleQuality(
            position=write_finger(p),
            quality=write_quality(q),
            modality=write_modality(modality_of(p)),
            eye=write_eye(p),
        )
        for p, q in qualities
    ]


def _evidence(evidence: Evidence) -> types_pb2.Evidence:
    return types_pb2.Evidence(
        candidates=[_candidate(p) for p in evidence.candidates],
        match_llr=evidence.match_llr,
        review_llr=evidence.review_llr,
        verify_llr=evidence.verify_llr,
        gallery_encounters=evidence.gallery_encounters,
        nik_warnings=[types_pb2.NikWarning(code=w.kind, text=w.text) for w in evidence.nik_warnings],
    )


def _candidate(person: Person) -> types_pb2.Candidate:
    comparison = person.comparison
    return types_pb2.Candidate(
        subject_id=person.subject_id or "",
        encounter_id=person.encounter_id,
        nik=person.nik,
        llr=comparison.llr,
        arrangement=_arrangement(comparison.arrangement),
        fingers=_finger_shares(comparison),
        held=person.held,
        irises=_iris_shares(comparison),
        face=_face_share(comparison),
        eyes=_eye_arrangement(comparison),
        fingers_llr=comparison.fingers_llr,
        irises_llr=comparison.irises_llr,
        face_llr=comparison.face_llr,
        conflict=[write_modality(modality) for modality in comparison.conflict],
    )


def _arrangement(arrangement: Arrangement) -> types_pb2.Arrangement.ValueType:
    return types_pb2.Arrangement.Value(f"ARRANGEMENT_{arrangement.name}")


def _eye_arrangement(comparison: EncounterComparison) -> types_pb2.EyeArrangement.ValueType:
    """How the eyes correspond; unspecified where there were none to compare."""
    word = comparison.eyes.name if comparison.irises else "UNSPECIFIED"
    return types_pb2.EyeArrangement.Value(f"EYE_ARRANGEMENT_{word}")


def _finger_shares(comparison: EncounterComparison) -> list[types_pb2.FingerShare]:
    return [
        types_pb2.FingerShare(
            probe=write_finger(share.probe),
            reference=write_finger(share.reference),
            score=share.score,
            llr=share.llr,
            fmr=share.fmr,
        )
        for share in comparison.shares
    ]


def _iris_shares(comparison: EncounterComparison) -> list[types_pb2.IrisShare]:
    return [
        types_pb2.IrisShare(
            probe=write_eye(share.probe),
            reference=write_eye(share.reference),
            score=share.score,
            llr=share.llr,
            fmr=share.fmr,
            bits=share.bits,
        )
        for share in comparison.irises
    ]


def _face_share(comparison: EncounterComparison) -> types_pb2.FaceShare | None:
    share = comparison.face
    return None if share is None else types_pb2.FaceShare(score=share.score, llr=share.llr, fmr=share.fmr)


def _stored_sample(sample: StoredSample) -> case_pb2.StoredSample:
    return case_pb2.StoredSample(
        encounter_id=sample.encounter_id,
        position=write_finger(sample.position),
        template=sample.template,
        image=sample.image or b"",
        quality=sample.quality,
        modality=write_modality(modality_of(sample.position)),
        eye=write_eye(sample.position),
    )


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
