"""Time comes in as an argument everywhere; this is the real one and its units."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present, in UTC."""

Span = tuple[int, int]
"""From a moment to another one, in milliseconds since 1970."""


def utc_now() -> datetime:
    """Return the present from the system's clock."""
    return datetime.now(UTC)


def unix_ms(moment: datetime) -> int:
    """Return a moment as milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def from_unix_ms(moment_ms: int) -> datetime:
    """Return the moment of milliseconds since 1970."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC)
