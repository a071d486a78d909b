"""What a device shall run, as the server stores and shows it."""

import msgspec

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_protocol.names import Family, Sha256, Version


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One release of one family: target path, length and hash of its manifest, and its terms."""

    family: Family
    version: Version
    path: str
    length: int
    sha256: Sha256
    terms: Terms = ANY_TIME


def encode(entries: list[Entry]) -> str:
    """Return the entries as stored."""
    return msgspec.json.encode(sorted(entries, key=lambda entry: entry.family)).decode()


def decode(stored: str) -> list[Entry]:
    """Read stored entries."""
    return msgspec.json.decode(stored, type=list[Entry])


def with_release(entries: list[Entry], release: Entry) -> list[Entry]:
    """Return the complete list with one family's release set and the others kept."""
    others = [entry for entry in entries if entry.family != release.family]
    return sorted([*others, release], key=lambda entry: entry.family)
