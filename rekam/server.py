"""The gRPC server: reads requests, calls the workflow, writes answers. No rule of the registry lives here.

What happens to every call, in `_Door`: a place in its lane, or a refusal -> its request is read once there is
room for it -> the method -> its status. So neither many calls nor large ones fill the memory.
"""

import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from capture.errors import CaptureError
from matching.errors import MatchingError
from rekam import codec
from rekam.admission import Gate, Lane, calls_at_once
from rekam.capturing import Check
from rekam.config import Settings
from rekam.errors import DeadlinePassed, InvalidRequest, RekamError, Starting
from rekam.exchange import Recapture
from rekam.logs import fields
from rekam.metrics import Metrics, Stage, serve_metrics
from rekam.status import code_and_reason, status_of
from rekam.v1 import (
    admin_pb2,
    admin_pb2_grpc,
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

COMPUTING = frozenset({"Enroll", "AddEncounter", "Identify", "Verify", "Assess"})
"""Methods that extract or search; the others read and write records."""
_RECORDS_AT_ONCE = 8
_RECORDS_QUEUE = 64
_SPARE_THREADS = 16
"""For health, reflection, and telling those without a place so."""
_MOST_BEYOND = 1024
"""Calls without a place, of which each is about to be told; gRPC itself refuses more, without a reason."""
STOP_SECONDS = 30

_MODULES = (enrollment_pb2, identification_pb2, case_pb2, quality_pb2, gallery_pb2, admin_pb2)
SERVICES = tuple(
    service.full_name for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()
)

Decoder = Callable[[bytes], Message]
Method = Callable[[Message, grpc.ServicerContext], Message]


class _Calls:
    """How many calls are under way, from their arrival to the last byte of the answer. Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._changed = threading.Condition()
        self._number = 0
        metrics.in_flight.set_function(lambda: self._number)

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


class _Gone(Exception):
    """No request came, and gRPC has answered: the client went away, or its message was too large."""


class _Door(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """What every call of our services passes on its way in and out. Closed until `open` is set."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        at_once = calls_at_once(settings.workers)
        self.open = False
        self.calls = _Calls(metrics)
        self.places = at_once + settings.max_queue + _RECORDS_AT_ONCE + _RECORDS_QUEUE
        self._metrics = metrics
        self._largest = settings.max_message_bytes
        self._memory = Gate(settings.max_request_bytes)
        self._recording = Gate(_RECORDS_AT_ONCE)
        self._computing_lane = Lane(at_once, settings.max_queue)
        self._records_lane = Lane(_RECORDS_AT_ONCE, _RECORDS_QUEUE)
        metrics.request_bytes.set_function(lambda: self._memory.taken)
        self._computing_lane.tell(metrics, "computing")
        self._records_lane.tell(metrics, "records")

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],  # type: ignore[type-arg]
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:  # type: ignore[type-arg]
        """Wrap the methods of our own services.

        They are handled as streams of one message: that of a unary call would be read before it could be
        refused, and bytes that are no message would be answered with INTERNAL.
        """
        handler = continuation(details)
        if handler is None or not details.method.startswith("/rekam."):
            return handler
        method, decode = handler.unary_unary, handler.request_deserializer
        if method is None or decode is None:
            return handler
        name = details.method.rpartition("/")[2]

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Message:
            return self._answer(name, messages, context, decode, method)

        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _answer(
        self,
        name: str,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        decode: Decoder,
        method: Method,
    ) -> Message:
        """Admit it, read it, do it, tell of it; errors become statuses by the table in `rekam.status`."""
        self.calls.begin(context)
        start = time.perf_counter()
        request: Message | None = None
        answer: Message | None = None
        failure: Exception | None = None
        with self._metrics.spending() as spent:
            try:
                if not self.open:
                    raise Starting("the service is starting")
                with self._admitted(name, messages, context, decode) as (lane, read):
                    request = read
                    with lane.in_line():
                        answer = method(request, context)
            except Exception as error:
                failure = error
        self._tell(name, request, answer, failure, time.perf_counter() - start, spent)
        if failure is None and answer is not None:
            return answer
        if isinstance(failure, _Gone) and failure.__cause__ is not None:
            raise failure.__cause__  # gRPC knows it
        status = rpc_status.to_status(status_of(failure or _Gone()))
        _let_go(failure)
        failure = request = None
        context.abort_with_status(status)
        raise AssertionError("not reached: abort_with_status raises")

    def _tell(
        self,
        name: str,
        request: Message | None,
        answer: Message | None,
        failure: Exception | None,
        seconds: float,
        spent: Mapping[Stage, float],
    ) -> None:
        """Count the call, and write its line of the log."""
        code, reason = ("OK", None) if failure is None else code_and_reason(failure)
        if isinstance(failure, _Gone):
            code, reason = "CANCELLED", "GONE"
        self._metrics.told(name, code, reason, seconds)
        surprise = None if isinstance(failure, _EXPECTED) else failure
        log.log(
            logging.INFO if surprise is None else logging.ERROR,
            "call",
            exc_info=surprise,
            extra=fields(
                method=name,
                code=code,
                reason=reason,
                request_id=getattr(request, "request_id", None) or None,
                encounter_id=_encounter_id(answer),
                seconds=round(seconds, 4),
                **{f"{stage}_seconds": round(of_stage, 4) for stage, of_stage in spent.items()},
            ),
        )

    @contextmanager
    def _admitted(
        self, name: str, messages: Iterator[bytes], context: grpc.ServicerContext, decode: Decoder
    ) -> Iterator[tuple[Lane, Message]]:
        """A place, and the request: its bytes count as held until the block ends."""
        check = deadline(context)
        if name not in COMPUTING:
            # So few of these are read and answered at a time that their bytes need no count.
            lane = self._records_lane
            with lane.place(context.time_remaining()), self._recording.entered(check):
                yield lane, self._read(messages, decode)[0]
            return
        lane = self._computing_lane
        with lane.place(context.time_remaining()):
            # How large a message is gRPC tells when it is there: until then it counts as the largest.
            held = self._largest
            self._memory.enter(held, check)
            try:
                request, size = self._read(messages, decode)
                self._memory.leave(held - size)
                held = size
                yield lane, request
            finally:
                self._memory.leave(held)

    def _read(self, messages: Iterator[bytes], decode: Decoder) -> tuple[Message, int]:
        """The one request of a call, and its bytes."""
        with self._metrics.stage(Stage.READ):
            try:
                data = next(messages, None)
            except grpc.RpcError as error:
                raise _Gone from error
        if data is None:
            raise InvalidRequest([("", "no message of this method came")])
        try:
            return decode(data), len(data)
        except DecodeError as error:
            raise InvalidRequest([("", "the bytes are no message of this method")]) from error


_EXPECTED = (RekamError, CaptureError, MatchingError, _Gone)


def _let_go(error: BaseException | None) -> None:
    """Forget what the calls on the way of an error held.

    They and the error hold each other, a large request with them, and the collector of such rings comes late.
    """
    seen: set[int] = set()  # foreign errors may be their own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _encounter_id(answer: Message | None) -> str | None:
    match answer:
        case (
            enrollment_pb2.EnrollResponse()
            | enrollment_pb2.AddEncounterResponse()
            | enrollment_pb2.GetEncounterResponse()
        ):
            return answer.encounter.encounter_id or None
        case _:
            return None


def deadline(context: grpc.ServicerContext) -> Check:
    """What is called between stages: it raises when the caller waits no more."""

    def check() -> None:
        remaining = context.time_remaining()
        if not context.is_active() or (remaining is not None and remaining <= 0):
            raise DeadlinePassed("the deadline passed before anything was recorded: send it again")

    return check


class _Service:
    workflow: Workflow
    """Set before the door is opened."""


class EnrollmentService(_Service, enrollment_pb2_grpc.EnrollmentServiceServicer):
    """Records people."""

    def Enroll(  # noqa: N802 - the name in the contract
        self, request: enrollment_pb2.EnrollRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.EnrollResponse:
        """Record a person under a NIK."""
        claim, presentation = codec.read_enroll(request)
        outcome = self.workflow.enroll(claim, presentation, deadline(context))
        if isinstance(outcome, Recapture):
            return enrollment_pb2.EnrollResponse(recapture=codec.write_recapture(outcome))
        return enrollment_pb2.EnrollResponse(encounter=codec.write_encounter(outcome))

    def AddEncounter(  # noqa: N802
        self, request: enrollment_pb2.AddEncounterRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.AddEncounterResponse:
        """Add an encounter to a subject."""
        subject_id, presentation = codec.read_add_encounter(request)
        outcome = self.workflow.add_encounter(subject_id, presentation, deadline(context))
        if isinstance(outcome, Recapture):
            return enrollment_pb2.AddEncounterResponse(recapture=codec.write_recapture(outcome))
        return enrollment_pb2.AddEncounterResponse(encounter=codec.write_encounter(outcome))

    def GetEncounter(  # noqa: N802
        self, request: enrollment_pb2.GetEncounterRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.GetEncounterResponse:
        """Return a recorded encounter."""
        recorded = self.workflow.encounter(codec.read_id(request.encounter_id, "encounter_id"))
        return codec.write_signed(recorded, self.workflow.signature(recorded.encounter_id))

    def DeleteSubject(  # noqa: N802
        self, request: enrollment_pb2.DeleteSubjectRequest, context: grpc.ServicerContext
    ) -> enrollment_pb2.DeleteSubjectResponse:
        """Erase a subject."""
        subject_id, request_id, digest = codec.read_delete_subject(request)
        erased = self.workflow.delete_subject(subject_id, request_id, digest, deadline(context))
        return enrollment_pb2.DeleteSubjectResponse(encounters_erased=erased.encounters)


class IdentificationService(_Service, identification_pb2_grpc.IdentificationServiceServicer):
    """Searches and verifies."""

    def Identify(  # noqa: N802
        self, request: identification_pb2.IdentifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.IdentifyResponse:
        """Search everybody."""
        samples, wanted, exclude = codec.read_identify(request)
        identified = self.workflow.identify(
            samples, exclude=exclude, exhaustive=request.exhaustive, check=deadline(context)
        )
        return codec.write_identified(identified, wanted)

    def Verify(  # noqa: N802
        self, request: identification_pb2.VerifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.VerifyResponse:
        """Compare with one subject."""
        samples, subject_id, nik = codec.read_verify(request)
        verified = self.workflow.verify(samples, subject_id=subject_id, nik=nik, check=deadline(context))
        return codec.write_verified(verified)


class CaseService(_Service, case_pb2_grpc.CaseServiceServicer):
    """Suspected double identities."""

    def ListCases(  # noqa: N802
        self, request: case_pb2.ListCasesRequest, context: grpc.ServicerContext
    ) -> case_pb2.ListCasesResponse:
        """List cases, oldest first."""
        after, size = codec.read_page(request)
        # One more than fits tells whether there is another page.
        cases = self.workflow.cases(codec.read_case_state(request), after, size + 1)
        return case_pb2.ListCasesResponse(
            cases=[codec.write_case(case) for case in cases[:size]],
            next_page_token=cases[size - 1].case_id if len(cases) > size else "",
        )

    def GetCase(  # noqa: N802
        self, request: case_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.GetCaseResponse:
        """Return one case with its evidence."""
        file = self.workflow.case(codec.read_id(request.case_id, "case_id"), samples=request.include_samples)
        return codec.write_case_file(file)

    def ResolveCase(  # noqa: N802
        self, request: case_pb2.ResolveCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.ResolveCaseResponse:
        """Carry out what an operator found."""
        case_id, resolution, request_id, digest = codec.read_resolve_case(request)
        case = self.workflow.resolve_case(
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

    def Assess(  # noqa: N802
        self, request: quality_pb2.AssessRequest, context: grpc.ServicerContext
    ) -> quality_pb2.AssessResponse:
        """Judge one image."""
        assessed = self.workflow.assess(codec.read_assess(request), deadline(context))
        return codec.write_assessed(assessed, template=request.include_template)


class GalleryService(_Service, gallery_pb2_grpc.GalleryServiceServicer):
    """Looks into the gallery."""

    def Stats(  # noqa: N802
        self, request: gallery_pb2.StatsRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.StatsResponse:
        """Return counts and states."""
        return codec.write_stats(*self.workflow.stats(), self.workflow.index_sizes(), version("rekam"))

    def GetSubject(  # noqa: N802
        self, request: gallery_pb2.GetSubjectRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.GetSubjectResponse:
        """Return one subject."""
        subject_id, nik = codec.read_get_subject(request)
        subject = self.workflow.subject(subject_id=subject_id, nik=nik)
        return gallery_pb2.GetSubjectResponse(subject=codec.write_subject(subject))

    def ListSubjects(  # noqa: N802
        self, request: gallery_pb2.ListSubjectsRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.ListSubjectsResponse:
        """List subjects in a stable order."""
        after, size = codec.read_page(request)
        subjects = self.workflow.subjects(after, size + 1)
        return gallery_pb2.ListSubjectsResponse(
            subjects=[codec.write_subject(subject) for subject in subjects[:size]],
            next_page_token=subjects[size - 1].subject_id if len(subjects) > size else "",
        )


class AdminService(_Service, admin_pb2_grpc.AdminServiceServicer):
    """What only the operator of the service may ask."""

    def Backup(  # noqa: N802
        self, request: admin_pb2.BackupRequest, context: grpc.ServicerContext
    ) -> admin_pb2.BackupResponse:
        """Copy all records into a folder."""
        return codec.write_backed_up(self.workflow.back_up(request.name, deadline(context)))


class Server:
    """A running server. `port` is the one it listens on, also where the settings left the choice open.

    Without a workflow it refuses calls as STARTING, and its health is NOT_SERVING, until `ready` brings one.
    `metrics` are to be those of the workflow.
    """

    def __init__(
        self, settings: Settings, workflow: Workflow | None = None, metrics: Metrics | None = None
    ) -> None:
        if metrics is None:
            metrics = Metrics() if workflow is None else workflow.metrics
        self._metrics = metrics
        self._door = _Door(settings, self._metrics)
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(self._door.places + _SPARE_THREADS, thread_name_prefix="rekam-call"),
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                # A case shows two encounters, each of which came in a message of its own.
                ("grpc.max_send_message_length", 2 * settings.max_message_bytes),
                # A second server on the same port must fail, not share it.
                ("grpc.so_reuseport", 0),
                # Else tens of megabytes of each request arrive before anybody reads it.
                ("grpc.http2.bdp_probe", 0),
                # A client whose link broke in the middle of a request must not keep its place.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
            interceptors=[self._door],
            maximum_concurrent_rpcs=self._door.places + _MOST_BEYOND,
        )
        enrollment, identification, cases = EnrollmentService(), IdentificationService(), CaseService()
        quality, gallery, admin = QualityService(), GalleryService(), AdminService()
        self._services = enrollment, identification, cases, quality, gallery, admin
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(enrollment, self._server)
        identification_pb2_grpc.add_IdentificationServiceServicer_to_server(identification, self._server)
        case_pb2_grpc.add_CaseServiceServicer_to_server(cases, self._server)
        quality_pb2_grpc.add_QualityServiceServicer_to_server(quality, self._server)
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(gallery, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
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
        self.metrics_port: int | None = None
        if settings.metrics_port is not None:
            self.metrics_port, self._stop_metrics = serve_metrics(
                self._metrics, settings.host, settings.metrics_port
            )
        self._say_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.start()
        if workflow is not None:
            self.ready(workflow)

    def ready(self, workflow: Workflow) -> None:
        """Take calls from now on."""
        for service in self._services:
            service.workflow = workflow
        self._metrics.follow(workflow.sizes)
        self._door.open = True
        self._metrics.ready.set(1)
        self._say_health(health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Take no new calls, let the running ones finish within `STOP_SECONDS`."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(STOP_SECONDS)
        self._door.calls.wait(STOP_SECONDS)
        # What streams on, a watcher of health or a reflection client, would never end by itself.
        self._server.stop(0)
        stopped.wait()
        if self.metrics_port is not None:
            self._stop_metrics()

    def _say_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)


def serve(settings: Settings, open_workflow: Callable[[Metrics], Workflow]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what runs. Call from the main thread.

    The port answers while the workflow is still being opened: calls are told to come again.
    """
    metrics = Metrics()
    server = Server(settings, metrics=metrics)
    try:
        workflow = open_workflow(metrics)
        try:
            stop = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            server.ready(workflow)
            counts, _, _ = workflow.stats()
            log.info(
                "Rekam %s listens on %s; %d subjects and %d open cases in %s",
                version("rekam"),
                server.address,
                counts.subjects,
                counts.open_cases,
                settings.data_dir,
            )
            # In slices: the signal may have reached another thread, which does not wake this one.
            while not stop.wait(0.2):
                pass
        finally:
            server.stop()
            workflow.close()
    finally:
        server.stop()
    log.info("stopped")
