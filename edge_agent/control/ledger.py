"""The journal for the event loop: one durable transition per call, none on a stale record."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import msgspec

from edge_agent.control.assignment import AssignedRelease
from edge_agent.control.clock import Clock
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal, UpdateRecord
from edge_agent.errors import AgentError
from fleet_protocol.update_states import UpdateState

Result = TypeVar("Result")


class StaleRecordError(AgentError):
    """The journal has moved on since the record was read; look again."""


class Ledger:
    """Writes transitions; every method may raise `StoreError` and has then changed nothing."""

    def __init__(self, *, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    async def begin(self, release: AssignedRelease, *, assignment_version: int) -> UpdateRecord:
        """Start an update."""
        return await self._database.transact(
            lambda connection: self._journal.begin(
                connection,
                release,
                assignment_version=assignment_version,
                at_ms=self._clock.now_ms(),
            )
        )

    async def move(
        self, record: UpdateRecord, state: UpdateState, **changes: object
    ) -> UpdateRecord:
        """Write a transition with its event.

        Raises:
            StaleRecordError: the journal no longer holds this record.
        """
        return await self._on_current(
            record,
            lambda connection: self._journal.move(
                connection, record, state, at_ms=self._clock.now_ms(), **changes
            ),
        )

    async def amend(
        self,
        record: UpdateRecord,
        *,
        also: Callable[[sqlite3.Connection], None] | None = None,
        **changes: object,
    ) -> UpdateRecord:
        """Write other fields of a record whose state stays; no event, nothing if nothing changes.

        Args:
            record: as the journal has it.
            also: written in the same transaction.
            changes: fields with their new values.

        Raises:
            StaleRecordError: the journal no longer holds this record.
        """
        amended = msgspec.structs.replace(record, **changes)

        def write(connection: sqlite3.Connection) -> None:
            self._journal.rewrite(connection, amended)
            if also is not None:
                also(connection)

        if amended != record or also is not None:
            await self._on_current(record, write)
        return amended

    async def refreshed(self, record: UpdateRecord) -> UpdateRecord:
        """Return the journal's record of the same step of the same update.

        Raises:
            StaleRecordError: the update has gone on to another step, or is another one.
        """
        found = (await self._database.transact(self._journal.records)).get(record.family)
        if found is None or (found.manifest, found.assignment_version, found.state) != (
            record.manifest,
            record.assignment_version,
            record.state,
        ):
            raise StaleRecordError(f"the update of {record.family} has moved on")
        return found

    async def commit(self, record: UpdateRecord, *, detail: str = "") -> UpdateRecord:
        """Write the commit of a record's candidate; ``detail`` is what there is to say about it.

        Raises:
            StaleRecordError: the journal no longer holds this record.
        """
        return await self._on_current(
            record,
            lambda connection: self._journal.commit(
                connection, record, at_ms=self._clock.now_ms(), detail=detail
            ),
        )

    async def forget(self, family: str) -> None:
        """Remove what is known of a family but its floor."""
        await self._database.transact(
            lambda connection: self._journal.forget(connection, family, at_ms=self._clock.now_ms())
        )

    async def _on_current(
        self, record: UpdateRecord, work: Callable[[sqlite3.Connection], Result]
    ) -> Result:
        def checked(connection: sqlite3.Connection) -> Result:
            if self._journal.records(connection).get(record.family) != record:
                raise StaleRecordError(f"the update of {record.family} has moved on")
            return work(connection)

        return await self._database.transact(checked)
