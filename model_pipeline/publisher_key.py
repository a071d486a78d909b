"""Opens the publisher's key, by URI, in the way of every signing key of the project.

Apart from `provisioning` on purpose: who publishes needs neither its code nor its other keys.
"""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer

from signing_keys import key_file, opening
from signing_keys.passphrases import Secrets


def default_uri(authority: Path, family: str) -> str:
    """Return the key that `skerry provision init` makes for a family."""
    return key_file.uri_of(authority / "offline" / f"publisher-{family}.pem")


def load(uris: Sequence[str], secrets: Secrets) -> list[Signer]:
    """Return a signer for each key.

    Raises:
        SigningKeyError: a key cannot be opened.
    """
    return [opening.signer_of(uri, secrets) for uri in uris]
