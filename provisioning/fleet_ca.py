"""One fleet CA follows another: the new one's key, its certificate, and the proof for devices.

``public/fleet-ca.crt`` holds the fleet CAs that claims, operators and publishers trust, the oldest
first; the keys lie in ``offline/``, and which key is whose its public half says. The proof, a
certificate of the new key that the old one signed (RFC 4210, 4.4.2), lies with all of them in
``public/fleet-ca-handover.crt``, which goes to the server.

The key comes first, the handover next, and the certificate that makes a fleet CA one last: who dies
before that has made nothing but a key that nobody knows.
"""

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning import durable_files, key_files
from provisioning.encrypted_pem import encrypted_pem
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from signing_keys import authority_certificates

MAX_AT_ONCE = 4


def trusted(authority: Authority) -> list[x509.Certificate]:
    """Return the fleet CAs, the oldest first.

    Raises:
        ProvisioningError: the file is missing or damaged.
    """
    return _read(authority.fleet_ca)


def follow(authority: Authority, *, passphrase: bytes, now: datetime) -> x509.Certificate:
    """Make a fleet CA that follows the newest one, and the proof.

    Raises:
        ProvisioningError: there are too many, the passphrase is wrong, or the disk refuses.
    """
    present = trusted(authority)
    if len(present) >= MAX_AT_ONCE:
        raise ProvisioningError(
            f"there are {len(present)} fleet CAs at once: `skerry provision retire-fleet-ca` first"
        )
    before = present[-1]
    before_key = key_of(authority, before, passphrase=passphrase)
    key = key_files.new_p256()
    new = authority_certificates.following_authority("Skerry fleet CA", key, now=now)
    link = authority_certificates.link(new, issuer=before, issuer_key=before_key)
    try:
        _store(authority, key, passphrase)
        _write(authority.fleet_ca_handover, [*_links(authority), link, *present, new])
        _write(authority.fleet_ca, [*present, new])
    except OSError as error:
        raise ProvisioningError(f"cannot write below {authority.root}: {error}") from error
    return new


def retire(authority: Authority) -> list[x509.Certificate]:
    """Let claims made from now on trust the newest fleet CA alone; returns those that are gone.

    None is gone if there is but one, as after the first time.

    Raises:
        ProvisioningError: the file is missing or damaged, or the disk refuses.
    """
    present = trusted(authority)
    if len(present) == 1:
        return []
    try:
        _write(authority.fleet_ca, present[-1:])
    except OSError as error:
        raise ProvisioningError(f"cannot write below {authority.root}: {error}") from error
    return present[:-1]


def key_of(
    authority: Authority, certificate: x509.Certificate, *, passphrase: bytes
) -> EllipticCurvePrivateKey:
    """Return the key of a fleet CA.

    Raises:
        ProvisioningError: it is not in ``offline/``, or the passphrase is wrong.
    """
    for path in sorted(authority.offline.glob("fleet-ca*.pem")):
        key = key_files.load_p256(path, passphrase)
        if key.public_key() == certificate.public_key():
            return key
    raise ProvisioningError(
        f"the key of the fleet CA {certificate.subject.rfc4514_string()} is not in "
        f"{authority.offline}: bring it back from its backup"
    )


def _store(authority: Authority, key: EllipticCurvePrivateKey, passphrase: bytes) -> None:
    number = 2
    while (path := authority.offline / f"fleet-ca-{number}.pem").exists():
        number += 1
    durable_files.write_new(path, encrypted_pem(key, passphrase), mode=durable_files.PRIVATE_MODE)
    durable_files.sync_directory(authority.offline)


def _links(authority: Authority) -> list[x509.Certificate]:
    if not authority.fleet_ca_handover.exists():
        return []
    return [each for each in _read(authority.fleet_ca_handover) if each.issuer != each.subject]


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ProvisioningError(f"{path} is not a certificate: {error}") from error


def _write(path: Path, content: list[x509.Certificate]) -> None:
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in content)
    durable_files.replace(path, pem, mode=durable_files.PUBLIC_MODE)
