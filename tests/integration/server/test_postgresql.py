"""The server process on PostgreSQL."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.integration.server.running_server import RunningServer
from tests.simulators.postgresql_cluster import Cluster
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture
def server(
    fleet: Fleet, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningServer]:
    made = RunningServer(fleet)
    url = asyncio.run(cluster.create(migrated=False))
    monkeypatch.setenv("SKERRY_SERVER_DATABASE_URL", url)  # for commands inside of this process
    made.environment["SKERRY_SERVER_DATABASE_URL"] = url
    yield made
    if made.process is not None:
        made.stop()
    assert "traceback" not in made.log_path.read_text().lower()
    assert "not-needed" not in made.log_path.read_text()
    asyncio.run(cluster.drop(url))


async def cut_connections(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


def test_it_is_migrated_by_command_and_outlives_its_connections(
    server: RunningServer, cluster: Cluster
) -> None:
    server.spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    assert "run `skerry server migrate` once" in server.log_path.read_text()
    server.log_path.unlink()
    done = server.skerry("server", "migrate")
    assert done.returncode == 0, done.stderr
    server.start()
    server.enroll("cam-1")
    token = server.api_token("viewer")
    asyncio.run(cut_connections(server.environment["SKERRY_SERVER_DATABASE_URL"]))
    answer = server.request("GET", "/api/v1/devices/cam-1", token=token)
    assert (answer.status, answer.json()["id"]) == (200, "cam-1")
    assert not server.fleet.data.database.exists()
    request_id = server.enroll("cam-2").request_id
    assert f"skerry {request_id} " in cluster.log.read_text()
