"""Time on the device: the machine's clocks, and a wall clock that cannot be turned back.

Expiry of signed metadata is judged by `TrustedClock`. Its floor is the greatest time at which the
release repository's metadata was found valid, kept in ``state.db``: turning the machine's clock
back does not revive metadata that had expired by then. That metadata includes the timestamp role,
which lives for a day, so a clock that ran ahead raises the floor by a day at most. An assignment,
valid for weeks, does not raise it: it would lock the device out for as long.
"""

import sqlite3
import time
from datetime import UTC, datetime
from typing import Protocol

from edge_agent.control import facts

_FACT = "trusted_time_ms"


class Clock(Protocol):
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary moment of this boot, the same for all processes."""

    def sleep_s(self, seconds: float) -> None:
        """Block the calling thread."""


class SystemClock:
    """The clocks of the operating system."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return ``CLOCK_MONOTONIC``, which all processes of a boot share."""
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)


class TrustedClock:
    """Wall clock with a durable floor."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    def now(self, connection: sqlite3.Connection) -> datetime:
        """Return the later of the machine's clock and the greatest time ever trusted."""
        floor_ms = int(facts.get(connection, _FACT) or 0)
        return datetime.fromtimestamp(max(self._clock.now_ms(), floor_ms) / 1000, UTC)

    def trust(self, connection: sqlite3.Connection, moment: datetime) -> None:
        """Raise the floor to a moment at which a timestamp role was valid (in a transaction)."""
        moment_ms = int(moment.timestamp() * 1000)
        if moment_ms > int(facts.get(connection, _FACT) or 0):
            facts.put(connection, _FACT, str(moment_ms))
