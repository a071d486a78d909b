"""The one place where errors become HTTP statuses."""

import logging
from collections.abc import Awaitable, Callable

from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.errors import (
    BackendError,
    ConflictError,
    DeviceFaultError,
    LoadError,
    NoRoomError,
    RateError,
    RefusedError,
    RequestError,
    TooLargeError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.inference.http_messages import (
    Answer,
    Handler,
    HttpError,
    HttpRequest,
    HttpResponse,
    failure_response,
)
from edge_agent.runtime_api import DEVICE_FAULT_STATUS

logger = logging.getLogger(__name__)

_STATUSES: dict[type[Exception], int] = {
    RequestError: 400,
    TooLargeError: 413,
    UnknownModelError: 404,
    ConflictError: 409,
    LoadError: 422,
    NoRoomError: 422,
    DeviceFaultError: DEVICE_FAULT_STATUS,
    UnavailableError: 503,
}


def answering(
    route: Callable[[HttpRequest], Answer], error_answers: ErrorAnswers | None = None
) -> Handler:
    """Return a handler that answers with an error where the route raises one.

    Args:
        route: answers requests.
        error_answers: takes note of the errors; None where nobody asks.
    """
    noted = error_answers or ErrorAnswers()

    def handle(request: HttpRequest) -> Answer:
        try:
            answer = route(request)
        except Exception as error:  # noqa: BLE001 (every call is answered; the unknown is logged)
            noted.note(error)
            return error_response(error)
        return answer if isinstance(answer, HttpResponse) else _later(answer, noted)

    return handle


def error_response(error: Exception) -> HttpResponse:
    """Return the answer for an error."""
    if isinstance(error, HttpError):
        return failure_response(error.status, str(error), allow=error.allow)
    if isinstance(error, RefusedError):
        status = 429 if isinstance(error, RateError) else 503
        return failure_response(status, str(error), retry_after_s=error.retry_after_s)
    if type(error) in _STATUSES:
        return failure_response(_STATUSES[type(error)], str(error))
    if isinstance(error, BackendError):
        logger.error("inference_failed", extra={"reason": str(error)})
        return failure_response(500, "the model failed on this request; the device's log says why")
    logger.error("internal_error", exc_info=error)
    return failure_response(500, "internal error of the runtime; the device's log has the details")


async def _later(answer: Awaitable[HttpResponse], noted: ErrorAnswers) -> HttpResponse:
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 (as in `answering`)
        noted.note(error)
        return error_response(error)
