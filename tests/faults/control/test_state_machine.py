"""The whole state machine: each state, and what may go wrong in it.

Deaths are real (`dying_device`): a process ends between two instructions at every durable write.
Errors, hangs, a full disk and jumping clocks come upon the real control code in this process. In
every case the device serves what is committed all the while, comes to rest where it must, and
leaves nothing behind.
"""

import asyncio
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.runtime_api import ShadowReport
from edge_agent.store import StoreError
from fleet_protocol.update_states import UpdateState
from tests.faults.control.update_scenarios import (
    SCENARIOS,
    Scenario,
    World,
    problems,
    settle_under_calls,
)
from tests.simulators import child_process, durable_writes
from tests.simulators.control_device import ControlDevice

_S = UpdateState
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
REACHED_IN = {
    _S.IDLE: "first",
    _S.DOWNLOADING: "good",
    _S.VERIFIED: "good",
    _S.TRIAL: "shadowed",
    _S.PROBATION: "good",
    _S.COMMITTED: "good",
    _S.FAILED: "wrong",
    _S.ROLLED_BACK: "failing",
}
_DAY_MS = 86_400_000
_YEARS_MS = 700 * _DAY_MS


def test_killed_at_every_durable_write(tmp_path: Path) -> None:
    depth = os.environ.get("DEATHS", "short")
    command = child_process.command("tests.faults.control.dying_device", tmp_path, depth)
    deaths = [json.loads(line) for line in child_process.lines_of(command, timeout_s=600)]
    assert [death for death in deaths if death["wrong"]] == []
    died = [death for death in deaths if death["died"]]
    assert len(died) >= 0.9 * len(deaths)
    assert len(died) >= 100
    assert {death["state"] for death in died} == {str(state) for state in UpdateState}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[World, Path]]:
    """For each scenario its world, and the state directory of a device at its beginning."""

    async def begin(scenario: Scenario, root: Path) -> World:
        world = World()
        device = world.device(root, scenario)
        await world.begin(device, scenario)
        await device.kill()
        return world

    made = {}
    for scenario in SCENARIOS:
        root = tmp_path_factory.mktemp("begun") / "d"
        made[scenario.name] = (asyncio.run(begin(scenario, root)), root)
    return made


@dataclass
class Case:
    """A device in a state."""

    device: ControlDevice
    scenario: Scenario
    served: list[str | None]

    async def steps(self, count: int) -> None:
        """Let control work; a disk that refuses ends a step, as it ends a look of the updater."""
        for _ in range(count):
            try:
                progress = await self.device.step()
            except StoreError:
                progress = False
            if not progress:
                self.device.clock.advance(1.0)
            self.served.append(self.device.runtime.serving("animals"))


@asynccontextmanager
async def in_state(
    begun: dict[str, tuple[World, Path]], state: UpdateState, root: Path
) -> AsyncIterator[Case]:
    """Bring a copy of a begun device into a state."""
    scenario = _BY_NAME[REACHED_IN[state]]
    world, start = begun[scenario.name]
    shutil.copytree(start, root)
    device = world.device(root, scenario)
    await device.parts.prepare()
    if state is _S.TRIAL:
        device.runtime.shadowed = [ShadowReport(compared=0, agreed=0)]
    if state is not _S.IDLE:
        await world.assign(device, scenario.assigned_version, scenario.wanted)
        if state in {_S.COMMITTED, _S.FAILED, _S.ROLLED_BACK}:
            await settle_under_calls(device)
        else:
            await device.until(state)
        assert device.record().state is state
    case = Case(device, scenario, [])
    yield case
    scenario.arrange(device)
    await world.assign(device, scenario.assigned_version, scenario.wanted)
    await settle_under_calls(device)
    assert problems(device, scenario, clean_history=True) == []
    if scenario.before is not None:
        assert set(case.served) <= scenario.committed
    await device.kill()


async def control_dies(case: Case) -> None:
    await case.device.restarted()


async def runtime_dies(case: Case) -> None:
    case.device.runtime.boot()
    await case.steps(2)


async def power_is_cut(case: Case) -> None:
    case.device.runtime.boot()
    await case.device.restarted()


async def runtime_is_away(case: Case) -> None:
    case.device.runtime.down = True
    await case.steps(5)
    case.device.runtime.boot()


async def server_is_away(case: Case) -> None:
    case.device.repository.faults.unreachable = True
    await case.steps(5)
    case.device.repository.faults.unreachable = False


async def runtime_hangs(case: Case) -> None:
    """Silent, and alive again when it has been ended; or, with nothing at stake, by itself."""
    case.device.runtime.down = True
    await case.steps(40)
    case.device.runtime.down = False
    if case.device.ended_runtimes == 0:
        assert (
            case.device.all_settled()
            or case.device.record().candidate is None
            or (case.device.record().state is _S.VERIFIED)
        )


async def call_hangs(case: Case) -> None:
    case.device.runtime.running_s = {"animals 1.1.0": 31.0}
    await case.steps(2)
    case.device.runtime.running_s = {}


async def disk_is_full(case: Case) -> None:
    def refuse(what: str) -> int:
        if what.startswith("commit"):
            raise sqlite3.OperationalError("database or disk is full")
        raise OSError(errno.ENOSPC, "No space left on device")

    with durable_writes.watched(before=refuse, after=lambda _: None):
        await case.steps(5)


async def clock_jumps_ahead(case: Case) -> None:
    await _clock_jumps(case, _YEARS_MS)


async def clock_jumps_back(case: Case) -> None:
    await _clock_jumps(case, -_YEARS_MS)


async def _clock_jumps(case: Case, by_ms: int) -> None:
    clock = case.device.clock
    clock.set_wall_clock(clock.now_ms() + by_ms)
    await case.steps(5)
    clock.set_wall_clock(clock.now_ms() - by_ms)


FAULTS: list[Callable[[Case], Awaitable[None]]] = [
    control_dies,
    runtime_dies,
    power_is_cut,
    runtime_is_away,
    server_is_away,
    runtime_hangs,
    call_hangs,
    disk_is_full,
    clock_jumps_ahead,
    clock_jumps_back,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("state", list(UpdateState))
async def test_a_fault_in_a_state(
    begun: dict[str, tuple[World, Path]],
    tmp_path: Path,
    state: UpdateState,
    fault: Callable[[Case], Awaitable[None]],
) -> None:
    async with in_state(begun, state, tmp_path / "d") as case:
        await fault(case)
