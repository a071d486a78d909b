"""A Mosquitto on a machine of its own: nothing but HTTPS and MQTT leads from it to the server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.unit.fleet_server.authority import Fleet


class Elsewhere:
    """The broker's machine: a folder that shares no file with the server's."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.log = folder.with_suffix(".log")

    def prepare(self, token: str) -> None:
        online = self.server.fleet.data.online
        done = self.skerry(
            *("broker-config", "--host", "127.0.0.1", "--port", str(self.server.mqtt_port)),
            *("--device-ca", str(online / "device-ca.crt"), "--ca", str(self.server.ca)),
        )
        assert done.returncode == 0, done.stderr
        assert "token is missing" in done.stderr
        for name in ("tls.crt", "tls.pem"):
            shutil.copy(online / name, self.folder / name)
        (self.folder / "token").touch(mode=0o600)
        (self.folder / "token").write_text(token)

    def command(self, *arguments: str) -> list[str]:
        where = ("--folder", str(self.folder), "--server", self.server.url)
        return [sys.executable, "-m", "skerry", "server", *arguments, *where]

    def skerry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=60, check=False
        )

    @contextmanager
    def running(self, command: list[str]) -> Iterator[None]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(10) == 0

    def told(self, event: str) -> bool:
        return f'"{event}"' in self.log.read_text()


def connect(device: EnrolledDevice) -> Client:
    server = device.server
    return Client(
        client_id=device.device_id, files=device.files, port=server.mqtt_port, ca=server.ca
    )


def connects(device: EnrolledDevice) -> bool:
    with connect(device) as client:
        return client.accepted


def revoke(device: EnrolledDevice) -> None:
    server, path = device.server, f"/api/v1/devices/{device.device_id}/revoke"
    assert server.request("POST", path, token=server.api_token("admin")).status == 200


def test_a_broker_elsewhere_learns_whom_to_refuse(provisioned: Fleet, tmp_path: Path) -> None:
    server = RunningServer(provisioned.copy_to(tmp_path / "a"))
    server.environment["SKERRY_SERVER_BROKER_URL"] = f"mqtts://localhost:{server.mqtt_port}"
    there = Elsewhere(server, tmp_path / "b")
    mosquitto = shutil.which("mosquitto", path=f"/usr/sbin{os.pathsep}/usr/bin")
    assert mosquitto
    server.spawn()
    try:
        eventually(lambda: server.log_path.exists() and server.events("server_started"))
        there.prepare(server.api_token("broker"))
        first = there.skerry("broker-follow", "--once")
        assert (first.returncode, "start it with" in first.stderr) == (
            1,
            True,
        )  # but with its lists
        with there.running([mosquitto, "-c", str(there.folder / "mosquitto.conf")]):
            eventually(server.is_ready, server.log_path.read_text)
            alice, mallory = server.enroll("alice"), server.enroll("mallory")
            with there.running(there.command("broker-follow", "--interval", "0.3")):
                eventually(lambda: there.told("broker_reloaded"), there.log.read_text)
                hers, his = connect(alice), connect(mallory)
                assert hers.accepted
                assert his.accepted
                revoke(mallory)
                assert his.was_cut()
                assert not connects(mallory)
                assert hers.connected
                made = server.skerry("server", "ca", "new-device-ca")
                assert made.returncode == 0, made.stderr
                eventually(lambda: server.events("device_ca_in_office"), server.log_path.read_text)
                bob = server.enroll("bob")
                assert connects(bob)
                server.stop()
                eventually(lambda: there.told("broker_not_followed"), there.log.read_text)
                assert [connects(each) for each in (bob, mallory)] == [True, False]
                assert hers.connected
                hers.close()
                his.close()
    finally:
        server.stop()
    assert "traceback" not in there.log.read_text().lower()
