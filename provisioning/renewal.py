"""Renews the server's certificate: the same key and names, a new term. Devices notice nothing."""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning import certificates, fleet_ca
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority


def renewed_server_certificate(  # noqa: PLR0913 (what there is to say, by keyword)
    authority: Authority,
    current: bytes,
    *,
    names: list[x509.GeneralName] | None,
    passphrase: bytes,
    now: datetime,
    former_ca: bool = False,
) -> bytes:
    """Return a certificate that takes the place of a current (or expired) one.

    Args:
        authority: whose fleet CA signs, the newest one.
        current: the server's ``tls.crt``, PEM; it is no secret.
        names: under which devices reach the server; None keeps those of the current one.
        passphrase: of the fleet CA's key.
        now: start of the new term.
        former_ca: let the fleet CA before the newest one sign.

    Raises:
        ProvisioningError: the current one is not of this fleet CA, or the passphrase is wrong.
    """
    issuers = fleet_ca.trusted(authority)
    if former_ca and len(issuers) == 1:
        raise ProvisioningError("there is no former fleet CA: leave --former-ca out")
    issuer = issuers[-2 if former_ca else -1]
    try:
        before = x509.load_pem_x509_certificate(current)
        _check_own(before, issuers)
        key = before.public_key()
        kept = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ProvisioningError(
            f"this is no server certificate of the fleet CA in {authority.fleet_ca}: copy "
            "online/tls.crt from the server's data directory"
        ) from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise ProvisioningError("the current certificate has a key of another kind")
    made = certificates.server_certificate(
        names or list(kept),
        key,
        issuer=issuer,
        issuer_key=fleet_ca.key_of(authority, issuer, passphrase=passphrase),
        now=now,
    )
    return made.public_bytes(Encoding.PEM)


def _check_own(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> None:
    """Accept a certificate of one of these issuers.

    Raises:
        ValueError: it is of none of them.
    """
    for issuer in issuers:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise ValueError("no fleet CA signed it")
