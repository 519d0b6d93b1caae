"""What the store does with SQLite's files: who may read them, what leaves them, what damage is told as."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, text

from rekam.errors import StoreDamaged, StoreError, StoreFull, StoreLocked
from rekam.schema import metadata
from rekam.store import DATABASE, Reader, Store
from tests.places import Place, now, searched
from tests.test_store import NOON, enrol, fingers, hold, record, written_by_the_first_release


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path / "data", None)


@pytest.fixture
def store(here: Place) -> Iterator[Store]:
    with here.open() as opened:
        yield opened


def test_deleting_a_subject_erases_its_biometrics_from_the_files(here: Place, store: Store) -> None:
    others = [fingers(3) for _ in range(30)]
    for number, prints in enumerate(others[:15]):
        enrol(store, number + 100, prints)
    gone = fingers(5, image=os.urandom(30_000))
    key = enrol(store, 1, gone)
    second = fingers(5)
    with store.transaction() as t:
        record(t, 2, subject_key=key, prints=second)
    for number, prints in enumerate(others[15:]):
        enrol(store, number + 200, prints)
    biometrics = [f.template for f in gone + second] + [gone[0].image or b""]
    assert all(here.files_hold(data) for data in biometrics)

    with store.transaction() as t:
        t.delete_subject("s1", deleted_at=NOON)
    assert not any(here.files_hold(data) for data in biometrics)
    assert all(here.files_hold(f.template) for prints in others for f in prints)


def test_rejecting_an_encounter_erases_its_biometrics_from_the_files(here: Place, store: Store) -> None:
    prints = fingers(3, image=os.urandom(9_000))
    hold(store, 1, prints)
    hold(store, 2)
    with store.transaction() as t:
        t.reject_encounter("e1")
    assert not any(here.files_hold(f.template) for f in prints)
    assert not here.files_hold(prints[0].image or b"")


def test_compacting_gives_the_space_back(store: Store) -> None:
    for number in range(30):
        enrol(store, number, fingers(3, image=os.urandom(5_000)))
    with store.transaction() as t:
        for number in range(29):
            t.delete_subject(f"s{number}", deleted_at=NOON)
    large = now(store, Reader.counts).database_bytes
    store.compact()
    assert now(store, Reader.counts).database_bytes < large / 2


def test_erasure_waits_for_a_reader_of_the_older_state_and_does_not_hold_up_each_commit(
    here: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = fingers(3)
    enrol(store, 1, prints)
    with store.read() as older, store.transaction() as t:
        assert older.last_change() == 1
        t.delete_subject("s1", deleted_at=NOON)
    enrol(store, 2)
    assert any(here.files_hold(f.template) for f in prints)  # tried again only after a while
    monkeypatch.setattr(store, "_erase_at", 0.0)
    enrol(store, 3)
    assert not any(here.files_hold(f.template) for f in prints)


def test_the_files_are_for_their_owner_only(here: Place, store: Store) -> None:
    enrol(store, 1)
    assert store.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.folder.iterdir())


def test_the_migrations_make_the_schema_the_code_uses(here: Place, store: Store) -> None:
    fresh = create_engine("sqlite://")
    metadata.create_all(fresh)
    migrated = create_engine(f"sqlite:///{store.folder / DATABASE}")
    definitions = text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    with fresh.connect() as wanted, migrated.connect() as made:
        assert compare_metadata(MigrationContext.configure(made), metadata) == []
        rows = [row for row in made.execute(definitions) if not row.name.startswith("alembic_version")]
        # autogeneration sees neither AUTOINCREMENT nor WITHOUT ROWID nor CHECK: the text does
        assert [_words(row.sql) for row in rows] == [_words(row.sql) for row in wanted.execute(definitions)]
    fresh.dispose()
    migrated.dispose()


def test_a_migrated_database_holds_no_second_copy_of_what_is_erased_later(here: Place) -> None:
    templates, image = written_by_the_first_release(here)
    with here.open() as store:
        assert here.files_hold(templates[0])
        with store.transaction() as t:
            t.delete_subject("s1", deleted_at=NOON)
        assert not any(here.files_hold(gone) for gone in (*templates[:2], image))
        assert here.files_hold(templates[2])


def _words(sql: str) -> list[str]:
    return sorted(sql.replace("(", " ( ").replace(")", " ) ").replace(",", " ").split())


def test_the_database_syncs_and_overwrites_as_promised(here: Place, store: Store) -> None:
    with store._database.writing.connect() as connection:
        for pragma, value in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("secure_delete", 1),
            ("temp_store", 2),
        ):
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_a_file_that_is_no_database_is_damaged(here: Place) -> None:
    (here.folder).mkdir()
    (here.folder / DATABASE).write_bytes(b"not a database at all" * 500)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="backup"):
            here.open()
    (here.folder / DATABASE).unlink()
    here.open().close()


def test_a_damaged_page_is_told_as_damage(here: Place) -> None:
    with here.open() as store:
        for number in range(50):
            enrol(store, number)
    path = here.folder / DATABASE
    content = bytearray(path.read_bytes())
    content[4096 * 30 :] = b"\xa5" * (len(content) - 4096 * 30)
    path.write_bytes(content)
    with here.open() as store, pytest.raises(StoreDamaged), store.read() as reader:
        _ = [reader.encounter(f"e{number}") for number in range(50)]


def test_a_damaged_text_is_told_as_damage_and_not_quoted(here: Place) -> None:
    with here.open() as store:
        enrol(store, 1)
    with closing(sqlite3.connect(here.folder / DATABASE)) as database:
        spoilt = "CAST(CAST(substr(nik, 1, 12) AS BLOB) || x'ff' AS TEXT)"
        with database:
            database.execute(f"UPDATE subject SET nik = {spoilt}")
        [(start,)] = database.execute("SELECT substr(nik, 1, 12) FROM subject").fetchall()
    with here.open() as store, pytest.raises(StoreDamaged) as damage, store.read() as reader:
        _ = reader.subjects(None, 10)
    assert start not in str(damage.value)


def test_a_full_disk_keeps_nothing_of_the_transaction_even_if_the_fault_is_caught(
    here: Place, store: Store
) -> None:
    enrol(store, 1)
    pages = 0

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    event.listen(store._database.reading, "begin", limit)
    pages = (
        now(store, Reader.counts).database_bytes // 4096 + 5
    )  # the file cannot be larger than with its log
    with pytest.raises(StoreFull), store.transaction() as t:  # noqa: PT012
        record(t, 2, subject_key=None)
        with pytest.raises(StoreFull), t.savepoint():
            record(t, 3, subject_key=None, prints=fingers(1, image=bytes(2_000_000)))
        with pytest.raises(StoreFull):
            record(t, 4, subject_key=None)
    assert [e.encounter_id for e in searched(store)] == ["e1"]
    pages = 1_000_000
    hold(store, 5)
    assert [e.encounter_id for e in searched(store)] == ["e1", "e5"]


def test_a_database_held_by_another_program_is_told_as_locked(here: Place, store: Store) -> None:
    other = sqlite3.connect(store.folder / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with store._database.writing.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA busy_timeout=1")  # type: ignore[union-attr]
    with pytest.raises(StoreLocked, match="another program"):
        enrol(store, 1)
    other.execute("ROLLBACK")
    other.close()
    enrol(store, 1)


def test_a_transaction_that_the_database_gave_up_is_not_acknowledged(store: Store) -> None:
    with pytest.raises(StoreError, match="rolled back"), store.transaction() as t:  # noqa: PT012
        record(t, 1, subject_key=None)
        t._connection.exec_driver_sql("ROLLBACK")
    assert searched(store) == ()
