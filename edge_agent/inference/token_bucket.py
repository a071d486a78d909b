"""A token bucket: so many requests a second on average, some at once; pure arithmetic."""

from edge_agent.inference.errors import RateError

BURST_S = 1.0
"""What a caller may save up: the requests of one second, at least one."""


class TokenBucket:
    """The allowance of one caller."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, now: float) -> None:
        """Start full.

        Args:
            rate_per_s: requests a second, above 0.
            now: in seconds, monotonic.
        """
        self._rate = rate_per_s
        self._burst = max(1.0, rate_per_s * BURST_S)
        self._tokens = self._burst
        self._at = now

    def wait_s(self, now: float) -> float:
        """Take a token and return 0, or take none and return when there will be one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def refusal(self, wait_s: float) -> RateError:
        """Return what is said to a caller who found no token."""
        return RateError(
            f"this connection may send {self._rate:g} requests a second (setting "
            "runtime.rate_limit_per_s); this one was not run, send it again later",
            retry_after_s=wait_s,
        )
