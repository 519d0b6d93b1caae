"""What is PostgreSQL's own: whose the database is, connections that break, what the server must promise."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url

import rekam.store
from rekam import postgres as backend
from rekam.backup import Backups
from rekam.commits import GroupCommit
from rekam.errors import (
    InvalidRequest,
    StoreDamaged,
    StoreDisconnected,
    StoreError,
    StoreFull,
    StoreLocked,
    WrongState,
)
from rekam.schema import metadata
from rekam.store import Reader, SampleRecord, Store, Transaction
from tests.places import Place, PostgresServer, now, searched
from tests.test_store import NOON, enrol, fingers, hold, nik, record


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Place:
    return Place(tmp_path / "data", postgres.emptied())


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened


def terminate(postgres: PostgresServer) -> None:
    """End the sessions of Rekam as an operator, a failover or a restart does."""
    postgres.execute(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE datname = 'rekam' AND application_name LIKE 'rekam %'"
    )


def test_a_backup_is_refused_before_the_index_is_copied(store: Store, tmp_path: Path) -> None:
    copied: list[Path] = []
    with pytest.raises(WrongState, match="pg_dump"):
        Backups(store, tmp_path / "backups", copied.append).make("monday", lambda: None)
    assert not copied
    assert not (tmp_path / "backups").exists()


# Whose the database is


def test_a_database_has_one_owner_whatever_its_data_folder(
    place: Place, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "OWNER_WAIT", "50ms")
    other = Place(tmp_path / "other", place.url)
    with pytest.raises(StoreLocked, match=f"in use by rekam process {os.getpid()} on "):
        other.open()
    assert enrol(store, 1)
    store.close()
    with other.open() as next_owner:
        assert now(next_owner, lambda r: r.subject("s1")) is not None


def test_an_owner_that_is_going_is_waited_for(place: Place, tmp_path: Path) -> None:
    going = place.open()
    timer = threading.Timer(0.3, going.close)
    timer.start()
    Place(tmp_path / "other", place.url).open().close()
    timer.join()


def test_who_lost_the_database_to_another_writes_nothing(
    place: Place, store: Store, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "OWNER_WAIT", "50ms")
    enrol(store, 1)
    with pytest.raises(StoreDisconnected), store.transaction() as t:  # noqa: PT012
        record(t, 2, subject_key=None)
        terminate(postgres)
        with Place(tmp_path / "other", place.url).open() as other:
            enrol(other, 3)
        record(t, 4, subject_key=None)
    with Place(tmp_path / "other", place.url).open() as other:
        with pytest.raises(StoreLocked, match="in use by rekam process"):
            enrol(store, 5)
        assert now(store, lambda r: r.subject("s3")) is not None  # reading needs no ownership
        enrol(other, 6)
    enrol(store, 7)
    assert [e.encounter_id for e in searched(store)] == ["e1", "e3", "e6", "e7"]


# Connections that break


def test_a_connection_that_broke_while_idle_is_replaced(store: Store, postgres: PostgresServer) -> None:
    enrol(store, 1)
    terminate(postgres)
    assert now(store, lambda r: r.subject("s1")) is not None
    assert enrol(store, 2) == 2


def test_a_connection_that_breaks_in_a_transaction_keeps_nothing_and_the_next_works(
    store: Store, postgres: PostgresServer
) -> None:
    with pytest.raises(StoreDisconnected), store.transaction() as t:  # noqa: PT012
        record(t, 1, subject_key=None)
        terminate(postgres)
        with pytest.raises(StoreDisconnected), t.savepoint():
            record(t, 2, subject_key=None)
        record(t, 3, subject_key=None)
    hold(store, 4)
    assert [e.encounter_id for e in searched(store)] == ["e4"]


def test_a_connection_that_breaks_in_a_reading_is_told_and_the_next_works(
    store: Store, postgres: PostgresServer
) -> None:
    enrol(store, 1)
    with pytest.raises(StoreDisconnected), store.read() as reader:  # noqa: PT012
        assert reader.subject("s1") is not None
        terminate(postgres)
        reader.subject("s1")
    assert now(store, lambda r: r.subject("s1")) is not None


def break_the_next_commit(store: Store, postgres: PostgresServer, *, keep: bool) -> None:
    """Let the connection break in the next commit; `keep`: after the server carried it out."""

    def cut(connection: Connection) -> None:
        if keep:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("BEGIN")
        terminate(postgres)

    event.listen(store._database.writing, "commit", cut, once=True)


@pytest.mark.parametrize("keep", [False, True])
def test_a_commit_nobody_heard_the_end_of_is_not_acknowledged_and_a_retry_learns_it(
    store: Store, postgres: PostgresServer, keep: bool
) -> None:
    followed: list[int] = []

    def work(t: Transaction) -> str:
        if (before := t.request("r1")) is not None:
            return f"again {before.response.decode()}"
        record(t, 1, subject_key=None)
        t.remember("r1", "Enroll", b"digest", b"answer")
        return "answer"

    commits = GroupCommit(store, lambda: followed.append(now(store, Reader.last_change)), largest_group=4)
    try:
        break_the_next_commit(store, postgres, keep=keep)
        with pytest.raises(StoreDisconnected):
            commits.submit(work)
        # The index is told all the same: what was kept is searched.
        assert followed == [1 if keep else 0]
        assert commits.submit(work) == ("again answer" if keep else "answer")
    finally:
        commits.close()
    assert [e.encounter_id for e in searched(store)] == ["e1"]
    assert len(now(store, lambda r: r.changes(0))) == 1


def test_a_server_that_crashes_comes_back_with_everything_acknowledged(
    store: Store, postgres: PostgresServer
) -> None:
    for number in range(5):
        enrol(store, number)
    session = "SELECT pid FROM pg_stat_activity WHERE datname = 'rekam' LIMIT 1"
    os.kill(int(postgres.execute(session) or 0), signal.SIGKILL)  # the server then ends all and recovers
    for _ in range(600):
        with suppress(StoreDisconnected):
            enrol(store, 5)
            break
        time.sleep(0.05)
    assert [s.subject_id for s in now(store, lambda r: r.subjects(None, 10))] == [
        f"s{number}" for number in range(6)
    ]


def test_a_server_that_is_not_there_is_told_as_unreachable(tmp_path: Path) -> None:
    with pytest.raises(StoreDisconnected, match="cannot be reached"):
        Store.open(tmp_path / "data", f"postgresql://rekam:secret@/rekam?host={tmp_path}")
    with pytest.raises(StoreDisconnected) as refusal:
        Store.open(tmp_path / "data", "postgresql://rekam:secret@127.0.0.1:1/rekam")
    assert "secret" not in str(refusal.value)


# What the server must promise


def test_a_commit_waits_for_the_disk_whatever_the_database_says(
    place: Place, postgres: PostgresServer
) -> None:
    postgres.execute("ALTER DATABASE rekam SET synchronous_commit = off")
    try:
        with place.open() as store, store._database.writing.connect() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
        postgres.execute("ALTER DATABASE rekam SET synchronous_commit = remote_apply")
        with place.open() as store, store._database.writing.connect() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "remote_apply"
    finally:
        postgres.execute("ALTER DATABASE rekam RESET synchronous_commit")


def test_limits_for_people_at_a_prompt_do_not_end_a_long_reading(
    place: Place, postgres: PostgresServer
) -> None:
    postgres.execute("ALTER DATABASE rekam SET idle_in_transaction_session_timeout = '20ms'")
    try:
        with place.open() as store, store.read() as reader:
            assert reader.subject("s1") is None
            time.sleep(0.1)
            assert reader.subject("s1") is None
    finally:
        postgres.execute("ALTER DATABASE rekam RESET idle_in_transaction_session_timeout")


def test_a_server_that_does_not_sync_is_refused(place: Place, postgres: PostgresServer) -> None:
    postgres.execute("ALTER SYSTEM SET fsync = off")
    try:
        reloaded(postgres, "off")
        with pytest.raises(StoreError, match="set fsync = on"):
            place.open()
    finally:
        postgres.execute("ALTER SYSTEM RESET fsync")
        reloaded(postgres, "on")
    place.open().close()


def reloaded(postgres: PostgresServer, fsync: str) -> None:
    """Let the server read its configuration; wait until it did."""
    postgres.execute("SELECT pg_reload_conf()")
    for _ in range(500):
        if postgres.execute("SHOW fsync") == fsync:
            return
        time.sleep(0.01)
    pytest.fail("the server does not read its configuration")


def test_the_migrations_make_the_schema_the_code_uses(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database() as wanted, postgres.database() as migrated:
        engine = Place(tmp_path, wanted).engine()
        metadata.create_all(engine)
        engine.dispose()
        Place(tmp_path / "data", migrated).open().close()
        postgres.execute("DROP TABLE alembic_version", database=make_url(migrated).database or "")
        made = postgres.definitions(migrated)
        # Only the order of columns may differ.
        assert sorted(line.strip(" ,") for line in made) == sorted(
            line.strip(" ,") for line in postgres.definitions(wanted)
        )


# Faults


def test_a_full_disk_keeps_nothing_of_the_transaction_even_if_the_fault_is_caught(
    store: Store, place: Place
) -> None:
    enrol(store, 1)
    administrator = psycopg.connect(plain(place), autocommit=True)
    # The server's own words for a disk that has no room for an image.
    administrator.execute(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
    )
    administrator.execute(
        "CREATE TRIGGER full_disk BEFORE INSERT ON sample_image FOR EACH ROW "
        "WHEN (length(NEW.image) > 1000000) EXECUTE FUNCTION no_room()"
    )
    try:
        with pytest.raises(StoreFull, match="No space left"), store.transaction() as t:  # noqa: PT012
            record(t, 2, subject_key=None)
            with pytest.raises(StoreFull), t.savepoint():
                record(t, 3, subject_key=None, prints=fingers(1, image=bytes(2_000_000)))
            with pytest.raises(StoreFull):
                record(t, 4, subject_key=None)
    finally:
        administrator.execute("DROP FUNCTION no_room CASCADE")
        administrator.close()
    hold(store, 5)
    assert [e.encounter_id for e in searched(store)] == ["e1", "e5"]


def test_a_transaction_with_a_failed_statement_is_not_acknowledged(store: Store) -> None:
    # The server would answer COMMIT by undoing everything, without an error.
    with pytest.raises(StoreError, match="rolled back"), store.transaction() as t:  # noqa: PT012
        record(t, 1, subject_key=None)
        with pytest.raises(Exception, match="division by zero"):
            t._connection.exec_driver_sql("SELECT 1 / 0")
    assert searched(store) == ()


def test_a_value_the_server_cannot_keep_is_refused_and_the_transaction_goes_on(store: Store) -> None:
    with store.transaction() as t:
        with pytest.raises(InvalidRequest, match="cannot keep"), t.savepoint():
            t.add_subject("s\0", nik(1), NOON)
        with pytest.raises(InvalidRequest, match="cannot keep"), t.savepoint():
            t._command("SELECT 1 / 0")  # the server's own refusal of a value
        t.add_subject("s1", nik(1), NOON)
    with store.read() as reader:
        assert [s.subject_id for s in reader.subjects(None, 10)] == ["s1"]


def test_a_table_held_by_another_program_is_told_as_locked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backend._SESSION, "lock_timeout", "50ms")
    monkeypatch.setattr(backend, "LOCK_WAIT", "50ms")
    with place.open() as store, psycopg.connect(plain(place)) as other:
        other.execute("LOCK TABLE subject IN EXCLUSIVE MODE")
        with pytest.raises(StoreLocked, match="another program"):
            enrol(store, 1)
        other.rollback()
        enrol(store, 1)


def test_a_damaged_page_is_told_as_damage(
    place: Place, store: Store, postgres: PostgresServer, tmp_path: Path
) -> None:
    for number in range(50):
        enrol(store, number)
    store.close()
    with postgres.database(copy_of="rekam") as url:
        with psycopg.connect(plain(place)) as connection:
            [found] = connection.execute("SELECT pg_relation_filepath('sample')").fetchone() or [""]
        [table] = [file for file in postgres.files(url) if file.name == Path(str(found)).name]
        content = table.read_bytes()
        with table.open("r+b") as file:
            file.seek(len(content) // 2)
            file.write(b"\xa5" * 8192)
        other = Place(tmp_path / "other", url)
        with other.open() as damaged, pytest.raises(StoreDamaged), damaged.read() as reader:
            _ = [reader.encounter(f"e{number}") for number in range(50)]


@pytest.mark.parametrize("refused", [True, False])
def test_no_error_tells_a_nik(store: Store, refused: bool) -> None:
    enrol(store, 1)
    with pytest.raises(StoreError if not refused else Exception) as told, store.transaction() as t:  # noqa: PT012
        if refused:
            t.add_subject("s2", nik(1), NOON)
        else:
            t._insert(metadata.tables["subject"], {"subject_id": "s2", "nik": nik(1), "created_at": NOON})
    shown: BaseException | None = told.value
    while shown is not None:
        assert nik(1) not in str(shown)
        shown = None if shown.__suppress_context__ else shown.__cause__ or shown.__context__


# Erasure


def test_what_is_deleted_is_vacuumed_away_once_no_reader_needs_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekam.store, "_ERASE_AGAIN_SECONDS", 0.0)

    def dead() -> int:
        with store._database.reading.connect() as connection:
            asked = text("SELECT pg_stat_get_dead_tuples('sample'::regclass)")
            return int(connection.execute(asked).scalar_one())

    prints = fingers(3)
    enrol(store, 1, prints)
    with store.read() as older:
        assert older.last_change() == 1
        with store.transaction() as t:
            t.delete_subject("s1", deleted_at=NOON)
        [still] = older.searchable(0, 10)
        assert still.templates[0][1] == prints[0].template
        assert dead() == 3
    enrol(store, 2)
    assert dead() == 0


def test_after_a_full_vacuum_no_file_of_a_table_has_what_was_deleted(
    place: Place, store: Store, postgres: PostgresServer
) -> None:
    gone, kept = fingers(5, image=os.urandom(30_000)), fingers(3)
    enrol(store, 1, gone)
    enrol(store, 2, kept)

    def in_files(prints: tuple[SampleRecord, ...]) -> bool:
        content = b"".join(file.read_bytes() for file in postgres.files(place.url or ""))
        data = [f.template for f in prints] + [f.image for f in prints if f.image]
        return any(d[at : at + 16] in content for d in data for at in range(0, len(d) - 15, 400))

    assert in_files(gone)
    with store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)
    with psycopg.connect(plain(place), autocommit=True) as operator:
        operator.execute("VACUUM (FULL) sample, sample_image")
    assert not in_files(gone)
    assert in_files(kept)


def plain(place: Place) -> str:
    """The URL as psycopg itself takes it."""
    url = make_url(place.url or "").set(drivername="postgresql")
    return url.render_as_string(hide_password=False)
