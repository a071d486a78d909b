"""Devices that join late, and rollouts whose devices are also those of another."""

import msgspec
import pytest

from fleet_server.devices.groups import Groups
from fleet_server.errors import ConflictError
from fleet_server.rollouts.founding import Founding
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Stage
from fleet_server.rollouts.state import Status
from tests.unit.fleet_server.rollouts.conftest import World, a_plan

S = MemberState


async def test_who_joins_later_gets_what_the_group_runs(world: World) -> None:
    await world.populate(6)
    server = world.server()
    first = await world.create(a_plan(stages=(Stage(percent=100),)))
    await world.run(server, ticks=10)
    second = await world.create(a_plan(stages=(Stage(percent=100),), version="3.0.0"))
    await world.run(server, ticks=10)
    assert (await world.rollouts.standing(first)).seen.row.superseded_by == second
    with pytest.raises(ConflictError, match=f"replaced by rollout {second}"):
        await world.rollouts.intervene(first, Intervention.ROLL_BACK, who="ann", why="")
    known = await world.join("late")
    await world.run(server, ticks=10)
    assert world.fleet.assigned["late"] == "3.0.0"
    await world.rollouts.intervene(second, Intervention.ROLL_BACK, who="ann", why="")
    await world.run(server, ticks=20)
    assert {name: v for name, v in world.fleet.assigned.items() if name != "late"} == (
        dict.fromkeys(known, "2.0.0")
    )
    assert (await world.rollouts.standing(first)).seen.row.superseded_by is None
    assert world.fleet.assigned["late"] == "2.0.0"  # it ran nothing before, and joins the first


async def test_nobody_joins_a_group_that_was_removed(world: World) -> None:
    await world.populate(2)
    groups = Groups(database=world.database, clock=world.clock)
    await groups.put("g", selector_text="*", description="")
    founding = Founding(database=world.database, clock=world.clock)
    plan = a_plan(stages=(Stage(percent=100),), min_samples=1)
    rollout = await founding.create(plan, selector_text="*", group="g", who="ann")
    await world.join("late")
    await groups.delete("g")
    assert await founding.admit(rollout) == 0
    await groups.put("g", selector_text="*", description="")
    assert await founding.admit(rollout) == 1


async def test_who_joins_two_groups_takes_part_in_one_rollout_at_a_time(world: World) -> None:
    await world.populate(2)
    founding = Founding(database=world.database, clock=world.clock)
    server, plan = world.server(), a_plan(stages=(Stage(percent=100),), min_samples=1)
    first = await world.create(plan, selector="id in (cam-000,late)")
    second = await world.create(
        msgspec.structs.replace(plan, version="3.0.0"), selector="id in (cam-001,late)"
    )
    await world.join("late")
    assert [await founding.admit(each) for each in (first, second)] == [1, 0]
    await world.run(server, ticks=10)
    assert set((await world.states(first)).values()) == {S.HEALTHY}
    assert await world.states(second) == {"cam-001": S.HEALTHY, "late": S.HEALTHY}
    assert world.fleet.assigned["late"] == "3.0.0"


async def test_an_older_rollout_leaves_alone_what_a_newer_one_has_changed(world: World) -> None:
    """Nothing goes back to an older release because the older rollout has its turn late.

    Nor does the newer one go back to a release that the older one has taken back meanwhile.
    """
    await world.populate(6)
    server, all_at_once = world.server(), (Stage(percent=100),)
    older = await world.create(a_plan(stages=all_at_once))
    await world.run(server, ticks=10)
    newer = await world.create(
        a_plan(stages=all_at_once, version="3.0.0"), selector="id in (cam-000,cam-001,late)"
    )
    await world.run(server, ticks=10)
    known = await world.join("late")
    founding = Founding(database=world.database, clock=world.clock)
    assert [await founding.admit(older), await founding.admit(newer)] == [1, 1]
    assert await world.rollouts.advance(newer)
    await world.run(server, ticks=10)
    assert world.fleet.assigned["late"] == "3.0.0"
    with pytest.raises(ConflictError, match=f"rollout {newer} has changed late since"):
        await world.rollouts.retry(older, "late", who="ann")
    await world.rollouts.intervene(older, Intervention.ROLL_BACK, who="ann", why="")
    await world.run(server, ticks=10)
    assert await world.status(older) is Status.ROLLED_BACK
    told = [row.reason for row in await world.history(newer) if f"Rollout {older} " in row.reason]
    assert ["2 devices" in reason for reason in told] == [True]
    assert "go back to what they ran before it" in told[0]
    kept = dict.fromkeys(("cam-000", "cam-001", "late"), "3.0.0")
    assert world.fleet.assigned == dict.fromkeys(known, "1.0.0") | kept
    await world.rollouts.intervene(newer, Intervention.ROLL_BACK, who="ann", why="")
    await world.run(server, ticks=20)  # `late` cannot say that it runs nothing
    assert await world.status(newer) is Status.ROLLED_BACK
    assert world.fleet.assigned == dict.fromkeys(known, "1.0.0") | {"late": None}
