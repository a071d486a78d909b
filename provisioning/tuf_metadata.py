"""The first update metadata of a fleet: release repository and director.

Both follow the TUF specification 1.0.31 with consistent snapshots. The publisher of a family signs
a role that has the family's name and is delegated ``models/<family>/*/*``; a ``*`` does not cross a
slash, so no publisher reaches into another family.

The director's root names keys for root and targets only. Its snapshot and timestamp roles have no
key at all: were it ever served in place of a release root (the same offline key signs both),
nobody could sign a repository below it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    T,
    Targets,
    Timestamp,
)

from fleet_protocol import names
from provisioning.errors import ProvisioningError

OFFLINE_LIFETIME = timedelta(days=365)
SNAPSHOT_LIFETIME = timedelta(days=7)
TIMESTAMP_LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The keys of an offline role, and how many of them must sign."""

    signers: Sequence[CryptoSigner]
    threshold: int

    @property
    def keyids(self) -> list[str]:
        """Their ids."""
        return [signer.public_key.keyid for signer in self.signers]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseKeys:
    """Who signs what in the release repository; publishers by family."""

    root: RoleKeys
    targets: RoleKeys
    publishers: Mapping[str, RoleKeys]
    snapshot: CryptoSigner
    timestamp: CryptoSigner


def family(value: str) -> str:
    """Return ``value`` if it can name a family and thus a delegated role.

    Raises:
        ProvisioningError: it is the name of a top-level role.
        ProtocolError: it is not a family name.
    """
    if names.family(value) in TOP_LEVEL_ROLE_NAMES:
        raise ProvisioningError(
            f"a model family cannot be called {value!r}: update metadata uses that name itself"
        )
    return value


def release_metadata(keys: ReleaseKeys, *, now: datetime) -> dict[str, bytes]:
    """Return the signed metadata of an empty release repository by file name."""
    offline = now + OFFLINE_LIFETIME
    root = Root(expires=offline)
    _name(root, "root", keys.root)
    _name(root, "targets", keys.targets)
    root.add_key(keys.snapshot.public_key, "snapshot")
    root.add_key(keys.timestamp.public_key, "timestamp")
    files = {"1.root.json": _signed(Metadata(root), *keys.root.signers)}

    targets = Targets(expires=offline, delegations=_delegations(keys.publishers))
    signed_targets = {"targets.json": _signed(Metadata(targets), *keys.targets.signers)}
    for name, publisher in keys.publishers.items():
        empty = Metadata(Targets(expires=offline))
        signed_targets[f"{name}.json"] = _signed(empty, *publisher.signers)
    files.update({f"1.{name}": content for name, content in signed_targets.items()})

    meta = {name: _meta_file(content) for name, content in signed_targets.items()}
    snapshot = Metadata(Snapshot(expires=now + SNAPSHOT_LIFETIME, meta=meta))
    files["1.snapshot.json"] = _signed(snapshot, keys.snapshot)
    timestamp = Timestamp(
        expires=now + TIMESTAMP_LIFETIME, snapshot_meta=_meta_file(files["1.snapshot.json"])
    )
    files["timestamp.json"] = _signed(Metadata(timestamp), keys.timestamp)
    return files


def director_root(root_keys: RoleKeys, assignment_key: Key, *, now: datetime) -> bytes:
    """Return the signed root whose targets key is the assignment key."""
    root = Root(expires=now + OFFLINE_LIFETIME)
    _name(root, "root", root_keys)
    root.add_key(assignment_key, "targets")
    return _signed(Metadata(root), *root_keys.signers)


def _name(root: Root, role: str, keys: RoleKeys) -> None:
    for signer in keys.signers:
        root.add_key(signer.public_key, role)
    root.roles[role].threshold = keys.threshold


def _delegations(publishers: Mapping[str, RoleKeys]) -> Delegations:
    keys: dict[str, Key] = {
        signer.public_key.keyid: signer.public_key
        for publisher in publishers.values()
        for signer in publisher.signers
    }
    roles = {
        name: DelegatedRole(
            name=name,
            keyids=publisher.keyids,
            threshold=publisher.threshold,
            terminating=True,
            paths=[f"models/{name}/*/*"],
        )
        for name, publisher in publishers.items()
    }
    return Delegations(keys=keys, roles=roles)


def _meta_file(content: bytes) -> MetaFile:
    return MetaFile.from_data(version=1, data=content, hash_algorithms=["sha256"])


def _signed(metadata: Metadata[T], *signers: CryptoSigner) -> bytes:
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
