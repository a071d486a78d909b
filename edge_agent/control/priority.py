"""Keeps control out of the way of inference: the lowest CPU weight, idle I/O.

Not ``SCHED_IDLE``: on a saturated device that would starve the very process that must take a bad
release back. What the kernel does not offer is left as it is; nothing depends on it.
"""

import contextlib
import ctypes
import os
import platform
from pathlib import Path

_LOWEST_NICE = 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "armv7l": 314, "armv6l": 314, "riscv64": 30}
_WHO_PROCESS = 1
_IDLE_CLASS = 3 << 13


def yield_to_inference() -> None:
    """Lower the priority of this process; call it before any thread is started."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_NICE)
    if os.getsid(0) == os.getpid():
        # Where the kernel groups sessions (sched(7), autogroup), nice only counts within one. The
        # supervisor gives this process a session of its own; anybody else's is left alone.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_LOWEST_NICE))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _IDLE_CLASS)
