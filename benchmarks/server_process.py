"""`rekam serve` in a process of its own: started, killed, started again, and watched."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 120


class Broken(Exception):
    """A promise was broken, or a server did not start; the text says which."""


class ServerProcess:
    """`rekam serve` on one port over one data folder, started, killed and started again."""

    def __init__(self, folder: Path, before: Sequence[str] = ()) -> None:
        self.data, self.log = folder / "data", folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._before = list(before)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process. Raises `Broken` where there is none."""
        if self._process is None:
            raise Broken("the server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens. Raises `Broken` with its log where it does not."""
        rekam = str(Path(sys.executable).with_name("rekam"))
        command = [rekam, "serve", "--port", str(self.port), "--data-dir", str(self.data), "--workers", "2"]
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            # A group of its own: a signal reaches the server also beneath another program.
            self._process = subprocess.Popen(
                [*self._before, *command], stderr=log, stdout=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while b"listens on" not in self.log.read_bytes()[said:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"the server did not start:\n{self.log.read_text()[said:]}")
            time.sleep(0.02)

    def memory_mib(self) -> float:
        """Memory of its own, without what is mapped from files."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux has it

    def kill(self) -> None:
        """Pull the plug: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
            self._process.wait(60)
            self._process = None


@contextmanager
def server(folder: Path, before: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """A started server that does not outlive the block."""
    process = ServerProcess(folder, before)
    try:
        process.start()
        yield process
    finally:
        process.stop()
