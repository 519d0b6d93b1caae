"""An e-KTP of our own making: the layout that is publicly known, an INVENTED protection (see `test_sam`).

A blank card can be written in the clear by UPDATE BINARY until it is sealed by 00440000; a real one cannot.
"""

import hmac
import os

from devices.ektp import CONTROL_BYTES, DIRECTORY, SIGNED, CardFile, Personalisation, sam_uid
from devices.sam import AUTHENTICATOR, CHALLENGE
from devices.virtual.test_sam import ATR_T0, ATR_T1, OK, SecureMessaging, Tampered, TestIssuer

_FREE = (CardFile.CONTROL, CardFile.PHOTO)
_CAPACITY = 0x7FFF + 9


class EktpCard:
    """A card of `issuer`, blank or personalised.

    With `t0` it speaks T=0: data that answers data is fetched with GET RESPONSE. `type_b`: its UID is asked
    for as those of type B are.
    """

    def __init__(self, issuer: TestIssuer, *, t0: bool = False, type_b: bool = False) -> None:
        self.uid = os.urandom(8 if type_b else 7)
        self.sealed = False
        self.files: dict[int, bytearray] = {file: bytearray() for file in CardFile}
        self.files[CardFile.CONTROL] = bytearray(os.urandom(CONTROL_BYTES))
        self._t0, self._type_b = t0, type_b
        self._keys = issuer.card_keys(sam_uid(self.uid), bytes(self.files[CardFile.CONTROL]))
        self.power()

    @classmethod
    def personalised(
        cls, issuer: TestIssuer, content: Personalisation, *, t0: bool = False, type_b: bool = False
    ) -> "EktpCard":
        """A card as its holder carries it."""
        card = cls(issuer, t0=t0, type_b=type_b)
        for file, data in files_of(issuer, content).items():
            card.files[file] = bytearray(len(data).to_bytes(2, "big") + data)
        card.sealed = True
        return card

    @property
    def atr(self) -> bytes:
        """Says T=0 or T=1."""
        return ATR_T0 if self._t0 else ATR_T1

    def power(self) -> None:
        """Nothing selected, nobody authenticated."""
        self._session: SecureMessaging | None = None
        self._directory = False
        self._selected: int | None = None
        self._challenge = b""
        self._waiting = b""

    def answer(self, command: bytes) -> bytes:
        """One command's answer."""
        if len(command) < 4:
            return b"\x67\x00"
        if self._t0 and command[1] == 0xC0:
            count = command[4] or 0x100
            given, self._waiting = self._waiting[:count], self._waiting[count:]
            return given + self._more()
        if command[0] & 0x0C == 0x0C and command[0] < 0x40:
            answer = self._protected(command)
        else:
            answer = self._command(command, trusted=False)
        if self._t0 and len(command) > 5 and len(answer) > 2:
            self._waiting = answer[:-2]
            return self._more()
        return answer

    def _more(self) -> bytes:
        return bytes([0x61, min(len(self._waiting), 0xFF)]) if self._waiting else OK

    def _protected(self, command: bytes) -> bytes:
        if self._session is None:
            return b"\x69\x82"
        try:
            plain = self._session.opened_command(command)
        except (Tampered, IndexError, ValueError):
            self._session = None
            return b"\x69\x88"
        return self._session.protect(self._command(plain, trusted=True)) + OK

    def _command(self, command: bytes, *, trusted: bool) -> bytes:
        offset, body = int.from_bytes(command[2:4], "big"), command[4:]
        match command[1]:
            case 0xCA | 0xDD | 0xDF:
                asked = command[0] == 0xFF if command[1] == 0xCA else command[0] == 0
                right = (command[1] == 0xCA) != self._type_b
                return self.uid + OK if asked and right else b"\x6d\x00"
            case 0xA4 if len(body) >= 3 and body[0] == 2:
                return self._select(int.from_bytes(body[1:3], "big"))
            case 0xB0 if len(body) == 1:
                return self._read(offset, body[0] or 0x100, trusted=trusted)
            case 0x84 if body == bytes([CHALLENGE]):
                self._session, self._challenge = None, os.urandom(CHALLENGE)
                return self._challenge + OK
            case 0x82 if body[:1] == bytes([AUTHENTICATOR]) and len(body) > AUTHENTICATOR:
                return self._authenticated(body[1 : 1 + AUTHENTICATOR])
            case 0xD6 if len(body) > 1 and len(body) == 1 + body[0]:
                return self._update(offset, body[1:])
            case 0x44 if not self.sealed:
                self.sealed = True
                return OK
        return b"\x6d\x00"

    def _select(self, file: int) -> bytes:
        if file == DIRECTORY:
            self._directory, self._selected = True, None
        elif self._directory and file in self.files:
            self._selected = file
        else:
            return b"\x6a\x82"
        return OK

    def _read(self, at: int, count: int, *, trusted: bool) -> bytes:
        if self._selected is None:
            return b"\x69\x86"
        if self.sealed and self._selected not in _FREE and not trusted:
            return b"\x69\x82"
        data = self.files[self._selected]
        # A file has room up to the next multiple of eight.
        data = data + bytes(-len(data) % 8) if self._selected != CardFile.CONTROL else data
        if at + count > len(data):
            return b"\x6b\x00" if at >= len(data) else bytes([0x6C, (len(data) - at) & 0xFF])
        return bytes(data[at : at + count]) + OK

    def _update(self, at: int, data: bytes) -> bytes:
        if self.sealed or self._selected is None or self._selected == CardFile.CONTROL:
            return b"\x69\x82"
        if at + len(data) > _CAPACITY:
            return b"\x6b\x00"
        file = self.files[self._selected]
        file.extend(bytes(max(0, at + len(data) - len(file))))
        file[at : at + len(data)] = data
        return OK

    def _authenticated(self, data: bytes) -> bytes:
        challenge, self._challenge = self._challenge, b""
        try:
            plain = self._keys.opened(data)
        except Tampered:
            return b"\x69\x88"
        if not challenge or not hmac.compare_digest(plain[8:16], challenge):
            return b"\x69\x88"
        share = os.urandom(16)
        self._session = SecureMessaging.agreed((plain[16:32], share), (plain[:8], challenge))
        return self._keys.sealed(challenge + plain[:8] + share) + OK


def files_of(issuer: TestIssuer, content: Personalisation) -> dict[CardFile, bytes]:
    """What is written on a card of this issuer, its digital signature too."""
    files = content.contents()
    signature = issuer.signature(tuple(files[file] for file in SIGNED))
    return files | {CardFile.DIGITAL_SIGNATURE: signature}
