"""What Linux says about memory: of this process, of the machine, of the control group."""

import os
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SHARE = 0.75
"""Of the available memory that models may take by default: requests and answers need the rest."""


def resident_bytes(proc: Path = _PROC) -> int:
    """Return the resident memory of this process; reads no disk."""
    resident_pages = (proc / "self/statm").read_text().split()[1]
    return int(resident_pages) * os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes(proc: Path = _PROC) -> int:
    """Return the resident memory of this process that is no file's; reads no disk."""
    fields = (proc / "self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def default_budget_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Return how much memory models may take where the settings do not say.

    Three quarters of what is available now, to the machine (``MemAvailable``) or to the control
    group (cgroup v2, ``memory.max`` less ``memory.current``), whichever is less.
    """
    bounds = [_available(proc), _left_in_group(proc, cgroup)]
    return int(min((bound for bound in bounds if bound is not None), default=1 << 62) * _SHARE)


def _available(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def _left_in_group(proc: Path, cgroup: Path) -> int | None:
    try:
        entry = (proc / "self/cgroup").read_text().strip().rpartition("::")[2]
        folder = cgroup / entry.lstrip("/")
        limit = int((folder / "memory.max").read_text())
        return max(0, limit - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):  # no such group here, or "max"
        return None
