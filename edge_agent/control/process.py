"""The composition root of the control process: makes every part and runs them as named tasks."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial

from edge_agent import pid_file
from edge_agent.control import facts
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.assignment_desk import AssignmentDesk, director_chain
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import SystemClock, TrustedClock
from edge_agent.control.counter_files import CounterFiles
from edge_agent.control.database import Database
from edge_agent.control.download import BlobStore
from edge_agent.control.fetch_step import FetchStep
from edge_agent.control.inbound import Inbound
from edge_agent.control.install import Installer
from edge_agent.control.journal import Journal
from edge_agent.control.lasting_task import lasting
from edge_agent.control.ledger import Ledger
from edge_agent.control.link import Broker, MqttLink
from edge_agent.control.lookout import Lookout
from edge_agent.control.machine import Machine
from edge_agent.control.observation import Observation
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.pauses import Pauses
from edge_agent.control.release_repository import ReleaseRepository
from edge_agent.control.reporter import Reporter
from edge_agent.control.runtime_client import AdminSocket
from edge_agent.control.sender import Sender
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.control.telemetry import Telemetry
from edge_agent.control.trial import Trial
from edge_agent.control.trial_step import TrialStep
from edge_agent.control.updater import Updater
from edge_agent.identity import Identity
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from fleet_protocol.messages import EventKind, SystemWindow

logger = logging.getLogger(__name__)

_ENROLLED = "enrolled_announced"


class ControlProcess:
    """Everything of the control process; `run` lives until it is told to stop."""

    def __init__(self, *, state: StateDir, who: Identity, settings: ControlSettings) -> None:
        """Make the parts and open ``state.db``.

        Raises:
            AgentError: identity or database cannot be used.
        """
        self._state = state
        self._who = who
        self._settings = settings
        self._clock = SystemClock()
        self._random = random.SystemRandom()
        self._trusted_clock = TrustedClock(clock=self._clock)
        self._server = FleetServer(
            url=who.enrollment.server_url,
            tls=who.tls_context(client_certificate=False),
            tokens=DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=self._clock),
        )
        self._database = Database(state.database)
        self._outbox = Outbox(max_messages=settings.outbox_max_messages)
        self._journal = Journal(outbox=self._outbox)
        self._runtime = AdminSocket(state.admin_socket)
        self._counters = CounterFiles(state=state, runtime=self._runtime)
        self._machine = Machine()
        self._observation = Observation()
        self._link = MqttLink(
            broker=Broker(
                host=who.enrollment.mqtt_host,
                port=who.enrollment.mqtt_port,
                device_id=who.device_id,
                tls=partial(who.tls_context, client_certificate=True),
            ),
            retry_initial_s=settings.retry_initial_s,
            retry_max_s=settings.retry_max_s,
            randomness=self._random,
        )

    async def run(self) -> None:
        """Run all tasks until SIGTERM or SIGINT.

        Raises:
            BaseExceptionGroup: a task is broken beyond restarting.
        """
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        try:
            await self._database.transact(self._prepare)
            logger.info("control_started", extra={"device": self._who.device_id})
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(lasting(name, run, backoff=self._backoff()), name=name)
                    for name, run in self._tasks().items()
                ]
                await stopped.wait()
                self._server.abort()
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.to_thread(self._database.close)
        logger.info("control_stopped")

    def _tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        desk = self._desk()
        sender = Sender(
            database=self._database, outbox=self._outbox, link=self._link, clock=self._clock
        )
        return {
            "link": self._link.run,
            "inbound": Inbound(link=self._link, desk=desk, sender=sender).run,
            "sender": sender.run,
            "updater": self._updater(desk).run,
            "telemetry": self._telemetry().run,
            "reporter": Reporter(
                observation=self._observation,
                link=self._link,
                machine=self._machine,
                clock=self._clock,
                interval_s=self._settings.report_interval_s,
            ).run,
        }

    def _desk(self) -> AssignmentDesk:
        return AssignmentDesk(
            device_id=self._who.device_id,
            pinned_root=self._who.claim.director_root.encode(),
            chain=partial(director_chain, self._state.trust / "director"),
            database=self._database,
            outbox=self._outbox,
            clock=self._clock,
            trusted_clock=self._trusted_clock,
        )

    def _telemetry(self) -> Telemetry:
        return Telemetry(
            database=self._database,
            outbox=self._outbox,
            files=self._counters,
            system=self._system_window,
            clock=self._clock,
            window_s=self._settings.telemetry_window_s,
        )

    def _updater(self, desk: AssignmentDesk) -> Updater:
        ledger = Ledger(database=self._database, journal=self._journal, clock=self._clock)
        pauses = Pauses(
            clock=self._clock,
            initial_s=self._settings.retry_initial_s,
            max_s=self._settings.retry_max_s,
            randomness=self._random,
        )
        active_set = ActiveSetFile(self._state.active_set)
        blobs = BlobStore(folder=self._state.blobs, server=self._server)
        releases = ReleaseRepository(
            pinned_root=self._who.claim.release_root.encode(),
            cache=self._state.trust / "release",
            server=self._server,
        )
        return Updater(
            lookout=Lookout(
                database=self._database,
                journal=self._journal,
                outbox=self._outbox,
                active_set=active_set,
                runtime=self._runtime,
                clock=self._clock,
                trusted_clock=self._trusted_clock,
                end_runtime=self._end_runtime,
            ),
            observation=self._observation,
            ledger=ledger,
            active_set=active_set,
            blobs=blobs,
            runtime=self._runtime,
            fetch_step=FetchStep(
                installer=Installer(releases=releases, blobs=blobs),
                ledger=ledger,
                database=self._database,
                journal=self._journal,
                trusted_clock=self._trusted_clock,
                observation=self._observation,
                pauses=pauses,
            ),
            trial_step=TrialStep(
                trial=Trial(
                    runtime=self._runtime,
                    blob=self._state.blob,
                    available_memory=self._machine.available_memory,
                ),
                counters=self._counters,
                ledger=ledger,
                clock=self._clock,
                pauses=pauses,
                probation_s=self._settings.probation_s,
            ),
            pauses=pauses,
            accepted=desk.accepted,
        )

    def _backoff(self) -> Backoff:
        return Backoff(
            initial_s=self._settings.retry_initial_s,
            max_s=self._settings.retry_max_s,
            randomness=self._random,
        )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Take the claim's floors over, and tell the fleet once that the device is enrolled."""
        self._journal.raise_floors(connection, self._who.claim.floors)
        if facts.get(connection, _ENROLLED) is None:
            facts.put(connection, _ENROLLED, self._who.device_id)
            self._outbox.append_event(
                connection,
                EventDraft(
                    at_ms=self._clock.now_ms(),
                    kind=EventKind.ENROLLED,
                    detail=f"{self._who.device_id} is enrolled and its agent has started",
                ),
            )

    def _system_window(self) -> SystemWindow:
        return self._machine.window(pid_file.holder(self._state.pid_file("runtime")))

    def _end_runtime(self) -> None:
        pid = pid_file.holder(self._state.pid_file("runtime"))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
