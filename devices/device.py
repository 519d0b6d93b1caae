"""The one contract of devices: what every driver offers, and what a capture can come to.

A driver finds devices and opens them; a device gives a preview, captures, tells its health. Drivers are small
frozen dataclasses of settings, picklable and cheap: they load their library only when they are used, in the
worker process of `devices.worker`. Nothing here is thread-safe by itself; the supervisor serialises.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from devices.frame import DeviceKind, Frame, Positions, Provenance, Record


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as it describes itself. `id` is unique within its driver and the same after replugging.

    `positions`: what one capture can show, each a set of fingers or eyes; empty for faces, signatures, cards.
    `ppi` None: not a contact scanner, or unknown. `signs`: whether its captures carry a signature.
    """

    id: str
    kind: DeviceKind
    provenance: Provenance
    positions: tuple[Positions, ...] = ()
    ppi: float | None = None
    signs: bool = False
    previews: bool = True


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """What is to be captured. `positions` without the missing ones, which are declared in `missing`.

    `seconds`: how long the person has. `least_quality` 0 to 100 is a wish that devices may not heed.
    """

    positions: Positions = ()
    missing: Positions = ()
    seconds: float = 20.0
    least_quality: int = 0
    transaction: str = ""


class Hint(StrEnum):
    """Why a device asks to try again; `advice` of the session says it in words."""

    TOO_SHORT = "too_short"
    CENTER_FINGER = "center_finger"
    REMOVE_FINGER = "remove_finger"
    GENERAL = "general"
    LOW_QUALITY = "low_quality"
    WRONG_POSITION = "wrong_position"


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """What was asked for is there: pixels, or records of devices that encode themselves."""

    frames: tuple[Frame, ...] = ()
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The person should do it once more."""

    hint: Hint
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ShortCount:
    """Fewer, or other, fingers or eyes than asked for; never to be taken silently for all of them."""

    asked: Positions
    got: int
    partial: Captured


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The person did nothing in the time there was."""

    seconds: float


Outcome = Captured | TryAgain | ShortCount | TimedOut


class Condition(StrEnum):
    """How a device is."""

    READY = "ready"
    BUSY = "busy"
    REMOVED = "removed"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Health:
    """How a device is, in its own figures (`frames_per_second`, `restarts`, ...)."""

    condition: Condition
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)


class Device(Protocol):
    """An open device that captures. Every method raises `DeviceError`s and nothing else."""

    @property
    def info(self) -> DeviceInfo:
        """What it says of itself."""

    def preview(self, spec: CaptureSpec) -> Iterator[Frame]:
        """Live frames until the iterator is closed; raises `DeviceUnavailable` where it has no preview."""

    def capture(self, spec: CaptureSpec) -> Outcome:
        """Capture once, within `spec.seconds` and little more."""

    def health(self) -> Health:
        """How it is now. Cost: milliseconds; never disturbs a capture."""

    def close(self) -> None:
        """Let go of it; a second time does nothing."""


class CardReader(Protocol):
    """An open slot of a card reader. Every method raises `DeviceError`s and nothing else."""

    @property
    def info(self) -> DeviceInfo:
        """What it says of itself."""

    def connect(self, seconds: float) -> bytes | TimedOut:
        """Wait for a card, power it up, begin a transaction: its ATR."""

    def transmit(self, command: bytes) -> bytes:
        """One APDU and its answer with the status word; raises `DeviceRemoved` when the card is pulled."""

    def disconnect(self) -> None:
        """End the transaction and power the card down."""

    def health(self) -> Health:
        """How it is now, whether a card is in it."""

    def close(self) -> None:
        """Let go of it; a second time does nothing."""


class Driver(Protocol):
    """Finds and opens devices of one family; picklable, and cheap until it is used."""

    @property
    def name(self) -> str:
        """A stable word: `libfprint`, `sbi`, `opencv`, `genicam`, `pcsc`."""

    def discover(self) -> Sequence[DeviceInfo]:
        """What is plugged in now. Raises `DeviceUnavailable` where its library or service is missing."""

    def open(self, device_id: str) -> Device | CardReader:
        """Open a device; raises `DeviceRemoved`, `DeviceBusy`, `DeviceUnavailable`."""
