"""A device that serves, its fleet, and an attacker who holds exactly the keys that a test names.

The attacker always owns the network, the server's disk and the broker: it hands the device any
bytes, and it has recorded everything that was ever published. Beyond that it signs only with keys
that stand in `Attacker.holds`; asking for another one is a mistake of the test.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp

from edge_agent.control.server_client import METADATA_ROUTE, TARGETS_ROUTE
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import Release, doubling, fp32, release
from tests.simulators.device_repository import (
    FAR_AWAY,
    START,
    SimulatedRepository,
    signed,
    target_file,
)
from tests.simulators.director import Director

OLD = release("0.9.0", security_counter=0, model=doubling("animals 0.9.0"))
GOOD = release("1.0.0", security_counter=1, model=doubling("animals 1.0.0"))
NEXT = release("1.1.0", security_counter=1, model=doubling("animals 1.1.0"))
LAST = release("2.0.0", security_counter=2, model=doubling("animals 2.0.0"))
EVIL = b"evil" * 4096
FAMILY = "animals"


def listed(made: Release) -> dict[str, TargetFile]:
    """Return how an assignment lists a release."""
    return {made.manifest_path: target_file(made.manifest_path, made.manifest_bytes)}


@dataclass
class World:
    """The fleet and its one device, which has committed to `GOOD`.

    Attributes:
        recorded: what the server handed out after each publication.
        assignments: every assignment that was ever sent to the device.
        calls: answered calls of the application on the device.
    """

    device: ControlDevice
    repository: SimulatedRepository
    director: Director
    recorded: list[dict[str, bytes]] = field(default_factory=list)
    assignments: list[bytes] = field(default_factory=list)
    calls: int = 0

    async def prepare(self) -> None:
        """Publish an old and a good release, one after the other, and let the device run both."""
        for made in (OLD, GOOD):
            self.publishes(made)
            await self.assigns(made)
            await self.device.settle()
        assert self.device.active() == {FAMILY: GOOD.manifest.version}

    def publishes(self, *releases: Release) -> None:
        """Publish releases."""
        self.repository.add(*releases)
        self.recorded.append(dict(self.repository.files))

    async def assigns(self, *releases: Release) -> None:
        """Sign the next assignment and send it."""
        document = self.director.assign(DEVICE, len(self.assignments) + 1, releases)
        self.assignments.append(document)
        await self.device.receive(document)

    async def wants(self, made: Release) -> None:
        """Publish a release and assign it, without a look at what the device does."""
        self.publishes(made)
        await self.assigns(made)

    async def endure(self, *, rounds: int = 40, pause_s: float = 2.0) -> None:
        """Let the device work and its application call, round after round."""
        for _ in range(rounds):
            await self.device.step()
            self.call()
            self.device.clock.advance(pause_s)

    def call(self) -> None:
        """Call the model as the application does: it has to answer, and rightly."""
        version = self.device.runtime.serving(FAMILY)
        assert version is not None, "the device stopped serving"
        answer = self.device.runtime.infer(FAMILY, version, [fp32("x", [1, 2, 3], [1, 3])], ["y"])
        assert answer["y"].data == fp32("y", [2, 4, 6], [1, 3]).data()
        self.calls += 1

    def key(self, name: str) -> CryptoSigner:
        """Return a key of the fleet by its name."""
        directors = {"assignment": self.director.key, "director-root": self.director.root_key}
        return directors.get(name) or self.repository.keys[name]


@dataclass
class Attacker:
    """Owns the wire, and of keys what it ``holds``; of some it has what they were before."""

    world: World
    holds: frozenset[str]
    _kept: dict[str, CryptoSigner] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The version of the newest timestamp, snapshot and family role."""
        return self.world.repository.version

    def key(self, name: str) -> CryptoSigner:
        """Return a key that it holds."""
        assert name in self.holds, f"this attacker does not hold {name}, only {sorted(self.holds)}"
        return self._kept.get(name) or self.world.key(name)

    def keeps(self, *names: str) -> None:
        """Go on with keys as they are now, also after the fleet has replaced them."""
        self._kept |= {name: self.key(name) for name in names}

    def serves(self, name: str, content: bytes) -> None:
        """Hand out a metadata file."""
        self.world.repository.files[METADATA_ROUTE + name] = content

    def replays(self, name: str, *, of: int, under: str = "") -> None:
        """Hand out a metadata file as it was at a publication."""
        self.serves(under or name, self.world.recorded[of][METADATA_ROUTE + name])

    def serves_file(self, path: str, content: bytes, *, in_place_of: bytes | None = None) -> None:
        """Hand out a target under the hash of its content, or under that of another one."""
        folder, _, name = path.rpartition("/")
        digest = hashlib.sha256(content if in_place_of is None else in_place_of).hexdigest()
        self.world.repository.files[f"{TARGETS_ROUTE}{folder}/{digest}.{name}"] = content

    async def sends(self, document: bytes) -> None:
        """Publish on the device's assignment topic."""
        await self.world.device.receive(document)

    async def assigns(self, targets: Mapping[str, TargetFile], *, ahead: int = 1) -> None:
        """Sign an assignment with the stolen key."""
        version = len(self.world.assignments) + ahead
        document = self.world.director.assign_targets(
            DEVICE, version, dict(targets), signer=self.key("assignment")
        )
        await self.sends(document)

    def signs_role(
        self, targets: Mapping[str, bytes], *, version: int, signer: CryptoSigner
    ) -> bytes:
        """Return a role of a family; anybody can do that with a key of their own."""
        listed = {path: target_file(path, content) for path, content in targets.items()}
        return signed(Targets(version=version, expires=START + FAR_AWAY, targets=listed), signer)

    def publishes(
        self, role: bytes, *, version: int, family: str = FAMILY, leaving_out: str = ""
    ) -> None:
        """Publish a family's role under snapshot and timestamp of the stolen online keys.

        Args:
            role: its metadata.
            version: its version.
            family: whose role it is.
            leaving_out: a family that the snapshot does not list.
        """
        online = self.newest + 1
        self.serves(f"{version}.{family}.json", role)
        meta = {
            "targets.json": MetaFile(self.world.repository.offline_version),
            "animals.json": MetaFile(self.newest),
            "plants.json": MetaFile(1),
            f"{family}.json": MetaFile(version),
        }
        meta.pop(f"{leaving_out}.json", None)
        snapshot = Snapshot(version=online, expires=START + FAR_AWAY, meta=meta)
        self.serves(f"{online}.snapshot.json", signed(snapshot, self.key("snapshot")))
        self.stamps(online, snapshot=online)

    def stamps(self, version: int, *, snapshot: int) -> None:
        """Sign a timestamp."""
        content = Timestamp(
            version=version, expires=START + timedelta(days=1), snapshot_meta=MetaFile(snapshot)
        )
        self.serves("timestamp.json", signed(content, self.key("timestamp")))
