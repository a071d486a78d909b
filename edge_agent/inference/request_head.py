"""The head of an HTTP request: its bytes to what the runtime wants to know of it.

httptools (llhttp, strict) parses. A chunked body goes through the same parser, since llhttp alone
knows where it ends; any other body is not the parser's business.
"""

from urllib.parse import unquote

import httptools
import msgspec

from edge_agent.inference.http_messages import HttpError

_TEXTS = frozenset({b"content-encoding", b"accept-encoding", b"traceparent"})
_MAX_TRACEPARENT = 128
"""Version 00 takes 55 characters; later versions may append."""


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """What the head says; the same bytes always say the same.

    Attributes:
        path: decoded, without the query.
        keep_alive: the connection stays open after the answer.
        content_length: 0 where the body is chunked.
        header_length: value of ``Inference-Header-Content-Length``.
    """

    method: str
    path: str
    keep_alive: bool
    content_length: int
    chunked: bool
    expects_continue: bool
    header_length: int | None
    content_encoding: str
    accept_encoding: str
    traceparent: str


class HeadParser:
    """Takes the bytes of one head, and of the chunked body that may follow it."""

    def __init__(self) -> None:
        """Wait for the first byte."""
        self._calls = _Callbacks()
        self._parser = httptools.HttpRequestParser(self._calls)

    @property
    def complete(self) -> bool:
        """Whether the head has been read to its end; empty lines before it do not end it."""
        return self._calls.complete

    @property
    def chunks(self) -> bytearray:
        """The chunked body as far as it is here."""
        return self._calls.chunks

    @property
    def done(self) -> bool:
        """Whether the whole message has been read."""
        return self._calls.done

    @property
    def followed(self) -> bool:
        """Whether there were bytes of another message behind this one."""
        return self._calls.followed

    def feed(self, data: memoryview | bytes) -> None:
        """Take bytes.

        Raises:
            HttpError: they are not a request.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody has to accept an upgrade (RFC 9110, 7.8): the request is answered as it is.
            if self._calls.chunked:
                raise HttpError(400, "an upgrade with a chunked body is not understood") from None
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            raise HttpError(400, f"not an HTTP request: {error}") from error

    def head(self) -> RequestHead:
        """Return what the complete head says.

        Raises:
            HttpError: it is not one head, or its target is not one.
        """
        calls = self._calls
        if calls.followed or calls.chunks:
            raise HttpError(400, "not an HTTP request: more than one message in a head")
        return RequestHead(
            method=self._parser.get_method().decode("ascii"),
            path=_path(calls.url),
            keep_alive=self._stays_open(),
            content_length=0 if calls.chunked else calls.content_length,
            chunked=calls.chunked,
            expects_continue=calls.expects_continue,
            header_length=calls.header_length,
            content_encoding=calls.content_encoding,
            accept_encoding=calls.accept_encoding,
            traceparent=calls.traceparent,
        )

    def _stays_open(self) -> bool:
        # The parser's own answer is gone once it has seen the end of the message.
        if self._parser.get_http_version() == "1.1":
            return b"close" not in self._calls.connection
        return b"keep-alive" in self._calls.connection


class _Callbacks:
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
    try:
        text = url.partition(b"?")[0].decode("ascii")
    except UnicodeDecodeError:
        raise HttpError(400, "the request target is not ASCII") from None
    return unquote(text) if "%" in text else text
