"""What this device knows of withdrawn releases: keeps floors, reports what still serves.

A publisher's list says which releases are withdrawn and below which security counter nothing may be
installed (`fleet_protocol.withdrawals`). The floor joins the family's other floors, in ``state.db``
and in ``high-water.json``, so that it outlives the metadata cache. A committed release that is
withdrawn, or falls below its floor, goes on serving: one event and an alarm in the reported state
tell the operator, who assigns another one.
"""

import logging
import sqlite3
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.control import facts
from edge_agent.control.clock import Clock
from edge_agent.control.database import Database
from edge_agent.control.journal import Committed, Journal
from edge_agent.control.outbox import EventDraft, Outbox
from fleet_protocol.messages import EventKind
from fleet_protocol.withdrawals import Withdrawals

logger = logging.getLogger(__name__)

_SERVING = "withdrawn_and_serving"
_MAX_TOLD = 2000


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A committed release that is withdrawn, and why."""

    version: str
    reason: str


class Withdrawn:
    """Keeps what the device has verified of publishers' withdrawals."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        outbox: Outbox,
        clock: Clock,
        keep_high_water: Callable[[], Awaitable[None]],
    ) -> None:
        """Take the parts; ``keep_high_water`` is called when a floor rose."""
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._clock = clock
        self._keep_high_water = keep_high_water

    async def families(self) -> list[str]:
        """Return the families that this device runs or ran, which all have a floor.

        Raises:
            StoreError: the database refused.
        """
        return sorted(await self._database.transact(self._journal.floors))

    async def learn(self, family: str, said: Withdrawals) -> None:
        """Take over what a verified list says of a family.

        Raises:
            StoreError: the database refused.
        """

        def write(connection: sqlite3.Connection) -> bool:
            rises = said.security_floor > self._journal.floor(connection, family)
            if rises:
                self._journal.raise_floors(connection, {family: said.security_floor})
            self._note(connection, family, said)
            return rises

        if await self._database.transact(write):
            logger.warning(
                "security_floor_raised", extra={"family": family, "floor": said.security_floor}
            )
            await self._keep_high_water()

    def look(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        """Return an alarm about withdrawn releases that serve here, if there are any."""
        committed = self._journal.committed(connection)
        told = [
            f"{family} {one.version} ({one.reason})"
            for family, one in sorted(_known(connection).items())
            if family in committed and committed[family].release.version == one.version
        ]
        if not told:
            return ()
        text = f"withdrawn by the publisher and still serving, assign others: {', '.join(told)}"
        return (text[:_MAX_TOLD],)

    def _note(self, connection: sqlite3.Connection, family: str, said: Withdrawals) -> None:
        known = _known(connection)
        found = _judged(self._journal.committed(connection).get(family), said)
        if found == known.get(family):
            return
        known.pop(family, None)
        if found is not None:
            known[family] = found
            self._tell(connection, family, found)
        facts.put(connection, _SERVING, msgspec.json.encode(known).decode())

    def _tell(self, connection: sqlite3.Connection, family: str, found: Serving) -> None:
        detail = (
            f"{family} {found.version} is withdrawn ({found.reason}); it goes on serving here "
            "until another release is assigned"
        )
        logger.warning("serving_release_withdrawn", extra={"detail": detail})
        draft = EventDraft(
            at_ms=self._clock.now_ms(),
            kind=EventKind.RELEASE_WITHDRAWN,
            detail=detail,
            family=family,
            version=found.version,
        )
        self._outbox.append_event(connection, draft)


def _judged(committed: Committed | None, said: Withdrawals) -> Serving | None:
    if committed is None:
        return None
    version, counter = committed.release.version, committed.security_counter
    if version in said.yanked:
        return Serving(version=version, reason=said.yanked[version])
    if counter < said.security_floor:
        reason = f"its security counter {counter} is below {said.security_floor}"
        return Serving(version=version, reason=reason)
    return None


def _known(connection: sqlite3.Connection) -> dict[str, Serving]:
    return msgspec.json.decode(facts.get(connection, _SERVING) or "{}", type=dict[str, Serving])
