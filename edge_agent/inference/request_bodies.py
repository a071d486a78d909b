"""JSON bodies of requests that ask for something else than inference: small, and typed."""

from typing import TypeVar

import msgspec

from edge_agent.inference.errors import RequestError
from edge_agent.inference.http_messages import HttpError, HttpRequest

_Body = TypeVar("_Body", bound=msgspec.Struct)


def read_body(request: HttpRequest, body_type: type[_Body], *, max_bytes: int) -> _Body:
    """Return the body; none at all stands for an empty object.

    Raises:
        HttpError: it is too large, or compressed.
        RequestError: it is not JSON, or not what is asked for.
    """
    if len(request.body) > max_bytes:
        raise HttpError(413, f"the body is larger than {max_bytes} bytes")
    if request.content_encoding not in ("", "identity"):
        raise HttpError(
            415, f"Content-Encoding {request.content_encoding!r}: send this body as it is"
        )
    try:
        return msgspec.json.decode(request.body or b"{}", type=body_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not a {body_type.__name__}: {error}") from error
