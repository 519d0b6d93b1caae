"""What differs between the databases a store may lie in. Everything else is SQL that both understand.

`rekam.sqlite` is the default, a file in the data folder; `rekam.postgres` a server that many machines reach.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from rekam.errors import RekamError, StoreNewer


class Database(Protocol):
    """One database, owned by this process until `close`.

    `reading` gives connections that each see one consistent state, at any time from any thread. `writing`
    gives one at a time: it owns the database, and what it commits is durable.
    """

    name: str
    reading: Engine
    writing: Engine

    def rebuilding(self) -> AbstractContextManager[Connection]:
        """A write transaction in which tables may be rebuilt."""

    def can_commit(self, connection: Connection) -> bool:
        """Whether a commit would keep anything: databases undo a transaction by themselves on some faults."""

    def fault(self, error: BaseException | None) -> RekamError:
        """What an error of the driver means: a `StoreError`, or `InvalidRequest` for a value it cannot keep.

        The text tells neither a NIK nor a template.
        """

    def size(self, connection: Connection) -> int:
        """Bytes on the disk."""

    def check_copies(self) -> None:
        """Raises `WrongState` where the database has means of its own for copies."""

    def copy_to(self, file: Path, check: Callable[[], None]) -> None:
        """Write a consistent copy of the whole database into a new file, while others read and write.

        `check` is called now and then and may raise. Raises `WrongState` as `check_copies` does.
        """

    def erase(self) -> bool:
        """Take away the remains of deleted rows; whether all are gone. Older readers may still need some."""

    def compact(self) -> None:
        """Write the tables anew, without gaps. Writers wait meanwhile."""

    def close(self) -> None:
        """Let the database go."""


@contextmanager
def faults(database: Database) -> Iterator[None]:
    """Wrap faults of the database, see `Database.fault`."""
    try:
        yield
    except DBAPIError as error:
        # Its own text may quote the row, with the NIK.
        raise database.fault(error.orig) from None


def migrate(database: Database) -> None:
    """Bring the schema to this version, in one transaction. Raises `StoreNewer`."""
    scripts = ScriptDirectory.from_config(_migrations())
    with faults(database):
        with database.writing.begin() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise StoreNewer(f"the database has schema {current}, which this Rekam does not know: update it")
        if current != scripts.get_current_head():
            with database.rebuilding() as connection:
                upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Make the tables, or bring them to this version, within the transaction of this connection."""
    config = _migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "rekam:migrations")
    return config
