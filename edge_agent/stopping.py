"""Stops a running agent by its locked pid files, whoever started it."""

import contextlib
import os
import select
import signal
import time

from edge_agent import pid_file
from edge_agent.errors import AgentError
from edge_agent.state_dir import StateDir


class StopError(AgentError):
    """A process of the agent goes on running."""


def stop(state: StateDir, *, timeout_s: float) -> list[str]:
    """End supervisor, control and runtime; return the names of those that ran.

    The supervisor comes first: it ends the other two, and would start them again otherwise.

    Raises:
        StopError: one did not end in time, or belongs to another user.
    """
    deadline_s = time.monotonic() + timeout_s
    names = ("supervisor", "control", "runtime")
    running = [name for name in names if pid_file.holder(state.pid_file(name)) is not None]
    for name in names:
        pid = pid_file.holder(state.pid_file(name))
        if pid is not None:
            _end(name, pid, deadline_s)
    return running


def _end(name: str, pid: int, deadline_s: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            raise StopError(
                f"the {name} process (pid {pid}) has not ended in time; "
                f"look at its log, or end it with: kill -9 {pid}"
            )
    except PermissionError as error:
        raise StopError(
            f"the {name} process (pid {pid}) belongs to another user; stop the agent as that user"
        ) from error
    finally:
        os.close(descriptor)
