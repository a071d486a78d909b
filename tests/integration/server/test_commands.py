"""Commands from the terminal through server, signer and broker to a real control process."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from tests.integration.server.running_server import RunningServer, eventually, serving
from tests.simulators.agent_processes import Devices
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture(scope="module")
def server(provisioned: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from serving(provisioned.copy_to(tmp_path_factory.mktemp("server") / "a"))


class Device:
    """A device of which only the control process runs."""

    def __init__(self, state: StateDir) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.state.root / "stderr.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.control", "--state", str(self.state.root)],
                stderr=log,
            )

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None


@pytest.fixture
def device(server: RunningServer, tmp_path: Path) -> Iterator[Device]:
    made = Devices.enrolled(server.fleet, server.url, tmp_path / "d", 1, ControlSettings())
    (state,) = made.states.values()
    device = Device(state)
    (state.root / "agent.toml").write_text("[control]\nretry_shared_initial_s = 0.2\n")
    yield device
    device.kill()


def test_a_device_that_was_away_does_it_once_and_answers_once(
    server: RunningServer, device: Device, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(server.api_token("operator"))
    where = ("--server", server.url, "--token-file", str(token_file), "--ca", str(server.ca))

    def fleet(*arguments: str, status: int = 0) -> str:
        done = server.skerry("fleet", *arguments, *where)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def state_of(command: str) -> dict[str, Any]:
        path = f"/api/v1/commands/{command}"
        found: dict[str, Any] = server.request("GET", path, token=token_file.read_text()).json()
        return found

    claim = server.skerry("server", "admin-claim").stdout
    for status in (0, 1):
        claimed = subprocess.run(
            [
                *(sys.executable, "-m", "skerry", "fleet", "claim-admin", "--name", "ann"),
                *("--server", server.url, "--ca", str(server.ca)),
                *("--token-out", str(tmp_path / "session")),
            ],
            input=f"{claim.strip()}\ncorrect horse battery staple\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert claimed.returncode == status, claimed.stderr
    assert "used or expired" in claimed.stderr
    assert (tmp_path / "session").stat().st_mode & 0o777 == 0o600
    session = (tmp_path / "session").read_text().strip()
    account = server.request("GET", "/api/v1/account", token=session).json()
    assert (account["name"], account["role"]) == ("ann", "admin")

    away = json.loads(
        fleet("command", "diagnostics", "cam-0000", "--wait-s", "0", "--json", status=3)
    )
    (asked,) = away["commands"]
    assert asked["state"] == "open"
    device.start()
    eventually(lambda: state_of(asked["id"])["state"] == "done", server.log_path.read_text)
    found = state_of(asked["id"])["result"]
    assert found["broker_connected"]
    assert found["server_ms"] > 0
    assert not found["runtime_up"]

    device.kill()
    device.start()  # the broker hands over what it retains, which is nothing new
    lines = fleet("logs", "cam-0000", "--since", "1h", "--process", "control").splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("control_started") == 2
    assert events.count("command_taken") == 2
    assert "does not answer" in fleet("command", "bench", "cam-0000", status=1)
    listed = json.loads(fleet("command", "list", "--device", "cam-0000", "--json"))["commands"]
    assert [one["state"] for one in listed] == ["failed", "done", "done"]
    assert [one["sequence"] for one in listed] == [3, 2, 1]

    made = json.loads(
        fleet("config", "set", "quiet", "--set", "control.telemetry_window_s=30", "--json")
    )
    eventually(device.has_ended)  # to begin anew with the settings that it tries
    device.start()

    def configured() -> dict[str, Any]:
        return dict(json.loads(fleet("config", "devices", "--json"))["devices"][0])

    eventually(lambda: configured().get("version") == made["version"])
    assert configured()["name"] == "quiet"
