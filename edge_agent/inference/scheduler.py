"""Runs the calls of one release beside the event loop, in the order that its queue decides.

The scheduler belongs to the event loop: it asks `RunQueue` what to do, hands runs to `Workers`, and
resolves the futures of the calls. A call that has left the queue runs to its end even if its caller
has gone, and its release stays in memory for that long.

While no further run may begin, the next one is laid out: the thread that ends a run takes it and
does not ask the loop, which would wake up, decide and wake the thread again while the model rests
(0.7 ms of a call of 4 ms). Whenever the queue changes, the loop takes it back first and decides
anew: a more urgent call that comes before a thread is free still goes first.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from edge_agent.inference.batch_run import BatchRun, Outputs, Pending, Ran, Runner
from edge_agent.inference.errors import DeadlineError, RefusedError
from edge_agent.inference.run_times import RunTimes
from edge_agent.inference.scheduling import QueueLimits, Refusal, Run, RunQueue, Ticket
from edge_agent.inference.statistics import Timeline
from edge_agent.inference.workers import Workers

logger = logging.getLogger(__name__)

_MILLISECOND = 1e-3


class Host(Runner, Protocol):
    """The release, as its scheduler sees it."""

    @property
    def name(self) -> str:
        """Family and version, for a message."""
        ...

    def run_began(self) -> None:
        """Keep the model in memory."""
        ...

    def run_ended(self) -> None:
        """Let go of the model again."""
        ...

    def batching_ended(self, reason: str) -> None:
        """Remember why calls are not joined any more."""
        ...


class Scheduler:
    """The waiting and running calls of one release."""

    def __init__(
        self,
        *,
        host: Host,
        limits: QueueLimits,
        workers: Workers,
        clock: Callable[[], float],
    ) -> None:
        """Nothing waits.

        Args:
            host: the release.
            limits: see there.
            workers: the threads, shared with other releases.
            clock: in seconds, monotonic.
        """
        self._host = host
        self._limits = limits
        self._workers = workers
        self._clock = clock
        self.run_times = RunTimes()
        self._queue = RunQueue(limits=limits, run_times=self.run_times)
        self._running: list[BatchRun] = []
        self._laid_out: BatchRun | None = None
        self._next: deque[BatchRun] = deque()
        """What is laid out until a thread takes it; who pops it, has it."""
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self.batching = limits.max_batch > 1
        self._gathers = self.batching and limits.batch_wait_s > 0

    @property
    def limits(self) -> QueueLimits:
        """What it has been told."""
        return self._limits

    @property
    def depth(self) -> int:
        """How many calls wait."""
        return len(self._queue) + (len(self._laid_out.calls) if self._laid_out else 0)

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return len(self._running)

    @property
    def longest_run_s(self) -> float:
        """How long the oldest run lasts already, 0 while none is under way."""
        began = min((batch.submitted for batch in self._running), default=None)
        return 0.0 if began is None else self._clock() - began

    @property
    def vacant(self) -> bool:
        """True while a call could run at once, and need not wait for others to join it."""
        return (
            self._laid_out is None
            and not self._queue
            and len(self._running) < self._limits.instances
            and not self._gathers
        )

    def check_deadline(self, line: Timeline, deadline: float) -> None:
        """Refuse a call that would run at once but too late.

        Raises:
            DeadlineError: the deadline has passed or cannot be met.
        """
        now = self._clock()
        needed_s = self.run_times.estimate(line.items)
        if now + needed_s > deadline:
            self.run_times.doubt()
            raise self._refused(Refusal(False, needed_s, deadline - now))  # noqa: FBT003 (named by the class)

    def submit(self, pending: Pending) -> "asyncio.Future[Outputs]":
        """Run a call as soon as it is its turn.

        Raises:
            RefusedError: it cannot be run: the queue is full, or the deadline cannot be met.
        """
        self._recall()
        queue = self._queue
        refusal = queue.refusal(pending, self._clock(), [batch.until for batch in self._running])
        if refusal is None:
            queue.join(pending)
        self.advance()
        if refusal is not None:
            raise self._refused(refusal)
        return pending.future

    def withdraw(self, pending: Pending) -> None:
        """Forget a call whose caller has gone, unless it runs already."""
        self._recall()
        self._queue.withdraw(pending)
        self.advance()

    def recall(self) -> None:
        """Take back what is laid out, and wait for a thread with the others; see `Contender`."""
        self._recall()
        if self._queue:
            self._workers.contend(self)

    def urgency(self) -> tuple[int, float, int] | None:
        """Return the rank of the first waiting call, which is laid out no more; see `Contender`."""
        self._recall()
        head = self._queue.head
        if head is None or len(self._running) >= self._limits.instances:
            return None
        return head.key

    def advance(self) -> None:
        """Turn away what is too late and begin what may begin now; see `Contender`."""
        self._recall()
        while True:
            now = self._clock()
            for late in self._queue.expired(now):
                self._turn_away(late)
            free = self._workers.free
            decision = self._queue.decide(
                now, len(self._running) if free else self._limits.instances
            )
            if not isinstance(decision, Run):
                break
            self._start([call for call in decision.tickets if isinstance(call, Pending)], now)
        if self._queue and not free:
            self._workers.contend(self)
        self._lay_out(now)
        self._set_alarm(min(decision.until, self._laid_out_deadline()))

    def close(self) -> None:
        """Stop waking up; nothing may wait or run."""
        self._set_alarm(math.inf)
        self._workers.forget(self)

    def _start(self, calls: Sequence[Pending], now: float) -> None:
        batch = BatchRun(calls, self._host, self._clock)
        self._under_way(batch, now)
        self._workers.start(lambda: self._work(batch))

    def _under_way(self, batch: BatchRun, now: float) -> None:
        batch.submitted = now
        batch.until = now + self.run_times.estimate(sum(call.items for call in batch.calls))
        self._running.append(batch)
        self._host.run_began()

    def _lay_out(self, now: float) -> None:
        """Choose what a thread begins as soon as it has ended a run, if nobody else waits."""
        if not self._queue or not self._running or self._workers.contested(self):
            return
        decision = self._queue.decide(now, len(self._running) - 1)
        if isinstance(decision, Run):
            calls = [call for call in decision.tickets if isinstance(call, Pending)]
            self._laid_out = BatchRun(calls, self._host, self._clock)
            self._next.append(self._laid_out)

    def _laid_out_deadline(self) -> float:
        if self._laid_out is None:
            return math.inf
        return min(call.deadline for call in self._laid_out.calls)

    def _recall(self) -> None:
        """Put back what is laid out, or take note that a thread has begun it."""
        laid_out, self._laid_out = self._laid_out, None
        if laid_out is None:
            return
        if self._taken() is None:
            self._under_way(laid_out, self._clock())
        else:
            self._queue.rejoin(laid_out.calls)

    def _work(self, batch: BatchRun) -> None:
        """Run a batch and what is laid out behind it, in a thread."""
        following: BatchRun | None = batch
        while following is not None:
            batch = following
            batch.run()
            following = self._taken()
            try:
                self._loop.call_soon_threadsafe(self._done, batch, following)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _taken(self) -> BatchRun | None:
        """Take what is laid out, from any thread; whoever got it, has it alone."""
        try:
            return self._next.pop()
        except IndexError:
            return None

    def _done(self, batch: BatchRun, following: BatchRun | None) -> None:
        self._recall()
        self._running.remove(batch)
        if batch.indivisible:
            self._stop_batching(batch.indivisible)
        for ran in batch.ran():
            self.run_times.observe(ran.items, ran.ended - ran.began)
            _hand_out(ran)
        self._host.run_ended()
        if following is not None:
            self.advance()
            return
        if self._queue:
            self._workers.contend(self)
        self._workers.finished()

    def _stop_batching(self, reason: str) -> None:
        if self.batching:
            logger.warning("batching_ended", extra={"model": self._host.name, "reason": reason})
        self._host.batching_ended(reason)
        self.batching = self._gathers = False
        self._limits = replace(self._limits, max_batch=1)
        self._queue.stop_batching()

    def _turn_away(self, late: Ticket) -> None:
        if isinstance(late, Pending) and not late.future.done():
            waited_ms = (self._clock() - late.arrived) * 1e3
            late.future.set_exception(
                DeadlineError(
                    f"{self._host.name}: the call's timeout ran out after {waited_ms:.1f} ms in "
                    "the queue; it was not run"
                )
            )

    def _refused(self, refusal: Refusal) -> RefusedError:
        if refusal.full:
            return RefusedError(
                f"{self._host.name} has {self._limits.max_queue} calls waiting, which is its limit "
                "(setting runtime.max_queue); this one was not run, call again later",
                retry_after_s=refusal.needed_s,
            )
        return DeadlineError(
            f"{self._host.name} would answer in about {_readable(refusal.needed_s)}, the call's "
            f"timeout leaves {_readable(max(0.0, refusal.left_s))}; it was not run"
        )

    def _set_alarm(self, at: float) -> None:
        if at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = at
        if at != math.inf:
            delay_s = max(0.0, at - self._clock())
            self._alarm = self._loop.call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._alarm_at = math.inf
        self.advance()


def _hand_out(ran: Ran) -> None:
    items, leads = ran.items, True
    for call, outcome in zip(ran.calls, ran.outcomes, strict=True):
        if call.future.done():
            continue  # its caller has gone
        line = call.line
        line.began, line.ended = ran.began, ran.ended
        line.batch_items, line.leads = items, leads
        leads = False  # the first that is still waited for accounts for the run
        if isinstance(outcome, BaseException):
            call.future.set_exception(outcome)
        else:
            call.future.set_result(outcome)


def _readable(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= _MILLISECOND else f"{seconds * 1e6:.0f} us"
