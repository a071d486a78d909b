"""Who lets others go first says so to the kernel, with all that it starts."""

import ctypes
import os
import platform
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.control.priority import let_others_go_first

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275, "armv7l": 381, "armv6l": 381, "riscv64": 275}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_NICE = 3


def slice_ns() -> int:
    """Return the slice of the calling thread; skip the test where the kernel tells none."""
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    number = _SCHED_GETATTR.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 0, buffer, _ATTRIBUTES.size, 0):
        pytest.skip("this test does not know how to ask this kernel")
    if not (found := int(_ATTRIBUTES.unpack(buffer.raw)[5])):
        pytest.skip("slices came with Linux 6.12")
    return found


def scheduling() -> tuple[int, int, int]:
    return (
        os.sched_getscheduler(0),
        os.getpriority(os.PRIO_PROCESS, threading.get_native_id()),
        slice_ns(),
    )


def test_it_takes_the_processor_from_nobody_and_keeps_its_weight() -> None:
    def in_a_thread() -> tuple[int, int, int]:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        let_others_go_first(0)
        with ThreadPoolExecutor(1) as started:
            return started.submit(scheduling).result()

    usual_ns = slice_ns()
    with ThreadPoolExecutor(1) as thread:
        policy, nice, longer_ns = thread.submit(in_a_thread).result()
    assert (policy, nice) == (os.SCHED_BATCH, _NICE)
    assert longer_ns > 10 * usual_ns
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
