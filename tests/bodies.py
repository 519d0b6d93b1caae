"""People with fingers, eyes and a face, as templates made by chance, and requests about them.

Codes and vectors of two people are independent; those of one person differ in some bits and by a small angle.
They say nothing of accuracy: they show what the service does with what the comparisons say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.encounters import Fingers, absent, again, made_up_nik, samples
from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition
from rekam.v1 import enrollment_pb2, identification_pb2, types_pb2
from tests.service import fingers

RIGHT, LEFT = EyePosition.RIGHT, EyePosition.LEFT
_WORDS = 2 * GROUP_WORDS
_VALUES = 128
_NOT_CAPTURED = types_pb2.MISSING_REASON_NOT_CAPTURED


@dataclass(frozen=True)
class Body:
    """What one person shows at one encounter."""

    fingers: Fingers = ()
    irises: tuple[IrisTemplate, ...] = ()
    face: FaceTemplate | None = None

    def again(self, seed: int) -> "Body":
        """The same, captured once more."""
        return Body(
            again(self.fingers, seed),
            tuple(_eye_again(iris, seed) for iris in self.irises),
            None if self.face is None else _face_again(self.face, seed),
        )

    def eyes_swapped(self) -> "Body":
        """Each eye declared as the other."""
        return replace(self, irises=tuple(replace(iris, eye=iris.eye.other) for iris in self.irises))


@cache
def body(number: int) -> Body:
    """Made-up person `number`, with four fingers, two eyes and a face."""
    return Body(fingers(number), (eye(number, RIGHT), eye(number, LEFT)), face(number))


def eye(number: int, position: EyePosition) -> IrisTemplate:
    """An eye of person `number`: every bit by chance, nine in ten valid."""
    random = np.random.default_rng((number, 2, position))
    mask = _bits(random, 0.9)
    return IrisTemplate(_bits(random, 0.5) & mask, mask, position, 80)


def face(number: int) -> FaceTemplate:
    """The face of person `number`: a direction by chance."""
    return _face(np.random.default_rng((number, 3)).normal(size=_VALUES))


def _eye_again(iris: IrisTemplate, seed: int) -> IrisTemplate:
    """One valid bit in ten is another, one in twenty is masked."""
    random = np.random.default_rng((seed, 2, int(iris.eye)))
    mask = iris.mask & ~_bits(random, 0.05)
    return replace(iris, code=(iris.code ^ _bits(random, 0.1)) & mask, mask=mask)


def _face_again(face: FaceTemplate, seed: int) -> FaceTemplate:
    aside = np.random.default_rng((seed, 3)).normal(size=_VALUES)
    return _face(face.vector + 0.2 * aside / np.linalg.norm(aside))


def _face(direction: NDArray[np.floating]) -> FaceTemplate:
    vector = (direction / np.linalg.norm(direction)).astype(np.float32)
    return FaceTemplate(vector, 80, DlibEmbedder().digest)


def _bits(random: np.random.Generator, share: float) -> NDArray[np.uint64]:
    """Words in which so many bits are set."""
    bits = random.random(64 * _WORDS) < share
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def body_samples(body: Body) -> list[types_pb2.Sample]:
    """Everything a body shows as samples."""
    made = samples(body.fingers)
    for iris in body.irises:
        position = types_pb2.EyePosition.ValueType(iris.eye)
        made.append(
            types_pb2.Sample(modality=types_pb2.MODALITY_IRIS, eye=position, template=iris.to_bytes())
        )
    if body.face is not None:
        made.append(types_pb2.Sample(modality=types_pb2.MODALITY_FACE, template=body.face.to_bytes()))
    return made


def missing_eyes(eyes: Iterable[EyePosition]) -> list[types_pb2.MissingEye]:
    """These eyes declared missing."""
    return [
        types_pb2.MissingEye(position=types_pb2.EyePosition.ValueType(eye), reason=_NOT_CAPTURED)
        for eye in eyes
    ]


def enroll_body(request_id: str, number: int, body: Body) -> enrollment_pb2.EnrollRequest:
    """An Enroll request under the NIK of person `number`; what the body does not show is declared missing."""
    return enrollment_pb2.EnrollRequest(
        request_id=request_id,
        nik=made_up_nik(number),
        samples=body_samples(body),
        missing=absent(body.fingers),
        missing_eyes=missing_eyes({RIGHT, LEFT} - {iris.eye for iris in body.irises}),
        missing_face=_NOT_CAPTURED if body.face is None else types_pb2.MISSING_REASON_UNSPECIFIED,
    )


def identify_body(body: Body) -> identification_pb2.IdentifyRequest:
    """A search for a body."""
    return identification_pb2.IdentifyRequest(samples=body_samples(body), max_candidates=20)


def shown_eyes(shares: Sequence[types_pb2.IrisShare]) -> list[tuple[EyePosition, EyePosition]]:
    """Which eyes were compared with which."""
    return [(EyePosition(share.probe), EyePosition(share.reference)) for share in shares]
