"""Pauses after failures: a fleet spreads out, and a restart is no way around a pause."""

import random
import sqlite3
from collections import Counter

import pytest

from edge_agent.control.pauses import Cause, Pauses
from edge_agent.settings import ControlSettings
from edge_agent.store import open_database
from tests.simulators.device_clock import START_MS, ManualClock

DEVICES = 10_000
SETTINGS = ControlSettings()


def pauses_of(clock: ManualClock, seed: int = 1) -> Pauses:
    return Pauses(
        clock=clock,
        initial_s=SETTINGS.retry_initial_s,
        shared_initial_s=SETTINGS.retry_shared_initial_s,
        max_s=SETTINGS.retry_max_s,
        randomness=random.Random(seed),  # noqa: S311 (jitter)
    )


def rest_s(pauses: Pauses, clock: ManualClock, *, step_s: float = 0.25) -> float:
    """Return how long a family rests, to a step."""
    began_s = clock.monotonic_s()
    while pauses.resting("animals"):
        clock.advance(step_s)
    return clock.monotonic_s() - began_s


def test_ten_thousand_devices_with_the_same_failure_spread_out() -> None:
    """The server is away for 20 minutes: every request fails at once and is tried again."""
    requests: Counter[int] = Counter()
    for seed in range(DEVICES):
        clock = ManualClock()
        pauses = pauses_of(clock, seed)
        start_s = clock.monotonic_s()
        for _ in range(6):
            pauses.failed("animals", Cause.SHARED)
            at_s = pauses._until_s["animals"]
            clock.advance(at_s - clock.monotonic_s())
            requests[int(clock.monotonic_s() - start_s)] += 1
    first_minute = [requests[second] for second in range(60)]
    assert max(requests.values()) < 600
    assert min(first_minute) > 50
    later = [count for second, count in requests.items() if second >= 120]
    assert max(later) < 250


@pytest.mark.parametrize(
    ("cause", "longest_s"), [(Cause.LOCAL, 1.0), (Cause.SHARED, 30.0), (Cause.DISK, 300.0)]
)
def test_the_first_pause_is_as_long_as_its_cause_asks_for(cause: Cause, longest_s: float) -> None:
    rests = []
    for seed in range(100):
        clock = ManualClock()
        pauses = pauses_of(clock, seed)
        pauses.failed("animals", cause)
        rests.append(rest_s(pauses, clock))
    assert longest_s * 0.8 < max(rests) <= longest_s + 0.25
    assert sum(rests) / len(rests) == pytest.approx(longest_s / 2, rel=0.25)


def test_another_cause_begins_with_its_own_first_pause() -> None:
    clock = ManualClock()
    pauses = pauses_of(clock)
    for _ in range(10):
        pauses.failed("animals", Cause.SHARED)
    pauses.failed("animals", Cause.LOCAL)
    assert rest_s(pauses, clock) <= 1.25


@pytest.fixture
def connection(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    return open_database(tmp_path_factory.mktemp("state") / "state.db")


def failed_often(connection: sqlite3.Connection, clock: ManualClock) -> float:
    """Let a family fail, keep that, and return how long it rests."""
    pauses = pauses_of(clock)
    for _ in range(10):
        pauses.failed("animals", Cause.SHARED)
    pauses.failed("stones", Cause.LOCAL)
    pauses.keep(connection)
    return pauses._until_s["animals"] - clock.monotonic_s()


def test_a_restart_neither_shortens_a_pause_nor_forgets_the_failures(
    connection: sqlite3.Connection,
) -> None:
    clock = ManualClock()
    left_s = failed_often(connection, clock)
    clock.advance(2.0)
    again = pauses_of(clock, seed=2)
    again.restore(connection)
    assert rest_s(again, clock) == pytest.approx(left_s - 2.0, abs=0.3)
    assert not again.resting("stones")
    nexts = []
    for seed in range(10):
        again = pauses_of(clock, seed)
        again.restore(connection)
        again.failed("animals", Cause.SHARED)
        nexts.append(again._until_s["animals"] - clock.monotonic_s())
    assert max(nexts) > SETTINGS.retry_max_s / 2  # a first pause is 30 s at most


@pytest.mark.parametrize("jump_ms", [-(10**12), 10**12])
def test_a_clock_that_jumped_makes_no_pause_longer_than_the_longest(
    connection: sqlite3.Connection, jump_ms: int
) -> None:
    clock = ManualClock()
    failed_often(connection, clock)
    clock.set_wall_clock(START_MS + jump_ms)
    again = pauses_of(clock)
    again.restore(connection)
    assert rest_s(again, clock, step_s=1.0) <= SETTINGS.retry_max_s + 1.0
