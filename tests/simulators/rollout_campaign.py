"""Rollouts over HTTP on a fleet of agents: what the integration test does small and the soak large.

It publishes releases that behave as they say, starts rollouts, says how they go, and reads how they
ended. The server may be killed meanwhile.
"""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.integration.server.running_server import RunningServer
from tests.simulators import child_process, device_releases, mortal_server, release_behaviour
from tests.simulators.agent_processes import Devices
from tests.simulators.release_behaviour import Behaviour
from tests.simulators.rollout_record import Record
from tests.unit.fleet_server.authority import FAMILY, ReleaseFiles, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

Json = dict[str, Any]
Say = Callable[[str], None]
ENDED = {"completed", "rolled_back", "stopped", "aborted"}
_PAGE = 500
_LOOK_EVERY_S = 0.3
_SAY_EVERY_S = 15.0


@dataclass
class Campaign:
    """One server, one fleet, and the releases that were published so far.

    Attributes:
        deadline_s: after which something that should happen has failed to.
        say: is told how it goes.
        kills: of the server so far.
    """

    server: RunningServer
    devices: Devices
    token: str
    deadline_s: float
    say: Say = lambda _: None
    published: list[ReleaseFiles] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    async def publish(self, behaviour: Behaviour) -> None:
        """Publish a release that behaves so."""
        version, model = behaviour.version, release_behaviour.encode(behaviour)
        made = device_releases.release(version, family=FAMILY, model=model)
        files = {"manifest.json": made.manifest_bytes, "model.onnx": made.model}
        new = ReleaseFiles(FAMILY, version, files)
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
        """Make a request that succeeds."""
        answer = await self._answer(method, path, body)
        assert answer is not None, self.server.log_path.read_text()[-3000:]
        return answer

    async def everywhere(self, version: str) -> None:
        """Assign a release to all devices and wait until they have committed it."""
        await self.call(
            "PUT",
            "/api/v1/assignments",
            {"family": FAMILY, "version": version, "devices": None},
        )
        await self.served(version)

    async def served(self, version: str) -> None:
        """Wait until every device has committed a version, by its own word."""
        await self.until(lambda: self.devices.serving(version) == len(self.devices.states))

    async def rollout(self, version: str, **plan: object) -> int:
        """Start a rollout; return its number. Who got no answer looks whether it exists."""
        wanted = {"family": FAMILY, "version": version, "plan": plan}
        while True:
            answer = await self._answer("POST", "/api/v1/rollouts", wanted)
            if answer is not None:
                return int(answer["id"])
            for row in (await self._heard("/api/v1/rollouts"))["rollouts"]:
                if row["version"] == version:
                    return int(row["id"])

    async def ended(self, rollout: int) -> None:
        """Wait for the end of a rollout, and say how it goes; the server may die meanwhile."""
        told, said_s = 0, time.monotonic()
        deadline = time.monotonic() + self.deadline_s
        while True:
            view = await self._answer("GET", f"/api/v1/rollouts/{rollout}")
            if view is not None:
                before, told = told, self._tell(view, told)
                if view["status"] in ENDED:
                    return
                if told != before:
                    said_s = time.monotonic()
            if time.monotonic() > said_s + _SAY_EVERY_S:
                said_s = time.monotonic()
                waits = view["explanation"][:300] if view else "the server is starting"
                self.say(f"     {waits}; kills {dict(self.kills)}")
            assert time.monotonic() < deadline, view or self.server.log_path.read_text()[-3000:]
            await asyncio.sleep(_LOOK_EVERY_S)

    async def settled(self, rollout: int) -> Record:
        """Wait until devices that were silent have come back to a rollout, too; return it all."""
        path = f"/api/v1/rollouts/{rollout}"
        deadline = time.monotonic() + self.deadline_s
        while (view := await self.call("GET", path))["in_flight"] or _awaited(view):
            assert time.monotonic() < deadline, view
            await asyncio.sleep(_LOOK_EVERY_S)
        decisions = await self._all(f"{path}/decisions", "decisions")
        return Record(view, decisions[::-1], await self._all(f"{path}/devices", "devices"))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that devices do."""
        deadline = time.monotonic() + self.deadline_s
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline, self.server.log_path.read_text()[-3000:]
            await asyncio.sleep(_LOOK_EVERY_S)

    async def kill_server(self) -> None:
        """Kill the server without warning and start it again."""
        await asyncio.to_thread(self.server.stop, signal.SIGKILL)
        await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def dying(self, deaths: Coroutine[None, None, None]) -> AsyncIterator[None]:
        """Let the server die as `at_each_write` or `at_random` say, while the block lasts."""
        program = self.server.program
        task = asyncio.create_task(deaths)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            await asyncio.to_thread(self.server.stop)
            self.server.program = program
            self.server.spawn()
            await self._heard("/health/ready")
        assert task.cancelled(), task.exception()

    async def at_each_write(self) -> None:
        """Let it die before and after each of its durable writes to the rollouts."""
        await asyncio.to_thread(self.server.stop)
        while True:
            for moment in ("before", "after"):
                self.server.program = child_process.bound(
                    child_process.command(mortal_server.MODULE, moment)
                )
                process = self.server.spawn().process
                assert process is not None
                while (status := process.poll()) is None:  # noqa: ASYNC110 (it rings no bell)
                    await asyncio.sleep(0.05)
                assert status == -signal.SIGKILL, self.server.log_path.read_text()
                self.kills[f"{moment} a write"] += 1

    async def at_random(self, longest_life_s: float) -> None:
        """Kill it at moments that nothing chooses, every other time not before it has started."""
        dice = random.SystemRandom()
        for number in itertools.count():
            if number % 2:
                await self._heard("/health/ready")
            await asyncio.sleep(dice.uniform(0, longest_life_s))
            await asyncio.to_thread(self.server.stop, signal.SIGKILL)
            self.kills["at random"] += 1
            self.server.spawn()

    async def _heard(self, path: str) -> Json:
        """Ask until the server, which may have to start first, answers."""
        deadline = time.monotonic() + self.deadline_s
        while True:
            answer = await self._answer("GET", path)
            if answer is not None:
                return answer
            assert time.monotonic() < deadline, self.server.log_path.read_text()[-3000:]
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _answer(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """Return what the server says; None if it is not there."""
        try:
            answer = await asyncio.to_thread(
                self.server.request, method, path, token=self.token, json=body
            )
        except urllib3.exceptions.HTTPError:
            return None
        if answer.status == 503:
            return None
        assert answer.status < 300, answer.data
        content: Json = answer.json()
        return content

    async def _all(self, path: str, of: str) -> Sequence[Json]:
        rows: list[Json] = []
        after = ""
        while True:
            page = await self.call("GET", f"{path}?limit={_PAGE}{after}")
            rows += page[of]
            if page["next_after"] is None:
                return rows
            after = f"&after={page['next_after']}"

    def _tell(self, view: Json, told: int) -> int:
        """Say what is new in a rollout; return up to which decision that was told."""
        news = [row for row in reversed(view["decisions"]) if row["number"] > told]
        for row in news:
            self.say(f"{row['number']:4} {row['kind']}: {row['reason'][:300]}")
        if not news:
            return told
        stages = (f"{stage['number']}: {stage['states']}" for stage in view["progress"])
        self.say(f"     {view['status']}; {'; '.join(stages)}; kills {dict(self.kills)}")
        return int(news[-1]["number"])


def _awaited(view: Json) -> int:
    """Return how many devices were told to go back and have not said that they did."""
    return sum(stage["states"].get("recalled", 0) for stage in view["progress"])
