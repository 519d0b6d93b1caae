"""`rekam copy-store`: the records of a data folder's SQLite database into an empty PostgreSQL database.

One transaction: the tables, every row of each, and where the numbers go on. The openings come along, so an
index that followed them is as good for the copy as it was for the original.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Connection, Table, func, insert, inspect, select

from rekam.config import load_settings
from rekam.database import Database, faults, upgrade
from rekam.errors import InvalidRequest, InvalidSettings, WrongState
from rekam.faults import told_faults
from rekam.schema import metadata
from rekam.store import DATABASE, Store, database_in

_BATCH = 100  # rows: of images and signatures some 10 MB, and a hundred times the largest at most


def copy_store(folder: Path, url: str, progress: Callable[[int, int], None]) -> int:
    """Copy the SQLite database of a data folder into the empty PostgreSQL database at the URL; how many rows.

    All of them or none. The folder is locked meanwhile and keeps its own. `progress` is told how many are
    done, and of how many. Raises `WrongState` where there is nothing to copy or the target is not empty or
    cannot keep a text, and `StoreError`.
    """
    if not (folder / DATABASE).is_file():
        raise WrongState(f"there is no {DATABASE} in {folder}: nothing to copy")
    with closing(database_in(folder, url)) as target, faults(target), target.reading.connect() as asked:
        _require_empty(target, asked)  # before an older folder is brought up to date
    with (
        Store.open(folder),  # nobody else has it, and its schema is of this version
        closing(database_in(folder, None)) as source,
        closing(database_in(folder, url)) as target,
        faults(source),
        source.reading.connect() as old,
        faults(target),
        target.writing.begin() as new,
    ):
        _require_empty(target, new)
        upgrade(new)
        with faults(source):
            of = sum(old.scalar(select(func.count()).select_from(t)) or 0 for t in metadata.sorted_tables)
            numbers = old.exec_driver_sql("SELECT name, seq FROM sqlite_sequence").all()
        done = 0
        for table in metadata.sorted_tables:
            for batch in _batches(source, old, table):
                try:
                    with faults(target):
                        new.execute(insert(table), batch)
                except InvalidRequest as refusal:
                    raise WrongState(
                        f"{target.name} cannot keep a text of table {table.name}: is its encoding UTF8?"
                    ) from refusal
                done += len(batch)
                progress(done, of)
        for name, last in numbers:
            # The last ever given, not the highest that is there: what was deleted had numbers too.
            if (
                last
                and name in metadata.tables
                and (column := metadata.tables[name].autoincrement_column) is not None
            ):
                new.execute(select(func.setval(func.pg_get_serial_sequence(name, column.name), last)))
    return done


def _require_empty(target: Database, connection: Connection) -> None:
    if there := inspect(connection).get_table_names():
        raise WrongState(f"the database {target.name} has tables already ({there[0]}): name an empty one")


def _batches(source: Database, connection: Connection, table: Table) -> Iterator[list[dict[str, object]]]:
    with faults(source):
        rows = connection.execution_options(yield_per=_BATCH).execute(select(table))
        for batch in rows.partitions():
            yield [row._asdict() for row in batch]


def copy_store_command(
    data_dir: Annotated[Path | None, typer.Option(help="Data folder of a stopped server.")] = None,
) -> None:
    """Copy the records of a data folder from SQLite into the empty PostgreSQL database of REKAM_DATABASE_URL.

    All of them or none; the data folder keeps its own. Afterwards start the server with the same setting.
    """
    console = Console(stderr=True)
    columns = (TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with told_faults():
        settings = load_settings(data_dir=data_dir)
        if settings.database_url is None:
            raise InvalidSettings([("database_url", "is not set: which database shall the records go into?")])
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)
            done = copy_store(
                settings.data_dir,
                settings.database_url,
                lambda rows, of: bar.update(task, completed=rows, total=of),
            )
    typer.echo(f"{done:,} rows copied; {settings.data_dir / DATABASE} stays there")
