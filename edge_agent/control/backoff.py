"""Exponential backoff with full jitter, so that a fleet does not come back all at once.

After Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): a pause is drawn from
the whole span between nothing and a ceiling that doubles.
"""

import random


class Backoff:
    """Pauses below a ceiling that doubles from an initial one up to a longest one."""

    def __init__(
        self, *, initial_s: float, max_s: float, randomness: random.Random, failures: int = 0
    ) -> None:
        """Start after a number of failures, for one that goes on after a restart."""
        self._initial_s = initial_s
        self._max_s = max_s
        self._random = randomness
        self.failures = failures

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        doublings = min(self.failures, 32)
        self.failures += 1
        return self._random.uniform(0, min(self._max_s, self._initial_s * 2**doublings))

    def reset(self) -> None:
        """Begin with the initial pause again, after a success."""
        self.failures = 0
