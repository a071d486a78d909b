"""Runs the alerts in one server process, beside those of other processes: looks, and sends."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from fleet_protocol.errors import SkerryError
from fleet_server.alerts.deliveries import Deliveries, Leased, WebhookKey
from fleet_server.alerts.sender import Sender
from fleet_server.alerts.watch import Watch
from fleet_server.complaints import Complaints

logger = logging.getLogger(__name__)

_SEND_EVERY_S = 1.0
_FORGET_EVERY_S = 3600.0


class AlertLoop:
    """Looks at the devices at intervals, and sends what is due.

    Each webhook that has something due is served by a task of its own, so that a receiver that
    hangs holds up nobody else.
    """

    def __init__(
        self,
        *,
        watch: Watch,
        deliveries: Deliveries,
        sender: Sender,
        interval_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._deliveries = deliveries
        self._sender = sender
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._forgot_s = monotonic()
        self._serving: set[WebhookKey] = set()
        self._complaints = Complaints(monotonic)

    async def run(self) -> None:
        """Do it until cancelled; what fails is logged and tried again."""
        async with self._sender, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(), name="alert watch")
            while True:
                await self.send(tasks)
                await asyncio.sleep(min(_SEND_EVERY_S, self._interval_s))

    async def send(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to serve every webhook that has something due and is not being served."""
        await self._tried("list notices", partial(self._begin, tasks))

    async def _look(self) -> None:
        while True:
            await self._tried("look at devices", self._watch.once)
            if self._monotonic() - self._forgot_s >= _FORGET_EVERY_S:
                self._forgot_s = self._monotonic()
                await self._tried("forget old alerts", self._watch.forget_old)
                await self._tried("forget old notices", self._deliveries.forget_old)
            await asyncio.sleep(self._interval_s)

    async def _begin(self, tasks: asyncio.TaskGroup) -> None:
        for key in await self._deliveries.due():
            if key not in self._serving:
                self._serving.add(key)
                tasks.create_task(self._serve(key), name=f"webhook {key}")

    async def _serve(self, key: WebhookKey) -> None:
        try:
            await self._tried("send notices", partial(self._send_all, key))
        finally:
            self._serving.discard(key)

    async def _send_all(self, key: WebhookKey) -> None:
        while leased := await self._deliveries.lease(key):
            await asyncio.gather(*(self._send_one(key, each) for each in leased))

    async def _send_one(self, key: WebhookKey, leased: Leased) -> None:
        outcome = await self._sender.attempt(leased.letter)
        if outcome.problem:
            self._complaints.log(
                "notice_not_delivered",
                tenant=key[0],
                webhook=key[1],
                attempts=leased.attempts,
                reason=outcome.problem,
            )
        await self._deliveries.note(key, leased, outcome)

    async def _tried(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except SkerryError as error:
            self._complaints.log("alerts_wait", what=what, reason=str(error)[:500])
        except Exception:  # the server serves on; the next round tries again
            logger.exception("alerts_failed", extra={"what": what})
