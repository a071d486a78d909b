"""A server that dies before or after any of its transactions: the end is the same."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.database import Database
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Plan, Stage
from fleet_server.rollouts.state import Kind, Status
from fleet_server.rollouts.tables import RolloutOrder
from tests.simulators.control_device import Crash, CrashPlan
from tests.simulators.rollout_ledger import Device
from tests.unit.fleet_server.rollouts.conftest import FAILING, World, a_plan

ENDS = (Status.COMPLETED, Status.ROLLED_BACK)


class DyingDatabase(Database):
    """Dies at one of its transactions, as `CrashPlan` says."""

    def __init__(self, url: str, plan: CrashPlan) -> None:
        super().__init__(url)
        self._plan = plan

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        async with super().writing() as session:
            yield session
            self._plan.seen += 1
            if self._plan.seen == self._plan.at and not self._plan.after:
                raise Crash
        if self._plan.seen == self._plan.at:
            raise Crash


async def outcome(world: World, url: str, plan: Plan, crash: CrashPlan) -> tuple[object, ...]:
    """Run a rollout to its end on a server that dies once; return what it came to."""
    rollout = await world.create(plan)
    dying = DyingDatabase(url, crash)
    server = world.server(dying)
    for _ in range(40):
        try:
            await server.once()
        except Crash:
            server = world.server()
            async for device_id, document in world.assignments().documents():
                world.downlink.publish_assignment(device_id, document)  # as every start does
        await world.fleet.step()
        world.clock.advance(seconds=5)
        if await world.status(rollout) in ENDS and await answered(world, rollout):
            break
    await world.run(server, ticks=2)
    await dying.close()
    async with world.database.reading() as session:
        waiting = await session.scalar(select(func.count()).select_from(RolloutOrder))
    kinds = [row.kind for row in await world.history(rollout) if row.kind != Kind.OBSERVED]
    told = {name: device.version for name, device in world.fleet.devices.items()}
    stages = await world.stage_of(rollout)
    states = sorted((stages[n], state) for n, state in (await world.states(rollout)).items())
    return await world.status(rollout), kinds, states, sorted(told.values()), waiting


async def answered(world: World, rollout: int) -> bool:
    return MemberState.RECALLED not in (await world.states(rollout)).values()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fails", [False, True])
async def test_a_server_killed_at_any_transaction(
    world: World, database_url: str, *, fails: bool
) -> None:
    await world.populate(3, lambda _: replace(FAILING) if fails else Device())
    versions = ["2.0.0"] if fails else ["2.0.0", "3.0.0"]

    def plan(number: int) -> Plan:
        return a_plan(
            version=versions[number % len(versions)],
            stages=(Stage(count=1), Stage(percent=100)),
            min_samples=1,
        )

    crash = CrashPlan()
    expected = await outcome(world, database_url, plan(0), crash)
    assert expected[0] is (Status.ROLLED_BACK if fails else Status.COMPLETED)
    assert expected[-1] == 0
    number = 0
    for at in range(1, crash.seen + 1, 2):
        for after in (False, True):
            number += 1
            found = await outcome(world, database_url, plan(number), CrashPlan(at, after))
            if not fails:
                assert set(found[3]) == {versions[number % 2]}  # type: ignore[call-overload]
            assert found[:3] == expected[:3], (at, after)
            assert found[-1] == 0
