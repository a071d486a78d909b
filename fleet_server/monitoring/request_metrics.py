"""Counts requests by route and status."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UNKNOWN = "none"
"""Requests that no route answers, whatever their paths: strangers choose those."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ABORTED = 499
"""No answer began before the caller went; the status is nginx' word for it."""


class RequestMetrics:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = _ABORTED

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            route = getattr(scope.get("route"), "path", _UNKNOWN)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            scope["app"].state.services.metrics.answered(
                method=method, route=route, status=status, seconds=time.perf_counter() - began
            )
