"""The private keys with which the server signs by itself: snapshot, timestamp, assignments.

A role may have several candidates at once; the root says which of them counts. So a key is replaced
without a gap: the new one is there before the root that names it. Without a setting the candidates
are the files ``<role>*.pem`` of a folder.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Root

from fleet_server.errors import SetupError
from signing_keys import key_file, opening
from signing_keys.errors import SigningKeyError
from signing_keys.passphrases import Secrets


class OnlineKeys:
    """The candidates for one role."""

    def __init__(
        self, role: str, folder: Path, *, uris: Sequence[str] = (), secrets: Secrets | None = None
    ) -> None:
        """Take where the keys are.

        Args:
            role: in words, and the beginning of the names of its key files.
            folder: where key files lie.
            uris: from the settings; with them no file is looked for.
            secrets: opens what is encrypted or in a token.
        """
        self.role = role
        self._folder = folder
        self._uris = tuple(uris)
        self._secrets = secrets

    def signer_for(self, root: Root, role: str) -> Signer:
        """Return a signer whose key a root names for a role.

        Raises:
            SetupError: no candidate is such a key; the message says why not.
        """
        named = [root.keys[keyid] for keyid in root.roles[role].keyids]
        reasons = []
        for uri in self._candidates():
            try:
                public = opening.public_key(uri, self._secrets)
                for key in named:
                    if _same(public, key):
                        return opening.open_signer(uri, key, self._secrets)
            except SigningKeyError as error:
                reasons.append(str(error))
            else:
                reasons.append(f"{uri} is key {public.keyid[:16]}")
        raise SetupError(
            f"the server has no key that root {root.version} names for {self.role} "
            f"({', '.join(key.keyid[:16] for key in named)}): "
            f"{'; '.join(reasons) or f'there is none below {self._folder}'}"
        )

    def keyids(self) -> list[str]:
        """Return the ids of the candidates that can be opened."""
        return list(self._opened())

    def _opened(self) -> Iterator[str]:
        for uri in self._candidates():
            try:
                yield opening.public_key(uri, self._secrets).keyid
            except SigningKeyError:
                continue

    def _candidates(self) -> Sequence[str]:
        if self._uris:
            return self._uris
        return [key_file.uri_of(path) for path in sorted(self._folder.glob(f"{self.role}*.pem"))]


def _same(one: Key, other: Key) -> bool:
    return (one.keytype, one.scheme, str(one.keyval["public"]).strip()) == (
        other.keytype,
        other.scheme,
        str(other.keyval["public"]).strip(),
    )
