"""Shadowing: a candidate answers live requests too, and nobody but control learns what it says.

The live call hands over references and goes on. One request at a time runs in a thread of its own
at the lowest priority; those that come meanwhile are passed over, so shadowing never queues, takes
no worker thread, and ends by itself after the number of requests that was ordered.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_agent.inference.errors import ConflictError
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import Tensor
from edge_agent.priority import let_others_go_first
from edge_agent.runtime_api import ShadowOrder, ShadowReport
from fleet_protocol.manifest import Datatype, TensorSpec

logger = logging.getLogger(__name__)

_LOWEST_PRIORITY = 19


@dataclass
class Shadow:
    """One candidate beside the release that serves. Belongs to the event loop, except `_work`.

    Attributes:
        candidate: kept in memory while it runs.
        clock: in seconds, monotonic.
    """

    candidate: ServedRelease
    order: ShadowOrder
    clock: Callable[[], float]
    _compared: int = 0
    _agreed: int = 0
    _problem: str = ""
    _began: float = 0.0
    _running: bool = False
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @property
    def report(self) -> ShadowReport:
        """How far it is."""
        return ShadowReport(
            compared=self._compared,
            agreed=self._agreed,
            problem=self._problem,
            running_s=self.clock() - self._began if self._running else 0.0,
        )

    def offer(self, feed: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Take a live request with its answer, or pass it over; never waits, raises nothing."""
        if self._running or self._compared >= self.order.requests:
            return
        self._running = True
        self._began = self.clock()
        self.candidate.run_began()
        thread = threading.Thread(
            target=self._work, args=(feed, outputs), name="shadow", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread for us now: the next request may
            self._running = False
            self.candidate.run_ended()

    def _work(self, feed: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Run the candidate and compare, in a thread."""
        let_others_go_first(nice=_LOWEST_PRIORITY)
        agreed, problem = False, ""
        try:
            agreed = self._agrees(outputs, self.candidate.compute(feed))
        except Exception as error:  # noqa: BLE001 (whatever it is, the candidate did not answer)
            problem = str(error) or type(error).__name__
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._done, agreed, problem)

    def _done(self, agreed: bool, problem: str) -> None:  # noqa: FBT001 (handed over by the loop)
        self._running = False
        self._compared += 1
        self._agreed += agreed
        self._problem = problem or self._problem
        self.candidate.run_ended()

    def _agrees(self, live: Sequence[Tensor], answer: Sequence[Tensor]) -> bool:
        by_name = {tensor.name: tensor for tensor in live}
        return all(
            agree(by_name[spec.name], tensor, spec, self.order.max_abs_error)
            for spec, tensor in zip(self.candidate.release.outputs, answer, strict=True)
        )


def agree(live: Tensor, answer: Tensor, spec: TensorSpec, max_abs_error: float) -> bool:
    """Say whether two answers of one output agree.

    With labels they name the same class for each item; byte strings are the same; any other differ
    nowhere by more than ``max_abs_error``, and where one is no number the other is none either.
    """
    from edge_agent.inference.backends import arrays  # noqa: PLC0415 (numpy only when it runs)

    if (live.datatype, live.shape) != (answer.datatype, answer.shape):
        return False
    if live.datatype is Datatype.BYTES:
        return bytes(live.data) == bytes(answer.data)
    if spec.labels:
        return arrays.winners(live) == arrays.winners(answer)
    return arrays.within(live, answer, max_abs_error)


class Shadows:
    """Who shadows whom, at most one candidate for each family."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nobody does; ``clock`` is in seconds, monotonic."""
        self._clock = clock
        self._shadows: dict[str, tuple[Shadow, ServedRelease]] = {}

    def report(
        self, candidate: ServedRelease, order: ShadowOrder, live: ServedRelease
    ) -> ShadowReport:
        """Say how far an order is; one that is new is begun, in the place of an older one.

        Raises:
            ConflictError: the candidate serves, or its answers cannot be compared.
        """
        family = candidate.release.family
        shadow, _ = self._shadows.get(family, (None, None))
        if shadow is None or shadow.candidate is not candidate or shadow.order != order:
            _check_comparable(live, candidate)
            shadow = Shadow(candidate, order, self._clock)
            self._follow(shadow, live)
            logger.info("release_shadows", extra=candidate.log_fields)
        return shadow.report

    def activated(self, served: ServedRelease) -> None:
        """Follow the release that answers from now on; end if it is the candidate."""
        shadow, _ = self._shadows.get(served.release.family, (None, None))
        if shadow is None:
            return
        self._end(served.release.family)
        if shadow.candidate is not served:
            self._follow(shadow, served)

    def left(self, served: ServedRelease) -> None:
        """Take note that a release is no longer there."""
        shadow, _ = self._shadows.get(served.release.family, (None, None))
        if shadow is not None and shadow.candidate is served:
            self._end(served.release.family)

    def _follow(self, shadow: Shadow, live: ServedRelease) -> None:
        self._end(live.release.family)
        self._shadows[live.release.family] = (shadow, live)
        live.mirror = shadow.offer

    def _end(self, family: str) -> None:
        _, live = self._shadows.pop(family, (None, None))
        if live is not None:
            live.mirror = None


def _check_comparable(live: ServedRelease, candidate: ServedRelease) -> None:
    """Accept two releases that take the same requests and give the same outputs.

    Raises:
        ConflictError: they do not, or are one.
    """
    if live is candidate:
        raise ConflictError(f"{candidate.name} serves, so it cannot shadow what serves")
    for kind, ours, theirs in (
        ("inputs", live.release.inputs, candidate.release.inputs),
        ("outputs", live.release.outputs, candidate.release.outputs),
    ):
        if _signature(ours) != _signature(theirs):
            raise ConflictError(
                f"{candidate.name} has other {kind} than {live.name}, which serves: its answers "
                "to live requests cannot be compared"
            )


def _signature(specs: Sequence[TensorSpec]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.datatype, tuple(spec.shape)) for spec in specs]
