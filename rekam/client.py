"""The gRPC client behind the command line and the demo: one channel, six services, encounter folders."""

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_status import rpc_status

from capture.errors import RecordRefused
from capture.fingerprint.template import ExtractorChoice
from capture.formats.face_image import MAGIC as FACE_MAGIC
from capture.formats.finger_image import MAGIC as FINGER_MAGIC
from capture.formats.finger_image import read_finger_images
from capture.formats.iris_image import MAGIC as IRIS_MAGIC
from capture.formats.iris_image import iris_views, read_iris_images
from capture.sample import EyePosition, FingerPosition, Modality
from rekam.errors import InvalidRequest
from rekam.position import Position, modality_of
from rekam.v1 import types_pb2
from rekam.v1.admin_pb2_grpc import AdminServiceStub
from rekam.v1.case_pb2_grpc import CaseServiceStub
from rekam.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from rekam.v1.gallery_pb2_grpc import GalleryServiceStub
from rekam.v1.identification_pb2_grpc import IdentificationServiceStub
from rekam.v1.quality_pb2_grpc import QualityServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50151"
_LARGEST_MESSAGE = 48 * 2**20
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".wsq", ".jp2", ".j2k", ".iso"}
_EYE_WORDS = ("eye", "iris")
_POSITIONS: dict[str, Position] = {
    **{p.name.lower(): p for p in FingerPosition},
    **{str(int(p)): p for p in FingerPosition},
    **{f"{p.name.lower()}_{word}": p for p in EyePosition for word in _EYE_WORDS},
    **{f"{word}_{p.name.lower()}": p for p in EyePosition for word in _EYE_WORDS},
    **dict.fromkeys(_EYE_WORDS, EyePosition.UNKNOWN),
    "face": None,
    "portrait": None,
}
_MAGIC_BYTES = 4
_SPREAD = 1.5


Q = TypeVar("Q")
A = TypeVar("A")


class _Within(grpc.ClientCallDetails):
    """The details of a call, with another timeout."""

    def __init__(self, details: grpc.ClientCallDetails, timeout: float | None) -> None:
        self.method = details.method
        self.timeout = timeout
        self.metadata = details.metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _Patience(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Sends a call again when the server says so, after the time it says, while its timeout lasts.

    Nothing was done for a call that is refused so, and what records something has a request id.
    """

    def intercept_unary_unary(
        self,
        continuation: "Callable[[grpc.ClientCallDetails, Q], grpc.CallFuture[A]]",
        client_call_details: grpc.ClientCallDetails,
        request: Q,
    ) -> "grpc.CallFuture[A]":
        """The first answer that is not such a refusal, or the last before the timeout."""
        timeout = client_call_details.timeout
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(end - time.monotonic(), 0)
            call = continuation(_Within(client_call_details, left), request)
            advised = _advised_delay(call)
            if advised is None:
                return call
            # Those who were refused together do not come again together.
            pause = advised * random.uniform(1, _SPREAD)
            if end is not None and time.monotonic() + pause >= end:
                return call
            time.sleep(pause)


def _advised_delay(call: grpc.Call) -> float | None:
    """Seconds after which the server asks for the call again; None where it does not."""
    if call.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return None
    status = rpc_status.from_call(call)
    for detail in () if status is None else status.details:
        advice = RetryInfo()
        if detail.Unpack(advice):
            return advice.retry_delay.ToTimedelta().total_seconds()
    return None


class Client:
    """A channel to a Rekam server, with a stub for each service. Thread-safe; close it when done.

    A call that the server refuses for now (loading, too much to do) is sent again while its timeout lasts,
    unless not `patient`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, patient: bool = True) -> None:
        channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", 2 * _LARGEST_MESSAGE),  # a case shows two encounters
                ("grpc.max_send_message_length", _LARGEST_MESSAGE),
                # A server that was restarted is found again at once.
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.min_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            ],
        )
        self._channel = channel
        if patient:
            self._channel = grpc.intercept_channel(channel, _Patience())
        self.enrollment = EnrollmentServiceStub(self._channel)
        self.identification = IdentificationServiceStub(self._channel)
        self.cases = CaseServiceStub(self._channel)
        self.quality = QualityServiceStub(self._channel)
        self.gallery = GalleryServiceStub(self._channel)
        self.admin = AdminServiceStub(self._channel)

    def wait(self, seconds: float) -> bool:
        """Wait until the server answers; whether it did."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
        return True

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class SampleFile:
    """An image file and what it shows: a finger, an eye, or, where `position` is None, a face."""

    position: Position
    path: Path


@dataclass(frozen=True, slots=True)
class FingerFile:
    """An image file and the finger it shows."""

    position: FingerPosition
    path: Path


def sample_files(paths: Sequence[Path]) -> list[SampleFile]:
    """The fingers, eyes and faces in folders and files, told by the names of the files.

    What stands before a file's ending, less a trailing `_<number>`, is a finger by name or ISO code, an eye,
    or a face: `right_index.png`, `2.wsq`, `left_thumb_2.png`, `left_eye.png`, `eye_right_1.jp2`, `face.jpg`,
    `portrait.png`, `unknown.bmp` (a finger), `eye.png` (either). Where the name tells no position, what an
    exchange record says of itself holds. Raises `InvalidRequest` for any other file whose name tells nothing,
    for one given twice, and where there is no image.
    """
    files = []
    for path in _files(paths):
        told = _told(path)
        if not told:
            text = (
                f"{path.name} tells no finger, eye or face: name it right_thumb ... left_little, 1 ... 10, "
            )
            raise InvalidRequest([("files", f"{text}unknown, right_eye, left_eye or face")])
        files.append(SampleFile(told[0], path))
    return files


def file_of(path: Path, modality: Modality | None) -> SampleFile:
    """One file of this modality, where None of the one that its name or record tells, else a finger."""
    told = [p for p in _told(path) if modality in (None, modality_of(p))]
    unknown = {Modality.IRIS: EyePosition.UNKNOWN, Modality.FACE: None}
    otherwise = FingerPosition.UNKNOWN if modality is None else unknown.get(modality, FingerPosition.UNKNOWN)
    return SampleFile(told[0] if told else otherwise, path)


def finger_files(paths: Sequence[Path]) -> list[FingerFile]:
    """As `sample_files`, where only fingers are wanted: raises `InvalidRequest` for eyes and faces too."""
    files = []
    for file in sample_files(paths):
        if not isinstance(file.position, FingerPosition):
            raise InvalidRequest([("files", f"{file.path.name} shows no finger: {words(file.position)}")])
        files.append(FingerFile(file.position, file.path))
    return files


def words(position: Position) -> str:
    """A position as a person says it: `right index`, `left eye`, `face`."""
    return "face" if position is None else position.words


def sample(
    file: SampleFile | FingerFile,
    ppi: float | None,
    *,
    best_effort: bool = False,
    extractor: ExtractorChoice | None = None,
) -> types_pb2.Sample:
    """The file as a sample of the contract; the server chooses the extractor where it is None.

    `ppi` and `extractor` are told of fingers only.
    """
    made = types_pb2.Sample(image=file.path.read_bytes(), best_effort=best_effort)
    match file.position:
        case FingerPosition() as finger:
            made.modality = types_pb2.MODALITY_FINGERPRINT
            made.finger = types_pb2.FingerPosition.ValueType(finger)
            made.ppi = ppi or 0
            if extractor is not None:
                made.extractor = types_pb2.Extractor.Value(f"EXTRACTOR_{extractor.name}")
        case EyePosition() as eye:
            made.modality = types_pb2.MODALITY_IRIS
            made.eye = types_pb2.EyePosition.ValueType(eye)
        case None:
            made.modality = types_pb2.MODALITY_FACE
    return made


def words_of(error: grpc.RpcError, samples: Sequence[str] = ()) -> str:
    """What a failed call says, with the fields at fault, for a person; `samples` are named so in it."""
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    if not isinstance(error, grpc.Call):
        return str(error)
    lines = [f"{error.code().name}: {error.details()}"]
    for detail in () if status is None else status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            at_fault = [(_named(v.field, samples), v.description) for v in bad.field_violations]
            lines = [error.code().name, *(f"  {field}: {text}" for field, text in at_fault)]
    return "\n".join(lines)


def _named(field: str, samples: Sequence[str]) -> str:
    """A field of a request, a sample of it by its name: `samples[0].eye` is `left_eye.png.eye`."""
    found = re.match(r"samples\[(\d+)\]", field)
    known = found is not None and int(found[1]) < len(samples)
    return samples[int(found[1])] + field[found.end() :] if found and known else field


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGES) if path.is_dir() else [path]
        files.extend(inside)
    if not files:
        raise InvalidRequest([("files", f"no images in {', '.join(map(str, paths))}")])
    given: set[Path] = set()
    for path in files:
        if path.absolute() in given:
            raise InvalidRequest([("files", f"{path} is given twice")])
        given.add(path.absolute())
    return files


def _told(path: Path) -> tuple[Position, ...]:
    """The position that a file's name, or the record in it, tells; () where neither does."""
    stem = path.stem.lower().replace("-", "_")
    names = (stem, re.sub(r"_\d+$", "", stem))
    named = tuple(_POSITIONS[key] for name in names if (key := name.lstrip("0") or "0") in _POSITIONS)[:1]
    unknown = not named or (named[0] is not None and not named[0])
    return (_told_by_record(path) or named) if unknown else named


def _told_by_record(path: Path) -> tuple[Position, ...]:
    """What an exchange record shows, `UNKNOWN` where that is no single finger or eye; () for other files."""
    try:
        with path.open("rb") as file:
            magic = file.read(_MAGIC_BYTES)
            if magic not in (FINGER_MAGIC, IRIS_MAGIC, FACE_MAGIC):
                return ()
            data = magic + file.read()
    except (OSError, ValueError) as error:
        raise InvalidRequest([("files", f"{path.name} cannot be read: {error}")]) from error
    if magic == FACE_MAGIC:
        return (None,)
    try:
        if magic == IRIS_MAGIC:
            eyes = {view.eye for view in iris_views(read_iris_images(data))}
            return (EyePosition(_single(eyes, EyePosition)),)
        fingers = {image.position for image in read_finger_images(data).images}
        return (FingerPosition(_single(fingers, FingerPosition)),)
    except RecordRefused:
        # Whoever decodes it says what is wrong with it.
        return (EyePosition.UNKNOWN if magic == IRIS_MAGIC else FingerPosition.UNKNOWN,)


def _single(codes: set[int], kind: type[IntEnum]) -> int:
    """The one code where there is one and it is a known one, else 0."""
    [code] = codes if len(codes) == 1 else [0]
    return code if code in set(kind) else 0
