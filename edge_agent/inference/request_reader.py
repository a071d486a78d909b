"""Received bytes to HTTP requests, without sockets.

httptools (llhttp, strict) parses each head. A body of known length is received straight into the
memory that the model will read: `RequestReader.buffer` hands that memory to the transport.
"""

from collections.abc import Callable
from enum import Enum, auto
from urllib.parse import unquote

import httptools

from edge_agent.inference.http_messages import HttpError, HttpRequest

MAX_HEAD_BYTES = 16 * 1024
_ALIGNMENT = 16
"""Tensor data starts at a multiple of this behind the JSON, so that it is used in place."""

_MAX_CHUNK_OVERHEAD = 8
"""Chunks of one byte take six; more than this is extensions and trailers that nobody reads."""

_TEXTS = frozenset({b"content-encoding", b"accept-encoding", b"traceparent"})
_MAX_TRACEPARENT = 128
"""Version 00 takes 55 characters; later versions may append."""

_END_OF_HEAD = b"\r\n\r\n"


class Phase(Enum):
    """What the reader waits for."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class _Head:
    """Receives httptools' callbacks for one request."""

    __slots__ = (
        "accept_encoding",
        "chunked",
        "chunks",
        "complete",
        "connection",
        "content_encoding",
        "content_length",
        "done",
        "expects_continue",
        "followed",
        "header_length",
        "traceparent",
        "url",
    )

    def __init__(self) -> None:
        self.url = b""
        self.content_length = 0
        self.chunked = False
        self.expects_continue = False
        self.header_length: int | None = None
        self.content_encoding = ""
        self.traceparent = ""
        self.accept_encoding = ""
        self.connection: set[bytes] = set()
        self.complete = False
        self.done = False
        self.followed = False
        self.chunks = bytearray()

    def on_message_begin(self) -> None:
        self.followed = self.done

    def on_url(self, url: bytes) -> None:
        if not self.done:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return  # a trailer, or the head of a message that is not ours to read
        name = name.lower()
        if name == b"content-length":
            self.content_length = int(value)
        elif name == b"inference-header-content-length":
            self.header_length = _number(value)
        elif name == b"transfer-encoding":
            self.chunked = value.strip().lower() == b"chunked"
            if not self.chunked:
                raise HttpError(501, "the only transfer encoding here is chunked")
        elif name == b"expect":
            self.expects_continue = value.strip().lower() == b"100-continue"
        elif name == b"connection":
            self.connection.update(token.strip() for token in value.lower().split(b","))
        elif name in _TEXTS:
            self._on_text(name, value.decode("latin-1"))

    def _on_text(self, name: bytes, value: str) -> None:
        if name == b"content-encoding":
            self.content_encoding = value.strip()[:40].lower()
        elif name == b"accept-encoding":
            self.accept_encoding = value
        else:
            self.traceparent = value.strip()[:_MAX_TRACEPARENT]

    def on_headers_complete(self) -> None:
        self.complete = True

    def on_body(self, body: bytes) -> None:
        self.chunks += body

    def on_message_complete(self) -> None:
        self.done = True


class RequestReader:
    """Takes bytes in, gives requests out, in order."""

    def __init__(self, *, max_body_bytes: int, clock: Callable[[], float]) -> None:
        """Start between two requests.

        Args:
            max_body_bytes: a longer body is refused before it is read.
            clock: stamps requests.
        """
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._inbox_bytes = bytearray(MAX_HEAD_BYTES)
        self._inbox = memoryview(self._inbox_bytes)
        self._start = 0
        self._end = 0
        self._begin_message()

    def _begin_message(self) -> None:
        self._head = _Head()
        self._parser = httptools.HttpRequestParser(self._head)
        self._method = ""
        self._keep_alive = False
        self._body: memoryview | None = None
        self._filled = 0
        self._wire_bytes = 0
        self._blank_bytes = 0

    @property
    def phase(self) -> Phase:
        """What the next bytes belong to."""
        if self._head.complete:
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
        wanted = self._head.complete and self._head.expects_continue
        if wanted:
            self._head.expects_continue = False
        return wanted

    def next_request(self) -> HttpRequest | None:
        """Return the next request if all of it is here.

        Raises:
            HttpError: the bytes are not a request, or are too many; nothing after them can be read.
        """
        if not self._head.complete and not self._read_head():
            return None
        if self._head.chunked:
            if not self._read_chunks():
                return None
        elif self._body is not None and self._filled < len(self._body):
            return None
        return self._finished()

    def _read_head(self) -> bool:
        if self._start == self._end:
            return False
        while not self._head.complete:
            at = self._inbox_bytes.find(_END_OF_HEAD, self._start, self._end)
            if at < 0:
                if self._end - self._start >= MAX_HEAD_BYTES:
                    raise HttpError(
                        431, f"the head of the request is longer than {MAX_HEAD_BYTES} bytes"
                    )
                return False
            stop = at + len(_END_OF_HEAD)
            self._feed(self._inbox[self._start : stop])
            self._blank_bytes += stop - self._start
            self._start = stop
            if not self._head.complete and self._blank_bytes > MAX_HEAD_BYTES:
                raise HttpError(431, "nothing but empty lines where a request should begin")
        if self._head.followed or self._head.chunks:
            raise HttpError(400, "not an HTTP request: more than one message in a head")
        self._method = self._parser.get_method().decode("ascii")
        self._keep_alive = self._stays_open()
        if not self._head.chunked:
            self._begin_body()
        return True

    def _stays_open(self) -> bool:
        # The parser's own answer is gone once it has seen the end of the message.
        if self._parser.get_http_version() == "1.1":
            return b"close" not in self._head.connection
        return b"keep-alive" in self._head.connection

    def _begin_body(self) -> None:
        length = self._head.content_length
        if length > self._max_body_bytes:
            raise self._too_large()
        padding = -(self._head.header_length or 0) % _ALIGNMENT
        self._body = memoryview(bytearray(padding + length))[padding:]
        here = min(length, self._end - self._start)
        self._body[:here] = self._inbox[self._start : self._start + here]
        self._start += here
        self._filled = here

    def _read_chunks(self) -> bool:
        self._wire_bytes += self._end - self._start
        self._feed(self._inbox[self._start : self._end])
        self._start = self._end
        size = len(self._head.chunks)
        if size > self._max_body_bytes:
            raise self._too_large()
        if self._wire_bytes > _MAX_CHUNK_OVERHEAD * size + MAX_HEAD_BYTES:
            raise HttpError(400, "the chunked body is almost nothing but framing")
        return self._head.done

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the request is larger than {self._max_body_bytes} bytes "
            "(setting runtime.max_request_bytes)",
        )

    def _feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody has to accept an upgrade (RFC 9110, 7.8): the request is answered as it is.
            if self._head.chunked:
                raise HttpError(400, "an upgrade with a chunked body is not understood") from None
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            raise HttpError(400, f"not an HTTP request: {error}") from error

    def _finished(self) -> HttpRequest:
        head = self._head
        try:
            path = _path(head.url)
        except UnicodeDecodeError:
            raise HttpError(400, "the request target is not ASCII") from None
        request = HttpRequest(
            method=self._method,
            path=path,
            body=head.chunks if self._body is None else self._body,
            # What follows a chunked body in one piece is lost to us, so the connection ends there.
            keep_alive=self._keep_alive and not head.followed,
            received_at=self._clock(),
            header_length=head.header_length,
            traceparent=head.traceparent,
            caller=self,
            content_encoding=head.content_encoding,
            accept_encoding=head.accept_encoding,
        )
        self._begin_message()
        return request


def _number(value: bytes) -> int:
    text = value.strip()
    if not text.isdigit() or len(text) > 12:  # noqa: PLR2004 (more digits than any body has)
        raise HttpError(
            400,
            f"Inference-Header-Content-Length is not a length: {value[:40].decode('latin-1')!r}",
        )
    return int(text)


def _path(url: bytes) -> str:
    if not url.startswith(b"/"):
        # The absolute form, which proxies use (RFC 9112, 3.2.2).
        _, _, rest = url.partition(b"://")
        _, slash, path = rest.partition(b"/")
        url = slash + path
    path_text = url.partition(b"?")[0].decode("ascii")
    return unquote(path_text) if "%" in path_text else path_text
