"""The life of an alert, as a table and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.alerts import engine
from fleet_server.alerts.engine import Condition, Phase, State, Transition

RISING = Condition(fires_at=100, resolves_at=80, for_ms=10, resolve_for_ms=20)
FALLING = Condition(fires_at=14, resolves_at=20, for_ms=10, resolve_for_ms=20, falling=True)
AT_ONCE = Condition(fires_at=1, resolves_at=1, for_ms=0, resolve_for_ms=0)

BAD, BAND, GOOD, UNKNOWN = 100.0, 80.0, 79.9, None
FIRED, RESOLVED = Transition.FIRED, Transition.RESOLVED


def pending(since_ms: int) -> State:
    return State(phase=Phase.PENDING, since_ms=since_ms, changed_ms=since_ms)


def firing(since_ms: int, good_since_ms: int | None = None) -> State:
    changed_ms = since_ms if good_since_ms is None else good_since_ms
    return State(
        phase=Phase.FIRING,
        since_ms=since_ms,
        good_since_ms=good_since_ms,
        changed_ms=changed_ms,
    )


@pytest.mark.parametrize(
    ("state", "value", "now_ms", "expected", "transition"),
    [
        (None, BAD, 50, pending(50), None),
        (None, BAND, 50, None, None),
        (None, GOOD, 50, None, None),
        (None, UNKNOWN, 50, None, None),
        (pending(50), BAD, 59, pending(50), None),
        (pending(50), BAD, 60, firing(60), FIRED),
        (pending(50), BAND, 60, None, None),
        (pending(50), GOOD, 60, None, None),
        (pending(50), UNKNOWN, 60, None, None),
        (firing(60), BAD, 90, firing(60), None),
        (firing(60), BAND, 90, firing(60), None),
        (firing(60), UNKNOWN, 90, firing(60), None),
        (firing(60), GOOD, 90, firing(60, 90), None),
        (firing(60, 90), GOOD, 109, firing(60, 90), None),
        (firing(60, 90), GOOD, 110, None, RESOLVED),
        (firing(60, 90), BAD, 200, State(phase=Phase.FIRING, since_ms=60, changed_ms=200), None),
        (firing(60, 90), BAND, 200, State(phase=Phase.FIRING, since_ms=60, changed_ms=200), None),
        (firing(60, 90), None, 200, State(phase=Phase.FIRING, since_ms=60, changed_ms=200), None),
        (firing(60), GOOD, 59, firing(60), None),  # a look that is older than the state
        (pending(60), GOOD, 59, pending(60), None),
    ],
)
def test_every_step(
    state: State | None,
    value: float | None,
    now_ms: int,
    expected: State | None,
    transition: Transition | None,
) -> None:
    made = engine.step(RISING, state, value, now_ms=now_ms)
    assert (made.state, made.transition) == (expected, transition)


@pytest.mark.parametrize(
    ("value", "bad", "good"), [(14, True, False), (14.1, False, False), (20.1, False, True)]
)
def test_small_values_may_be_the_bad_ones(value: float, bad: bool, good: bool) -> None:  # noqa: FBT001 (parametrized)
    assert (FALLING.bad(value), FALLING.good(value)) == (bad, good)


def test_without_waiting_times_one_look_is_enough() -> None:
    fired = engine.step(AT_ONCE, None, 1, now_ms=5)
    assert (fired.state, fired.transition) == (firing(5), FIRED)
    assert engine.step(AT_ONCE, fired.state, 0, now_ms=6).transition is RESOLVED


def test_time_in_which_nobody_looked_does_not_count() -> None:
    late = engine.step(RISING, pending(50), BAD, now_ms=1000, watched_since_ms=995)
    assert (late.state, late.transition) == (pending(50), None)
    assert engine.step(RISING, pending(50), BAD, now_ms=1005, watched_since_ms=995).transition
    late = engine.step(RISING, firing(50, 60), GOOD, now_ms=1000, watched_since_ms=995)
    assert late.transition is None
    assert engine.step(RISING, firing(50, 60), GOOD, now_ms=1015, watched_since_ms=995).transition


def test_a_subject_that_is_gone() -> None:
    assert engine.end(firing(60), now_ms=70).transition is RESOLVED
    assert engine.end(pending(60), now_ms=70).transition is None
    assert engine.end(pending(60), now_ms=70).state is None
    assert engine.end(firing(60), now_ms=59).state == firing(60)


looks = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=15),
        st.one_of(st.none(), st.sampled_from([79.0, 80.0, 90.0, 99.9, 100.0, 120.0])),
    ),
    max_size=60,
)


def history(
    seen: list[tuple[int, float | None]], *, servers: int = 1
) -> list[tuple[int, Transition]]:
    """Let servers look one after the other at the same values; return what happened."""
    state, now_ms, happened = None, 1000, []
    for wait_ms, value in seen:
        now_ms += wait_ms
        for _ in range(servers):
            made = engine.step(RISING, state, value, now_ms=now_ms)
            state = made.state
            if made.transition:
                happened.append((now_ms, made.transition))
    return happened


@given(looks)
def test_several_servers_make_the_history_of_one(seen: list[tuple[int, float | None]]) -> None:
    assert history(seen) == history(seen) == history(seen, servers=3)


@given(looks)
def test_alerts_alternate_and_take_their_time(seen: list[tuple[int, float | None]]) -> None:
    happened = history(seen)
    assert [kind for _, kind in happened] == [FIRED, RESOLVED] * (len(happened) // 2) + [FIRED] * (
        len(happened) % 2
    )
    moments, now_ms = [], 1000
    for wait_ms, value in seen:
        now_ms += wait_ms
        moments.append((now_ms, value))
    for at_ms, kind in happened:
        long_ms, holds = (10, RISING.bad) if kind is FIRED else (20, RISING.good)
        before = [value for then_ms, value in moments if at_ms - long_ms < then_ms < at_ms]
        assert all(value is not None and holds(value) for value in before)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(80, 99.99)), max_size=40),
    st.sampled_from([None, firing(900), firing(900, 950), pending(990)]),
)
def test_nothing_flaps_inside_of_the_band(
    seen: list[tuple[int, float]], state: State | None
) -> None:
    now_ms = 1000
    for wait_ms, value in seen:
        now_ms += wait_ms
        made = engine.step(RISING, state, value, now_ms=now_ms)
        assert made.transition is None
        state = made.state


@given(looks, st.sampled_from([79.0, 90.0, 120.0, None]), st.integers(1, 1000))
def test_an_older_look_changes_nothing(
    seen: list[tuple[int, float | None]], value: float | None, older_ms: int
) -> None:
    state, now_ms = None, 1000
    for wait_ms, each in seen:
        now_ms += wait_ms
        state = engine.step(RISING, state, each, now_ms=now_ms).state
    if state is not None:
        stale = engine.step(RISING, state, value, now_ms=state.changed_ms - older_ms)
        assert (stale.state, stale.transition) == (state, None)
