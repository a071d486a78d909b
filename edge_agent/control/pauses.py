"""When a family may be worked on again after something failed."""

import random

from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import Clock


class Pauses:
    """A growing pause for each family that fails, none for the others."""

    def __init__(
        self, *, clock: Clock, initial_s: float, max_s: float, randomness: random.Random
    ) -> None:
        self._clock = clock
        self._initial_s = initial_s
        self._max_s = max_s
        self._random = randomness
        self._backoffs: dict[str, Backoff] = {}
        self._until_s: dict[str, float] = {}

    def failed(self, family: str) -> None:
        """Let a family rest."""
        backoff = self._backoffs.setdefault(
            family,
            Backoff(initial_s=self._initial_s, max_s=self._max_s, randomness=self._random),
        )
        self._until_s[family] = self._clock.monotonic_s() + backoff.next_s()

    def succeeded(self, family: str) -> None:
        """Forget earlier failures of a family."""
        self._backoffs.pop(family, None)
        self._until_s.pop(family, None)

    def resting(self, family: str) -> bool:
        """Say whether the family's pause still lasts."""
        return self._clock.monotonic_s() < self._until_s.get(family, 0.0)

    def clear(self) -> None:
        """Forget all failures: the assignment has changed."""
        self._backoffs.clear()
        self._until_s.clear()
