"""The workflow without gRPC: who wins when two are at it, and what a passing deadline leaves behind."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from math import log10
from pathlib import Path

import pytest

from benchmarks.encounters import Fingers, add_request, again, enroll_request, made_up_nik
from capture.fingerprint.template import Extractor
from capture.sample import Modality
from matching.decision import Decision, Reason, Thresholds
from matching.encounter import Arrangement, EncounterComparison, FaceShare
from matching.errors import GalleryDamaged
from matching.gallery import Gallery
from rekam import codec
from rekam.config import load_settings
from rekam.errors import DeadlinePassed, InvalidRequest, NotFound, RequestConflict, ShuttingDown
from rekam.exchange import Match, Presented, Recapture, Recorded
from rekam.index import Index
from rekam.store import ChangeKind, Reader, Resolution, Transaction
from rekam.v1 import enrollment_pb2
from rekam.workflow import Workflow, _Request, identity
from tests.service import fingers


@pytest.fixture
def workflow(tmp_path: Path) -> Iterator[Workflow]:
    opened = Workflow(load_settings(data_dir=tmp_path / "data", workers=2))
    yield opened
    opened.close()


def enroll(workflow: Workflow, request: enrollment_pb2.EnrollRequest, **options: object) -> Recorded:
    outcome = workflow.enroll(*codec.read_enroll(request), **options)  # type: ignore[arg-type]
    assert not isinstance(outcome, Recapture)
    return outcome


class HeldWriter:
    """Keeps the writing thread busy until released: everybody searches before anybody is committed."""

    def __init__(self, workflow: Workflow) -> None:
        self._inside, self._go_on = threading.Event(), threading.Event()
        self._commits = workflow._commits
        self._threads = ThreadPoolExecutor(1)
        self._job = self._threads.submit(self._commits.submit, self._hold)
        assert self._inside.wait(10)

    def _hold(self, t: Transaction) -> None:
        self._inside.set()
        assert self._go_on.wait(30)

    def release_when_waiting(self, number: int) -> None:
        """Let it write once so many commits are queued."""
        while len(self._commits._waiting) < number:
            threading.Event().wait(0.001)
        self._go_on.set()
        self._job.result(10)
        self._threads.shutdown()


@pytest.mark.parametrize("same_nik", [False, True])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_two_that_searched_before_either_was_committed_are_told_apart_at_the_commit(
    tmp_path: Path, same_nik: bool, one_by_one: bool
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", workers=2, max_batch=1 if one_by_one else 16)
    workflow = Workflow(settings)
    try:
        writer = HeldWriter(workflow)
        requests = [
            enroll_request(f"r{k}", made_up_nik(0 if same_nik else k), again(fingers(0), k)) for k in range(4)
        ]
        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(enroll, workflow, request) for request in requests]
            writer.release_when_waiting(4)
            results = [call.result(30) for call in calls]
        decisions = sorted(r.decision for r in results)
        other = Decision.RETURNING if same_nik else Decision.DUPLICATE
        assert decisions == sorted([Decision.UNIQUE, other, other, other])
        # Each was met by those before it, though none of them was in the index when it searched.
        assert sorted(len(r.evidence.candidates) for r in results) == (
            [0, 1, 1, 1] if same_nik else [0, 1, 2, 3]
        )
    finally:
        workflow.close()


def test_somebody_deleted_between_search_and_commit_accuses_nobody(workflow: Workflow) -> None:
    first = enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
    assert first.subject_id is not None
    writer = HeldWriter(workflow)
    with ThreadPoolExecutor(2) as threads:
        deleting = threads.submit(workflow.delete_subject, first.subject_id, "delete", b"d")
        while not workflow._commits._waiting:
            threading.Event().wait(0.001)
        enrolling = threads.submit(
            enroll, workflow, enroll_request("r", made_up_nik(1), again(fingers(0), 1))
        )
        writer.release_when_waiting(2)
        assert deleting.result(30).encounters == 1
        assert enrolling.result(30).decision is Decision.UNIQUE


def test_adding_to_a_subject_deleted_meanwhile_is_not_found(workflow: Workflow) -> None:
    first = enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
    assert first.subject_id is not None
    writer = HeldWriter(workflow)
    request = add_request("add", first.subject_id, again(fingers(0), 1))
    with ThreadPoolExecutor(2) as threads:
        deleting = threads.submit(workflow.delete_subject, first.subject_id, "delete", b"d")
        while not workflow._commits._waiting:
            threading.Event().wait(0.001)
        adding: Future[object] = threads.submit(workflow.add_encounter, *codec.read_add_encounter(request))
        writer.release_when_waiting(2)
        deleting.result(30)
        assert isinstance(adding.exception(30), NotFound)
    counts, last, watermark = workflow.stats()
    assert counts.samples[Modality.FINGERPRINT] == 0
    assert last == watermark == 2  # added and removed


class Deadline:
    """Passes at the nth question."""

    def __init__(self, passes_at: int) -> None:
        self.asked = 0
        self._passes_at = passes_at

    def __call__(self) -> None:
        self.asked += 1
        if self.asked >= self._passes_at:
            raise DeadlinePassed("passed")


def test_a_deadline_passing_at_any_stage_records_nothing(workflow: Workflow) -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    enroll(workflow, enroll_request("another", made_up_nik(1), fingers(1)))
    before = workflow.stats()[0].encounters
    recorded, stage = None, 0
    while recorded is None:
        stage += 1
        with suppress(DeadlinePassed):
            recorded = enroll(workflow, request, check=Deadline(stage))
        assert recorded is not None or workflow.stats()[0].encounters == before
    assert stage >= len(fingers(0)) + 3  # each sample, before the search, in it, before the commit
    assert recorded.decision is Decision.UNIQUE


def test_a_deadline_does_not_matter_once_it_is_recorded(workflow: Workflow) -> None:
    request = enroll_request("r", made_up_nik(0), fingers(0))
    first = enroll(workflow, request)
    assert enroll(workflow, request, check=Deadline(1)) == first


def test_a_waiting_retry_minds_its_own_deadline(workflow: Workflow) -> None:
    writer = HeldWriter(workflow)
    request = enroll_request("r", made_up_nik(0), fingers(0))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(enroll, workflow, request)
        while not workflow._commits._waiting:
            threading.Event().wait(0.001)
        with pytest.raises(DeadlinePassed):
            enroll(workflow, request, check=Deadline(2))
        writer.release_when_waiting(1)
        assert first.result(30).decision is Decision.UNIQUE


def test_a_slow_database_holds_up_only_the_request_it_reads_for(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = enroll(workflow, enroll_request("r0", made_up_nik(0), fingers(0)))
    reading, go_on = threading.Event(), threading.Event()
    answered = _Request.answered

    def slow(request: _Request[object], reader: Reader) -> object:
        if request.method == "DeleteSubject" and not reading.is_set():
            reading.set()
            assert go_on.wait(30)
        return answered(request, reader)

    monkeypatch.setattr(_Request, "answered", slow)
    assert before.subject_id is not None
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(workflow.delete_subject, before.subject_id, "r0", b"another")
        assert reading.wait(10)
        # Others go on, and whose the id is gets its answer, not a conflict with who only tries it.
        enroll(workflow, enroll_request("r1", made_up_nik(1), fingers(1)))
        assert enroll(workflow, enroll_request("r0", made_up_nik(0), fingers(0))) == before
        go_on.set()
        assert isinstance(other.exception(30), RequestConflict)
    assert not workflow._running


def test_closing_lets_the_store_go_even_where_the_index_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", workers=2)
    workflow = Workflow(settings)

    save = Index.save

    def failing(index: Index) -> None:
        save(index)
        raise RuntimeError("a fault of the program")

    with monkeypatch.context() as patched:
        patched.setattr(Index, "save", failing)
        with pytest.raises(RuntimeError, match="a fault"):
            workflow.close()
    Workflow(settings).close()


def test_a_recapture_leaves_its_request_id_free(workflow: Workflow) -> None:
    thumb, index, *rest = fingers(0)
    twice = (thumb, replace(again((thumb,), 1)[0], position=index.position), *rest)
    request = enroll_request("r", made_up_nik(0), twice)
    assert isinstance(workflow.enroll(*codec.read_enroll(request)), Recapture)
    good = enroll_request("r", made_up_nik(0), fingers(0))
    assert enroll(workflow, good).decision is Decision.UNIQUE
    with pytest.raises(RequestConflict):
        workflow.enroll(*codec.read_enroll(request))


def test_an_index_that_missed_a_commit_makes_up_for_it(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Gallery, "add", no_memory)
        first = enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
        assert first.decision is Decision.UNIQUE  # durable, hence acknowledged
        assert "could not follow" in caplog.text
        # Not in the index, and met nevertheless: it was committed after the search's watermark.
        back = enroll(workflow, enroll_request("back", made_up_nik(1), again(fingers(0), 1)))
        assert back.decision is Decision.DUPLICATE
    enroll(workflow, enroll_request("next", made_up_nik(2), fingers(2)))
    _, last, watermark = workflow.stats()
    assert last == watermark == 3
    found = workflow.identify(presented(again(fingers(0), 2)))
    assert found.candidates[0].nik in (made_up_nik(0), made_up_nik(1))


def test_after_closing_nothing_is_taken(tmp_path: Path) -> None:
    workflow = Workflow(load_settings(data_dir=tmp_path / "data", workers=2))
    commits = workflow._commits
    workflow.close()
    with pytest.raises(ShuttingDown):
        commits.submit(lambda t: t.last_change())


def test_moving_an_encounter_leaves_the_index_with_one_of_it(workflow: Workflow) -> None:
    enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
    held = enroll(workflow, enroll_request("held", made_up_nik(1), again(fingers(0), 1)))
    assert held.case_id is not None
    workflow.resolve_case(
        held.case_id,
        Resolution.SAME_PERSON,
        operator="Siti",
        comment="",
        subject_id=None,
        request_id="resolve",
        digest=b"r",
    )
    with workflow._store.read() as reader:
        kinds = [change.kind for change in reader.changes(0)]
    assert kinds == [ChangeKind.ADD, ChangeKind.ADD, ChangeKind.REMOVE, ChangeKind.ADD]
    assert len(workflow._index.gallery) == 2
    [person] = workflow.identify(presented(again(fingers(0), 2))).candidates
    assert person.nik == made_up_nik(0)


def test_an_arrangement_is_noticed_only_where_somebody_matches(workflow: Workflow) -> None:
    enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
    other = enroll(workflow, enroll_request("other", made_up_nik(1), fingers(1)))
    assert other.reasons == (Reason.NOBODY_MATCHES,)


def test_verifying_against_more_encounters_asks_for_more(workflow: Workflow) -> None:
    enroll(workflow, enroll_request("first", made_up_nik(0), fingers(0)))
    probe = presented(again(fingers(0), 5))
    asked = [workflow.verify(probe, nik=made_up_nik(0)).verify_llr]
    for number in (1, 2):
        added = enroll(workflow, enroll_request(f"{number}", made_up_nik(0), again(fingers(0), number)))
        assert added.evidence.verify_llr == asked[-1]
        asked.append(workflow.verify(probe, nik=made_up_nik(0)).verify_llr)
    assert asked == pytest.approx([3, 3 + log10(2), 3 + log10(3)])


def test_a_template_of_another_maker_is_refused(workflow: Workflow) -> None:
    foreign = replace(fingers(0)[1], extractor=Extractor.FOREIGN)
    with pytest.raises(InvalidRequest, match="FOREIGN") as refused:
        workflow.identify(presented([fingers(0)[0], foreign]))
    assert [field for field, _ in refused.value.violations] == ["samples[1]"]


def presented(some: Fingers) -> list[Presented]:
    return [Presented(finger.position, template=finger.to_bytes()) for finger in some]


def test_a_face_does_not_hide_whom_fingers_match() -> None:
    thresholds = Thresholds.for_gallery(10)
    by_face = EncounterComparison(
        4.9, Arrangement.AS_DECLARED, (), face=FaceShare(0.99, 4.9, 1e-5), face_llr=4.9
    )
    by_fingers = EncounterComparison(4.5, Arrangement.AS_DECLARED, ())
    assert identity([by_face, by_fingers], thresholds) is Match.YES
    assert identity([by_face], thresholds) is Match.UNCERTAIN
    assert identity([], thresholds) is Match.NO


def test_what_is_erased_leaves_the_index_of_a_running_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", workers=2)
    index = tmp_path / "data" / "index"

    def holds(template: bytes) -> bool:
        for path in list(index.iterdir()):
            with suppress(FileNotFoundError):  # just made anew
                if template in path.read_bytes():
                    return True
        return False

    workflow = Workflow(settings)
    gone, stays = (
        enroll(workflow, enroll_request(f"r{k}", made_up_nik(k), fingers(k))).subject_id for k in (0, 1)
    )
    workflow.close()
    native = [next(iter(fingers(k))).to_bytes() for k in (0, 1)]
    assert gone
    assert stays
    assert holds(native[0])
    assert holds(native[1])
    monkeypatch.setattr("rekam.index._FORGOTTEN_SECONDS", 0.1)
    workflow = Workflow(settings)
    try:
        workflow.delete_subject(gone, "delete", b"d")
        for _ in range(600):
            if not holds(native[0]):
                break
            threading.Event().wait(0.05)
        assert not holds(native[0])
        assert holds(native[1])
    finally:
        workflow.close()


def test_what_a_killed_service_had_erased_leaves_the_index_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "index"
    workflow = Workflow(load_settings(data_dir=tmp_path / "data", workers=2))
    gone = enroll(workflow, enroll_request("r0", made_up_nik(0), fingers(0))).subject_id
    enroll(workflow, enroll_request("r1", made_up_nik(1), fingers(1)))
    workflow.close()
    workflow = Workflow(load_settings(data_dir=tmp_path / "data", workers=2))
    assert gone is not None
    with monkeypatch.context() as killed:
        # the manifest says so, the segment still holds it, and then the service ends without a stop
        killed.setattr(Gallery, "_maintain_soon", lambda gallery: None)
        killed.setattr(Gallery, "save", lambda gallery, folder: None)
        workflow.delete_subject(gone, "delete", b"d")
        gallery = workflow._index.gallery
        assert isinstance(gallery, Gallery)
        gallery._freeze()
        gallery._persist(folder)
        workflow._index._stopping.set()
        workflow.close()
    reopened = Gallery.load(folder)
    assert (len(reopened), reopened.removed()) == (1, 1)
    monkeypatch.setattr("rekam.index._FORGOTTEN_SECONDS", 0.05)
    workflow = Workflow(load_settings(data_dir=tmp_path / "data", workers=2))
    try:

        def removed() -> int | None:
            with contextlib.suppress(GalleryDamaged):  # its files change under the reader
                return Gallery.load(folder).removed()
            return None

        for _ in range(600):
            if removed() == 0:
                break
            threading.Event().wait(0.05)
        assert removed() == 0
    finally:
        workflow.close()


def test_a_store_is_let_go_of_though_its_index_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", workers=2)
    for fault in (OSError(28, "no space left"), GalleryDamaged("a segment fails its checksum")):
        workflow = Workflow(settings)

        def fails(gallery: Gallery, folder: Path, fault: Exception = fault) -> None:
            raise fault

        with monkeypatch.context() as failing:
            failing.setattr(Gallery, "save", fails)
            workflow.close()
    Workflow(settings).close()  # neither locked nor damaged
