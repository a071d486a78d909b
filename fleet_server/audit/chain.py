"""The chain of hashes: pure.

The hash of an entry covers all of it and the hash of the entry before, so that whoever changes,
removes or inserts one has to make anew all that follow. Entries cut off at the end leave a chain
that holds; against that, note the head elsewhere and give it to `verify` as ``expected``.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from fleet_server.errors import ConflictError

BEGINNING = "0" * 64
"""What stands before the first entry."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as it is hashed and exported: one line of JSON, keys in this order."""

    tenant: str
    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None
    request_id: str | None
    previous_sha256: str
    sha256: str = ""


class ChainBrokenError(ConflictError):
    """The trail is not what was written; the message names the first entry that does not fit."""


def sealed(entry: Entry) -> Entry:
    """Return an entry with its hash."""
    return msgspec.structs.replace(entry, sha256=_digest(entry))


def line(entry: Entry) -> bytes:
    """Return an entry as a line of its export."""
    return msgspec.json.encode(entry) + b"\n"


class Verification:
    """Follows one tenant's chain, entry by entry."""

    def __init__(self) -> None:
        self.number = 0
        self.sha256 = BEGINNING

    def take(self, entries: Iterable[Entry]) -> None:
        """Check the next entries.

        Raises:
            ChainBrokenError: one does not follow from the one before, or is not what was hashed.
        """
        for entry in entries:
            where = f"entry {self.number + 1} of the tenant {entry.tenant}"
            if entry.number != self.number + 1:
                raise ChainBrokenError(f"{where} is missing; the next one is {entry.number}")
            if entry.previous_sha256 != self.sha256:
                raise ChainBrokenError(f"{where} does not follow from the one before")
            if entry.sha256 != _digest(entry):
                raise ChainBrokenError(f"{where} was changed after it was written")
            self.number, self.sha256 = entry.number, entry.sha256

    @property
    def head(self) -> str:
        """Number and hash of the last entry, as a person notes them."""
        return f"{self.number}:{self.sha256}"


def _digest(entry: Entry) -> str:
    unsealed = msgspec.structs.replace(entry, sha256="")
    return hashlib.sha256(msgspec.json.encode(unsealed)).hexdigest()
