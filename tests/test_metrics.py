"""What Prometheus reads: right, bounded, of nobody, and as docs/operations.md describes it."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

import rekam.metrics
from benchmarks.encounters import again, made_up_nik
from benchmarks.hostile_requests import answer_to, hostile_requests
from capture.errors import CaptureError
from matching.decision import Decision
from matching.errors import MatchingError
from rekam.config import load_settings
from rekam.errors import Overloaded, RekamError, StoreError
from rekam.metrics import Metrics, Sizes, Stage
from rekam.server import Server
from rekam.status import STATUS_CODES, status_of
from rekam.v1 import gallery_pb2
from tests.conftest import ROOT
from tests.service import Service, fingers, running

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
METHODS = {
    "AddEncounter",
    "Assess",
    "DeleteSubject",
    "Enroll",
    "GetCase",
    "GetEncounter",
    "GetSubject",
    "Identify",
    "ListCases",
    "ListSubjects",
    "ResolveCase",
    "Stats",
    "Verify",
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("metrics") / "data", metrics_port=0) as started:
        yield started


def scraped(server: Server) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_a_session_is_counted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekam.metrics, "_SIZES_SECONDS", 0.0)
    before = scraped(service.server)
    service.enroll(0, fingers(0))
    service.enroll(1, again(fingers(0), 1))  # held
    service.enroll(0, fingers(0))  # told the first answer once more
    service.identify(again(fingers(0), 2))
    with pytest.raises(grpc.RpcError):
        service.client.gallery.GetSubject(gallery_pb2.GetSubjectRequest(nik=made_up_nik(7)), timeout=10)
    after = scraped(service.server)

    def grown(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    assert grown("rekam_calls_total", method="Enroll", code="OK") == 3
    assert grown("rekam_calls_total", method="Identify", code="OK") == 1
    assert grown("rekam_calls_total", method="GetSubject", code="NOT_FOUND") == 1
    assert grown("rekam_calls_refused_total", reason="NOT_FOUND") == 1
    assert grown("rekam_call_seconds_count", method="Enroll") == 3
    assert grown("rekam_decisions_total", decision="UNIQUE") == 1
    assert grown("rekam_decisions_total", decision="DUPLICATE") == 1
    assert grown("rekam_commit_group_size_sum") == 2
    # What was answered before was not captured, searched and committed again.
    assert grown("rekam_stage_seconds_count", stage="commit") == 2
    assert grown("rekam_stage_seconds_count", stage="search") == 3
    assert grown("rekam_stage_seconds_count", stage="read") == 5
    assert of(after, "rekam_gallery_encounters") == 2
    assert of(after, "rekam_index_lag_changes") == 0
    assert of(after, "rekam_database_bytes") > 0
    assert of(after, "rekam_ready") == 1
    assert of(after, "rekam_request_bytes") == 0
    assert of(after, "rekam_lane_calls", lane="computing") == 0
    assert of(after, "process_resident_memory_bytes") > 2**20


def test_labels_take_few_values_and_name_nobody(service: Service) -> None:
    with grpc.insecure_channel(
        service.server.address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        for row in hostile_requests()[::3]:
            answer_to(channel, row)
        for method in ("GalleryService/Drop", "3201010101900001/Stats", "GalleryService/3201010101900001"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(f"/rekam.v1.{method}", None, None)(b"", timeout=10)
    values: dict[str, set[str]] = {}
    for _, labels in scraped(service.server):
        for name, value in labels:
            values.setdefault(name, set()).add(value)
    assert values.keys() <= {"method", "code", "reason", "stage", "lane", "decision", "le"}
    assert values["method"] <= METHODS
    assert values["code"] <= {"OK", *(code.name for code in grpc.StatusCode)}
    assert values["reason"] <= {"GONE", *(reason for _, reason in STATUS_CODES.values())}
    assert values["stage"] <= set(Stage)
    assert values["lane"] == {"computing", "records"}
    assert values["decision"] <= {decision.name for decision in Decision}


def test_metrics_are_off_where_no_port_is_set_and_a_taken_port_is_told(service: Service) -> None:
    assert load_settings().metrics_port is None
    taken = load_settings(port=0, metrics_port=service.server.metrics_port)
    with pytest.raises(RekamError, match=f"cannot serve metrics on .*{service.server.metrics_port}"):
        Server(taken)


def test_a_server_that_loads_is_not_ready_and_one_that_stopped_is_gone(tmp_path: Path) -> None:
    server = Server(load_settings(data_dir=tmp_path, port=0, metrics_port=0))
    assert of(scraped(server), "rekam_ready") == 0
    server.stop()
    with pytest.raises(urllib.error.URLError):
        scraped(server)


def test_sizes_are_read_once_a_scrape_and_a_database_that_fails_fails_no_scrape() -> None:
    metrics = Metrics()
    reads: list[int] = []

    def fails() -> Sizes:
        reads.append(1)
        raise StoreError("the database is away")

    metrics.follow(fails)
    assert b"rekam_database_bytes NaN" in generate_latest(metrics.registry)
    assert len(reads) == 1
    metrics.follow(lambda: Sizes(3, 0, 5))
    assert b"rekam_gallery_encounters 3.0" in generate_latest(metrics.registry)


def test_the_page_describes_every_metric_as_it_is() -> None:
    described = re.findall(r"^\| `(rekam_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE)
    exposed = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            exposed.append((name, family.type, labels, family.documentation))
    assert described == exposed


def test_the_page_lists_every_reason_with_its_code_and_whether_to_come_again() -> None:
    described = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \| (yes|no) \|$", PAGE, re.MULTILINE)
    shown = {}
    for kind in STATUS_CODES:
        error = kind("full", 1.0) if issubclass(kind, Overloaded) else _made(kind)
        status = status_of(error)
        advised = any(detail.type_url.endswith("RetryInfo") for detail in status.details)
        shown[STATUS_CODES[kind][1]] = (grpc_code(status.code), "yes" if advised else "no")
    assert {reason: (code, again) for reason, code, again in described} == shown


def grpc_code(number: int) -> str:
    [name] = [code.name for code in grpc.StatusCode if code.value[0] == number]
    return name


def _made(kind: type[Exception]) -> Exception:
    """An error of this kind, whatever it wants to be told."""
    error = kind.__new__(kind)
    assert isinstance(error, RekamError | CaptureError | MatchingError)
    error.args = ("fault",)
    for name in ("violations", "kind", "id", "problem", "retry_after"):
        if not hasattr(error, name):
            error.__dict__[name] = () if name == "violations" else ""
    return error
