"""Forgets telemetry windows and events that were received long ago, a few at a time.

Rows are looked at in the order in which they were stored, which is that of their keys: so it takes
no index, and stops at the first that is young enough. Each batch is a transaction of its own, and
as much time passes between two as one took, so ingest and readers wait for at most one batch. On
PostgreSQL several servers may do so at once; what one of them deletes the others leave alone.

What was received counts, by the server's clock, not what devices say: theirs may be wrong. How far
a stream was received is kept apart (`Stream`), so nothing that was forgotten is taken again. The
audit trail and the history of rollouts are not telemetry and stay.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import upkeep
from fleet_server.clock import Clock, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window

logger = logging.getLogger(__name__)

BATCH = 500
"""Rows that one transaction deletes at most, with what belongs to them."""

_INTERVAL_S = 600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long; None for as long as the database has room."""

    windows: timedelta | None
    events: timedelta | None


class Retention:
    """Forgets what is old in one database."""

    def __init__(
        self,
        *,
        database: Database,
        kept: Kept,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._kept = kept
        self._clock = clock
        self._monotonic = monotonic
        self._complaints = Complaints(monotonic)

    async def run(self) -> None:
        """Do it at intervals until cancelled; what fails is tried again."""
        await upkeep.repeat(
            self.once,
            interval_s=_INTERVAL_S,
            complaints=self._complaints,
            event="retention_waits",
        )

    async def once(self) -> int:
        """Forget everything that is too old now; return how many windows and events that were.

        Raises:
            UnavailableError: the database failed; the batches before stay forgotten.
        """
        windows = await self._all(Window, self._kept.windows)
        events = await self._all(DeviceEvent, self._kept.events)
        if windows or events:
            logger.info("telemetry_forgotten", extra={"windows": windows, "events": events})
        return windows + events

    async def _all(self, table: type[Window | DeviceEvent], kept: timedelta | None) -> int:
        if kept is None:
            return 0
        before_ms, total = unix_ms(self._clock() - kept), 0
        while True:
            began = self._monotonic()
            async with self._database.writing() as session:
                deleted = await _batch(session, table, before_ms)
            total += deleted
            if deleted < BATCH:
                return total
            await asyncio.sleep(self._monotonic() - began)


async def _batch(session: AsyncSession, table: type[Window | DeviceEvent], before_ms: int) -> int:
    oldest = select(table.id, table.received_ms).order_by(table.id).limit(BATCH)
    rows = await session.execute(oldest.with_for_update(skip_locked=True))
    old = [row.id for row in rows if row.received_ms < before_ms]
    if not old:
        return 0
    if table is Window:
        await session.execute(delete(ModelCounts).where(ModelCounts.window_id.in_(old)))
    await session.execute(delete(table).where(table.id.in_(old)))
    return len(old)
