"""Bounds request bodies before anything reads them, whether their length is announced or not."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server import http_errors

DEFAULT_BYTES = 1024 * 1024


class BodyLimit:
    """ASGI middleware.

    Attributes:
        limits: bytes by path, where they differ from `DEFAULT_BYTES`; None leaves the bound to the
            route.
    """

    def __init__(self, app: ASGIApp, *, limits: Mapping[str, int | None]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 413."""
        limit = self._limits.get(scope.get("path", ""), DEFAULT_BYTES)
        if scope["type"] != "http" or limit is None:
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            await http_errors.answer(413, "too_large", _refusal(limit))(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _refusal(limit))
            return message

        await self._app(scope, bounded, send)


def _refusal(limit: int) -> str:
    return f"the body of this request may have {limit} bytes at most"
