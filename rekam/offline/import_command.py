"""`rekam import`: the records of an older register, into the data folder of a stopped server."""

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from capture.fingerprint.template import ExtractorChoice
from rekam.capturing import Capturing
from rekam.config import load_settings
from rekam.errors import NotWritten
from rekam.faults import told_faults
from rekam.offline.import_records import Imported, Problems, import_records
from rekam.store import Store
from rekam.written import require_writable


def import_command(
    manifest: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="CSV file with one line a sample; docs/moving.md."),
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder of a stopped server, or of a new one.")
    ] = None,
    problems: Annotated[
        Path, typer.Option(help="CSV file to write: every record refused and every sample left out, and why.")
    ] = Path("import-problems.csv"),
    ppi: Annotated[
        float | None, typer.Option(help="Pixels per inch of fingers, where neither image nor manifest tells.")
    ] = None,
    keep_images: Annotated[
        bool | None, typer.Option("--keep-images", help="Store the images beside the templates.")
    ] = None,
    extractor: Annotated[
        ExtractorChoice | None, typer.Option(help="What extracts fingers: accurate (the default) or fast.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that extract; the number of processors where not given.")
    ] = None,
) -> None:
    """Take the records of an older register into a data folder, without searching anybody.

    Run it again to go on after an interruption, or once what it refused is mended: what is in is passed
    over. Then look for people with two NIKs by `rekam dedup`. Exit status 2: some records were refused.
    """
    console = Console(stderr=True)
    with told_faults():
        settings = load_settings(
            data_dir=data_dir, keep_images=keep_images, extractor=extractor, workers=workers
        )
        require_writable(problems)
        try:
            told = Problems(problems)
        except OSError as error:
            raise NotWritten(f"{problems} cannot be written: {error.strerror}") from error
        columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        started = time.monotonic()
        with (
            told,
            Store.open(settings.data_dir, settings.database_url) as store,
            closing(Capturing(settings)) as capturing,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            task = bar.add_task("", total=manifest.stat().st_size)
            imported = import_records(
                store,
                capturing,
                settings,
                manifest,
                told,
                lambda read: bar.update(task, completed=read),
                ppi=ppi,
            )
    _say(imported, told, problems, time.monotonic() - started)
    if imported.refused:
        raise typer.Exit(2)


def _say(imported: Imported, told: Problems, problems: Path, seconds: float) -> None:
    new = imported.enrolled + imported.joined + imported.held
    lines = [
        f"{new:,} records imported in {seconds:,.0f} s, {new / max(seconds, 1e-9):,.0f} a second: "
        f"{imported.enrolled:,} people, {imported.joined:,} further records of theirs, {imported.held:,} "
        "held because they do not match the subject of their NIK",
        f"{imported.there_already:,} were in already",
        f"{imported.refused:,} records refused, {imported.left_out:,} samples left out: {problems}",
    ]
    needed = (True, imported.there_already > 0, told.number > 0)
    for line, told_of in zip(lines, needed, strict=True):
        if told_of:
            typer.echo(line)
