"""What this device knows of withdrawn releases: keeps floors, reports what still serves.

A publisher's list says which releases are withdrawn and below which security counter nothing may be
installed (`fleet_protocol.withdrawals`). The floor joins the family's other floors, in ``state.db``
and in ``high-water.json``, so that it outlives the metadata cache. A committed release that is
withdrawn, or falls below its floor, goes on serving: one event and an alarm in the reported state
tell the operator, who assigns another one. An update that is not committed yet when the device
learns of it goes no further: it is not switched to, or taken back.
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
_COMING = "withdrawn_and_coming"
_MAX_TOLD = 2000


class _Release(msgspec.Struct, frozen=True, kw_only=True):
    """A release of this device that is withdrawn, and why."""

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
        """Return the families that this device runs or ran, which all have a floor, or may run.

        Raises:
            StoreError: the database refused.
        """

        def read(connection: sqlite3.Connection) -> set[str]:
            return {*self._journal.floors(connection), *self._journal.records(connection)}

        return sorted(await self._database.transact(read))

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
            self._note_coming(connection, family, said)
            return rises

        if await self._database.transact(write):
            logger.warning(
                "security_floor_raised", extra={"family": family, "floor": said.security_floor}
            )
            await self._keep_high_water()

    def coming(self, connection: sqlite3.Connection) -> dict[str, str]:
        """Return by family why its update under way must not be committed; writes nothing."""
        found = {}
        known = _known(connection, _COMING)
        for family, record in self._journal.records(connection).items():
            if record.settled or record.candidate is None:
                continue  # a download asks the newest list itself
            counter, floor = (
                record.candidate.security_counter,
                self._journal.floor(connection, family),
            )
            if family in known and known[family].version == record.version:
                found[family] = f"it was withdrawn by its publisher: {known[family].reason}"
            elif counter < floor:
                found[family] = (
                    f"its security counter {counter} is below {floor}, which its publisher has "
                    "asked for since"
                )
        return found

    def look(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        """Return an alarm about withdrawn releases that serve here, if there are any."""
        committed = self._journal.committed(connection)
        told = [
            f"{family} {one.version} ({one.reason})"
            for family, one in sorted(_known(connection, _SERVING).items())
            if family in committed and committed[family].release.version == one.version
        ]
        if not told:
            return ()
        text = f"withdrawn by the publisher and still serving, assign others: {', '.join(told)}"
        return (text[:_MAX_TOLD],)

    def _note(self, connection: sqlite3.Connection, family: str, said: Withdrawals) -> None:
        known = _known(connection, _SERVING)
        found = _judged(self._journal.committed(connection).get(family), said)
        if found == known.get(family):
            return
        known.pop(family, None)
        if found is not None:
            known[family] = found
            self._tell(connection, family, found)
        facts.put(connection, _SERVING, msgspec.json.encode(known).decode())

    def _note_coming(self, connection: sqlite3.Connection, family: str, said: Withdrawals) -> None:
        before = _known(connection, _COMING)
        record = self._journal.records(connection).get(family)
        known = {other: one for other, one in before.items() if other != family}
        if record is not None and record.version in said.yanked:
            reason = said.yanked[record.version]
            known[family] = _Release(version=record.version, reason=reason)
        if known != before:
            facts.put(connection, _COMING, msgspec.json.encode(known).decode())

    def _tell(self, connection: sqlite3.Connection, family: str, found: _Release) -> None:
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


def _judged(committed: Committed | None, said: Withdrawals) -> _Release | None:
    if committed is None:
        return None
    version, counter = committed.release.version, committed.security_counter
    if version in said.yanked:
        return _Release(version=version, reason=said.yanked[version])
    if counter < said.security_floor:
        reason = f"its security counter {counter} is below {said.security_floor}"
        return _Release(version=version, reason=reason)
    return None


def _known(connection: sqlite3.Connection, name: str) -> dict[str, _Release]:
    return msgspec.json.decode(facts.get(connection, name) or "{}", type=dict[str, _Release])
