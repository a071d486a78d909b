"""Gives each request an id, which its log lines and its answer carry, and logs how it ended."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.audit.trail import SERVER, actor, request_line
from fleet_server.logs import request_id

logger = logging.getLogger(__name__)


_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{8,64}")
"""An id that the caller chose, such as a device for its own log; anything else is replaced."""


class RequestLog:
    """ASGI middleware. It logs method, path and status; never headers, bodies or queries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        identifier = sent if _ACCEPTED.fullmatch(sent) else secrets.token_hex(8)
        token = request_id.set(identifier)
        line = request_line.set(f"{scope['method']} {scope['path'][:180]}")
        nobody = actor.set(SERVER)
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", identifier.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            logger.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"][:300],
                    "status": status,
                    "duration_ms": round((time.perf_counter() - began) * 1000, 1),
                },
            )
            actor.reset(nobody)
            request_line.reset(line)
            request_id.reset(token)
