"""What the two certificate authorities certify at the start, and how one follows another.

The fleet CA (offline key) stands behind what servers show; the device CA (online key) behind what
devices and the ingest service show. They are apart so that a stolen server can let strange devices
in, but can never pose as another server. Profiles follow RFC 5280 as strict verifiers want it.
The certificates of the authorities themselves are made by `signing_keys.authority_certificates`.
"""

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioning.errors import ProvisioningError
from signing_keys.authority_certificates import CLOCK_SKEW, key_usage

SERVER_LIFETIME = timedelta(days=397)
INGEST_COMMON_NAME = "_ingest"
"""No device can have this name: a device id has no underscore."""
INGEST_URI = "urn:skerry:service:ingest"

_DNS_NAME = re.compile(
    r"\A(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
    r"(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\Z"
)


def server_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return the subject alternative names for what people typed: DNS names and IP addresses.

    Raises:
        ProvisioningError: none was given, or one is neither.
    """
    if not names:
        raise ProvisioningError(
            "name the server at least once with --server-name: a DNS name or an IP address "
            "under which devices reach it"
        )
    return [_general_name(name) for name in dict.fromkeys(names)]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _DNS_NAME.match(name.lower()) is None or name.rpartition(".")[2].isdigit():
        raise ProvisioningError(
            f"{name[:80]!r} is neither a DNS name nor an IP address: give the bare name, such as "
            "fleet.example.org, without https:// and without a port"
        )
    return x509.DNSName(name.lower())


def server_certificate(
    names: Sequence[x509.GeneralName],
    key: EllipticCurvePublicKey,
    *,
    issuer: x509.Certificate,
    issuer_key: EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return what the server shows to devices, operators and publishers."""
    return (
        _leaf(_subject("Skerry fleet server"), key, issuer, now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer_key, SHA256())
    )


def ingest_certificate(
    key: EllipticCurvePublicKey,
    *,
    issuer: x509.Certificate,
    issuer_key: EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return with what the ingest service introduces itself to the broker."""
    name = x509.UniformResourceIdentifier(INGEST_URI)
    return (
        _leaf(_subject(INGEST_COMMON_NAME), key, issuer, now)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(issuer_key, SHA256())
    )


def _leaf(
    subject: x509.Name, key: EllipticCurvePublicKey, issuer: x509.Certificate, now: datetime
) -> x509.CertificateBuilder:
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(subject, issuer.subject, key, now=now, lifetime=_leaf_lifetime(issuer, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
    )


def _leaf_lifetime(issuer: x509.Certificate, now: datetime) -> timedelta:
    """Return a term that does not outlive the issuer, who would not be believed then."""
    left = issuer.not_valid_after_utc - now
    if left <= timedelta():
        raise ProvisioningError(
            f"the authority {issuer.subject.rfc4514_string()} ended on "
            f"{issuer.not_valid_after_utc:%Y-%m-%d}: devices that know no other need new claims"
        )
    return min(SERVER_LIFETIME, left)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePublicKey,
    *,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
