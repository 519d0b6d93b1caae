"""The log: lines of text or JSON on stderr that name nobody.

Records carry what happened under `fields`. Of an exception only its type and the places in the program are
written: its words, and source lines, may hold people's data. Sixteen digits in a row are never written,
whoever sent them: they may be a NIK.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime

from rekam.config import LogFormat

_NIK = re.compile(r"\d{16,}")
_HIDDEN = "[digits]"
_OWN = {"encounter_id"}  # made here, of random digits, of which sixteen may follow each other


def configure(log_format: LogFormat, level: int = logging.INFO) -> None:
    """Write the log of this process to stderr; replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # They narrate at every start.
    logging.getLogger("alembic").setLevel(max(level, logging.WARNING))


def fields(**values: object) -> dict[str, Mapping[str, object]]:
    """The `extra` of a record; None is left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _hidden(record.getMessage()),
            **_fields_of(record),
        }
        if (fault := _fault(record)) is not None:
            line["fault"] = fault
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """Time, level, logger, event, then the record's own fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        words = [
            f"{_time(record):%Y-%m-%d %H:%M:%S} {record.levelname} {record.name}: ",
            _hidden(record.getMessage()),
            *(f" {name}={value}" for name, value in _fields_of(record).items()),
        ]
        if (fault := _fault(record)) is not None:
            words.append(f" {fault}")
        return "".join(str(word) for word in words)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    found = getattr(record, "fields", {})
    if not isinstance(found, Mapping):
        return {}
    return {name: value if name in _OWN else _hidden(value) for name, value in found.items()}


def _fault(record: logging.LogRecord) -> str | None:
    """Types and places of an exception and its causes, the first cause first."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    chain: list[str] = []
    error: BaseException | None = record.exc_info[1]
    while error is not None:
        places = (
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        )
        chain.append(f"{type(error).__qualname__} at {' > '.join(places)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "; then ".join(reversed(chain))


def _hidden(value: object) -> object:
    """Text with what may be a NIK taken out, controls escaped; numbers as they are."""
    if isinstance(value, bool | int | float):
        return value
    text = _NIK.sub(_HIDDEN, str(value))
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
