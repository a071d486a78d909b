"""What the runtime knows of a caller beside its request: its patience, its trace, its rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.inference.answer_memory import AnswerMemory
from edge_agent.inference.grpc_api.calls import Context
from edge_agent.inference.grpc_api.stream_places import StreamPlaces
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.token_bucket import TokenBucket

_TRACEPARENT = "traceparent"
_MAX_TRACEPARENT = 128


class Caller(NamedTuple):
    """A caller.

    Attributes:
        time_left_s: until it gives up, None if it waits for ever.
        traceparent: its trace (W3C Trace Context), empty if it sent none.
    """

    time_left_s: float | None = None
    traceparent: str = ""


def traceparent_of(context: Context) -> str:
    """Return the trace that a call is part of."""
    for key, value in context.invocation_metadata() or ():
        if key == _TRACEPARENT:
            return str(value)[:_MAX_TRACEPARENT]
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """What callers may take.

    Attributes:
        memory: for the requests of all of them.
        answers: that wait until they are read.
        rates: bound the requests of each connection.
        streams: the places for streams.
        message_s: how long a call may take to send its request.
    """

    memory: RequestMemory
    answers: AnswerMemory
    rates: "CallRates"
    streams: StreamPlaces
    message_s: float


class CallRates:
    """Bounds the inference requests of each TCP connection.

    gRPC names connections by the peer's address, which a Unix socket does not have: its callers
    cannot be told apart and are not bounded.
    """

    def __init__(
        self, *, requests_per_s: float, max_connections: int, clock: Callable[[], float]
    ) -> None:
        """Know nobody yet.

        Args:
            requests_per_s: of one connection; 0 for any number.
            max_connections: as many are remembered.
            clock: in seconds, monotonic.
        """
        self._requests_per_s = requests_per_s
        self._max_connections = max_connections
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def admit(self, context: Context) -> None:
        """Take note of a request.

        Raises:
            RateError: it is one too many.
        """
        if not self._requests_per_s:
            return
        peer = context.peer()
        if peer.startswith("unix"):
            return
        now = self._clock()
        # The connection that was used last stands last, and the one that is forgotten first.
        bucket = self._buckets.pop(peer, None) or TokenBucket(self._requests_per_s, now)
        self._buckets[peer] = bucket
        if len(self._buckets) > self._max_connections:
            del self._buckets[next(iter(self._buckets))]
        wait_s = bucket.wait_s(now)
        if wait_s:
            raise bucket.refusal(wait_s)
