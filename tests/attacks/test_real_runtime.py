"""The attacks of the issue's list upon a device whose models are served by a real runtime process.

Control is the real one and the application calls the runtime's public socket, round after round;
only server, broker and clock are simulated. One process outlives all attacks of this module.
"""

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from edge_agent.control.runtime_client import AdminSocket
from edge_agent.control.v2_binary import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import GoldenTensor
from tests.attacks import (
    test_assignments,
    test_delivery,
    test_deltas,
    test_metadata,
    test_rotation,
    test_stolen_keys,
)
from tests.attacks.attack import Attack, repelled
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.simulators.control_device import ControlDevice
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director
from tests.simulators.hostile_fleet import World


class ServedModels(AdminSocket):
    """The runtime process as a `World` looks at it: calls go the way of applications."""

    down = False

    def __init__(self, state: StateDir) -> None:
        super().__init__(state.admin_socket)
        self._public = AdminSocket(state.runtime_socket)

    def serving(self, family: str) -> str | None:
        found = [one for one in self.status().releases if one.active and one.family == family]
        return found[0].version if found else None

    def loaded(self) -> set[str]:
        return {one.version for one in self.status().releases}

    def infer(
        self, family: str, version: str, inputs: Sequence[GoldenTensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        if version == self.serving(family):
            return self._public.infer(family, version, inputs, outputs)
        return super().infer(family, version, inputs, outputs)


class ServingDevice(ControlDevice):
    """Control beside the runtime process."""

    def start(self) -> None:
        """Take the real runtime in the place of the simulated one."""
        # It has what a `World` asks a simulated one.
        self.runtime = ServedModels(self.state)  # type: ignore[assignment]
        super().start()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    with running(tmp_path_factory.mktemp("real") / "d") as process:
        yield process.surveyed()


@pytest.fixture
async def world(runtime: RunningRuntime) -> AsyncIterator[World]:
    """A new device in the folder of the last one, whose runtime lives on and serves nothing."""
    state = runtime.state
    for family in {one.family for one in AdminSocket(state.admin_socket).status().releases}:
        AdminSocket(state.admin_socket).stop_family(family)
    shutil.rmtree(state.trust, ignore_errors=True)
    for path in [*state.root.glob("state.db*"), *state.blobs.glob("*"), state.high_water]:
        path.unlink(missing_ok=True)
    state.active_set.unlink(missing_ok=True)
    repository, director = SimulatedRepository(other_families=["plants"]), Director()
    device = ServingDevice(root=state.root, repository=repository, director=director)
    await device.parts.prepare()
    world = World(device, repository, director)
    await world.prepare()
    yield world
    assert world.calls >= 30
    await device.kill()
    assert runtime.process.poll() is None


A, D, M, S = (module.ATTACKS for module in (
    test_assignments, test_delivery, test_metadata, test_stolen_keys,
))  # fmt: skip
NAMED: dict[str, Attack] = {
    "arbitrary file": D["arbitrary model"],
    "endless data": D["endless model"],
    "slow retrieval": D["slow retrieval"],
    "rollback of root": M["rollback of root"],
    "rollback of targets": M["rollback of targets"],
    "rollback of a family's role": M["rollback of a family's role with the online keys"],
    "rollback of snapshot": M["rollback of snapshot under a new timestamp"],
    "rollback of timestamp": M["rollback of timestamp"],
    "mix-and-match": M["mix-and-match"],
    "wrong device": A["wrong device"],
    "replayed assignment": A["replayed"],
    "emptied assignment": A["emptied with the key"],
    "online keys: unsigned model": S["online keys: unsigned model"],
    "online keys: older targets to a wiped device": S[
        "online keys: older targets to a device that lost cache and database"
    ],
    "online keys: listed, below the floor": S["online keys: older model, listed, below the floor"],
    "publisher of another family": S["publisher of another family, foreign role"],
    "compromised key after its rotation": test_rotation.ATTACKS["the replaced assignment key"],
    "bomb in a delta": test_deltas.BOMB_AND_FILE,
    "path traversal": S["publisher: path traversal"],
}


@pytest.mark.parametrize("name", NAMED)
async def test_the_application_is_answered(world: World, name: str) -> None:
    await repelled(world, NAMED[name])


async def test_the_application_is_answered_through_a_freeze(world: World) -> None:
    await test_metadata.test_a_freeze_raises_an_alarm(world)
