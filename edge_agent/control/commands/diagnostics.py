"""The command `diagnostics`: how the device is, from what can be read without changing anything."""

import asyncio
import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from edge_agent.control import assignment
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.commands.poll import MailboxPoll
from edge_agent.control.commands.runner import Done
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from edge_agent.control.link import Link
from edge_agent.control.machine import Machine
from edge_agent.control.outbox import Outbox
from edge_agent.control.reporter import agent_version
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.server_client import ServerRefusedError, ServerUnreachableError
from edge_agent.runtime_api import RuntimeStatus
from fleet_protocol.command_answers import (
    MAX_LIBRARIES,
    MAX_LISTED,
    MAX_SAID,
    DiagnosticsResult,
    ServingFact,
    UpdateFact,
)
from fleet_protocol.commands import Action, Command
from fleet_protocol.counting import counted

_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
_MAX_NAME = 200
_MAX_FILES = 100_000
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Books:
    """What ``state.db`` says."""

    clock_ahead_s: float
    assignment_version: int
    outbox: dict[str, int]
    updates: list[UpdateFact]
    committed: dict[str, str]
    """Versions by family."""


class DiagnosticsAction:
    """Gathers the report."""

    def __init__(  # noqa: PLR0913 (what it looks at, by keyword)
        self,
        *,
        state_root: Path,
        database: Database,
        journal: Journal,
        outbox: Outbox,
        machine: Machine,
        runtime: Runtime,
        runtime_pid: Callable[[], int | None],
        link: Link,
        poll: MailboxPoll,
        clock: Clock,
        trusted_clock: TrustedClock,
        certificate_expires_ms: Callable[[], int | None],
    ) -> None:
        self._state_root = state_root
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._machine = machine
        self._runtime = runtime
        self._runtime_pid = runtime_pid
        self._link = link
        self._poll = poll
        self._clock = clock
        self._trusted_clock = trusted_clock
        self._certificate_expires_ms = certificate_expires_ms

    async def __call__(self, _action: Action, _command: Command) -> Done:
        """Return the report.

        Raises:
            StoreError: the database refused.
        """
        books = await self._database.transact(self._books)
        result = await asyncio.to_thread(self._result, books)
        serving = "the runtime serves" if result.runtime_up else "the runtime does not answer"
        known = counted(len(books.updates), "model family is", "model families are")
        return Done(f"{serving}, {known} known", result)

    def _books(self, connection: sqlite3.Connection) -> _Books:
        accepted = assignment.load(connection)
        trusted_ms = self._trusted_clock.now(connection).timestamp() * 1000
        records = self._journal.records(connection).values()
        return _Books(
            clock_ahead_s=max(0.0, round((trusted_ms - self._clock.now_ms()) / 1000, 3)),
            assignment_version=accepted.assignment.version if accepted is not None else 0,
            outbox={str(kind): count for kind, count in self._outbox.depth(connection).items()},
            updates=[
                UpdateFact(
                    family=record.family,
                    version=record.version,
                    state=record.state,
                    attempts=record.attempts,
                    detail=record.detail[:MAX_SAID],
                )
                for record in list(records)[:MAX_LISTED]
            ],
            committed={
                family: held.release.version
                for family, held in self._journal.committed(connection).items()
            },
        )

    def _result(self, books: _Books) -> DiagnosticsResult:
        seen = self._machine.snapshot(self._runtime_pid())
        status = self._status()
        server_ms, server_problem = self._ask_server()
        disk = _read(partial(shutil.disk_usage, self._state_root))
        return DiagnosticsResult(
            agent_version=agent_version(),
            python_version=platform.python_version(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}"[:_MAX_NAME],
            libraries={} if status is None else _cut(status.backends, MAX_LIBRARIES, _MAX_NAME),
            uptime_s=seen.uptime_s,
            disk_total_bytes=None if disk is None else disk.total,
            disk_free_bytes=None if disk is None else disk.free,
            state_bytes=_size(self._state_root),
            memory_total_bytes=seen.memory_total_bytes,
            memory_available_bytes=seen.memory_available_bytes,
            load_1_min=seen.load_1_min,
            temperature_celsius=seen.temperature_celsius,
            runtime_resident_bytes=seen.runtime_resident_bytes,
            runtime_up=status is not None,
            runtime_failed={} if status is None else _cut(status.failed, MAX_LISTED, MAX_SAID),
            clock_ms=self._clock.now_ms(),
            clock_ahead_s=books.clock_ahead_s,
            clock_synchronised=True if _SYNCHRONISED.exists() else None,
            broker_connected=self._link.connected,
            server_ms=server_ms,
            server_problem=server_problem,
            certificate_expires_ms=self._certificate_expires_ms(),
            assignment_version=books.assignment_version,
            outbox=books.outbox,
            serving=None if status is None else _serving(status, books.committed),
            updates=books.updates,
        )

    def _status(self) -> RuntimeStatus | None:
        try:
            return self._runtime.status()
        except (RuntimeUnavailableError, RuntimeRefusedError):
            return None

    def _ask_server(self) -> tuple[float | None, str]:
        began_s = time.perf_counter()
        try:
            self._poll.ask()
        except (ServerUnreachableError, ServerRefusedError) as error:
            return None, str(error)[:MAX_SAID]
        return round((time.perf_counter() - began_s) * 1000, 1), ""


def _serving(status: RuntimeStatus, committed: Mapping[str, str]) -> list[ServingFact]:
    active = (release for release in status.releases if release.active)
    return [
        ServingFact(
            family=release.family,
            version=release.version,
            variant=release.variant[:_MAX_NAME],
            backend=release.backend[:_MAX_NAME],
            accelerator=release.accelerator[:_MAX_NAME],
            committed=committed.get(release.family) == release.version,
        )
        for release in islice(active, MAX_LISTED)
    ]


def _cut(said: Mapping[str, str], items: int, length: int) -> dict[str, str]:
    """Return the first items of what the runtime says, each as long as an answer may have it."""
    return {name[:_MAX_NAME]: text[:length] for name, text in islice(said.items(), items)}


def _read(look: Callable[[], Value]) -> Value | None:
    try:
        return look()
    except OSError:
        return None


def _size(root: Path) -> int:
    """Return what lies below a folder, as far as a bounded walk comes."""
    total = count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            count += 1
            if count > _MAX_FILES:
                return total
            found = _read(partial(os.lstat, Path(folder, name)))
            total += 0 if found is None else found.st_size
    return total
