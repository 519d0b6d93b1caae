"""A gallery's folder: segment files, and a manifest that says which of them are the gallery.

A file is written under a new name and is on disk before the manifest names it; the manifest is replaced by
one rename. Whatever happens, the folder holds one whole state.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from matching.arrays import synced
from matching.errors import GalleryDamaged
from matching.fingerprint.code import code_identity
from matching.segment import Segment, SegmentFile, check, opened, written

_FORMAT = 4
_MANIFEST = "gallery.json"
_SUFFIX = ".segment"
_OURS = (_SUFFIX, ".copy", ".json")


def _versions() -> dict[str, object]:
    """What the arrays were made by, and are worthless without."""
    return {"format": _FORMAT, "codes": code_identity()}


def keep(segment: Segment, folder: Path) -> Segment:
    """The segment with its file in this folder: written there, linked, or as it is.

    A file of another folder is linked where it can be, else copied. Mapped from where it was, if it was.
    """
    if segment.file is None:
        return written(segment, folder / f"{uuid4().hex}{_SUFFIX}")
    target = folder / segment.file.path.name
    if segment.file.path != target and not target.exists():
        try:
            os.link(segment.file.path, target)
        except OSError:
            copy = target.with_suffix(".copy")
            shutil.copyfile(segment.file.path, copy)
            synced(copy)
            copy.rename(target)
    return replace(segment, file=SegmentFile(target, segment.file.table))


def publish(folder: Path, segments: Sequence[Segment], watermark: int) -> None:
    """Make these segments, whose files lie in the folder, the gallery; what else lies there is deleted."""
    body = _versions() | {
        "watermark": watermark,
        "segments": [
            {
                "file": segment.file.path.name,
                "arrays": segment.file.table,
                "dead": np.flatnonzero(segment.dead).tolist(),
            }
            for segment in segments
            if segment.file is not None
        ],
    }
    text = json.dumps(body)
    new = folder / f"{uuid4().hex}.json"
    with new.open("x") as file:
        file.write(f"{_crc(text)}\n{text}\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / _MANIFEST)
    synced(folder)
    _clean(folder, {segment.file.path.name for segment in segments if segment.file is not None})


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _clean(folder: Path, kept: Iterable[str]) -> None:
    """Delete segments that the manifest does not name; who has them mapped can read on."""
    for path in folder.iterdir():
        if path.suffix in _OURS and path.name != _MANIFEST and path.name not in kept:
            path.unlink()


def read(folder: Path) -> tuple[list[Segment], int]:
    """The segments of the gallery in this folder, and its watermark. Raises `GalleryDamaged`.

    Everything that searches read is checked against its checksum: 1 s for 2 GB.
    """
    try:
        crc, _, text = (folder / _MANIFEST).read_text().rstrip("\n").partition("\n")
        if crc.startswith("{"):  # before there were segments
            raise GalleryDamaged(f"the gallery in {folder} was made by another version: rebuild it")
        if crc != _crc(text):
            raise GalleryDamaged(f"the manifest in {folder} fails its checksum: rebuild the gallery")
        manifest = json.loads(text)
        if {name: manifest[name] for name in _versions()} != _versions():
            raise GalleryDamaged(f"the gallery in {folder} was made by another version: rebuild it")
        segments = []
        for entry in manifest["segments"]:
            segment = opened(SegmentFile(folder / entry["file"], entry["arrays"]))
            check(segment, read_later=False)
            segment.dead[entry["dead"]] = True
            segments.append(segment)
        return segments, int(manifest["watermark"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise GalleryDamaged(f"the gallery in {folder} cannot be read: {error}") from error
