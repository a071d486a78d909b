"""Rollouts from inside of a request, where every query is scoped to the caller's tenant."""

import pytest

from fleet_server import tenancy
from fleet_server.errors import NotFoundError, RefusedError
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.state import Status
from tests.unit.fleet_server.rollouts.conftest import World


async def test_a_tenant_reaches_its_own_rollouts_only(world: World) -> None:
    await world.populate(6)
    tenancy.enter(tenancy.DEFAULT)
    try:
        rollout = await world.create()
        tenancy.enter("others")
        for reach in (
            world.rollouts.standing(rollout),
            world.rollouts.decisions(rollout, after=None, limit=5),
            world.rollouts.members(rollout, after=None, limit=5, state=None),
            world.rollouts.intervene(rollout, Intervention.PAUSE, who="eve", why=""),
            world.rollouts.retry(rollout, "cam-001", who="eve"),
            world.create(),
        ):
            with pytest.raises((NotFoundError, RefusedError)):
                await reach
        assert not await world.rollouts.page(after=None, limit=5, family=None, status=None)
        tenancy.enter(tenancy.DEFAULT)
        assert len(await world.rollouts.decisions(rollout, after=None, limit=5)) == 1
        assert len(await world.rollouts.members(rollout, after=None, limit=9, state=None)) == 6
        paused = await world.rollouts.intervene(rollout, Intervention.PAUSE, who="ann", why="")
        assert paused.seen.view.head.status is Status.PAUSED
    finally:
        tenancy._reach.set(tenancy.Reach.ALL)
