"""One inference call: keeps its release in memory, counts how it ends and how long it took."""

import math
from collections.abc import Callable
from types import TracebackType

from edge_agent.inference import batches
from edge_agent.inference.batch_run import Outputs, Pending
from edge_agent.inference.errors import RefusedError, RequestError
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.lone_caller import ALONE_S
from edge_agent.inference.response_cache import Key, ResponseCache
from edge_agent.inference.scheduling import DEFAULT_PRIORITY
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.statistics import Timeline
from edge_agent.inference.tracing import TracedCall, Traces
from edge_agent.inference.warm_up import INLINE_S
from fleet_protocol.messages import ErrorKind

Clock = Callable[[], float]
"""Seconds, monotonic."""

_ALONE_FACTOR = round(ALONE_S / INLINE_S)

_HELD_S = 4 * INLINE_S
"""Runs that take so long on average are not inline, whatever the warm-up on zeros has promised."""


class Call:
    """A call on a release.

    It is a context manager around everything from reading the request to encoding the answer. The
    exception that leaves it decides how the call is counted; none counts as a success. What was
    cancelled is not counted: nobody gets an answer.
    """

    __slots__ = (
        "_cache_key", "_clock", "_counted", "_deadline", "_deferred", "_level", "_outputs",
        "_traceparent", "_traces", "alone", "at_end", "line", "release",
    )  # fmt: skip

    def __init__(
        self, release: ServedRelease, *, started: float, counted: bool, clock: Clock
    ) -> None:
        """Begin a call.

        Args:
            release: that answers.
            started: when the last byte of the request arrived, on the clock.
            counted: False leaves it out of counters and statistics.
            clock: in seconds, monotonic.
        """
        self.release = release
        self.line = Timeline(started)
        if release.loaded_at > started:  # it was asleep, and this call has waited for it
            self.line.loaded = release.loaded_at
        self._counted = counted
        self._clock = clock
        self._deferred = False
        self._deadline = math.inf
        self._level = DEFAULT_PRIORITY
        self._outputs: Outputs | None = None
        self._cache_key: Key | None = None
        self._traces: Traces | None = None
        self.alone = False
        """Whether nobody else is kept waiting while this call holds the event loop."""
        self.at_end: Callable[[], None] | None = None
        """Hears of the end of the call, however it ends."""
        release.in_flight += 1
        release.used_at = started

    def trace(self, traces: Traces, traceparent: str) -> None:
        """Leave a record in the traces.

        Args:
            traces: take it.
            traceparent: the caller's, empty if it sent none.
        """
        self._traces = traces
        self._traceparent = traceparent

    def feed(self, request: InferenceRequest) -> batches.Feed:
        """Return the inputs in the order of the release; keep timeout and priority.

        Raises:
            RequestError: inputs or requested outputs are not the release's.
        """
        if request.timeout_us:
            self._deadline = self.line.started + request.timeout_us * 1e-6
        if request.priority:
            self._level = request.priority
        return self.release.feed(request)

    def runs_inline(self, feed: batches.Feed) -> bool:
        """Say whether `run` may be called on the event loop.

        It may if the call is short and nobody waits, shorter still if anybody could come to wait,
        or if the answer is known already.

        Raises:
            DeadlineError: it would run at once and still too late.
        """
        release = self.release
        if not self._counted:
            return False  # a candidate on trial that never returns must not hold the loop
        if release.cache is not None and self._is_known(feed, release.cache):
            return True
        if release.batchable:
            self.line.items = feed[0].shape[0]
        total = 0
        for tensor in feed:
            total += len(tensor.data)
        most, most_s = release.inline_bytes, _HELD_S
        if self.alone:
            most *= _ALONE_FACTOR
            most_s *= _ALONE_FACTOR
        if total > most or not release.scheduler.vacant:
            return False
        if self._deadline != math.inf:
            release.scheduler.check_deadline(self.line, self._deadline)
        return release.scheduler.run_times.estimate(self.line.items) < most_s

    def run(self, feed: batches.Feed) -> Outputs:
        """Run the model here and now, unless the answer is known already.

        Raises:
            BackendError: the library failed.
        """
        if self._outputs is not None:
            return self._outputs
        line, clock = self.line, self._clock
        line.batch_items = line.items
        line.queued = line.began = began = clock()
        outputs = self.release.model.run(feed)
        line.ended = ended = clock()
        self.release.scheduler.run_times.observe(line.items, ended - began)
        self._outputs = outputs
        if self._cache_key is not None:
            self._keep(outputs)
        if self.release.mirror is not None and self._counted:
            self.release.mirror(feed, outputs)
        return outputs

    async def run_in_turn(self, feed: batches.Feed) -> Outputs:
        """Run the model in a thread when it is this call's turn.

        Raises:
            BackendError: the library failed.
            RefusedError: it was not run; the queue is full or the deadline cannot be met.
        """
        release, line = self.release, self.line
        scheduler = release.scheduler
        line.queued = self._clock()
        if release.batchable:
            line.items = feed[0].shape[0]
        pending = Pending(
            feed=feed,
            line=line,
            level=self._level,
            deadline=self._deadline,
            batch_key=batches.key(feed) if scheduler.batching and release.batchable else None,
        )
        future = scheduler.submit(pending)
        try:
            self._outputs = outputs = await future
        finally:
            if not future.done() or future.cancelled():
                scheduler.withdraw(pending)
        if self._cache_key is not None:
            self._keep(outputs)
        if release.mirror is not None and self._counted:
            release.mirror(feed, outputs)
        return outputs

    def defer(self) -> None:
        """Leave the context without ending the call; it is entered once more elsewhere."""
        self._deferred = True

    def __enter__(self) -> None:
        self._deferred = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._deferred and error is None:
            return
        try:
            if self._counted:
                self._count(error)
        finally:
            self.release.leave()
            if self.at_end is not None:
                self.at_end()

    def _is_known(self, feed: batches.Feed, cache: ResponseCache) -> bool:
        self._cache_key = cache.key(self.release.serial, feed)
        if self._cache_key is None:
            return False
        self._outputs = cache.get(self._cache_key)
        self.line.cached = self._outputs is not None
        self.line.looked_up = True
        return self.line.cached

    def _keep(self, outputs: Outputs) -> None:
        if self.release.cache is not None and self._cache_key is not None:
            self.release.cache.put(self._cache_key, outputs)

    def _count(self, error: BaseException | None) -> None:
        release, line = self.release, self.line
        answered = self._clock()
        if error is None:
            counters = release.counters
            counters.answered((answered - line.started) * 1e6)
            if release.classifies:
                for winner in release.winners(self._outputs or []):
                    counters.classified(winner)
            release.statistics.answered(line, answered)
        elif isinstance(error, Exception):
            kind = _kind(error)
            release.counters.failed(kind)
            release.statistics.failed(kind, line, answered)
        if self._traces is not None:
            self._leave_trace(self._traces, answered, error)

    def _leave_trace(self, traces: Traces, answered: float, error: BaseException | None) -> None:
        release = self.release.release
        traces.record(
            TracedCall(
                family=release.family,
                version=release.version,
                variant=release.variant,
                line=self.line,
                answered=answered,
                traceparent=self._traceparent,
                error=type(error).__name__ if error else "",
            )
        )


def _kind(error: Exception) -> ErrorKind:
    if isinstance(error, RequestError):
        return ErrorKind.BAD_REQUEST
    if isinstance(error, RefusedError):
        return ErrorKind.REFUSED
    return ErrorKind.BACKEND
