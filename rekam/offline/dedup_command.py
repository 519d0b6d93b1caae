"""`rekam dedup`: everybody against everybody, in a data folder or a folder of records."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rekam.config import load_settings
from rekam.faults import told_faults
from rekam.offline.dedup import dedup
from rekam.offline.dedup_gathered import members_and_faults
from rekam.offline.dedup_job import own_folder
from rekam.offline.dedup_page import dedup_page
from rekam.offline.dedup_results import ERRORS, MEMBERS, OWN, PAIRS, clusters, write_tables
from rekam.offline.dedup_sources import DedupError, opened_source
from rekam.written import written

_REPORT = "report.html"


def dedup_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Data folder of a stopped server, a backup of one, or a folder of records: a sub-folder, "
            "a file, or several files <record>_<position>.* each; images, native templates, image records "
            "or CBEFF.",
        ),
    ],
    job: Annotated[
        Path,
        typer.Option(
            help="Folder of the job and its results. Run the command again to go on with a job that was "
            "stopped or killed. It holds biometrics and NIKs."
        ),
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as there are processors where not given.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, tcp://HOST:PORT, whose workers do the work instead; all of "
            "them see the job's folder under the same path (rekam[dask])."
        ),
    ] = None,
    ppi: Annotated[
        float | None,
        typer.Option(help="Resolution of fingers, pixels per inch, where their images do not declare it."),
    ] = None,
) -> None:
    """Find all double identities: everybody is compared with everybody.

    Writes clusters (members.csv), their evidence (pairs.csv), encounters of one subject that do not match
    (own_encounters.csv), what could not be read (errors.csv), and report.html with pictures, into the job's
    folder. No record in SOURCE is changed, and nothing at all in a backup. Exit status 2: there are double
    identities.
    """
    console = Console(stderr=True)
    with told_faults():
        settings = load_settings()
        if job.resolve().is_relative_to(source.resolve()):
            raise DedupError(f"{job} lies in {source}: name a folder beside it")
        with own_folder(job), opened_source(source, settings, ppi, job) as opened:
            found = dedup(
                opened, job, settings, workers=workers or os.cpu_count() or 1, console=console, dask=dask
            )
            members, faults = members_and_faults(job)
            groups = clusters(members, found.doubles)
            write_tables(job, members, faults, found, groups)
            date = f"{datetime.now(UTC):%Y-%m-%d}"
            html = dedup_page(members, faults, found, groups, opened, source.resolve().name, date)
            written(job / _REPORT, html.encode())
    weak = sum(group.weak for group in groups)
    typer.echo(
        f"{len(groups):,} clusters ({weak:,} by pairs to review only), {len(found.own):,} pairs of own "
        f"encounters that do not match, {len(faults):,} samples not read: {job / _REPORT}, {MEMBERS}, "
        f"{PAIRS}, {OWN}, {ERRORS}"
    )
    if groups:
        raise typer.Exit(2)
