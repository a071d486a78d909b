"""The real runtime process on a state directory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient

_DEADLINE_S = 30.0

_probed = b"{}"
"""The largest ``probes.json`` so far: each answer holds for the same files on this machine, and
trying every backend's library anew for each runtime would cost seconds."""


class RunningRuntime:
    """A started process."""

    def __init__(self, state: StateDir, **environment: str) -> None:
        """Start it; `ready` waits for it."""
        self.state = state
        self._log_path = state.root.parent / f"{state.root.name}.log"
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.inference", "--state", str(state.root)],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )

    def ready(self) -> "RunningRuntime":
        """Wait until it listens."""
        eventually(self._listens, self.log_text)
        return self

    def surveyed(self) -> "RunningRuntime":
        """Wait until it has tried every backend and accelerator, so that its status comes soon."""
        with self.ready().admin() as admin:
            admin.socket.settimeout(60)
            assert admin.call("GET", "/admin/status").status == 200
        return self

    def public(self) -> RawClient:
        """Connect as an application."""
        return RawClient(self.state.runtime_socket)

    def admin(self) -> RawClient:
        """Connect as control."""
        return RawClient(self.state.admin_socket)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process if it lives and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(_DEADLINE_S)

    def log_text(self) -> str:
        """Return what it has logged so far."""
        return self._log_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event; every line must be JSON."""
        lines = [json.loads(line) for line in self.log_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the runtime ended: {self.log_text()}")
        try:
            with self.public(), self.admin():
                return True
        except OSError:
            return False


@contextlib.contextmanager
def running(root: Path, **environment: str) -> Iterator[RunningRuntime]:
    """Run a runtime for the length of a block; TCP is off unless the environment says otherwise."""
    global _probed  # noqa: PLW0603 (as long-lived as the test process)
    state = StateDir(root)
    if not state.probes.exists():
        state.create()
        state.probes.write_bytes(_probed)
    runtime = RunningRuntime(state, **{"SKERRY_AGENT_RUNTIME__PORT": "0", **environment})
    try:
        yield runtime
    finally:
        runtime.stop()
        _probed = max(_probed, state.probes.read_bytes(), key=len)


def eventually(condition: Callable[[], bool], why_not: Callable[[], str] = str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen in {_DEADLINE_S} s: {why_not()}")
        time.sleep(0.01)
