"""Decides whether metadata made offline may become current: bytes in, no I/O.

New roots, targets and lists of families come together, because each must hold under the others: a
root with new targets keys needs targets signed by them, targets with a new publisher need that
publisher's signature on the list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from fleet_server import tuf_files
from fleet_server.errors import ConflictError, MalformedError, RefusedError
from fleet_server.releases.verification import (
    MAX_METADATA_BYTES,
    Current,
    Upload,
    verify_metadata,
)


@dataclass(frozen=True, slots=True)
class Adoption:
    """Verified documents that are not current yet.

    Attributes:
        root: the newest, new or not.
        roots: new ones by version, in order.
        targets: the new top-level targets, if there are new ones.
        lists: new lists of families.
    """

    root: Root
    roots: Mapping[int, bytes] = field(default_factory=dict)
    targets: tuple[int, bytes] | None = None
    lists: Sequence[Upload] = ()


def verify(
    documents: Sequence[bytes], *, root: Root, targets: bytes, current: Current, now: datetime
) -> Adoption:
    """Check documents in the order roots, targets, lists, whatever order they come in.

    Args:
        documents: metadata that is not current yet.
        root: the current root.
        targets: the current top-level targets as signed.
        current: what is published.
        now: the present.

    Raises:
        MalformedError, RefusedError, ConflictError: one of them may not become current.
    """
    kinds = [(_kind(document), document) for document in documents]
    roots: dict[int, bytes] = {}
    for document in sorted(
        (document for kind, document in kinds if kind == Root.type),
        key=lambda document: tuf_files.root_of(document).signed.version,
    ):
        root = tuf_files.following(document, root, now=now)
        if root.consistent_snapshot is not True:
            raise RefusedError(f"root {root.version} gives up consistent snapshots")
        roots[root.version] = document
    tops = [document for kind, document in kinds if kind == Targets.type]
    if len(tops) > 1:
        raise RefusedError("there are two targets.json; send the newest")
    top = _verified_targets(tops[0] if tops else targets, root)
    new = None
    if tops:
        _check_next(top, current.versions["targets"], now)
        new = (top.version, tops[0])
    lists = [
        verify_metadata(document, targets=top, current=current, now=now)
        for kind, document in kinds
        if kind == "list"
    ]
    if len({one.family for one in lists}) < len(lists):
        raise RefusedError("there are two lists of one family; send the newest")
    return Adoption(root, roots, new, lists)


def _kind(document: bytes) -> str:
    if len(document) > MAX_METADATA_BYTES:
        raise MalformedError(f"a document has more than {MAX_METADATA_BYTES} bytes")
    try:
        signed = Metadata[Targets].from_bytes(document).signed
    except (RepositoryError, ValueError, TypeError, RecursionError) as error:
        reason = tuf_files.unreadable(error)
        raise MalformedError(f"a document is not TUF metadata: {reason}") from error
    if signed.type == Root.type:
        return Root.type
    if not isinstance(signed, Targets):
        raise RefusedError(f"{signed.type} metadata is signed by the server itself")
    return "list" if signed.delegations is None else Targets.type


def _verified_targets(document: bytes, root: Root) -> Targets:
    metadata = Metadata[Targets].from_bytes(document)
    try:
        root.verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise RefusedError(
            f"targets {metadata.signed.version} does not hold under root {root.version}: {error}; "
            "if the root changes the targets keys, send targets.json signed by the new ones with it"
        ) from error
    return metadata.signed


def _check_next(targets: Targets, before: int, now: datetime) -> None:
    if targets.version != before + 1:
        raise ConflictError(
            f"targets {targets.version} does not follow targets {before}, which is current here"
        )
    if targets.is_expired(now):
        raise RefusedError(f"targets {targets.version} expired at {targets.expires.isoformat()}")
