"""The commands of README's "Use it" are run as they stand there, by a shell, in an empty folder.

Only what a reader would replace too is replaced: the server's name, ports that may be taken here,
and the address of all interfaces.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SERVED_WITHIN_S = 90


def commands() -> list[str]:
    section = (REPOSITORY / "README.md").read_text().split("## Use it")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in bound]


class Reader:
    """Somebody who types the commands into a shell."""

    def __init__(self, folder: Path) -> None:
        https, mqtt, runtime = free_ports(3)
        self._folder = folder
        self._replaced = {
            "fleet.example.org:8443": f"localhost:{https}",
            "fleet.example.org": "localhost",
            "0.0.0.0": "127.0.0.1",  # noqa: S104 (so that nothing here does)
            "127.0.0.1:8500": f"127.0.0.1:{runtime}",
        }
        (folder / "models").symlink_to(REPOSITORY / "models")
        (folder / "passphrase").write_text("correct horse battery staple\n")
        (folder / "passphrase").chmod(0o600)
        scripts = sysconfig.get_path("scripts")
        self._environment = os.environ | {
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "SKERRY_PASSPHRASE_FILE": str(folder / "passphrase"),
            "SKERRY_SERVER_HTTPS_PORT": str(https),
            "SKERRY_SERVER_MQTT_PORT": str(mqtt),
            "SKERRY_AGENT_RUNTIME__PORT": str(runtime),
            "SKERRY_AGENT_CONTROL__PROBATION_S": "1",
        }
        self.https = https
        self.running: list[subprocess.Popen[bytes]] = []

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", self._adapted(line)],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start(self, line: str) -> None:
        log = (self._folder / f"{len(self.running)}.log").open("wb")
        with log:
            self.running.append(
                subprocess.Popen(
                    shlex.split(self._adapted(line)),
                    cwd=self._folder,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )
            )

    def end(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def _adapted(self, line: str) -> str:
        for original, replacement in self._replaced.items():
            line = line.replace(original, replacement)
        return line


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    yield someone
    someone.end()


@pytest.mark.timeout(240)
def test_readme_leads_to_a_served_model(reader: Reader) -> None:
    lines = commands()
    assert len(lines) >= 10
    for line in lines:
        if line.startswith("curl"):
            wait_for(reader, f"{line} -sf", SERVED_WITHIN_S)
        elif re.match(r"skerry (server|agent) run ", line):
            reader.start(line)
            if "server" in line.split()[1]:
                wait_for(reader, f"curl -skf https://localhost:{reader.https}/health/ready", 30)
        else:
            done = reader.type(line)
            assert done.returncode == 0, f"{line}\n{done.stderr}"


def wait_for(reader: Reader, line: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (done := reader.type(line)).returncode != 0:
        assert time.monotonic() < deadline, f"{line}\n{done.stderr}"
        time.sleep(0.2)
