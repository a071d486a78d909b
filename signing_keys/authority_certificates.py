"""The certificates of keys that sign certificates: of the fleet CA and of the device CA.

Profiles follow RFC 5280 as strict verifiers want it. What an authority certifies is the business of
those who hold its key.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

LIFETIME = timedelta(days=3652)
CLOCK_SKEW = timedelta(minutes=5)
"""Whose clock is a little behind may use a new certificate at once."""


def authority(common_name: str, key: EllipticCurvePrivateKey, *, now: datetime) -> x509.Certificate:
    """Return the self-signed certificate of an authority that signs end certificates only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )


def following_authority(
    name: str, key: EllipticCurvePrivateKey, *, now: datetime
) -> x509.Certificate:
    """Return the certificate of an authority that follows another one; its name is its own."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return authority(f"{name} {identifier.digest.hex()[:16]}", key, now=now)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return what the key of an authority may do, or else that of whom it certifies."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
