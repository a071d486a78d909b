"""Knows whether all calls come from one connection: then nobody else waits for the event loop."""

ALONE_S = 0.01
"""So long may the event loop be held by the run of a lone caller's call."""

_REMEMBERED_S = 2 * ALONE_S


class LoneCaller:
    """Keeps account of who has called lately. Belongs to the event loop."""

    def __init__(self) -> None:
        """Nobody has called."""
        self._last: object = None
        self._others_until = -1.0

    def is_alone(self, caller: object, now: float) -> bool:
        """Take note of a call, and say whether no one else has called within the last moments.

        Args:
            caller: stands for a connection; None for one that is not known, which is never alone.
            now: in seconds, monotonic.
        """
        if caller is not self._last or caller is None:
            if self._last is not None or caller is None:
                self._others_until = now + _REMEMBERED_S
            self._last = caller
        return now >= self._others_until
