"""The real server process on a provisioned data directory, and clients of it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import urllib3
from urllib3.response import BaseHTTPResponse

from fleet_server.accounts.roles import Role
from fleet_server.token_issue import issue
from tests.simulators import warm_processes
from tests.simulators.warm_processes import WarmProcess
from tests.unit.fleet_server.authority import DeviceKey, Fleet

DEADLINE_S = 30.0
COLD = (sys.executable, "-m", "fleet_server")
"""How to start a server where the start itself is looked at."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def eventually(condition: Callable[[], object], what: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@dataclass
class RunningServer:
    """A server that can be killed and started again.

    Attributes:
        program: starts it instead of a process that has loaded what a server is made of already.
    """

    fleet: Fleet
    https_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    process: WarmProcess | subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    program: Sequence[str] = ()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def ca(self) -> Path:
        return self.fleet.authority.fleet_ca

    @property
    def log_path(self) -> Path:
        return self.fleet.authority.root / "server.log"

    def spawn(self) -> "RunningServer":
        self.log_path.touch()
        where = ("--data", str(self.fleet.data.root))
        environment = {
            "SKERRY_SERVER_HTTPS_PORT": str(self.https_port),
            "SKERRY_SERVER_MQTT_PORT": str(self.mqtt_port),
            **self.environment,
        }
        self.process = (
            self._cold(where, environment)
            if self.program
            else warm_processes.spawn(
                "fleet_server", *where, stderr=self.log_path, environment=environment
            )
        )
        return self

    def _cold(self, where: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*self.program, *where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the claim of the first admin
                stderr=log,
                env={**os.environ, **environment},
            )

    def start(self) -> "RunningServer":
        self.spawn()
        eventually(self.is_ready, self.log_path.read_text)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = self.request("GET", "/health/ready")
            return answer.status == 200 and answer.json()["components"]["signer"] == "up"
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines of one event; every line must be JSON."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [line for line in lines if name is None or line["event"] == name]

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        **options: Any,  # noqa: ANN401 (urllib3's)
    ) -> BaseHTTPResponse:
        headers = options.pop("headers", {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with urllib3.PoolManager(ca_certs=str(self.ca), retries=False, timeout=20.0) as pool:
            return pool.request(method, self.url + path, headers=headers, **options)

    def api_token(self, role: str) -> str:
        """Make a token as `skerry server token` does, beside the running server."""
        data, lifetime = self.fleet.data.root, timedelta(days=1)
        made = issue(data, name=role, role=Role(role), lifetime=lifetime)
        return asyncio.run(made)[0]

    def skerry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command; commands of the server get its data directory."""
        where = ["--data", str(self.fleet.data.root)] if arguments[0] == "server" else []
        return warm_processes.run(
            "skerry", *arguments, *where, timeout_s=60, environment=self.environment
        )

    def enroll(self, device_id: str) -> "EnrolledDevice":
        key = DeviceKey.new(device_id)
        body = {"token": self.fleet.claim_token(device_id), "csr_pem": key.csr()}
        answer = self.request("POST", "/device/v1/enroll", json=body)
        assert answer.status == 200, answer.data
        return EnrolledDevice(self, key, answer.json(), answer.headers["x-request-id"])


@dataclass
class EnrolledDevice:
    """A device with its certificate on disk."""

    server: RunningServer
    key: DeviceKey
    enrollment: dict[str, Any]
    request_id: str

    @property
    def device_id(self) -> str:
        return self.key.device_id

    @property
    def files(self) -> tuple[Path, Path]:
        """Certificate and key."""
        folder = self.server.fleet.authority.root
        certificate = folder / f"{self.device_id}.crt"
        key = folder / f"{self.device_id}.pem"
        if not key.exists():
            certificate.write_text(self.enrollment["certificate_pem"])
            key.write_bytes(self.key.pem)
        return certificate, key


def serving(fleet: Fleet, environment: dict[str, str] | None = None) -> Iterator[RunningServer]:
    """Run a server for a fixture; what it logged must hold no secret and no traceback."""
    server = RunningServer(fleet, environment=environment or {}).start()
    yield server
    server.stop()
    log = server.log_path.read_text()
    assert "traceback" not in log.lower(), log
    assert "skerry_" not in log
