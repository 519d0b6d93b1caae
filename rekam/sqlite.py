"""SQLite: one file in the data folder, no server.

WAL with synchronous=FULL: a commit returns after fdatasync. `secure_delete` overwrites what is deleted, and a
truncating checkpoint takes it out of the log as well.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from rekam.errors import StoreDamaged, StoreError, StoreFull, StoreLocked

_BUSY_MS = 10_000
_ERASE_WAIT_MS = 1_000
_WAL_LIMIT_BYTES = 64 * 2**20
_CHECKED_STEPS = 100_000  # of the database's machine, some milliseconds
_log = logging.getLogger(__name__)


class Sqlite:
    """The `rekam.database.Database` of one file, made where it is missing. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self.name = str(path)
        self._path = path
        self._copying = False
        self.reading = create_engine(
            URL.create("sqlite", database=str(path)),
            pool_size=8,
            max_overflow=-1,  # readers never wait for a connection
            hide_parameters=True,  # no NIK and no template in an error's text
        )
        event.listen(self.reading, "connect", _prepare)
        event.listen(self.reading, "begin", _begin)
        self.writing: Engine = self.reading.execution_options(immediate=True)

    @contextmanager
    def rebuilding(self) -> Iterator[Connection]:
        """A write transaction in which a table's dependants stay when it is rebuilt."""
        with self.writing.connect() as connection:
            _driver(connection).execute("PRAGMA foreign_keys=OFF")
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise StoreDamaged("the migrated database refers to rows that do not exist")
            _driver(connection).execute("PRAGMA foreign_keys=ON")

    def can_commit(self, connection: Connection) -> bool:
        """Whether the transaction is still open."""
        return _driver(connection).in_transaction

    def fault(self, error: BaseException | None) -> StoreError:
        """What an error of sqlite3 means."""
        if str(error).startswith("Could not decode to UTF-8"):  # and quotes the value
            return StoreDamaged("the database is damaged, restore a backup: a text of it cannot be read")
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY:
                return StoreFull(f"the disk is full, read-only or fails: {error}")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreDamaged(f"the database is damaged, restore a backup: {error}")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreLocked(f"another program holds the database: {error}")
        return StoreError(f"the database failed: {error}")

    def size(self, connection: Connection) -> int:
        """Bytes of the file and its write-ahead log."""
        files = self._path, self._path.with_name(self._path.name + "-wal")
        return sum(file.stat().st_size for file in files if file.exists())

    def check_copies(self) -> None:
        """It can be copied."""

    def copy_to(self, file: Path, check: Callable[[], None]) -> None:
        """Write a compact copy, without gaps; the log grows by what is written meanwhile."""
        stopped: list[BaseException] = []

        def progress() -> bool:
            try:
                check()
            except BaseException as error:
                stopped.append(error)
            return bool(stopped)

        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = self.reading.raw_connection()
        driver = _driver(connection)
        driver.set_progress_handler(progress, _CHECKED_STEPS)
        self._copying = True
        try:
            driver.execute("VACUUM INTO ?", (str(file),))
        except sqlite3.Error as error:
            raise (stopped[0] if stopped else self.fault(error)) from error
        finally:
            self._copying = False
            driver.set_progress_handler(None, 0)
            connection.close()

    def erase(self) -> bool:
        """Move the log into the database and empty it, so that what was erased is in neither.

        Waits a second for readers of older states; not for a copy under way, which would take too long.
        """
        if self._copying:
            return False
        try:
            connection = self.reading.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={_ERASE_WAIT_MS}")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                [busy, *_] = cursor.fetchone() or [1]
                cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                return not busy
            finally:
                connection.close()
        except sqlite3.Error as error:
            # What was committed stays committed; only its erasure from the log waits.
            _log.warning("the write-ahead log could not be emptied: %s", error)
            return False

    def compact(self) -> None:
        """Write the file anew: about 2 s for 10,000 people, and room for a second copy."""
        connection = self.reading.raw_connection()
        try:
            connection.cursor().execute("VACUUM")
        except sqlite3.Error as error:
            raise self.fault(error) from error
        finally:
            connection.close()
        self.erase()

    def close(self) -> None:
        """Empty the write-ahead log and close the file."""
        self.erase()
        self.reading.dispose()


def _prepare(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    for pragma in (
        f"busy_timeout={_BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",  # no copy of a page in a temporary file
        "trusted_schema=OFF",
        f"journal_size_limit={_WAL_LIMIT_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _driver(connection: Connection | PoolProxiedConnection) -> sqlite3.Connection:
    pooled = connection.connection if isinstance(connection, Connection) else connection
    driver = pooled.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError(f"this needs sqlite3, not {type(driver)}")
    return driver
