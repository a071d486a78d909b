"""The life of one alert as a pure function: condition, last state, value and time in, state out.

::

    (none) --bad--> pending --bad for `for_ms`--> firing --good for `resolve_for_ms`--> (resolved)

A value is bad beyond ``fires_at`` and good beyond ``resolves_at``; between the two lies the band in
which nothing changes. Without a value nothing is known: what fires goes on firing, because silence
is not health, and what did not fire yet starts over.

Several servers may look at the same alert. A step is idempotent, and a look that is older than the
state changes nothing, so any interleaving of them gives one history.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Phase(StrEnum):
    """Where an open alert stands."""

    PENDING = "pending"
    """The condition holds, for less than ``for_ms`` yet."""
    FIRING = "firing"


class Transition(StrEnum):
    """What a step made happen."""

    FIRED = "fired"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When an alert fires and when it resolves.

    Attributes:
        fires_at: the first bad value.
        resolves_at: a good value lies on the other side of it.
        for_ms: how long values have to be bad before it fires.
        resolve_for_ms: how long values have to be good before it resolves.
        falling: whether small values are the bad ones.
    """

    fires_at: float
    resolves_at: float
    for_ms: int
    resolve_for_ms: int
    falling: bool = False

    def bad(self, value: float) -> bool:
        """Say whether a value speaks for the alert."""
        return value <= self.fires_at if self.falling else value >= self.fires_at

    def good(self, value: float) -> bool:
        """Say whether a value speaks for the end of the alert."""
        return value > self.resolves_at if self.falling else value < self.resolves_at


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An open alert.

    Attributes:
        since_ms: when its phase began.
        good_since_ms: since when values are good, while it fires.
        changed_ms: the look that made this state.
    """

    phase: Phase
    since_ms: int
    good_since_ms: int | None = None
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: the new state, None where nothing is open, and what happened."""

    state: State | None
    transition: Transition | None = None


def step(
    condition: Condition,
    state: State | None,
    value: float | None,
    *,
    now_ms: int,
    watched_since_ms: int = 0,
) -> Step:
    """Look at one value.

    Args:
        condition: of the alert's rule.
        state: what is open; None for nothing.
        value: what was observed; None where nothing is known.
        now_ms: when it was observed.
        watched_since_ms: since when somebody has looked without a gap. What happened before it was
            not seen, so no time counts from before it.
    """
    if state is None:
        return _begin(condition, value, now_ms)
    if now_ms < state.changed_ms:
        return Step(state)
    if state.phase is Phase.PENDING:
        return _pending(condition, state, value, now_ms, watched_since_ms)
    return _firing(condition, state, value, now_ms, watched_since_ms)


def end(state: State, *, now_ms: int) -> Step:
    """Close an alert whose subject is gone: the device, the family on it, or the rule."""
    if now_ms < state.changed_ms:
        return Step(state)
    return Step(None, Transition.RESOLVED if state.phase is Phase.FIRING else None)


def _begin(condition: Condition, value: float | None, now_ms: int) -> Step:
    if value is None or not condition.bad(value):
        return Step(None)
    if condition.for_ms == 0:
        return _fired(now_ms)
    return Step(State(phase=Phase.PENDING, since_ms=now_ms, changed_ms=now_ms))


def _pending(
    condition: Condition, state: State, value: float | None, now_ms: int, watched_since_ms: int
) -> Step:
    if value is None or not condition.bad(value):
        return Step(None)
    if now_ms - max(state.since_ms, watched_since_ms) >= condition.for_ms:
        return _fired(now_ms)
    return Step(state)


def _firing(
    condition: Condition, state: State, value: float | None, now_ms: int, watched_since_ms: int
) -> Step:
    if value is None or not condition.good(value):
        if state.good_since_ms is None:
            return Step(state)
        return Step(replace(state, good_since_ms=None, changed_ms=now_ms))
    good_since_ms = now_ms if state.good_since_ms is None else state.good_since_ms
    if now_ms - max(good_since_ms, watched_since_ms) >= condition.resolve_for_ms:
        return Step(None, Transition.RESOLVED)
    if state.good_since_ms is None:
        return Step(replace(state, good_since_ms=now_ms, changed_ms=now_ms))
    return Step(state)


def _fired(now_ms: int) -> Step:
    return Step(State(phase=Phase.FIRING, since_ms=now_ms, changed_ms=now_ms), Transition.FIRED)
