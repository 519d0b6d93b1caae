"""Files are written whole or not at all: a full disk leaves what was there before."""

import os
import secrets
import shutil
from pathlib import Path

from rekam.errors import NotWritten


def written(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` to `path`; where that fails, an older file stays as it was and no part of a new one.

    `private`: none but its owner can read it, whoever could read the older one. A link is followed. What is
    no plain file (standard output, a pipe, a device) is written directly.
    Raises `NotWritten`, which names the file.
    """
    require_writable(path)
    try:
        if _is_direct(path):
            path.write_bytes(data)
            return
        target = Path(os.path.realpath(path))
        partial = target.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            if target.exists() and not private:
                shutil.copymode(target, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


def require_writable(path: Path) -> None:
    """Raise `NotWritten` for a file that cannot be written, as far as that shows without writing."""
    try:
        folder = Path(os.path.realpath(path)).parent
        if path.is_dir():
            raise NotWritten(f"{path} cannot be written: it is a folder")
        if not folder.is_dir():
            raise NotWritten(f"{path} cannot be written: there is no folder {folder}")
        needed = [path] if _is_direct(path) else [folder, *([path] if path.exists() else [])]
        if not all(os.access(one, os.W_OK) for one in needed):
            raise NotWritten(f"{path} cannot be written: permission denied")
    except OSError as error:
        raise _not_written(path, error) from error


def _is_direct(path: Path) -> bool:
    """Whether to write to what `path` opens, not to replace it: /dev/stdout may lead to a plain file too."""
    device = path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",))
    return device or (path.exists() and not path.is_file())


def _not_written(path: Path, error: OSError) -> NotWritten:
    return NotWritten(f"{path} cannot be written: {error.strerror or error}")
