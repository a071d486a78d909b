"""Where the files of the device's identity lie, and which of them hold.

Key and certificate belong together and are replaced together: each pair has a folder of its own,
numbered, and the file ``generation`` says which one holds. Writing it is the one step that changes
who the device is. The first pair lies in ``identity/`` itself, generation 0.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent import store
from edge_agent.errors import AgentError
from fleet_protocol import claims
from fleet_protocol.errors import ProtocolError

_GENERATION = "generation"
REPLACE = "enrol the device again with a claim of `skerry provision claim --replace`"


class IdentityError(AgentError):
    """A file of the identity is missing, unreadable or does not fit the others."""


class NotEnrolledError(IdentityError):
    """The state directory holds no finished enrolment."""


_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key with its certificate, in one folder."""

    folder: Path

    @property
    def key(self) -> Path:
        """Private key, PEM, mode 0600."""
        return self.folder / "key.pem"

    @property
    def csr(self) -> Path:
        """The certificate request that was sent."""
        return self.folder / "csr.pem"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.folder / "certificate.pem"

    @property
    def claim(self) -> Path:
        """The claim that the pair came with, until `IdentityFiles.settle` has moved it."""
        return self.folder / "claim.json"

    def remove(self) -> None:
        """Remove what is there of the key and its certificate.

        Raises:
            StoreError: the disk refused.
        """
        for path in (self.key, self.csr, self.certificate):
            store.remove_file(path)


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """The paths below ``identity/``."""

    folder: Path

    @property
    def generation(self) -> int:
        """Which key pair holds.

        Raises:
            IdentityError: the file is damaged.
        """
        path = self.folder / _GENERATION
        try:
            text = path.read_text()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as error:
            raise IdentityError(f"cannot read {path}: {error}") from error
        if re.fullmatch(r"[0-9]{1,9}\n", text) is None:
            raise IdentityError(f"{path} is damaged: remove it, then {REPLACE}")
        return int(text)

    def pair(self, generation: int) -> KeyPair:
        """Return the place of a key pair."""
        return KeyPair(self.folder / str(generation) if generation else self.folder)

    def next_pair(self) -> KeyPair:
        """Return the place of the pair that will follow, with its folder made.

        Raises:
            IdentityError: the folder cannot be made, or ``generation`` is damaged.
        """
        pair = self.pair(self.generation + 1)
        try:
            pair.folder.mkdir(mode=0o700, exist_ok=True)
            store.sync_directory(self.folder)
        except OSError as error:
            raise IdentityError(f"cannot make {pair.folder}: {error.strerror}") from error
        return pair

    def advance(self) -> None:
        """Let the next pair hold, durably, and remove the one before.

        Raises:
            IdentityError: ``generation`` is damaged.
            StoreError: the disk refused; the pair before holds, or the one after is not yet alone.
        """
        before = self.generation
        store.write_file(self.folder / _GENERATION, f"{before + 1}\n".encode())
        self.settle()
        self.pair(before).remove()

    def settle(self) -> None:
        """Move the claim of the pair that holds to its place.

        Raises:
            IdentityError: ``generation`` or the claim cannot be read.
            StoreError: the disk refused; the claim is still found.
        """
        arrived, generation = self.claim, self.generation
        if generation and arrived == self.pair(generation).claim:
            content = read(arrived, bytes)
            store.write_file(self.folder / arrived.name, content)
            store.remove_file(arrived)

    @property
    def key(self) -> Path:
        """Private key of the pair that holds."""
        return self.pair(self.generation).key

    @property
    def csr(self) -> Path:
        """Its certificate request."""
        return self.pair(self.generation).csr

    @property
    def certificate(self) -> Path:
        """Its certificate."""
        return self.pair(self.generation).certificate

    @property
    def claim(self) -> Path:
        """The claim bundle, mode 0600: roots of trust and floors."""
        arrived = self.pair(self.generation).claim
        return arrived if arrived.exists() else self.folder / arrived.name

    @property
    def fleet_cas(self) -> Path:
        """Fleet CAs that follow those of the claim (`edge_agent.fleet_authorities`)."""
        return self.folder / "fleet-cas.json"

    @property
    def enrollment(self) -> Path:
        """Server and broker."""
        return self.folder / "enrollment.json"


def read(path: Path, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    """Read a file of the identity.

    Raises:
        IdentityError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            return decode(file.read(claims.MAX_CLAIM_BYTES + 1))
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror or error}") from error
    except (ProtocolError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IdentityError(f"{path} is damaged: {error}") from error
