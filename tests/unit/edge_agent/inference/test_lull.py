"""The moment after a call: found while calls come, not waited for where there are few."""

import threading
import time

import pytest

from edge_agent.inference.lull import Lull

LONG_S = 3600.0


@pytest.mark.parametrize("called_ago_s", [None, LONG_S + 1])
def test_where_calls_are_few_nobody_waits(called_ago_s: float | None) -> None:
    now = 0.0
    lull = Lull(lambda: now, sparse_s=LONG_S)
    if called_ago_s is not None:
        lull.call_ended()
        now += called_ago_s
    lull.wait()


def test_between_calls_the_end_of_the_next_one_is_waited_for() -> None:
    lull = Lull(lambda: 0.0, sparse_s=LONG_S)
    lull.call_ended()
    thread = threading.Thread(target=lull.wait, daemon=True)
    thread.start()
    thread.join(0.02)
    assert thread.is_alive()
    while thread.is_alive():
        lull.call_ended()
        time.sleep(0)
    thread.join()


def test_a_call_that_does_not_come_is_not_waited_for_without_bound() -> None:
    lull = Lull(lambda: 0.0, sparse_s=0.01)
    lull.call_ended()
    lull.wait()
