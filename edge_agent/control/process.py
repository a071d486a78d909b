"""The control process: the real outside world, and the parts as named tasks until SIGTERM."""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cryptography import x509

from edge_agent import identity, pid_file
from edge_agent.control.authority_watch import AuthorityWatch
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import SystemClock
from edge_agent.control.database import Database
from edge_agent.control.lasting_task import lasting
from edge_agent.control.machine import Machine
from edge_agent.control.mqtt_link import Broker, MqttLink
from edge_agent.control.outside import Outside
from edge_agent.control.parts import Parts
from edge_agent.control.renewal import Renewal
from edge_agent.control.runtime_client import AdminSocket
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.identity import Identity
from edge_agent.lean_memory import give_back
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir

logger = logging.getLogger(__name__)

_THREADS = 16


def _give_memory_back() -> None:
    """Let go of what an update has left: cycles first, which would keep their pages otherwise."""
    gc.collect()
    give_back()


class ControlProcess:
    """One life of the control process."""

    def __init__(
        self,
        *,
        state: StateDir,
        who: Identity,
        settings: ControlSettings,
        settings_problem: str = "",
    ) -> None:
        """Make the parts and open ``state.db``; the fleet is told of a problem with the settings.

        Raises:
            AgentError: identity or database cannot be used.
        """
        self._who = who
        self._settings = settings
        self._random = random.SystemRandom()
        self._stopped = asyncio.Event()
        clock = SystemClock()
        tokens = DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=clock)
        https = who.tls_context(client_certificate=False)
        self._server = FleetServer(
            url=who.enrollment.server_url,
            tls=https,
            tokens=tokens,
            min_bytes_per_s=settings.min_bytes_per_s,
        )
        self._link = MqttLink(
            broker=Broker(
                host=who.enrollment.mqtt_host,
                port=who.enrollment.mqtt_port,
                device_id=who.device_id,
                tls=partial(who.tls_context, client_certificate=True),
            ),
            retry_initial_s=settings.retry_shared_initial_s,
            retry_max_s=settings.retry_max_s,
            randomness=self._random,
        )
        self._renewal = Renewal(
            files=who.files,
            lock=state.pid_file("enroll"),
            device_id=who.device_id,
            server=self._server,
            clock=clock,
            tokens=tokens,
            renewed=self._link.renew,
        )
        self._authorities = AuthorityWatch(
            claim_pem=lambda: identity.load_claim(who.files).fleet_ca_pem,
            path=who.files.fleet_cas,
            server=self._server,
            trust=lambda pem: https.load_verify_locations(cadata=pem),
            issued_by=self._renewal.issued_by,
        )
        self._database = Database(state.database)
        self._parts = Parts(
            state=state,
            settings=settings,
            database=self._database,
            outside=Outside(
                claim=who.claim,
                clock=clock,
                randomness=self._random,
                runtime=AdminSocket(state.admin_socket),
                runtime_pid=partial(pid_file.holder, state.pid_file("runtime")),
                end_runtime=partial(_signal_runtime, state, signal.SIGKILL),
                stop_runtime=partial(_signal_runtime, state, signal.SIGTERM),
                server=self._server,
                post=self._server.post,
                end_process=self._stopped.set,
                certificate_expires_ms=partial(_expires_ms, who),
                link=self._link,
                machine=Machine(),
                settings_problem=settings_problem,
                # What an update needed of memory and library code, the device has back.
                at_rest=_give_memory_back,
            ),
        )

    async def run(self) -> None:
        """Run all tasks until SIGTERM or SIGINT.

        Raises:
            BaseExceptionGroup: a task is broken beyond restarting.
            StoreError: the database refused the first write.
        """
        loop = asyncio.get_running_loop()
        # On one processor the default has five, which a server that trickles could keep waiting.
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="control"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        try:
            await self._parts.prepare()
            logger.info("control_started", extra={"device": self._who.device_id})
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(lasting(name, run, backoff=self._backoff()), name=name)
                    for name, run in self._tasks().items()
                ]
                await self._stopped.wait()
                self._server.abort()
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.to_thread(self._database.close)
        logger.info("control_stopped")

    def _tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "link": self._link.run,
            "inbound": self._parts.inbound.run,
            "sender": self._parts.sender.run,
            "updater": self._parts.updater.run,
            "telemetry": self._parts.telemetry.run,
            "reporter": self._parts.reporter.run,
            "freshness": self._parts.freshness.run,
            "assignment_poll": self._parts.assignment_poll.run,
            "commands": self._parts.run_commands,
            "answers": self._parts.answers.run,
            "mailbox_poll": self._parts.mailbox_poll.run,
            "authorities": partial(
                self._authorities.run, backoff=self._renewal_backoff(), randomness=self._random
            ),
            "renewal": partial(self._renewal.run, backoff=self._renewal_backoff()),
        }

    def _renewal_backoff(self) -> Backoff:
        return Backoff(initial_s=60.0, max_s=3600.0, randomness=self._random)

    def _backoff(self) -> Backoff:
        return Backoff(
            initial_s=self._settings.retry_initial_s,
            max_s=self._settings.retry_max_s,
            randomness=self._random,
        )


def _signal_runtime(state: StateDir, number: signal.Signals) -> None:
    pid = pid_file.holder(state.pid_file("runtime"))
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _expires_ms(who: Identity) -> int | None:
    try:
        certificate = x509.load_pem_x509_certificate(who.files.certificate.read_bytes())
    except (OSError, ValueError):
        return None
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
