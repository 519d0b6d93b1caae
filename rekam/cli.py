"""The command `rekam`: the server, its clients, and the offline tools."""

import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import grpc
import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from capture.errors import CaptureError
from capture.fingerprint.extract import to_500_ppi
from capture.fingerprint.nfiq2 import nfiq2
from capture.fingerprint.template import ExtractorChoice
from capture.sample import EyePosition, FingerPosition, Modality
from devices.errors import DeviceError
from matching.errors import MatchingError
from rekam.client import DEFAULT_ADDRESS, Client, SampleFile, file_of, sample, sample_files, words, words_of
from rekam.config import Settings, load_settings
from rekam.errors import InvalidRequest, RekamError
from rekam.faults import say_fault
from rekam.logs import configure as configure_logs
from rekam.metrics import Metrics
from rekam.offline.copy_store import copy_store_command
from rekam.offline.dedup_command import dedup_command
from rekam.offline.evaluate_person_command import evaluate_person
from rekam.offline.evaluate_prints import evaluate_app
from rekam.offline.evaluate_samples import evaluate_face, evaluate_iris
from rekam.offline.explain_command import explain
from rekam.offline.image_records import pack, unpack
from rekam.offline.import_command import import_command
from rekam.offline.prints import read_print
from rekam.offline.records import template_app
from rekam.offline.reextract_command import reextract_command
from rekam.offline.restore_command import restore_command
from rekam.server import serve
from rekam.station.capture_command import capture_command
from rekam.station.card_command import card_app
from rekam.station.devices_command import devices_app
from rekam.station.spool_command import spool_app
from rekam.v1 import (
    admin_pb2,
    case_pb2,
    enrollment_pb2,
    gallery_pb2,
    identification_pb2,
    quality_pb2,
    types_pb2,
)
from rekam.workflow import Workflow

# No pretty tracebacks: they print local variables, and here those are people's data.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The biometric core of a civil registry.",
)
cases_app = typer.Typer(no_args_is_help=True, help="Suspected double identities.")
app.add_typer(cases_app, name="cases")
evaluate_app.command("iris")(evaluate_iris)
evaluate_app.command("face")(evaluate_face)
evaluate_app.command("person")(evaluate_person)
app.add_typer(evaluate_app, name="evaluate")
app.command("explain")(explain)
app.command("dedup")(dedup_command)
app.command("import")(import_command)
app.command("reextract")(reextract_command)
app.command("restore")(restore_command)
app.command("copy-store")(copy_store_command)
record_app = typer.Typer(no_args_is_help=True, help="Images in exchange records and CBEFF files.")
record_app.command("unpack")(unpack)
record_app.command("pack")(pack)
app.add_typer(record_app, name="record")
app.add_typer(template_app, name="template")
app.command("capture")(capture_command)
app.add_typer(spool_app, name="spool")
app.add_typer(devices_app, name="devices")
app.add_typer(card_app, name="card")

_PREFIXES = (
    "DECISION",
    "REASON",
    "ENCOUNTER_STATE",
    "CASE_STATE",
    "RESOLUTION",
    "FINGER_POSITION",
    "ARRANGEMENT",
    "MODALITY",
)
out = Console()
err = Console(stderr=True)

Address = Annotated[str, typer.Option("--server", envvar="REKAM_SERVER", help="Address of the server.")]
Files = Annotated[
    list[Path],
    typer.Argument(
        exists=True,
        help="Images or folders of images, named by finger, eye or face: right_index.png, 2.wsq, "
        "left_eye.png, face.jpg; unknown.png, a finger, and eye.png tell no position.",
    ),
]
Ppi = Annotated[
    float | None,
    typer.Option(help="Resolution of fingers, pixels per inch, where their images do not declare it."),
]
Extractor = Annotated[
    ExtractorChoice | None,
    typer.Option(help="What extracts fingers: accurate or fast; as the server is set where not given."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the answer.")]


class ResolutionChoice(StrEnum):
    """What an operator found, as a word of the command line."""

    DIFFERENT_PEOPLE = "different-people"
    SAME_PERSON = "same-person"
    REJECTED = "rejected"


def main() -> None:
    """Run the command line; a fault is one message on stderr and exit status 1."""
    try:
        app()
    except (RekamError, CaptureError, MatchingError, DeviceError) as error:
        say_fault(str(error))
        sys.exit(1)
    except grpc.RpcError as error:
        say_fault(words_of(error))
        sys.exit(1)


@app.command("serve")
def serve_command(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the index.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
    allow_remote: Annotated[
        bool | None, typer.Option("--allow-remote", help="Allow an address other machines can reach.")
    ] = None,
    keep_images: Annotated[
        bool | None, typer.Option("--keep-images", help="Store the images beside the templates.")
    ] = None,
    extractor: Annotated[
        ExtractorChoice | None,
        typer.Option(
            help="What extracts images where a request does not say: accurate (the default) or fast."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that extract templates.")] = None,
) -> None:
    """Start the server. Every setting can also be given as REKAM_<NAME>; see docs/configuration.md."""
    settings = load_settings(
        data_dir=data_dir,
        host=host,
        port=port,
        allow_remote=allow_remote,
        keep_images=keep_images,
        extractor=extractor,
        workers=workers,
    )
    configure_logs(settings.log_format)
    serve(settings, lambda metrics: _open_workflow(settings, metrics))


@app.command("enroll")
def enroll_command(
    nik: Annotated[str, typer.Argument(help="National identity number, 16 digits.")],
    files: Files,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            help="POSITION=REASON, for example left_ring=amputated, right_eye=bandaged, face=not_captured; "
            "reasons: amputated, bandaged, unreadable, not_captured."
        ),
    ] = None,
    rest_missing: Annotated[
        bool,
        typer.Option("--rest-missing", help="Declare fingers, eyes and face not given as not_captured."),
    ] = False,
    birth_date: Annotated[str, typer.Option(help="YYYY-MM-DD, checked against the NIK.")] = "",
    request_id: Annotated[
        str | None, typer.Option(help="Repeat it to repeat a request safely; a new one is made where absent.")
    ] = None,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Accept poor samples: the person has no better ones.")
    ] = False,
    ppi: Ppi = None,
    extractor: Extractor = None,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Enrol a person, searched against everybody before the NIK is accepted.

    Exit status 2: held, a case was opened. 3: capture again, nothing was recorded.
    """
    given = sample_files(files)
    request = enrollment_pb2.EnrollRequest(
        request_id=request_id or f"cli-{secrets.token_hex(8)}",
        nik=nik,
        samples=[sample(f, ppi, best_effort=best_effort, extractor=extractor) for f in given],
        birth_date=birth_date,
    )
    _declare_missing(request, missing or [], given, rest=rest_missing)
    with _connected(server) as client, _naming(given), _repeatable(request.request_id):
        response = client.enrollment.Enroll(request, timeout=timeout)
    if as_json:
        _print_json(response)
    elif response.WhichOneof("outcome") == "recapture":
        _show_recapture(response.recapture)
    else:
        _show_encounter(response.encounter)
    if response.WhichOneof("outcome") == "recapture":
        raise typer.Exit(3)
    if response.encounter.state == types_pb2.ENCOUNTER_STATE_HELD:
        raise typer.Exit(2)


@app.command("identify")
def identify_command(
    files: Files,
    candidates: Annotated[int, typer.Option(min=1, max=20, help="How many candidates to show.")] = 5,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Compare with everybody instead of searching the index.")
    ] = False,
    ppi: Ppi = None,
    extractor: Extractor = None,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Search everybody for a person; records nothing. Exit status 2: nobody matches."""
    given = sample_files(files)
    request = identification_pb2.IdentifyRequest(
        samples=[sample(f, ppi, extractor=extractor) for f in given],
        max_candidates=candidates,
        exhaustive=exhaustive,
    )
    with _connected(server) as client, _naming(given):
        response = client.identification.Identify(request, timeout=timeout)
    if as_json:
        _print_json(response)
    else:
        verdict = _verdict(response.match)
        out.print(
            f"[bold]{verdict}[/]: {response.gallery_encounters} encounters searched; "
            f"a match needs LLR {response.match_llr:.1f}, a review {response.review_llr:.1f}",
            highlight=False,
        )
        _show_candidates(response.candidates)
    if response.match != identification_pb2.MATCH_YES:
        raise typer.Exit(2)


@app.command("verify")
def verify_command(
    files: Files,
    nik: Annotated[str, typer.Option(help="NIK the person claims.")] = "",
    subject: Annotated[str, typer.Option(help="Subject id the person claims.")] = "",
    ppi: Ppi = None,
    extractor: Extractor = None,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Compare a person with the one they claim to be. Exit status 2: not shown to be the same."""
    if bool(nik) == bool(subject):
        raise InvalidRequest([("", "give either --nik or --subject")])
    given = sample_files(files)
    samples = [sample(f, ppi, extractor=extractor) for f in given]
    request = identification_pb2.VerifyRequest(samples=samples)
    if subject:
        request.subject_id = subject
    else:
        request.nik = nik
    with _connected(server) as client, _naming(given):
        response = client.identification.Verify(request, timeout=timeout)
    if as_json:
        _print_json(response)
    else:
        out.print(f"[bold]{_verdict(response.match)}[/]: LLR {response.candidate.llr:.1f}, ", end="")
        out.print(f"accepted from {response.verify_llr:.1f}", highlight=False)
        _show_candidates([response.candidate])
    if response.match != identification_pb2.MATCH_YES:
        raise typer.Exit(2)


@app.command("assess")
def assess_command(
    image: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="An image of one finger, eye or face.")
    ],
    modality: Annotated[
        Modality | None,
        typer.Option(
            help="What it shows; where not given, what its name or record tells, else a fingerprint."
        ),
    ] = None,
    ppi: Ppi = None,
    extractor: Extractor = None,
    with_nfiq2: Annotated[
        bool, typer.Option("--nfiq2", help="Also give NFIQ 2, computed here (rekam[nfiq2]); not with --json.")
    ] = False,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 60,
    as_json: AsJson = False,
) -> None:
    """Judge an image without recording it. Exit status 2: unusable."""
    if with_nfiq2 and as_json:
        raise InvalidRequest([("--nfiq2", "cannot be given with --json, which prints the server's answer")])
    file = file_of(image, modality)
    if with_nfiq2 and not isinstance(file.position, FingerPosition):
        raise InvalidRequest([("--nfiq2", "judges fingerprints only")])
    request = quality_pb2.AssessRequest(sample=sample(file, ppi, extractor=extractor))
    with _connected(server) as client:
        response = client.quality.Assess(request, timeout=timeout)
    quality = response.quality
    if as_json:
        _print_json(response)
    else:
        detail, grid = "", ""
        if isinstance(file.position, FingerPosition):
            detail, grid = f", {response.minutiae} minutiae", f" at {response.ppi:.0f} ppi"
        elif isinstance(file.position, EyePosition):
            detail = f", {response.iris_bits} bits"
        out.print(
            f"[bold]quality {quality.score}[/] of 100{detail}; {response.format}, "
            f"{response.width} x {response.height} pixels{grid}",
            highlight=False,
        )
        for feedback in quality.feedback:
            out.print(f"  {feedback.code}: {feedback.advice}", highlight=False)
    if with_nfiq2:
        theirs = nfiq2(to_500_ppi(read_print(image, ppi)).image)
        out.print(f"NFIQ 2: {theirs.score}" if theirs.usable else "NFIQ 2: none", highlight=False)
    if not quality.usable:
        raise typer.Exit(2)


@app.command("stats")
def stats_command(server: Address = DEFAULT_ADDRESS, timeout: Timeout = 30, as_json: AsJson = False) -> None:
    """Show what the gallery holds."""
    with _connected(server) as client:
        response = client.gallery.Stats(gallery_pb2.StatsRequest(), timeout=timeout)
    if as_json:
        _print_json(response)
        return
    table = Table("what", "how much", show_header=False)
    for field in response.DESCRIPTOR.fields:
        table.add_row(field.name.replace("_", " "), str(getattr(response, field.name)))
    out.print(table)


@app.command("backup")
def backup_command(
    name: Annotated[str, typer.Argument(help="Name of the new folder in the service's backup_dir.")],
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 3600,
    as_json: AsJson = False,
) -> None:
    """Copy all records of a running service into a folder on its disk; enrolment goes on meanwhile."""
    with _connected(server) as client:
        response = client.admin.Backup(admin_pb2.BackupRequest(name=name), timeout=timeout)
    if as_json:
        _print_json(response)
        return
    out.print(
        f"{response.folder}: {response.subjects} subjects, {response.bytes} bytes, as of change "
        f"{response.sequence}; manifest SHA-256 {response.manifest_digest.hex()}",
        highlight=False,
        soft_wrap=True,
    )


@cases_app.command("list")
def cases_list(
    all_cases: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """List the cases that wait for an operator."""
    state = case_pb2.CASE_STATE_UNSPECIFIED if all_cases else case_pb2.CASE_STATE_OPEN
    request = case_pb2.ListCasesRequest(state=state)
    cases: list[case_pb2.Case] = []
    with _connected(server) as client:
        while True:
            page = client.cases.ListCases(request, timeout=timeout)
            cases.extend(page.cases)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if as_json:
        _print_json(case_pb2.ListCasesResponse(cases=cases))
        return
    table = Table(_whole("case"), _whole("opened"), _whole("NIK claimed"), _whole("decision"), "state")
    for case in cases:
        table.add_row(
            case.case_id,
            f"{case.open_time.ToDatetime():%Y-%m-%d}",
            case.nik,
            _short(types_pb2.Decision.Name(case.decision)),
            _short(case_pb2.Resolution.Name(case.resolution)) if case.resolution else "open",
        )
    out.print(table if cases else "no cases")


@cases_app.command("show")
def cases_show(
    case_id: Annotated[str, typer.Argument(help="Which case.")],
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """Show a case with its evidence."""
    with _connected(server) as client:
        response = client.cases.GetCase(case_pb2.GetCaseRequest(case_id=case_id), timeout=timeout)
    if as_json:
        _print_json(response)
        return
    if response.HasField("encounter"):
        _show_encounter(response.encounter)
    else:
        out.print(
            f"the encounter of case {response.case.case_id} was erased with its subject", highlight=False
        )
    if response.case.state == case_pb2.CASE_STATE_RESOLVED:
        found = _short(case_pb2.Resolution.Name(response.case.resolution))
        said = escape(f"resolved by {response.case.operator}: {found}. {response.case.comment}")
        out.print(said, highlight=False)


@cases_app.command("resolve")
def cases_resolve(
    case_id: Annotated[str, typer.Argument(help="Which case.")],
    resolution: Annotated[ResolutionChoice, typer.Argument(help="What was found.")],
    operator: Annotated[str, typer.Option(help="Who found it.")],
    comment: Annotated[str, typer.Option(help="Remark.")] = "",
    subject: Annotated[
        str, typer.Option(help="For same-person: the subject, if not the best candidate.")
    ] = "",
    request_id: Annotated[str | None, typer.Option(help="Repeat it to repeat a request safely.")] = None,
    server: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """Resolve a case: enrol the held encounter, merge it, or discard it."""
    request = case_pb2.ResolveCaseRequest(
        request_id=request_id or f"cli-{secrets.token_hex(8)}",
        case_id=case_id,
        resolution=case_pb2.Resolution.Value(f"RESOLUTION_{resolution.name}"),
        operator=operator,
        comment=comment,
        subject_id=subject,
    )
    with _connected(server) as client, _repeatable(request.request_id):
        response = client.cases.ResolveCase(request, timeout=timeout)
    if as_json:
        _print_json(response)
        return
    went = f", now of subject {response.case.subject_id}" if response.case.subject_id else ""
    out.print(f"case {case_id} resolved: {resolution.value}{went}", highlight=False, soft_wrap=True)


@app.command("version")
def version_command() -> None:
    """Print the version."""
    out.print(version("rekam"), highlight=False)


def _open_workflow(settings: Settings, metrics: Metrics) -> Workflow:
    """Open store and index; a rebuild shows a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("loading (the first start compiles, half a minute)", total=None)

        def progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, description="indexing what the store has new")

        return Workflow(settings, progress, metrics)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    with Client(address) as client:
        if not client.wait(10):
            raise RekamError(f"no server answers on {address}: start one with `rekam serve`")
        yield client


@contextmanager
def _naming(given: Sequence[SampleFile]) -> Iterator[None]:
    """Where samples are refused, say which files they are."""
    try:
        yield
    except grpc.RpcError as error:
        raise RekamError(words_of(error, [file.path.name for file in given])) from error


@contextmanager
def _repeatable(request_id: str) -> Iterator[None]:
    """Where no answer came, say how to ask again without doing it twice."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
            err.print(f"no answer came; to repeat it safely, add --request-id {request_id}", highlight=False)
        raise


def _declare_missing(
    request: enrollment_pb2.EnrollRequest, declared: Sequence[str], given: Sequence[SampleFile], *, rest: bool
) -> None:
    """Fill in what is missing: as declared, `POSITION=REASON`, and the rest as not captured."""
    fingers: dict[FingerPosition, types_pb2.MissingReason.ValueType] = {}
    eyes: dict[EyePosition, types_pb2.MissingReason.ValueType] = {}
    for text in declared:
        position, _, word = text.partition("=")
        name = position.strip().upper()
        try:
            reason = types_pb2.MissingReason.Value(f"MISSING_REASON_{word.strip().upper()}")
            if name == "FACE":
                request.missing_face = reason
            elif name.endswith(("_EYE", "_IRIS")):
                eyes[EyePosition[name.rpartition("_")[0]]] = reason
            else:
                fingers[FingerPosition[name]] = reason
        except (KeyError, ValueError) as error:
            reasons = "amputated, bandaged, unreadable, not_captured"
            raise InvalidRequest(
                [("missing", f"{text} is not POSITION=REASON; reasons: {reasons}")]
            ) from error
    if rest:
        not_captured = types_pb2.MISSING_REASON_NOT_CAPTURED
        # What is of unknown position may be any of its kind: the server says where that does not add up.
        shown = [file.position for file in given]
        for finger in FingerPosition:
            if finger and not any(p is finger for p in shown):
                fingers.setdefault(finger, not_captured)
        for eye in EyePosition:
            if eye and not any(p is eye for p in shown):
                eyes.setdefault(eye, not_captured)
        if None not in shown and not request.missing_face:
            request.missing_face = not_captured
    request.missing.extend(
        types_pb2.MissingFinger(position=types_pb2.FingerPosition.ValueType(finger), reason=reason)
        for finger, reason in fingers.items()
    )
    request.missing_eyes.extend(
        types_pb2.MissingEye(position=types_pb2.EyePosition.ValueType(eye), reason=reason)
        for eye, reason in eyes.items()
    )


def _print_json(message: Message) -> None:
    print(MessageToJson(message, preserving_proto_field_name=True))


def _show_encounter(encounter: types_pb2.Encounter) -> None:
    decision = _short(types_pb2.Decision.Name(encounter.decision))
    reasons = ", ".join(_short(types_pb2.Reason.Name(reason)) for reason in encounter.reasons)
    state = _short(types_pb2.EncounterState.Name(encounter.state))
    out.print(
        f"[bold]{decision.upper()}[/] ({reasons}); encounter {encounter.encounter_id} {state}",
        end="",
        soft_wrap=True,
    )
    out.print(f", subject {encounter.subject_id}" if encounter.subject_id else "", end="", highlight=False)
    out.print(f", case {encounter.case_id}" if encounter.case_id else "", highlight=False)
    for warning in encounter.evidence.nik_warnings:
        out.print(f"  NIK: {warning.text}", highlight=False)
    evidence = encounter.evidence
    if evidence.candidates:
        searched = f"{evidence.gallery_encounters} encounters searched; "
        needed = f"a match needs LLR {evidence.match_llr:.1f}, a review {evidence.review_llr:.1f}"
        out.print(f"  {searched}{needed}", highlight=False)
    _show_candidates(evidence.candidates[:5])


def _whole(title: str) -> Column:
    """A column that is never cut: what it shows is meant to be copied."""
    return Column(title, no_wrap=True)


def _show_candidates(candidates: Sequence[types_pb2.Candidate]) -> None:
    if not candidates:
        return
    table = Table(_whole("candidate"), _whole("NIK"), _whole("LLR"), "of which")
    for candidate in candidates:
        name = candidate.subject_id or candidate.encounter_id
        table.add_row(name, candidate.nik, f"{candidate.llr:.1f}", "\n".join(_of_which(candidate)))
    out.print(table)


def _of_which(candidate: types_pb2.Candidate) -> Iterator[str]:
    """What each modality adds to a candidate, and what there is to notice; a line each."""
    if candidate.fingers:
        yield f"fingers {candidate.fingers_llr:.1f} ({_matching(candidate.fingers)})"
    if candidate.irises:
        yield f"eyes {candidate.irises_llr:.1f} ({_matching(candidate.irises)})"
    if candidate.HasField("face"):
        yield f"face {candidate.face_llr:.1f}"
    if not (candidate.fingers or candidate.irises or candidate.HasField("face")):
        yield "nothing in common"
    if candidate.arrangement > types_pb2.ARRANGEMENT_AS_DECLARED:
        yield _short(types_pb2.Arrangement.Name(candidate.arrangement))
    if candidate.eyes == types_pb2.EYE_ARRANGEMENT_EYES_SWAPPED:
        yield "eyes swapped"
    for modality in candidate.conflict:
        yield f"denied by {_short(types_pb2.Modality.Name(modality))}"
    if candidate.held:
        yield "waits for an operator"


def _matching(shares: Sequence[types_pb2.FingerShare] | Sequence[types_pb2.IrisShare]) -> str:
    return f"{sum(share.llr > 0 for share in shares)} of {len(shares)}"


def _show_recapture(recapture: enrollment_pb2.Recapture) -> None:
    out.print("[bold]CAPTURE AGAIN[/]: nothing was recorded")
    for item in recapture.items:
        score = f" (quality {item.quality.score})" if item.HasField("quality") else ""
        out.print(f"  {_what(item)}{score}: {item.advice}", highlight=False)


def _what(item: enrollment_pb2.RecaptureItem) -> str:
    match item.modality:
        case types_pb2.MODALITY_FACE:
            return words(None)
        case types_pb2.MODALITY_IRIS:
            return words(EyePosition(item.eye))
        case _:
            return _short(types_pb2.FingerPosition.Name(item.position))


def _verdict(match: identification_pb2.Match.ValueType) -> str:
    return {
        identification_pb2.MATCH_YES: "MATCH",
        identification_pb2.MATCH_UNCERTAIN: "UNCERTAIN",
        identification_pb2.MATCH_NO: "NO MATCH",
    }[match]


def _short(name: str) -> str:
    """The word behind the prefix of an enum value."""
    for prefix in _PREFIXES:
        name = name.removeprefix(f"{prefix}_")
    return name.lower().replace("_", " ")
