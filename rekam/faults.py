"""How a command tells a fault: one message on the error stream, and exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from capture.errors import CaptureError
from matching.errors import MatchingError
from rekam.errors import RekamError
from rekam.offline.samples import EvaluationError


def say_fault(text: str) -> None:
    """One message; what it quotes is no markup, and a copied id has no line break in it."""
    Console(stderr=True).print("[red]error:[/]", escape(text), highlight=False, soft_wrap=True)


@contextmanager
def told_faults(path: Path | None = None) -> Iterator[None]:
    """Tell the faults of an offline command and end it; `path`: the file that samples are read from."""
    try:
        yield
    except (CaptureError, EvaluationError, MatchingError, RekamError, OSError) as error:
        of_file = path is not None and isinstance(error, CaptureError | MatchingError)
        text = f"{path}: {error}" if of_file else str(error)
        if isinstance(error, OSError) and error.filename is not None:
            # Without the number that Python puts first.
            text = f"{error.filename}: {error.strerror}"
        say_fault(text)
        raise typer.Exit(1) from error
