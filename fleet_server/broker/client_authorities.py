"""The device CAs as Mosquitto reads them: a folder in which OpenSSL looks, at each connection.

OpenSSL finds an authority there by a hash of its subject (openssl-rehash(1)), so that a new one is
trusted without a restart of the broker; what it once found it remembers, so that one that was
removed is trusted until a restart, or until its revocation list has expired.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleet_server.releases import durable_files

_HEADER_BYTES = 2


def write(folder: Path, authorities: Sequence[x509.Certificate]) -> None:
    """Let the folder hold these authorities and no other.

    Raises:
        OSError: the disk refuses; a later call does the rest.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    wanted: dict[str, bytes] = {}
    for each in authorities:
        hashed = subject_hash(each)
        number = sum(name.startswith(hashed) for name in wanted)
        wanted[f"{hashed}.{number}"] = each.public_bytes(Encoding.PEM)
    for name, content in wanted.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            durable_files.write(path, content)
    stray = [path for path in folder.iterdir() if path.name not in wanted]
    for path in stray:
        path.unlink()
    if stray:
        durable_files.sync_folder(folder)


def read(folder: Path) -> list[x509.Certificate]:
    """Return the authorities that a folder holds.

    Raises:
        OSError: it cannot be read.
        ValueError: one of them is damaged.
    """
    return [x509.load_pem_x509_certificate(path.read_bytes()) for path in sorted(folder.iterdir())]


def subject_hash(certificate: x509.Certificate) -> str:
    """Return how ``openssl x509 -subject_hash`` names a certificate whose subject is one name.

    It is SHA-1 of the name in lower case, without the outer header; OpenSSL knows no other.
    """
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    canonical = " ".join(str(name.value).lower().split())
    der = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, canonical)]).public_bytes()
    digest = hashlib.sha1(der[_HEADER_BYTES:], usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"
