"""ModelStreamInfer beside its tensors: what is in work, and what becomes of it at the end."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

from edge_agent.inference.answer_memory import AnswerMemory, StreamAnswers
from edge_agent.inference.grpc_api.stream import MAX_IN_WORK, InferStream
from edge_agent.inference.request_memory import RequestMemory

if TYPE_CHECKING:
    from edge_agent.inference.grpc_api.calls import Context


class StreamEndedError(Exception):
    """What gRPC raises where a call is aborted."""


class Caller:
    """gRPC's side of a stream: requests as they are put, answers as they were written."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[bytes] = asyncio.Queue()
        self.answers: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()

    async def read(self) -> bytes:
        return await self.requests.get()

    async def write(self, answer: bytes) -> None:
        await self.takes.wait()
        self.answers.append(answer)

    async def abort(self, _code: object, message: str) -> NoReturn:
        raise StreamEndedError(message)


class Work:
    """Answers requests once the gate is open, and knows how many it has begun and ended."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = self.ended = 0

    def answer(self, payload: bytes) -> Awaitable[bytes]:
        self.begun += 1
        return self._later(payload)

    async def _later(self, payload: bytes) -> bytes:
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        return payload


def stream_of(caller: Caller, work: Work) -> InferStream:
    return InferStream(
        cast("Context", caller),
        work.answer,
        answers=StreamAnswers(AnswerMemory(RequestMemory())),
        clock=lambda: 0.0,
    )


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("waited", range(4))
@pytest.mark.parametrize("requests", [1, 2, MAX_IN_WORK + 2])
async def test_a_caller_that_goes_leaves_no_request_in_work(requests: int, waited: int) -> None:
    caller, work = Caller(), Work()
    running = asyncio.create_task(stream_of(caller, work).run())
    await turns(5)
    for number in range(requests):
        caller.requests.put_nowait(bytes([number]))
    await turns(waited)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await turns(5)
    assert work.ended == work.begun
    assert not caller.answers


@pytest.mark.parametrize("waited", range(4))
async def test_a_caller_that_goes_right_after_an_answer_leaves_no_request_in_work(
    waited: int,
) -> None:
    caller, work = Caller(), Work()
    work.gate.set()
    caller.takes.clear()
    running = asyncio.create_task(stream_of(caller, work).run())
    caller.requests.put_nowait(b"1")
    await turns(10)
    work.gate.clear()
    caller.requests.put_nowait(b"2")
    caller.takes.set()
    await turns(waited)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await turns(5)
    assert work.ended == work.begun


async def test_a_full_stream_reads_no_further_and_its_end_answers_what_is_in_work() -> None:
    caller, work = Caller(), Work()
    stream = stream_of(caller, work)
    running = asyncio.create_task(stream.run())
    for number in range(2 * MAX_IN_WORK):
        caller.requests.put_nowait(bytes([number]))
    await turns(100)
    assert work.begun == MAX_IN_WORK
    stream.end("the runtime is stopping")
    work.gate.set()
    with pytest.raises(StreamEndedError, match="stopping"):
        await running
    assert caller.answers == [bytes([number]) for number in range(MAX_IN_WORK)]


class Forgetful(Caller):
    """A caller who keeps no answer."""

    async def write(self, answer: bytes) -> None:
        """Let go of it."""


async def test_an_idle_stream_holds_neither_request_nor_answer() -> None:
    freed: list[int] = []

    class Payload(bytes):
        def __del__(self) -> None:
            freed.append(len(self))

    caller, work = Forgetful(), Work()
    work.gate.set()
    running = asyncio.create_task(stream_of(caller, work).run())
    caller.requests.put_nowait(Payload(b"request and answer"))
    await turns(20)
    assert freed == [len(b"request and answer")]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
