"""Keeps the event loop awake for the moments in which bytes are about to come.

A processor that has gone to sleep needs 50 to 100 µs to wake up, and a loop that sleeps between the
pieces of a large body wakes up for each of them. Looking for the next piece instead takes as much
processor time as the sleep would have lost, and only that: whoever asks says when bytes are
likely, and the loop looks for `GRACE_S`, no longer. Linux does the same for network cards
(``net.core.busy_poll``).
"""

import asyncio
import os
from collections.abc import Callable

GRACE_S = 150e-6
"""So long the loop looks for the bytes. Waking up takes about as long."""


class BusyPoll:
    """Belongs to the event loop."""

    def __init__(self, *, clock: Callable[[], float], processors: int) -> None:
        """Let the loop sleep as it likes.

        Args:
            clock: in seconds, monotonic.
            processors: that the process may use. On a single one nothing has to wake up, and who
                looks for bytes keeps the sender from sending them.
        """
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._polling = False
        self._spare = processors > 1
        self.at_work = 0
        """How many answers are being made beside the loop, which then leaves the processors to
        them."""

    def expect(self, now: float) -> None:
        """Stay awake for a moment if nothing else is at work: bytes are likely to come."""
        if self.at_work or not self._spare:
            return
        self._until = now + GRACE_S
        if not self._polling:
            self._polling = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._clock() >= self._until:
            self._polling = False
            return
        os.sched_yield()  # the sender may need this very processor
        self._loop.call_soon(self._look)
