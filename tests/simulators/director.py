"""The fleet's signer of assignments, in memory."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, TargetFile, Targets

from fleet_protocol import delivery
from fleet_protocol.assignments import Binding, extra_fields
from fleet_protocol.delivery import Terms
from tests.simulators.device_releases import Release
from tests.simulators.device_repository import FAR_AWAY, START, signed, target_file


class Director:
    """Signs assignments as the fleet's signer does.

    Attributes:
        root: its root metadata, as a claim carries it.
    """

    def __init__(self, *, now: datetime | None = None) -> None:
        self._now = now or START
        self.root_key = CryptoSigner.generate_ed25519()
        self.key = CryptoSigner.generate_ed25519()
        self.root = self.make_root(1, self.root_key, self.root_key)

    def rotate(self, version: int, *, expires: datetime | None = None) -> bytes:
        """Replace the assignment key; return the root that says so."""
        self.key = CryptoSigner.generate_ed25519()
        return self.make_root(version, self.root_key, self.root_key, expires=expires)

    def make_root(
        self,
        version: int,
        key: CryptoSigner,
        *signers: CryptoSigner,
        expires: datetime | None = None,
    ) -> bytes:
        """Return a root with a root key, signed by some."""
        root = Root(version=version, expires=expires or self._now + FAR_AWAY)
        root.add_key(key.public_key, "root")
        root.add_key(self.key.public_key, "targets")
        return signed(root, *signers)

    def assign(
        self,
        device_id: str,
        version: int,
        releases: Iterable[Release],
        *,
        expires: datetime | None = None,
        terms: Mapping[str, Terms] | None = None,
    ) -> bytes:
        """Return an assignment; ``terms`` of delivery by family."""
        return self.assign_targets(
            device_id,
            version,
            {
                one.manifest_path: target_file(one.manifest_path, one.manifest_bytes)
                for one in releases
            },
            expires=expires,
            terms=terms,
        )

    def assign_targets(  # noqa: PLR0913 (what a test wants to get wrong, by keyword)
        self,
        device_id: str,
        version: int,
        targets: dict[str, TargetFile],
        *,
        expires: datetime | None = None,
        fields: dict[str, object] | None = None,
        terms: Mapping[str, Terms] | None = None,
        signer: CryptoSigner | None = None,
    ) -> bytes:
        """Return an assignment of whatever a test wants to have signed."""
        binding = Binding(device_id=device_id, run_nothing=not targets)
        content = Targets(
            version=version,
            expires=expires or self._now + timedelta(days=30),
            targets=targets,
            unrecognized_fields=(
                {**extra_fields(binding), **delivery.extra_fields(terms or {})}
                if fields is None
                else fields
            ),
        )
        return signed(content, signer or self.key)
