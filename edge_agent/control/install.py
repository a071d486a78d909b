"""From an assigned release to verified files: the install rule with its I/O.

Everything here may be repeated: metadata is refreshed, files that are there already are found by
their hash.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edge_agent import store
from edge_agent.control import install_rule, variants
from edge_agent.control.assignment import ManifestRef
from edge_agent.control.choices import Choice
from edge_agent.control.download import BlobStore, Course
from edge_agent.control.journal import Candidate
from edge_agent.control.release_repository import Releases, Snapshot
from edge_agent.control.trust import manifest_ref, sha256_of
from edge_agent.control.variants import Fitting, Runnable
from edge_agent.runtime_api import ActiveRelease, Placement
from fleet_protocol import manifest as manifests
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, Variant
from fleet_protocol.names import target_path
from fleet_protocol.withdrawals import Withdrawals


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One release to fetch, with what the install rule needs to know.

    Attributes:
        floor: lowest security counter that the family accepts.
        held: manifest of the committed release, if that has the same version.
        placements: what the runtime can do where.
        hardware: fingerprint of the device.
        remembered: choices among variants that were made on this device, by key.
        now: the trusted time.
        course: how downloads shall go.
        base: the committed release, which the new one may resemble.
        keep: hashes of the files that committed releases and other updates need.
        learned: told of what the publisher has withdrawn, as soon as that is verified.
    """

    family: str
    version: str
    manifest: ManifestRef
    floor: int
    held: ManifestRef | None
    placements: tuple[Placement, ...]
    hardware: str
    remembered: Mapping[str, Choice]
    now: datetime
    course: Course
    base: ActiveRelease | None
    keep: frozenset[str]
    learned: Callable[[Withdrawals], None]


class Installer:
    """Fetches releases; its methods block their thread."""

    def __init__(self, *, releases: Releases, blobs: BlobStore) -> None:
        self._releases = releases
        self._blobs = blobs

    def fetch(self, order: Order) -> Candidate:
        """Return a release whose files are verified and lie in ``blobs/``.

        Raises:
            DisagreementError: assignment and release repository differ.
            InstallRefusedError: the release may not run here.
            TrustError: the repository's metadata does not verify now.
            DownloadError: a file is not the signed one.
            CancelledDownloadError: the order was withdrawn.
            ServerUnreachableError, ServerRefusedError, StoreError: try again later.
        """
        install_rule.check_not_replaced(order.manifest, order.held)
        snapshot = self._releases.refresh(order.now)
        said = snapshot.withdrawals(order.family)
        order.learned(said)
        install_rule.check_not_withdrawn(order.family, order.version, said)
        order = replace(order, floor=max(order.floor, said.security_floor))
        path = order.manifest.path
        target = snapshot.target(path)
        install_rule.check_agreement(
            order.manifest, None if target is None else manifest_ref(path, target)
        )
        manifest = self._manifest(order)
        found = variants.fitting(manifest, order.placements)
        install_rule.check_fitting(manifest, found)
        key = variants.choice_key(order.hardware, found.runnable)
        entering, reason = _entering(found, order.remembered.get(key))
        chosen = {one.variant.name: one.variant for one in entering}.values()
        self._blobs.make_room(
            {variant.sha256: variant.length for variant in chosen},
            keep=order.keep | {order.manifest.sha256},
        )
        for variant in chosen:
            self._fetch_variant(snapshot, manifest, variant, order)
        releases = [variants.release_of(manifest, one, choice=reason) for one in entering]
        several = len(releases) > 1
        return Candidate(
            release=releases[0],
            manifest_sha256=order.manifest.sha256,
            security_counter=manifest.security_counter,
            acceptance=manifest.acceptance,
            memory_bytes=releases[0].memory_bytes,
            contenders=releases if several else [],
            choice_key=key if several else "",
        )

    def _manifest(self, order: Order) -> Manifest:
        ref = order.manifest
        blob = self._blobs.fetch(
            ref.path, length=ref.length, sha256=ref.sha256, course=order.course
        )
        manifest = read_manifest(blob)
        install_rule.check_manifest(
            manifest,
            family=order.family,
            version=order.version,
            path=ref.path,
            floor=order.floor,
        )
        return manifest

    def _fetch_variant(
        self, snapshot: Snapshot, manifest: Manifest, variant: Variant, order: Order
    ) -> None:
        path = target_path(manifest.family, manifest.version, variant.file)
        target = snapshot.target(path)
        if target is None:
            raise install_rule.DisagreementError(f"the release repository has no {path}")
        install_rule.check_variant(
            variant, path=path, length=target.length, sha256=sha256_of(path, target)
        )
        self._blobs.fetch(
            path,
            length=variant.length,
            sha256=variant.sha256,
            course=replace(order.course, base=_base(variant, order.base)),
        )


def _base(variant: Variant, committed: ActiveRelease | None) -> str:
    """Return the hash of the held file that a variant may resemble; empty for none."""
    if committed is None or committed.format != variant.format:
        return ""
    return committed.sha256


def _entering(found: Fitting, remembered: Choice | None) -> tuple[list[Runnable], str]:
    """Return what is still to be chosen from, and what there is to say about the choice."""
    rest = found.why_not_the_rest()
    if len(found.runnable) == 1:
        only = found.runnable[0].label
        return found.runnable, f"{only} is all that runs here; {rest}" if rest else ""
    if remembered is not None:
        for one in found.runnable:
            place = one.placement
            if (one.variant.sha256, place.backend, place.accelerator) == (
                remembered.sha256,
                remembered.backend,
                remembered.accelerator,
            ):
                return [one], remembered.reason
    return found.runnable, rest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest blob.

    Raises:
        InstallRefusedError: it is not a manifest.
        StoreError: it is gone, or the disk does not read it.
    """
    try:
        with path.open("rb") as file:
            return manifests.decode(file.read(MAX_MANIFEST_BYTES + 1))
    except OSError as error:
        raise store.refusal("the manifest cannot be read", error) from error
    except ProtocolError as error:
        raise install_rule.InstallRefusedError(f"the manifest cannot be used: {error}") from error


def variant_of(manifest: Manifest, release: ActiveRelease) -> Variant:
    """Return the variant that a release was made from.

    Raises:
        InstallRefusedError: the manifest has none of that name and hash.
    """
    for variant in manifest.variants:
        if (variant.name, variant.sha256) == (release.variant, release.sha256):
            return variant
    raise install_rule.InstallRefusedError(
        f"the manifest of {release.family} {release.version} has no variant {release.variant}"
    )
