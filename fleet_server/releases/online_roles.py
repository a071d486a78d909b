"""Makes snapshot and timestamp: the two roles whose keys are online. Bytes in, bytes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from fleet_server.online_keys import OnlineKeys

TIMESTAMP_LIFETIME = timedelta(days=1)
SNAPSHOT_LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class OnlineSigners:
    """The keys of the two roles."""

    snapshot: Signer
    timestamp: Signer

    @classmethod
    def of(cls, keys: Sequence[OnlineKeys], root: Root) -> "OnlineSigners":
        """Open the keys that a root names.

        Args:
            keys: the candidates for snapshot and for timestamp.
            root: the newest.

        Raises:
            SetupError: one of them is not here.
        """
        snapshot, timestamp = keys
        return cls(
            snapshot=snapshot.signer_for(root, Snapshot.type),
            timestamp=timestamp.signer_for(root, Timestamp.type),
        )

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
