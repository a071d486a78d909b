"""What a rollout keeps of its members is what counting them gives, whatever happens to it."""

import asyncio
import importlib
import random
from dataclasses import replace

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, select, update

from fleet_protocol.update_states import UpdateState
from fleet_server.database import Database
from fleet_server.database_engine import make_engine
from fleet_server.devices.tables import Device as DeviceRow
from fleet_server.errors import ConflictError
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import OnFailure
from fleet_server.rollouts.tables import Rollout
from fleet_server.rollouts.tally import Tally
from tests.simulators.rollout_ledger import Device
from tests.unit.fleet_server.rollouts.conftest import FAILING, SILENT, World, a_plan

_S = MemberState
_FATES = (Device(), Device(), Device(takes_ms=20_000), FAILING, SILENT)


async def _something(world: World, rollout: int, draws: random.Random) -> None:
    """Let an operator or a device do one thing, as far as it is allowed."""
    names = sorted(world.fleet.devices)
    wanted = draws.choice(["joins", "retry", "gone", "answers", *Intervention])
    if wanted == "joins":
        known = await world.join(f"cam-{len(names):03}")
        world.fleet.devices |= known
    elif wanted == "gone":
        async with world.database.writing() as session:
            gone = update(DeviceRow).where(DeviceRow.id == draws.choice(names))
            await session.execute(gone.values(decommissioned_ms=1))
    elif wanted == "answers":
        for device in world.fleet.devices.values():
            device.fate = device.fate or UpdateState.COMMITTED
    try:
        if wanted == "retry":
            await world.rollouts.retry(rollout, draws.choice(names), who="ann")
        elif isinstance(wanted, Intervention):
            await world.rollouts.intervene(rollout, wanted, who="ann", why="")
    except ConflictError:
        pass


@pytest.mark.parametrize("seed", range(3))
async def test_two_servers_keep_the_count_of_a_history(
    world: World, database_url: str, seed: int
) -> None:
    draws = random.Random(seed)  # noqa: S311 (repeatable, not secret)
    await world.populate(12, lambda _: replace(draws.choice(_FATES)))
    plan = a_plan(
        failure_threshold=draws.choice([0.1, 0.6]),
        on_failure=draws.choice(list(OnFailure)),
        download_ahead=draws.choice([False, True]),
    )
    rollout = await world.create(plan)
    other = Database(database_url)
    servers = [world.server(), world.server(other)]
    try:
        for _ in range(14):
            await asyncio.gather(
                *(server.once() for server in servers), _something(world, rollout, draws)
            )
            await world.check_tallies()
            await world.fleet.step()
            world.clock.advance(seconds=15)
    finally:
        await other.close()
    await _migrated_again(world, database_url)


async def _migrated_again(world: World, url: str) -> None:
    """Let the migration count what the servers have counted."""
    async with world.database.writing() as session:
        await session.execute(update(Rollout).values(tally="[]"))

    def count_members(connection: Connection) -> None:
        migration = importlib.import_module("fleet_server.migrations.versions.0015_rollout_tally")
        with Operations.context(MigrationContext.configure(connection)):
            migration.count_members()

    engine = make_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(count_members)
    await engine.dispose()
    async with world.database.reading() as session:
        stored = list(await session.scalars(select(Rollout.tally)))
    async with world.database.writing() as session:
        for row in await session.scalars(select(Rollout)):
            row.tally = Tally.decode(row.tally).encode()  # json puts other spaces
    assert all(tally != "[]" for tally in stored)
    await world.check_tallies()


def test_what_was_accepted_counts_apart() -> None:
    failed, accepted = (0, _S.FAILED, False), (0, _S.FAILED, True)
    tally = Tally({failed: 3, (0, _S.HEALTHY, False): 1, (1, _S.SILENT, False): 1})
    tally.excuse()
    tally.remove({accepted: 1})
    tally.add({failed: 1})
    first, second = Tally.decode(tally.encode()).stages(2)
    assert (first.size, first.failed, first.excused_failed, first.of(_S.HEALTHY)) == (4, 1, 2, 1)
    assert (second.silent, second.excused_silent) == (0, 1)
    assert Tally().stages(1)[0].size == 0
