"""Card readers through PC/SC: pcscd on Linux, by way of pyscard.

A context of PC/SC dies with the daemon, and so does pyscard's monitor thread (LudovicRousseau/pyscard#82,
#128). Nothing here relies on either: finding readers takes a context of its own each time, and so does a
connection. The daemon's socket is the system's, or the one that PCSCLITE_CSOCK_NAME names.

A card is used exclusively: nobody else can select another file between two of our commands. Answers of more
than 256 bytes and wrong lengths (61xx; 6Cxx where an answer is expected) are dealt with here, and what T=0
cannot carry (ISO/IEC 7816-3, 12.2), so that callers speak plain APDUs of any length.

None of it can bound what a reader takes to answer: that is the deadline of `devices.worker`.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smartcard import scard

from devices.device import Condition, DeviceInfo, Health, TimedOut
from devices.errors import (
    DeviceBusy,
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceUnavailable,
)
from devices.frame import DeviceKind, Provenance

MAX_ANSWER = 0x10000 + 2
_SLICE = 0.25  # seconds of a wait, after which the daemon's readers are looked at again
_PATIENCE = 3.0  # seconds that a reader or the service may be away
_PULLED = 1.5  # seconds until pcscd has noticed that a card was pulled; it looks every 0.4 s
_INSTALL = "no PC/SC service: apt-get install pcscd, and start it (systemctl start pcscd.socket)"
_NUMBERS = re.compile(r"(?P<name>.*) (?P<reader>[0-9A-F]{2}) (?P<slot>[0-9A-F]{2})")
_SERIAL = re.compile(r"\((?P<serial>[^()]*)\)$")
_GONE = {
    scard.SCARD_E_NO_SERVICE,
    scard.SCARD_E_SERVICE_STOPPED,
    scard.SCARD_E_INVALID_HANDLE,
    scard.SCARD_E_READER_UNAVAILABLE,
    scard.SCARD_E_UNKNOWN_READER,
    scard.SCARD_E_NO_READERS_AVAILABLE,
    scard.SCARD_E_NO_SMARTCARD,
    scard.SCARD_W_REMOVED_CARD,
    scard.SCARD_W_RESET_CARD,
    scard.SCARD_F_COMM_ERROR,
}
_NO_SERVICE = {
    scard.SCARD_E_NO_SERVICE,
    scard.SCARD_E_SERVICE_STOPPED,
    scard.SCARD_E_INVALID_HANDLE,
    scard.SCARD_F_COMM_ERROR,
}


@dataclass(frozen=True, slots=True)
class PcscDriver:
    """Every slot of every reader that PC/SC knows is a device."""

    name: str = "pcsc"

    def discover(self) -> tuple[DeviceInfo, ...]:
        """The slots there are now. Cost: 1 ms. Raises `DeviceUnavailable` without a PC/SC service."""
        with _context() as context:
            return tuple(_info(self.name, id_) for id_ in _readers(context))

    def open(self, device_id: str) -> "PcscReader":
        """A slot, whether or not a card is in it. Raises `DeviceRemoved`, `DeviceUnavailable`."""
        with _context() as context:
            if device_id not in _readers(context):
                raise DeviceRemoved(f"there is no card reader {device_id!r}")
        return PcscReader(_info(self.name, device_id))


class PcscReader:
    """A slot of a reader. Not thread-safe.

    It outlives its reader and the PC/SC service: after either came back, `connect` works again.
    """

    def __init__(self, info: DeviceInfo) -> None:
        self._info = info
        self._context: int | None = None
        self._card: int | None = None
        self._name = ""
        self._t0 = False

    @property
    def info(self) -> DeviceInfo:
        """What PC/SC says of it: its name."""
        return self._info

    @property
    def protocol(self) -> str:
        """`T=0` or `T=1`, of the card that was connected last."""
        return "T=0" if self._t0 else "T=1"

    def connect(self, seconds: float) -> bytes | TimedOut:
        """Wait for a card and have it to ourselves: its ATR.

        A service that is restarted meanwhile, or a reader that is plugged in anew, is waited for a little. So
        is a card that does not answer: one that was pulled looks like that until pcscd has noticed.
        Raises `DeviceBusy` where another program uses the card; `DeviceRemoved` without a reader,
        `DeviceUnavailable` without a service; `DeviceProtocolError` where a card does not answer to power.
        """
        self.disconnect()
        until = time.monotonic() + seconds
        patience = until
        while True:
            missing: DeviceError | None = None
            try:
                atr = self._connected(max(0.0, min(_SLICE, until - time.monotonic())))
                if atr is not None:
                    return atr
                patience = until
            except DeviceBusy:
                self._release()
                raise
            except DeviceError as error:
                missing = error
            self._release()
            if missing is not None:
                patience = min(patience, time.monotonic() + _PATIENCE)
                if time.monotonic() >= patience:
                    raise missing
                time.sleep(min(0.05, max(0.0, patience - time.monotonic())))
            elif time.monotonic() >= until:
                return TimedOut(seconds)

    def _connected(self, seconds: float) -> bytes | None:
        """The ATR of a card that is there within `seconds`."""
        self._context = context = _established()
        readers = _readers(context)
        if self._info.id not in readers:
            raise DeviceRemoved(f"there is no card reader {self._info.id!r}")
        self._name = readers[self._info.id]
        state = _state(context, self._name, scard.SCARD_STATE_UNAWARE, 0)
        if not state & scard.SCARD_STATE_PRESENT:
            state = _state(context, self._name, state, seconds)
        if not state & scard.SCARD_STATE_PRESENT:
            return None
        both = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        result, card, protocol = scard.SCardConnect(context, self._name, scard.SCARD_SHARE_EXCLUSIVE, both)
        if result in (scard.SCARD_W_UNPOWERED_CARD, scard.SCARD_W_UNRESPONSIVE_CARD):
            raise DeviceProtocolError("the card does not answer to power: is it the right way round?")
        if result in (scard.SCARD_E_NO_SMARTCARD, scard.SCARD_W_REMOVED_CARD):
            return None
        _check(result, "connect to the card")
        self._card, self._t0 = card, protocol == scard.SCARD_PROTOCOL_T0
        result, _, _, _, atr = scard.SCardStatus(card)
        _check(result, "read the card's answer to reset")
        return bytes(atr)

    def transmit(self, command: bytes) -> bytes:
        """One APDU, short or extended, and its whole answer with the status word.

        Raises `DeviceRemoved` when the card is pulled or reset, or the service ends: every later command does
        so too, until `connect`. Raises `DeviceProtocolError` for a command that is no APDU, an answer without
        a status word, or one without end.
        """
        apdu = _apdu(command)
        *enveloped, last = _t0_parts(apdu) if self._t0 else (command,)
        for part in enveloped:
            if (answer := self._exchanged(part)) != b"\x90\x00":
                return answer
        expects = apdu.le is not None and not (self._t0 and apdu.data)
        return self._whole(last, self._exchanged(last), expects)

    def _whole(self, command: bytes, answer: bytes, expects: bool) -> bytes:
        """The answer after the card was asked with the right length, and for all there is of it.

        Only a command that says how much it `expects` is given another length.
        """
        channel = command[0] & 0x03 if command[0] < 0x40 else 0
        data = b""
        corrected = False
        while answer[-2] == 0x61 or (answer[-2] == 0x6C and expects):
            if answer[-2] == 0x6C:
                if corrected:
                    raise self._failed("the card refuses the length that it asked for")
                corrected = True
                command = _with_le(command, answer[-1])
            else:
                data += answer[:-2]
                if len(data) > MAX_ANSWER:
                    raise self._failed("the card's answer has no end")
                corrected, expects = False, True
                command = bytes([channel, 0xC0, 0, 0, answer[-1]])
            answer = self._exchanged(command)
            if len(answer) == 2 and answer[0] == 0x61 and command[1] == 0xC0:
                raise self._failed("the card promises more and gives nothing")
        return data + answer

    def _exchanged(self, command: bytes) -> bytes:
        if self._card is None or self._context is None:
            raise DeviceRemoved("no card is connected")
        protocol = scard.SCARD_PCI_T0 if self._t0 else scard.SCARD_PCI_T1
        # Where it fails, pyscard gives back memory that nobody wrote: the result is looked at first.
        result, answer = scard.SCardTransmit(self._card, protocol, list(command))
        if result == scard.SCARD_S_SUCCESS:
            if 2 <= len(answer) <= MAX_ANSWER:
                return bytes(answer)
            said = f"{len(answer)} bytes are no answer"
        else:
            said = scard.SCardGetErrorMessage(result)
        if result in _GONE or self._pulled():
            self._release()
            raise DeviceRemoved(f"the card is gone: {said}")
        raise self._failed(f"the card does not answer: {said}")

    def _pulled(self) -> bool:
        """Whether pcscd finds the slot empty, at once or when it next looks."""
        until = time.monotonic() + _PULLED
        try:
            state = scard.SCARD_STATE_PRESENT
            while self._context is not None and (left := until - time.monotonic()) > 0:
                state = _state(self._context, self._name, state, left)
                if not state & scard.SCARD_STATE_PRESENT:
                    return True
        except DeviceError:
            return True
        return False

    def _failed(self, why: str) -> DeviceProtocolError:
        """The connection is given up: what the card would say next belongs to nothing."""
        self.disconnect()
        return DeviceProtocolError(why)

    def disconnect(self) -> None:
        """Power the card down and let others have it; does nothing where none is connected."""
        if self._card is not None:
            scard.SCardDisconnect(self._card, scard.SCARD_UNPOWER_CARD)
        self._release()

    def _release(self) -> None:
        context, self._context, self._card = self._context, None, None
        if context is not None:
            scard.SCardReleaseContext(context)

    def health(self) -> Health:
        """Whether the slot is there, and whether a card is in it (`card` 1 or 0)."""
        try:
            with _context() as context:
                readers = _readers(context)
                if self._info.id not in readers:
                    return Health(Condition.REMOVED)
                state = _state(context, readers[self._info.id], scard.SCARD_STATE_UNAWARE, 0)
        except DeviceRemoved:
            return Health(Condition.REMOVED)
        except DeviceError as error:
            return Health(Condition.FAILING, str(error))
        card = {"card": float(bool(state & scard.SCARD_STATE_PRESENT))}
        if state & scard.SCARD_STATE_MUTE:
            return Health(Condition.FAILING, "the card does not answer to power", card)
        if self._card is None and state & (scard.SCARD_STATE_EXCLUSIVE | scard.SCARD_STATE_INUSE):
            return Health(Condition.BUSY, "another program uses the card", card)
        return Health(Condition.READY, figures=card)

    def close(self) -> None:
        """As `disconnect`."""
        self.disconnect()


@dataclass(frozen=True, slots=True)
class _Apdu:
    """A command: `le` None where no data is expected; `ne` bytes are expected, at most."""

    header: bytes
    data: bytes
    le: bytes | None
    ne: int


def _apdu(command: bytes) -> _Apdu:
    """Read a command by the seven cases of ISO/IEC 7816-3, 12.1. Raises `DeviceProtocolError`."""
    header, body = command[:4], command[4:]
    match len(body):
        case _ if len(header) < 4:
            pass
        case 0:
            return _Apdu(header, b"", None, 0)
        case 1:
            return _Apdu(header, b"", body, body[0] or 0x100)
        case n if body[0] and n == 1 + body[0]:
            return _Apdu(header, body[1:], None, 0)
        case n if body[0] and n == 2 + body[0]:
            return _Apdu(header, body[1:-1], body[-1:], body[-1] or 0x100)
        case 3 if body[0] == 0:
            return _Apdu(header, b"", body[1:], int.from_bytes(body[1:], "big") or 0x10000)
        case n if body[0] == 0 and n > 3:
            length = int.from_bytes(body[1:3], "big")
            if length and n == 3 + length:
                return _Apdu(header, body[3:], None, 0)
            if length and n == 5 + length:
                return _Apdu(header, body[3:-2], body[-2:], int.from_bytes(body[-2:], "big") or 0x10000)
    raise DeviceProtocolError(f"{len(command)} bytes that are no command APDU")


def _t0_parts(apdu: _Apdu) -> tuple[bytes, ...]:
    """What T=0 carries of a command: no Le beside data, at most 255 bytes at a time."""
    if len(apdu.data) > 0xFF:
        # ENVELOPE: the command itself is the data.
        whole = apdu.header + b"\x00" + len(apdu.data).to_bytes(2, "big") + apdu.data + (apdu.le or b"")
        pieces = [whole[at : at + 0xFF] for at in range(0, len(whole), 0xFF)]
        return tuple(bytes([apdu.header[0] & 0x03, 0xC2, 0, 0, len(piece)]) + piece for piece in pieces)
    if apdu.data:
        return (apdu.header + bytes([len(apdu.data)]) + apdu.data,)
    return (apdu.header + bytes([apdu.ne & 0xFF if apdu.ne < 0x100 else 0]),)


def _with_le(command: bytes, le: int) -> bytes:
    """The command with another, short, Le."""
    apdu = _apdu(command)
    length = bytes([len(apdu.data)]) if 0 < len(apdu.data) <= 0xFF else b""
    if len(apdu.data) > 0xFF:
        length = b"\x00" + len(apdu.data).to_bytes(2, "big")
        return apdu.header + length + apdu.data + bytes([0, le] if le else [1, 0])
    return apdu.header + length + apdu.data + bytes([le])


def _info(driver: str, id_: str) -> DeviceInfo:
    model = id_.rpartition(" slot ")[0].partition(" #")[0]
    serial = found["serial"] if (found := _SERIAL.search(model)) else ""
    provenance = Provenance(driver, id_, model=_SERIAL.sub("", model).strip(), serial=serial)
    return DeviceInfo(id_, DeviceKind.CARD_READER, provenance, previews=False)


def _readers(context: int) -> dict[str, str]:
    """PC/SC's names of the slots, by names that stay the same when readers come and go.

    PC/SC ends a name with two numbers: of the reader, in the order they were plugged in, and of its slot. The
    first is left out, unless there are two readers of one name.
    """
    result, names = scard.SCardListReaders(context, [])
    if result == scard.SCARD_E_NO_READERS_AVAILABLE:
        return {}
    _check(result, "list the card readers")
    found: dict[str, str] = {}
    for name in names:
        parts = _NUMBERS.fullmatch(name)
        base, slot = (name, "0") if parts is None else (parts["name"], str(int(parts["slot"], 16)))
        id_, twin = f"{base} slot {slot}", 1
        while id_ in found:
            twin += 1
            id_ = f"{base} #{twin} slot {slot}"
        found[id_] = name
    return found


def _state(context: int, name: str, known: int, seconds: float) -> int:
    """What PC/SC knows of a slot, when it differs from `known` or time is up."""
    result, states = scard.SCardGetStatusChange(context, round(1000 * seconds), [(name, known)])
    if result == scard.SCARD_E_TIMEOUT:
        return known
    _check(result, "ask for the card")
    [(_, state, _)] = states
    return int(state & ~scard.SCARD_STATE_CHANGED)


def _established() -> int:
    result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    _check(result, "reach the PC/SC service")
    return int(context)


@contextmanager
def _context() -> Iterator[int]:
    context = _established()
    try:
        yield context
    finally:
        scard.SCardReleaseContext(context)


def _check(result: int, what: str) -> None:
    """Raise what a result of PC/SC stands for."""
    if result == scard.SCARD_S_SUCCESS:
        return
    said = f"could not {what}: {scard.SCardGetErrorMessage(result)}"
    if result == scard.SCARD_E_SHARING_VIOLATION:
        raise DeviceBusy("another program uses the card")
    if result in _NO_SERVICE:
        raise DeviceUnavailable(f"{said}; {_INSTALL}")
    if result == scard.SCARD_W_SECURITY_VIOLATION:
        raise DeviceUnavailable(f"{said}; this user may not use card readers (polkit)")
    if result in _GONE:
        raise DeviceRemoved(said)
    raise DeviceProtocolError(said)
