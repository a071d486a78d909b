"""When a family may be worked on again after something failed."""

import random
import sqlite3
from enum import StrEnum

import msgspec

from edge_agent.control import facts
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import Clock
from edge_agent.errors import AgentError
from edge_agent.store import DiskFullError, StoreError

_FACT = "pauses"


class Cause(StrEnum):
    """What failed, which decides how soon to try again."""

    LOCAL = "local"
    """Something on this device: soon, since calls may be waiting for it."""
    SHARED = "shared"
    """Something that thousands of devices may have seen at the same instant."""
    DISK = "disk"
    """A disk that is too full: a person has to make room, so there is no hurry."""


def cause_of(error: AgentError) -> Cause:
    """Return the cause that a failed download tells of."""
    if isinstance(error, DiskFullError):
        return Cause.DISK
    return Cause.LOCAL if isinstance(error, StoreError) else Cause.SHARED


class _Rest(msgspec.Struct, frozen=True):
    cause: Cause
    failures: int
    until_ms: int


class Pauses:
    """A growing pause for each family that fails, none for the others."""

    def __init__(
        self,
        *,
        clock: Clock,
        initial_s: float,
        shared_initial_s: float,
        max_s: float,
        randomness: random.Random,
    ) -> None:
        self._clock = clock
        self._initial_s = {
            Cause.LOCAL: initial_s,
            Cause.SHARED: shared_initial_s,
            Cause.DISK: max_s,
        }
        self._max_s = max_s
        self._random = randomness
        self._backoffs: dict[str, tuple[Cause, Backoff]] = {}
        self._until_s: dict[str, float] = {}

    def failed(self, family: str, cause: Cause = Cause.LOCAL) -> None:
        """Let a family rest."""
        before, backoff = self._backoffs.get(family, (None, None))
        if backoff is None or before is not cause:
            backoff = self._backoff(cause)
            self._backoffs[family] = cause, backoff
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

    def keep(self, connection: sqlite3.Connection) -> None:
        """Write the pauses that a restart must not cut short (in the caller's transaction)."""
        ahead_ms = self._clock.now_ms() - self._clock.monotonic_s() * 1000
        rests = {
            family: _Rest(cause, backoff.failures, int(self._until_s[family] * 1000 + ahead_ms))
            for family, (cause, backoff) in self._backoffs.items()
            if cause is not Cause.LOCAL
        }
        facts.put(connection, _FACT, msgspec.json.encode(rests).decode())

    def restore(self, connection: sqlite3.Connection) -> None:
        """Go on with the pauses of an earlier life; a clock that jumped makes none longer."""
        for family, rest in _stored(connection).items():
            left_s = min((rest.until_ms - self._clock.now_ms()) / 1000, self._max_s)
            self._backoffs[family] = rest.cause, self._backoff(rest.cause, rest.failures)
            self._until_s[family] = self._clock.monotonic_s() + left_s

    def _backoff(self, cause: Cause, failures: int = 0) -> Backoff:
        return Backoff(
            initial_s=self._initial_s[cause],
            max_s=self._max_s,
            randomness=self._random,
            failures=failures,
        )


def _stored(connection: sqlite3.Connection) -> dict[str, _Rest]:
    return msgspec.json.decode(facts.get(connection, _FACT) or "{}", type=dict[str, _Rest])
