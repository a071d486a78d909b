"""Who lets others go first says so to the kernel, with all that it starts."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from edge_agent.priority import let_others_go_first, threads_as_usual

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
        let_others_go_first(nice=_NICE)
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


def policy() -> int:
    return os.sched_getscheduler(0)


@pytest.mark.parametrize("look", [policy, slice_ns])
def test_a_thread_that_is_to_run_as_usual_does(look: Callable[[], int]) -> None:
    def behind() -> int:
        let_others_go_first()
        with ThreadPoolExecutor(1) as started:
            with threads_as_usual():
                started.submit(look).result()
            return started.submit(look).result()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(behind).result() == look()


def test_a_policy_that_somebody_has_chosen_stays() -> None:
    program = """
import os
from concurrent.futures import ThreadPoolExecutor
from edge_agent.priority import let_others_go_first, threads_as_usual

for chosen in (os.SCHED_BATCH, os.SCHED_IDLE):  # nobody may go back without a privilege
    os.sched_setscheduler(0, chosen, os.sched_param(0))
    let_others_go_first()
    assert os.sched_getscheduler(0) == chosen
    with ThreadPoolExecutor(1) as started:
        with threads_as_usual():
            started.submit(int).result()
        assert started.submit(os.sched_getscheduler, 0).result() == chosen
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_threads_of_before_stay_as_they_are() -> None:
    with ThreadPoolExecutor(1, initializer=let_others_go_first) as before:
        before.submit(policy).result()
        with threads_as_usual():
            pass
        assert before.submit(policy).result() == os.SCHED_BATCH


def test_control_keeps_to_one_processor_at_the_lowest_weight() -> None:
    program = (
        "import os; from edge_agent.priority import yield_to_inference; yield_to_inference();"
        "print(os.getpriority(os.PRIO_PROCESS, 0), *os.sched_getaffinity(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["19", str(min(os.sched_getaffinity(0)))]
