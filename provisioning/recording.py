"""Makes newly signed metadata the current one of an authority's ``public/``."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from provisioning import drafts, durable_files
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority


def record(authority: Authority, documents: Sequence[bytes], *, now: datetime) -> list[Path]:
    """Verify documents against what is current, in order, then write them.

    What is current already is passed over, so a command that was cut off may be repeated. The lists
    of families are not kept in an authority and are refused here.

    Returns:
        The files that were written.

    Raises:
        ProvisioningError: a document does not follow what is current, or is not signed by enough
            keys, or the targets that are kept would not hold any more; nothing was written.
    """
    places = (authority.release_root, authority.director_root, authority.published_targets)
    kept = {path: _read(path) for path in places if path.is_file()}
    new: dict[Path, bytes] = {}
    for content in documents:
        path = _place(authority, content, now)
        if content != kept.get(path):
            _check_follows(content, kept.get(path), path)
            kept[path] = new[path] = content
    if new:
        root = kept.get(authority.release_root) or _read(authority.release_root)
        _check_targets(root, kept.get(authority.published_targets))
    try:
        for path, content in new.items():
            durable_files.replace(path, content, mode=durable_files.PUBLIC_MODE)
    except OSError as error:
        raise ProvisioningError(f"cannot write below {authority.public}: {error}") from error
    return list(new)


def _place(authority: Authority, content: bytes, now: datetime) -> Path:
    signed = _parsed(content).signed
    if signed.is_expired(now):
        raise ProvisioningError(f"the {signed.type} metadata expired at {signed.expires}")
    if isinstance(signed, Root):
        return authority.release_root if _is_release(signed) else authority.director_root
    if signed.delegations is not None:
        return authority.published_targets
    raise ProvisioningError(
        "only roots and targets.json belong to an authority; a family's list goes to the server "
        "alone: `skerry fleet adopt`"
    )


def _is_release(root: Root) -> bool:
    """Tell the two kinds of root apart: the director's has nobody for snapshot and timestamp."""
    return bool(root.roles["snapshot"].keyids)


def _check_follows(content: bytes, before: bytes | None, path: Path) -> None:
    new = _parsed(content).signed
    if before is None:
        if isinstance(new, Root):
            raise ProvisioningError(f"{path} is missing: restore it from a backup")
        return
    old = _parsed(before).signed
    if new.version != old.version + 1:
        raise ProvisioningError(
            f"version {new.version} does not follow version {old.version} in {path}"
        )
    if isinstance(new, Root):
        for root in (old, new):
            _verify(root, content, f"root {new.version}")


def _check_targets(root: bytes, targets: bytes | None) -> None:
    """Refuse to keep targets whose keys the root has revoked: drafts and claims start from them."""
    if targets is not None:
        version = _parsed(targets).signed.version
        number = _parsed(root).signed.version
        _verify(
            _parsed(root).signed,
            targets,
            f"targets {version}, which root {number} has to accept (if it replaces the targets "
            "keys, publish targets.json signed by the new ones with it: `ceremony draft-targets "
            "--root`),",
        )


def _verify(delegator: Root | Targets, content: bytes, what: str) -> None:
    metadata = _parsed(content)
    try:
        if not isinstance(delegator, Root):
            raise ProvisioningError("the release root of the authority is no root")
        delegator.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise ProvisioningError(f"{what} is not signed by enough keys: {error}") from error


def _parsed(content: bytes) -> Metadata[Root] | Metadata[Targets]:
    try:
        metadata = Metadata[Root].from_bytes(content)
    except (DeserializationError, RepositoryError, ValueError, KeyError) as error:
        raise ProvisioningError(f"not update metadata: {error}") from error
    if metadata.signed.type == Root.type:
        return metadata
    return drafts.parse(content, Targets)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error
