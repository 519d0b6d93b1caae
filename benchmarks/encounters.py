"""Requests about people who do not exist: the synthetic population's templates as the contract wants them."""

from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.population import TEN_FINGERS, impression
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.v1 import enrollment_pb2, types_pb2

Fingers = Sequence[FingerprintTemplate]


def made_up_nik(number: int) -> str:
    """The valid NIK of made-up person `number`, 0 to 9,998: born on 1 January 1990 in Bogor."""
    return f"320101010190{number + 1:04}"


def again(fingers: Fingers, seed: int) -> tuple[FingerprintTemplate, ...]:
    """The same fingers, captured once more."""
    rng = np.random.default_rng(seed)
    return tuple(impression(finger, rng) for finger in fingers)


def samples(fingers: Fingers) -> list[types_pb2.Sample]:
    """Templates as samples under their own positions."""
    return [
        types_pb2.Sample(
            modality=types_pb2.MODALITY_FINGERPRINT,
            finger=types_pb2.FingerPosition.ValueType(finger.position),
            template=finger.to_bytes(),
        )
        for finger in fingers
    ]


def missing(
    positions: Iterable[FingerPosition],
    reason: types_pb2.MissingReason.ValueType = types_pb2.MISSING_REASON_NOT_CAPTURED,
) -> list[types_pb2.MissingFinger]:
    """These fingers declared missing."""
    return [
        types_pb2.MissingFinger(position=types_pb2.FingerPosition.ValueType(position), reason=reason)
        for position in positions
    ]


def missing_eyes(
    positions: Iterable[EyePosition],
    reason: types_pb2.MissingReason.ValueType = types_pb2.MISSING_REASON_NOT_CAPTURED,
) -> list[types_pb2.MissingEye]:
    """These eyes declared missing."""
    return [
        types_pb2.MissingEye(position=types_pb2.EyePosition.ValueType(position), reason=reason)
        for position in sorted(positions)
    ]


def absent(fingers: Fingers) -> list[types_pb2.MissingFinger]:
    """Every finger that is not among these declared missing."""
    present = {finger.position for finger in fingers}
    return missing(position for position in TEN_FINGERS if position not in present)


def enroll_request(request_id: str, nik: str, fingers: Fingers) -> enrollment_pb2.EnrollRequest:
    """An Enroll request; what is not among the fingers is declared missing."""
    return enrollment_pb2.EnrollRequest(
        request_id=request_id, nik=nik, samples=samples(fingers), missing=absent(fingers)
    )


def add_request(request_id: str, subject_id: str, fingers: Fingers) -> enrollment_pb2.AddEncounterRequest:
    """An AddEncounter request; what is not among the fingers is declared missing."""
    return enrollment_pb2.AddEncounterRequest(
        request_id=request_id, subject_id=subject_id, samples=samples(fingers), missing=absent(fingers)
    )
