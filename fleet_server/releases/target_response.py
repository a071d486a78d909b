"""A target as an answer, whose refusals of a `Range` look as all refusals do.

A file may go between the look at it and the answer: a delta leaves its cache. So nothing is said
before the file is open.
"""

import asyncio
import os

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from fleet_server import http_errors

_REFUSALS = {
    400: ("malformed", "the header Range cannot be read; use bytes=FIRST-LAST or bytes=FIRST-"),
    404: ("not_found", "there is no such file any more"),
    416: ("range_not_satisfiable", "the header Range asks for bytes beyond the end of the target"),
}
_GONE: Message = {"type": "http.response.start", "status": 404, "headers": []}


class TargetResponse(FileResponse):
    """A file, or the part of it that was asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        begin: Message | None = None
        has_begun = False

        async def unless_refused(message: Message) -> None:
            nonlocal begin, has_begun
            if message["type"] == "http.response.start":
                begin = message
            elif begin is not None and begin["status"] not in _REFUSALS:
                if not has_begun:
                    has_begun = True
                    await send(begin)
                await send(message)

        try:
            if self.stat_result is None:
                self.stat_result = await asyncio.to_thread(os.stat, self.path)
                self.set_stat_headers(self.stat_result)
            await super().__call__(scope, receive, unless_refused)
        except FileNotFoundError:
            begin = _GONE
        if begin is not None and begin["status"] in _REFUSALS:
            await _refuse(begin, scope, receive, send)


async def _refuse(begin: Message, scope: Scope, receive: Receive, send: Send) -> None:
    kept = {
        name.decode(): value.decode()
        for name, value in begin["headers"]
        if name == b"content-range"
    }
    code, detail = _REFUSALS[begin["status"]]
    await http_errors.answer(begin["status"], code, detail, kept)(scope, receive, send)
