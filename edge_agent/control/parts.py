"""Makes the parts of the control process from the world outside (`outside`) and the settings.

What is made here is the same for the process and for its tests.
"""

import asyncio
import logging
import sqlite3
from functools import partial

from edge_agent import hardware
from edge_agent.control import facts, telemetry
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.assignment_desk import AssignmentDesk
from edge_agent.control.assignment_poll import AssignmentPoll
from edge_agent.control.backoff import Backoff
from edge_agent.control.blob_audit import BlobAudit
from edge_agent.control.choosing import Choosing
from edge_agent.control.clock import TrustedClock
from edge_agent.control.commands import wiring as command_wiring
from edge_agent.control.commands.desk import CommandDesk
from edge_agent.control.commands.poll import MailboxPoll
from edge_agent.control.commands.wiring import Reach
from edge_agent.control.contest import Contest
from edge_agent.control.counter_files import CounterFiles, Reading
from edge_agent.control.damage_alarms import DamageAlarms
from edge_agent.control.database import Database
from edge_agent.control.director_roots import DirectorRoots
from edge_agent.control.download import BlobStore
from edge_agent.control.fetch_step import FetchStep
from edge_agent.control.freshness import Freshness
from edge_agent.control.high_water import HighWater, HighWaterFile
from edge_agent.control.inbound import Inbound
from edge_agent.control.install import Installer
from edge_agent.control.journal import Journal
from edge_agent.control.ledger import Ledger
from edge_agent.control.lookout import Lookout
from edge_agent.control.observation import Observation
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.outside import Outside
from edge_agent.control.pace import Pace
from edge_agent.control.pauses import Pauses
from edge_agent.control.refusals import Refusals
from edge_agent.control.release_repository import ReleaseRepository
from edge_agent.control.repairing import RepairStep
from edge_agent.control.reporter import Reporter
from edge_agent.control.sender import Sender
from edge_agent.control.telemetry import Telemetry
from edge_agent.control.trial import Trial
from edge_agent.control.trial_step import TrialStep
from edge_agent.control.updater import Updater
from edge_agent.control.withdrawn import Withdrawn
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from edge_agent.store import StoreError
from fleet_protocol.messages import EventKind

logger = logging.getLogger(__name__)

_ENROLLED = "enrolled_announced"


class Parts:
    """The parts, wired; nothing runs yet."""

    def __init__(
        self, *, state: StateDir, settings: ControlSettings, database: Database, outside: Outside
    ) -> None:
        self._state = state
        self._settings = settings
        self._outside = outside
        self._database = database
        self._trusted_clock = TrustedClock(clock=outside.clock)
        self._counters = CounterFiles(
            folder=state.run, runtime=outside.runtime, runtime_pid=outside.runtime_pid
        )
        self.outbox = Outbox(max_messages=settings.outbox_max_messages)
        self.journal = Journal(outbox=self.outbox)
        self._high_water = HighWaterFile(state.high_water, journal=self.journal)
        self.observation = Observation(max_bytes_per_s=settings.max_bytes_per_s)
        self._pauses = Pauses(
            clock=outside.clock,
            initial_s=settings.retry_initial_s,
            shared_initial_s=settings.retry_shared_initial_s,
            max_s=settings.retry_max_s,
            randomness=outside.randomness,
        )
        self._refusals = Refusals(database=database, outbox=self.outbox, clock=outside.clock)
        roots = DirectorRoots(
            pinned=outside.claim.director_root.encode(),
            folder=state.trust / "director",
            server=outside.server,
        )
        self.desk = AssignmentDesk(
            device_id=outside.claim.device_id,
            roots=roots,
            database=database,
            high_water=self._high_water,
            outbox=self.outbox,
            refusals=self._refusals,
            clock=outside.clock,
            trusted_clock=self._trusted_clock,
        )
        self.command_desk = CommandDesk(
            device_id=outside.claim.device_id,
            roots=roots,
            database=database,
            high_water=self._high_water,
            refusals=self._refusals,
            trusted_clock=self._trusted_clock,
        )
        self.sender = Sender(
            database=database, outbox=self.outbox, link=outside.link, clock=outside.clock
        )
        self.inbound = Inbound(
            link=outside.link,
            desk=self.desk,
            commands=self.command_desk,
            sender=self.sender,
            backoff=self._local_backoff(),
        )
        self.assignment_poll = AssignmentPoll(
            link=outside.link,
            server=outside.server,
            database=database,
            deliver=self.inbound.offer,
            interval_s=settings.poll_interval_s,
            randomness=outside.randomness,
        )
        self.telemetry = Telemetry(
            database=database,
            outbox=self.outbox,
            files=self._counters,
            system=lambda: outside.machine.window(outside.runtime_pid()),
            clock=outside.clock,
            window_s=settings.telemetry_window_s,
        )
        reach = self._reach()
        self.configure = command_wiring.configure(reach)
        self.reporter = Reporter(
            observation=self.observation,
            configuration=self.configure,
            commands=self.command_desk,
            link=outside.link,
            machine=outside.machine,
            clock=outside.clock,
            interval_s=settings.report_interval_s,
        )
        self._releases = ReleaseRepository(
            pinned_root=outside.claim.release_root.encode(),
            cache=state.trust / "release",
            server=outside.server,
        )
        self._withdrawn = Withdrawn(
            database=database,
            journal=self.journal,
            outbox=self.outbox,
            clock=outside.clock,
            keep_high_water=partial(self._high_water.keep, database),
        )
        self.freshness = Freshness(
            database=database,
            releases=self._releases,
            outbox=self.outbox,
            refusals=self._refusals,
            withdrawn=self._withdrawn,
            clock=outside.clock,
            trusted_clock=self._trusted_clock,
            interval_s=settings.repository_check_s,
            retry=self._shared_backoff(),
            randomness=outside.randomness,
        )
        self.updater = self._updater()
        self.mailbox_poll = MailboxPoll(
            link=outside.link,
            server=outside.server,
            deliver=self.command_desk.offer,
            interval_s=settings.poll_interval_s,
            randomness=outside.randomness,
        )
        self.commands = command_wiring.runner(
            reach,
            desk=self.command_desk,
            poll=self.mailbox_poll,
            configure=self.configure,
            backoff=self._shared_backoff(),
        )
        self.answers = command_wiring.answers(reach, self.commands, self._shared_backoff())

    async def prepare(self) -> None:
        """Take over the claim's floors and what an earlier database knew; tell the fleet of both.

        Raises:
            StoreError: the database refused.
        """
        known = await asyncio.to_thread(self._high_water.read)
        reading = await asyncio.to_thread(self._counters.read)
        before = reading.present or known != HighWater() or self._state.active_set.exists()
        await self._database.transact(
            partial(self._prepare, known=known, reading=reading, lived_before=bool(before))
        )
        await self._high_water.keep(self._database)

    def _prepare(
        self,
        connection: sqlite3.Connection,
        *,
        known: HighWater,
        reading: Reading,
        lived_before: bool,
    ) -> None:
        claim = self._outside.claim
        self.journal.raise_floors(connection, claim.floors)
        self._high_water.restore(connection, known)
        self.command_desk.restore(connection)
        self._pauses.restore(connection)
        if facts.get(connection, _ENROLLED) is not None:
            return
        facts.put(connection, _ENROLLED, claim.device_id)
        kind = EventKind.ENROLLED
        detail = f"{claim.device_id} is enrolled and its agent has started"
        if lived_before:
            # Whether the lost database had these counts in a window is unknown: count none twice.
            telemetry.take_as_baselines(connection, reading)
            kind = EventKind.OUTBOX_DROPPED
            detail = (
                "the device began a new state.db: telemetry and events that were in the old one "
                "and not sent yet are not continued"
            )
            logger.warning("state_database_new", extra={"counter_files": sorted(reading.present)})
        self.outbox.append_event(
            connection, EventDraft(at_ms=self._outside.clock.now_ms(), kind=kind, detail=detail)
        )

    async def run_commands(self) -> None:
        """Judge settings of the fleet that this process began under, then run commands.

        What is on trial is the answer of a command that an earlier life began, so the verdict comes
        before that life's commands are answered, and they before this one begins any.

        Raises:
            StoreError: the disk refused.
        """
        if await self._judged():
            await self.commands.run()
        await asyncio.Event().wait()  # the process ends, to work with the former settings

    async def _judged(self) -> bool:
        """Judge until the disk takes the verdict.

        A disk that refuses it must not end this process: the next one would restart the runtime.
        """
        backoff = self._local_backoff()
        while True:
            try:
                return await self.configure.judge()
            except StoreError as error:
                logger.warning("settings_not_settled", extra={"reason": str(error)})
                await asyncio.sleep(backoff.next_s())

    def _local_backoff(self) -> Backoff:
        return Backoff(
            initial_s=self._settings.retry_initial_s,
            max_s=self._settings.retry_max_s,
            randomness=self._outside.randomness,
        )

    def _shared_backoff(self) -> Backoff:
        return Backoff(
            initial_s=self._settings.retry_shared_initial_s,
            max_s=self._settings.retry_max_s,
            randomness=self._outside.randomness,
        )

    def _reach(self) -> Reach:
        outside = self._outside
        return Reach(
            state=self._state,
            database=self._database,
            journal=self.journal,
            outbox=self.outbox,
            machine=outside.machine,
            runtime=outside.runtime,
            runtime_pid=outside.runtime_pid,
            stop_runtime=outside.stop_runtime,
            link=outside.link,
            clock=outside.clock,
            trusted_clock=self._trusted_clock,
            post=outside.post,
            certificate_expires_ms=outside.certificate_expires_ms,
            end_process=outside.end_process,
            patience=outside.patience,
        )

    def _updater(self) -> Updater:
        outside = self._outside
        active_set = ActiveSetFile(self._state.active_set)
        blobs = BlobStore(
            folder=self._state.blobs, server=outside.server, pace=Pace(clock=outside.clock)
        )
        audit = BlobAudit(blob=self._state.blob)
        ledger = Ledger(database=self._database, journal=self.journal, clock=outside.clock)
        trial = Trial(
            runtime=outside.runtime,
            blob=self._state.blob,
            available_memory=outside.machine.available_memory,
            total_memory=outside.machine.total_memory,
        )
        return Updater(
            lookout=self._lookout(active_set, audit),
            observation=self.observation,
            ledger=ledger,
            active_set=active_set,
            blobs=blobs,
            audit=audit,
            runtime=outside.runtime,
            fetch_step=self._fetch_step(blobs, ledger, self._pauses),
            repair_step=RepairStep(
                blobs=blobs,
                audit=audit,
                trial=trial,
                runtime=outside.runtime,
                database=self._database,
                journal=self.journal,
                observation=self.observation,
                pauses=self._pauses,
                refusals=self._refusals,
            ),
            trial_step=self._trial_step(trial, ledger, self._pauses),
            pauses=self._pauses,
            accepted=self.desk.accepted,
            keep_high_water=partial(self._high_water.keep, self._database),
            at_rest=outside.at_rest,
        )

    def _lookout(self, active_set: ActiveSetFile, audit: BlobAudit) -> Lookout:
        return Lookout(
            database=self._database,
            journal=self.journal,
            outbox=self.outbox,
            active_set=active_set,
            audit=audit,
            runtime=self._outside.runtime,
            clock=self._outside.clock,
            trusted_clock=self._trusted_clock,
            end_runtime=self._outside.end_runtime,
            alarms=self.freshness.look,
            withdrawn=self._withdrawn,
            note_alarms=self.freshness.note,
            damage=DamageAlarms(outbox=self.outbox, clock=self._outside.clock),
            hang_s=self._settings.hang_s,
            settings_problem=self._outside.settings_problem,
        )

    def _fetch_step(self, blobs: BlobStore, ledger: Ledger, pauses: Pauses) -> FetchStep:
        return FetchStep(
            installer=Installer(releases=self._releases, blobs=blobs),
            ledger=ledger,
            database=self._database,
            journal=self.journal,
            trusted_clock=self._trusted_clock,
            observation=self.observation,
            pauses=pauses,
            fingerprint=lambda: hardware.look().fingerprint(),
            refusals=self._refusals,
            withdrawn=self._withdrawn,
        )

    def _trial_step(self, trial: Trial, ledger: Ledger, pauses: Pauses) -> TrialStep:
        return TrialStep(
            trial=trial,
            choosing=Choosing(
                contest=Contest(
                    runtime=self._outside.runtime,
                    blob=self._state.blob,
                    available_memory=self._outside.machine.available_memory,
                ),
                ledger=ledger,
            ),
            counters=self._counters,
            ledger=ledger,
            clock=self._outside.clock,
            pauses=pauses,
            probation_s=self._settings.probation_s,
            hang_s=self._settings.hang_s,
        )
