"""Signs a release more or one less on top of the verified repository; the server gets the list."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile

from fleet_protocol import names
from fleet_protocol.manifest import Manifest
from fleet_protocol.withdrawals import Withdrawals
from model_pipeline import release_repository
from model_pipeline.bundle import Bundle, BundledFile
from model_pipeline.errors import PipelineError
from model_pipeline.release_repository import RepositoryView
from model_pipeline.release_upload import Progress, ReleaseUpload, unheard
from model_pipeline.server_link import ContradictedError, MetadataFetcher, ServerLink
from model_pipeline.withdrawal import Order, Withdrawal, planned

METADATA_PATH = "/api/v1/repository/metadata"
RELEASES_PATH = "/api/v1/releases"

_LOG = logging.getLogger(__name__)


class Outcome(Enum):
    """How a publication ended well."""

    PUBLISHED = "published"
    ALREADY_THERE = "already_there"


class Publisher:
    """Publishes releases to one server."""

    def __init__(
        self,
        link: ServerLink,
        *,
        root: bytes,
        cache: Path,
        clock: Callable[[], datetime],
    ) -> None:
        """Take what every publication needs.

        Args:
            link: to the server, with a publisher's token.
            root: release root metadata of the authority.
            cache: where metadata that was seen is kept, one directory for each server.
            clock: gives the time in UTC.
        """
        self._link = link
        self._root = root
        self._cache = cache / release_repository.cache_name(link.url)
        self._clock = clock

    def publish(
        self,
        bundle: Bundle,
        signers: Callable[[], Sequence[Signer]],
        *,
        progress: Progress = unheard,
    ) -> Outcome:
        """Publish a release, once: the same content again is no error and changes nothing.

        Args:
            bundle: read and whole.
            signers: opens the publisher's keys, as many as must sign; called only if there is
                something to sign.
            progress: told of the upload after each piece.

        Raises:
            PipelineError: the release is there with other content, the repository cannot be
                trusted, the key is not the publisher's, or the server refuses.
        """
        files = _targets(bundle)
        with release_repository.locked(self._cache):
            view = self._view(bundle.manifest.family)
            if _is_published(bundle, files, view):
                return Outcome.ALREADY_THERE
            keys = signers()
            try:
                self._upload(files, view, keys, progress)
            except ContradictedError:
                newer = self._view(bundle.manifest.family)
                if _is_published(bundle, files, newer):
                    return Outcome.PUBLISHED
                if newer.version == view.version:
                    raise
                # Someone else's release came in between: sign on top of it, once.
                _LOG.info("publish_retried", extra={"role_version": newer.version})
                self._upload(files, newer, keys, progress)
            if not _is_published(bundle, files, self._view(bundle.manifest.family)):
                raise PipelineError(
                    "the server took the release but its repository does not show it; publish it "
                    "again, and look into the server's log if that does not help"
                )
        return Outcome.PUBLISHED

    def yank(
        self,
        order: Order,
        *,
        confirm: Callable[[Withdrawal], bool],
        signers: Callable[[], Sequence[Signer]],
    ) -> Withdrawal:
        """Withdraw a release, once: what is withdrawn already changes nothing.

        Args:
            order: what is to be withdrawn.
            confirm: asked before the keys are opened.
            signers: as for `publish`.

        Raises:
            PipelineError: there is no such release, nobody confirmed, the repository cannot be
                trusted, the key is not the publisher's, or the server refuses.
        """
        prefix = _prefix(order.family, order.version)
        with release_repository.locked(self._cache):
            view = self._view(order.family)
            plan = planned(order, listed=bool(view.published(prefix)), said=view.withdrawals)
            if not plan.changes:
                return plan
            if not confirm(plan):
                raise PipelineError("not confirmed; nothing was signed")
            metadata = view.signed_without(prefix, plan.after, signers(), now=self._clock())
            self._link.upload(RELEASES_PATH, ReleaseUpload(metadata, {}))
            after = self._view(order.family)
            if after.published(prefix) or after.withdrawals != plan.after:
                raise PipelineError(
                    "the server took the withdrawal but its repository does not show it; withdraw "
                    "again, and look into the server's log if that does not help"
                )
        return plan

    def _view(self, family: str) -> RepositoryView:
        return release_repository.refreshed(
            family,
            root=self._root,
            base_url=self._link.url + METADATA_PATH,
            cache=self._cache,
            fetcher=MetadataFetcher(self._link),
        )

    def _upload(
        self,
        files: dict[str, BundledFile],
        view: RepositoryView,
        signers: Sequence[Signer],
        progress: Progress,
    ) -> None:
        metadata = view.signed_with(files, signers, now=self._clock())
        self._link.upload(RELEASES_PATH, ReleaseUpload(metadata, files, progress=progress))


def _targets(bundle: Bundle) -> dict[str, BundledFile]:
    manifest = bundle.manifest
    return {
        names.target_path(manifest.family, manifest.version, file.name): file
        for file in bundle.files
    }


def _is_published(bundle: Bundle, files: dict[str, BundledFile], view: RepositoryView) -> bool:
    """Say whether exactly these files are listed already.

    Raises:
        PipelineError: others are listed under the same version, or it may not be listed any more.
    """
    manifest = bundle.manifest
    listed = view.published(_prefix(manifest.family, manifest.version))
    if not listed:
        _check_not_withdrawn(manifest, view.withdrawals)
        return False
    if listed.keys() == files.keys() and all(
        _same(target, files[path]) for path, target in listed.items()
    ):
        return True
    raise PipelineError(
        f"{manifest.family} {manifest.version} is published already, with other content: a release "
        "never changes; pack this one under a new version"
    )


def _check_not_withdrawn(manifest: Manifest, said: Withdrawals) -> None:
    if manifest.version in said.yanked:
        raise PipelineError(
            f"{manifest.family} {manifest.version} was withdrawn "
            f"({said.yanked[manifest.version]}) and never comes back; pack a new version"
        )
    if manifest.security_counter < said.security_floor:
        raise PipelineError(
            f"{manifest.family} {manifest.version} has security counter "
            f"{manifest.security_counter}, and devices accept {said.security_floor} and higher: "
            f"pack it with --security-counter {said.security_floor}"
        )


def _prefix(family: str, version: str) -> str:
    return f"models/{family}/{version}/"


def _same(target: TargetFile, file: BundledFile) -> bool:
    return target.length == file.length and target.hashes.get("sha256") == file.sha256
