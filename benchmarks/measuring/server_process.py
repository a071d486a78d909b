"""A server that a benchmark starts, waits for and ends, with all that it started itself."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL_S = 0.002
_START_S = 60.0
_STOP_S = 10.0
_LOG_TAIL = 3000


class ServerProcess:
    """A running server; leaving the context ends it."""

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            log: takes its output; its end is shown if the server does not come up.
            environment: variables beside those of this process.
        """
        self._log = log
        self.started = time.perf_counter()
        with log.open("wb") as output:
            # A session of its own, so that workers which the server starts end with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool]) -> float:
        """Ask until it is ready; return the seconds since its start.

        Raises:
            SystemExit: it ended, or was not ready in time; the message shows the end of its log.
        """
        while not ready():
            ended = self._process.poll() is not None
            if ended or time.perf_counter() - self.started > _START_S:
                tail = self._log.read_text(errors="replace")[-_LOG_TAIL:]
                what = "ended" if ended else f"did not answer within {_START_S:g} s"
                raise SystemExit(f"{self._process.args!r} {what}:\n{tail}")
            time.sleep(_POLL_S)
        return time.perf_counter() - self.started

    def stop(self) -> None:
        """End it, politely first."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
