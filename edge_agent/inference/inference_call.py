"""One inference call: keeps its release in memory and counts how it ends."""

from collections.abc import Callable
from types import TracebackType

from edge_agent.inference.errors import RequestError
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import Tensor
from fleet_protocol.messages import ErrorKind

Clock = Callable[[], float]
"""Seconds, monotonic."""


class Call:
    """A call on a release.

    It is a context manager around everything from reading the request to encoding the answer. The
    exception that leaves it decides how the call is counted; none counts as a success.
    """

    __slots__ = ("_clock", "_counted", "_deferred", "_outputs", "_started", "release")

    def __init__(
        self, release: ServedRelease, *, started: float, counted: bool, clock: Clock
    ) -> None:
        """Begin a call.

        Args:
            release: that answers.
            started: when the last byte of the request arrived, on the clock.
            counted: False leaves it out of the counters.
            clock: in seconds, monotonic.
        """
        self.release = release
        self._started = started
        self._counted = counted
        self._clock = clock
        self._deferred = False
        self._outputs: list[Tensor] | None = None
        release.in_flight += 1

    def runs_inline(self, feed: list[Tensor]) -> bool:
        """Say whether the call is short enough to run on the event loop."""
        total = 0
        for tensor in feed:
            total += len(tensor.data)
        return total <= self.release.inline_bytes

    def run(self, feed: list[Tensor]) -> list[Tensor]:
        """Run the model.

        Raises:
            BackendError: the library failed.
        """
        self._outputs = self.release.model.run(feed)
        return self._outputs

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

    def _count(self, error: BaseException | None) -> None:
        counters = self.release.counters
        if error is None:
            counters.answered((self._clock() - self._started) * 1e6)
            for winner in self.release.winners(self._outputs or []):
                counters.classified(winner)
        elif isinstance(error, RequestError):
            counters.failed(ErrorKind.BAD_REQUEST)
        else:
            counters.failed(ErrorKind.BACKEND)
