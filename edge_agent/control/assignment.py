"""The accepted assignment: what this device shall run, after verification."""

import sqlite3
from typing import Annotated, Literal, NamedTuple

import msgspec

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_protocol.manifest import MAX_MANIFEST_BYTES
from fleet_protocol.names import DeviceId, Family, Sha256, Version


class ManifestRef(msgspec.Struct, frozen=True, kw_only=True):
    """One release, named by its manifest."""

    path: str
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_MANIFEST_BYTES)]
    sha256: Sha256


class AssignedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """What one family shall run, and on which terms it comes."""

    family: Family
    version: Version
    manifest: ManifestRef
    terms: Terms = ANY_TIME


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The complete list for one device.

    Attributes:
        expires_ms: after it nothing new is installed; what runs goes on running.
        root_version: of the director's root that was the newest when it was accepted.
    """

    device_id: DeviceId
    version: int
    expires_ms: int
    releases: dict[Family, AssignedRelease]
    root_version: int = 1


class Mark(NamedTuple):
    """How far assignments had come; a later mark is greater.

    Attributes:
        root_version: of the director's root under which the version was accepted. Versions begin
            anew when a root brings new assignment keys.
        version: of the assignment.
    """

    root_version: int = 1
    version: int = 0


NO_MARK = Mark()


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The newest assignment that was accepted.

    Attributes:
        document_sha256: of the copy that came last, byte for byte, by which the server knows what
            is here.
        signed_sha256: of what was signed, in canonical JSON, by which a document is itself however
            it is written down; empty where an older agent accepted it.
    """

    assignment: Assignment
    document_sha256: Sha256
    signed_sha256: Sha256 | Literal[""] = ""

    @property
    def mark(self) -> Mark:
        """How far assignments had come with this one."""
        return Mark(self.assignment.root_version, self.assignment.version)

    def is_copy_of(self, other: "Accepted") -> bool:
        """Say whether the same was signed; where that was not kept, whether it says the same."""
        if other.signed_sha256:
            return self.signed_sha256 == other.signed_sha256
        root_version = other.assignment.root_version
        said = msgspec.structs.replace(self.assignment, root_version=root_version)
        return said == other.assignment


def load(connection: sqlite3.Connection) -> Accepted | None:
    """Return the accepted assignment, or None before the first."""
    row = connection.execute(
        "SELECT content, document_sha256, signed_sha256 FROM assignment"
    ).fetchone()
    if row is None:
        return None
    return Accepted(
        assignment=msgspec.json.decode(row[0], type=Assignment),
        document_sha256=row[1],
        signed_sha256=row[2],
    )


def store(connection: sqlite3.Connection, accepted: Accepted) -> None:
    """Replace the accepted assignment (in the caller's transaction)."""
    connection.execute(
        "INSERT OR REPLACE INTO assignment (id, version, document_sha256, signed_sha256, content) "
        "VALUES (1, ?, ?, ?, ?)",
        (
            accepted.assignment.version,
            accepted.document_sha256,
            accepted.signed_sha256,
            msgspec.json.encode(accepted.assignment),
        ),
    )
