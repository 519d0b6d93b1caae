"""One table: error class to gRPC status code and stable reason.

The most derived class wins; whatever is not in the table is a fault of the service: INTERNAL.
"""

from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from capture.errors import CaptureError, ImageRefused, ModelUnavailable, RecordRefused, TemplateRefused
from matching.errors import MatchingError
from rekam.errors import (
    DeadlinePassed,
    InvalidNik,
    InvalidRequest,
    NotFound,
    Overloaded,
    QueueFull,
    RekamError,
    RequestConflict,
    ShuttingDown,
    Starting,
    StoreDamaged,
    StoreDisconnected,
    StoreError,
    StoreFull,
    WaitTooLong,
    WrongState,
)

DOMAIN = "rekam"
RETRY_SECONDS = 1.0

STATUS_CODES: dict[type[Exception], tuple[Code.ValueType, str]] = {
    InvalidNik: (Code.INVALID_ARGUMENT, "INVALID_NIK"),
    InvalidRequest: (Code.INVALID_ARGUMENT, "INVALID_REQUEST"),
    ImageRefused: (Code.INVALID_ARGUMENT, "IMAGE_REFUSED"),
    TemplateRefused: (Code.INVALID_ARGUMENT, "TEMPLATE_REFUSED"),
    RecordRefused: (Code.INVALID_ARGUMENT, "RECORD_REFUSED"),
    NotFound: (Code.NOT_FOUND, "NOT_FOUND"),
    RequestConflict: (Code.ALREADY_EXISTS, "REQUEST_CONFLICT"),
    WrongState: (Code.FAILED_PRECONDITION, "WRONG_STATE"),
    DeadlinePassed: (Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    Starting: (Code.UNAVAILABLE, "STARTING"),
    ShuttingDown: (Code.UNAVAILABLE, "SHUTTING_DOWN"),
    QueueFull: (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    WaitTooLong: (Code.RESOURCE_EXHAUSTED, "WAIT_TOO_LONG"),
    StoreFull: (Code.RESOURCE_EXHAUSTED, "STORE_FULL"),
    StoreDamaged: (Code.DATA_LOSS, "STORE_DAMAGED"),
    StoreDisconnected: (Code.UNAVAILABLE, "STORE_DISCONNECTED"),
    StoreError: (Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
    ModelUnavailable: (Code.FAILED_PRECONDITION, "MODEL_UNAVAILABLE"),
    CaptureError: (Code.INVALID_ARGUMENT, "CAPTURE_FAILED"),
    MatchingError: (Code.INTERNAL, "MATCHING_FAILED"),
    RekamError: (Code.INTERNAL, "INTERNAL"),
}


def code_and_reason(error: Exception) -> tuple[str, str]:
    """Name of the gRPC code of an error, and its stable reason."""
    known = next((kind for kind in type(error).__mro__ if kind in STATUS_CODES), None)
    code, reason = (Code.INTERNAL, "INTERNAL") if known is None else STATUS_CODES[known]
    return Code.Name(code), reason


def status_of(error: Exception) -> Status:
    """The gRPC status of an error, with details: reason, fields at fault, resource, retry advice.

    The text of an error that is not in the table stays in the log: it may tell what nobody should read.
    """
    known = next((kind for kind in type(error).__mro__ if kind in STATUS_CODES), None)
    if known is None:
        return _status(Code.INTERNAL, "internal error; the log of the service has it", [_reason("INTERNAL")])
    code, reason = STATUS_CODES[known]
    return _status(code, str(error), [_reason(reason, error), *_details(error, code)])


def _details(error: Exception, code: Code.ValueType) -> list[Message]:
    match error:
        case InvalidRequest():
            violations = [
                BadRequest.FieldViolation(field=f, description=text) for f, text in error.violations
            ]
            return [BadRequest(field_violations=violations)]
        case InvalidNik():
            return [
                BadRequest(field_violations=[BadRequest.FieldViolation(field="nik", description=str(error))])
            ]
        case NotFound():
            return [ResourceInfo(resource_type=error.kind, resource_name=error.id, description=str(error))]
        case Overloaded():
            return [_retry_in(error.retry_after)]
        case _ if code == Code.UNAVAILABLE:
            return [_retry_in(RETRY_SECONDS)]
        case _:
            return []


def _retry_in(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(round(1000 * seconds))
    return RetryInfo(retry_delay=delay)


def _reason(reason: str, error: Exception | None = None) -> ErrorInfo:
    metadata = {"problem": str(error.problem)} if isinstance(error, ImageRefused) else {}
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _status(code: Code.ValueType, text: str, details: list[Message]) -> Status:
    packed = []
    for detail in details:
        packed.append(PackedDetail())
        packed[-1].Pack(detail)
    return Status(code=code, message=text, details=packed)
