"""A real Mosquitto over TLS that asks for client certificates."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent import identity
from edge_agent.identity import Enrollment, Identity
from edge_agent.identity_files import IdentityFiles
from fleet_protocol.claims import ClaimBundle
from tests.simulators.fleet_authority import Authority


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Mosquitto:
    """A broker that can be killed and started again on the same port.

    Attributes:
        fleet: signs the broker's certificate.
        devices: signs the clients' certificates.
    """

    folder: Path
    fleet: Authority = field(default_factory=Authority)
    devices: Authority = field(default_factory=lambda: Authority("devices"))
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        certificate, key = self.fleet.server_files(self.folder)
        (self.folder / "devices.pem").write_text(self.devices.pem)
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {self.folder / 'devices.pem'}\n"
            f"certfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous true\n"
            "user root\n"
        )
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert program is not None
        self.process = subprocess.Popen(
            [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def identity(self, device_id: str, folder: Path) -> Identity:
        """Return the identity of a device that the broker knows."""
        folder.mkdir()
        files = IdentityFiles(folder)
        key = identity.ensure_key(files.key)
        request = identity.certificate_request(key, device_id)
        files.certificate.write_text(self.devices.device_certificate(request))
        claim = ClaimBundle(
            device_id=device_id,
            token="t",
            expires_at_ms=0,
            fleet_ca_pem=self.fleet.pem,
            release_root="{}",
            director_root="{}",
        )
        enrollment = Enrollment(
            device_id=device_id,
            server_url="https://localhost:1",
            mqtt_host="localhost",
            mqtt_port=self.port,
        )
        return Identity(files, enrollment, claim)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker."""
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.kill()
