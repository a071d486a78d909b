"""Starting and stopping the process: what is wrong is said in one line, before anything changes."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_server import migrate
from tests.integration.server.running_server import COLD, RunningServer, eventually
from tests.unit.fleet_server.authority import Fleet


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(server: RunningServer, **environment: str) -> str:
    """Start a server that must not start, and return what it says; nothing may have changed."""
    server.environment = environment
    before = snapshot(server.fleet.data.root)
    server.spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    assert snapshot(server.fleet.data.root) == before
    said = server.log_path.read_text()
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("key", ["https_port", "mqtt_port"])
def test_a_port_in_use(fleet: Fleet, key: str) -> None:
    server = RunningServer(fleet, program=COLD)
    port = getattr(server, key)
    with socket.create_server(("127.0.0.1", port)):
        said = refusal(server)
    assert said.startswith(f"error: port {port} (server.{key}) is in use on 127.0.0.1")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SKERRY_SERVER_HTTPS_PROT": "1"}, "SKERRY_SERVER_HTTPS_PROT"),
        ({"SKERRY_SERVER_LOG_LEVEL": "loud"}, "SKERRY_SERVER_LOG_LEVEL"),
        ({"SKERRY_SERVER_HOST": "192.0.2.1"}, "server.host"),
    ],
)
def test_a_wrong_setting(fleet: Fleet, environment: dict[str, str], named: str) -> None:
    assert named in refusal(RunningServer(fleet, program=COLD), **environment)


@pytest.mark.parametrize(
    "name",
    ["online/ingest.pem", "online/tls.pem", "signer/assignment.pem", "director/1.root.json"],
)
def test_a_missing_file_is_named(fleet: Fleet, name: str) -> None:
    missing = fleet.data.root / name
    missing.unlink()
    said = refusal(RunningServer(fleet, program=COLD))
    assert said.startswith(f"error: {missing} is missing; restore it")


def test_a_database_that_is_none(fleet: Fleet) -> None:
    fleet.data.database.write_bytes(b"garbage" * 1000)
    server = RunningServer(fleet, program=COLD).spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    said = server.log_path.read_text()
    assert re.match(r"error: the database .*fleet\.db cannot be used: .*; see that", said)
    assert said.count("\n") == 1


def test_a_directory_that_was_not_provisioned(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COLD, "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "skerry provision init" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def running(fleet: Fleet) -> Iterator[RunningServer]:
    server = RunningServer(fleet).start()
    yield server
    server.stop(signal.SIGKILL)


def test_a_second_server_on_the_same_data(running: RunningServer) -> None:
    second = RunningServer(running.fleet, program=COLD)
    log = running.log_path.read_text()
    second.spawn()
    assert second.process is not None
    assert second.process.wait(30) == 1
    assert running.process is not None
    assert f"(pid {running.process.pid}) already runs" in running.log_path.read_text()[len(log) :]
    assert running.is_ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(fleet: Fleet, number: signal.Signals) -> None:
    server = RunningServer(fleet, program=COLD).start()
    assert server.stop(number) == 0
    names = [line["event"] for line in server.events()]
    # The first publication of assignments may still end in between.
    assert names.index("server_stopping") < names.index("server_stopped") == len(names) - 1
    assert "signer_died" not in names


def test_a_server_that_stops_says_so_and_finishes_what_has_begun(running: RunningServer) -> None:
    async def scenario() -> bytes:
        context = ssl.create_default_context(cafile=running.ca)
        reader, writer = await asyncio.open_connection("localhost", running.https_port, ssl=context)
        body = b'{"token": "x", "csr_pem": "y"}'
        head = f"POST /device/v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:10])
        await writer.drain()
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(_logged, running, "server_stopping")
        await asyncio.to_thread(_check_draining, running)
        writer.write(body[10:])
        await writer.drain()
        answer = await reader.read(200)
        writer.close()
        return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 401")
    assert running.stop() == 0


def _check_draining(server: RunningServer) -> None:
    ready = server.request("GET", "/health/ready")
    assert (ready.status, ready.json()["status"]) == (503, "stopping")
    assert set(ready.json()["components"].values()) == {"up"}
    assert server.request("GET", "/health/live").status == 200
    refused = server.request("GET", "/api/v1/devices")
    assert (refused.status, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["connection"] == "close"


def _logged(server: RunningServer, event: str) -> None:
    eventually(lambda: server.events(event))


def test_it_starts_again_on_its_own_data(running: RunningServer) -> None:
    running.program = COLD
    for number in (signal.SIGKILL, signal.SIGTERM):
        running.stop(number)
        running.start()
    assert running.request("GET", "/health/ready").json()["components"] == {
        "database": "up",
        "broker": "up",
        "ingest": "up",
        "signer": "up",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("token", "--name", "x", "--role", "viewer", "--expires", "soon"), "--expires"),
        (("token", "--name", "x", "--role", "viewer", "--expires", "9999d"), "366 days"),
        (("token", "--name", "\n", "--role", "viewer"), "--name"),
    ],
)
def test_wrong_token_commands(fleet: Fleet, arguments: tuple[str, ...], named: str) -> None:
    done = RunningServer(fleet).skerry("server", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert named in done.stderr


def test_migrate_command(fleet: Fleet) -> None:
    done = RunningServer(fleet).skerry("server", "migrate")
    assert (done.returncode, done.stdout) == (0, f"The database has revision {migrate.head()}.\n")


def test_idle_connections_do_not_hold_up_the_end(running: RunningServer) -> None:
    context = ssl.create_default_context(cafile=running.ca)
    idle = []
    for _ in range(3):
        plain = socket.create_connection(("localhost", running.https_port))
        connection = context.wrap_socket(plain, server_hostname="localhost")
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        idle.append(connection)
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 8
    for connection in idle:
        connection.close()
