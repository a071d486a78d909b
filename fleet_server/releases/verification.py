"""Decides whether uploaded metadata may become the current one of its family: bytes in, no I/O.

The checks, each with the attack that it stops:

1. Size and form (memory).
2. Signed by the threshold of keys that the offline targets role delegates to (a stolen API token
   publishes a model).
3. Not expired, and exactly one version after the current one (an old signed list is replayed).
4. Every target lies in the delegated path and has one SHA-256 (a publisher writes into another
   family).
5. No published target changes (a release is swapped under its version); a release disappears as a
   whole, is named as yanked, and never comes back; the security floor never falls.
6. A new release is one manifest and exactly the files that the manifest names, with the lengths and
   hashes that the manifest states (a manifest that lies about its files).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile, Targets

from fleet_protocol import manifest as manifests
from fleet_protocol import names, withdrawals
from fleet_protocol.errors import ProtocolError
from fleet_server import tuf_files
from fleet_server.errors import ConflictError, MalformedError, RefusedError, TooLargeError

MAX_METADATA_BYTES = 4 * 1024 * 1024
"""python-tuf's client reads up to 5,000,000 bytes."""

MAX_TARGETS = 20_000
_SLASHES = 3
"""In ``models/<family>/<version>/<file>``; another form is refused further on."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a target is: its length in bytes and its SHA-256."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Verified metadata and what it adds.

    Attributes:
        added: target path to file, for every target that the current metadata does not have.
    """

    family: str
    version: int
    metadata: bytes
    added: Mapping[str, StoredFile]

    @property
    def releases(self) -> list[str]:
        """Versions of the releases that it adds."""
        return sorted({names.parse_target_path(path)[1] for path in self.added})


@dataclass(frozen=True, slots=True)
class Current:
    """What is published, as far as new metadata must follow it.

    Attributes:
        families: lists of families that verify.
        versions: of every targets role that the snapshot names, verifying or not.
    """

    families: Mapping[str, Targets]
    versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Index:
    """One release as the index lists it."""

    manifest_path: str
    manifest_file: StoredFile
    manifest: manifests.Manifest
    size_bytes: int


def stored_file(target: TargetFile) -> StoredFile:
    """Return length and hash of a TUF target.

    Raises:
        RefusedError: it has no SHA-256.
    """
    digest = target.hashes.get("sha256")
    if digest is None or set(target.hashes) != {"sha256"}:
        raise RefusedError(f"the target {target.path} must be signed with its SHA-256 alone")
    return StoredFile(target.length, digest)


def verify_metadata(payload: bytes, *, targets: Targets, current: Current, now: datetime) -> Upload:
    """Check uploaded metadata: steps 1 to 5.

    Args:
        payload: the delegated role's metadata as uploaded.
        targets: the repository's targets role.
        current: what is published.
        now: the present.

    Raises:
        TooLargeError: larger than `MAX_METADATA_BYTES`.
        MalformedError: not TUF targets metadata.
        RefusedError: one of the other checks failed.
        ConflictError: its version is not the next one.
    """
    signed, metadata = _parsed(payload)  # (1)
    role = _signing_role(metadata, targets)  # (2)
    if signed.is_expired(now):  # (3)
        raise RefusedError(f"the metadata of {role.name} expired at {signed.expires.isoformat()}")
    published = current.families.get(role.name)
    expected = current.versions.get(role.name, 0) + 1
    if signed.version != expected:
        raise ConflictError(
            f"the metadata of {role.name} has version {signed.version} and {expected} is next; "
            "another upload came first: read the repository again, sign and send anew"
        )
    return Upload(role.name, signed.version, payload, _added(signed, role, published))


def verify_release(
    manifest: bytes, *, family: str, version: str, files: Mapping[str, StoredFile]
) -> Index:
    """Check that a release is what its manifest says: step 6.

    Args:
        manifest: the content of its ``manifest.json``, already checked against the signed hash.
        family: the family by its path.
        version: the version by its path.
        files: the signed files of the release by file name, the manifest among them.

    Raises:
        RefusedError: they do not agree.
    """
    try:
        decoded = manifests.decode(manifest)
    except ProtocolError as error:
        raise RefusedError(f"{family} {version}: {error}") from error
    if (decoded.family, decoded.version) != (family, version):
        raise RefusedError(
            f"the manifest below models/{family}/{version}/ is one of "
            f"{decoded.family} {decoded.version}"
        )
    stated = {
        variant.file: StoredFile(variant.length, variant.sha256) for variant in decoded.variants
    }
    signed = {name: file for name, file in files.items() if name != manifests.MANIFEST_FILE}
    for name in sorted(stated.keys() | signed.keys()):
        if stated.get(name) != signed.get(name):
            raise RefusedError(
                f"{family} {version}: manifest and signed metadata disagree about {name}: "
                f"{_words(stated.get(name))} and {_words(signed.get(name))}"
            )
    return Index(
        manifest_path=names.target_path(family, version, manifests.MANIFEST_FILE),
        manifest_file=files[manifests.MANIFEST_FILE],
        manifest=decoded,
        size_bytes=sum(file.length for file in files.values()),
    )


def by_release(files: Mapping[str, StoredFile]) -> dict[tuple[str, str], dict[str, StoredFile]]:
    """Group target paths to (family, version), then file name.

    Raises:
        RefusedError: a path is no path of a release, or a release has no manifest.
    """
    releases: dict[tuple[str, str], dict[str, StoredFile]] = {}
    for path, file in files.items():
        try:
            family, version, name = names.parse_target_path(path)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
        releases.setdefault((family, version), {})[name] = file
    for (family, version), found in releases.items():
        if manifests.MANIFEST_FILE not in found:
            raise RefusedError(f"the release {family} {version} has no {manifests.MANIFEST_FILE}")
    return releases


def files_of(signed: Targets) -> dict[str, StoredFile]:
    """Return the files of a role by target path.

    Raises:
        RefusedError: a target has no SHA-256.
    """
    return {path: stored_file(target) for path, target in signed.targets.items()}


def _parsed(payload: bytes) -> tuple[Targets, Metadata[Targets]]:
    if len(payload) > MAX_METADATA_BYTES:
        raise TooLargeError(
            f"the metadata has more than {MAX_METADATA_BYTES} bytes",
            limit_bytes=MAX_METADATA_BYTES,
        )
    try:
        metadata = Metadata[Targets].from_bytes(payload)
    except (RepositoryError, ValueError, TypeError, RecursionError) as error:
        reason = tuf_files.unreadable(error)
        raise MalformedError(f"the field metadata is not TUF metadata: {reason}") from error
    if not isinstance(metadata.signed, Targets):
        raise MalformedError("the field metadata must hold the targets metadata of one family")
    if metadata.signed.delegations is not None:
        raise RefusedError("the metadata of a family must not delegate further")
    if len(metadata.signed.targets) > MAX_TARGETS:
        raise RefusedError(f"the metadata lists more than {MAX_TARGETS} targets")
    return metadata.signed, metadata


def _signing_role(metadata: Metadata[Targets], targets: Targets) -> DelegatedRole:
    roles: Iterable[DelegatedRole] = ()
    if targets.delegations is not None and targets.delegations.roles is not None:
        roles = targets.delegations.roles.values()
    verified = [
        role
        for role in roles
        if targets.get_verification_result(role.name, metadata.signed_bytes, metadata.signatures)
    ]
    for role in verified:
        if all(role.is_delegated_path(path) for path in metadata.signed.targets):
            return role
    if verified:
        raise RefusedError(
            f"the metadata signed for {verified[0].name} lists targets outside "
            f"{', '.join(verified[0].paths or ())}"
        )
    raise RefusedError(
        "the metadata is not signed by enough keys of any family's publisher; nothing was kept"
    )


def _added(
    signed: Targets, role: DelegatedRole, published: Targets | None
) -> dict[str, StoredFile]:
    before = files_of(published) if published else {}
    after = files_of(signed)
    _check_yanked(signed, role.name, before, published)
    for path, file in before.items():
        if path in after and after[path] != file:
            raise RefusedError(
                f"{path} is published with other content: a release never changes; "
                "publish it under a new version"
            )
    added = {path: file for path, file in after.items() if path not in before}
    for (family, version), files in by_release(added).items():
        if family != role.name:
            raise RefusedError(f"the role {role.name} lists the release {family} {version}")
        _check_lengths(files)
    return added


def _check_yanked(
    signed: Targets, family: str, before: Mapping[str, StoredFile], published: Targets | None
) -> None:
    """Accept what a list says of withdrawn releases, and that others are still there (5)."""
    try:
        said = withdrawals.of(signed.unrecognized_fields)
        said_before = withdrawals.of(published.unrecognized_fields if published else {})
    except ProtocolError as error:
        raise RefusedError(f"the metadata of {family}: {error}") from error
    if said.security_floor < said_before.security_floor:
        raise RefusedError(
            f"the metadata of {family} lowers the security floor from "
            f"{said_before.security_floor} to {said.security_floor}: it only rises"
        )
    forgotten = said_before.yanked.keys() - said.yanked.keys()
    if forgotten:
        raise RefusedError(f"the metadata of {family} forgets that {min(forgotten)} was yanked")
    listed = {path.split("/")[2] for path in signed.targets if path.count("/") == _SLASHES}
    back = listed & said.yanked.keys()
    if back:
        raise RefusedError(f"{family} {min(back)} was yanked and cannot be published again")
    for path in before.keys() - signed.targets.keys():
        version = names.parse_target_path(path)[1]
        if version not in said.yanked:
            raise RefusedError(
                f"the metadata of {family} no longer lists {path}: a published release stays; "
                "only one that it names as yanked may go"
            )


def _check_lengths(files: Mapping[str, StoredFile]) -> None:
    for name, file in files.items():
        limit = (
            manifests.MAX_MANIFEST_BYTES
            if name == manifests.MANIFEST_FILE
            else manifests.MAX_VARIANT_BYTES
        )
        if not 0 < file.length <= limit:
            raise RefusedError(f"{name} has {file.length} bytes, 1 to {limit} are accepted")


def _words(file: StoredFile | None) -> str:
    return f"{file.length} bytes {file.sha256[:16]}…" if file else "absent"
