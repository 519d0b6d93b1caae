"""The Indonesian identity card, e-KTP: read whole or not at all.

    6FF0  card control           free
    6FF1  demographics           through a SAM: quoted fields, separated by commas
    6FF2  photo, JPEG            free
    6FF3  signature              through a SAM: 168 x 44 pixels of one bit, rows from the top
    6FF4  minutiae of a finger   through a SAM
    6FF5  of another             through a SAM
    6FF6  digital signature      through a SAM

All are in the directory 7F0A. A file begins with two bytes that tell how many follow, big-endian; what is
read through the SAM is read in multiples of eight bytes. The layout is public but unofficial: it was seen in
terminals' programs (Permendagri 34/2014, replaced by 76/2020, requires such terminals), never specified. In
which order bits of the signature are ink, and what the digital signature signs, is our assumption.
Fingerprints are compared off the card, by `rekam/station/card_holder.py`.
"""

import re
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import date, datetime
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from devices.device import CardReader, TimedOut
from devices.errors import DeviceProtocolError, DeviceRemoved, DeviceStuck, DeviceUntrusted
from devices.sam import AUTHENTICATOR, CHALLENGE, Sam

DIRECTORY = 0x7F0A
CONTROL_BYTES = 35
SIGNATURE_WIDTH, SIGNATURE_HEIGHT = 168, 44
UID_BYTES = 8  # as the SAM takes it
MAX_FILE = 0x7FFF - 1  # READ BINARY addresses 32,767 bytes; the two of the length are among them
_CHUNK = 0xF8
_PROTECTED_CHUNK = 0xC0  # what is wrapped, and its answer, fit in short APDUs
_FIELD = r'"(?:[^"]|"")*"'
_FIELDS = re.compile(rf"{_FIELD}(?:,{_FIELD})*")
_NIK = re.compile(r"[0-9]{16}")


class CardFile(IntEnum):
    """The files of the directory 7F0A."""

    CONTROL = 0x6FF0
    DEMOGRAPHICS = 0x6FF1
    PHOTO = 0x6FF2
    SIGNATURE = 0x6FF3
    MINUTIAE_1 = 0x6FF4
    MINUTIAE_2 = 0x6FF5
    DIGITAL_SIGNATURE = 0x6FF6


class CardSex(StrEnum):
    """As the card has it."""

    MALE = "LAKI-LAKI"
    FEMALE = "PEREMPUAN"


@dataclass(frozen=True, slots=True, repr=False)
class Demographics:
    """What the card says of its holder, in the order of its fields; printed, it tells nothing of them.

    `neighbourhood` and `community` are RT and RW. Of fields 16 to 18, and from 20 on, nobody outside knows
    what they are: they are kept as they are.
    """

    nik: str
    address: str
    neighbourhood: str
    community: str
    birthplace: str
    district: str
    village: str
    regency: str
    sex: CardSex
    blood: str
    religion: str
    marital_status: str
    occupation: str
    name: str
    birth_date: date
    province: str
    unknown: tuple[str, str, str]
    nationality: str
    further: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Demographics({self.nik[:4]}************)"

    def to_bytes(self) -> bytes:
        """As the card has them."""
        texts: list[str] = []
        for value in astuple(self):
            if isinstance(value, date):
                texts.append(value.strftime("%d-%m-%Y"))
            elif isinstance(value, tuple):
                texts.extend(value)
            else:
                texts.append(str(value))
        return ",".join('"' + text.replace('"', '""') + '"' for text in texts).encode()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Ektp:
    """What a card holds. Without a SAM, what is protected is None.

    `photo`: JPEG as the issuer made it, unverified without `signed`. `signature` `(44, 168) uint8`, ink 0,
    paper 255, read-only. `minutiae`: of two fingers, as the card has them, which ones it does not say.
    `signed`: whether the SAM finds the digital signature of demographics, photo, signature and minutiae good.
    """

    uid: bytes
    control: bytes
    photo: bytes
    demographics: Demographics | None = None
    signature: NDArray[np.uint8] | None = None
    minutiae: tuple[bytes, bytes] | None = None
    signed: bool | None = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Personalisation:
    """What is written on a blank test card; `minutiae` as ISO/IEC 19794-2 has them for cards."""

    photo: bytes
    demographics: Demographics
    signature: NDArray[np.uint8]
    minutiae: tuple[bytes, bytes]

    def contents(self) -> dict[CardFile, bytes]:
        """The content of each file, without its length, but for what the issuer adds."""
        return {
            CardFile.DEMOGRAPHICS: self.demographics.to_bytes(),
            CardFile.PHOTO: self.photo,
            CardFile.SIGNATURE: signature_bytes(self.signature),
            CardFile.MINUTIAE_1: self.minutiae[0],
            CardFile.MINUTIAE_2: self.minutiae[1],
        }


SIGNED = (
    CardFile.DEMOGRAPHICS,
    CardFile.PHOTO,
    CardFile.SIGNATURE,
    CardFile.MINUTIAE_1,
    CardFile.MINUTIAE_2,
)
"""What the digital signature is of, in this order: our assumption."""


def read_ektp(
    reader: CardReader, sam: Sam | None, seconds: float, most_seconds: float = 60.0
) -> Ektp | TimedOut:
    """Wait `seconds` for a card and read it; it is powered down at the end.

    Raises `DeviceStuck` where the card alone takes more than `most_seconds` (the SAM may be far away),
    `DeviceRemoved` when the card or the SAM is pulled meanwhile, `DeviceProtocolError` for a card that is
    none, or whose files are not what they should be, `DeviceUntrusted` where it is not genuine, besides what
    the reader raises.
    Cost: some 130 commands for a photo of 12 kB and all protected files.
    """
    atr = reader.connect(seconds)
    if isinstance(atr, TimedOut):
        return atr
    left = most_seconds

    def transmit(command: bytes) -> bytes:
        nonlocal left
        if left < 0:
            raise DeviceStuck(f"the card was not read within {most_seconds:g} s")
        began = time.monotonic()
        answer = reader.transmit(command)
        left -= time.monotonic() - began
        return answer

    try:
        return _read(transmit, sam)
    finally:
        reader.disconnect()


def _read(transmit: Callable[[bytes], bytes], sam: Sam | None) -> Ektp:
    # 1. What everybody may read.
    uid = card_uid(transmit)
    _select(transmit, DIRECTORY)
    _select(transmit, CardFile.CONTROL)
    control = _answer(transmit(bytes([0, 0xB0, 0, 0, CONTROL_BYTES])), "its control file")
    if len(control) != CONTROL_BYTES:
        raise DeviceProtocolError(f"a card control file of {len(control)} bytes")
    photo = read_photo(_file(transmit, CardFile.PHOTO, _CHUNK, 1))
    if sam is None:
        return Ektp(uid, control, photo)

    # 2. Card and SAM convince each other.
    sam.reset()
    challenge = _answer(transmit(bytes([0, 0x84, 0, 0, CHALLENGE])), "a challenge")
    if len(challenge) != CHALLENGE:
        raise DeviceProtocolError(f"a challenge of {len(challenge)} bytes")
    authenticator = sam.authenticator(sam_uid(uid), control, challenge)
    command = bytes([0, 0x82, 0, 0, AUTHENTICATOR]) + authenticator
    answer = transmit(command + bytes([AUTHENTICATOR]))
    if answer[-2:] != b"\x90\x00":
        raise DeviceUntrusted(f"the card does not accept this SAM ({answer[-2:].hex().upper()})")
    sam.confirm(answer[:-2])

    # 3. What only they can read.
    def protected(plain: bytes) -> bytes:
        wrapped = sam.wrap(plain)
        if len(wrapped) < 5:
            raise DeviceProtocolError("the SAM wraps a command into none")
        answer = transmit(wrapped)
        return sam.unwrap(answer[:-2]) if len(answer) > 2 else answer

    order = (CardFile.DIGITAL_SIGNATURE, *(file for file in SIGNED if file is not CardFile.PHOTO))
    read = {file: _file(protected, file, _PROTECTED_CHUNK, 8) for file in order} | {CardFile.PHOTO: photo}
    card = Ektp(
        uid,
        control,
        photo,
        read_demographics(read[CardFile.DEMOGRAPHICS]),
        read_signature(read[CardFile.SIGNATURE]),
        (read[CardFile.MINUTIAE_1], read[CardFile.MINUTIAE_2]),
        sam.signature_holds(read[CardFile.DIGITAL_SIGNATURE], tuple(read[file] for file in SIGNED)),
    )
    # 4. It was one card all the time.
    if card_uid(transmit) != uid:
        raise DeviceRemoved("the card was exchanged while it was read")
    return card


def card_uid(transmit: Callable[[bytes], bytes]) -> bytes:
    """The UID of a contactless card: of type A as the reader gives it, else of type B as the card does.

    Raises `DeviceProtocolError` where it has none.
    """
    for command in ("FFCA000000", "00DD000008", "00DF000000"):
        answer = transmit(bytes.fromhex(command))
        if answer[-2:] == b"\x90\x00" and 4 <= len(answer) - 2 <= 10:
            return answer[:-2]
    raise DeviceProtocolError("the card has no UID")


def sam_uid(uid: bytes) -> bytes:
    """A UID as the SAM takes it: eight bytes, those of a shorter one after 80 and before zeros."""
    return uid[:UID_BYTES] if len(uid) >= UID_BYTES else (b"\x80" + uid).ljust(UID_BYTES, b"\x00")


def read_demographics(data: bytes) -> Demographics:
    """Read the file 6FF1. Raises `DeviceProtocolError`, whose message repeats nothing of a person."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DeviceProtocolError(f"demographics are UTF-8, not so byte {error.start}") from None
    if _FIELDS.fullmatch(text) is None:
        raise DeviceProtocolError("demographics are quoted fields, separated by commas")
    values = [field[1:-1].replace('""', '"').strip() for field in re.findall(_FIELD, text)]
    if len(values) < 20:
        raise DeviceProtocolError(f"demographics have 20 fields and more, not {len(values)}")
    if _NIK.fullmatch(values[0]) is None:
        raise DeviceProtocolError("the NIK on the card is not 16 digits")
    if values[8] not in set(CardSex):
        raise DeviceProtocolError("the sex on the card is none of its words")
    try:
        birth_date = datetime.strptime(values[14], "%d-%m-%Y").date()
    except ValueError:
        raise DeviceProtocolError("the date of birth on the card is none") from None
    nik, address, neighbourhood, community, birthplace, district, village, regency = values[:8]
    blood, religion, marital_status, occupation, name = values[9:14]
    return Demographics(
        nik=nik,
        address=address,
        neighbourhood=neighbourhood,
        community=community,
        birthplace=birthplace,
        district=district,
        village=village,
        regency=regency,
        sex=CardSex(values[8]),
        blood=blood,
        religion=religion,
        marital_status=marital_status,
        occupation=occupation,
        name=name,
        birth_date=birth_date,
        province=values[15],
        unknown=(values[16], values[17], values[18]),
        nationality=values[19],
        further=tuple(values[20:]),
    )


def read_signature(data: bytes) -> NDArray[np.uint8]:
    """Read the file 6FF3: `(44, 168) uint8`, ink 0, paper 255, read-only. Raises `DeviceProtocolError`."""
    if len(data) != SIGNATURE_WIDTH * SIGNATURE_HEIGHT // 8:
        raise DeviceProtocolError(f"a signature of {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(SIGNATURE_HEIGHT, SIGNATURE_WIDTH)
    image = (255 * (1 - bits)).astype(np.uint8)
    image.setflags(write=False)
    return image


def signature_bytes(image: NDArray[np.uint8]) -> bytes:
    """The file 6FF3 of an image `(44, 168) uint8`; what is darker than 128 is ink."""
    if image.shape != (SIGNATURE_HEIGHT, SIGNATURE_WIDTH):
        raise ValueError(f"a card's signature is (44, 168), not {image.shape}")
    return np.packbits(image < 128).tobytes()


def read_photo(data: bytes) -> bytes:
    """The file 6FF2 as it is, if it begins and ends as JPEG does. Raises `DeviceProtocolError`."""
    if len(data) < 4 or data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise DeviceProtocolError("the photo on the card is no whole JPEG")
    return data


def personalise(reader: CardReader, files: dict[CardFile, bytes], seconds: float) -> bool:
    """Write files on a blank TEST card and seal it; False where no card came within `seconds`.

    How a real e-KTP is written is the issuer's secret, and a real one refuses the first of these commands.
    Each file's length is written last, so that a card pulled in between reads as empty, and a card is sealed
    (00440000, our invention) only after all was read back. Raises `DeviceProtocolError` where the card is not
    blank or has not kept what was written.
    """
    if isinstance(reader.connect(seconds), TimedOut):
        return False
    try:
        _select(reader.transmit, DIRECTORY)
        for file, content in files.items():
            if len(content) > MAX_FILE:
                raise DeviceProtocolError(f"{len(content)} bytes are too many for the file {file:04X}")
            _select(reader.transmit, file)
            for at in range(0, len(content), _CHUNK):
                _update(reader, at + 2, content[at : at + _CHUNK])
            _update(reader, 0, len(content).to_bytes(2, "big"))
        for file, content in files.items():
            if _file(reader.transmit, file, _CHUNK, 1) != content:
                raise DeviceProtocolError(f"the card has not kept the file {file:04X}")
        _answer(reader.transmit(bytes.fromhex("00440000")), "to be sealed")
    finally:
        reader.disconnect()
    return True


def _update(reader: CardReader, at: int, data: bytes) -> None:
    command = bytes([0, 0xD6, at >> 8, at & 0xFF, len(data)]) + data
    _answer(reader.transmit(command), "an update: it is no blank test card")


def _select(transmit: Callable[[bytes], bytes], file: int) -> None:
    _answer(transmit(bytes([0, 0xA4, 0, 0, 2]) + file.to_bytes(2, "big")), f"the file {file:04X}")


def _file(transmit: Callable[[bytes], bytes], file: int, chunk: int, unit: int) -> bytes:
    """The content of a file, read in chunks of a whole number of `unit`s of bytes."""
    _select(transmit, file)
    data = _binary(transmit, 0, 8)
    length = int.from_bytes(data[:2], "big")
    if not 0 < length <= MAX_FILE:
        raise DeviceProtocolError(f"the file {file:04X} has {length} bytes")
    end = 2 + length
    while len(data) < end:
        wanted = min(chunk, end - len(data))
        data += _binary(transmit, len(data), -(-wanted // unit) * unit)
    return data[2:end]


def _binary(transmit: Callable[[bytes], bytes], at: int, count: int) -> bytes:
    data = _answer(transmit(bytes([0, 0xB0, at >> 8, at & 0xFF, count])), "to be read")
    if len(data) != count:
        raise DeviceProtocolError(f"the card gives {len(data)} bytes for {count}")
    return data


def _answer(answer: bytes, what: str) -> bytes:
    """The data of a good answer."""
    if answer[-2:] != b"\x90\x00":
        raise DeviceProtocolError(f"the card refuses {what} ({answer[-2:].hex().upper()})")
    return answer[:-2]
