"""The gRPC client behind the command line and the demo: one channel, five services, encounter folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from capture.errors import RecordRefused
from capture.fingerprint.template import ExtractorChoice
from capture.formats.finger_image import MAGIC, read_finger_images
from capture.sample import FingerPosition
from rekam.errors import InvalidRequest
from rekam.v1 import types_pb2
from rekam.v1.case_pb2_grpc import CaseServiceStub
from rekam.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from rekam.v1.gallery_pb2_grpc import GalleryServiceStub
from rekam.v1.identification_pb2_grpc import IdentificationServiceStub
from rekam.v1.quality_pb2_grpc import QualityServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50151"
_LARGEST_MESSAGE = 48 * 2**20
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".wsq", ".jp2", ".j2k", ".iso"}
_POSITIONS = {p.name.lower(): p for p in FingerPosition} | {str(int(p)): p for p in FingerPosition}


class Client:
    """A channel to a Rekam server, with a stub for each service. Thread-safe; close it when done."""

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self._channel = grpc.insecure_channel(
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
        self.enrollment = EnrollmentServiceStub(self._channel)
        self.identification = IdentificationServiceStub(self._channel)
        self.cases = CaseServiceStub(self._channel)
        self.quality = QualityServiceStub(self._channel)
        self.gallery = GalleryServiceStub(self._channel)

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
class FingerFile:
    """An image file and the finger it shows."""

    position: FingerPosition
    path: Path


def finger_files(paths: Sequence[Path]) -> list[FingerFile]:
    """The fingers in folders and files, told by the names of the files.

    What stands before a file's ending, less a trailing `_<number>`, is a position by name or ISO code:
    `right_index.png`, `2.wsq`, `left_thumb_2.png`, `unknown.bmp`. Where the name tells none, a finger image
    record's own position holds. Raises `InvalidRequest` for any other file whose name tells no finger, for
    one given twice, and where there is no image.
    """
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
    return [FingerFile(_position(path), path) for path in files]


def sample(
    file: FingerFile,
    ppi: float | None,
    *,
    best_effort: bool = False,
    extractor: ExtractorChoice | None = None,
) -> types_pb2.Sample:
    """The file as a sample of the contract; the server chooses the extractor where it is None."""
    return types_pb2.Sample(
        modality=types_pb2.MODALITY_FINGERPRINT,
        finger=types_pb2.FingerPosition.ValueType(file.position),
        image=file.path.read_bytes(),
        ppi=ppi or 0,
        best_effort=best_effort,
        extractor=types_pb2.Extractor.Value(
            f"EXTRACTOR_{'UNSPECIFIED' if extractor is None else extractor.name}"
        ),
    )


def words_of(error: grpc.RpcError) -> str:
    """What a failed call says, with the fields at fault, for a person."""
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    if not isinstance(error, grpc.Call):
        return str(error)
    lines = [f"{error.code().name}: {error.details()}"]
    for detail in () if status is None else status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            lines = [f"{error.code().name}", *(f"  {v.field}: {v.description}" for v in bad.field_violations)]
    return "\n".join(lines)


def _position(path: Path) -> FingerPosition:
    stem = path.stem.lower().replace("-", "_")
    names = (stem, re.sub(r"_\d+$", "", stem))
    named = [_POSITIONS[key] for name in names if (key := name.lstrip("0") or "0") in _POSITIONS]
    if named and named[0] is not FingerPosition.UNKNOWN:
        return named[0]
    if (recorded := _recorded_position(path)) is not None:
        return recorded
    if named:
        return named[0]
    raise InvalidRequest(
        [("files", f"{path.name} tells no finger: name it right_thumb ... left_little, 1 ... 10, or unknown")]
    )


def _recorded_position(path: Path) -> FingerPosition | None:
    """The finger a finger image record shows, `UNKNOWN` where that is no single one; None for other files."""
    try:
        with path.open("rb") as file:
            data = file.read(len(MAGIC))
            if data != MAGIC:
                return None
            data += file.read()
        positions = {image.position for image in read_finger_images(data).images}
    except (OSError, ValueError) as error:
        raise InvalidRequest([("files", f"{path.name} cannot be read: {error}")]) from error
    except RecordRefused:
        return FingerPosition.UNKNOWN  # whoever decodes it says what is wrong with it
    single = positions.pop() if len(positions) == 1 else 0
    return FingerPosition(single) if single in set(FingerPosition) else FingerPosition.UNKNOWN
