"""For which bytes a connection keeps the event loop awake, and for which it lets it sleep."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.busy_poll import GRACE_S, BusyPoll
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.http_connection import HttpConnection, Limits
from edge_agent.inference.http_messages import HttpResponse

_BODY_BYTES = 1000
_HEAD = f"POST / HTTP/1.1\r\nContent-Length: {_BODY_BYTES}\r\n\r\n".encode()


class _Clock:
    """Goes on by a tenth of the grace each time that it is read, and further when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        self.now += GRACE_S / 10
        return self.now


class _Caller:
    """The other end of a connection, and what the loop does after each of its bytes."""

    def __init__(self, clock: _Clock, end: socket.socket) -> None:
        self.clock = clock
        self._end = end

    async def keeps_awake(self, data: bytes) -> bool:
        """Send, let the loop do what it must, and say whether it then goes on looking."""
        self._end.send(data)
        for _ in range(4):
            await asyncio.sleep(0)
        before = self.clock.reads
        for _ in range(5):
            await asyncio.sleep(0)
        awake = self.clock.reads > before
        for _ in range(50):
            await asyncio.sleep(0)
        return awake


class _Owner:
    memory = BodyMemory(_BODY_BYTES)
    error_answers = ErrorAnswers()

    def opened(self, connection: HttpConnection) -> None: ...

    def closed(self, connection: HttpConnection) -> None: ...


@asynccontextmanager
async def connected() -> AsyncIterator[_Caller]:
    clock = _Clock()
    far, near = socket.socketpair()
    near.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    with far:
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(
                handler=lambda _: HttpResponse(parts=[b"{}"]),
                limits=Limits(max_body_bytes=_BODY_BYTES),
                owner=_Owner(),
                clock=clock,
                poll=BusyPoll(clock=clock, processors=2),
            ),
            sock=near,
        )
        yield _Caller(clock, far)
        transport.close()
        await asyncio.sleep(0)


def test_the_rest_of_a_body_is_waited_for_awake() -> None:
    async def talk() -> list[bool]:
        async with connected() as caller:
            return [
                await caller.keeps_awake(_HEAD[:10]),
                await caller.keeps_awake(_HEAD[10:]),
                await caller.keeps_awake(b"x" * (_BODY_BYTES - 1)),
                await caller.keeps_awake(b"x"),
            ]

    assert asyncio.run(talk()) == [False, True, True, False]


def test_who_takes_long_over_a_body_lets_the_loop_sleep() -> None:
    async def talk() -> list[bool]:
        async with connected() as caller:
            first = await caller.keeps_awake(_HEAD)
            caller.clock.now += 1.0
            return [first, await caller.keeps_awake(b"x")]

    assert asyncio.run(talk()) == [True, False]


def test_a_caller_who_came_back_at_once_is_expected_again_until_it_does_not() -> None:
    request = _HEAD + b"x" * _BODY_BYTES

    async def talk() -> list[bool]:
        async with connected() as caller:
            first = await caller.keeps_awake(request)
            caller.clock.now += 1.0
            late = await caller.keeps_awake(request)
            # Back within the grace, as the clock stands still while nobody reads it.
            back = await caller.keeps_awake(request)
            again = await caller.keeps_awake(request)
            caller.clock.now += 1.0
            return [first, late, back, again, await caller.keeps_awake(request)]

    assert asyncio.run(talk()) == [False, False, True, False, False]
