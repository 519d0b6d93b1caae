"""PostgreSQL: one database of a server, reached over a connection that may break at any moment.

All writing goes through one connection, and that connection holds the lock that says whose the database is.
So the lock cannot be lost without the transaction under way: the server ends both with the session, and who
gets the lock next sees everything committed before. A broken connection is told as `StoreDisconnected`; the
next call opens a new one, which takes the lock again or is told who has it.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from rekam.errors import (
    InvalidRequest,
    RekamError,
    StoreDamaged,
    StoreDisconnected,
    StoreError,
    StoreFull,
    StoreLocked,
    WrongState,
)
from rekam.schema import encounter, metadata, missing_sample, sample, sample_image, signature

OWNER_WAIT = "2s"
"""How long an owner is waited for: the server ends the session of a killed process once it notices."""
LOCK_WAIT = "10s"
"""How long another program that locks a table is waited for."""
ERASE_WAIT = "1s"
"""The same when deleted rows are vacuumed away, while commits wait."""
# A machine that vanished is noticed within half a minute, by us and by the server.
_CONNECT = {
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SESSION = {
    "lock_timeout": LOCK_WAIT,
    # The server's own limits are for people at a prompt: an index is rebuilt from one long reading.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_OWNER = (0x52454B41, 1)  # the advisory lock; it counts within one database
_ERASED = ", ".join(table.name for table in (encounter, sample, sample_image, missing_sample, signature))
_ALL = ", ".join(table.name for table in metadata.sorted_tables)
_log = logging.getLogger(__name__)


class Postgres:
    """The `rekam.database.Database` at a URL."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self.name = f"{self._url.host or self._url.query.get('host', 'localhost')}/{self._url.database}"
        options = {name: value for name, value in _CONNECT.items() if name not in self._url.query}
        options["application_name"] = f"rekam process {os.getpid()} on {socket.gethostname()}"[:63]
        # A connection that broke while idle is replaced before it is used.
        self.reading = create_engine(
            self._url,
            connect_args=options,
            pool_size=8,
            max_overflow=-1,  # readers never wait for a connection
            pool_pre_ping=True,
            hide_parameters=True,  # no NIK and no template in an error's text
            isolation_level="REPEATABLE READ",
        )
        self.writing = create_engine(
            self._url,
            connect_args=options,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level="REPEATABLE READ",
        )
        event.listen(self.reading, "connect", _prepare)
        event.listen(self.writing, "connect", _prepare)
        event.listen(self.writing, "connect", self._own)

    @contextmanager
    def rebuilding(self) -> Iterator[Connection]:
        """A write transaction; the schema is changed in it or not at all."""
        with self.writing.begin() as connection:
            yield connection

    def can_commit(self, connection: Connection) -> bool:
        """Whether the transaction is open and no statement of it failed: a commit would undo it silently."""
        status = _driver(connection).info.transaction_status
        return status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)

    def fault(self, error: BaseException | None) -> RekamError:
        """What an error of psycopg means. Only its first line is told: the others may quote a row."""
        if not isinstance(error, psycopg.Error):
            return StoreError(f"the database {self.name} failed: {error}")
        text = error.diag.message_primary or str(error).partition("\n")[0]
        match error:
            case errors.DiskFull() | errors.IoError() | errors.ReadOnlySqlTransaction():
                return StoreFull(f"the disk of {self.name} is full, read-only or fails: {text}")
            case errors.DataCorrupted() | errors.IndexCorrupted():
                return StoreDamaged(f"the database {self.name} is damaged, restore a backup: {text}")
            case errors.LockNotAvailable() | errors.SerializationFailure() | errors.DeadlockDetected():
                return StoreLocked(f"another program holds the database {self.name}: {text}")
            case errors.AdminShutdown() | errors.CrashShutdown() | errors.CannotConnectNow():
                return StoreDisconnected(f"the server of {self.name} ended the connection: {text}")
            case psycopg.DataError():
                # The value's fault, not the database's: a savepoint is undone, the transaction goes on.
                return InvalidRequest([("", "holds a value that the database cannot keep")])
            case psycopg.OperationalError() if error.sqlstate is None:
                return StoreDisconnected(f"the database {self.name} cannot be reached: {text}")
        return StoreError(f"the database {self.name} failed: {text}")

    def size(self, connection: Connection) -> int:
        """Bytes of the database, without the server's write-ahead log."""
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    def copy_to(self, file: Path, check: Callable[[], None]) -> None:
        """Refuses."""
        self.check_copies()

    def check_copies(self) -> None:
        """Refuses: the server's own tools make better copies, of all its databases and to any moment."""
        raise WrongState(
            f"the records are in the PostgreSQL database {self.name}: back it up by pg_dump or pg_basebackup"
        )

    def erase(self) -> bool:
        """Vacuum away the deleted rows; whether no older reader kept any.

        No statement reaches them then. Their bytes stay in the gaps of pages until other rows are written
        there, and in the write-ahead log until it is reused: PostgreSQL overwrites nothing of its own accord.
        """
        return self._vacuum(_ERASED, ERASE_WAIT)

    def compact(self) -> None:
        """Vacuum all tables. Nobody waits for it; `VACUUM (FULL)`, which all wait for, is the operator's."""
        self._vacuum(_ALL, LOCK_WAIT)

    def _vacuum(self, tables: str, lock_wait: str) -> bool:
        dead = "SELECT sum(pg_stat_get_dead_tuples(name::regclass)) FROM unnest(%s::text[]) AS name"
        try:
            with self.reading.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                set_wait = "SELECT set_config('lock_timeout', %s, false)"
                connection.exec_driver_sql(set_wait, (lock_wait,))
                try:
                    connection.exec_driver_sql(f"VACUUM {tables}")
                finally:
                    connection.exec_driver_sql(set_wait, (LOCK_WAIT,))
                left = connection.exec_driver_sql(dead, (tables.split(", "),)).scalar_one()
                return bool(left == 0)
        except DBAPIError as error:
            # What was committed stays committed; only its remains wait.
            _log.warning("deleted rows could not be vacuumed away: %s", self.fault(error.orig))
            return False

    def close(self) -> None:
        """Close every connection; the lock goes with its own."""
        self.reading.dispose()
        self.writing.dispose()

    def _own(self, connection: psycopg.Connection, entry: ConnectionPoolEntry) -> None:
        """Take the database for this process; the connection that writes has just been made."""
        try:
            connection.autocommit = True
            if _asked(connection, "SHOW fsync") != "on":
                raise StoreError(f"the server of {self.name} does not sync what it commits: set fsync = on")
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (OWNER_WAIT,))
            connection.execute("SELECT pg_advisory_lock(%s, %s)", _OWNER)
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_WAIT,))
            connection.autocommit = False
        except errors.LockNotAvailable:
            holder = _asked(connection, _HOLDER, _OWNER) or "another program"
            connection.close()
            raise StoreLocked(f"the database {self.name} is in use by {holder}") from None
        except BaseException:
            connection.close()
            raise


_HOLDER = """
SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND (classid, objid, objsubid) = (%s, %s, 2) AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _prepare(connection: psycopg.Connection, entry: ConnectionPoolEntry) -> None:
    connection.autocommit = True
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) "
        "JOIN pg_settings USING (name)",  # older servers know fewer
        (list(_SESSION), list(_SESSION.values())),
    )
    # A commit returns once it is on the disk, and on the standby's where there is one that is waited for.
    connection.execute(
        "SELECT set_config(name, 'on', false) FROM pg_settings "
        "WHERE name = 'synchronous_commit' AND setting <> 'remote_apply'"
    )
    connection.autocommit = False


def _asked(
    connection: psycopg.Connection, question: LiteralString, values: Sequence[object] = ()
) -> str | None:
    row = connection.execute(question, values or None).fetchone()
    return None if row is None else str(row[0])


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"this needs psycopg, not {type(driver)}")
    return driver
