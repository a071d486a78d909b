"""Which call runs next: the decisions of a release's scheduler, without threads, loop or clock.

Waiting calls stand in one order: by priority level, within it by deadline (earliest first), within
that by arrival. `RunQueue` answers three questions: may this call join, which calls have waited in
vain, and what shall happen now. `edge_agent.inference.scheduler` asks them and acts.
"""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_agent.inference.run_times import RunTimes

DEFAULT_PRIORITY = 100
"""Level of calls that name none (priority 0): 1 to 99 run before them, from 101 on after them."""

LATE_ALARM_S = 0.005
"""So late may a timer be: a batch with a deadline does not wait up to the last moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What the scheduler of one release is told.

    Attributes:
        max_queue: calls that may wait; a further one is refused.
        instances: runs of the model at the same time, if the model allows as many.
        wanted_instances: so many shall be possible even if the model must be loaded again for it.
        max_batch: items in one run at most; 1 runs each call for itself.
        batch_wait_s: how long the first call of a batch that is not full may wait for others.
    """

    max_queue: int = 256
    instances: int = 1
    wanted_instances: int = 1
    max_batch: int = 1
    batch_wait_s: float = 0.0


class Ticket:
    """A call that wants to run.

    Attributes:
        level: 1 is first.
        deadline: in seconds on the caller's clock, infinite if there is none.
        arrived: on the same clock.
        items: size of its first dimension.
        batch_key: calls with equal keys may run as one batch; None runs alone.
    """

    __slots__ = ("arrived", "batch_key", "deadline", "items", "key", "level", "order")

    def __init__(
        self,
        *,
        arrived: float,
        level: int = DEFAULT_PRIORITY,
        deadline: float = math.inf,
        items: int = 1,
        batch_key: object = None,
    ) -> None:
        self.arrived = arrived
        self.level = level
        self.deadline = deadline
        self.items = items
        self.batch_key = batch_key
        self.order = 0
        self.key = (level, deadline, 0)

    def numbered(self, order: int) -> None:
        """Take a place among those of equal level and deadline."""
        self.order = order
        self.key = (self.level, self.deadline, order)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not join.

    Attributes:
        full: the queue is; otherwise the deadline cannot be met.
        needed_s: until its answer, or until the queue will have been worked off if it is full.
        left_s: until its deadline.
    """

    full: bool
    needed_s: float
    left_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Run:
    """These calls shall run now, as one batch; they have left the queue."""

    tickets: Sequence[Ticket]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before this moment (infinite: before something else happens)."""

    until: float


class RunQueue:
    """The calls of one release that wait, in order."""

    def __init__(self, *, limits: QueueLimits, run_times: RunTimes) -> None:
        """Nobody waits.

        Args:
            limits: see there.
            run_times: the measurements that deadlines are judged by.
        """
        self._limits = limits
        self._times = run_times
        self._waiting: list[Ticket] = []
        self._joined = 0
        self._next_deadline = math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def stop_batching(self) -> None:
        """Let every call run for itself from now on."""
        self._limits = replace(self._limits, max_batch=1)

    @property
    def head(self) -> Ticket | None:
        """The call that is next."""
        return self._waiting[0] if self._waiting else None

    def refusal(self, ticket: Ticket, now: float, running_until: Sequence[float]) -> Refusal | None:
        """Say why a call may not join, None if it may.

        Args:
            ticket: that wants to.
            now: on the clock of the deadlines.
            running_until: when each run that is under way will probably end.
        """
        at_once = not self._waiting and len(running_until) < self._limits.instances
        if len(self._waiting) >= self._limits.max_queue and not at_once:
            return Refusal(True, self._wait_s(self._waiting, now, running_until))  # noqa: FBT003 (named by the class)
        if ticket.deadline == math.inf:
            return None
        before = [other for other in self._waiting if other.key[:2] <= ticket.key[:2]]
        needed_s = self._wait_s(before, now, running_until) + self._times.estimate(ticket.items)
        if now + needed_s <= ticket.deadline:
            return None
        self._times.doubt()
        return Refusal(False, needed_s, ticket.deadline - now)  # noqa: FBT003 (as above)

    def join(self, ticket: Ticket) -> None:
        """Let a call wait."""
        self._joined += 1
        ticket.numbered(self._joined)
        insort(self._waiting, ticket, key=_key)
        self._next_deadline = min(self._next_deadline, ticket.deadline)

    def rejoin(self, tickets: Sequence[Ticket]) -> None:
        """Let calls that were decided to run wait again, in their old places."""
        for ticket in tickets:
            insort(self._waiting, ticket, key=_key)
            self._next_deadline = min(self._next_deadline, ticket.deadline)

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a call whose caller has gone."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._look_for_deadline()

    def expired(self, now: float) -> list[Ticket]:
        """Remove and return the calls whose deadline has passed."""
        if now < self._next_deadline:
            return []
        late = [ticket for ticket in self._waiting if ticket.deadline <= now]
        self._waiting = [ticket for ticket in self._waiting if ticket.deadline > now]
        self._look_for_deadline()
        return late

    def decide(self, now: float, running: int) -> Run | Wait:
        """Say what shall happen, after `expired` has been asked.

        Args:
            now: on the clock of the deadlines.
            running: runs under way, or as many as there are instances if none may begin.
        """
        if not self._waiting or running >= self._limits.instances:
            return Wait(self._next_deadline)
        batch = self._batch(now)
        wait_until = self._batch_closes(batch)
        if now < wait_until:
            return Wait(min(wait_until, self._next_deadline))
        taken = set(batch)
        self._waiting = [ticket for ticket in self._waiting if ticket not in taken]
        self._look_for_deadline()
        return Run(batch)

    def _batch(self, now: float) -> list[Ticket]:
        """Return the first call with those behind it that fit, none of which it makes late."""
        first = self._waiting[0]
        batch = [first]
        if first.batch_key is None or first.items >= self._limits.max_batch:
            return batch
        items = first.items
        slack_end = first.deadline
        for ticket in self._waiting[1:]:
            if ticket.batch_key != first.batch_key:
                continue
            together = items + ticket.items
            if together > self._limits.max_batch:
                break
            end = min(slack_end, ticket.deadline)
            if end != math.inf and now + self._times.estimate(together) > end:
                break
            batch.append(ticket)
            items, slack_end = together, end
            if items == self._limits.max_batch:
                break
        return batch

    def _batch_closes(self, batch: Sequence[Ticket]) -> float:
        """Return until when the batch may wait for more calls: its tightest slack bounds it."""
        items = sum(ticket.items for ticket in batch)
        if batch[0].batch_key is None or items >= self._limits.max_batch:
            return -math.inf
        patience_ends = min(ticket.arrived for ticket in batch) + self._limits.batch_wait_s
        deadline = min(ticket.deadline for ticket in batch)
        if deadline == math.inf:
            return patience_ends
        # The run may be as large as a batch gets, if others join until the last moment.
        run_s = self._times.estimate(self._limits.max_batch)
        return min(patience_ends, deadline - run_s - LATE_ALARM_S)

    def _wait_s(
        self, before: Sequence[Ticket], now: float, running_until: Sequence[float]
    ) -> float:
        """Return how long it takes until an instance is free behind those calls."""
        instances = self._limits.instances
        if not before and len(running_until) < instances:
            return 0.0
        busy_s = sum(max(0.0, until - now) for until in running_until)
        return (busy_s + self._work_s(before)) / instances

    def _work_s(self, tickets: Sequence[Ticket]) -> float:
        if self._limits.max_batch == 1:
            return sum(self._times.estimate(ticket.items) for ticket in tickets)
        full, rest = divmod(sum(ticket.items for ticket in tickets), self._limits.max_batch)
        rest_s = self._times.estimate(rest) if rest else 0.0
        return full * self._times.estimate(self._limits.max_batch) + rest_s

    def _look_for_deadline(self) -> None:
        self._next_deadline = min((ticket.deadline for ticket in self._waiting), default=math.inf)


def _key(ticket: Ticket) -> tuple[int, float, int]:
    return ticket.key
