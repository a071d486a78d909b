"""The fleet CAs that the server knows: who may stand behind its certificate, and their succession.

Their keys are offline; what is here is public. ``fleet-ca.crt`` holds those that are trusted, the
oldest first. ``fleet-ca-links.crt`` holds, for each that follows another one, the proof by which
devices trust it: a certificate of its key that the one before signed (RFC 4210, 4.4.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_protocol.messages import MAX_FLEET_CAS, FleetCa
from fleet_server.errors import RefusedError, SetupError
from fleet_server.releases import durable_files
from signing_keys.authority_certificates import follows, signed_by


@dataclass(frozen=True, slots=True)
class FleetCas:
    """As they are now.

    Attributes:
        trusted: certificates of the authorities, the oldest first.
        links: the proofs.
    """

    trusted: Sequence[x509.Certificate]
    links: Sequence[x509.Certificate]

    @classmethod
    def load(cls, online: Path) -> "FleetCas":
        """Read them.

        Raises:
            SetupError: a file cannot be read, or there is none.
        """
        links = links_file(online)
        return cls(_read(certificates_file(online)), _read(links) if links.exists() else [])

    @property
    def key_ids(self) -> list[str]:
        """Their keys, the oldest first."""
        return [key_id(each) for each in self.trusted]

    def offered(self) -> list[FleetCa]:
        """Return those that follow another one, with the proof, as devices get them."""
        proofs = {key_id(link): link for link in self.links}
        return [
            FleetCa(certificate_pem=_pem(each), link_pem=_pem(proofs[key_id(each)]))
            for each in self.trusted
            if key_id(each) in proofs
        ]

    def newest_of(self, key_ids: Sequence[str]) -> str | None:
        """Return the newest of some keys that is here; None if none is."""
        return next((each for each in reversed(self.key_ids) if each in key_ids), None)

    def enough_for(self, issuer: str) -> list[str]:
        """Return which keys a device may call its newest if it shall trust an issuer.

        Empty if that is the oldest one here. Devices trust it from their claims, or were counted
        (`strangers`) before the server showed a certificate of it and those before it retired.
        """
        position = self.key_ids.index(issuer)
        return self.key_ids[position:] if position else []


def adopted(present: FleetCas, handover: bytes) -> FleetCas:
    """Return the fleet CAs with those of a handover, which have to follow one that is trusted.

    Raises:
        RefusedError: it is none, or not of this fleet.
    """
    try:
        offered = x509.load_pem_x509_certificates(handover)
    except ValueError as error:
        raise RefusedError(
            f"this is no handover of `skerry provision new-fleet-ca`: {error}"
        ) from error
    own = [each for each in offered if each.issuer == each.subject]
    links = [each for each in offered if each.issuer != each.subject]
    trusted = list(present.trusted)
    known = [position for position, each in enumerate(own) if each in trusted]
    for each in own[max(known, default=-1) + 1 :]:  # those before were retired here
        _check_follows(each, links, trusted)
        trusted.append(each)
    if len(trusted) > MAX_FLEET_CAS:
        raise RefusedError(f"a fleet may have {MAX_FLEET_CAS} fleet CAs at once: retire the oldest")
    kept = [each for each in present.links if each not in links]
    return FleetCas(trusted, [*kept, *links])


def retired(present: FleetCas, shown: x509.Certificate) -> FleetCas:
    """Return the fleet CAs without those that are older than the issuer of a certificate.

    Args:
        present: as they are; if there is but one, as after the first time, it stays.
        shown: the certificate of the server.

    Raises:
        RefusedError: that is of the oldest one, or of none.
    """
    if len(present.trusted) == 1:
        return present
    position = list(present.trusted).index(issuer_of(shown, present))
    if not position:
        raise RefusedError(
            "the server's certificate is of the oldest fleet CA: first install one of the new "
            "one (`skerry provision renew-certificate`, then `skerry server install-certificate`)"
        )
    return FleetCas(present.trusted[position:], present.links)


def store(online: Path, cas: FleetCas) -> None:
    """Let the folder hold these; the proofs first, so that none is trusted without one.

    Raises:
        OSError: the disk refuses; it may be done again.
    """
    if cas.links:
        _write(links_file(online), cas.links)
    _write(certificates_file(online), cas.trusted)


def server_certificate(online: Path) -> x509.Certificate:
    """Return the certificate that the server shows.

    Raises:
        SetupError: it cannot be read.
    """
    return _read(online / "tls.crt")[0]


def issuer_of(certificate: x509.Certificate, cas: FleetCas) -> x509.Certificate:
    """Return which fleet CA signed a certificate.

    Raises:
        RefusedError: none of them.
    """
    for each in cas.trusted:
        if signed_by(certificate, each):
            return each
    raise RefusedError("the certificate is not one of this fleet's CA")


def issuing(online: Path, cas: FleetCas) -> x509.Certificate:
    """Return the fleet CA of the server's certificate; the oldest one if it is of none.

    Raises:
        SetupError: it cannot be read.
    """
    try:
        return issuer_of(server_certificate(online), cas)
    except RefusedError:  # of an authority between, that somebody put there
        return cas.trusted[0]


def key_id(certificate: x509.Certificate) -> str:
    """Return how certificates name the key of this one."""
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()


def certificates_file(online: Path) -> Path:
    """Return where the trusted certificates lie."""
    return online / "fleet-ca.crt"


def links_file(online: Path) -> Path:
    """Return where the proofs lie, if there are any."""
    return online / "fleet-ca-links.crt"


def _check_follows(
    new: x509.Certificate, links: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> None:
    if any(follows(new, each, trusted) for each in links):
        return
    raise RefusedError(
        f"nothing proves that the fleet CA {key_id(new)[:16]} follows one of this fleet: copy "
        "public/fleet-ca-handover.crt of the authority"
    )


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read the certificates {path}: {error}") from error


def _write(path: Path, certificates: Sequence[x509.Certificate]) -> None:
    durable_files.write(path, "".join(map(_pem, certificates)).encode())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
