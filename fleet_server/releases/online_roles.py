"""Makes snapshot and timestamp: the two roles whose keys are online. Bytes in, bytes out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from fleet_server.errors import SetupError

TIMESTAMP_LIFETIME = timedelta(days=1)
SNAPSHOT_LIFETIME = timedelta(days=7)


def load_signer(path: Path, root: Root, role: str) -> Signer:
    """Read an Ed25519 key and tie it to the key that a root names for a role.

    Raises:
        SetupError: the file cannot be read, or the root does not name this key.
    """
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError(f"cannot read the {role} key {path}: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SetupError(f"the {role} key {path} is not an Ed25519 key")
    public = private.public_key().public_bytes_raw().hex()
    for keyid in root.roles[role].keyids:
        key = root.keys[keyid]
        if isinstance(key, SSlibKey) and key.keyval.get("public") == public:
            return CryptoSigner(private, key)
    raise SetupError(f"the key {path} is not the one that the root metadata names for {role}")


@dataclass(frozen=True, slots=True)
class OnlineSigners:
    """The keys of the two roles."""

    snapshot: Signer
    timestamp: Signer

    def sign_snapshot(
        self, *, version: int, meta: dict[str, MetaFile], now: datetime
    ) -> Metadata[Snapshot]:
        """Return a signed snapshot of the given metadata files."""
        expires = (now + SNAPSHOT_LIFETIME).replace(microsecond=0)
        metadata = Metadata(Snapshot(version=version, expires=expires, meta=meta))
        metadata.sign(self.snapshot)
        return metadata

    def sign_timestamp(
        self, *, version: int, snapshot_version: int, snapshot: bytes, now: datetime
    ) -> Metadata[Timestamp]:
        """Return a signed timestamp over a snapshot."""
        expires = (now + TIMESTAMP_LIFETIME).replace(microsecond=0)
        meta = MetaFile.from_data(snapshot_version, snapshot, ["sha256"])
        metadata = Metadata(Timestamp(version=version, expires=expires, snapshot_meta=meta))
        metadata.sign(self.timestamp)
        return metadata


def renewal_due(expires: datetime, lifetime: timedelta, now: datetime) -> bool:
    """Say whether half of a lifetime is gone."""
    return now >= expires - lifetime / 2
