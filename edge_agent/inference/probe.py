"""Asks what may crash in a process of its own, and remembers good answers.

A driver or a native library that does not fit the machine ends the process that loads it. So the
first time is in a child, which is also the only one that keeps the library in memory. A good answer
is kept below ``run/`` and holds as long as the files that it depends on do not change; a bad one is
asked again, because a plug or a permission may have been all that was missing.
"""

import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from edge_agent import store
from edge_agent.errors import AgentError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_MAX_CACHE_BYTES = 1024 * 1024
_MAX_ENTRIES = 64
_NICE = 10


class ProbeError(AgentError):
    """The child did not come back with an answer; the message says how it ended."""


class Prober:
    """Runs modules of ours as programs and reads the one line that they print."""

    def __init__(self, cache: Path | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Keep good answers in a file, or in memory only."""
        self._cache = cache
        self._timeout_s = timeout_s
        self._answers: dict[str, str] = _read(cache) if cache is not None else {}

    def ask(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        depends_on: Iterable[str],
        lasting: Callable[[str], bool] = bool,
    ) -> str:
        """Return what a module prints.

        Args:
            module: run with ``python -m``; prints one line, exit status 0.
            arguments: for it.
            depends_on: what the answer depends on; see `stamps`.
            lasting: says whether an answer holds as long as ``depends_on`` does.

        Raises:
            ProbeError: it died, failed, or took too long.
        """
        key = _key(module, arguments, depends_on)
        known = self._answers.get(key)
        if known is not None:
            return known
        answer = self._run(module, arguments)
        if lasting(answer):
            self._keep(key, answer)
        return answer

    def _run(self, module: str, arguments: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired as error:
            raise ProbeError(f"it did not answer within {self._timeout_s:g} s") from error
        except OSError as error:
            raise ProbeError(f"no process could be started for it: {error}") from error
        if done.returncode < 0:
            raise ProbeError(f"the process that tried it died of {_signal(-done.returncode)}")
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise ProbeError(said[:1000] or f"it failed with exit status {done.returncode}")
        return done.stdout.decode(errors="replace").strip().rpartition("\n")[2]

    def _keep(self, key: str, answer: str) -> None:
        entries = [*self._answers.items(), (key, answer)][-_MAX_ENTRIES:]
        self._answers = dict(entries)
        if self._cache is None:
            return
        try:
            store.write_file(self._cache, msgspec.json.encode(self._answers))
        except AgentError as error:
            logger.warning("probe_not_remembered", extra={"reason": str(error)})


def stamps(files: Iterable[Path]) -> list[str]:
    """Return what changes when one of the files does."""
    found = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found.append(f"{path} -")
        else:
            found.append(f"{path} {status.st_mtime_ns} {status.st_size}")
    return found


def lower_priority() -> None:
    """Let the applications go first; for programs that a `Prober` runs."""
    os.nice(_NICE)


def _key(module: str, arguments: Sequence[str], depends_on: Iterable[str]) -> str:
    parts = [sys.version, module, *arguments, "", *depends_on]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        with cache.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_CACHE_BYTES), type=dict[str, str])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
