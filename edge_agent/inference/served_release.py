"""One release in memory: its model, its counters, the calls in flight on it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_agent.counters import CounterWriter
from edge_agent.inference import batches
from edge_agent.inference.backends.base import Model, StagedModel, StagedRun
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.response_cache import ResponseCache
from edge_agent.inference.scheduler import Scheduler
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.inference.statistics import ReleaseStatistics
from edge_agent.inference.tensors import Tensor, described, size_bytes
from edge_agent.inference.warm_up import WarmUp
from edge_agent.inference.workers import Workers
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import TensorSpec, shape_fits

_serials = itertools.count()

Clock = Callable[[], float]
"""Seconds, monotonic."""


class ServedRelease:
    """A loaded and warm release. Belongs to the event loop, except `run`."""

    def __init__(
        self,
        *,
        release: ActiveRelease,
        backend_name: str,
        model: Model,
        counters: CounterWriter,
        warmed: WarmUp,
    ) -> None:
        """Take over model and counters.

        Args:
            release: what is served.
            backend_name: for status and metadata.
            model: closed by `close`.
            counters: likewise.
            warmed: what its first runs have shown.
        """
        self.release = release
        self.backend_name = backend_name
        self.model = model
        self._staged = model.staged if isinstance(model, StagedModel) else None
        self.counters = counters
        self.inline_bytes = warmed.inline_bytes
        self._first_run_s = warmed.fastest_s
        self.memory_bytes = 0
        self.serial = next(_serials)
        self.used_at = 0.0
        self.loaded_at = 0.0
        self.cache: ResponseCache | None = None
        self.batchable = batches.has_batch_dimension(release)
        self.statistics = ReleaseStatistics()
        self.why_alone = ""
        """Why calls that could be joined are not; empty where they are, or nobody asked for it."""
        self.scheduler: Scheduler
        self.in_flight = 0
        self.mirror: Callable[[Sequence[Tensor], Sequence[Tensor]], None] | None = None
        """Is shown the inputs and outputs of each counted call; None, and free, without shadow."""
        self.asleep = False
        """Out of memory, and loaded again by its next call, which goes on with its counts."""
        self._counters_to_close = [counters]
        self._runs = 0
        self._idle: asyncio.Event | None = None
        self._input_specs = {spec.name: spec for spec in release.inputs}
        self._output_names = {spec.name for spec in release.outputs}
        self.least_output_bytes = {
            spec.name: 0 if -1 in spec.shape else size_bytes(spec.datatype, spec.shape)
            for spec in release.outputs
        }
        """What each output takes at least: all that can be said of one whose shape is not fixed."""
        self._classified = next(
            (at for at, spec in enumerate(release.outputs) if spec.labels), None
        )
        self.classifies = self._classified is not None
        """Whether an output's numbers are classes."""

    def open(
        self,
        *,
        limits: QueueLimits,
        workers: Workers,
        clock: Clock,
        cache: ResponseCache | None = None,
    ) -> None:
        """Get ready for calls, on the event loop.

        Args:
            limits: for this release.
            workers: the threads, shared with other releases.
            clock: in seconds, monotonic.
            cache: for answers, shared with other releases; None keeps none.
        """
        self.cache = cache
        self.used_at = self.loaded_at = clock()
        most = self.model.max_concurrent_runs
        self.scheduler = Scheduler(
            host=self,
            limits=replace(
                limits,
                instances=min(limits.instances, most or limits.instances),
                max_batch=limits.max_batch if self._may_batch() else 1,
            ),
            workers=workers,
            clock=clock,
        )
        self.scheduler.run_times.expect(self._first_run_s)

    def _may_batch(self) -> bool:
        return batches.can_be_joined(self.release) and not self.why_alone

    def batching_ended(self, reason: str) -> None:
        """Keep why calls are not joined any more; see `Host`."""
        self.why_alone = reason

    def compute(self, feed: Sequence[Tensor]) -> list[Tensor]:
        """Run the model; in any thread.

        Raises:
            BackendError: the library failed.
        """
        return self.model.run(feed)

    def staged(self, feed: Sequence[Tensor]) -> StagedRun | None:
        """Prepare a run of a model that can do part of it outside its turn."""
        return self._staged(feed) if self._staged is not None else None

    def feed(self, request: InferenceRequest) -> list[Tensor]:
        """Return the inputs in the order of the release.

        Raises:
            RequestError: inputs or requested outputs are not the release's.
        """
        given = {tensor.name: tensor for tensor in request.inputs}
        if given.keys() != self._input_specs.keys():
            raise RequestError(
                f"model {self.release.family!r} takes the inputs {sorted(self._input_specs)}, "
                f"the request has {sorted(given)}"
            )
        if request.outputs is not None and not request.outputs.keys() <= self._output_names:
            raise RequestError(
                f"model {self.release.family!r} gives the outputs {sorted(self._output_names)}, "
                f"the request asks for {sorted(request.outputs)}"
            )
        batch: int | None = None
        for name, spec in self._input_specs.items():
            tensor = given[name]
            _check_input(tensor, spec)
            if spec.shape and spec.shape[0] == -1:
                if batch is not None and tensor.shape[0] != batch:
                    raise RequestError(
                        f"the inputs disagree about the batch: {name!r} has {tensor.shape[0]} "
                        f"items, another input {batch}"
                    )
                batch = tensor.shape[0]
        return [given[name] for name in self._input_specs]

    def winners(self, outputs: list[Tensor]) -> list[int]:
        """Return the winning class of each item, nothing for a release without labels."""
        if self._classified is None:
            return []
        scores = outputs[self._classified]
        if not scores.data or not scores.shape:
            return []
        from edge_agent.inference.backends import arrays  # noqa: PLC0415 (numpy only when it runs)

        return arrays.winners(scores)

    @property
    def name(self) -> str:
        """Family and version, for a message."""
        return f"{self.release.family} {self.release.version}"

    @property
    def log_fields(self) -> dict[str, object]:
        """What a log line says about the release."""
        return {
            "family": self.release.family,
            "version": self.release.version,
            "variant": self.release.variant,
            "backend": self.backend_name,
            "accelerator": self.release.accelerator,
            "choice": self.release.choice,
            "inline_bytes": self.inline_bytes,
        }

    async def drained(self) -> None:
        """Wait until no call is in flight and no run under way."""
        if self.in_flight or self._runs:
            self._idle = asyncio.Event()
            await self._idle.wait()

    @property
    def running_s(self) -> float:
        """How long the oldest run lasts already, 0 while none is under way."""
        return self.scheduler.longest_run_s

    def close(self) -> None:
        """Free the model and, unless it only sleeps, close the counters; nothing is in flight."""
        if not self.asleep:
            self.end_counting()
        self.model.close()

    def continued_counters(self) -> CounterWriter | None:
        """Give the counters to the same release in its next life; None the second time.

        A file for each life would fill the disk of a device on which models take turns. Called in
        the loading thread while the event loop may end the counting: whoever pops them, has them.
        """
        try:
            return self._counters_to_close.pop()
        except IndexError:
            return None

    def end_counting(self) -> None:
        """Close the counters, unless the next life goes on with them."""
        if (counters := self.continued_counters()) is not None:
            counters.close()

    def leave(self) -> None:
        """Take one call out of flight."""
        self.in_flight -= 1
        self._look_if_idle()

    def run_began(self) -> None:
        """Keep the model in memory even if the callers of a run go; see `Host`."""
        self._runs += 1

    def run_ended(self) -> None:
        """Take note of the end of a run; see `Host`."""
        self._runs -= 1
        self._look_if_idle()

    def _look_if_idle(self) -> None:
        if self._idle is not None and not self.in_flight and not self._runs:
            self._idle.set()


def _check_input(tensor: Tensor, spec: TensorSpec) -> None:
    fits = tensor.shape == spec.shape or shape_fits(tensor.shape, spec)
    if tensor.datatype is not spec.datatype or not fits:
        raise RequestError(
            f"input {spec.name!r} is {described(tensor.datatype, tensor.shape)}, the model takes "
            f"{described(spec.datatype, spec.shape)}"
            + (" (-1: any size)" if -1 in spec.shape else "")
        )
    if not tensor.data:
        raise RequestError(
            f"input {spec.name!r} is empty: {described(tensor.datatype, tensor.shape)}"
        )
