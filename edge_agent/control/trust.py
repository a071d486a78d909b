"""Verification of assignments: bytes in, a trusted assignment out. No I/O.

An assignment is TUF targets metadata for one device, signed by the key that the director's root
names as its ``targets`` role. `verify_assignment` takes these steps, each against an attack:

1. The document is bounded before it is parsed (endless data).
2. It is targets metadata, not another role's that the same key might have signed (mix-up of roles).
3. A threshold of the keys of the director's root has signed it; the root itself comes from the
   claim, and newer ones are reached only link by link, each signed by its predecessor (forgery by
   whoever holds broker, server or network).
4. Neither root nor assignment has expired by the trusted clock (freezing a device on an old list,
   turning its clock back).
5. It is bound to this device and says that it is complete (replaying another device's list, leaving
   releases out, emptying the list).
6. Its version is higher than the accepted one and within the bounds of the signer (replay of an
   older list of this device, a number that no database holds). With an equal version the same must
   have been signed, in canonical JSON: not two different lists of one version, but every copy of
   the one, so that whoever owns the broker cannot have the fleet's own copy refused by being first
   with the same list in other spaces, or with its signatures in another order. Versions begin anew
   when a root has replaced all assignment keys that any earlier root of the chain named: no older
   document verifies any more, and a thief who had pushed the version to its end is undone. A chain
   that ends before a root that this device has acted on is refused (hiding that root).
7. Every target is the manifest of a release, at most one for each family, with a bounded length and
   a SHA-256, and nothing is delegated (smuggling a key or a file in through a signed list).
8. The terms of delivery are well-formed and for listed families only; malformed ones refuse the
   document, so that a release never comes earlier or faster than was signed.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from edge_agent.control.assignment import (
    NO_MARK,
    Accepted,
    AssignedRelease,
    Assignment,
    ManifestRef,
    Mark,
)
from edge_agent.errors import AgentError
from fleet_protocol import delivery
from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES, binding_of
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES
from fleet_protocol.names import parse_target_path

_MAX_RELEASES = 256
_MAX_VERSION = 2**53
"""As the signer has it: JSON readers agree on integers up to here."""


class TrustError(AgentError):
    """A signed document was refused; the message says which rule it breaks."""


_INVALID = (RepositoryError, DeserializationError, ValueError, KeyError)
"""What python-tuf raises on metadata that does not hold."""


@dataclass(frozen=True, slots=True)
class Director:
    """The director's newest root, and how its chain came there.

    Attributes:
        first: version of the pinned root.
        epoch: version of the root that brought the present assignment keys, none of which any
            earlier root of the chain named; ``first`` if there was no such change.
        named: ids of the assignment keys of every root of the chain.
    """

    root: Root
    first: int
    epoch: int
    named: frozenset[str]

    def followed_by(self, link: bytes) -> "Director":
        """Return the director after the next root, signed by the newest one and by itself.

        Raises:
            TrustError: the link does not hold.
        """
        try:
            following = _root(link)
            for trusted in (self.root, following.signed):  # (3)
                trusted.verify_delegate(Root.type, following.signed_bytes, following.signatures)
            root: Root = following.signed
            keys = frozenset(root.roles[Targets.type].keyids)
        except _INVALID as error:
            raise TrustError(f"the director's root is not valid: {error}") from error
        if root.version != self.root.version + 1:
            raise TrustError(f"director root {root.version} does not follow {self.root.version}")
        epoch = self.epoch if keys & self.named else root.version  # (6)
        return Director(root, self.first, epoch, self.named | keys)

    def begins_anew(self, mark: Mark) -> bool:
        """Say whether versions of assignments count from the beginning after a mark.

        Raises:
            TrustError: the mark was made under a newer root than this chain leads to.
        """
        if self.root.version < mark.root_version:
            raise TrustError(
                f"this device has followed director root {mark.root_version} and is shown "
                f"{self.root.version} as the newest"
            )
        return self.first <= mark.root_version < self.epoch


def director(pinned: bytes) -> Director:
    """Return what a device knows of the director at first: the root of its claim.

    Raises:
        TrustError: it is not one.
    """
    try:
        metadata = _root(pinned)
        root: Root = metadata.signed
        root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        keys = frozenset(root.roles[Targets.type].keyids)
    except _INVALID as error:
        raise TrustError(f"the director's root is not valid: {error}") from error
    return Director(root, root.version, root.version, keys)


def _root(payload: bytes) -> Metadata[Root]:
    metadata = Metadata[Root].from_bytes(payload)
    if metadata.signed.type != Root.type:
        raise TrustError(f"a director root is {metadata.signed.type!r} metadata")
    return metadata


def verify_assignment(  # noqa: PLR0913 (what is known, by keyword)
    payload: bytes,
    *,
    director: Director,
    device_id: str,
    now: datetime,
    accepted: Accepted | None,
    lowest: Mark = NO_MARK,
    lowest_document: str = "",
) -> Accepted:
    """Return the assignment in a document.

    If it is the accepted one again, that is what is returned, with the hashes of this copy.

    Args:
        payload: the document as received.
        director: its newest root.
        device_id: whom the document must be for.
        now: the trusted time.
        accepted: the newest assignment accepted so far.
        lowest: how far assignments had come by one that is no longer known itself.
        lowest_document: the SHA-256 of what was signed in it, or of its bytes: no other document
            of its version is taken; empty for any.

    Raises:
        TrustError: the document is refused.
    """
    if len(payload) > MAX_ASSIGNMENT_BYTES:  # (1)
        raise TrustError(
            f"the assignment has {len(payload)} bytes, at most {MAX_ASSIGNMENT_BYTES} are read"
        )
    document_sha256 = hashlib.sha256(payload).hexdigest()
    if accepted is not None and document_sha256 == accepted.document_sha256:  # (6)
        return accepted
    metadata = _verified_metadata(payload, director.root, now)
    targets = metadata.signed
    try:
        binding = binding_of(targets.unrecognized_fields, target_count=len(targets.targets))
    except ProtocolError as error:
        raise TrustError(str(error)) from error
    if binding.device_id != device_id:  # (5)
        raise TrustError(f"the assignment is for {binding.device_id}, this device is {device_id}")
    anew = _check_version(targets.version, director, accepted, lowest)  # (6)
    assignment = Assignment(
        device_id=device_id,
        version=targets.version,
        expires_ms=int(targets.expires.timestamp() * 1000),
        releases=_with_terms(_releases(targets), targets),
        root_version=director.root.version,
    )
    found = Accepted(
        assignment=assignment,
        document_sha256=document_sha256,
        signed_sha256=hashlib.sha256(metadata.signed_bytes).hexdigest(),
    )
    if accepted is None:
        _check_known(found, lowest, lowest_document)  # (6)
    elif not anew and targets.version == accepted.assignment.version:
        return _copy(found, accepted)  # (6)
    return found


def _copy(found: Accepted, accepted: Accepted) -> Accepted:
    if not found.is_copy_of(accepted):
        raise TrustError(f"two different assignments have version {found.assignment.version}")
    return msgspec.structs.replace(found, assignment=accepted.assignment)


def _check_known(found: Accepted, lowest: Mark, lowest_document: str) -> None:
    known = {"", found.signed_sha256, found.document_sha256}
    if found.mark == lowest and lowest_document not in known:
        raise TrustError(f"two different assignments have version {found.assignment.version}")


def _verified_metadata(payload: bytes, root: Root, now: datetime) -> Metadata[Targets]:
    try:
        metadata = Metadata[Targets].from_bytes(payload)
        if metadata.signed.type != Targets.type:  # (2)
            raise TrustError(f"an assignment cannot be {metadata.signed.type!r} metadata")
        root.verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)  # (3)
    except (RepositoryError, DeserializationError, ValueError, KeyError) as error:
        reason = str(error) or "it holds what no signature can cover"
        raise TrustError(f"the assignment is not validly signed: {reason}") from error
    if root.is_expired(now):  # (4)
        raise TrustError(f"the director's root expired on {root.expires:%Y-%m-%d %H:%M} UTC")
    if metadata.signed.is_expired(now):  # (4)
        raise TrustError(f"the assignment expired on {metadata.signed.expires:%Y-%m-%d %H:%M} UTC")
    return metadata


def _check_version(
    version: int, director: Director, accepted: Accepted | None, lowest: Mark
) -> bool:
    """Refuse an older version; say whether versions begin anew."""
    if version > _MAX_VERSION:
        raise TrustError(f"the assignment has version {version}, at most {_MAX_VERSION} is taken")
    mark = max(lowest, accepted.mark) if accepted is not None else lowest
    if director.begins_anew(mark):
        return True
    if version < mark.version:
        raise TrustError(
            f"the assignment has version {version}, this device accepted {mark.version} already"
        )
    return False


def _releases(targets: Targets) -> dict[str, AssignedRelease]:
    if targets.delegations is not None:  # (7)
        raise TrustError("an assignment may not delegate")
    if len(targets.targets) > _MAX_RELEASES:
        raise TrustError(f"the assignment lists more than {_MAX_RELEASES} releases")
    releases: dict[str, AssignedRelease] = {}
    for path, target in targets.targets.items():
        release = _release(path, target)
        if release.family in releases:
            raise TrustError(f"the assignment lists two releases of {release.family}")
        releases[release.family] = release
    return releases


def _with_terms(
    releases: dict[str, AssignedRelease], targets: Targets
) -> dict[str, AssignedRelease]:
    try:
        terms = delivery.terms_of(targets.unrecognized_fields, families=releases)  # (8)
    except ProtocolError as error:
        raise TrustError(str(error)) from error
    return {
        family: msgspec.structs.replace(release, terms=terms[family])
        for family, release in releases.items()
    }


def _release(path: str, target: TargetFile) -> AssignedRelease:
    try:
        family, version, file = parse_target_path(path)
    except ProtocolError as error:
        raise TrustError(f"the assignment lists {error}") from error
    if file != MANIFEST_FILE:
        raise TrustError(f"the assignment lists {path!r}, which is not a manifest")
    return AssignedRelease(family=family, version=version, manifest=manifest_ref(path, target))


def manifest_ref(path: str, target: TargetFile) -> ManifestRef:
    """Return length and hash that signed metadata states for a manifest.

    Raises:
        TrustError: there is no SHA-256, or the length is out of bounds.
    """
    sha256 = sha256_of(path, target)
    if not 1 <= target.length <= MAX_MANIFEST_BYTES:
        raise TrustError(f"{path} would have {target.length} bytes, at most {MAX_MANIFEST_BYTES}")
    return ManifestRef(path=path, length=target.length, sha256=sha256)


def sha256_of(path: str, target: TargetFile) -> str:
    """Return the SHA-256 that signed metadata states for a target.

    Raises:
        TrustError: it states none, or something else.
    """
    sha256 = target.hashes.get("sha256", "")
    if len(sha256) != 64 or sha256.strip("0123456789abcdef"):  # noqa: PLR2004 (hex digits of SHA-256)
        raise TrustError(f"the metadata states no SHA-256 for {path}")
    return sha256
