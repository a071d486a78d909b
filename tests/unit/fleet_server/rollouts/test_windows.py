"""Maintenance windows: what is open when, and how much open time passes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.delivery import Window
from fleet_server.rollouts.windows import is_open, next_opening, open_ms

HOUR_MS = 3_600_000
NIGHTS = Window(start_minute=22 * 60, duration_minutes=240)
MONDAYS = Window(weekdays=(0,), start_minute=0, duration_minutes=60)
LONG = Window(start_minute=0, duration_minutes=3 * 24 * 60)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "moment", "expected"),
    [
        (None, "2026-06-01T12:00", True),
        (NIGHTS, "2026-06-01T21:59", False),
        (NIGHTS, "2026-06-01T22:00", True),
        (NIGHTS, "2026-06-02T01:59", True),
        (NIGHTS, "2026-06-02T02:00", False),
        (MONDAYS, "2026-06-01T00:30", True),  # a Monday
        (MONDAYS, "2026-06-02T00:30", False),
    ],
)
def test_is_open(window: Window | None, moment: str, expected: bool) -> None:  # noqa: FBT001 (parametrized)
    assert is_open(window, at(moment)) is expected


def test_open_time_counts_each_moment_once_and_nights_only() -> None:
    start, end = at("2026-06-01T12:00"), at("2026-06-03T12:00")
    assert open_ms(NIGHTS, start, end) == 8 * HOUR_MS
    assert open_ms(LONG, start, end) == 48 * HOUR_MS
    assert open_ms(NIGHTS, at("2026-06-01T23:00"), at("2026-06-01T23:30")) == HOUR_MS // 2
    assert open_ms(None, start, end) == 48 * HOUR_MS


@pytest.mark.parametrize(
    ("window", "deaf", "hours"),
    [
        (None, [("2026-06-01T13:00", "2026-06-01T14:00")], 47),
        (
            None,
            [("2026-06-01T13:00", "2026-06-01T15:00"), ("2026-06-01T14:00", "2026-06-01T16:00")],
            45,
        ),
        (None, [("2026-05-01T00:00", "2026-06-02T12:00")], 24),
        (None, [("2026-06-03T11:00", "2026-07-01T00:00")], 47),
        (None, [("2026-05-01T00:00", "2026-07-01T00:00")], 0),
        (NIGHTS, [("2026-06-01T13:00", "2026-06-01T14:00")], 8),
        (NIGHTS, [("2026-06-01T20:00", "2026-06-01T23:00")], 7),
    ],
)
def test_a_time_in_which_nobody_was_heard_does_not_count(
    window: Window | None, deaf: list[tuple[str, str]], hours: int
) -> None:
    spans = [(at(first), at(last)) for first, last in deaf]
    start, end = at("2026-06-01T12:00"), at("2026-06-03T12:00")
    assert open_ms(window, start, end, spans) == hours * HOUR_MS


def test_next_opening() -> None:
    assert next_opening(NIGHTS, at("2026-06-01T12:00")) == at("2026-06-01T22:00")
    assert next_opening(NIGHTS, at("2026-06-01T23:00")) == at("2026-06-01T23:00")
    assert next_opening(MONDAYS, at("2026-06-01T01:00")) == at("2026-06-08T00:00")


@given(st.integers(0, 10_000_000), st.integers(0, 10_000_000))
def test_open_time_adds_up(first: int, second: int) -> None:
    start = at("2026-06-01T12:00")
    whole = open_ms(NIGHTS, start, start + first + second)
    parts = open_ms(NIGHTS, start, start + first)
    assert whole == parts + open_ms(NIGHTS, start + first, start + first + second)
