"""Rollouts on both databases: what ends up assigned, and what history says about why."""

import asyncio
from dataclasses import dataclass, replace

import msgspec
import pytest
from sqlalchemy import update

from fleet_protocol.messages import Reported
from fleet_protocol.update_states import UpdateState
from fleet_server.database import Database
from fleet_server.devices.tables import Device as DeviceRow
from fleet_server.errors import ConflictError, NotFoundError, RefusedError
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import ComparisonPolicy, OnFailure, Stage
from fleet_server.rollouts.state import Kind, Status
from tests.simulators.rollout_fleet import FAMILY
from tests.simulators.rollout_ledger import Device
from tests.unit.fleet_server.rollouts.conftest import FAILING, SILENT, World, a_plan

S = MemberState


async def test_a_good_release_completes(world: World) -> None:
    await world.populate()
    rollout = await world.create()
    await world.run(world.server(), ticks=20)
    assert await world.status(rollout) is Status.COMPLETED
    assert set((await world.states(rollout)).values()) == {S.HEALTHY}
    assert set(world.fleet.assigned.values()) == {"2.0.0"}
    history = await world.history(rollout)
    assert [row.number for row in history] == list(range(1, len(history) + 1))
    kinds = [row.kind for row in history if row.kind != Kind.OBSERVED]
    assert kinds[:3] == [Kind.CREATED, Kind.OPENED_STAGE, Kind.ACTIVATED]
    assert kinds[-1] == Kind.COMPLETED
    for row in history[1:]:
        assert msgspec.json.decode(row.inputs)["now_ms"] == row.at_ms
    standing = await world.rollouts.standing(rollout)
    assert standing.explanation == "Complete; devices that join its group get the release too."


async def test_the_first_release_of_a_family_waits_for_no_comparison(world: World) -> None:
    await world.populate(run=None)
    rollout = await world.create(a_plan(comparison=ComparisonPolicy()))
    await world.run(world.server(), ticks=20)
    assert await world.status(rollout) is Status.COMPLETED
    history = await world.history(rollout)
    assert "nothing to compare it with" in history[0].reason
    assert Kind.COMPARED not in {row.kind for row in history}


async def test_a_release_that_is_withdrawn_midway_is_taken_back_and_a_newer_one_arrives(
    world: World,
) -> None:
    await world.populate()
    one_by_one = a_plan(stages=(Stage(count=4), Stage(percent=100)), max_in_flight=4)
    bad = await world.create(one_by_one)
    server = world.server()
    while (await world.rollouts.standing(bad)).seen.view.total(S.HEALTHY) < 4:
        await world.run(server, ticks=1)
    world.index.withdrawn.add("2.0.0")
    await world.run(server, ticks=12)
    states = list((await world.states(bad)).values())
    assert await world.status(bad) is Status.ROLLED_BACK
    assert set(world.fleet.assigned.values()) == {"1.0.0"}
    assert (states.count(S.RETURNED), states.count(S.WAITING)) == (8, 2)
    stop = next(row for row in await world.history(bad) if row.kind == Kind.STOPPED)
    assert f"cannot be assigned any more: release {FAMILY} 2.0.0 was withdrawn" in stop.reason
    good = await world.create(a_plan(version="3.0.0"))
    await world.run(server, ticks=8)
    assert await world.status(good) is Status.COMPLETED


async def test_what_was_withdrawn_holds_no_other_order_of_its_devices_up(world: World) -> None:
    """One rollout is back where it began, whose devices ran a release that is gone as well."""
    await world.populate()
    first = await world.create(a_plan(stages=(Stage(percent=100),), max_in_flight=10))
    server = world.server()
    await world.run(server, ticks=4)
    assert await world.status(first) is Status.COMPLETED
    world.index.withdrawn.add("1.0.0")
    await world.rollouts.intervene(first, Intervention.ROLL_BACK, who="ann", why="")
    await world.run(server, ticks=4, seconds=60)  # far beyond the deadline
    standing = await world.rollouts.standing(first)
    assert (standing.seen.view.head.status, standing.seen.view.untold) == (Status.ROLLING_BACK, 10)
    assert "10 of them have no signed assignment yet" in standing.explanation
    await world.assignments().assign(family=FAMILY, version="3.0.0", devices=None)
    await world.run(server, ticks=2)
    assert set(world.fleet.assigned.values()) == {"3.0.0"}


@pytest.mark.parametrize("ends", [None, Intervention.ABORT, Intervention.ROLL_BACK])
async def test_nobody_is_silent_who_was_not_told(world: World, ends: Intervention | None) -> None:
    await world.populate()
    rollout = await world.create()
    server = world.server()
    world.signer.up = False
    await world.run(server, ticks=4, seconds=60)  # far beyond the deadline
    standing = await world.rollouts.standing(rollout)
    assert standing.seen.view.head.status is Status.RUNNING
    assert "4 of them have no signed assignment yet" in standing.explanation
    if ends is not None:
        await world.rollouts.intervene(rollout, ends, who="ann", why="")
    world.signer.up = True
    await world.run(server, ticks=8)
    if ends is None:
        assert await world.status(rollout) is Status.COMPLETED
    else:
        assert set((await world.states(rollout)).values()) == {S.WAITING}
        assert {device.assignment for device in world.fleet.devices.values()} == {1}


async def test_a_bad_release_stops_in_its_first_stage_and_goes_back(world: World) -> None:
    await world.populate(20, lambda n: replace(FAILING) if n % 3 == 0 else Device())
    rollout = await world.create(
        a_plan(stages=(Stage(count=8), Stage(percent=100)), failure_threshold=0.1)
    )
    await world.run(world.server(), ticks=30)
    assert await world.status(rollout) is Status.ROLLED_BACK
    assert set(world.fleet.assigned.values()) == {"1.0.0"}
    stages, states = await world.stage_of(rollout), await world.states(rollout)
    assert {states[name] for name, stage in stages.items() if stage == 1} == {S.WAITING}
    untouched = [world.fleet.devices[name] for name, stage in stages.items() if stage == 1]
    assert {device.assignment for device in untouched} == {1}
    stop = next(row for row in await world.history(rollout) if row.kind == Kind.STOPPED)
    assert "judged devices 2 failed, at most 0 of its 8 may" in stop.reason


async def test_nothing_that_a_device_says_keeps_the_others_from_being_judged(world: World) -> None:
    """PostgreSQL stores no NUL: a decision that quotes one would fail for ever."""
    await world.populate(4, lambda _: replace(FAILING, detail="a\x00b"))
    rollout = await world.create(a_plan(stages=(Stage(percent=100),)))
    await world.run(world.server(), ticks=20)
    assert await world.status(rollout) is Status.ROLLED_BACK
    assert "ab" in "".join(row.reason for row in await world.history(rollout))


async def test_silence_stops_it_and_late_devices_catch_up(world: World) -> None:
    await world.populate(10, lambda _: replace(SILENT))
    rollout = await world.create(a_plan(on_failure=OnFailure.STOP))
    await world.run(world.server(), ticks=30)
    assert await world.status(rollout) is Status.STOPPED
    assert list((await world.states(rollout)).values()).count(S.SILENT) == 4
    for device in world.fleet.devices.values():
        device.fate = UpdateState.COMMITTED  # they come back after weeks
    world.clock.advance(days=20)
    await world.run(world.server(), ticks=4)
    assert list((await world.states(rollout)).values()).count(S.HEALTHY) == 4
    await world.rollouts.intervene(rollout, Intervention.RESUME, who="ann", why="a power cut")
    await world.run(world.server(), ticks=20)
    assert await world.status(rollout) is Status.COMPLETED


@dataclass
class Absent(Device):
    """A device that says nothing at all, for weeks."""

    absent: bool = True

    def reported(self, now_ms: int, *, old: str = "1.0.0") -> Reported | None:
        return None if self.absent else super().reported(now_ms, old=old)


async def test_a_rollout_that_is_over_notes_who_comes_back_and_then_rests(world: World) -> None:
    await world.populate(10, lambda _: Absent())
    rollout = await world.create(a_plan())
    await world.run(world.server(), ticks=40)
    assert await world.status(rollout) is Status.ROLLED_BACK
    silent = [name for name, state in (await world.states(rollout)).items() if state is S.RECALLED]
    assert len(silent) == 4
    assert "4 devices have not answered" in (await world.rollouts.standing(rollout)).explanation
    assert await world.rollouts.attended(over=False) == []
    for device in world.fleet.devices.values():
        assert isinstance(device, Absent)
        device.absent = False
    world.fleet.devices[silent[0]].version = "9.0.0"  # by another rollout
    world.clock.advance(days=20)
    await world.run(world.server(), ticks=4)
    states = await world.states(rollout)
    assert {states[name] for name in silent} == {S.RETURNED}
    assert await world.rollouts.attended() == []


@pytest.mark.parametrize(("slower", "status"), [(1.2, Status.ROLLED_BACK), (1.0, Status.COMPLETED)])
async def test_a_slower_release_is_caught_by_the_comparison(
    world: World, slower: float, status: Status
) -> None:
    await world.populate(24)
    plan = a_plan(
        stages=(Stage(count=6), Stage(percent=100)),
        max_in_flight=30,
        comparison=ComparisonPolicy(period_s=600, patience_s=300),
    )

    def latency_us(name: str, version: str) -> float:
        speed = 1000.0 * (1 + int(name[-3:]))
        return speed * (slower if version == "2.0.0" else 1.0)

    async def serve() -> None:
        await world.fleet.serve(latency_us, at_ms=int(world.clock().timestamp() * 1000))

    await serve()
    world.clock.advance(seconds=60)
    rollout = await world.create(plan)
    for _ in range(8):
        await world.run(world.server(), ticks=2)
        await serve()
    await world.run(world.server(), ticks=4)
    reasons = [row.reason for row in await world.history(rollout)]
    assert await world.status(rollout) is status, reasons
    assert any("latency p50" in reason for reason in reasons)
    if status is Status.ROLLED_BACK:
        stages, states = await world.stage_of(rollout), await world.states(rollout)
        assert {states[name] for name, stage in stages.items() if stage} == {S.WAITING}


async def test_servers_beside_each_other_make_one_history(world: World, database_url: str) -> None:
    await world.populate(12)
    others = [Database(database_url) for _ in range(2)]
    servers = [world.server(), *(world.server(each) for each in others)]
    rollout = await world.create()
    try:
        for _ in range(20):
            await asyncio.gather(*(server.once() for server in servers))
            await world.fleet.step()
            world.clock.advance(seconds=5)
    finally:
        for each in others:
            await each.close()
    assert await world.status(rollout) is Status.COMPLETED
    history = await world.history(rollout)
    assert [row.number for row in history] == list(range(1, len(history) + 1))
    told = [
        device
        for row in history
        if row.kind == Kind.ACTIVATED
        for device in msgspec.json.decode(row.devices)
    ]
    assert sorted(told) == sorted(world.fleet.devices)
    assert set(world.fleet.assigned.values()) == {"2.0.0"}


async def test_pause_abort_and_what_they_refuse(world: World) -> None:
    await world.populate()
    rollout = await world.create()
    server = world.server()
    await server.once()
    await world.rollouts.intervene(rollout, Intervention.PAUSE, who="ann", why="")
    await world.run(server, ticks=5)
    states = list((await world.states(rollout)).values())
    assert (states.count(S.HEALTHY), states.count(S.WAITING)) == (4, 6)
    with pytest.raises(ConflictError, match="is paused"):
        await world.rollouts.intervene(rollout, Intervention.PAUSE, who="ann", why="")
    with pytest.raises(NotFoundError, match="rollout 999"):
        await world.rollouts.intervene(999, Intervention.PAUSE, who="ann", why="")
    for devices in (None, sorted(world.fleet.devices)[:1]):
        with pytest.raises(ConflictError, match=f"rollout {rollout} of {FAMILY} is under way on"):
            await world.rollouts.check_assignable(FAMILY, devices)
    await world.rollouts.intervene(rollout, Intervention.ABORT, who="ann", why="enough")
    await world.rollouts.check_assignable(FAMILY, None)
    await world.run(server, ticks=5)
    assert sorted(map(str, world.fleet.assigned.values())) == ["1.0.0"] * 6 + ["2.0.0"] * 4
    await world.rollouts.intervene(rollout, Intervention.ROLL_BACK, who="ann", why="")
    await world.run(server, ticks=10)
    assert await world.status(rollout) is Status.ROLLED_BACK
    assert set(world.fleet.assigned.values()) == {"1.0.0"}


async def test_one_device_is_tried_again(world: World) -> None:
    await world.populate(10, lambda n: replace(FAILING) if n == 3 else Device())
    rollout = await world.create()
    server = world.server()
    await world.run(server, ticks=20)
    assert (await world.states(rollout))["cam-003"] is S.FAILED
    with pytest.raises(ConflictError, match="cam-004 is healthy"):
        await world.rollouts.retry(rollout, "cam-004", who="ann")
    with pytest.raises(NotFoundError, match="cam-999"):
        await world.rollouts.retry(rollout, "cam-999", who="ann")
    world.fleet.devices["cam-003"].fate = UpdateState.COMMITTED
    await world.rollouts.retry(rollout, "cam-003", who="ann")
    await world.run(server, ticks=5)
    assert (await world.states(rollout))["cam-003"] is S.HEALTHY


async def test_fetching_ahead_holds_the_activation(world: World) -> None:
    await world.populate(8)
    plan = a_plan(stages=(Stage(percent=100),), download_ahead=True, max_in_flight=2, min_samples=1)
    rollout = await world.create(plan)
    server = world.server()
    await server.once()
    await world.fleet.step()
    assert len(world.fleet.held) == 6
    await world.rollouts.intervene(rollout, Intervention.ABORT, who="ann", why="")
    await world.run(server, ticks=4)
    assert sorted(map(str, world.fleet.assigned.values())) == ["1.0.0"] * 6 + ["2.0.0"] * 2
    assert not world.fleet.held
    again = await world.create(plan)
    await world.run(server, ticks=20)
    assert await world.status(again) is Status.COMPLETED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("replaced", [False, True])
async def test_what_an_aborted_rollout_let_devices_fetch_ahead_is_never_activated(
    world: World, *, replaced: bool
) -> None:
    """Neither by itself, nor when a newer rollout, begun at once, goes back."""
    await world.populate(6, lambda _: Device(takes_ms=60_000))
    server = world.server()
    ahead = a_plan(stages=(Stage(percent=100),), download_ahead=True, max_in_flight=1)
    older = await world.create(ahead)
    await world.run(server, ticks=2, seconds=1)
    fetched = [name for name, state in (await world.states(older)).items() if state is S.PREPARED]
    assert world.fleet.held == set(fetched)
    assert len(fetched) == 5
    await world.rollouts.intervene(older, Intervention.ABORT, who="ann", why="")
    if replaced:
        for device in world.fleet.devices.values():
            device.takes_ms, device.fate = 1000, UpdateState.ROLLED_BACK
        newer = await world.create(
            a_plan(stages=(Stage(percent=100),), version="3.0.0", max_in_flight=6)
        )
        await world.run(server, ticks=2, seconds=1)
        assert {world.fleet.assigned[name] for name in fetched} == {"3.0.0"}
    for _ in range(12):
        await world.run(server, ticks=1)
        activating = set(fetched) - world.fleet.held
        assert "2.0.0" not in {world.fleet.assigned[name] for name in activating}
    assert {world.fleet.assigned[name] for name in fetched} == {"1.0.0"}
    assert not replaced or await world.status(newer) is Status.ROLLED_BACK


async def test_decommissioned_devices_drop_out(world: World) -> None:
    await world.populate(10, lambda n: replace(SILENT) if n == 0 else Device())
    rollout = await world.create(a_plan(stages=(Stage(percent=100),)))
    server = world.server()
    await world.run(server, ticks=3)
    async with world.database.writing() as session:
        await session.execute(
            update(DeviceRow).where(DeviceRow.id == "cam-000").values(decommissioned_ms=1)
        )
    await world.run(server, ticks=6)
    assert await world.status(rollout) is Status.COMPLETED
    assert (await world.states(rollout))["cam-000"] is S.GONE


async def test_what_cannot_be_created(world: World) -> None:
    await world.populate(6)
    with pytest.raises(NotFoundError, match="no release animals 7"):
        await world.create(a_plan(version="7.0.0"))
    with pytest.raises(RefusedError, match="no device that is in service"):
        await world.create(selector="site=moon")
    with pytest.raises(RefusedError, match=r"9\.0\.0 refuses to go back to 1\.0\.0"):
        await world.create(a_plan(version="9.0.0"))
    with pytest.raises(RefusedError, match=r"plan\.min_samples"):
        await world.create(a_plan(min_samples=5))
    first = await world.create(
        selector="id=cam-001", plan=a_plan(stages=(Stage(percent=100),), min_samples=1)
    )
    with pytest.raises(ConflictError, match=f"rollout {first} of animals is under way on cam-001"):
        await world.create()
