"""Whatever a card, a SAM or a network answers: a whole card, or a typed error, in bounded memory."""

from collections.abc import Sequence
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from capture.errors import RecordRefused
from devices.device import DeviceInfo, Health, TimedOut
from devices.ektp import MAX_FILE, Ektp, read_demographics, read_ektp, read_photo, read_signature
from devices.errors import DeviceError, DeviceProtocolError
from devices.pcsc import _apdu, _t0_parts
from devices.sam import ApduSam
from devices.virtual.ektp_card import EktpCard
from devices.virtual.test_sam import Keys as SessionKeys
from devices.virtual.test_sam import SecureMessaging, Tampered, TestIssuer, TestSam
from rekam.station.card_holder import card_finger
from tests.card_places import personalisation

ISSUER = TestIssuer()
CARD = EktpCard.personalised(ISSUER, personalisation())
MOST_COMMANDS = 3000  # five files of the greatest length, and what goes before


class Scripted:
    """A reader whose card answers some commands as it pleases, the others like a sound one."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._answers = list(answers)
        self.count = 0

    @property
    def info(self) -> DeviceInfo:
        raise NotImplementedError

    def connect(self, seconds: float) -> bytes | TimedOut:
        CARD.power()
        return CARD.atr

    def transmit(self, command: bytes) -> bytes:
        self.count += 1
        assert self.count < MOST_COMMANDS
        answer = self._answers.pop(0) if self._answers else None
        return CARD.answer(command) if answer is None else answer

    def disconnect(self) -> None:
        CARD.power()

    def health(self) -> Health:
        raise NotImplementedError

    def close(self) -> None:
        self.disconnect()


answers = st.lists(
    st.one_of(
        st.none(),
        st.none(),
        st.binary(min_size=2, max_size=80),
        st.builds(lambda data: data + b"\x90\x00", st.binary(max_size=300)),
    ),
    max_size=40,
)


@given(answers)
@settings(max_examples=80, deadline=None)
def test_any_answers_of_a_card(given_answers: list[bytes | None]) -> None:
    sam = ApduSam(TestSam(ISSUER).answer, ISSUER.code)
    for one in (None, sam):
        try:
            card = read_ektp(Scripted(given_answers), one, 0)
        except DeviceError:
            continue
        assert isinstance(card, Ektp)
        assert len(card.photo) <= MAX_FILE
        if card.signed:
            assert card.demographics == personalisation().demographics


@given(st.lists(st.one_of(st.none(), st.binary(max_size=300)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_answers_of_a_sam(given_answers: list[bytes | None]) -> None:
    sound, script = TestSam(ISSUER), list(given_answers)

    def transmit(command: bytes) -> bytes:
        answer = script.pop(0) if script else None
        return sound.answer(command) if answer is None else answer

    try:
        card = read_ektp(Scripted(()), ApduSam(transmit, ISSUER.code), 0)
    except DeviceError:
        return
    assert isinstance(card, Ektp)


@given(st.binary(max_size=400))
@settings(max_examples=80, deadline=None)
def test_any_command_to_card_and_sam(command: bytes) -> None:
    for applet in (CARD, EktpCard(ISSUER, t0=True), TestSam(ISSUER)):
        answer = applet.answer(command)
        assert 2 <= len(answer) <= 0x102


quoted = st.lists(st.text(max_size=9), max_size=25).map(
    lambda texts: ",".join(f'"{text}"' for text in texts).encode(errors="replace")
)


@given(st.one_of(st.binary(max_size=500), quoted))
@settings(max_examples=150, deadline=None)
def test_any_file_of_a_card(data: bytes) -> None:
    with suppress(DeviceProtocolError):
        read_demographics(data)
    with suppress(DeviceProtocolError):
        read_photo(data)
    with suppress(DeviceProtocolError):
        read_signature(data)
    with suppress(RecordRefused):
        assert len(card_finger(data)) <= 99


@given(st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_any_command_is_carried_by_t0_or_refused(command: bytes) -> None:
    try:
        apdu = _apdu(command)
    except DeviceProtocolError:
        return
    parts = _t0_parts(apdu)
    assert all(5 <= len(part) <= 5 + 0xFF for part in parts)
    if len(apdu.data) > 0xFF:
        assert b"".join(part[5:] for part in parts).startswith(apdu.header)


@given(st.binary(max_size=300))
@settings(max_examples=80, deadline=None)
def test_any_protected_answer_is_refused(data: bytes) -> None:
    session = SecureMessaging(SessionKeys(bytes(16), bytes(16)), bytes(8))
    for opening in (session.unwrap, session.opened_command):
        try:
            opening(data)
        except (Tampered, IndexError):
            continue
        raise AssertionError("bytes by chance are no protected answer")
