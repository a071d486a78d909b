"""Opens signing keys by URI: what a key is, and a signer for it.

| URI | where the private key is | needs |
|---|---|---|
| `file:PATH` | a PKCS8 PEM file, encrypted or not | - |
| `hsm:ID?label=TOKEN` | a PKCS#11 token; `PYKCS11LIB` names its library | extra `hsm` |
| `awskms:KEY`, `gcpkms:KEY`, ... | a cloud KMS | `securesystemslib[awskms]`, ... |
| `hv:KEY/VERSION` | HashiCorp Vault | `securesystemslib[vault]` |

Every failure of whatever stands behind a URI becomes a `SigningKeyError` here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (
    AWSSigner,
    AzureSigner,
    GCPSigner,
    HSMSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    VaultSigner,
)

from signing_keys import key_file
from signing_keys.errors import SigningKeyError

_Result = TypeVar("_Result")
_REFUSED_PIN = {
    "PinIncorrect": "the token refuses the PIN",
    "PinInvalid": "the token refuses the PIN",
    "PinLenRange": "the token refuses the PIN: its length is wrong",
    "PinLocked": "too many wrong PINs locked the token; its security officer unlocks it",
    "PinExpired": "the PIN has expired; set a new one",
}
"""What python-pkcs11 raises, which says nothing itself."""
_EXTRAS = {
    HSMSigner.SCHEME: "skerry[hsm]",
    AWSSigner.SCHEME: "securesystemslib[awskms]",
    AzureSigner.SCHEME: "securesystemslib[azurekms]",
    GCPSigner.SCHEME: "securesystemslib[gcpkms]",
    VaultSigner.SCHEME: "securesystemslib[vault]",
}


class RefusedPinError(SigningKeyError):
    """A token refuses the PIN; trying again would lock it."""


class OpenedSigner(Signer):
    """A signer whose every failure is a `SigningKeyError`."""

    def __init__(self, uri: str, signer: Signer) -> None:
        self._uri = uri
        self._signer = signer
        self._refused: RefusedPinError | None = None

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "OpenedSigner":
        """Open a URI."""
        return open_signer(priv_key_uri, public_key, secrets_handler)

    def sign(self, payload: bytes) -> Signature:
        """Sign, and check that the public key of the metadata verifies it.

        A PIN that was refused is not shown to the token again: a server that signs often would
        lock it within seconds.

        Raises:
            SigningKeyError: token, KMS or file do not answer, or it is another key.
        """
        if self._refused:
            raise self._refused
        try:
            signature = _guarded(self._uri, lambda: self._signer.sign(payload))
        except RefusedPinError as error:
            self._refused = error
            raise
        try:
            self.public_key.verify_signature(signature, payload)
        except Exception as error:
            raise SigningKeyError(
                f"{self._uri} signs with another key than {self.public_key.keyid}"
            ) from error
        return signature


def open_signer(uri: str, public_key: Key, secrets: SecretsHandler | None) -> OpenedSigner:
    """Return a signer for a public key whose private half a URI names.

    Raises:
        SigningKeyError: unknown scheme, missing library, wrong secret, or another key.
    """
    _check_scheme(uri)
    signer = _guarded(uri, lambda: Signer.from_priv_key_uri(uri, public_key, secrets))
    return OpenedSigner(uri, signer)


def public_key(uri: str, secrets: SecretsHandler | None) -> Key:
    """Ask whoever keeps a key for its public half.

    Raises:
        SigningKeyError: as `open_signer`.
    """
    importer = _IMPORTERS[_check_scheme(uri)]
    return _guarded(uri, lambda: importer(uri, secrets))


def signer_of(uri: str, secrets: SecretsHandler | None) -> OpenedSigner:
    """Return a signer for whatever key a URI names.

    Raises:
        SigningKeyError: as `open_signer`.
    """
    return open_signer(uri, public_key(uri, secrets), secrets)


def _check_scheme(uri: str) -> str:
    scheme = uri.partition(":")[0]
    if scheme not in _IMPORTERS:
        raise SigningKeyError(
            f"{uri[:80]!r} names no signing key: use {', '.join(f'{one}:' for one in _IMPORTERS)}"
        )
    return scheme


def _guarded(uri: str, work: Callable[[], _Result]) -> _Result:
    try:
        return work()
    except SigningKeyError:
        raise
    except UnsupportedLibraryError as error:
        extra = _EXTRAS.get(uri.partition(":")[0], "securesystemslib[crypto]")
        raise SigningKeyError(f"{uri} needs a library: pip install '{extra}'") from error
    except Exception as error:
        # securesystemslib documents that signers raise whatever their libraries do.
        name = type(error).__name__
        if name in _REFUSED_PIN:
            raise RefusedPinError(
                f"cannot use the signing key {uri}: {_REFUSED_PIN[name]}"
            ) from error
        reason = str(error) or name
        raise SigningKeyError(f"cannot use the signing key {uri}: {reason}") from error


def _of_file(uri: str, secrets: SecretsHandler | None) -> Key:
    return key_file.load(Path(uri.removeprefix(f"{key_file.SCHEME}:")), secrets).public_key


def _of_token(uri: str, secrets: SecretsHandler | None) -> Key:
    parts = urlsplit(uri)
    if parts.path and not parts.path.isdecimal():
        raise SigningKeyError(f"{uri[:80]!r} names no key of a token: use hsm:ID?label=TOKEN")
    number = int(parts.path) if parts.path else None
    label = dict(parse_qsl(parts.query)).get("label")
    return HSMSigner.import_(number, label, secrets)[1]


def _of_aws(uri: str, _secrets: SecretsHandler | None) -> Key:
    return AWSSigner.import_(uri.partition(":")[2])[1]


def _of_google(uri: str, _secrets: SecretsHandler | None) -> Key:
    return GCPSigner.import_(uri.partition(":")[2])[1]


def _of_azure(uri: str, _secrets: SecretsHandler | None) -> Key:
    parts = urlsplit(uri)
    match parts.path.split("/"):
        case ["", "keys", name, *_] if name and parts.netloc:
            return AzureSigner.import_(parts.netloc.partition(".")[0], name)[1]
    raise SigningKeyError(
        f"{uri[:80]!r} names no key: use azurekms://VAULT.vault.azure.net/keys/NAME/VERSION"
    )


def _of_vault(uri: str, _secrets: SecretsHandler | None) -> Key:
    return VaultSigner.import_(uri.partition(":")[2].partition("/")[0])[1]


_IMPORTERS: Mapping[str, Callable[[str, SecretsHandler | None], Key]] = {
    key_file.SCHEME: _of_file,
    HSMSigner.SCHEME: _of_token,
    AWSSigner.SCHEME: _of_aws,
    GCPSigner.SCHEME: _of_google,
    AzureSigner.SCHEME: _of_azure,
    VaultSigner.SCHEME: _of_vault,
}
