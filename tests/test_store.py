"""The store's contract, in both databases: the committed stays, the erased is gone, all see one state."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from capture.sample import EyePosition, FingerPosition, Modality
from matching.decision import Decision, Reason
from rekam.errors import NotFound, RequestConflict, StoreError, StoreLocked, StoreNewer, WrongState
from rekam.schema import tombstone
from rekam.store import (
    CaseState,
    ChangeKind,
    EncounterState,
    MissingRecord,
    Reader,
    RequestRecord,
    Resolution,
    SampleRecord,
    Store,
    Transaction,
)
from tests.places import Place, now, searched

NOON = datetime(2026, 1, 2, 12, 30, 15, 123456, tzinfo=UTC)
ENROLLED, HELD, REJECTED = EncounterState.ENROLLED, EncounterState.HELD, EncounterState.REJECTED


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened


def nik(number: int) -> str:
    return f"3201011708{number:06}"


def fingers(count: int = 2, *, image: bytes | None = None) -> tuple[SampleRecord, ...]:
    return tuple(
        SampleRecord(FingerPosition(p), os.urandom(500), 40 + p, image, image and "png")  # type: ignore[arg-type]
        for p in range(1, count + 1)
    )


def record(
    t: Transaction,
    number: int,
    *,
    subject_key: int | None,
    prints: tuple[SampleRecord, ...] | None = None,
) -> int:
    """Add encounter `e<number>`: enrolled where a subject is given, else held."""
    return t.add_encounter(
        encounter_id=f"e{number}",
        subject_key=subject_key,
        nik=nik(number),
        decision=Decision.DUPLICATE if subject_key is None else Decision.UNIQUE,
        reasons=(Reason.OTHER_SUBJECT_MATCHES, Reason.HANDS_SWAPPED),
        state=HELD if subject_key is None else ENROLLED,
        request_id=f"r{number}",
        created_at=NOON,
        samples=fingers() if prints is None else prints,
        missing=(MissingRecord(FingerPosition.LEFT_LITTLE, "amputated"),),
        evidence=b"evidence",
    )


def enrol(store: Store, number: int, prints: tuple[SampleRecord, ...] | None = None) -> int:
    """Subject `s<number>` with encounter `e<number>`; the subject's key."""
    with store.transaction() as t:
        key = t.add_subject(f"s{number}", nik(number), NOON)
        record(t, number, subject_key=key, prints=prints)
    return key


def hold(store: Store, number: int, prints: tuple[SampleRecord, ...] | None = None) -> None:
    """Held encounter `e<number>` with case `c<number>`."""
    with store.transaction() as t:
        record(t, number, subject_key=None, prints=prints)
        t.add_case(f"c{number}", f"e{number}", NOON)


def tombstones(store: Store) -> list[dict[str, object]]:
    """What stays of the deleted."""
    with store._database.reading.connect() as connection:
        rows = connection.execute(select(tombstone).order_by(tombstone.c.key))
        return [row._asdict() for row in rows]


# Records


def test_an_encounter_comes_back_as_it_was_given(store: Store) -> None:
    prints = fingers(3, image=b"\x89PNG")
    key = enrol(store, 1, prints)
    got = now(store, lambda r: r.encounter("e1", images=True))
    assert got is not None
    assert got.samples == prints
    assert (got.seq, got.subject_key, got.subject_id, got.nik) == (1, key, "s1", nik(1))
    assert (got.decision, got.state) == (Decision.UNIQUE, ENROLLED)
    assert got.reasons == (Reason.OTHER_SUBJECT_MATCHES, Reason.HANDS_SWAPPED)
    assert got.created_at == NOON
    assert got.created_at.tzinfo is UTC
    assert got.missing == (MissingRecord(FingerPosition.LEFT_LITTLE, "amputated"),)
    assert (got.request_id, got.evidence) == ("r1", b"evidence")
    assert now(store, lambda r: r.encounter_by_seq(1, images=True)) == got


def test_samples_of_every_modality_come_back_as_what_they_are(store: Store) -> None:
    samples = (
        SampleRecord(FingerPosition.RIGHT_THUMB, os.urandom(500), 60),
        SampleRecord(EyePosition.RIGHT, os.urandom(528), 70, b"iris", "png"),
        SampleRecord(EyePosition.UNKNOWN, os.urandom(528), 30),
        SampleRecord(None, os.urandom(540), 80, b"face", "jpeg"),
    )
    missing = (
        MissingRecord(None, "not_captured"),
        MissingRecord(FingerPosition.RIGHT_INDEX, "amputated"),
        MissingRecord(EyePosition.LEFT, "bandaged"),
    )
    with store.transaction() as t:
        t.add_encounter(
            encounter_id="e1",
            subject_key=None,
            nik=nik(1),
            decision=Decision.REVIEW,
            reasons=(),
            state=HELD,
            request_id="r1",
            created_at=NOON,
            samples=samples,
            missing=missing,
        )
    got = now(store, lambda r: r.encounter("e1", images=True))
    assert got is not None
    assert got.samples == samples
    assert got.missing == missing
    # A finger and an eye of one code are equal numbers: their types tell them apart.
    assert [type(s.position) for s in got.samples] == [type(s.position) for s in samples]
    assert [type(m.position) for m in got.missing] == [type(m.position) for m in missing]
    assert now(store, Reader.counts).samples == {Modality.FINGERPRINT: 1, Modality.IRIS: 2, Modality.FACE: 1}
    [searchable] = searched(store)
    assert searchable.templates == tuple((s.position, s.template) for s in samples)
    assert [type(position) for position, _ in searchable.templates] == [type(s.position) for s in samples]


@pytest.mark.parametrize("missing", [FingerPosition.UNKNOWN, EyePosition.UNKNOWN])
def test_what_is_missing_has_a_position(store: Store, missing: FingerPosition | EyePosition) -> None:
    with pytest.raises(WrongState, match="out of range"), store.transaction() as t:
        t.add_encounter(
            encounter_id="e1",
            subject_key=None,
            nik=nik(1),
            decision=Decision.REVIEW,
            reasons=(),
            state=HELD,
            request_id="r1",
            created_at=NOON,
            samples=(),
            missing=(MissingRecord(missing, "amputated"),),
        )


def test_images_are_read_only_when_asked_for(store: Store) -> None:
    enrol(store, 1, fingers(1, image=b"\x89PNG"))
    got = now(store, lambda r: r.encounter("e1"))
    assert got is not None
    assert (got.samples[0].image, got.samples[0].image_format) == (None, "png")


def test_unknown_positions_may_repeat_and_keep_their_order(store: Store) -> None:
    prints = tuple(SampleRecord(FingerPosition.UNKNOWN, os.urandom(9), q) for q in (3, 1, 2))
    enrol(store, 1, prints)
    got = now(store, lambda r: r.encounter("e1"))
    assert got is not None
    assert got.samples == prints


def test_what_is_not_there_is_none(store: Store) -> None:
    assert now(store, lambda r: r.encounter("e1")) is None
    assert now(store, lambda r: r.encounter_by_seq(1)) is None
    assert now(store, lambda r: r.subject("s1")) is None
    assert now(store, lambda r: r.subject_by_key(1)) is None
    assert now(store, lambda r: r.subject_by_nik(nik(1))) is None
    assert now(store, lambda r: r.case("c1")) is None
    assert now(store, lambda r: r.case_of("e1")) is None
    assert now(store, lambda r: r.request("r1")) is None
    assert tombstones(store) == []
    assert now(store, Reader.last_change) == 0
    assert now(store, lambda r: r.changes(0)) == ()
    assert searched(store) == ()


def test_a_subject_lists_its_encounters_oldest_first(store: Store) -> None:
    key = enrol(store, 1)
    with store.transaction() as t:
        record(t, 3, subject_key=key)
        record(t, 2, subject_key=key)
    got = now(store, lambda r: r.subject("s1"))
    assert got is not None
    assert got.encounters == ("e1", "e3", "e2")
    assert (
        got == now(store, lambda r: r.subject_by_nik(nik(1))) == now(store, lambda r: r.subject_by_key(key))
    )


def test_moments_keep_their_microseconds_in_utc_and_need_a_zone(store: Store) -> None:
    jakarta = datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=7)))
    with store.transaction() as t:
        t.add_subject("s1", nik(1), jakarta)
    got = now(store, lambda r: r.subject("s1"))
    assert got is not None
    assert got.created_at == jakarta
    assert got.created_at.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="time zone"), store.transaction() as t:
        t.add_subject("s2", nik(2), NOON.replace(tzinfo=None))


def test_records_print_neither_nik_nor_biometrics(store: Store) -> None:
    template = b"secret template"
    enrol(store, 1, (SampleRecord(FingerPosition.RIGHT_INDEX, template, 50, template, "png"),))
    hold(store, 2)
    for shown in (
        now(store, lambda r: r.encounter("e1", images=True)),
        now(store, lambda r: r.subject("s1")),
        now(store, lambda r: r.case("c2")),
        *searched(store),
    ):
        assert nik(1) not in repr(shown)
        assert nik(2) not in repr(shown)
        assert "secret" not in repr(shown)


def test_pages_of_subjects_leave_nobody_out_while_others_go(store: Store) -> None:
    for number in range(10, 20):
        enrol(store, number)
    first = now(store, lambda r: r.subjects(None, 4))
    with store.transaction() as t:
        t.delete_subject(first[-1].subject_id, deleted_at=NOON)
        t.delete_subject("s15", deleted_at=NOON)
    second = now(store, lambda r: r.subjects(first[-1].subject_id, 100))
    assert [s.subject_id for s in first] == ["s10", "s11", "s12", "s13"]
    assert [s.subject_id for s in second] == ["s14", "s16", "s17", "s18", "s19"]
    assert [s.encounters for s in second] == [("e14",), ("e16",), ("e17",), ("e18",), ("e19",)]


def test_counts(store: Store) -> None:
    enrol(store, 1, fingers(3))
    hold(store, 2)
    hold(store, 3)
    with store.transaction() as t:
        t.reject_encounter("e3")
    counts = now(store, Reader.counts)
    assert counts.subjects == 1
    assert counts.encounters == {ENROLLED: 1, HELD: 1, REJECTED: 1}
    assert counts.open_cases == 2
    assert counts.samples == {Modality.FINGERPRINT: 5, Modality.IRIS: 0, Modality.FACE: 0}
    assert counts.database_bytes > 5 * 500


# Rules


def test_a_nik_has_one_live_subject(store: Store) -> None:
    enrol(store, 1)
    with pytest.raises(WrongState) as refusal, store.transaction() as t:
        t.add_subject("s2", nik(1), NOON)
    assert nik(1) not in str(refusal.value)
    with store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)
    with store.transaction() as t:
        assert t.add_subject("s2", nik(1), NOON) > 1


def test_of_many_threads_one_gets_the_nik(store: Store) -> None:
    outcomes: list[bool] = []

    def claim(number: int) -> None:
        try:
            with store.transaction() as t:
                t.add_subject(f"s{number}", nik(1), NOON)
            outcomes.append(True)
        except WrongState:
            outcomes.append(False)

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]
    assert now(store, Reader.counts).subjects == 1


def test_state_and_subject_must_agree(store: Store) -> None:
    key = enrol(store, 1)
    hold(store, 2)
    for subject_key, state in ((key, HELD), (None, ENROLLED), (key + 1, ENROLLED)):
        with pytest.raises(WrongState), store.transaction() as t:
            t.move_encounter("e2", subject_key, state)
    with pytest.raises(WrongState), store.transaction() as t:
        record(t, 3, subject_key=key + 1)
    assert now(store, lambda r: r.encounter("e3")) is None


def test_an_encounter_is_recorded_once(store: Store) -> None:
    hold(store, 1)
    with pytest.raises(WrongState, match="e1"), store.transaction() as t:
        record(t, 1, subject_key=None)


def test_numbers_are_never_given_twice(store: Store) -> None:
    key = enrol(store, 1)
    with store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)
    assert enrol(store, 2) > key
    got = now(store, lambda r: r.encounter("e2"))
    assert got is not None
    assert got.seq == 2


def test_a_request_id_is_answered_once(store: Store) -> None:
    with store.transaction() as t:
        assert t.request("r1") is None
        t.remember("r1", "Enroll", b"digest", b"answer")
        assert t.request("r1") == RequestRecord("r1", "Enroll", b"digest", b"answer")
    with pytest.raises(RequestConflict) as conflict, store.transaction() as t:  # noqa: PT012
        record(t, 1, subject_key=None)
        t.remember("r1", "Enroll", b"other", b"other")
    assert conflict.value.request_id == "r1"
    assert now(store, lambda r: r.encounter("e1")) is None
    assert now(store, lambda r: r.request("r1")) == RequestRecord("r1", "Enroll", b"digest", b"answer")


# Cases


def test_a_case_is_opened_for_a_held_encounter_and_resolved_once(store: Store) -> None:
    enrol(store, 1)
    hold(store, 2)
    with pytest.raises(WrongState), store.transaction() as t:
        t.add_case("c1", "e1", NOON)
    with pytest.raises(WrongState), store.transaction() as t:
        t.add_case("c3", "e2", NOON)
    with pytest.raises(NotFound), store.transaction() as t:
        t.add_case("c3", "e3", NOON)
    opened = now(store, lambda r: r.case("c2"))
    assert opened is not None
    assert (opened.encounter_id, opened.nik, opened.decision) == ("e2", nik(2), Decision.DUPLICATE)
    assert (opened.state, opened.opened_at, opened.resolution) == (CaseState.OPEN, NOON, None)
    assert now(store, lambda r: r.case_of("e2")) == opened

    later = NOON + timedelta(days=1)

    def resolve(t: Transaction, case_id: str) -> None:
        t.resolve_case(
            case_id,
            Resolution.SAME_PERSON,
            operator="siti",
            comment="same scar",
            resolved_at=later,
            subject_id="s1",
        )

    with store.transaction() as t:
        resolve(t, "c2")
    resolved = now(store, lambda r: r.case("c2"))
    assert resolved is not None
    assert (resolved.state, resolved.resolution) == (CaseState.RESOLVED, Resolution.SAME_PERSON)
    assert (resolved.operator, resolved.comment, resolved.resolved_at) == ("siti", "same scar", later)
    assert resolved.subject_id == "s1"
    with pytest.raises(WrongState, match="same_person"), store.transaction() as t:
        resolve(t, "c2")
    with pytest.raises(NotFound) as absent, store.transaction() as t:
        resolve(t, "c9")
    assert (absent.value.kind, absent.value.id) == ("case", "c9")


def test_cases_come_in_pages_oldest_first(store: Store) -> None:
    for number in (5, 3, 9, 1):
        hold(store, number)
    with store.transaction() as t:
        t.resolve_case("c3", Resolution.REJECTED, operator="", comment="", resolved_at=NOON, subject_id=None)
    assert [c.case_id for c in now(store, lambda r: r.cases(CaseState.OPEN, None, 2))] == ["c5", "c9"]
    assert [c.case_id for c in now(store, lambda r: r.cases(CaseState.OPEN, "c9", 2))] == ["c1"]
    assert [c.case_id for c in now(store, lambda r: r.cases(CaseState.RESOLVED, None, 9))] == ["c3"]
    assert [c.case_id for c in now(store, lambda r: r.cases(None, "c3", 9))] == ["c9", "c1"]
    with pytest.raises(NotFound):
        now(store, lambda r: r.cases(None, "c7", 9))


def test_moving_and_rejecting_need_the_right_state(store: Store) -> None:
    key = enrol(store, 1)
    hold(store, 2)
    with store.transaction() as t:
        t.reject_encounter("e2")
    rejected = now(store, lambda r: r.encounter("e2"))
    assert rejected is not None
    assert (rejected.state, rejected.samples) == (REJECTED, ())
    assert rejected.missing
    for encounter_id in ("e1", "e2"):
        with pytest.raises(WrongState), store.transaction() as t:
            t.reject_encounter(encounter_id)
    with pytest.raises(WrongState), store.transaction() as t:
        t.move_encounter("e2", key, ENROLLED)
    with pytest.raises(WrongState), store.transaction() as t:
        t.move_encounter("e1", None, REJECTED)
    with pytest.raises(NotFound), store.transaction() as t:
        t.move_encounter("e7", key, ENROLLED)
    with pytest.raises(NotFound), store.transaction() as t:
        t.reject_encounter("e7")


# Transactions


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as t:  # noqa: PT012
        key = t.add_subject("s1", nik(1), NOON)
        record(t, 1, subject_key=key)
        assert t.subject("s1") is not None
        raise ZeroDivisionError
    assert now(store, lambda r: r.subject("s1")) is None
    assert now(store, Reader.last_change) == 0
    assert enrol(store, 2) >= 1


def test_a_savepoint_undoes_only_itself(store: Store) -> None:
    with store.transaction() as t:
        record(t, 1, subject_key=None)
        with pytest.raises(RequestConflict), t.savepoint():  # noqa: PT012
            record(t, 2, subject_key=None)
            t.remember("r", "Enroll", b"", b"")
            with t.savepoint():
                t.remember("r", "Enroll", b"", b"")
        with t.savepoint():
            record(t, 3, subject_key=None)
            with pytest.raises(ZeroDivisionError), t.savepoint():  # noqa: PT012
                record(t, 4, subject_key=None)
                raise ZeroDivisionError
        record(t, 5, subject_key=None)
    assert [e.encounter_id for e in searched(store)] == ["e1", "e3", "e5"]
    assert now(store, lambda r: r.request("r")) is None
    assert len(now(store, lambda r: r.changes(0))) == 3


def test_readers_meet_no_half_transaction(store: Store) -> None:
    rounds, stop, faults = 40, threading.Event(), []

    def read() -> None:
        seen = 0
        try:
            while not stop.is_set():
                with store.read() as r:
                    counts, last = r.counts(), r.last_change()
                    assert counts.encounters[ENROLLED] == 2 * counts.subjects == last
                    assert counts.samples[Modality.FINGERPRINT] == 2 * last
                    assert last >= seen
                    seen = last
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(rounds):
        with store.transaction() as t:
            key = t.add_subject(f"s{number}", nik(number), NOON)
            record(t, 2 * number, subject_key=key)
            record(t, 2 * number + 1, subject_key=key)
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert now(store, Reader.counts).subjects == rounds


def test_what_a_transaction_acknowledged_survives_kill_9(place: Place) -> None:
    program = f"""
import sys
from pathlib import Path
from tests.places import Place
from tests.test_store import enrol
store = Place(Path({str(place.folder)!r}), {place.url!r}).open()
with store.read() as reader:
    number = reader.counts().subjects
while True:
    enrol(store, number)
    print(number, flush=True)
    number += 1
"""
    acknowledged = -1
    for _ in range(3):
        root = Path(__file__).resolve().parent.parent
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root) as child:
            assert child.stdout is not None
            for _ in range(15):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                acknowledged = int(line)
    with place.open() as store:
        with store.read() as r:
            for number in range(acknowledged + 1):
                found = r.subject(f"s{number}")
                assert found is not None
                assert found.encounters == (f"e{number}",)
        assert now(store, Reader.counts).subjects in (acknowledged + 1, acknowledged + 2)


# Erasure


def test_deleting_a_subject_leaves_a_tombstone_and_everybody_else(store: Store) -> None:
    key = enrol(store, 1, fingers(2, image=os.urandom(30_000)))
    with store.transaction() as t:
        record(t, 2, subject_key=key)
    other = fingers(3)
    enrol(store, 3, other)
    with store.transaction() as t:
        was = t.delete_subject("s1", deleted_at=NOON, operator="siti", comment="asked to")
    assert was.encounters == ("e1", "e2")
    assert now(store, lambda r: r.subject("s1")) is None
    assert now(store, lambda r: r.encounter("e1")) is None
    assert [e.templates for e in searched(store)] == [tuple((f.position, f.template) for f in other)]
    [stone] = tombstones(store)
    assert stone == {
        "key": key,
        "subject_id": "s1",
        "nik": nik(1),
        "encounter_ids": '["e1", "e2"]',
        "deleted_at": NOON,
        "operator": "siti",
        "comment": "asked to",
    }
    with pytest.raises(NotFound), store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)


def test_a_reader_of_the_older_state_still_reads_what_is_deleted(store: Store) -> None:
    prints = fingers(3)
    enrol(store, 1, prints)
    with store.read() as older:
        assert older.last_change() == 1
        with store.transaction() as t:
            t.delete_subject("s1", deleted_at=NOON)
        assert now(store, lambda r: r.subject("s1")) is None
        [still] = older.searchable(0, 10)
        assert still.templates[0][1] == prints[0].template
    assert searched(store) == ()


def test_compacting_keeps_every_record(store: Store) -> None:
    for number in range(5):
        enrol(store, number, fingers(3, image=os.urandom(5_000)))
    with store.transaction() as t:
        for number in range(4):
            t.delete_subject(f"s{number}", deleted_at=NOON)
    kept = now(store, lambda r: (r.encounter("e4", images=True), r.changes(0))), tombstones(store)
    store.compact()
    assert (now(store, lambda r: (r.encounter("e4", images=True), r.changes(0))), tombstones(store)) == kept
    assert len(kept[1]) == 4


def test_deleting_a_subject_keeps_its_closed_cases_and_leaves_others_open(store: Store) -> None:
    enrol(store, 1)
    hold(store, 2)
    hold(store, 3)
    with store.transaction() as t:
        t.resolve_case(
            "c2", Resolution.SAME_PERSON, operator="siti", comment="", resolved_at=NOON, subject_id="s1"
        )
        t.move_encounter("e2", 1, ENROLLED)
    with store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)
    closed, waiting = now(store, lambda r: r.case("c2")), now(store, lambda r: r.case("c3"))
    assert closed is not None
    assert (closed.resolution, closed.subject_id) == (Resolution.SAME_PERSON, "s1")
    assert now(store, lambda r: r.encounter("e2")) is None
    assert waiting is not None
    assert waiting.state is CaseState.OPEN
    assert now(store, lambda r: r.encounter("e3")) is not None


def test_deleting_a_subject_closes_a_case_left_open_on_its_encounter(store: Store) -> None:
    enrol(store, 1)
    hold(store, 2)
    with store.transaction() as t:
        t.move_encounter("e2", 1, ENROLLED)
        t.delete_subject("s1", deleted_at=NOON, operator="siti", comment="asked to")
    closed = now(store, lambda r: r.case("c2"))
    assert closed is not None
    assert (closed.state, closed.resolution) == (CaseState.RESOLVED, Resolution.REJECTED)
    assert (closed.operator, closed.resolved_at) == ("siti", NOON)


# The change log

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enrol", "return", "hold", "move", "reject", "delete", "undone"]),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, catch_up_at=st.integers(0, 25))
def test_an_index_that_follows_the_log_equals_one_rebuilt(
    places: Callable[[], Place], steps: list[tuple[str, int, int]], catch_up_at: int
) -> None:
    place = places()
    index: dict[int, int | None] = {}
    watermark = 0
    erased: list[bytes] = []
    with place.open() as store:
        for at, (step, a, b) in enumerate(steps):
            if at == catch_up_at:
                with store.read() as snapshot:
                    watermark = snapshot.last_change()
                    index = {e.seq: e.subject_key for e in snapshot.searchable(0, 100)}
            with suppress(WrongState, NotFound, ZeroDivisionError), store.transaction() as t:
                erased += take_step(t, at, step, a, b)
        with store.read() as r:
            changes = r.changes(watermark)
        for change in changes:
            assert change.seq > watermark
            watermark = change.seq
            if change.kind is ChangeKind.ADD:
                assert change.encounter_seq not in index
                index[change.encounter_seq] = change.subject_key
            else:
                assert index.pop(change.encounter_seq) == change.subject_key
        rebuilt = searched(store)
        assert index == {e.seq: e.subject_key for e in rebuilt}
        assert watermark == now(store, Reader.last_change)
        with store.read() as r:
            for e in rebuilt:
                whole = r.encounter_by_seq(e.seq)
                assert whole is not None
                assert e.templates == tuple((f.position, f.template) for f in whole.samples)
                assert whole.state.searchable
        assert place.url or not any(place.files_hold(template) for template in erased)
    shutil.rmtree(place.folder)


def take_step(t: Transaction, at: int, step: str, a: int, b: int) -> list[bytes]:
    """One step of the property above; the templates it erases. Steps that cannot be taken raise."""
    encounters = t.searchable(0, 100)
    subjects = t.subjects(None, 100)
    of = {s.key: [x for e in encounters if e.subject_key == s.key for _, x in e.templates] for s in subjects}
    match step:
        case "enrol":
            record(t, at, subject_key=t.add_subject(f"s{at}", nik(at), NOON))
        case "return" if subjects:
            record(t, at, subject_key=subjects[a % len(subjects)].key)
        case "hold":
            record(t, at, subject_key=None)
        case "move" if encounters and subjects:
            key = None if b == 0 else subjects[b % len(subjects)].key
            t.move_encounter(encounters[a % len(encounters)].encounter_id, key, ENROLLED if key else HELD)
        case "reject" if encounters:
            rejected = encounters[a % len(encounters)]
            t.reject_encounter(rejected.encounter_id)
            return [template for _, template in rejected.templates]
        case "delete" if subjects:
            deleted = subjects[a % len(subjects)]
            t.delete_subject(deleted.subject_id, deleted_at=NOON)
            return of[deleted.key]
        case "undone":
            with t.savepoint():
                record(t, at, subject_key=None)
                raise ZeroDivisionError
    return []


def test_a_move_is_a_removal_and_an_addition(store: Store) -> None:
    key = enrol(store, 1)
    hold(store, 2)
    with store.transaction() as t:
        t.move_encounter("e2", key, ENROLLED)
        t.move_encounter("e2", key, ENROLLED)
    moves = [(c.kind, c.encounter_seq, c.subject_key) for c in now(store, lambda r: r.changes(2))]
    assert moves == [(ChangeKind.REMOVE, 2, None), (ChangeKind.ADD, 2, key)]


def test_changes_and_encounters_are_read_in_pages(store: Store) -> None:
    with store.transaction() as t:
        for number in range(600):
            record(t, number, subject_key=None, prints=())
    with store.read() as r:
        assert [c.seq for c in r.changes(50)] == list(range(51, 601))
        assert [c.seq for c in r.changes(0, 3)] == [1, 2, 3]
        assert [e.seq for e in r.searchable(20, 1000)] == list(range(21, 601))
        assert [e.seq for e in r.searchable(20, 550)] == list(range(21, 571))


def test_a_snapshot_and_the_changes_after_its_watermark_make_the_present(store: Store) -> None:
    enrol(store, 1)
    with store.read() as snapshot:
        watermark = snapshot.last_change()
        enrol(store, 2)
        assert watermark == snapshot.last_change() == 1
        assert [e.encounter_id for e in snapshot.searchable(0, 10)] == ["e1"]
    assert [c.encounter_seq for c in now(store, lambda r: r.changes(watermark))] == [2]


# The files


def test_a_reopened_store_has_everything(place: Place) -> None:
    def everything(r: Reader) -> tuple[object, ...]:
        return r.encounter("e1"), r.subject("s1"), r.case("c2"), r.changes(0)

    with place.open() as store:
        enrol(store, 1)
        hold(store, 2)
        before = now(store, everything)
    with place.open() as store:
        after = now(store, everything)
        assert enrol(store, 3) == 2
    assert before == after


def test_a_closed_store_refuses(place: Place) -> None:
    store = place.open()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"), store.read():
        pass
    with pytest.raises(StoreError, match="closed"), store.transaction():
        pass
    with pytest.raises(StoreError, match="closed"):
        store.copy_to(place.folder / "copy", lambda: None)


def test_a_second_process_is_refused_and_told_who_holds_the_folder(place: Place, store: Store) -> None:
    program = f"""
from pathlib import Path
from rekam.errors import StoreLocked
from tests.places import Place
try:
    Place(Path({str(place.folder)!r}), {place.url!r}).open()
except StoreLocked as refusal:
    print(refusal)
"""
    root = Path(__file__).resolve().parent.parent
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    ).stdout
    assert str(store.folder) in told
    assert f"process {os.getpid()}" in told
    with pytest.raises(StoreLocked):
        place.open()
    store.close()
    place.open().close()


def written_by_the_first_release(place: Place) -> tuple[list[bytes], bytes]:
    """A database as the migration 0001 left it, with an encounter of two fingers; its templates, an image.

    Subject 1 has encounter 1 (two fingers, one image, one missing); encounter 2 is held with a case; what
    encounter 3 had was erased.
    """
    place.folder.mkdir()
    engine = place.engine()
    config = Config()
    config.set_main_option("script_location", "rekam:migrations")
    templates, image = [os.urandom(500) for _ in range(3)], os.urandom(9_000)
    at = 1_767_357_015_123_456
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

        def insert(table: str, *rows: tuple[object, ...]) -> None:
            name, _, columns = table.partition(" ")
            values = {f"v{n}": [row[n] for row in rows] for n in range(len(rows[0]))}
            statement = text(f"INSERT INTO {name} ({columns}) VALUES (:{', :'.join(values)})")
            connection.execute(statement, [dict(zip(values, row, strict=True)) for row in rows])

        insert("subject subject_id, nik, created_at", ("s1", nik(1), at))
        insert(
            "encounter encounter_id, subject_key, nik, state, request_id, decision, reasons, created_at, "
            "evidence",
            ("e1", 1, nik(1), "enrolled", "r1", "unique", "nobody_matches", at, b"{}"),
            ("e2", None, nik(2), "held", "r2", "review", "", at, b"{}"),
            ("e3", None, nik(3), "rejected", "r3", "review", "", at, b"{}"),
        )
        insert(
            "finger encounter_seq, ordinal, position, quality, template, image_format",
            (1, 0, 2, 61, templates[0], "png"),
            (1, 1, 7, 62, templates[1], None),
            (2, 0, 0, 63, templates[2], None),
        )
        insert("finger_image encounter_seq, ordinal, image", (1, 0, image))
        insert("missing_finger encounter_seq, position, reason", (1, 10, "amputated"))
        insert(
            "cases case_id, encounter_id, nik, decision, state, opened_at",
            ("c2", "e2", nik(2), "review", "open", at),
        )
        insert("request request_id, method, digest, response", ("r1", "Enroll", b"digest", b"answer"))
        insert(
            "change kind, encounter_seq, subject_key",
            *(("add", 1, 1), ("add", 2, None), ("add", 3, None), ("remove", 3, None)),
        )
    engine.dispose()
    return templates, image


def test_a_database_of_the_first_release_opens_and_keeps_everything(bare_place: Place) -> None:
    templates, image = written_by_the_first_release(bare_place)
    with bare_place.open() as store:
        first, held = (
            now(store, lambda r: r.encounter("e1", images=True)),
            now(store, lambda r: r.encounter("e2")),
        )
        assert first is not None
        assert held is not None
        assert first.samples == (
            SampleRecord(FingerPosition.RIGHT_INDEX, templates[0], 61, image, "png"),
            SampleRecord(FingerPosition.LEFT_INDEX, templates[1], 62),
        )
        assert first.missing == (MissingRecord(FingerPosition.LEFT_LITTLE, "amputated"),)
        assert (first.subject_id, first.created_at, first.state) == ("s1", NOON, ENROLLED)
        assert held.samples == (SampleRecord(FingerPosition.UNKNOWN, templates[2], 63),)
        assert (
            now(store, Reader.counts).subjects,
            now(store, Reader.counts).open_cases,
            now(store, Reader.last_change),
        ) == (1, 1, 4)
        assert now(store, Reader.counts).samples[Modality.FINGERPRINT] == 3
        assert now(store, lambda r: r.request("r1")) == RequestRecord("r1", "Enroll", b"digest", b"answer")
        assert [e.seq for e in searched(store)] == [1, 2]
        # Numbers go on where they were, and a second opening finds nothing left to do.
        assert enrol(store, 4) == 2
        numbered = now(store, lambda r: r.encounter("e4"))
        assert numbered is not None
        assert numbered.seq == 4
    with bare_place.open() as store:
        again = now(store, lambda r: r.encounter("e1", images=True))
        assert again == first


def test_a_newer_schema_is_refused_and_left_alone(place: Place) -> None:
    place.open().close()
    engine = place.engine()
    with engine.begin() as connection:
        [known] = connection.execute(text("SELECT version_num FROM alembic_version")).one()
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreNewer, match="9999"):
        place.open()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})
    engine.dispose()
    place.open().close()


# Faults


def test_a_data_folder_that_cannot_be_one_is_told(place: Place) -> None:
    place.folder.write_text("a file")
    with pytest.raises(StoreError, match="data folder"):
        place.open()
