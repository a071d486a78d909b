"""Chains of roots, as files and as verified metadata."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from fleet_server.errors import ConflictError, MalformedError, RefusedError

MAX_ROOT_BYTES = 512 * 1024
"""Devices and python-tuf's client read no more."""


def versions(folder: Path) -> list[int]:
    """Return the versions of the roots in a folder, in order."""
    numbers = [path.name.split(".")[0] for path in folder.glob("*.root.json")]
    return sorted(int(number) for number in numbers if number.isdecimal())


def chain(folder: Path) -> list[Root]:
    """Return the roots of a folder, from the first one there, each verified by the one before.

    Raises:
        OSError: a file cannot be read, or there is none.
        RepositoryError, ValueError: a link does not hold.
    """
    found = versions(folder)
    if not found:
        raise FileNotFoundError(f"there is no root.json in {folder}")
    roots: list[Root] = []
    for version in found:
        metadata = Metadata[Root].from_bytes((folder / f"{version}.root.json").read_bytes())
        _verify(metadata, [*roots[-1:], metadata.signed])
        if metadata.signed.version != version or (roots and version != roots[-1].version + 1):
            raise ValueError(f"{version}.root.json does not follow root {version - 1}")
        roots.append(metadata.signed)
    return roots


def following(payload: bytes, before: Root, *, now: datetime) -> Root:
    """Return a new root if it may follow the one before (TUF specification 5.3.4 to 5.3.10).

    Raises:
        MalformedError: it is no root.
        ConflictError: its version is not the next one.
        RefusedError: not signed by enough keys of both roots, expired, or nobody could sign it.
    """
    metadata = root_of(payload)
    signed = metadata.signed
    if signed.version != before.version + 1:
        raise ConflictError(
            f"root {signed.version} does not follow root {before.version}, which is current here"
        )
    try:
        _verify(metadata, [before, signed])
    except (RepositoryError, ValueError) as error:
        raise RefusedError(
            f"root {signed.version} is not signed by enough keys of the root before it and of "
            f"itself: {error}"
        ) from error
    if signed.is_expired(now):
        raise RefusedError(f"root {signed.version} expired at {signed.expires.isoformat()}")
    for name, role in signed.roles.items():
        if role.keyids and role.threshold > len(role.keyids):
            raise RefusedError(
                f"root {signed.version} wants {role.threshold} of {len(role.keyids)} keys for "
                f"{name}: nobody could ever sign it"
            )
    return signed


def root_of(payload: bytes) -> Metadata[Root]:
    """Read a root, verifying nothing.

    Raises:
        MalformedError: it is none.
    """
    if len(payload) > MAX_ROOT_BYTES:
        raise MalformedError(f"a root has {MAX_ROOT_BYTES} bytes at most")
    try:
        metadata = Metadata[Root].from_bytes(payload)
    except (RepositoryError, ValueError, TypeError, RecursionError) as error:
        raise MalformedError(f"this is no TUF root: {unreadable(error)}") from error
    if metadata.signed.type != Root.type:
        raise MalformedError(f"this is no TUF root but {metadata.signed.type!r} metadata")
    return metadata


def unreadable(error: Exception) -> str:
    """Return why a document is no TUF metadata: what python-tuf met, without its own wrapping."""
    reason = error.__cause__ or error
    if isinstance(reason, KeyError):
        return f"`{reason.args[0]}` is missing"
    if isinstance(reason, RecursionError):
        return "it is nested too deeply"
    return "its JSON has another shape" if isinstance(reason, TypeError) else str(reason)


def _verify(metadata: Metadata[Root], trusted: Sequence[Root]) -> None:
    for root in trusted:
        root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
