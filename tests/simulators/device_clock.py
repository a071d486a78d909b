"""A clock that a test holds in its hand."""

START_MS = 1_800_000_000_000


class ManualClock:
    """Implements the agent's `Clock`; time passes only when the test says so."""

    def __init__(self, *, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 1000.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def sleep_s(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)
        self._monotonic_s += seconds

    def set_wall_clock(self, now_ms: int) -> None:
        """Jump, as a wall clock may and a monotonic one may not."""
        self._now_ms = now_ms
