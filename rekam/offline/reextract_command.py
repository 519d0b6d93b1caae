"""`rekam reextract`: new templates of kept images, in the data folder of a stopped server."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from capture.fingerprint.template import ExtractorChoice
from capture.sample import Modality
from rekam.capturing import Capturing
from rekam.config import load_settings
from rekam.errors import NotWritten
from rekam.faults import told_faults
from rekam.offline.reextract import Report, reextract
from rekam.store import Store
from rekam.written import require_writable


def reextract_command(
    data_dir: Annotated[Path | None, typer.Option(help="Data folder of a stopped server.")] = None,
    modality: Annotated[
        list[Modality] | None, typer.Option(help="Only this one; may be given again. All where not given.")
    ] = None,
    extractor: Annotated[
        ExtractorChoice | None, typer.Option(help="What extracts fingers: accurate (the default) or fast.")
    ] = None,
    report: Annotated[
        Path, typer.Option(help="CSV file to write: every template that stays as it was, and why.")
    ] = Path("reextract-report.csv"),
    workers: Annotated[
        int | None, typer.Option(help="Threads that extract; the number of processors where not given.")
    ] = None,
) -> None:
    """Make templates anew that another extractor or face network made than is set now, of kept images.

    Run it again to go on after an interruption. Exit status 2: some stay as they were.
    """
    console = Console(stderr=True)
    columns = (TextColumn("extracting anew"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with told_faults():
        settings = load_settings(data_dir=data_dir, extractor=extractor, workers=workers)
        require_writable(report)
        try:
            rows = Report(report)
        except OSError as error:
            raise NotWritten(f"{report} cannot be written: {error.strerror}") from error
        with (
            rows,
            Store.open(settings.data_dir, settings.database_url) as store,
            closing(Capturing(settings)) as capturing,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            with store.read() as reader:
                encounters = reader.counts().encounters
            task = bar.add_task("", total=sum(n for state, n in encounters.items() if state.searchable))
            done = reextract(
                store,
                capturing,
                modality or list(Modality),
                settings.workers,
                told=rows.tell,
                progress=lambda more: bar.advance(task, more),
            )
    typer.echo(f"{done.replaced:,} templates made anew")
    if done.without_image or done.kept:
        typer.echo(
            f"{done.without_image:,} stay because no image was kept, "
            f"{done.kept:,} because it yields none now: {report}"
        )
        raise typer.Exit(2)
