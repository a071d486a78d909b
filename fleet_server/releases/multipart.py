"""Reads multipart/form-data (RFC 7578) as a stream of parts, without storing anything.

Starlette's own form parser writes every file to disk before a handler may look at it; here the
handler decides, part by part, how much it takes.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fleet_server.errors import MalformedError

MAX_PARTS = 4096


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts. ``filename`` is None for a plain field."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """Some of its content."""

    content: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """It is complete."""


Piece = PartBegin | PartData | PartEnd


class _Collector:
    """Turns the parser's callbacks into pieces."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.finished = False
        self._field = b""
        self._value = b""
        self._disposition = b""
        self._parts = 0

    def begin(self) -> None:
        self._disposition = b""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedError(f"the form has more than {MAX_PARTS} parts")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise MalformedError("a part of the form has no name")
        try:
            name = options[b"name"].decode()
            filename = options[b"filename"].decode() if b"filename" in options else None
        except UnicodeDecodeError as error:
            raise MalformedError("a part of the form has a name that is not UTF-8") from error
        self.pieces.append(PartBegin(name, filename))

    def data(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(PartData(data[start:end]))

    def end(self) -> None:
        self.pieces.append(PartEnd())

    def finish(self) -> None:
        self.finished = True


async def pieces(content_type: str | None, body: AsyncIterator[bytes]) -> AsyncIterator[Piece]:
    """Yield the pieces of a form in their order.

    Args:
        content_type: the request's header; it carries the boundary.
        body: the request's body in chunks.

    Raises:
        MalformedError: it is no form, or it ends early.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise MalformedError("the body must be multipart/form-data with a boundary")
    collector = _Collector()
    try:
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": collector.begin,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
                "on_header_field": collector.header_field,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_headers_finished": collector.headers_finished,
                "on_end": collector.finish,
            },
        )
        async for chunk in body:
            parser.write(chunk)
            ready, collector.pieces = collector.pieces, []
            for piece in ready:
                yield piece
    except FormParserError as error:
        raise MalformedError(f"the form cannot be read: {error}") from error
    if not collector.finished:
        raise MalformedError("the form ends before its last part is complete; send it again")
