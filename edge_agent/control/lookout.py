"""Looks at the device: what the reconciler decides on, gathered in one place.

It also notices when the runtime has restarted, which is an event, and when it hangs with a
candidate, which only its end can cure: the supervisor then starts it with the committed releases.

A look needs no room on the disk. What it would like to note waits until there is some; a candidate
that has to be taken back must not.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import datetime

import msgspec

from edge_agent.control import assignment, facts
from edge_agent.control.active_set import ActiveSetFile, DamagedActiveSetError
from edge_agent.control.assignment import Assignment
from edge_agent.control.blob_audit import BlobAudit
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.damage_alarms import DamageAlarms
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal, UpdateRecord
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.reconcile import Situation
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.waiting import Waiting, waiting
from edge_agent.control.withdrawn import Withdrawn
from edge_agent.runtime_api import ActiveRelease, RuntimeStatus
from edge_agent.store import StoreError
from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState

logger = logging.getLogger(__name__)

_EPOCH = "runtime_epoch"
_ENDED_BECAUSE = "runtime_ended_because"
_LOADS_WITHIN_S = 300.0
_HOLDS_CANDIDATE = frozenset({UpdateState.TRIAL, UpdateState.PROBATION})


def _waiting(wanted: Assignment | None, now: datetime) -> dict[str, Waiting]:
    releases = {} if wanted is None else wanted.releases
    return {family: waiting(release.terms, now) for family, release in releases.items()}


class Lookout:
    """Gathers situations."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        database: Database,
        journal: Journal,
        outbox: Outbox,
        active_set: ActiveSetFile,
        audit: BlobAudit,
        runtime: Runtime,
        clock: Clock,
        trusted_clock: TrustedClock,
        end_runtime: Callable[[], None],
        alarms: Callable[[sqlite3.Connection], tuple[str, ...]],
        withdrawn: Withdrawn,
        note_alarms: Callable[[sqlite3.Connection], None],
        damage: DamageAlarms,
        hang_s: float,
        settings_problem: str,
    ) -> None:
        """Take the sources, and what kills the runtime process if there is one.

        ``alarms`` only reads; ``note_alarms`` writes what there is to write about them.
        """
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._active_set = active_set
        self._audit = audit
        self._runtime = runtime
        self._clock = clock
        self._trusted_clock = trusted_clock
        self._end_runtime = end_runtime
        self._alarms = alarms
        self._withdrawn = withdrawn
        self._note_alarms = note_alarms
        self._damage = damage
        self._hang_s = hang_s
        self._settings_problem = settings_problem
        self._silent_since_s: float | None = None
        self._notes_wait = False

    async def look(self) -> Situation:
        """Return the situation of this moment.

        Raises:
            StoreError: the database cannot be read, or ``active.json`` not restored.
        """
        status = await asyncio.to_thread(self._status)
        active = await self._active()
        damaged = await asyncio.to_thread(self._audit.damaged, active.values())

        def read(connection: sqlite3.Connection) -> Situation:
            accepted = assignment.load(connection)
            wanted = None if accepted is None else accepted.assignment
            now = self._trusted_clock.now(connection)
            return Situation(
                assignment=wanted,
                may_install=wanted is not None and now.timestamp() * 1000 < wanted.expires_ms,
                records=self._journal.records(connection),
                active=active,
                committed=self._journal.committed(connection),
                runtime=status,
                damaged=damaged,
                waiting=_waiting(wanted, now),
                withdrawn=self._withdrawn.coming(connection),
                alarms=(
                    *self._alarms(connection),
                    *self._withdrawn.look(connection),
                    *self._damage.look(damaged),
                    *self._settings_alarms(status),
                ),
            )

        def note_and_read(connection: sqlite3.Connection) -> Situation:
            if status is not None:
                self._note_epoch(connection, status)
            self._note_alarms(connection)
            self._damage.note(connection, damaged)
            return read(connection)

        try:
            situation = await self._database.transact(note_and_read)
        except StoreError as error:
            self._complain(error)
            situation = await self._database.transact(read)
        else:
            self._notes_wait = False
        await self._end_hanging(situation)
        return situation

    def _complain(self, error: StoreError) -> None:
        if not self._notes_wait:
            logger.warning("look_not_noted", extra={"reason": str(error)})
        self._notes_wait = True

    def _settings_alarms(self, runtime: RuntimeStatus | None) -> Iterator[str]:
        problems = (
            ("control process", self._settings_problem),
            ("runtime", "" if runtime is None else runtime.settings_problem),
        )
        for process, problem in problems:
            if problem:
                yield f"the {process} does not run with the settings that were written: {problem}"

    async def _active(self) -> dict[str, ActiveRelease]:
        """Return ``active.json``; one that is damaged or gone is written anew from the journal."""
        try:
            active = await asyncio.to_thread(self._active_set.read)
        except DamagedActiveSetError as error:
            return await self._restored(str(error))
        if active or await self._nothing_was_committed():
            return active
        return await self._restored("the file is gone")

    async def _nothing_was_committed(self) -> bool:
        """Say whether an empty active set is the truth: there is a file, or nothing for one."""
        there = await asyncio.to_thread(self._active_set.path.exists)
        return there or not await self._database.transact(self._journal.committed)

    async def _restored(self, reason: str) -> dict[str, ActiveRelease]:
        logger.error("active_set_damaged", extra={"reason": reason})
        committed = await self._database.transact(self._journal.committed)
        releases = [entry.release for entry in committed.values()]
        await asyncio.to_thread(self._active_set.restore, releases)
        return await asyncio.to_thread(self._active_set.read)

    def _status(self) -> RuntimeStatus | None:
        try:
            return self._runtime.status()
        except (RuntimeUnavailableError, RuntimeRefusedError):
            return None

    def _note_epoch(self, connection: sqlite3.Connection, status: RuntimeStatus) -> None:
        before = facts.get(connection, _EPOCH)
        if before == status.epoch:
            return
        facts.put(connection, _EPOCH, status.epoch)
        logger.info("runtime_seen", extra={"epoch": status.epoch, "pid": status.pid})
        why = facts.get(connection, _ENDED_BECAUSE) or ""
        if why:
            facts.put(connection, _ENDED_BECAUSE, "")
        if before is not None:
            self._outbox.append_event(
                connection,
                EventDraft(
                    at_ms=self._clock.now_ms(),
                    kind=EventKind.RUNTIME_RESTARTED,
                    detail=f"the runtime runs in epoch {status.epoch} after {before}"
                    + (f", which was ended because {why}" if why else ""),
                ),
            )

    async def _end_hanging(self, situation: Situation) -> None:
        """End a runtime that hangs with a candidate, and say in the journal why."""
        at_risk = [
            record for record in situation.records.values() if record.state in _HOLDS_CANDIDATE
        ]
        why = self._hangs(situation.runtime, at_risk)
        if why is None:
            return
        logger.error("runtime_hangs", extra={"reason": why})

        def note(connection: sqlite3.Connection) -> None:
            facts.put(connection, _ENDED_BECAUSE, why)
            for record in at_risk:
                self._journal.rewrite(
                    connection, msgspec.structs.replace(record, ended_because=why)
                )

        try:
            await self._database.transact(note)
        except StoreError as error:  # it has to end whether that can be written down or not
            logger.error("hang_not_noted", extra={"reason": str(error)})  # noqa: TRY400 (a full disk needs no traceback)
        await asyncio.to_thread(self._end_runtime)

    def _hangs(self, runtime: RuntimeStatus | None, at_risk: Sequence[UpdateRecord]) -> str | None:
        """Say how the runtime hangs while a candidate is at risk, None if it does not."""
        if not at_risk or runtime is not None:
            self._silent_since_s = None
        if not at_risk:
            return None
        if runtime is not None:
            return self._stuck(runtime, {record.family for record in at_risk})
        now_s = self._clock.monotonic_s()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        elif now_s - self._silent_since_s > self._hang_s:
            self._silent_since_s = None
            return f"it had not answered for {self._hang_s:g} s"
        return None

    def _stuck(self, runtime: RuntimeStatus, families: Container[str]) -> str | None:
        if runtime.loading_s > _LOADS_WITHIN_S:
            return f"loading a release had not ended after {runtime.loading_s:.0f} s"
        for name, lasts_s in runtime.running_s.items():
            if lasts_s > self._hang_s and name.partition(" ")[0] in families:
                return f"a call of {name} had not ended after {lasts_s:.0f} s"
        return None
