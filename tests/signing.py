"""Somebody at a signature pad."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signing(sign: Callable[[], object]) -> Iterator[None]:
    """`sign` now and again, so that whenever a capture begins, one comes after it."""
    captured = threading.Event()

    def go() -> None:
        while not captured.wait(0.4):
            sign()

    hand = threading.Thread(target=go)
    hand.start()
    try:
        yield
    finally:
        captured.set()
        hand.join()
