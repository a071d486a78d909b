"""When devices may be disturbed, and how much of that time has passed.

A plan without a window may disturb them at any time. Deadlines run only while the window is open,
so that a device is not called silent for a day on which it was not allowed to act; nor while no
server heard the fleet (`fleet_server.telemetry.hearing`).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from fleet_protocol.delivery import WEEK_DAYS, Window
from fleet_server.clock import Span

_DAY = timedelta(days=1)
_HORIZON_DAYS = 400
"""Deadlines lie within a year; what is further away counts as elapsed."""


def is_open(window: Window | None, now_ms: int) -> bool:
    """Say whether devices may be disturbed now."""
    return window is None or window.is_open(_moment(now_ms))


def next_opening(window: Window | None, now_ms: int) -> int:
    """Return when devices may be disturbed next, as milliseconds since 1970."""
    if window is None or is_open(window, now_ms):
        return now_ms
    return int(window.opens(_moment(now_ms)).timestamp() * 1000)


def open_ms(window: Window | None, start_ms: int, end_ms: int, deaf: Sequence[Span] = ()) -> int:
    """Return for how long between two moments the window was open and the fleet was heard.

    Args:
        window: None if devices may be disturbed at any time.
        start_ms: the first moment.
        end_ms: the second one.
        deaf: spans in which the fleet was not heard; they may overlap.
    """
    total, reached = 0, start_ms
    for first, last in [(start_ms, end_ms)] if window is None else _spans(window, start_ms, end_ms):
        begin, until = max(first, reached), min(last, end_ms)
        if until > begin:
            total += until - begin - _covered(begin, until, deaf)
            reached = until
    return total


def _covered(begin_ms: int, until_ms: int, spans: Sequence[Span]) -> int:
    total, reached = 0, begin_ms
    for first, last in sorted(spans):
        begin, until = max(first, reached), min(last, until_ms)
        if until > begin:
            total += until - begin
            reached = until
    return total


def _spans(window: Window, start_ms: int, end_ms: int) -> Iterator[Span]:
    """Yield the spans that may touch [start_ms, end_ms), in order; long ones overlap."""
    day = _moment(start_ms).replace(hour=0, minute=0, second=0, microsecond=0)
    day -= WEEK_DAYS * _DAY
    for _ in range(_HORIZON_DAYS):
        start = int(day.timestamp() * 1000) + window.start_minute * 60_000
        if start >= end_ms:
            return
        if not window.weekdays or day.weekday() in window.weekdays:
            yield start, start + window.duration_minutes * 60_000
        day += _DAY


def _moment(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)
