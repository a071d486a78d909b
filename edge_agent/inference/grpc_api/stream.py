"""ModelStreamInfer: requests in, answers out in the same order, several of them in work at once.

One task reads requests and begins them, another writes the answers. While as many are in work as
may be, nothing is read, and gRPC's flow control holds the caller back.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from edge_agent.inference.answer_memory import StreamAnswers
from edge_agent.inference.errors import UnavailableError
from edge_agent.inference.grpc_api.calls import Context, refuse

MAX_IN_WORK = 16
"""Requests of one stream; more of them would only wait for the model in our memory."""

_Answer = bytes | asyncio.Future[bytes]


class InferStream:
    """One stream."""

    def __init__(
        self,
        context: Context,
        answer: Callable[[bytes], bytes | Awaitable[bytes]],
        *,
        answers: StreamAnswers,
        clock: Callable[[], float],
    ) -> None:
        """Read nothing yet.

        Args:
            context: the call.
            answer: answers a request, at once or later, and raises nothing.
            answers: has counted each answer; hears when one has been written.
            clock: in seconds, monotonic.
        """
        self._context = context
        self._answer = answer
        self._unread = answers
        self._awaited: _Answer = b""
        self._answers: asyncio.Queue[_Answer | None] = asyncio.Queue()
        self._places = asyncio.Semaphore(MAX_IN_WORK)
        self._clock = clock
        self._used_at = clock()
        self._in_work = 0
        self._ending = ""
        self._reader: asyncio.Task[None] | None = None

    @property
    def idle_since(self) -> float:
        """When the last answer was written, infinity while a request is in work."""
        return math.inf if self._in_work else self._used_at

    def end(self, reason: str) -> None:
        """Take no further request; those in work are answered before the stream ends."""
        self._ending = reason
        if self._reader is not None:
            self._reader.cancel()

    async def run(self) -> None:
        """Answer until the caller has sent its last request, or until the end is asked for."""
        self._reader = asyncio.get_running_loop().create_task(self._read())
        if self._ending:
            self._reader.cancel()
        try:
            while (coming := await self._answers.get()) is not None:
                self._awaited = coming
                answer = coming if isinstance(coming, bytes) else await asyncio.shield(coming)
                await self._context.write(answer)
                self._unread.written(len(answer))
                # It is in no account any more, and the next one may be long in coming.
                coming = answer = self._awaited = b""
                self._in_work -= 1
                self._places.release()
                self._used_at = self._clock()
        finally:
            self._reader.cancel()
            self._forget_answers()
            self._unread.end()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._ending:
            await refuse(self._context, UnavailableError(self._ending))

    async def _read(self) -> None:
        # Whatever waits here can be cancelled: a request that has begun is in the queue already.
        try:
            while True:
                await self._places.acquire()
                payload = await self._context.read()
                if not isinstance(payload, bytes):
                    return  # grpc.aio.EOF, after the last request
                self._in_work += 1
                answer = self._answer(payload)
                self._answers.put_nowait(
                    answer if isinstance(answer, bytes) else asyncio.ensure_future(answer)
                )
                del payload, answer
        finally:
            self._answers.put_nowait(None)

    def _forget_answers(self) -> None:
        """Withdraw what is still in work when the caller has gone."""
        loop = asyncio.get_running_loop()
        answer: _Answer | None = self._awaited
        while True:
            if isinstance(answer, asyncio.Future):
                # Behind its own first step: a task that is cancelled before never runs, and would
                # keep its call in flight and the model in memory for ever.
                loop.call_soon(answer.cancel)
            if self._answers.empty():
                return
            answer = self._answers.get_nowait()
