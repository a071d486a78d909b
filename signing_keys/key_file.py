"""The scheme ``file:``: a private key in PKCS8 PEM, encrypted with a passphrase or not.

securesystemslib's own ``file2:`` reads unencrypted keys only; this one is registered beside it.
Ed25519 and the NIST curves are taken, whatever made them (`skerry provision`, OpenSSL).
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    SSlibKey,
)

from signing_keys import private_files
from signing_keys.errors import SigningKeyError

SCHEME = "file"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def uri_of(path: Path) -> str:
    """Return the URI of a key file."""
    return f"{SCHEME}:{path}"


def is_encrypted(pem: bytes) -> bool:
    """Say whether a PKCS8 PEM needs a passphrase."""
    return pem.lstrip().startswith(_ENCRYPTED)


def load(path: Path, secrets: SecretsHandler | None) -> CryptoSigner:
    """Open a key file; the passphrase is asked for only if it is encrypted.

    Raises:
        SigningKeyError: no such file, others may open it, another kind of key, or the wrong
            passphrase.
    """
    pem = private_files.read(path, "key")
    secret = None
    if is_encrypted(pem):
        if secrets is None:
            raise SigningKeyError(f"the key {path} is encrypted and nobody knows its passphrase")
        secret = secrets(f"passphrase of {path}").encode()
    try:
        key = load_pem_private_key(pem, secret)
    except ValueError as error:
        # cryptography tells a wrong passphrase from a damaged file by its text alone.
        raise SigningKeyError(
            f"cannot open the key {path}: the passphrase is wrong or the file is damaged"
        ) from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"cannot open the key {path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise SigningKeyError(
            f"{path} is no signing key: it is neither Ed25519 nor of a NIST curve"
        )
    return CryptoSigner(key)


def public_of(key: Ed25519PrivateKey) -> Key:
    """Return the public half of a key that was made here."""
    return CryptoSigner(key).public_key


class KeyFileSigner:
    """What securesystemslib calls for the scheme."""

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> CryptoSigner:
        """Open the key of a URI as the private half of a public key.

        Raises:
            SigningKeyError: the file cannot be opened, or holds another key.
        """
        path = Path(priv_key_uri.removeprefix(f"{SCHEME}:"))
        found = load(path, secrets_handler)
        if not isinstance(public_key, SSlibKey) or not _same(found.public_key, public_key):
            raise SigningKeyError(f"{path} holds another key than {public_key.keyid}")
        return CryptoSigner(found._private_key, public_key)  # noqa: SLF001 (no public way)


def _same(one: Key, other: Key) -> bool:
    return (one.keytype, one.scheme, one.keyval["public"].strip()) == (
        other.keytype,
        other.scheme,
        other.keyval["public"].strip(),
    )


SIGNER_FOR_URI_SCHEME[SCHEME] = KeyFileSigner
