"""The runtime's counter files: which are there, which are final, what each says."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent import counters
from edge_agent.control.runtime_client import Runtime, RuntimeRefusedError, RuntimeUnavailableError
from edge_agent.counters import CountersError, Counts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CounterFile:
    """One file with its counts; nobody adds to a final one any more."""

    path: Path
    counts: Counts
    final: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """All counter files at one moment.

    Attributes:
        present: names of all files that were there, readable or not.
    """

    files: list[CounterFile]
    present: frozenset[str]


class CounterFiles:
    """Reads the counter files below ``run/``; methods block their thread."""

    def __init__(
        self,
        *,
        folder: Path,
        runtime: Runtime,
        runtime_pid: Callable[[], int | None],
    ) -> None:
        """Take where the files are and how to learn which runtime lives."""
        self._run = folder
        self._runtime = runtime
        self._runtime_pid = runtime_pid

    def read(self) -> Reading:
        """Read every file.

        The order matters: files are listed before it is asked which runtime lives, so every
        listed file of another epoch belongs to a dead one, and read after it, so a final one is
        read whole.

        Raises:
            CountersError: the disk does not say which files are there.
        """
        paths = self._paths()
        nobody_lives, epoch = self._living()
        files = []
        for path, counts in _readable(paths):
            dead = nobody_lives or (epoch is not None and counts.label.epoch != epoch)
            files.append(CounterFile(path, counts, final=counts.closed or dead))
        return Reading(files, frozenset(path.name for path in paths))

    def counts(self) -> list[Counts]:
        """Return the counts that can be read, without asking which files are final."""
        try:
            return [counts for _, counts in _readable(self._paths())]
        except CountersError as error:
            logger.warning("counters_unreadable", extra={"reason": str(error)})
            return []

    def _paths(self) -> list[Path]:
        try:
            return sorted(path for path in self._run.iterdir() if _is_one(path.name))
        except OSError as error:
            raise CountersError(
                f"cannot look for counter files in {self._run}: {error.strerror or error}"
            ) from error

    def _living(self) -> tuple[bool, str | None]:
        """Say that no runtime lives, or name the epoch of the one that does, if it answers."""
        pid = self._runtime_pid()
        if pid is None:
            return True, None
        try:
            status = self._runtime.status()
        except (RuntimeUnavailableError, RuntimeRefusedError):
            return False, None
        return False, status.epoch if status.pid == pid else None


def _is_one(name: str) -> bool:
    return name.startswith("counters-") and name.endswith(".bin")


def _readable(paths: Iterable[Path]) -> Iterable[tuple[Path, Counts]]:
    for path in paths:
        try:
            yield path, counters.read(path)
        except CountersError as error:
            logger.warning("counters_unreadable", extra={"file": path.name, "reason": str(error)})
