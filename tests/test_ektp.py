"""The e-KTP: read through a real pcscd, with the SAM in the second slot or behind a network."""

import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from devices.device import DeviceInfo, Health, TimedOut
from devices.ektp import (
    CardFile,
    Ektp,
    personalise,
    read_demographics,
    read_ektp,
    read_signature,
    sam_uid,
)
from devices.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRemoved,
    DeviceStuck,
    DeviceUnavailable,
    DeviceUntrusted,
)
from devices.sam import ApduSam, SamServer, remote_sam, serve_sam, slot_sam
from devices.virtual.ektp_card import EktpCard, files_of
from devices.virtual.test_sam import TestIssuer, TestSam
from devices.virtual.vpcd import Applet, Fault, Faulty, Torn
from rekam.errors import InvalidSettings
from rekam.station.settings import load_station
from tests.card_places import CARD, SAM, CardTable, card_table, personalisation

PATIENCE = 30.0


@pytest.fixture(scope="module")
def tables() -> Iterator[CardTable]:
    with card_table() as table:
        yield table


@pytest.fixture
def table(tables: CardTable) -> Iterator[CardTable]:
    yield tables
    tables.clear()


@pytest.fixture(scope="module")
def issuer() -> TestIssuer:
    return TestIssuer()


class Wired:
    """A card without a reader, for what no reader can change."""

    def __init__(self, applet: Applet) -> None:
        self.applet = applet
        self.commands: list[bytes] = []

    @property
    def info(self) -> DeviceInfo:
        raise NotImplementedError

    def connect(self, seconds: float) -> bytes | TimedOut:
        self.applet.power()
        return self.applet.atr

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        try:
            return self.applet.answer(command)
        except Torn:
            raise DeviceRemoved("the card is gone") from None

    def disconnect(self) -> None:
        self.applet.power()

    def health(self) -> Health:
        raise NotImplementedError

    def close(self) -> None:
        self.disconnect()


def opened(issuer: TestIssuer) -> ApduSam:
    return ApduSam(TestSam(issuer).answer, issuer.code)


def read(applet: Applet, sam: ApduSam | None = None) -> Ektp:
    card = read_ektp(Wired(applet), sam, 0)
    assert isinstance(card, Ektp)
    return card


def assert_whole(card: Ektp | TimedOut) -> None:
    content = personalisation()
    assert isinstance(card, Ektp)
    assert card.photo == content.photo
    assert card.demographics == content.demographics
    assert card.signature is not None
    assert np.array_equal(card.signature, content.signature)
    assert card.minutiae == content.minutiae
    assert card.signed is True


@pytest.mark.parametrize("t0", [False, True])
def test_a_card_is_read_with_the_sam_in_the_second_slot(
    table: CardTable, issuer: TestIssuer, t0: bool
) -> None:
    table.card.insert(EktpCard.personalised(issuer, personalisation(), t0=t0, type_b=t0))
    table.sam.insert(TestSam(issuer))
    with slot_sam(table.reader(SAM), issuer.code, PATIENCE) as sam:
        for _ in range(2):
            assert_whole(read_ektp(table.reader(), sam, PATIENCE))


def test_without_a_sam_the_photo_is_read(table: CardTable, issuer: TestIssuer) -> None:
    table.card.insert(EktpCard.personalised(issuer, personalisation()))
    card = read_ektp(table.reader(), None, PATIENCE)
    assert isinstance(card, Ektp)
    assert card.photo == personalisation().photo
    assert (card.demographics, card.signature, card.minutiae, card.signed) == (None, None, None, None)


def test_nobody_lays_a_card_on_it(table: CardTable) -> None:
    assert read_ektp(table.reader(), None, 0.2) == TimedOut(0.2)
    with pytest.raises(DeviceRemoved, match="no SAM"), slot_sam(table.reader(SAM), b"", 0.2):
        pass


def test_a_card_torn_while_it_is_read_gives_nothing_and_can_be_read_again(
    table: CardTable, issuer: TestIssuer
) -> None:
    table.sam.insert(TestSam(issuer))
    card = EktpCard.personalised(issuer, personalisation())
    with slot_sam(table.reader(SAM), issuer.code, PATIENCE) as sam:
        table.card.insert(Faulty(card, Fault.TORN, at=25))
        with pytest.raises(DeviceRemoved):
            read_ektp(table.reader(), sam, PATIENCE)
        table.card.insert(card)
        assert_whole(read_ektp(table.reader(), sam, PATIENCE))


def test_a_card_that_takes_its_time_with_everything_is_given_up(issuer: TestIssuer) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    with pytest.raises(DeviceStuck, match="not read within"):
        read_ektp(Wired(Faulty(card, Fault.SLOW, seconds=0.1)), None, 0, most_seconds=0.5)
    read(card)


def test_a_sam_that_takes_its_time_is_not_the_cards_fault(issuer: TestIssuer) -> None:
    sam = ApduSam(Faulty(TestSam(issuer), Fault.SLOW, at=1, seconds=0.05).answer, issuer.code)
    card = EktpCard.personalised(issuer, personalisation())
    assert_whole(read_ektp(Wired(card), sam, 0, most_seconds=2))


def test_the_sam_torn_while_a_card_is_read(table: CardTable, issuer: TestIssuer) -> None:
    table.card.insert(EktpCard.personalised(issuer, personalisation()))
    table.sam.insert(Faulty(TestSam(issuer), Fault.TORN, at=9))
    with slot_sam(table.reader(SAM), issuer.code, PATIENCE) as sam, pytest.raises(DeviceRemoved):
        read_ektp(table.reader(), sam, PATIENCE)


def test_a_blank_test_card_is_personalised_and_read_back(table: CardTable, issuer: TestIssuer) -> None:
    files = files_of(issuer, personalisation())
    assert personalise(table.reader(), files, 0.2) is False
    table.card.insert(EktpCard(issuer))
    table.sam.insert(TestSam(issuer))
    assert personalise(table.reader(), files, PATIENCE)
    with slot_sam(table.reader(SAM), issuer.code, PATIENCE) as sam:
        assert_whole(read_ektp(table.reader(), sam, PATIENCE))
    with pytest.raises(DeviceProtocolError, match="blank"):
        personalise(table.reader(), files, PATIENCE)


@pytest.mark.parametrize("at", range(2, 60, 5))
def test_a_card_torn_while_it_is_personalised_is_not_half_a_card(issuer: TestIssuer, at: int) -> None:
    files = files_of(issuer, personalisation())
    card = EktpCard(issuer)
    tearing = Faulty(card, Fault.TORN, at=at)
    wired = Wired(tearing)
    try:
        personalise(wired, files, 0)
    except DeviceRemoved:
        assert not card.sealed
        # Nothing that is half written is taken for a card; all of it may be there before it is sealed.
        with suppress(DeviceError):
            assert_whole(read(card, opened(issuer)))
        assert personalise(Wired(card), files, 0)
    assert_whole(read(card, opened(issuer)))


FAULTS = [fault for fault in Fault if fault not in (Fault.SLOW, Fault.EMPTY, Fault.ONE_BYTE)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_card_with_any_fault_at_any_command_is_read_whole_or_not_at_all(
    issuer: TestIssuer, fault: Fault
) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    sound = Wired(card)
    read_ektp(sound, opened(issuer), 0)
    for at in range(len(sound.commands)):
        ins = sound.commands[at][1]
        try:
            result = read(Faulty(card, fault, at=at), opened(issuer))
        except DeviceError:
            continue
        # What is read in the clear can be garbled unseen: the photo, which the signature then denies.
        assert fault is Fault.GARBAGE or ins in (0xCA, 0xDD), (at, sound.commands[at].hex())
        assert result.signed is not True or result.photo == personalisation().photo


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.SHORT, Fault.LONG, Fault.REFUSES])
def test_a_sam_with_a_fault_is_never_believed(issuer: TestIssuer, fault: Fault) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    for at in range(1, 40, 3):
        with pytest.raises(DeviceError):
            read(card, ApduSam(Faulty(TestSam(issuer), fault, at=at).answer, issuer.code))


def test_another_issuers_sam_and_a_wrong_code_are_refused(issuer: TestIssuer) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    with pytest.raises(DeviceUntrusted, match="this SAM"):
        read(card, opened(TestIssuer()))
    with pytest.raises(DeviceUntrusted, match="code"):
        ApduSam(TestSam(issuer).answer, bytes(32))


def test_a_cloned_card_is_not_genuine(issuer: TestIssuer) -> None:
    genuine = EktpCard.personalised(issuer, personalisation())
    clone = EktpCard.personalised(TestIssuer(), personalisation())
    clone.uid, clone.files[CardFile.CONTROL] = genuine.uid, genuine.files[CardFile.CONTROL]
    with pytest.raises(DeviceUntrusted):
        read(clone, opened(issuer))


class Recorded:
    """A card that answers a recorded challenge's answer again."""

    def __init__(self, card: EktpCard, sam_answer: bytes) -> None:
        self.card, self.atr, self.power = card, card.atr, card.power
        self._answer = sam_answer

    def answer(self, command: bytes) -> bytes:
        return self._answer if command[1] == 0x82 else self.card.answer(command)


def test_an_answer_of_an_earlier_session_is_not_accepted_again(issuer: TestIssuer) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    answers: list[bytes] = []

    class Listening(Wired):
        def transmit(self, command: bytes) -> bytes:
            answer = super().transmit(command)
            if command[1] == 0x82:
                answers.append(answer)
            return answer

    read_ektp(Listening(card), opened(issuer), 0)
    with pytest.raises(DeviceUntrusted):
        read(Recorded(card, answers[0]), opened(issuer))


def test_a_photo_that_was_exchanged_is_not_signed(issuer: TestIssuer) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    other = b"\xff\xd8somebody else\xff\xd9"
    card.files[CardFile.PHOTO] = bytearray(len(other).to_bytes(2, "big") + other)
    assert read(card, opened(issuer)).signed is False


def test_protected_files_are_not_read_without_the_sam(issuer: TestIssuer) -> None:
    wired = Wired(EktpCard.personalised(issuer, personalisation()))
    wired.connect(0)
    for command in ("00A40000027F0A", "00A40000026FF1"):
        assert wired.transmit(bytes.fromhex(command)) == b"\x90\x00"
    assert wired.transmit(bytes.fromhex("00B0000008")) == b"\x69\x82"
    assert wired.transmit(bytes.fromhex("0CB0000000")) == b"\x69\x82"


def test_what_is_read_is_not_printed(issuer: TestIssuer) -> None:
    card = read(EktpCard.personalised(issuer, personalisation()), opened(issuer))
    assert "SITI" not in repr(card.demographics) + repr(card) + repr(personalisation()) + repr(issuer)
    assert "3273014107900001" not in repr(card.demographics)


def test_demographics_come_back_as_they_were_written() -> None:
    holder = replace(
        personalisation().demographics, address='"', further=("x", ""), birth_date=date(1911, 2, 3)
    )
    assert read_demographics(holder.to_bytes()) == holder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3273014107900001", "327301410790000"),
        ("3273014107900001", "３273014107900001"),
        ("01-07-1990", "31-02-1990"),
        ("01-07-1990", "1990-07-01"),
        ("PEREMPUAN", "?"),
        ('"WNI"', "WNI"),
        (',"WNI"', ""),
        ('"GURU"', '"GU"RU"'),
    ],
)
def test_demographics_that_are_not_what_they_should_be_are_refused(old: str, new: str) -> None:
    data = personalisation().demographics.to_bytes()
    assert old.encode() in data
    with pytest.raises(DeviceProtocolError) as refused:
        read_demographics(data.replace(old.encode(), new.encode()))
    assert "SITI" not in str(refused.value)


def test_a_signature_is_read_by_its_size() -> None:
    image = read_signature(b"\x80" + bytes(923))
    assert image.shape == (44, 168)
    assert (image[0, 0], image[0, 1], image.flags.writeable) == (0, 255, False)
    with pytest.raises(DeviceProtocolError):
        read_signature(bytes(923))


def test_uids_as_the_sam_takes_them() -> None:
    assert sam_uid(b"\x04" + bytes(6)) == b"\x80\x04" + bytes(6)
    assert sam_uid(b"ABCD") == b"\x80ABCD\x00\x00\x00"
    assert sam_uid(b"12345678") == b"12345678"


# --- a SAM behind a network


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Certificates of one authority, which is its own certificate `authority`; made when asked for."""
    folder = tmp_path_factory.mktemp("certificates")
    keys = {"authority": ec.generate_private_key(ec.SECP256R1())}

    def certificate(name: str) -> tuple[Path, Path]:
        key = keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))
        subject, issuer = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, "authority")
        )
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .sign(keys["authority"], SHA256())
        )
        path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        return path, key_path

    return certificate


def lender(certificates: Callable[[str], tuple[Path, Path]]) -> ssl.SSLContext:
    """What a server that lends a SAM is known by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*certificates("server"))
    context.load_verify_locations(certificates("authority")[0])
    return context


class Exhausted(socket.socket):
    """Cannot accept at first, as where every descriptor is taken."""

    exhausted = True

    def accept(self) -> tuple[socket.socket, object]:
        if self.exhausted:
            self.exhausted = False
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@contextmanager
def lent(
    transmit: Callable[[bytes], bytes],
    certificates: Callable[[str], tuple[Path, Path]],
    handshake_seconds: float = 5.0,
    told: Callable[[str], None] = print,
) -> Iterator[SamServer]:
    """A SAM lent over TLS by a thread."""
    authority, context = certificates("authority")[0], lender(certificates)

    @contextmanager
    def session() -> Iterator[Callable[[bytes], bytes]]:
        yield transmit

    with Exhausted(fileno=socket.create_server(("127.0.0.1", 0)).detach()) as listening:
        lending = (listening, context, session, told, 2 * PATIENCE, handshake_seconds)
        thread = threading.Thread(target=serve_sam, args=lending)
        thread.start()
        port = listening.getsockname()[1]
        try:
            yield SamServer("127.0.0.1", port, authority, *certificates("terminal"), seconds=5.0)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_card_is_read_with_a_sam_far_away(
    issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]]
) -> None:
    card = EktpCard.personalised(issuer, personalisation())
    with lent(TestSam(issuer).answer, certificates) as server:
        for _ in range(2):
            with remote_sam(server, issuer.code) as sam:
                assert_whole(read(card, sam))
        with pytest.raises(DeviceUntrusted, match="code"), remote_sam(server, bytes(32)):
            pass


def test_a_station_lends_its_sam_to_another(
    table: CardTable,
    issuer: TestIssuer,
    certificates: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    asked: list[bytes] = []
    table.sam.asked = asked.append
    table.sam.insert(TestSam(issuer))
    authority, names = certificates("authority")[0], ("certificate", "key")
    lender, terminal = tmp_path / "lender.toml", tmp_path / "terminal.toml"
    lender.write_text(f'[cards]\nsam_slot = "{SAM}"\n')
    known = [f"--{name}={path}" for name, path in zip(names, certificates("server"), strict=True)]
    lending = ["card", "lend-sam", f"--station={lender}", f"--authority={authority}", *known]
    rekam = [sys.executable, "-c", "from rekam.cli import main; main()"]
    environment = os.environ | {"REKAM_SAM_CODE": issuer.code.hex()}
    with subprocess.Popen(
        [*rekam, *lending, "--host=127.0.0.1", "--port=0"], stdout=subprocess.PIPE, text=True
    ) as lends:
        try:
            assert lends.stdout is not None
            port = lends.stdout.readline().rpartition(":")[2].strip()
            paths = [f'{name} = "{path}"' for name, path in zip(names, certificates("terminal"), strict=True)]
            where = ", ".join(['host = "127.0.0.1"', f"port = {port}", f'authority = "{authority}"', *paths])
            terminal.write_text(f"[cards]\nsam_server = {{ {where} }}\n")
            reading = [*rekam, "card", "read", "--json", f"--station={terminal}", f"--reader={CARD}"]
            waiting = [*reading, "--seconds=0.5"]
            read = subprocess.run(waiting, env=environment, capture_output=True, text=True, check=False)
            assert read.returncode != 0
            assert "no card" in read.stderr
            assert not asked  # while a terminal waits for a card, the SAM is another's
            table.card.insert(EktpCard.personalised(issuer, personalisation()))
            for _ in range(2):
                read = subprocess.run(reading, env=environment, capture_output=True, text=True, check=True)
                assert json.loads(read.stdout)["digital_signature"] == "good"
        finally:
            lends.send_signal(signal.SIGINT)
    assert lends.returncode == 0


def test_a_slot_without_a_sam_is_not_lent(
    table: CardTable, certificates: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    lender, (certificate, key) = tmp_path / "lender.toml", map(str, certificates("server"))
    lender.write_text(f'[cards]\nsam_slot = "{SAM}"\n')
    known = [f"--authority={certificate}", f"--certificate={certificate}", f"--key={key}"]
    lending = ["card", "lend-sam", f"--station={lender}", *known, "--host=127.0.0.1", "--port=0"]
    ended = subprocess.run(
        [sys.executable, "-c", "from rekam.cli import main; main()", *lending],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert "no SAM in" in ended.stderr
    assert "lending" not in ended.stdout


def test_a_sam_is_here_or_far_away_not_both(tmp_path: Path) -> None:
    station = tmp_path / "station.toml"
    far = ", ".join(f'{name} = "x"' for name in ("host", "authority", "certificate", "key"))
    station.write_text(f'[cards]\nsam_slot = "{SAM}"\nsam_server = {{ port = 1, {far} }}\n')
    with pytest.raises(InvalidSettings, match="not both"):
        load_station(station)


def test_only_terminals_and_servers_of_the_authority_speak_to_each_other(
    issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    stranger = (
        x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, SHA256())
    )
    path, key_path = tmp_path / "stranger.pem", tmp_path / "stranger.key"
    path.write_bytes(stranger.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with lent(TestSam(issuer).answer, certificates) as server:
        with pytest.raises(DeviceUntrusted), remote_sam(replace(server, authority=path), issuer.code):
            pass
        foreign = replace(server, certificate=path, key=key_path)
        with pytest.raises((DeviceUntrusted, DeviceRemoved)), remote_sam(foreign, issuer.code):
            pass
        with pytest.raises(DeviceUntrusted), remote_sam(replace(server, host="localhost"), issuer.code):
            pass
        with pytest.raises(DeviceUnavailable), remote_sam(replace(server, key=tmp_path / "none"), b""):
            pass
    with pytest.raises(DeviceUnavailable), remote_sam(server, issuer.code):
        pass


def test_a_remote_sam_that_goes_away_is_removed(
    issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]]
) -> None:
    sam = TestSam(issuer)
    commands = 0

    def leaving(command: bytes) -> bytes:
        nonlocal commands
        commands += 1
        if commands > 10:
            raise DeviceRemoved("pulled")
        return sam.answer(command)

    card = EktpCard.personalised(issuer, personalisation())
    with (
        lent(leaving, certificates) as server,
        remote_sam(server, issuer.code) as far,
        pytest.raises(DeviceRemoved),
    ):
        read(card, far)


def test_an_answer_longer_than_any_ends_the_session_alone(
    issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]]
) -> None:
    answers = [bytes(0x10000)]

    def long(command: bytes) -> bytes:
        return answers.pop() if answers else TestSam(issuer).answer(command)

    with lent(long, certificates) as server:
        with pytest.raises(DeviceRemoved), remote_sam(server, issuer.code):
            pass
        with remote_sam(server, issuer.code):
            pass


@pytest.mark.parametrize("fault", [DeviceUnavailable, DeviceStuck, DeviceUntrusted])
def test_a_sam_that_failed_one_terminal_is_lent_to_the_next(
    fault: type[DeviceError], issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]]
) -> None:
    sam, failures = TestSam(issuer), [fault("the service was started anew")]

    def failing(command: bytes) -> bytes:
        if failures:
            raise failures.pop()
        return sam.answer(command)

    said: list[str] = []
    with lent(failing, certificates, told=said.append) as server:
        with pytest.raises(DeviceRemoved), remote_sam(server, issuer.code):
            pass
        with remote_sam(server, issuer.code) as far:
            far.reset()
    assert said == ["127.0.0.1: the service was started anew"]


def test_who_does_not_say_who_he_is_holds_up_nobody_for_long(
    issuer: TestIssuer, certificates: Callable[[str], tuple[Path, Path]]
) -> None:
    with (
        lent(TestSam(issuer).answer, certificates, handshake_seconds=0.5) as server,
        socket.create_connection((server.host, server.port)) as silent,
    ):
        silent.sendall(b"\x16")  # the beginning of a handshake
        with remote_sam(replace(server, seconds=PATIENCE), issuer.code) as far:
            far.reset()


def test_an_answer_that_trickles_ends_at_the_deadline(
    certificates: Callable[[str], tuple[Path, Path]],
) -> None:
    """Every byte comes in time, and at the end it would have been a good answer."""

    def trickle(listening: socket.socket) -> None:
        with suppress(OSError):
            plain, _ = listening.accept()
            with lender(certificates).wrap_socket(plain, server_side=True) as connection:
                for byte in b"\x00\x14" + bytes(18) + b"\x90\x00":
                    connection.sendall(bytes([byte]))
                    time.sleep(0.3)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        port, authority = listening.getsockname()[1], certificates("authority")[0]
        server = SamServer("127.0.0.1", port, authority, *certificates("terminal"), seconds=3.0)
        with pytest.raises(DeviceRemoved, match="time"), remote_sam(server, b""):
            pass
        thread.join()
