"""Keeps what would run on another machine out of the way of what is measured on this one."""

import atexit
import contextlib
import os
from pathlib import Path

from edge_agent.priority import let_others_go_first

_LOWEST_NICE = 19
_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))
"""Where the control group of all processes is, version 2 and version 1."""


def give_way(pid: int) -> None:
    """Let a process, and what it starts from now on, have what the others leave."""
    os.setpriority(os.PRIO_PROCESS, pid, _LOWEST_NICE)
    with contextlib.suppress(OSError):
        # Where the kernel groups sessions (sched(7), autogroup), nice only counts within one.
        Path(f"/proc/{pid}/autogroup").write_text(str(_LOWEST_NICE))
    let_others_go_first(pid)
    # Where control is, so that it disturbs no more of the device than control does anyway.
    processor = {min(os.sched_getaffinity(pid))}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), processor)
    _make_idle(pid)


def _make_idle(pid: int) -> None:
    """Where we may: let a processor with nothing but this on it count as free.

    Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.idle).
    """
    for root in _ROOTS:
        group = root / f"skerry-elsewhere-{pid}"
        with contextlib.suppress(OSError):
            group.mkdir()
            atexit.register(_remove, group)
            (group / "cpu.idle").write_text("1")
            (group / "cgroup.procs").write_text(str(pid))
            return


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):  # a process that is still in it keeps it
        group.rmdir()
