"""Received bytes to HTTP requests, without sockets.

A body of known length is received straight into the memory that the model will read:
`RequestReader.buffer` hands that memory to the transport.
"""

from collections.abc import Callable
from enum import Enum, auto

from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.http_messages import HttpError, HttpRequest
from edge_agent.inference.request_head import HeadParser, RequestHead
from edge_agent.inference.tensors import Data
from edge_agent.inference.unwritten_memory import unwritten

MAX_HEAD_BYTES = 16 * 1024
_MAX_REMEMBERED_BYTES = 1024
"""Callers send one head over and over; up to this size it is kept and not parsed again."""

_ALIGNMENT = 16
"""Tensor data starts at a multiple of this behind the JSON, so that it is used in place."""

_MAX_CHUNK_OVERHEAD = 8
"""Chunks of one byte take six; more than this is extensions and trailers that nobody reads."""

_END_OF_HEAD = b"\r\n\r\n"


class Phase(Enum):
    """What the reader waits for."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class RequestReader:
    """Takes bytes in, gives requests out, in order."""

    def __init__(
        self, *, max_body_bytes: int, memory: BodyMemory, clock: Callable[[], float]
    ) -> None:
        """Start between two requests.

        Args:
            max_body_bytes: a longer body is refused before it is read.
            memory: what a body takes is taken from there; whoever gets the request gives it back.
            clock: stamps requests.
        """
        self._max_body_bytes = max_body_bytes
        self._memory = memory
        self._clock = clock
        self._inbox_bytes = bytearray(MAX_HEAD_BYTES)
        self._inbox = memoryview(self._inbox_bytes)
        self._start = 0
        self._end = 0
        self._last: tuple[bytes, RequestHead] | None = None
        self._begin_message()

    def _begin_message(self) -> None:
        self._head: RequestHead | None = None
        self._parser: HeadParser | None = None
        self._continue_due = False
        self._body: memoryview | None = None
        self._filled = 0
        self._taken = 0
        self._wire_bytes = 0
        self._blank_bytes = 0

    def leave(self) -> None:
        """Give back what a body takes that will not come whole."""
        self._memory.give_back(self._taken)
        self._taken = 0

    @property
    def phase(self) -> Phase:
        """What the next bytes belong to."""
        if self._head is not None:
            return Phase.BODY
        return Phase.HEAD if self._end > self._start else Phase.IDLE

    @property
    def body_bytes_missing(self) -> int:
        """How much of a body of known length is still to come."""
        return len(self._body) - self._filled if self._body is not None else 0

    @property
    def full(self) -> bool:
        """True if no byte can be taken before `next_request` has made room."""
        return not self.buffer()

    def buffer(self) -> memoryview:
        """Return the memory into which the next bytes shall be received."""
        if self._body is not None:
            return self._body[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._inbox) and self._start:
            rest = bytes(self._inbox[self._start : self._end])
            self._inbox[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._inbox[self._end :]

    def received(self, count: int) -> None:
        """Say that so many bytes have been put into `buffer`."""
        if self._body is not None:
            self._filled += count
        else:
            self._end += count

    def wants_continue(self) -> bool:
        """Say, once, whether the caller waits for ``100 Continue`` before it sends the body."""
        due, self._continue_due = self._continue_due, False
        return due

    def next_request(self) -> HttpRequest | None:
        """Return the next request if all of it is here.

        Raises:
            HttpError: the bytes are not a request, or are too many; nothing after them can be read.
        """
        head = self._head
        if head is None and self._start < self._end:
            head = self._read_head()
        if head is None:
            return None
        if self._parser is not None and head.chunked:
            return self._chunked(self._parser, head)
        if self._body is None:
            self._body = self._begin_body(head)
        self._take(self._filled)
        if self._filled < len(self._body):
            return None
        return self._finished(head, self._body, keep_alive=head.keep_alive)

    def _read_head(self) -> RequestHead | None:
        while self._start < self._end:
            at = self._inbox_bytes.find(_END_OF_HEAD, self._start, self._end)
            if at < 0:
                if self._end - self._start >= MAX_HEAD_BYTES:
                    raise HttpError(
                        431, f"the head of the request is longer than {MAX_HEAD_BYTES} bytes"
                    )
                return None
            stop = at + len(_END_OF_HEAD)
            text = bytes(self._inbox[self._start : stop])
            self._start = stop
            head = self._understood(text)
            if head is not None:
                self._head = head
                self._continue_due = head.expects_continue
                return head
            self._blank_bytes += len(text)
            if self._blank_bytes > MAX_HEAD_BYTES:
                raise HttpError(431, "nothing but empty lines where a request should begin")
        return None

    def _understood(self, text: bytes) -> RequestHead | None:
        """Return the head; None if so far there were only empty lines."""
        if self._last is not None and self._last[0] == text:
            return self._last[1]
        if self._parser is None:
            self._parser = HeadParser()
        self._parser.feed(text)
        if not self._parser.complete:
            return None
        head = self._parser.head()
        if len(text) <= _MAX_REMEMBERED_BYTES and not head.chunked:
            self._last = text, head
        return head

    def _begin_body(self, head: RequestHead) -> memoryview:
        length = head.content_length
        if length > self._max_body_bytes:
            raise self._too_large()
        padding = -(head.header_length or 0) % _ALIGNMENT
        body = memoryview(unwritten(padding + length))[padding:]
        here = min(length, self._end - self._start)
        body[:here] = self._inbox[self._start : self._start + here]
        self._start += here
        self._filled = here
        return body

    def _chunked(self, parser: HeadParser, head: RequestHead) -> HttpRequest | None:
        self._wire_bytes += self._end - self._start
        parser.feed(self._inbox[self._start : self._end])
        self._start = self._end
        size = len(parser.chunks)
        if size > self._max_body_bytes:
            raise self._too_large()
        self._take(size)
        if self._wire_bytes > _MAX_CHUNK_OVERHEAD * size + MAX_HEAD_BYTES:
            raise HttpError(400, "the chunked body is almost nothing but framing")
        if not parser.done:
            return None
        # What follows a chunked body in one piece is lost to us, so the connection ends there.
        return self._finished(
            head, parser.chunks, keep_alive=head.keep_alive and not parser.followed
        )

    def _take(self, received: int) -> None:
        """Account for a body as it comes: what is only announced takes no memory yet."""
        self._memory.take(received - self._taken)
        self._taken = received

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the request is larger than {self._max_body_bytes} bytes "
            "(setting runtime.max_request_bytes)",
        )

    def _finished(self, head: RequestHead, body: Data, *, keep_alive: bool) -> HttpRequest:
        request = HttpRequest(
            method=head.method,
            path=head.path,
            body=body,
            keep_alive=keep_alive,
            received_at=self._clock(),
            header_length=head.header_length,
            traceparent=head.traceparent,
            caller=self,
            content_encoding=head.content_encoding,
            accept_encoding=head.accept_encoding,
        )
        self._begin_message()
        return request
