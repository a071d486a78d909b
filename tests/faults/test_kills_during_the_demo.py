"""`kill -9` of every kind of process while the demo runs: nobody waits long, nothing is lost.

One run of `skerry demo --check`, in which each kind is killed once at a stage where it has work to
do. The demo's own verdict counts failed calls, stored windows and counted calls.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RUNTIME_RESTART_S = 5.0
"""Far above what a restart takes on an idle machine (below one second), far below a lost device."""

KILLS = {
    "Release 1.1.0": ["edge_agent.control cam-01"],
    "cam-01, cam-02, cam-03: verified": ["edge_agent.inference cam-02", "fleet_server"],
    "Release 1.2.0": ["edge_agent.supervisor cam-03", "fleet_server.assignments.signer"],
}


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a short path, for that of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        yield Path(folder, "d")


@pytest.fixture
def demo(root: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "skerry", "demo", "--check", "--dir", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.terminate()


def pid_of(root: Path, wanted: str) -> int | None:
    """Find the demo's process of a module, such as ``edge_agent.control cam-01``."""
    module, _, device = wanted.partition(" ")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            below = any(part.startswith(f"{root / device}") for part in arguments)
            if arguments[1:3] == ["-m", module] and below:
                return int(entry.name)
    return None


def kill(root: Path, wanted: str) -> None:
    deadline = time.monotonic() + 10
    while (pid := pid_of(root, wanted)) is None:
        assert time.monotonic() < deadline, f"no process {wanted}"
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(240)
def test_every_process_may_be_killed(demo: subprocess.Popen[str], root: Path) -> None:
    killed: list[str] = []
    told: list[str] = []
    assert demo.stderr is not None
    for line in demo.stderr:
        told.append(line)
        for mark, victims in KILLS.items():
            if mark in line and not set(victims) & set(killed):
                for victim in victims:
                    kill(root, victim)
                    killed.append(victim)
    assert demo.stdout is not None
    output = demo.stdout.read()
    assert demo.wait() == 0, "".join(told)
    verdict = json.loads(output)
    assert sorted(killed) == sorted(victim for victims in KILLS.values() for victim in victims)
    assert verdict["ok"]
    assert verdict["requests"]["failed"] == 0
    assert verdict["requests"]["longest_gap_s"] < RUNTIME_RESTART_S
    windows = verdict["telemetry_windows"]
    assert windows["stored"] == windows["sent"]
