"""Waiting for a change without missing one."""

import asyncio

from edge_agent.control.pulse import Pulse, first_change


async def test_a_bump_wakes_all_who_wait() -> None:
    pulse = Pulse()
    waits = [asyncio.create_task(pulse.changed(0)) for _ in range(3)]
    await asyncio.sleep(0)
    pulse.bump()
    assert await asyncio.gather(*waits) == [1, 1, 1]


async def test_a_bump_that_was_missed_is_seen_at_once() -> None:
    pulse = Pulse()
    pulse.bump()
    pulse.bump()
    assert await pulse.changed(0) == 2


async def test_a_timeout_returns_the_count_as_it_is() -> None:
    assert await Pulse().changed(0, timeout_s=0.001) == 0


async def test_the_first_of_several_changes_ends_the_wait() -> None:
    one, other = Pulse(), Pulse()
    wait = asyncio.create_task(first_change((one, 0), (other, 0)))
    await asyncio.sleep(0)
    other.bump()
    async with asyncio.timeout(5):
        await wait
    assert not one._waiters
