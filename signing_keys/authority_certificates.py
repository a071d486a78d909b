"""The certificates of keys that sign certificates: of the fleet CA and of the device CA.

Profiles follow RFC 5280 as strict verifiers want it. What an authority certifies is the business of
those who hold its key. A link is the proof that one authority follows another one.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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


def link(
    new: x509.Certificate, *, issuer: x509.Certificate, issuer_key: EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the proof that an authority follows another one: its key, signed by the other."""
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(new.subject)
        .issuer_name(issuer.subject)
        .public_key(new.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(new.not_valid_before_utc)
        .not_valid_after(new.not_valid_after_utc)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(new.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(issuer_key, SHA256())
    )


def follows(
    new: x509.Certificate, proof: x509.Certificate, known: Iterable[x509.Certificate]
) -> bool:
    """Say whether a link proves that an authority follows one of those that are known.

    Devices judge the same way (`edge_agent.fleet_authorities`):

    1. The new one is a CA's certificate, signed by its own key (something else is shown as one).
    2. The link is of the same name and key (a link of one CA is shown for another).
    3. The link is a CA's (whoever has any certificate of a CA shows that for a link).
    4. The link is signed by a CA that is known (somebody makes one up).
    """
    return (
        _is_authority(new)
        and signed_by(new, new)  # (1)
        and (proof.subject, proof.public_key()) == (new.subject, new.public_key())  # (2)
        and _is_authority(proof)  # (3)
        and any(signed_by(proof, each) for each in known)  # (4)
    )


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether an authority signed a certificate, names included."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return constraints.ca and usage.key_cert_sign


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
