"""Runs the rollouts in one server process, beside those of other processes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from fleet_protocol.errors import SkerryError
from fleet_server.complaints import Complaints
from fleet_server.rollouts.founding import Founding
from fleet_server.rollouts.orders import Orders
from fleet_server.rollouts.service import Rollouts

logger = logging.getLogger(__name__)

_RARELY_S = 10.0
"""How often devices that join, or answer after a rollout is over, are looked for."""

_STEPS = 100
"""Steps that one rollout takes before the next one has its turn."""


class RolloutLoop:
    """Looks at every rollout that needs it, again and again."""

    def __init__(
        self,
        *,
        rollouts: Rollouts,
        founding: Founding,
        orders: Orders,
        interval_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rollouts = rollouts
        self._founding = founding
        self._orders = orders
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._rare_s: float | None = None
        self._complaints = Complaints(monotonic)

    async def run(self) -> None:
        """Do it until cancelled; what fails is logged and tried again."""
        while True:
            await self.once()
            await asyncio.sleep(self._interval_s)

    async def once(self) -> None:
        """Look at every rollout once; one that fails does not hold up the others."""
        await self._tried("list rollouts", self._all)
        await self._tried("carry out orders", self._carry_out)

    async def _all(self) -> None:
        rare = self._is_time_for_the_rare()
        for rollout_id in await self._rollouts.attended(over=rare):
            await self._tried(f"rollout {rollout_id}", partial(self._one, rollout_id, admits=rare))

    async def _one(self, rollout_id: int, *, admits: bool) -> None:
        for _ in range(_STEPS):
            if not await self._rollouts.advance(rollout_id):
                break
        if admits:
            await self._founding.admit(rollout_id)

    async def _carry_out(self) -> None:
        while await self._orders.carry_out():
            pass
        for rollout_id, why in self._orders.withdrawn.items():
            await self._rollouts.stop_without_release(rollout_id, why)

    async def _tried(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except SkerryError as error:
            self._complaints.log("rollouts_wait", what=what, reason=str(error)[:500])
        except Exception:  # the server serves on; the next look tries again
            logger.exception("rollouts_failed", extra={"what": what})

    def _is_time_for_the_rare(self) -> bool:
        now_s = self._monotonic()
        if self._rare_s is None or now_s - self._rare_s >= _RARELY_S:
            self._rare_s = now_s
            return True
        return False
