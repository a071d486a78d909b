"""The device CA: reads certificate requests, issues, reads and revokes device certificates."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_server.errors import MalformedError, RefusedError, SetupError
from signing_keys.authority_certificates import CLOCK_SKEW, key_usage, link

LIFETIME = timedelta(days=90)

DEVICE_URI = "urn:skerry:device:"
INGEST_URI = "urn:skerry:service:ingest"
INGEST_NAME = "_ingest"


@dataclass(frozen=True, slots=True)
class RequestedKey:
    """The public key of a certificate request whose holder proved to have the private one."""

    key: ec.EllipticCurvePublicKey

    @property
    def pem(self) -> str:
        """As SubjectPublicKeyInfo."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def sha256(self) -> str:
        """Fingerprint of the SubjectPublicKeyInfo."""
        return key_sha256(self.key)


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A new device certificate.

    Attributes:
        issuer: `DeviceCa.key_id` of who signed it.
    """

    pem: str
    serial: str
    expires: datetime
    issuer: str


class Issuer(Protocol):
    """Who signs device certificates now."""

    def issue(self, *, device_id: str, key: "RequestedKey", now: datetime) -> IssuedCertificate:
        """Issue a certificate for a device's key."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a client certificate of the device CA names.

    Attributes:
        device_id: None for the ingest service.
        public_key_sha256: fingerprint of its key.
    """

    device_id: str | None
    public_key_sha256: str


def key_sha256(key: ec.EllipticCurvePublicKey) -> str:
    """Return the fingerprint by which a device's key is compared."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def issuer_key_id(certificate: x509.Certificate) -> str:
    """Return `DeviceCa.key_id` of who signed a certificate; empty if it does not say."""
    try:
        named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return ""
    return (named.value.key_identifier or b"").hex()


def read_request(pem: str) -> RequestedKey:
    """Read a certificate request (PKCS #10). Its names are ignored: the claim names the device.

    Raises:
        MalformedError: it cannot be read.
        RefusedError: its signature does not hold, or its key is not on P-256.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"the certificate request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RefusedError("the certificate request must have a key on the curve P-256")
    try:
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        valid = False
    if not valid:
        raise RefusedError("the signature of the certificate request does not fit its key")
    return RequestedKey(key)


def read_peer(der: bytes) -> Peer:
    """Read whom a verified client certificate names; common name and URI must agree.

    Raises:
        MalformedError: it is no certificate of a device or of the ingest service.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = alternative.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, UnsupportedAlgorithm) as error:
        raise MalformedError(f"the client certificate cannot be read: {error}") from error
    if len(names) != 1 or len(uris) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise MalformedError("the client certificate must have one name, one URI and a P-256 key")
    name = str(names[0].value)
    if (name, uris[0]) == (INGEST_NAME, INGEST_URI):
        return Peer(None, key_sha256(key))
    if uris[0] != DEVICE_URI + name:
        raise MalformedError(f"the client certificate of {name!r} has the foreign URI {uris[0]!r}")
    return Peer(name, key_sha256(key))


class DeviceCa:
    """Signs device certificates."""

    def __init__(self, *, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def load(cls, *, key_file: Path, certificate_file: Path) -> "DeviceCa":
        """Read key and certificate.

        Raises:
            SetupError: a file is missing or is not what it should be, or they do not fit.
        """
        try:
            key = load_pem_private_key(key_file.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SetupError(
                f"cannot read the device CA below {key_file.parent}: {error}"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SetupError(f"the key of the device CA {key_file} is not an elliptic-curve key")
        if key.public_key() != certificate.public_key():
            raise SetupError(f"{certificate_file} is not the certificate of {key_file}")
        return cls(key=key, certificate=certificate)

    @property
    def certificate(self) -> x509.Certificate:
        """Of the authority itself."""
        return self._certificate

    @property
    def key_id(self) -> str:
        """How certificates name their issuer's key (RFC 5280, 4.2.1.1), in hexadecimal."""
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()).digest.hex()

    def link(self, new: x509.Certificate) -> x509.Certificate:
        """Return the proof that another authority follows this one."""
        return link(new, issuer=self._certificate, issuer_key=self._key)

    def issue(self, *, device_id: str, key: RequestedKey, now: datetime) -> IssuedCertificate:
        """Issue a certificate for a device's key."""
        return self._issue(device_id, DEVICE_URI + device_id, key.key, now)

    def issue_ingest(self, key: ec.EllipticCurvePublicKey, *, now: datetime) -> IssuedCertificate:
        """Issue a certificate for the ingest service."""
        return self._issue(INGEST_NAME, INGEST_URI, key, now)

    def revocation_list(
        self, serials: Iterable[int], *, number: int, now: datetime, until: datetime
    ) -> x509.CertificateRevocationList:
        """Sign a list of certificates that are refused although they have not expired.

        Args:
            serials: of the certificates.
            number: higher than that of every list before.
            now: the list counts as newer than those signed before.
            until: after it nobody who needs a list accepts any certificate.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now)
            .next_update(until)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        entry = x509.RevokedCertificateBuilder().revocation_date(now)
        for serial in serials:
            builder = builder.add_revoked_certificate(entry.serial_number(serial).build())
        return builder.sign(self._key, hashes.SHA256())

    def _issue(
        self, name: str, uri: str, key: ec.EllipticCurvePublicKey, now: datetime
    ) -> IssuedCertificate:
        expires = min(now + LIFETIME, self._certificate.not_valid_after_utc)
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM).decode()
        expires = certificate.not_valid_after_utc
        return IssuedCertificate(pem, f"{serial:x}", expires, self.key_id)
