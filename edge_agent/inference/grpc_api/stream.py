"""ModelStreamInfer: requests in, answers out in the same order, several of them in work at once.

One task reads requests and begins them, another writes the answers. A queue between them bounds
what is in work: while it is full nothing is read, and gRPC's flow control holds the caller back.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

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
        clock: Callable[[], float],
    ) -> None:
        """Read nothing yet.

        Args:
            context: the call.
            answer: answers a request, at once or later, and raises nothing.
            clock: in seconds, monotonic.
        """
        self._context = context
        self._answer = answer
        self._answers: asyncio.Queue[_Answer | None] = asyncio.Queue(MAX_IN_WORK)
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
            while (answer := await self._answers.get()) is not None:
                await self._context.write(answer if isinstance(answer, bytes) else await answer)
                self._in_work -= 1
                self._used_at = self._clock()
        finally:
            self._reader.cancel()
            self._forget_answers()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._ending:
            await refuse(self._context, UnavailableError(self._ending))

    async def _read(self) -> None:
        try:
            # After the last request it is grpc.aio.EOF.
            while isinstance(payload := await self._context.read(), bytes):
                self._in_work += 1
                answer = self._answer(payload)
                await self._answers.put(
                    answer if isinstance(answer, bytes) else asyncio.ensure_future(answer)
                )
        finally:
            await self._answers.put(None)

    def _forget_answers(self) -> None:
        """Withdraw what is still in work when the caller has gone."""
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if isinstance(answer, asyncio.Future):
                answer.cancel()
