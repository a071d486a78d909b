"""The token bucket over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.token_bucket import TokenBucket


@pytest.mark.parametrize(
    ("rate", "at", "waits"),
    [
        (2.0, [0, 0, 0, 0.5, 0.5], [0, 0, 0.5, 0, 0.5]),
        (2.0, [0, 0, 10, 10, 10], [0, 0, 0, 0, 0.5]),
        (0.1, [0, 0, 5, 10, 10], [0, 10, 5, 0, 10]),
    ],
)
def test_the_bucket_fills_and_empties(rate: float, at: list[float], waits: list[float]) -> None:
    bucket = TokenBucket(rate, 0.0)
    assert [bucket.wait_s(now) for now in at] == pytest.approx(waits)


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 1), max_size=200))
def test_never_more_than_rate_and_burst(rate: float, gaps: list[float]) -> None:
    bucket, now, passed = TokenBucket(rate, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.wait_s(now) == 0.0
    assert passed <= max(1.0, rate) + now * rate + 1e-6
