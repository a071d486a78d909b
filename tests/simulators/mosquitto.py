"""A real Mosquitto beside a fleet server, with the configuration that the project writes for it."""

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet_server.broker.mosquitto_files import MosquittoFiles
from tests.integration.server.running_server import RunningServer, eventually


@dataclass
class Mosquitto:
    """The broker of one server; it can be killed and started again on its port and its data."""

    server: RunningServer
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def beside(cls, server: RunningServer) -> "Mosquitto":
        """Configure a broker for a server that was not started yet, and the server for it."""
        server.environment |= {
            "SKERRY_SERVER_BROKER_URL": f"mqtts://localhost:{server.mqtt_port}",
            "SKERRY_SERVER_MQTT_PORT": str(server.mqtt_port),
        }
        done = server.skerry("server", "broker-config")
        assert done.returncode == 0, done.stderr
        made = cls(server)
        assert Path(done.stdout.strip()) == made.files.configuration
        return made

    @property
    def files(self) -> MosquittoFiles:
        return MosquittoFiles.beside(self.server.fleet.data)

    @property
    def log_path(self) -> Path:
        return self.server.fleet.authority.root / "mosquitto.log"

    def start(self) -> "Mosquitto":
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert program is not None
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", program, "-c", str(self.files.configuration)],  # noqa: S607 (found on PATH)
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        eventually(self._is_up, self.log_path.read_text)
        return self

    def stop(self) -> None:
        """End it in order: what it retains is on the disk."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.server.mqtt_port)) == 0
