"""The one place where errors become gRPC status codes."""

import logging
from typing import NamedTuple

from grpc import StatusCode

from edge_agent.inference.errors import (
    AsleepError,
    BackendError,
    ConflictError,
    DeadlineError,
    DeviceFaultError,
    ForbiddenError,
    LoadError,
    NotOfferedError,
    NotSentError,
    RefusedError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 2000
"""Messages travel in trailers, of which clients take 8 KiB."""


_CODES: dict[type[Exception], StatusCode] = {
    RequestError: StatusCode.INVALID_ARGUMENT,
    UnknownModelError: StatusCode.NOT_FOUND,
    ForbiddenError: StatusCode.PERMISSION_DENIED,
    NotOfferedError: StatusCode.UNIMPLEMENTED,
    NotSentError: StatusCode.DEADLINE_EXCEEDED,
    ConflictError: StatusCode.FAILED_PRECONDITION,
    LoadError: StatusCode.FAILED_PRECONDITION,
    DeviceFaultError: StatusCode.UNAVAILABLE,
    UnavailableError: StatusCode.UNAVAILABLE,
    AsleepError: StatusCode.UNAVAILABLE,
    RefusedError: StatusCode.RESOURCE_EXHAUSTED,
    DeadlineError: StatusCode.DEADLINE_EXCEEDED,
}


class Status(NamedTuple):
    """How a call ends."""

    code: StatusCode
    message: str


def status_of(error: Exception) -> Status:
    """Return the status for an error; what nobody foresaw is logged."""
    for kind in type(error).__mro__:
        code = _CODES.get(kind)
        if code is not None:
            return Status(code, str(error)[:_MAX_MESSAGE])
    if isinstance(error, BackendError):
        logger.error("inference_failed", extra={"reason": str(error)})
        return Status(
            StatusCode.INTERNAL, "the model failed on this request; the device's log says why"
        )
    logger.error("internal_error", exc_info=error)
    return Status(
        StatusCode.INTERNAL, "internal error of the runtime; the device's log has the details"
    )
