"""Rollouts over HTTP on a fleet of agents: what the integration test does small and the soak large.

Each scenario says how the new release behaves and returns how its rollout ended.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.integration.server.running_server import RunningServer
from tests.simulators import device_releases
from tests.simulators.fleet_agents import Agent
from tests.unit.fleet_server.authority import FAMILY, ReleaseFiles, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

Json = dict[str, Any]
ENDED = {"completed", "rolled_back", "stopped", "aborted"}


@dataclass
class Campaign:
    """One server, one fleet, and the releases that were published so far."""

    server: RunningServer
    agents: Sequence[Agent]
    token: str
    deadline_s: float
    published: list[ReleaseFiles] = field(default_factory=list)

    async def publish(self, version: str) -> None:
        made = device_releases.release(version, family=FAMILY)
        new = ReleaseFiles(
            FAMILY, version, {"manifest.json": made.manifest_bytes, "model.onnx": made.model}
        )
        self.published.append(new)
        role = signed_role(
            self.server.fleet.publisher(), *self.published, version=len(self.published) + 1
        )
        targets = [("targets", path, content) for path, content in new.by_path.items()]
        answer = await asyncio.to_thread(
            self.server.request,
            "POST",
            "/api/v1/releases",
            token=self.token,
            body=form(("metadata", "role.json", role), *targets),
            headers={"Content-Type": CONTENT_TYPE},
        )
        assert answer.status in {200, 201}, answer.data

    async def call(self, method: str, path: str, body: Json | None = None) -> Json:
        answer = await asyncio.to_thread(
            self.server.request, method, path, token=self.token, json=body
        )
        assert answer.status < 300, answer.data
        content: Json = answer.json()
        return content

    async def everywhere(self, version: str) -> None:
        """Assign a release to all devices and wait until they have committed it."""
        await self.call(
            "PUT",
            "/api/v1/assignments",
            {"family": FAMILY, "version": version, "devices": None},
        )
        await self.until(
            lambda: all(agent.runtime.serving(FAMILY) == version for agent in self.agents)
        )

    async def rollout(self, version: str, **plan: object) -> int:
        made = await self.call(
            "POST", "/api/v1/rollouts", {"family": FAMILY, "version": version, "plan": plan}
        )
        return int(made["id"])

    async def ended(self, rollout: int) -> Json:
        """Wait for the end of a rollout; return its last view."""
        deadline = time.monotonic() + self.deadline_s
        while True:
            view = await self.call("GET", f"/api/v1/rollouts/{rollout}")
            if view["status"] in ENDED:
                return view
            assert time.monotonic() < deadline, (view["explanation"], view["progress"])
            await asyncio.sleep(0.2)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.deadline_s
        while not condition():
            assert time.monotonic() < deadline, self.server.log_path.read_text()[-3000:]
            await asyncio.sleep(0.05)

    async def kill_server(self) -> None:
        """Kill the server without warning and start it again."""
        await asyncio.to_thread(self.server.stop, signal.SIGKILL)
        await asyncio.to_thread(self.server.start)

    def serving(self, version: str) -> int:
        return sum(agent.runtime.serving(FAMILY) == version for agent in self.agents)
