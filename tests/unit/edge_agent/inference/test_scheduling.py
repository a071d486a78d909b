"""The scheduler's decisions as a table and as properties: no loop, no threads, no clock."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.run_times import RunTimes
from edge_agent.inference.scheduling import (
    DEFAULT_PRIORITY,
    LATE_ALARM_S,
    QueueLimits,
    Run,
    RunQueue,
    Ticket,
    Wait,
)

LIMITS = QueueLimits(max_queue=8, instances=1, max_batch=1)
BATCHING = replace(LIMITS, max_batch=4)
GATHERING = replace(BATCHING, batch_wait_s=5.0)


def times(seconds: float = 1.0, **by_items: float) -> RunTimes:
    """Measurements: one item takes so long, others as given, such as ``i4=2.0``."""
    made = RunTimes()
    made.observe(1, seconds)
    for name, other in by_items.items():
        made.observe(int(name[1:]), other)
    return made


def ticket(
    deadline: float = math.inf,
    *,
    level: int = DEFAULT_PRIORITY,
    items: int = 1,
    arrived: float = 0.0,
    key: object = "k",
) -> Ticket:
    return Ticket(arrived=arrived, level=level, deadline=deadline, items=items, batch_key=key)


def queue(
    *waiting: Ticket, limits: QueueLimits = LIMITS, run_times: RunTimes | None = None
) -> RunQueue:
    made = RunQueue(limits=limits, run_times=run_times or times())
    for each in waiting:
        made.join(each)
    return made


def drained(waiting: RunQueue, now: float = 0.0) -> list[list[Ticket]]:
    """Run everything that will run, one batch after the other."""
    batches: list[list[Ticket]] = []
    while isinstance(decision := waiting.decide(now, 0), Run):
        batches.append(list(decision.tickets))
    return batches


URGENT = ticket(9.0, level=1)
SOON = ticket(3.0)
LATER = ticket(5.0)
WHENEVER = ticket()
BACKGROUND = ticket(1.0, level=200)


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ([LATER, SOON], [SOON, LATER]),
        ([WHENEVER, LATER], [LATER, WHENEVER]),
        ([SOON, URGENT], [URGENT, SOON]),
        ([BACKGROUND, WHENEVER], [WHENEVER, BACKGROUND]),
        ([BACKGROUND, WHENEVER, LATER, SOON, URGENT], [URGENT, SOON, LATER, WHENEVER, BACKGROUND]),
    ],
)
def test_priority_then_deadline_then_arrival(
    waiting: Sequence[Ticket], order: Sequence[Ticket]
) -> None:
    assert drained(queue(*waiting)) == [[each] for each in order]


def test_equals_run_in_the_order_of_arrival() -> None:
    equals = [ticket(5.0) for _ in range(5)]
    assert drained(queue(*equals)) == [[each] for each in equals]


NOW = 10.0


@pytest.mark.parametrize(
    ("limits", "waiting", "running_until", "newcomer", "refused"),
    [
        # Alone, a run takes 1 s.
        (LIMITS, [], [], ticket(NOW + 1.0), None),
        (LIMITS, [], [], ticket(NOW + 0.9), "deadline"),
        (LIMITS, [], [], ticket(), None),
        # Behind a run that has 2 s to go.
        (LIMITS, [], [NOW + 2], ticket(NOW + 3.0), None),
        (LIMITS, [], [NOW + 2], ticket(NOW + 2.9), "deadline"),
        # A run that is overdue ends any moment.
        (LIMITS, [], [NOW - 5], ticket(NOW + 1.0), None),
        # Behind those with an earlier deadline, not behind the others.
        (LIMITS, [ticket(NOW + 2)], [NOW], ticket(NOW + 2.5), None),
        (LIMITS, [ticket(NOW + 1)] * 2, [NOW], ticket(NOW + 2.5), "deadline"),
        (LIMITS, [ticket(NOW + 9)] * 3, [NOW], ticket(NOW + 1.5), None),
        (LIMITS, [ticket()] * 3, [NOW], ticket(NOW + 1.5), None),
        (LIMITS, [ticket(level=1)] * 3, [NOW], ticket(NOW + 1.5), "deadline"),
        (LIMITS, [ticket(NOW + 9)] * 3, [NOW], ticket(NOW + 1.5, level=1), None),
        # Two instances work off twice as much; one of them is free.
        (replace(LIMITS, instances=2), [], [NOW + 9], ticket(NOW + 1.0), None),
        (replace(LIMITS, instances=2), [], [NOW + 2, NOW + 2], ticket(NOW + 3.0), None),
        (replace(LIMITS, instances=2), [], [NOW + 2, NOW + 2], ticket(NOW + 2.9), "deadline"),
        # More items take longer.
        (LIMITS, [], [], ticket(NOW + 3.0, items=4), "deadline"),
        (LIMITS, [], [], ticket(NOW + 4.0, items=4), None),
        # A batch is one run: four items take the time that was measured for four.
        (BATCHING, [ticket(NOW + 2)] * 4, [NOW], ticket(NOW + 5.0), None),
        # Full, even for the most urgent.
        (LIMITS, [ticket()] * 8, [NOW], ticket(level=1), "full"),
        # Without a queue only what can run at once is taken.
        (replace(LIMITS, max_queue=0), [], [], ticket(), None),
        (replace(LIMITS, max_queue=0), [], [NOW], ticket(), "full"),
    ],
)
def test_who_may_join(
    limits: QueueLimits,
    waiting: Sequence[Ticket],
    running_until: Sequence[float],
    newcomer: Ticket,
    refused: str | None,
) -> None:
    made = queue(limits=limits)
    for each in waiting:
        made.join(ticket(each.deadline, level=each.level))
    refusal = made.refusal(newcomer, NOW, running_until)
    assert (refusal and ("full" if refusal.full else "deadline")) == refused
    assert len(made) == len(waiting)


@pytest.mark.parametrize(
    ("limits", "waiting", "now", "expected"),
    [
        # Without batching each runs alone.
        (LIMITS, [1, 1, 1], 0.0, [[1], [1], [1]]),
        # With it, what waits already is joined, at once, up to the limit.
        (BATCHING, [1, 1, 1], 0.0, [[1, 1, 1]]),
        (BATCHING, [1, 1, 1, 1, 1], 0.0, [[1, 1, 1, 1], [1]]),
        (BATCHING, [2, 3, 1], 0.0, [[2], [3, 1]]),
        (BATCHING, [9, 1], 0.0, [[9], [1]]),
        # A batch that may wait does so until it is full or the first one's patience ends.
        (GATHERING, [1, 1], 0.0, []),
        (GATHERING, [1, 1], 4.9, []),
        (GATHERING, [1, 1], 5.0, [[1, 1]]),
        (GATHERING, [2, 2], 0.0, [[2, 2]]),
        (GATHERING, [2, 2, 1], 0.0, [[2, 2]]),
    ],
)
def test_batches(
    limits: QueueLimits, waiting: Sequence[int], now: float, expected: Sequence[Sequence[int]]
) -> None:
    made = queue(*(ticket(items=items) for items in waiting), limits=limits)
    assert [[each.items for each in batch] for batch in drained(made, now)] == expected


def test_only_equal_shapes_are_joined() -> None:
    calls = [ticket(key="a"), ticket(key="b"), ticket(key="a"), ticket(key=None), ticket(key=None)]
    a, b, other_a, alone, also_alone = calls
    assert drained(queue(*calls, limits=BATCHING)) == [[a, other_a], [b], [alone], [also_alone]]


def test_nobody_joins_a_batch_who_would_make_another_late() -> None:
    slow = times(1.0, i2=1.5, i4=4.0)
    tight, loose, other = ticket(2.0), ticket(100.0), ticket(100.0)
    made = queue(tight, loose, other, limits=BATCHING, run_times=slow)
    # Two take 1.5 s and three as long as four: the tight one has 2 s.
    assert drained(made) == [[tight, loose], [other]]


def test_the_tightest_slack_bounds_the_wait() -> None:
    made = queue(ticket(), ticket(4.0), limits=GATHERING, run_times=times(1.0, i4=2.5))
    assert made.decide(0.0, 0) == Wait(1.5 - LATE_ALARM_S)
    assert isinstance(made.decide(1.5, 0), Run)


def test_while_all_instances_are_busy_only_deadlines_matter() -> None:
    made = queue(ticket(), ticket(7.0))
    assert made.decide(0.0, 1) == Wait(7.0)
    assert made.expired(6.9) == []
    (late,) = made.expired(7.0)
    assert late.deadline == 7.0
    assert made.decide(7.0, 1) == Wait(math.inf)
    assert len(made) == 1


def test_who_has_gone_is_forgotten() -> None:
    gone, stays = ticket(1.0), ticket(2.0)
    made = queue(gone, stays)
    made.withdraw(gone)
    made.withdraw(gone)
    assert made.head is stays
    assert made.decide(0.0, 1) == Wait(2.0)


def test_refusals_wear_an_estimate_down_that_one_slow_moment_spoilt() -> None:
    slow_trial = RunTimes()
    slow_trial.expect(1.0)
    assert slow_trial.estimate(1) == 1.0
    assert slow_trial.estimate(4) == 4.0
    for _ in range(200):
        slow_trial.doubt()
    assert slow_trial.estimate(1) < 0.001
    slow_trial.observe(1, 0.25)
    assert slow_trial.estimate(1) == 0.25
    spoilt = RunTimes()
    spoilt.observe(1, 0.001)
    spoilt.observe(1, 10.0)
    made = queue(run_times=spoilt)
    refusals = 0
    while made.refusal(ticket(0.01), 0.0, []) is not None:
        refusals += 1
        assert refusals < 1000
    assert refusals > 0


@pytest.mark.parametrize(
    ("known", "items", "expected"),
    [
        ({}, 1, 0.0),
        ({1: 1.0}, 1, 1.0),
        ({1: 1.0}, 8, 8.0),
        ({8: 4.0}, 1, 4.0),
        ({1: 1.0, 8: 2.0}, 4, 2.0),
        ({1: 1.0, 64: 50.0}, 4, 4.0),
    ],
)
def test_estimates(known: dict[int, float], items: int, expected: float) -> None:
    made = RunTimes()
    for size, seconds in known.items():
        made.observe(size, seconds)
    assert made.estimate(items) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10.0)), min_size=1))
def test_estimates_lie_within_what_was_seen(seen: list[tuple[int, float]]) -> None:
    made = RunTimes()
    for items, seconds in seen:
        made.observe(items, seconds)
    for items, _ in seen:
        alike = [s for other, s in seen if (other - 1).bit_length() == (items - 1).bit_length()]
        assert min(alike) <= made.estimate(items) * (1 + 1e-9)
        assert made.estimate(items) <= max(alike) * (1 + 1e-9)


calls = st.builds(
    ticket,
    st.one_of(st.just(math.inf), st.floats(0.1, 50.0)),
    level=st.integers(1, 200),
    items=st.integers(1, 6),
    key=st.sampled_from(["a", "b", None]),
)
limits = st.builds(
    QueueLimits,
    max_queue=st.integers(0, 20),
    instances=st.integers(1, 3),
    max_batch=st.integers(1, 8),
    batch_wait_s=st.sampled_from([0.0, 0.5]),
)


@given(st.lists(calls, max_size=30), limits)
def test_every_call_runs_once_expires_or_was_refused(
    arriving: list[Ticket], allowed: QueueLimits
) -> None:
    """One instance's time, a call each 0.3 s, runs of 1 s: nobody is lost, nobody runs late."""
    made = RunQueue(limits=allowed, run_times=times(1.0))
    seen: list[Ticket] = []
    now = busy_until = 0.0
    pending = list(arriving)
    joined: list[Ticket] = []
    while pending or len(made):
        if pending:
            newcomer = pending.pop(0)
            until = [busy_until] * (busy_until > now)
            if made.refusal(newcomer, now, until) is None:
                made.join(newcomer)
                joined.append(newcomer)
        assert len(made) <= max(1, allowed.max_queue)
        seen.extend(made.expired(now))
        running = allowed.instances if busy_until > now else 0
        decision = made.decide(now, running)
        if isinstance(decision, Run):
            assert decision.tickets
            items = sum(each.items for each in decision.tickets)
            assert items <= allowed.max_batch or len(decision.tickets) == 1
            assert len({each.batch_key for each in decision.tickets}) == 1
            assert all(each.deadline > now for each in decision.tickets)
            busy_until = now + 1.0
            seen.extend(decision.tickets)
        elif len(made) and not running:
            assert now < decision.until < math.inf
        now += 0.3
    assert sorted(map(id, seen)) == sorted(map(id, joined))
