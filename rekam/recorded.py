"""Between what the store keeps of an encounter and what the workflow takes and gives."""

from collections.abc import Iterable

from pydantic import TypeAdapter

from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.capturing import Captured, read_template
from rekam.exchange import (
    Evidence,
    Missing,
    MissingEye,
    MissingReason,
    Presentation,
    Recorded,
    RecordedFace,
    RecordedFinger,
    RecordedIris,
    StoredSample,
)
from rekam.store import EncounterRecord, MissingRecord, Reader, SampleRecord, SignatureRecord

EVIDENCE = TypeAdapter(Evidence)
"""How the evidence of a decision is written into its encounter."""


def sample_record(captured: Captured, *, keep_image: bool) -> SampleRecord:
    """A captured sample as the store keeps it."""
    template = captured.template
    if template is None:  # refused before; recorded encounters have every template
        raise AssertionError("a sample without template was to be recorded")
    return SampleRecord(
        position=captured.position,
        template=template.to_bytes(),
        quality=template.quality,
        image=captured.presented.image if keep_image else None,
        image_format=captured.image_format if keep_image else None,
    )


def missing_records(presentation: Presentation) -> list[MissingRecord]:
    """What was declared missing, as the store keeps it."""
    records = [MissingRecord(m.position, m.reason) for m in presentation.missing]
    records += [MissingRecord(m.position, m.reason) for m in presentation.missing_eyes]
    if presentation.missing_face is not None:
        records.append(MissingRecord(None, presentation.missing_face))
    return records


def signature_record(presentation: Presentation) -> SignatureRecord | None:
    """The signature, or why there is none, as the store keeps it; None where nothing was said."""
    if presentation.signature is None and presentation.missing_signature is None:
        return None
    return SignatureRecord(presentation.signature, presentation.missing_signature)


def recorded(reader: Reader, encounter: EncounterRecord) -> Recorded:
    """An encounter of the store with its decision, evidence and case."""
    case = reader.case_of(encounter.encounter_id)
    fingers, irises, face = _recorded_samples(encounter.samples)
    missing, missing_eyes, missing_face = _declared_missing(encounter.missing)
    return Recorded(
        encounter_id=encounter.encounter_id,
        subject_id=encounter.subject_id,
        nik=encounter.nik,
        decision=encounter.decision,
        reasons=encounter.reasons,
        state=encounter.state,
        created_at=encounter.created_at,
        fingers=tuple(fingers),
        missing=tuple(missing),
        evidence=EVIDENCE.validate_json(encounter.evidence),
        case_id=None if case is None else case.case_id,
        irises=tuple(irises),
        face=face,
        missing_eyes=tuple(missing_eyes),
        missing_face=missing_face,
    )


def _recorded_samples(
    samples: Iterable[SampleRecord],
) -> tuple[list[RecordedFinger], list[RecordedIris], RecordedFace | None]:
    fingers: list[RecordedFinger] = []
    irises: list[RecordedIris] = []
    face = None
    for sample in samples:
        kept = sample.image_format is not None
        match read_template(sample.position, sample.template):
            case FingerprintTemplate() as finger:
                fingers.append(RecordedFinger(finger.position, sample.quality, len(finger), kept))
            case IrisTemplate() as iris:
                irises.append(RecordedIris(iris.eye, sample.quality, iris.bits, kept))
            case FaceTemplate():
                face = RecordedFace(sample.quality, kept)
    return fingers, irises, face


def _declared_missing(
    records: Iterable[MissingRecord],
) -> tuple[list[Missing], list[MissingEye], MissingReason | None]:
    fingers: list[Missing] = []
    eyes: list[MissingEye] = []
    face = None
    for record in records:
        reason = MissingReason(record.reason)
        match record.position:
            case FingerPosition() as finger:
                fingers.append(Missing(finger, reason))
            case EyePosition() as eye:
                eyes.append(MissingEye(eye, reason))
            case None:
                face = reason
    return fingers, eyes, face


def stored_sample(encounter: EncounterRecord, sample: SampleRecord) -> StoredSample:
    """A sample of the store, to be shown."""
    return StoredSample(
        encounter.encounter_id, sample.position, sample.template, sample.image, sample.quality
    )
