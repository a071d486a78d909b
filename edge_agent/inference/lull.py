"""The moment after a call: what is done beside calls begins there, so that it meets few of them."""

import math
import threading
import time
from collections.abc import Callable

_SPARSE_S = 0.05
"""Calls that come no more often meet a step of some milliseconds by chance only."""

_ANSWER_S = 0.001
"""For the answer to get out and to whoever waits for it."""


class Lull:
    """Hears of calls on the event loop; one thread at a time waits for the end of one."""

    def __init__(self, clock: Callable[[], float], *, sparse_s: float = _SPARSE_S) -> None:
        """Nobody has called.

        Args:
            clock: in seconds, monotonic.
            sparse_s: calls that are further apart are not waited for.
        """
        self._clock = clock
        self._sparse_s = sparse_s
        self._last_ended = -math.inf
        self._ended: threading.Event | None = None

    def call_ended(self) -> None:
        """Take note of the end of a call; on the event loop."""
        self._last_ended = self._clock()
        if (waiting := self._ended) is not None:
            waiting.set()

    def wait(self) -> None:
        """Return when a call has just ended, at once or soon where there are few; in a thread."""
        if self._clock() - self._last_ended > self._sparse_s:
            return
        self._ended = ended = threading.Event()
        if ended.wait(self._sparse_s):
            time.sleep(_ANSWER_S)
        self._ended = None
