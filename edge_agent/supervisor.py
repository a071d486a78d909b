"""``python -m edge_agent.supervisor --state DIR``: keeps runtime and control alive.

It starts both, starts again what dies, and passes SIGTERM on. The children do not depend on it:
each has a session of its own and no parent-death signal, so they live on when the supervisor is
killed, and the next supervisor adopts them by their locked pid files instead of starting others.
A runtime that has served and falls silent is ended and started again like one that has died.
"""

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent import log_ring, pid_file
from edge_agent.errors import AgentError
from edge_agent.hang_watch import HANG_S, HangWatch
from edge_agent.pid_file import PidFile
from edge_agent.state_dir import StateDir
from fleet_protocol.log_format import JsonFormatter

logger = logging.getLogger(__name__)

PROCESSES = {"runtime": "edge_agent.inference", "control": "edge_agent.control"}
"""Name of the pid file and module of each child."""

_RUNTIME = "runtime"
_STEADY_S = 10.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_GRACE_S = 15.0


@dataclass
class Restarts:
    """When a process may be started again: at once after a steady life, else ever later."""

    pause_s: float = 0.0

    def after(self, lived_s: float) -> float:
        """Return the pause in seconds after a life of that length."""
        if lived_s >= _STEADY_S:
            self.pause_s = 0.0
        pause_s = self.pause_s
        self.pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self.pause_s * 2))
        return pause_s


@dataclass
class Child:
    """One supervised process, running or waiting to be started."""

    name: str
    command: list[str]
    pid_path: Path
    pid: int = 0
    descriptor: int = -1
    started_s: float = 0.0
    due_s: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)

    @property
    def running(self) -> bool:
        """Whether there is a process to watch."""
        return self.descriptor >= 0

    def ensure(self, now_s: float) -> None:
        """Adopt the living process, or start one.

        Raises:
            OSError: no process can be started now.
        """
        if self._adopt():
            logger.info("process_adopted", extra={"child": self.name, "pid": self.pid})
        else:
            process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, start_new_session=True
            )
            # Reaped by `gone`, also if it is not this Popen that learns of its end.
            process.returncode = 0
            self.pid = process.pid
            self.descriptor = os.pidfd_open(self.pid)
            logger.info("process_started", extra={"child": self.name, "pid": self.pid})
        self.started_s = now_s

    def _adopt(self) -> bool:
        pid = pid_file.holder(self.pid_path)
        if pid is None:
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if pid_file.holder(self.pid_path) != pid:  # it ended and its pid may be another's now
            os.close(descriptor)
            return False
        self.pid, self.descriptor = pid, descriptor
        return True

    def gone(self, now_s: float, *, expected: bool) -> None:
        """Take note that the process has ended; when that was expected, it is no warning."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        self.descriptor = -1
        lived_s = now_s - self.started_s
        pause_s = self.restarts.after(lived_s)
        self.due_s = now_s + pause_s
        logger.log(
            logging.INFO if expected else logging.WARNING,
            "process_ended",
            extra={
                "child": self.name,
                "pid": self.pid,
                "lived_s": round(lived_s, 1),
            },
        )

    def signal(self, number: signal.Signals) -> None:
        """Signal the process if it lives."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, number)


class Supervisor:
    """Watches the children through pid descriptors, the runtime by questions too; one thread."""

    def __init__(
        self,
        *,
        state: StateDir,
        processes: dict[str, list[str]],
        hang_s: float = HANG_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            state: the state directory.
            processes: name and command of each child.
            hang_s: after so long a silence a runtime that has answered before is ended.
            monotonic_s: clock in seconds.
        """
        self._monotonic_s = monotonic_s
        self._hang_s = hang_s
        self._watch = HangWatch(state.admin_socket, hang_s=hang_s)
        self._stopping = False
        self._children = [
            Child(name, command, state.pid_file(name)) for name, command in processes.items()
        ]

    def run(self) -> None:
        """Keep the children alive until SIGTERM or SIGINT, then end them."""
        with _signal_socket(self._stop) as wakeup:
            while not self._stopping:
                self._start_due()
                self._end_hanging()
                self._wait(wakeup, self._until_next_s())
            deadline_s = self._monotonic_s() + _GRACE_S
            for child in self._children:
                child.signal(signal.SIGTERM)
            while self._any_running() and self._monotonic_s() < deadline_s:
                self._wait(wakeup, deadline_s - self._monotonic_s())
            for child in self._children:
                child.signal(signal.SIGKILL)
            while self._any_running():
                self._wait(wakeup, None)

    def _stop(self) -> None:
        self._stopping = True

    def _any_running(self) -> bool:
        return any(child.running for child in self._children)

    def _start_due(self) -> None:
        now_s = self._monotonic_s()
        for child in self._children:
            if not child.running and child.due_s <= now_s:
                try:
                    child.ensure(now_s)
                    if child.name == _RUNTIME:
                        self._watch.begin(now_s)
                except OSError as error:
                    child.due_s = now_s + _LONGEST_PAUSE_S / 10
                    logger.error(  # noqa: TRY400 (the message says it)
                        "process_not_started", extra={"child": child.name, "reason": str(error)}
                    )

    def _end_hanging(self) -> None:
        """Ask the runtime if it is time to, and end it if it has been silent for too long."""
        now_s = self._monotonic_s()
        for child in self._children:
            if child.name != _RUNTIME or not child.running or self._watch.due_s > now_s:
                continue
            if self._watch.tick(now_s):
                logger.error(
                    "process_hangs",
                    extra={
                        "child": child.name,
                        "pid": child.pid,
                        "reason": f"it had not answered for {self._hang_s:g} s; it is ended and "
                        "started again",
                    },
                )
                child.signal(signal.SIGKILL)

    def _until_next_s(self) -> float | None:
        due = [child.due_s for child in self._children if not child.running]
        if any(child.name == _RUNTIME and child.running for child in self._children):
            due.append(self._watch.due_s)
        return max(0.0, min(due) - self._monotonic_s()) if due else None

    def _wait(self, wakeup: socket.socket, timeout_s: float | None) -> None:
        """Wait for a child's end, a signal or a time; take note of ended children."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        watched = {child.descriptor: child for child in self._children if child.running}
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        question = self._watch.descriptor
        if question >= 0:
            poll.register(question, select.POLLIN)
        timeout_ms = None if timeout_s is None else int(timeout_s * 1000) + 1
        for descriptor, _ in poll.poll(timeout_ms):
            if descriptor == wakeup.fileno():
                wakeup.recv(64)
            elif descriptor == question:
                self._watch.read()
            else:
                watched[descriptor].gone(self._monotonic_s(), expected=self._stopping)


@contextlib.contextmanager
def _signal_socket(stop: Callable[[], None]) -> Iterator[socket.socket]:
    """Yield a socket that becomes readable after SIGTERM, SIGINT or SIGHUP called ``stop``."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)  # noqa: FBT003 (its only argument)
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in handled}
    for number in handled:
        signal.signal(number, lambda *_: stop())
    wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def commands(state: StateDir) -> dict[str, list[str]]:
    """Return the command line of each child."""
    return {
        name: [sys.executable, "-m", module, "--state", str(state.root)]
        for name, module in PROCESSES.items()
    }


def forget_starts(state: StateDir) -> None:
    """Let the runtime try everything again: somebody has started the agent anew."""
    try:
        state.starts.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("starts_not_forgotten", extra={"reason": str(error)})


def main() -> int:
    """Supervise until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.supervisor",
        description="Keeps the processes of a Skerry agent alive; `skerry agent run` starts it.",
    )
    parser.add_argument("--state", type=Path, required=True, help="state directory of the device")
    parser.add_argument(
        "--hang-s", type=float, default=HANG_S, help="seconds of silence that end the runtime"
    )
    arguments = parser.parse_args()
    state = StateDir(arguments.state.absolute())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        state.create()
        log_ring.keep(state.log, "supervisor")
        lock = PidFile(state.pid_file("supervisor"))
        logger.info("supervisor_started", extra={"state": str(state.root)})
        forget_starts(state)
        Supervisor(state=state, processes=commands(state), hang_s=arguments.hang_s).run()
        logger.info("supervisor_stopped")
        lock.release()
    except AgentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
