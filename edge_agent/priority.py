"""Keeps out of the way of calls what can wait: the control process, a thread that loads a model.

Control gets the lowest CPU weight, in large pieces, on one processor, and idle I/O. Not
``SCHED_IDLE``: on a saturated device that would starve the very process that must take a bad
release back. A thread in the runtime keeps its weight where it may hold what calls wait for. What
the kernel does not offer is left as it is; nothing depends on it.

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
import sys
from collections.abc import Iterator
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
    if os.getsid(0) == os.getpid():
        # Where the kernel groups sessions (sched(7), autogroup), nice only counts within one. The
        # supervisor gives this process a session of its own; anybody else's is left alone.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_LOWEST_NICE))
    _be_nice(0, _LOWEST_NICE)
    _schedule(0, batch=True)
    _keep_to_one_processor()
    if numbers := _numbers():
        ctypes.CDLL(None).syscall(numbers.ioprio_set, _WHO_PROCESS, 0, _IDLE_CLASS)


def _keep_to_one_processor() -> None:
    """Leave the others free of us: whoever wakes up finds one that it need not take from anybody.

    The first, which on most Arm boards with two kinds of processors is one of the small ones. A
    low weight does not help a call that shares a processor: it has run ahead of what it shares
    with as soon as it has run at all, and at the next tick of the clock it waits for a whole one
    (4 ms at 250 Hz).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def let_others_go_first(thread: int = 0, *, nice: int | None = None) -> None:
    """Let a thread, and what it starts from now on, have its share when nobody else wants to run.

    Where somebody has chosen another policy than the usual one for it (chrt(1)), that stays.

    Args:
        thread: its id, 0 for the calling one.
        nice: how large its share is, from 0 to 19; None leaves it.
    """
    if nice is not None:
        _be_nice(thread, nice)
    if _is_usual(thread):
        _schedule(thread, batch=True)


@contextlib.contextmanager
def threads_as_usual() -> Iterator[None]:
    """Take back from the threads that are started meanwhile what they got by `let_others_go_first`.

    For those that a library starts for the calls to come. Where the process has another policy than
    the usual one, `let_others_go_first` has given none, and nothing is taken back.
    """
    if not _is_usual(os.getpid()):
        yield
        return
    before = _threads()
    try:
        yield
    finally:
        for thread in _threads() - before:
            with contextlib.suppress(OSError):  # it has ended
                if os.sched_getscheduler(thread) == os.SCHED_BATCH:
                    _schedule(thread, batch=False)


def _be_nice(thread: int, nice: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def _is_usual(thread: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        return os.sched_getscheduler(thread) == os.SCHED_OTHER
    except OSError:
        return False


def _threads() -> set[int]:
    try:
        return {int(task.name) for task in Path("/proc/self/task").iterdir()}
    except OSError:
        return set()


def _schedule(thread: int, *, batch: bool) -> None:
    if sys.platform != "linux":
        return
    policy = os.SCHED_BATCH if batch else os.SCHED_OTHER
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, policy, os.sched_param(0))
    if (numbers := _numbers()) is None:
        return
    try:
        nice = os.getpriority(os.PRIO_PROCESS, thread)
    except OSError:
        return  # it has ended
    slice_ns = _SLICE_NS if batch else 0  # 0 is the kernel's own choice
    scheduling = _SCHEDULING.pack(_SCHEDULING.size, policy, 0, nice, 0, slice_ns, 0, 0)
    ctypes.CDLL(None).syscall(numbers.sched_setattr, thread, scheduling, 0)


def _numbers() -> _Numbers | None:
    machine = platform.machine()
    if machine == "aarch64" and struct.calcsize("P") == _BYTES_OF_32_BITS:
        machine = "armv7l"  # a 32-bit system on a 64-bit kernel, which tells its own name
    return _NUMBERS.get(machine)
