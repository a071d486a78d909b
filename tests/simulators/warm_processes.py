"""Processes of the product forked from one that has loaded its modules already.

Loading takes most of two seconds of a processor for a server and one for a command, and a run of
the tests starts more than a hundred. A fork runs the same ``python -m MODULE ARGUMENTS``, in a
process of its own with an environment and output of its own. Tests of a start itself, of what is
imported and of installed commands leave this alone.
"""

import functools
import multiprocessing.util
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

_LOADED: Final = (
    "fleet_server.process",
    "fleet_server.migrate",
    "fleet_server.serving",
    "fleet_server.assignments.signer",
    "fleet_server.cli",
    "fleet_server.operator_cli",
    "provisioning.cli",
    "edge_agent.cli",
    "edge_agent.control.process",
)
_CHILD: Final = """
import gc, os, runpy, sys
gc.freeze()  # what was loaded is shared with the others as long as nobody writes to it
for number, path in ((1, stdout), (2, stderr)):
    opened = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(opened, number)
    os.close(opened)
os.environ.clear()
os.environ.update(environment)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class WarmProcess:
    """One of them, with the methods that a ``subprocess.Popen`` has for it."""

    def __init__(self, process: ForkServerProcess) -> None:
        """Take a process that was started."""
        assert process.pid is not None
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """Return how it ended, or nothing while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: it has not come.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def spawn(
    module: str,
    *arguments: str,
    stderr: Path,
    stdout: Path = Path(os.devnull),
    environment: Mapping[str, str] | None = None,
) -> WarmProcess:
    """Start ``python -m MODULE ARGUMENTS``, which adds what it says to files that exist.

    Args:
        module: has a `__main__`.
        arguments: of its command line.
        stderr: gets what it says.
        stdout: gets what it prints.
        environment: added to that of the tests.
    """
    names = {
        "module": module,
        "arguments": arguments,
        "stdout": str(stdout),
        "stderr": str(stderr),
        "environment": {**os.environ, **(environment or {})},
    }
    # A daemon ends with the tests, however they end.
    process = _context().Process(target=exec, name=module, args=(_CHILD, names), daemon=True)
    process.start()
    return WarmProcess(process)


def run(
    module: str, *arguments: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m MODULE ARGUMENTS`` to its end.

    Raises:
        subprocess.TimeoutExpired: it has not come.
    """
    with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
        files = {"stdout": Path(stdout.name), "stderr": Path(stderr.name)}
        process = spawn(module, *arguments, **files, environment=environment)
        try:
            status = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, status, stdout.read(), stderr.read())


def end() -> None:
    """End what a test left running and remove the socket by which they were started.

    Python does that when it exits, but a worker of xdist leaves without it.
    """
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # typeshed lacks it


@functools.cache
def _context() -> ForkServerContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(list(_LOADED))
    return made
