"""Who lets others go first says so to the kernel, with all that it starts."""

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from edge_agent.control.priority import let_others_go_first

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275, "armv7l": 381, "armv6l": 381, "riscv64": 275}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_NICE = 3

Found = TypeVar("Found")


def slice_ns() -> int:
    """Return the slice of the calling thread; skip the test where the kernel tells none."""
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    number = _SCHED_GETATTR.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 0, buffer, _ATTRIBUTES.size, 0):
        pytest.skip("this test does not know how to ask this kernel")
    if not (found := int(_ATTRIBUTES.unpack(buffer.raw)[5])):
        pytest.skip("slices came with Linux 6.12")
    return found


def started_behind_others(look: Callable[[], Found]) -> Found:
    """Return what a thread finds that was started by one who lets others go first."""

    def behind() -> Found:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        let_others_go_first(0)
        with ThreadPoolExecutor(1) as started:
            return started.submit(look).result()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(behind).result()


def test_it_takes_the_processor_from_nobody_and_keeps_its_weight() -> None:
    def look() -> tuple[int, int]:
        weight = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return os.sched_getscheduler(0), weight

    assert started_behind_others(look) == (os.SCHED_BATCH, _NICE)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_its_slices_are_long() -> None:
    usual_ns = slice_ns()
    assert started_behind_others(slice_ns) > 10 * usual_ns
