"""HTTP requests and answers as the runtime sees them, without sockets."""

import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec

from edge_agent.errors import AgentError
from edge_agent.inference.tensors import Data
from edge_agent.inference.v2_messages import Failure

JSON = "application/json"
BINARY = "application/octet-stream"
_REASONS = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


class HttpError(AgentError):
    """A request that is answered with an error status; the message goes to the caller."""

    def __init__(self, status: int, message: str, *, allow: str | None = None) -> None:
        """Keep what the answer needs.

        Args:
            status: 4xx or 5xx.
            message: for the caller.
            allow: the methods that the path has, for 405.
        """
        super().__init__(message)
        self.status = status
        self.allow = allow


class HttpRequest(msgspec.Struct, kw_only=True):
    """One whole request.

    Attributes:
        path: decoded, without the query.
        header_length: value of ``Inference-Header-Content-Length``.
        received_at: when its last byte had arrived, on the reader's clock.
        traceparent: the caller's trace (W3C Trace Context), empty if it sent none.
        caller: stands for the connection that it came on.
    """

    method: str
    path: str
    body: Data
    keep_alive: bool
    received_at: float
    header_length: int | None = None
    content_encoding: str = ""
    accept_encoding: str = ""
    traceparent: str = ""
    caller: object = None


class HttpResponse(msgspec.Struct, kw_only=True):
    """One answer."""

    status: int = 200
    parts: list[Data] = []
    content_type: str = JSON
    extra_headers: str = ""

    def head(self, *, keep_alive: bool) -> bytes:
        """Return status line and headers."""
        length = sum(map(len, self.parts))
        closing = "" if keep_alive else "Connection: close\r\n"
        return (
            f"{_REASONS[self.status]}Content-Length: {length}\r\n"
            f"Content-Type: {self.content_type}\r\n{self.extra_headers}{closing}\r\n"
        ).encode("ascii")


Answer = HttpResponse | Awaitable[HttpResponse]
Handler = Callable[[HttpRequest], Answer]
"""Answers a request, at once or later; it raises nothing."""


def json_response(body: msgspec.Struct | dict[str, int], status: int = 200) -> HttpResponse:
    """Return an answer with a JSON body."""
    return HttpResponse(status=status, parts=[msgspec.json.encode(body)])


def failure_response(
    status: int, message: str, *, allow: str | None = None, retry_after_s: float | None = None
) -> HttpResponse:
    """Return an answer that says what went wrong.

    Args:
        status: 4xx or 5xx.
        message: for the caller.
        allow: the methods that the path has, for 405.
        retry_after_s: when it may go better; sent as whole seconds, at least one.
    """
    headers = f"Allow: {allow}\r\n" if allow else ""
    if retry_after_s is not None:
        headers += f"Retry-After: {max(1, math.ceil(retry_after_s))}\r\n"
    return HttpResponse(
        status=status,
        parts=[msgspec.json.encode(Failure(error=message))],
        extra_headers=headers,
    )


def no_such_path(request: HttpRequest) -> HttpError:
    """Return the error for a path that nothing answers."""
    return HttpError(404, f"no such path: {request.path[:200]!r}")


def require(request: HttpRequest, method: str) -> None:
    """Accept a request of the method; GET stands for HEAD too.

    Raises:
        HttpError: it has another one.
    """
    if request.method == method or (method == "GET" and request.method == "HEAD"):
        return
    allow = "GET, HEAD" if method == "GET" else method
    raise HttpError(405, f"{request.path[:200]} takes {allow}, not {request.method}", allow=allow)
