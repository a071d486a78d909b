"""A server that was away blames nobody: no device is silent, no comparison is given up."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete

from fleet_server.clock import unix_ms
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import ComparisonPolicy, Stage
from fleet_server.rollouts.state import Kind, Status
from fleet_server.telemetry.hearing import RETURN_MS, Hearing, deaf
from fleet_server.telemetry.tables import FleetHeard
from tests.unit.fleet_server.rollouts.conftest import SILENT, World, a_plan

S = MemberState
_OUTAGE_S = 7200


def hearing(world: World, *, ahead_s: float = 0) -> Hearing:
    def clock() -> datetime:
        return world.clock() + timedelta(seconds=ahead_s)

    return Hearing(database=world.database, clock=clock, hears=lambda: True)


async def spans(world: World) -> list[tuple[int, int]]:
    async with world.database.reading() as session:
        return [*await deaf(session, since_ms=0, now_ms=unix_ms(world.clock()))]


async def test_only_long_pauses_are_deaf_spans_and_the_present_one_is_as_well(world: World) -> None:
    server = hearing(world)
    assert await spans(world) == [], "nobody knows yet"
    for seconds in (10, 29, 10):
        await server.note()
        world.clock.advance(seconds=seconds)
    assert await spans(world) == []
    await server.note()
    heard_ms = unix_ms(world.clock())
    world.clock.advance(seconds=_OUTAGE_S)
    outage = heard_ms, unix_ms(world.clock()) + RETURN_MS
    for _ in range(4):
        assert (await spans(world))[0][0] == heard_ms
        await server.note()
        world.clock.advance(seconds=10)
    assert await spans(world) == [outage]


async def test_clocks_that_differ_are_no_pause_and_an_outage_is_one(world: World) -> None:
    ahead, behind = hearing(world, ahead_s=40), hearing(world)

    async def beat(times: int, *servers: Hearing) -> None:
        for _ in range(times):
            for server in servers:
                await server.note()
            world.clock.advance(seconds=10)

    await beat(3, behind)
    await beat(6, ahead, behind)
    await beat(8, behind)
    await beat(6, behind, ahead)
    assert await spans(world) == []
    await beat(6, ahead)
    heard_ms = unix_ms(world.clock()) + 30_000
    world.clock.advance(seconds=_OUTAGE_S)
    back_ms = unix_ms(world.clock())
    await beat(4, behind, ahead)
    assert await spans(world) == [(heard_ms, back_ms + RETURN_MS)]


async def test_devices_are_not_silent_while_nobody_listens(world: World) -> None:
    await world.populate(10, lambda _: SILENT)
    rollout = await world.create(a_plan(timeout_s=60))
    server = hearing(world)
    await server.note()
    await world.run(world.server(), ticks=2)
    await server.note()
    world.clock.advance(seconds=_OUTAGE_S)
    for _ in range(RETURN_MS // 25_000):  # at first nobody listens yet
        await world.run(world.server(), ticks=1, seconds=25)
        assert S.SILENT not in (await world.states(rollout)).values()
        standing = await world.rollouts.standing(rollout)
        assert "no time counts before" in standing.explanation
        await server.note()
    for _ in range(4):
        await world.run(world.server(), ticks=1, seconds=25)
        await server.note()
    assert await world.status(rollout) is not Status.RUNNING, "now they are"


@pytest.mark.parametrize("away", [True, False])
async def test_a_comparison_is_not_given_up_while_nobody_listens(
    world: World,
    away: bool,  # noqa: FBT001 (parametrized)
) -> None:
    await world.populate(24)

    async def serve() -> None:
        await world.fleet.serve(lambda *_: 1000.0, at_ms=unix_ms(world.clock()))

    await serve()
    world.clock.advance(seconds=60)
    policy = ComparisonPolicy(period_s=600, patience_s=300)
    stages = Stage(count=6), Stage(percent=100)
    rollout = await world.create(a_plan(stages=stages, max_in_flight=6, comparison=policy))
    await hearing(world).note()
    await world.run(world.server(), ticks=4)
    assert list((await world.states(rollout)).values()).count(S.HEALTHY) == 6
    await hearing(world).note()
    world.clock.advance(seconds=_OUTAGE_S)
    if not away:
        async with world.database.writing() as session:
            await session.execute(delete(FleetHeard))
    await world.run(world.server(), ticks=2)
    kinds = [row.kind for row in await world.history(rollout)]
    assert (Kind.COMPARED in kinds) is not away
