"""How many requests were answered with an error, by kind, whether they reached a model or not.

The errors of calls on a release are counted with it, for the telemetry (`statistics`). This is the
rest of the truth: who was turned away before there was a call, and over which protocol. A kind is a
word of ours, never something that a caller sent.
"""

from enum import StrEnum

from edge_agent.inference.errors import (
    AsleepError,
    BackendError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    LoadError,
    NotOfferedError,
    NotSentError,
    RateError,
    RefusedError,
    RequestError,
    TooLargeError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.inference.http_messages import HttpError


class Kind(StrEnum):
    """Why a request was answered with an error."""

    MALFORMED = "malformed"
    """Its bytes are no request of the protocol."""
    BAD_REQUEST = "bad_request"
    """What it says is wrong, or not what the model takes."""
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    """It did not come whole in time."""
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    UNKNOWN_ENCODING = "unknown_encoding"
    UNKNOWN_NAME = "unknown_name"
    """No such model, version or shared memory region."""
    CONFLICT = "conflict"
    FORBIDDEN = "forbidden"
    NOT_OFFERED = "not_offered"
    RATE_LIMIT = "rate_limit"
    BUSY = "busy"
    """A queue, the memory for requests or the places for streams were full."""
    DEADLINE = "deadline"
    """The answer would have come too late."""
    ASLEEP = "asleep"
    """The model could not be loaded again at the moment."""
    UNAVAILABLE = "unavailable"
    """What should be served is not; or readiness was asked for, and there was none."""
    NOT_LOADED = "not_loaded"
    """A release could not be loaded."""
    BACKEND = "backend"
    """The model failed."""
    INTERNAL = "internal"
    """Nobody foresaw it; the log has a traceback."""


_KINDS: dict[type, Kind] = {
    RequestError: Kind.BAD_REQUEST,
    TooLargeError: Kind.TOO_LARGE,
    NotSentError: Kind.TOO_SLOW,
    UnknownModelError: Kind.UNKNOWN_NAME,
    ConflictError: Kind.CONFLICT,
    ForbiddenError: Kind.FORBIDDEN,
    NotOfferedError: Kind.NOT_OFFERED,
    RateError: Kind.RATE_LIMIT,
    RefusedError: Kind.BUSY,
    DeadlineError: Kind.DEADLINE,
    AsleepError: Kind.ASLEEP,
    UnavailableError: Kind.UNAVAILABLE,
    LoadError: Kind.NOT_LOADED,
    BackendError: Kind.BACKEND,
}
_OF_STATUS = {
    400: Kind.MALFORMED,
    404: Kind.UNKNOWN_PATH,
    405: Kind.WRONG_METHOD,
    408: Kind.TOO_SLOW,
    413: Kind.TOO_LARGE,
    415: Kind.UNKNOWN_ENCODING,
    431: Kind.TOO_LARGE,
    501: Kind.NOT_OFFERED,
    503: Kind.BUSY,
}


class ErrorAnswers:
    """The counts of one protocol. Belongs to the event loop."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        """Begin at zero."""
        self.counts = dict.fromkeys(Kind, 0)

    def note(self, error: Exception) -> None:
        """Take note of an error that a caller is answered with."""
        self.counts[kind_of(error)] += 1


def kind_of(error: Exception) -> Kind:
    """Return the kind of an error; what nobody foresaw is internal."""
    if isinstance(error, HttpError):
        return _OF_STATUS.get(error.status, Kind.INTERNAL)
    for ancestor in type(error).__mro__:
        if (kind := _KINDS.get(ancestor)) is not None:
            return kind
    return Kind.INTERNAL
