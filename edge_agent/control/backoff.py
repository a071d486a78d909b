"""Exponential backoff with full jitter, so that a fleet does not come back all at once."""

import random


class Backoff:
    """Pauses that double from an initial one up to a longest one, each drawn at random below it."""

    def __init__(self, *, initial_s: float, max_s: float, randomness: random.Random) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._random = randomness
        self._ceiling_s = initial_s

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        pause_s = self._random.uniform(self._initial_s / 2, self._ceiling_s)
        self._ceiling_s = min(self._max_s, self._ceiling_s * 2)
        return min(pause_s, self._max_s)

    def reset(self) -> None:
        """Begin with the initial pause again, after a success."""
        self._ceiling_s = self._initial_s
