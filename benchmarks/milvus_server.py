"""A real Milvus server on this machine, for tests and measurements: `make setup` puts it into `.milvus/`.

One process over a folder, started in about 8 s: the standalone server of the `milvus` package, which needs
none of its Python dependencies.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.provenance import ROOT

PACKAGE = ROOT / ".milvus"
_UNPACKED = PACKAGE / "unpacked"
_START = """
import os, signal, socket, sys
from milvus import MilvusServer, MilvusServerConfig

def bound(self, port):  # as the package does it, but a port is free at once after a kill
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return None
    listener.listen()
    return listener

def anywhere(self, start):  # not the next after `start`: a server started at the same moment finds it too
    listener = socket.create_server(("127.0.0.1", 0))
    return listener.getsockname()[1], listener

MilvusServerConfig.try_bind_port = bound
MilvusServerConfig.resolve_port = anywhere
server = MilvusServer(proxy_port=sys.argv[2], etcd_port=sys.argv[3])
server.set_base_dir(sys.argv[1])
for setting in sys.argv[4:]:
    server.config.set(*setting.split("="))
server.start()
print("serves", flush=True)
sys.stdin.read()  # until whoever wanted the server is gone, however it ended
os.killpg(0, signal.SIGKILL)
"""
_PATIENCE = 8.0  # seconds to stop in
# The etcd within it; else its second port is always 2380, and there could be one server a machine.
_ETCD = """
listen-client-urls: http://127.0.0.1:{port}
advertise-client-urls: http://127.0.0.1:{port}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
data-dir: {folder}/data/etcd
"""
_SETTINGS = {
    # a strong read waits for the next tick: 200 ms as shipped
    "proxy.timeTickInterval": "20",
    # how long a killed server is waited for when it comes back: 30 s as shipped
    "common.session.ttl": "15",
    "rootCoord.dmlChannelNum": "4",
    "log.level": "warn",
}


class MilvusUnavailable(RuntimeError):
    """The server is not installed or does not start; the message says what to do."""


class MilvusServer:
    """The server over `folder`; `start` and `stop` as often as you like, `kill` as a power cut would.

    `settings` are Milvus's own, by their dotted names; what was acknowledged stays in the folder.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[str] | None = None
        self._port, self._etcd, self._peer = _free_ports(3)

    @property
    def uri(self) -> str:
        """Where clients connect; the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def resident_bytes(self) -> int:
        """Memory of the server now."""
        assert self._process is not None
        of_group = subprocess.run(
            ["ps", "-o", "rss=", "--ppid", str(self._process.pid)], check=True, capture_output=True, text=True
        )
        return 1024 * sum(map(int, of_group.stdout.split()))

    def start(self) -> None:
        """Start and wait until it serves; raises `MilvusUnavailable` with the end of its log."""
        if not (PACKAGE / "milvus").is_dir():
            raise MilvusUnavailable("there is no Milvus server in .milvus/: run `make setup`")
        _UNPACKED.mkdir(exist_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / "bin").exists():  # the server unpacks itself once, not for every folder
            (self._folder / "bin").symlink_to(_UNPACKED)
        etcd = self._folder / "etcd.yaml"
        etcd.write_text(_ETCD.format(port=self._etcd, peer=self._peer, folder=self._folder))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(self._folder), str(self._port), str(self._etcd)]
            + [f"{name}={value}" for name, value in self._settings.items()],
            env=os.environ | {"PYTHONPATH": str(PACKAGE), "ETCD_CONFIG_PATH": str(etcd)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            os.killpg(self._process.pid, signal.SIGKILL)
            _, said = self._process.communicate()
            self._process = None
            raise MilvusUnavailable(f"Milvus does not start: {said or self._last_words()}")

    def stop(self) -> None:
        """Stop it; nothing happens where it does not run."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _PATIENCE
            while _group_lives(self._process.pid) and time.monotonic() < deadline:
                self._process.poll()
                time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """End it at once, with nothing written that was not."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        while _group_lives(process.pid):
            time.sleep(0.05)

    def _last_words(self) -> str:
        logs = sorted(self._folder.glob("logs/milvus-std*.log"))
        return " / ".join(log.read_text(errors="replace")[-2000:] for log in logs) or "it left no log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
