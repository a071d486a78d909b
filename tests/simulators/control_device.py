"""A device without a network: the real control parts, with everything outside simulated.

A crash is `Crash`, raised by the durable write that the test names: whatever was in memory is then
thrown away, and `restarted` makes the parts anew over the same state directory.
"""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edge_agent import store
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.commands.patience import Patience
from edge_agent.control.database import Database
from edge_agent.control.journal import UpdateRecord
from edge_agent.control.machine import Machine
from edge_agent.control.outside import Outside
from edge_agent.control.parts import Parts
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.messages import Event, EventKind, decode
from fleet_protocol.update_states import UpdateState
from tests.simulators.broker_link import SimulatedLink
from tests.simulators.device_clock import ManualClock
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director
from tests.simulators.runtime_process import PID, SimulatedRuntime

DEVICE = "cam-01"
PROBATION_S = 10.0
Result = TypeVar("Result")


class Crash(BaseException):
    """The device dies here; nothing in our code catches it."""


@dataclass
class CrashPlan:
    """Dies at one durable write, before it or after it.

    Attributes:
        at: number of the write, counted from 1; 0 for none.
        after: the write reaches the disk.
        seen: how many writes there were.
    """

    at: int = 0
    after: bool = False
    seen: int = 0

    def around(self, write: Callable[[], Result]) -> Result:
        """Do a durable write, or die."""
        self.seen += 1
        if self.seen == self.at and not self.after:
            raise Crash
        result = write()
        if self.seen == self.at:
            raise Crash
        return result


class CrashingDatabase(Database):
    """Counts the transactions that write as durable writes."""

    def __init__(self, path: Path, plan: CrashPlan) -> None:
        super().__init__(path)
        self._plan = plan

    def _transact(self, work: Callable[[sqlite3.Connection], Result]) -> tuple[Result, bool]:
        before = self._connection.total_changes
        with store.transaction(self._connection) as connection:
            result = work(connection)
            wrote = connection.total_changes != before
            if wrote and self._plan.seen + 1 == self._plan.at and not self._plan.after:
                self._plan.seen += 1
                raise Crash
        if wrote:
            self._plan.around(lambda: None)
        return result, wrote


@dataclass
class ControlDevice:
    """One device; the outside world lives on when control dies."""

    root: Path
    repository: SimulatedRepository
    director: Director
    probation_s: float = PROBATION_S
    retry_max_s: float = 1.0
    patience: Patience = field(default_factory=Patience)
    machine: Machine = field(default_factory=Machine)
    clock: ManualClock = field(default_factory=ManualClock)
    link: SimulatedLink = field(default_factory=SimulatedLink)
    plan: CrashPlan = field(default_factory=CrashPlan)
    floors: dict[str, int] = field(default_factory=dict)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    post_problems: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = StateDir(self.root)
        self.state.create()
        self.runtime = SimulatedRuntime(self.state)
        self.ended_runtimes = 0
        self.ended_processes = 0
        self.start()

    def start(self) -> None:
        """Make the control parts, as a starting process does."""
        self.database = CrashingDatabase(self.state.database, self.plan)
        self.parts = Parts(
            state=self.state,
            settings=ControlSettings(
                probation_s=self.probation_s, retry_initial_s=0.5, retry_max_s=self.retry_max_s
            ),
            database=self.database,
            outside=Outside(
                claim=ClaimBundle(
                    device_id=DEVICE,
                    token="t",
                    expires_at_ms=0,
                    fleet_ca_pem="",
                    release_root=self.repository.root.decode(),
                    director_root=self.director.root.decode(),
                    floors=self.floors,
                ),
                clock=self.clock,
                randomness=random.Random(1),  # noqa: S311 (jitter of pauses)
                runtime=self.runtime,
                runtime_pid=lambda: None if self.runtime.down else PID,
                end_runtime=self._end_runtime,
                stop_runtime=self._end_runtime,
                server=self.repository,
                post=self._post,
                end_process=self._end_process,
                link=self.link,
                machine=self.machine,
                patience=self.patience,
            ),
        )

    def _post(self, path: str, body: bytes) -> None:
        if self.post_problems:
            raise self.post_problems.pop(0)
        self.posted.append((path, body))

    def _end_process(self) -> None:
        self.ended_processes += 1

    def _end_runtime(self) -> None:
        self.ended_runtimes += 1
        self.runtime.boot()

    async def restarted(self) -> None:
        """Kill control and start it again."""
        await self.kill()
        self.start()
        await self.parts.prepare()

    async def kill(self) -> None:
        """End control; what it had in memory is lost."""
        await self.parts.updater.stop_downloads()
        self.database.close()

    async def receive(self, document: bytes) -> None:
        """Let an assignment arrive."""
        await self.parts.desk.receive(document)

    async def step(self) -> bool:
        """Let control do what it has to do now; say whether it did something."""
        progress = await self.parts.updater.round()
        await self.parts.updater.downloads_finished()
        return progress

    async def settle(self, *, rounds: int = 300) -> None:
        """Let control work until it has nothing to do for a while; time passes as it waits."""
        quiet = 0
        for _ in range(rounds):
            progress = await self.step()
            quiet = 0 if progress or not self.all_settled() else quiet + 1
            if quiet > 3:
                return
            if not progress:
                self.clock.advance(1.0)
        raise AssertionError(f"the device did not settle: {self.records()}")

    async def until(self, state: UpdateState, *, rounds: int = 100) -> None:
        """Let control work until the update is in a state; time passes only in pauses."""
        for _ in range(rounds):
            records = self.records()
            if records and all(record.state is state for record in records.values()):
                return
            if not await self.step():
                self.clock.advance(0.1)
        raise AssertionError(f"the device did not reach {state}: {self.records()}")

    def all_settled(self) -> bool:
        return all(record.settled for record in self.records().values())

    def records(self) -> dict[str, UpdateRecord]:
        return self._read(self.parts.journal.records)

    def record(self, family: str = "animals") -> UpdateRecord:
        return self.records()[family]

    def floor(self, family: str = "animals") -> int:
        return self._read(lambda connection: self.parts.journal.floor(connection, family))

    def active(self) -> dict[str, str]:
        """Return version by family as ``active.json`` has it."""
        releases = ActiveSetFile(self.state.active_set).read().values()
        return {release.family: release.version for release in releases}

    def events(self, kind: EventKind | None = None) -> list[Event]:
        """Return the events in the outbox, in order."""
        rows = self._read(
            lambda connection: connection.execute(
                "SELECT payload FROM outbox WHERE kind = 'event' ORDER BY position"
            ).fetchall()
        )
        events = [decode(payload, Event) for (payload,) in rows]
        return [event for event in events if kind is None or event.kind is kind]

    def states(self) -> list[tuple[str | None, UpdateState | None]]:
        """Return (version, state) of each transition that the fleet will learn of."""
        return [(event.version, event.state) for event in self.events(EventKind.UPDATE_STATE)]

    def _read(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        with closing(store.read_only_database(self.state.database)) as connection:
            return read(connection)
