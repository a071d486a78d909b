"""Judges what is told about device CAs and whom to refuse, by what is held already. No I/O.

The steps, each with the attack that it stops; whoever speaks for the server, or writes into its
database, holds no key of a device CA:

1. There are some authorities and not many (an empty answer, a flood).
2. An authority is held already, or a link proves that it follows one that is
   (`signing_keys.authority_certificates.follows`): a CA that somebody made up lets nobody in.
3. Each has one list, of its name and signed by it (a list that somebody made up; none at all).
4. The list is not older than the one that is held, and of the same age only if it is the same one
   (an old list, on which a stolen device is missing).
5. The list holds now: one that has expired, or is dated ahead of the clock, makes OpenSSL refuse
   every device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.broker.told import MAX_AUTHORITIES, Authority
from fleet_server.errors import RefusedError
from signing_keys.authority_certificates import follows

Crl = x509.CertificateRevocationList


@dataclass(frozen=True, slots=True)
class Held:
    """What a broker goes by.

    Attributes:
        certificates: of the authorities.
        lists: of revoked certificates; none at the very first.
    """

    certificates: tuple[x509.Certificate, ...]
    lists: tuple[Crl, ...]

    @classmethod
    def of(cls, told: Sequence[Authority]) -> "Held":
        """Return what this process itself tells, which it has judged."""
        pairs = [_read(each) for each in told]
        return cls(tuple(one for one, _ in pairs), tuple(revoked for _, revoked in pairs))

    @property
    def lists_pem(self) -> bytes:
        """The lists, as Mosquitto reads them."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.lists)


def accepted(held: Held, told: Sequence[Authority], *, now: datetime) -> Held:
    """Return what takes the place of what is held: all that is told, or nothing of it.

    Raises:
        RefusedError: a step failed; what is held stays.
    """
    if not 1 <= len(told) <= MAX_AUTHORITIES:  # (1)
        raise RefusedError(f"there are {len(told)} authorities; 1 to {MAX_AUTHORITIES} are taken")
    known = list(held.certificates)
    taken: list[tuple[x509.Certificate, Crl]] = []
    for each in told:
        certificate, revoked = proven(each, known, now=now)
        _check_newer(revoked, certificate, held.lists)
        known.append(certificate)
        taken.append((certificate, revoked))
    return Held(tuple(one for one, _ in taken), tuple(revoked for _, revoked in taken))


def proven(
    told: Authority, known: Sequence[x509.Certificate], *, now: datetime
) -> tuple[x509.Certificate, Crl]:
    """Return an authority and its list.

    Raises:
        RefusedError: it follows none that is known, or its list does not hold.
    """
    try:
        certificate, revoked = _read(told)
        if certificate not in known:  # (2)
            _check_follows(certificate, told.link_pem, known)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RefusedError(f"an authority, its list or its link cannot be read: {error}") from error
    _check_list(revoked, certificate, now)
    return certificate, revoked


def _read(told: Authority) -> tuple[x509.Certificate, Crl]:
    certificate = x509.load_pem_x509_certificate(told.certificate_pem.encode())
    return certificate, x509.load_pem_x509_crl(told.list_pem.encode())


def number_of(revoked: Crl) -> int:
    """Return the number of a list.

    Raises:
        RefusedError: it has none.
    """
    try:
        return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound) as error:
        raise RefusedError(f"a revocation list has no number: {error}") from error


def _check_follows(
    certificate: x509.Certificate, link_pem: str, known: Sequence[x509.Certificate]
) -> None:
    link = x509.load_pem_x509_certificate(link_pem.encode()) if link_pem else None
    if link is None or not follows(certificate, link, known):
        raise RefusedError(
            f"nothing proves that {_name(certificate)} follows one that is held; if it is right, "
            "name its file with `skerry server broker-config --device-ca`"
        )


def _check_list(revoked: Crl, certificate: x509.Certificate, now: datetime) -> None:
    if not _is_of(revoked, certificate):  # (3)
        raise RefusedError(f"the revocation list is not signed by {_name(certificate)}")
    until = revoked.next_update_utc
    if until is None or until <= now:  # (5)
        raise RefusedError(f"the revocation list of {_name(certificate)} expired at {until}")
    if revoked.last_update_utc > now:
        raise RefusedError(
            f"the revocation list of {_name(certificate)} is dated {revoked.last_update_utc}, and "
            f"here it is {now}: look at the clocks of this machine and of the server"
        )


def _check_newer(revoked: Crl, certificate: x509.Certificate, held: Sequence[Crl]) -> None:
    number = number_of(revoked)
    for before in (each for each in held if _is_of(each, certificate)):
        least = number_of(before)
        if number < least or (number == least and revoked != before):  # (4)
            raise RefusedError(
                f"the revocation list of {_name(certificate)} has the number {number}, and {least} "
                "is held: an older one may lack devices that were shut out"
            )


def _is_of(revoked: Crl, certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    return (
        revoked.issuer == certificate.subject
        and isinstance(key, EllipticCurvePublicKey)
        and revoked.is_signature_valid(key)
    )


def _name(certificate: x509.Certificate) -> str:
    return f"the authority {certificate.subject.rfc4514_string()[:100]}"
