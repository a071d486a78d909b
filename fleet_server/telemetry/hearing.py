"""When the fleet was heard, so that no rollout calls a device silent for an outage of the servers.

Every server process that is connected to the broker says so in the database now and then. Where
that pauses (no server ran, the broker or the database was away), the pause is kept as a deaf span.
It lasts a while longer than the pause, since devices take their time to connect again.

The clocks of servers differ, and a difference is no pause. The one that is ahead writes, those
behind add nothing; and who sees a pause looks again before it believes it, because another server
that hears the fleet would have written meanwhile.
"""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.clock import Clock, Span, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database, take_turn
from fleet_server.errors import FleetError
from fleet_server.telemetry.tables import DeafSpan, FleetHeard

DEAF_AFTER_MS = 30_000
RETURN_MS = 300_000
"""The longest pause of a device before it connects again, by the agent's default."""

_SURE_MS = 15_000
"""A pause is one if no server has ended it for so long; each that hears writes more often."""
_SKEW_MS = 300_000
"""A clock that is further behind does not keep back what it says."""
_BEAT_S = 10.0
_LOOK_S = 0.5
_KEPT_MS = 400 * 86_400_000
_MOST_SPANS = 1000
_TURN = "fleet heard"


class Hearing:
    """Says in one database that this process hears the fleet."""

    def __init__(self, *, database: Database, clock: Clock, hears: Callable[[], bool]) -> None:
        self._database = database
        self._clock = clock
        self._hears = hears
        self._complaints = Complaints(time.monotonic)
        self._doubted: Span | None = None

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
        """Say that the fleet is heard now; a pause before it becomes a deaf span, soon.

        Until it is sure, the last word stays what it was, so that the pause counts meanwhile.

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
            if 0 < row.heard_ms - now_ms <= _SKEW_MS:
                return
            if now_ms - row.heard_ms > DEAF_AFTER_MS:
                pause = self._doubt(row.heard_ms, now_ms)
                if now_ms - pause[1] < _SURE_MS:
                    return
                if pause[0] == row.heard_ms:
                    await _keep(session, pause, now_ms)
            self._doubted = None
            row.heard_ms = now_ms

    def _doubt(self, heard_ms: int, now_ms: int) -> Span:
        """Return the pause as it was seen first, if that was not too long ago to tell."""
        if self._doubted is None or now_ms - self._doubted[1] > DEAF_AFTER_MS:
            self._doubted = heard_ms, now_ms
        return self._doubted


async def _keep(session: AsyncSession, pause: Span, now_ms: int) -> None:
    session.add(DeafSpan(start_ms=pause[0], end_ms=pause[1] + RETURN_MS))
    await session.execute(delete(DeafSpan).where(DeafSpan.end_ms < now_ms - _KEPT_MS))


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
