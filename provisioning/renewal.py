"""Renews the server's certificate: the same key and names, a new term. Devices notice nothing."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning import certificates, key_files
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority


def renewed_server_certificate(
    authority: Authority,
    current: bytes,
    *,
    names: list[x509.GeneralName] | None,
    passphrase: bytes,
    now: datetime,
) -> bytes:
    """Return a certificate that takes the place of a current (or expired) one.

    Args:
        authority: whose fleet CA signs.
        current: the server's ``tls.crt``, PEM; it is no secret.
        names: under which devices reach the server; None keeps those of the current one.
        passphrase: of the fleet CA's key.
        now: start of the new term.

    Raises:
        ProvisioningError: the current one is not of this fleet CA, or the passphrase is wrong.
    """
    try:
        issuer = x509.load_pem_x509_certificate(authority.fleet_ca.read_bytes())
        before = x509.load_pem_x509_certificate(current)
        before.verify_directly_issued_by(issuer)
        key = before.public_key()
        kept = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except OSError as error:
        raise ProvisioningError(f"cannot read {authority.fleet_ca}: {error.strerror}") from error
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
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
        issuer_key=key_files.load_p256(authority.fleet_ca_key, passphrase),
        now=now,
    )
    return made.public_bytes(Encoding.PEM)
