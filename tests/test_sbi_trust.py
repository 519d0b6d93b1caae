"""What is believed of a signature, a certificate, a chain of hashes and an encrypted record."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devices.errors import DeviceError, DeviceProtocolError, DeviceUnavailable, DeviceUntrusted
from devices.frame import DeviceKind
from devices.sbi_messages import Biometric, Block
from devices.sbi_trust import (
    FIRST_HASH,
    DecryptionKey,
    TrustedRoots,
    chained,
    loaded_opener,
    loaded_roots,
    opened,
    verified,
)
from tests.sbi_services import our_key

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
KEYS = tuple(rsa.generate_private_key(65537, 2048) for _ in range(3))
ROOT_KEY, MIDDLE_KEY, DEVICE_KEY = KEYS
AUTHORITY = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
SEALING = x509.KeyUsage(False, False, True, False, False, False, False, False, False)


def certificate(
    subject: str,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    *extensions: x509.ExtensionType,
    days: tuple[int, int] = (-30, 30),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, SHA256())


def authority(length: int | None = None) -> tuple[x509.ExtensionType, ...]:
    return x509.BasicConstraints(True, length), AUTHORITY


ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY, *authority())
MIDDLE = certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, *authority())
DEVICE = certificate("device", DEVICE_KEY, "middle", MIDDLE_KEY, SIGNING)


def coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(
    chain: Sequence[x509.Certificate],
    payload: bytes = b'{"deviceId":"1"}',
    key: rsa.RSAPrivateKey = DEVICE_KEY,
    **header: object,
) -> str:
    x5c = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain]
    said = json.dumps({"alg": "RS256", "x5c": x5c, **header}).encode()
    signed = f"{coded(said)}.{coded(payload)}"
    return f"{signed}.{coded(key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


def by_root(*extensions: x509.ExtensionType, days: tuple[int, int] = (-30, 30)) -> list[x509.Certificate]:
    return [certificate("device", DEVICE_KEY, "root", ROOT_KEY, *extensions, days=days)]


@pytest.mark.parametrize(
    "chain",
    [
        by_root(),
        by_root(SIGNING),
        by_root(x509.BasicConstraints(False, None), SIGNING),
        by_root(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
        [DEVICE, MIDDLE],
        [DEVICE, MIDDLE, ROOT],
        [DEVICE, ROOT, MIDDLE],
    ],
)
def test_chains_that_hold(chain: list[x509.Certificate]) -> None:
    signed = verified(token(chain), [ROOT], NOW)
    assert (signed.payload, signed.signer) == (b'{"deviceId":"1"}', "CN=device")


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (by_root(days=(-30, -1)), "not valid at validation time"),
        (by_root(days=(1, 30)), "not valid at validation time"),
        (by_root(SEALING), "may not sign data"),
        (by_root(*authority()), "an authority's"),
        (by_root(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])), "another purpose"),
        ([DEVICE], "candidates exhausted"),
        ([certificate("device", DEVICE_KEY, "device", DEVICE_KEY, SIGNING)], "candidates exhausted"),
        ([certificate("device", DEVICE_KEY, "root", DEVICE_KEY, SIGNING)], "signature does not match"),
        (
            [DEVICE, certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, SIGNING)],  # no authority
            "cA must be asserted|authority|missing required",
        ),
        (
            [DEVICE, certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, *authority(), days=(-30, -1))],
            "not valid at validation time",
        ),
        (
            [
                certificate("device", DEVICE_KEY, "lower", MIDDLE_KEY, SIGNING),
                certificate("lower", MIDDLE_KEY, "middle", MIDDLE_KEY, *authority()),
                certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, *authority(0)),
            ],
            "path length",
        ),
        ([], "without 1 to 5 certificates"),
        ([DEVICE, *[MIDDLE] * 5], "without 1 to 5 certificates"),
    ],
)
def test_chains_that_do_not_hold(chain: list[x509.Certificate], why: str) -> None:
    with pytest.raises(DeviceUntrusted, match=why):
        verified(token(chain), [ROOT], NOW)


def test_weak_and_other_keys_do_not_count() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(DeviceUntrusted, match="not trusted"):
        verified(token([certificate("device", weak, "root", ROOT_KEY)], key=weak), [ROOT], NOW)
    curve = certificate("device", ec.generate_private_key(ec.SECP256R1()), "root", ROOT_KEY)
    with pytest.raises(DeviceUntrusted, match="no RSA key"):
        verified(token([curve]), [ROOT], NOW)


def test_an_expired_root_trusts_nobody() -> None:
    old = certificate("root", ROOT_KEY, "root", ROOT_KEY, *authority(), days=(-30, -1))
    with pytest.raises(DeviceUntrusted, match="not valid at validation time"):
        verified(token(by_root()), [old], NOW)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "ES256", None, 5])
def test_the_header_does_not_choose_the_algorithm(algorithm: object) -> None:
    with pytest.raises(DeviceUntrusted, match="not RS256"):
        verified(token([DEVICE, MIDDLE], alg=algorithm), [ROOT], NOW)


def test_what_is_critical_and_unknown_is_refused() -> None:
    with pytest.raises(DeviceUntrusted):
        verified(token([DEVICE, MIDDLE], crit=["b64"], b64=False), [ROOT], NOW)


def test_a_signature_is_of_these_bytes_and_this_key() -> None:
    header, payload, signature = token([DEVICE, MIDDLE]).split(".")
    other = coded(b'{"deviceId":"2"}')
    for broken in (
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{coded(bytes(256))}",
        token([DEVICE, MIDDLE], key=MIDDLE_KEY),
    ):
        with pytest.raises(DeviceUntrusted, match="not the certificate's"):
            verified(broken, [ROOT], NOW)
    for unsigned in (payload, f"{header}.{payload}"):
        with pytest.raises(DeviceUntrusted, match="not signed"):
            verified(unsigned, [ROOT], NOW)


def test_the_chain_of_hashes_is_the_documented_one() -> None:
    assert FIRST_HASH.hex().startswith("e3b0c44298fc1c14")
    first = chained(FIRST_HASH, b"one")
    assert first == hashlib.sha256(FIRST_HASH + hashlib.sha256(b"one").digest()).digest()
    assert chained(first, b"two") != chained(FIRST_HASH, b"two")


def test_settings_that_hold_no_certificates_or_keys(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate\n")
    for files in ((), (junk,), (tmp_path / "absent.pem",)):
        with pytest.raises(DeviceUnavailable):
            loaded_roots(TrustedRoots(files))
    setting, _ = our_key(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    foreign, _ = our_key(other)
    wrong: list[DecryptionKey] = [
        replace(setting, key_file=junk),
        replace(setting, certificate_file=junk),
        replace(setting, certificate_file=foreign.certificate_file),
        replace(setting, password_file=None),
        replace(setting, password_file=junk),
    ]
    for one in wrong:
        with pytest.raises(DeviceUnavailable, match="key for encrypted captures"):
            loaded_opener(one)


def sealed(timestamp: str, transaction: str, certificate: x509.Certificate) -> tuple[Block, Biometric]:
    """A record sealed as the specification says, by an arithmetic of its own."""
    size = max(len(timestamp), len(transaction))
    mixed = bytes(
        a ^ b
        for a, b in zip(
            timestamp.rjust(size, "\0").encode(), transaction.rjust(size, "\0").encode(), strict=True
        )
    )
    public = certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    key = bytes(range(32))
    wrapped = public.encrypt(key, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    value = AESGCM(key).encrypt(mixed[size - 12 :], b"the record", mixed[size - 16 :])
    block = Block("", "", DeviceKind.FACE, (), "Auth", "Staging", value, transaction, timestamp, NOW, 50.0)
    return block, Biometric("", "", coded(wrapped), certificate.fingerprint(SHA256()).hex())


@pytest.mark.parametrize("transaction", ["four", "golden-0001", "a transaction of forty-two characters ----"])
def test_sealed_records_open(tmp_path: Path, transaction: str) -> None:
    setting, certificate = our_key(tmp_path)
    opener = loaded_opener(setting)
    block, biometric = sealed("2030-05-01T12:00:00Z", transaction, certificate)
    assert opened(block, biometric, opener) == b"the record"
    tampered: list[tuple[Block, Biometric]] = [
        (replace(block, timestamp="2030-05-01T12:00:01Z"), biometric),
        (replace(block, transaction=transaction[:-1] + "!"), biometric),
        (replace(block, value=block.value[:-1] + b"\0"), biometric),
        (replace(block, value=b""), biometric),
        (block, replace(biometric, session_key=coded(bytes(256)))),
        (block, replace(biometric, session_key="")),
        (block, replace(biometric, thumbprint="00" * 32)),
        (replace(block, timestamp="x", transaction="four"), biometric),
    ]
    for pair in tampered:
        with pytest.raises((DeviceUntrusted, DeviceProtocolError)) as raised:
            opened(*pair, opener)
        assert isinstance(raised.value, DeviceError)
