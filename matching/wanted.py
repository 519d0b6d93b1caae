"""A search that nobody waits for any more stops: whoever asks says how to find out, in the asking thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


@contextmanager
def while_wanted(check: Callable[[], None]) -> Iterator[None]:
    """Searches in this block call `check` between segments and comparisons, and end with what it raises."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def still_wanted() -> None:
    """Raise what the check of this thread raises, if it has one."""
    _check.get()()
