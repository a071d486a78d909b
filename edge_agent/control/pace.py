"""How fast bytes may come: a token bucket that downloads stop at, each in its thread."""

import threading
from collections.abc import Callable

from edge_agent.control.clock import Clock

_BURST_S = 1.0
_NAP_S = 0.25


class Pace:
    """Holds downloads to a number of bytes per second, with one second's worth in hand."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._owed = 0.0
        self._paid_s = clock.monotonic_s()
        self._lock = threading.Lock()

    def spend(
        self, size_bytes: int, *, limit: Callable[[], int | None], cancelled: Callable[[], bool]
    ) -> None:
        """Account for bytes that came; returns when the next ones may come, or when cancelled.

        Args:
            size_bytes: how many came.
            limit: how many per second are allowed now, None for any number; asked again and again,
                since the terms of delivery may change meanwhile.
            cancelled: asked again and again.
        """
        with self._lock:
            self._owed += size_bytes
        while not cancelled() and (rate := limit()) is not None:
            owed = self._pay(rate)
            if owed <= 0:
                return
            self._clock.sleep_s(min(owed / rate, _NAP_S))
        with self._lock:
            self._owed, self._paid_s = 0.0, self._clock.monotonic_s()

    def _pay(self, rate: int) -> float:
        with self._lock:
            now_s = self._clock.monotonic_s()
            self._owed = max(self._owed - (now_s - self._paid_s) * rate, -_BURST_S * rate)
            self._paid_s = now_s
            return self._owed
