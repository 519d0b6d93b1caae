"""What can go wrong in the service, apart from outcomes (a duplicate or a poor print is no error).

    RekamError
    ├── InvalidNik        the text cannot be a NIK
    ├── InvalidRequest    one or more fields are wrong; `violations` names them
    ├── InvalidSettings   the configuration is wrong; `violations` names the settings
    ├── RequestConflict   the request id was used before, for something else
    ├── NotFound          no such subject, encounter or case
    ├── WrongState        the record exists, but not in a state that allows this
    ├── DeadlinePassed    the caller's deadline passed before the commit
    ├── Starting          the service is loading and takes no work yet
    ├── ShuttingDown      the service is stopping and takes no new work
    ├── Overloaded        more work waits than can be done in time; `retry_after` says when to ask again
    │   ├── QueueFull     as many calls wait as may wait
    │   └── WaitTooLong   the caller's deadline would pass before its turn came
    ├── NotWritten        a file asked for cannot be written
    ├── SpoolError        the spool of a station cannot be used
    │   ├── WrongPassphrase  it opens with another
    │   ├── SpoolInUse    another process has it open
    │   └── SpoolDamaged  what was kept there was altered, or is lost
    └── StoreError        the store cannot serve
        ├── StoreLocked   another process has the data folder or the database open
        ├── StoreNewer    the database was written by a newer Rekam
        ├── StoreDamaged  the database is unreadable; restore a backup
        ├── StoreFull     the disk is full or fails; nothing of the transaction was kept
        └── StoreDisconnected  the connection broke; whether a commit under way was kept is not known

Anything else that is raised is a fault of the program itself.
"""

from collections.abc import Sequence


class RekamError(Exception):
    """Base of every fault of the service."""


class InvalidNik(RekamError):
    """The text cannot be a NIK; the message says why and never repeats it."""


class _Violations(RekamError):
    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {text}" if field else text for field, text in violations))
        self.violations = tuple(violations)


class InvalidRequest(_Violations):
    """Fields of a request are wrong. `violations`: pairs of field path and what is wrong with it."""


class InvalidSettings(_Violations):
    """The configuration is wrong. `violations`: pairs of setting and what is wrong with it."""


class RequestConflict(RekamError):
    """The request id was used before with another payload or method."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id} was used before for something else: take a new one")
        self.request_id = request_id


class NotFound(RekamError):
    """There is no such record: `kind` is subject, encounter or case."""

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002 - the record's id is what it is
        super().__init__(f"there is no {kind} {id}")
        self.kind = kind
        self.id = id


class WrongState(RekamError):
    """The record is not in a state that allows this: a case is resolved, a NIK has its subject."""


class DeadlinePassed(RekamError):
    """The deadline passed before anything was committed; sending the request again is safe."""


class Starting(RekamError):
    """The service is loading; nothing was done."""


class Overloaded(RekamError):
    """More work waits than can be done in time; nothing was done. `retry_after`: seconds."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(f"{text}: send it again in {retry_after:.1f} s")
        self.retry_after = retry_after


class QueueFull(Overloaded):
    """As many calls wait as may wait."""


class WaitTooLong(Overloaded):
    """The caller's deadline would pass before its turn came."""


class ShuttingDown(RekamError):
    """The service is stopping; nothing was done."""


class NotWritten(RekamError):
    """A file asked for cannot be written; the message names it, and nothing of it was left."""


class SpoolError(RekamError):
    """The spool of a station cannot be used; what it said was kept is kept."""


class WrongPassphrase(SpoolError):
    """The spool opens with another passphrase."""


class SpoolInUse(SpoolError):
    """Another process has the spool open."""


class SpoolDamaged(SpoolError):
    """What was kept in the spool was altered, exchanged, left out or cut off."""


class StoreError(RekamError):
    """The store cannot serve; nothing of the transaction was kept (but see `StoreDisconnected`)."""


class StoreLocked(StoreError):
    """Another process has the data folder, or the database in it, open."""


class StoreNewer(StoreError):
    """The database was written by a newer Rekam than this one."""


class StoreDamaged(StoreError):
    """The database is unreadable or inconsistent; restore a backup."""


class StoreFull(StoreError):
    """The disk is full, read-only or fails; nothing of the transaction was kept."""


class StoreDisconnected(StoreError):
    """The database cannot be reached, or the connection broke; the next call opens another.

    Whether a commit under way was kept is not known: the request id tells when the request is repeated.
    """
