"""The event loop looks for bytes that were announced, for a moment, and sleeps otherwise."""

import asyncio

import pytest

from edge_agent.inference.busy_poll import GRACE_S, BusyPoll

_STEP_S = GRACE_S / 10


class _Clock:
    """Goes on by a step each time that it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.reads * _STEP_S


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_loop_looks_until_the_moment_is_over_and_then_sleeps() -> None:
    async def look() -> tuple[int, int]:
        clock = _Clock()
        BusyPoll(clock=clock, processors=2).expect(0.0)
        await _rounds(100)
        looked = clock.reads
        await _rounds(100)
        return looked, clock.reads

    assert asyncio.run(look()) == (10, 10)


@pytest.mark.parametrize("at", [3, 9])
def test_what_is_expected_meanwhile_prolongs_it_and_starts_no_second_look(at: int) -> None:
    async def look() -> int:
        clock = _Clock()
        poll = BusyPoll(clock=clock, processors=2)
        poll.expect(0.0)
        await _rounds(at)
        poll.expect(at * _STEP_S)
        await _rounds(100)
        return clock.reads

    assert asyncio.run(look()) == at + 10


def test_it_begins_anew_after_it_has_ended() -> None:
    async def look() -> int:
        clock = _Clock()
        poll = BusyPoll(clock=clock, processors=2)
        poll.expect(0.0)
        await _rounds(100)
        poll.expect(clock.reads * _STEP_S)
        await _rounds(100)
        return clock.reads

    assert asyncio.run(look()) == 20


def test_the_loop_sleeps_while_models_are_at_work() -> None:
    async def look() -> int:
        clock = _Clock()
        poll = BusyPoll(clock=clock, processors=2)
        poll.at_work += 1
        poll.expect(0.0)
        await _rounds(100)
        return clock.reads

    assert asyncio.run(look()) == 0


def test_the_loop_leaves_a_single_processor_to_the_sender() -> None:
    async def look() -> int:
        clock = _Clock()
        BusyPoll(clock=clock, processors=1).expect(0.0)
        await _rounds(100)
        return clock.reads

    assert asyncio.run(look()) == 0
