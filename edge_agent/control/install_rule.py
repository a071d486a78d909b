"""The install rule: when a release that someone asks for may run on this device. Pure.

1. Assignment and release repository agree on path, length and SHA-256 of the manifest: the server
   alone cannot install anything, and neither can the publisher's key alone.
2. The manifest is that of the release whose path it has: a signed manifest cannot be passed off as
   another family's or version's.
3. The publisher has not withdrawn the release, and its ``security_counter`` is at least the
   family's floor: no way back to a release that the publisher has declared insecure, whatever the
   server asks for.
4. A variant fits the hardware and a backend of the runtime.
5. The variant's target in the release repository agrees with the manifest on length and SHA-256.
"""

from edge_agent.control.assignment import ManifestRef
from edge_agent.control.variants import Fitting
from edge_agent.errors import AgentError
from fleet_protocol.manifest import Manifest, Variant
from fleet_protocol.withdrawals import Withdrawals


class InstallRefusedError(AgentError):
    """The release may not be installed on this device; the message says why."""


class DisagreementError(InstallRefusedError):
    """Assignment and release repository differ, which may be a matter of time: one is older."""


def check_agreement(assigned: ManifestRef, repository: ManifestRef | None) -> None:
    """Accept a manifest that assignment and release repository describe alike (1).

    Raises:
        DisagreementError: they disagree, or the repository does not have it.
    """
    if repository is None:
        raise DisagreementError(f"the release repository has no {assigned.path}")
    if repository != assigned:
        raise DisagreementError(
            f"assignment and release repository disagree about {assigned.path}: "
            f"{assigned.length} bytes {assigned.sha256[:12]}, "
            f"{repository.length} bytes {repository.sha256[:12]}"
        )


def check_not_withdrawn(family: str, version: str, said: Withdrawals) -> None:
    """Accept a release that its publisher has not withdrawn (3).

    Raises:
        InstallRefusedError: it has.
    """
    if version in said.yanked:
        raise InstallRefusedError(
            f"{family} {version} was withdrawn by its publisher: {said.yanked[version]}"
        )


def check_manifest(manifest: Manifest, *, family: str, version: str, path: str, floor: int) -> None:
    """Accept a manifest for a release (2) at a floor (3).

    Raises:
        InstallRefusedError: it is another release's, or its security counter is below the floor.
    """
    if (manifest.family, manifest.version) != (family, version):  # (2)
        raise InstallRefusedError(
            f"{path} holds the manifest of {manifest.family} {manifest.version}"
        )
    if manifest.security_counter < floor:  # (3)
        raise InstallRefusedError(
            f"{manifest.family} {manifest.version} has security counter "
            f"{manifest.security_counter}, this device accepts {floor} and higher"
        )


def check_not_replaced(wanted: ManifestRef, held: ManifestRef | None) -> None:
    """Refuse a version whose content was changed after this device had committed to it.

    ``held`` is the manifest of the committed release of the same version, if there is one.

    Raises:
        InstallRefusedError: same version, other content.
    """
    if held is not None and held != wanted:
        raise InstallRefusedError(
            f"{wanted.path} was published again with other content; a version never changes: "
            "publish a new one"
        )


def check_fitting(manifest: Manifest, found: Fitting) -> None:
    """Accept a release of which a variant can run here (4).

    Raises:
        InstallRefusedError: none can; the message has the reason for each.
    """
    if not found.runnable:
        raise InstallRefusedError(
            f"no variant of {manifest.family} {manifest.version} fits this device: "
            f"{found.why_not_the_rest()}"
        )


def check_variant(variant: Variant, *, path: str, length: int, sha256: str) -> None:
    """Accept a variant whose target in the release repository agrees with the manifest (5).

    Raises:
        InstallRefusedError: they disagree.
    """
    if (variant.length, variant.sha256) != (length, sha256):
        raise InstallRefusedError(
            f"manifest and release repository disagree about {path}: "
            f"{variant.length} bytes {variant.sha256[:12]}, {length} bytes {sha256[:12]}"
        )
