"""The TUF repository on disk: loads it, commits verified uploads, renews the online roles.

All of it blocks and belongs in a thread. Commit order makes a crash harmless: targets, the family's
metadata, the snapshot, and last ``timestamp.json``, whose rename is the moment of publication. What
an interrupted commit left is not referred to by the timestamp, and goes at the next start.
"""

import fcntl
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from fleet_protocol import manifest as manifests
from fleet_protocol import names
from fleet_server.errors import ConflictError, NotFoundError, SetupError, StorageFullError
from fleet_server.releases import durable_files
from fleet_server.releases.online_roles import (
    SNAPSHOT_LIFETIME,
    TIMESTAMP_LIFETIME,
    OnlineSigners,
    load_signer,
    renewal_due,
)
from fleet_server.releases.verification import StoredFile, Upload, files_of

logger = logging.getLogger(__name__)

_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)
_FREE_BYTES_KEPT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """The verified metadata of the repository at one moment."""

    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp
    families: Mapping[str, Targets]


class Repository:
    """One repository folder; the process that holds it is its only writer."""

    def __init__(self, root: Path, online: Path) -> None:
        self._metadata = root / "metadata"
        self._targets = root / "targets"
        self._staging = root / "staging"
        self._lock_file = root / ".lock"
        published = self._load()
        self._published = published
        self._signers = OnlineSigners(
            snapshot=load_signer(online / "snapshot.pem", published.root, Snapshot.type),
            timestamp=load_signer(online / "timestamp.pem", published.root, Timestamp.type),
        )

    @property
    def published(self) -> Published:
        """What is published now."""
        return self._published

    def heal(self, *, now: datetime) -> None:
        """Remove what an interrupted upload left, and renew what is about to expire.

        Raises:
            SetupError: the folder is not writable.
        """
        try:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(mode=0o700)
            with self._exclusive():
                for orphan in self._orphans():
                    logger.warning("repository_orphan_removed", extra={"file": str(orphan)})
                    orphan.unlink()
            self.renew(now=now)
        except OSError as error:
            raise SetupError(f"cannot write to the repository: {error}") from error

    def staging_folder(self, name: str, *, size_bytes: int) -> Path:
        """Make a folder for an upload, on the same file system as the targets.

        Raises:
            StorageFullError: the disk has no room for that many bytes.
        """
        free = shutil.disk_usage(self._staging).free
        if free < size_bytes + _FREE_BYTES_KEPT:
            raise StorageFullError(
                f"the upload needs {size_bytes} bytes and the server has {free} free; "
                "nothing was kept"
            )
        folder = self._staging / names.file_name(name)
        folder.mkdir()
        return folder

    def target_file(self, path: str, file: StoredFile) -> Path:
        """Return where a target lies (consistent snapshots: its name starts with its hash)."""
        family, version, name = names.parse_target_path(path)
        return self._targets / "models" / family / version / f"{file.sha256}.{name}"

    def metadata_file(self, name: str) -> Path:
        """Return where a metadata file lies; the name must have been checked."""
        return self._metadata / name

    def read_manifest(self, family: str, version: str) -> bytes:
        """Return the manifest of a published release.

        Raises:
            NotFoundError: there is no such release.
        """
        path = names.target_path(family, version, manifests.MANIFEST_FILE)
        role = self._published.families.get(family)
        if role is None or path not in role.targets:
            raise NotFoundError(f"there is no release {family} {version}")
        return self.target_file(path, files_of(role)[path]).read_bytes()

    def commit(self, upload: Upload, staged: Mapping[str, Path], *, now: datetime) -> None:
        """Publish a verified upload; the last rename is the moment.

        Args:
            upload: as verified.
            staged: target path to a complete, synced and verified file, for each added target.
            now: the present.

        Raises:
            ConflictError: another upload of the family was committed meanwhile.
            StorageFullError: the disk refuses; nothing was published.
        """
        try:
            with self._exclusive():
                current = self._published.families.get(upload.family)
                if upload.version != (current.version + 1 if current else 1):
                    raise ConflictError(
                        f"another upload of {upload.family} came first; sign anew and send again"
                    )
                for path, source in staged.items():
                    durable_files.move(source, self.target_file(path, upload.added[path]))
                name = f"{upload.version}.{upload.family}.json"
                durable_files.write(self._metadata / name, upload.metadata)
                changed = MetaFile.from_data(upload.version, upload.metadata, ["sha256"])
                self._republish({f"{upload.family}.json": changed}, now=now)
        except OSError as error:
            raise StorageFullError(f"the upload could not be stored: {error}") from error

    def renew(self, *, now: datetime) -> bool:
        """Sign timestamp (and snapshot) anew if half of a lifetime is gone; says whether it did.

        Raises:
            OSError: the disk refuses.
        """
        with self._exclusive():
            if renewal_due(self._published.snapshot.expires, SNAPSHOT_LIFETIME, now):
                self._republish({}, now=now)
            elif renewal_due(self._published.timestamp.expires, TIMESTAMP_LIFETIME, now):
                self._publish_timestamp(now=now)
            else:
                return False
        logger.info("repository_renewed", extra={"timestamp": self._published.timestamp.version})
        return True

    def _republish(self, changed: dict[str, MetaFile], *, now: datetime) -> None:
        version = self._published.snapshot.version + 1
        meta = {**self._published.snapshot.meta, **changed}
        snapshot = self._signers.sign_snapshot(version=version, meta=meta, now=now)
        durable_files.write(self._metadata / f"{version}.snapshot.json", snapshot.to_bytes())
        self._publish_timestamp(now=now, snapshot_version=version)

    def _publish_timestamp(self, *, now: datetime, snapshot_version: int | None = None) -> None:
        snapshot_version = snapshot_version or self._published.snapshot.version
        timestamp = self._signers.sign_timestamp(
            version=self._published.timestamp.version + 1,
            snapshot_version=snapshot_version,
            snapshot=(self._metadata / f"{snapshot_version}.snapshot.json").read_bytes(),
            now=now,
        )
        durable_files.write(self._metadata / "timestamp.json", timestamp.to_bytes())
        self._published = self._load()

    def _load(self) -> Published:
        """Verify the repository from its newest root down.

        Raises:
            SetupError: a file is missing or does not verify.
        """
        try:
            root = self._newest_root()
            timestamp = self._verified("timestamp.json", root, "timestamp", Timestamp)
            version = timestamp.snapshot_meta.version
            snapshot = self._verified(f"{version}.snapshot.json", root, "snapshot", Snapshot)
            version = snapshot.meta["targets.json"].version
            targets = self._verified(f"{version}.targets.json", root, "targets", Targets)
            families = {
                name: self._verified(
                    f"{snapshot.meta[f'{name}.json'].version}.{name}.json", targets, name, Targets
                )
                for name in _delegated(targets)
                if f"{name}.json" in snapshot.meta
            }
        except (OSError, RepositoryError, ValueError, KeyError) as error:
            raise SetupError(
                f"the repository below {self._metadata.parent} does not verify: {error}; "
                "restore it from a backup, or provision anew"
            ) from error
        return Published(root, targets, snapshot, timestamp, families)

    def _newest_root(self) -> Root:
        versions = [
            int(path.name.split(".")[0])
            for path in self._metadata.glob("*.root.json")
            if path.name.split(".")[0].isdigit()
        ]
        if not versions:
            raise FileNotFoundError("there is no root.json")
        path = self._metadata / f"{max(versions)}.root.json"
        metadata = Metadata[Root].from_bytes(path.read_bytes())
        metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        return metadata.signed

    def _verified(
        self, name: str, delegator: Root | Targets, role: str, kind: type[_Signed]
    ) -> _Signed:
        metadata = Metadata[_Signed].from_bytes((self._metadata / name).read_bytes())
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"{name} is not metadata of the role {role}")  # noqa: TRY004
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        return metadata.signed

    def _orphans(self) -> Iterator[Path]:
        """Find targets and family metadata that the published snapshot does not refer to."""
        listed = {
            self.target_file(path, file)
            for role in self._published.families.values()
            for path, file in files_of(role).items()
        }
        for path in self._targets.glob("models/*/*/*"):
            if path.is_file() and path not in listed:
                yield path
        newest = {name: role.version for name, role in self._published.families.items()}
        newest["snapshot"] = self._published.snapshot.version
        for path in self._metadata.iterdir():
            version, _, rest = path.name.partition(".")
            name = rest.removesuffix(".json")
            if path.name.endswith(".tmp") or (
                version.isdigit() and name in newest and int(version) > newest[name]
            ):
                yield path

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock_file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _delegated(targets: Targets) -> list[str]:
    if targets.delegations is None or targets.delegations.roles is None:
        return []
    return list(targets.delegations.roles)
