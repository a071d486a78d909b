"""Tells the fleet what was refused of what server and network handed out, without being a lever.

Whoever owns the server can send wrong things as often as they like. Each different reason is one
event, but only so many in an hour: an attacker must not wear out the disk, nor push telemetry out
of the outbox. What is not told is counted, and the next event says how much that was.
"""

import logging
import sqlite3

from edge_agent.control import facts
from edge_agent.control.clock import Clock
from edge_agent.control.database import Database
from edge_agent.control.outbox import EventDraft, Outbox
from fleet_protocol.messages import EventKind

logger = logging.getLogger(__name__)

_LAST = "refused_delivery"
_BURST = 16
_REFILL_S = 600.0


class EventBudget:
    """How many events a stranger may cause: a burst, then one in ten minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._counted_s = clock.monotonic_s()
        self._untold = 0

    def spend(self, detail: str) -> str | None:
        """Return the text of an event that may be sent, or None if none may now."""
        now_s = self._clock.monotonic_s()
        self._left = min(_BURST, self._left + (now_s - self._counted_s) / _REFILL_S)
        self._counted_s = now_s
        if self._left < 1.0:
            self._untold += 1
            return None
        self._left -= 1.0
        untold, self._untold = self._untold, 0
        return f"{detail} ({untold} refusals before it were not told)" if untold else detail


class Refusals:
    """Events about what was fetched and refused."""

    def __init__(self, *, database: Database, outbox: Outbox, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._budget = EventBudget(clock)

    async def tell(
        self, reason: str, *, family: str | None = None, version: str | None = None
    ) -> None:
        """Append an event, unless the last one said the same.

        Raises:
            StoreError: the database refused.
        """

        def write(connection: sqlite3.Connection) -> None:
            if facts.get(connection, _LAST) == reason:
                return
            facts.put(connection, _LAST, reason)
            detail = self._budget.spend(reason)
            if detail is not None:
                draft = EventDraft(
                    at_ms=self._clock.now_ms(),
                    kind=EventKind.DELIVERY_REFUSED,
                    detail=detail,
                    family=family,
                    version=version,
                )
                self._outbox.append_event(connection, draft)

        logger.warning("delivery_refused", extra={"reason": reason})
        await self._database.transact(write)

    async def over(self) -> None:
        """Forget the last reason: what was refused is right now, and would be news again.

        Raises:
            StoreError: the database refused.
        """

        def write(connection: sqlite3.Connection) -> None:
            if facts.get(connection, _LAST):
                facts.put(connection, _LAST, "")

        await self._database.transact(write)
