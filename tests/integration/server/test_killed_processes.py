"""Server and signer die at any time: nothing is lost, and what died is started again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.topics import Channel, Topic
from tests.integration.server.device_traffic import acked, connect, publish, send, window
from tests.integration.server.running_server import RunningServer, eventually, serving
from tests.unit.fleet_server.authority import FAMILY, Fleet, release


@pytest.fixture
def own_server(fleet: Fleet) -> Iterator[RunningServer]:
    yield from serving(fleet)


def test_a_killed_server_loses_nothing(own_server: RunningServer) -> None:
    server = own_server
    admin, camera = server.api_token("admin"), server.enroll("camera")
    new = release()
    assert publish(server, admin, new, version=2).status == 201
    wanted = {"family": FAMILY, "version": "1.0.0", "devices": None}
    assert server.request("PUT", "/api/v1/assignments", token=admin, json=wanted).status == 200
    with connect(camera) as client:
        assert client.subscribe(str(Topic("camera", Channel.ACK)))
        for sequence in range(1, 21):
            send(client, camera, Channel.TELEMETRY, window(sequence))
        before = acked(client)
        server.stop(signal.SIGKILL)
        assert client.was_cut()
        while not client.messages.empty():
            before = acked(client)
    server.start()
    with connect(camera) as client:
        assert client.subscribe(str(Topic("camera", Channel.ASSIGNMENT)))
        assert b"x-skerry-assignment" in client.next_message().payload
        assert client.subscribe(str(Topic("camera", Channel.ACK)))
        for sequence in range(before + 1, 31):
            send(client, camera, Channel.TELEMETRY, window(sequence))
        while acked(client) != 30:
            pass
    summary = server.request("GET", "/api/v1/telemetry/summary", token=admin).json()
    assert (summary["windows"], summary["releases"][0]["requests"]) == (30, 3000)
    releases = server.request("GET", "/api/v1/releases", token=admin).json()["releases"]
    assert [item["version"] for item in releases] == ["1.0.0"]


def test_a_killed_signer_is_started_again(own_server: RunningServer) -> None:
    server = own_server
    assert server.process is not None
    admin = server.api_token("admin")
    server.enroll("camera")
    assert publish(server, admin, release(), version=2).status == 201
    signers = _children(server.process.pid)
    assert len(signers) == 1
    os.kill(signers[0], signal.SIGKILL)
    wanted = {"family": FAMILY, "version": "1.0.0", "devices": None}

    def assigned() -> bool:
        answer = server.request("PUT", "/api/v1/assignments", token=admin, json=wanted)
        assert answer.status in (200, 503), answer.data
        return answer.status == 200

    eventually(assigned)
    restarted = _children(server.process.pid)
    assert restarted != signers
    server.stop(signal.SIGKILL)
    eventually(lambda: not any(_lives(pid) for pid in restarted))


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()
