"""A target as an answer, whose refusals of a `Range` look as all refusals do."""

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from fleet_server import http_errors

_REFUSALS = {
    400: ("malformed", "the header Range cannot be read; use bytes=FIRST-LAST or bytes=FIRST-"),
    416: ("range_not_satisfiable", "the header Range asks for bytes beyond the end of the target"),
}


class TargetResponse(FileResponse):
    """A file, or the part of it that was asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        refusal: Message | None = None

        async def unless_refused(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                refusal = message
            if refusal is None:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if refusal is None:
            return
        kept = {
            name.decode(): value.decode()
            for name, value in refusal["headers"]
            if name == b"content-range"
        }
        code, detail = _REFUSALS[refusal["status"]]
        await http_errors.answer(refusal["status"], code, detail, kept)(scope, receive, send)
