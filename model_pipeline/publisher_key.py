"""Opens the publisher's key, by URI, in the way of every signing key of the project.

Apart from `provisioning` on purpose: who publishes needs neither its code nor its other keys.
"""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer

from signing_keys import key_file, opening
from signing_keys.passphrases import Secrets


def default_uris(authority: Path, family: str) -> list[str]:
    """Return the keys that `skerry provision init` makes for a family: all that are here."""
    folder, name = authority / "offline", f"publisher-{family}"
    several = sorted(folder.glob(f"{name}.[0-9]*.pem"))
    return [key_file.uri_of(path) for path in several or [folder / f"{name}.pem"]]


def load(uris: Sequence[str], secrets: Secrets) -> list[Signer]:
    """Return a signer for each key.

    Raises:
        SigningKeyError: a key cannot be opened.
    """
    return [opening.signer_of(uri, secrets) for uri in uris]
