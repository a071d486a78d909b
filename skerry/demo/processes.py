"""The long-running processes of the demo, kept up as an init system would keep them.

A process that dies without having been asked to is started again, so that anyone may kill anything
during the demo. Processes of an earlier demo that was itself killed are found by their command
line, which names the demo's directory.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skerry.demo.errors import DemoError

_RESTART_PAUSE_S = 0.3
_QUICK_S = 3.0
_HOPELESS_AFTER = 3
_STOP_WITHIN_S = 15.0


@dataclass(slots=True)
class _Kept:
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes]
    wanted: bool = True
    restarts: int = 0
    quick_deaths: int = 0
    """Unasked deaths in a row, each within `_QUICK_S` of the start."""


@dataclass(slots=True)
class Keeper:
    """Starts, restarts and stops the processes of one demo."""

    environment: dict[str, str]
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    def start(self, name: str, arguments: Sequence[str], log: Path) -> None:
        """Start ``skerry <arguments>`` and keep it up."""
        argv = [sys.executable, "-m", "skerry", *arguments]
        with self._lock:
            self._kept[name] = _Kept(argv, log, self._spawn(argv, log))
        threading.Thread(target=self._keep, args=(name,), daemon=True).start()

    def kill(self, name: str) -> None:
        """Kill a process (SIGKILL) and leave it down until `resume`."""
        with self._lock:
            kept = self._kept[name]
            kept.wanted = False
        kept.process.kill()
        kept.process.wait()

    def resume(self, name: str) -> None:
        """Start a killed process again."""
        with self._lock:
            kept = self._kept[name]
            kept.process = self._spawn(kept.argv, kept.log)
            kept.wanted = True
        threading.Thread(target=self._keep, args=(name,), daemon=True).start()

    def pid(self, name: str) -> int:
        """Return the process id of what runs under a name now."""
        with self._lock:
            return self._kept[name].process.pid

    def check(self) -> None:
        """Make sure that no process dies as soon as it is started, again and again.

        Raises:
            DemoError: one does; the message has the last line of its log.
        """
        with self._lock:
            for name, kept in self._kept.items():
                if kept.quick_deaths >= _HOPELESS_AFTER:
                    lines = kept.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                    raise DemoError(
                        f"{name} dies as soon as it is started; {kept.log} ends with: {lines[-1]}"
                    )

    def restarts(self) -> dict[str, int]:
        """Return how often each process was restarted unasked."""
        with self._lock:
            return {name: kept.restarts for name, kept in self._kept.items()}

    def stop(self) -> None:
        """Ask all to end, and end those that do not."""
        self._closing.set()
        with self._lock:
            processes = [kept.process for kept in self._kept.values()]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as stream:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self.environment,
                start_new_session=True,
            )

    def _keep(self, name: str) -> None:
        while True:
            with self._lock:
                kept = self._kept[name]
                process = kept.process
            started = time.monotonic()
            process.wait()
            lived_s = time.monotonic() - started
            if self._closing.wait(_RESTART_PAUSE_S):
                return
            with self._lock:
                if not kept.wanted or self._closing.is_set():
                    return
                kept.restarts += 1
                kept.quick_deaths = kept.quick_deaths + 1 if lived_s < _QUICK_S else 0
                kept.process = self._spawn(kept.argv, kept.log)


def run_step(arguments: Sequence[str], environment: dict[str, str]) -> str:
    """Run ``skerry <arguments>`` to its end and return its standard output.

    Raises:
        DemoError: it failed; the message has the command and what it said.
    """
    step = subprocess.run(
        [sys.executable, "-m", "skerry", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if step.returncode != 0:
        raise DemoError(f"skerry {' '.join(arguments)} failed:\n{step.stderr.strip()}")
    return step.stdout


def stop_leftovers(root: Path) -> int:
    """End the processes of an earlier demo on this directory; return how many there were.

    Raises:
        DemoError: one does not end.
    """
    found = _belonging_to(root)
    for pid in found:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN_S
    while _belonging_to(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in _belonging_to(root):
        _signal(pid, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_WITHIN_S
    while remaining := _belonging_to(root):
        if time.monotonic() > deadline:
            raise DemoError(f"processes of an earlier demo do not end: {sorted(remaining)}")
        time.sleep(0.1)
    return len(found)


def _belonging_to(root: Path) -> set[int]:
    """Return the other processes whose command line names a path at or below ``root``."""
    prefix = os.fsencode(root)
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (os.getpid(), os.getppid()):
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        module = arguments[2] if arguments[1:2] == [b"-m"] else b""
        ours = module.split(b".")[0] in (b"skerry", b"edge_agent", b"fleet_server")
        below = any(part == prefix or part.startswith(prefix + b"/") for part in arguments)
        if ours and below and b"demo" not in arguments[3:4]:
            found.add(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
