"""Logs what a hostile or broken peer may cause without letting it fill the log."""

import logging
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LOG_INTERVAL_S = 10.0


class Complaints:
    """Logs each kind of trouble at most once per interval, with how often it happened."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()

    def log(self, event: str, **fields: object) -> None:
        """Log a warning, unless the same kind was logged just now."""
        now = self._monotonic()
        if now - self._last.get(event, float("-inf")) < _LOG_INTERVAL_S:
            self._suppressed[event] += 1
            return
        self._last[event] = now
        logger.warning(event, extra={**fields, "suppressed": self._suppressed.pop(event, 0)})
