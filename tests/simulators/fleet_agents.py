"""Many devices in one process: the agent's real control code against a real server and broker.

Only the runtime behind the admin socket is simulated. Each device enrols as a device does, keeps
its own state directory, key and connection, and runs the same tasks as the control process.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_agent import enroll, identity
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import SystemClock
from edge_agent.control.database import Database
from edge_agent.control.lasting_task import lasting
from edge_agent.control.machine import Machine
from edge_agent.control.mqtt_link import Broker, MqttLink
from edge_agent.control.parts import Outside, Parts
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from provisioning.claim_issue import ClaimIssuer
from tests.simulators.runtime_process import PID, SimulatedRuntime
from tests.unit.fleet_server.authority import FAMILY, PASSPHRASE, Fleet

SETTINGS = ControlSettings(
    telemetry_window_s=1.0,
    probation_s=1.0,
    report_interval_s=30.0,
    retry_initial_s=0.2,
    retry_shared_initial_s=0.2,
    retry_max_s=1.0,
)
TRAFFIC_EVERY_S = 0.5


@dataclass
class Agent:
    """One device.

    Attributes:
        slower: factor on its latency, by version.
    """

    device_id: str
    state: StateDir
    runtime: SimulatedRuntime
    speed_us: float
    slower: dict[str, float]

    async def run(self) -> None:
        """Run the tasks of the control process, and an application that makes calls."""
        who = await asyncio.to_thread(identity.load, self.state)
        dice = random.Random(self.device_id)  # noqa: S311 (jitter of pauses)
        clock = SystemClock()
        server = FleetServer(
            url=who.enrollment.server_url,
            tls=who.tls_context(client_certificate=False),
            tokens=DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=clock),
        )
        link = MqttLink(
            broker=Broker(
                host=who.enrollment.mqtt_host,
                port=who.enrollment.mqtt_port,
                device_id=who.device_id,
                tls=partial(who.tls_context, client_certificate=True),
            ),
            retry_initial_s=SETTINGS.retry_shared_initial_s,
            retry_max_s=SETTINGS.retry_max_s,
            randomness=dice,
        )
        database = Database(self.state.database)
        parts = Parts(
            state=self.state,
            settings=SETTINGS,
            database=database,
            outside=Outside(
                claim=who.claim,
                clock=clock,
                randomness=dice,
                runtime=self.runtime,
                runtime_pid=lambda: PID,
                end_runtime=self.runtime.boot,
                server=server,
                link=link,
                machine=Machine(),
            ),
        )
        try:
            await parts.prepare()
            async with asyncio.TaskGroup() as group:
                for name, run in {
                    "link": link.run,
                    "inbound": parts.inbound.run,
                    "sender": parts.sender.run,
                    "updater": parts.updater.run,
                    "telemetry": parts.telemetry.run,
                    "reporter": parts.reporter.run,
                    "calls": self._calls,
                }.items():
                    backoff = Backoff(initial_s=0.2, max_s=1.0, randomness=dice)
                    group.create_task(lasting(name, run, backoff=backoff))
        finally:
            server.abort()
            await asyncio.to_thread(database.close)

    async def _calls(self) -> None:
        while True:
            version = self.runtime.serving(FAMILY)
            if version is not None:
                self.runtime.latency_us = self.speed_us * self.slower.get(version, 1.0)
                self.runtime.answer_calls(FAMILY, good=20)
            await asyncio.sleep(TRAFFIC_EVERY_S)


def enrolled(fleet: Fleet, url: str, folder: Path, count: int) -> list[Agent]:
    """Make devices and enrol them as `skerry agent enroll` does."""
    issuer = ClaimIssuer(fleet.authority, passphrase=PASSPHRASE)
    agents = []
    for number in range(count):
        device_id = f"cam-{number:03}"
        state = StateDir(folder / device_id)
        state.create()
        claim = claims.decode(issuer.issue(device_id, now=datetime.now(UTC)))
        enroll.enroll(state=state, server_url=url, claim=claim, post=enroll.https_post)
        speed_us = 1000.0 * (1 + number % 10)
        agents.append(Agent(device_id, state, SimulatedRuntime(state), speed_us, {}))
    return agents


@asynccontextmanager
async def running(agents: Sequence[Agent]) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Run devices while the block lasts; a device is silenced by cancelling its task."""
    tasks = {agent.device_id: asyncio.create_task(agent.run()) for agent in agents}
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
