"""The log says what happened and names nobody: formats exactly, then a whole session, good and hostile."""

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from benchmarks.encounters import again, enroll_request, made_up_nik, samples
from benchmarks.hostile_requests import answer_to, hostile_requests
from rekam.client import Client
from rekam.config import LogFormat
from rekam.logs import JsonLines, TextLines, configure, fields
from rekam.v1 import (
    case_pb2,
    enrollment_pb2,
    gallery_pb2,
    identification_pb2,
    quality_pb2,
    types_pb2,
)
from tests.service import fingers

NIK = made_up_nik(0)
NAMED = "Siti-Rahayu.png"
START_SECONDS = 120


def record(
    text: str, *arguments: object, error: BaseException | None = None, **of: object
) -> logging.LogRecord:
    made = logging.LogRecord(
        "rekam.server",
        logging.INFO,
        __file__,
        1,
        text,
        arguments,
        None if error is None else (type(error), error, error.__traceback__),
    )
    made.__dict__.update(fields(**of))
    return made


def raised(text: str) -> Exception:
    def inner() -> None:
        raise ValueError(text)

    try:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError(f"again {text}") from error
    except RuntimeError as error:
        made = error
    return made


# Lines ------------------------------------------------------------------------------------------------


def test_a_json_line_has_the_event_and_its_fields() -> None:
    line = json.loads(JsonLines().format(record("call", method="Enroll", seconds=0.25, reason=None)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "rekam.server",
        "event": "call",
        "method": "Enroll",
        "seconds": 0.25,
    }


def test_a_text_line_has_the_same() -> None:
    line = TextLines().format(record("%d of %s", 3, "five", method="Enroll", seconds=0.25))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO rekam\.server: 3 of five method=Enroll seconds=0\.25", line
    )


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_what_may_be_a_nik_is_never_written(lines: logging.Formatter) -> None:
    said = lines.format(
        record("for %s", f"x{NIK}y", error=raised(NIK), request_id=f"a-{NIK}0", method=int(NIK) // 10**9)
    )
    assert "[digits]" in said
    assert NIK not in said
    assert NIK[:8] not in said.replace(str(int(NIK) // 10**9), "")


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_nobody_can_write_a_line_of_their_own(lines: logging.Formatter) -> None:
    said = lines.format(record("call\nforged", request_id='a"\r\n2026 ERROR forged\x1b[31m\u2028'))
    assert len(said.splitlines()) == 1
    assert said.isprintable()


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_of_an_exception_the_place_is_told_and_not_its_words(lines: logging.Formatter) -> None:
    said = lines.format(record("failed", error=raised("Siti Rahayu")))
    assert "Siti" not in said
    assert "raise ValueError" not in said
    assert re.search(
        r"ValueError at test_logs\.py:\d+ raised > test_logs\.py:\d+ inner; then RuntimeError", said
    )


def test_an_id_made_here_is_written_as_it_is() -> None:
    made = "e-1234567890123456abcd"
    assert json.loads(JsonLines().format(record("call", encounter_id=made)))["encounter_id"] == made


def test_it_is_configured_for_the_whole_process(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        configure(LogFormat.JSON)
        logging.getLogger("anybody").info("here")
        logging.getLogger("anybody").debug("not here")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(capsys.readouterr().err)["event"] == "here"


# A session --------------------------------------------------------------------------------------------

_VERBOSE = """
import logging, sys
import rekam.cli, rekam.logs
rekam.cli.configure_logs = lambda log_format: rekam.logs.configure(log_format, logging.DEBUG)
sys.argv = ["rekam", "serve", "--port", "0", "--workers", "2", "--data-dir", sys.argv[1]]
rekam.cli.main()
"""


class Verbose:
    """`rekam serve` in a process of its own, at the level of everything, and all it said."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["env", "REKAM_LOG_FORMAT=json", sys.executable, "-c", _VERBOSE, str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self.said = b""
        self._address: list[str] = []
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def address(self) -> str:
        """Where it listens, once it does."""
        assert self._listens.wait(START_SECONDS)
        assert self._address, self.said.decode()
        return self._address[0]

    def stop(self) -> str:
        """Stop it; everything it said."""
        self._process.terminate()
        self._reader.join(60)
        assert self._process.wait(60) == 0
        return self.said.decode()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            if found := re.search(rb"listens on ([0-9.:]+);", line):
                self._address.append(found[1].decode())
                self._listens.set()
        self._listens.set()
        self._process.stdout.close()


def session(address: str) -> None:
    """Everything people do with a service, and things they should not."""
    with Client(address) as client:
        enroll, cases, gallery = client.enrollment, client.cases, client.gallery
        for request_id in ("first", f"enroll-{NIK}"):
            enroll.Enroll(enroll_request(request_id, NIK, fingers(0)), timeout=60)
        held = enroll.Enroll(enroll_request("held", made_up_nik(1), again(fingers(0), 1)), timeout=60)
        enroll.GetEncounter(
            enrollment_pb2.GetEncounterRequest(encounter_id=held.encounter.encounter_id), timeout=60
        )
        client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=samples(again(fingers(0), 2))), timeout=60
        )
        client.identification.Verify(
            identification_pb2.VerifyRequest(samples=samples(again(fingers(0), 3)), nik=NIK), timeout=60
        )
        gallery.ListSubjects(gallery_pb2.ListSubjectsRequest(), timeout=60)
        cases.GetCase(
            case_pb2.GetCaseRequest(case_id=held.encounter.case_id, include_samples=True), timeout=60
        )
        cases.ResolveCase(
            case_pb2.ResolveCaseRequest(
                request_id="resolve",
                case_id=held.encounter.case_id,
                resolution=case_pb2.RESOLUTION_REJECTED,
                operator="Siti Rahayu",
                comment=f"{NIK} in {NAMED}",
            ),
            timeout=60,
        )
        refused: Sequence[tuple[grpc.UnaryUnaryMultiCallable, Message]] = (  # type: ignore[type-arg]
            (enroll.Enroll, enroll_request("second", f"{NIK}7", fingers(0))),
            (enroll.Enroll, enroll_request("third", NIK[:15], fingers(0))),
            (enroll.Enroll, enroll_request(f"{NIK}\n{NIK}", NIK, ())),
            (gallery.GetSubject, gallery_pb2.GetSubjectRequest(nik=made_up_nik(8))),
            (gallery.GetSubject, gallery_pb2.GetSubjectRequest(subject_id=NIK)),
            (cases.ListCases, case_pb2.ListCasesRequest(page_token=NIK)),
            (cases.GetCase, case_pb2.GetCaseRequest(case_id=NAMED)),
            (
                client.quality.Assess,
                quality_pb2.AssessRequest(
                    sample=types_pb2.Sample(
                        modality=types_pb2.MODALITY_FINGERPRINT, image=b"\x89PNG\r\n\x1a\n" + NIK.encode()
                    )
                ),
            ),
        )
        for call, request in refused:
            with pytest.raises(grpc.RpcError):
                call(request, timeout=60)
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        for row in hostile_requests():
            answer_to(channel, row)
        for method in (NIK, NAMED):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(f"/rekam.v1.{method}", None, None)(NIK.encode(), timeout=10)


def names_nobody(said: str) -> None:
    assert not re.search(r"\d{16}", re.sub(r"e-[0-9a-f]{20}", "", said))
    assert NIK[:12] not in said
    for word in ("Siti", "Rahayu", NAMED):
        assert word not in said
    # Templates as bytes, as hexadecimals, as Python or protobuf print them: any eight of them in a row.
    for finger in (*fingers(0), *again(fingers(0), 1)):
        template = finger.to_bytes()
        for start in range(0, len(template) - 8, 4):
            part = template[start : start + 8]
            if len(set(part)) < 5:
                continue  # zeros are nobody's
            assert part.hex() not in said.lower()
            assert repr(part)[2:-1] not in said
            assert "".join(f"\\{byte:03o}" for byte in part) not in said
    for magic in ("\\x89PNG", "\\211PNG", "JFIF"):
        assert magic not in said


def test_a_whole_session_names_nobody_at_any_level(tmp_path: Path) -> None:
    server = Verbose(tmp_path)
    try:
        session(server.address())
    finally:
        said = server.stop()
    names_nobody(said)
    # Every line is JSON, and every call is told.
    lines = [json.loads(line) for line in said.splitlines()]
    calls = [line for line in lines if line["event"] == "call"]
    assert len(calls) > 100
    [held] = [line for line in calls if line.get("request_id") == "held"]
    assert (held["method"], held["code"]) == ("Enroll", "OK")
    assert held["encounter_id"].startswith("e-")
    of_it = [held[f"{stage}_seconds"] for stage in ("read", "queue", "capture", "search", "commit")]
    assert 0 < sum(of_it) <= held["seconds"] + 0.001
    assert {line["reason"] for line in calls if line["code"] == "NOT_FOUND"} == {"NOT_FOUND"}
    assert [line for line in calls if line.get("request_id") == "enroll-[digits]"]
    assert not [line for line in lines if line["level"] == "error"]
    assert lines[-1]["event"] == "stopped"
