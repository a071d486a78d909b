"""Connections of strangers: bounded heads, bounded patience, and idle ones make room."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fleet_server.guarded_http import GuardedProtocol, Limits
from fleet_server.https import HttpServer

DEADLINE_S = 20.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    size = sum([len(chunk) async for chunk in request.stream()])
    await PlainTextResponse(f"{size}")(scope, receive, send)


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[int]:
    protocol = type("Limited", (GuardedProtocol,), {"limits": limits})
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    server = HttpServer(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield listener.getsockname()[1]
        finally:
            await server.finish(task)


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def closed(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read() == b""
        return True


@asynccontextmanager
async def connected(port: int, sent: bytes = b"") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    yield Client(reader, writer)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nX-A: ", b"a" * 1000),
        (b"GET /", b"a" * 1000),
        (CHUNKED, b"X-A: " + b"a" * 1000 + b"\r\n"),
        (GET + b"GET / HTTP/1.1\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
    ],
)
async def test_a_head_without_end_is_cut_off(begin: bytes, piece: bytes) -> None:
    async with serving(Limits(head_bytes=20_000)) as port, connected(port, begin) as client:
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 50_000_000:
                client.writer.write(piece)
                await client.writer.drain()
                sent += len(piece)
        assert sent < 50_000_000


async def test_too_large_a_head_is_answered_431() -> None:
    head = b"GET / HTTP/1.1\r\nX-A: " + b"a" * 20_001
    async with serving(Limits(head_bytes=20_000)) as port, connected(port, head) as client:
        status, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (431, "head_too_large")
        assert await client.closed()


async def test_a_large_body_passes() -> None:
    body = b"b" * 3_000_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    limits = Limits(head_bytes=20_000)
    async with serving(limits) as port, connected(port, head + body + GET) as client:
        assert await client.answer() == (200, b"3000000")
        assert await client.answer() == (200, b"0")


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("sent", [b"GET / HT", b"\r\n\r\nG"])
async def test_a_slow_head_is_answered_408(before: bytes, sent: bytes) -> None:
    async with serving(Limits(head_s=0.2)) as port, connected(port, before) as client:
        if before:
            assert (await client.answer())[0] == 200
        client.writer.write(sent)
        status, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (408, "too_slow")


async def test_who_says_nothing_is_closed() -> None:
    async with serving(Limits(head_s=0.2)) as port, connected(port) as client:
        assert await client.closed()


async def test_a_body_that_does_not_move_on_is_answered_408() -> None:
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
    async with serving(Limits(body_s=0.2)) as port, connected(port, sent) as client:
        status, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (408, "too_slow")


async def test_nonsense_is_answered_400() -> None:
    async with serving(Limits()) as port, connected(port, b"nonsense\r\n\r\n") as client:
        status, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (400, "malformed")


async def test_idle_connections_make_room_and_work_goes_on() -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    async with (
        serving(Limits(connections=5)) as port,
        connected(port, begun) as working,
        contextlib.AsyncExitStack() as stack,
    ):
        idle = [await stack.enter_async_context(connected(port)) for _ in range(12)]
        async with connected(port, GET) as late:
            assert await late.answer() == (200, b"0")
        assert await idle[0].closed()
        working.writer.write(b"abc")
        assert await working.answer() == (200, b"3")


async def test_too_many_requests_in_work_are_answered_503() -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(Limits(requests=1)) as port, connected(port, begun) as working:
        assert await working.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        async with connected(port, GET) as late:
            status, body = await late.answer()
            assert (status, json.loads(body)["code"]) == (503, "unavailable")
        working.writer.write(b"abc")
        assert await working.answer() == (200, b"3")
