"""Whether an answer of an SBI device is to be believed: signatures, certificates, hashes, freshness.

Tokens are JWS (RFC 7515) with RS256 and the certificates in `x5c`. What holds of an answer is checked by
`verified_records`, in numbered steps. Under `UnverifiedDevices` signatures and certificates are passed over
and `Provenance.signed_by` stays empty; everything else is checked all the same. Revocation lists are not
consulted: an operator withdraws a maker by taking its root away. Pure functions, but for `loaded_*`.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from devices.errors import DeviceProtocolError, DeviceUnavailable, DeviceUntrusted
from devices.frame import DeviceKind, Provenance, Record
from devices.sbi_messages import (
    Biometric,
    Block,
    CaptureRequest,
    DigitalId,
    json_object,
    read_block,
    read_digital_id,
    unpadded,
)

FIRST_HASH = hashlib.sha256(b"").digest()
_DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # RFC 9336
_FORMATS = {
    DeviceKind.FINGERPRINT: "ISO19794_4_2011",
    DeviceKind.FACE: "ISO19794_5_2011",
    DeviceKind.IRIS: "ISO19794_6_2011",
}


@dataclass(frozen=True, slots=True)
class Params:
    """Bounds of what is believed. `clock_seconds`: how far the device's clock may be from ours."""

    clock_seconds: float = 120.0
    certificates: int = 5
    key_bits: int = 2048
    certificate_bytes: int = 8192
    intermediates: int = 3


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class TrustedRoots:
    """Files in PEM of the authorities under which devices are certified."""

    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class UnverifiedDevices:
    """Believe whoever answers: for reference services and simulators, never for enrolment."""


Trust = TrustedRoots | UnverifiedDevices


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """Our key and certificate, in PEM, for which devices of the purpose Auth encrypt."""

    key_file: Path
    certificate_file: Path
    password_file: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Opener:
    """The key in use; `thumbprint` is of the certificate, upper-case hex."""

    key: rsa.RSAPrivateKey
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A payload, and the subject that signed it; empty where nobody was asked to."""

    payload: bytes
    signer: str


def loaded_roots(trust: Trust) -> Sequence[x509.Certificate] | None:
    """The trusted authorities, None for everybody. Raises `DeviceUnavailable` for files that are none."""
    if isinstance(trust, UnverifiedDevices):
        return None
    try:
        roots = [root for file in trust.files for root in x509.load_pem_x509_certificates(file.read_bytes())]
    except (OSError, ValueError) as error:
        raise DeviceUnavailable(f"the trusted certificates cannot be read: {error}") from None
    if not roots:
        raise DeviceUnavailable("no certificate is trusted, so no device can be")
    return roots


def loaded_opener(setting: DecryptionKey) -> Opener:
    """Our key. Raises `DeviceUnavailable` where the files do not hold an RSA key and its certificate."""
    try:
        password = setting.password_file.read_bytes().strip() if setting.password_file else None
        key = load_pem_private_key(setting.key_file.read_bytes(), password)
        certificate = x509.load_pem_x509_certificate(setting.certificate_file.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise DeviceUnavailable(f"the key for encrypted captures cannot be read: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey) or certificate.public_key() != key.public_key():
        raise DeviceUnavailable("the key for encrypted captures is no RSA key, or not its certificate's")
    return Opener(key, certificate.fingerprint(SHA256()).hex().upper())


def chained(previous: bytes, record: bytes) -> bytes:
    """The hash after `record` in a chain whose last hash is `previous`, 32 bytes each."""
    return hashlib.sha256(previous + hashlib.sha256(record).digest()).digest()


def verified(
    token: str, roots: Sequence[x509.Certificate] | None, now: datetime, params: Params = PARAMS
) -> Signed:
    """The payload of a token whose signature and certificates hold at `now`.

    Raises `DeviceUntrusted` where they do not, `DeviceProtocolError` where there is no token. Cost: 1 ms.
    """
    parts = token.split(".")
    if roots is None:
        return Signed(unpadded(parts[1] if len(parts) == 3 else token, "the payload"), "")
    # 1. The shape of a signed token.
    if len(parts) != 3:
        raise DeviceUntrusted("what the device says is not signed")
    header = json_object(unpadded(parts[0], "the header"), "the header")
    # 2. One algorithm, whatever the header asks for, and nothing critical that is not understood here.
    if header.get("alg") != "RS256" or "crit" in header:
        raise DeviceUntrusted(f"the token is signed by {str(header.get('alg'))[:20]!r}, not RS256")
    # 3. The certificates lead to a trusted one.
    leaf, *others = _certificates(header.get("x5c"), params)
    _check_chain(leaf, others, roots, now, params)
    # 4. The signature is the first certificate's.
    signature = unpadded(parts[2], "the signature")
    try:
        key = leaf.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise DeviceUntrusted("the device's certificate holds no RSA key")
        key.verify(signature, f"{parts[0]}.{parts[1]}".encode(), padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        raise DeviceUntrusted("the signature is not the certificate's") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DeviceUntrusted(f"the device's key cannot be used: {str(error)[:100]}") from None
    return Signed(unpadded(parts[1], "the payload"), leaf.subject.rfc4514_string())


def verified_records(
    biometrics: Sequence[Biometric],
    request: CaptureRequest,
    identity: DigitalId,
    code: str,
    provenance: Provenance,
    roots: Sequence[x509.Certificate] | None,
    opener: Opener | None,
    now: datetime,
    params: Params = PARAMS,
) -> tuple[tuple[Record, ...], str]:
    """The records of an answer to `request` that came at `now`, and the last hash of the chain, hex.

    `identity` and `code`: of the device that was asked. Whether these are the fingers that were asked for is
    not judged here. Raises `DeviceUntrusted`, `DeviceProtocolError`. Cost: 2 ms a record.
    """
    last = bytes.fromhex(request.previous)
    records = []
    for biometric in biometrics:
        # 1. The device signed it, and names itself under a signature of its own.
        signed = verified(biometric.token, roots, now, params)
        block = read_block(signed.payload)
        # 2. It is the device that was asked.
        named = read_digital_id(verified(block.digital_id, roots, now, params).payload)
        if named != identity or block.code != code:
            raise DeviceUntrusted(f"{identity.name} was asked and {named.name} answers")
        # 3. It answers this request, not an older one or another's.
        _check_answers(block, request, now, params)
        # 4. The record, opened where it is sealed, continues the chain.
        value = block.value if opener is None else opened(block, biometric, opener)
        last = chained(last, value)
        if biometric.chain_hash.upper() != last.hex().upper():
            raise DeviceUntrusted("the chain of hashes is broken")
        records.append(
            Record(
                data=value,
                format=_FORMATS[block.kind],
                kind=block.kind,
                positions=block.positions,
                quality=block.quality,
                taken_at=block.taken_at,
                provenance=replace(provenance, signed_by=signed.signer),
            )
        )
    return tuple(records), last.hex().upper()


def opened(block: Block, biometric: Biometric, opener: Opener) -> bytes:
    """A sealed record: the session key by RSA-OAEP, the record by AES-GCM.

    Nonce and bound data are the last 12 and 16 bytes of timestamp XOR transaction, aligned at their ends.
    Raises `DeviceUntrusted`, and tells nothing of why a key did not fit.
    """
    if biometric.thumbprint.upper() != opener.thumbprint:
        raise DeviceUntrusted(f"the record is encrypted for {biometric.thumbprint[:64]!r}, not for us")
    mixed = _mixed(block.timestamp.encode(), block.transaction.encode())
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    try:
        session_key = opener.key.decrypt(unpadded(biometric.session_key, "sessionKey"), oaep)
        return AESGCM(session_key).decrypt(mixed[-12:], block.value, mixed[-16:])
    except (ValueError, InvalidTag):
        raise DeviceUntrusted("the encrypted record does not open with our key") from None


def _mixed(first: bytes, second: bytes) -> bytes:
    """Both XORed, the shorter one filled with zeros in front."""
    size = max(len(first), len(second))
    if size < 16:
        raise DeviceProtocolError("timestamp and transaction are too short to encrypt with")
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).to_bytes(size, "big")


def _check_answers(block: Block, request: CaptureRequest, now: datetime, params: Params) -> None:
    if block.transaction != request.transaction:
        raise DeviceUntrusted(f"the answer is of transaction {block.transaction[:60]!r}")
    if (block.environment, block.purpose) != (request.environment, request.purpose):
        raise DeviceUntrusted(
            f"the answer is for {block.environment[:40]!r}, {block.purpose[:40]!r}, "
            f"not {request.environment!r}, {request.purpose.value!r}"
        )
    if block.kind is not request.kind:
        raise DeviceUntrusted(f"a {request.kind.value} was asked for, a {block.kind.value} came")
    slack = timedelta(seconds=params.clock_seconds)
    if not request.asked_at - slack <= block.taken_at <= now + slack:
        raise DeviceUntrusted(f"the answer was made at {block.taken_at}, and asked for at {request.asked_at}")


def _certificates(x5c: object, params: Params) -> Sequence[x509.Certificate]:
    if not isinstance(x5c, list) or not 1 <= len(x5c) <= params.certificates:
        raise DeviceUntrusted(f"the token comes without 1 to {params.certificates} certificates")
    certificates = []
    for text in x5c:
        if not isinstance(text, str) or len(text) > params.certificate_bytes * 4 // 3:
            raise DeviceUntrusted("a certificate is no text, or too long")
        try:
            certificates.append(x509.load_der_x509_certificate(base64.b64decode(text, validate=True)))
        except (ValueError, x509.InvalidVersion) as error:
            raise DeviceUntrusted(f"a certificate cannot be read: {str(error)[:100]}") from None
    return certificates


def _check_chain(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
    params: Params,
) -> None:
    """Dates, signatures, path lengths, key sizes as RFC 5280 has them; uses as makers of devices set them."""
    either = verification.Criticality.AGNOSTIC
    any_extensions = verification.ExtensionPolicy.permit_all()
    authorities = any_extensions.require_present(x509.BasicConstraints, either, _is_authority).may_be_present(
        x509.KeyUsage, either, _signs_certificates
    )
    devices = (
        any_extensions.may_be_present(x509.BasicConstraints, either, _is_no_authority)
        .may_be_present(x509.KeyUsage, either, _signs_data)
        .may_be_present(x509.ExtendedKeyUsage, either, _is_for_devices)
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(now)
        .max_chain_depth(params.intermediates)
        .extension_policies(ca_policy=authorities, ee_policy=devices)
        .build_client_verifier()
    )
    try:
        for one in verifier.verify(leaf, list(others)).chain:
            key = one.public_key()
            if isinstance(key, rsa.RSAPublicKey) and key.key_size < params.key_bits:
                raise DeviceUntrusted(f"a key of {key.key_size} bits is not trusted")
    except verification.VerificationError as error:
        raise DeviceUntrusted(f"the device's certificate is not trusted: {str(error)[:200]}") from None
    # Extensions are read lazily: malformed ones, and names the library does not know, surface here.
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise DeviceUntrusted(f"the device's certificate cannot be read: {str(error)[:100]}") from None


def _is_authority(_policy: verification.Policy, _of: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("it is no authority's")


def _signs_certificates(
    _policy: verification.Policy, _of: x509.Certificate, found: x509.KeyUsage | None
) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("its key may not sign certificates")


def _is_no_authority(
    _policy: verification.Policy, _of: x509.Certificate, found: x509.BasicConstraints | None
) -> None:
    if found is not None and found.ca:
        raise ValueError("it is an authority's, not a device's")


def _signs_data(_policy: verification.Policy, _of: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found is not None and not (found.digital_signature or found.content_commitment):
        raise ValueError("its key may not sign data")


def _is_for_devices(
    _policy: verification.Policy, _of: x509.Certificate, found: x509.ExtendedKeyUsage | None
) -> None:
    uses = {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.EMAIL_PROTECTION,
        _DOCUMENT_SIGNING,
    }
    if found is not None and uses.isdisjoint(found):
        raise ValueError("it is for another purpose than signing data")
