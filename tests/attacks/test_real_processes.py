"""Attacks over real TLS on a device whose runtime is a real process with an application on it.

The control parts are the real ones with their real HTTPS client; what the tables show on simulated
seams is shown here for the wire, and for the calls of an application.
"""

import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent import store
from edge_agent.control import server_client
from edge_agent.control.clock import SystemClock
from edge_agent.control.database import Database
from edge_agent.control.machine import Machine
from edge_agent.control.outside import Outside
from edge_agent.control.parts import Parts
from edge_agent.control.runtime_client import AdminSocket
from edge_agent.control.server_client import METADATA_ROUTE, DeviceTokens, FleetServer
from edge_agent.identity import pinned_tls_context
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.messages import Event, EventKind, decode
from tests.integration.runtime.reference_calls import golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.simulators.broker_link import SimulatedLink
from tests.simulators.device_releases import Release, release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director
from tests.simulators.fleet_authority import Authority
from tests.simulators.hostile_fleet import EVIL, listed
from tests.simulators.https_server import Answer, Request, serving
from tests.unit.edge_agent.inference.reference_release import FAMILY, commit, reference_release

DEVICE = "cam-01"


@contextmanager
def application(runtime: RunningRuntime) -> Iterator[list[float]]:
    """Call the model all the time; yield the duration of each call, in seconds."""
    durations: list[float] = []
    failures: list[Exception] = []
    stop = threading.Event()
    image, expected = golden("fp32")[0]

    def call() -> None:
        try:
            with runtime.public() as client:
                while not stop.wait(0.01):
                    began_s = time.monotonic()
                    assert infer(client, image)[1] == pytest.approx(expected, abs=1e-3)
                    durations.append(time.monotonic() - began_s)
        except Exception as error:  # noqa: BLE001 (a thread's error is the test's to report)
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield durations
    finally:
        stop.set()
        thread.join(30)
    assert failures == []


@dataclass
class Siege:
    """A device on real sockets, and a server that belongs to the attacker."""

    state: StateDir
    runtime: RunningRuntime
    repository: SimulatedRepository
    director: Director
    parts: Parts
    database: Database
    trickles: list[str] = field(default_factory=list)
    assigned: int = 0

    def answer(self, request: Request) -> Answer:
        path = unquote(request.path)
        if path not in self.repository.files:
            return Answer(404)
        slow = any(part in path for part in self.trickles)
        return Answer(body=self.repository.files[path], pause_s=0.02 if slow else 0.0)

    async def wants(self, made: Release) -> None:
        self.repository.add(made)
        self.assigned += 1
        document = self.director.assign_targets(DEVICE, self.assigned, listed(made))
        assert await self.parts.desk.receive(document)

    async def until_told(self, sentence: str) -> None:
        """Let control work until the fleet would hear of what was seen."""
        deadline = time.monotonic() + 30
        while not any(sentence in detail for detail in self.told()):
            assert time.monotonic() < deadline, self.told()
            await self.parts.updater.round()
            await self.parts.updater.downloads_finished()

    def told(self) -> list[str]:
        connection = store.read_only_database(self.state.database)
        rows = connection.execute("SELECT payload FROM outbox WHERE kind = 'event'").fetchall()
        connection.close()
        events = [decode(payload, Event) for (payload,) in rows]
        return [event.detail for event in events if event.kind is EventKind.DELIVERY_REFUSED]


@pytest.fixture
async def siege(tmp_path: Path) -> AsyncIterator[Siege]:
    state = StateDir(tmp_path / "d")
    commit(state, reference_release(state))
    now = datetime.now(UTC).replace(microsecond=0)
    repository, director = SimulatedRepository(family=FAMILY, now=now), Director(now=now)
    authority = Authority()
    sieges: list[Siege] = []

    def answer(request: Request) -> Answer:
        return sieges[0].answer(request)

    with (
        running(state.root) as runtime,
        serving(authority.server_context(tmp_path), answer) as url,
    ):
        claim = ClaimBundle(
            device_id=DEVICE,
            token="t",
            expires_at_ms=0,
            fleet_ca_pem=authority.pem,
            release_root=repository.root.decode(),
            director_root=director.root.decode(),
        )
        key = ec.generate_private_key(ec.SECP256R1())
        database = Database(state.database)
        server = FleetServer(
            url=url,
            tls=pinned_tls_context(claim),
            tokens=DeviceTokens(device_id=DEVICE, key=key, clock=SystemClock()),
        )
        outside = Outside(
            claim=claim,
            clock=SystemClock(),
            randomness=random.Random(1),  # noqa: S311 (jitter)
            runtime=AdminSocket(state.admin_socket),
            runtime_pid=lambda: runtime.process.pid,
            end_runtime=runtime.process.kill,
            stop_runtime=runtime.process.terminate,
            server=server,
            post=server.post,
            end_process=lambda: None,
            link=SimulatedLink(),
            machine=Machine(),
        )
        settings = ControlSettings(
            retry_initial_s=0.05, retry_max_s=0.1, retry_shared_initial_s=0.05
        )
        parts = Parts(state=state, settings=settings, database=database, outside=outside)
        await parts.prepare()
        made = Siege(state, runtime.surveyed(), repository, director, parts, database)
        sieges.append(made)
        yield made
        await parts.updater.stop_downloads()
        database.close()


async def test_the_application_never_notices(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    files = siege.repository.files
    with application(siege.runtime) as calls:
        one = release("1.1.0", family=FAMILY)
        await siege.wants(one)
        (path,) = [name for name in files if "1.1.0" in name and name.endswith("model.onnx")]
        files[path] = (EVIL * 10)[: len(one.model)]
        await siege.until_told("model.onnx as the server sent it has SHA-256")

        await siege.wants(release("1.2.0", family=FAMILY))
        (path,) = [name for name in files if "1.2.0" in name and name.endswith("model.onnx")]
        files[path] += EVIL * 500
        await siege.until_told("bytes; signed are")

        await siege.wants(release("1.3.0", family=FAMILY))
        good = files[f"{METADATA_ROUTE}timestamp.json"]
        files[f"{METADATA_ROUTE}timestamp.json"] = b"[" * 16_000
        await siege.until_told("Failed to deserialize")
        files[f"{METADATA_ROUTE}timestamp.json"] = b" " * 10_000_000
        await siege.until_told("exceeding the maximum allowed length of 16384")

        files[f"{METADATA_ROUTE}timestamp.json"] = good
        siege.trickles = ["snapshot.json"]
        monkeypatch.setattr(server_client, "_PACE_S", 0.3)
        await siege.until_told("cannot fetch the release metadata: the server sent")
    assert len(calls) > 50
    (serving_now,) = AdminSocket(siege.state.admin_socket).status().releases
    assert (serving_now.version, serving_now.active) == ("1.0.0", True)
    for blob in siege.state.blobs.iterdir():
        assert EVIL[:16] not in blob.read_bytes()
