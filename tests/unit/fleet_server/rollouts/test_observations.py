"""What is read for a comparison: each device has its share, whoever reports more or later."""

import msgspec
import pytest

from fleet_server.clock import unix_ms
from fleet_server.rollouts import observations, snapshot
from fleet_server.rollouts.plan import ComparisonPolicy, Stage
from tests.unit.fleet_server.rollouts.conftest import World, a_plan


async def test_no_device_takes_the_place_of_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "_USUAL_WINDOWS", 1)
    monkeypatch.setattr(observations, "_MOST_WINDOWS", 3)
    await world.populate(6)

    async def serve(times: int) -> None:
        for _ in range(times):
            await world.fleet.serve(lambda *_: 1000.0, at_ms=unix_ms(world.clock()))
            world.clock.advance(seconds=1)

    policy = ComparisonPolicy(period_s=600)
    await serve(5)
    plan = a_plan(stages=(Stage(count=3), Stage(percent=100)), max_in_flight=1, comparison=policy)
    rollout = await world.create(plan)
    for _ in range(5):  # the devices change one after the other
        await world.run(world.server(), ticks=2)
        await serve(4)
    async with world.database.reading() as session:
        seen = await snapshot.read(session, rollout, now_ms=unix_ms(world.clock()))
        for min_requests, windows in ((1, 1), (2, 2), (50, 3)):
            asked = msgspec.structs.replace(policy, min_requests=min_requests)
            found = await observations.samples(session, seen, asked)
            assert (len(found.new), len(found.old)) == (3, 3)
            read = 100 * windows
            for sample in (*found.new, *found.old):
                assert (sample.before.requests, sample.after.requests) == (read, read)
