"""Which fleet CAs the device trusts: those of its claim, and those that these led to.

A fleet CA that ends is followed by another one. The device learns the new one from the server, and
believes not the server but the signature of a CA that it trusts already. The steps, each with the
attack that it stops:

1. There are few, and each is bounded (a server that floods the device).
2. The follower is a CA's certificate, signed by its own key (something else is passed off as one).
3. The link is of the same name and key (a link of one CA is shown for another).
4. The link says of itself that it is a CA's and may sign certificates (the server, which holds a
   certificate of the fleet CA for its own key, shows that for a link).
5. The link is signed by a CA that is trusted already (an owned server makes one up).

What was accepted is kept with its links and checked anew at each start, beginning with the claim:
a new claim ends the trust in what only the old one led to. It is about TLS alone; what a device
installs rests on the roots of the update metadata, whoever stands behind the server's certificate.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import store
from fleet_protocol.messages import MAX_FLEET_CAS, MAX_MESSAGE_BYTES, FleetCa

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trusted:
    """What the device trusts.

    Attributes:
        certificates: of the claim, and of those that follow.
        followers: the latter, with their proofs.
    """

    certificates: Sequence[x509.Certificate]
    followers: Sequence[FleetCa]

    @property
    def pem(self) -> str:
        """The certificates, as TLS takes them."""
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in self.certificates)

    @property
    def key_ids(self) -> list[str]:
        """Their keys."""
        return [found for each in self.certificates if (found := key_id(each))]


def trusted(claim_pem: str, offered: Sequence[FleetCa]) -> Trusted:
    """Return what a claim and a server's offer amount to; what is not proven is left out.

    Raises:
        ValueError: the claim holds no certificate.
    """
    certificates = x509.load_pem_x509_certificates(claim_pem.encode())
    followers: list[FleetCa] = []
    for each in offered[:MAX_FLEET_CAS]:  # (1)
        follower = _proven(each, certificates)
        if follower is None:
            logger.warning("fleet_ca_refused", extra={"offered": len(offered)})
        elif follower not in certificates:
            certificates.append(follower)
            followers.append(each)
    return Trusted(certificates, followers)


def load(path: Path) -> list[FleetCa]:
    """Return what was accepted before; nothing of a file that is damaged.

    The server offers it again, as long as it shows a certificate of a CA that is trusted.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_MESSAGE_BYTES), type=list[FleetCa])
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        logger.error(  # noqa: TRY400 (expected, and said in one sentence)
            "fleet_cas_damaged", extra={"path": str(path), "reason": str(error)}
        )
        return []


def save(path: Path, followers: Sequence[FleetCa]) -> None:
    """Keep what was accepted.

    Raises:
        StoreError: the disk refuses.
    """
    store.write_file(path, msgspec.json.encode(list(followers)))


def key_id(certificate: x509.Certificate) -> str:
    """Return how certificates name the key of this one; empty for keys of another kind."""
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        return ""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()


def _proven(offered: FleetCa, known: Sequence[x509.Certificate]) -> x509.Certificate | None:
    try:
        follower = x509.load_pem_x509_certificate(offered.certificate_pem.encode())
        if follower in known:
            return follower  # by the claim, which need not hold the one before it any more
        link = x509.load_pem_x509_certificate(offered.link_pem.encode())
        if not (_is_authority(follower) and _signed_by(follower, follower)):  # (2)
            return None
        if (link.subject, link.public_key()) != (follower.subject, follower.public_key()):  # (3)
            return None
        if not _is_authority(link):  # (4)
            return None
        return follower if any(_signed_by(link, each) for each in known) else None  # (5)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
