"""Maintenance windows: weekly times, in UTC, in which devices may be disturbed.

A plan without windows may disturb them at any time. Deadlines run only while a window is open, so
that a device is not called silent for a night in which it was not allowed to act.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

_MINUTE_MS = 60_000
_DAY = timedelta(days=1)
_DAY_MINUTES = 24 * 60
_HORIZON_DAYS = 366
"""Deadlines lie within a year; what is further away counts as elapsed."""


class MaintenanceWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A span of time on some days of the week.

    Attributes:
        days: ISO weekdays on which it starts, 1 for Monday to 7 for Sunday.
        start_minute: minutes after midnight, UTC.
        duration_minutes: it may reach into the next day.
    """

    days: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    start_minute: int
    duration_minutes: int

    def __str__(self) -> str:
        end = (self.start_minute + self.duration_minutes) % _DAY_MINUTES
        return f"{_time(self.start_minute)}-{_time(end)} UTC"


def is_open(windows: Sequence[MaintenanceWindow], now_ms: int) -> bool:
    """Say whether devices may be disturbed now."""
    return not windows or any(
        start <= now_ms < end for start, end in _spans(windows, now_ms, now_ms + 1)
    )


def next_opening(windows: Sequence[MaintenanceWindow], now_ms: int) -> int:
    """Return when devices may be disturbed next, as milliseconds since 1970."""
    if is_open(windows, now_ms):
        return now_ms
    week = now_ms + 8 * 86_400_000
    return min(start for start, _ in _spans(windows, now_ms, week) if start >= now_ms)


def open_ms(windows: Sequence[MaintenanceWindow], start_ms: int, end_ms: int) -> int:
    """Return for how long a window was open between two moments."""
    if not windows:
        return max(0, end_ms - start_ms)
    total, reached = 0, start_ms
    for first, last in sorted(_spans(windows, start_ms, end_ms)):
        begin, until = max(first, reached), min(last, end_ms)
        if until > begin:
            total += until - begin
            reached = until
    return total


def _spans(
    windows: Sequence[MaintenanceWindow], start_ms: int, end_ms: int
) -> Iterator[tuple[int, int]]:
    """Yield the spans that may touch [start_ms, end_ms)."""
    day = datetime.fromtimestamp(start_ms / 1000, UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    day -= _DAY
    for _ in range(_HORIZON_DAYS):
        midnight_ms = int(day.timestamp()) * 1000
        if midnight_ms >= end_ms:
            return
        for window in windows:
            if day.isoweekday() in window.days:
                start = midnight_ms + window.start_minute * _MINUTE_MS
                yield start, start + window.duration_minutes * _MINUTE_MS
        day += _DAY


def _time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
