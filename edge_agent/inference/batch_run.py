"""One run of a model: prepared for one call or several, computed in a thread, shared out again.

What happens between two runs of a model, it waits for. So whatever can be done before a run's turn
or after it, is done on the event loop while the model computes; the thread is left with `compute`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from edge_agent.inference import batches
from edge_agent.inference.backends.base import StagedRun
from edge_agent.inference.scheduling import Ticket
from edge_agent.inference.statistics import Timeline
from edge_agent.inference.tensors import Tensor

logger = logging.getLogger(__name__)

Outputs = list[Tensor]


class Runner(Protocol):
    """A model, as its runs see it."""

    def compute(self, feed: Sequence[Tensor]) -> Outputs:
        """Run the model; called in threads."""
        ...

    def staged(self, feed: Sequence[Tensor]) -> StagedRun | None:
        """Prepare a run, unless it has to be done by `compute` as a whole."""
        ...


class Pending(Ticket):
    """A call with what it brings and the future that its caller waits for."""

    __slots__ = ("feed", "future", "line", "staged")

    def __init__(
        self,
        *,
        feed: batches.Feed,
        line: Timeline,
        level: int,
        deadline: float,
        batch_key: object,
    ) -> None:
        super().__init__(
            arrived=line.queued,
            level=level,
            deadline=deadline,
            items=line.items,
            batch_key=batch_key,
        )
        self.feed = feed
        self.line = line
        self.future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.staged: StagedRun | None = None
        """Kept when its turn is put off for a more urgent call's."""


class BatchRun:
    """A run under way, or laid out."""

    __slots__ = ("_compute", "_results", "_staged", "began", "calls", "ended", "submitted", "until")

    def __init__(self, calls: Sequence[Pending], runner: Runner) -> None:
        """Prepare it; on the event loop.

        Args:
            calls: that it computes together, at least one.
            runner: computes.
        """
        self.calls = calls
        self.submitted = self.until = self.began = self.ended = 0.0
        self._results: Sequence[Outputs | BaseException] = []
        self._staged: StagedRun | None = None
        self._compute = runner.compute
        if len(calls) == 1:
            calls[0].staged = self._staged = calls[0].staged or _staged(runner, calls[0])

    def run(self, clock: Callable[[], float]) -> None:
        """Compute; in a thread. What goes wrong is a result, too."""
        self.began = clock()
        if self._staged is None:
            self._results = _computed(self._compute, self.calls)
        else:
            try:
                self._staged.compute()
            except BaseException as error:  # noqa: BLE001 (goes to the caller through the future)
                self._results = [error]
        self.ended = clock()

    def results(self) -> Sequence[Outputs | BaseException]:
        """Return the outputs or the error of each call, after `run`; on the event loop."""
        if not self._results and self._staged is not None:
            try:
                self._results = [self._staged.outputs()]
            except Exception as error:  # noqa: BLE001 (goes to the caller through the future)
                self._results = [error]
        return self._results


def _staged(runner: Runner, call: Pending) -> StagedRun | None:
    try:
        return runner.staged(call.feed)
    except Exception:  # noqa: BLE001 (the run as a whole fails alike, and its caller hears of it)
        return None


def _computed(
    compute: Callable[[Sequence[Tensor]], Outputs], calls: Sequence[Pending]
) -> list[Outputs | BaseException]:
    """Return each call's outputs or error; one call's fault is not its neighbours'."""
    if len(calls) > 1:
        try:
            outputs = compute(batches.joined([call.feed for call in calls]))
            return [*batches.split(outputs, [call.items for call in calls])]
        except Exception as error:  # noqa: BLE001 (each runs for itself: only the guilty one fails)
            logger.info("batch_failed", extra={"reason": str(error), "calls": len(calls)})
    results: list[Outputs | BaseException] = []
    for call in calls:
        try:
            results.append(compute(call.feed))
        except BaseException as error:  # noqa: BLE001 (goes to the caller through the future)
            results.append(error)
    return results
