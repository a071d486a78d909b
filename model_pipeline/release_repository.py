"""What the publisher knows of the release repository, verified, and how its next list is signed.

A publisher signs the whole list of a family's releases again with each new one. The list that is
signed on top of comes from the server, which may be in an attacker's hands, so:

1. the repository is refreshed as a device would do it, from the root of the authority, with a
   cache that outlives the process: an older list than one seen before is refused (roll-back);
2. the family's list must have the version, length and hash that the snapshot names (mix-and-match)
   and the signatures that the delegation asks for (forgery). Its expiry alone does not matter:
   a publisher must be able to sign anew what ran out;
3. the new list must verify against the delegation before it leaves the house.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import DelegatedRole, Metadata, Snapshot, TargetFile, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from fleet_protocol import withdrawals
from fleet_protocol.errors import ProtocolError
from fleet_protocol.withdrawals import Withdrawals
from model_pipeline.bundle import BundledFile
from model_pipeline.errors import PipelineError

LIFETIME = timedelta(days=365)


class RepositoryView:
    """The verified state of one family at one moment."""

    def __init__(self, family: str, delegator: Targets, role: Metadata[Targets]) -> None:
        """Take what `refreshed` has verified: the top-level targets and the family's list."""
        self._family = family
        self._delegator = delegator
        self._role = role

    @property
    def version(self) -> int:
        """Version of the family's list."""
        return self._role.signed.version

    @property
    def withdrawals(self) -> Withdrawals:
        """What the family's list says of withdrawn releases.

        Raises:
            PipelineError: it cannot be read.
        """
        try:
            return withdrawals.of(self._role.signed.unrecognized_fields)
        except ProtocolError as error:
            raise PipelineError(f"the list of {self._family}: {error}") from error

    def published(self, prefix: str) -> dict[str, TargetFile]:
        """Return the listed targets whose path begins with ``prefix``."""
        return {
            path: target
            for path, target in self._role.signed.targets.items()
            if path.startswith(prefix)
        }

    def signed_with(
        self, files: Mapping[str, BundledFile], signers: Sequence[Signer], *, now: datetime
    ) -> bytes:
        """Return the next version of the family's list with some files added.

        Raises:
            PipelineError: the family's publisher may not sign these paths, or this key is not the
                publisher's.
        """
        delegation = _delegation(self._delegator, self._family)
        for path in files:
            if not delegation.is_delegated_path(path):
                raise PipelineError(f"the publisher of {self._family} may not sign {path}")
        targets = dict(self._role.signed.targets)
        for path, file in files.items():
            targets[path] = TargetFile(file.length, {"sha256": file.sha256}, path)
        return self._signed(targets, self.withdrawals, signers, now=now)

    def signed_without(
        self, prefix: str, said: Withdrawals, signers: Sequence[Signer], *, now: datetime
    ) -> bytes:
        """Return the next version of the list without the targets below ``prefix``.

        Args:
            prefix: of the paths that go.
            said: what the list says of withdrawn releases from now on.
            signers: the publisher's keys.
            now: the present.

        Raises:
            PipelineError: this key is not the publisher's.
        """
        kept = {
            path: target
            for path, target in self._role.signed.targets.items()
            if not path.startswith(prefix)
        }
        return self._signed(kept, said, signers, now=now)

    def _signed(
        self,
        targets: dict[str, TargetFile],
        said: Withdrawals,
        signers: Sequence[Signer],
        *,
        now: datetime,
    ) -> bytes:
        following = Metadata(
            Targets(
                version=self.version + 1,
                expires=now + LIFETIME,
                targets=targets,
                unrecognized_fields=withdrawals.extra_fields(said),
            )
        )
        for signer in signers:
            following.sign(signer, append=True)
        try:
            self._delegator.verify_delegate(
                self._family, following.signed_bytes, following.signatures
            )
        except (RepositoryError, ValueError) as error:  # (3)
            raise PipelineError(
                f"this key alone cannot sign for {self._family}: {error}; is it the publisher key "
                "of the authority that made this server?"
            ) from error
        return following.to_bytes()


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Keep other publishers on this machine away from a cache.

    Raises:
        PipelineError: one is at it, or the cache cannot be made.
    """
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PipelineError(f"cannot keep seen metadata in {cache}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise PipelineError(
            f"another `skerry model publish` or `yank` is at work with {cache}; wait for it to end"
        ) from None
    finally:
        os.close(descriptor)


def refreshed(
    family: str, *, root: bytes, base_url: str, cache: Path, fetcher: FetcherInterface
) -> RepositoryView:
    """Refresh the repository and return the verified state of a family.

    Args:
        family: whose list is wanted.
        root: trusted root metadata, the authority's first or a later one.
        base_url: below which the metadata lies.
        cache: directory of this repository; the caller holds its lock.
        fetcher: does the downloads.

    Raises:
        PipelineError: something cannot be downloaded, does not verify, or is older than before.
    """
    config = UpdaterConfig()
    try:
        updater = Updater(
            metadata_dir=str(cache),
            metadata_base_url=base_url,
            fetcher=fetcher,
            config=config,
            bootstrap=root,
        )
        updater.refresh()  # (1)
        delegator = Metadata[Targets].from_file(str(cache / "targets.json")).signed
        _delegation(delegator, family)
        snapshot = Metadata[Snapshot].from_file(str(cache / "snapshot.json")).signed
        listed = snapshot.meta[f"{family}.json"]
        content = fetcher.download_bytes(
            f"{base_url}/{listed.version}.{family}.json",
            listed.length or config.targets_max_length,
        )
        listed.verify_length_and_hashes(content)  # (2)
        role = Metadata[Targets].from_bytes(content)
        delegator.verify_delegate(family, role.signed_bytes, role.signatures)  # (2)
        if role.signed.type != Targets.type or role.signed.version != listed.version:
            raise PipelineError(f"the server's list of {family} is not the one that it announces")
    except (DownloadHTTPError, DownloadError) as error:
        raise PipelineError(f"cannot read the release repository: {error}") from error
    except ExpiredMetadataError as error:
        raise PipelineError(
            f"the server's release repository has run out: {error}; snapshot and timestamp are "
            "renewed by the running server, root and targets by the holders of the offline keys"
        ) from error
    except (RepositoryError, DeserializationError, KeyError, ValueError) as error:
        raise PipelineError(
            f"the server's release repository cannot be trusted: {error!r}; nothing was signed"
        ) from error
    except OSError as error:
        raise PipelineError(f"cannot keep seen metadata in {cache}: {error}") from error
    return RepositoryView(family, delegator, role)


def _delegation(delegator: Targets, family: str) -> DelegatedRole:
    role = (delegator.delegations.roles or {}).get(family) if delegator.delegations else None
    if role is None:
        raise PipelineError(
            f"the server's repository does not know the family {family!r}; families are named when "
            "the authority is made (`skerry provision init --family`)"
        )
    return role


def cache_name(server_url: str) -> str:
    """Return a directory name for what was seen at one server."""
    return hashlib.sha256(server_url.encode()).hexdigest()[:32]
