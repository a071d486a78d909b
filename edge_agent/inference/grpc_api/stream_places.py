"""Places for streams: they are fewer than for calls, and who does nothing makes room.

A stream may rightly be silent for hours, so silence alone ends none. But streams take the places of
calls, and a caller that opens them and sends nothing must not keep everybody else out.
"""

from collections.abc import Callable
from typing import Protocol

from edge_agent.inference.errors import RefusedError


class Stream(Protocol):
    """What is asked of a stream."""

    @property
    def idle_since(self) -> float:
        """Return when it last did something, infinity while a request is in work."""
        ...

    def end(self, reason: str) -> None:
        """Take no further request."""
        ...


class StreamPlaces:
    """The streams that are open."""

    def __init__(self, *, count: int, idle_s: float, clock: Callable[[], float]) -> None:
        """Give no place away yet.

        Args:
            count: of places.
            idle_s: a stream that has done nothing for so long makes room for another one.
            clock: in seconds, the one of `Stream.idle_since`.
        """
        self._count = count
        self._idle_s = idle_s
        self._clock = clock
        self._taken: dict[Stream, None] = {}
        self._reason = ""

    def take(self, stream: Stream) -> None:
        """Give a new stream a place.

        Raises:
            RefusedError: there is none, and nobody has been idle for long enough.
        """
        if len(self._taken) >= self._count:
            longest = min(self._taken, key=lambda other: other.idle_since)
            if self._clock() - longest.idle_since < self._idle_s:
                raise RefusedError(
                    f"{self._count} streams are open, which is the limit (half of the setting "
                    "runtime.max_connections); send single requests, or try again later"
                )
            self.leave(longest)
            longest.end(
                f"the stream made room for another one: nothing was sent for {self._idle_s:g} s "
                "and all places were taken; open it again when there is something to send"
            )
        self._taken[stream] = None
        if self._reason:
            stream.end(self._reason)

    def leave(self, stream: Stream) -> None:
        """Take a place back, if the stream still has one."""
        self._taken.pop(stream, None)

    def end_all(self, reason: str) -> None:
        """End all streams as soon as what is in work on them is answered, and all that follow."""
        self._reason = reason
        for stream in self._taken:
            stream.end(reason)
