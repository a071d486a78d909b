"""The making of an authority: every key, certificate and first metadata of a fleet, at once.

An offline role begins with as many keys as its `Quorum` says, all of them in ``offline/``; `skerry
provision ceremony` then replaces them by keys that their holders make themselves.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from securesystemslib.signer import CryptoSigner

from provisioning import certificates, durable_files, key_files, tuf_metadata
from provisioning.encrypted_pem import encrypted_pem
from provisioning.errors import ProvisioningError
from provisioning.key_files import PrivateKey
from provisioning.layout import Authority
from signing_keys.authority_certificates import authority

_LOG = logging.getLogger(__name__)


MAX_KEYS = 16


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many keys an offline role has, and how many of them must sign."""

    keys: int = 1
    threshold: int = 1

    @classmethod
    def of(cls, role: str, *, keys: int, threshold: int | None) -> "Quorum":
        """Check what people typed; without a threshold it is the smallest majority.

        Raises:
            ProvisioningError: nobody could reach it, or there are too many keys.
        """
        if not 1 <= keys <= MAX_KEYS:
            raise ProvisioningError(f"--{role}-keys {keys}: use 1 to {MAX_KEYS}")
        if threshold is None:
            return cls(keys, keys // 2 + 1)
        if not 1 <= threshold <= keys:
            raise ProvisioningError(
                f"--{role}-threshold {threshold}: {role} has {keys} keys; use 1 to {keys}, or "
                f"more --{role}-keys"
            )
        return cls(keys, threshold)


ONE = Quorum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an authority is asked for, checked."""

    families: Sequence[str]
    server_names: Sequence[x509.GeneralName]
    root: Quorum
    targets: Quorum
    publisher: Quorum

    @classmethod
    def of(
        cls,
        *,
        families: Sequence[str],
        server_names: Sequence[str],
        root: Quorum = ONE,
        targets: Quorum = ONE,
        publisher: Quorum = ONE,
    ) -> "Plan":
        """Check what people typed.

        Raises:
            ProvisioningError: no family, no server name, or one that cannot be used.
            ProtocolError: a family's name is malformed.
        """
        if not families:
            raise ProvisioningError("name at least one model family with --family")
        return cls(
            families=[tuf_metadata.family(name) for name in dict.fromkeys(families)],
            server_names=certificates.server_names(server_names),
            root=root,
            targets=targets,
            publisher=publisher,
        )


def create(out: Path, plan: Plan, *, passphrase: bytes, now: datetime) -> Authority:
    """Make the authority in ``out``, which is complete afterwards or, on any failure, not there.

    Args:
        out: the directory; absent or empty.
        plan: families and server names.
        passphrase: encrypts every key below ``offline/``.
        now: start of all validities, UTC.

    Raises:
        ProvisioningError: ``out`` is not free, or cannot be written.
    """
    try:
        with durable_files.new_directory(out) as partial:
            _Ceremony(Authority(partial), plan, passphrase, now).hold()
    except OSError as error:
        raise ProvisioningError(f"cannot make the authority {out}: {error}") from error
    _LOG.info("authority_created", extra={"path": str(out), "families": list(plan.families)})
    return Authority(out)


class _Ceremony:
    """Fills one empty directory."""

    def __init__(self, at: Authority, plan: Plan, passphrase: bytes, now: datetime) -> None:
        self._at = at
        self._plan = plan
        self._passphrase = passphrase
        self._now = now

    def hold(self) -> None:
        for directory in self._at.directories()[1:]:
            durable_files.make_directory(directory)
        self._sign_metadata()
        self._issue_certificates()
        for directory in reversed(self._at.directories()):
            durable_files.sync_directory(directory)

    def _sign_metadata(self) -> None:
        at, plan = self._at, self._plan
        keys = tuf_metadata.ReleaseKeys(
            root=self._role(at.root_key, plan.root),
            targets=self._role(at.targets_key, plan.targets),
            publishers={
                family: self._role(at.publisher_key(family), plan.publisher)
                for family in plan.families
            },
            snapshot=self._signer(at.online / "snapshot.pem", online=True),
            timestamp=self._signer(at.online / "timestamp.pem", online=True),
        )
        assignment = self._signer(at.signer / "assignment.pem", online=True)
        release = tuf_metadata.release_metadata(keys, now=self._now)
        director = tuf_metadata.director_root(keys.root, assignment.public_key, now=self._now)
        for name, content in release.items():
            self._publish(at.metadata / name, content)
        self._publish(at.release_root, release["1.root.json"])
        self._publish(at.published_targets, release["1.targets.json"])
        self._publish(at.director_root, director)
        self._publish(at.director / "1.root.json", director)

    def _issue_certificates(self) -> None:
        at, now = self._at, self._now
        fleet_key = self._p256(at.fleet_ca_key)
        fleet_ca = authority("Skerry fleet CA", fleet_key, now=now)
        device_key = self._p256(at.online / "device-ca.pem", online=True)
        device_ca = authority("Skerry device CA", device_key, now=now)
        tls = certificates.server_certificate(
            self._plan.server_names,
            self._p256(at.online / "tls.pem", online=True).public_key(),
            issuer=fleet_ca,
            issuer_key=fleet_key,
            now=now,
        )
        ingest = certificates.ingest_certificate(
            self._p256(at.online / "ingest.pem", online=True).public_key(),
            issuer=device_ca,
            issuer_key=device_key,
            now=now,
        )
        issued: Mapping[Path, x509.Certificate] = {
            at.fleet_ca: fleet_ca,
            at.online / "fleet-ca.crt": fleet_ca,
            at.online / "device-ca.crt": device_ca,
            at.online / "tls.crt": tls,
            at.online / "ingest.crt": ingest,
        }
        for path, certificate in issued.items():
            self._publish(path, certificate.public_bytes(Encoding.PEM))
        claim_key = self._p256(at.claim_key)
        self._publish(at.online / "claim.pub.pem", key_files.public_pem(claim_key.public_key()))

    def _role(self, path: Path, quorum: Quorum) -> tuf_metadata.RoleKeys:
        files = key_files.numbered(path, quorum.keys)
        return tuf_metadata.RoleKeys([self._signer(file) for file in files], quorum.threshold)

    def _signer(self, path: Path, *, online: bool = False) -> CryptoSigner:
        key = key_files.new_ed25519()
        self._store(path, key, online=online)
        return CryptoSigner(key)

    def _p256(self, path: Path, *, online: bool = False) -> EllipticCurvePrivateKey:
        key = key_files.new_p256()
        self._store(path, key, online=online)
        return key

    def _store(self, path: Path, key: PrivateKey, *, online: bool) -> None:
        pem = key_files.plain_pem(key) if online else encrypted_pem(key, self._passphrase)
        durable_files.write_new(path, pem, mode=durable_files.PRIVATE_MODE)

    def _publish(self, path: Path, content: bytes) -> None:
        durable_files.write_new(path, content, mode=durable_files.PUBLIC_MODE)
