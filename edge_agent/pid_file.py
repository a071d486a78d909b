"""Pid files that tell the truth: a file counts only while its process holds a lock on it.

The kernel drops the lock with the process, however it dies, so a stale file is never believed and
a reused pid is never signalled.
"""

import fcntl
import os
from pathlib import Path

from edge_agent.errors import AgentError


class PidFileError(AgentError):
    """Another process of the same kind runs on this state directory, or the file is unusable."""


class PidFile:
    """Held for the life of a process."""

    def __init__(self, path: Path) -> None:
        """Lock the file and write this process's pid into it.

        Raises:
            PidFileError: it is locked by a living process, or cannot be written.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # Whoever can open the file can lock it, and keep the process from starting again.
            os.fchmod(self._descriptor, 0o600)
        except OSError as error:
            raise PidFileError(f"cannot open the pid file {path}: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise PidFileError(
                f"a {path.stem} process (pid {holder(path)}) already runs on {path.parent.parent}; "
                "stop it first or use another state directory"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Unlock; the file stays, since removing it would race with the next holder."""
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """Return the pid of the living process that holds the file, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)
