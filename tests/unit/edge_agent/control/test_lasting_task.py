"""Tasks that outlive their own defects."""

import asyncio
import logging
import random

import pytest

from edge_agent.control.backoff import Backoff
from edge_agent.control.lasting_task import BrokenTaskError, lasting
from edge_agent.errors import AgentError


def short() -> Backoff:
    return Backoff(initial_s=0.0001, max_s=0.001, randomness=random.Random(1))  # noqa: S311 (data of a test)


async def test_a_task_that_fails_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    lives: list[int] = []
    forever = asyncio.Event()

    async def run() -> None:
        lives.append(1)
        if len(lives) == 1:
            raise ValueError("a defect")
        if len(lives) == 2:
            raise AgentError("expected")
        if len(lives) == 4:
            forever.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(lasting("t", run, backoff=short()))
    async with asyncio.timeout(5):
        await forever.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    logged = [(record.message, bool(record.exc_info)) for record in caplog.records]
    assert ("task_crashed", True) in logged
    assert ("task_failed", False) in logged


async def test_a_task_that_fails_again_and_again_ends_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def run() -> None:
        raise ValueError("always")

    with pytest.raises(BrokenTaskError, match="20 times"):
        await lasting("t", run, backoff=short())


def test_pauses_grow_with_jitter_up_to_the_longest() -> None:
    backoff = Backoff(initial_s=1.0, max_s=8.0, randomness=random.Random(1))  # noqa: S311 (data of a test)
    pauses = [backoff.next_s() for _ in range(50)]
    assert pauses[0] <= 1.0
    assert max(pauses) <= 8.0
    assert max(pauses[10:]) > 5.0
    assert len(set(pauses)) == 50
    backoff.reset()
    assert backoff.next_s() <= 1.0
