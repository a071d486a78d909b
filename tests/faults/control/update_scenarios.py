"""Updates that between them pass through every state, and what must be true however they end."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime_api import ShadowReport
from fleet_protocol.manifest import Acceptance, Shadowing
from fleet_protocol.update_states import TRANSITIONS, UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import Release, release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director

FIRST = release("1.0.0")
SHADOWED = Acceptance(shadow=Shadowing(requests=5))


@dataclass(frozen=True)
class Scenario:
    """One update.

    Attributes:
        before: committed before it begins; None for a new device.
        wanted: assigned then.
        arrange: makes the runtime what the scenario needs, before anything is assigned.
        ends: version and state in which the device must come to rest.
    """

    name: str
    before: Release | None
    wanted: Release
    ends: tuple[str | None, UpdateState]
    arrange: Callable[[ControlDevice], None] = lambda _: None

    @property
    def assigned_version(self) -> int:
        return 2

    @property
    def committed(self) -> set[str]:
        """Versions that the device may serve at any moment."""
        return {made.manifest.version for made in (self.before, self.wanted) if made is not None}


def _wrong(device: ControlDevice) -> None:
    device.runtime.models["1.1.0"] = lambda value: value


def _failing(device: ControlDevice) -> None:
    device.runtime.failing = {"1.1.0"}


def _agreeing(device: ControlDevice) -> None:
    device.runtime.shadowed = [ShadowReport(compared=5, agreed=5)]


SECOND = release("1.1.0", security_counter=1)
SCENARIOS = [
    Scenario("first", None, FIRST, ("1.0.0", UpdateState.COMMITTED)),
    Scenario("good", FIRST, SECOND, ("1.1.0", UpdateState.COMMITTED)),
    Scenario(
        "shadowed",
        FIRST,
        release("1.1.0", acceptance=SHADOWED),
        ("1.1.0", UpdateState.COMMITTED),
        _agreeing,
    ),
    Scenario("wrong", FIRST, SECOND, ("1.0.0", UpdateState.FAILED), _wrong),
    Scenario("failing", FIRST, SECOND, ("1.0.0", UpdateState.ROLLED_BACK), _failing),
]


class World:
    """What outlives every device: the publisher and the director."""

    def __init__(self) -> None:
        self.repository = SimulatedRepository()
        self.director = Director()
        self._added: list[Release] = []
        self._documents: dict[tuple[int, str], bytes] = {}

    def device(self, root: Path, scenario: Scenario) -> ControlDevice:
        """Start a device over a state directory; its runtime boots."""
        device = ControlDevice(root=root, repository=self.repository, director=self.director)
        scenario.arrange(device)
        return device

    async def assign(self, device: ControlDevice, version: int, wanted: Release) -> None:
        """Publish a release if need be and assign it; the same call gives the same document."""
        if wanted not in self._added:
            self._added.append(wanted)
            self.repository.add(wanted)
        key = (version, wanted.manifest_path + str(wanted.manifest.acceptance))
        if key not in self._documents:
            self._documents[key] = self.director.assign(DEVICE, version, [wanted])
        await device.receive(self._documents[key])

    async def begin(self, device: ControlDevice, scenario: Scenario) -> None:
        """Bring a new device to where the scenario begins."""
        await device.parts.prepare()
        if scenario.before is not None:
            await self.assign(device, 1, scenario.before)
            await device.settle()

    async def update(self, device: ControlDevice, scenario: Scenario) -> None:
        """Assign the update and let the device come to rest; calls come in meanwhile."""
        await self.assign(device, scenario.assigned_version, scenario.wanted)
        await settle_under_calls(device)


async def settle_under_calls(device: ControlDevice) -> None:
    """Let the device come to rest while an application calls it."""
    quiet = 0
    for _ in range(400):
        if device.runtime.serving("animals") in device.runtime.failing:
            device.runtime.answer_calls("animals", bad=5)
        progress = await device.step()
        quiet = 0 if progress or not device.all_settled() else quiet + 1
        if quiet > 3:
            return
        if not progress:
            device.clock.advance(1.0)
    raise AssertionError(f"the device did not come to rest: {device.records()}")


def problems(device: ControlDevice, scenario: Scenario, *, clean_history: bool) -> list[str]:
    """Return what is wrong with a device that has come to rest."""
    version, state = scenario.ends
    found = []
    if device.record().state is not state:
        found.append(f"it ended {device.record().state}, not {state}: {device.record().detail}")
    if device.active() != {"animals": version}:
        found.append(f"active.json has {device.active()}, not {version}")
    if device.runtime.serving("animals") != version:
        found.append(f"{device.runtime.serving('animals')} serves, not {version}")
    if device.runtime.loaded() != {version}:
        found.append(f"in memory are {device.runtime.loaded()}")
    kept = scenario.wanted if state is UpdateState.COMMITTED else scenario.before
    if kept is not None and _names(device.state.blobs) != _blobs_of(kept):
        found.append(f"leaked or lost blobs: {sorted(_names(device.state.blobs))}")
    leftovers = [path.name for path in device.state.root.rglob("*.new")]
    if leftovers:
        found.append(f"half-written files stay: {leftovers}")
    if clean_history:
        found += _history(device)
    return found


def _history(device: ControlDevice) -> list[str]:
    state = UpdateState.IDLE
    for version, following in device.states():
        if following is None:
            continue
        if following not in TRANSITIONS[state]:
            return [f"{version} went from {state} to {following}"]
        state = following
    return []


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _blobs_of(kept: Release) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in (kept.manifest_bytes, kept.model)}
