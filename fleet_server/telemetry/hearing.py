"""When the fleet was heard, so that nobody is called silent for a time in which no server listened.

Every server process that is connected to the broker says so in the database now and then. Where
that pauses (no server ran, the broker or the database was away), the pause is kept as a deaf span.
It lasts a while longer than the pause, since devices take their time to connect again.
"""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.clock import Clock, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database, take_turn
from fleet_server.errors import FleetError
from fleet_server.telemetry.tables import DeafSpan, FleetHeard

DEAF_AFTER_MS = 30_000
RETURN_MS = 300_000
"""The longest pause of a device before it connects again, by the agent's default."""

_BEAT_S = 10.0
_LOOK_S = 0.5
_KEPT_MS = 400 * 86_400_000
_MOST_SPANS = 1000
_TURN = "fleet heard"

Span = tuple[int, int]


class Hearing:
    """Says in one database that this process hears the fleet."""

    def __init__(self, *, database: Database, clock: Clock, hears: Callable[[], bool]) -> None:
        self._database = database
        self._clock = clock
        self._hears = hears
        self._complaints = Complaints(time.monotonic)

    async def run(self) -> None:
        """Do it until cancelled; what fails is tried again."""
        while True:
            hears = self._hears()
            if hears:
                try:
                    await self.note()
                except FleetError as error:
                    self._complaints.log("hearing_not_noted", reason=str(error)[:500])
            await asyncio.sleep(_BEAT_S if hears else _LOOK_S)

    async def note(self) -> None:
        """Say that the fleet is heard now; a pause before it becomes a deaf span.

        Raises:
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            await take_turn(session, _TURN)
            row = await session.get(FleetHeard, 1)
            if row is None:
                session.add(FleetHeard(id=1, heard_ms=now_ms))
                return
            if now_ms - row.heard_ms > DEAF_AFTER_MS:
                session.add(DeafSpan(start_ms=row.heard_ms, end_ms=now_ms + RETURN_MS))
                await session.execute(delete(DeafSpan).where(DeafSpan.end_ms < now_ms - _KEPT_MS))
            row.heard_ms = now_ms


async def deaf(session: AsyncSession, *, since_ms: int, now_ms: int) -> tuple[Span, ...]:
    """Return the spans after a moment in which the fleet was not heard; they may overlap."""
    row = await session.get(FleetHeard, 1)
    if row is None:
        return ()
    query = select(DeafSpan.start_ms, DeafSpan.end_ms).where(DeafSpan.end_ms > since_ms)
    newest = query.order_by(DeafSpan.start_ms.desc()).limit(_MOST_SPANS)
    spans = [(start_ms, end_ms) for start_ms, end_ms in await session.execute(newest)]
    if now_ms - row.heard_ms > DEAF_AFTER_MS:
        spans.append((row.heard_ms, now_ms + RETURN_MS))
    return tuple(sorted(spans))
