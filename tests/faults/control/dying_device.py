"""A process that kills devices at each durable write; `test_state_machine` runs it.

For each scenario a device is brought to its beginning once. Then, for each durable write of the
update and either side of it, a child process gets a copy, updates, and ends there by ``os._exit``:
no handler runs, no buffer is flushed, no lock is released by us. The parent starts a device on what
the child left on the disk, lets it come to rest and looks. Prints one JSON line for each death.

The process has one thread when it forks.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path

from edge_agent.control.active_set import ActiveSetFile
from tests.faults.control.update_scenarios import (
    SCENARIOS,
    Scenario,
    World,
    problems,
    settle_under_calls,
)
from tests.simulators import durable_writes
from tests.simulators.control_device import ControlDevice

_KILLED = 77


class Dying:
    """Counts the durable writes of a scenario, or dies at one of them."""

    def __init__(self, *, at: int = 0, side: str = "") -> None:
        self.writes: list[str] = []
        self._at = at
        self._side = side

    def before(self, what: str) -> int:
        """Take note that a write begins."""
        self.writes.append(what)
        number = len(self.writes)
        self._die(number, "before")
        return number

    def after(self, number: int) -> None:
        """Take note that it has ended."""
        self._die(number, "after")

    def _die(self, number: int, side: str) -> None:
        if (number, side) == (self._at, self._side):
            os._exit(_KILLED)


async def _update(world: World, root: Path, scenario: Scenario, dying: Dying) -> None:
    device = world.device(root, scenario)
    await device.parts.prepare()
    with durable_writes.watched(before=dying.before, after=dying.after):
        await world.update(device, scenario)
    await device.kill()


async def _prepared(world: World, root: Path, scenario: Scenario) -> None:
    device = world.device(root, scenario)
    await world.begin(device, scenario)
    await device.kill()


async def _survivor(
    world: World, root: Path, scenario: Scenario
) -> tuple[str | None, str, list[str]]:
    """Start on what was left; return what the runtime booted, the state found, what is wrong."""
    device = world.device(root, scenario)
    booted = device.runtime.serving("animals")
    state = _state(device)
    wrong = []
    if booted != ActiveSetFile(device.state.active_set).read().get("animals", _Nothing).version:
        wrong.append("the runtime did not boot what is committed")
    if scenario.before is not None and booted not in scenario.committed:
        wrong.append(f"after the death {booted} served")
    await device.parts.prepare()
    if booted is not None:
        device.runtime.answer_calls("animals", good=1)
    await world.assign(device, scenario.assigned_version, scenario.wanted)  # the broker keeps it
    await settle_under_calls(device)
    wrong += problems(device, scenario, clean_history=True)
    await device.kill()
    return booted, state, wrong


class _Nothing:
    version = None


def _state(device: ControlDevice) -> str:
    with contextlib.suppress(KeyError):
        return str(device.record().state)
    return "idle"


def _died(world: World, copy: Path, scenario: Scenario, dying: Dying) -> bool:
    """Say whether a child died where it should; threads may make one write fewer than before."""
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(_update(world, copy, scenario, dying))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, _KILLED}:
        raise SystemExit(f"the child of {scenario.name} failed before it could die")
    return code == _KILLED


def main(folder: str, depth: str) -> None:
    """Run deaths in a folder: all of them, or, if it shall be ``short``, a part.

    The part has both sides of every write of a good update. Of the others it leaves out the `fsync`
    calls, each of which lies between two writes that are there.
    """
    logging.disable(logging.CRITICAL)
    root = Path(folder)
    for scenario in SCENARIOS:
        world = World()
        start = root / scenario.name
        asyncio.run(_prepared(world, start, scenario))
        rehearsal = Dying()
        copy = root / "copy"
        shutil.copytree(start, copy)
        asyncio.run(_update(world, copy, scenario, rehearsal))
        whole = depth != "short" or scenario.name == "good"
        for at, what in enumerate(rehearsal.writes, start=1):
            if not whole and what.startswith("fsync"):
                continue
            for side in ("before", "after") if whole else ("after",):
                shutil.rmtree(copy)
                shutil.copytree(start, copy)
                died = _died(world, copy, scenario, Dying(at=at, side=side))
                booted, state, wrong = asyncio.run(_survivor(world, copy, scenario))
                death = {
                    "scenario": scenario.name,
                    "at": at,
                    "side": side,
                    "write": what,
                    "died": died,
                    "state": state,
                    "booted": booted,
                    "wrong": wrong,
                }
                sys.stdout.write(json.dumps(death) + "\n")
        shutil.rmtree(copy)
