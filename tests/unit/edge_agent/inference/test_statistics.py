"""The statistics of a release: every call lands once, and the durations add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.statistics import (
    BOUNDS_S,
    DurationHistogram,
    ModelStatistics,
    ReleaseStatistics,
    StatisticDuration,
    Timeline,
)
from fleet_protocol.messages import ErrorKind


def line(started: float, *, waited: float = 0.0, items: int = 1, batch: int = 1) -> Timeline:
    """A call that was ready to run 0.25 s after it had arrived, and ran for 1 s."""
    made = Timeline(started)
    made.queued = started + 0.25
    made.began = made.queued + waited
    made.ended = made.began + 1.0
    made.items, made.batch_items = items, batch
    return made


def snapshot(statistics: ReleaseStatistics) -> ModelStatistics:
    return statistics.snapshot(name="m", version="1.0.0", now=110.0, memory_bytes=7)


def test_before_the_first_call_everything_is_zero() -> None:
    found = snapshot(ReleaseStatistics())
    assert (found.last_inference, found.inference_count, found.execution_count) == (0, 0, 0)
    assert found.inference_stats.success == StatisticDuration(0, 0)
    assert found.batch_stats == []
    assert [usage.byte_size for usage in found.memory_usage] == [7]


def test_calls_and_runs_are_told_apart() -> None:
    statistics = ReleaseStatistics(wall_clock=lambda: 1000.0)
    # One call for itself, then two calls in one run of three items.
    statistics.answered(line(100.0), 101.5)
    statistics.answered(line(102.0, waited=0.5, batch=3), 104.0)
    follower = line(102.25, waited=0.25, items=2, batch=3)
    follower.leads = False
    statistics.answered(follower, 104.0)
    found = snapshot(statistics)
    assert (found.inference_count, found.execution_count) == (4, 2)
    # The last call ended 6 s before "now".
    assert found.last_inference == 994_000
    stats = found.inference_stats
    assert stats.success == StatisticDuration(3, 5_250_000_000)
    assert stats.queue == StatisticDuration(3, 750_000_000)
    assert stats.compute_input == StatisticDuration(3, 750_000_000)
    assert stats.compute_infer == StatisticDuration(3, 3_000_000_000)
    assert stats.compute_output == StatisticDuration(3, 750_000_000)
    assert [(each.batch_size, each.compute_infer) for each in found.batch_stats] == [
        (1, StatisticDuration(1, 1_000_000_000)),
        (3, StatisticDuration(1, 1_000_000_000)),
    ]
    assert statistics.batch_sizes() == {1: 1, 3: 1}


def test_failures_and_the_cache() -> None:
    statistics = ReleaseStatistics()
    statistics.failed(ErrorKind.REFUSED, Timeline(10.0), 10.5)
    statistics.failed(ErrorKind.BACKEND, Timeline(11.0), 12.0)
    missed = line(20.0)
    missed.looked_up = True
    statistics.answered(missed, 21.5)
    hit = Timeline(30.0)
    hit.looked_up = hit.cached = True
    statistics.answered(hit, 30.25)
    stats = snapshot(statistics).inference_stats
    assert stats.fail == StatisticDuration(2, 1_500_000_000)
    assert stats.success.count == 2
    assert stats.cache_hit == StatisticDuration(1, 250_000_000)
    assert stats.cache_miss.count == 1
    # As with Triton, whose load generator sees there whether a model was called.
    assert stats.queue == StatisticDuration(2, 0)
    assert stats.compute_infer.count == 1
    assert statistics.errors[ErrorKind.REFUSED] == 1


@given(st.lists(st.integers(1, 2000), max_size=600))
def test_many_batch_sizes_are_bounded_and_no_run_is_lost(sizes: list[int]) -> None:
    statistics = ReleaseStatistics()
    for size in sizes:
        statistics.answered(line(0.0, items=size, batch=size), 2.0)
    assert statistics.executions == len(sizes)
    assert statistics.items == sum(sizes)
    assert len(statistics.batch_sizes()) <= 256


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (BOUNDS_S[0], 0), (BOUNDS_S[0] * 1.01, 1), (BOUNDS_S[-1], len(BOUNDS_S) - 1),
     (1e6, len(BOUNDS_S))],
)  # fmt: skip
def test_bounds_belong_to_their_bucket(seconds: float, bucket: int) -> None:
    histogram = DurationHistogram()
    histogram.add(seconds)
    assert histogram.counts.index(1) == bucket
    assert histogram.total_s == seconds
