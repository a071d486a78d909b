"""The threads of models beside a loop that ends before they do."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from edge_agent.inference.batch_run import Pending
from edge_agent.inference.scheduler import Scheduler
from edge_agent.inference.scheduling import DEFAULT_PRIORITY, QueueLimits
from edge_agent.inference.statistics import Timeline
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.workers import Workers


class HangingModel:
    """Computes until it is let go."""

    name = "m 1.0.0"

    def __init__(self) -> None:
        self.began, self.let_go = threading.Event(), threading.Event()

    def compute(self, feed: Sequence[Tensor]) -> list[Tensor]:  # noqa: ARG002 (any feed hangs)
        self.began.set()
        assert self.let_go.wait(20)
        return []

    def staged(self, feed: Sequence[Tensor]) -> None:
        """Offer no steps."""

    def run_began(self) -> None:
        """Need not know."""

    def run_ended(self) -> None:
        """Need not know."""

    def batching_ended(self, reason: str) -> None:
        """Need not know."""


def test_a_run_that_outlives_the_loop_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    escaped: list[object] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    model, workers = HangingModel(), Workers(1)

    async def call() -> None:
        scheduler = Scheduler(
            host=model, limits=QueueLimits(instances=1), workers=workers, clock=time.perf_counter
        )
        line = Timeline(0.0)
        scheduler.submit(
            Pending(feed=[], line=line, level=DEFAULT_PRIORITY, deadline=1e9, batch_key=None)
        )
        await asyncio.to_thread(model.began.wait, 20)

    asyncio.run(call())
    model.let_go.set()
    workers.close()
    assert escaped == []
