"""The histogram: error bound, merging, and what a stranger may send."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ProtocolError
from fleet_protocol.histogram import (
    MAX_INDEX,
    MIN_INDEX,
    RELATIVE_ERROR,
    Histogram,
    bucket_index,
    bucket_value,
    merged,
    of_values,
)
from fleet_protocol.messages import decode

VALUES = st.floats(min_value=1.0, max_value=2.0**30)


@given(VALUES)
def test_bucket_value_is_within_the_error_bound(value: float) -> None:
    stands_for = bucket_value(bucket_index(value))
    assert abs(stands_for - value) / value <= RELATIVE_ERROR + 1e-9


@given(st.lists(VALUES, min_size=1, max_size=200), st.floats(min_value=0, max_value=1))
def test_quantile_is_within_the_error_bound_of_the_true_one(values: list[float], q: float) -> None:
    true = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    estimate = of_values(values).quantile(q)
    assert estimate is not None
    assert abs(estimate - true) / true <= RELATIVE_ERROR + 1e-9


@given(st.lists(st.lists(VALUES, max_size=30), max_size=6))
def test_merging_parts_is_recording_everything_into_one(parts: list[list[float]]) -> None:
    whole = of_values(value for part in parts for value in part)
    together = merged(of_values(part) for part in parts)
    assert together.buckets == whole.buckets
    assert together.total == pytest.approx(whole.total)


@pytest.mark.parametrize(
    ("value", "index"),
    [(0.0, MIN_INDEX), (1.0, MIN_INDEX), (2.0, 15), (2.0001, 16), (1e30, MAX_INDEX)],
)
def test_bucket_bounds_are_closed_above_and_clamped(value: float, index: int) -> None:
    assert bucket_index(value) == index


def test_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_a_quantile_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Histogram().quantile(1.5)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"buckets": {"-1": 1}}',
        b'{"buckets": {"480": 1}}',
        b'{"buckets": {"3": -1}}',
        b'{"buckets": {"3": 1.5}}',
        b'{"buckets": {"3": 99999999999999999999}}',
        b'{"total": -1}',
        b'{"total": NaN}',
    ],
)
def test_a_histogram_out_of_range_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(payload, Histogram)
