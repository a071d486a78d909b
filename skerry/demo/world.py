"""The demo's world: its server, devices, applications, and the steps a person would take.

Every step is a command of `skerry` in a process of its own, or a call of the operator API.
"""

import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from skerry.demo import processes
from skerry.demo.application import Application, Tally, Traffic, accuracy
from skerry.demo.errors import DemoError
from skerry.demo.fleet import FleetApi
from skerry.demo.images import LabelledImages
from skerry.demo.layout import DEVICES, FAMILY, HOST, DemoDir, Ports
from skerry.demo.processes import Keeper

RATE_PER_S = 20.0
"""Images that each device's application sends in a second."""

_STEP_ATTEMPTS = 3

Role = Literal["viewer", "operator", "publisher"]

_SERVER_SETTINGS = """\
[server]
host = "{host}"
https_port = {https}
mqtt_port = {mqtt}
"""

_AGENT_SETTINGS = """\
[runtime]
port = {port}

[control]
telemetry_window_s = 1.0
probation_s = 1.5
report_interval_s = 10.0
retry_initial_s = 0.2
retry_max_s = 2.0
"""


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that runs in the demo."""

    directory: DemoDir
    ports: Ports
    model: Path
    images: LabelledImages
    families: tuple[str, ...] = (FAMILY,)
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in DEVICES})
    _keeper: Keeper = field(init=False)
    _traffic: list[Traffic] = field(default_factory=list)
    _apis: dict[Role, FleetApi] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keeper = Keeper(
            {name: value for name, value in os.environ.items() if not name.startswith("SKERRY_")}
        )

    @property
    def url(self) -> str:
        """Where the fleet server answers."""
        return f"https://{HOST}:{self.ports.https}"

    @property
    def ca_file(self) -> Path:
        """The authority behind the server's certificate."""
        return self.directory.authority / "public" / "fleet-ca.crt"

    # What a person does

    def provision(self) -> None:
        """Make the roots of trust, configure the server and give out its API tokens."""
        directory = self.directory
        directory.create()
        _write_secret(directory.passphrase_file, secrets.token_urlsafe(24))
        self._step(
            *("provision", "init", "--out", directory.authority),
            *(part for family in self.families for part in ("--family", family)),
            *("--server-name", "localhost", "--server-name", HOST),
            *("--passphrase-file", directory.passphrase_file),
        )
        (directory.server / "server.toml").write_text(
            _SERVER_SETTINGS.format(host=HOST, https=self.ports.https, mqtt=self.ports.mqtt)
        )
        for role in ("viewer", "operator", "publisher"):
            self._step(
                *("server", "token", "--data", directory.server, "--name", f"demo-{role}"),
                *("--role", role, "--expires", "7d", "--out", directory.token_file(role)),
            )

    def start_server(self) -> None:
        """Start the fleet server."""
        self._keeper.start(
            "server",
            ["server", "run", "--data", str(self.directory.server)],
            self.directory.logs / "server.log",
        )

    def server_pid(self) -> int:
        """Return the process id of the fleet server."""
        return self._keeper.pid("server")

    def enroll(self, name: str, *, settings: str = "") -> None:
        """Make a claim for a device, enrol it and start its agent.

        Args:
            name: of the device.
            settings: content of its ``agent.toml``; the demo's own, with short times, if empty.
        """
        claim, state = self.directory.claim(name), self.directory.device(name)
        self._step(
            *("provision", "claim", "--authority", self.directory.authority),
            *("--device", name, "--expires", "1d", "--out", claim),
            *("--passphrase-file", self.directory.passphrase_file),
        )
        self._networked_step(
            "agent", "enroll", "--server", self.url, "--claim", claim, "--state", state
        )
        port = self.ports.devices[DEVICES.index(name)]
        (state / "agent.toml").write_text(settings or _AGENT_SETTINGS.format(port=port))
        self._keeper.start(
            name, ["agent", "run", "--state", str(state)], self.directory.logs / f"{name}.log"
        )

    def publish(
        self,
        version: str,
        *,
        variant: str,
        model: Path | None = None,
        model_file: Path | None = None,
    ) -> int:
        """Pack and publish a release; return the bundle's size in bytes.

        Args:
            version: of the release.
            variant: of the model.
            model: folder of another model than the reference model.
            model_file: packed in place of the variant's own file, without the publisher's check.
        """
        folder = model or self.model
        bundle = self.directory.bundle(f"{folder.name}-{version}")
        pack = ["model", "pack", str(folder), "--version", version, "--variant", variant]
        if model_file is not None:
            pack += ["--model-file", str(model_file), "--skip-golden-check"]
        self._step(*pack, "--out", bundle)
        self._networked_step(
            *("model", "publish", bundle, "--server", self.url),
            *("--authority", self.directory.authority),
            *("--token-file", self.directory.token_file("publisher")),
            *("--passphrase-file", self.directory.passphrase_file),
        )
        return bundle.stat().st_size

    def assign(self, version: str, devices: Sequence[str], *, family: str = FAMILY) -> None:
        """Assign a release to devices, as an operator."""
        self.api("operator").assign(version, family, list(devices))

    # What happens to the world

    def kill_server(self) -> None:
        """Pull the server's plug."""
        self._keeper.kill("server")

    def resume_server(self) -> None:
        """Start the killed server again."""
        self._keeper.resume("server")

    def start_traffic(self) -> None:
        """Let an application on each device send images steadily."""
        for name in DEVICES:
            traffic = Traffic(
                application=self.application(name),
                images=self.images,
                tally=self.tallies[name],
                rate_per_s=RATE_PER_S,
            )
            traffic.start()
            self._traffic.append(traffic)

    def stop_traffic(self) -> None:
        """Let every application finish its call and end."""
        while self._traffic:
            self._traffic.pop().stop()

    def stop(self) -> None:
        """End everything."""
        self.stop_traffic()
        for api in self._apis.values():
            api.close()
        self._keeper.stop()
        processes.stop_leftovers(self.directory.root)

    # What can be seen

    def api(self, role: Role) -> FleetApi:
        """The operator API with the token of a role."""
        if role not in self._apis:
            token = self.directory.token_file(role).read_text().strip()
            self._apis[role] = FleetApi(url=self.url, ca_file=self.ca_file, token=token)
        return self._apis[role]

    def application(self, name: str) -> Application:
        """A client on a device."""
        return Application(
            unix_socket=self.directory.device(name) / "run" / "runtime.sock",
            tcp_port=self.ports.devices[DEVICES.index(name)],
        )

    def all_online(self) -> bool:
        """Say whether the server sees every device online."""
        seen = self.api("viewer").devices()
        return all(name in seen and seen[name]["online"] for name in DEVICES)

    def committed(self, name: str, *, family: str = FAMILY) -> str | None:
        """The release of a family that the server knows to serve healthily on a device."""
        for running in self._reported(name).get("running", []):
            if running["family"] == family and running["committed"]:
                return str(running["version"])
        return None

    def refusal(self, name: str, version: str) -> str | None:
        """Why a device refused a release, or None while it has not."""
        for update in self._reported(name).get("updates", []):
            if update["version"] == version and update["state"] == "failed":
                return str(update["detail"])
        return None

    def measure(self, name: str, version: str) -> float:
        """Return a device's accuracy on the demo images."""
        application = self.application(name)
        try:
            return accuracy(application, self.images, self.tallies[name], version=version)
        finally:
            application.close()

    def answered(self) -> int:
        """How many images were answered so far."""
        return sum(tally.sent - tally.failed for tally in self.tallies.values())

    def last_window(self, name: str) -> int:
        """The highest sequence number that a device has given to a telemetry window."""
        database = self.directory.device(name) / "state.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            row = connection.execute(
                "SELECT next_sequence - 1 FROM streams WHERE kind = 'telemetry'"
            ).fetchone()
        return int(row[0]) if row else 0

    def check_processes(self) -> None:
        """Make sure that no process is beyond help.

        Raises:
            DemoError: one is.
        """
        self._keeper.check()

    def restarts(self) -> dict[str, int]:
        """How often each process had to be started again unasked."""
        return self._keeper.restarts()

    def _reported(self, name: str) -> dict[str, Any]:
        reported: dict[str, Any] | None = self.api("viewer").devices()[name]["reported"]
        return reported or {}

    def _networked_step(self, *arguments: str | Path) -> None:
        """Take a step that needs the server; if that died meanwhile, take it again."""
        for _ in range(_STEP_ATTEMPTS - 1):
            restarts = self.restarts()["server"]
            try:
                self._step(*arguments)
            except DemoError:
                if self.restarts()["server"] == restarts and self.api("viewer").ready():
                    raise
                self.api("viewer").call("GET", "/health/ready")
            else:
                return
        self._step(*arguments)

    def _step(self, *arguments: str | Path) -> str:
        return processes.run_step([str(part) for part in arguments], self._keeper.environment)


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret + "\n")
