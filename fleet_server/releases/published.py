"""Reads and verifies the metadata of the repository on disk; writes nothing.

Snapshot and timestamp say nothing that the offline roles do not say: where the newest root no
longer accepts them (new keys; an adoption that was cut off), what they will say is put together
from what the holders of the offline keys signed. So a repository recovers from stolen online keys.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from fleet_server import tuf_files
from fleet_server.errors import SetupError
from fleet_server.releases.verification import Current

logger = logging.getLogger(__name__)

_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Published:
    """The verified metadata of the repository at one moment."""

    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp
    families: Mapping[str, Targets]

    @property
    def current(self) -> Current:
        """What new metadata has to follow."""
        return Current(
            families=self.families,
            versions={
                name.removesuffix(".json"): file.version
                for name, file in self.snapshot.meta.items()
            },
        )


class MetadataFolder:
    """The folder ``metadata/`` of a repository, read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Published:
        """Verify the repository from its newest root down.

        Raises:
            SetupError: a file is missing or does not verify.
        """
        try:
            root = tuf_files.chain(self._folder)[-1]
            try:
                timestamp = self._verified("timestamp.json", root, "timestamp", Timestamp)
                version = timestamp.snapshot_meta.version
                snapshot = self._verified(f"{version}.snapshot.json", root, "snapshot", Snapshot)
                targets = self._listed("targets", snapshot, root)
            except UnsignedMetadataError:
                timestamp, snapshot = self._unsigned(root)
                targets = self._listed("targets", snapshot, root)
            families = {
                name: family
                for name in _delegated(targets)
                if f"{name}.json" in snapshot.meta
                and (family := self._family(name, snapshot, targets)) is not None
            }
        except (OSError, RepositoryError, ValueError, KeyError) as error:
            raise SetupError(
                f"the repository below {self._folder.parent} does not verify: {error}; "
                "restore it from a backup, or provision anew"
            ) from error
        return Published(root, targets, snapshot, timestamp, families)

    def _family(self, name: str, snapshot: Snapshot, targets: Targets) -> Targets | None:
        """Return a family's list; None if its publisher's key was revoked since it was signed.

        Raises:
            RepositoryError: the file is not the one that the snapshot names.
        """
        try:
            return self._listed(name, snapshot, targets)
        except UnsignedMetadataError:
            logger.warning("family_not_signed_by_its_publisher", extra={"family": name})
            return None

    def _listed(self, name: str, snapshot: Snapshot, delegator: Root | Targets) -> Targets:
        """Return the targets role of a name if it is whole and signed.

        Raises:
            UnsignedMetadataError: it is whole, and the delegator accepts no signature on it.
            RepositoryError: the file is not the one that the snapshot names.
        """
        listed = snapshot.meta[f"{name}.json"]
        file = f"{listed.version}.{name}.json"
        listed.verify_length_and_hashes((self._folder / file).read_bytes())
        return self._verified(file, delegator, name, Targets)

    def _unsigned(self, root: Root) -> tuple[Timestamp, Snapshot]:
        """Return what snapshot and timestamp will say, expired: to be signed before it is served.

        Raises:
            RepositoryError: there are no targets that the root accepts.
        """
        version, targets = self._newest("targets", root)
        if targets is None:
            raise RepositoryError(f"no targets.json holds under root {root.version}")
        meta = {"targets.json": self._meta_file("targets", version)}
        for name in self._families_on_disk():  # one that is dropped must not vanish for clients
            version, _ = self._newest(name, targets)
            meta[f"{name}.json"] = self._meta_file(name, version)
        logger.warning("repository_to_be_signed_anew", extra={"root": root.version})
        timestamp = Metadata[Timestamp].from_bytes((self._folder / "timestamp.json").read_bytes())
        before = timestamp.signed.snapshot_meta.version
        return (
            Timestamp(timestamp.signed.version, expires=_LONG_AGO, snapshot_meta=MetaFile(before)),
            Snapshot(before, expires=_LONG_AGO, meta=meta),
        )

    def _families_on_disk(self) -> set[str]:
        names = {path.name.split(".")[1] for path in self._folder.glob("*.*.json")}
        return names - TOP_LEVEL_ROLE_NAMES

    def _newest(self, role: str, delegator: Root | Targets) -> tuple[int, Targets | None]:
        """Return the newest version that the delegator accepts, else the newest, unaccepted."""
        numbers = sorted(
            (
                int(path.name.partition(".")[0])
                for path in self._folder.glob(f"*.{role}.json")
                if path.name.partition(".")[0].isdecimal()
            ),
            reverse=True,
        )
        for version in numbers:
            with contextlib.suppress(RepositoryError, ValueError):
                return version, self._verified(f"{version}.{role}.json", delegator, role, Targets)
        return (numbers[0] if numbers else 0), None

    def _meta_file(self, role: str, version: int) -> MetaFile:
        content = (self._folder / f"{version}.{role}.json").read_bytes()
        return MetaFile.from_data(version, content, ["sha256"])

    def _verified(
        self, name: str, delegator: Root | Targets, role: str, kind: type[_Signed]
    ) -> _Signed:
        metadata = Metadata[_Signed].from_bytes((self._folder / name).read_bytes())
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"{name} is not metadata of the role {role}")  # noqa: TRY004 (of a role, not of a type)
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        return metadata.signed


def _delegated(targets: Targets) -> list[str]:
    if targets.delegations is None or targets.delegations.roles is None:
        return []
    return list(targets.delegations.roles)
