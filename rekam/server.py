"""The gRPC server: reads requests, calls the workflow, writes answers. No rule of the registry lives here."""

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from importlib.metadata import version
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from capture.errors import CaptureError
from matching.errors import MatchingError
from rekam import codec
from rekam.capturing import Check
from rekam.config import Settings
from rekam.errors import DeadlinePassed, InvalidRequest, RekamError
from rekam.exchange import Recapture
from rekam.status import status_of
from rekam.v1 import (
    case_pb2,
    case_pb2_grpc,
    enrollment_pb2,
    enrollment_pb2_grpc,
    gallery_pb2,
    gallery_pb2_grpc,
    identification_pb2,
    identification_pb2_grpc,
    quality_pb2,
    quality_pb2_grpc,
)
from rekam.workflow import Workflow

log = logging.getLogger(__name__)

HANDLER_THREADS = 32
MOST_CALLS = 64
"""Calls accepted at once; one more is refused with RESOURCE_EXHAUSTED instead of waiting for its turn."""
STOP_SECONDS = 30

_MODULES = (enrollment_pb2, identification_pb2, case_pb2, quality_pb2, gallery_pb2)
SERVICES = tuple(
    service.full_name for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()
)

Q = TypeVar("Q")
A = TypeVar("A")


class _Unreadable:
    """Stands for a message whose bytes are no request."""


class _ReadRequests(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Hands bytes that cannot be read to the method as `_Unreadable`: gRPC alone would say INTERNAL."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],  # type: ignore[type-arg]
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:  # type: ignore[type-arg]
        """Wrap the methods of our own services."""
        handler = continuation(details)
        if handler is None or not details.method.startswith("/rekam."):
            return handler
        method, decode = handler.unary_unary, handler.request_deserializer
        if method is None or decode is None:
            return handler

        def read(data: bytes) -> object:
            try:
                return decode(data)
            except DecodeError:
                return _Unreadable()

        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=read, response_serializer=handler.response_serializer
        )


class _Calls:
    """How many calls are under way, from the request to the last byte of the answer. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0

    def begin(self, context: grpc.ServicerContext) -> None:
        """Count a call until it is over."""
        with self._changed:
            self._number += 1
        if not context.add_callback(self._end):
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._number -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until none is under way, no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: self._number == 0, seconds)


class _Service:
    def __init__(self, workflow: Workflow, calls: _Calls) -> None:
        self._workflow = workflow
        self.calls = calls


S = TypeVar("S", bound=_Service)


def answered(method: Callable[[S, Q, grpc.ServicerContext], A]) -> Callable[[S, Q, grpc.ServicerContext], A]:
    """Turn errors into gRPC statuses by the table in `rekam.status`; unknown ones are logged with a trace."""

    @wraps(method)
    def wrapper(service: S, request: Q, context: grpc.ServicerContext) -> A:
        service.calls.begin(context)
        try:
            if isinstance(request, _Unreadable):
                raise InvalidRequest([("", "the bytes are no message of this method")])
            return method(service, request, context)
        except (RekamError, CaptureError, MatchingError) as error:
            log.info("%s: %s", method.__name__, type(error).__name__)
            failure: Exception = error
        except Exception as error:
            log.exception("%s failed", method.__name__)
            failure = error
        context.abort_with_status(rpc_status.to_status(status_of(failure)))
        raise failure  # not reached: abort_with_status raises

    return wrapper


def deadline(context: grpc.ServicerContext) -> Check:
    """What the workflow calls between stages: it raises when the caller waits no more."""

    def check() -> None:
        remaining = context.time_remaining()
        if not context.is_active() or (remaining is not None and remaining <= 0):
            raise DeadlinePassed("the deadline passed before anything was recorded: send it again")

    return check


class EnrollmentService(_Service, enrollment_pb2_grpc.EnrollmentServiceServicer):
    """Records people."""

    @answered
    def Enroll(  # noqa: N802 - the name in the contract
        self, request: enrollment_pb2.EnrollRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.EnrollResponse:
        """Record a person under a NIK."""
        claim, presentation = codec.read_enroll(request)
        outcome = self._workflow.enroll(claim, presentation, deadline(context))
        if isinstance(outcome, Recapture):
            return enrollment_pb2.EnrollResponse(recapture=codec.write_recapture(outcome))
        return enrollment_pb2.EnrollResponse(encounter=codec.write_encounter(outcome))

    @answered
    def AddEncounter(  # noqa: N802
        self, request: enrollment_pb2.AddEncounterRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.AddEncounterResponse:
        """Add an encounter to a subject."""
        subject_id, presentation = codec.read_add_encounter(request)
        outcome = self._workflow.add_encounter(subject_id, presentation, deadline(context))
        if isinstance(outcome, Recapture):
            return enrollment_pb2.AddEncounterResponse(recapture=codec.write_recapture(outcome))
        return enrollment_pb2.AddEncounterResponse(encounter=codec.write_encounter(outcome))

    @answered
    def GetEncounter(  # noqa: N802
        self, request: enrollment_pb2.GetEncounterRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.GetEncounterResponse:
        """Return a recorded encounter."""
        recorded = self._workflow.encounter(codec.read_id(request.encounter_id, "encounter_id"))
        return enrollment_pb2.GetEncounterResponse(encounter=codec.write_encounter(recorded))

    @answered
    def DeleteSubject(  # noqa: N802
        self, request: enrollment_pb2.DeleteSubjectRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.DeleteSubjectResponse:
        """Erase a subject."""
        subject_id, request_id, digest = codec.read_delete_subject(request)
        erased = self._workflow.delete_subject(subject_id, request_id, digest, deadline(context))
        return enrollment_pb2.DeleteSubjectResponse(encounters_erased=erased.encounters)


class IdentificationService(_Service, identification_pb2_grpc.IdentificationServiceServicer):
    """Searches and verifies."""

    @answered
    def Identify(  # noqa: N802
        self, request: identification_pb2.IdentifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.IdentifyResponse:
        """Search everybody."""
        samples, wanted, exclude = codec.read_identify(request)
        identified = self._workflow.identify(
            samples, exclude=exclude, exhaustive=request.exhaustive, check=deadline(context)
        )
        return codec.write_identified(identified, wanted)

    @answered
    def Verify(  # noqa: N802
        self, request: identification_pb2.VerifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.VerifyResponse:
        """Compare with one subject."""
        samples, subject_id, nik = codec.read_verify(request)
        verified = self._workflow.verify(samples, subject_id=subject_id, nik=nik, check=deadline(context))
        return codec.write_verified(verified)


class CaseService(_Service, case_pb2_grpc.CaseServiceServicer):
    """Suspected double identities."""

    @answered
    def ListCases(  # noqa: N802
        self, request: case_pb2.ListCasesRequest, context: grpc.ServicerContext
    ) -> case_pb2.ListCasesResponse:
        """List cases, oldest first."""
        after, size = codec.read_page(request)
        # One more than fits tells whether there is another page.
        cases = self._workflow.cases(codec.read_case_state(request), after, size + 1)
        return case_pb2.ListCasesResponse(
            cases=[codec.write_case(case) for case in cases[:size]],
            next_page_token=cases[size - 1].case_id if len(cases) > size else "",
        )

    @answered
    def GetCase(  # noqa: N802
        self, request: case_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.GetCaseResponse:
        """Return one case with its evidence."""
        file = self._workflow.case(codec.read_id(request.case_id, "case_id"), samples=request.include_samples)
        return codec.write_case_file(file)

    @answered
    def ResolveCase(  # noqa: N802
        self, request: case_pb2.ResolveCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.ResolveCaseResponse:
        """Carry out what an operator found."""
        case_id, resolution, request_id, digest = codec.read_resolve_case(request)
        case = self._workflow.resolve_case(
            case_id,
            resolution,
            operator=request.operator,
            comment=request.comment,
            subject_id=request.subject_id or None,
            request_id=request_id,
            digest=digest,
            check=deadline(context),
        )
        return case_pb2.ResolveCaseResponse(case=codec.write_case(case))


class QualityService(_Service, quality_pb2_grpc.QualityServiceServicer):
    """Judges images at capture."""

    @answered
    def Assess(  # noqa: N802
        self, request: quality_pb2.AssessRequest, context: grpc.ServicerContext
    ) -> quality_pb2.AssessResponse:
        """Judge one image."""
        assessed = self._workflow.assess(codec.read_assess(request), deadline(context))
        return codec.write_assessed(assessed, template=request.include_template)


class GalleryService(_Service, gallery_pb2_grpc.GalleryServiceServicer):
    """Looks into the gallery."""

    @answered
    def Stats(  # noqa: N802
        self, request: gallery_pb2.StatsRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.StatsResponse:
        """Return counts and states."""
        return codec.write_stats(*self._workflow.stats(), version("rekam"))

    @answered
    def GetSubject(  # noqa: N802
        self, request: gallery_pb2.GetSubjectRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.GetSubjectResponse:
        """Return one subject."""
        subject_id, nik = codec.read_get_subject(request)
        subject = self._workflow.subject(subject_id=subject_id, nik=nik)
        return gallery_pb2.GetSubjectResponse(subject=codec.write_subject(subject))

    @answered
    def ListSubjects(  # noqa: N802
        self, request: gallery_pb2.ListSubjectsRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.ListSubjectsResponse:
        """List subjects in a stable order."""
        after, size = codec.read_page(request)
        subjects = self._workflow.subjects(after, size + 1)
        return gallery_pb2.ListSubjectsResponse(
            subjects=[codec.write_subject(subject) for subject in subjects[:size]],
            next_page_token=subjects[size - 1].subject_id if len(subjects) > size else "",
        )


class Server:
    """A running server. `port` is the one it listens on, also where the settings left the choice open."""

    def __init__(self, settings: Settings, workflow: Workflow) -> None:
        self._calls = _Calls()
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(HANDLER_THREADS, thread_name_prefix="rekam-call"),
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                # A case shows two encounters, each of which came in a message of its own.
                ("grpc.max_send_message_length", 2 * settings.max_message_bytes),
                # A second server on the same port must fail, not share it.
                ("grpc.so_reuseport", 0),
            ],
            interceptors=[_ReadRequests()],
            maximum_concurrent_rpcs=MOST_CALLS,
        )
        add, calls = self._server, self._calls
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(EnrollmentService(workflow, calls), add)
        identification_pb2_grpc.add_IdentificationServiceServicer_to_server(
            IdentificationService(workflow, calls), add
        )
        case_pb2_grpc.add_CaseServiceServicer_to_server(CaseService(workflow, calls), add)
        quality_pb2_grpc.add_QualityServiceServicer_to_server(QualityService(workflow, calls), add)
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(GalleryService(workflow, calls), add)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, add)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{host}:{settings.port}"
        try:
            self.port = self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise RekamError(f"cannot listen on {self.address}: is another server running there?") from error
        self.address = f"{host}:{self.port}"
        self._server.start()
        for service in ("", *SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Take no new calls, let the running ones finish within `STOP_SECONDS`."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(STOP_SECONDS)
        self._calls.wait(STOP_SECONDS)
        # What streams on, a watcher of health or a reflection client, would never end by itself.
        self._server.stop(0)
        stopped.wait()


def serve(settings: Settings, workflow: Workflow, started: Callable[[Server], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what runs. Call from the main thread."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server = Server(settings, workflow)
    started(server)
    # In slices: the signal may have reached another thread, which does not wake this one.
    while not stop.wait(0.2):
        pass
    server.stop()
