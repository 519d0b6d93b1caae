"""The manifest of a bulk import: a CSV file with one line a sample, the lines of one record together.

    record,nik,modality,position,file,ppi,missing,birth_date,sex
    a17,3201010101900001,fingerprint,right_thumb,prints/a17_1.wsq,500,,1990-01-01,male
    a17,3201010101900001,fingerprint,2,,,amputated,,

UTF-8 with a header line; `record`, `nik` and `file` are needed, the other columns may be left out, and empty
fields mean that nothing is said. `position` is a finger by name or ISO code, or `right` or `left` of an eye.
A line without a file declares its position missing.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from capture.sample import EyePosition, FingerPosition, Modality
from rekam.errors import InvalidRequest
from rekam.exchange import Claim, MissingReason
from rekam.nik import Sex
from rekam.offline.legacy_files import UNKNOWN
from rekam.position import Position

COLUMNS = ("record", "nik", "modality", "position", "file", "ppi", "missing", "birth_date", "sex")
_NEEDED = ("record", "nik", "file")
_LONGEST_RECORD = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SampleLine:
    """One line that names a file. `modality` is None where the file is to tell; `line` counts from 1."""

    line: int
    file: str
    modality: Modality | None
    position: Position
    ppi: float | None


@dataclass(frozen=True, slots=True)
class MissingLine:
    """One line that declares a position missing."""

    line: int
    modality: Modality
    position: Position
    reason: MissingReason


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """One record. `digest` stands for its lines, `read` for the bytes of the manifest up to its end.

    `fault`: why its lines cannot be understood; there are no samples then.
    """

    record: str
    line: int
    read: int
    digest: bytes
    claim: Claim = field(default_factory=lambda: Claim(""), repr=False)
    samples: tuple[SampleLine, ...] = ()
    missing: tuple[MissingLine, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    read: int
    fields: dict[str, str]


def read_manifest(path: Path) -> Iterator[ManifestRecord]:
    """The records of a manifest in its order, one at a time, however long it is.

    A record that cannot be understood is given with its `fault`. Raises `InvalidRequest` where the file is no
    manifest, or ends to be one.
    """
    for record, lines in groupby(_lines(path), key=lambda line: line.fields["record"]):
        of_record = list(lines)
        rows = "\n".join("\t".join(line.fields[c] for c in COLUMNS) for line in of_record)
        first, last = of_record[0], of_record[-1]
        place = (record, first.number, last.read, hashlib.sha256(rows.encode()).digest())
        try:
            yield ManifestRecord(*place, *_understood(record, of_record))
        except InvalidRequest as error:
            yield ManifestRecord(*place, fault=str(error))


def _lines(path: Path) -> Iterator[_Line]:
    read = 0

    def text() -> Iterator[str]:
        nonlocal read
        with path.open("rb") as file:
            for raw in file:
                read += len(raw)
                yield raw.decode("utf-8-sig" if read == len(raw) else "utf-8")

    rows = csv.reader(text(), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if lacking := [name for name in _NEEDED if name not in header]:
            raise InvalidRequest([(str(path), f"the first line names no column {', '.join(lacking)}")])
        if unknown := [name for name in header if name not in COLUMNS]:
            raise InvalidRequest([(str(path), f"columns that no manifest has: {', '.join(unknown)}")])
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise csv.Error(f"{len(row)} fields where the header has {len(header)}")
            fields = dict.fromkeys(COLUMNS, "") | dict(zip(header, map(str.strip, row), strict=True))
            yield _Line(rows.line_num, read, fields)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequest([(f"{path}, line {rows.line_num}", f"cannot be read: {error}")]) from error


def _understood(
    record: str, lines: list[_Line]
) -> tuple[Claim, tuple[SampleLine, ...], tuple[MissingLine, ...]]:
    if not 1 <= len(record) <= _LONGEST_RECORD:
        raise InvalidRequest([("record", f"has 1 to {_LONGEST_RECORD} characters")])
    claim = Claim(
        nik=_one(lines, "nik"),
        birth_date=_read(_one(lines, "birth_date"), "birth_date", date.fromisoformat),
        sex=_read(_one(lines, "sex"), "sex", Sex),
    )
    samples: list[SampleLine] = []
    missing: list[MissingLine] = []
    for line in lines:
        told = line.fields
        modality = _read(told["modality"], "modality", Modality)
        position = _position(told["position"], modality)
        if told["file"]:
            if told["missing"]:
                raise InvalidRequest([("missing", f"line {line.number} names a file too")])
            ppi = _read(told["ppi"], "ppi", float)
            samples.append(SampleLine(line.number, told["file"], modality, position, ppi))
            continue
        reason = _read(told["missing"], "missing", MissingReason)
        if modality is None or reason is None or (modality is not Modality.FACE and not position):
            text = f"line {line.number} has no file, and does not say what is missing, and why"
            raise InvalidRequest([("file", text)])
        missing.append(MissingLine(line.number, modality, position, reason))
    return claim, tuple(samples), tuple(missing)


def _one(lines: list[_Line], column: str) -> str:
    """What the lines of a record say of it, whichever of them say it."""
    said = {line.fields[column] for line in lines} - {""}
    if len(said) > 1:
        raise InvalidRequest([(column, "differs between the lines of one record")])
    return said.pop() if said else ""


def _read(text: str, column: str, kind: Callable[[str], T]) -> T | None:
    try:
        return kind(text) if text else None
    except ValueError as error:
        raise InvalidRequest([(column, f"{text} cannot be one")]) from error


def _position(text: str, modality: Modality | None) -> Position:
    """A finger or eye by name or code; of unknown position where nothing is said."""
    if not text:
        return None if modality is None else UNKNOWN[modality]
    word = text.upper().replace(" ", "_").replace("-", "_")
    for kind, of in ((FingerPosition, Modality.FINGERPRINT), (EyePosition, Modality.IRIS)):
        if modality is not of:
            continue
        if word in kind.__members__:
            return kind[word]
        if word.isdecimal() and int(word) in set(kind):
            return kind(int(word))
    raise InvalidRequest([("position", f"{text} is no position of {modality or 'a sample of no modality'}")])
