"""A private `pcscd` with a virtual reader, for tests and demonstrations.

pcscd can take its listening socket from whoever starts it (systemd's socket activation), and its reader
configuration from any folder. So any number of them run side by side, beside the system's own, without root:
/run/pcscd only has to exist. Programs reach this one by the environment variable PCSCLITE_CSOCK_NAME, which
libpcsclite reads once in a process: a process that is to see a restarted daemon keeps one `Pcscd`.

Needs the Debian packages pcscd and vsmartcard-vpcd.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devices.errors import DeviceStuck, DeviceUnavailable

READER = "Virtual PCD"
SOCKET_VARIABLE = "PCSCLITE_CSOCK_NAME"
_LIBRARY = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_NOBODY = 65534
_RUNTIME = Path("/run/pcscd")  # it has to be there; nothing of ours is put into it
# pcscd finds its socket as file descriptor 3 if LISTEN_PID is its own number; setpriv ends it with us.
_START = 'exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
_SECONDS = 10.0


class Pcscd:
    """A daemon and a virtual reader with two slots, of which vsmartcard has one a daemon; not thread-safe.

    `ports`: where the cards of the two slots connect.
    """

    def __init__(self, reader: str | None = READER) -> None:
        """Prepare a reader of this name, or none. Raises `DeviceUnavailable` where a package is missing."""
        self._program, self._setpriv = (_found(name) for name in ("pcscd", "setpriv"))
        if not _LIBRARY.exists():
            raise DeviceUnavailable("no virtual card readers: apt-get install vsmartcard-vpcd")
        # Not below a folder of somebody's own: as root we start it as nobody, who has to get there.
        self._folder = Path(
            tempfile.mkdtemp(prefix="rekam-pcscd-", dir="/tmp" if os.geteuid() == 0 else None)
        )
        self._folder.chmod(0o755)
        self._configuration = self._folder / "readers"
        self._configuration.mkdir(0o755)
        self.socket = self._folder / "comm"
        self.log = self._folder / "log"
        self.ports = _free_ports()
        # Later ones ask polkit, and refuse everybody where there is none.
        options = subprocess.run([self._program, "--help"], capture_output=True, text=True).stdout
        self._options = ["--disable-polkit"] if "--disable-polkit" in options else []
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ends a daemon with the thread that started it: this one lives as long as we do.
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="rekam-pcscd")
        self.configure(reader)

    @property
    def pid(self) -> int | None:
        """The number of the daemon's process, None while it is stopped."""
        return None if self._process is None else self._process.pid

    def configure(self, reader: str | None) -> None:
        """Have a reader of this name, or none; the daemon, if it runs, is started anew.

        A running pcscd finds out that a reader of this kind was added when told to (`pcscd --hotplug`), never
        that one was taken away.
        """
        running = self._process is not None
        self.stop()
        self._listens = reader is not None
        port = self.ports[0]
        where = f"DEVICENAME /dev/null:{port:#x}\nLIBPATH {_LIBRARY}\nCHANNELID {port:#x}\n"
        text = f'FRIENDLYNAME "{reader}"\n{where}'
        path = self._configuration / "vpcd"
        path.write_text(text if reader is not None else "", encoding="ascii")
        path.chmod(0o644)
        if running:
            self.start()

    def start(self) -> None:
        """Start the daemon; clients may connect at once and wait until it is ready."""
        if self._process is None:
            self._process = self._starting.submit(self._started).result()
            self._wait_until_ready()

    def _started(self) -> "subprocess.Popen[bytes]":
        try:
            _RUNTIME.mkdir(0o755, exist_ok=True)
        except PermissionError:
            raise DeviceUnavailable(f"pcscd wants its folder: sudo mkdir -m 755 {_RUNTIME}") from None
        command = [self._program, "--foreground", "--config", str(self._configuration), *self._options]
        # Root's daemon would write, and at its end remove, the system's own /run/pcscd/pcscd.pid.
        nobody = _NOBODY if os.geteuid() == 0 else None
        with self.log.open("ab") as log, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.socket))
            self.socket.chmod(0o666)
            listening.listen(64)
            try:
                return subprocess.Popen(
                    [self._setpriv, "--pdeathsig", "KILL", "sh", "-c", _START, "sh", *command],
                    stdin=listening.fileno(),
                    stdout=log,
                    stderr=log,
                    user=nobody,
                    group=nobody,
                    extra_groups=None if nobody is None else (),
                )
            except OSError as error:  # as where root may become nobody else
                raise DeviceUnavailable(f"pcscd cannot be started: {error}") from error

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon as rudely as `how` says, and take its socket away."""
        self.socket.unlink(missing_ok=True)
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        """Stop it and forget its folder; a second time does nothing."""
        self.stop()
        self._starting.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Pcscd":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self) -> None:
        """Until it listens for its cards; a card's connection would be a card, so the kernel is asked."""
        wanted = set(self.ports if self._listens else ())
        until = time.monotonic() + _SECONDS
        while self._process is not None and not wanted <= _listening():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise DeviceStuck(f"pcscd did not start: {said}")
            time.sleep(0.005)


def _found(program: str) -> str:
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise DeviceUnavailable(f"no {program}: apt-get install pcscd vsmartcard-vpcd util-linux")
    return path


def _free_ports() -> tuple[int, int]:
    """Two successive ones, of those that no connection gets by chance meanwhile."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000, 2)
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("", port))
            second.bind(("", port + 1))
            return port, port + 1


def _listening() -> set[int]:
    """The TCP ports that somebody of this machine listens on."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A":
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports
