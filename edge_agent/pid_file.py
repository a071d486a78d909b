"""Pid files that tell the truth: a file counts only while its process holds a lock on it.

The kernel drops the lock with the process, however it dies, so a stale file is never believed and
a reused pid is never signalled.
"""

import fcntl
import os
from pathlib import Path

from edge_agent.errors import AgentError

_TEXT_BYTES = 32
_LOCKS = Path("/proc/locks")


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
        _note_pid(self._descriptor)

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
        text = os.pread(descriptor, _TEXT_BYTES, 0).strip()
        return int(text) if text.isdigit() else _locking(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _note_pid(descriptor: int) -> None:
    """Write our pid over that of the last holder, always as long: a full disk has no new room."""
    try:
        os.pwrite(descriptor, f"{os.getpid():<{_TEXT_BYTES - 1}}\n".encode(), 0)
    except OSError:
        # The lock is what counts, and a device with a full disk still serves. No pid is better
        # than another one's; whoever looks asks the kernel.
        os.ftruncate(descriptor, 0)


def _locking(descriptor: int) -> int | None:
    """Return the pid that the kernel lists for the lock on a file, None where it tells none."""
    status = os.fstat(descriptor)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        listed = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return None
    return next((int(entry[4]) for entry in listed if entry[1::4] == ["FLOCK", file]), None)
