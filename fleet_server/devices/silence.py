"""Marks devices that fell silent, so that lists find them in order however many there are.

Health itself is derived from when a device was heard last (`fleet_server.devices.health`), in lists
as well: a device that is silent and not marked yet is found by that, and one that is marked and
heard again is unmarked by whoever hears it. So the mark may be late and never makes a list wrong.
"""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import select, update

from fleet_server import upkeep
from fleet_server.clock import Clock, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database
from fleet_server.devices.health import SILENT_AFTER_MS
from fleet_server.devices.tables import Device

_INTERVAL_S = 10.0
_BATCH = 500


class SilenceWatch:
    """Marks the devices of one database."""

    def __init__(
        self, *, database: Database, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._complaints = Complaints(monotonic)

    async def run(self) -> None:
        """Do it at intervals until cancelled; what fails is tried again."""
        await upkeep.repeat(
            self.once,
            interval_s=_INTERVAL_S,
            complaints=self._complaints,
            event="silence_watch_waits",
        )

    async def once(self) -> int:
        """Mark everything that is silent now, with pauses as long as the work; return how many.

        Raises:
            UnavailableError: the database failed; the batches before are written.
        """
        since_ms, total = unix_ms(self._clock()) - SILENT_AFTER_MS, 0
        while True:
            began = self._monotonic()
            marked = await self._batch(since_ms)
            total += marked
            if marked < _BATCH:
                return total
            await asyncio.sleep(self._monotonic() - began)

    async def _batch(self, since_ms: int) -> int:
        is_late = (Device.silent.is_(False), Device.last_seen_ms < since_ms)
        some = select(Device.id).where(*is_late).order_by(Device.last_seen_ms).limit(_BATCH)
        async with self._database.reading() as session:  # most of the time there are none
            if await session.scalar(some.limit(1)) is None:
                return 0
        async with self._database.writing() as session:
            ids = list(await session.scalars(some.with_for_update(skip_locked=True)))
            await session.execute(
                update(Device).where(Device.id.in_(ids), *is_late).values(silent=True)
            )
        return len(ids)
