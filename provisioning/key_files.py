"""Private keys as files: made, encrypted, written, read.

Ed25519 keys sign update metadata, P-256 keys stand behind certificates and tokens (TLS stacks and
hardware of every age know that curve). All are PKCS8 PEM, so `openssl pkey` reads them too.
"""

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as _generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from provisioning.errors import ProvisioningError
from signing_keys import private_files
from signing_keys.errors import SigningKeyError

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
Encoder = Callable[[PrivateKey], bytes]
"""Turns a private key into the bytes of its file."""


def new_ed25519() -> Ed25519PrivateKey:
    """Return a fresh key for update metadata."""
    return Ed25519PrivateKey.generate()


def numbered(path: Path, count: int) -> list[Path]:
    """Return the files of a role's keys: the one path, or ``root.1.pem``, ``root.2.pem`` ..."""
    if count == 1:
        return [path]
    return [path.with_suffix(f".{number}{path.suffix}") for number in range(1, count + 1)]


def new_p256() -> EllipticCurvePrivateKey:
    """Return a fresh key for certificates or tokens."""
    return _generate_ec(SECP256R1())


def plain_pem(key: PrivateKey) -> bytes:
    """Return a key for a file that only its mode protects."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: EllipticCurvePublicKey) -> bytes:
    """Return the public half as SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_p256(path: Path, passphrase: bytes | None) -> EllipticCurvePrivateKey:
    """Read a P-256 key.

    Raises:
        ProvisioningError: no such file, another kind of key, or the wrong passphrase.
    """
    key = _load(path, passphrase)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ProvisioningError(f"{path} holds another kind of key than expected (P-256)")
    return key


def _load(path: Path, passphrase: bytes | None) -> object:
    try:
        return load_pem_private_key(private_files.read(path, "key"), passphrase)
    except SigningKeyError as error:
        raise ProvisioningError(str(error)) from error
    except ValueError as error:
        # cryptography tells a wrong passphrase from a damaged file by its text alone.
        raise ProvisioningError(
            f"cannot open the key {path}: the passphrase is wrong or the file is damaged"
        ) from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ProvisioningError(f"cannot open the key {path}: {error}") from error
