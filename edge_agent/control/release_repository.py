"""The release repository seen through python-tuf: which targets the publisher signed.

Trust starts at the root in the claim, whatever the cache holds; the cache only makes refreshes
short. A `ReleaseRepository` opens one `Snapshot` per use, since an ``Updater`` refreshes once.
Expiry is judged by the trusted time, which cannot be turned back.
"""

import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tuf.api import exceptions
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge_agent import store
from edge_agent.control.server_client import (
    METADATA_ROUTE,
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
)
from edge_agent.control.trust import TrustError
from fleet_protocol import withdrawals
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import MANIFEST_FILE
from fleet_protocol.names import target_path
from fleet_protocol.withdrawals import NOTHING, Withdrawals

_BASE_URL = "https://fleet"
"""Only its path matters: the server client knows the real address."""

_FAILURES = (exceptions.DownloadError, exceptions.RepositoryError, ServerUnreachableError)


class Snapshot(Protocol):
    """One consistent, verified state of the repository."""

    @property
    def expires(self) -> datetime:
        """When the first of the roles that it rests on expires."""

    def target(self, path: str) -> TargetFile | None:
        """Return what the publisher signed for a path, or None.

        Raises:
            TrustError: metadata on the way to it does not verify.
            ServerUnreachableError: metadata could not be fetched.
        """

    def withdrawals(self, family: str) -> Withdrawals:
        """Return what the publisher of a family withdrew; nothing for an unknown family.

        Raises:
            TrustError: the family's list does not verify.
            ServerUnreachableError: it could not be fetched.
            StoreError: the cache cannot be written.
        """


class Releases(Protocol):
    """A release repository."""

    def refresh(self, now: datetime) -> Snapshot:
        """Return the newest state, verified at the trusted time.

        Raises:
            TrustError: metadata does not verify or has expired.
            ServerUnreachableError: metadata could not be fetched.
            StoreError: the cache cannot be written.
        """


class ReleaseRepository:
    """The repository behind the fleet server."""

    def __init__(self, *, pinned_root: bytes, cache: Path, server: ReleaseServer) -> None:
        self._pinned_root = pinned_root
        self._cache = cache
        self._fetcher = _Fetcher(server)
        self._turn = threading.Lock()

    def refresh(self, now: datetime) -> "TufSnapshot":
        """Return the newest state, verified at the trusted time.

        Raises:
            TrustError: metadata does not verify or has expired.
            ServerUnreachableError: metadata could not be fetched.
            StoreError: the cache cannot be written.
        """
        with self._turn:  # the cache has one writer at a time
            try:
                self._cache.mkdir(parents=True, exist_ok=True)
                self._tidy()
                updater = self._updater(now)
                updater.refresh()
            except OSError as error:
                raise store.StoreError(f"cannot write below {self._cache}: {error}") from error
            except _FAILURES as error:
                raise _wrapped(error) from error
        return TufSnapshot(updater, self._cache, self._turn)

    def _tidy(self) -> None:
        """Remove what python-tuf leaves when the process dies before it renames a file."""
        for path in self._cache.glob(f"{tempfile.gettempprefix()}*"):
            if path.suffix != ".json":
                path.unlink()

    def _updater(self, now: datetime) -> Updater:
        updater = Updater(
            metadata_dir=str(self._cache),
            metadata_base_url=_BASE_URL + METADATA_ROUTE,
            fetcher=self._fetcher,
            config=UpdaterConfig(targets_max_length=16 * 1024 * 1024),
            bootstrap=self._pinned_root,
        )
        # python-tuf offers no setting for the time; a test holds that this one is heeded.
        updater._trusted_set.reference_time = now  # noqa: SLF001 (python-tuf has no other way to set it)
        return updater


class TufSnapshot:
    """A refreshed ``Updater``."""

    def __init__(self, updater: Updater, cache: Path, turn: threading.Lock) -> None:
        self._updater = updater
        self._cache = cache
        self._turn = turn

    @property
    def expires(self) -> datetime:
        """When the first of the roles that it rests on expires."""
        roles = self._updater._trusted_set  # noqa: SLF001 (python-tuf shows its roles nowhere else)
        return min(
            role.expires for role in (roles.root, roles.timestamp, roles.snapshot, roles.targets)
        )

    def target(self, path: str) -> TargetFile | None:
        """Return what the publisher signed for a path, or None.

        Raises:
            TrustError: metadata on the way to it does not verify.
            ServerUnreachableError: metadata could not be fetched.
            StoreError: the cache cannot be written.
        """
        with self._turn:
            try:
                found = self._updater.get_targetinfo(path)
            except OSError as error:
                raise store.StoreError(f"cannot write below {self._cache}: {error}") from error
            except _FAILURES as error:
                raise _wrapped(error) from error
            self._check_flat(path)
        self._sync()
        return found

    def _check_flat(self, path: str) -> None:
        """Refuse a list that delegates: a family's publisher could name one for another family.

        python-tuf keeps roles by name alone, whoever delegated to them, so that a role which a
        publisher calls like another family would take that family's place.
        """
        roles = self._updater._trusted_set  # noqa: SLF001 (python-tuf shows its roles nowhere else)
        lists = [role for role in roles if isinstance(role, Targets) and role is not roles.targets]
        if any(role.delegations is not None for role in lists):
            raise TrustError(
                f"on the way to {path} a family's list delegates further; no list of releases may"
            )

    def withdrawals(self, family: str) -> Withdrawals:
        """Return what the publisher of a family withdrew; nothing for an unknown family.

        Raises:
            TrustError: the family's list does not verify.
            ServerUnreachableError: it could not be fetched.
            StoreError: the cache cannot be written.
        """
        # python-tuf loads the list of a family on the way to any path of it.
        self.target(target_path(family, "0.0.0", MANIFEST_FILE))
        roles = self._updater._trusted_set  # noqa: SLF001 (python-tuf shows its roles nowhere else)
        if not roles.contains(family, Targets.type):
            return NOTHING
        try:
            return withdrawals.of(roles[family].unrecognized_fields)
        except ProtocolError as error:
            raise TrustError(f"the list of {family}: {error}") from error

    def _sync(self) -> None:
        # The cache is what remembers versions against rollback; make it outlive a power cut.
        store.sync_tree(self._cache)


class _Fetcher(FetcherInterface):
    """Lets python-tuf fetch over our client; the caller bounds the length."""

    def __init__(self, server: ReleaseServer) -> None:
        self._server = server

    def _fetch(self, url: str) -> Iterator[bytes]:
        chunks = self._chunks(url.removeprefix(_BASE_URL))
        first = next(chunks, b"")  # asks now, so that a 404 is seen by the caller of fetch()
        return _chained(first, chunks)

    def _chunks(self, path: str) -> Iterator[bytes]:
        try:
            with self._server.open(path, {}) as body:
                yield from body.chunks()
        except ServerRefusedError as error:
            raise exceptions.DownloadHTTPError(str(error), error.status) from error


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _wrapped(error: Exception) -> Exception:
    """Return our error for one on the way to metadata; a body that ends early comes as ours."""
    if isinstance(error, exceptions.RepositoryError | exceptions.DownloadLengthMismatchError):
        return TrustError(f"the release repository is not valid: {error}")
    cause = error if isinstance(error, ServerUnreachableError) else error.__cause__
    if not isinstance(cause, ServerUnreachableError):
        return ServerUnreachableError(f"cannot fetch the release metadata: {error}")
    return type(cause)(f"cannot fetch the release metadata: {cause}")
