"""What a release has done since it was loaded: counts and durations, in memory.

One object for each release in memory, written by the event loop alone. Nobody stores it: what must
not be lost is counted in `edge_agent.counters`. The protocol's ``stats`` answers and ``/metrics``
are made from it.
"""

import time
from bisect import bisect_left
from collections.abc import Callable

import msgspec

from fleet_protocol.messages import ErrorKind

BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Upper bounds of the histograms' buckets, in seconds; one more bucket takes what is above."""

_MAX_BATCH_SIZES = 256
"""So many different batch sizes are told apart; calls of further ones appear in the totals only."""


class StatisticDuration(msgspec.Struct):
    """How often something happened and how long it took altogether."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct):
    """The durations of the calls of a model, named as the statistics extension names them.

    ``success`` and ``fail`` count calls, from the last byte of the request to the answer. ``queue``
    counts the successful ones, those from the cache among them, which did not wait; the time until
    a sleeping model is loaded is part of it. ``compute_input`` to ``compute_output`` count those
    that the model ran for, each with the whole duration of the batch that it was part of.
    ``cache_hit`` counts the calls from the cache, ``cache_miss`` those that looked there in vain.
    """

    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


class BatchStatistics(msgspec.Struct):
    """The runs with one batch size."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


class MemoryUsage(msgspec.Struct):
    """Memory that a model takes."""

    type: str
    id: int
    byte_size: int


class ModelStatistics(msgspec.Struct):
    """One entry of ``model_stats``.

    Source: Triton's statistics extension (protocol/extension_statistics.md).

    Attributes:
        last_inference: Unix time in milliseconds, 0 before the first call.
        inference_count: items that were inferred; a batch of n counts n.
        execution_count: runs of the model, each for a batch of one call or several.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage]


class DurationHistogram:
    """Durations by classic buckets, not cumulated."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Record a duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


class _Runs:
    """Sums over the runs of one batch size."""

    __slots__ = ("count", "infer_s", "input_s", "output_s")

    def __init__(self) -> None:
        self.count = 0
        self.input_s = self.infer_s = self.output_s = 0.0


class Timeline:
    """The moments of one call, in seconds on the clock of the data plane.

    Attributes:
        started: the last byte of the request had arrived.
        loaded: the model was in memory: `started`, unless the call had to wait for it.
        queued: the call was ready to run.
        began: the model began with the batch that the call is part of; 0 if it never did.
        ended: the model had ended.
        items: size of the first dimension that the call brought, 1 where that is no batch.
        batch_items: of the whole run.
        leads: this call accounts for the run; the others of its batch only took part.
        cached: the answer came from the response cache.
        looked_up: the cache was asked in vain.
    """

    __slots__ = (
        "batch_items", "began", "cached", "ended", "items", "leads", "loaded", "looked_up",
        "queued", "started",
    )  # fmt: skip

    def __init__(self, started: float) -> None:
        self.started = started
        self.loaded = started
        self.queued = started
        self.began = 0.0
        self.ended = 0.0
        self.items = 1
        self.batch_items = 1
        self.leads = True
        self.cached = False
        self.looked_up = False


class ReleaseStatistics:
    """The statistics of one release in memory."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        """Begin with nothing.

        Args:
            wall_clock: Unix time in seconds.
        """
        self._wall_clock = wall_clock
        self.queue = DurationHistogram()
        self.compute = DurationHistogram()
        self.successes = 0
        self.errors = dict.fromkeys(ErrorKind, 0)
        self.items = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self._success_s = 0.0
        self._failed_s = 0.0
        self._hit_s = 0.0
        self._input_s = 0.0
        self._output_s = 0.0
        self._ran = 0
        self._last = 0.0
        self._runs: dict[int, _Runs] = {}
        self._other_runs = _Runs()

    @property
    def executions(self) -> int:
        """How often the model ran."""
        return self._other_runs.count + sum(runs.count for runs in self._runs.values())

    def batch_sizes(self) -> dict[int, int]:
        """Return how often the model ran with each batch size, smallest first."""
        return {size: self._runs[size].count for size in sorted(self._runs)}

    def answered(self, line: Timeline, answered: float) -> None:
        """Record a call that is about to be answered with success."""
        self.successes += 1
        self._success_s += answered - line.started
        self._last = answered
        if line.cached:
            self.cache_hits += 1
            self._hit_s += answered - line.started
            return
        if line.looked_up:
            self.cache_misses += 1
        input_s = line.queued - line.loaded
        infer_s = line.ended - line.began
        output_s = answered - line.ended
        self._ran += 1
        self._input_s += input_s
        self._output_s += output_s
        self.items += line.items
        self.queue.add(line.began - line.queued + (line.loaded - line.started))
        self.compute.add(infer_s)
        if line.leads:
            runs = self._runs.get(line.batch_items)
            if runs is None:
                runs = self._runs_of(line.batch_items)
            runs.count += 1
            runs.input_s += input_s
            runs.infer_s += infer_s
            runs.output_s += output_s

    def failed(self, kind: ErrorKind, line: Timeline, answered: float) -> None:
        """Record a call that is about to be answered with an error."""
        self.errors[kind] += 1
        self._failed_s += answered - line.started

    def snapshot(
        self, *, name: str, version: str, now: float, memory_bytes: int = 0
    ) -> ModelStatistics:
        """Return the statistics as the protocol has them.

        Args:
            name: the family.
            version: the release's.
            now: on the clock that times the calls.
            memory_bytes: that the loaded model takes, 0 if that is not known.
        """
        computed = self._ran
        return ModelStatistics(
            name=name,
            version=version,
            last_inference=(
                int((self._wall_clock() - (now - self._last)) * 1000) if self.successes else 0
            ),
            inference_count=self.items,
            execution_count=self.executions,
            inference_stats=InferStatistics(
                success=_duration(self.successes, self._success_s),
                fail=_duration(sum(self.errors.values()), self._failed_s),
                queue=_duration(self.successes, self.queue.total_s),
                compute_input=_duration(computed, self._input_s),
                compute_infer=_duration(computed, self.compute.total_s),
                compute_output=_duration(computed, self._output_s),
                cache_hit=_duration(self.cache_hits, self._hit_s),
                cache_miss=_duration(self.cache_misses, 0.0),
            ),
            batch_stats=[
                BatchStatistics(
                    batch_size=size,
                    compute_input=_duration(runs.count, runs.input_s),
                    compute_infer=_duration(runs.count, runs.infer_s),
                    compute_output=_duration(runs.count, runs.output_s),
                )
                for size, runs in sorted(self._runs.items())
            ],
            memory_usage=(
                [MemoryUsage(type="CPU", id=0, byte_size=memory_bytes)] if memory_bytes else []
            ),
        )

    def _runs_of(self, size: int) -> _Runs:
        if len(self._runs) >= _MAX_BATCH_SIZES:
            return self._other_runs
        return self._runs.setdefault(size, _Runs())


def _duration(count: int, seconds: float) -> StatisticDuration:
    return StatisticDuration(count, round(seconds * 1e9))
