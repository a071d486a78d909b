"""Backup, loss and restore of a server, with the commands of docs/operations.md themselves."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import messages
from fleet_protocol.messages import Capabilities, Reported
from fleet_protocol.topics import Channel, Topic
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.simulators.postgresql_cluster import Cluster
from tests.unit.fleet_server.authority import FAMILY, Fleet, ReleaseFiles, release, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
KINDS = ("SQLite", "PostgreSQL")


def commands(heading: str, kind: str) -> str:
    """Return the commands below a heading, for one kind of database."""
    section = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert len(lines) > 4
    other = next(each for each in KINDS if each != kind)
    return "\n".join(line for line in lines if not line.endswith(f"# {other}"))


@dataclass
class Site:
    """A server, its database, and the folder of its backup."""

    server: RunningServer
    cluster: Cluster
    kind: str
    backup: Path
    database: str = ""

    async def new_database(self) -> None:
        """Put an empty database in the place of the present one."""
        if self.kind == "PostgreSQL":
            if self.database:
                await self.cluster.drop(self.database)
            self.database = await self.cluster.create(migrated=False)
            self.server.environment["SKERRY_SERVER_DATABASE_URL"] = self.database
            os.environ["SKERRY_SERVER_DATABASE_URL"] = self.database  # for tokens made here

    def run(self, heading: str) -> None:
        """Run the commands below a heading of the document."""
        done = subprocess.run(
            ["sh", "-e", "-c", commands(heading, self.kind)],  # noqa: S607 (found on PATH)
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                **os.environ,
                **self.server.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "DIR": str(self.server.fleet.data.root),
                "BACKUP": str(self.backup),
                "DATABASE": self.database,
            },
        )
        assert done.returncode == 0, done.stderr

    def lose(self) -> None:
        self.server.stop()
        shutil.rmtree(self.server.fleet.data.root)


@pytest.fixture(params=KINDS)
def site(
    request: pytest.FixtureRequest,
    fleet: Fleet,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    monkeypatch.setenv("SKERRY_SERVER_DATABASE_URL", "")
    monkeypatch.delenv("SKERRY_SERVER_DATABASE_URL")
    made = Site(RunningServer(fleet), cluster, request.param, tmp_path / "backup")
    asyncio.run(made.new_database())
    if made.database:
        assert made.server.skerry("server", "migrate").returncode == 0
    made.server.start()
    yield made
    made.server.stop()
    if made.database:
        asyncio.run(cluster.drop(made.database))
    assert "traceback" not in made.server.log_path.read_text().lower()


def publish(server: RunningServer, token: str, *releases: ReleaseFiles) -> None:
    role = signed_role(server.fleet.publisher(), *releases, version=len(releases) + 1)
    files = [("targets", path, content) for path, content in releases[-1].by_path.items()]
    answer = server.request(
        "POST",
        "/api/v1/releases",
        token=token,
        body=form(("metadata", "role.json", role), *files),
        headers={"Content-Type": CONTENT_TYPE},
    )
    assert answer.status in {200, 201}, answer.data


def assign(server: RunningServer, token: str, version: str) -> int:
    wanted = {"family": FAMILY, "version": version, "devices": ["cam-1"]}
    answer = server.request("PUT", "/api/v1/assignments", token=token, json=wanted)
    assert answer.status == 200, answer.data
    return int(view(server, token)["assignment"]["version"])


def view(server: RunningServer, token: str) -> dict[str, Any]:
    found: dict[str, Any] = server.request("GET", "/api/v1/devices/cam-1", token=token).json()
    return found


def report(device: EnrolledDevice, version: int, *, commands: int) -> None:
    """Say what the device holds and has taken, as it does whenever it connects."""
    message = Reported(
        at_ms=1,
        agent_version="1",
        assignment_version=version,
        runtime_up=True,
        command_sequence=commands,
        capabilities=Capabilities(machine="x86_64", cpu_count=2),
    )
    server = device.server
    with Client(
        port=server.mqtt_port, ca=server.ca, files=device.files, client_id=device.device_id
    ) as client:
        topic = str(Topic(device.device_id, Channel.REPORTED))
        assert client.publish(topic, messages.encode(message), retain=True)


def test_a_restored_server_sends_no_device_back_in_time(site: Site) -> None:
    server = site.server
    device, admin = server.enroll("cam-1"), server.api_token("admin")
    old, new = release("1.0.0"), release("1.1.0")
    publish(server, admin, old)
    publish(server, admin, old, new)
    saved = assign(server, admin, "1.0.0")
    site.run("Backup")
    assign(server, admin, "1.1.0")
    assign(server, admin, "1.0.0")
    lost = assign(server, admin, "1.1.0")
    assert lost > saved + 1
    site.lose()
    asyncio.run(site.new_database())
    site.run("Restore")
    server.start()
    assert view(server, admin)["assignment"]["version"] == saved
    report(device, lost, commands=7)
    eventually(lambda: view(server, admin)["reported"])
    assert assign(server, admin, "1.1.0") == lost + 1
    order = {"devices": ["cam-1"], "action": {"kind": "diagnostics"}}
    issued = server.request("POST", "/api/v1/commands", token=admin, json=order).json()
    assert [command["sequence"] for command in issued["commands"]] == [8]
    assert server.request("GET", "/api/v1/releases", token=admin).json()["releases"]
