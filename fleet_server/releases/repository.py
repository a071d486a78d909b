"""The TUF repository on disk: commits uploads, adopts offline metadata, renews its online roles.

All of it blocks and belongs in a thread. Commit order makes a crash harmless: targets, the family's
metadata, the snapshot, and last ``timestamp.json``, whose rename is the moment of publication. What
an interrupted commit left is not referred to by the timestamp, and goes at the next start.

Several processes may hold one folder. A lock keeps their writes apart; whoever writes takes up what
others have published since, and readers do so with `follow`.

What is there is read and verified in `published`; target files lie where `target_files` says.
"""

import contextlib
import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import (
    MetaFile,
    Root,
    Snapshot,
    Timestamp,
)

from fleet_protocol import manifest as manifests
from fleet_protocol import names, withdrawals
from fleet_server.errors import (
    NotFoundError,
    RefusedError,
    SetupError,
    StorageFullError,
    UnavailableError,
)
from fleet_server.online_keys import OnlineKeys
from fleet_server.releases import adoption as adoptions
from fleet_server.releases import durable_files
from fleet_server.releases.online_roles import (
    SNAPSHOT_LIFETIME,
    TIMESTAMP_LIFETIME,
    OnlineSigners,
    renewal_due,
)
from fleet_server.releases.published import MetadataFolder, Published
from fleet_server.releases.target_files import TargetFiles
from fleet_server.releases.verification import Upload, files_of, verify_metadata

logger = logging.getLogger(__name__)

_PUSHED = 2**30
"""Nobody signs so often: at one a second it would take 34 years."""


class Repository:
    """One repository folder."""

    def __init__(
        self, root: Path, online: Path, *, keys: Sequence[OnlineKeys] | None = None
    ) -> None:
        """Verify what is there.

        Args:
            root: the repository's folder.
            online: where the keys for snapshot and timestamp lie.
            keys: the candidates for both roles, if they are elsewhere.

        Raises:
            SetupError: the repository does not verify, or a key is missing.
        """
        self._metadata = root / "metadata"
        self.files = TargetFiles(root)
        self._reading = MetadataFolder(self._metadata)
        self._lock_file = root / ".lock"
        self._keys = keys or [OnlineKeys(role, online) for role in (Snapshot.type, Timestamp.type)]
        self._seen = self._moment()
        self._published = self._reading.load()
        self._signers = OnlineSigners.of(self._keys, self._published.root)
        self._signers_root = self._published.root.version

    @property
    def published(self) -> Published:
        """What this process saw published last."""
        return self._published

    def follow(self) -> Published:
        """Return what is published now, by whichever process; where nothing is new, two `stat`.

        Raises:
            UnavailableError: what another process published does not verify.
        """
        try:
            if self._is_behind():
                with self._exclusive():
                    pass
        except OSError as error:
            raise UnavailableError(f"the repository cannot be read: {error}") from error
        return self._published

    def heal(self, *, now: datetime) -> None:
        """Remove what an interrupted upload left, and renew what is about to expire.

        Raises:
            SetupError: the folder is not writable.
        """
        try:
            self.files.sweep()
            with self._exclusive():
                for orphan in self._orphans():
                    logger.warning("repository_orphan_removed", extra={"file": str(orphan)})
                    orphan.unlink()
            self.renew(now=now)
        except OSError as error:
            raise SetupError(f"cannot write to the repository: {error}") from error

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
        return self.files.location(path, files_of(role)[path]).read_bytes()

    def commit(self, upload: Upload, staged: Mapping[str, Path], *, now: datetime) -> None:
        """Publish a verified upload; the last rename is the moment.

        Args:
            upload: as verified.
            staged: target path to a complete, synced and verified file, for each added target.
            now: the present.

        Raises:
            ConflictError: another upload of the family was committed meanwhile.
            RefusedError: its publisher's key was revoked meanwhile.
            UnavailableError: the root names online keys that this server does not hold.
            StorageFullError: the disk refuses; nothing was published.
        """
        try:
            with self._exclusive():
                verify_metadata(  # once more: it was verified against what was current then
                    upload.metadata,
                    targets=self._published.targets,
                    current=self._published.current,
                    now=now,
                )
                self._open_signers()
                for path, source in staged.items():
                    durable_files.move(source, self.files.location(path, upload.added[path]))
                self._republish(
                    self._store(upload.family, upload.version, upload.metadata), now=now
                )
        except OSError as error:
            raise StorageFullError(f"the upload could not be stored: {error}") from error

    def adopt(self, documents: Sequence[bytes], *, now: datetime) -> list[str]:
        """Make offline metadata current: roots, targets, lists of families; all or nothing.

        Returns:
            Names of the files that are new; documents that are current already are passed over.

        Raises:
            MalformedError, RefusedError, ConflictError: a document may not become current.
            UnavailableError: what another process published does not verify.
            StorageFullError: the disk refuses; the next start finishes or forgets the adoption.
        """
        try:
            with self._exclusive():
                known = {path.read_bytes() for path in self._metadata.glob("*.*.json")}
                fresh = [document for document in documents if document not in known]
                adoption = adoptions.verify(
                    fresh,
                    root=self._published.root,
                    targets=self._current_targets().read_bytes(),
                    current=self._published.current,
                    now=now,
                )
                self._check_stored(adoption.lists)
                signers = self._signers_for(adoption.root)
                return self._make_current(adoption, signers, now=now) if fresh else []
        except OSError as error:
            raise StorageFullError(f"the metadata could not be stored: {error}") from error

    def _signers_for(self, root: Root) -> OnlineSigners:
        try:
            return OnlineSigners.of(self._keys, root)
        except SetupError as error:
            raise RefusedError(
                f"{error}; make the key here first, so that the root can name it: "
                "`skerry server new-key snapshot` or `timestamp`"
            ) from error

    def _make_current(
        self, adoption: adoptions.Adoption, signers: OnlineSigners, *, now: datetime
    ) -> list[str]:
        changed: dict[str, MetaFile] = {}
        new = [("targets", *adoption.targets)] if adoption.targets else []
        new += [(one.family, one.version, one.metadata) for one in adoption.lists]
        for role, version, content in new:
            changed |= self._store(role, version, content)
        for version, content in adoption.roots.items():
            durable_files.write(self._metadata / f"{version}.root.json", content)
        self._signers, self._signers_root = signers, adoption.root.version
        if adoption.roots:
            self._read()
        self._republish(changed, now=now)
        return [
            *(f"{version}.root.json" for version in adoption.roots),
            *(f"{version}.{role}.json" for role, version, _ in new),
        ]

    def _store(self, role: str, version: int, content: bytes) -> dict[str, MetaFile]:
        durable_files.write(self._metadata / f"{version}.{role}.json", content)
        return {f"{role}.json": MetaFile.from_data(version, content, ["sha256"])}

    def _check_stored(self, lists: Sequence[Upload]) -> None:
        for upload in lists:
            for path, file in upload.added.items():
                if not self.files.has(path, file):
                    raise RefusedError(
                        f"the list of {upload.family} adds {path}, whose content is not here: "
                        "new releases come with `skerry model publish`"
                    )

    def _current_targets(self) -> Path:
        version = self._published.snapshot.meta["targets.json"].version
        return self._metadata / f"{version}.targets.json"

    def renew(self, *, now: datetime) -> bool:
        """Sign timestamp (and snapshot) anew if half of a lifetime is gone; says whether it did.

        Raises:
            OSError: the disk refuses.
            UnavailableError: the root names online keys that this server does not hold.
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
        self._open_signers()
        version = _following(self._published.snapshot.version)
        meta = {**self._published.snapshot.meta, **changed}
        snapshot = self._signers.sign_snapshot(version=version, meta=meta, now=now)
        durable_files.write(self._metadata / f"{version}.snapshot.json", snapshot.to_bytes())
        self._publish_timestamp(now=now, snapshot_version=version)

    def _publish_timestamp(self, *, now: datetime, snapshot_version: int | None = None) -> None:
        self._open_signers()
        snapshot_version = snapshot_version or self._published.snapshot.version
        timestamp = self._signers.sign_timestamp(
            version=_following(self._published.timestamp.version),
            snapshot_version=snapshot_version,
            snapshot=(self._metadata / f"{snapshot_version}.snapshot.json").read_bytes(),
            now=now,
        )
        durable_files.write(self._metadata / "timestamp.json", timestamp.to_bytes())
        self._read()

    def _open_signers(self) -> None:
        """Open the keys that the root names, if another process adopted it.

        Raises:
            UnavailableError: one of them is not here.
        """
        root = self._published.root
        if self._signers_root == root.version:
            return
        try:
            self._signers = OnlineSigners.of(self._keys, root)
        except SetupError as error:
            raise UnavailableError(
                f"{error}; another server adopted that root: bring the new key here as well"
            ) from error
        self._signers_root = root.version

    def _orphans(self) -> Iterator[Path]:
        """Find targets and metadata that the published snapshot does not refer to.

        What a revoked publisher signed stays until its successor has signed the family's list. So
        does what was withdrawn: devices that run it go on serving, and fetch it to repair a file.
        """
        current = self._published.current
        pending = current.versions.keys() - self._published.families.keys()
        listed = {
            self.files.location(path, file)
            for role in self._published.families.values()
            for path, file in files_of(role).items()
        }
        withdrawn = {
            (family, version)
            for family, role in self._published.families.items()
            for version in withdrawals.of(role.unrecognized_fields).yanked
        }
        for path in self.files.targets.glob("models/*/*/*"):
            family, version = path.parts[-3:-1]
            stays = family in pending or (family, version) in withdrawn
            if path.is_file() and path not in listed and not stays:
                yield path
        newest = {**current.versions, "snapshot": self._published.snapshot.version}
        for path in self._metadata.iterdir():
            version, _, rest = path.name.partition(".")
            name = rest.removesuffix(".json")
            if path.name.endswith(".tmp") or (
                version.isdigit() and name in newest and int(version) > newest[name]
            ):
                yield path

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other writers out, having taken up what they published.

        Raises:
            UnavailableError: that does not verify.
        """
        with self._lock_file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_behind():
                try:
                    self._read()
                except SetupError as error:
                    raise UnavailableError(str(error)) from error
            yield

    def _read(self) -> None:
        seen = self._moment()
        self._published = self._reading.load()
        self._seen = seen

    def _is_behind(self) -> bool:
        following = self._metadata / f"{self._published.root.version + 1}.root.json"
        return self._moment() != self._seen or following.exists()

    def _moment(self) -> tuple[int, int]:
        """Return what tells one publication from the next: its timestamp is a new file."""
        try:
            status = (self._metadata / "timestamp.json").stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)


def _following(version: int) -> int:
    """Return the next version; a thief's, pushed towards the end, is left behind.

    Clients forget versions of keys that a root has replaced (TUF specification 5.3.11).
    """
    return version + 1 if version < _PUSHED else 1
