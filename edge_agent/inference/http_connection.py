"""One HTTP connection on the event loop: reads, answers in order, closes cleanly.

One request of a connection is in work at a time; what arrives meanwhile waits in the reader's
bounded memory and then in the kernel. Deadlines are plain numbers that the server's sweep compares,
so that a request that comes whole costs no timer.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.busy_poll import GRACE_S, BusyPoll
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.errors import RateError
from edge_agent.inference.http_errors import error_response
from edge_agent.inference.http_messages import (
    Answer,
    Handler,
    HttpError,
    HttpRequest,
    HttpResponse,
    failure_response,
)
from edge_agent.inference.request_reader import Phase, RequestReader
from edge_agent.inference.token_bucket import TokenBucket

logger = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOIN_BYTES = 64 * 1024
"""Up to this size copying the parts together is cheaper than sending them one by one."""

_RETRY_S = 1.0
"""When a caller who was refused for want of room may come again."""

_BODY_AWAIT_S = 2e-3
"""So long after its head the pieces of a body are waited for awake. One that takes longer comes
from somebody slow, or is so large that waking up does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may take.

    Attributes:
        max_body_bytes: of one request.
        max_bodies_bytes: of all requests that are being received or answered; never less than
            `max_body_bytes`.
        head_s: from the first byte of a head to its last.
        body_s: for any body, on top of the time at `body_bytes_per_s`.
        body_bytes_per_s: the slowest sender, or reader, that is still waited for.
        write_s: how long an answer may wait for the caller to read, on top of the time that it
            takes at `body_bytes_per_s`.
        linger_s: how long a refused caller may go on sending before the connection is cut.
        idle_s: how long a connection may do nothing while others wait for one to close.
        requests_per_s: more are refused with 429; 0 for any number.
    """

    max_body_bytes: int
    max_bodies_bytes: int = 256 * 1024 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    body_bytes_per_s: float = 64 * 1024
    write_s: float = 30.0
    linger_s: float = 2.0
    idle_s: float = 30.0
    requests_per_s: float = 0.0


class Owner(Protocol):
    """The server, as a connection sees it."""

    @property
    def memory(self) -> BodyMemory:
        """For the bodies of all its connections."""
        ...

    @property
    def error_answers(self) -> ErrorAnswers:
        """Takes note of the requests that do not get as far as the handler."""
        ...

    def opened(self, connection: "HttpConnection") -> None:
        """Keep account of a new connection."""
        ...

    def closed(self, connection: "HttpConnection") -> None:
        """Forget a connection."""
        ...


class HttpConnection(asyncio.BufferedProtocol):
    """Between a transport and the handler."""

    def __init__(
        self,
        *,
        handler: Handler,
        limits: Limits,
        owner: Owner,
        clock: Callable[[], float],
        poll: BusyPoll,
    ) -> None:
        """Wait for the transport.

        Args:
            handler: answers the requests.
            limits: see there.
            owner: told when the connection opens and closes; has the memory for bodies.
            clock: stamps requests and measures deadlines.
            poll: keeps the loop awake for what is about to come.
        """
        self._handler = handler
        self._limits = limits
        self._owner = owner
        self._clock = clock
        self._poll = poll
        self._memory = owner.memory
        self._reader = RequestReader(
            max_body_bytes=limits.max_body_bytes, memory=owner.memory, clock=clock
        )
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._phase = Phase.IDLE
        self._writable = True
        self._reading = True
        self._refused = False
        self._ending = False
        self._heard_all = False
        self.deadline = math.inf
        """When the server's sweep shall call `expire`."""
        self._used_at = clock()
        self._answered_at: float | None = None
        self._comes_back_at_once = False
        self._awake_until = 0.0
        self._unread = 0
        """Bytes of an answer that are held in memory until the caller reads them."""
        self._bucket: TokenBucket | None = None
        if limits.requests_per_s:
            self._bucket = TokenBucket(limits.requests_per_s, self._used_at)

    @property
    def idle_since(self) -> float:
        """When the last request was received, or infinity while one is in work."""
        return math.inf if self.busy else self._used_at

    @property
    def busy(self) -> bool:
        """True while a request is half here, in work, or its answer half gone."""
        return self._task is not None or self._phase is not Phase.IDLE or not self._writable

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports do what asyncio.Transport says but do not inherit from it.
        self._transport = cast("asyncio.Transport", transport)
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the reason changes nothing)
        """Forget the caller; a call in work runs to its end and is counted."""
        self._transport = None
        self._reader.leave()
        self._forget_unread()
        self._owner.closed(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the reader knows better)
        """Say where the next bytes go."""
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes."""
        if self._refused:
            return  # and write over them with the next ones
        if self._answered_at is not None:
            self._comes_back_at_once = self._clock() - self._answered_at < GRACE_S
            self._answered_at = None
        self._reader.received(nbytes)
        self._advance()

    def eof_received(self) -> bool:
        """Answer what has been asked, then close."""
        self._heard_all = True
        return self._task is not None or not self._writable

    def pause_writing(self) -> None:
        """Take no further request while the caller does not read its answers."""
        self._writable = False
        if self._transport is None:
            return
        unread = self._transport.get_write_buffer_size()
        reading_s = unread / self._limits.body_bytes_per_s
        self.deadline = self._clock() + self._limits.write_s + reading_s
        try:
            self._memory.take(unread)
        except HttpError:
            # Nothing can be said to a caller who does not read.
            logger.warning("answer_dropped", extra={"unread_bytes": unread})
            asyncio.get_running_loop().call_soon(self.abort)
        else:
            self._unread = unread

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._forget_unread()
        if self._refused:
            self.deadline = self._clock() + self._limits.linger_s
        else:
            self.deadline = math.inf
            self._advance()
        if self._ending:
            self.finish()

    def expire(self) -> None:
        """End a connection whose deadline has passed."""
        if self._transport is None:
            return
        if self._refused or not self._writable:
            self._transport.abort()
        else:
            self._refuse(HttpError(408, "the request did not arrive in time"))

    def end_next(self) -> None:
        """Close after the next answer."""
        self._ending = True

    def finish(self) -> None:
        """Close as soon as nothing is in work."""
        self._ending = True
        if not self.busy and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        while self._task is None and self._writable and not self._refused:
            if self._transport is None or self._transport.is_closing():
                return
            try:
                request = self._reader.next_request()
            except HttpError as error:
                self._refuse(error)
                return
            if request is None:
                if self._heard_all:
                    self._transport.close()
                    return
                self._wait_for_more(self._transport)
                if self._reading:
                    return  # the reader has room: it waits for more
                break
            self._phase = Phase.IDLE
            self.deadline = math.inf
            self._used_at = request.received_at
            if self._bucket is not None and (wait_s := self._bucket.wait_s(self._used_at)):
                answer: Answer = self._too_many(self._bucket.refusal(wait_s))
            else:
                answer = self._handler(request)
            if isinstance(answer, HttpResponse):
                self._send(request, answer)
                self._memory.give_back(len(request.body))
                self._answered_at = self._clock()
            else:
                self._task = asyncio.get_running_loop().create_task(
                    self._answer_later(request, answer)
                )
        self._balance_reading()

    async def _answer_later(self, request: HttpRequest, answer: Awaitable[HttpResponse]) -> None:
        self._poll.at_work += 1
        try:
            response = await answer
        finally:
            self._poll.at_work -= 1
            self._memory.give_back(len(request.body))
        self._task = None
        self._send(request, response)
        self._advance()

    def _wait_for_more(self, transport: asyncio.Transport) -> None:
        phase, now = self._reader.phase, self._clock()
        if phase is not self._phase:
            self._phase = phase
            self.deadline = now + self._patience(phase)
            self._awake_until = now + _BODY_AWAIT_S
            if phase is Phase.BODY and self._reader.wants_continue():
                transport.write(_CONTINUE)
        if phase is Phase.BODY:
            if now < self._awake_until:
                self._poll.expect(now)
        elif self._comes_back_at_once and self._answered_at is not None:
            self._poll.expect(now)

    def _patience(self, phase: Phase) -> float:
        if phase is Phase.IDLE:
            return math.inf
        if phase is Phase.HEAD:
            return self._limits.head_s
        missing = self._reader.body_bytes_missing or self._limits.max_body_bytes
        return self._limits.body_s + missing / self._limits.body_bytes_per_s

    def _balance_reading(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._heard_all:
            return
        wanted = self._refused or not self._reader.full
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _send(self, request: HttpRequest, response: HttpResponse) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        keep_alive = request.keep_alive and not self._ending
        head = response.head(keep_alive=keep_alive)
        if request.method == "HEAD":
            transport.write(head)
        elif len(response.parts) == 1 or sum(map(len, response.parts)) <= _JOIN_BYTES:
            transport.write(b"".join((head, *response.parts)))
        else:
            transport.writelines((head, *response.parts))
        if not keep_alive:
            transport.close()

    def _forget_unread(self) -> None:
        self._memory.give_back(self._unread)
        self._unread = 0

    def _too_many(self, error: RateError) -> HttpResponse:
        self._owner.error_answers.note(error)
        return error_response(error)

    def _refuse(self, error: HttpError) -> None:
        """Answer, then let the caller finish sending for a while: a reset could lose the answer."""
        transport = self._transport
        if transport is None:
            return
        self._owner.error_answers.note(error)
        retry_after_s = _RETRY_S if error.status == HTTPStatus.SERVICE_UNAVAILABLE else None
        response = failure_response(error.status, str(error), retry_after_s=retry_after_s)
        self._refused = True
        self._reader.leave()
        self._reader = RequestReader(max_body_bytes=0, memory=self._memory, clock=self._clock)
        self.deadline = self._clock() + self._limits.linger_s
        transport.write(response.head(keep_alive=False) + b"".join(response.parts))
        if transport.can_write_eof():
            transport.write_eof()
        self._balance_reading()
