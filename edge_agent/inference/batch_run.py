"""One run of a model: prepared for one call or several, computed in a thread, shared out again.

What happens between two runs of a model, it waits for. So whatever can be done before a run's turn
or after it, is done on the event loop while the model computes; the thread is left with `compute`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

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


class Ran(NamedTuple):
    """One run of the model that has ended.

    Attributes:
        outcomes: outputs or error of each call.
        began: in seconds on the clock of the batch.
        ended: likewise.
    """

    calls: Sequence[Pending]
    outcomes: Sequence[Outputs | BaseException]
    began: float
    ended: float

    @property
    def items(self) -> int:
        """How many it computed."""
        return sum(call.items for call in self.calls)


class BatchRun:
    """Calls under way, or laid out: one run, or one for each where they could not run together."""

    __slots__ = (
        "_clock", "_ran", "_runner", "_staged", "calls", "indivisible", "submitted", "until",
    )  # fmt: skip

    def __init__(
        self, calls: Sequence[Pending], runner: Runner, clock: Callable[[], float]
    ) -> None:
        """Prepare it; on the event loop.

        Args:
            calls: that it computes together, at least one.
            runner: computes.
            clock: times the run, in seconds.
        """
        self.calls = calls
        self.submitted = self.until = 0.0
        self.indivisible = ""
        """Why the outputs of the batch could not be shared out; empty if they could be."""
        self._runner = runner
        self._clock = clock
        self._ran: list[Ran] = []
        self._staged: StagedRun | None = None
        if len(calls) == 1:
            calls[0].staged = self._staged = calls[0].staged or _staged(runner, calls[0])

    def run(self) -> None:
        """Compute; in a thread. What goes wrong is an outcome, too.

        One call's fault is not its neighbours': after a batch that failed each runs for itself.
        """
        if len(self.calls) == 1 or not self._ran_together():
            for call in self.calls:
                self._run_alone(call)

    def ran(self) -> Sequence[Ran]:
        """Return the runs with what came of each call, after `run`; on the event loop."""
        if self._staged is not None and not self._ran[0].outcomes:
            calls, _, began, ended = self._ran[0]
            try:
                outcome: Outputs | BaseException = self._staged.outputs()
            except Exception as error:  # noqa: BLE001 (goes to the caller through the future)
                outcome = error
            self._ran = [Ran(calls, [outcome], began, ended)]
        return self._ran

    def _run_alone(self, call: Pending) -> None:
        outcomes: list[Outputs | BaseException] = []
        began = self._clock()
        try:
            if self._staged is not None:
                self._staged.compute()
            else:
                outcomes.append(self._runner.compute(call.feed))
        except BaseException as error:  # noqa: BLE001 (goes to the caller through the future)
            outcomes.append(error)
        self._ran.append(Ran([call], outcomes, began, self._clock()))

    def _ran_together(self) -> bool:
        calls = self.calls
        try:
            began = self._clock()
            outputs = self._runner.compute(batches.joined([call.feed for call in calls]))
            ended = self._clock()
            parts = batches.split(outputs, [call.items for call in calls])
        except batches.IndivisibleError as error:
            self.indivisible = str(error)
            return False
        except Exception as error:  # noqa: BLE001 (each runs for itself: only the guilty one fails)
            logger.info("batch_failed", extra={"reason": str(error), "calls": len(calls)})
            return False
        self._ran.append(Ran(calls, parts, began, ended))
        return True


def _staged(runner: Runner, call: Pending) -> StagedRun | None:
    try:
        return runner.staged(call.feed)
    except Exception:  # noqa: BLE001 (the run as a whole fails alike, and its caller hears of it)
        return None
