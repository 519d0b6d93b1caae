"""`rekam restore`: a data folder of a backup."""

from pathlib import Path
from typing import Annotated

import typer

from rekam.backup import restore
from rekam.faults import told_faults
from rekam.store import Store


def restore_command(
    backup: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the backup.")],
    data_dir: Annotated[Path, typer.Option(help="Data folder to make: new, or empty.")],
) -> None:
    """Make a data folder of a backup, verified byte by byte."""
    with told_faults():
        made = restore(backup, data_dir)
        with Store.open(data_dir):
            pass  # it opens, and its schema is brought up to date
    typer.echo(f"{made.subjects:,} subjects, {made.size:,} bytes, as of change {made.sequence:,}: {data_dir}")
