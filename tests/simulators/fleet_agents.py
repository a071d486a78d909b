"""Many devices in one process: the agent's real control code against a real server and broker.

Only the runtime behind the admin socket is simulated; what a release does to it is in the release
(`release_behaviour`). Each device keeps its own state directory, key and connection, and runs the
same tasks as the control process. `agent_processes` starts processes of this module.
"""

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from edge_agent import identity
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import SystemClock
from edge_agent.control.database import Database
from edge_agent.control.lasting_task import lasting
from edge_agent.control.machine import Machine
from edge_agent.control.mqtt_link import Broker, MqttLink
from edge_agent.control.outside import Outside
from edge_agent.control.parts import Parts
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.identity import Identity
from edge_agent.runtime_api import ActiveRelease
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from tests.simulators import release_behaviour
from tests.simulators.agent_processes import SETTINGS_FILE, runtime_log
from tests.simulators.release_behaviour import Behaviour, Fate
from tests.simulators.runtime_process import PID, SimulatedRuntime
from tests.unit.fleet_server.authority import FAMILY

_TRAFFIC_EVERY_S = 0.5
_CALLS = 20
_SPREAD = 0.3
"""Of the latency of single calls, as the standard deviation of its logarithm."""

_DRIFT = 0.03
"""The same of a device's latency from one life of a release to the next: its room, its load."""

_THREADS = 16


class FleetRuntime(SimulatedRuntime):
    """A runtime that does what is written in the releases, and notes what it is told to do."""

    def __init__(self, state: StateDir, device_id: str) -> None:
        self.met: dict[str, tuple[Behaviour, Fate]] = {}
        self._device_id = device_id
        self._active_set = ActiveSetFile(state.active_set)
        self._log = runtime_log(state)
        super().__init__(state)

    def boot(self) -> None:
        for release in self._active_set.read().values():
            self._meet(release)
        super().boot()

    def load(self, release: ActiveRelease) -> None:
        self._note("load", release.version)
        self._meet(release)
        super().load(release)

    def activate(self, family: str, version: str) -> None:
        super().activate(family, version)
        self._note("activate", version)

    def unload(self, family: str, version: str) -> None:
        super().unload(family, version)
        self._note("unload", version)

    def _meet(self, release: ActiveRelease) -> None:
        """Read what a release does here before it is loaded."""
        blob = self._state.blob(release.sha256)
        if release.version in self.met or not blob.exists():
            return
        behaviour = release_behaviour.decode(blob.read_bytes())
        fate = behaviour.fate(self._device_id)
        self.met[release.version] = behaviour, fate
        if fate is Fate.REFUSED:
            self.unloadable.add(release.version)
        elif fate is Fate.WRONG:
            self.models[release.version] = _tripled

    def _note(self, what: str, version: str) -> None:
        line = msgspec.json.encode({"at_s": time.time(), "what": what, "version": version})
        with self._log.open("ab") as log:
            log.write(line + b"\n")


def _tripled(value: float) -> float:
    return 3 * value


@dataclass
class Agent:
    """One device and its application.

    Attributes:
        speed_us: latency of its calls with an ordinary release.
        drift: by how much that changes with each release.
    """

    who: Identity
    state: StateDir
    settings: ControlSettings
    speed_us: float
    runtime: FleetRuntime
    dice: random.Random
    drift: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: StateDir, settings: ControlSettings, number: int) -> "Agent":
        """Return the device of a state directory."""
        who = identity.load(state)
        return cls(
            who=who,
            state=state,
            settings=settings,
            speed_us=1000.0 * (1 + number % 10),
            runtime=FleetRuntime(state, who.device_id),
            dice=random.Random(who.device_id),  # noqa: S311 (drawn latencies, jitter)
        )

    async def run(self) -> None:
        """Live, fall silent if a release makes it, and come back."""
        while True:
            await asyncio.sleep(await self._live())
            await asyncio.to_thread(self.runtime.boot)

    async def _live(self) -> float:
        """Live until a release stops the machine; return for how many seconds."""
        server, link = self._outside()
        database = Database(self.state.database)
        parts = self._parts(server, link, database)
        tasks: list[asyncio.Task[object]] = []
        try:
            await parts.prepare()
            connection = asyncio.create_task(self._lasting("link", link.run))
            control = asyncio.create_task(self._control(parts))
            calls = asyncio.create_task(self._calls())
            tasks += connection, control, calls
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await _ended(control)
            behaviour, fate = await calls
            if fate is not Fate.HANGS:
                return behaviour.silence_s
            await asyncio.sleep(behaviour.silence_s)  # its connection stays
            return 0.0
        finally:
            server.abort()
            for task in tasks:
                await _ended(task)
            await asyncio.to_thread(database.close)

    async def _control(self, parts: Parts) -> None:
        async with asyncio.TaskGroup() as group:
            for name, run in {
                "inbound": parts.inbound.run,
                "sender": parts.sender.run,
                "updater": parts.updater.run,
                "telemetry": parts.telemetry.run,
                "reporter": parts.reporter.run,
                "freshness": parts.freshness.run,
                "assignment_poll": parts.assignment_poll.run,
            }.items():
                group.create_task(self._lasting(name, run))

    async def _lasting(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(initial_s=0.2, max_s=1.0, randomness=self.dice)
        await lasting(name, run, backoff=backoff)

    def _outside(self) -> tuple[FleetServer, MqttLink]:
        who = self.who
        server = FleetServer(
            url=who.enrollment.server_url,
            tls=who.tls_context(client_certificate=False),
            tokens=DeviceTokens(
                device_id=who.device_id, key=who.private_key(), clock=SystemClock()
            ),
        )
        link = MqttLink(
            broker=Broker(
                host=who.enrollment.mqtt_host,
                port=who.enrollment.mqtt_port,
                device_id=who.device_id,
                tls=partial(who.tls_context, client_certificate=True),
            ),
            retry_initial_s=self.settings.retry_shared_initial_s,
            retry_max_s=self.settings.retry_max_s,
            randomness=self.dice,
        )
        return server, link

    def _parts(self, server: FleetServer, link: MqttLink, database: Database) -> Parts:
        outside = Outside(
            claim=self.who.claim,
            clock=SystemClock(),
            randomness=self.dice,
            runtime=self.runtime,
            runtime_pid=lambda: PID,
            end_runtime=self.runtime.boot,
            stop_runtime=self.runtime.boot,
            server=server,
            post=server.post,
            end_process=lambda: None,
            link=link,
            machine=Machine(),
        )
        return Parts(state=self.state, settings=self.settings, database=database, outside=outside)

    async def _calls(self) -> tuple[Behaviour, Fate]:
        """Be the application, until a release stops the machine."""
        while True:
            version = self.runtime.serving(FAMILY)
            behaviour, fate = self.runtime.met.get(version or "", (None, Fate.SERVES))
            if behaviour is not None and fate in {Fate.STOPS, Fate.HANGS}:
                return behaviour, fate
            if behaviour is not None and version is not None:
                self._call(version, behaviour.latency, errs=fate is Fate.ERRS)
            await asyncio.sleep(_TRAFFIC_EVERY_S * self.dice.uniform(0.8, 1.2))

    def _call(self, version: str, latency: float, *, errs: bool) -> None:
        drift = self.drift.setdefault(version, self.dice.lognormvariate(0, _DRIFT))
        for number in range(_CALLS):
            noise = self.dice.lognormvariate(0, _SPREAD)
            self.runtime.latency_us = self.speed_us * latency * drift * noise
            failed = errs and number % 2 == 0
            self.runtime.answer_calls(FAMILY, good=int(not failed), bad=int(failed))


async def _ended(task: asyncio.Task[object]) -> None:
    """End a task that runs; raise what one that has ended failed with."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _run(agents: list[Agent]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS))
    tasks = [asyncio.create_task(agent.run(), name=agent.who.device_id) for agent in agents]
    stopped = asyncio.create_task(_stopped(loop))
    done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _stopped(loop: asyncio.AbstractEventLoop) -> None:
    """Return at SIGTERM, or when whoever started this process is gone."""
    event = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, event.set)
    loop.add_reader(sys.stdin.fileno(), event.set)
    await event.wait()


def main(folder: str, first: str, last: str) -> None:
    """Run the devices of a folder with the numbers from ``first`` to ``last``, without it."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    settings = msgspec.json.decode(Path(folder, SETTINGS_FILE).read_bytes(), type=ControlSettings)
    roots = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    numbers = range(int(first), int(last))
    asyncio.run(_run([Agent.of(StateDir(roots[n]), settings, n) for n in numbers]))
