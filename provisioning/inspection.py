"""Reads an authority back: which keys, roles and certificates there are, and until when.

Needs no passphrase. Works without ``server/`` too, since that is moved away.
"""

import stat
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Signed, Targets
from tuf.api.serialization import DeserializationError

from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from signing_keys.key_file import is_encrypted

Kind = TypeVar("Kind", bound=Signed)


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A private key on this machine."""

    file: str
    encrypted: bool
    mode: str
    """As ``ls`` has it in digits, such as ``600``."""


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One role of update metadata.

    Attributes:
        repository: ``release`` or ``director``.
        keys: ids of the keys that may sign it; empty where nobody may.
        paths: what a delegated role may sign.
        version: of its metadata; None where that is not here.
        expires: as ISO 8601; None likewise.
    """

    repository: str
    role: str
    keys: list[str]
    threshold: int
    paths: list[str] = []
    version: int | None = None
    expires: str | None = None
    expired: bool = False


class CertificateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One X.509 certificate."""

    file: str
    subject: str
    issuer: str
    names: list[str]
    expires: str
    expired: bool


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about an authority that may be shown."""

    keys: list[KeyFile]
    roles: list[RoleStatus]
    certificates: list[CertificateStatus]


def inspect(authority: Authority, *, now: datetime) -> Inspection:
    """Read an authority.

    Raises:
        ProvisioningError: it is not one, or a file of it is damaged.
    """
    if not authority.release_root.is_file():
        raise ProvisioningError(
            f"{authority.root} is not an authority: {authority.release_root} is missing; "
            "`skerry provision init` makes one"
        )
    return Inspection(
        keys=[
            _key_file(authority, path)
            for path in sorted(authority.root.rglob("*.pem"))
            if not path.name.endswith(".pub.pem")
        ],
        roles=[*_release_roles(authority, now), *_director_roles(authority, now)],
        certificates=[
            status
            for path in sorted(authority.root.rglob("*.crt"))
            if path != authority.fleet_ca_handover  # the same ones, and their proofs
            for status in _certificates(authority, path, now)
        ],
    )


def _key_file(authority: Authority, path: Path) -> KeyFile:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        encrypted = is_encrypted(path.read_bytes())
    except OSError as error:
        raise ProvisioningError(f"cannot read the key {path}: {error.strerror}") from error
    return KeyFile(
        file=str(path.relative_to(authority.root)), encrypted=encrypted, mode=f"{mode:o}"
    )


def _release_roles(authority: Authority, now: datetime) -> list[RoleStatus]:
    metadata = authority.metadata
    root = _read(authority.release_root, Root)
    files = {
        "root": authority.release_root,
        "targets": authority.published_targets,
        "snapshot": _newest(metadata, "snapshot"),
        "timestamp": metadata / "timestamp.json",
    }
    statuses = [_role("release", name, root.roles[name], path, now) for name, path in files.items()]
    statuses.extend(
        _role("release", name, role, _newest(metadata, name), now)
        for name, role in _delegated(files["targets"]).items()
    )
    return statuses


def _delegated(targets: Path) -> dict[str, DelegatedRole]:
    delegations = _read(targets, Targets).delegations if targets.is_file() else None
    return (delegations.roles if delegations else None) or {}


def _director_roles(authority: Authority, now: datetime) -> list[RoleStatus]:
    root = _read(authority.director_root, Root)
    return [
        _role("director", "root", root.roles["root"], authority.director_root, now),
        _role("director", "targets", root.roles["targets"], None, now),
    ]


def _newest(metadata: Path, role: str) -> Path:
    """Return the file of a role's highest version, or the first one's name where there is none."""
    numbers = [
        int(path.name.partition(".")[0])
        for path in metadata.glob(f"*.{role}.json")
        if path.name.partition(".")[0].isdigit()
    ]
    return metadata / f"{max(numbers, default=1)}.{role}.json"


def _role(repository: str, name: str, role: Role, path: Path | None, now: datetime) -> RoleStatus:
    signed = _read(path, Signed) if path and path.is_file() else None  # type: ignore[type-abstract]
    return RoleStatus(
        repository=repository,
        role=name,
        keys=list(role.keyids),
        threshold=role.threshold,
        paths=list(role.paths or []) if isinstance(role, DelegatedRole) else [],
        version=signed.version if signed else None,
        expires=signed.expires.isoformat() if signed else None,
        expired=signed.is_expired(now) if signed else False,
    )


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        signed = Metadata[Root].from_bytes(path.read_bytes()).signed
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error
    except (DeserializationError, RepositoryError) as error:
        raise ProvisioningError(f"{path} is not update metadata: {error}") from error
    if not isinstance(signed, kind):
        raise ProvisioningError(f"{path} holds metadata of another type: {signed.type}")
    return signed


def _certificates(authority: Authority, path: Path, now: datetime) -> list[CertificateStatus]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
        return [_status(authority, path, each, now) for each in found]
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ProvisioningError(f"{path} is not a certificate: {error}") from error


def _status(
    authority: Authority, path: Path, certificate: x509.Certificate, now: datetime
) -> CertificateStatus:
    return CertificateStatus(
        file=str(path.relative_to(authority.root)),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_alternative_names(certificate),
        expires=certificate.not_valid_after_utc.isoformat(),
        expired=now >= certificate.not_valid_after_utc,
    )


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in extension.value]
