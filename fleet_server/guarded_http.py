"""HTTP connections that cannot use the server up: everything before authentication is bounded.

A peer may send a head of `Limits.head_bytes`, within `Limits.head_s`; a body has to move on. There
are at most `Limits.connections`: the next one takes the place of the one that has been idle for
longest at the address that holds the most. So idle connections lock nobody out.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fleet_server import http_errors
from fleet_server.complaints import Complaints

_complaints = Complaints(time.monotonic)

_PIECE_BYTES = 16 * 1024
_HEALTH = b"/health/"
_HAS_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\n%bcache-control: no-cache\r\netag: %b\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may use.

    Attributes:
        head_bytes: of a request's head, or of anything else between bodies, give or take 16 KiB.
        head_s: from the connection, or the first byte of a later request, to the end of the head.
        body_s: in each such time at least `body_bytes` of an unfinished body must come.
        connections: open at once.
        requests: in work at once; more are answered with 503.
    """

    head_bytes: int = 64 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    body_bytes: int = 4096
    connections: int = 1000
    requests: int = 500


class Shortcut(Protocol):
    """A route whose usual answer, 304, is known without running the application.

    Attributes:
        path: of the route; a request with a query or a body goes to the application.
    """

    @property
    def path(self) -> bytes:
        """The route's path."""

    def not_modified(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """Return the ETag with which 304 is the answer; None if the application has to answer."""


class GuardedState(ServerState):
    """What the connections of a server share.

    Attributes:
        draining: nothing but the health routes is begun any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draining = False


class GuardedProtocol(HttpToolsProtocol):
    """One connection of uvicorn within `limits`."""

    limits: ClassVar[Limits] = Limits()
    shortcut: ClassVar[Shortcut | None] = None

    def __init__(
        self,
        config: Config,
        server_state: GuardedState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = server_state
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._undelivered = 0
        """Bytes since the parser last delivered a head, a piece of body or an end."""
        self._body_bytes = 0
        self._heard = 0.0
        self._is_answered = False
        """Whether the request that is being read was answered by the shortcut."""

    @property
    def idle(self) -> bool:
        """Whether no request is in work."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def connection_made(  # type: ignore[override]  # uvicorn narrows it in the same way
        self, transport: asyncio.Transport
    ) -> None:
        """Begin, in the place of another connection if there are too many."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._expect_head()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse in small pieces, so that the bounds are kept within a large read too."""
        self._heard = self.loop.time()
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE_BYTES]
            self._undelivered += len(piece)
            super().data_received(piece)
            if self._undelivered > self.limits.head_bytes and not self.transport.is_closing():
                self._refuse(
                    431,
                    "head_too_large",
                    f"the head of a request may have {self.limits.head_bytes} bytes at most",
                )
                return
        if self.idle and self._head_timer is None and not self.transport.is_closing():
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Start the request, or answer 503 if too many are in work."""
        self._undelivered = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._is_answered = self._took_shortcut()
        if self._is_answered:
            return
        self.app = self._application()
        super().on_headers_complete()
        self._body_bytes = 0
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self.limits.body_s, self._check_body)

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        self._undelivered = 0
        if self._is_answered:
            return
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request's body."""
        self._undelivered = 0
        if self._is_answered:
            self._is_answered = False
            return
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, "malformed", msg)

    def _application(self) -> ASGIApp:
        if self._shared.draining and not self.url.startswith(_HEALTH):
            return _stopping
        if len(self.tasks) >= self.limits.requests:
            _complaints.log("http_requests_exhausted", limit=self.limits.requests)
            return _busy
        loaded: ASGIApp = self.config.loaded_app
        return loaded

    def _took_shortcut(self) -> bool:
        """Answer 304 at once if the shortcut can, which costs a fraction of the application's way.

        Such answers are counted and not logged, and carry no request id.
        """
        shortcut = self.shortcut
        if (
            shortcut is None
            or self._shared.draining
            or self.url != shortcut.path
            or not self.idle
            or self.parser.get_method() != b"GET"
            or not self.parser.should_keep_alive()
            or not _HAS_BODY.isdisjoint(name for name, _ in self.headers)
        ):
            return False
        etag = shortcut.not_modified(self.headers)
        if etag is None:
            return False
        shared = b"".join(b"%b: %b\r\n" % each for each in self.server_state.default_headers)
        self.transport.write(_NOT_MODIFIED % (shared, etag))
        self.server_state.total_requests += 1
        return True

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_s, self._head_overdue)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._undelivered:
            self._refuse(408, "too_slow", "the head of the request did not come in time")
        else:
            self.transport.close()

    def _check_body(self) -> None:
        self._body_timer = None
        cycle = self.cycle
        if not cycle.more_body or cycle.response_complete or self.transport.is_closing():
            return
        ours = self.flow.read_paused or cycle.waiting_for_100_continue
        if not ours and self._body_bytes < self.limits.body_bytes:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
            else:
                self._refuse(408, "too_slow", "the body of the request did not come in time")
            return
        self._body_bytes = 0
        self._body_timer = self.loop.call_later(self.limits.body_s, self._check_body)

    def _make_room(self) -> None:
        """Abort the connection that has been idle for longest at the address with the most."""
        open_ones = [
            other
            for other in self.connections
            if isinstance(other, GuardedProtocol) and not other.transport.is_closing()
        ]
        held = Counter(other.address for other in open_ones)
        idle = [other for other in open_ones if other.idle and other is not self]
        victim = max(idle, key=lambda other: (held[other.address], -other.heard), default=self)
        _complaints.log(
            "http_connections_exhausted", limit=self.limits.connections, closed=victim.address
        )
        victim.transport.abort()

    @property
    def address(self) -> str:
        """The peer's address without its port."""
        return self.client[0] if self.client else ""

    @property
    def heard(self) -> float:
        """When the peer sent something last."""
        return self._heard

    def _refuse(self, status: int, code: str, detail: str) -> None:
        body = json.dumps({"code": code, "detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    await _unavailable("the server is busy with too many requests; try again", scope, receive, send)


async def _stopping(scope: Scope, receive: Receive, send: Send) -> None:
    await _unavailable("the server is stopping; try again", scope, receive, send)


async def _unavailable(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": "5", "Connection": "close"}
    await http_errors.answer(503, "unavailable", detail, headers)(scope, receive, send)
