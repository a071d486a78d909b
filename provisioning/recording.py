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

    The lists of families are not kept in an authority and are refused here.

    Returns:
        The files that were written.

    Raises:
        ProvisioningError: a document does not follow what is current, or is not signed by enough
            keys; nothing was written.
    """
    current: dict[Path, bytes] = {}

    def newest(path: Path) -> bytes:
        return current.get(path) or _read(path)

    for content in documents:
        signed = _parsed(content).signed
        if signed.is_expired(now):
            raise ProvisioningError(f"the {signed.type} metadata expired at {signed.expires}")
        if isinstance(signed, Root):
            path = authority.release_root if _is_release(signed) else authority.director_root
            _check_root(content, newest(path), path)
        elif signed.delegations is not None:
            path = authority.published_targets
            _check_targets(content, newest(path) if path.is_file() else None, path)
            _verify(_parsed(newest(authority.release_root)).signed, content)
        else:
            raise ProvisioningError(
                "only roots and targets.json belong to an authority; a family's list goes to the "
                "server alone: `skerry fleet adopt`"
            )
        current[path] = content
    try:
        for path, content in current.items():
            durable_files.replace(path, content, mode=durable_files.PUBLIC_MODE)
    except OSError as error:
        raise ProvisioningError(f"cannot write below {authority.public}: {error}") from error
    return list(current)


def _is_release(root: Root) -> bool:
    """Tell the two kinds of root apart: the director's has nobody for snapshot and timestamp."""
    return bool(root.roles["snapshot"].keyids)


def _check_root(content: bytes, before: bytes, path: Path) -> None:
    old, new = _parsed(before).signed, _parsed(content).signed
    _check_version(old, new, path)
    _verify(old, content)
    _verify(new, content)


def _check_targets(content: bytes, before: bytes | None, path: Path) -> None:
    if before is not None:
        _check_version(_parsed(before).signed, _parsed(content).signed, path)


def _check_version(old: Root | Targets, new: Root | Targets, path: Path) -> None:
    if new.version != old.version + 1:
        raise ProvisioningError(
            f"version {new.version} does not follow version {old.version} in {path}"
        )


def _verify(delegator: Root | Targets, content: bytes) -> None:
    metadata = _parsed(content)
    try:
        if not isinstance(delegator, Root):
            raise ProvisioningError("the release root of the authority is no root")
        delegator.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise ProvisioningError(f"not signed by enough keys of {error}") from error


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
