"""Where everything of a fleet's authority lies below its one directory.

``offline/`` stays with the people who answer for the fleet, ``public/`` may be shown to anyone,
``server/`` is moved to the server, where it becomes the data directory.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Authority:
    """The paths of one authority."""

    root: Path

    @property
    def offline(self) -> Path:
        """Private keys that never touch a server, each encrypted with the passphrase."""
        return self.root / "offline"

    @property
    def public(self) -> Path:
        """Roots of trust: TUF roots and the certificate authority of the server."""
        return self.root / "public"

    @property
    def server(self) -> Path:
        """The server's data directory, made here and moved there."""
        return self.root / "server"

    @property
    def root_key(self) -> Path:
        """Signs both TUF roots."""
        return self.offline / "root.pem"

    @property
    def targets_key(self) -> Path:
        """Delegates model families to publishers."""
        return self.offline / "targets.pem"

    def publisher_key(self, family: str) -> Path:
        """Signs the releases of one family."""
        return self.offline / f"publisher-{family}.pem"

    @property
    def claim_key(self) -> Path:
        """Signs claim tokens."""
        return self.offline / "claim.pem"

    @property
    def fleet_ca_key(self) -> Path:
        """Signs the certificates that servers show; those of later ones are numbered."""
        return self.offline / "fleet-ca.pem"

    @property
    def release_root(self) -> Path:
        """Root metadata of the release repository."""
        return self.public / "release-root.json"

    @property
    def director_root(self) -> Path:
        """Root metadata of the assignments."""
        return self.public / "director-root.json"

    @property
    def published_targets(self) -> Path:
        """The current targets metadata of the release repository: who publishes which family."""
        return self.public / "targets.json"

    @property
    def fleet_ca(self) -> Path:
        """Certificates of the authorities behind the server's certificates, the oldest first."""
        return self.public / "fleet-ca.crt"

    @property
    def fleet_ca_handover(self) -> Path:
        """All fleet CAs with the proofs that one follows another, if one does."""
        return self.public / "fleet-ca-handover.crt"

    @property
    def online(self) -> Path:
        """What the server's API, broker and ingest hold."""
        return self.server / "online"

    @property
    def signer(self) -> Path:
        """What only the server's signer process holds."""
        return self.server / "signer"

    @property
    def metadata(self) -> Path:
        """The release repository's metadata, named for consistent snapshots."""
        return self.server / "repository" / "metadata"

    @property
    def targets(self) -> Path:
        """The release repository's files, empty at first."""
        return self.server / "repository" / "targets"

    @property
    def director(self) -> Path:
        """The director's root metadata as the server hands it out."""
        return self.server / "director"

    def directories(self) -> tuple[Path, ...]:
        """Return every directory, parents before children."""
        return (
            self.root,
            self.offline,
            self.public,
            self.server,
            self.online,
            self.signer,
            self.metadata.parent,
            self.metadata,
            self.targets,
            self.director,
        )
