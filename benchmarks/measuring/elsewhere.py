"""Keeps what would run on another machine out of the way of what is measured on this one."""

import contextlib
import os
from pathlib import Path

from edge_agent.control.priority import let_others_go_first

_LOWEST_NICE = 19


def give_way(pid: int) -> None:
    """Let a process, and what it starts from now on, have what the others leave."""
    os.setpriority(os.PRIO_PROCESS, pid, _LOWEST_NICE)
    with contextlib.suppress(OSError):
        # Where the kernel groups sessions (sched(7), autogroup), nice only counts within one.
        Path(f"/proc/{pid}/autogroup").write_text(str(_LOWEST_NICE))
    let_others_go_first(pid)
