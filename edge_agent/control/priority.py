"""Keeps control out of the way of inference: the lowest CPU weight, in large pieces, idle I/O.

Not ``SCHED_IDLE``: on a saturated device that would starve the very process that must take a bad
release back. What the kernel does not offer is left as it is; nothing depends on it.

A low weight alone lets calls wait from Linux 6.6 on (EEVDF). A share however small is due to
control, which took it in the middle of a call, for half a millisecond and more; and a call that
woke up waited for the end of control's slice or for the next tick of the clock. ``SCHED_BATCH``
takes the processor from nobody, and from 6.12 on whoever has the shorter slice need not wait.
"""

import contextlib
import ctypes
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_LOWEST_NICE = 19
_WHO_PROCESS = 1
_IDLE_CLASS = 3 << 13
_SCHEDULING = struct.Struct("=IIQiIQQQ")
"""size, policy, flags, nice, priority, runtime, deadline, period:
https://man7.org/linux/man-pages/man2/sched_setattr.2.html"""

_BYTES_OF_32_BITS = 4

_SLICE_NS = 100_000_000
"""The longest that the kernel grants."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of the system calls that the C library has no function for, or only a recent one."""

    sched_setattr: int
    ioprio_set: int


_NUMBERS = {
    "x86_64": _Numbers(314, 251),
    "aarch64": _Numbers(274, 30),
    "armv7l": _Numbers(380, 314),
    "armv6l": _Numbers(380, 314),
    "riscv64": _Numbers(274, 30),
}


def yield_to_inference() -> None:
    """Lower the priority of this process; call it before any thread is started."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_NICE)
    if os.getsid(0) == os.getpid():
        # Where the kernel groups sessions (sched(7), autogroup), nice only counts within one. The
        # supervisor gives this process a session of its own; anybody else's is left alone.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_LOWEST_NICE))
    let_others_go_first(0)
    if numbers := _numbers():
        ctypes.CDLL(None).syscall(numbers.ioprio_set, _WHO_PROCESS, 0, _IDLE_CLASS)


def let_others_go_first(thread: int) -> None:
    """Let a thread, and what it starts from now on, have its share when nobody else wants to run.

    Args:
        thread: its id, 0 for the calling one.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
    if (numbers := _numbers()) is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    scheduling = _SCHEDULING.pack(_SCHEDULING.size, os.SCHED_BATCH, 0, nice, 0, _SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(numbers.sched_setattr, thread, scheduling, 0)


def _numbers() -> _Numbers | None:
    machine = platform.machine()
    if machine == "aarch64" and struct.calcsize("P") == _BYTES_OF_32_BITS:
        machine = "armv7l"  # a 32-bit system on a 64-bit kernel, which tells its own name
    return _NUMBERS.get(machine)
